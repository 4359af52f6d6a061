//! The core's own small generator: splitmix64, seeded by the boot event, so that a replay draws the
//! same.

/// Generator state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..=top`.
    pub(crate) fn up_to(&mut self, top: u64) -> u64 {
        ((u128::from(self.next()) * (u128::from(top) + 1)) >> 64) as u64
    }
}
