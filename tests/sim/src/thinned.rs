//! What is left of a gateway's telemetry when its link was down for long: the gateway's own ring,
//! fed as a gateway feeds it.

use crate::queue::{MS, Time};
use crate::rng::mix;
use edge_core::telemetry::{Limits, MemoryMedia, Ring};
use shared::ids::{BootId, Incarnation};
use shared::telemetry::{Key, Metric, Sample};
use shared::time::Unix;

/// Milliseconds from one sample to the next.
pub const EVERY_MS: u64 = 3000;
/// Series of a sample: what a gateway with a few disks and interfaces has.
pub const SERIES: u64 = 30;

/// What the ring keeps of an outage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// Samples that were taken.
    pub samples: u64,
    /// Those that are kept as they are.
    pub single: u64,
    /// Those that are kept in sums: mean, least, most and number.
    pub thinned: u64,
    /// Bytes on the gateway's disk.
    pub bytes: u64,
}

impl Kept {
    /// Samples of which nothing but the gap is left.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.samples - self.single - self.thinned
    }
}

/// An outage that lasts so long, where the ring may take `quota` bytes. What was acknowledged
/// before takes no room: it goes first.
#[must_use]
pub fn outage(lasts: Time, quota: u64) -> Kept {
    let limits = Limits {
        quota,
        ..Limits::default()
    };
    let media = MemoryMedia::default();
    // an empty ring of files in memory can be opened
    let Ok(mut ring) = Ring::open(media, Incarnation::default(), limits) else {
        return Kept::default();
    };
    let samples = lasts / MS / EVERY_MS;
    for n in 1..=samples {
        ring.record(1, BootId::default(), EVERY_MS, &sample(n));
    }
    ring.save();
    let (mut single, mut thinned) = (0, 0);
    ring.visit(|block| {
        let first = |point: &shared::telemetry::Point| point.cells.first().map(|cell| cell.count);
        let counts = block.points.iter().filter_map(first);
        let sum: u64 = counts.map(u64::from).sum();
        *if block.level == 0 {
            &mut single
        } else {
            &mut thinned
        } += sum;
        true
    });
    Kept {
        samples,
        single,
        thinned,
        bytes: ring.status().bytes,
    }
}

/// A third of the values hardly moves, the others do: so a day takes about as much as on a gateway.
fn sample(n: u64) -> Sample {
    let value = |series: u64| match series % 3 {
        0 => n / 100 % 50,
        _ => mix(n ^ series << 32) % 1000,
    };
    let ms = n * EVERY_MS;
    let series = |one: u64| {
        let key = Key::new(Metric::Load, &one.to_string());
        (key, value(one).cast_signed())
    };
    Sample {
        ms,
        wall: Unix(crate::machine::EPOCH_MS + ms.cast_signed()),
        fact: n / 100,
        values: (0..SERIES).map(series).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::HOUR;

    #[test]
    fn a_short_outage_thins_nothing_and_a_small_ring_thins_much() {
        let whole = outage(10 * HOUR, 8 << 20);
        assert_eq!((whole.samples, whole.single), (12_000, 12_000));
        assert_eq!((whole.thinned, whole.dropped()), (0, 0));
        assert!(whole.bytes > 0 && whole.bytes < 8 << 20, "{whole:?}");

        let small = outage(10 * HOUR, 128 << 10);
        assert!(small.thinned > 0 && small.single < 12_000, "{small:?}");
        assert!(small.bytes <= 160 << 10, "{small:?}");
        let longer = outage(40 * HOUR, 32 << 10);
        assert!(longer.dropped() > 0, "{longer:?}");
    }
}
