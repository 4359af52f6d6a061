//! Mistakes of a specification: where, what, and the mend. All of a file are collected before one
//! is shown.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Mistakes that are kept of one file; the others are counted.
pub const SHOWN: usize = 1000;

/// A place in a file, both numbers from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Pos {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl Pos {
    /// The beginning of a file.
    pub(crate) const START: Self = Self { line: 1, column: 1 };
}

/// One mistake.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mistake {
    /// Name of the file as it was given; for settings also a flag or an environment variable.
    pub file: String,
    /// From 1; 0 where there are no lines.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub mend: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            column,
            what,
            mend,
        } = self;
        // a flag and an environment variable have no lines
        match line {
            0 => write!(f, "{file}: {what}\n  mend: {mend}"),
            _ => write!(f, "{file}:{line}:{column}: {what}\n  mend: {mend}"),
        }
    }
}

/// All mistakes of a file, in the order of their places; never empty.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mistakes {
    /// At most [`SHOWN`].
    pub mistakes: Vec<Mistake>,
    /// How many more there are.
    pub more: usize,
}

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, mistake) in self.mistakes.iter().enumerate() {
            let gap = if n == 0 { "" } else { "\n" };
            write!(f, "{gap}{mistake}")?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

/// Where mistakes are collected.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    found: Vec<(Pos, String, String)>,
    more: usize,
}

impl Sink {
    /// Notes a mistake.
    pub(crate) fn add(&mut self, at: Pos, what: impl Into<String>, mend: impl Into<String>) {
        if self.found.len() < SHOWN {
            self.found.push((at, what.into(), mend.into()));
        } else {
            self.more += 1;
        }
    }

    /// How many were noted.
    pub(crate) fn count(&self) -> usize {
        self.found.len() + self.more
    }

    /// `value`, or all that was noted.
    pub(crate) fn settle<T>(mut self, file: &str, value: T) -> Result<T, Mistakes> {
        if self.found.is_empty() {
            return Ok(value);
        }
        self.found.sort();
        self.found.dedup();
        let mistakes = self.found.into_iter().map(|(at, what, mend)| Mistake {
            file: file.to_owned(),
            line: at.line,
            column: at.column,
            what,
            mend,
        });
        Err(Mistakes {
            mistakes: mistakes.collect(),
            more: self.more,
        })
    }
}

/// The one of `known` that `word` was probably meant to be.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 64 {
        return None;
    }
    let allowed = 1 + word.chars().count() / 4;
    known
        .into_iter()
        .filter(|k| k.len().abs_diff(word.len()) <= allowed + 2)
        .map(|k| (distance(word, k), k))
        .filter(|(d, _)| *d <= allowed)
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
}

/// How many letters must be changed, added, removed or swapped with their neighbour to make `b` of
/// `a`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let differs = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            best = best.min(rows[i - 1][j - 1] + differs);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

/// The mend for a word that is not among `known`.
pub(crate) fn did_you_mean<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
    otherwise: &str,
) -> String {
    nearest(word, known).map_or_else(|| otherwise.to_owned(), |k| format!("did you mean '{k}'?"))
}

/// `text`, shortened and on one line, for messages.
pub(crate) fn brief(text: &str) -> String {
    let mut short: String = text
        .chars()
        .take(60)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_a_far_one_is_not() {
        let known = ["timeout", "deadline", "needs"];
        assert_eq!(nearest("time_out", known), Some("timeout"));
        assert_eq!(nearest("tiemout", known), Some("timeout"));
        assert_eq!(nearest("need", known), Some("needs"));
        assert_eq!(nearest("colour", known), None);
    }

    #[test]
    fn mistakes_beyond_the_bound_are_counted() {
        let mut sink = Sink::default();
        for n in 0..1500 {
            sink.add(Pos { line: n, column: 1 }, "w", "m");
        }
        let mistakes = sink.settle("f", ()).unwrap_err();
        assert_eq!((mistakes.mistakes.len(), mistakes.more), (1000, 500));
        assert!(mistakes.to_string().ends_with("and 500 more"));
    }
}
