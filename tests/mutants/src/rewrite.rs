//! A source with mutants behind the switch.

use crate::find::{Edit, Mutant, Piece};
use std::ops::Range;

/// A source with mutants in it.
#[derive(Debug, Default)]
pub struct Rewritten {
    /// The text.
    pub text: String,
    /// Where each mutant stands in it, by its number; one within another stands there twice.
    pub places: Vec<(Range<usize>, u32)>,
}

/// Puts mutants into a source. Each comes with its number; `switch` is the path of the function
/// that says whether a number is switched on.
#[must_use]
pub fn rewrite(source: &str, mutants: &[(u32, &Mutant)], switch: &str) -> Rewritten {
    let mut inside = mutants.to_vec();
    // the outer one first; where both begin at one place, what is inserted comes before it
    inside.sort_by_key(|(number, one)| {
        let site = one.edit.site();
        (site.start, !site.is_empty(), usize::MAX - site.end, *number)
    });
    let mut writer = Writer {
        source,
        switch,
        out: Rewritten::default(),
    };
    writer.range(0..source.len(), &inside);
    writer.out
}

struct Writer<'a> {
    source: &'a str,
    switch: &'a str,
    out: Rewritten,
}

impl Writer<'_> {
    /// Writes a part of the source with those mutants that lie within it.
    fn range(&mut self, range: Range<usize>, mutants: &[(u32, &Mutant)]) {
        let mut at = range.start;
        for (index, (number, mutant)) in mutants.iter().enumerate() {
            let site = mutant.edit.site();
            if site.start < at || site.end > range.end {
                continue;
            }
            self.out.text.push_str(&self.source[at..site.start]);
            let begin = self.out.text.len();
            self.mutant(*number, &mutant.edit, &mutants[index + 1..]);
            self.out.places.push((begin..self.out.text.len(), *number));
            at = site.end;
        }
        self.out.text.push_str(&self.source[at..range.end]);
    }

    fn mutant(&mut self, number: u32, edit: &Edit, rest: &[(u32, &Mutant)]) {
        let on = format!("{}({number})", self.switch);
        let write = |writer: &mut Self, text: &str| writer.out.text.push_str(text);
        match edit {
            Edit::Instead(site, pieces) => {
                write(self, &format!("(if {on} {{ "));
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => write(self, text),
                        Piece::Source(range) => self.range(range.clone(), rest),
                    }
                }
                write(self, " } else { ");
                self.range(site.clone(), rest);
                write(self, " })");
            }
            Edit::Without(site) => {
                write(self, &format!("if !{on} {{ "));
                self.range(site.clone(), rest);
                write(self, " }");
            }
            Edit::Return(_, value) => write(self, &format!(" if {on} {{ return {value}; }}")),
            Edit::NoMatch(_) => write(self, &format!(" if !{on}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::find::in_file;

    fn numbered(source: &str) -> Vec<Mutant> {
        in_file("a.rs", source).expect("parses").mutants
    }

    #[test]
    fn a_mutant_within_another_is_in_both_versions() {
        let source = "fn f(a: u8) -> i64 { g(a < 3); 7 }";
        let all = numbered(source);
        let wanted = |one: &&Mutant| ["a <= 3", "4", "nothing"].contains(&one.id.after.as_str());
        let chosen: Vec<&Mutant> = all.iter().filter(wanted).collect();
        let pairs: Vec<(u32, &Mutant)> = (0..).zip(chosen).collect();
        let text = rewrite(source, &pairs, "on").text;
        assert_eq!(
            text,
            "fn f(a: u8) -> i64 { if !on(0) { g((if on(1) { a <= (if on(2) { 4 } else { 3 }) } \
             else { a < (if on(2) { 4 } else { 3 }) })); } 7 }"
        );
    }

    #[test]
    fn two_mutants_of_one_place_follow_each_other() {
        let source = "fn f(a: u8) -> Never { a < b }";
        let all = numbered(source);
        let pairs: Vec<(u32, &Mutant)> = (0..).zip(&all).skip(1).collect();
        assert_eq!(pairs.len(), 2, "{all:?}");
        let rewritten = rewrite(source, &pairs, "on");
        assert_eq!(
            rewritten.text,
            "fn f(a: u8) -> Never { (if on(1) { a <= b } else { (if on(2) { a >= b } else { a < b \
             }) }) }"
        );
        syn::parse_file(&rewritten.text).expect("is still Rust");
    }

    #[test]
    fn functions_return_and_arms_fall_through() {
        let source = "fn f(a: u8) -> bool { match a { 1 => g(), _ => h() } }";
        let all = numbered(source);
        let pairs: Vec<(u32, &Mutant)> = (0..).zip(&all).collect();
        let rewritten = rewrite(source, &pairs, "on");
        assert_eq!(
            rewritten.text,
            "fn f(a: u8) -> bool { if on(0) { return true; } if on(1) { return false; } match a { \
             1 if !on(2) => g(), _ => h() } }"
        );
        for (place, number) in rewritten.places {
            assert!(rewritten.text[place].contains(&format!("on({number})")));
        }
    }
}
