//! A campaign on a small workspace whose mutants have known verdicts: killed by a test, by a seed,
//! without an end, alive, refused by the compiler.

use mutants::campaign::{self, Wanted};
use mutants::find::Id;
use mutants::ledger::Verdict;
use mutants::project::{Package, Project};
use std::fs;
use std::path::Path;
use std::time::Duration;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).expect("is copied")),
        }
    }
}

fn small(root: &Path) -> Project {
    copy(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/small"),
        root,
    );
    let (name, folder, judges) = (
        "small-core".to_owned(),
        "core".to_owned(),
        vec!["small-core".to_owned(), "small-sim".to_owned()],
    );
    Project {
        root: root.to_owned(),
        output: root.join("target/mutants"),
        packages: vec![Package {
            name,
            folder,
            judges,
        }],
        checks: vec!["core/".to_owned(), "sim/".to_owned()],
        left_out: Vec::new(),
        simulator: Some("small-sim".to_owned()),
        patience: Duration::from_secs(2),
    }
}

fn wanted(root: &Path, sample: usize) -> Wanted {
    Wanted {
        sample,
        seed: 1,
        only: None,
        sim_seeds: 3,
        jobs: 2,
        again: false,
        keep: false,
        told: false,
        explained: root.join("survivors.toml"),
    }
}

/// The verdict of a mutant, by its function and what stands for the code.
fn verdict<'a>(judged: &'a [(Id, Verdict)], function: &str, after: &str) -> &'a Verdict {
    let is = |id: &Id| id.function == function && id.after == after;
    let found = judged.iter().find(|(id, _)| is(id));
    let names: Vec<String> = judged.iter().map(|(id, _)| id.to_string()).collect();
    &found
        .unwrap_or_else(|| panic!("no {function} {after} in {names:#?}"))
        .1
}

#[test]
fn each_mutant_gets_the_verdict_that_it_must_get() {
    let folder = tempfile::tempdir().expect("a folder");
    let project = small(folder.path());
    let wanted = wanted(folder.path(), 100);
    let outcome = campaign::run(&project, &wanted).expect("runs");
    let judged = outcome.judged();
    let by_test = |program: &str, test: &str| Verdict::Test {
        program: format!("small-core::{program}"),
        test: test.to_owned(),
    };
    let of = |function: &str, after: &str| verdict(judged, function, after).clone();

    assert_eq!(
        of("is_large", "return true"),
        by_test("small_core", "tests::far_from_the_limit")
    );
    assert_eq!(of("sum", "return 1"), by_test("sums", "sums_are_right"));
    let limit = Verdict::Simulator {
        seed: 3,
        invariant: "limit".to_owned(),
    };
    assert_eq!(of("is_large", "number >= 100"), limit);
    assert!(matches!(
        of("sum", "left += 1"),
        Verdict::Timeout { .. } | Verdict::Test { .. }
    ));
    assert!(matches!(
        of("sum", "left >= 0"),
        Verdict::Timeout { .. } | Verdict::Test { .. }
    ));
    assert_eq!(
        of("never", "return 0"),
        Verdict::Survived { tests: 0, seeds: 0 }
    );
    assert_eq!(
        of("is_large", "101"),
        Verdict::Survived { tests: 1, seeds: 1 }
    );

    // refused by the compiler, in a constant function, planted, in tests
    for function in ["name", "asleep", "planted::on", "tests::another_one"] {
        assert!(
            judged.iter().all(|(id, _)| id.function != function),
            "{function}"
        );
    }

    let falls_short = |sample: usize| {
        let told = Wanted {
            sample,
            told: true,
            ..wanted.clone()
        };
        let short = campaign::run(&project, &told).expect("is told").short();
        short.iter().any(|what| what.contains("were asked for"))
    };
    let all = judged.len();
    assert!(falls_short(100), "there are not so many mutants");
    assert!(
        !falls_short(all),
        "what the compiler refused has others in its place"
    );
    assert!(!outcome.short().is_empty());

    // the sample that is told is that of the code as it is now
    let source = folder.path().join("core/src/lib.rs");
    let text = fs::read_to_string(&source).expect("is read");
    fs::write(&source, text.replace("fn never", "fn nobody")).expect("is written");
    assert!(falls_short(all), "mutants of the new name have no verdict");
}
