//! Runs that are over leave; what nobody needs any more goes.

use crate::common::{Env, all_done, ended, on, output, started, task};
use crate::restore::{all_of, begun_before_a_backup, comes_back, empty, movable, work};
use cloud_core::event::{Input, RETENTION, Refused, Reply, Request};
use cloud_core::store::{AggregateId, Store};
use shared::directive::Body as Wanted;
use shared::fact::Body;
use shared::ids::{Epoch, Hash, RunId, SliceRef, TaskIdx};
use shared::state::TaskState;
use shared::time::Span;
use shared::wire::Up;

fn forget(env: &mut Env, run: RunId) -> Reply {
    let by = "ann".to_owned();
    env.ask(Request::ForgetRun { run, by })
}

fn confirm(env: &mut Env, name: &str) {
    let head = env.agent(name).directives;
    env.say(name, Up::Applied(head));
}

fn facts_kept(env: &mut Env, name: &str) -> Vec<u64> {
    let log = env.agent(name).log();
    let mut out = Vec::new();
    let each = &mut |n, _: &[u8]| out.push(n);
    env.engine
        .store()
        .facts(log, 1, u64::MAX, each)
        .expect("a store that can be read");
    out
}

#[test]
fn a_run_is_forgotten_when_all_its_nodes_have_confirmed() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let tasks = || vec![on("gw-1", task("a", &[])), on("gw-2", task("b", &[]))];
    let run = env.submit(tasks());
    assert!(matches!(
        forget(&mut env, run),
        Reply::Refused(Refused::State(_))
    ));
    for name in ["gw-1", "gw-2"] {
        let assign = env.agent(name).assigns()[0].clone();
        env.tell(name, all_done(&assign));
    }
    env.hang_up("gw-2");
    assert_eq!(forget(&mut env, run), Reply::Done);
    let last = env.agent("gw-1").seen.last().unwrap().body.clone();
    assert_eq!(last, Wanted::Forget { run });
    confirm(&mut env, "gw-1");
    assert_eq!(env.run(run).state, "succeeded", "gw-2 has not confirmed");
    env.hello("gw-2").unwrap();
    confirm(&mut env, "gw-2");
    assert!(matches!(
        env.ask(Request::Run { run }),
        Reply::Refused(Refused::NotFound { .. })
    ));
    assert_eq!(
        env.ask(Request::Runs { state: None }),
        Reply::Runs(Vec::new())
    );
    assert!(env.waits().is_empty());
    let mut rows = 0;
    let each = &mut |_: &str, _: &[u8]| rows += 1;
    env.engine
        .store()
        .rows(AggregateId::Run(run), "", each)
        .unwrap();
    assert_eq!(rows, 0, "only the tombstone is left");
    let slice = env.agent("gw-1").last_slice();
    env.tell("gw-1", vec![started(slice, 0, 2)]);
    assert!(env.agent("gw-1").ack.unwrap().head.number > 4, "recorded");
    let store = env.store.clone();
    env.restart(store);
    env.hello("gw-1").unwrap();
    env.tell("gw-1", vec![ended(slice, 0, 2, true)]);
    assert!(matches!(
        env.ask(Request::Run { run }),
        Reply::Refused(Refused::NotFound { .. })
    ));
}

/// A run that moved to gw-2 behind the backup, where its task is in state `there`. Behind the
/// restore it ends at gw-1, where it was before, and is to be forgotten; then gw-2 calls.
fn forgotten_before_the_other_one_called(there: TaskState) -> (Env, RunId) {
    let mut env = Env::new();
    let (backup, first) = begun_before_a_backup(&mut env);
    let run = first.run;
    env.hang_up("gw-1");
    env.pass(Span::secs(700));
    let second = env.agent("gw-2").last_slice();
    assert_eq!(second.run, run);
    let mut said = work(second);
    if !there.is_final() {
        said.truncate(2);
    }
    env.tell("gw-2", said);
    let mut inventory = all_of(&mut env, "gw-2", run, movable());
    inventory.slices[0].tasks[0].state = there;
    env.restart(backup);
    env.hello("gw-1").unwrap();
    env.tell("gw-1", work(first).split_off(1));
    assert_eq!(env.run(run).state, "succeeded");
    assert_eq!(forget(&mut env, run), Reply::Done);
    comes_back(&mut env, "gw-2", inventory);
    env.hello("gw-1").unwrap();
    env.say("gw-1", Up::Inventory(empty()));
    confirm(&mut env, "gw-1");
    (env, run)
}

fn is_told_to_forget(env: &mut Env, name: &str, run: RunId) -> bool {
    let mut told = env.agent(name).seen.iter();
    told.any(|directive| directive.body == Wanted::Forget { run })
}

/// Found beside seed 46878: the run was forgotten, and who had it, too, was not told.
#[test]
fn who_shows_a_run_that_is_being_forgotten_is_to_forget_it_too() {
    let (mut env, run) = forgotten_before_the_other_one_called(TaskState::Succeeded);
    assert!(is_told_to_forget(&mut env, "gw-2", run));
    assert_eq!(env.run(run).state, "succeeded", "gw-2 has not confirmed");
    confirm(&mut env, "gw-2");
    assert!(matches!(
        env.ask(Request::Run { run }),
        Reply::Refused(Refused::NotFound { .. })
    ));
}

#[test]
fn a_run_that_is_being_forgotten_stays_if_somebody_shows_that_it_is_not_over() {
    let (mut env, run) = forgotten_before_the_other_one_called(TaskState::Running);
    assert!(!is_told_to_forget(&mut env, "gw-2", run));
    assert_eq!(env.run(run).state, "running");
    let second = env.agent("gw-2").last_slice();
    env.tell("gw-2", work(second).split_off(2));
    assert_eq!(env.run(run).state, "succeeded");
    assert_eq!(forget(&mut env, run), Reply::Done);
    assert!(is_told_to_forget(&mut env, "gw-2", run));
}

#[test]
fn a_run_ages_and_a_forgotten_node_is_not_waited_for() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[])]);
    let assign = env.agent("gw-1").assigns()[0].clone();
    env.tell("gw-1", all_done(&assign));
    env.hang_up("gw-1");
    let ended = env.now.mono;
    env.pass(Span::secs(1));
    let due = env.engine.next_wakeup().unwrap();
    assert_eq!(due, ended + RETENTION);
    env.pass(Span(RETENTION.0 - 1001));
    assert_eq!(env.node("gw-1").unconfirmed, 1);
    env.pass(Span(1));
    assert_eq!(env.node("gw-1").unconfirmed, 2, "it is asked to forget");
    assert_eq!(env.run(run).state, "succeeded");
    let node = env.agent("gw-1").node;
    let by = "ann".to_owned();
    env.ask(Request::ForgetNode { node, by });
    assert!(matches!(
        env.ask(Request::Run { run }),
        Reply::Refused(Refused::NotFound { .. })
    ));
}

#[test]
fn directives_of_a_life_that_is_over_go() {
    let kept = |env: &mut Env, log| {
        let found = env.engine.store().directives(log, 0, 1000, 1 << 20);
        found.expect("a store that can be read").len()
    };
    let mut env = Env::new();
    env.join("gw-1");
    let _ = env.submit(vec![on("gw-1", task("a", &[]))]);
    let first = env.agent("gw-1").log();
    assert!(kept(&mut env, first) > 0);
    env.hang_up("gw-1");
    env.agent("gw-1").reimage(2);
    env.agent("gw-1").succeeds = Some(first.incarnation);
    env.hello("gw-1")
        .expect("a life that succeeds the one before");
    let second = env.agent("gw-1").log();
    assert_eq!(kept(&mut env, first), 0, "nobody asks for them again");
    assert!(kept(&mut env, second) > 0);
    let (node, by) = (env.agent("gw-1").node, "ann".to_owned());
    env.ask(Request::ForgetNode { node, by });
    assert_eq!(kept(&mut env, second), 0);
}

#[test]
fn files_go_with_the_last_run_that_names_them() {
    let mut env = Env::new();
    env.join("gw-1");
    let hash = output(TaskIdx(0)).hash;
    let mut runs = Vec::new();
    for _ in 0..2 {
        runs.push(env.submit(vec![task("a", &[])]));
        let assign = env.agent("gw-1").assigns().last().unwrap().clone();
        env.tell("gw-1", all_done(&assign));
    }
    env.give(Input::FileStored { hash, size: 4 });
    env.pass(Span::secs(2 * 3600));
    forget(&mut env, runs[0]);
    confirm(&mut env, "gw-1");
    assert!(env.dropped.is_empty(), "the other run names it");
    forget(&mut env, runs[1]);
    confirm(&mut env, "gw-1");
    assert_eq!(env.dropped, [hash]);
}

#[test]
fn facts_are_kept_while_a_run_that_is_not_forgotten_names_them() {
    let mut env = Env::new();
    env.join("gw-1");
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(env.submit(vec![task("a", &[])]));
        let assign = env.agent("gw-1").assigns().last().unwrap().clone();
        env.tell("gw-1", all_done(&assign));
    }
    assert_eq!(facts_kept(&mut env, "gw-1").len(), 12);
    forget(&mut env, runs[1]);
    confirm(&mut env, "gw-1");
    assert_eq!(
        facts_kept(&mut env, "gw-1").len(),
        12,
        "the first needs them"
    );
    let store = env.store.clone();
    env.restart(store);
    env.hello("gw-1").unwrap();
    forget(&mut env, runs[0]);
    confirm(&mut env, "gw-1");
    assert_eq!(facts_kept(&mut env, "gw-1"), [9, 10, 11, 12]);
    assert_eq!(env.run(runs[2]).state, "succeeded");
}

#[test]
fn confirmed_directives_go_but_for_a_tail() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[])]);
    let by = "ann".to_owned();
    for n in 0..2100 {
        let (on, by) = (n % 2 == 0, by.clone());
        env.ask(Request::Pause { run, on, by });
    }
    let log = env.agent("gw-1").log();
    assert!(env.engine.store().directive_hash(log, 1).unwrap().is_some());
    confirm(&mut env, "gw-1");
    let end = env.agent("gw-1").directives.number;
    assert_eq!(env.engine.store().directive_hash(log, 1).unwrap(), None);
    assert!(
        env.engine
            .store()
            .directive_hash(log, end - 999)
            .unwrap()
            .is_some()
    );
    env.hang_up("gw-1");
    env.hello("gw-1").unwrap();
    let assign = env.agent("gw-1").assigns()[0].clone();
    env.tell("gw-1", all_done(&assign));
    assert_eq!(env.run(run).state, "succeeded");
}

#[test]
fn a_log_that_grew_long_for_a_silent_node_is_replaced_by_a_reset_and_what_stands() {
    let mut env = Env::new();
    env.join("gw-1");
    env.hang_up("gw-1");
    let run = env.submit(vec![on("gw-1", task("a", &[]))]);
    let by = "ann".to_owned();
    for n in 0..10_001 {
        let (on, by) = (n % 2 == 0, by.clone());
        env.ask(Request::Pause { run, on, by });
    }
    env.hello("gw-1").unwrap();
    let seen = &env.agent("gw-1").seen;
    assert!(seen.len() < 10, "{} directives", seen.len());
    assert!(matches!(seen[0].body, Wanted::Reset { .. }));
    let assigns = env.agent("gw-1").assigns();
    assert_eq!(assigns.len(), 1);
    assert!(assigns[0].paused && assigns[0].workflow.is_some());
    let slice = assigns[0].slice;
    env.tell("gw-1", vec![Body::Accepted { slice }]);
    env.tell("gw-1", all_done(&assigns[0]));
    assert_eq!(env.run(run).state, "succeeded");
}

fn stored(env: &mut Env, task: u32) -> Hash {
    let hash = output(TaskIdx(task)).hash;
    env.give(Input::FileStored { hash, size: 4 });
    hash
}

fn make_room(env: &mut Env, bytes: u64) -> u64 {
    match env.ask(Request::MakeRoom { bytes }) {
        Reply::Room(freed) => freed,
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_of_runs_that_ended_first_go_when_something_new_needs_their_room() {
    let mut env = Env::new();
    env.join("gw-1");
    // each run has one task more, and with it a file of its own
    let names = ["a", "b", "c"];
    let mut files = Vec::new();
    for count in 1..=3 {
        let tasks = names[..count].iter().map(|name| task(name, &[]));
        env.submit(tasks.collect());
        let assign = env.agent("gw-1").assigns().last().unwrap().clone();
        let mut facts = all_done(&assign);
        if count == 3 {
            facts.truncate(3); // its first task is over, the others are not
        }
        env.tell("gw-1", facts);
        env.pass(Span::secs(1));
        files.push(stored(&mut env, count as u32 - 1));
    }
    let unnamed = Hash::of(b"sent for a submission that comes");
    assert_eq!(make_room(&mut env, 4), 0, "all were sent just now");
    env.pass(Span::secs(3601));
    env.give(Input::FileStored {
        hash: unnamed,
        size: 4,
    });
    // the first is named by a run that is not over, the third by nobody yet
    assert_eq!(make_room(&mut env, 4), 4);
    assert_eq!(env.dropped, [files[1]]);
    assert_eq!(make_room(&mut env, 4), 0, "nothing else may go");
    let store = env.store.clone();
    env.restart(store);
    assert_eq!(make_room(&mut env, 4), 0);
    assert_eq!(env.dropped, [files[1]]);
}

#[test]
fn what_was_there_at_the_start_goes_the_oldest_first_and_is_not_looked_for_all_the_time() {
    let mut env = Env::new();
    env.join("gw-1");
    for (tasks, good) in [
        (vec![task("a", &[])], true),
        (vec![task("a", &[]), task("b", &[])], false),
    ] {
        let _ = env.submit(tasks);
        let assign = env.agent("gw-1").assigns().last().unwrap().clone();
        let slice = assign.slice;
        let mut facts = all_done(&assign);
        facts[2] = ended(slice, 0, 1, good);
        env.tell("gw-1", facts);
        env.pass(Span::secs(1));
    }
    let (first, second) = (stored(&mut env, 0), stored(&mut env, 1));
    let store = env.store.clone();
    env.restart(store);
    for hash in [second, first] {
        env.give(Input::FileFound { hash, size: 4 });
    }
    assert_eq!(
        make_room(&mut env, 1),
        4,
        "what was there at the start is not new"
    );
    assert_eq!(env.dropped, [first]);
    assert_eq!(make_room(&mut env, 100), 4);
    assert_eq!(env.dropped, [first, second]);
    env.give(Input::FileFound {
        hash: first,
        size: 4,
    });
    assert_eq!(make_room(&mut env, 4), 0, "it is not looked again at once");
    env.pass(Span::secs(61));
    assert_eq!(make_room(&mut env, 4), 4);
}

/// After a restore what runs need is known only when the nodes were heard.
#[test]
fn nothing_makes_room_while_old_runs_are_held() {
    let mut env = Env::new();
    env.join("gw-1");
    env.submit(vec![task("a", &[])]);
    let assign = env.agent("gw-1").assigns().last().unwrap().clone();
    env.tell("gw-1", all_done(&assign));
    let hash = stored(&mut env, 0);
    let backup = env.store.image();
    env.submit(vec![task("b", &[])]);
    let assign = env.agent("gw-1").assigns().last().unwrap().clone();
    env.tell("gw-1", all_done(&assign));
    env.restart(backup);
    env.give(Input::FileFound { hash, size: 4 });
    assert!(env.hello("gw-1").unwrap().want_inventory);
    assert_eq!(make_room(&mut env, 4), 0);
    let (node, by) = (None, "ann".to_owned());
    assert_eq!(env.ask(Request::AcceptGone { node, by }), Reply::Done);
    assert_eq!(make_room(&mut env, 4), 4);
    assert_eq!(env.dropped, [hash]);
}

/// A run that only facts name, and that nobody rebuilds, holds its node's facts no longer than one
/// that ended.
#[test]
fn a_run_that_is_only_a_name_ends_with_its_retention() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = RunId([0xdd; 16]);
    let slice = SliceRef {
        run,
        slice: 0,
        epoch: Epoch(1),
    };
    env.tell("gw-1", vec![started(slice, 0, 1)]);
    assert_eq!(env.run(run).state, "unknown_run");
    let store = env.store.clone();
    env.restart(store);
    env.hello("gw-1").unwrap();
    env.pass(Span(RETENTION.0 - 1000));
    assert_eq!(env.run(run).state, "unknown_run");
    env.pass(Span(1000));
    confirm(&mut env, "gw-1");
    assert!(matches!(
        env.ask(Request::Run { run }),
        Reply::Refused(Refused::NotFound { .. })
    ));
    assert!(env.waits().is_empty());
}
