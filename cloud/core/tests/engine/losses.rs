//! What is lost with a node or with a part of the coordinator's store, and what becomes of it.

use crate::common::{Env, all_done, ended, on, output, started, task, workflow};
use cloud_core::event::{Input, Reply, Request};
use cloud_core::memory::Fail;
use shared::directive::Body as Wanted;
use shared::explain::Reason;
use shared::fact::Body;
use shared::ids::{Epoch, Incarnation, NodeId, RunId, SliceRef, TaskIdx};
use shared::state::TaskState;
use shared::time::{Span, Unix};
use shared::wire::{Refusal, Up};
use shared::workflow::{SideEffects, Task};
use std::collections::BTreeMap;

fn once(mut task: Task) -> Task {
    task.side_effects = SideEffects::AtMostOnce;
    task
}

/// A gateway gets an empty disk; a person lets it in again.
fn reimage(env: &mut Env, name: &str, incarnation: u8) {
    env.hang_up(name);
    env.agent(name).reimage(incarnation);
    env.agent(name).key = incarnation;
    let id = format!("again-{name}-{incarnation}");
    env.ask(Request::AddToken {
        by: String::new(),
        record: Vec::new(),
        id: id.clone(),
        name: Some(name.to_owned()),
        replace: true,
        expires: Unix(i64::MAX),
    });
    let enrolled = env.ask(Request::Enrol {
        token: id,
        node: NodeId([88; 16]),
        name: name.to_owned(),
        labels: BTreeMap::new(),
        certificate: crate::common::certificate(incarnation),
    });
    assert_eq!(enrolled, Reply::Enrolled(env.agent(name).node));
    env.hello(name).expect("it is welcome");
}

/// The state of a task and its reason.
fn stands(env: &mut Env, run: RunId, id: &str) -> (String, Option<String>) {
    let task = env.task(run, id);
    (task.state, task.reason)
}

/// Found by seed 785: a task that must not run twice was begun again, for the one that it needs had
/// left the slice just before it was judged.
#[test]
fn what_may_have_begun_unheard_is_in_doubt_whatever_leaves_the_slice_first() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let run = env.submit(vec![
        on("gw-1", task("a", &[])),
        on("gw-1", once(task("unheard", &[0]))),
        on("gw-2", task("far", &[])),
        on("gw-1", once(task("idle", &[2]))),
        on("gw-1", once(task("behind", &[3]))),
    ]);
    reimage(&mut env, "gw-1", 2);
    let in_doubt = ("lost".to_owned(), Some("in_doubt".to_owned()));
    assert_eq!(stands(&mut env, run, "unheard"), in_doubt);
    let again = env.agent("gw-1").assigns()[0].tasks.clone();
    let wanted = [0, 3, 4].map(TaskIdx);
    assert_eq!(again, wanted, "what surely did not begin is placed again");
}

/// Also what was told once and is to be done again elsewhere may have let a task begin.
#[test]
fn what_was_told_once_may_have_let_a_task_begin() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let run = env.submit(vec![
        on("gw-2", task("a", &[])),
        on("gw-1", once(task("b", &[0]))),
    ]);
    let far = env.agent("gw-2").last_slice();
    env.tell("gw-2", vec![started(far, 0, 1), ended(far, 0, 1, true)]);
    reimage(&mut env, "gw-2", 2);
    assert_eq!(stands(&mut env, run, "a").0, "blocked");
    reimage(&mut env, "gw-1", 2);
    assert_eq!(stands(&mut env, run, "b").1.as_deref(), Some("in_doubt"));
}

/// The run was over at a gateway when its disk was lost with a file that had not been brought to
/// the coordinator; who waited for it elsewhere waited for ever.
#[test]
fn a_file_that_is_nowhere_any_more_is_made_again() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let run = env.submit(vec![
        on("gw-1", task("a", &[])),
        on("gw-1", task("b", &[0])),
        on("gw-2", task("c", &[1])),
    ]);
    let first = env.agent("gw-1").assigns()[0].clone();
    env.tell("gw-1", all_done(&first));
    assert_eq!(env.node("gw-1").slices, 0, "nothing is left to do there");
    reimage(&mut env, "gw-1", 2);
    let again = env.agent("gw-1").assigns()[0].clone();
    assert_eq!(again.tasks.len(), 2, "what b reads is nowhere, too");
    let told = env.agent("gw-2").seen.last().unwrap().body.clone();
    let Wanted::Upstream { upstream, .. } = told else {
        panic!("{told:?}");
    };
    assert!(!upstream.state.is_final(), "c waits again");
    env.tell("gw-1", all_done(&again));
    let rest = env.agent("gw-2").assigns()[0].clone();
    env.tell("gw-2", all_done(&rest));
    assert_eq!(env.run(run).state, "succeeded");
}

#[test]
fn a_file_that_reached_the_coordinator_is_not_made_again() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let run = env.submit(vec![
        on("gw-1", task("a", &[])),
        on("gw-2", task("b", &[0])),
    ]);
    let first = env.agent("gw-1").assigns()[0].clone();
    env.tell("gw-1", all_done(&first));
    let (hash, size) = (output(TaskIdx(0)).hash, 4);
    env.store.fail_next(Fail::SurelyNot);
    env.give(Input::FileStored { hash, size });
    for name in ["gw-1", "gw-2"] {
        env.hello(name).unwrap();
    }
    reimage(&mut env, "gw-1", 2);
    assert!(env.agent("gw-1").assigns().is_empty());
    assert_eq!(stands(&mut env, run, "a").0, "succeeded");
}

/// Found by seed 739: what must not be done again had made the file.
#[test]
fn what_only_a_gone_node_held_and_must_not_be_done_again_is_lost() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let run = env.submit(vec![
        on("gw-1", once(task("a", &[]))),
        on("gw-1", task("b", &[0])),
        on("gw-2", task("c", &[0])),
    ]);
    let slice = env.agent("gw-1").last_slice();
    env.tell("gw-1", vec![started(slice, 0, 1), ended(slice, 0, 1, true)]);
    reimage(&mut env, "gw-1", 2);
    let lost = ("lost".to_owned(), Some("output_lost".to_owned()));
    assert_eq!(stands(&mut env, run, "a"), lost);
    assert_eq!(stands(&mut env, run, "b").0, "aborted");
    let told = env.agent("gw-2").seen.last().unwrap().body.clone();
    let Wanted::Upstream { upstream, .. } = told else {
        panic!("{told:?}");
    };
    assert_eq!(upstream.state, TaskState::Lost);
    assert!(upstream.outputs.is_empty(), "nobody can fetch them");
    let rest = env.agent("gw-2").last_slice();
    let aborted = Body::Moved {
        slice: rest,
        task: TaskIdx(2),
        to: TaskState::Aborted,
        reason: Reason::NeedFailed,
    };
    let done = Body::SliceDone { slice: rest };
    env.tell("gw-2", vec![Body::Accepted { slice: rest }, aborted, done]);
    assert_eq!(env.run(run).state, "partly_lost");
}

/// Found by seed 457: no word of a person could let it in again.
#[test]
fn an_incarnation_of_a_lost_time_proves_itself_by_its_seal() {
    let mut env = Env::new();
    env.join("gw-1");
    let old = env.submit(vec![on("gw-1", task("x", &[]))]);
    let backup = env.store.image();
    reimage(&mut env, "gw-1", 2);
    let slice = env.agent("gw-1").last_slice();
    env.tell("gw-1", vec![Body::Accepted { slice }]);
    let life = env.agent("gw-1").incarnation;
    env.restart(backup.image());
    let mut liar = env.agent("gw-1").clone();
    (liar.ack, liar.directive_seal) = (None, None);
    liar.conn = env.conn();
    assert_eq!(env.dial(&liar, liar.conn), Some(Err(Refusal::Quarantined)));

    env.restart(backup);
    assert!(env.hello("gw-1").unwrap().want_inventory);
    assert_eq!(env.node("gw-1").incarnation, life.to_string());
    assert_eq!(env.run(old).state, "held");
    let origin =
        shared::log::Head::origin(env.agent("gw-1").node, life, shared::log::Direction::Up);
    env.resend("gw-1", origin);
    let tasks = vec![on("gw-1", task("x", &[]))];
    let inventory = env.agent("gw-1").inventory(&workflow(tasks));
    env.say("gw-1", Up::Inventory(inventory));
    let assign = env.agent("gw-1").assigns()[0].clone();
    env.tell("gw-1", all_done(&assign));
    assert_eq!(env.run(old).state, "succeeded");
    assert_ne!(life, Incarnation([1; 16]));
}

/// The coordinator's store went back behind a pause, and behind the end of one.
#[test]
fn after_a_hole_in_the_directives_the_pause_mark_of_now_is_said_again() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[])]);
    let backup = env.store.image();
    let (on, by) = (true, "ann".to_owned());
    env.ask(Request::Pause { run, on, by });
    env.restart(backup);
    env.hello("gw-1").unwrap();
    let inventory = env.agent("gw-1").inventory(&workflow(vec![task("a", &[])]));
    env.say("gw-1", Up::Inventory(inventory));
    let marks = |d: &shared::directive::Directive| match &d.body {
        Wanted::Pause { on, .. } => Some(*on),
        _ => None,
    };
    let seen = &env.agent("gw-1").seen;
    let marks: Vec<bool> = seen.iter().filter_map(marks).collect();
    assert_eq!(marks, [true, false]);
}

/// A run that was submitted at the gateway and asks with its first task.
fn asks_locally(env: &mut Env, tasks: Vec<Task>) -> RunId {
    let run = RunId([0xee; 16]);
    let slice = SliceRef {
        run,
        slice: 0,
        epoch: Epoch(0),
    };
    let submitted = Body::Submitted {
        slice,
        workflow: shared::codec::pack(&workflow(tasks)).0,
        by: "uid 1000".to_owned(),
    };
    let asks = Body::Moved {
        slice,
        task: TaskIdx(0),
        to: TaskState::Blocked,
        reason: Reason::WaitsForPerson,
    };
    env.tell("gw-1", vec![submitted, asks]);
    run
}

/// A local run never leaves its gateway, so what it asked there is gone with the disk: nobody can
/// answer it, and nobody is told to.
#[test]
fn the_question_of_a_local_run_is_gone_with_its_disk() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = asks_locally(
        &mut env,
        vec![crate::asking::asks("ask"), task("after", &[0])],
    );
    assert_eq!(env.waits(), ["ship it?"]);
    reimage(&mut env, "gw-1", 2);
    assert!(env.waits().is_empty());
    let (state, why) = stands(&mut env, run, "ask");
    assert_eq!(
        (state.as_str(), why.as_deref()),
        ("lost", Some("node_reimaged"))
    );
    assert_eq!(env.run(run).state, "partly_lost");
}

/// The question has a `lost_after` and another task has none, so the gateway goes on with the run:
/// it still asks when it is back, and a person is told so all the time.
#[test]
fn a_question_of_a_local_run_stands_for_as_long_as_its_gateway_goes_on() {
    let mut env = Env::new();
    env.join("gw-1");
    let tasks = vec![crate::asking::asks("ask"), task("other", &[])];
    let run = asks_locally(&mut env, tasks);
    env.hang_up("gw-1");
    env.pass(Span::secs(3600));
    env.pass(Span::secs(3600));
    assert_eq!(env.waits(), ["ship it?"]);
    env.hello("gw-1").unwrap();
    assert_eq!(env.waits(), ["ship it?"]);
    assert_eq!(stands(&mut env, run, "ask").0, "blocked");
    // with nothing else to do there it falls as any other task
    let slice = SliceRef {
        run,
        slice: 0,
        epoch: Epoch(0),
    };
    env.tell("gw-1", vec![started(slice, 1, 1), ended(slice, 1, 1, true)]);
    env.hang_up("gw-1");
    env.pass(Span::secs(3600));
    assert_eq!(stands(&mut env, run, "ask").0, "lost");
}
