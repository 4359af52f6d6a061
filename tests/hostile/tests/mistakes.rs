//! The harness finds what it is there for: decoders that make each kind of mistake on purpose.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn hostile(args: &[&str], temp: &Path, keep: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hostile"));
    command.args(args).env("TMPDIR", temp);
    if args[0] != "replay" {
        command.arg("--keep").arg(keep);
    }
    command.output().expect("the program starts")
}

/// Each mistake, what is said of it, and whether its input gets smaller: what never ends does not.
const MISTAKES: &[(&str, &str, bool)] = &[
    ("mistake-panic", "panic: ", true),
    (
        "mistake-promise",
        "broken promise: it is another value",
        true,
    ),
    ("mistake-memory", "memory: ", true),
    ("mistake-greed", "it asks for more memory", true),
    ("mistake-busy", "time: ", true),
    ("mistake-sleep", "it never ends", false),
    ("mistake-abort", "the process died: ", true),
    ("mistake-depth", "the process died: ", true),
];

#[test]
fn a_campaign_fails_over_each_kind_of_mistake() {
    let home = tempfile::tempdir().expect("a directory");
    let (temp, keep) = (home.path().join("temp"), home.path().join("keep"));
    std::fs::create_dir(&temp).expect("a directory");
    for (name, text, shrinks) in MISTAKES {
        let args = [*name, "--seconds", "1", "--json", "--hang", "1500"];
        let output = hostile(&args, &temp, &keep);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(70), "{name}: {told}");
        let line: Value = serde_json::from_slice(&output.stdout).expect("a line for programs");
        let found = line[0]["failures"][0]["text"].as_str().unwrap_or_default();
        assert!(found.starts_with(text), "{name}: {found}");
        let file = line[0]["files"][0].as_str().expect("a file with the input");
        let input = std::fs::read(file).expect("the input was kept");
        assert_eq!(input, b"all is well", "{name}");
        let small = std::fs::read(Path::new(file).with_extension("small"));
        assert_eq!(
            small.is_ok_and(|small| small.is_empty()),
            *shrinks,
            "{name}"
        );
    }
    let left = std::fs::read_dir(&temp).expect("a directory").count();
    assert_eq!(
        left, 0,
        "nothing stays in the directory for what is temporary"
    );
}

#[test]
fn what_cannot_be_given_is_no_broken_promise() {
    let home = tempfile::tempdir().expect("a directory");
    let input = home.path().join("input");
    let path = input.display().to_string();
    let code = |target| {
        let output = hostile(&["replay", target, &path], home.path(), home.path());
        output.status.code()
    };
    assert_eq!(code("mistake-promise"), Some(1), "there is no such file");
    std::fs::write(&input, b"x").expect("a file");
    assert_eq!(code("mistake-promise"), Some(70));
    assert_eq!(code("no-such-target"), Some(1));
    assert_eq!(code("local-request"), Some(0));
}

#[test]
fn each_target_gets_what_was_promised_though_its_time_is_over() {
    let home = tempfile::tempdir().expect("a directory");
    let given = |bound: [&str; 2]| -> u64 {
        let args = ["fact", "spec", bound[0], bound[1], "--at-least", "50"];
        let args = [&args[..], &["--json"]].concat();
        let output = hostile(&args, home.path(), &home.path().join("keep"));
        assert!(output.status.success(), "{output:?}");
        let line: Value = serde_json::from_slice(&output.stdout).expect("a line for programs");
        let reports = line.as_array().expect("a report each");
        let mutants = reports.iter().map(|report| {
            let count = |name: &str| report[name].as_u64().expect("a number");
            count("inputs") - count("seeds")
        });
        mutants.min().expect("two targets")
    };
    assert_eq!(given(["--inputs", "1"]), 50);
    assert!(given(["--seconds", "0"]) >= 50);
}
