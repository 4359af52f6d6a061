//! A key of a configuration: its name, what its values are, its default, and how a text becomes a
//! value.

use crate::spec::mistake::{brief, did_you_mean};
use crate::spec::units::{self, Wrong};
use crate::time::Span;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// With its section: `link.idle_timeout`.
    pub name: &'static str,
    /// What its values are.
    pub kind: Kind,
    /// Its default, in the grammar of the environment.
    pub default: &'static str,
    /// The word for "the program decides", if there is one.
    pub auto: Option<&'static str>,
    /// An environment variable besides the one that follows from its name.
    pub variable: Option<&'static str>,
}

impl Key {
    /// A key without a word for "the program decides".
    #[must_use]
    pub const fn new(name: &'static str, kind: Kind, default: &'static str) -> Self {
        Self {
            name,
            kind,
            default,
            auto: None,
            variable: None,
        }
    }

    /// The same key whose value `word`, its default, lets the program decide.
    #[must_use]
    pub const fn or_auto(mut self, word: &'static str) -> Self {
        self.default = word;
        self.auto = Some(word);
        self
    }

    /// The same key which the environment variable `name` sets, too.
    #[must_use]
    pub const fn also(mut self, name: &'static str) -> Self {
        self.variable = Some(name);
        self
    }

    /// Reads a value as it is written in the environment or after a flag; none if the program
    /// decides.
    pub(super) fn read(&self, text: &str) -> Result<Option<Value>, Wrong> {
        if self.auto == Some(text) {
            return Ok(None);
        }
        let read = self.kind.read(text);
        let extend = |(what, mend): Wrong| match self.auto {
            Some(word) if !word.is_empty() => (what, format!("{mend}; or \"{word}\"")),
            _ => (what, mend),
        };
        read.map(Some).map_err(extend)
    }
}

/// What values a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// `true` or `false`.
    Switch,
    /// A whole number between these.
    Count(u64, u64),
    /// A duration between these, in milliseconds.
    Span(u64, u64),
    /// Bytes, at least so many.
    Size(u64),
    /// A share of cores or GPUs, at least so many thousandths.
    Share(u32),
    /// Several texts.
    List,
    /// Texts by name.
    Texts,
    /// Whole numbers by name.
    Counts,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// Of [`Kind::Text`] and [`Kind::Word`].
    Text(String),
    /// Of [`Kind::Switch`].
    Switch(bool),
    /// Of [`Kind::Count`].
    Number(u64),
    /// Of [`Kind::Size`]: bytes.
    Size(u64),
    /// Of [`Kind::Share`]: thousandths.
    Share(u32),
    /// Of [`Kind::Span`].
    Span(Span),
    /// Of [`Kind::List`].
    List(Vec<String>),
    /// Of [`Kind::Texts`].
    Texts(BTreeMap<String, String>),
    /// Of [`Kind::Counts`].
    Counts(BTreeMap<String, u64>),
}

impl fmt::Display for Value {
    /// In the grammar of the environment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn pairs<T: fmt::Display>(table: &BTreeMap<String, T>) -> String {
            let pairs = table.iter().map(|(name, value)| format!("{name}={value}"));
            pairs.collect::<Vec<_>>().join(",")
        }
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Switch(on) => on.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Size(bytes) => f.write_str(&units::size_text(*bytes)),
            Self::Share(milli) => f.write_str(&units::thousandths_text(*milli)),
            Self::Span(span) => span.fmt(f),
            Self::List(list) => f.write_str(&list.join(",")),
            Self::Texts(table) => f.write_str(&pairs(table)),
            Self::Counts(table) => f.write_str(&pairs(table)),
        }
    }
}

fn wrong<T>(what: String, mend: impl Into<String>) -> Result<T, Wrong> {
    Err((what, mend.into()))
}

impl Kind {
    /// Reads a value; lists and tables are separated by commas, their names by `=`.
    fn read(self, text: &str) -> Result<Value, Wrong> {
        match self {
            Self::Text => match text.chars().any(char::is_control) {
                true => wrong(format!("'{}' is no single line", brief(text)), "one line"),
                false => Ok(Value::Text(text.to_owned())),
            },
            Self::Word(words) => word(text, words),
            Self::Switch => match text {
                "true" => Ok(Value::Switch(true)),
                "false" => Ok(Value::Switch(false)),
                other => wrong(
                    format!("'{}' is neither true nor false", brief(other)),
                    "write true or false",
                ),
            },
            Self::Count(least, most) => count(text, least, most).map(Value::Number),
            Self::Span(least, most) => span(text, least, most).map(Value::Span),
            Self::Size(least) => size(text, least).map(Value::Size),
            Self::Share(least) => {
                let milli = units::share(text)?;
                if milli < least {
                    let least = units::thousandths_text(least);
                    return wrong(format!("{text} is too little"), format!("at least {least}"));
                }
                Ok(Value::Share(milli))
            }
            Self::List => Ok(Value::List(parts(text).map(str::to_owned).collect())),
            Self::Texts => pairs(text)?
                .map(|(k, v)| text_pair(k, v))
                .collect::<Result<_, _>>()
                .map(Value::Texts),
            Self::Counts => pairs(text)?
                .map(|(k, v)| count_pair(k, v))
                .collect::<Result<_, _>>()
                .map(Value::Counts),
        }
    }

    /// How its values are written, for messages.
    pub(super) fn wanted(self) -> &'static str {
        match self {
            Self::Text | Self::Word(_) => "a text in quotes",
            Self::Switch => "true or false",
            Self::Count(..) => "a whole number",
            Self::Span(..) => "a duration in quotes, as \"1m30s\"",
            Self::Size(_) => "a size in quotes, as \"512MiB\"",
            Self::Share(_) => "a number such as 2 or 0.5",
            Self::List => "a list of texts, as [\"a\", \"b\"]",
            Self::Texts => "a table of texts, as {name = \"text\"}",
            Self::Counts => "a table of whole numbers, as {name = 2}",
        }
    }
}

pub(super) fn text_pair(name: &str, value: &str) -> Result<(String, String), Wrong> {
    units::name(name)?;
    let fine = value.len() <= 256 && !value.chars().any(char::is_control);
    match fine {
        true => Ok((name.to_owned(), value.to_owned())),
        false => wrong(
            format!("'{}' is no value of '{name}'", brief(value)),
            "one line of at most 256 bytes",
        ),
    }
}

pub(super) fn count_pair(name: &str, value: &str) -> Result<(String, u64), Wrong> {
    units::name(name)?;
    Ok((name.to_owned(), count(value, 0, u64::MAX >> 1)?))
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

fn pairs(text: &str) -> Result<std::vec::IntoIter<(&str, &str)>, Wrong> {
    let mut found = Vec::new();
    for part in parts(text) {
        match part.split_once('=') {
            Some((name, value)) => found.push((name.trim(), value.trim())),
            None => return wrong(format!("'{}' has no '='", brief(part)), "write NAME=VALUE"),
        }
    }
    Ok(found.into_iter())
}

fn word(text: &str, words: &'static [&'static str]) -> Result<Value, Wrong> {
    if words.contains(&text) {
        return Ok(Value::Text(text.to_owned()));
    }
    let otherwise = format!("one of {}", words.join(", "));
    let mend = did_you_mean(text, words.iter().copied(), &otherwise);
    wrong(format!("'{}' is not known here", brief(text)), mend)
}

fn count(text: &str, least: u64, most: u64) -> Result<u64, Wrong> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits {
        let what = format!("'{}' is no whole number", brief(text));
        return wrong(what, "write digits only");
    }
    match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => wrong(
            format!("{} is out of range", brief(text)),
            format!("between {least} and {most}"),
        ),
    }
}

fn span(text: &str, least: u64, most: u64) -> Result<Span, Wrong> {
    let span = units::duration(text)?;
    match (least..=most).contains(&span.0) {
        true => Ok(span),
        false => wrong(
            format!("{text} is out of range"),
            format!("between {} and {}", Span(least), Span(most)),
        ),
    }
}

fn size(text: &str, least: u64) -> Result<u64, Wrong> {
    let bytes = units::size(text)?;
    match bytes >= least {
        true => Ok(bytes),
        false => wrong(
            format!("{text} is too small"),
            format!("at least {}", units::size_text(least)),
        ),
    }
}
