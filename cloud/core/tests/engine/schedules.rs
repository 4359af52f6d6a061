//! Schedules at the coordinator: its own, those of nodes, and those that were made at a gateway.

use crate::common::{Env, all_done, on, task, workflow};
use cloud_core::engine::TOMBSTONES;
use cloud_core::event::{Input, Refused, Reply, Request, RequestId, ScheduleAsk};
use shared::codec;
use shared::directive::Body as Wanted;
use shared::explain::Reason;
use shared::fact::Body;
use shared::ids::{Epoch, RunId, ScheduleId, SliceRef};
use shared::limits::ENTRIES_PER_COMMIT;
use shared::schedule::due::Skipped;
use shared::schedule::view::View;
use shared::schedule::{
    Catchup, Cause, Order, Overlap, Rule, SCHEDULED_FOR, SCHEDULES, Schedule, run_of,
};
use shared::time::{Span, Unix};
use shared::workflow::{Disconnect, Task, Workflow};

pub(crate) const ID: ScheduleId = ScheduleId([5; 16]);
const MINUTE: Span = Span::secs(60);

pub(crate) fn flow(tasks: Vec<Task>, overlap: Overlap) -> Workflow {
    let mut flow = workflow(tasks);
    flow.schedule = Some(Schedule {
        rule: Rule::Every(MINUTE),
        timezone: "UTC".to_owned(),
        catchup: Catchup::Latest,
        max_catchup: 1,
        starting_deadline: None,
        overlap,
        jitter: Span(0),
    });
    flow
}

pub(crate) fn create(env: &mut Env, flow: &Workflow, node: Option<&str>, replace: bool) -> Reply {
    env.ask(Request::CreateSchedule {
        schedule: ID,
        name: flow.name.clone(),
        workflow: codec::pack(flow).0,
        node: node.map(str::to_owned),
        replace,
        by: "ann".to_owned(),
    })
}

fn ask(env: &mut Env, ask: ScheduleAsk) -> Reply {
    let (name, by) = (ID.to_string(), "ann".to_owned());
    env.ask(Request::AskSchedule { name, ask, by })
}

pub(crate) fn view(env: &mut Env) -> View {
    let name = ID.to_string();
    match env.ask(Request::Schedule { name }) {
        Reply::Schedule(view) => *view,
        other => panic!("{other:?}"),
    }
}

/// The next slot behind now.
fn slot(env: &Env) -> Unix {
    Unix((env.now.wall.0.div_euclid(60_000) + 1) * 60_000)
}

fn to_next_slot(env: &mut Env) -> Unix {
    let next = slot(env);
    env.pass(Span((next.0 - env.now.wall.0) as u64));
    next
}

/// The last order of a schedule that a node was told: epoch, number, what.
pub(crate) fn ordered(env: &mut Env, node: &str) -> (Epoch, u64, Order) {
    let seen = env.agent(node).seen.iter().rev();
    let order = seen.clone().find_map(|directive| match &directive.body {
        Wanted::Schedule {
            epoch, order, what, ..
        } => Some((*epoch, *order, what.clone())),
        _ => None,
    });
    order.expect("an order")
}

pub(crate) fn done(epoch: Epoch, order: u64) -> Body {
    Body::ScheduleDone {
        schedule: ID,
        epoch,
        order,
        cursor: Unix(0),
        refused: None,
    }
}

fn fired(epoch: Epoch, slot: Unix) -> (Body, RunId) {
    let run = run_of(ID, epoch, slot);
    let slice = SliceRef {
        run,
        slice: 0,
        epoch: Epoch(0),
    };
    let fact = Body::Fired {
        schedule: ID,
        epoch,
        slot,
        slice,
        cause: Cause::Time,
        trusted: true,
        revision: 1,
    };
    (fact, run)
}

#[test]
fn what_has_no_place_of_its_own_is_fired_here_as_ordinary_runs() {
    let mut env = Env::new();
    env.join("gw-1");
    let made = create(
        &mut env,
        &flow(vec![task("a", &[])], Overlap::Forbid),
        None,
        false,
    );
    assert_eq!(made, Reply::Scheduled(ID));
    assert_eq!(view(&mut env).owner, "coordinator");
    let first = to_next_slot(&mut env);
    let assign = env.agent("gw-1").assigns()[0].clone();
    let (compiled, _) = codec::unpack(assign.workflow.as_ref().unwrap()).unwrap();
    assert!(compiled.tasks[0].env[SCHEDULED_FOR].ends_with(":00Z"));
    let run = assign.slice.run;
    assert_eq!(env.run(run).by, "schedule test");
    // The next one is skipped while this one runs, the one behind it is not.
    let _ = to_next_slot(&mut env);
    assert_eq!(view(&mut env).last_skipped.unwrap().reason, "run_open");
    env.tell("gw-1", all_done(&assign));
    assert_eq!(env.run(run).state, "succeeded");
    let third = to_next_slot(&mut env);
    let seen = view(&mut env);
    assert_eq!((seen.fired, seen.skipped), (2, 1));
    let slots: Vec<Unix> = seen.last.iter().map(|fired| fired.slot).collect();
    assert_eq!(slots, [third, first]);
    // A start from the same store fires nothing twice.
    env.restart(env.store.clone());
    env.pass(Span(1));
    assert_eq!(view(&mut env).fired, 2);
    assert_eq!(
        ask(&mut env, ScheduleAsk::Pause(true)),
        Reply::Scheduled(ID)
    );
    env.pass(Span(5 * MINUTE.0));
    assert_eq!(
        (view(&mut env).state.as_str(), view(&mut env).fired),
        ("paused", 2)
    );
    assert_eq!(ask(&mut env, ScheduleAsk::Delete), Reply::Scheduled(ID));
    assert_eq!(env.ask(Request::Schedules), Reply::Schedules(Vec::new()));
}

#[test]
fn a_node_that_fits_all_tasks_fires_it_and_its_runs_are_known_from_the_schedule() {
    let mut env = Env::new();
    env.join("gw-1");
    let flow = flow(vec![on("gw-1", task("a", &[]))], Overlap::Forbid);
    assert_eq!(create(&mut env, &flow, None, false), Reply::Scheduled(ID));
    let (epoch, order, what) = ordered(&mut env, "gw-1");
    assert!(matches!(what, Order::Set { revision: 1, .. }));
    assert!(view(&mut env).why.unwrap().contains("has not confirmed"));
    let at = slot(&env);
    let (fact, run) = fired(epoch, at);
    env.tell("gw-1", vec![done(epoch, order), fact]);
    let seen = view(&mut env);
    assert_eq!(
        (seen.owner.as_str(), seen.fired, seen.why),
        ("gw-1", 1, None)
    );
    let known = env.run(run);
    assert_eq!(
        (known.state.as_str(), known.by.as_str()),
        ("running", "schedule test")
    );
    // The coordinator never fires for it.
    env.hang_up("gw-1");
    env.pass(Span(60 * MINUTE.0));
    assert_eq!(view(&mut env).fired, 1);
    // What is asked meanwhile is said to be on the way.
    assert_eq!(
        ask(&mut env, ScheduleAsk::Pause(true)),
        Reply::Scheduled(ID)
    );
    let why = view(&mut env).why.unwrap();
    assert!(
        why.contains("gw-1 has not confirmed the last change, not heard for"),
        "{why}"
    );
    env.hello("gw-1").unwrap();
    let (epoch, order, what) = ordered(&mut env, "gw-1");
    assert_eq!(what, Order::Pause(true));
    env.tell("gw-1", vec![done(epoch, order)]);
    assert_eq!(view(&mut env).why.as_deref(), Some("paused by ann"));
}

#[test]
fn a_silent_owner_loses_it_at_a_new_epoch_and_one_slot_counts_once() {
    let mut env = Env::new();
    let mut moving = task("a", &[]);
    let kind = ("kind".to_owned(), "gateway".to_owned());
    moving.placement.labels.extend([kind]);
    moving.disconnect = Disconnect {
        lost_after: Some(Span::secs(600)),
        replace: true,
    };
    for node in ["gw-1", "gw-2"] {
        env.join(node);
    }
    let flow = flow(vec![moving], Overlap::Allow);
    assert_eq!(
        create(&mut env, &flow, Some("gw-1"), false),
        Reply::Scheduled(ID)
    );
    let (old, order, _) = ordered(&mut env, "gw-1");
    env.tell("gw-1", vec![done(old, order)]);
    env.hang_up("gw-1");
    env.pass(Span::secs(599));
    assert_eq!(view(&mut env).owner, "gw-1");
    env.pass(Span::secs(61));
    assert_eq!(view(&mut env).owner, "gw-2");
    let (new, order, what) = ordered(&mut env, "gw-2");
    assert!(new > old && matches!(what, Order::Set { .. }));
    // Both fire one slot.
    let at = slot(&env);
    let (fact, counts) = fired(new, at);
    env.tell("gw-2", vec![done(new, order), fact]);
    env.hello("gw-1").unwrap();
    let (epoch, number, what) = ordered(&mut env, "gw-1");
    assert_eq!((epoch, what), (old, Order::Drop));
    let (late, other) = fired(old, at);
    env.tell("gw-1", vec![late, done(epoch, number)]);
    let seen = view(&mut env);
    let firings: Vec<(RunId, bool)> = seen.last.iter().map(|f| (f.run, f.counts)).collect();
    assert_eq!(firings, [(counts, true), (other, false)]);
    assert_eq!(seen.fired, 1);
}

fn asked_there(what: Order) -> Body {
    Body::ScheduleAsked {
        schedule: ID,
        what,
        by: "bob".to_owned(),
    }
}

/// Two gateways of which the second took the schedule over as the first was silent.
fn taken_over(env: &mut Env, before: Vec<Body>) {
    for node in ["gw-1", "gw-2"] {
        env.join(node);
    }
    let mut moving = task("a", &[]);
    let kind = ("kind".to_owned(), "gateway".to_owned());
    moving.placement.labels.extend([kind]);
    moving.disconnect = Disconnect {
        lost_after: Some(Span::secs(600)),
        replace: true,
    };
    create(
        env,
        &flow(vec![moving], Overlap::Allow),
        Some("gw-1"),
        false,
    );
    let (epoch, order, _) = ordered(env, "gw-1");
    env.tell("gw-1", vec![done(epoch, order)]);
    env.tell("gw-1", before);
    env.hang_up("gw-1");
    env.pass(Span::secs(599));
    env.pass(Span::secs(61));
    assert_eq!(view(env).owner, "gw-2");
    let (epoch, order, _) = ordered(env, "gw-2");
    env.tell("gw-2", vec![done(epoch, order)]);
    env.hello("gw-1").unwrap();
}

/// A backfill that a person asked of the former owner was folded as if it were the present one's:
/// the next owner ran all its slots a second time.
#[test]
fn what_a_person_asked_of_a_former_owner_is_not_asked_of_the_next_one() {
    let mut env = Env::new();
    taken_over(&mut env, Vec::new());
    let past = |minutes: i64| Unix(slot(&env).0 - minutes * 60_000);
    let backfill = Order::Backfill(past(9), past(5));
    let late = [backfill, Order::Pause(true)].map(asked_there);
    env.tell("gw-1", late.to_vec());
    assert_eq!(view(&mut env).state, "active");
    env.join("gw-3");
    let again = flow(vec![task("a", &[])], Overlap::Allow);
    create(&mut env, &again, Some("gw-3"), true);
    let (epoch, order, _) = ordered(&mut env, "gw-2");
    env.tell("gw-2", vec![done(epoch, order)]);
    let what = ordered(&mut env, "gw-3").2;
    assert!(matches!(what, Order::Set { paused: false, .. }), "{what:?}");
    // nor does what a stranger says of it count
    let (epoch, order, _) = ordered(&mut env, "gw-3");
    let (stranger, _) = fired(epoch, slot(&env));
    env.tell("gw-2", vec![stranger, done(epoch, order)]);
    let seen = view(&mut env);
    assert!(seen.why.unwrap().contains("has not confirmed"));
    assert_eq!(seen.fired, 0);
}

/// A pause at a gateway was shown for ever, and held nobody, once another one fired the schedule.
#[test]
fn a_pause_at_a_gateway_goes_along_to_the_next_owner_and_ends_here() {
    let mut env = Env::new();
    taken_over(&mut env, vec![asked_there(Order::Pause(true))]);
    let what = ordered(&mut env, "gw-2").2;
    assert!(matches!(what, Order::Set { paused: true, .. }), "{what:?}");
    assert_eq!(view(&mut env).why.as_deref(), Some("paused by bob"));
    env.tell("gw-1", vec![asked_there(Order::Pause(false))]);
    assert_eq!(view(&mut env).state, "paused");
    ask(&mut env, ScheduleAsk::Pause(false));
    assert_eq!(ordered(&mut env, "gw-2").2, Order::Pause(false));
    assert_eq!(view(&mut env).state, "active");
}

#[test]
fn an_old_agent_refuses_it_and_that_is_shown() {
    let mut env = Env::new();
    env.join("gw-1");
    let flow = flow(vec![task("a", &[])], Overlap::Forbid);
    create(&mut env, &flow, Some("gw-1"), false);
    let directive = env.agent("gw-1").directives.number;
    let refused = Body::Refused {
        directive,
        slice: None,
        reason: Reason::UnknownKind,
        text: "this version does not know its kind".to_owned(),
    };
    env.tell("gw-1", vec![refused]);
    assert!(
        view(&mut env)
            .why
            .unwrap()
            .starts_with("gw-1 refused it (unknown_kind)")
    );
}

/// A gateway that fills slots already refuses a second order, and goes on with the schedule.
#[test]
fn an_order_that_the_owner_refuses_is_told_as_that_and_the_schedule_goes_on() {
    let mut env = Env::new();
    env.join("gw-1");
    let flow = flow(vec![task("a", &[])], Overlap::Forbid);
    create(&mut env, &flow, Some("gw-1"), false);
    let (epoch, order, _) = ordered(&mut env, "gw-1");
    env.tell("gw-1", vec![done(epoch, order)]);
    let from = Unix(slot(&env).0 - 9 * 60_000);
    let refuse = |env: &mut Env| {
        let (epoch, order, _) = ordered(env, "gw-1");
        let refused = Some((Reason::NoRoom, "it fills already".to_owned()));
        env.tell(
            "gw-1",
            vec![Body::ScheduleDone {
                schedule: ID,
                epoch,
                order,
                cursor: Unix(0),
                refused,
            }],
        );
        env.waits()
    };
    assert_eq!(fill(&mut env, from, 3), Reply::Scheduled(ID));
    let waits = refuse(&mut env);
    assert_eq!(waits.len(), 1);
    assert!(
        waits[0].contains("goes on, but its owner refused to run the slots from"),
        "{waits:?}"
    );
    let seen = view(&mut env);
    let why = seen.why.unwrap();
    assert_eq!(seen.state, "active");
    assert!(why.contains("it fills already"), "{why}");
    env.restart(env.store.clone());
    env.hello("gw-1").unwrap();
    assert_eq!(env.waits(), waits);

    assert_eq!(ask(&mut env, ScheduleAsk::Trigger), Reply::Scheduled(ID));
    let waits = refuse(&mut env);
    assert!(waits[0].contains("to run it once, at once"), "{waits:?}");
    assert_eq!(ask(&mut env, ScheduleAsk::Trigger), Reply::Scheduled(ID));
    let (epoch, order, _) = ordered(&mut env, "gw-1");
    env.tell("gw-1", vec![done(epoch, order)]);
    assert!(env.waits().is_empty());
    assert_eq!(view(&mut env).why, None);
}

#[test]
fn a_schedule_made_at_a_gateway_is_shown_and_is_the_gateways() {
    let mut env = Env::new();
    env.join("gw-1");
    let set = Order::Set {
        revision: 1,
        workflow: codec::pack(&flow(vec![task("a", &[])], Overlap::Forbid)).0,
        after: env.now.wall,
        paused: false,
    };
    let asked = Body::ScheduleAsked {
        schedule: ID,
        what: set,
        by: "bob".to_owned(),
    };
    let (fact, run) = fired(Epoch(0), slot(&env));
    env.tell("gw-1", vec![asked, fact]);
    let seen = view(&mut env);
    assert_eq!(
        (seen.owner.as_str(), seen.by.as_str(), seen.fired),
        ("gw-1", "bob", 1)
    );
    assert_eq!(env.run(run).state, "running");
    let refused = ask(&mut env, ScheduleAsk::Pause(true));
    assert!(matches!(refused, Reply::Refused(Refused::State(_))));
    let asked = Body::ScheduleAsked {
        schedule: ID,
        what: Order::Drop,
        by: "bob".to_owned(),
    };
    env.tell("gw-1", vec![asked]);
    assert_eq!(env.ask(Request::Schedules), Reply::Schedules(Vec::new()));
}

#[test]
fn bad_schedules_are_refused_and_change_nothing() {
    let mut env = Env::new();
    env.join("gw-1");
    let plain = workflow(vec![task("a", &[])]);
    assert!(matches!(
        create(&mut env, &plain, None, false),
        Reply::Refused(_)
    ));
    let good = flow(vec![on("gw-1", task("a", &[]))], Overlap::Forbid);
    assert!(matches!(
        create(&mut env, &good, Some("gw-9"), false),
        Reply::Refused(_)
    ));
    let mut elsewhere = task("a", &[]);
    elsewhere.placement.site = Some("gw-7".to_owned());
    let elsewhere = flow(vec![elsewhere], Overlap::Forbid);
    assert!(matches!(
        create(&mut env, &elsewhere, Some("gw-1"), false),
        Reply::Refused(Refused::State(_))
    ));
    assert!(matches!(
        create(&mut env, &good, None, true),
        Reply::Refused(_)
    ));
    let submitted = env.ask(Request::Submit {
        run: RunId([9; 16]),
        workflow: codec::pack(&good).0,
        by: "ann".to_owned(),
        idempotency_key: None,
    });
    assert!(matches!(submitted, Reply::Refused(Refused::Malformed(_))));
    assert!(matches!(
        ask(&mut env, ScheduleAsk::Trigger),
        Reply::Refused(_)
    ));
    assert_eq!(env.ask(Request::Schedules), Reply::Schedules(Vec::new()));
}

fn fill(env: &mut Env, from: Unix, minutes: i64) -> Reply {
    let to = Unix(from.0 + (minutes - 1) * 60_000);
    ask(env, ScheduleAsk::Backfill { from, to })
}

#[test]
fn a_backfill_goes_on_behind_runs_that_are_kept_but_not_remembered() {
    let mut env = Env::new();
    env.join("gw-1");
    create(
        &mut env,
        &flow(vec![task("a", &[])], Overlap::Forbid),
        None,
        false,
    );
    let first = to_next_slot(&mut env);
    let mut seen = 0;
    let mut end = |env: &mut Env| {
        let assigns = env.agent("gw-1").assigns();
        for assign in &assigns[seen..] {
            env.tell("gw-1", all_done(assign));
        }
        seen = assigns.len();
    };
    end(&mut env);
    for _ in 0..140 {
        to_next_slot(&mut env);
        end(&mut env);
    }
    assert_eq!(view(&mut env).fired, 141);
    let before = Unix(first.0 - 2 * 60_000);
    assert_eq!(fill(&mut env, before, 5), Reply::Scheduled(ID));
    for _ in 0..10 {
        env.pass(Span::secs(31));
        end(&mut env);
    }
    let filled = view(&mut env);
    assert_eq!((filled.skipped, filled.backfill), (3, None));
    let past = filled.last.iter().filter(|fired| fired.slot < first);
    assert_eq!(past.count(), 2);
}

#[test]
fn runs_that_were_forgotten_long_ago_are_not_open() {
    let mut env = Env::new();
    env.join("gw-1");
    let flow = flow(vec![task("a", &[])], Overlap::Forbid);
    create(&mut env, &flow, None, false);
    to_next_slot(&mut env);
    let assign = env.agent("gw-1").assigns()[0].clone();
    env.tell("gw-1", all_done(&assign));
    assert_eq!(
        ask(&mut env, ScheduleAsk::Pause(true)),
        Reply::Scheduled(ID)
    );
    let (run, by) = (assign.slice.run, "ann".to_owned());
    env.ask(Request::ForgetRun { run, by });
    let head = env.agent("gw-1").directives;
    env.say("gw-1", shared::wire::Up::Applied(head));
    for from in (0..=TOMBSTONES).step_by(ENTRIES_PER_COMMIT) {
        crate::bounds::forgotten(&mut env, from..from + ENTRIES_PER_COMMIT);
    }
    env.pass(Span(1));
    assert_eq!(
        ask(&mut env, ScheduleAsk::Pause(false)),
        Reply::Scheduled(ID)
    );
    to_next_slot(&mut env);
    let seen = view(&mut env);
    assert_eq!(
        (seen.fired, seen.skipped),
        (2, 0),
        "{:?}",
        seen.last_skipped
    );
}

#[test]
fn a_second_backfill_takes_no_slot_away_from_the_first() {
    let mut env = Env::new();
    env.join("gw-1");
    let flow = flow(vec![task("a", &[])], Overlap::Forbid);
    create(&mut env, &flow, None, false);
    let now = slot(&env).0;
    let past = |minute: i64| Unix(now - minute * 60_000);
    assert_eq!(fill(&mut env, past(9), 2), Reply::Scheduled(ID));
    env.pass(Span(1));
    let refused = fill(&mut env, past(5), 1);
    let why = "a backfill is under way";
    assert!(matches!(&refused, Reply::Refused(Refused::State(text)) if text.contains(why)));
    for n in 0..2 {
        let assign = env.agent("gw-1").assigns()[n].clone();
        env.tell("gw-1", all_done(&assign));
        env.pass(Span::secs(31));
    }
    assert_eq!(fill(&mut env, past(5), 1), Reply::Scheduled(ID));
}

#[test]
fn what_is_left_of_a_backfill_goes_along_to_the_next_owner() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let flow = flow(vec![task("a", &[])], Overlap::Forbid);
    create(&mut env, &flow, Some("gw-1"), false);
    let from = Unix(slot(&env).0 - 9 * 60_000);
    assert_eq!(fill(&mut env, from, 3), Reply::Scheduled(ID));
    let (epoch, order, _) = ordered(&mut env, "gw-1");
    let mut ran = fired(epoch, from).0;
    if let Body::Fired { cause, .. } = &mut ran {
        *cause = Cause::Backfill;
    }
    env.tell("gw-1", vec![done(epoch, order), ran]);
    create(&mut env, &flow, Some("gw-2"), true);
    let (epoch, order, _) = ordered(&mut env, "gw-1");
    env.tell("gw-1", vec![done(epoch, order)]);
    let left = Unix(from.0 + 60_000);
    let what = ordered(&mut env, "gw-2").2;
    assert_eq!(what, Order::Backfill(left, Unix(from.0 + 2 * 60_000)));
}

/// A wish that came while the coordinator was away is taken up at its start, before it looks at its
/// slots; two may share one step and one commit.
#[test]
fn a_resume_passes_over_what_nobody_decided_also_in_one_step_with_a_pause() {
    for wishes in [[true, false], [false, true]] {
        let mut env = Env::new();
        env.join("gw-1");
        let flow = flow(vec![task("a", &[])], Overlap::Allow);
        create(&mut env, &flow, None, false);
        let was_paused = wishes == [false, true];
        if was_paused {
            ask(&mut env, ScheduleAsk::Pause(true));
        }
        let away = Span(3 * MINUTE.0);
        env.now.mono = env.now.mono + away;
        env.now.wall.0 += away.0 as i64;
        env.restart(env.store.clone());
        let caller = env.caller.clone();
        let asked = wishes.map(|on| Request::AskSchedule {
            name: ID.to_string(),
            ask: ScheduleAsk::Pause(on),
            by: "ann".to_owned(),
        });
        let inputs = asked
            .into_iter()
            .zip(1_000..)
            .map(|(request, id)| Input::Request {
                id: RequestId(id),
                request: Box::new(request),
                caller: caller.clone(),
            });
        let inputs = inputs.collect();
        env.give_all(inputs);
        assert_eq!((view(&mut env).fired, view(&mut env).skipped), (0, 0));
        if was_paused {
            ask(&mut env, ScheduleAsk::Pause(false));
        }
        let next = to_next_slot(&mut env);
        let fired: Vec<Unix> = view(&mut env).last.iter().map(|one| one.slot).collect();
        assert_eq!(fired, [next], "{wishes:?}");
    }
}

/// Any fact that named a schedule made one for ever, and when these were many enough nobody could
/// make one here any more.
#[test]
fn one_gateway_does_not_fill_the_list_of_schedules() {
    let mut env = Env::new();
    env.join("gw-1");
    let id = |n: u64| {
        let mut id = [9; 16];
        id[..8].copy_from_slice(&n.to_le_bytes());
        ScheduleId(id)
    };
    let names = |n: u64| Body::SlotsSkipped {
        schedule: id(n),
        epoch: Epoch(0),
        skipped: Skipped {
            from: Unix(0),
            to: Unix(0),
            count: 1,
            reason: Reason::RunOpen,
        },
    };
    let made = |n: u64| {
        let mut flow = flow(vec![task("a", &[])], Overlap::Forbid);
        flow.name = format!("s{n}");
        let what = Order::Set {
            revision: 1,
            workflow: codec::pack(&flow).0,
            after: Unix(0),
            paused: false,
        };
        Body::ScheduleAsked {
            schedule: id(n),
            what,
            by: "bob".to_owned(),
        }
    };
    env.tell("gw-1", (0..900).map(|n| names(5_000 + n)).collect());
    for part in 0..11_u64 {
        env.tell("gw-1", (100 * part..100 * part + 100).map(made).collect());
    }
    let Reply::Schedules(shown) = env.ask(Request::Schedules) else {
        panic!("schedules are listed");
    };
    assert_eq!(shown.len(), 4 * SCHEDULES);
    let note = env.node("gw-1").note.unwrap();
    assert!(
        note.contains("1024 schedules that were made there"),
        "{note}"
    );
    let own = flow(vec![task("a", &[])], Overlap::Forbid);
    let made = create(&mut env, &own, None, false);
    assert_eq!(made, Reply::Scheduled(ID));
    // nor does a start find any of the others
    env.restart(env.store.clone());
    let Reply::Schedules(shown) = env.ask(Request::Schedules) else {
        panic!("schedules are listed");
    };
    assert_eq!(shown.len(), 4 * SCHEDULES + 1);
}
