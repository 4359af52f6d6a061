//! Agents of the first release: they read workflows of format 1 only.

use crate::apart;
use crate::asking::asks;
use crate::common::{Env, all_done, task};
use cloud_core::change::NodeChange;
use shared::codec;
use shared::directive::Assign;
use shared::explain::Reason;
use shared::fact::Body;
use shared::ids::Hash;
use shared::wire::{FEATURES, WORKFLOW_2};

fn of_the_first_release(env: &mut Env, name: &str) {
    env.agent(name).features = 0;
    env.hello(name).unwrap();
}

/// The last assignment of a node, and the format and hash of the workflow that came with it.
fn last(env: &mut Env, name: &str) -> (Assign, Option<(u16, Hash)>) {
    let assign = env.agent(name).assigns().last().unwrap().clone();
    let sent = assign.workflow.as_ref().map(|packed| {
        let (read, hash) = codec::unpack(packed).unwrap();
        (read.format, hash)
    });
    (assign, sent)
}

fn upgrade(env: &mut Env, name: &str) {
    env.agent(name).features = FEATURES;
    env.hello(name).unwrap();
}

#[test]
fn it_gets_the_workflow_in_its_format_and_keeps_that_hash_when_it_is_upgraded() {
    let mut env = Env::new();
    env.join("gw-1");
    of_the_first_release(&mut env, "gw-1");
    let mut later = task("b", &[]);
    later.placement.labels = [("gpu".to_owned(), "yes".to_owned())].into();
    let run = env.submit(vec![task("a", &[]), later]);
    let (first, sent) = last(&mut env, "gw-1");
    assert_eq!(sent, Some((1, first.workflow_hash)));
    assert_ne!(env.run(run).version, first.workflow_hash.to_string());
    upgrade(&mut env, "gw-1");
    // what it has outlives the coordinator's process, too
    let store = env.store.clone();
    env.restart(store);
    env.hello("gw-1").unwrap();
    let labels = [("gpu".to_owned(), Some("yes".to_owned()))].into();
    let change = NodeChange::Label(labels);
    apart::change(&mut env, "gw-1", change);
    let (second, sent) = last(&mut env, "gw-1");
    assert_ne!(second.slice.slice, first.slice.slice);
    // it has the workflow already, under the hash of the first format
    assert_eq!((second.workflow_hash, sent), (first.workflow_hash, None));
    env.tell("gw-1", all_done(&first));
    env.tell("gw-1", all_done(&second));
    assert_eq!(env.run(run).state, "succeeded");
    let other = env.submit(vec![task("a", &[])]);
    let (assign, sent) = last(&mut env, "gw-1");
    assert_eq!(assign.slice.run, other);
    assert_eq!(sent, Some((2, assign.workflow_hash)));
}

#[test]
fn what_it_let_go_comes_again_in_the_format_that_it_reads_by_then() {
    let mut env = Env::new();
    env.join("gw-1");
    of_the_first_release(&mut env, "gw-1");
    let run = env.submit(vec![task("a", &[])]);
    let (first, _) = last(&mut env, "gw-1");
    // with its last slice of a run an agent lets the workflow go
    let refused = Body::Refused {
        directive: 1,
        slice: Some(first.slice),
        reason: Reason::NoRoom,
        text: "no room".to_owned(),
    };
    env.tell("gw-1", vec![refused]);
    upgrade(&mut env, "gw-1");
    let (again, sent) = last(&mut env, "gw-1");
    assert!(again.slice.epoch > first.slice.epoch);
    assert_ne!(again.workflow_hash, first.workflow_hash);
    assert_eq!(sent, Some((2, again.workflow_hash)));
    assert_eq!(env.run(run).version, again.workflow_hash.to_string());
    env.tell("gw-1", all_done(&again));
    assert_eq!(env.run(run).state, "succeeded");
}

#[test]
fn what_its_format_cannot_say_waits_for_another_node_and_says_so() {
    let mut env = Env::new();
    env.join("gw-1");
    of_the_first_release(&mut env, "gw-1");
    let run = env.submit(vec![asks("ask")]);
    assert!(env.agent("gw-1").assigns().is_empty());
    let waits = env.waits().join("\n");
    for part in ["gw-1 runs an older version", "cannot ask people", "'ask'"] {
        assert!(waits.contains(part), "{waits}");
    }
    // an upgrade is enough
    env.agent("gw-1").features = WORKFLOW_2;
    env.hello("gw-1").unwrap();
    assert_eq!(env.agent("gw-1").assigns()[0].slice.run, run);
}
