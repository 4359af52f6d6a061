//! Promise 2: what a side has acknowledged survives.

use crate::rng::mix;
use crate::trace::Lane;
use crate::truth::{EdgeTruth, Wrong, wrong};
use crate::world::World;
use cloud_core::store::{AggregateId, Store};
use shared::fact::Body;
use shared::ids::{Hash, RunId};
use shared::log::{Direction, Head};
use shared::wire::{Down, LogId, Up};
use std::collections::BTreeMap;

/// What it means.
pub const DEFINITION: &str = "Whatever a side acknowledged (facts and directives by number and hash, submissions at \
    the coordinator and at a gateway, the start of a process by its `started`) is durable at that moment (what the \
    coordinator acknowledges: before anybody hears it) and is found again, byte for byte, by every later start from the same disk; a store opens after every crash.";

/// An agent sends a message.
pub fn on_send_up(world: &mut World, m: usize, message: &Up) {
    let life = world.machines[m].life;
    let truth = &mut world.lives[life];
    if let Some((_, head)) = message.facts() {
        truth.sent = truth.sent.max(head.number);
    }
    let said = match message {
        Up::Facts(_) | Up::Packed(_) => (truth.sent, truth.facts.len() as u64, "facts"),
        Up::Applied(head) => {
            truth.applied = truth.applied.max(head.number);
            (head.number, truth.last_directive(), "directives")
        }
        Up::Hello(hello) => (
            hello.facts.number,
            truth.facts.len() as u64,
            "facts in a hello",
        ),
        _ => return,
    };
    if said.0 > said.1 {
        let text = format!(
            "gw-{} names {} up to {}, durable: {}",
            m + 1,
            said.2,
            said.0,
            said.1
        );
        world.fail("acknowledged_is_durable", text);
    }
}

/// The last fact that a message of the coordinator acknowledges.
fn acknowledged(message: &Down) -> Option<u64> {
    match message {
        Down::Ack(ack) => Some(ack.head.number),
        Down::Welcome(welcome) => Some(welcome.facts.head.number),
        _ => None,
    }
}

fn durable(world: &World, log: LogId) -> u64 {
    let head = world.cloud.truth.heads.get(&log);
    head.map_or(0, |head| head.number)
}

/// The coordinator sends a message: what it acknowledges has to be durable before anybody hears it.
pub fn on_send_down(world: &mut World, conn: u64, message: &Down) {
    let log = world.conns.get(&conn).map(|one| one.log);
    let (Some(number), Some(log)) = (acknowledged(message), log) else {
        return;
    };
    if number > durable(world, log) {
        world.cloud.truth.early.insert((log, number));
    }
}

/// A message reaches the agent of `m`: what was not durable when it was sent is by now, since its
/// sender may be gone.
pub fn on_hear_down(world: &mut World, m: usize, message: &Down) {
    let log = world.machines[m].log();
    let Some(number) = acknowledged(message) else {
        return;
    };
    let known = durable(world, log);
    if world.cloud.truth.early.contains(&(log, number)) && number > known {
        let text = format!(
            "gw-{} hears that its facts up to {number} are taken, durable: {known}",
            m + 1
        );
        world.fail("acknowledged_is_durable", text);
    }
}

/// A person at a gateway was told that a run is submitted.
pub fn on_local_submit(world: &mut World, m: usize, run: RunId) {
    let truth = &world.lives[world.machines[m].life];
    let there = truth.facts.iter().any(|row| {
        row.fact.as_ref().is_some_and(
            |fact| matches!(&fact.body, Body::Submitted { slice, .. } if slice.run == run),
        )
    });
    if !there {
        let text = format!("gw-{} acknowledged run {run}, which is not durable", m + 1);
        world.fail("acknowledged_is_durable", text);
    }
}

/// The coordinator is about to start: what is on its disk is compared with what must be there.
pub fn inspect_cloud(world: &mut World, store: &mut dyn Store) {
    let thorough = world.on_disk() || mix(world.t).is_multiple_of(4);
    let mut found = BTreeMap::new();
    let read = store.aggregates(&mut |id, version, _| {
        found.insert(id, version);
    });
    if let Err(error) = read {
        world.fail(
            "acknowledged_is_durable",
            format!("the coordinator's store: {error}"),
        );
        return;
    }
    settle_open(world, &found);
    let mut wrongs = Vec::new();
    for (id, version) in &world.cloud.truth.versions {
        let there = found.get(id).copied().unwrap_or(0);
        if there != *version {
            let text = format!("{id:?} has version {there} on the disk, {version} was durable");
            wrongs.push(wrong("acknowledged_is_durable", text));
        }
    }
    for run in &world.cloud.truth.promised {
        if !found.contains_key(&AggregateId::Run(*run)) {
            let text = format!("run {run} was accepted and is not there");
            wrongs.push(wrong("acknowledged_is_durable", text));
        }
    }
    if thorough {
        let limit = crate::cloud::RECORD_BYTES;
        wrongs.extend(super::recorded::inspect(
            &world.cloud.truth.record,
            limit,
            store,
        ));
        for (log, head) in &world.cloud.truth.heads {
            wrongs.extend(read_facts(world, store, *log, *head));
        }
    }
    world.fail_all(Lane::Cloud, wrongs);
}

/// The coordinator read its store: a commit without a known end is there as a whole, or not at all.
pub fn settle_open(world: &mut World, found: &BTreeMap<AggregateId, u64>) {
    let open = std::mem::take(&mut world.cloud.truth.open);
    let version = |all: &BTreeMap<_, u64>, id| all.get(&id).copied().unwrap_or(0);
    let there = open.iter().any(|tx| {
        let known = version(&world.cloud.truth.versions, tx.aggregate);
        tx.expected == known && version(found, tx.aggregate) > known
    });
    if there {
        let applied = world
            .cloud
            .truth
            .commit(crate::tap::Ended::Done, open.clone());
        super::on_cloud_commit(world, &open);
        world.fail_all(Lane::Cloud, applied);
    }
}

fn read_facts(world: &World, store: &mut dyn Store, log: LogId, head: Head) -> Option<Wrong> {
    let truth = &world.cloud.truth;
    let holes = truth.holes.get(&log).map_or(&[][..], Vec::as_slice);
    let pruned = truth.pruned.get(&log).copied().unwrap_or(0);
    let mut at = Head::origin(log.node, log.incarnation, Direction::Up);
    let mut gap = None;
    let read = store.facts(log, 1, head.number, &mut |number, bytes| {
        // of two that were declared behind the same fact one was not kept
        let mut holes = holes.iter().filter(|hole| hole.known == at.number);
        if let Some(hole) = holes.find(|hole| hole.to.number + 1 == number) {
            at = hole.to;
        }
        // what went before it was at the end of a commit that is known
        if at.number + 1 < number && at.number < pruned && number <= pruned + 1 {
            at = end_of(world, log, number - 1).unwrap_or(at);
        }
        if number == at.number + 1 {
            at = at.then(bytes);
        } else {
            gap = Some(number);
        }
    });
    if read.is_ok() && (at == head || pruned >= head.number) && gap.is_none() {
        return None;
    }
    // of the Byzantine gateway there is no history that says what hash stands behind what was
    // pruned
    let unknown = pruned > 0 && world.is_liar_node(log.node);
    if read.is_ok() && unknown {
        return None;
    }
    let text = format!(
        "facts of {} up to {} were acknowledged, {} can be read{}",
        log.node,
        head.number,
        at.number,
        read.err()
            .map(|error| format!(": {error}"))
            .unwrap_or_default()
    );
    Some(wrong("acknowledged_is_durable", text))
}

/// The fact `number` of a log, on the branch that the coordinator holds.
fn end_of(world: &World, log: LogId, number: u64) -> Option<Head> {
    let hash = hash_of(branch_of(world, log)?, number)?;
    Some(Head { number, hash })
}

/// The branch of a log that the coordinator holds.
pub(super) fn branch_of(world: &World, log: LogId) -> Option<&EdgeTruth> {
    let head = world.cloud.truth.heads.get(&log)?;
    let mut mine = world.lives.iter().filter(|truth| truth.log == log);
    mine.find(|truth| hash_of(truth, head.number) == Some(head.hash))
}

/// The chain's hash at a fact of a history.
pub(super) fn hash_of(truth: &EdgeTruth, number: u64) -> Option<Hash> {
    Some(truth.facts.get((number as usize).checked_sub(1)?)?.hash)
}
