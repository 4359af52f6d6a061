//! Randomness: one tree of generators grown from the seed. Each component owns a branch, so that a
//! component that draws once more does not disturb the others.

/// A small fast generator (xoshiro256++). The same seed gives the same numbers on every machine.
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
}

/// One step of splitmix64: spreads the bits of `x`.
#[must_use]
pub fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a of some bytes, continued from `hash`.
#[must_use]
pub fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl Rng {
    /// The generator of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut state = [0; 4];
        let mut x = seed;
        for word in &mut state {
            x = mix(x);
            *word = x;
        }
        Self { state }
    }

    /// A generator of its own for the component `label`, numbered `n`.
    #[must_use]
    pub fn fork(&self, label: &str, n: u64) -> Self {
        let hash = fnv(0xcbf2_9ce4_8422_2325, label.as_bytes());
        Self::new(mix(self.state[0] ^ mix(hash)) ^ mix(n))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let out = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let c2 = c ^ a;
        let d2 = d ^ b;
        self.state = [a ^ d2, b ^ c2, c2 ^ (b << 17), d2.rotate_left(45)];
        out
    }

    /// A number below `n` (0 for 0).
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// A number from `low` to `high` whose logarithm is even: small ones as likely as large ones.
    pub fn log_range(&mut self, low: u64, high: u64) -> u64 {
        let low_bits = low.max(1).ilog2();
        let high_bits = high.max(1).ilog2();
        let bits = self.range(u64::from(low_bits), u64::from(high_bits));
        let floor = 1_u64 << bits;
        (floor + self.below(floor)).clamp(low, high)
    }

    /// True `milli` times of a thousand.
    pub fn chance(&mut self, milli: u64) -> bool {
        self.below(1000) < milli
    }

    /// One of `items`.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len() as u64) as usize)
    }

    /// 16 random bytes.
    pub fn id(&mut self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.bits().to_le_bytes());
        out[8..].copy_from_slice(&self.bits().to_le_bytes());
        out
    }

    /// Puts `items` into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_of_the_tree_do_not_disturb_each_other() {
        let root = Rng::new(7);
        let mut net = root.fork("net", 0);
        let before: Vec<u64> = (0..4).map(|_| root.fork("disk", 0).bits()).collect();
        net.bits();
        let after: Vec<u64> = (0..4).map(|_| root.fork("disk", 0).bits()).collect();
        assert_eq!(before, after);
        assert_ne!(root.fork("disk", 0).bits(), root.fork("disk", 1).bits());
        assert_ne!(root.fork("disk", 0).bits(), root.fork("net", 0).bits());
    }

    #[test]
    fn ranges_keep_their_bounds() {
        let mut rng = Rng::new(1);
        for _ in 0..1000 {
            assert!((3..=5).contains(&rng.range(3, 5)));
            assert!((100..=600_000).contains(&rng.log_range(100, 600_000)));
        }
        assert_eq!(rng.below(0), 0);
    }
}
