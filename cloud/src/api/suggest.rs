//! "Did you mean": the known name nearest to a mistyped one.

/// The nearest of `known` that is near enough to have been meant.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = word.chars().take(100).count().div_ceil(3);
    known
        .into_iter()
        .map(|name| (distance(word, name), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name)
}

/// Insertions, deletions and changes that lead from one to the other (Levenshtein); no more than
/// 100 letters of `word` and 200 of `name` are looked at.
pub(super) fn distance(word: &str, name: &str) -> usize {
    let word: Vec<char> = word.chars().take(100).collect();
    let mut row: Vec<usize> = (0..=word.len()).collect();
    for (above, c) in name.chars().take(200).enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (column, w) in word.iter().enumerate() {
            let changed = diagonal + usize::from(*w != c);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[word.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_names_are_suggested() {
        let known = ["clean", "extract", "report"];
        assert_eq!(nearest("claen", known), Some("clean"));
        assert_eq!(nearest("clan", known), Some("clean"));
        assert_eq!(nearest("extrakt", known), Some("extract"));
        assert_eq!(nearest("zebra", known), None);
        assert_eq!(nearest("", known), None);
    }
}
