//! What goes with time, where no coordinator says so.

use crate::env::*;
use edge_core::event::{Action, Local, LocalReply};
use shared::codec;
use shared::fact::Body;
use shared::ids::{Hash, RunId};
use shared::log::{Direction, Head};
use shared::time::Span;
use shared::wire::Up;
use shared::workflow::{Input, Source};

const DAY: Span = Span::secs(24 * 3600);

fn alone() -> Env {
    let mut config = config();
    config.has_coordinator = false;
    Env::with(config)
}

/// Submits and runs a task that reads a sent file.
fn run_one(env: &mut Env, run: RunId) {
    let mut one = task("a", &[]);
    one.inputs.push(Input {
        name: "sent".to_owned(),
        path: "sent".to_owned(),
        source: Source::Sent {
            hash: Hash([run.0[0]; 32]),
            size: 3,
        },
    });
    let workflow = codec::pack(&workflow(vec![one])).0;
    let by = "ann".to_owned();
    let what = Local::Submit { run, workflow, by };
    assert_eq!(env.local(1, what), LocalReply::Done);
    env.event(edge_core::event::Event::FileHere {
        hash: Hash([run.0[0]; 32]),
    });
    env.end("a", 0);
    env.pass(Span(10));
}

#[test]
fn without_a_coordinator_old_facts_go_and_a_later_one_is_told_of_the_hole() {
    let mut env = alone();
    run_one(&mut env, RUN);
    env.pass(Span::secs(20));
    let all = env.facts().len() as u64;
    assert!(all >= 4);
    env.pass(Span::secs(3600));
    run_one(&mut env, RunId([8; 16]));
    env.pass(Span::secs(20));
    let first = env.disk.facts()[0].0;
    assert_eq!(first, all + 1, "everything older than the window is gone");
    env.crash();
    env.check_replay();
    assert_eq!(env.states(), "a=succeeded a=succeeded");
    env.config.has_coordinator = true;
    env.crash();
    let last = env.driver.heads().0.number;
    env.join(Head::origin(NODE, LIFE, Direction::Up));
    let hole = env.facts().into_iter().find_map(|body| match body {
        Body::Reset {
            from, to, slices, ..
        } => Some((from, to, slices.len())),
        _ => None,
    });
    assert_eq!(hole, Some((1, last, 2)));
    let sent = env.sent();
    let batch = sent.iter().find_map(|up| match up {
        Up::Facts(batch) => Some(batch.after.number),
        _ => None,
    });
    assert_eq!(batch, Some(last), "it goes on with the reset");
}

#[test]
fn ended_local_runs_are_forgotten_after_their_time_with_their_files() {
    let mut env = alone();
    env.driver.keep_runs(DAY);
    run_one(&mut env, RUN);
    env.pass(Span(DAY.0 - 3_600_000));
    run_one(&mut env, RunId([8; 16]));
    let (one, two) = (Hash([7; 32]), Hash([8; 32]));
    let output = file(100).hash;
    let named = env.driver.agent().named_files();
    assert!([one, two, output].iter().all(|hash| named.contains(hash)));
    env.pass(Span::secs(2 * 3600));
    assert_eq!(env.states(), "a=succeeded", "the newer one is kept");
    assert!(env.actions.contains(&Action::ForgetRun { run: RUN }));
    let named = env.driver.agent().named_files();
    assert!(!named.contains(&one) && named.contains(&two));
    env.pass(Span::secs(20));
    env.check_replay();
    env.crash();
    assert_eq!(env.states(), "a=succeeded");
    env.pass(Span(6 * DAY.0));
    assert_eq!(
        env.states(),
        "a=succeeded",
        "a week, unless something else is said"
    );
    env.pass(Span(2 * DAY.0));
    assert_eq!(env.states(), "");
}

#[test]
fn a_run_with_a_lost_task_waits_for_a_person() {
    let mut env = alone();
    env.driver.keep_runs(DAY);
    let mut once = task("once", &[]);
    once.side_effects = shared::workflow::SideEffects::AtMostOnce;
    env.submit(&workflow(vec![once]));
    env.crash();
    env.driver.keep_runs(DAY);
    assert_eq!(env.states(), "once=lost");
    env.pass(Span(3 * DAY.0));
    assert_eq!(env.states(), "once=lost");
}

/// Vehicles and shops are switched off every day: no process there ever gets as old as the window.
#[test]
fn a_gateway_that_is_switched_off_often_forgets_old_facts_as_well() {
    let mut env = alone();
    let mut first = Vec::new();
    for day in 1..=8 {
        run_one(&mut env, RunId([day; 16]));
        env.pass(Span::secs(1200));
        first.push(env.disk.facts()[0].0);
        env.power_cut();
    }
    assert_eq!(first[..2], [1, 1], "the window is an hour");
    assert!(first[7] > first[4] && first[4] > 1, "{first:?}");
    env.check_replay();
    let states = ["a=succeeded"; 8].join(" ");
    assert_eq!(env.states(), states, "what they say is in the snapshot");
}

#[test]
fn where_nothing_changes_nothing_is_written_once_all_is_old() {
    let mut env = alone();
    run_one(&mut env, RUN);
    env.pass(Span::secs(3700));
    assert!(env.disk.facts().is_empty(), "old facts go without new ones");
    let commits = env.disk.commits();
    env.pass(Span::secs(3600));
    assert_eq!(env.disk.commits(), commits);
}
