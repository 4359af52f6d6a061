//! The section `scheduler`: what a node does where a specification says nothing. Set in either
//! configuration file and, while running, for the fleet, for a label or for one node.

use super::key::{Key, Kind, Value};
use super::layers::Settings;
use crate::spec::mistake::{brief, did_you_mean};
use crate::time::Span;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Longest interval and pause: a week.
const WEEK: u64 = 7 * 86_400_000;

/// The keys, with their defaults.
pub const KEYS: [Key; 3] = [
    Key::new(
        "scheduler.resource_monitor_interval",
        Kind::Span(100, WEEK),
        "3s",
    ),
    Key::new("scheduler.backoff_duration", Kind::Span(0, WEEK), "30s"),
    Key::new("scheduler.max_retries", Kind::Count(0, 1_000_000), "3"),
];

fn short(name: &'static str) -> &'static str {
    name.strip_prefix("scheduler.").unwrap_or(name)
}

fn span(value: Option<Value>) -> Option<Span> {
    match value {
        Some(Value::Span(span)) => Some(span),
        _ => None,
    }
}

/// The key of that name, with or without its section.
///
/// # Errors
/// What is wrong, and the mend.
pub fn key_named(name: &str) -> Result<&'static Key, (String, String)> {
    let found = KEYS
        .iter()
        .find(|key| key.name == name || short(key.name) == name);
    found.ok_or_else(|| {
        let known = || KEYS.iter().map(|key| short(key.name));
        let otherwise = format!("one of {}", known().collect::<Vec<_>>().join(", "));
        let what = format!("no setting is called '{}'", brief(name));
        let asked = name.strip_prefix("scheduler.").unwrap_or(name);
        (what, did_you_mean(asked, known(), &otherwise))
    })
}

/// What somebody set; the rest is left to whoever comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Scheduler {
    /// Pause between two looks of the monitor at the machine.
    pub resource_monitor_interval: Option<Span>,
    /// `retry.initial_interval` of tasks that say nothing.
    pub backoff_duration: Option<Span>,
    /// `retry.max_attempts` of tasks that say nothing, less the first attempt.
    pub max_retries: Option<u32>,
}

impl Scheduler {
    /// The defaults of [`KEYS`].
    pub const DEFAULT: Self = Self {
        resource_monitor_interval: Some(Span::secs(3)),
        backoff_duration: Some(Span::secs(30)),
        max_retries: Some(3),
    };

    /// What was set in a configuration. A value that is the default leaves the others their say: so
    /// do the published files, which write out every default.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let mut set = Self::default();
        for key in KEYS {
            let value = settings.get(key.name).map(ToString::to_string);
            if let Some(value) = value.filter(|value| value != key.default) {
                // it was read by this key's grammar before
                let _ = set.change(key.name, Some(&value));
            }
        }
        set
    }

    /// Sets a key of [`KEYS`] (with or without its section) in the grammar of the environment, or
    /// unsets it.
    ///
    /// # Errors
    /// What is wrong, and the mend; nothing is changed.
    pub fn change(&mut self, name: &str, value: Option<&str>) -> Result<(), (String, String)> {
        let key = key_named(name)?;
        let value = value.map(|text| key.read(text)).transpose()?.flatten();
        match (short(key.name), value) {
            ("resource_monitor_interval", value) => self.resource_monitor_interval = span(value),
            ("backoff_duration", value) => self.backoff_duration = span(value),
            (_, Some(Value::Number(n))) => self.max_retries = u32::try_from(n).ok(),
            (_, _) => self.max_retries = None,
        }
        Ok(())
    }

    /// What is set, by name without its section, in the grammar of the environment.
    #[must_use]
    pub fn texts(&self) -> BTreeMap<String, String> {
        let texts = [
            self.resource_monitor_interval.map(|span| span.to_string()),
            self.backoff_duration.map(|span| span.to_string()),
            self.max_retries.map(|retries| retries.to_string()),
        ];
        let named = KEYS.iter().zip(texts);
        let set = named.filter_map(|(key, text)| Some((short(key.name).to_owned(), text?)));
        set.collect()
    }

    /// What is set here, else what is set in `under`.
    #[must_use]
    pub fn over(self, under: Self) -> Self {
        Self {
            resource_monitor_interval: self
                .resource_monitor_interval
                .or(under.resource_monitor_interval),
            backoff_duration: self.backoff_duration.or(under.backoff_duration),
            max_retries: self.max_retries.or(under.max_retries),
        }
    }

    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_keys_and_every_key_can_be_set() {
        let mut set = Scheduler::default();
        for key in KEYS {
            set.change(key.name, Some(key.default)).unwrap();
        }
        assert_eq!(set, Scheduler::DEFAULT);
        assert_eq!(set.texts().len(), KEYS.len());
        for key in KEYS {
            set.change(short(key.name), None).unwrap();
        }
        assert!(set.is_empty());
    }

    #[test]
    fn a_wrong_name_or_value_changes_nothing() {
        let mut set = Scheduler::DEFAULT;
        let (_, mend) = set.change("max_retry", Some("1")).unwrap_err();
        assert_eq!(mend, "did you mean 'max_retries'?");
        for (name, value) in [("backoff_duration", "30"), ("max_retries", "-1")] {
            assert!(set.change(name, Some(value)).is_err(), "{name} {value}");
        }
        assert_eq!(set, Scheduler::DEFAULT);
    }
}
