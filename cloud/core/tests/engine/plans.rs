//! What a plan tells of a workflow that was not submitted.

use crate::common::Env;
use cloud_core::event::{Reply, Request};
use cloud_core::plan::plan;
use cloud_core::view::CriticalPath;
use shared::spec::{SentFiles, submission};
use shared::time::Unix;
use shared::workflow::Workflow;
use std::collections::BTreeMap;

/// `a` before `x`, and beside them `b` before `c` before `d`. The compiler writes into each task
/// what its specification says of the time that it takes, here nothing.
fn two_ways() -> Workflow {
    let one =
        |(id, needs): (&str, &str)| format!("  {id}: {{command: [prog], needs: [{needs}]}}\n");
    let tasks = [("a", ""), ("x", "a"), ("b", ""), ("c", "b"), ("d", "c")].map(one);
    let text = format!("name: test\ntasks:\n{}", tasks.concat());
    let (params, sent) = (BTreeMap::new(), SentFiles::new());
    submission("flow.yaml", &text, &params, &sent, Unix(0)).expect("compiles")
}

/// The longest path where earlier runs took so many milliseconds.
fn longest(flow: Workflow, took: &[(&str, u64)]) -> CriticalPath {
    let mut env = Env::new();
    env.join("gw-1");
    let workflow = flow.name.clone();
    let Reply::Ground(mut ground) = env.ask(Request::Ground { workflow }) else {
        panic!("no ground");
    };
    let took = took.iter().map(|(id, ms)| ((*id).to_owned(), *ms));
    ground.history = (took.collect(), 3);
    plan(flow, &ground, None).expect("a plan").critical_path
}

#[test]
fn the_longest_path_takes_what_its_tasks_took() {
    let path = longest(
        two_ways(),
        &[("a", 700), ("x", 50), ("b", 100), ("c", 200), ("d", 300)],
    );
    assert_eq!(
        (path.tasks.join(" ").as_str(), path.takes_ms),
        ("a x", Some(750))
    );
    assert_eq!((path.unknown, path.estimated, path.runs), (0, 0, 3));
}

#[test]
fn a_task_of_which_nobody_knows_counts_as_the_median_of_the_others() {
    let path = longest(two_ways(), &[("a", 150), ("b", 100)]);
    assert_eq!(
        (path.tasks.join(" ").as_str(), path.takes_ms),
        ("b c d", Some(100))
    );
    assert_eq!(path.unknown, 2);
}

#[test]
fn what_is_known_of_one_task_counts_for_all_others() {
    let path = longest(two_ways(), &[("a", 100)]);
    assert_eq!((path.tasks.join(" ").as_str(), path.unknown), ("b c d", 3));
    assert_eq!(path.takes_ms, None, "of none of them anybody knows");
}
