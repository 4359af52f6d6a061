//! What a coordinator whose store went back still learns of runs that it does not know: from facts
//! where no inventory names a slice any more, from an inventory where the facts are gone.

use crate::common::{Env, ended, on, started, task, workflow};
use crate::restore::{all_of, comes_back, empty, origin};
use cloud_core::event::{Reply, Request};
use cloud_core::run::moves::UNHEARD;
use shared::directive::Body as Wanted;
use shared::fact::{Body, SliceState, TaskStatus};
use shared::ids::{Epoch, RunId, SliceRef, TaskIdx};
use shared::state::TaskState;
use shared::wire::{Inventory, Up};
use shared::workflow::{SideEffects, Task};

/// A task that must not run twice, and one that fails.
fn once_and_failing() -> Vec<Task> {
    let mut once = on("gw-1", task("once", &[]));
    once.side_effects = SideEffects::AtMostOnce;
    vec![once, on("gw-1", task("fails", &[]))]
}

/// A coordinator whose store went back, which both of its gateways can tell.
fn went_back() -> Env {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let backup = env.store.image();
    env.submit(vec![on("gw-1", task("x", &[])), on("gw-2", task("y", &[]))]);
    env.restart(backup);
    env
}

fn given_up(slice: SliceRef) -> Body {
    let in_doubt = Vec::new();
    Body::Released { slice, in_doubt }
}

/// Found by seed 3280: behind the backup a run was made, and its slice given up for a retry; what
/// had been done in it once was placed again.
#[test]
fn what_was_done_in_a_slice_that_was_given_up_behind_the_backup_counts() {
    let mut env = Env::new();
    env.join("gw-1");
    let backup = env.store.image();
    let run = env.submit(once_and_failing());
    let slice = env.agent("gw-1").last_slice();
    let (good, bad) = (ended(slice, 0, 1, true), ended(slice, 1, 1, false));
    let accepted = Body::Accepted { slice };
    let began = [started(slice, 0, 1), started(slice, 1, 1)];
    env.tell(
        "gw-1",
        [vec![accepted], began.into(), vec![good, bad]].concat(),
    );
    let (from, by) = (None, "ann".to_owned());
    env.ask(Request::Retry { run, from, by });
    env.tell("gw-1", vec![given_up(slice)]);
    let second = env.agent("gw-1").last_slice();
    assert!(second.epoch > slice.epoch);
    let accepted = Body::Accepted { slice: second };
    env.tell("gw-1", vec![accepted, started(second, 1, 1)]);
    env.restart(backup);
    let mut inventory = all_of(&mut env, "gw-1", run, once_and_failing());
    inventory.slices.retain(|state| state.slice == second);
    comes_back(&mut env, "gw-1", inventory);
    assert_eq!(env.task(run, "once").state, "succeeded");
    assert_eq!(env.task(run, "fails").state, "running");
    env.tell(
        "gw-1",
        vec![ended(second, 1, 1, true), Body::SliceDone { slice: second }],
    );
    assert_eq!(env.run(run).state, "succeeded");
    assert_eq!(
        env.agent("gw-1").last_slice(),
        second,
        "nothing was placed anew"
    );
}

/// The inventory of a gateway that has one task of a run, in one slice.
fn one_task(slice: SliceRef, task: u32, flow: &[Task]) -> Inventory {
    let (packed, workflow) = shared::codec::pack(&workflow(flow.to_vec()));
    let status = TaskStatus {
        task: TaskIdx(task),
        state: TaskState::Blocked,
        attempts: 0,
        outputs: Vec::new(),
    };
    let state = SliceState {
        slice,
        workflow,
        tasks: vec![status],
    };
    Inventory {
        slices: vec![state],
        workflows: vec![packed],
        directives: Vec::new(),
    }
}

fn part(slice: u32, epoch: Epoch) -> SliceRef {
    let run = RunId([7; 16]);
    SliceRef { run, slice, epoch }
}

/// Two slices had the same task behind the backup, one after the other, and both were given up. The
/// word of the older one does not count, whichever comes first.
#[test]
fn what_a_newer_slice_had_is_not_taken_back() {
    let (older, newer) = ("gw-1", "gw-2");
    for newer_first in [false, true] {
        let mut env = went_back();
        let flow = vec![
            task("a", &[]),
            on(older, task("b", &[])),
            on(newer, task("c", &[])),
        ];
        let (first, second) = (part(0, Epoch(1)), part(1, Epoch(2)));
        let failed = vec![
            Body::Accepted { slice: first },
            started(first, 0, 1),
            ended(first, 0, 1, false),
            given_up(first),
        ];
        let begun = vec![
            Body::Accepted { slice: second },
            started(second, 0, 1),
            given_up(second),
        ];
        env.agent(older).commit(failed);
        env.agent(newer).commit(begun);
        let mut calls = vec![
            (older, one_task(part(2, Epoch(3)), 1, &flow)),
            (newer, one_task(part(3, Epoch(4)), 2, &flow)),
        ];
        if newer_first {
            calls.reverse();
        }
        for (name, inventory) in calls {
            comes_back(&mut env, name, inventory);
        }
        assert_eq!(env.task(first.run, "a").state, "blocked");
        let mut all = env.agent("gw-1").assigns();
        all.extend(env.agent("gw-2").assigns());
        let again = all.iter().filter(|a| a.slice.run == first.run);
        assert_eq!(again.count(), 1, "it is placed anew");
    }
}

/// A task of the flow was done behind the backup by two gateways, at the newer epoch by the second.
fn done_at_two() -> (Env, Vec<Task>, SliceRef, SliceRef) {
    let mut env = went_back();
    let flow = vec![task("a", &[]), on("gw-1", task("b", &[0]))];
    let (first, second) = (part(0, Epoch(1)), part(1, Epoch(2)));
    for (name, slice) in [("gw-1", first), ("gw-2", second)] {
        env.agent(name).commit(vec![
            Body::Accepted { slice },
            started(slice, 0, 1),
            ended(slice, 0, 1, true),
            Body::SliceDone { slice },
        ]);
    }
    (env, flow, first, second)
}

/// Found by seed 24132: behind the backup a task was done at one gateway, which was silent, and
/// again at another one at a newer epoch, which forgot the run since. Both counted, where the older
/// one's facts came first.
#[test]
fn of_two_that_did_a_task_the_one_of_the_newer_claim_counts() {
    let (older, newer) = ("gw-1", "gw-2");
    for newer_first in [false, true] {
        let (mut env, flow, first, second) = done_at_two();
        let mut calls = vec![(older, one_task(first, 0, &flow)), (newer, empty())];
        if newer_first {
            calls.reverse();
        }
        for (name, inventory) in calls {
            env.hello(name).unwrap();
            let origin = origin(env.agent(name));
            env.resend(name, origin);
            env.say(name, Up::Inventory(inventory));
        }
        let task = env.task(first.run, "a");
        assert_eq!(
            (task.state.as_str(), task.node.as_deref()),
            ("succeeded", Some(newer))
        );
        let counts = task.history.iter().filter(|a| a.not_applied.is_none());
        let counts: Vec<u64> = counts.map(|a| a.epoch).collect();
        assert_eq!(counts, [second.epoch.0], "newer first: {newer_first}");
    }
}

/// A gateway had forgotten the run, and called before anybody made it known: its inventory, which
/// is empty, came before its facts. It counted as heard, and was asked again when another one's
/// inventory made the run known, behind the end of the hold.
#[test]
fn an_empty_inventory_before_the_facts_is_one_of_the_run_as_well() {
    let (mut env, flow, first, second) = done_at_two();
    for (name, inventory) in [("gw-2", empty()), ("gw-1", one_task(first, 0, &flow))] {
        env.hello(name).unwrap();
        let origin = origin(env.agent(name));
        env.say(name, Up::Inventory(inventory));
        env.resend(name, origin);
    }
    let task = env.task(first.run, "a");
    let counts = task.history.iter().filter(|a| a.not_applied.is_none());
    let counts: Vec<u64> = counts.map(|a| a.epoch).collect();
    assert_eq!(counts, [second.epoch.0]);
}

/// Found by seed 9291: a gateway had forgotten the run at the coordinator's wish, and called before
/// the one that still had a part of it. What it had done once was placed again.
#[test]
fn what_a_gateway_did_that_forgot_the_run_counts_also_if_it_calls_first() {
    let mut env = went_back();
    let flow = vec![on("gw-1", task("a", &[])), task("b", &[])];
    let (here, there) = (part(0, Epoch(1)), part(1, Epoch(2)));
    let did = |slice, task| {
        vec![
            Body::Accepted { slice },
            started(slice, task, 1),
            ended(slice, task, 1, true),
            Body::SliceDone { slice },
        ]
    };
    env.agent("gw-1").commit(did(here, 0));
    env.agent("gw-2").commit(did(there, 1));
    for (name, inventory) in [("gw-2", empty()), ("gw-1", one_task(here, 0, &flow))] {
        env.hello(name).unwrap();
        let origin = origin(env.agent(name));
        env.resend(name, origin);
        env.say(name, Up::Inventory(inventory));
    }
    assert_eq!(env.run(here.run).state, "succeeded");
    assert_eq!(env.task(here.run, "b").node.as_deref(), Some("gw-2"));
}

/// Found by seed 1417: of a gateway's own run only the inventory came, and its disk began a new
/// life; the run was taken for the coordinator's, and placed anew.
#[test]
fn a_run_of_a_gateway_that_only_an_inventory_told_of_stays_its_own() {
    let mut env = went_back();
    let slice = part(0, Epoch::LOCAL);
    env.hello("gw-1").unwrap();
    let mut movable = task("a", &[]);
    movable.disconnect.replace = true;
    let inventory = one_task(slice, 0, &[movable]);
    env.say("gw-1", Up::Inventory(inventory));
    comes_back(&mut env, "gw-2", empty());
    let (node, by) = (env.agent("gw-1").node, "ann".to_owned());
    env.ask(Request::ForgetNode { node, by });
    assert_eq!(env.task(slice.run, "a").state, "lost");
    let mut given = env.agent("gw-2").assigns().into_iter();
    assert!(given.all(|assign| assign.slice.run != slice.run));
}

/// Numbers are kept free below one that was forgotten: a gateway that names ever higher ones takes
/// no more room than for one.
#[test]
fn who_names_ever_higher_slices_takes_no_more_room() {
    let mut env = went_back();
    let far = UNHEARD as u32 - 1;
    let slice = part(far, Epoch(5));
    let accepted = |slice| Body::Accepted {
        slice: part(slice, Epoch(6)),
    };
    let further = (2..50).map(|n| accepted(far * n)).collect();
    env.agent("gw-1").commit(further);
    comes_back(&mut env, "gw-1", one_task(slice, 0, &[task("a", &[])]));
    env.hello("gw-2").unwrap();
    env.say("gw-2", Up::Inventory(empty()));
    assert_eq!(
        env.run(slice.run).conflicts.len(),
        48,
        "none of them counts"
    );
    assert_eq!(env.task(slice.run, "a").node.as_deref(), Some("gw-1"));
}

/// Found by seed 20941: of a run that an inventory brought back the first slice was forgotten
/// everywhere. When it was let run again, the word that its cancel is over also went to the owner
/// of that number, who is nobody. That made a node without a name, and with the next restore all
/// old runs waited for it for ever.
#[test]
fn a_number_that_is_kept_free_makes_no_node_to_wait_for() {
    let mut env = went_back();
    let slice = part(1, Epoch(2));
    let flow = [on("gw-1", task("a", &[]))];
    env.agent("gw-1").commit(vec![
        Body::Accepted { slice },
        started(slice, 0, 1),
        ended(slice, 0, 1, false),
        Body::SliceDone { slice },
    ]);
    comes_back(&mut env, "gw-1", one_task(slice, 0, &flow));
    comes_back(&mut env, "gw-2", empty());
    assert_eq!(env.run(slice.run).state, "failed");
    let (run, from, by) = (slice.run, None, "ann".to_owned());
    assert_eq!(env.ask(Request::Retry { run, from, by }), Reply::Done);
    env.tell("gw-1", vec![given_up(slice)]);
    let again = env.agent("gw-1").assigns().pop().unwrap();
    assert_eq!(again.slice.run, run);
    let backup = env.store.image();
    env.submit(vec![on("gw-1", task("x", &[])), on("gw-2", task("y", &[]))]);
    env.restart(backup);
    comes_back(&mut env, "gw-1", one_task(again.slice, 0, &flow));
    assert_eq!(env.run(run).state, "held");
    comes_back(&mut env, "gw-2", empty());
    assert_eq!(env.run(run).state, "running");
}

/// Found by seed 26571: a slice was given up when what was made in it had been brought, behind the
/// backup. Behind the restore the file is nowhere, and who reads it waited for it for ever.
#[test]
fn what_was_brought_behind_the_backup_from_a_slice_given_up_keeps_nobody_waiting() {
    for once in [false, true] {
        let mut env = went_back();
        let mut first = on("gw-1", task("a", &[]));
        if once {
            first.side_effects = SideEffects::AtMostOnce;
        }
        let flow = [first, on("gw-2", task("b", &[0]))];
        let (gone, reads) = (part(0, Epoch(1)), part(1, Epoch(2)));
        env.agent("gw-1").commit(vec![
            Body::Accepted { slice: gone },
            started(gone, 0, 1),
            ended(gone, 0, 1, true),
            given_up(gone),
        ]);
        env.agent("gw-2")
            .commit(vec![Body::Accepted { slice: reads }]);
        comes_back(&mut env, "gw-2", one_task(reads, 1, &flow));
        assert_eq!(env.run(gone.run).state, "held");
        comes_back(&mut env, "gw-1", empty());
        let made = env.task(gone.run, "a");
        if once {
            let why = made.reason.as_deref();
            assert_eq!((made.state.as_str(), why), ("lost", Some("output_lost")));
            let told = env.agent("gw-2").seen.last().unwrap().body.clone();
            let Wanted::Upstream { slice, upstream } = told else {
                panic!("{told:?}");
            };
            assert_eq!((slice, upstream.state), (reads, TaskState::Lost));
            continue;
        }
        assert_eq!(made.state, "blocked");
        let again = env.agent("gw-1").assigns().pop().unwrap();
        assert_eq!(again.slice.run, gone.run, "it is made again");
        assert_eq!(again.tasks, [TaskIdx(0)]);
    }
}
