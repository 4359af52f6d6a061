//! Who may speak for a node.

use crate::common::{Agent, Env, all_done, task};
use cloud_core::event::{Input, Reply, Request};
use shared::ids::Incarnation;
use shared::limits::PROBE_MS;
use shared::time::{Span, Unix};
use shared::wire::{Down, Refusal, Up};
use std::collections::BTreeMap;

fn ping(env: &Env) -> u64 {
    let ping = |(_, down): &(_, Down)| match down {
        Down::Ping { nonce } => Some(*nonce),
        _ => None,
    };
    env.sent.iter().rev().find_map(ping).expect("a probe")
}

fn copy(env: &mut Env) -> Agent {
    let mut copy = env.agent("gw-1").clone();
    copy.proof = None;
    copy.conn = env.conn();
    copy.session += 1000;
    copy
}

#[test]
fn a_copied_disk_is_quarantined_while_the_original_answers() {
    let mut env = Env::new();
    env.join("gw-1");
    let thief = copy(&mut env);
    assert_eq!(env.dial(&thief, thief.conn), None);
    let nonce = ping(&env);
    env.say("gw-1", Up::Pong { nonce });
    assert_eq!(env.answer(thief.conn), Some(Err(Refusal::Quarantined)));
    assert!(env.waits()[0].contains("quarantined"));
    env.hello("gw-1")
        .expect("the original proves itself by its secret");
    env.hang_up("gw-1");
    assert_eq!(env.node("gw-1").state, "quarantined");
    assert_eq!(
        env.dial(&thief, thief.conn),
        Some(Err(Refusal::Quarantined))
    );
    let node = thief.node;
    let by = "ann".to_owned();
    assert_eq!(
        env.ask(Request::ReleaseQuarantine { node, by }),
        Reply::Done
    );
    env.agent("gw-1").proof = None;
    env.hello("gw-1").expect("released");
}

#[test]
fn a_newcomer_takes_over_from_a_session_that_does_not_answer() {
    let mut env = Env::new();
    env.join("gw-1");
    let old = env.agent("gw-1").conn;
    let newcomer = copy(&mut env);
    assert_eq!(env.dial(&newcomer, newcomer.conn), None);
    assert!(env.engine.next_wakeup().is_some());
    env.pass(Span(PROBE_MS));
    assert!(env.answer(newcomer.conn).unwrap().is_ok());
    assert!(env.closed.contains(&old));
    let why = String::new();
    env.give(Input::Gone { conn: old, why });
    assert_eq!(
        env.node("gw-1").state,
        "online",
        "an old end removes nothing newer"
    );
}

#[test]
fn the_same_session_number_is_not_live_twice() {
    let mut env = Env::new();
    env.join("gw-1");
    let conn = env.conn();
    let agent = env.agent("gw-1").clone();
    assert_eq!(env.dial(&agent, conn), Some(Err(Refusal::OldSession)));
}

#[test]
fn strangers_and_liars_are_refused() {
    let mut env = Env::new();
    env.join("gw-1");
    let mut stranger = env.agent("gw-1").clone();
    stranger.node = shared::ids::NodeId([77; 16]);
    let conn = env.conn();
    assert_eq!(env.dial(&stranger, conn), Some(Err(Refusal::NotEnrolled)));
    env.hang_up("gw-1");
    let mut other = env.agent("gw-1").clone();
    other.incarnation = Incarnation([9; 16]);
    let conn = env.conn();
    assert_eq!(env.dial(&other, conn), Some(Err(Refusal::Quarantined)));
}

#[test]
fn a_reimaged_gateway_needs_a_token_and_gets_its_work_again() {
    let mut env = Env::new();
    env.join("gw-1");
    let mut once = task("once", &[]);
    once.side_effects = shared::workflow::SideEffects::AtMostOnce;
    let run = env.submit(vec![task("a", &[]), once]);
    let old = env.agent("gw-1").last_slice();
    env.tell("gw-1", vec![crate::common::started(old, 1, 1)]);
    env.hang_up("gw-1");
    env.agent("gw-1").reimage(2);
    env.agent("gw-1").key = 2;
    let node = env.agent("gw-1").node;
    let id = "again".to_owned();
    env.ask(Request::AddToken {
        by: String::new(),
        record: Vec::new(),
        id: id.clone(),
        name: Some("gw-1".to_owned()),
        replace: true,
        expires: Unix(i64::MAX),
    });
    let enrolled = env.ask(Request::Enrol {
        token: id,
        node: shared::ids::NodeId([88; 16]),
        name: "gw-1".to_owned(),
        labels: BTreeMap::new(),
        certificate: crate::common::certificate(2),
    });
    assert_eq!(enrolled, Reply::Enrolled(node));
    env.hello("gw-1").unwrap();
    let assigns = env.agent("gw-1").assigns();
    assert_eq!(assigns.len(), 1);
    assert!(assigns[0].workflow.is_some() && assigns[0].slice.epoch > old.epoch);
    env.tell("gw-1", all_done(&assigns[0]));
    let task = env.task(run, "once");
    assert_eq!(
        (task.state.as_str(), task.reason.as_deref()),
        ("lost", Some("in_doubt"))
    );
    assert_eq!(env.run(run).state, "partly_lost");
    assert!(env.waits()[0].contains("in doubt"));
    let store = env.store.clone();
    env.restart(store);
    let Reply::Waits(waits) = env.ask(Request::Waits) else {
        panic!()
    };
    assert_eq!(waits[0].task.as_deref(), Some("once"));
}
