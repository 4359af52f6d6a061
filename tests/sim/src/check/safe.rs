//! What backups hold, and what gateways remove because of it.

use crate::fault::Kind;
use crate::queue::MIN;
use crate::world::World;
use shared::wire::Down;

/// What it means.
pub const DEFINITION: &str = "A gateway removes no fact that was not acknowledged to it; where backups are made none \
    that it did not keep for its window, and none that is not in a finished one, unless it is short of room; the \
    coordinator calls nothing safe that is in no finished backup. A coordinator that begins with a restored backup gets \
    every fact behind it again, but for those that a newer finished backup held or that went for want of room, and \
    those behind them; no other is declared to be gone.";

/// An agent's commit lets facts up to `upto` go.
pub fn on_prune(world: &mut World, m: usize, upto: u64) {
    let machine = &world.machines[m];
    let truth = &world.lives[machine.life];
    let ends = |number: &u64| truth.is_end(*number);
    let last = (truth.pruned..=upto.min(truth.facts.len() as u64))
        .rev()
        .find(ends);
    let Some(last) = last.filter(|last| *last > truth.pruned) else {
        return;
    };
    let log = truth.log;
    let window = world.plan.fact_window().nanos();
    let age = world.t - truth.facts[last as usize - 1].at;
    let held = world.cloud.backups.hold.get(&log).copied().unwrap_or(0);
    let scarce = machine.full || world.t < machine.full_until + MIN;
    let backups = world.plan.backups.is_some();
    let mut found = None;
    if backups && age + MIN < window {
        found = Some(format!("gw-{} removes fact {last} after {age} ns", m + 1));
    }
    if last > truth.acked {
        let text = format!(
            "gw-{} removes fact {last}, which nobody acknowledged",
            m + 1
        );
        found = Some(text);
    }
    // a branch of a log may go by what another branch was told
    if backups && last > held && !scarce && !truth.branched {
        let text = format!(
            "gw-{} removes facts up to {last}, backups hold {held}",
            m + 1
        );
        found = Some(text);
    }
    world.lives[machine.life].pruned = last;
    if let Some(text) = found {
        world.fail("safe", text);
    } else if backups && last <= held {
        world.happened(Kind::SafePruned);
    }
}

/// A message reaches the agent of `m`.
pub fn on_hear_down(world: &mut World, m: usize, message: &Down) {
    let number = match message {
        Down::Ack(ack) => ack.head.number,
        Down::Welcome(welcome) => welcome.facts.head.number,
        _ => return,
    };
    let life = world.machines[m].life;
    if let Some(truth) = world.lives.get_mut(life) {
        truth.acked = truth.acked.max(number);
    }
}

/// The coordinator sends a message.
pub fn on_send_down(world: &mut World, conn: u64, message: &Down) {
    let safe = match message {
        Down::Ack(ack) => ack.safe,
        Down::Welcome(welcome) => welcome.facts.safe,
        _ => return,
    };
    let Some(log) = world.conns.get(&conn).map(|one| one.log) else {
        return;
    };
    let held = world.cloud.backups.hold.get(&log).copied().unwrap_or(0);
    if safe > held {
        let text = format!("facts up to {safe} are called safe, backups hold {held}");
        world.fail("safe", text);
    }
}

/// The coordinator recorded facts behind holes: they are those that a gateway had to make.
pub fn look_at_holes(world: &mut World) {
    for (log, hole) in std::mem::take(&mut world.cloud.truth.new_holes) {
        if world.is_liar_node(log.node) {
            // its holes are lies, and are its own
            continue;
        }
        world.happened(Kind::HoleDeclared);
        let mine = world.lives.iter().filter(|truth| truth.log == log);
        let pruned = mine.map(|truth| truth.pruned).max().unwrap_or(0);
        // a log goes on with the reset, so what is left behind the hole is not sent either
        if pruned <= hole.known {
            let (from, to) = (hole.known + 1, hole.to.number);
            let text = format!("facts {from}..={to} are declared gone, up to {pruned} are");
            world.fail("safe", text);
        }
    }
}
