//! The section `scheduler`: what a node does where a specification says nothing. Set in either
//! configuration file and, while running, for the fleet, for a label or for one node.

use super::key::{Key, Kind};
use super::layers::Settings;
use crate::time::Span;
use serde::{Deserialize, Serialize};

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

    /// What was set in a configuration; defaults count as not set.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let set = |key: &str| settings.is_set(key).then(|| settings.span(key));
        Self {
            resource_monitor_interval: set("scheduler.resource_monitor_interval"),
            backoff_duration: set("scheduler.backoff_duration"),
            max_retries: settings
                .is_set("scheduler.max_retries")
                .then(|| settings.number("scheduler.max_retries").unwrap_or(0))
                .and_then(|n| u32::try_from(n).ok()),
        }
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
