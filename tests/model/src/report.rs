//! Runs the checks and says what came out.

use crate::check::{Found, check};
use crate::config::CONFIGS;
use crate::lease::{Bounds, Lease};
use crate::promise::Promise;
use crate::rule::{Rule, Rules};
use crate::sight::{SIGHTS, Sight};
use crate::world::World;
use clap::ValueEnum as _;
use serde::Serialize;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// What the lease's check must have come by.
const LEASE_SIGHTS: &[Sight] = &[
    Sight::LeaseRenewed,
    Sight::LeaseOver,
    Sight::LeaseMoved,
    Sight::LeaseAfterReboot,
];

/// How a check is run.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// Which rules are in force.
    pub rules: Rules,
    /// One accident more.
    pub deep: bool,
    /// Worker threads.
    pub threads: usize,
    /// States after which a check gives up.
    pub limit: usize,
}

/// One configuration's result.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Its name.
    pub config: &'static str,
    /// How many different states there are.
    pub states: usize,
    /// The longest of the shortest ways to a state.
    pub depth: usize,
    /// Whether every state within the bounds was looked at.
    pub complete: bool,
    /// How long it took.
    pub seconds: f64,
    /// The promise that is broken, and the shortest history that breaks it.
    pub broken: Option<(&'static str, Vec<String>)>,
    /// What should have been reached and was not.
    pub missing: Vec<String>,
}

impl Report {
    fn new(
        config: &'static str,
        (found, took): (Found<Promise>, Duration),
        seen: u32,
        sights: &[Sight],
    ) -> Self {
        let unseen = |sight: &&Sight| found.complete && seen & 1 << **sight as u8 == 0;
        Self {
            config,
            states: found.states,
            depth: found.depth,
            complete: found.complete,
            seconds: took.as_secs_f64(),
            missing: sights
                .iter()
                .filter(unseen)
                .map(|s| format!("{s:?}"))
                .collect(),
            broken: found
                .broken
                .map(|(promise, history)| (promise.name(), history)),
        }
    }

    /// Whether the check is what it must be for the complete contract.
    pub fn is_good(&self) -> bool {
        self.complete && self.broken.is_none() && self.missing.is_empty()
    }

    /// The result as text, with the history if a promise is broken.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{:<32}{:>10} states, depth {:>3}, {:>6.1} s",
            self.config, self.states, self.depth, self.seconds
        );
        if let Some((promise, history)) = &self.broken {
            write!(text, "\n  {promise} is broken:").expect("a string takes all");
            for (number, step) in history.iter().enumerate() {
                write!(text, "\n  {:>4}. {step}", number + 1).expect("a string takes all");
            }
        } else if !self.complete {
            text.push_str("  NOT COMPLETE: the limit of states came first");
        }
        if !self.missing.is_empty() {
            write!(text, "\n  NEVER REACHED: {}", self.missing.join(", "))
                .expect("a string takes all");
        }
        text
    }
}

/// Names of all configurations.
pub fn names() -> Vec<&'static str> {
    let protocol = CONFIGS.iter().map(|config| config.name);
    protocol.chain(["lease"]).collect()
}

/// Checks one configuration.
pub fn run(name: &str, how: How) -> Option<Report> {
    let begun = Instant::now();
    if name == "lease" {
        let lease = Lease::new(Bounds::new(how.deep), how.rules);
        let found = check(&lease, how.threads, how.limit);
        let found = (found, begun.elapsed());
        return Some(Report::new("lease", found, lease.seen(), LEASE_SIGHTS));
    }
    let mut config = *CONFIGS.iter().find(|config| config.name == name)?;
    if how.deep {
        config = config.deeper();
    }
    let world = World::new(config, how.rules);
    let found = check(&world, how.threads, how.limit);
    let found = (found, begun.elapsed());
    Some(Report::new(config.name, found, world.seen(), config.sights))
}

/// Looks for a history that breaks a promise when a rule is out, in the smaller state spaces
/// first.
pub fn counterexample(rule: Rule, how: How) -> Option<Report> {
    let how = How {
        rules: Rules::without(rule),
        ..how
    };
    let mut names = names();
    names.rotate_left(1); // the main one last
    names.retain(|name| (*name == "lease") == rule.is_of_the_lease());
    let found = names.into_iter().filter_map(|name| run(name, how));
    found.into_iter().find(|report| report.broken.is_some())
}

/// All rules that can be taken out.
pub fn rules() -> &'static [Rule] {
    Rule::value_variants()
}

/// Sights that no configuration asks for: such a list would be forgotten.
pub fn unasked() -> Vec<String> {
    let asked = |sight: &Sight| {
        let mut lists = CONFIGS.iter().map(|config| config.sights);
        lists.any(|list| list.contains(sight)) || LEASE_SIGHTS.contains(sight)
    };
    let left = SIGHTS.into_iter().filter(|sight| !asked(sight));
    left.map(|sight| format!("{sight:?}")).collect()
}
