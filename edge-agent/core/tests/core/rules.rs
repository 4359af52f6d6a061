//! One test for each rule of the agent's core, against a fake executor and a fake coordinator.

use crate::env::*;
use edge_core::driver::DriverError;
use edge_core::event::{Action, Event, Local, LocalReply};
use edge_core::memory::{Disk, Fail};
use shared::directive::Body as Wish;
use shared::explain::Reason;
use shared::fact::{Body, Outcome};
use shared::ids::{Generation, TaskIdx};
use shared::log::{Direction, Head};
use shared::state::TaskState;
use shared::time::{Span, Unix};
use shared::wire::{Ack, Down, Refusal, Refuse, Up};
use shared::workflow::{OnExhausted, Resources, SideEffects, TriggerRule, When, Workflow};

fn origin() -> Head {
    Head::origin(NODE, LIFE, Direction::Up)
}

pub(crate) fn ends(env: &Env) -> Vec<(Outcome, Reason)> {
    let end = |body| match body {
        Body::Ended { end, .. } => Some((end.outcome, end.reason)),
        _ => None,
    };
    env.facts().into_iter().filter_map(end).collect()
}

fn chain() -> Workflow {
    workflow(vec![task("a", &[]), task("b", &[0]), task("c", &[1])])
}

#[test]
fn a_chain_runs_with_one_commit_for_the_end_of_one_and_the_start_of_the_next() {
    let mut env = Env::new();
    env.submit(&chain());
    assert_eq!(env.held_ids(), "a");
    let before = env.disk.commits();
    env.end("a", 0);
    assert_eq!(
        (env.held_ids().as_str(), env.disk.commits()),
        ("b", before + 1)
    );
    env.end("b", 0);
    env.end("c", 0);
    env.pass(Span(10));
    assert_eq!(env.states(), "a=succeeded b=succeeded c=succeeded");
    assert!(matches!(env.facts().last(), Some(Body::SliceDone { .. })));
    env.check_replay();
}

#[test]
fn work_is_resumed_before_the_first_dial() {
    let mut env = Env::new();
    env.submit(&chain());
    env.crash();
    let begin = env
        .actions
        .iter()
        .position(|action| matches!(action, Action::Begin(_)));
    let dial = env
        .actions
        .iter()
        .position(|action| matches!(action, Action::Dial { .. }));
    assert!(begin.unwrap() < dial.unwrap());
    assert_eq!(ends(&env), [(Outcome::Lost, Reason::AgentDied)]);
    assert_eq!(
        env.driver.agent().ps(false)[0].attempts,
        0,
        "no retry is used up"
    );
}

#[test]
fn too_many_deaths_fail_a_task() {
    let mut env = Env::new();
    env.submit(&workflow(vec![task("a", &[])]));
    env.crash();
    env.crash();
    assert_eq!(env.states(), "a=running");
    env.crash();
    assert_eq!(env.states(), "a=failed");
    assert_eq!(
        ends(&env).last(),
        Some(&(Outcome::Lost, Reason::CrashLimit))
    );
}

#[test]
fn an_at_most_once_task_in_doubt_waits_for_a_person() {
    let mut env = Env::new();
    let mut once = task("a", &[]);
    once.side_effects = SideEffects::AtMostOnce;
    env.submit(&workflow(vec![once, task("b", &[0])]));
    env.crash();
    env.pass(Span(10));
    assert_eq!(
        (env.states().as_str(), env.held.len()),
        ("a=lost b=aborted", 0)
    );
    let what = Local::Resume {
        run: RUN,
        task: TaskIdx(0),
        by: "ann".to_owned(),
    };
    assert_eq!(env.local(5, what), LocalReply::Done);
    assert_eq!(env.states(), "a=running b=blocked");
    assert_eq!(env.held[0].attempt.number, 2);
    env.check_replay();
}

#[test]
fn a_failure_is_retried_after_growing_pauses_until_no_attempt_is_left() {
    let mut env = Env::new();
    env.submit(&workflow(vec![task("a", &[]), task("b", &[0])]));
    for pause in [10_000, 20_000] {
        env.end("a", 1);
        assert_eq!(env.states(), "a=retrying b=blocked");
        env.pass(Span(pause - 1));
        assert!(env.held.is_empty());
        env.pass(Span(2));
        assert_eq!(env.held_ids(), "a");
    }
    env.end("a", 1);
    env.pass(Span(10));
    assert_eq!(env.states(), "a=failed b=aborted");
}

#[test]
fn excluded_exit_codes_are_not_retried_and_exhaustion_may_pause() {
    let mut env = Env::new();
    let (mut a, mut b) = (task("a", &[]), task("b", &[]));
    a.retry.no_retry_on = vec![9];
    (b.retry.max_attempts, b.retry.on_exhausted) = (1, OnExhausted::Pause);
    env.submit(&workflow(vec![a, b]));
    env.end("a", 9);
    env.end("b", 1);
    env.pass(Span(10));
    assert_eq!(env.states(), "a=failed b=paused");
    let what = Local::Resume {
        run: RUN,
        task: TaskIdx(1),
        by: "ann".to_owned(),
    };
    assert_eq!(env.local(2, what), LocalReply::Done);
    assert_eq!(env.held_ids(), "b");
}

#[test]
fn a_timeout_stops_and_the_retry_waits_for_the_confirmed_end() {
    let mut env = Env::new();
    let mut a = task("a", &[]);
    a.timeout = Some(Span::secs(5));
    env.submit(&workflow(vec![a]));
    let (attempt, at) = (env.held[0].attempt, env.stamp());
    env.event(Event::Began { attempt, at });
    env.pass(Span::secs(6));
    assert_eq!((env.stopped(), env.states().as_str()), (1, "a=running"));
    env.gone("a");
    env.pass(Span(10));
    assert_eq!(
        ends(&env).last(),
        Some(&(Outcome::Failed, Reason::TimedOut))
    );
    assert_eq!(env.states(), "a=retrying");
}

#[test]
fn a_deadline_ends_what_runs_and_what_waits() {
    let mut env = Env::new();
    let mut a = task("a", &[]);
    a.deadline = Some(Unix(env.now.wall.0 + 5000));
    env.submit(&workflow(vec![a]));
    let (attempt, at) = (env.held[0].attempt, env.stamp());
    env.event(Event::Began { attempt, at });
    env.pass(Span::secs(6));
    env.gone("a");
    env.pass(Span(10));
    assert_eq!(
        (env.states().as_str(), env.reason("a").as_str()),
        ("a=failed", "deadline_passed")
    );
}

#[test]
fn rules_and_conditions_decide_what_follows_an_end() {
    let mut env = Env::new();
    let rule = |id: &str, rule: TriggerRule| {
        let mut t = task(id, &[0]);
        t.inputs.clear();
        t.trigger_rule = rule;
        t
    };
    let mut never = task("never", &[]);
    never.when = Some(When {
        text: "params.x == 1".to_owned(),
        holds: false,
    });
    let mut fails = task("fails", &[]);
    fails.retry.max_attempts = 1;
    env.submit(&workflow(vec![
        fails,
        rule("success", TriggerRule::AllSuccess),
        rule("done", TriggerRule::AllDone),
        rule("failed", TriggerRule::OneFailed),
        rule("none", TriggerRule::NoneFailed),
        never,
        task("after_never", &[5]),
    ]));
    env.end("fails", 1);
    env.pass(Span(10));
    assert_eq!(
        env.states(),
        "fails=failed success=aborted done=running failed=running none=aborted never=skipped \
         after_never=skipped"
    );
}

#[test]
fn priority_then_rank_then_age_decide_the_order() {
    let mut env = Env::with(edge_core::event::Config {
        slots: 1,
        ..config()
    });
    let mut tasks: Vec<_> = ["a", "b", "c", "d"]
        .iter()
        .map(|id| task(id, &[]))
        .collect();
    (tasks[2].priority, tasks[3].upward_rank) = (5, 9);
    tasks
        .iter_mut()
        .for_each(|t| t.side_effects = SideEffects::AtMostOnce);
    env.submit(&workflow(tasks));
    let mut order = Vec::new();
    for _ in 0..4 {
        let id = env.held_ids();
        env.end(&id, 0);
        order.push(id);
    }
    assert_eq!(order, ["c", "d", "a", "b"]);
}

#[test]
fn what_does_not_fit_now_waits_and_what_never_fits_is_refused() {
    let mut env = Env::new();
    let mut big = task("big", &[]);
    big.resources = Resources {
        cpu_milli: 2000,
        ..Resources::default()
    };
    let small = task("small", &[]);
    env.submit(&workflow(vec![small, big.clone()]));
    assert_eq!(
        (env.held_ids().as_str(), env.reason("big").as_str()),
        ("small", "waits_for_resources")
    );
    let explained = env.driver.agent().explain(RUN, "big").unwrap();
    assert_eq!(
        explained.decisions[0].evidence,
        ["wanted=2000", "free=1000"]
    );
    big.resources.cpu_milli = 9000;
    env.assigned(assign(slice(3, 1), &workflow(vec![big]), &[0]));
    let refused = |body: &Body| {
        matches!(
            body,
            Body::Refused {
                reason: Reason::DoesNotFit,
                ..
            }
        )
    };
    assert!(env.facts().iter().any(refused));
}

#[test]
fn a_cancel_ends_what_runs_keeps_what_is_done_and_is_confirmed() {
    let mut env = Env::new();
    env.assigned(assign(slice(0, 1), &chain(), &[0, 1, 2]));
    env.end("a", 0);
    let why = String::new();
    env.tell(vec![Wish::Cancel {
        run: RUN,
        by: "ann".to_owned(),
        why,
    }]);
    assert_eq!(
        (env.states().as_str(), env.stopped()),
        ("a=succeeded b=running c=cancelled", 1)
    );
    assert!(
        !env.facts()
            .iter()
            .any(|body| matches!(body, Body::CancelDone { .. }))
    );
    env.gone("b");
    assert_eq!(env.states(), "a=succeeded b=cancelled c=cancelled");
    assert!(matches!(env.facts().last(), Some(Body::CancelDone { .. })));
    env.check_replay();
}

#[test]
fn work_goes_on_when_no_pause_mark_is_left() {
    let mut env = Env::new();
    env.assigned(assign(slice(0, 1), &chain(), &[0, 1, 2]));
    env.tell(vec![Wish::Pause {
        run: RUN,
        on: true,
        by: "ann".to_owned(),
    }]);
    let by = "bob".to_owned();
    env.local(
        1,
        Local::Pause {
            run: RUN,
            on: true,
            by: by.clone(),
        },
    );
    env.end("a", 0);
    assert_eq!(env.states(), "a=succeeded b=paused c=blocked");
    env.tell(vec![Wish::Pause {
        run: RUN,
        on: false,
        by: by.clone(),
    }]);
    assert!(env.held.is_empty());
    env.local(
        2,
        Local::Pause {
            run: RUN,
            on: false,
            by,
        },
    );
    assert_eq!(env.held_ids(), "b");
    let done = |body: &Body| matches!(body, Body::PauseDone { .. });
    assert_eq!(env.facts().iter().filter(|body| done(body)).count(), 2);
    env.check_replay();
}

#[test]
fn a_pause_takes_starts_ahead_back() {
    let mut env = Env::new();
    let flat = (0..6).map(|n| task(&format!("t{n}"), &[])).collect();
    env.submit(&workflow(flat));
    env.local(
        2,
        Local::Pause {
            run: RUN,
            on: true,
            by: "ann".to_owned(),
        },
    );
    assert_eq!(env.stopped(), 2);
    for id in ["t2", "t3"] {
        env.gone(id);
    }
    env.pass(Span(10));
    assert_eq!(
        env.states(),
        "t0=running t1=running t2=paused t3=paused t4=paused t5=paused"
    );
}

#[test]
fn a_release_stops_all_and_names_what_is_in_doubt() {
    let mut env = Env::new();
    let mut once = task("once", &[]);
    once.side_effects = SideEffects::AtMostOnce;
    env.assigned(assign(
        slice(0, 1),
        &workflow(vec![once, task("b", &[])]),
        &[0, 1],
    ));
    env.tell(vec![Wish::Release { slice: slice(0, 1) }]);
    assert_eq!(env.stopped(), 2);
    env.gone("once");
    env.gone("b");
    env.pass(Span(10));
    let last = env.facts().pop();
    let in_doubt = vec![TaskIdx(0)];
    assert_eq!(
        last,
        Some(Body::Released {
            slice: slice(0, 1),
            in_doubt
        })
    );
    assert_eq!(env.states(), "");
    env.tell(vec![Wish::Release { slice: slice(0, 1) }]);
    let again = Some(Body::Released {
        slice: slice(0, 1),
        in_doubt: Vec::new(),
    });
    assert_eq!(env.facts().pop(), again);
    env.check_replay();
}

#[test]
fn a_release_waits_until_the_outputs_of_the_slice_are_with_the_coordinator() {
    let mut env = Env::new();
    env.assigned(assign(slice(0, 1), &chain(), &[0, 1, 2]));
    env.end("a", 0);
    env.pass(Span(10));
    assert_eq!(env.uploads(), 0, "b reads it here");
    env.tell(vec![Wish::Release { slice: slice(0, 1) }]);
    env.gone("b");
    env.pass(Span(10));
    let released = |env: &Env| matches!(env.facts().pop(), Some(Body::Released { .. }));
    assert_eq!((env.uploads(), released(&env)), (1, false));
    env.event(Event::Uploaded {
        hash: file(100).hash,
    });
    env.pass(Span(10));
    assert!(released(&env));
    assert_eq!((env.states().as_str(), env.uploads()), ("", 1));
    env.check_replay();
}

#[test]
fn an_old_assign_runs_nothing_and_a_newer_epoch_waits_for_the_old_to_end() {
    let mut env = Env::new();
    let flow = workflow(vec![task("a", &[])]);
    env.assigned(assign(slice(0, 5), &flow, &[0]));
    env.tell(vec![Wish::Assign(assign(slice(0, 9), &flow, &[0]))]);
    assert_eq!((env.stopped(), env.held.len()), (1, 1));
    env.check_replay();
    env.gone("a");
    assert_eq!((env.held.len(), env.held[0].attempt.slice.epoch.0), (1, 9));
    env.end("a", 0);
    env.pass(Span(10));
    for epoch in [9, 5] {
        env.tell(vec![Wish::Assign(assign(slice(0, epoch), &flow, &[0]))]);
        assert_eq!((env.states().as_str(), env.held.len()), ("a=succeeded", 0));
    }
    let refused = |body: &Body| {
        matches!(
            body,
            Body::Refused {
                reason: Reason::Superseded,
                ..
            }
        )
    };
    assert!(env.facts().iter().any(refused));
    env.check_replay();
}

#[test]
fn a_task_waits_for_a_file_of_another_slice_and_asks_again() {
    let mut env = Env::new();
    env.assigned(assign(slice(1, 1), &chain(), &[1]));
    assert_eq!(env.states(), "b=blocked");
    let told = upstream(0, TaskState::Succeeded, &[50]);
    env.tell(vec![Wish::Upstream {
        slice: slice(1, 1),
        upstream: told,
    }]);
    assert_eq!(
        (env.states().as_str(), env.reason("b").as_str()),
        ("b=blocked", "waits_for_file")
    );
    let fetches = |env: &Env| {
        env.actions
            .iter()
            .filter(|action| matches!(action, Action::Fetch { .. }))
            .count()
    };
    assert_eq!(fetches(&env), 1);
    env.event(Event::FileNotThere {
        hash: file(50).hash,
        why: String::new(),
    });
    env.pass(Span::secs(2));
    assert_eq!(fetches(&env), 2);
    env.event(Event::FileHere {
        hash: file(50).hash,
    });
    assert_eq!(env.held[0].inputs, [Some(file(50).hash)]);
    env.end("b", 0);
    env.pass(Span(10));
    assert_eq!(env.uploads(), 1, "c reads it elsewhere");
    env.check_replay();
}

#[test]
fn a_forgotten_run_leaves_nothing_and_unknown_ones_are_refused() {
    let mut env = Env::new();
    env.assigned(assign(slice(0, 1), &workflow(vec![task("a", &[])]), &[0]));
    env.end("a", 0);
    env.tell(vec![Wish::Forget { run: RUN }]);
    assert!(env.actions.contains(&Action::ForgetRun { run: RUN }));
    assert!(env.driver.agent().runs().is_empty());
    env.tell(vec![Wish::Pause {
        run: RUN,
        on: true,
        by: String::new(),
    }]);
    let refused = |body: &Body| {
        matches!(
            body,
            Body::Refused {
                reason: Reason::UnknownRun,
                ..
            }
        )
    };
    assert!(env.facts().iter().any(refused));
    let starts = |body: &Body| matches!(body, Body::Started { .. });
    for epoch in [1, 2] {
        let flow = workflow(vec![task("a", &[])]);
        env.assigned(assign(slice(0, epoch), &flow, &[0]));
        let last = env.facts().pop();
        let refused = matches!(
            last,
            Some(Body::Refused {
                reason: Reason::ForgottenRun,
                ..
            })
        );
        assert!(refused, "what is over does not begin again: {last:?}");
    }
    let facts = env.facts();
    assert_eq!(facts.iter().filter(|body| starts(body)).count(), 1);
    env.check_replay();
}

#[test]
fn facts_go_up_once_welcome_and_an_ack_is_remembered() {
    let mut env = Env::new();
    env.submit(&workflow(vec![task("a", &[])]));
    env.join(origin());
    let batches: Vec<_> = env
        .sent()
        .into_iter()
        .filter(|up| matches!(up, Up::Facts(_)))
        .collect();
    let Up::Facts(batch) = batches[0] else {
        unreachable!()
    };
    let head = batch.head();
    assert_eq!(head, env.driver.heads().0);
    env.ack(head);
    let commits = env.disk.commits();
    env.pass(Span(120_001));
    assert!(env.disk.commits() > commits, "it is committed even alone");
    env.crash();
    let session = env.session.unwrap();
    assert!(session > 1000, "numbers of before are not used again");
    env.event(Event::Linked { session });
    let Some(Up::Hello(hello)) = env.sent().into_iter().find(|up| matches!(up, Up::Hello(_)))
    else {
        panic!("no hello")
    };
    assert_eq!(hello.ack.map(|ack| ack.head), Some(head));
    assert_eq!(hello.facts, env.driver.heads().0);
}

#[test]
fn a_coordinator_that_knows_more_makes_a_new_incarnation() {
    let mut env = Env::new();
    env.join(Head {
        number: 99,
        ..origin()
    });
    assert!(
        env.actions
            .iter()
            .any(|action| matches!(action, Action::NewIncarnation { .. }))
    );
    let mut env = Env::new();
    let mut other = env.driver.heads().0;
    other.hash.0[0] ^= 1;
    env.join(other);
    assert!(
        env.actions
            .iter()
            .any(|action| matches!(action, Action::NewIncarnation { .. }))
    );
}

#[test]
fn a_gap_is_asked_for_and_a_fork_is_never_applied() {
    let mut env = Env::new();
    env.join(origin());
    let own = env.directives;
    env.directives = own.then(b"missing");
    env.tell(vec![Wish::Forget { run: RUN }]);
    assert!(env.sent().contains(&&Up::WantDirectives { from: 1 }));
    env.directives = own;
    env.tell(vec![Wish::Forget { run: RUN }]);
    assert_eq!(env.driver.heads().1.number, 1);
    env.directives = own;
    env.tell(vec![Wish::Release { slice: slice(0, 1) }]);
    assert!(
        env.actions
            .iter()
            .any(|action| matches!(action, Action::Hangup { .. }))
    );
    assert_eq!(env.driver.heads().1.number, 1);
}

#[test]
fn a_refusal_pauses_the_dialling_and_not_the_work() {
    let mut env = Env::new();
    env.submit(&chain());
    let session = env.session.take().unwrap();
    env.event(Event::Linked { session });
    let refuse = Refuse {
        reason: Refusal::Quarantined,
        text: String::new(),
        retry_after: None,
    };
    env.event(Event::Heard {
        session,
        message: Down::Refuse(refuse),
    });
    env.pass(Span::secs(299));
    assert_eq!(env.session, None);
    env.end("a", 0);
    assert_eq!(env.held_ids(), "b");
    env.pass(Span::secs(700));
    assert!(env.session.is_some());
}

#[test]
fn without_room_nothing_starts_and_ends_are_still_recorded() {
    let mut env = Env::new();
    env.submit(&chain());
    env.event(Event::Room {
        free: 10,
        wanted: 1000,
    });
    env.end("a", 0);
    env.pass(Span(10));
    assert_eq!(
        (env.states().as_str(), env.held.len()),
        ("a=succeeded b=ready c=blocked", 0)
    );
    assert_eq!(env.reason("b"), "waits_for_disk");
    env.assigned(assign(slice(4, 1), &chain(), &[0]));
    let refused = |body: &Body| {
        matches!(
            body,
            Body::Refused {
                reason: Reason::NoRoom,
                ..
            }
        )
    };
    assert!(env.facts().iter().any(refused));
    env.event(Event::Room {
        free: 1 << 30,
        wanted: 1000,
    });
    assert_eq!(env.held_ids(), "b");
}

#[test]
fn after_a_failed_commit_the_core_is_rebuilt_and_no_end_is_lost() {
    for fail in [
        Fail::Unknown { done: false },
        Fail::Unknown { done: true },
        Fail::Full,
    ] {
        let mut env = Env::new();
        env.submit(&chain());
        let launch = env.held.remove(0);
        let end = env.process_end(launch.attempt, 0, vec![file(1)]);
        env.disk.fail_next(fail);
        assert!(matches!(
            env.run(vec![Event::Ended(end)]),
            Err(DriverError::Rebuilt(_))
        ));
        assert!(env.held.is_empty(), "nothing is started from it");
        env.start(false);
        env.event(Event::Room {
            free: 1 << 30,
            wanted: 0,
        });
        env.crash();
        assert!(
            env.states().starts_with("a=succeeded b=running"),
            "{}",
            env.states()
        );
    }
}

#[test]
fn a_message_of_an_old_session_is_ignored() {
    let mut env = Env::new();
    env.join(origin());
    let old = env.session.unwrap();
    env.event(Event::Unlinked {
        session: old,
        why: String::new(),
    });
    env.actions.clear();
    let message = Down::Ping { nonce: 1 };
    env.event(Event::Heard {
        session: old,
        message,
    });
    assert!(env.sent().is_empty());
}

fn with_deadline(deadline: Unix) -> Workflow {
    let mut one = task("a", &[]);
    one.deadline = Some(deadline);
    workflow(vec![one])
}

#[test]
fn a_deadline_counts_from_when_the_clock_becomes_right() {
    let mut env = Env::on(Disk::new(NODE, LIFE), config());
    let noon = env.now.wall;
    env.now.wall = Unix(0);
    let Event::Boot(mut boot) = env.boot_event(false) else {
        unreachable!()
    };
    boot.clock_trusted = false;
    env.event(Event::Boot(boot));
    env.submit(&with_deadline(Unix(noon.0 + 60_000)));
    env.pass(Span::secs(300));
    assert_eq!(env.stopped(), 0, "nobody knows what time it is");
    env.now.wall = noon;
    env.event(Event::Clock { trusted: true });
    env.pass(Span::secs(59));
    assert_eq!(env.stopped(), 0);
    env.pass(Span::secs(2));
    assert_eq!(env.stopped(), 1);
}

#[test]
fn a_deadline_follows_a_clock_that_is_set() {
    let mut env = Env::new();
    let hour = 3_600_000;
    env.submit(&with_deadline(Unix(env.now.wall.0 + 2 * hour)));
    env.now.wall.0 += hour;
    env.event(Event::Wake);
    env.pass(Span(3_590_000));
    assert_eq!(env.stopped(), 0);
    env.now.wall.0 -= hour;
    env.event(Event::Wake);
    env.pass(Span(3_600_000));
    assert_eq!(env.stopped(), 0, "it was set back");
    env.pass(Span(20_000));
    assert_eq!(env.stopped(), 1);
}

/// A look at the store fails in the middle of a group: the executor tells no end twice.
#[test]
fn an_end_behind_a_look_that_fails_is_not_lost() {
    let mut env = Env::new();
    let mut once = task("once", &[]);
    once.side_effects = SideEffects::AtMostOnce;
    env.assigned(assign(slice(0, 1), &workflow(vec![once]), &[0]));
    let (head, session) = (env.driver.heads().0, env.session.unwrap());
    let launch = env.held.remove(0);
    let end = env.process_end(launch.attempt, 0, vec![file(100)]);
    let ack = Ack {
        generation: Generation(5),
        head,
        seal: [0; 32],
        safe: 0,
    };
    let message = Down::Ack(ack);
    env.disk.fail_next(Fail::Read);
    let group = vec![Event::Heard { session, message }, Event::Ended(end)];
    assert!(env.run(group).is_err());
    env.start(false);
    env.pass(Span(10));
    assert_eq!(env.states(), "once=succeeded");
}

#[test]
fn an_agent_that_is_about_to_stop_records_ends_and_starts_nothing() {
    let mut env = Env::new();
    let tasks = (0..20).map(|n| task(&format!("t{n}"), &[])).collect();
    env.submit(&workflow(tasks));
    let held = env.held.len();
    env.driver.close();
    env.end("t0", 0);
    assert_eq!(env.held.len(), held - 1, "nothing takes its place");
    let flushed = env.driver.flush(env.now, &mut |_| {});
    assert!(flushed.is_ok() && !env.driver.has_uncommitted());
    env.crash();
    assert_eq!(ends(&env)[0].0, Outcome::Succeeded);
    assert_eq!(env.held.len(), held, "the next start goes on");
}
