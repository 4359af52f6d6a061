//! `store check` and `store compact` with the real programs: what was cut or changed is found and
//! told, nothing is changed by looking, and a compaction that is killed loses nothing.

use e2e::agent::{Gateway, binary, stderr, stdout};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A gateway that is stopped, with a store that held more than it does.
fn stopped() -> (Gateway, String) {
    let mut gateway = Gateway::started(&[]);
    let run = gateway.succeeds(&format!(
        "name: wide\ndescription: {}\ntasks:\n{}",
        "x".repeat(4000),
        (0..60)
            .map(|n| format!("  t{n}: {{command: [\"true\"]}}\n"))
            .collect::<String>()
    ));
    gateway.stop();
    (gateway, run)
}

fn store(gateway: &Gateway) -> PathBuf {
    gateway.data().join("store.redb")
}

fn command(gateway: &Gateway, what: &str) -> Command {
    let mut command = Command::new(binary("driftless-agent"));
    command
        .args(["store", what, "--json", "--data"])
        .arg(gateway.data());
    command
}

fn run(gateway: &Gateway, what: &str) -> Output {
    command(gateway, what).output().expect("the program runs")
}

fn lines(output: &Output) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).expect("JSON");
    stdout(output).lines().map(parse).collect()
}

/// It is whole, by all checks.
fn whole(gateway: &Gateway) {
    let output = run(gateway, "check");
    assert!(
        output.status.success(),
        "{} {}",
        stdout(&output),
        stderr(&output)
    );
    let checks: Vec<Value> = lines(&output)
        .iter()
        .map(|line| line["check"].clone())
        .collect();
    assert_eq!(checks, ["file", "facts", "directives", "state"]);
}

#[test]
fn what_was_cut_or_changed_is_found_and_nothing_is_changed_by_looking() {
    let (mut gateway, run_id) = stopped();
    whole(&gateway);
    let path = store(&gateway);
    let bytes = fs::read(&path).expect("a store");
    whole(&gateway);
    assert!(
        fs::read(&path).expect("a store") == bytes,
        "looking changed it"
    );
    // In the middle of a name that the store holds.
    let at = bytes
        .windows(6)
        .position(|window| window == b"pruned" || window == b"identi")
        .expect("a row of the store");
    let mut bent = bytes.clone();
    bent[at + 2] ^= 4;
    let half = bytes[..bytes.len() / 2].to_vec();
    for (name, spoilt) in [
        ("cut", half),
        ("emptied", Vec::new()),
        ("one bit changed", bent),
    ] {
        fs::write(&path, &spoilt).expect("the test's directory can be written");
        let output = run(&gateway, "check");
        assert_eq!(output.status.code(), Some(1), "{name}: {}", stdout(&output));
        let told = lines(&output);
        assert_eq!(told[0]["state"], "error", "{name}: {told:?}");
        let mend = told[0]["mend"].as_str().unwrap_or_default();
        assert!(mend.contains("token create --replace"), "{name}: {mend}");
        assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
        let output = run(&gateway, "compact");
        assert_eq!(output.status.code(), Some(1), "{name}: {}", stdout(&output));
        assert!(fs::read(&path).expect("a store") == spoilt, "{name}");
    }
    fs::write(&path, &bytes).expect("the test's directory can be written");
    gateway.start();
    assert_eq!(gateway.tasks(&run_id).len(), 60);
}

#[test]
fn a_store_becomes_small_and_a_running_agent_is_in_the_way() {
    let (mut gateway, run_id) = stopped();
    // as where the agent is a service, and the command is typed as root
    let given = chown(store(&gateway), Some(65_534), Some(65_534)).is_ok();
    let output = run(&gateway, "compact");
    assert!(output.status.success(), "{}", stderr(&output));
    let owner = fs::metadata(store(&gateway)).expect("a store").uid();
    assert_eq!(owner == 65_534, given);
    let done = lines(&output).remove(0);
    let size = fs::metadata(store(&gateway)).expect("a store").len();
    assert_eq!(done["after"].as_u64(), Some(size), "{done}");
    assert!(done["after"].as_u64() < done["before"].as_u64(), "{done}");
    whole(&gateway);
    gateway.start();
    for what in ["check", "compact"] {
        let output = run(&gateway, what);
        assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
        assert!(stderr(&output).contains("stop it first"));
    }
    assert_eq!(gateway.tasks(&run_id).len(), 60);
    let nothing = gateway.base().join("nothing");
    let output = Command::new(binary("driftless-agent"))
        .args(["store", "check", "--data"])
        .arg(&nothing)
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(!nothing.exists());
}

#[test]
fn a_compaction_that_is_killed_leaves_the_old_store_or_the_new_one() {
    let (mut gateway, run_id) = stopped();
    let copy = gateway.data().join("store.compact");
    let (mut killed, bytes) = (0, fs::read(store(&gateway)).expect("a store"));
    for _ in 0..50 {
        fs::write(store(&gateway), &bytes).expect("the test's directory can be written");
        let mut child = command(&gateway, "compact")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program runs");
        // Its copy is there: it is at work.
        while !copy.exists() && child.try_wait().expect("a child").is_none() {
            std::thread::yield_now();
        }
        child.kill().expect("a child");
        child.wait().expect("a child");
        killed += u32::from(copy.exists());
        whole(&gateway);
        if killed >= 3 {
            break;
        }
    }
    assert!(killed > 0, "it was never killed at work");
    gateway.start();
    assert!(!copy.exists(), "the start removes what was left behind");
    assert_eq!(gateway.tasks(&run_id).len(), 60);
}
