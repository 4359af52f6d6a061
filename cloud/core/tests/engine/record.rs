//! Events and the audit record: with the commit of what they tell, without gap, through failures.

use crate::common::{Env, all_done, task, workflow};
use cloud_core::access::{Caller, Role};
use cloud_core::event::{Refused, Reply, Request};
use cloud_core::memory::Fail;
use cloud_core::view::{Audited, Event};
use shared::ids::RunId;
use shared::time::{Span, Unix};

fn events(env: &mut Env, after: Option<u64>) -> Vec<Event> {
    match env.ask(Request::Events { after, limit: 1000 }) {
        Reply::Events { events, .. } => events,
        other => panic!("{other:?}"),
    }
}

fn audit(env: &mut Env) -> Vec<Audited> {
    let request = Request::Audit {
        after: 0,
        limit: 1000,
    };
    match env.ask(request) {
        Reply::Audit(entries) => entries,
        other => panic!("{other:?}"),
    }
}

fn numbered(events: &[Event]) {
    let numbers: Vec<u64> = events.iter().map(|event| event.number).collect();
    let first = numbers[0];
    let expected: Vec<u64> = (first..).take(numbers.len()).collect();
    assert_eq!(numbers, expected);
}

fn pause(env: &mut Env, run: RunId, on: bool) -> Reply {
    let by = "ann".to_owned();
    env.ask(Request::Pause { run, on, by })
}

#[test]
fn a_run_is_told_from_its_submission_to_its_end() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[]), task("b", &[0])]);
    let assign = env.agent("gw-1").assigns()[0].clone();
    env.tell("gw-1", all_done(&assign));
    let told = events(&mut env, None);
    numbered(&told);
    assert_eq!((told[0].number, told[0].kind.as_str()), (1, "began"));
    let states: Vec<&str> = told
        .iter()
        .filter(|e| e.kind == "run" && e.run == Some(run))
        .filter_map(|e| e.state.as_deref())
        .collect();
    assert_eq!(states, ["accepted", "running", "succeeded"]);
    let of_b: Vec<&Event> = told
        .iter()
        .filter(|e| e.task.as_deref() == Some("b"))
        .collect();
    let last = of_b.last().unwrap();
    assert_eq!(
        (last.state.as_deref(), last.node.as_deref()),
        (Some("succeeded"), Some("gw-1"))
    );
    let node = told
        .iter()
        .find(|e| e.kind == "node" && e.session.is_some());
    assert_eq!(node.unwrap().state.as_deref(), Some("online"));
    assert!(
        told.iter()
            .any(|e| e.kind == "enrolled" && e.node.as_deref() == Some("gw-1"))
    );
    let action = told
        .iter()
        .find(|e| e.what.as_deref() == Some("submit"))
        .unwrap();
    assert_eq!(action.about, Some(run.to_string()));
}

#[test]
fn a_submission_that_is_sent_again_is_not_told_as_a_second_one() {
    let mut env = Env::new();
    env.join("gw-1");
    let workflow = shared::codec::pack(&workflow(vec![task("a", &[])])).0;
    let runs = [RunId([5; 16]), RunId([6; 16])];
    for run in runs {
        let reply = env.ask(Request::Submit {
            run,
            workflow: workflow.clone(),
            by: "ann".to_owned(),
            idempotency_key: Some("monthly".to_owned()),
        });
        assert_eq!(reply, Reply::Submitted(runs[0]));
    }
    let mut entries = audit(&mut env);
    entries.retain(|e| e.what == "submit");
    let details: Vec<&str> = entries.iter().map(|e| e.detail.as_str()).collect();
    let again = "monthly; sent again: nothing more was done";
    assert_eq!(details, ["monthly", again], "{entries:?}");
    assert!(entries.iter().all(|e| e.about == runs[0].to_string()));
    let told = events(&mut env, None);
    let actions = told.iter().filter(|e| e.what.as_deref() == Some("submit"));
    assert_eq!(actions.count(), 1);
}

#[test]
fn a_session_that_ends_is_told_although_nothing_else_changes() {
    let mut env = Env::new();
    env.join("gw-1");
    let last = events(&mut env, None).last().unwrap().number;
    env.hang_up("gw-1");
    env.pass(Span::secs(2));
    let told = events(&mut env, Some(last));
    let node = told.iter().find(|e| e.kind == "node").unwrap();
    assert_eq!(
        (node.state.as_deref(), node.session),
        (Some("offline"), None)
    );
}

#[test]
fn numbers_go_on_after_a_restart_and_a_beginning_is_told() {
    let mut env = Env::new();
    env.join("gw-1");
    let before = events(&mut env, None);
    let last = before.last().unwrap().number;
    let store = env.store.clone();
    env.restart(store);
    let told = events(&mut env, Some(last));
    numbered(&told);
    assert_eq!((told[0].number, told[0].kind.as_str()), (last + 1, "began"));
    assert_eq!(events(&mut env, None)[..before.len()], before);
}

#[test]
fn a_position_that_is_not_known_is_refused_with_what_is() {
    let mut env = Env::new();
    let last = events(&mut env, None).last().unwrap().number;
    let ask = |env: &mut Env, after| {
        env.ask(Request::Events {
            after: Some(after),
            limit: 10,
        })
    };
    assert!(matches!(ask(&mut env, last), Reply::Events { events, .. } if events.is_empty()));
    for wrong in [last + 1, u64::MAX] {
        let Reply::Refused(Refused::Forgotten {
            after,
            first,
            last: to,
        }) = ask(&mut env, wrong)
        else {
            panic!("{wrong} is not known");
        };
        assert_eq!((after, first, to), (wrong, 1, last));
    }
}

#[test]
fn each_action_is_audited_with_its_result_and_the_proven_name() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[])]);
    let before = audit(&mut env).len();
    env.caller = Caller {
        token: Some("night-shift".to_owned()),
        from: "192.0.2.7:4711".to_owned(),
    };
    assert_eq!(pause(&mut env, run, true), Reply::Done);
    let unknown = RunId([9; 16]);
    assert!(matches!(pause(&mut env, unknown, true), Reply::Refused(_)));
    let entries = audit(&mut env);
    let [done, refused] = &entries[before..] else {
        panic!("{entries:?}");
    };
    assert_eq!(
        (done.who.as_str(), done.token),
        ("night-shift", true),
        "not ann"
    );
    assert_eq!(
        (done.what.as_str(), done.from.as_str()),
        ("run pause", "192.0.2.7:4711")
    );
    assert_eq!(
        (done.about.clone(), done.result.as_str()),
        (run.to_string(), "done")
    );
    assert_eq!(refused.result, "refused");
    assert!(refused.reason.as_deref().unwrap().contains("no run"));
    assert!(
        env.run(run).waits[0].what.contains("night-shift"),
        "the run shows it, too"
    );
    let store = env.store.clone();
    env.restart(store);
    assert_eq!(audit(&mut env), entries, "it is durable");
}

#[test]
fn what_was_not_done_is_not_in_the_record_and_what_was_done_is_once() {
    for fail in [Fail::SurelyNot, Fail::UnknownNotDone, Fail::UnknownDone] {
        let mut env = Env::new();
        env.join("gw-1");
        let run = env.submit(vec![task("a", &[])]);
        let (before, last) = (
            audit(&mut env).len(),
            events(&mut env, None).last().unwrap().number,
        );
        env.store.fail_next(fail);
        let reply = pause(&mut env, run, true);
        let done = usize::from(fail == Fail::UnknownDone);
        assert_eq!(
            usize::from(reply == Reply::Done),
            done,
            "{fail:?}: {reply:?}"
        );
        assert_eq!(audit(&mut env).len(), before + done, "{fail:?}");
        env.pass(Span::secs(60));
        let told = events(&mut env, Some(last));
        numbered(&told);
        let count = |kind: &str| told.iter().filter(|e| e.kind == kind).count();
        assert_eq!(
            (count("action"), count("run"), count("began")),
            (done, done, 1),
            "{fail:?}"
        );
    }
}

#[test]
fn access_tokens_are_kept_by_name_and_end_when_they_are_revoked() {
    let mut env = Env::new();
    let add = |env: &mut Env, name: &str, expires| {
        env.ask(Request::AddAccess {
            name: name.to_owned(),
            role: Role::Operator,
            id: "00ff".to_owned(),
            hash: [3; 32],
            expires,
            by: "ann".to_owned(),
        })
    };
    let soon = Unix(env.now.wall.0 + 1000);
    assert_eq!(add(&mut env, "ci", Some(soon)), Reply::Done);
    assert!(matches!(
        add(&mut env, "ci", None),
        Reply::Refused(Refused::State(_))
    ));
    assert_eq!(env.access["ci"].role, Role::Operator);
    env.pass(Span::secs(5));
    let Reply::Access(list) = env.ask(Request::Access) else {
        panic!("no list");
    };
    assert!(list[0].expired);
    assert_eq!(
        add(&mut env, "ci", None),
        Reply::Done,
        "what is over makes room"
    );
    let store = env.store.clone();
    env.restart(store);
    assert_eq!(env.engine.access().len(), 1);
    let revoke = |name: &str| Request::RevokeAccess {
        name: name.to_owned(),
        by: "ann".to_owned(),
    };
    assert!(matches!(
        env.ask(revoke("other")),
        Reply::Refused(Refused::NotFound { .. })
    ));
    assert_eq!(env.ask(revoke("ci")), Reply::Done);
    assert!(env.access.is_empty() && env.engine.access().is_empty());
}

#[test]
fn a_clock_that_jumps_ahead_takes_nothing_from_the_audit_record() {
    let mut env = Env::new();
    let run = env.submit(vec![task("a", &[])]);
    let first = audit(&mut env)[0].clone();
    let right = env.now.wall;
    env.now.wall.0 += 3 * 365 * 86_400_000;
    for n in 0..3 {
        pause(&mut env, run, n % 2 == 0);
    }
    env.now.wall = right;
    pause(&mut env, run, false);
    env.restart(env.store.clone());
    pause(&mut env, run, true);
    assert_eq!(audit(&mut env)[0], first);
    // It ages while time passes: with the next start that finds it old.
    for _ in 0..2 {
        env.pass(Span(401 * 86_400_000));
        pause(&mut env, run, false);
    }
    assert_ne!(audit(&mut env)[0], first);
}

#[test]
fn who_asks_is_bounded_where_it_is_kept() {
    let mut env = Env::new();
    env.join("gw-1");
    let (node, by) = (env.agent("gw-1").node, "é".repeat(20_000));
    let change = cloud_core::change::NodeChange::Cordon;
    let done = env.ask(Request::ChangeNode { node, change, by });
    assert_eq!(done, Reply::Done);
    let node = cloud_core::store::AggregateId::Node(node);
    let size = crate::bounds::bytes_of(&mut env, node).unwrap();
    assert!(size < 8192, "{size} bytes are kept of the node");
}
