//! Agents of the first release: they read workflows of format 1 only.

use crate::asking::asks;
use crate::common::{Env, all_done, task};
use shared::codec;
use shared::explain::Reason;
use shared::fact::Body;
use shared::wire::{FEATURES, WORKFLOW_2};

fn of_the_first_release(env: &mut Env, name: &str) {
    env.agent(name).features = 0;
    env.hello(name).unwrap();
}

#[test]
fn it_gets_the_workflow_in_its_format_and_keeps_that_hash_when_it_is_upgraded() {
    let mut env = Env::new();
    env.join("gw-1");
    of_the_first_release(&mut env, "gw-1");
    let run = env.submit(vec![task("a", &[])]);
    let assign = env.agent("gw-1").assigns()[0].clone();
    let (read, hash) = codec::unpack(&assign.workflow.unwrap()).unwrap();
    assert_eq!((read.format, hash), (1, assign.workflow_hash));
    assert_ne!(env.run(run).version, hash.to_string());
    let refused = Body::Refused {
        directive: 1,
        slice: Some(assign.slice),
        reason: Reason::NoRoom,
        text: "no room".to_owned(),
    };
    env.tell("gw-1", vec![refused]);
    env.agent("gw-1").features = FEATURES;
    env.hello("gw-1").unwrap();
    let again = env.agent("gw-1").assigns().last().unwrap().clone();
    assert!(again.slice.epoch > assign.slice.epoch);
    // it has the workflow already, under the hash of the first format
    assert_eq!((again.workflow_hash, &again.workflow), (hash, &None));
    env.tell("gw-1", all_done(&again));
    assert_eq!(env.run(run).state, "succeeded");
    let other = env.submit(vec![task("a", &[])]);
    let assign = env.agent("gw-1").assigns().last().unwrap().clone();
    let (read, _) = codec::unpack(&assign.workflow.unwrap()).unwrap();
    assert_eq!((assign.slice.run, read.format), (other, 2));
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
