//! What a direction of a lane does to packets.

use std::time::{Duration, Instant};

/// How much a direction with a rate holds back at most.
pub const QUEUE: Duration = Duration::from_millis(500);

/// What a direction of a lane does to packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    /// Packets that are lost, in thousandths.
    pub loss_milli: u32,
    /// Packets that arrive twice, in thousandths.
    pub double_milli: u32,
    /// How long each packet takes.
    pub delay: Duration,
    /// How much longer it may take: packets overtake each other.
    pub jitter: Duration,
    /// Bytes of the largest packet that passes.
    pub largest: usize,
    /// Bytes a second that pass. What has to wait for longer than [`QUEUE`] is dropped.
    pub rate: Option<u32>,
}

impl Conditions {
    /// Everything passes at once.
    pub const OPEN: Self = Self {
        loss_milli: 0,
        double_milli: 0,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        largest: usize::MAX,
        rate: None,
    };
    /// Nothing passes.
    pub const CUT: Self = Self {
        loss_milli: 1000,
        ..Self::OPEN
    };

    /// What becomes of one packet of so many bytes: the delay of each copy of it that arrives.
    pub(crate) fn copies(&self, rng: &mut Rng, bytes: usize) -> [Option<Duration>; 2] {
        if bytes > self.largest || rng.below(1000) < u64::from(self.loss_milli) {
            return [None, None];
        }
        let doubled = rng.below(1000) < u64::from(self.double_milli);
        [Some(self.late(rng)), doubled.then(|| self.late(rng))]
    }

    /// How long a packet of so many bytes waits behind those before it, where a rate is set; `None`
    /// if the queue has no room for it. `free` is when the last of them has passed.
    pub(crate) fn turn(&self, free: &mut Instant, now: Instant, bytes: usize) -> Option<Duration> {
        let Some(rate) = self.rate else {
            return Some(Duration::ZERO);
        };
        let begin = (*free).max(now);
        if begin - now > QUEUE {
            return None;
        }
        let nanos = bytes as u64 * 1_000_000_000 / u64::from(rate.max(1));
        let takes = Duration::from_nanos(nanos);
        *free = begin + takes;
        Some(*free - now)
    }

    fn late(&self, rng: &mut Rng) -> Duration {
        let most = u64::try_from(self.jitter.as_micros()).unwrap_or(u64::MAX);
        self.delay + Duration::from_micros(if most == 0 { 0 } else { rng.below(most) })
    }
}

/// SplitMix64: small, seeded, good enough to lose packets.
#[derive(Debug)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrive(conditions: Conditions) -> usize {
        let mut rng = Rng(7);
        (0..1000)
            .map(|bytes| conditions.copies(&mut rng, bytes).iter().flatten().count())
            .sum()
    }

    #[test]
    fn packets_are_lost_and_doubled_as_often_as_asked() {
        assert_eq!(arrive(Conditions::OPEN), 1000);
        assert_eq!(arrive(Conditions::CUT), 0);
        let half = arrive(Conditions {
            loss_milli: 500,
            ..Conditions::OPEN
        });
        assert!((400..600).contains(&half), "{half}");
        let more = arrive(Conditions {
            double_milli: 500,
            ..Conditions::OPEN
        });
        assert!((1400..1600).contains(&more), "{more}");
    }

    #[test]
    fn a_rate_lets_packets_wait_in_turn_and_drops_what_waits_too_long() {
        let slow = Conditions {
            rate: Some(10_000),
            ..Conditions::OPEN
        };
        let now = Instant::now();
        let mut free = now;
        let turns: Vec<_> = (0..7).map(|_| slow.turn(&mut free, now, 1000)).collect();
        let ms = |n| Some(Duration::from_millis(n));
        assert_eq!(turns[..2], [ms(100), ms(200)]);
        assert_eq!(turns[5..], [ms(600), None]);
        let later = now + Duration::from_secs(2);
        assert_eq!(slow.turn(&mut free, later, 1000), ms(100));
        assert_eq!(Conditions::OPEN.turn(&mut free, now, 1000), ms(0));
    }

    #[test]
    fn large_packets_are_lost_where_small_ones_pass() {
        let narrow = Conditions {
            largest: 599,
            ..Conditions::OPEN
        };
        assert_eq!(arrive(narrow), 600);
    }
}
