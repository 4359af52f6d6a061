//! Taints, spreading, tasks beside and apart from each other, nodes that people keep work off, and
//! nodes where attempts fail.

use crate::common::{Env, all_done, ended, on, started, task};
use cloud_core::change::NodeChange;
use cloud_core::event::{Reply, Request};
use shared::fact::Body;
use shared::ids::{RunId, TaskIdx};
use shared::workflow::Task;
use std::collections::BTreeMap;

fn fleet() -> Env {
    let mut env = Env::new();
    for name in ["gw-1", "gw-2", "gw-3"] {
        env.join(name);
    }
    env
}

pub(crate) fn change(env: &mut Env, name: &str, change: NodeChange) {
    let node = env.agent(name).node;
    let by = "ann".to_owned();
    let request = Request::ChangeNode { node, change, by };
    assert_eq!(env.ask(request), Reply::Done);
}

fn taint(env: &mut Env, name: &str, text: &str) {
    let add = vec![text.parse().expect("a taint")];
    let remove = Vec::new();
    change(env, name, NodeChange::Taint { add, remove });
}

fn places(env: &mut Env, run: RunId) -> Vec<Option<String>> {
    let Reply::Tasks(tasks) = env.ask(Request::Tasks { run, state: None }) else {
        panic!()
    };
    tasks.into_iter().map(|task| task.node).collect()
}

fn why(env: &mut Env, run: RunId, task: &str) -> (String, String) {
    let task = task.to_owned();
    let Reply::Explain(why) = env.ask(Request::Explain { run, task }) else {
        panic!()
    };
    let last = why.decisions.last().expect("a decision");
    (last.reason.clone(), why.summary)
}

fn with(mut task: Task, change: impl FnOnce(&mut shared::workflow::Placement)) -> Task {
    change(&mut task.placement);
    task
}

fn some(name: &str) -> Option<String> {
    Some(name.to_owned())
}

#[test]
fn a_taint_keeps_off_what_does_not_tolerate_it() {
    let mut env = fleet();
    taint(&mut env, "gw-1", "gpu:refuse");
    taint(&mut env, "gw-2", "link=slow:refuse");
    let run = env.submit((0..4).map(|n| task(&format!("t{n}"), &[])).collect());
    assert_eq!(places(&mut env, run), vec![some("gw-3"); 4]);
    let tolerant = |key: &str| {
        with(on("gw-1", task("a", &[])), |p| {
            p.tolerations = vec![key.into()]
        })
    };
    let run = env.submit(vec![tolerant("gpu")]);
    assert_eq!(places(&mut env, run), [some("gw-1")]);
    let run = env.submit(vec![tolerant("link")]);
    assert_eq!(places(&mut env, run), [None]);
    let (reason, text) = why(&mut env, run, "a");
    assert_eq!(reason, "waits_for_node");
    assert!(text.contains("gw-1 has the taint gpu:refuse"), "{text}");
    let remove = vec!["gpu".to_owned()];
    let add = Vec::new();
    change(&mut env, "gw-1", NodeChange::Taint { add, remove });
    assert_eq!(places(&mut env, run), [some("gw-1")], "it waits no longer");
}

#[test]
fn a_node_to_be_avoided_is_the_last_choice() {
    let mut env = fleet();
    taint(&mut env, "gw-1", "old:avoid");
    let run = env.submit((0..4).map(|n| task(&format!("t{n}"), &[])).collect());
    assert!(!places(&mut env, run).contains(&some("gw-1")));
    env.hang_up("gw-2");
    env.hang_up("gw-3");
    let run = env.submit(vec![task("a", &[])]);
    assert_eq!(places(&mut env, run), [some("gw-1")]);
}

#[test]
fn labels_of_people_lie_over_those_of_the_agent_and_stay() {
    let mut env = fleet();
    let site = |value: Option<&str>| {
        NodeChange::Label([("site".to_owned(), value.map(str::to_owned))].into())
    };
    change(&mut env, "gw-2", site(Some("north")));
    env.hang_up("gw-2");
    env.hello("gw-2").expect("a welcome");
    let run = env.submit(vec![with(task("a", &[]), |p| p.site = some("north"))]);
    assert_eq!(places(&mut env, run), [some("gw-2")]);
    let store = env.store.clone();
    env.restart(store);
    env.hello("gw-2").expect("a welcome");
    assert_eq!(env.node("gw-2").labels["site"], "north");
    change(&mut env, "gw-2", site(None));
    assert!(!env.node("gw-2").labels.contains_key("site"));
}

#[test]
fn tasks_are_spread_over_nodes_and_labels_although_they_are_linked() {
    let mut env = fleet();
    let spread = |over: &str, id: &str| with(task(id, &[0]), |p| p.spread = some(over));
    let mut tasks = vec![task("load", &[])];
    tasks.extend((0..6).map(|n| spread("node", &format!("t{n}"))));
    let run = env.submit(tasks);
    let mut at: BTreeMap<String, usize> = BTreeMap::new();
    for place in &places(&mut env, run)[1..] {
        *at.entry(place.clone().expect("placed")).or_default() += 1;
    }
    assert_eq!(at.into_values().collect::<Vec<_>>(), [2, 2, 2]);
    assert_eq!(why(&mut env, run, "t0").0, "spread_out");
    let site = |value: &str| NodeChange::Label([("site".to_owned(), some(value))].into());
    change(&mut env, "gw-1", site("a"));
    change(&mut env, "gw-2", site("a"));
    change(&mut env, "gw-3", site("b"));
    let mut tasks = vec![task("load", &[])];
    tasks.extend((0..4).map(|n| spread("site", &format!("t{n}"))));
    let run = env.submit(tasks);
    let places = places(&mut env, run);
    let third = places[1..].iter().filter(|p| **p == some("gw-3")).count();
    assert_eq!(third, 2, "{places:?}");
}

#[test]
fn tasks_are_kept_apart_and_together() {
    let mut env = fleet();
    let all = vec![(TaskIdx(0), TaskIdx(3))];
    let copy = |id: &str| with(task(id, &[]), |p| p.anti_affinity = all.clone());
    let run = env.submit((0..4).map(|n| copy(&format!("c{n}"))).collect());
    let mut at = places(&mut env, run);
    at.sort();
    assert_eq!(at, [None, some("gw-1"), some("gw-2"), some("gw-3")]);
    let beside = |id: &str, other: u32| {
        with(task(id, &[]), |p| {
            p.affinity = vec![(TaskIdx(other), TaskIdx(other))]
        })
    };
    let run = env.submit(vec![
        on("gw-2", task("a", &[])),
        beside("b", 0),
        beside("c", 1),
    ]);
    assert_eq!(places(&mut env, run), vec![some("gw-2"); 3]);
    assert_eq!(why(&mut env, run, "c").0, "next_to_task");
    let apart = vec![on("gw-1", task("a", &[])), on("gw-2", beside("b", 0))];
    let run = env.submit(apart);
    assert_eq!(places(&mut env, run), [some("gw-1"), None]);
    let text = why(&mut env, run, "b").1;
    assert!(text.contains("together with the tasks"), "{text}");
}

#[test]
fn a_cordoned_node_keeps_its_work_and_is_given_none() {
    let mut env = fleet();
    let before = env.submit(vec![on("gw-1", task("a", &[]))]);
    change(&mut env, "gw-1", NodeChange::Cordon);
    let store = env.store.clone();
    env.restart(store);
    for name in ["gw-1", "gw-2", "gw-3"] {
        env.hello(name).expect("a welcome");
    }
    let run = env.submit((0..6).map(|n| task(&format!("t{n}"), &[])).collect());
    assert!(!places(&mut env, run).contains(&some("gw-1")));
    let named = env.submit(vec![on("gw-1", task("a", &[]))]);
    let text = why(&mut env, named, "a").1;
    assert!(text.contains("gw-1 is cordoned by ann"), "{text}");
    let given_none = |env: &mut Env| {
        let waits = env.waits();
        waits
            .iter()
            .any(|w| w == "cordoned by ann: it is given no work")
    };
    assert!(given_none(&mut env), "a person must end it");
    let assign = env.agent("gw-1").assigns()[0].clone();
    env.tell("gw-1", all_done(&assign));
    assert_eq!(env.run(before).state, "succeeded");
    change(&mut env, "gw-1", NodeChange::Uncordon);
    assert_eq!(places(&mut env, named), [some("gw-1")]);
    assert!(!given_none(&mut env));
}

#[test]
fn a_drain_says_what_stays_and_why_and_goes_on_by_itself() {
    let mut env = Env::new();
    env.join("gw-1");
    let pinned = env.submit(vec![on("gw-1", task("p", &[]))]);
    let free = env.submit(vec![task("f", &[])]);
    let free_slice = env.agent("gw-1").last_slice();
    env.tell("gw-1", vec![Body::Accepted { slice: free_slice }]);
    let node = env.agent("gw-1").node;
    let (on, by) = (true, "ann".to_owned());
    assert_eq!(env.ask(Request::Drain { node, on, by }), Reply::Done);
    let work = |env: &mut Env| {
        let name = "gw-1".to_owned();
        let Reply::NodeWork(work) = env.ask(Request::NodeWork { name }) else {
            panic!()
        };
        *work
    };
    let left = work(&mut env);
    assert_eq!((left.left, left.moving), (2, 0));
    let why = |run: RunId| {
        let slice = left.slices.iter().find(|s| s.run == run);
        slice.map(|s| s.why.clone()).expect("listed")
    };
    assert_eq!(why(pinned), "task p names this node");
    assert_eq!(why(free), "task f: gw-1 is drained");
    env.join("gw-2");
    let left = work(&mut env);
    assert_eq!(
        (left.left, left.moving),
        (2, 1),
        "there is a place for it now"
    );
    let in_doubt = Vec::new();
    env.tell(
        "gw-1",
        vec![Body::Released {
            slice: free_slice,
            in_doubt,
        }],
    );
    assert_eq!(work(&mut env).left, 1);
    let assign = env.agent("gw-2").assigns()[0].clone();
    env.tell("gw-2", all_done(&assign));
    assert_eq!(env.run(free).state, "succeeded");
}

#[test]
fn the_status_of_a_nodes_logs_says_what_is_behind() {
    let mut env = fleet();
    env.hang_up("gw-1");
    env.submit(vec![on("gw-1", task("a", &[]))]);
    let name = "gw-1".to_owned();
    let Reply::SyncStatus(status) = env.ask(Request::SyncStatus { name }) else {
        panic!()
    };
    assert_eq!(status.session, None);
    assert_eq!(status.classes[1].class, "directives");
    assert_eq!(status.classes[1].behind, 1);
    assert!(status.classes[1].age_ms.is_some());
}

#[test]
fn a_node_where_attempts_fail_is_given_less_and_never_nothing() {
    let mut env = fleet();
    for _ in 0..4 {
        let run = env.submit(vec![on("gw-1", task("a", &[]))]);
        let slice = env.agent("gw-1").last_slice();
        let facts = vec![
            Body::Accepted { slice },
            started(slice, 0, 1),
            ended(slice, 0, 1, false),
            Body::SliceDone { slice },
        ];
        env.tell("gw-1", facts);
        assert_eq!(env.run(run).state, "failed");
    }
    assert!(env.node("gw-1").distrust_milli > 1000);
    let run = env.submit((0..30).map(|n| task(&format!("t{n}"), &[])).collect());
    let places = places(&mut env, run);
    let first = places.iter().filter(|p| **p == some("gw-1")).count();
    assert!((1..8).contains(&first), "{first} of 30");
}
