//! A person lets nothing be sent: the pause is durable before it acts, outlasts restarts and
//! reboots, tells the coordinator of itself where it can, and ends by itself where it was asked to.

use crate::env::assign;
use crate::env::{Env, LIFE, NODE, config, slice, task, workflow};
use edge_core::event::{Action, Config, Event, Local, LocalReply};
use shared::directive::Body as Wish;
use shared::fact::Body;
use shared::log::{Direction, Head};
use shared::time::Span;
use shared::wire::Up;

fn origin() -> Head {
    Head::origin(NODE, LIFE, Direction::Up)
}

fn pause(env: &mut Env, length: Option<Span>) {
    let what = Local::PauseSync {
        length,
        by: "ann".to_owned(),
    };
    assert_eq!(env.local(7, what), LocalReply::Done);
}

fn resume(env: &mut Env) {
    let what = Local::ResumeSync {
        by: "ann".to_owned(),
    };
    assert_eq!(env.local(8, what), LocalReply::Done);
}

fn dials(env: &Env) -> usize {
    let dial = |action: &&Action| matches!(action, Action::Dial { .. });
    env.actions.iter().filter(dial).count()
}

fn hangups(env: &Env) -> usize {
    let hangup = |action: &&Action| matches!(action, Action::Hangup { .. });
    env.actions.iter().filter(hangup).count()
}

fn link(env: &Env) -> String {
    env.driver.agent().status().link
}

/// A gateway online that told everything.
fn online() -> Env {
    let mut env = Env::new();
    env.join(origin());
    let (facts, _) = env.driver.heads();
    env.ack(facts);
    env.actions.clear();
    env
}

#[test]
fn the_coordinator_is_told_of_a_pause_and_then_the_link_is_left() {
    let mut env = online();
    pause(&mut env, None);
    assert_eq!(link(&env), "online", "its last words are under way");
    let told = env.sent().iter().any(|up| matches!(up, Up::Facts(_)));
    assert!(told, "{:?}", env.actions);
    assert_eq!(hangups(&env), 0);
    let (facts, _) = env.driver.heads();
    env.ack(facts);
    assert_eq!((hangups(&env), link(&env).as_str()), (1, "paused"));
    env.actions.clear();
    env.pass(Span::secs(4 * 3600));
    assert_eq!(dials(&env), 0);
    // Work goes on.
    env.submit(&workflow(vec![task("a", &[])]));
    env.end("a", 0);
    assert_eq!(env.states(), "a=succeeded");
    resume(&mut env);
    assert_eq!(dials(&env), 1);
    env.join(facts);
    assert_eq!(link(&env), "online");
    env.check_replay();
}

#[test]
fn a_coordinator_that_does_not_acknowledge_is_left_after_five_seconds() {
    let mut env = online();
    pause(&mut env, None);
    env.pass(Span::secs(4));
    assert_eq!(hangups(&env), 0);
    env.pass(Span::secs(2));
    assert_eq!((hangups(&env), link(&env).as_str()), (1, "paused"));
    // The answer comes too late and changes nothing.
    let (session, (head, _)) = (env.session.unwrap(), env.driver.heads());
    env.event(Event::Unlinked {
        session,
        why: "hung up".to_owned(),
    });
    env.pass(Span::secs(3600));
    assert_eq!(dials(&env), 0);
    assert!(head.number > 0);
}

#[test]
fn a_pause_outlasts_restarts_and_reboots_and_stops_a_dial_that_is_under_way() {
    let mut env = Env::new();
    let session = env.session.unwrap();
    env.actions.clear();
    pause(&mut env, None);
    assert_eq!(hangups(&env), 1, "session {session} was being dialled");
    env.crash();
    env.pass(Span::secs(3600));
    env.power_cut();
    env.pass(Span::secs(3600));
    assert_eq!((dials(&env), link(&env).as_str()), (0, "paused"));
    let told = |action: &Action| matches!(action, Action::MayDial(false));
    assert!(env.actions.iter().any(told), "{:?}", env.actions);
    let status = env.driver.agent().sync_status();
    assert_eq!(status.paused.map(|pause| pause.by).as_deref(), Some("ann"));
    resume(&mut env);
    assert_eq!(dials(&env), 1);
    resume(&mut env);
    let resumed = |body: &&Body| matches!(body, Body::SyncResumed { .. });
    assert_eq!(env.facts().iter().filter(resumed).count(), 1);
    env.check_replay();
}

#[test]
fn a_pause_of_a_stated_length_ends_by_itself_after_a_restart_and_a_reboot_too() {
    let length = Span::secs(3600);
    let ended = |env: &Env| {
        let by_itself = |body: &Body| matches!(body, Body::SyncResumed { by: None });
        env.facts().iter().any(by_itself)
    };
    let mut env = online();
    pause(&mut env, Some(length));
    env.pass(Span::secs(1800));
    env.crash();
    env.pass(Span::secs(1790));
    assert!(!ended(&env));
    env.pass(Span::secs(11));
    assert!(ended(&env) && dials(&env) == 1, "{:?}", env.actions);

    let mut env = online();
    pause(&mut env, Some(length));
    env.pass(Span::secs(600));
    env.now.wall.0 += 1_200_000;
    env.power_cut();
    let until = env.driver.agent().status().sync_paused.unwrap().until;
    assert!(until.unwrap() > env.now.wall);
    env.pass(Span::secs(1790));
    assert!(!ended(&env));
    env.pass(Span::secs(11));
    assert!(ended(&env), "by the wall clock, which went on");

    let mut env = online();
    pause(&mut env, Some(length));
    env.now.wall.0 = 0;
    env.power_cut();
    env.pass(Span::secs(3590));
    assert!(!ended(&env));
    env.pass(Span::secs(11));
    assert!(
        ended(&env),
        "a clock that went back makes it no longer than asked"
    );
    env.check_replay();
}

#[test]
fn without_a_coordinator_there_is_nothing_to_pause() {
    let mut env = Env::with(Config {
        has_coordinator: false,
        ..config()
    });
    let what = Local::PauseSync {
        length: None,
        by: "ann".to_owned(),
    };
    assert!(matches!(env.local(1, what), LocalReply::Refused(_)));
    let held = env.driver.agent().sync_status().held;
    assert_eq!(held.len(), 1, "{held:?}");
}

#[test]
fn who_waits_for_another_node_is_told_that_nothing_is_heard() {
    let mut env = online();
    let flow = workflow(vec![task("there", &[]), task("here", &[0])]);
    let wish = assign(slice(1, 1), &flow, &[1]);
    env.tell(vec![Wish::Assign(wish)]);
    let summary = |env: &Env| {
        let why = env.driver.agent().explain(crate::env::RUN, "here");
        why.map(|why| why.summary).unwrap_or_default()
    };
    assert!(!summary(&env).contains("paused"), "{}", summary(&env));
    pause(&mut env, None);
    assert!(summary(&env).contains("ann paused"), "{}", summary(&env));
}

#[test]
fn the_backlog_is_counted_in_parts() {
    let mut env = Env::new();
    env.submit(&workflow(vec![task("a", &[])]));
    env.end("a", 0);
    env.pass(Span::secs(1));
    let (head, _) = env.driver.heads();
    let part = env.driver.backlog(0).unwrap().unwrap();
    assert_eq!((part.facts, part.upto), (head.number, head.number));
    let bytes: usize = env.disk.facts().iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(part.bytes, bytes as u64);
    assert!(part.oldest.is_some());
    assert_eq!(env.driver.backlog(head.number).unwrap(), None);
}
