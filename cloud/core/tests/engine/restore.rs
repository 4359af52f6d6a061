//! The coordinator's store went back: what the nodes say in which order, and what follows.

use crate::common::{Agent, Env, all_done, ended, on, started, task, workflow};
use crate::medium::Medium;
use cloud_core::event::Request;
use shared::directive::Body as Wanted;
use shared::explain::Reason;
use shared::fact::Body;
use shared::ids::{Incarnation, RunId, SliceRef, TaskIdx};
use shared::log::{Batch, Direction, Head};
use shared::state::TaskState;
use shared::time::Span;
use shared::wire::{Inventory, Refusal, Up};
use shared::workflow::Task;

pub(crate) fn origin(agent: &Agent) -> Head {
    Head::origin(agent.node, agent.incarnation, Direction::Up)
}

/// Two gateways with one task each, the second behind the first.
pub(crate) fn pair() -> Vec<Task> {
    vec![on("gw-1", task("a", &[])), on("gw-2", task("b", &[0]))]
}

pub(crate) fn empty() -> Inventory {
    Inventory {
        slices: Vec::new(),
        workflows: Vec::new(),
        directives: Vec::new(),
    }
}

/// A gateway calls, sends its inventory, and all its facts again.
pub(crate) fn comes_back(env: &mut Env, name: &str, inventory: Inventory) {
    env.hello(name).expect("it is welcome");
    env.say(name, Up::Inventory(inventory));
    let origin = origin(env.agent(name));
    env.resend(name, origin);
}

/// How often a gateway was asked to give a slice up.
pub(crate) fn asked_back(env: &mut Env, name: &str, slice: SliceRef) -> usize {
    let ours = |of: &Wanted| matches!(of, Wanted::Release { slice: of } if *of == slice);
    env.agent(name)
        .seen
        .iter()
        .filter(|d| ours(&d.body))
        .count()
}

/// Found by seed 7371: a gateway's inventory had nothing of the run and came before its first fact
/// about it, which waited for that inventory for ever, and so did all that came later.
#[test]
fn facts_that_come_behind_an_inventory_without_their_run_are_not_kept_for_ever() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let backup = env.store.image();
    let run = env.submit(pair());
    let slice = env.agent("gw-2").last_slice();
    let refused = Body::Refused {
        directive: 1,
        slice: Some(slice),
        reason: Reason::NoRoom,
        text: String::new(),
    };
    env.tell("gw-2", vec![refused]);
    env.restart(backup);
    comes_back(&mut env, "gw-2", empty());
    let inventory = env.agent("gw-1").inventory(&workflow(pair()));
    let first = env.agent("gw-1").assigns()[0].clone();
    comes_back(&mut env, "gw-1", inventory);
    env.tell("gw-1", all_done(&first));
    let rest = env.agent("gw-2").assigns().last().unwrap().clone();
    assert!(rest.slice.epoch > slice.epoch);
    env.tell("gw-2", all_done(&rest));
    assert_eq!(env.run(run).state, "succeeded");
}

/// Found by seed 6158: tasks whose gateway had not been heard were ended here, as if they were on
/// no node, and it was never told.
#[test]
fn nothing_is_ended_while_its_node_was_not_heard() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let backup = env.store.image();
    let run = env.submit(pair());
    let (first, second) = (
        env.agent("gw-1").last_slice(),
        env.agent("gw-2").last_slice(),
    );
    env.tell(
        "gw-1",
        vec![started(first, 0, 1), ended(first, 0, 1, false)],
    );
    env.restart(backup);
    let inventory = env.agent("gw-1").inventory(&workflow(pair()));
    comes_back(&mut env, "gw-1", inventory);
    assert_eq!(env.task(run, "a").state, "blocked");
    assert_eq!(env.task(run, "b").state, "blocked");
    let inventory = env.agent("gw-2").inventory(&workflow(pair()));
    comes_back(&mut env, "gw-2", inventory);
    let told = |d: &shared::directive::Directive| match &d.body {
        Wanted::Upstream { slice, upstream } => Some((*slice, upstream.state)),
        _ => None,
    };
    let seen = &env.agent("gw-2").seen;
    let told: Vec<_> = seen.iter().filter_map(told).collect();
    assert!(told.contains(&(second, TaskState::Failed)), "{told:?}");
}

/// Found by seed 1346: a slice that was taken over between the making of an inventory and its
/// arrival was placed a second time.
#[test]
fn an_inventory_does_not_speak_of_what_was_taken_over_behind_it() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let backup = env.store.image();
    env.submit(vec![on("gw-2", task("x", &[]))]);
    env.restart(backup);
    env.hello("gw-1").unwrap();
    env.say("gw-1", Up::Inventory(empty()));
    let run = env.submit(vec![task("a", &[])]);
    let slice = env.agent("gw-1").last_slice();
    env.hello("gw-2").unwrap();
    env.hello("gw-1").unwrap();
    env.tell("gw-1", vec![Body::Accepted { slice }]);
    env.say("gw-1", Up::Inventory(empty()));
    env.say("gw-2", Up::Inventory(empty()));
    assert_eq!(env.task(run, "a").node.as_deref(), Some("gw-1"));
    let assign = env.agent("gw-1").assigns().last().unwrap().clone();
    assert_eq!(assign.slice, slice);
    env.tell("gw-1", all_done(&assign));
    assert_eq!(env.run(run).state, "succeeded");
}

/// The node gave the slice up in the time that was lost.
#[test]
fn a_release_that_this_side_does_not_remember_counts() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[])]);
    let slice = env.agent("gw-1").last_slice();
    env.tell("gw-1", vec![Body::Accepted { slice }]);
    let backup = env.store.image();
    env.join("gw-2");
    let node = env.agent("gw-1").node;
    let (on, by) = (true, "ann".to_owned());
    env.ask(Request::Drain { node, on, by });
    let in_doubt = Vec::new();
    env.tell("gw-1", vec![Body::Released { slice, in_doubt }]);
    env.restart(backup);
    comes_back(&mut env, "gw-1", empty());
    let again = env.agent("gw-1").assigns().last().unwrap().clone();
    assert!(again.slice.epoch > slice.epoch);
    env.tell("gw-1", all_done(&again));
    assert_eq!(env.run(run).state, "succeeded");
}

/// Found by seed 10165: a copy of a gateway's disk had taken a new incarnation while the gateway
/// was away; when it came back and a person freed it, it was turned away again and again.
#[test]
fn a_closed_incarnation_that_a_person_frees_begins_a_new_one() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![on("gw-1", task("a", &[]))]);
    let slice = env.agent("gw-1").last_slice();
    let behind = env.agent("gw-1").clone();
    env.tell("gw-1", vec![Body::Accepted { slice }]);
    env.hang_up("gw-1");
    let mut copy = behind;
    copy.conn = env.conn();
    (copy.proof, copy.session) = (None, 50);
    assert_eq!(
        env.dial(&copy, copy.conn),
        Some(Err(Refusal::NewIncarnation))
    );
    copy.succeeds = Some(copy.incarnation);
    copy.reimage(2);
    copy.conn = env.conn();
    assert!(env.dial(&copy, copy.conn).unwrap().is_ok());
    let conn = copy.conn;
    let why = "switched off".to_owned();
    env.give(cloud_core::event::Input::Gone { conn, why });

    assert_eq!(env.hello("gw-1").unwrap_err(), Refusal::Quarantined);
    let node = env.agent("gw-1").node;
    let by = "ann".to_owned();
    env.ask(Request::ReleaseQuarantine { node, by });
    assert_eq!(env.hello("gw-1").unwrap_err(), Refusal::NewIncarnation);
    let closed = env.agent("gw-1").incarnation;
    env.agent("gw-1").reimage(3);
    env.agent("gw-1").succeeds = Some(closed);
    env.hello("gw-1").unwrap();
    assert_eq!(
        env.node("gw-1").incarnation,
        Incarnation([3; 16]).to_string()
    );
    let again = env.agent("gw-1").assigns().last().unwrap().clone();
    env.tell("gw-1", all_done(&again));
    assert_eq!(env.run(run).state, "succeeded");
}

/// Found by seed 5361: a person let a task run again when its slice was over; it did not end with
/// its gateway's disk.
#[test]
fn a_slice_that_was_over_and_goes_on_is_lost_like_others() {
    let mut env = Env::new();
    env.join("gw-1");
    let mut once = task("a", &[]);
    once.side_effects = shared::workflow::SideEffects::AtMostOnce;
    let run = env.submit(vec![on("gw-1", once)]);
    let slice = env.agent("gw-1").last_slice();
    let mut lost = ended(slice, 0, 1, false);
    if let Body::Ended { end, .. } = &mut lost {
        (end.task, end.reason) = (TaskState::Lost, Reason::InDoubt);
    }
    let done = Body::SliceDone { slice };
    env.tell("gw-1", vec![started(slice, 0, 1), lost, done]);
    assert_eq!(env.node("gw-1").slices, 0);
    let again = Body::Moved {
        slice,
        task: TaskIdx(0),
        to: TaskState::Ready,
        reason: Reason::ResumedByPerson,
    };
    env.tell("gw-1", vec![again, started(slice, 0, 2)]);
    assert_eq!(env.node("gw-1").slices, 1);
    let node = env.agent("gw-1").node;
    let by = "ann".to_owned();
    env.ask(Request::ForgetNode { node, by });
    assert_eq!(env.run(run).state, "partly_lost");
    assert_eq!(env.task(run, "a").reason.as_deref(), Some("in_doubt"));
}

#[test]
fn a_node_that_refused_for_want_of_room_is_asked_again_with_its_next_session() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![on("gw-1", task("a", &[]))]);
    let refused = Body::Refused {
        directive: 1,
        slice: Some(env.agent("gw-1").last_slice()),
        reason: Reason::NoRoom,
        text: String::new(),
    };
    env.tell("gw-1", vec![refused]);
    assert_eq!(env.agent("gw-1").assigns().len(), 1, "not at once");
    env.hang_up("gw-1");
    env.hello("gw-1").unwrap();
    let again = env.agent("gw-1").assigns().last().unwrap().clone();
    env.tell("gw-1", all_done(&again));
    assert_eq!(env.run(run).state, "succeeded");
}

/// What a finished backup holds is safe: the node is told at once and with its next hello, and is
/// asked to keep facts for backups from then on. A successor's facts are in no backup.
#[test]
fn facts_are_safe_as_far_as_a_finished_backup_holds_them() {
    use cloud_core::event::{Cursor, Reply};
    use shared::time::Unix;
    use shared::wire::BACKUPS;
    let mut env = Env::new();
    env.join("gw-1");
    assert_eq!(env.hello("gw-1").unwrap().features & BACKUPS, 0);
    env.submit(vec![task("a", &[])]);
    env.takes_up("gw-1");
    let (node, incarnation) = (env.agent("gw-1").node, env.agent("gw-1").incarnation);
    let done = |at: i64, facts, incarnation| Request::BackupDone {
        by: String::new(),
        at: Unix(at),
        place: "here".to_owned(),
        cursors: vec![Cursor {
            node,
            incarnation,
            facts,
        }],
    };
    let late = env.now.wall.0;
    assert_eq!(env.ask(done(late, 1, incarnation)), Reply::Done);
    let welcome = env.hello("gw-1").unwrap();
    assert_eq!(
        (welcome.facts.safe, welcome.features & BACKUPS),
        (1, BACKUPS)
    );
    // more than is recorded here is in no backup of this store
    assert_eq!(env.ask(done(late + 1, 77, incarnation)), Reply::Done);
    let welcome = env.hello("gw-1").unwrap();
    assert_eq!(welcome.facts.safe, welcome.facts.head.number);
    // one that was read earlier and finished later takes nothing back
    assert_eq!(env.ask(done(late, 2, incarnation)), Reply::Done);
    assert_eq!(env.hello("gw-1").unwrap().facts.safe, welcome.facts.safe);
    let other = env.ask(done(late + 2, 1, Incarnation([99; 16])));
    assert_eq!(other, Reply::Done);
    assert_eq!(
        env.ask(Request::Backup),
        Reply::Backup(Some((Unix(late + 2), "here".into())))
    );
}

/// A machine whose clock was ahead once made a backup: those that follow count all the same.
#[test]
fn a_backup_of_a_clock_that_was_ahead_keeps_no_other_from_counting() {
    use cloud_core::event::{Cursor, Reply};
    use shared::time::Unix;
    let mut env = Env::new();
    env.join("gw-1");
    env.submit(vec![task("a", &[])]);
    env.takes_up("gw-1");
    let (node, incarnation) = (env.agent("gw-1").node, env.agent("gw-1").incarnation);
    let year = 365 * 86_400_000;
    for (ahead, facts) in [(year, 1), (0, 2)] {
        let at = Unix(env.now.wall.0 + ahead);
        let done = Request::BackupDone {
            by: String::new(),
            at,
            place: "here".to_owned(),
            cursors: vec![Cursor {
                node,
                incarnation,
                facts,
            }],
        };
        assert_eq!(env.ask(done), Reply::Done);
        assert_eq!(env.hello("gw-1").unwrap().facts.safe, facts);
    }
    let newest = Reply::Backup(Some((env.now.wall, "here".into())));
    assert_eq!(env.ask(Request::Backup), newest);
}

/// Found by seeds 798 and 6158: a silent gateway's slice was placed elsewhere before it was noticed
/// that the store had gone back; the directive that asked for it went with the reset, the run was
/// held, and the gateway kept the slice for ever.
#[test]
fn what_was_taken_away_before_the_hold_is_asked_for_again_after_it() {
    let mut env = Env::new();
    env.join("gw-1");
    let mut moves = task("a", &[]);
    moves.disconnect = shared::workflow::Disconnect {
        lost_after: Some(Span::secs(600)),
        replace: true,
    };
    let flow = vec![moves];
    let run = env.submit(flow.clone());
    let slice = env.agent("gw-1").last_slice();
    env.tell("gw-1", vec![Body::Accepted { slice }]);
    env.join("gw-2");
    let backup = env.store.image();
    let lost = env.submit(vec![on("gw-1", task("x", &[]))]);
    env.restart(backup);
    env.hello("gw-2").unwrap();
    env.pass(Span::secs(700));
    assert_eq!(env.task(run, "a").node.as_deref(), Some("gw-2"));
    let mut inventory = env.agent("gw-1").inventory(&workflow(flow));
    inventory.slices.retain(|s| s.slice.run != lost);
    comes_back(&mut env, "gw-1", inventory);
    assert_eq!(env.run(run).state, "held");
    assert_eq!(
        asked_back(&mut env, "gw-1", slice),
        0,
        "nothing is asked back while it is held"
    );
    env.hello("gw-2").unwrap();
    env.say("gw-2", Up::Inventory(empty()));
    assert_eq!(asked_back(&mut env, "gw-1", slice), 1);
    let in_doubt = Vec::new();
    env.tell("gw-1", vec![Body::Released { slice, in_doubt }]);
    assert!(env.run(run).conflicts.is_empty());
}

#[test]
fn a_run_that_ends_while_it_is_held_is_not_held_for_ever() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let flow = vec![on("gw-1", task("a", &[]))];
    let run = env.submit(flow.clone());
    let backup = env.store.image();
    env.submit(vec![on("gw-1", task("x", &[]))]);
    env.restart(backup);
    let slice = env.agent("gw-1").assigns()[0].slice;
    let failed = vec![started(slice, 0, 1), ended(slice, 0, 1, false)];
    env.agent("gw-1").commit(failed);
    let mut inventory = env.agent("gw-1").inventory(&workflow(flow));
    inventory.slices.truncate(1);
    comes_back(&mut env, "gw-1", inventory);
    assert_eq!(env.run(run).state, "held");
    env.hello("gw-2").unwrap();
    env.say("gw-2", Up::Inventory(empty()));
    assert_eq!(env.run(run).state, "failed");
    let (from, by) = (None, "ann".to_owned());
    let reply = env.ask(Request::Retry { run, from, by });
    assert_eq!(reply, cloud_core::event::Reply::Done);
}

/// A gateway keeps its slices until their runs are forgotten, and so does its inventory.
#[test]
fn what_was_over_before_a_restore_is_no_work_of_its_node_behind_it() {
    let mut env = Env::new();
    env.join("gw-1");
    let flow = vec![on("gw-1", task("a", &[]))];
    env.submit(flow.clone());
    let assign = env.agent("gw-1").assigns()[0].clone();
    env.tell("gw-1", all_done(&assign));
    assert_eq!(env.node("gw-1").slices, 0);
    let backup = env.store.image();
    env.submit(vec![on("gw-1", task("b", &[]))]);
    env.restart(backup);
    let mut inventory = env.agent("gw-1").inventory(&workflow(flow));
    inventory.slices.truncate(1);
    for task in &mut inventory.slices[0].tasks {
        task.state = TaskState::Succeeded;
    }
    comes_back(&mut env, "gw-1", inventory);
    assert_eq!(env.node("gw-1").slices, 0);
}

/// A gateway whose store was cut to nothing while old runs were held was online and in use, and
/// they waited for it until a person said that it was gone.
#[test]
fn a_gateway_that_begins_anew_is_not_waited_for() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let backup = env.store.image();
    let run = env.submit(vec![on("gw-1", task("a", &[]))]);
    env.restart(backup);
    let inventory = env
        .agent("gw-1")
        .inventory(&workflow(vec![on("gw-1", task("a", &[]))]));
    comes_back(&mut env, "gw-1", inventory);
    assert_eq!(env.run(run).state, "held");
    let before = env.agent("gw-2").incarnation;
    env.agent("gw-2").reimage(2);
    env.agent("gw-2").succeeds = Some(before);
    assert!(!env.hello("gw-2").unwrap().want_inventory);
    assert_eq!(env.run(run).state, "running");
    assert!(env.waits().is_empty(), "{:?}", env.waits());
}

/// Found by seed 28164: a gateway had begun anew behind the backup and was given work, and nobody
/// waited for what it had done, which was placed a second time.
#[test]
fn a_gateway_that_began_anew_behind_the_backup_is_waited_for() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let tasks = || vec![on("gw-1", task("a", &[])), on("gw-2", task("b", &[]))];
    let run = env.submit(tasks());
    let backup = env.store.image();
    let before = env.agent("gw-1").incarnation;
    env.hang_up("gw-1");
    env.agent("gw-1").reimage(2);
    env.agent("gw-1").succeeds = Some(before);
    env.hello("gw-1").unwrap();
    let given = env.agent("gw-1").assigns()[0].clone();
    env.tell("gw-1", all_done(&given));
    let other = env.agent("gw-2").last_slice();
    let accepted = Body::Accepted { slice: other };
    env.tell("gw-2", vec![accepted, started(other, 1, 1)]);
    env.restart(backup);
    env.hello("gw-2").unwrap();
    assert_eq!(env.run(run).state, "held");
    assert!(env.hello("gw-1").unwrap().want_inventory);
    let inventory = env.agent("gw-2").inventory(&workflow(tasks()));
    comes_back(&mut env, "gw-2", inventory);
    assert_eq!(env.run(run).state, "held");
    let inventory = env.agent("gw-1").inventory(&workflow(tasks()));
    env.say("gw-1", Up::Inventory(inventory));
    let origin = origin(env.agent("gw-1"));
    env.resend("gw-1", origin);
    assert_eq!(env.task(run, "a").state, "succeeded");
    assert_eq!(env.agent("gw-1").last_slice(), given.slice);
    let done = Body::SliceDone { slice: other };
    env.tell("gw-2", vec![ended(other, 1, 1, true), done]);
    assert_eq!(env.run(run).state, "succeeded");
}

/// The store was put back to a moment between a gateway's enrolment and its first call: what it
/// named of both logs was not looked at, and it was told nothing any more.
#[test]
fn a_gateway_that_this_store_never_heard_may_have_a_history() {
    let mut env = Env::new();
    env.install("gw-1");
    let backup = env.store.image();
    env.hello("gw-1").unwrap();
    let tasks = || vec![on("gw-1", task("a", &[]))];
    let old = env.submit(tasks());
    let first = env.agent("gw-1").assigns()[0].clone();
    env.tell("gw-1", vec![Body::Accepted { slice: first.slice }]);
    let before = env.engine.generation();
    env.restart(backup);
    let inventory = env.agent("gw-1").inventory(&workflow(tasks()));
    let welcome = env.hello("gw-1").unwrap();
    assert!(welcome.want_inventory);
    assert!(welcome.generation > before);
    env.say("gw-1", Up::Inventory(inventory));
    let origin = origin(env.agent("gw-1"));
    env.resend("gw-1", origin);
    assert_eq!(env.run(old).state, "running");
    let new = env.submit(tasks());
    let last = env.agent("gw-1").assigns().last().unwrap().clone();
    assert_eq!(last.slice.run, new, "it is told what comes now");
    env.tell("gw-1", all_done(&last));
    assert_eq!(env.run(new).state, "succeeded");
}

/// A task that goes to another gateway once its own was silent for ten minutes.
pub(crate) fn movable() -> Vec<Task> {
    let mut moves = task("a", &[]);
    moves.disconnect = shared::workflow::Disconnect {
        lost_after: Some(Span::secs(600)),
        replace: true,
    };
    vec![moves]
}

/// A run that gw-1 took over, and a backup of then; gw-2 is there as well. Returns the backup and
/// the slice.
pub(crate) fn begun_before_a_backup(env: &mut Env) -> (Medium, SliceRef) {
    env.join("gw-1");
    env.submit(movable());
    let slice = env.agent("gw-1").last_slice();
    env.tell("gw-1", vec![Body::Accepted { slice }]);
    env.join("gw-2");
    (env.store.image(), slice)
}

/// A run that was moved from gw-1 to gw-2 behind the backup, and ended there. Returns the backup,
/// the run, and its slices at both.
fn replaced_behind_a_backup(env: &mut Env) -> (Medium, RunId, SliceRef, SliceRef) {
    let (backup, first) = begun_before_a_backup(env);
    let run = first.run;
    // each proves that the store went back: it was given work that the backup does not know
    for name in ["gw-1", "gw-2"] {
        env.submit(vec![on(name, task("x", &[]))]);
    }
    env.hang_up("gw-1");
    env.pass(Span::secs(700));
    let second = env.agent("gw-2").last_slice();
    assert_eq!((second.run, second.slice), (run, 1));
    env.tell("gw-2", work(second));
    assert_eq!(env.run(run).state, "succeeded");
    (backup, run, first, second)
}

/// What a gateway says of a slice that it takes over, works on and ends.
pub(crate) fn work(slice: SliceRef) -> Vec<Body> {
    vec![
        Body::Accepted { slice },
        started(slice, 0, 1),
        ended(slice, 0, 1, true),
        Body::SliceDone { slice },
    ]
}

/// What a gateway has of one run.
pub(crate) fn all_of(env: &mut Env, name: &str, run: RunId, flow: Vec<Task>) -> Inventory {
    let mut inventory = env.agent(name).inventory(&workflow(flow));
    inventory.slices.retain(|state| state.slice.run == run);
    inventory
}

/// Found by the model: the former owner of a slice that was replaced behind the backup called
/// first, and its outcome counted instead of the one that had counted.
#[test]
fn no_outcome_counts_while_a_gateway_may_have_a_newer_claim() {
    let mut env = Env::new();
    let (backup, run, first, _) = replaced_behind_a_backup(&mut env);
    let ended = vec![started(first, 0, 1), ended(first, 0, 1, true)];
    env.agent("gw-1").commit(ended);
    env.restart(backup);
    let inventory = all_of(&mut env, "gw-1", run, movable());
    comes_back(&mut env, "gw-1", inventory);
    assert_eq!(env.run(run).state, "held");
    assert_ne!(env.task(run, "a").state, "succeeded");
    let inventory = all_of(&mut env, "gw-2", run, movable());
    comes_back(&mut env, "gw-2", inventory);
    let task = env.task(run, "a");
    assert_eq!(task.node.as_deref(), Some("gw-2"));
    assert_eq!(task.state, "succeeded");
    assert_eq!(env.run(run).state, "succeeded");
}

/// Found by the model: a gateway counted as heard with its inventory, fell silent before the facts
/// behind it were here, and what it had ended was done again elsewhere.
#[test]
fn a_gateway_was_heard_when_its_facts_are_back_too() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(movable());
    let slice = env.agent("gw-1").last_slice();
    env.tell("gw-1", vec![Body::Accepted { slice }]);
    env.join("gw-2");
    let backup = env.store.image();
    env.tell("gw-1", vec![started(slice, 0, 1), ended(slice, 0, 1, true)]);
    assert_eq!(env.run(run).state, "succeeded");
    env.submit(vec![on("gw-2", task("x", &[]))]);
    env.restart(backup);
    comes_back(&mut env, "gw-2", empty());
    let inventory = all_of(&mut env, "gw-1", run, movable());
    assert!(env.hello("gw-1").unwrap().want_inventory);
    env.say("gw-1", Up::Inventory(inventory));
    env.hang_up("gw-1");
    env.pass(Span::secs(700));
    assert_eq!(env.run(run).state, "held");
    let inventory = all_of(&mut env, "gw-1", run, movable());
    comes_back(&mut env, "gw-1", inventory);
    assert_eq!(env.run(run).state, "succeeded");
    assert!(env.run(run).conflicts.is_empty());
}

/// What a gateway brought while its runs were held counts also where it is declared gone before the
/// hold ends.
#[test]
fn what_a_gateway_brought_counts_although_it_is_declared_gone() {
    let mut env = Env::new();
    let (backup, run, first, _) = replaced_behind_a_backup(&mut env);
    env.agent("gw-1")
        .commit(vec![started(first, 0, 1), ended(first, 0, 1, true)]);
    env.restart(backup);
    let inventory = all_of(&mut env, "gw-1", run, movable());
    comes_back(&mut env, "gw-1", inventory);
    for name in ["gw-1", "gw-2"] {
        assert_eq!(env.run(run).state, "held");
        let (node, by) = (env.agent(name).node, "ann".to_owned());
        env.ask(Request::ForgetNode { node, by });
    }
    // nobody is left who could say that it was moved
    assert_eq!(env.run(run).state, "succeeded");
    assert_eq!(env.task(run, "a").node.as_deref(), Some("gw-1"));
}

/// One task, at gw-1.
pub(crate) fn alone() -> Vec<Task> {
    vec![on("gw-1", task("a", &[]))]
}

/// A run of one task that failed at gw-1, beside gw-2 with nothing to do.
pub(crate) fn failed_alone(env: &mut Env) -> (RunId, SliceRef) {
    env.join("gw-1");
    env.join("gw-2");
    let run = env.submit(alone());
    let slice = env.agent("gw-1").last_slice();
    let mut failed = work(slice);
    failed[2] = ended(slice, 0, 1, false);
    env.tell("gw-1", failed);
    (run, slice)
}

/// A run that had failed before the backup was retried behind it.
#[test]
fn a_retry_behind_the_backup_is_known_again() {
    for last in ["gw-1", "gw-2"] {
        retried_behind_the_backup(last);
    }
}

/// `last`: who calls last. What it tells comes before the end of the hold, also in one turn.
fn retried_behind_the_backup(last: &str) {
    let mut env = Env::new();
    let (run, first) = failed_alone(&mut env);
    assert_eq!(env.run(run).state, "failed");
    let backup = env.store.image();
    // so that it proves, too, that the store went back
    env.submit(vec![on("gw-2", task("x", &[]))]);
    let (from, by) = (None, "ann".to_owned());
    env.ask(Request::Retry { run, from, by });
    let (slice, in_doubt) = (first, Vec::new());
    env.tell("gw-1", vec![Body::Released { slice, in_doubt }]);
    let second = env.agent("gw-1").last_slice();
    assert!(second.epoch > first.epoch);
    env.tell("gw-1", work(second));
    assert_eq!(env.run(run).state, "succeeded");
    env.restart(backup);
    let other = |env: &mut Env| {
        env.hello("gw-2").unwrap();
        env.say("gw-2", Up::Inventory(empty()));
    };
    if last == "gw-1" {
        other(&mut env);
    }
    let inventory = all_of(&mut env, "gw-1", run, alone());
    env.hello("gw-1").unwrap();
    let origin = origin(env.agent("gw-1"));
    env.resend("gw-1", origin);
    env.say("gw-1", Up::Inventory(inventory));
    if last == "gw-2" {
        other(&mut env);
    }
    assert_eq!(env.run(run).state, "succeeded");
}

/// A person ended the wait for a gateway of which facts had come and no inventory.
#[test]
fn what_a_gateway_brought_counts_although_nobody_waits_for_its_inventory() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![on("gw-1", task("a", &[]))]);
    let slice = env.agent("gw-1").last_slice();
    env.tell("gw-1", vec![Body::Accepted { slice }]);
    let backup = env.store.image();
    env.submit(vec![on("gw-1", task("x", &[]))]);
    env.tell("gw-1", vec![started(slice, 0, 1), ended(slice, 0, 1, true)]);
    env.restart(backup);
    env.hello("gw-1").unwrap();
    let origin = origin(env.agent("gw-1"));
    env.resend("gw-1", origin);
    env.hang_up("gw-1");
    assert_eq!(env.run(run).state, "held");
    let (node, by) = (None, "ann".to_owned());
    env.ask(Request::AcceptGone { node, by });
    assert_eq!(env.run(run).state, "succeeded");
}

/// A cancel that a person asked for while the run was held is not taken for one of before it was
/// let run again.
#[test]
fn a_cancel_in_the_hold_stands() {
    let mut env = Env::new();
    let (backup, run, ..) = replaced_behind_a_backup(&mut env);
    env.restart(backup);
    let inventory = all_of(&mut env, "gw-1", run, movable());
    comes_back(&mut env, "gw-1", inventory);
    let (by, why) = ("ann".to_owned(), String::new());
    env.ask(Request::Cancel { run, by, why });
    let (node, by) = (env.agent("gw-1").node, "ann".to_owned());
    env.ask(Request::ForgetNode { node, by });
    let state = env.run(run).state;
    assert_eq!(state, "held", "nothing is lost before all were heard");
    let inventory = all_of(&mut env, "gw-2", run, movable());
    env.hello("gw-2").unwrap();
    env.say("gw-2", Up::Inventory(inventory));
    let origin = origin(env.agent("gw-2"));
    let facts = env.agent("gw-2").facts.clone();
    // all but its last facts: the slice is still open here
    env.agent("gw-2").facts.truncate(facts.len() - 3);
    env.resend("gw-2", origin);
    env.agent("gw-2").facts = facts;
    assert_eq!(env.run(run).state, "held");
    env.resend("gw-2", origin);
    assert_eq!(env.run(run).state, "succeeded", "it had ended before");
    let told = |of: &Wanted| matches!(of, Wanted::Cancel { run: of, .. } if *of == run);
    let seen = &env.agent("gw-2").seen;
    assert!(seen.iter().any(|directive| told(&directive.body)));
}

/// More was kept back than one turn folds: the run goes on when all of it counts.
#[test]
fn what_was_kept_back_is_folded_in_turns() {
    const TASKS: u32 = 9_000;
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let task = |n: u32| on("gw-1", task(&format!("t{n}"), &[]));
    let flow: Vec<Task> = (0..TASKS).map(task).collect();
    let backup = env.store.image();
    let run = env.submit(flow.clone());
    let slice = env.agent("gw-1").last_slice();
    env.submit(vec![on("gw-2", crate::common::task("x", &[]))]);
    env.restart(backup);
    let tries = |n| (1..4).map(move |k| started(slice, n, k));
    let facts = (0..TASKS).flat_map(|n| tries(n).chain([ended(slice, n, 3, true)]));
    let facts: Vec<Body> = facts.collect();
    let parts = facts.chunks(900);
    let batches: Vec<Batch> = parts
        .map(|part| env.agent("gw-1").commit(part.to_vec()))
        .collect();
    let inventory = env.agent("gw-1").inventory(&workflow(flow));
    env.hello("gw-1").unwrap();
    env.say("gw-1", Up::Inventory(inventory));
    for batch in batches {
        env.say("gw-1", Up::Facts(batch));
    }
    assert_eq!(env.run(run).state, "held");
    env.hello("gw-2").unwrap();
    env.say("gw-2", Up::Inventory(empty()));
    let mut turns = 0;
    while env.run(run).state == "held" {
        if turns == 0 {
            // it dies in between, and goes on where it was
            let image = env.store.image();
            env.restart(image);
        }
        env.pass(Span(1));
        turns += 1;
        assert!(turns < 100);
    }
    assert!(turns > 0, "all in one turn");
    assert_eq!(env.run(run).state, "succeeded");
}
