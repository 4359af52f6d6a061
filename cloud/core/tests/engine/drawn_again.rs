//! The coordinator's store went back, and what it had given away is given away again before the
//! node that has it was heard.

use crate::common::{Env, all_done, ended, on, started, task, workflow};
use crate::restore::{asked_back, comes_back};
use cloud_core::event::Request;
use shared::directive::Assign;
use shared::fact::Body;
use shared::ids::SliceRef;
use shared::state::TaskState;
use shared::time::Span;
use shared::workflow::{SideEffects, Task};

/// Found by seed 798: the number of a slice that the store had forgotten was drawn again before its
/// node was heard; nobody asked that node for the slice any more.
#[test]
fn a_slice_whose_number_was_drawn_again_is_asked_back() {
    let mut env = Env::new();
    let drain = |env: &mut Env, name: &str, on| {
        let (node, by) = (env.agent(name).node, "ann".to_owned());
        env.ask(Request::Drain { node, on, by });
    };
    for name in ["gw-1", "gw-2"] {
        env.join(name);
        drain(&mut env, name, true);
    }
    let flow = vec![task("a", &[])];
    let run = env.submit(flow.clone());
    let backup = env.store.image();
    drain(&mut env, "gw-1", false);
    let old = env.agent("gw-1").last_slice();
    env.tell("gw-1", vec![Body::Accepted { slice: old }]);
    env.restart(backup);
    env.hello("gw-2").unwrap();
    drain(&mut env, "gw-2", false);
    let again = env.agent("gw-2").assigns()[0].clone();
    assert_eq!(again.slice.slice, old.slice, "the number is drawn again");
    let inventory = env.agent("gw-1").inventory(&workflow(flow.clone()));
    comes_back(&mut env, "gw-1", inventory);
    assert_eq!(asked_back(&mut env, "gw-1", old), 0);
    env.agent("gw-2").commit(all_done(&again));
    let inventory = env.agent("gw-2").inventory(&workflow(flow));
    comes_back(&mut env, "gw-2", inventory);
    assert_eq!(env.run(run).state, "succeeded");
    assert_eq!(asked_back(&mut env, "gw-1", old), 1);
    let (slice, in_doubt) = (old, Vec::new());
    env.tell("gw-1", vec![Body::Released { slice, in_doubt }]);
    assert_eq!(env.node("gw-1").slices, 0);
}

/// Found by seed 2030: a gateway that called first was given a task which another one had, with
/// others, in a slice that the store had forgotten. That slice was taken over with what was left of
/// it, and nobody told its node what became of the task: it stood open there for ever.
#[test]
fn a_slice_of_which_a_part_is_elsewhere_is_asked_back() {
    let mut env = Env::new();
    let drain = |env: &mut Env, name: &str, on| {
        let (node, by) = (env.agent(name).node, "ann".to_owned());
        env.ask(Request::Drain { node, on, by });
    };
    let role = ("role".to_owned(), "press".to_owned());
    for (name, presses) in [("gw-1", true), ("gw-2", true), ("gw-3", false)] {
        env.install(name);
        let labels = presses.then(|| role.clone());
        env.agent(name).labels.extend(labels);
        env.hello(name).unwrap();
        drain(&mut env, name, true);
    }
    let mut a = task("a", &[]);
    a.placement.labels.extend([role]);
    let (b, c) = (on("gw-1", task("b", &[])), on("gw-3", task("c", &[])));
    let flow = vec![a, b, c];
    let run = env.submit(flow.clone());
    let backup = env.store.image();
    for name in ["gw-3", "gw-1"] {
        drain(&mut env, name, false);
        let slice = env.agent(name).last_slice();
        env.tell(name, vec![Body::Accepted { slice }]);
    }
    let old = env.agent("gw-1").last_slice();
    assert_eq!(env.agent("gw-1").assigns()[0].tasks.len(), 2);
    env.restart(backup);
    env.hello("gw-2").unwrap();
    drain(&mut env, "gw-2", false);
    let first = env.agent("gw-2").assigns()[0].clone();
    assert!(first.slice.slice < old.slice, "not the number of the other");
    env.agent("gw-2").commit(all_done(&first));
    for name in ["gw-1", "gw-3", "gw-2"] {
        assert_eq!(asked_back(&mut env, "gw-1", old), 0, "{name} was not heard");
        let inventory = env.agent(name).inventory(&workflow(flow.clone()));
        comes_back(&mut env, name, inventory);
    }
    assert_eq!(asked_back(&mut env, "gw-1", old), 1);
    let (slice, in_doubt) = (old, Vec::new());
    env.tell("gw-1", vec![Body::Released { slice, in_doubt }]);
    drain(&mut env, "gw-1", false);
    let again = env.agent("gw-1").assigns();
    let again = again.last().expect("what was left is placed anew");
    assert!(again.slice.epoch > old.epoch);
    assert_eq!(env.task(run, "a").state, "succeeded");
}

/// A slice with both tasks is at gw-1 when a copy is made of the store; behind it the second task
/// is lost there and given to gw-2, and the store goes back.
fn loses_a_task(once: bool) -> (Env, Vec<Task>, Assign, SliceRef) {
    let mut env = Env::new();
    env.join("gw-1");
    let mut a = on("gw-1", task("a", &[]));
    if once {
        a.side_effects = SideEffects::AtMostOnce;
    }
    let mut b = task("b", &[0]);
    b.disconnect.lost_after = Some(Span::secs(600));
    b.disconnect.replace = true;
    let flow = vec![a, b];
    env.submit(flow.clone());
    env.install("gw-2");
    env.takes_up("gw-1");
    let both = env.agent("gw-1").assigns()[0].clone();
    assert_eq!(both.tasks.len(), 2);
    let backup = env.store.image();
    env.hang_up("gw-1");
    env.hello("gw-2").unwrap();
    env.pass(Span::secs(3600));
    env.pass(Span::secs(3600));
    let new = env.agent("gw-2").last_slice();
    env.tell("gw-2", vec![Body::Accepted { slice: new }]);
    env.restart(backup);
    (env, flow, both, new)
}

/// The same, and both call, gw-1 with these facts more.
fn goes_back_behind_a_loss(once: bool, facts: fn(&Assign) -> Vec<Body>) -> (Env, SliceRef) {
    let (mut env, flow, both, new) = loses_a_task(once);
    let old = both.slice;
    env.agent("gw-1").commit(facts(&both));
    for name in ["gw-2", "gw-1"] {
        assert_eq!(asked_back(&mut env, "gw-1", old), 0, "{name} was not heard");
        let inventory = env.agent(name).inventory(&workflow(flow.clone()));
        comes_back(&mut env, name, inventory);
    }
    assert_eq!(asked_back(&mut env, "gw-2", new), 0);
    (env, old)
}

/// Found by seed 798: a slice had lost a task, which another gateway had then, and was asked back;
/// the store went back behind both. The other gateway named its slice, and nobody asked for the
/// rest of the first any more: it ended there, and what the task was to read was brought nowhere.
#[test]
fn a_slice_that_lost_a_task_to_one_that_was_forgotten_is_asked_back() {
    let (mut env, old) = goes_back_behind_a_loss(false, all_done);
    assert_eq!(asked_back(&mut env, "gw-1", old), 1);
    let (slice, in_doubt) = (old, Vec::new());
    env.tell("gw-1", vec![Body::Released { slice, in_doubt }]);
    assert_eq!(env.node("gw-1").slices, 0);
}

/// The same, but what runs there must not run twice: it is asked back when that has ended.
#[test]
fn a_slice_that_lost_a_task_is_not_asked_back_while_one_runs_that_must_not_run_twice() {
    let (mut env, old) = goes_back_behind_a_loss(true, |_| Vec::new());
    assert_eq!(asked_back(&mut env, "gw-1", old), 0);
    env.tell("gw-1", vec![ended(old, 0, 1, true)]);
    assert_eq!(asked_back(&mut env, "gw-1", old), 1);
}

/// Found by seed 36162: the first gateway called alone and told that all its slice was done, so the
/// slice was over; only then the other one showed that the store had gone back. What the task at
/// that one is to read was brought nowhere, and nobody asked for it.
#[test]
fn a_slice_that_was_over_before_one_that_was_forgotten_was_told_of_is_asked_back() {
    for order in [["gw-1", "gw-2"], ["gw-2", "gw-1"]] {
        let (mut env, flow, both, new) = loses_a_task(false);
        let (old, run) = (both.slice, both.slice.run);
        env.hello("gw-1").unwrap();
        env.tell("gw-1", all_done(&both));
        assert_eq!(env.run(run).state, "succeeded");
        env.hello("gw-2").unwrap();
        for name in order {
            assert_eq!(asked_back(&mut env, "gw-1", old), 0);
            let mut inventory = env.agent(name).inventory(&workflow(flow.clone()));
            if name == "gw-1" {
                let tasks = inventory.slices.iter_mut().flat_map(|s| &mut s.tasks);
                tasks.for_each(|task| task.state = TaskState::Succeeded);
            }
            comes_back(&mut env, name, inventory);
        }
        assert_eq!(env.task(run, "b").node.as_deref(), Some("gw-2"));
        assert_eq!(asked_back(&mut env, "gw-1", old), 1);
        assert_eq!(asked_back(&mut env, "gw-2", new), 0);
        let (slice, in_doubt) = (old, Vec::new());
        env.tell("gw-1", vec![Body::Released { slice, in_doubt }]);
        assert_eq!(env.task(run, "a").state, "succeeded");
        env.tell("gw-2", vec![started(new, 1, 1), ended(new, 1, 1, true)]);
        assert_eq!(env.run(run).state, "succeeded");
    }
}
