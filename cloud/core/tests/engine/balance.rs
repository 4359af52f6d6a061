//! Where several nodes fit equally: the load decides, and what is linked stays together.

use crate::common::{Env, all_done, on, task};
use cloud_core::event::{Reply, Request};
use cloud_core::run::place::{Candidate, Question, choose};
use shared::ids::{Incarnation, NodeId, RunId, TaskIdx};
use shared::time::Span;
use shared::workflow::Resources;
use std::collections::BTreeMap;

fn fleet() -> Env {
    let mut env = Env::new();
    for name in ["gw-1", "gw-2", "gw-3"] {
        env.join(name);
    }
    env
}

/// Tasks given to each node so far.
fn given(env: &mut Env) -> Vec<usize> {
    let names: Vec<String> = env.agents.keys().cloned().collect();
    let count = |name: &String| {
        let assigns = env.agent(name).assigns();
        assigns.iter().map(|a| a.tasks.len()).sum()
    };
    names.iter().map(count).collect()
}

fn why(env: &mut Env, run: RunId, task: &str) -> (String, Vec<String>) {
    let task = task.to_owned();
    let Reply::Explain(why) = env.ask(Request::Explain { run, task }) else {
        panic!()
    };
    let placed = why.decisions[0].clone();
    (placed.reason, placed.evidence)
}

#[test]
fn independent_tasks_are_spread_evenly() {
    let mut env = fleet();
    let tasks = (0..30).map(|n| task(&format!("t{n}"), &[])).collect();
    let run = env.submit(tasks);
    assert_eq!(given(&mut env), [10, 10, 10]);
    let (reason, evidence) = why(&mut env, run, "t0");
    assert_eq!(reason, "least_loaded");
    assert!(
        evidence.contains(&"nodes_usable=3".to_owned()),
        "{evidence:?}"
    );
}

#[test]
fn later_runs_go_where_less_is_open() {
    let mut env = fleet();
    for want in [[1, 0, 0], [1, 1, 0], [1, 1, 1], [2, 1, 1]] {
        env.submit(vec![task("a", &[])]);
        assert_eq!(given(&mut env), want);
    }
    let second = env.agent("gw-2").assigns()[0].clone();
    env.tell("gw-2", all_done(&second));
    env.submit(vec![task("a", &[])]);
    assert_eq!(given(&mut env), [2, 2, 1], "what has ended is no load");
    env.submit((0..4).map(|n| task(&format!("t{n}"), &[])).collect());
    assert_eq!(given(&mut env), [3, 4, 2], "a large run fills the valleys");
}

#[test]
fn chains_stay_whole_and_are_spread() {
    let mut env = fleet();
    let mut tasks = Vec::new();
    for chain in 0..3 {
        let first = chain * 3;
        tasks.push(task(&format!("a{chain}"), &[]));
        tasks.push(task(&format!("b{chain}"), &[first]));
        tasks.push(task(&format!("c{chain}"), &[first + 1]));
    }
    env.submit(tasks);
    assert_eq!(given(&mut env), [3, 3, 3]);
    for name in ["gw-1", "gw-2", "gw-3"] {
        let tasks = env.agent(name).assigns()[0].tasks.clone();
        let chain = tasks[0].0 / 3;
        assert!(tasks.iter().all(|t| t.0 / 3 == chain), "{tasks:?}");
    }
}

#[test]
fn a_reader_goes_to_its_data_although_another_node_is_idle() {
    let mut env = fleet();
    env.submit((0..3).map(|n| task(&format!("t{n}"), &[])).collect());
    let run = env.submit(vec![on("gw-3", task("made", &[])), task("read", &[0])]);
    assert_eq!(given(&mut env), [1, 1, 3]);
    assert_eq!(why(&mut env, run, "read").0, "keeps_together");
}

#[test]
fn a_node_that_is_away_gets_nothing_that_another_can_do() {
    let mut env = fleet();
    env.hang_up("gw-2");
    env.submit((0..10).map(|n| task(&format!("t{n}"), &[])).collect());
    assert_eq!(given(&mut env), [5, 0, 5]);
}

#[test]
fn a_larger_node_takes_a_larger_share() {
    let nodes: Vec<Candidate> = [1000, 3000]
        .into_iter()
        .zip(1..)
        .map(|(cpu_milli, n)| Candidate {
            id: NodeId([n; 16]),
            incarnation: Incarnation([n; 16]),
            name: format!("gw-{n}"),
            labels: BTreeMap::new(),
            capacity: Resources {
                cpu_milli,
                ..Resources::default()
            },
            online: true,
            silence: Span(0),
            load: 0,
            taints: Vec::new(),
            distrust: 0,
            refused: None,
            first_release: false,
        })
        .collect();
    let tasks = (0..40).map(|n| task(&format!("t{n}"), &[])).collect();
    let workflow = crate::common::workflow(tasks);
    let all: Vec<TaskIdx> = (0..40).map(TaskIdx).collect();
    let none = vec![Vec::new(); 40];
    let choice = choose(&Question {
        workflow: &workflow,
        deps: &none,
        dependents: &none,
        tasks: &all,
        there: &BTreeMap::new(),
        nodes: &nodes,
    });
    let large = choice.placed.values().filter(|(node, _)| *node == 1);
    assert_eq!(large.count(), 30);
}
