//! Which mutants are judged: a draw that one seed decides, with one of each file at least.
//!
//! A mutant's place in the order follows from the seed and its name, so a change of the source
//! changes the draw by little.

use crate::find::Id;
use std::collections::BTreeSet;

/// Where a mutant stands in the order of a seed.
fn place(seed: u64, id: &Id) -> [u8; 32] {
    *blake3::hash(format!("{seed} {id}").as_bytes()).as_bytes()
}

/// Draws `count` of the mutants, more where there are more files: their indices, those that come
/// first by file before the others.
#[must_use]
pub fn draw(ids: &[&Id], seed: u64, count: usize) -> Vec<usize> {
    let mut order: Vec<([u8; 32], usize)> = Vec::with_capacity(ids.len());
    order.extend(
        ids.iter()
            .enumerate()
            .map(|(index, id)| (place(seed, id), index)),
    );
    order.sort_unstable();
    let mut files = BTreeSet::new();
    let (mut drawn, mut others) = (Vec::new(), Vec::new());
    for (_, index) in order {
        match files.insert(&ids[index].file) {
            true => drawn.push(index),
            false => others.push(index),
        }
    }
    let room = count.saturating_sub(drawn.len());
    drawn.extend(others.into_iter().take(room));
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_has_one_and_a_larger_draw_holds_the_smaller() {
        let ids: Vec<Id> = (0..40)
            .map(|n| Id::of("a", n))
            .chain([Id::of("b", 0), Id::of("c", 0), Id::of("c", 1)])
            .collect();
        let ids: Vec<&Id> = ids.iter().collect();
        let small = draw(&ids, 1, 10);
        assert_eq!(small.len(), 10);
        for file in ["a", "b", "c"] {
            assert!(small.iter().any(|one| ids[*one].file == file), "{file}");
        }
        assert!(draw(&ids, 1, 20).starts_with(&small));
        assert_ne!(draw(&ids, 2, 10), small);
        assert_eq!(draw(&ids, 1, 100).len(), ids.len());
        assert_eq!(draw(&ids, 1, 0).len(), 3);
        // one mutant less leaves the others where they were
        let gone: Vec<&Id> = ids
            .iter()
            .filter(|id| **id != ids[small[5]])
            .copied()
            .collect();
        let names = |ids: &[&Id], drawn: &[usize]| -> BTreeSet<String> {
            drawn.iter().map(|one| ids[*one].to_string()).collect()
        };
        let (before, after) = (names(&ids, &small), names(&gone, &draw(&gone, 1, 10)));
        assert_eq!(before.difference(&after).count(), 1);
    }
}
