//! Evidence of decisions comes up from the edge: shown with its task, bounded, and believed only
//! from the node that owns the task.

use crate::common::{Env, all_done, config, ended, on, started, task};
use cloud_core::event::{Reply, Request};
use cloud_core::run::DECISION_BYTES;
use cloud_core::store::{AggregateId, Store};
use cloud_core::view;
use shared::explain::{Decision, DecisionKind, Evidence, Reason};
use shared::ids::{RunId, SliceRef, TaskIdx};
use shared::wire::{Detail, Up};

fn held(fact: u64, slice: SliceRef, task: u32, free: u64) -> Detail {
    Detail {
        fact,
        task: Some((slice, TaskIdx(task))),
        decision: Decision {
            action: DecisionKind::Held,
            reason: Reason::WaitsForResources,
            confidence_milli: 1000,
            evidence: vec![Evidence::new("free_cpu_milli", free)],
            repeats: 0,
        },
    }
}

/// The decisions about a task that were made at a gateway.
fn of_edge(env: &mut Env, run: RunId, task: &str) -> Vec<view::Decision> {
    let task = task.to_owned();
    let Reply::Explain(why) = env.ask(Request::Explain { run, task }) else {
        panic!()
    };
    let edge = |d: &view::Decision| d.action == "held";
    why.decisions.into_iter().filter(edge).collect()
}

#[test]
fn evidence_of_a_gateway_stands_with_its_task_and_survives_a_restart() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[]), task("b", &[])]);
    let slice = env.agent("gw-1").last_slice();
    env.tell("gw-1", vec![started(slice, 0, 1)]);
    env.say("gw-1", Up::Details(vec![held(1, slice, 1, 250)]));
    env.say("gw-1", Up::Details(vec![held(1, slice, 1, 250)]));
    let seen = of_edge(&mut env, run, "b");
    assert_eq!(seen.len(), 1, "the same again raises a counter: {seen:?}");
    assert_eq!(seen[0].decision_id.split('.').next(), Some("gw-1/1"));
    assert_eq!(seen[0].reason, "waits_for_resources");
    assert_eq!(seen[0].evidence, ["free_cpu_milli=250"]);
    assert_eq!(seen[0].repeats, 1);
    assert!(of_edge(&mut env, run, "a").is_empty());
    let store = env.store.clone();
    env.restart(store);
    assert_eq!(of_edge(&mut env, run, "b"), seen);
}

/// Found by seed 48246: a liar's counter overflowed.
#[test]
fn a_gateway_may_say_any_number_of_repeats() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[])]);
    let slice = env.agent("gw-1").last_slice();
    for _ in 0..2 {
        let mut detail = held(1, slice, 0, 250);
        detail.decision.repeats = u32::MAX;
        env.say("gw-1", Up::Details(vec![detail]));
    }
    let seen = of_edge(&mut env, run, "a");
    assert_eq!((seen.len(), seen[0].repeats), (1, u32::MAX));
}

#[test]
fn the_oldest_evidence_goes_when_the_quota_is_used_up_and_nothing_else_does() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[])]);
    let slice = env.agent("gw-1").last_slice();
    let quota = config().decisions_per_run;
    let many = (0..3 * quota as u64).map(|n| held(1, slice, 0, n));
    env.say("gw-1", Up::Details(many.collect()));
    let seen = of_edge(&mut env, run, "a");
    assert_eq!(seen.len(), quota, "the newest");
    let last = format!("free_cpu_milli={}", 3 * quota - 1);
    assert_eq!(seen.last().unwrap().evidence, [last]);
    let mut rows = 0;
    let each = &mut |_: &str, _: &[u8]| rows += 1;
    env.engine
        .store()
        .rows(AggregateId::Run(run), "d", each)
        .unwrap();
    assert!(rows <= quota / 64 + 2, "{rows} rows are stored");
    let assign = env.agent("gw-1").assigns()[0].clone();
    env.tell("gw-1", all_done(&assign));
    assert_eq!(env.run(run).state, "succeeded");
}

#[test]
fn a_decision_of_many_bytes_is_not_kept() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[])]);
    let slice = env.agent("gw-1").last_slice();
    let mut wide = held(1, slice, 0, 1);
    wide.decision.evidence[0].value = "9".repeat(DECISION_BYTES);
    env.say("gw-1", Up::Details(vec![wide, held(1, slice, 0, 2)]));
    let seen = of_edge(&mut env, run, "a");
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].evidence, ["free_cpu_milli=2"]);
}

#[test]
fn evidence_about_what_a_node_does_not_own_is_not_believed() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let run = env.submit(vec![on("gw-1", task("a", &[])), on("gw-2", task("b", &[]))]);
    let slice = env.agent("gw-1").last_slice();
    let stranger = RunId([0xab; 16]);
    let elsewhere = SliceRef {
        run: stranger,
        ..slice
    };
    env.say(
        "gw-2",
        Up::Details(vec![
            held(1, slice, 0, 1),
            held(1, slice, 99, 2),
            held(1, elsewhere, 0, 3),
        ]),
    );
    assert!(of_edge(&mut env, run, "a").is_empty());
    assert!(of_edge(&mut env, run, "b").is_empty());
    let Reply::Runs(runs) = env.ask(Request::Runs { state: None }) else {
        panic!()
    };
    assert_eq!(runs.len(), 1, "evidence makes no run");
    env.tell("gw-1", vec![started(slice, 0, 1), ended(slice, 0, 1, true)]);
    assert_eq!(env.task(run, "a").state, "succeeded");
}
