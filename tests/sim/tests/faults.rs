//! `docs/faults.md` and the failure modes of the simulator say the same; every test that a row
//! names is there, and every row has something of its own that meets it.

#![expect(clippy::unwrap_used, reason = "a test ends with its first surprise")]

use sim::modes::{self, Met, Mode};
use sim::report::ENOUGH;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("../../../docs/faults.md");

/// The cells of each row that begins with a number.
fn rows() -> BTreeMap<u32, Vec<&'static str>> {
    let rows = PAGE.lines().filter_map(|line| {
        let cells = line.strip_prefix("| ")?.strip_suffix(" |")?;
        let cells: Vec<&str> = cells.split(" | ").collect();
        Some((cells[0].parse().ok()?, cells))
    });
    rows.collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What is wrong with the count of a row.
fn wrong_count(mode: &Mode, cell: &str) -> Option<String> {
    let Met::Seeds(_) = mode.met else {
        let wanted = mode.count(0, 0);
        return (cell != wanted).then(|| format!("{cell}, not {wanted}"));
    };
    let words: Vec<&str> = cell.split(' ').collect();
    let [met, "of", seeds, "seeds"] = words[..] else {
        return Some(format!("'{cell}' is no count of seeds"));
    };
    let (met, seeds): (u64, u64) = (met.parse().unwrap(), seeds.parse().unwrap());
    let good = met > 0 && met <= seeds && seeds >= ENOUGH;
    (!good).then(|| format!("{met} of {seeds} seeds is not enough"))
}

#[test]
fn each_failure_mode_has_its_row_and_each_row_its_mode() {
    let rows = rows();
    let numbers: Vec<u32> = modes::ALL.iter().map(|mode| mode.number).collect();
    assert_eq!(numbers, (1..=38).collect::<Vec<u32>>());
    assert!(rows.keys().eq(&numbers), "{:?}", rows.keys());
    for mode in modes::ALL {
        let row = &rows[&mode.number];
        let [_, what, _, met, guards, count] = row[..] else {
            panic!("six cells: {row:?}");
        };
        assert!(what.starts_with(mode.title), "{} is {what}", mode.number);
        assert_eq!(met, mode.met_by(), "{}", mode.number);
        assert_eq!(guards, mode.guarded_by(), "{}", mode.number);
        assert_eq!(wrong_count(mode, count), None, "{}", mode.number);
    }
}

#[test]
fn no_two_failure_modes_are_met_by_the_same() {
    let mut seen = BTreeSet::new();
    for mode in modes::ALL {
        let own: Vec<&str> = match mode.met {
            Met::Seeds(kinds) => kinds.iter().map(|kind| kind.text()).collect(),
            Met::Test(_, name) => vec![name],
            Met::Later(what) => vec![what],
        };
        assert!(!own.is_empty(), "{} is met by nothing", mode.number);
        for one in own {
            assert!(seen.insert(one), "{} shares {one}", mode.number);
        }
    }
}

#[test]
fn every_test_and_every_invariant_that_is_named_is_there() {
    for mode in modes::ALL {
        for guard in mode.guards {
            let known = sim::check::ALL.iter().any(|(name, _)| name == guard);
            assert!(known, "{}: no invariant {guard}", mode.number);
        }
        let judged = !mode.guards.is_empty();
        assert_eq!(judged, matches!(mode.met, Met::Seeds(_)), "{}", mode.number);
        if let Met::Test(file, name) = mode.met {
            let text = fs::read_to_string(root().join(file)).unwrap();
            let there = text.contains(&format!("#[test]\nfn {name}() {{"));
            assert!(there, "{}: no test {name} in {file}", mode.number);
        }
    }
}

#[test]
fn the_page_says_of_each_invariant_what_it_says_of_itself() {
    let page = fs::read_to_string(root().join("docs/simulation.md")).expect("a page");
    for (name, definition) in sim::check::ALL {
        let row = |layer: &str| format!("| `{name}` | {layer}{definition} |");
        let told = page.contains(&row("")) || page.contains(&row("(layer 3) "));
        assert!(told, "the row of {name} is not: {definition}");
    }
}

#[test]
fn the_counts_of_a_run_are_written_into_their_rows() {
    let counts = BTreeMap::from([(1, 7), (38, 300)]);
    let page = modes::filled(PAGE, &counts, 300).unwrap();
    let line = |number: &str| page.lines().find(|line| line.starts_with(number)).unwrap();
    assert!(line("| 1 |").ends_with("| 7 of 300 seeds |"));
    assert!(line("| 2 |").ends_with("| 0 of 300 seeds |"));
    assert!(line("| 3 |").ends_with("| each run |"));
    assert!(line("| 38 |").ends_with("| 300 of 300 seeds |"));
    assert_eq!(page.lines().count(), PAGE.lines().count());
    assert!(modes::filled("no table", &counts, 300).is_err());
}
