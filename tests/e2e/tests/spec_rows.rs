//! The table of fields in `docs/spec.md` and the tests that it names belong together: none is
//! missing on either side.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The tests that the table names.
fn named() -> BTreeSet<String> {
    let rows = include_str!("../../../docs/spec.md");
    let cells = rows.split("tests/e2e: `").skip(1);
    cells
        .filter_map(|cell| Some(cell.split_once('`')?.0.to_owned()))
        .collect()
}

/// The tests of fields in the sources of this package.
fn written() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("the sources are there") {
        let path = entry.expect("a folder can be listed").path();
        let text = fs::read_to_string(path).expect("sources are text");
        for test in text.split("\n#[test]\nfn ").skip(1) {
            let name = test.split_once('(').expect("a function has parameters").0;
            if name.starts_with("spec_field_") {
                assert!(found.insert(name.to_owned()), "{name} is there twice");
            }
        }
    }
    found
}

#[test]
fn each_row_of_the_specification_has_its_test_and_each_test_its_row() {
    let (named, written) = (named(), written());
    assert!(named.len() > 50, "the table could not be read: {named:?}");
    let missing: Vec<_> = named.difference(&written).collect();
    let unnamed: Vec<_> = written.difference(&named).collect();
    assert!(missing.is_empty(), "rows without their test: {missing:?}");
    assert!(unnamed.is_empty(), "tests without a row: {unnamed:?}");
}
