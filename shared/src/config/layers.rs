//! Values of all keys from their four sources, with where each came from.

use super::file;
use super::key::{Key, Kind, Value};
use crate::spec::mistake::{Mistake, Mistakes, SHOWN, did_you_mean};
use crate::time::Span;
use std::collections::BTreeMap;
use std::fmt;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// Nobody said anything.
    Default,
    /// A file.
    File {
        /// Its name.
        file: String,
        /// From 1.
        line: u32,
        /// From 1.
        column: u32,
    },
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line, .. } => write!(f, "{file}:{line}"),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A flag of the command line that sets a key.
#[derive(Debug, Clone)]
pub struct Flag {
    /// The key.
    pub key: &'static str,
    /// As typed: `--label`.
    pub flag: &'static str,
    /// Its values, one for each time that it was given.
    pub values: Vec<String>,
}

/// The values of all keys of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<&'static str, (Option<Value>, From)>,
}

impl Settings {
    /// All keys with their values (none: the program decides) and where these came from.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, Option<&Value>, &From)> {
        let all = self.values.iter();
        all.map(|(name, (value, from))| (*name, value.as_ref(), from))
    }

    /// The value of a key; none if the program decides.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).and_then(|(value, _)| value.as_ref())
    }

    /// Where a key's value came from.
    #[must_use]
    pub fn from(&self, key: &str) -> &From {
        self.values
            .get(key)
            .map_or(&From::Default, |(_, from)| from)
    }

    /// Whether somebody set a key.
    #[must_use]
    pub fn is_set(&self, key: &str) -> bool {
        *self.from(key) != From::Default
    }

    /// A text; empty if there is none.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        match self.get(key) {
            Some(Value::Text(text)) => text,
            _ => "",
        }
    }

    /// A number (sizes: bytes; shares: thousandths); none if the program decides.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<u64> {
        match self.get(key) {
            Some(Value::Number(number) | Value::Size(number)) => Some(*number),
            Some(Value::Share(milli)) => Some((*milli).into()),
            _ => None,
        }
    }

    /// A duration.
    #[must_use]
    pub fn span(&self, key: &str) -> Span {
        match self.get(key) {
            Some(Value::Span(span)) => *span,
            _ => Span::default(),
        }
    }

    /// A switch.
    #[must_use]
    pub fn switch(&self, key: &str) -> bool {
        self.get(key) == Some(&Value::Switch(true))
    }

    /// Several texts.
    #[must_use]
    pub fn list(&self, key: &str) -> &[String] {
        match self.get(key) {
            Some(Value::List(list)) => list,
            _ => &[],
        }
    }

    /// Texts by name.
    #[must_use]
    pub fn texts(&self, key: &str) -> BTreeMap<String, String> {
        match self.get(key) {
            Some(Value::Texts(texts)) => texts.clone(),
            _ => BTreeMap::new(),
        }
    }

    /// Numbers by name.
    #[must_use]
    pub fn counts(&self, key: &str) -> BTreeMap<String, u64> {
        match self.get(key) {
            Some(Value::Counts(counts)) => counts.clone(),
            _ => BTreeMap::new(),
        }
    }
}

/// Reads the sources, from the last one to the first, and collects mistakes.
#[derive(Debug)]
pub struct Reader {
    schema: &'static [Key],
    settings: Settings,
    mistakes: Vec<Mistake>,
}

impl Reader {
    /// All defaults.
    #[must_use]
    pub fn new(schema: &'static [Key]) -> Self {
        let mut reader = Self {
            schema,
            settings: Settings {
                values: BTreeMap::new(),
            },
            mistakes: Vec::new(),
        };
        for key in schema {
            reader.set(key, key.default, From::Default);
        }
        reader
    }

    /// A default that only the machine itself knows.
    pub fn default(&mut self, key: &str, text: &str) {
        if let Some(key) = self.schema.iter().find(|known| known.name == key) {
            self.set(key, text, From::Default);
        }
    }

    /// A file's text.
    pub fn file(&mut self, name: &str, text: &str) {
        let found = file::read(self.schema, text);
        for (key, value, at) in found.values {
            let from = From::File {
                file: name.to_owned(),
                line: at.line,
                column: at.column,
            };
            self.settings.values.insert(key.name, (value, from));
        }
        for (at, what, mend) in found.mistakes {
            self.mistakes.push(Mistake {
                file: name.to_owned(),
                line: at.line,
                column: at.column,
                what,
                mend,
            });
        }
    }

    /// Environment variables: `prefix` and the key's name in capitals, its dots as underscores.
    /// Empty ones count as absent; an unknown one with the prefix is a mistake, those in `others`
    /// excepted.
    pub fn environment(
        &mut self,
        prefix: &str,
        others: &[&str],
        variables: impl Iterator<Item = (String, String)>,
    ) {
        let own = |key: &Key| format!("{prefix}{}", key.name.replace('.', "_").to_uppercase());
        let mut given: Vec<(String, String)> =
            variables.filter(|(_, value)| !value.is_empty()).collect();
        given.sort();
        for (name, value) in given {
            let known = self.schema.iter();
            let mut known = known.filter(|key| own(key) == name || key.variable == Some(&*name));
            if let Some(key) = known.next() {
                self.set(key, &value, From::Variable(name));
            } else if name.starts_with(prefix) && !others.contains(&&*name) {
                let names: Vec<String> = self.schema.iter().map(own).collect();
                let otherwise = "unset it; the names follow from the keys of the configuration";
                let mend = did_you_mean(&name, names.iter().map(String::as_str), otherwise);
                let from = From::Variable(name);
                self.mistake(&from, "no setting has this name", &mend);
            }
        }
    }

    /// Flags that were given.
    pub fn flags(&mut self, flags: Vec<Flag>) {
        for Flag { key, flag, values } in flags {
            let Some(key) = self.schema.iter().find(|known| known.name == key) else {
                continue;
            };
            match key.kind {
                Kind::List => {
                    let value = Some(Value::List(values));
                    let value = (value, From::Flag(flag));
                    self.settings.values.insert(key.name, value);
                }
                _ => self.set(key, &values.join(","), From::Flag(flag)),
            }
        }
    }

    /// The values as they are known so far.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Notes that a key's value is wrong together with others.
    pub fn conflict(&mut self, key: &str, what: &str, mend: &str) {
        let from = self.settings.from(key).clone();
        self.mistake(&from, &format!("{key}: {what}"), mend);
    }

    /// The settings.
    ///
    /// # Errors
    /// All mistakes: those of the file by line, then those of the environment and of flags.
    pub fn settle(mut self) -> Result<Settings, Mistakes> {
        if self.mistakes.is_empty() {
            return Ok(self.settings);
        }
        let mistakes = &mut self.mistakes;
        mistakes.sort_by_key(|mistake| (mistake.line == 0, mistake.line, mistake.column));
        let more = mistakes.len().saturating_sub(SHOWN);
        mistakes.truncate(SHOWN);
        Err(Mistakes {
            mistakes: self.mistakes,
            more,
        })
    }

    fn set(&mut self, key: &'static Key, text: &str, from: From) {
        match key.read(text) {
            Ok(value) => drop(self.settings.values.insert(key.name, (value, from))),
            Err((what, mend)) => self.mistake(&from, &what, &mend),
        }
    }

    fn mistake(&mut self, from: &From, what: &str, mend: &str) {
        let (file, line, column) = match from {
            From::File { file, line, column } => (file.clone(), *line, *column),
            other => (other.to_string(), 0, 0),
        };
        self.mistakes.push(Mistake {
            file,
            line,
            column,
            what: what.to_owned(),
            mend: mend.to_owned(),
        });
    }
}
