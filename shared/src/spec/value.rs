//! Values of fields after reading, and the layers they come from: the task, `defaults`, the schema.

use super::mistake::Pos;
use super::schema::{Field, Kind};
use super::units::Deadline;
use crate::time::Span;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The value of a field.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Value {
    /// `null`: nothing, even where `defaults` says something.
    Unset,
    /// Depends on a parameter without a value (the text as written), or was a mistake (empty).
    Open(String),
    Text(String),
    Int(i64),
    Milli(u32),
    Switch(bool),
    Span(Span),
    Bytes(u64),
    Deadline(Deadline, String),
    Word(&'static str),
    Texts(Vec<Word>),
    Codes(Vec<i32>),
    Pairs(BTreeMap<String, Word>),
    Counts(BTreeMap<String, u64>),
    Axes(Vec<Axis>),
    When(String, Option<bool>),
    Block(Block),
    Each(Vec<Named>),
    Files(Vec<File>),
}

/// A text in a list or map.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Word {
    pub(crate) at: Pos,
    pub(crate) text: String,
    /// It depends on a parameter without a value; `text` is as written.
    pub(crate) open: bool,
}

/// A text as a key of a map: to compare the beginning of texts as a number is much cheaper than to
/// follow a reference, and mostly enough.
pub(crate) fn by_text<'a>(text: impl Into<Cow<'a, str>>) -> (u128, Cow<'a, str>) {
    let text = text.into();
    let len = text.len().min(16);
    let mut first = [0; 16];
    first[..len].copy_from_slice(&text.as_bytes()[..len]);
    (u128::from_be_bytes(first), text)
}

/// An axis of a matrix with its values.
pub(crate) type Axis = (String, Vec<String>);

/// A map under its key.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Named {
    pub(crate) at: Pos,
    pub(crate) name: String,
    pub(crate) block: Block,
    /// Of a task with a matrix: one for each combination of values, called `name[axis=value,…]`.
    pub(crate) members: Vec<Self>,
}

/// An input or output.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct File {
    pub(crate) at: Pos,
    pub(crate) name: Option<Word>,
    pub(crate) path: Option<Word>,
    pub(crate) source: Option<Word>,
}

impl File {
    /// Whether something of it depends on a parameter without a value.
    pub(crate) fn is_open(&self) -> bool {
        [&self.name, &self.path, &self.source]
            .into_iter()
            .flatten()
            .any(|word| word.open)
    }
}

/// A map with known fields.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Block {
    pub(crate) at: Pos,
    pub(crate) values: Vec<(&'static str, Pos, Value)>,
}

impl Block {
    /// A map without anything.
    pub(crate) fn empty(at: Pos) -> Self {
        Self {
            at,
            values: Vec::new(),
        }
    }

    /// The value of `name`.
    pub(crate) fn get(&self, name: &str) -> Option<(Pos, &Value)> {
        self.values
            .iter()
            .find(|(n, ..)| *n == name)
            .map(|(_, at, value)| (*at, value))
    }

    /// The files listed under `name`.
    pub(crate) fn files(&self, name: &str) -> &[File] {
        match self.get(name) {
            Some((_, Value::Files(files))) => files,
            _ => &[],
        }
    }

    /// The texts listed under `name`.
    pub(crate) fn texts(&self, name: &str) -> &[Word] {
        match self.get(name) {
            Some((_, Value::Texts(texts))) => texts,
            _ => &[],
        }
    }

    /// The maps under `name`.
    pub(crate) fn each(&self, name: &str) -> &[Named] {
        match self.get(name) {
            Some((_, Value::Each(each))) => each,
            _ => &[],
        }
    }
}

/// Maps of the same kind, the first that has a field decides; maps inside are joined.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layers<'a>(pub(crate) [Option<&'a Block>; 3]);

impl<'a> Layers<'a> {
    /// Where the outermost map stands.
    pub(crate) fn at(&self) -> Pos {
        self.0
            .iter()
            .flatten()
            .next()
            .map_or(Pos::START, |block| block.at)
    }

    /// The value that counts, and where it is written.
    pub(crate) fn get(&self, name: &str) -> (Pos, &'a Value) {
        let found = self.0.iter().flatten().find_map(|block| block.get(name));
        let (at, value) = found.unwrap_or_else(|| (self.at(), &Value::Unset));
        (if at == Pos::START { self.at() } else { at }, value)
    }

    /// The value if a person wrote it (and not the schema).
    pub(crate) fn given(&self, name: &str) -> Option<(Pos, &'a Value)> {
        self.0[..2]
            .iter()
            .flatten()
            .find_map(|block| block.get(name))
    }

    /// The layers of the map under `name`.
    pub(crate) fn inside(&self, name: &str) -> Self {
        Self(self.0.map(|block| match block?.get(name)? {
            (_, Value::Block(inner)) => Some(inner),
            _ => None,
        }))
    }

    /// The maps of texts under `name`, joined; the first layer wins.
    pub(crate) fn pairs(&self, name: &str) -> BTreeMap<&'a str, &'a Word> {
        let mut joined = BTreeMap::new();
        for block in self.0.iter().rev().flatten() {
            match block.get(name) {
                Some((_, Value::Pairs(pairs))) => {
                    joined.extend(pairs.iter().map(|(key, word)| (key.as_str(), word)));
                }
                Some((_, Value::Unset)) => joined.clear(),
                _ => {}
            }
        }
        joined
    }

    /// The maps of numbers under `name`, joined; the first layer wins.
    pub(crate) fn counts(&self, name: &str) -> BTreeMap<String, u64> {
        let mut joined = BTreeMap::new();
        for block in self.0.iter().rev().flatten() {
            match block.get(name) {
                Some((_, Value::Counts(counts))) => joined.extend(counts.clone()),
                Some((_, Value::Unset)) => joined.clear(),
                _ => {}
            }
        }
        joined
    }
}

/// The map that holds what the schema says where nobody says anything.
pub(crate) fn builtin(table: &'static [Field]) -> Block {
    let values = table.iter().filter(|field| !field.default.is_empty());
    let values = values.map(|field| (field.name, Pos::START, builtin_value(field)));
    Block {
        at: Pos::START,
        values: values.collect(),
    }
}

fn builtin_value(field: &'static Field) -> Value {
    if field.default == "null" {
        return Value::Unset;
    }
    match field.kind {
        Kind::Texts | Kind::Command => Value::Texts(Vec::new()),
        Kind::ExitCodes => Value::Codes(Vec::new()),
        Kind::Labels | Kind::Env => Value::Pairs(BTreeMap::new()),
        Kind::Counts => Value::Counts(BTreeMap::new()),
        Kind::Axes => Value::Axes(Vec::new()),
        Kind::Block(inner) => Value::Block(builtin(inner)),
        Kind::Defaults(_) => Value::Block(Block::empty(Pos::START)),
        Kind::Each(_) => Value::Each(Vec::new()),
        Kind::Files(_) => Value::Files(Vec::new()),
        _ => super::scalar::scalar(field.kind, field.default.trim_matches('\''))
            .expect("a test reads every default of the schema"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::{PARAM, SCHEDULE, TASK, WORKFLOW};
    use super::*;

    #[test]
    fn every_default_of_the_schema_can_be_read() {
        for table in [WORKFLOW, PARAM, SCHEDULE, TASK] {
            builtin(table);
        }
    }
}
