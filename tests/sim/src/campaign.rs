//! A campaign: seeds for hours, always new ones, and a ledger that says what was run on which code.
//! It may be stopped at any time and goes on where the ledger ends.

use crate::queue::HOUR;
use crate::runner::Verdict;
use shared::ids::Hash;
use std::path::{Path, PathBuf};

/// What a change of makes earlier rows count no more: the cores, their stores, the protocol, and
/// all that judges them.
const JUDGED: &[&str] = &[
    "shared/src",
    "edge-agent/core/src",
    "edge-agent/store/src",
    "cloud/core/src",
    "cloud/store/src",
    "tests/sim/src",
];
/// What separates the cells of a row.
const CELL: &str = " | ";

/// One sitting: a row of the ledger.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row {
    /// The code that ran.
    pub code: String,
    /// The first seed.
    pub first: u64,
    /// How many.
    pub seeds: u64,
    /// Time on processors, in hours.
    pub core_hours: f64,
    /// Processes of tasks.
    pub attempts: u64,
    /// Simulated hours of gateways.
    pub agent_hours: f64,
    /// Faults that happened.
    pub faults: u64,
    /// Medians over its seeds: tasks, gateways, simulated hours.
    pub medians: (u64, u64, u64),
    /// Seeds in which a promise was broken, with their layers.
    pub broken: Vec<(u64, u8)>,
}

/// What is summed up while a sitting goes on.
#[derive(Debug, Default)]
pub struct Sitting {
    row: Row,
    tasks: Vec<u64>,
    agents: Vec<u64>,
    hours: Vec<u64>,
}

impl Sitting {
    /// A sitting of `code` that begins with seed `first`.
    #[must_use]
    pub fn new(code: String, first: u64) -> Self {
        let row = Row {
            code,
            first,
            ..Row::default()
        };
        Self {
            row,
            ..Self::default()
        }
    }

    /// Adds a seed.
    pub fn add(&mut self, verdict: &Verdict) {
        let row = &mut self.row;
        row.seeds += 1;
        row.attempts += verdict.attempts;
        row.agent_hours += verdict.agent_hours();
        row.faults += verdict.tally.iter().map(|(_, times)| times).sum::<u64>();
        if !verdict.violations.is_empty() {
            row.broken.push((verdict.seed, verdict.layer.number()));
        }
        self.tasks.push(verdict.tasks);
        self.agents.push(verdict.agents);
        self.hours
            .push(verdict.agent_time / verdict.agents.max(1) / HOUR);
    }

    /// Its row after so many hours on processors.
    #[must_use]
    pub fn row(&mut self, core_hours: f64) -> &Row {
        let medians = [&mut self.tasks, &mut self.agents, &mut self.hours].map(|all| median(all));
        self.row.medians = (medians[0], medians[1], medians[2]);
        self.row.core_hours = core_hours;
        self.row.broken.sort_unstable();
        &self.row
    }
}

fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

impl Row {
    /// The line of the table.
    #[must_use]
    pub fn line(&self) -> String {
        let broken: Vec<String> = self
            .broken
            .iter()
            .map(|(seed, layer)| format!("{seed} ({layer})"))
            .collect();
        let broken = match broken.is_empty() {
            true => "none".to_owned(),
            false => broken.join(", "),
        };
        let (tasks, agents, hours) = self.medians;
        let cells = [
            format!("`{}`", self.code),
            self.first.to_string(),
            self.seeds.to_string(),
            format!("{:.3}", self.core_hours),
            self.attempts.to_string(),
            format!("{:.0}", self.agent_hours),
            self.faults.to_string(),
            tasks.to_string(),
            agents.to_string(),
            hours.to_string(),
            broken,
        ];
        format!("| {} |", cells.join(CELL))
    }

    /// Reads a line of the table; none: it is no row.
    fn read(line: &str) -> Option<Self> {
        let cells: Vec<&str> = line
            .strip_prefix("| `")?
            .strip_suffix(" |")?
            .split(CELL)
            .collect();
        let [
            code,
            first,
            seeds,
            core_hours,
            attempts,
            agent_hours,
            faults,
            tasks,
            agents,
            hours,
            broken,
        ] = cells.as_slice()
        else {
            return None;
        };
        Some(Self {
            code: code.strip_suffix('`')?.to_owned(),
            first: first.parse().ok()?,
            seeds: seeds.parse().ok()?,
            core_hours: core_hours.parse().ok()?,
            attempts: attempts.parse().ok()?,
            agent_hours: agent_hours.parse().ok()?,
            faults: faults.parse().ok()?,
            medians: (
                tasks.parse().ok()?,
                agents.parse().ok()?,
                hours.parse().ok()?,
            ),
            broken: broken.split(", ").filter_map(failed).collect(),
        })
    }
}

/// A seed that failed and its layer: `29 (1)`.
fn failed(text: &str) -> Option<(u64, u8)> {
    let (seed, layer) = text.strip_suffix(')')?.split_once(" (")?;
    Some((seed.parse().ok()?, layer.parse().ok()?))
}

/// The page with the table.
#[derive(Debug)]
pub struct Ledger {
    place: PathBuf,
    before: String,
    rows: Vec<Row>,
    after: String,
}

impl Ledger {
    /// Reads the page.
    ///
    /// # Errors
    /// It cannot be read, or has no table.
    pub fn open(place: &Path) -> Result<Self, String> {
        let told = |what: &dyn std::fmt::Display| format!("{}: {what}", place.display());
        let text = std::fs::read_to_string(place).map_err(|error| told(&error))?;
        let mut ledger = Self {
            place: place.to_owned(),
            before: String::new(),
            rows: Vec::new(),
            after: String::new(),
        };
        let mut inside = false;
        for line in text.lines() {
            let row = inside.then(|| Row::read(line)).flatten();
            let part = match ledger.after.is_empty() && (!inside || line.starts_with('|')) {
                true => &mut ledger.before,
                false => &mut ledger.after,
            };
            match row {
                Some(row) => ledger.rows.push(row),
                None => {
                    part.push_str(line);
                    part.push('\n');
                }
            }
            inside |= line.starts_with("| ---");
        }
        match inside {
            true => Ok(ledger),
            false => Err(told(&"there is no table for the rows")),
        }
    }

    /// The first seed behind those of all sittings; none: there was no sitting.
    #[must_use]
    pub fn next_seed(&self) -> Option<u64> {
        let ends = self
            .rows
            .iter()
            .map(|row| row.first.saturating_add(row.seeds));
        ends.max()
    }

    /// Hours on processors that `code` has been run for, and the seeds in which it failed.
    #[must_use]
    pub fn of(&self, code: &str) -> (f64, Vec<(u64, u8)>) {
        let rows = self.rows.iter().filter(|row| row.code == code);
        let hours = rows
            .clone()
            .map(|row| row.core_hours)
            .fold(0.0, |sum, more| sum + more);
        (hours, rows.flat_map(|row| row.broken.clone()).collect())
    }

    /// Puts the row of a sitting into the page, in place of what it said of itself before.
    ///
    /// # Errors
    /// The page cannot be written.
    pub fn put(&mut self, row: &Row) -> Result<(), String> {
        self.rows.retain(|old| old.first != row.first);
        self.rows.push(row.clone());
        let rows: Vec<String> = self.rows.iter().map(Row::line).collect();
        let text = format!("{}{}\n{}", self.before, rows.join("\n"), self.after);
        // a page that is half written would lose the sittings before
        let fresh = self.place.with_extension("new");
        std::fs::write(&fresh, text)
            .and_then(|()| std::fs::rename(&fresh, &self.place))
            .map_err(|error| format!("{}: {error}", self.place.display()))
    }
}

/// Names the code that is judged, in the checkout at `root`: a hash of its files.
///
/// # Errors
/// A file cannot be read.
pub fn code(root: &Path) -> Result<String, String> {
    let mut files = Vec::new();
    for folder in JUDGED {
        list(&root.join(folder), &mut files)?;
    }
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let bytes = std::fs::read(&file).map_err(|error| told(&file, &error))?;
        let name = file.strip_prefix(root).unwrap_or(&file);
        all.extend_from_slice(name.to_string_lossy().as_bytes());
        all.extend_from_slice(&Hash::of(&bytes).0);
    }
    Ok(Hash::of(&all).to_string()[..12].to_owned())
}

fn list(folder: &Path, out: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = std::fs::read_dir(folder).map_err(|error| told(folder, &error))?;
    for entry in entries {
        let path = entry.map_err(|error| told(folder, &error))?.path();
        if path.is_dir() {
            list(&path, out)?;
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            out.push(path);
        }
    }
    Ok(())
}

fn told(place: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", place.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(code: &str, first: u64) -> Row {
        Row {
            code: code.to_owned(),
            first,
            seeds: 100,
            core_hours: 0.25,
            attempts: 7,
            agent_hours: 12.0,
            faults: 3,
            medians: (500, 3, 6),
            broken: vec![(first + 1, 2), (first + 5, 1)],
        }
    }

    #[test]
    fn rows_are_read_as_they_were_written() {
        for broken in [vec![], vec![(4, 1)], vec![(4, 1), (9, 2)]] {
            let row = Row {
                broken,
                ..row("abc", 3)
            };
            assert_eq!(Row::read(&row.line()), Some(row));
        }
        assert_eq!(Row::read("| code | seeds |"), None);
    }

    #[test]
    fn a_ledger_keeps_the_page_around_its_rows_and_sums_up_by_code() {
        let place = std::env::temp_dir().join(format!("ledger-{}.md", std::process::id()));
        std::fs::write(&place, "# C\n\n| code |\n| --- |\n\nbugs\n").unwrap();
        let mut ledger = Ledger::open(&place).unwrap();
        assert_eq!(ledger.next_seed(), None);
        ledger.put(&row("a", 0)).unwrap();
        ledger.put(&row("b", 100)).unwrap();
        ledger.put(&row("b", 200)).unwrap();
        ledger.put(&row("b", 200)).unwrap();
        let ledger = Ledger::open(&place).unwrap();
        let text = std::fs::read_to_string(&place).unwrap();
        std::fs::remove_file(&place).unwrap();
        assert_eq!(ledger.next_seed(), Some(300));
        let (hours, broken) = ledger.of("b");
        assert!((hours - 0.5).abs() < 1e-9);
        assert_eq!(broken.len(), 4);
        assert!(
            text.starts_with("# C\n\n| code |\n| --- |\n| `a` |"),
            "{text}"
        );
        assert!(text.ends_with("|\n\nbugs\n"), "{text}");
        assert_eq!(text.lines().count(), 9);
    }

    #[test]
    fn the_code_is_named_by_what_is_in_its_files() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        assert_eq!(code(&root).unwrap(), code(&root).unwrap());
        assert!(code(Path::new("/nowhere")).unwrap_err().contains("nowhere"));
    }
}
