//! The exchange of a fleet's authority with the real programs, while tasks run: a node that is cut
//! off meanwhile, restarts and kills at every step, a backup from in between, and clients of the
//! API.

#![expect(clippy::unwrap_used, reason = "a test ends with its first surprise")]

use e2e::agent::{stderr, stdout};
use e2e::fleet::{Fleet, HOLD, output, program};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

const ON_0: &[&str] = &["--label", "at=0"];
const ON_1: &[&str] = &["--label", "at=1"];

/// A run with a task on each of two gateways that waits for the mark `go`.
fn holding(fleet: &Fleet) -> String {
    let task = |at: usize| {
        format!("  on{at}: {{shell: '{HOLD}', placement: {{labels: {{at: \"{at}\"}}}}}}\n")
    };
    let run = fleet.submit(&format!("name: long\ntasks:\n{}{}", task(0), task(1)));
    for at in 0..2 {
        let _ = fleet.wait_task(&run, &format!("on{at}"), "running");
    }
    run
}

/// The run ends, and no task of it was begun twice.
fn ends(fleet: &Fleet, run: &str) {
    fleet.put_mark("go", "");
    let _ = fleet.wait_run(run, "succeeded");
    for at in 0..2 {
        let task = fleet.task(run, &format!("on{at}"));
        assert_eq!(task["attempts"], 1, "{task}");
    }
}

fn rotate(fleet: &Fleet, step: &[&str]) -> Value {
    let args = [&["authority", "rotate"], step].concat();
    fleet.json(&args).remove(0)
}

fn status(fleet: &Fleet) -> Value {
    rotate(fleet, &["status"])
}

/// Names of the nodes that are left.
fn left(status: &Value) -> Vec<String> {
    let left = status["left"].as_array().unwrap();
    let name = |left: &Value| left["node"].as_str().unwrap().to_owned();
    left.iter().map(name).collect()
}

fn wait_left(fleet: &Fleet, nodes: &[&str]) {
    fleet.wait(&format!("{nodes:?} alone to be left"), || {
        (left(&status(fleet)) == nodes).then_some(())
    });
}

fn logged(fleet: &Fleet, name: &str, text: &str) {
    fleet.wait(&format!("{name} to say '{text}'"), || {
        fleet.log_text(name).contains(text).then_some(())
    });
}

/// How many authorities a gateway trusts.
fn trusts(fleet: &Fleet, node: usize) -> usize {
    let path = fleet.agent_data(node).join("pki/authority.crt");
    let pem = fs::read_to_string(path).unwrap();
    pem.matches("BEGIN CERTIFICATE").count()
}

fn wait_trusts(fleet: &Fleet, node: usize, count: usize) {
    fleet.wait(&format!("gw-{node} to trust {count}"), || {
        (trusts(fleet, node) == count).then_some(())
    });
}

fn issuers(fleet: &Fleet) -> Vec<String> {
    let certs = fleet.json(&["cert", "list"]);
    let issuer = |cert: &Value| cert["authority"].as_str().unwrap().to_owned();
    certs.iter().map(issuer).collect()
}

fn says(out: &Output, text: &str) {
    let said = stderr(out) + &stdout(out);
    assert!(said.contains(text), "'{text}' in {said}");
}

fn restart_coordinator(fleet: &mut Fleet) {
    fleet.kill_coordinator();
    fleet.start_coordinator();
}

fn restart_agent(fleet: &mut Fleet, node: usize) {
    fleet.kill_agent(node);
    fleet.start_agent(node);
}

/// An agent that would enrol with this token; what it says.
fn enrol_by(fleet: &Fleet, token: &str) -> Output {
    let mut command = program("driftless-agent");
    command.args(["run", "--name", "gw-9", "--token", token, "--coordinator"]);
    command.arg(fleet.listen().to_string());
    output(command.arg("--data").arg(fleet.base().join("gw-9")))
}

/// `gw-1` is cut off; both sides start anew before and after it comes back.
fn restart_both_in_the_middle(fleet: &mut Fleet, old: &Value) {
    restart_coordinator(fleet);
    restart_agent(fleet, 0);
    fleet.wait_online(0);
    assert_eq!(left(&status(fleet)), ["gw-1"]);
    assert_eq!(&status(fleet)["authority"], old);

    restart_agent(fleet, 1);
    fleet.join(1);
    wait_left(fleet, &[]);
    restart_coordinator(fleet);
    wait_left(fleet, &[]);
    for node in 0..2 {
        fleet.wait_online(node);
    }
}

#[test]
fn a_fleet_changes_its_authority_while_it_works_and_one_node_is_away() {
    let mut fleet = Fleet::start(&[ON_0, ON_1]);
    let run = holding(&fleet);
    let old = status(&fleet)["authority"].clone();
    says(
        &fleet.cli(&["authority", "rotate", "finish"]),
        "the fleet does not change its authority",
    );
    let token = fleet.token(&["--name", "gw-9"]);

    fleet.cut(1);
    fleet.wait_node(1, "offline");
    let begun = rotate(&fleet, &["begin"]);
    let next = begun["next"].clone();
    assert_ne!(next, old);
    says(
        &fleet.cli(&["authority", "rotate", "begin"]),
        "the fleet changes its authority already",
    );
    wait_left(&fleet, &["gw-1"]);
    let waits = fleet.json(&["waits", "list"]);
    assert_eq!(
        waits[0]["command"], "driftless authority rotate status",
        "{waits:?}"
    );
    assert_eq!(trusts(&fleet, 0), 2);
    let refused = fleet.cli(&["authority", "rotate", "finish"]);
    says(
        &refused,
        "do not carry a certificate of the next authority yet: gw-1",
    );
    assert_eq!(status(&fleet)["next"], next, "nothing changed");

    restart_both_in_the_middle(&mut fleet, &old);
    let waits = fleet.json(&["waits", "list"]);
    assert_eq!(
        waits[0]["command"], "driftless authority rotate finish",
        "{waits:?}"
    );
    let done = rotate(&fleet, &["finish"]);
    assert_eq!(done["authority"], next);
    assert_eq!(
        (&done["next"], &done["void_tokens"]),
        (&Value::Null, &1.into())
    );
    for node in 0..2 {
        wait_trusts(&fleet, node, 1);
    }
    says(
        &enrol_by(&fleet, &token),
        "the fleet has changed its authority since the token was made",
    );
    restart_coordinator(&mut fleet);
    restart_agent(&mut fleet, 1);
    for node in 0..2 {
        fleet.wait_online(node);
    }
    assert_eq!(
        issuers(&fleet),
        [next.as_str().unwrap(), next.as_str().unwrap()]
    );
    ends(&fleet, &run);
    assert!(fleet.json(&["waits", "list"]).is_empty());
    let doctor = fleet.cli(&["doctor"]);
    assert_eq!(doctor.status.code(), Some(0), "{}", stdout(&doctor));
    let audit = fleet.json(&["audit", "list"]);
    for what in ["authority rotate begin", "authority rotate finish"] {
        assert!(audit.iter().any(|entry| entry["what"] == what), "{audit:?}");
    }
}

#[test]
fn who_was_away_for_the_whole_change_is_told_and_enrolled_anew() {
    let mut fleet = Fleet::start(&[ON_0, ON_1]);
    fleet.cut(1);
    fleet.wait_node(1, "offline");
    let _ = rotate(&fleet, &["begin"]);
    wait_left(&fleet, &["gw-1"]);
    let _ = rotate(&fleet, &["finish", "--force"]);
    fleet.join(1);
    logged(
        &fleet,
        "gw-1",
        "the fleet changed its authority while this node was away",
    );
    let waits = fleet.json(&["waits", "list"]);
    assert_eq!(
        waits[0]["command"], "driftless token create --replace gw-1",
        "{waits:?}"
    );
    assert_eq!(left(&status(&fleet)), ["gw-1"]);
    says(&fleet.cli(&["doctor"]), "not gw-1");
    fleet.wait_online(0);
    fleet.kill_agent(1);
    fs::rename(fleet.agent_data(1), fleet.base().join("old")).unwrap();
    fleet.start_agent(1);
    fleet.wait_online(1);
    assert!(left(&status(&fleet)).is_empty());
    assert!(fleet.json(&["waits", "list"]).is_empty());
}

/// A kill between the two renames, and one between the two writes, made by hand.
#[test]
fn a_coordinator_that_is_killed_in_the_middle_of_a_step_completes_it_or_never_began() {
    let mut fleet = Fleet::start(&[ON_0, ON_1]);
    let run = holding(&fleet);
    let file = |fleet: &Fleet, name: &str| fleet.data().join("authority").join(name);
    let old = status(&fleet)["authority"].clone();

    // begin: the key alone is there
    fleet.kill_coordinator();
    fs::copy(file(&fleet, "authority.key"), file(&fleet, "next.key")).unwrap();
    fleet.start_coordinator();
    assert_eq!(status(&fleet)["next"], Value::Null);
    let _ = rotate(&fleet, &["begin"]);
    wait_left(&fleet, &[]);
    let next = status(&fleet)["next"].clone();

    // finish: the certificate is in its place, the key is not
    fleet.kill_coordinator();
    fs::rename(file(&fleet, "next.crt"), file(&fleet, "authority.crt")).unwrap();
    fleet.start_coordinator();
    assert!(!file(&fleet, "next.key").exists());
    let found = status(&fleet);
    assert_eq!((&found["authority"], &found["next"]), (&next, &Value::Null));
    assert_ne!(found["authority"], old);
    for node in 0..2 {
        fleet.wait_online(node);
        wait_trusts(&fleet, node, 1);
    }
    ends(&fleet, &run);
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn backup(fleet: &Fleet, name: &str) -> PathBuf {
    let path = fleet.base().join(name);
    let made = fleet.cli(&["backup", "create", text(&path)]);
    assert!(made.status.success(), "{}", stderr(&made));
    path
}

/// The coordinator's directory is lost after the change, and the backup is from before its end: the
/// nodes trust the next authority alone, which the backup has.
#[test]
fn a_backup_from_the_middle_of_a_change_serves_the_fleet_again() {
    let mut fleet = Fleet::start(&[ON_0, ON_1]);
    let run = holding(&fleet);
    let _ = rotate(&fleet, &["begin"]);
    says(&fleet.cli(&["doctor"]), "which is in no backup");
    wait_left(&fleet, &[]);
    let path = backup(&fleet, "between.backup");
    says(
        &fleet.cli(&["doctor"]),
        "end it: `driftless authority rotate finish`",
    );
    let done = rotate(&fleet, &["finish"]);
    for node in 0..2 {
        wait_trusts(&fleet, node, 1);
    }
    fleet.kill_coordinator();
    fs::rename(fleet.data(), fleet.base().join("lost")).unwrap();
    let data = fleet.data();
    let restored = output(program("driftless").args([
        "backup",
        "restore",
        text(&path),
        "--data",
        text(&data),
    ]));
    assert!(restored.status.success(), "{}", stderr(&restored));
    fleet.start_coordinator();
    assert_eq!(status(&fleet)["next"], done["authority"]);
    logged(&fleet, "gw-0", "the certificate is foreign");
    // Nobody can be heard until the change ends, so what they carry now cannot be known.
    says(
        &fleet.cli(&["authority", "rotate", "finish"]),
        "not heard since the coordinator's store went back",
    );
    let again = rotate(&fleet, &["finish", "--force"]);
    assert_eq!(again["authority"], done["authority"]);
    for node in 0..2 {
        fleet.wait_online(node);
    }
    ends(&fleet, &run);
}

/// Clients of an API whose certificate the authority makes.
#[test]
fn clients_elsewhere_are_told_and_a_file_with_both_is_good_before_and_after() {
    let fleet = Fleet::serving(&["--api-tls"], &[]);
    let admin = fleet.json(&["access", "create", "--role", "admin", "--name", "a"]);
    let viewer = fleet.json(&["access", "create", "--role", "viewer", "--name", "v"]);
    let client = |ca: &Path, token: &Value, args: &[&str]| {
        let mut command = program("driftless");
        let api = format!("https://{}", fleet.api());
        command
            .args(args)
            .args(["--json", "--api", &api, "--ca", text(ca)]);
        command.env("DRIFTLESS_TOKEN", token["token"].as_str().unwrap());
        output(&mut command)
    };
    let (before, both) = (
        fleet.base().join("before.pem"),
        fleet.base().join("both.pem"),
    );
    fs::copy(fleet.data().join("authority/authority.crt"), &before).unwrap();
    let begin = ["authority", "rotate", "begin"];
    says(&client(&before, &viewer[0], &begin), "has the role");
    assert!(client(&before, &admin[0], &begin).status.success());
    let show = client(&before, &viewer[0], &["authority", "show", "--pem"]);
    fs::write(&both, &show.stdout).unwrap();
    assert_eq!(stdout(&show).matches("BEGIN CERTIFICATE").count(), 2);
    let look = ["authority", "rotate", "status"];
    assert!(client(&both, &viewer[0], &look).status.success());
    let finish = ["authority", "rotate", "finish"];
    says(&client(&both, &viewer[0], &finish), "has the role");
    assert!(client(&before, &admin[0], &finish).status.success());
    assert!(client(&both, &viewer[0], &look).status.success());
    let refused = client(&before, &viewer[0], &look);
    assert_eq!(refused.status.code(), Some(4), "{}", stderr(&refused));
    says(
        &refused,
        "where the fleet has changed its authority, copy it anew",
    );
    // commands beside the coordinator follow by themselves
    assert!(fleet.cli(&look).status.success());
}
