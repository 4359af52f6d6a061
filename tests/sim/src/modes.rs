//! The failure modes that users of other systems met in the field, each with what meets it here:
//! a fault of the simulator, a test, or a part that is not built yet. `docs/faults.md` has the same
//! rows for people, with where they were seen.

use crate::fault::{Kind, Tally};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// By what a mode is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// By each seed in which one of these happened.
    Seeds(&'static [Kind]),
    /// By a test in each run of all tests: the file that it is in, and its name.
    Test(&'static str, &'static str),
    /// By nothing before this part of a later milestone.
    Later(&'static str),
}

/// A failure mode.
#[derive(Debug, Clone, Copy)]
pub struct Mode {
    /// Its number in `docs/faults.md`.
    pub number: u32,
    /// What fails, in a few words.
    pub title: &'static str,
    /// By what it is met.
    pub met: Met,
    /// The invariants that judge it; none where the test judges by itself.
    pub guards: &'static [&'static str],
}

const fn mode(number: u32, title: &'static str, met: Met, guards: &'static [&'static str]) -> Mode {
    Mode {
        number,
        title,
        met,
        guards,
    }
}

use Met::{Later, Seeds, Test};

/// All of them, by their numbers.
pub const ALL: &[Mode] = &[
    mode(
        1,
        "reboot without a link",
        Seeds(&[Kind::ColdBootOffline]),
        &["no_offline_mode"],
    ),
    mode(
        2,
        "power cut in the middle of a write",
        Seeds(&[Kind::LostWrite, Kind::TornWrite]),
        &["acknowledged_is_durable"],
    ),
    mode(
        3,
        "crash between writing a new file and renaming it",
        Test(
            "tests/e2e/tests/first_start.rs",
            "an_agent_that_is_killed_during_its_first_start_goes_on",
        ),
        &[],
    ),
    mode(
        4,
        "full disk at the gateway",
        Seeds(&[Kind::AgentDiskFull]),
        &["acknowledged_is_durable", "convergence", "reserve"],
    ),
    mode(
        5,
        "file of the store grows and is not compacted",
        Test(
            "tests/e2e/tests/store_commands.rs",
            "a_compaction_that_is_killed_leaves_the_old_store_or_the_new_one",
        ),
        &[],
    ),
    mode(
        6,
        "one failed sync and every later write fails",
        Seeds(&[Kind::SyncFailed]),
        &["acknowledged_is_durable", "no_offline_mode"],
    ),
    mode(
        7,
        "flash worn out by writes that nobody needs",
        Test(
            "edge-agent/core/tests/core/tidy.rs",
            "where_nothing_changes_nothing_is_written_once_all_is_old",
        ),
        &[],
    ),
    mode(
        8,
        "buffer overflows in a long outage",
        Seeds(&[Kind::TelemetryThinned]),
        &["measured"],
    ),
    mode(
        9,
        "outcomes expire while the gateway is off",
        Seeds(&[Kind::OffForLong]),
        &["safe", "applied_once_in_order"],
    ),
    mode(
        10,
        "outcome lost on its way",
        Seeds(&[Kind::LostFacts]),
        &["applied_once_in_order", "convergence"],
    ),
    mode(
        11,
        "work runs twice when its node returns",
        Seeds(&[Kind::LateReturn]),
        &["one_owner", "counted_once"],
    ),
    mode(
        12,
        "attempt beyond its time runs on beside the retry",
        Seeds(&[Kind::TermIgnored]),
        &["one_owner"],
    ),
    mode(
        13,
        "one task ends its agent again and again",
        Test(
            "tests/e2e/tests/spec_fields_runs.rs",
            "spec_field_crash_limit",
        ),
        &[],
    ),
    mode(
        14,
        "a stranger's process is killed by its number",
        Test(
            "edge-agent/exec/tests/exec/endings.rs",
            "strangers_of_an_earlier_agent_are_ended_and_named",
        ),
        &[],
    ),
    mode(
        15,
        "processes outlive their agent",
        Seeds(&[Kind::AgentKill]),
        &["one_owner"],
    ),
    mode(
        16,
        "lease or slot held by a dead run",
        Later("leases, fourth milestone"),
        &[],
    ),
    mode(
        17,
        "lock of a dead process needs a person",
        Test(
            "tests/e2e/tests/agent_store.rs",
            "a_second_agent_on_a_directory_is_refused_and_the_first_goes_on",
        ),
        &[],
    ),
    mode(
        18,
        "clock goes back, or was never set",
        Seeds(&[Kind::ClockBack, Kind::ClockUntrusted]),
        &["applied_once_in_order", "scheduled"],
    ),
    mode(
        19,
        "clock steps over the time of a renewal",
        Test(
            "tests/e2e/tests/clocks.rs",
            "a_clock_that_steps_over_the_time_of_a_renewal_skips_none",
        ),
        &[],
    ),
    mode(
        20,
        "certificate not valid yet by a wrong clock",
        Test(
            "tests/e2e/tests/clocks.rs",
            "a_gateway_without_a_battery_works_and_says_that_its_clock_was_not_set",
        ),
        &[],
    ),
    mode(
        21,
        "certificate expires without a link",
        Test(
            "tests/e2e/tests/certificates.rs",
            "a_certificate_is_renewed_while_its_node_works_and_after_it_expired_offline",
        ),
        &[],
    ),
    mode(
        22,
        "renewed certificate is not the one that is shown",
        Test(
            "tests/e2e/tests/rotation.rs",
            "a_fleet_changes_its_authority_while_it_works_and_one_node_is_away",
        ),
        &[],
    ),
    mode(
        23,
        "coordinator restored from an older backup",
        Seeds(&[Kind::RestoredOlder, Kind::CoordinatorWentBack]),
        &["safe", "counted_once", "convergence"],
    ),
    mode(
        24,
        "older program on what a newer one wrote",
        Seeds(&[Kind::UnknownFact, Kind::UnknownDirective]),
        &["acknowledged_is_durable", "convergence"],
    ),
    mode(
        25,
        "two machines with one identity",
        Seeds(&[Kind::DiskCopied]),
        &["applied_once_in_order", "one_owner"],
    ),
    mode(
        26,
        "gateway imaged again under its old name",
        Seeds(&[Kind::Reimaged]),
        &["convergence", "one_owner"],
    ),
    mode(
        27,
        "half-open connection",
        Seeds(&[Kind::HalfOpen]),
        &["convergence"],
    ),
    mode(
        28,
        "end of the old session ends the new one",
        Seeds(&[Kind::TeardownRace]),
        &["convergence"],
    ),
    mode(
        29,
        "address changes under a connection",
        Test(
            "tests/e2e/tests/fleet.rs",
            "a_new_address_of_the_gateway_does_not_end_its_session",
        ),
        &[],
    ),
    mode(
        30,
        "path that passes small packets only",
        Test(
            "tests/e2e/tests/field_links.rs",
            "a_path_that_passes_small_packets_only_carries_a_session_and_its_files",
        ),
        &[],
    ),
    mode(
        31,
        "flapping link",
        Seeds(&[Kind::FlappingLink]),
        &["one_owner", "convergence"],
    ),
    mode(
        32,
        "whole fleet calls at once",
        Test(
            "tests/e2e/tests/sessions.rs",
            "a_fleet_of_500_that_calls_at_once_is_admitted_without_a_failed_handshake",
        ),
        &[],
    ),
    mode(
        33,
        "one side is heard and hears nothing",
        Seeds(&[Kind::OneWayCut]),
        &["convergence", "one_owner"],
    ),
    mode(
        34,
        "summer time fires a slot twice or never",
        Test(
            "shared/src/schedule/calendar/tests.rs",
            "slots_around_changes_of_the_clocks",
        ),
        &[],
    ),
    mode(
        35,
        "slots missed while nothing ran",
        Seeds(&[Kind::SlotCaughtUp, Kind::SlotMissed]),
        &["scheduled"],
    ),
    mode(
        36,
        "agent and coordinator of different versions",
        Seeds(&[Kind::VersionSkew]),
        &["no_offline_mode", "convergence"],
    ),
    mode(
        37,
        "old wish of the coordinator comes late",
        Seeds(&[Kind::StaleDirectives]),
        &["one_owner", "convergence"],
    ),
    mode(
        38,
        "state of a gateway that is away shown as its present",
        Seeds(&[Kind::ShownBehind]),
        &["no_invented_history"],
    ),
];

fn quoted(words: impl IntoIterator<Item = &'static str>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    words.join(", ")
}

impl Mode {
    /// Whether it was met in a seed with these faults.
    #[must_use]
    pub fn happened(&self, tally: &Tally) -> bool {
        match self.met {
            Seeds(kinds) => kinds.iter().any(|kind| tally.count(*kind) > 0),
            Test(..) | Later(_) => false,
        }
    }

    /// Whether enough seeds must meet it; `disks`: some of them are on simulated disks.
    #[must_use]
    pub fn needs_seeds(&self, disks: bool) -> bool {
        match self.met {
            Seeds(kinds) => kinds.iter().any(|kind| disks || !kind.needs_disk()),
            Test(..) | Later(_) => false,
        }
    }

    /// By what it is met, as the page says it.
    #[must_use]
    pub fn met_by(&self) -> String {
        match self.met {
            Seeds(kinds) => quoted(kinds.iter().map(|kind| kind.text())),
            Test(file, name) => format!("`{file}`: `{name}`"),
            Later(what) => format!("nothing yet: {what}"),
        }
    }

    /// What judges it, as the page says it.
    #[must_use]
    pub fn guarded_by(&self) -> String {
        match (self.met, self.guards) {
            (Test(..), []) => "the test".to_owned(),
            (Later(_), _) => "–".to_owned(),
            (_, guards) => quoted(guards.iter().copied()),
        }
    }

    /// How often it was met in a run of `seeds` seeds, in so many of them, as the page says it.
    #[must_use]
    pub fn count(&self, met: u64, seeds: u64) -> String {
        match self.met {
            Seeds(_) => format!("{met} of {seeds} seeds"),
            Test(..) => "each run".to_owned(),
            Later(_) => "0".to_owned(),
        }
    }
}

/// The table for people: in how many of `seeds` seeds each mode was met.
#[must_use]
pub fn table(counts: &BTreeMap<u32, u64>, seeds: u64) -> String {
    let mut out = String::new();
    for mode in ALL {
        let met = counts.get(&mode.number).copied().unwrap_or(0);
        let count = mode.count(met, seeds);
        // writing into a String cannot fail
        let _ = writeln!(out, "{:>2} {:<54} {count}", mode.number, mode.title);
    }
    out
}

/// `page` with the counts of a run in the last cell of each row.
///
/// # Errors
/// If a mode has no row.
pub fn filled(page: &str, counts: &BTreeMap<u32, u64>, seeds: u64) -> Result<String, String> {
    let mut lines: Vec<String> = page.lines().map(str::to_owned).collect();
    for mode in ALL {
        let start = format!("| {} |", mode.number);
        let row = lines.iter_mut().find(|line| line.starts_with(&start));
        let row = row.ok_or_else(|| format!("the page has no row {}", mode.number))?;
        let cells = row.strip_suffix(" |").and_then(|row| row.rsplit_once("| "));
        let (before, _) = cells.ok_or_else(|| format!("row {} has no end", mode.number))?;
        let met = counts.get(&mode.number).copied().unwrap_or(0);
        *row = format!("{before}| {} |", mode.count(met, seeds));
    }
    Ok(lines.join("\n") + "\n")
}
