//! How long to wait before the next dial: exponential with full jitter, so that a thousand gateways
//! that lost the coordinator at one moment do not come back at one moment.

use shared::time::Span;

/// Upper end of the first pause.
pub const FIRST: Span = Span(200);
/// Upper end of every later pause.
pub const LONGEST: Span = Span(30_000);

/// The pause after `failures` failed dials in a row (at least one), for a `random` number from the
/// full range of u64: evenly between zero and 0.2 s doubled for each failure, at most 30 s.
#[must_use]
pub fn delay(failures: u32, random: u64) -> Span {
    let doublings = failures.saturating_sub(1).min(16);
    let bound = (FIRST.0 << doublings).min(LONGEST.0);
    Span(((u128::from(random) * u128::from(bound + 1)) >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_fill_their_whole_range() {
        let longest: Vec<u64> = (0..11)
            .map(|failures| delay(failures, u64::MAX).0)
            .collect();
        let wanted = [
            200, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000,
        ];
        assert_eq!(longest, wanted);
        assert_eq!(delay(u32::MAX, u64::MAX), LONGEST);
        assert_eq!(delay(5, 0), Span(0));
        assert_eq!(delay(5, u64::MAX / 2), Span(1600));
    }
}
