//! Promise 7, telemetry: bounded, and nothing lost without a word.

use crate::measure::SCARCE;
use crate::queue::{MIN, Time};
use crate::world::World;
use shared::telemetry::{At, Block, RangeSet, Receipt};
use shared::wire::LogId;
use std::collections::BTreeMap;

/// What it means.
pub const DEFINITION: &str = "Every sample of a gateway is in its ring, single or in a sum with the true minimum, maximum \
    and count, or in a gap that it declares, with the first sample behind a start for what that start did not find; at rest the same holds at the coordinator for all that is older than \
    fifteen minutes. What the coordinator acknowledged it knows after every crash. The ring gives its room back \
    before a commit is refused for want of room.";

/// Samples so young may be under way.
const YOUNG: Time = 15 * MIN;

/// Whether the history of `m` is one line: a copied or put-back disk has several.
fn is_plain(world: &World, m: usize) -> bool {
    let machine = &world.machines[m];
    machine.life != usize::MAX && machine.copy_of.is_none() && !world.lives[machine.life].branched
}

/// Every sample is in the ring or in a gap.
pub fn look(world: &mut World) {
    for m in 0..world.machines.len() {
        let machine = &world.machines[m];
        let Some(ring) = machine.gauge.ring.as_ref().filter(|_| is_plain(world, m)) else {
            continue;
        };
        if !machine.gauge.measures {
            continue;
        }
        let gaps = ring.gaps().iter().map(|gap| gap.range);
        let line = RangeSet::of(ring.held().ranges().iter().copied().chain(gaps));
        let samples = world.measured.samples.get(&machine.log());
        let lost = samples
            .into_iter()
            .flatten()
            .find(|(at, _)| !line.contains(**at));
        let mut wrongs: Vec<String> = lost
            .map(|(at, _)| format!("the sample at {at} is lost"))
            .into_iter()
            .collect();
        ring.visit(|block| {
            wrongs.extend(samples.and_then(|samples| invented(block, samples)));
            wrongs.is_empty()
        });
        if let Some(wrong) = wrongs.first() {
            let text = format!("gw-{}: {wrong}", m + 1);
            world.fail("measured", text);
        }
    }
}

/// What a block says and no sample does.
fn invented(block: &Block, samples: &BTreeMap<At, i64>) -> Option<String> {
    let mut before = At {
        boot: block.boot,
        ms: block.after,
    };
    for point in &block.points {
        let at = At {
            boot: block.boot,
            ms: point.ms,
        };
        let true_ones = || {
            let behind = (
                std::ops::Bound::Excluded(before),
                std::ops::Bound::Included(at),
            );
            samples.range(behind).map(|(_, value)| *value)
        };
        let cell = point.cells.first().copied().unwrap_or_default();
        let (least, most) = (true_ones().min(), true_ones().max());
        let sum: i64 = true_ones().sum();
        let same = (Some(cell.min), Some(cell.max), cell.sum) == (least, most, sum);
        if !same || cell.count as usize != true_ones().count() {
            return Some(format!(
                "the point at {at} says {cell:?}, not {sum} of {least:?} to {most:?}"
            ));
        }
        before = at;
    }
    None
}

/// The coordinator acknowledges: it must still know what it acknowledged before.
pub fn on_receipt(world: &mut World, log: LogId, receipt: &Receipt) {
    let known = RangeSet::of(receipt.ranges.iter().copied());
    let before = world.measured.receipted.insert(log, known.clone());
    let before = before.unwrap_or_default();
    let lost = before.ranges().iter().find(|range| !known.covers(range));
    if let Some(range) = lost {
        let text = format!("{range} of {} was acknowledged and is not known", log.node);
        world.fail("measured", text);
    }
}

/// A commit of `m` found no room.
pub fn on_refused(world: &mut World, m: usize) {
    let bytes = world.machines[m].gauge.media.bytes();
    if world.machines[m].full && world.machines[m].gauge.ring.is_some() && bytes > 2 * SCARCE {
        let text = format!(
            "gw-{} has no room for a commit beside {bytes} bytes of telemetry",
            m + 1
        );
        world.fail("measured", text);
    }
}

/// At rest the coordinator has every sample that is not young, or knows why not.
pub fn at_rest(world: &mut World) {
    for m in 0..world.machines.len() {
        let machine = &world.machines[m];
        if machine.destroyed || machine.gauge.ring.is_none() || !is_plain(world, m) {
            continue;
        }
        let log = machine.log();
        let old = machine.clocks.now(world.t.saturating_sub(YOUNG)).mono.0 / 1_000_000;
        let boot = machine
            .agent
            .as_ref()
            .map_or(0, |agent| agent.shell.agent().state().boots);
        let young = At { boot, ms: old };
        let samples = world
            .measured
            .samples
            .get(&log)
            .cloned()
            .unwrap_or_default();
        let Some(book) = world.book_of(log.node) else {
            continue;
        };
        let known = RangeSet::of(book.receipt(log.incarnation).ranges);
        let missing = samples
            .keys()
            .find(|at| **at < young && !known.contains(**at));
        let mut wrongs: Vec<String> = missing
            .map(|at| format!("the coordinator does not know of the sample at {at}"))
            .into_iter()
            .collect();
        let read = book.visit(|who, block| {
            if who == log.incarnation {
                wrongs.extend(invented(block, &samples));
            }
        });
        wrongs.extend(read.err().map(|error| error.to_string()));
        if let Some(wrong) = wrongs.first() {
            let text = format!("gw-{}: {wrong}", m + 1);
            world.fail("measured", text);
        }
    }
}
