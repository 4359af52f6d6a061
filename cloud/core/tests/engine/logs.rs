//! The two logs: gaps, forks, holes, and a store that went back.

use crate::common::{
    Agent, Env, KEY, all_done, certificate, ended, head_of, on, started, task, workflow,
};
use cloud_core::event::{Input, Reply, Request};
use cloud_core::node::Node;
use cloud_core::seal;
use cloud_core::store::{AggregateId, Store};
use shared::directive::Body as Wanted;
use shared::fact::Body;
use shared::ids::{Hash, Incarnation};
use shared::log::{Batch, Direction, Head, PackedBatch};
use shared::time::Unix;
use shared::wire::{Ack, Down, Refusal, Up};
use std::collections::BTreeMap;

#[test]
fn repeated_facts_count_once_and_gaps_are_asked_for() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[]), task("b", &[])]);
    let slice = env.agent("gw-1").last_slice();
    let origin = env.agent("gw-1").head;
    let first = env.agent("gw-1").commit(vec![started(slice, 0, 1)]);
    let second = env.agent("gw-1").commit(vec![ended(slice, 0, 1, true)]);
    env.say("gw-1", Up::Facts(second));
    let conn = env.agent("gw-1").conn;
    assert_eq!(env.sent.last(), Some(&(conn, Down::WantFacts { from: 1 })));
    env.say("gw-1", Up::Facts(first));
    env.resend("gw-1", origin);
    env.resend("gw-1", origin);
    let ack: Ack = env.agent("gw-1").ack.unwrap();
    assert_eq!(ack.head, env.agent("gw-1").head);
    let log = env.agent("gw-1").log();
    assert!(seal::verify(&KEY, log, &ack));
    let lie = Ack {
        head: origin,
        ..ack
    };
    assert!(!seal::verify(&KEY, log, &lie));
    let view = env.task(run, "a");
    assert_eq!((view.attempts, view.history.len()), (1, 1));
    assert_eq!(env.run(run).nodes["gw-1"].fact, 2);
    env.tell("gw-1", vec![started(slice, 0, 1)]);
    let view = env.task(run, "a");
    assert_eq!(
        view.state, "succeeded",
        "a started after its end changes nothing"
    );
}

#[test]
fn an_unreadable_fact_is_recorded_and_blocks_nothing() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[])]);
    let batch = Batch::new(env.agent("gw-1").head, vec![vec![255; 9]]);
    env.agent("gw-1").head = batch.head();
    env.say("gw-1", Up::Facts(batch));
    let assign = env.agent("gw-1").assigns()[0].clone();
    env.tell("gw-1", all_done(&assign));
    assert_eq!(env.run(run).state, "succeeded");
    assert!(env.node("gw-1").note.unwrap().contains("cannot be read"));
}

/// The disk of gw-1 is again as it was; numbers of its sessions go on.
fn goes_back(env: &mut Env, disk: Agent) {
    env.hang_up("gw-1");
    let session = env.agent("gw-1").session;
    *env.agent("gw-1") = disk;
    env.agent("gw-1").session = session;
}

/// gw-1 is told to take a new incarnation, and does.
fn begins_anew(env: &mut Env) {
    assert_eq!(env.hello("gw-1").unwrap_err(), Refusal::NewIncarnation);
    let before = env.agent("gw-1").incarnation;
    env.agent("gw-1").reimage(2);
    env.agent("gw-1").succeeds = Some(before);
    env.hello("gw-1").unwrap();
}

#[test]
fn a_disk_that_went_back_takes_a_new_incarnation() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[])]);
    let backup = env.agent("gw-1").clone();
    let slice = env.takes_up("gw-1");
    goes_back(&mut env, backup);
    env.agent("gw-1").proof = None;
    begins_anew(&mut env);
    let assign = env.agent("gw-1").assigns()[0].clone();
    assert!(assign.slice.epoch > slice.epoch);
    env.tell("gw-1", all_done(&assign));
    assert_eq!(env.run(run).state, "succeeded");
    env.hang_up("gw-1");
    env.agent("gw-1").reimage(1);
    env.agent("gw-1").incarnation = Incarnation([1; 16]);
    assert_eq!(env.hello("gw-1").unwrap_err(), Refusal::Quarantined);
}

#[test]
fn a_store_that_was_cut_to_nothing_is_succeeded_once_and_only_while_nobody_else_answers() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[])]);
    let slice = env.takes_up("gw-1");
    env.hang_up("gw-1");
    let before = env.agent("gw-1").incarnation;
    env.agent("gw-1").reimage(2);
    env.agent("gw-1").succeeds = Some(before);
    env.hello("gw-1").unwrap();
    assert!(env.node("gw-1").note.unwrap().contains("store is gone"));
    let assign = env.agent("gw-1").assigns()[0].clone();
    assert!(assign.slice.epoch > slice.epoch);
    env.tell("gw-1", all_done(&assign));
    assert_eq!(env.run(run).state, "succeeded");
    env.hang_up("gw-1");
    // a second one that follows the same incarnation is another machine
    env.agent("gw-1").reimage(3);
    env.agent("gw-1").succeeds = Some(before);
    assert_eq!(env.hello("gw-1").unwrap_err(), Refusal::Quarantined);
}

#[test]
fn a_fork_of_the_facts_fences_the_incarnation() {
    let mut env = Env::new();
    env.join("gw-1");
    env.tell("gw-1", vec![]);
    let run = env.submit(vec![task("a", &[])]);
    let slice = env.agent("gw-1").last_slice();
    env.tell("gw-1", vec![Body::Accepted { slice }]);
    let mut other = env.agent("gw-1").head;
    other.hash = Hash([1; 32]);
    let batch = Batch::new(other, vec![vec![0; 4]]);
    env.say("gw-1", Up::Facts(batch));
    let conn = env.agent("gw-1").conn;
    assert!(env.closed.contains(&conn));
    assert_eq!(env.node("gw-1").state, "quarantined");
    assert_eq!(env.hello("gw-1").unwrap_err(), Refusal::NewIncarnation);
    assert_eq!(env.run(run).state, "running");
}

#[test]
fn a_hole_in_the_facts_is_bridged_by_a_reset() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[]), task("b", &[])]);
    let slice = env.agent("gw-1").last_slice();
    let done = vec![started(slice, 0, 1), ended(slice, 0, 1, true)];
    drop(env.agent("gw-1").commit(done));
    let mut state = env
        .agent("gw-1")
        .inventory(&workflow(vec![task("a", &[]), task("b", &[])]))
        .slices;
    state[0].tasks[0].state = shared::state::TaskState::Succeeded;
    state[0].tasks[0].attempts = 1;
    let reset = Body::Reset {
        from: 1,
        to: 2,
        why: "compacted".to_owned(),
        slices: state,
    };
    env.tell("gw-1", vec![reset]);
    assert_eq!(env.task(run, "a").state, "succeeded");
    assert!(
        env.node("gw-1")
            .note
            .unwrap()
            .contains("facts 1 to 2 are gone")
    );
    assert_eq!(env.agent("gw-1").ack.unwrap().head.number, 3);
}

/// The store went back, and the log of directives was begun anew behind what the node had; then the
/// node's disk went back as far, and facts tell nothing of it. What continued the log for it is
/// gone, and so is what it had taken over.
#[test]
fn a_disk_that_went_back_behind_directives_takes_a_new_incarnation() {
    let mut env = Env::new();
    env.join("gw-1");
    let (backup, young) = (env.store.image(), env.agent("gw-1").clone());
    env.submit(vec![on("gw-1", task("a", &[]))]);
    env.restart(backup);
    env.hello("gw-1").unwrap();
    assert_eq!(env.agent("gw-1").directives.number, 2);
    goes_back(&mut env, young);
    begins_anew(&mut env);
}

#[test]
fn a_store_that_went_back_holds_old_runs_and_learns_from_the_nodes() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let tasks = || vec![on("gw-1", task("a", &[])), on("gw-2", task("b", &[0]))];
    let old = env.submit(vec![on("gw-2", task("x", &[]))]);
    let backup = env.store.image();
    let young = env.submit(tasks());
    let slice = env.takes_up("gw-1");
    let before = env.engine.generation();
    env.restart(backup);
    let welcome = env.hello("gw-1").unwrap();
    assert!(welcome.want_inventory);
    assert!(welcome.generation > before && welcome.facts.head.number == 0);
    let reset = env.agent("gw-1").seen.last().unwrap().body.clone();
    assert!(matches!(reset, Wanted::Reset { .. }), "{reset:?}");
    assert_eq!(env.run(old).state, "held");
    let origin = Head::origin(
        env.agent("gw-1").node,
        env.agent("gw-1").incarnation,
        Direction::Up,
    );
    env.resend("gw-1", origin);
    assert_eq!(env.run(young).state, "unknown_run");
    let inventory = env.agent("gw-1").inventory(&workflow(tasks()));
    env.say("gw-1", Up::Inventory(inventory));
    assert_eq!(env.run(young).state, "held");
    assert_eq!(
        env.task(young, "a").state,
        "blocked",
        "nothing counts before all nodes were heard"
    );
    let fresh = env.submit(vec![task("n", &[])]);
    assert_eq!(
        env.run(fresh).state,
        "running",
        "new runs start on nodes that were heard"
    );
    assert!(
        env.waits()
            .iter()
            .any(|w| w.contains("not heard since the hold"))
    );
    env.hello("gw-2").unwrap();
    let mut all = env.agent("gw-2").inventory(&workflow(tasks()));
    let (packed, hash) = shared::codec::pack(&workflow(vec![on("gw-2", task("x", &[]))]));
    all.workflows.push(packed);
    all.slices
        .iter_mut()
        .filter(|s| s.slice.run == old)
        .for_each(|s| s.workflow = hash);
    env.say("gw-2", Up::Inventory(all));
    assert_eq!(env.run(old).state, "running");
    assert_eq!(env.run(young).state, "running");
    assert_eq!(
        env.task(young, "a").state,
        "running",
        "kept facts were folded"
    );
    env.tell(
        "gw-1",
        vec![ended(slice, 0, 1, true), Body::SliceDone { slice }],
    );
    let told = env.agent("gw-2").seen.last().unwrap().body.clone();
    assert!(matches!(told, Wanted::Upstream { .. }), "{told:?}");
    for assign in env.agent("gw-2").assigns() {
        env.tell("gw-2", all_done(&assign));
    }
    assert_eq!(env.run(young).state, "succeeded");
    assert_eq!(env.run(old).state, "succeeded");
}

#[test]
fn accepting_that_a_node_is_gone_ends_the_hold() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let backup = env.store.image();
    let run = env.submit(vec![on("gw-1", task("a", &[]))]);
    env.restart(backup);
    env.hello("gw-1").unwrap();
    let inventory = env
        .agent("gw-1")
        .inventory(&workflow(vec![on("gw-1", task("a", &[]))]));
    env.say("gw-1", Up::Inventory(inventory));
    assert_eq!(env.run(run).state, "held");
    let node = Some(env.agent("gw-2").node);
    let by = "ann".to_owned();
    env.ask(Request::AcceptGone { node, by });
    assert_eq!(env.run(run).state, "running");
    assert!(env.waits().is_empty());
}

#[test]
fn a_reconnect_gets_the_directives_it_lacks() {
    let mut env = Env::new();
    env.join("gw-1");
    env.hang_up("gw-1");
    let run = env.submit(vec![on("gw-1", task("a", &[]))]);
    assert!(env.agent("gw-1").seen.is_empty());
    assert_eq!(env.node("gw-1").unconfirmed, 1);
    env.hello("gw-1").unwrap();
    let assign = env.agent("gw-1").assigns()[0].clone();
    let head = env.agent("gw-1").directives;
    env.say("gw-1", Up::Applied(head));
    assert_eq!(env.node("gw-1").unconfirmed, 0);
    let store = env.store.clone();
    env.restart(store);
    env.hello("gw-1").unwrap();
    env.tell("gw-1", all_done(&assign));
    assert_eq!(env.run(run).state, "succeeded");
}

#[test]
fn a_restored_mark_holds_before_anything_is_served_and_voids_open_tokens() {
    use cloud_core::event::{Refused, Reply};
    use cloud_core::store::{AggregateId, RESTORED, Store, Transaction};
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[])]);
    env.ask(Request::AddToken {
        by: String::new(),
        record: Vec::new(),
        id: "open".to_owned(),
        name: None,
        replace: false,
        expires: Unix(i64::MAX),
    });
    let restored = env.store.image();
    let mut store = restored.open();
    let fleet = AggregateId::Fleet;
    let (version, head) = head_of(&mut store, fleet);
    let mark = Transaction {
        rows: vec![(RESTORED.to_owned(), Some(b"backup of Monday".to_vec()))],
        ..Transaction::of(fleet, version, head)
    };
    store.commit(&[mark]).unwrap();
    env.restart(restored);
    assert_eq!(env.run(run).state, "held");
    let id = "open".to_owned();
    let reply = env.ask(Request::GetToken { id });
    assert!(
        matches!(reply, Reply::Refused(Refused::Token(_))),
        "{reply:?}"
    );
    assert!(env.hello("gw-1").unwrap().want_inventory);
    let inventory = env.agent("gw-1").inventory(&workflow(vec![task("a", &[])]));
    env.say("gw-1", Up::Inventory(inventory));
    assert_eq!(env.run(run).state, "running");
}

#[test]
fn one_gateways_word_without_a_seal_holds_nothing_and_waits_for_a_person() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let old = env.submit(vec![on("gw-2", task("x", &[]))]);
    let backup = env.store.image();
    let young = env.submit(vec![on("gw-1", task("a", &[]))]);
    env.restart(backup);
    let generation = env.engine.generation();
    env.agent("gw-1").directive_seal = None;
    assert_eq!(env.hello("gw-1").unwrap_err(), Refusal::Quarantined);
    assert_eq!(env.run(old).state, "running", "nothing else is touched");
    assert_eq!(env.engine.generation(), generation);
    assert_eq!(env.node("gw-1").state, "quarantined");
    let waits = env.waits();
    assert_eq!(waits.len(), 1);
    assert!(waits[0].contains("without a seal"), "{waits:?}");
    env.hello("gw-2").expect("the other node works on");
    let node = env.agent("gw-1").node;
    let by = "ann".to_owned();
    env.ask(Request::ReleaseQuarantine { node, by });
    assert!(env.hello("gw-1").unwrap().want_inventory);
    let inventory = env
        .agent("gw-1")
        .inventory(&workflow(vec![on("gw-1", task("a", &[]))]));
    env.say("gw-1", Up::Inventory(inventory));
    assert_eq!(env.run(young).state, "running", "rebuilt, and not held");
    assert_eq!(env.run(old).state, "running");
}

#[test]
fn a_sealed_directive_that_is_not_known_proves_that_the_store_went_back() {
    let mut env = Env::new();
    env.join("gw-1");
    let old = env.submit(vec![task("x", &[])]);
    let backup = env.store.image();
    env.submit(vec![task("a", &[])]);
    let sealed = env.agent("gw-1").directive_seal.expect("a seal came along");
    assert_eq!(sealed.head, env.agent("gw-1").directives);
    assert!(env.agent("gw-1").ack.is_none(), "no fact was acknowledged");
    env.restart(backup);
    assert!(env.hello("gw-1").unwrap().want_inventory);
    assert!(env.engine.generation() > sealed.generation);
    assert_eq!(env.run(old).state, "held");
    let inventory = env.agent("gw-1").inventory(&workflow(vec![task("x", &[])]));
    env.say("gw-1", Up::Inventory(inventory));
    assert!(env.waits().iter().all(|w| !w.contains("held")));
    env.hang_up("gw-1");
    env.hello("gw-1").unwrap();
    let waits = env.waits();
    assert!(
        waits.iter().all(|w| !w.contains("held")),
        "an old seal proves once: {waits:?}"
    );
}

#[test]
fn a_seal_is_good_for_one_direction_of_one_node_only() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let run = env.submit(vec![on("gw-1", task("a", &[]))]);
    let assign = env.agent("gw-1").assigns()[0].clone();
    env.tell("gw-1", all_done(&assign));
    let old = env.submit(vec![on("gw-2", task("x", &[]))]);
    let (ack, sealed) = (
        env.agent("gw-1").ack.unwrap(),
        env.agent("gw-1").directive_seal.unwrap(),
    );
    let log = env.agent("gw-2").log();
    assert!(!seal::verify(&KEY, log, &ack) && !seal::verify_directives(&KEY, log, &sealed));
    env.hang_up("gw-2");
    let mut liar = env.agent("gw-2").clone();
    for (number, hash) in [(99, Hash([1; 32])), (ack.head.number, ack.head.hash)] {
        liar.ack = Some(ack);
        liar.directives = Head { number, hash };
        liar.directive_seal = Some(shared::wire::DirectiveSeal {
            generation: ack.generation,
            head: ack.head,
            seal: ack.seal,
        });
        liar.conn = env.conn();
        assert_eq!(env.dial(&liar, liar.conn), Some(Err(Refusal::Quarantined)));
    }
    let own = env.agent("gw-1").clone();
    let swapped = shared::wire::DirectiveSeal {
        generation: ack.generation,
        head: ack.head,
        seal: ack.seal,
    };
    assert!(!seal::verify_directives(&KEY, own.log(), &swapped));
    assert_eq!(env.run(old).state, "running");
    assert_eq!(env.run(run).state, "succeeded");
}

#[test]
fn a_long_backlog_is_acknowledged_at_once_and_folded_in_turns() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit((0..1200).map(|n| task(&format!("t{n}"), &[])).collect());
    let assign = env.agent("gw-1").assigns()[0].clone();
    let conn = env.agent("gw-1").conn;
    let bodies = all_done(&assign);
    let batches: Vec<Batch> = bodies
        .chunks(800)
        .map(|part| env.agent("gw-1").commit(part.to_vec()))
        .collect();
    let heard = |batch: &Batch| Input::Heard {
        conn,
        message: Up::Packed(PackedBatch::new(batch.after, batch.head(), &batch.entries)),
    };
    let before = env.sent.len();
    env.give_all(batches.iter().map(heard).collect());
    let last = env.agent("gw-1").head;
    assert_eq!(env.agent("gw-1").ack.unwrap().head, last);
    let sent = env.sent[before..].iter();
    let acks = sent.filter(|(_, message)| matches!(message, Down::Ack(_)));
    assert_eq!(acks.count(), 1, "one for all that one commit records");
    assert!(env.engine.next_wakeup() <= Some(env.now.mono));
    let store = env.store.image();
    // facts 1 to 1600 are two messages; the second one began within the budget
    let view = env.run(run);
    let as_of = &view.nodes["gw-1"];
    assert_eq!((as_of.fact, as_of.behind), (1600, last.number - 1600));
    assert_eq!(view.state, "running");
    assert_eq!(env.node("gw-1").as_of.fact, last.number);
    env.restart(store);
    assert_eq!(env.run(run).state, "succeeded");
    assert_eq!(env.run(run).nodes["gw-1"].fact, last.number);
    assert_eq!(env.run(run).tasks["succeeded"], 1200);
}

/// The wall clock was set back, so that generations that follow from it would be used again.
#[test]
fn a_store_that_went_back_goes_on_behind_every_generation_that_was_sealed() {
    let mut env = Env::new();
    env.join("gw-1");
    let backup = env.store.image();
    for _ in 0..3 {
        let store = env.store.clone();
        env.restart(store);
    }
    env.hello("gw-1").unwrap();
    env.submit(vec![task("a", &[])]);
    env.takes_up("gw-1");
    let sealed = env.agent("gw-1").ack.expect("an acknowledgement");
    env.restart(backup);
    assert!(env.engine.generation() < sealed.generation);
    assert!(env.hello("gw-1").unwrap().want_inventory);
    assert!(env.engine.generation() > sealed.generation);
}

#[test]
fn facts_that_a_node_offers_again_are_remembered_from_the_first_one_on() {
    let mut env = Env::new();
    env.join("gw-1");
    env.submit(vec![task("a", &[])]);
    env.takes_up("gw-1");
    env.agent("gw-1").ack = None;
    env.hello("gw-1").unwrap();
    let (node, incarnation) = (env.agent("gw-1").node, env.agent("gw-1").incarnation);
    let mut rows = None;
    let mut each = |id, _, head: &[u8]| {
        if id == AggregateId::Node(node) {
            rows = shared::codec::decode::<Node>(head).ok();
        }
    };
    env.engine.store().aggregates(&mut each).unwrap();
    let rows = rows.expect("a node that can be read").repeats;
    assert_eq!(rows, [(incarnation, 1, 2)]);
}

/// What a reset does not name was given up in the hole, so the node would end it.
#[test]
fn a_reset_names_what_a_node_goes_on_with_when_another_run_was_forgotten() {
    let mut env = Env::new();
    env.join("gw-1");
    let over = env.submit(vec![task("a", &[])]);
    let assign = env.agent("gw-1").assigns()[0].clone();
    env.tell("gw-1", all_done(&assign));
    let goes_on = env.submit(vec![task("b", &[])]);
    let slice = env.takes_up("gw-1");
    let by = "ann".to_owned();
    env.ask(Request::ForgetRun { run: over, by });
    let applied = env.agent("gw-1").directives;
    env.say("gw-1", Up::Applied(applied));
    let backup = env.store.image();
    let (on, by) = (true, "ann".to_owned());
    env.ask(Request::Pause {
        run: goes_on,
        on,
        by,
    });
    env.restart(backup);
    env.hello("gw-1").unwrap();
    let reset = env.agent("gw-1").seen.last().unwrap().body.clone();
    let Wanted::Reset { slices, .. } = reset else {
        panic!("{reset:?}");
    };
    assert_eq!(slices, [slice]);
}

#[test]
fn a_node_that_was_declared_gone_and_is_let_in_again_owes_no_inventory() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let backup = env.store.image();
    env.submit(vec![on("gw-1", task("a", &[]))]);
    env.takes_up("gw-1");
    env.restart(backup);
    env.hello("gw-1").unwrap();
    let node = env.agent("gw-2").node;
    let by = "ann".to_owned();
    assert_eq!(env.ask(Request::ForgetNode { node, by }), Reply::Done);
    let (token, name) = ("again".to_owned(), "gw-2".to_owned());
    env.ask(Request::AddToken {
        by: String::new(),
        record: Vec::new(),
        id: token.clone(),
        name: Some(name.clone()),
        replace: true,
        expires: Unix(i64::MAX),
    });
    env.agent("gw-2").key = 2;
    let enrolled = env.ask(Request::Enrol {
        token,
        node,
        name,
        labels: BTreeMap::new(),
        certificate: certificate(2),
    });
    assert_eq!(enrolled, Reply::Enrolled(node));
    assert!(!env.hello("gw-2").unwrap().want_inventory);
}
