//! Medians over alternating rounds.

/// The median; of an even number the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mid = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[mid],
        _ => f64::midpoint(sorted[mid - 1], sorted[mid]),
    }
}

/// Medians of (ours, reference, ours / reference) over rounds of (ours, reference).
pub(crate) fn compare(rounds: &[(f64, f64)]) -> (f64, f64, f64) {
    let of = |pick: fn(&(f64, f64)) -> f64| median(&rounds.iter().map(pick).collect::<Vec<_>>());
    (
        of(|round| round.0),
        of(|round| round.1),
        of(|round| round.0 / round.1),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_the_median_of_the_rounds_ratios() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0]) - 2.5).abs() < f64::EPSILON);
        let (ours, reference, ratio) = compare(&[(2.0, 1.0), (6.0, 2.0), (40.0, 10.0)]);
        assert_eq!((ours, reference, ratio), (6.0, 2.0, 3.0));
    }
}
