//! What ended runs again when a person says so: given up first, then placed at a new epoch.

use crate::common::{Agent, Env, all_done, ended, on, started, task};
use crate::restore::{all_of, alone, comes_back, empty, failed_alone, pair, work};
use cloud_core::event::{Input, Refused, Reply, Request};
use cloud_core::view;
use shared::directive::Body as Wanted;
use shared::explain::Reason;
use shared::fact::Body;
use shared::ids::{RunId, SliceRef, TaskIdx};
use shared::state::TaskState;
use shared::time::Span;
use shared::workflow::SideEffects;

fn retry(env: &mut Env, run: RunId, from: Option<&str>) -> Reply {
    let from = from.map(str::to_owned);
    let by = "ann".to_owned();
    env.ask(Request::Retry { run, from, by })
}

fn refused(reply: &Reply, says: &str) -> bool {
    matches!(reply, Reply::Refused(Refused::State(why)) if why.contains(says))
}

fn released(slice: SliceRef) -> Body {
    Body::Released {
        slice,
        in_doubt: Vec::new(),
    }
}

fn states(env: &mut Env, run: RunId) -> String {
    let tasks = match env.ask(Request::Tasks { run, state: None }) {
        Reply::Tasks(tasks) => tasks,
        other => panic!("{other:?}"),
    };
    let text: Vec<String> = tasks
        .iter()
        .map(|t| format!("{}={}", t.task, t.state))
        .collect();
    text.join(" ")
}

fn asked_back(agent: &Agent) -> usize {
    let release = |d: &&shared::directive::Directive| matches!(d.body, Wanted::Release { .. });
    agent.seen.iter().filter(release).count()
}

/// A run of which `b` failed at gw-1, so that `c` was aborted at gw-2.
fn failed() -> (Env, RunId, SliceRef, SliceRef) {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let run = env.submit(vec![
        on("gw-1", task("a", &[])),
        on("gw-1", task("b", &[0])),
        on("gw-2", task("c", &[1])),
    ]);
    assert!(refused(
        &retry(&mut env, run, None),
        "nothing of the run failed"
    ));
    let (one, two) = (
        env.agent("gw-1").last_slice(),
        env.agent("gw-2").last_slice(),
    );
    env.tell("gw-2", vec![Body::Accepted { slice: two }]);
    let fails = vec![
        Body::Accepted { slice: one },
        started(one, 0, 1),
        ended(one, 0, 1, true),
        started(one, 1, 1),
        ended(one, 1, 1, false),
        Body::SliceDone { slice: one },
    ];
    env.tell("gw-1", fails);
    let (slice, task, to) = (two, TaskIdx(2), TaskState::Aborted);
    let reason = Reason::NeedFailed;
    let fell = Body::Moved {
        slice,
        task,
        to,
        reason,
    };
    env.tell("gw-2", vec![fell, Body::SliceDone { slice: two }]);
    assert_eq!(env.run(run).state, "failed");
    (env, run, one, two)
}

#[test]
fn what_failed_runs_again_at_a_new_epoch_when_its_node_gave_it_up_and_the_rest_stays() {
    let (mut env, run, one, two) = failed();
    env.hang_up("gw-2");
    assert_eq!(retry(&mut env, run, None), Reply::Done);
    let view = env.run(run);
    assert_eq!(view.state, "running");
    assert!(
        view.requests[0].contains("0 of 2 parts given up"),
        "{:?}",
        view.requests
    );
    assert!(refused(&retry(&mut env, run, None), "under way"));
    env.tell("gw-1", vec![released(one)]);
    env.restart(env.store.clone());
    env.hello("gw-1").unwrap();
    assert_eq!(
        env.agent("gw-1").assigns().len(),
        1,
        "gw-2 has not given its part up"
    );
    env.hello("gw-2").unwrap();
    assert_eq!(asked_back(env.agent("gw-2")), 1);
    env.tell("gw-2", vec![released(two)]);
    let again = env.agent("gw-1").assigns().pop().unwrap();
    assert!(again.slice.epoch > one.epoch);
    // its input lies in no file store, and its only holder gave it up
    assert_eq!(again.tasks, [TaskIdx(0), TaskIdx(1)]);
    assert!(
        again.attempts_used.is_empty(),
        "retries count from the beginning"
    );
    env.tell("gw-1", vec![started(one, 1, 2), ended(one, 1, 2, true)]);
    assert_eq!(states(&mut env, run), "a=blocked b=blocked c=blocked");
    env.tell("gw-1", all_done(&again));
    let last = env.agent("gw-2").assigns().pop().unwrap();
    env.tell("gw-2", all_done(&last));
    assert_eq!(env.run(run).state, "succeeded");
    let b = env.task(run, "b");
    assert_eq!((b.attempts, b.history.len()), (1, 3));
    let late = conflicts(&mut env, run);
    assert_eq!(late.len(), 2);
    assert_eq!(
        (late[0].task.as_deref(), late[0].number),
        (Some("b"), Some(2))
    );
    assert_eq!(late[0].epoch, Some(one.epoch.0));
    assert_eq!(late[0].reason, "superseded");
}

fn conflicts(env: &mut Env, run: RunId) -> Vec<view::Conflict> {
    match env.ask(Request::Conflicts { run: Some(run) }) {
        Reply::Conflicts(conflicts) => conflicts,
        other => panic!("{other:?}"),
    }
}

#[test]
fn from_a_task_on_all_behind_it_runs_again_and_nothing_that_must_not_run_twice() {
    let mut env = Env::new();
    env.join("gw-1");
    let mut once = task("once", &[]);
    once.side_effects = SideEffects::AtMostOnce;
    let run = env.submit(vec![task("a", &[]), task("b", &[0]), once]);
    let assigns = env.agent("gw-1").assigns();
    for assign in &assigns {
        env.tell("gw-1", all_done(assign));
    }
    assert_eq!(env.run(run).state, "succeeded");
    assert!(refused(
        &retry(&mut env, run, Some("once")),
        "must not run twice"
    ));
    let unknown = retry(&mut env, run, Some("x"));
    assert!(matches!(unknown, Reply::Refused(Refused::NotFound { .. })));
    assert_eq!(retry(&mut env, run, Some("b")), Reply::Done);
    for assign in &assigns {
        env.tell("gw-1", vec![released(assign.slice)]);
    }
    let again = env.agent("gw-1").assigns().pop().unwrap();
    assert!(again.tasks.contains(&TaskIdx(1)), "{again:?}");
    assert_eq!(env.task(run, "once").state, "succeeded");
    env.tell("gw-1", all_done(&again));
    assert_eq!(env.run(run).state, "succeeded");
}

/// What a silent node lost may have run there: it has not been heard.
#[test]
fn what_must_not_run_twice_and_was_lost_in_silence_runs_again_once_its_owner_gave_it_up() {
    for began in [false, true] {
        let mut env = Env::new();
        env.join("gw-1");
        let mut once = task("once", &[]);
        once.side_effects = SideEffects::AtMostOnce;
        once.disconnect.lost_after = Some(Span::secs(600));
        let run = env.submit(vec![once]);
        let old = env.agent("gw-1").last_slice();
        env.tell("gw-1", vec![Body::Accepted { slice: old }]);
        env.hang_up("gw-1");
        env.join("gw-2");
        env.pass(Span::secs(600));
        let view = env.task(run, "once");
        assert_eq!(
            (view.state.as_str(), view.reason.as_deref()),
            ("lost", Some("node_silent"))
        );
        assert!(refused(&retry(&mut env, run, None), "--from TASK"));
        env.hello("gw-1").unwrap();
        if began {
            env.tell("gw-1", vec![started(old, 0, 1), ended(old, 0, 1, true)]);
        }
        env.tell("gw-1", vec![released(old)]);
        if began {
            assert!(refused(&retry(&mut env, run, None), "--from TASK"));
            assert!(env.agent("gw-2").assigns().is_empty());
        } else {
            assert_eq!(retry(&mut env, run, None), Reply::Done);
            assert_eq!(env.run(run).state, "running");
        }
    }
}

#[test]
fn what_must_not_run_twice_and_was_cancelled_over_a_silent_owner_waits_for_its_word() {
    let mut env = Env::new();
    env.join("gw-1");
    let mut once = task("once", &[]);
    once.side_effects = SideEffects::AtMostOnce;
    once.disconnect.lost_after = Some(Span::secs(600));
    let run = env.submit(vec![once]);
    let old = env.agent("gw-1").last_slice();
    env.tell("gw-1", vec![Body::Accepted { slice: old }]);
    env.hang_up("gw-1");
    let (by, why) = ("bob".to_owned(), String::new());
    assert_eq!(env.ask(Request::Cancel { run, by, why }), Reply::Done);
    env.pass(Span::secs(600));
    assert_eq!(env.task(run, "once").state, "cancelled");
    assert!(refused(&retry(&mut env, run, None), "--from TASK"));
    env.hello("gw-1").unwrap();
    env.tell("gw-1", vec![released(old)]);
    assert_eq!(retry(&mut env, run, None), Reply::Done);
}

#[test]
fn a_cancelled_run_runs_again_and_a_cancel_ends_a_retry_that_waits() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[])]);
    let slice = env.agent("gw-1").last_slice();
    let cancel = |run| Request::Cancel {
        run,
        by: "bob".to_owned(),
        why: String::new(),
    };
    assert_eq!(env.ask(cancel(run)), Reply::Done);
    assert!(refused(&retry(&mut env, run, None), "being cancelled"));
    let (task, to, reason) = (TaskIdx(0), TaskState::Cancelled, Reason::CancelledByPerson);
    let moved = Body::Moved {
        slice,
        task,
        to,
        reason,
    };
    let done = [Body::SliceDone { slice }, Body::CancelDone { slice }];
    env.tell(
        "gw-1",
        [vec![Body::Accepted { slice }, moved], done.to_vec()].concat(),
    );
    assert_eq!(env.run(run).state, "cancelled");
    assert_eq!(retry(&mut env, run, None), Reply::Done);
    assert_eq!(env.ask(cancel(run)), Reply::Done);
    assert_eq!(env.run(run).state, "cancelled");
    env.tell("gw-1", vec![released(slice)]);
    assert_eq!(env.agent("gw-1").assigns().len(), 1);
    assert_eq!(retry(&mut env, run, None), Reply::Done);
    let seen = &env.agent("gw-1").seen;
    let lifted = seen
        .iter()
        .rposition(|d| matches!(d.body, Wanted::Retry { .. }));
    let assigned = seen
        .iter()
        .rposition(|d| matches!(d.body, Wanted::Assign(_)));
    assert!(lifted.is_some() && lifted < assigned, "{seen:?}");
    let again = env.agent("gw-1").assigns().pop().unwrap();
    env.tell("gw-1", all_done(&again));
    assert_eq!(env.run(run).state, "succeeded");
}

#[test]
fn failures_before_a_person_let_a_task_run_again_use_up_no_retry() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[])]);
    let slice = env.agent("gw-1").last_slice();
    let again = Body::Moved {
        slice,
        task: TaskIdx(0),
        to: TaskState::Ready,
        reason: Reason::ResumedByPerson,
    };
    let first = vec![
        Body::Accepted { slice },
        started(slice, 0, 1),
        ended(slice, 0, 1, false),
    ];
    env.tell("gw-1", first);
    assert_eq!(env.task(run, "a").attempts, 1);
    env.tell(
        "gw-1",
        vec![again, started(slice, 0, 2), ended(slice, 0, 2, true)],
    );
    assert_eq!(
        env.task(run, "a").attempts,
        1,
        "as at the gateway: the failure does not count"
    );
}

/// An agent of the first release would take the directive for one of a later version.
#[test]
fn a_cancelled_run_is_not_retried_where_an_agent_could_not_follow() {
    let mut env = Env::new();
    env.join("gw-1");
    env.agent("gw-1").features &= !shared::wire::RETRY;
    env.hello("gw-1").unwrap();
    let run = env.submit(vec![task("a", &[])]);
    let slice = env.agent("gw-1").last_slice();
    let (by, why) = ("ann".to_owned(), String::new());
    env.ask(Request::Cancel { run, by, why });
    let ended = Body::Moved {
        slice,
        task: TaskIdx(0),
        to: TaskState::Cancelled,
        reason: Reason::CancelledByPerson,
    };
    env.tell("gw-1", vec![ended, Body::CancelDone { slice }]);
    assert!(refused(&retry(&mut env, run, None), "gw-1 is too old"));
    env.agent("gw-1").features |= shared::wire::RETRY;
    env.hello("gw-1").unwrap();
    assert_eq!(retry(&mut env, run, None), Reply::Done);
}

#[test]
fn nothing_is_placed_while_a_part_is_not_given_up() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let run = env.submit(vec![
        on("gw-1", task("a", &[])),
        on("gw-1", task("d", &[])),
        on("gw-2", task("b", &[0])),
    ]);
    let (one, two) = (
        env.agent("gw-1").last_slice(),
        env.agent("gw-2").last_slice(),
    );
    env.tell("gw-2", vec![Body::Accepted { slice: two }]);
    let fails = vec![
        Body::Accepted { slice: one },
        started(one, 0, 1),
        ended(one, 0, 1, false),
    ];
    env.tell("gw-1", fails);
    let (slice, task, to) = (two, TaskIdx(2), TaskState::Aborted);
    let reason = Reason::NeedFailed;
    let fell = Body::Moved {
        slice,
        task,
        to,
        reason,
    };
    env.tell("gw-2", vec![fell]);
    assert_eq!(retry(&mut env, run, None), Reply::Done);
    env.tell("gw-1", vec![released(one)]);
    assert_eq!(
        env.agent("gw-1").assigns().len(),
        1,
        "what is open here waits for the retry, which would take it away again"
    );
    env.tell("gw-2", vec![released(two)]);
    let again = env.agent("gw-1").assigns();
    assert_eq!(again.len(), 2);
    assert_eq!(again[1].tasks, [TaskIdx(0), TaskIdx(1)]);
    assert!(
        again[1].workflow.is_some(),
        "the node let the workflow go with its last slice"
    );
}

#[test]
fn a_part_that_is_done_before_it_is_given_up_is_still_waited_for() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![
        on("gw-1", task("a", &[])),
        on("gw-1", task("b", &[0])),
    ]);
    let one = env.agent("gw-1").last_slice();
    let runs = vec![
        Body::Accepted { slice: one },
        started(one, 0, 1),
        ended(one, 0, 1, true),
        started(one, 1, 1),
    ];
    env.tell("gw-1", runs);
    assert_eq!(retry(&mut env, run, Some("a")), Reply::Done);
    let done = vec![ended(one, 1, 1, true), Body::SliceDone { slice: one }];
    env.tell("gw-1", done);
    assert_eq!(env.run(run).state, "running");
    env.tell("gw-1", vec![released(one)]);
    assert_eq!(env.agent("gw-1").assigns().len(), 2, "it is placed again");
}

#[test]
fn a_part_that_was_done_on_a_node_that_is_gone_since_is_not_waited_for() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[]), on("gw-2", task("d", &[]))]);
    let one = env.agent("gw-1").last_slice();
    let fails = vec![
        Body::Accepted { slice: one },
        started(one, 0, 1),
        ended(one, 0, 1, false),
        Body::SliceDone { slice: one },
    ];
    env.tell("gw-1", fails);
    env.join("gw-2");
    env.hang_up("gw-1");
    let (node, by) = (env.agent("gw-1").node, "ann".to_owned());
    assert_eq!(env.ask(Request::ForgetNode { node, by }), Reply::Done);
    assert_eq!(env.run(run).state, "running");
    let rest = env.agent("gw-2").assigns().pop().unwrap();
    env.tell("gw-2", all_done(&rest));
    assert_eq!(env.run(run).state, "failed");
    assert_eq!(retry(&mut env, run, None), Reply::Done);
    let again = env.agent("gw-2").assigns().pop().unwrap();
    assert_eq!(again.tasks, [TaskIdx(0)], "{:?}", env.run(run).requests);
    env.tell("gw-2", all_done(&again));
    assert_eq!(env.run(run).state, "succeeded");
}

/// `b` read what `a` made on another node; that went to make room when the run was over.
#[test]
fn what_went_to_make_room_is_made_anew_where_a_retry_needs_it() {
    for once in [false, true] {
        let mut env = Env::new();
        env.join("gw-1");
        env.join("gw-2");
        let mut first = on("gw-1", task("a", &[]));
        if once {
            first.side_effects = SideEffects::AtMostOnce;
        }
        let run = env.submit(vec![first, on("gw-2", task("b", &[0]))]);
        let one = env.agent("gw-1").assigns().pop().unwrap();
        let two = env.agent("gw-2").assigns().pop().unwrap().slice;
        env.tell("gw-1", all_done(&one));
        let hash = crate::common::output(TaskIdx(0)).hash;
        env.give(Input::FileStored { hash, size: 4 });
        let fails = vec![
            Body::Accepted { slice: two },
            started(two, 1, 1),
            ended(two, 1, 1, false),
            Body::SliceDone { slice: two },
        ];
        env.tell("gw-2", fails);
        assert_eq!(env.run(run).state, "failed");
        env.pass(Span::secs(3601));
        assert_eq!(env.ask(Request::MakeRoom { bytes: 4 }), Reply::Room(4));
        let said = retry(&mut env, run, None);
        if once {
            assert!(refused(
                &said,
                "is not there any more, and it must not run twice"
            ));
            continue;
        }
        assert_eq!(said, Reply::Done);
        env.tell("gw-1", vec![released(one.slice)]);
        env.tell("gw-2", vec![released(two)]);
        let again = env.agent("gw-1").assigns().pop().unwrap();
        assert_eq!(again.tasks, [TaskIdx(0)]);
        assert!(again.slice.epoch > one.slice.epoch, "it is made anew");
        env.tell("gw-1", all_done(&again));
        let again = env.agent("gw-2").assigns().pop().unwrap();
        env.tell("gw-2", all_done(&again));
        assert_eq!(env.run(run).state, "succeeded");
    }
}

/// Found by seed 27616: `a` must not run twice, and what it made lay only where `b` read it, on a
/// node that was gone when the run was over. `b` was let run again, and waited for it for ever.
#[test]
fn who_needs_what_is_gone_and_must_not_run_twice_is_not_let_run_again() {
    for once in [false, true] {
        let mut env = Env::new();
        env.join("gw-1");
        let mut first = task("a", &[]);
        if once {
            first.side_effects = SideEffects::AtMostOnce;
        }
        let run = env.submit(vec![first, task("b", &[0])]);
        let assign = env.agent("gw-1").assigns().pop().unwrap();
        env.tell("gw-1", all_done(&assign));
        assert_eq!(env.run(run).state, "succeeded");
        env.join("gw-2");
        env.hang_up("gw-1");
        let (node, by) = (env.agent("gw-1").node, "ann".to_owned());
        assert_eq!(env.ask(Request::ForgetNode { node, by }), Reply::Done);
        let said = retry(&mut env, run, Some("b"));
        if once {
            assert!(refused(&said, "it must not run twice"), "{said:?}");
            assert_eq!(env.run(run).state, "succeeded");
            continue;
        }
        assert_eq!(said, Reply::Done);
        let again = env.agent("gw-2").assigns().pop().unwrap();
        assert_eq!(again.tasks, [TaskIdx(0), TaskIdx(1)], "both are done anew");
        env.tell("gw-2", all_done(&again));
        assert_eq!(env.run(run).state, "succeeded");
    }
}

/// `b` was made in the part that read it as well, which was given up when `c` was let run again;
/// then what `a` made went to make room.
#[test]
fn what_a_part_given_up_brought_may_have_gone_to_make_room_since() {
    for once in [false, true] {
        let mut env = Env::new();
        env.join("gw-1");
        let mut first = task("a", &[]);
        if once {
            first.side_effects = SideEffects::AtMostOnce;
        }
        let run = env.submit(vec![first, task("b", &[0]), task("c", &[])]);
        let one = env.agent("gw-1").assigns().pop().unwrap().slice;
        let mut facts = vec![Body::Accepted { slice: one }];
        for (task, good) in [(0, true), (1, true), (2, false)] {
            facts.extend([started(one, task, 1), ended(one, task, 1, good)]);
        }
        facts.push(Body::SliceDone { slice: one });
        env.tell("gw-1", facts);
        assert_eq!(env.run(run).state, "failed");
        let hash = crate::common::output(TaskIdx(0)).hash;
        env.give(Input::FileStored { hash, size: 4 });
        assert_eq!(retry(&mut env, run, Some("c")), Reply::Done);
        env.tell("gw-1", vec![released(one)]);
        let two = env.agent("gw-1").assigns().pop().unwrap();
        assert_eq!(two.tasks, [TaskIdx(2)]);
        env.tell("gw-1", all_done(&two));
        assert_eq!(env.run(run).state, "succeeded");
        env.pass(Span::secs(3601));
        assert_eq!(env.ask(Request::MakeRoom { bytes: 4 }), Reply::Room(4));
        let said = retry(&mut env, run, Some("b"));
        if once {
            assert!(refused(&said, "it must not run twice"), "{said:?}");
            continue;
        }
        assert_eq!(said, Reply::Done);
        let again = env.agent("gw-1").assigns().pop().unwrap();
        assert_eq!(again.tasks, [TaskIdx(0), TaskIdx(1)], "both are done anew");
        env.tell("gw-1", all_done(&again));
        assert_eq!(env.run(run).state, "succeeded");
    }
}

/// Found by seed 563: what was over in the backup may have been let run again since, at a gateway
/// that was not heard yet.
#[test]
fn a_run_that_was_over_in_the_backup_is_let_run_again_only_behind_the_hold() {
    let (mut env, run, one, _) = failed();
    let backup = env.store.image();
    env.submit(vec![on("gw-1", task("x", &[]))]);
    env.restart(backup);
    env.hello("gw-1").unwrap();
    let before = asked_back(env.agent("gw-1"));
    assert!(refused(&retry(&mut env, run, None), "until all nodes"));
    assert_eq!(asked_back(env.agent("gw-1")), before);
    let (node, by) = (None, "ann".to_owned());
    assert_eq!(env.ask(Request::AcceptGone { node, by }), Reply::Done);
    assert_eq!(retry(&mut env, run, None), Reply::Done);
    env.tell("gw-1", vec![released(one)]);
    assert_eq!(asked_back(env.agent("gw-1")), before + 1);
}

/// Found by seed 3778: a retry that waited in the backup was done behind it, and was done again
/// over the slices that it had led to.
#[test]
fn a_retry_that_waited_in_the_backup_is_done_once() {
    let mut env = Env::new();
    let (run, first) = failed_alone(&mut env);
    retry(&mut env, run, None);
    let backup = env.store.image();
    env.tell("gw-1", vec![released(first)]);
    let second = env.agent("gw-1").last_slice();
    env.tell("gw-1", work(second));
    assert_eq!(env.run(run).state, "succeeded");
    env.restart(backup);
    let inventory = all_of(&mut env, "gw-1", run, alone());
    comes_back(&mut env, "gw-1", inventory);
    comes_back(&mut env, "gw-2", empty());
    assert_eq!(env.run(run).state, "succeeded");
    assert_eq!(env.agent("gw-1").last_slice(), second, "nothing is new");
}

/// Found by seed 3778: what the backup knew of a task that was let run again behind it was told to
/// who waits for it, before the gateway that runs it now was heard.
#[test]
fn nobody_is_told_what_another_gateway_may_know_better() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let run = env.submit(pair());
    for (name, task) in [("gw-1", 0), ("gw-2", 1)] {
        let slice = env.agent(name).last_slice();
        let ended = ended(slice, task, 1, true);
        let done = vec![started(slice, task, 1), ended, Body::SliceDone { slice }];
        env.tell(name, [vec![Body::Accepted { slice }], done].concat());
    }
    assert_eq!(env.run(run).state, "succeeded");
    let backup = env.store.image();
    retry(&mut env, run, Some("a"));
    for name in ["gw-1", "gw-2"] {
        let slice = env.agent(name).last_slice();
        env.tell(name, vec![released(slice)]);
    }
    let first = env.agent("gw-1").last_slice();
    env.tell(
        "gw-1",
        vec![Body::Accepted { slice: first }, started(first, 0, 1)],
    );
    let slice = env.agent("gw-2").last_slice();
    env.tell("gw-2", vec![Body::Accepted { slice }]);
    env.restart(backup);
    let told = |env: &mut Env| {
        let seen = env.agent("gw-2").seen.iter();
        let upstream = seen.filter(|d| matches!(d.body, Wanted::Upstream { .. }));
        upstream.count()
    };
    let before = told(&mut env);
    let inventory = all_of(&mut env, "gw-2", run, pair());
    comes_back(&mut env, "gw-2", inventory);
    assert_eq!(told(&mut env), before, "gw-1 runs it again");
    let inventory = all_of(&mut env, "gw-1", run, pair());
    comes_back(&mut env, "gw-1", inventory);
    assert_eq!(env.task(run, "a").state, "running");
    env.tell("gw-1", vec![ended(first, 0, 1, true)]);
    assert!(told(&mut env) > before);
}
