//! The coordinator's logs and its store, with the real program: exported and verified while it
//! runs, when it is stopped and from a backup; one byte that was changed is found and named.

use e2e::agent::{stderr, stdout};
use e2e::fleet::{Fleet, output, program};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Output;

/// Stands in one fact of the gateway only.
const WHY: &str = "because-of-the-unmistakable-reason";

fn driftless(args: &[&str], path: &Path) -> Output {
    output(program("driftless").args(args).arg(path))
}

fn parsed(output: &Output) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).expect("each line is JSON");
    stdout(output).lines().map(parse).collect()
}

/// A coordinator with one gateway, which has cancelled a run of its own.
fn fleet() -> Fleet {
    let fleet = Fleet::start(&[&[]]);
    let spec = fleet.spec("name: own\ntasks: {a: {shell: sleep 100}}\n");
    let text = spec.to_str().expect("a path of text");
    let run = fleet.agent_json(0, &["submit", text]).remove(0);
    let run = run["id"].as_str().expect("an id").to_owned();
    let _ = fleet.wait_local(0, "a", "running");
    // Small batches are stored as they are, larger ones packed: wait until all before it is there.
    fleet.wait_delivered(0);
    let cancelled = fleet.agent_cli(0, &["cancel", &run, "--reason", WHY]);
    assert!(cancelled.status.success(), "{}", stderr(&cancelled));
    fleet.wait_delivered(0);
    fleet
}

fn holds(verdicts: &[Value]) {
    let logs: Vec<&str> = verdicts
        .iter()
        .filter_map(|one| one["log"].as_str())
        .collect();
    assert_eq!(logs.first(), Some(&"fact"), "{verdicts:?}");
    assert!(
        logs.contains(&"event") && logs.contains(&"audit"),
        "{logs:?}"
    );
    assert!(
        verdicts.iter().all(|one| one["broken"].is_null()),
        "{verdicts:?}"
    );
    assert!(verdicts[0]["last"].as_u64() > Some(3), "{verdicts:?}");
    assert_eq!(verdicts[0]["name"], "gw-0");
}

#[test]
fn the_logs_are_the_same_running_stopped_and_in_a_backup_and_a_changed_byte_is_named() {
    let mut fleet = fleet();
    holds(&fleet.json(&["journal", "verify"]));
    let mut there = program("driftless-agent");
    let there = output(
        there
            .args(["journal", "verify", "--data"])
            .arg(fleet.agent_data(0)),
    );
    let said = stdout(&there);
    assert!(
        said.starts_with("facts 1 to ") && said.contains(": as written"),
        "{said}"
    );
    let running = fleet.json(&["journal", "export"]);
    let said = |lines: &[Value]| -> Vec<u64> {
        let mine = lines.iter().filter(|line| line.to_string().contains(WHY));
        mine.filter(|line| line["log"] == "fact")
            .filter_map(|line| line["number"].as_u64())
            .collect()
    };
    let numbers = said(&running);
    assert_eq!(numbers.len(), 1, "{running:?}");
    let backup = fleet.base().join("one.backup");
    let made = fleet.cli(&["backup", "create", backup.to_str().expect("a path of text")]);
    assert!(made.status.success(), "{}", stderr(&made));
    holds(&parsed(&driftless(
        &["journal", "verify", "--json"],
        &backup,
    )));
    fleet.stop_agent(0);
    fleet.stop_coordinator();
    let stopped = driftless(&["journal", "export", "--json", "--data"], &fleet.data());
    assert_eq!(said(&parsed(&stopped)), numbers, "{}", stderr(&stopped));
    holds(&parsed(&driftless(
        &["journal", "verify", "--json", "--data"],
        &fleet.data(),
    )));

    let path = fleet.data().join("store.redb");
    let mut bent = fs::read(&path).expect("a store");
    let found: Vec<usize> = (0..bent.len() - WHY.len())
        .filter(|at| bent[*at..].starts_with(WHY.as_bytes()))
        .collect();
    assert!(!found.is_empty());
    for at in found {
        bent[at] ^= 1;
    }
    fs::write(&path, &bent).expect("the test's directory can be written");
    let verdict = driftless(&["journal", "verify", "--json", "--data"], &fleet.data());
    assert_eq!(verdict.status.code(), Some(1), "{}", stdout(&verdict));
    let facts = parsed(&verdict).remove(0);
    let broken = facts["broken"].as_str().expect("it is broken");
    let last = facts["last"].as_u64().expect("a number");
    let named = (numbers[0]..=last).any(|n| broken.contains(&n.to_string()));
    assert!(named && broken.contains("is not the one"), "{facts}");
    let checked = driftless(&["store", "check", "--json", "--data"], &fleet.data());
    assert_eq!(checked.status.code(), Some(1), "{}", stdout(&checked));
    assert!(
        fs::read(&path).expect("a store") == bent,
        "looking changes nothing"
    );
}

#[test]
fn the_store_of_a_stopped_coordinator_is_checked_and_becomes_small() {
    let mut fleet = fleet();
    for what in ["check", "compact"] {
        let refused = fleet.cli(&["store", what]);
        assert_eq!(refused.status.code(), Some(5), "{}", stderr(&refused));
    }
    fleet.stop_coordinator();
    let checked = fleet.json(&["store", "check"]);
    let states: Vec<&Value> = checked.iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["ok", "ok", "ok", "ok"], "{checked:?}");
    let done = fleet.json(&["store", "compact"]).remove(0);
    assert!(done["after"].as_u64() <= done["before"].as_u64(), "{done}");
    let checked = fleet.cli(&["store", "check"]);
    assert!(checked.status.success(), "{}", stdout(&checked));
    fleet.start_coordinator();
    fleet.wait_online(0);
    let nothing = driftless(&["store", "check", "--data"], &fleet.base().join("nothing"));
    assert_eq!(nothing.status.code(), Some(3), "{}", stderr(&nothing));
}
