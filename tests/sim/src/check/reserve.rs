//! What a gateway does on a full disk.

use crate::disk::SimDisk;
use crate::fault::Kind;
use crate::queue::MIN;
use crate::world::World;
use edge_store::Reserve;
use shared::fact::Body;

/// What it means.
pub const DEFINITION: &str = "A gateway without room gives back what costs nothing (telemetry, the reserve) before \
    anything that it decided is refused; as long as others leave it the room of its reserve, no commit is refused and \
    its store opens. No fact is gone but those that its core let go. It starts no task without room. With room it \
    has its reserve again within two minutes.";

/// The reserve may be missing for so long while there is room.
const PATIENCE: u64 = 2 * MIN;

fn disk(world: &World, m: usize) -> Option<&SimDisk> {
    world.machines[m].medium.disk()
}

/// The disk of `m` refused something in its last step, or at its start; its reserve was given back,
/// or not.
pub fn on_full(world: &mut World, m: usize, given_back: bool) {
    let machine = &world.machines[m];
    let dead = machine
        .agent
        .as_ref()
        .is_some_and(|agent| agent.handle.lock().dead);
    if !machine.link.whole() {
        world.happened(Kind::FullOffline);
    }
    super::measured::on_refused(world, m);
    if !given_back && !dead && disk(world, m).is_some_and(Reserve::is_held) {
        let text = format!("gw-{} has no room, and keeps its reserve", m + 1);
        world.fail("reserve", text);
    }
}

/// A commit of `m` was refused, or its store could not be opened, for want of room.
pub fn on_refused(world: &mut World, m: usize, what: &str) {
    if disk(world, m).is_some_and(SimDisk::is_spared) {
        let text = format!("gw-{}: {what}, with the room of its reserve", m + 1);
        world.fail("reserve", text);
    }
}

/// The store of `m` was read, and its first fact is `first`.
pub fn on_loaded(world: &mut World, m: usize, first: u64) {
    let truth = &world.lives[world.machines[m].life];
    let gone = first.saturating_sub(1);
    if gone <= truth.pruned {
        return;
    }
    if gone <= truth.maybe_pruned {
        super::safe::on_prune(world, m, gone);
        return;
    }
    let text = format!(
        "facts up to {gone} are gone at gw-{}, it let go those up to {}",
        m + 1,
        truth.pruned
    );
    world.fail("reserve", text);
}

/// A commit of an agent became durable; its facts follow position `before`.
pub fn on_edge_commit(world: &mut World, m: usize, before: usize) {
    if !world.machines[m].full {
        return;
    }
    let fresh = &world.lives[world.machines[m].life].facts[before..];
    let started = fresh.iter().find_map(|row| match &row.fact.as_ref()?.body {
        Body::Started { attempt } => Some(*attempt),
        _ => None,
    });
    if let Some(attempt) = started {
        let text = format!("gw-{} starts {attempt:?} without room", m + 1);
        world.fail("reserve", text);
    }
}

/// Once a minute.
pub fn look(world: &mut World) {
    for m in 0..world.machines.len() {
        let machine = &world.machines[m];
        let awake = machine.agent.is_some() && machine.frozen_until <= world.t;
        let since = machine.full_until.max(machine.since) + PATIENCE;
        let has_room = !machine.full && since < world.t;
        let missing = |disk: &SimDisk| !disk.is_limited() && !disk.is_held();
        if awake && has_room && disk(world, m).is_some_and(missing) {
            let text = format!("gw-{} has room and no reserve", m + 1);
            world.fail("reserve", text);
        }
    }
}
