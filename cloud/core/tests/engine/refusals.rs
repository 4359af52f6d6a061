//! A node may refuse a slice: it goes elsewhere, or waits, says why, and is offered again.

use crate::common::{Env, all_done, on, task};
use cloud_core::engine::REFUSED_AGAIN;
use cloud_core::event::{Reply, Request};
use shared::explain::Reason;
use shared::fact::Body;
use shared::ids::SliceRef;
use shared::time::Span;
use shared::wire::{ROOM, Up};

fn refused(slice: SliceRef, reason: Reason, text: &str) -> Body {
    Body::Refused {
        directive: 1,
        slice: Some(slice),
        reason,
        text: text.to_owned(),
    }
}

/// The node refuses the slice that it was given last.
fn refuse(env: &mut Env, name: &str) {
    let slice = env.agent(name).last_slice();
    let text = "12 bytes are free on the disk";
    env.tell(name, vec![refused(slice, Reason::NoRoom, text)]);
}

#[test]
fn what_a_node_refuses_goes_to_another_at_a_new_epoch() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let run = env.submit(vec![task("a", &[])]);
    let first = env.agent("gw-1").last_slice();
    refuse(&mut env, "gw-1");
    let assign = env.agent("gw-2").assigns()[0].clone();
    assert!(assign.slice.epoch > first.epoch);
    assert!(assign.workflow.is_some());
    assert_eq!(env.node("gw-1").slices, 0);
    let task = "a".to_owned();
    let Reply::Explain(why) = env.ask(Request::Explain { run, task }) else {
        panic!()
    };
    let moved = why.decisions.iter().find(|d| d.action == "moved");
    assert_eq!(moved.map(|d| d.reason.as_str()), Some("no_room"));
    env.tell("gw-2", all_done(&assign));
    assert_eq!(env.run(run).state, "succeeded");
}

#[test]
fn what_all_refuse_waits_with_the_reason_and_is_offered_again_after_a_pause() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let run = env.submit(vec![task("a", &[])]);
    refuse(&mut env, "gw-1");
    refuse(&mut env, "gw-2");
    assert_eq!(env.agent("gw-1").assigns().len(), 1, "not at once");
    let waits = env.waits();
    assert_eq!(waits.len(), 1);
    for part in ["refused", "no_room", "12 bytes are free"] {
        assert!(waits[0].contains(part), "{waits:?}");
    }
    assert_eq!(env.run(run).state, "accepted");
    let due = env.engine.next_wakeup().unwrap();
    assert_eq!(due, env.now.mono + REFUSED_AGAIN);
    env.pass(Span(REFUSED_AGAIN.0 - 1));
    assert_eq!(env.agent("gw-1").assigns().len(), 1);
    env.pass(Span(1));
    let assigns = env.agent("gw-1").assigns();
    assert_eq!(assigns.len(), 2, "offered again");
    assert!(env.waits().is_empty());
    env.tell("gw-1", all_done(&assigns[1]));
    assert_eq!(env.run(run).state, "succeeded");
}

#[test]
fn a_node_that_says_hello_again_is_asked_again_at_once() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![on("gw-1", task("a", &[]))]);
    let slice = env.agent("gw-1").last_slice();
    let text = "task a asks for 2 of gpu, here are 0";
    env.tell("gw-1", vec![refused(slice, Reason::DoesNotFit, text)]);
    assert!(env.waits()[0].contains("does_not_fit"), "{:?}", env.waits());
    env.hang_up("gw-1");
    env.hello("gw-1").unwrap();
    let assigns = env.agent("gw-1").assigns();
    assert_eq!(assigns.len(), 2);
    env.tell("gw-1", all_done(&assigns[1]));
    assert_eq!(env.run(run).state, "succeeded");
}

#[test]
fn a_refusal_outlives_a_restart_of_the_coordinator() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![on("gw-1", task("a", &[]))]);
    refuse(&mut env, "gw-1");
    let store = env.store.clone();
    env.restart(store);
    assert!(env.waits()[0].contains("no_room"), "{:?}", env.waits());
    env.pass(REFUSED_AGAIN);
    env.hello("gw-1").unwrap();
    let assigns = env.agent("gw-1").assigns();
    assert_eq!(assigns.len(), 2);
    env.tell("gw-1", all_done(&assigns[1]));
    assert_eq!(env.run(run).state, "succeeded");
}

#[test]
fn a_refusal_of_a_slice_that_was_taken_over_changes_nothing() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let run = env.submit(vec![on("gw-1", task("a", &[])), on("gw-2", task("b", &[]))]);
    let assign = env.agent("gw-1").assigns()[0].clone();
    let slice = assign.slice;
    env.tell("gw-1", vec![Body::Accepted { slice }]);
    refuse(&mut env, "gw-1");
    env.tell("gw-2", vec![refused(slice, Reason::NoRoom, "not its own")]);
    assert_eq!(env.agent("gw-1").assigns().len(), 1);
    env.tell("gw-1", all_done(&assign));
    assert_eq!(env.task(run, "a").state, "succeeded");
}

#[test]
fn a_node_without_room_is_offered_nothing_until_it_says_that_it_has_some() {
    let mut env = Env::new();
    env.join("gw-1");
    env.say("gw-1", Up::Room { enough: false });
    let first = env.submit(vec![on("gw-1", task("a", &[]))]);
    let text = "gw-1 has no room on its disk for more work";
    assert!(env.waits()[0].contains(text), "{:?}", env.waits());
    env.pass(Span(60 * REFUSED_AGAIN.0));
    env.hang_up("gw-1");
    env.hello("gw-1").unwrap();
    assert!(
        env.agent("gw-1").assigns().is_empty(),
        "it said nothing new"
    );
    env.say("gw-1", Up::Room { enough: true });
    let assigns = env.agent("gw-1").assigns();
    assert_eq!(assigns.len(), 1);
    assert!(env.waits().is_empty());
    env.tell("gw-1", all_done(&assigns[0]));
    assert_eq!(env.run(first).state, "succeeded");
}

#[test]
fn what_a_full_node_refused_is_offered_again_as_soon_as_it_has_room() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![on("gw-1", task("a", &[]))]);
    env.say("gw-1", Up::Room { enough: false });
    refuse(&mut env, "gw-1");
    env.pass(Span(60 * REFUSED_AGAIN.0));
    assert_eq!(env.agent("gw-1").assigns().len(), 1);
    env.say("gw-1", Up::Room { enough: true });
    let assigns = env.agent("gw-1").assigns();
    assert_eq!(assigns.len(), 2, "without the pause");
    env.tell("gw-1", all_done(&assigns[1]));
    assert_eq!(env.run(run).state, "succeeded");
}

#[test]
fn what_a_full_node_would_get_goes_to_another_and_room_is_no_matter_of_older_agents() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    env.say("gw-1", Up::Room { enough: false });
    env.submit(vec![task("a", &[])]);
    env.submit(vec![task("b", &[])]);
    assert!(env.agent("gw-1").assigns().is_empty());
    assert_eq!(env.agent("gw-2").assigns().len(), 2);
    let waiting = env.submit(vec![on("gw-1", task("c", &[]))]);
    env.hang_up("gw-1");
    env.agent("gw-1").features &= !ROOM;
    env.hello("gw-1").unwrap();
    let assigns = env.agent("gw-1").assigns();
    assert_eq!(assigns.len(), 1);
    env.tell("gw-1", all_done(&assigns[0]));
    assert_eq!(env.run(waiting).state, "succeeded");
}
