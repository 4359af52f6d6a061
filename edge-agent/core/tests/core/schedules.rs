//! Schedules at the gateway: slots, reboots, clocks, persons, directives.

use crate::env::*;
use edge_core::event::{Action, Event, Local, LocalReply};
use shared::codec;
use shared::directive::Body as Wish;
use shared::explain::Reason;
use shared::fact::Body;
use shared::ids::{Epoch, ScheduleId};
use shared::log::{Direction, Head};
use shared::schedule::{Catchup, Cause, Order, Overlap, Rule, SCHEDULED_FOR, Schedule, run_of};
use shared::time::{Span, Unix};
use shared::workflow::Workflow;

const ID: ScheduleId = ScheduleId([5; 16]);
const MINUTE: i64 = 60_000;
/// The next full minute after the world begins.
const T: i64 = 1_700_000_040_000;

fn rules(catchup: Catchup, overlap: Overlap) -> Schedule {
    Schedule {
        rule: Rule::Every(Span::secs(60)),
        timezone: "UTC".to_owned(),
        catchup,
        max_catchup: 3,
        starting_deadline: None,
        overlap,
        jitter: Span(0),
    }
}

fn flow(schedule: Schedule) -> Workflow {
    let mut one = task("a", &[]);
    one.outputs.clear();
    let mut flow = workflow(vec![one]);
    flow.schedule = Some(schedule);
    flow
}

fn set(flow: &Workflow, revision: u32, after: Unix) -> Order {
    Order::Set {
        revision,
        workflow: codec::pack(flow).0,
        after,
        paused: false,
    }
}

fn ask(env: &mut Env, what: Order) -> LocalReply {
    let by = "ann".to_owned();
    env.local(
        9,
        Local::Schedule {
            schedule: ID,
            what,
            by,
        },
    )
}

fn made(schedule: Schedule) -> Env {
    let mut config = config();
    config.has_coordinator = false;
    config.fact_window = Span::secs(1 << 30);
    let mut env = Env::with(config);
    let order = set(&flow(schedule), 1, env.now.wall);
    assert_eq!(ask(&mut env, order), LocalReply::Done);
    env
}

/// Slots that fired, in minutes behind the first one.
fn fired(env: &Env) -> Vec<i64> {
    let slot = |body: Body| match body {
        Body::Fired { slot, .. } => Some((slot.0 - T) / MINUTE),
        _ => None,
    };
    env.facts().into_iter().filter_map(slot).collect()
}

fn skipped(env: &Env) -> Vec<Reason> {
    let reason = |body: Body| match body {
        Body::SlotsSkipped { skipped, .. } => Some(skipped.reason),
        _ => None,
    };
    env.facts().into_iter().filter_map(reason).collect()
}

/// Passes to a number of milliseconds behind the first slot, ending each task at once.
fn pass_to(env: &mut Env, at: i64) {
    while env.now.wall.0 < at {
        let step = (at - env.now.wall.0).min(1000);
        env.pass(Span(step as u64));
        while !env.held.is_empty() {
            env.end("a", 0);
        }
    }
}

#[test]
fn slots_fire_in_time_and_tell_the_task_for_when() {
    let mut env = made(rules(Catchup::None, Overlap::Forbid));
    env.pass(Span((T - env.now.wall.0 - 1) as u64));
    assert!(fired(&env).is_empty());
    env.pass(Span(1));
    assert_eq!(fired(&env), [0]);
    assert_eq!(env.held[0].task.env[SCHEDULED_FOR], "2023-11-14T22:14:00Z");
    assert_eq!(env.held[0].attempt.slice.run, run_of(ID, Epoch(0), Unix(T)));
    pass_to(&mut env, T + 3 * MINUTE);
    assert_eq!(fired(&env), [0, 1, 2, 3]);
    env.check_replay();
    let view = &env.driver.agent().schedule_views()[0];
    assert_eq!((view.fired, view.next), (4, Some(Unix(T + 4 * MINUTE))));
    assert_eq!(
        env.driver.agent().next_slots(ID, 2)[1],
        Unix(T + 5 * MINUTE)
    );
}

#[test]
fn a_crash_after_the_firing_fires_nothing_twice() {
    let mut env = made(rules(Catchup::Latest, Overlap::Allow));
    env.pass(Span((T - env.now.wall.0) as u64));
    assert_eq!(fired(&env), [0]);
    env.crash();
    env.power_cut();
    assert_eq!(fired(&env), [0]);
    assert_eq!(env.held.len(), 1, "the run goes on");
}

#[test]
fn what_was_missed_is_caught_up_as_the_schedule_says() {
    for (catchup, wanted) in [
        (Catchup::None, vec![]),
        (Catchup::Latest, vec![19]),
        (Catchup::All, vec![17, 18, 19]),
    ] {
        let mut schedule = rules(catchup, Overlap::Forbid);
        schedule.rule = Rule::Every(Span::secs(60));
        let mut env = made(schedule);
        env.now.wall.0 = T + 20 * MINUTE - 1;
        if catchup == Catchup::None {
            // in time would be a minute late at most
            env.now.wall.0 = T + 19 * MINUTE + 59_999;
        }
        env.power_cut();
        pass_to(&mut env, T + 20 * MINUTE - 1);
        let late: Vec<i64> = fired(&env);
        if catchup == Catchup::None {
            assert_eq!(late, [19], "less than a minute late is in time");
            assert_eq!(skipped(&env), [Reason::SlotMissed]);
            continue;
        }
        for _ in 0..3 {
            while !env.held.is_empty() {
                env.end("a", 0);
            }
            env.event(Event::Wake);
        }
        assert_eq!(fired(&env), wanted, "{catchup:?}");
        assert_eq!(skipped(&env), [Reason::SlotMissed]);
        env.check_replay();
    }
}

#[test]
fn an_open_run_lets_slots_pass_or_is_replaced() {
    let mut env = made(rules(Catchup::None, Overlap::Forbid));
    env.pass(Span((T + 2 * MINUTE - env.now.wall.0) as u64));
    assert_eq!(fired(&env), [0]);
    assert_eq!(skipped(&env), [Reason::RunOpen, Reason::RunOpen]);
    env.end("a", 0);
    env.pass(Span::secs(60));
    assert_eq!(fired(&env), [0, 3]);

    let mut env = made(rules(Catchup::None, Overlap::Replace));
    env.pass(Span((T + MINUTE - env.now.wall.0) as u64));
    assert_eq!(fired(&env), [0, 1]);
    let cancelled =
        |body: &Body| matches!(body, Body::CancelledHere { by, .. } if by == "schedule flow");
    assert_eq!(env.facts().iter().filter(|body| cancelled(body)).count(), 1);
    assert_eq!(env.stopped(), 1);
}

#[test]
fn clocks_that_jump_lose_and_repeat_nothing() {
    let mut env = made(rules(Catchup::Latest, Overlap::Allow));
    pass_to(&mut env, T);
    // Forward by an hour while nobody says so: noticed within half a minute.
    env.now.wall.0 += 60 * MINUTE;
    env.pass(Span::secs(31));
    assert_eq!(fired(&env), [0, 60]);
    // Back again: the hour is free, the slot at its end is not fired twice.
    env.now.wall.0 = T + 10_000;
    pass_to(&mut env, T + 61 * MINUTE);
    let slots = fired(&env);
    let mut once = slots.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), slots.len(), "{slots:?}");
    assert_eq!(once, (0..=61).collect::<Vec<i64>>());
    assert!(skipped(&env).contains(&Reason::ClockSetBack));
    assert!(skipped(&env).contains(&Reason::FiredBefore));
    env.check_replay();
}

#[test]
fn without_a_clock_slots_go_by_a_guess_and_are_judged_again() {
    let mut env = made(rules(Catchup::Latest, Overlap::Allow));
    pass_to(&mut env, T);
    // A machine without a clock of its own: 1970, and nobody knows how long it was off.
    env.now.wall = Unix(5000);
    env.boot.0[0] += 1;
    env.held.clear();
    env.config.has_coordinator = true;
    env.driver = edge_core::driver::Driver::open(
        edge_core::memory::MemStore::new(env.disk.clone()),
        env.config.clone(),
    )
    .expect("a store");
    let Event::Boot(mut boot) = env.boot_event(false) else {
        panic!("no boot");
    };
    boot.clock_trusted = false;
    env.event(Event::Boot(boot));
    env.pass(Span::secs(90));
    let guessed = fired(&env);
    assert_eq!(guessed, [0, 1], "it counts from what it knew last");
    let last = env.facts().into_iter().rev().find_map(|body| match body {
        Body::Fired { trusted, .. } => Some(trusted),
        _ => None,
    });
    assert_eq!(last, Some(false));
    // The truth is an hour later.
    env.now.wall = Unix(T + 60 * MINUTE + 5000);
    env.event(Event::Clock { trusted: true });
    assert_eq!(fired(&env), [0, 1, 60]);
}

#[test]
fn people_pause_trigger_fill_and_drop() {
    let mut env = made(rules(Catchup::Latest, Overlap::Forbid));
    pass_to(&mut env, T);
    assert_eq!(ask(&mut env, Order::Pause(true)), LocalReply::Done);
    pass_to(&mut env, T + 10 * MINUTE + 1000);
    assert_eq!(fired(&env), [0]);
    assert_eq!(env.driver.agent().schedule_views()[0].state, "paused");
    assert_eq!(ask(&mut env, Order::Pause(false)), LocalReply::Done);
    assert_eq!(fired(&env), [0], "what passed meanwhile does not fire");
    let at = env.now.wall;
    assert_eq!(ask(&mut env, Order::Trigger(at)), LocalReply::Done);
    assert_eq!(env.held.len(), 1);
    assert_eq!(
        ask(&mut env, Order::Trigger(Unix(at.0 + 1))),
        LocalReply::Done
    );
    assert_eq!(skipped(&env).last(), Some(&Reason::RunOpen));
    env.end("a", 0);
    let (from, to) = (Unix(T - MINUTE), Unix(T + 2 * MINUTE));
    assert_eq!(ask(&mut env, Order::Backfill(from, to)), LocalReply::Done);
    for _ in 0..5 {
        env.event(Event::Wake);
        while !env.held.is_empty() {
            env.end("a", 0);
        }
    }
    assert_eq!(fired(&env)[2..], [-1, 1, 2], "0 fired before");
    let causes = env.facts().into_iter().filter_map(|body| match body {
        Body::Fired { cause, .. } => Some(cause),
        _ => None,
    });
    let causes: Vec<Cause> = causes.collect();
    assert_eq!(causes[1..3], [Cause::Trigger, Cause::Backfill]);
    assert_eq!(ask(&mut env, Order::Drop), LocalReply::Done);
    assert!(env.driver.agent().schedule_views().is_empty());
    env.pass(Span::secs(600));
    assert_eq!(fired(&env).len(), 5);
    env.check_replay();
}

#[test]
fn a_run_that_a_person_wants_is_still_wanted_of_the_next_revision() {
    let schedule = rules(Catchup::Latest, Overlap::Allow);
    let mut env = made(schedule.clone());
    pass_to(&mut env, T - MINUTE / 2);
    ask(&mut env, Order::Pause(true));
    let at = env.now.wall;
    ask(&mut env, Order::Trigger(at));
    let order = set(&flow(schedule), 2, at);
    assert_eq!(ask(&mut env, order), LocalReply::Done);
    assert!(fired(&env).is_empty());
    ask(&mut env, Order::Pause(false));
    assert_eq!(fired(&env).len(), 1);
    env.check_replay();
}

/// The agent asked for the same slot again and again, and never ended its step.
#[test]
fn a_backfill_passes_slots_whose_firings_are_forgotten_and_whose_runs_are_here() {
    let mut env = made(rules(Catchup::None, Overlap::Allow));
    pass_to(&mut env, T + 140 * MINUTE);
    while !env.held.is_empty() {
        env.end("a", 0);
    }
    let before = fired(&env).len();
    let (from, to) = (Unix(T), Unix(T + 3 * MINUTE));
    assert_eq!(ask(&mut env, Order::Backfill(from, to)), LocalReply::Done);
    assert_eq!(fired(&env).len(), before);
    assert_eq!(skipped(&env), [Reason::FiredBefore; 4]);
    env.check_replay();
}

#[test]
fn bad_orders_are_refused_and_change_nothing() {
    let mut env = made(rules(Catchup::None, Overlap::Forbid));
    let before = env.facts().len();
    let refused = |env: &mut Env, schedule: ScheduleId, what: Order| {
        let by = "ann".to_owned();
        let reply = env.local(9, Local::Schedule { schedule, what, by });
        assert!(matches!(reply, LocalReply::Refused(_)), "{reply:?}");
    };
    let other = ScheduleId([6; 16]);
    refused(&mut env, other, Order::Pause(true));
    refused(&mut env, other, Order::Trigger(Unix(0)));
    refused(
        &mut env,
        other,
        set(&workflow(vec![task("a", &[])]), 1, Unix(0)),
    );
    refused(
        &mut env,
        other,
        set(&flow(rules(Catchup::None, Overlap::Allow)), 1, Unix(0)),
    );
    let mut never = rules(Catchup::None, Overlap::Forbid);
    never.rule = Rule::Cron("0 0 30 2 *".to_owned());
    refused(&mut env, other, set(&flow(never), 1, Unix(0)));
    let garbage = Order::Set {
        revision: 1,
        workflow: vec![1, 2, 3],
        after: Unix(0),
        paused: false,
    };
    refused(&mut env, other, garbage);
    let workflow = codec::pack(&flow(rules(Catchup::None, Overlap::Allow))).0;
    let submit = Local::Submit {
        run: RUN,
        workflow,
        by: "ann".to_owned(),
    };
    assert!(matches!(env.local(3, submit), LocalReply::Refused(_)));
    assert_eq!(env.facts().len(), before);
}

fn wish(epoch: u64, order: u64, what: Order) -> Wish {
    Wish::Schedule {
        schedule: ID,
        epoch: Epoch(epoch),
        order,
        what,
        by: "bob".to_owned(),
    }
}

#[test]
fn the_coordinator_makes_changes_and_takes_away_a_schedule() {
    let mut env = Env::new();
    env.join(Head::origin(NODE, LIFE, Direction::Up));
    let first = flow(rules(Catchup::None, Overlap::Forbid));
    let now = env.now.wall;
    env.tell(vec![wish(7, 1, set(&first, 1, now))]);
    let done = |env: &Env, n: u64| {
        env.facts().into_iter().any(
            |body| matches!(body, Body::ScheduleDone { order, refused: None, .. } if order == n),
        )
    };
    assert!(done(&env, 1));
    pass_to(&mut env, T);
    assert_eq!(fired(&env), [0]);
    assert_eq!(
        env.driver.agent().state().runs[&run_of(ID, Epoch(7), Unix(T))].schedule,
        Some((ID, Unix(T)))
    );
    // Not the gateway's to change, but to pause.
    assert!(matches!(ask(&mut env, Order::Drop), LocalReply::Refused(_)));
    assert_eq!(ask(&mut env, Order::Pause(true)), LocalReply::Done);
    pass_to(&mut env, T + 2 * MINUTE);
    assert_eq!(ask(&mut env, Order::Pause(false)), LocalReply::Done);
    // A new revision goes on behind the last slot.
    let mut second = first;
    second.description = "again".to_owned();
    let now = env.now.wall;
    env.tell(vec![
        wish(7, 2, set(&second, 2, now)),
        wish(7, 3, Order::Pause(true)),
    ]);
    assert!(done(&env, 3));
    pass_to(&mut env, T + 4 * MINUTE);
    env.tell(vec![wish(7, 4, Order::Pause(false))]);
    pass_to(&mut env, T + 5 * MINUTE);
    assert_eq!(fired(&env), [0, 5]);
    env.check_replay();
    env.crash();
    let facts = env.driver.heads().0;
    env.join(facts);
    // An older owner's word, and nonsense.
    env.tell(vec![wish(6, 5, Order::Drop)]);
    let refused = |env: &Env| {
        env.facts().into_iter().rev().find_map(|body| match body {
            Body::ScheduleDone { refused, .. } => Some(refused.map(|(reason, _)| reason)),
            _ => None,
        })
    };
    assert_eq!(refused(&env), Some(Some(Reason::Superseded)));
    env.tell(vec![wish(7, 6, Order::Drop)]);
    assert_eq!(refused(&env), Some(None));
    env.tell(vec![wish(7, 7, Order::Trigger(Unix(1)))]);
    assert_eq!(refused(&env), Some(Some(Reason::ImpossibleTransition)));
    assert!(env.driver.agent().schedule_views().is_empty());
    env.check_replay();
}

/// Found by seed 20690: the coordinator told the schedule anew at another epoch, and the run that
/// had fired before went on beside the next one.
#[test]
fn a_run_of_an_earlier_epoch_is_replaced_too() {
    let mut env = Env::new();
    env.join(Head::origin(NODE, LIFE, Direction::Up));
    let now = env.now.wall;
    let flow = flow(rules(Catchup::None, Overlap::Replace));
    env.tell(vec![wish(7, 1, set(&flow, 1, now))]);
    env.pass(Span((T + 1 - now.0) as u64));
    assert_eq!((fired(&env), env.stopped()), (vec![0], 0));
    env.tell(vec![wish(9, 2, set(&flow, 1, Unix(T)))]);
    env.pass(Span::secs(60));
    assert_eq!((fired(&env), env.stopped()), (vec![0, 1], 1));
    env.check_replay();
}

/// The gateway was silent, and the coordinator took its run elsewhere: a slot that waited for the
/// end of that run waited for ever.
#[test]
fn a_slot_that_waits_for_a_run_fires_when_the_run_is_taken_away() {
    let mut env = Env::new();
    env.join(Head::origin(NODE, LIFE, Direction::Up));
    let now = env.now.wall;
    let flow = flow(rules(Catchup::All, Overlap::Forbid));
    env.tell(vec![wish(7, 1, set(&flow, 1, now))]);
    env.pass(Span((T + MINUTE + 1 - now.0) as u64));
    assert_eq!(fired(&env), [0], "the second slot waits for the first run");
    let slice = env.held[0].attempt.slice;
    env.tell(vec![Wish::Release { slice }]);
    env.gone("a");
    env.pass(Span(10));
    assert_eq!(fired(&env), [0, 1]);
    env.check_replay();
}

#[test]
fn old_runs_of_a_schedule_are_forgotten_here_too() {
    let mut env = made(rules(Catchup::None, Overlap::Allow));
    pass_to(&mut env, T + 330 * MINUTE);
    let runs = env.driver.agent().state().runs.len();
    assert!((200..=270).contains(&runs), "{runs} runs are kept");
    let gone = |action: &&Action| matches!(action, Action::ForgetRun { .. });
    assert!(env.actions.iter().filter(gone).count() > 60);
    env.check_replay();
    let workflows = env.driver.agent().state().workflows.len();
    assert!(workflows <= runs + 1, "{workflows} workflows");
}

#[test]
fn a_rule_that_fires_too_often_is_braked() {
    let mut schedule = rules(Catchup::All, Overlap::Allow);
    schedule.rule = Rule::Every(Span::secs(10));
    schedule.max_catchup = 1000;
    let mut env = made(schedule);
    env.now.wall.0 = T + 60 * MINUTE;
    env.power_cut();
    assert_eq!(fired(&env).len(), 10);
    env.pass(Span::secs(59));
    assert_eq!(fired(&env).len(), 10);
    env.pass(Span::secs(40));
    assert!(fired(&env).len() <= 20);
}

/// Without a clock of its own, and without a coordinator's, runs would pile up until no schedule
/// fires any more.
#[test]
fn runs_of_a_schedule_are_bounded_without_a_trusted_clock() {
    let mut env = made(rules(Catchup::None, Overlap::Forbid));
    env.event(Event::Clock { trusted: false });
    for _ in 0..400 {
        env.pass(Span::secs(60));
        if !env.held.is_empty() {
            env.end("a", 0);
        }
    }
    let runs = env.driver.agent().state().runs.len();
    assert!((200..=270).contains(&runs), "{runs} runs are kept");
}

#[test]
fn a_backfill_passes_slots_whose_runs_are_kept_but_not_remembered() {
    let mut env = made(rules(Catchup::None, Overlap::Allow));
    pass_to(&mut env, T + 140 * MINUTE);
    assert_eq!(fired(&env).len(), 141);
    let (from, to) = (Unix(T - MINUTE), Unix(T + 3 * MINUTE));
    assert_eq!(ask(&mut env, Order::Backfill(from, to)), LocalReply::Done);
    assert_eq!(fired(&env)[141..], [-1], "the others fired before");
    env.end("a", 0);
    env.event(Event::Wake);
    assert_eq!(skipped(&env), [Reason::FiredBefore; 4]);
    let view = &env.driver.agent().schedule_views()[0];
    assert_eq!((view.backfill, view.skipped), (None, 4));
    env.check_replay();
    pass_to(&mut env, T + 141 * MINUTE);
    assert_eq!(fired(&env).last(), Some(&141), "it goes on in time");
}

#[test]
fn a_backfill_of_what_does_not_fit_any_more_ends() {
    let mut env = made(rules(Catchup::None, Overlap::Forbid));
    pass_to(&mut env, T);
    assert_eq!(ask(&mut env, Order::Pause(true)), LocalReply::Done);
    pass_to(&mut env, T + 300 * MINUTE);
    env.config.capacity.cpu_milli = 1;
    env.power_cut();
    let (from, to) = (Unix(T + MINUTE), Unix(T + 200 * MINUTE));
    assert_eq!(ask(&mut env, Order::Backfill(from, to)), LocalReply::Done);
    let few = |env: &mut Env| {
        let before = skipped(env).len();
        let reply = ask(env, Order::Pause(false));
        assert_eq!(reply, LocalReply::Done);
        skipped(env).len() - before
    };
    assert!((1..100).contains(&few(&mut env)), "a step is bounded");
    env.pass(Span::secs(10));
    assert_eq!(skipped(&env), vec![Reason::DoesNotFit; 200]);
    assert_eq!(fired(&env), [0]);
    env.check_replay();
}

#[test]
fn a_second_backfill_takes_no_slot_away_from_the_first() {
    let mut env = made(rules(Catchup::None, Overlap::Forbid));
    let past = |minute: i64| Unix(T - minute * MINUTE);
    let first = Order::Backfill(past(9), past(8));
    assert_eq!(ask(&mut env, first), LocalReply::Done);
    let second = Order::Backfill(past(5), past(5));
    let refused = ask(&mut env, second.clone());
    assert!(
        matches!(&refused, LocalReply::Refused(why) if why.contains("under way")),
        "{refused:?}"
    );
    env.end("a", 0);
    env.event(Event::Wake);
    env.end("a", 0);
    env.event(Event::Wake);
    assert_eq!(ask(&mut env, second), LocalReply::Done);
    assert_eq!(fired(&env), [-9, -8, -5]);
    env.check_replay();
}

#[test]
fn a_schedule_that_is_paused_waits_for_a_person() {
    let mut env = Env::new();
    let flow = flow(rules(Catchup::None, Overlap::Allow));
    ask(&mut env, set(&flow, 1, Unix(T - 1)));
    let waits = |env: &Env| env.driver.agent().waits();
    assert!(waits(&env).is_empty(), "{:?}", waits(&env));
    ask(&mut env, Order::Pause(true));
    let all = waits(&env);
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0].what, "schedule flow is paused by ann");
}
