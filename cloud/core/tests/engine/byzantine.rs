//! A node with a certificate of its own that speaks of what is not its own.

use crate::common::{Env, all_done, ended, on, started, task, workflow};
use cloud_core::event::{Reply, Request};
use shared::fact::{Body, SliceState, TaskStatus};
use shared::ids::{SliceRef, TaskIdx};
use shared::state::TaskState;
use shared::wire::{Inventory, Up};

/// A run at `gw-1`, begun there, and `gw-2` that has nothing of it.
fn with_a_stranger() -> (Env, shared::ids::RunId, SliceRef) {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let run = env.submit(vec![on("gw-1", task("a", &[]))]);
    let slice = env.takes_up("gw-1");
    (env, run, slice)
}

/// The fact of an attempt at a task that the workflow does not have marked rows that are not there
/// as changed: one fact of any node ended the coordinator, at each start again.
#[test]
fn a_task_that_is_not_there_ends_nothing() {
    let (mut env, run, slice) = with_a_stranger();
    for far in [1, 300, u32::MAX] {
        env.tell(
            "gw-2",
            vec![started(slice, far, 1), ended(slice, far, 1, true)],
        );
    }
    let assign = env.agent("gw-1").assigns()[0].clone();
    env.tell("gw-1", all_done(&assign)[2..].to_vec());
    assert_eq!(env.run(run).state, "succeeded");
}

/// A pause mark that a node set on a run of which it has nothing paused the run for all.
#[test]
fn a_node_pauses_no_run_of_which_it_has_nothing() {
    let (mut env, run, slice) = with_a_stranger();
    let pause = |on| Body::PausedHere {
        run: slice.run,
        on,
        by: "ada".to_owned(),
    };
    env.tell("gw-2", vec![pause(true)]);
    assert_eq!(env.run(run).state, "running");
    env.tell("gw-1", vec![pause(true)]);
    assert_eq!(env.run(run).state, "paused");
    env.tell("gw-2", vec![pause(false)]);
    assert_eq!(env.run(run).state, "paused", "the mark is the other node's");
}

/// A node that let itself be asked for its inventory, by declaring a hole in its facts, took the
/// slices of others by naming newer epochs.
#[test]
fn an_inventory_takes_no_slice_of_another_node() {
    let (mut env, run, slice) = with_a_stranger();
    let agent = env.agent("gw-2");
    let number = agent.head.number + 5;
    agent.head.number = number;
    let hole = Body::Reset {
        from: 1,
        to: number,
        why: "it says so".to_owned(),
        slices: Vec::new(),
    };
    env.tell("gw-2", vec![hole]);
    assert!(env.hello("gw-2").unwrap().want_inventory);
    let mut theirs = slice;
    theirs.epoch.0 += 1;
    let status = TaskStatus {
        task: TaskIdx(0),
        state: TaskState::Ready,
        attempts: 0,
        outputs: Vec::new(),
    };
    let claim = SliceState {
        slice: theirs,
        workflow: shared::codec::pack(&workflow(vec![on("gw-1", task("a", &[]))])).1,
        tasks: vec![status],
    };
    let inventory = Inventory {
        slices: vec![claim],
        workflows: Vec::new(),
        directives: Vec::new(),
    };
    env.say("gw-2", Up::Inventory(inventory));
    assert_eq!(env.task(run, "a").node.as_deref(), Some("gw-1"));
    let assign = env.agent("gw-1").assigns()[0].clone();
    env.tell("gw-1", all_done(&assign)[2..].to_vec());
    assert_eq!(env.run(run).state, "succeeded");
}

/// A node said that a slice was over in which a task ran: when it was declared gone nobody lost the
/// task, and who waited for it waited for ever.
#[test]
fn a_slice_with_an_open_task_is_not_over() {
    let (mut env, run, slice) = with_a_stranger();
    env.tell("gw-1", vec![Body::SliceDone { slice }]);
    let node = env.agent("gw-1").node;
    let by = "ada".to_owned();
    let reply = env.ask(Request::ForgetNode { node, by });
    assert!(matches!(reply, Reply::Done), "{reply:?}");
    assert_eq!(env.task(run, "a").state, "lost");
}
