//! A configuration file: TOML text in, a value for each known key with its place out.

use super::key::{Key, Kind, Value, count_pair, text_pair};
use crate::spec::mistake::{Pos, brief, nearest};
use crate::spec::units::Wrong;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Values of keys; none lets the program decide.
    pub(super) values: Vec<(&'static Key, Option<Value>, Pos)>,
    /// Mistakes: where, what, mend.
    pub(super) mistakes: Vec<(Pos, String, String)>,
}

/// Reads the text of a file.
pub(super) fn read(schema: &'static [Key], text: &str) -> Found {
    let mut found = Found::default();
    let (root, errors) = DeTable::parse_recoverable(text);
    let lines = Lines::of(text);
    for error in errors {
        let at = lines.place(&error.span().unwrap_or_default());
        let what = format!("this is no TOML: {}", error.message());
        let mend = "write KEY = VALUE, texts in quotes, sections as [NAME]";
        found.mistakes.push((at, what, mend.to_owned()));
    }
    let mut walk = Walk {
        schema,
        lines,
        found,
    };
    // what a broken line holds is not known: only the breaks are shown then
    if walk.found.mistakes.is_empty() {
        walk.table("", root.get_ref());
    }
    walk.found
}

/// Where the lines of a text begin, so that a thousand mistakes do not read it a thousand times.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        let ends = text.match_indices('\n');
        let starts = [0].into_iter().chain(ends.map(|(end, _)| end + 1));
        Self {
            text,
            starts: starts.collect(),
        }
    }

    fn place(&self, span: &Range<usize>) -> Pos {
        let line = self.starts.partition_point(|start| *start <= span.start);
        let start = self.starts[line - 1];
        let before = self.text.get(start..span.start).unwrap_or_default();
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Pos {
            line: narrow(line),
            column: narrow(before.chars().count() + 1),
        }
    }
}

struct Walk<'t> {
    schema: &'static [Key],
    lines: Lines<'t>,
    found: Found,
}

impl Walk<'_> {
    fn table(&mut self, within: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let at = self.lines.place(&name.span());
            let path = format!("{within}{}", name.get_ref());
            let section = format!("{path}.");
            if let Some(key) = self.schema.iter().find(|key| key.name == path) {
                match read_value(key, value.get_ref()) {
                    Ok(value) => self.found.values.push((key, value, at)),
                    Err((what, mend)) => {
                        let at = self.lines.place(&value.span());
                        let what = format!("{path}: {what}");
                        self.found.mistakes.push((at, what, mend));
                    }
                }
            } else if self.schema.iter().any(|key| key.name.starts_with(&section)) {
                match value.get_ref() {
                    DeValue::Table(table) => self.table(&section, table),
                    _ => self.found.mistakes.push((
                        at,
                        format!("{path} is a section, not a value"),
                        format!("write [{path}] and its keys below"),
                    )),
                }
            } else {
                let mend = self.suggest(within, name.get_ref());
                let what = format!("unknown key '{}'", brief(&path));
                self.found.mistakes.push((at, what, mend));
            }
        }
    }

    /// What an unknown key was probably meant to be: one of its section, or the same word
    /// elsewhere.
    fn suggest(&self, within: &str, name: &str) -> String {
        let here = self
            .schema
            .iter()
            .filter_map(|key| key.name.strip_prefix(within));
        let here: Vec<&str> = here.filter_map(|rest| rest.split('.').next()).collect();
        if let Some(meant) = nearest(name, here.iter().copied()) {
            return format!("did you mean '{meant}'?");
        }
        let last = |key: &'static Key| key.name.rsplit('.').next();
        let elsewhere = nearest(name, self.schema.iter().filter_map(last));
        let key = elsewhere.and_then(|word| self.schema.iter().find(|key| last(key) == Some(word)));
        match key {
            Some(key) => match key.name.rsplit_once('.') {
                Some((section, word)) => format!("did you mean '{word}' in section [{section}]?"),
                None => format!("did you mean '{}', before the first section?", key.name),
            },
            None => {
                let mut known = here;
                known.dedup();
                format!("known here: {}", known.join(", "))
            }
        }
    }
}

fn read_value(key: &Key, value: &DeValue<'_>) -> Result<Option<Value>, Wrong> {
    match (key.kind, value) {
        (Kind::List, DeValue::Array(items)) => items
            .iter()
            .map(|item| text(item).ok_or_else(|| other(key, item.get_ref())))
            .collect::<Result<_, _>>()
            .map(|items| Some(Value::List(items))),
        (Kind::Texts, DeValue::Table(table)) => table
            .iter()
            .map(|(name, item)| {
                let item = text(item).ok_or_else(|| other(key, item.get_ref()))?;
                text_pair(name.get_ref(), &item)
            })
            .collect::<Result<_, _>>()
            .map(|table| Some(Value::Texts(table))),
        (Kind::Counts, DeValue::Table(table)) => table
            .iter()
            .map(|(name, item)| match item.get_ref() {
                DeValue::Integer(number) => count_pair(name.get_ref(), number.as_str()),
                item => Err(other(key, item)),
            })
            .collect::<Result<_, _>>()
            .map(|table| Some(Value::Counts(table))),
        (Kind::Texts | Kind::Counts, value) => Err(other(key, value)),
        (_, DeValue::String(text)) => key.read(text),
        (Kind::Switch, DeValue::Boolean(on)) => Ok(Some(Value::Switch(*on))),
        // a bare number is read, too, to say that its unit is missing
        (
            Kind::Count(..) | Kind::Share(_) | Kind::Span(..) | Kind::Size(_),
            DeValue::Integer(number),
        ) if number.radix() == 10 => key.read(&number.as_str().replace('_', "")),
        (Kind::Share(_), DeValue::Float(number)) => key.read(number.as_str()),
        (_, value) => Err(other(key, value)),
    }
}

fn text(value: &Spanned<DeValue<'_>>) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) => Some(text.clone().into_owned()),
        _ => None,
    }
}

/// A value of another type than the key's.
fn other(key: &Key, value: &DeValue<'_>) -> Wrong {
    let what = format!("this is {} {}", article(value), value.type_str());
    (what, format!("write {}", key.kind.wanted()))
}

fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::Integer(_) | DeValue::Array(_) => "an",
        _ => "a",
    }
}
