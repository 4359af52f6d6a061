//! Certificates in the field: renewed while tasks run, after they expired, and never for a node
//! that a person shut out.

#![expect(clippy::unwrap_used, reason = "a test ends with its first surprise")]

use e2e::fleet::{Fleet, HOLD, copy, output, program};
use serde_json::Value;
use std::fs;
use std::time::SystemTime;

const RUNS: &str = "
name: long
tasks:
  wait:
    shell: |
      HOLD
";

fn until(fleet: &Fleet, node: &str) -> i64 {
    let node = fleet.json(&["node", "get", node]).remove(0);
    node["certificate"]["until"].as_i64().unwrap_or(0)
}

fn logged(fleet: &Fleet, name: &str, text: &str) {
    fleet.wait(&format!("{name} to say '{text}'"), || {
        fleet.log_text(name).contains(text).then_some(())
    });
}

/// Waits until the wall clock shows more than these milliseconds since 1970.
fn wait_past(fleet: &Fleet, at: i64) {
    fleet.wait("the end of a certificate", || {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
        (now > at).then_some(())
    });
}

fn key(fleet: &Fleet, node: usize) -> Vec<u8> {
    fs::read(fleet.agent_data(node).join("pki/node.key")).unwrap()
}

#[test]
fn a_certificate_is_renewed_while_its_node_works_and_after_it_expired_offline() {
    let lives = ["--certificate-life", "6s", "--renewal-grace", "1h"];
    let mut fleet = Fleet::serving(&lives, &[&[]]);
    fleet.start_agent(0);
    fleet.wait_online(0);
    let run = fleet.submit(&RUNS.replace("HOLD", HOLD));
    let _ = fleet.wait_task(&run, "wait", "running");
    let (first, own) = (until(&fleet, "gw-0"), key(&fleet, 0));
    fleet.wait("a renewal", || {
        (until(&fleet, "gw-0") > first).then_some(())
    });
    logged(&fleet, "gw-0", "the certificate was renewed");
    assert_eq!(key(&fleet, 0), own, "the key stays");

    // far behind the end of its life, without a link, with a task that goes on
    fleet.cut(0);
    fleet.wait_node(0, "offline");
    logged(
        &fleet,
        "gw-0",
        "the certificate has expired and could not be renewed",
    );
    assert_eq!(fleet.local_tasks(0)["wait"]["state"], "running");
    fleet.join(0);
    fleet.wait_online(0);
    let task = fleet.task(&run, "wait");
    assert_eq!(
        (task["state"].as_str(), task["attempts"].as_u64()),
        (Some("running"), Some(0))
    );

    // the agent was off while its certificate expired
    fleet.kill_agent(0);
    let last = until(&fleet, "gw-0");
    wait_past(&fleet, last + 1000);
    fleet.start_agent(0);
    fleet.wait_online(0);
    assert!(until(&fleet, "gw-0") > last);
    fleet.put_mark("go", "");
    let _ = fleet.wait_run(&run, "succeeded");
    assert_eq!(key(&fleet, 0), own);
}

#[test]
fn a_certificate_beyond_the_grace_period_is_good_for_nothing() {
    let lives = ["--certificate-life", "3s", "--renewal-grace", "1s"];
    let mut fleet = Fleet::serving(&lives, &[&[]]);
    fleet.start_agent(0);
    fleet.wait_online(0);
    fleet.kill_agent(0);
    let last = until(&fleet, "gw-0");
    wait_past(&fleet, last + 2000);
    fleet.start_agent(0);
    logged(
        &fleet,
        "gw-0",
        "the certificate has expired and could not be renewed",
    );
    logged(&fleet, "coordinator", "the certificate expired at");
    fleet.wait_node(0, "offline");
    // a person must let it join again
    let waits = fleet.json(&["waits", "list"]);
    let wait = waits.iter().find(|wait| wait["node"] == "gw-0");
    let wait = wait.expect("it is listed");
    assert_eq!(wait["command"], "driftless token create --replace gw-0");
    assert_eq!(wait["since"].as_i64(), Some(last + 1000), "{wait}");
}

#[test]
fn who_was_forgotten_or_replaced_gets_neither_a_session_nor_a_certificate() {
    let lives = ["--certificate-life", "6s", "--renewal-grace", "1h"];
    let mut fleet = Fleet::serving(&lives, &[&[], &[]]);
    for node in 0..2 {
        fleet.start_agent(node);
        fleet.wait_online(node);
    }
    // an older copy of the coordinator's store, which a person will put back
    fleet.stop_coordinator();
    let (store, copy) = (fleet.data().join("store.redb"), fleet.base().join("copy"));
    fs::copy(&store, &copy).unwrap();
    fleet.start_coordinator();
    fleet.wait_online(0);
    let _ = fleet.json(&["node", "forget", "gw-0"]);
    logged(&fleet, "gw-0", "was declared gone by");
    logged(&fleet, "coordinator", "renewal refused");
    assert!(
        fleet
            .log_text("coordinator")
            .contains("node gw-0 was declared gone by")
    );

    // it survives a restart, and a store from before it
    fleet.stop_coordinator();
    fs::copy(&copy, &store).unwrap();
    fleet.start_coordinator();
    fleet.wait_node(0, "forgotten");
    fleet.wait_online(1);

    // a token for its name lets it in again, with what it has
    let taken = |args: &[&str]| {
        let mut command = program("driftless-agent");
        command.args(["run", "--name", "gw-1", "--coordinator"]);
        command.arg(fleet.listen().to_string()).args(args);
        command.arg("--data").arg(fleet.base().join("thief"));
        output(&mut command)
    };
    let plain = fleet.token(&["--name", "gw-1"]);
    let refused = taken(&["--token", &plain]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("token create --replace gw-1"), "{said}");
}

/// A gateway whose disk was lost is enrolled anew; what is left of the old one stays outside.
#[test]
fn the_key_of_a_replaced_gateway_is_revoked() {
    let mut fleet = Fleet::start(&[&[]]);
    let old = fleet.base().join("old");
    fleet.kill_agent(0);
    fs::rename(fleet.agent_data(0), &old).unwrap();
    fleet.start_agent(0);
    fleet.wait_online(0);
    let node = fleet.json(&["node", "get", "gw-0"]).remove(0);
    assert_eq!(node["certificate"]["revoked_keys"], 1, "{node}");
    let stolen = fleet.clone_agent("stolen", &old);
    logged(&fleet, "stolen", "the key of node gw-0 was revoked");
    drop(stolen);
    fleet.wait_online(0);
    let waits: Vec<Value> = fleet.json(&["waits", "list"]);
    assert!(waits.is_empty(), "nobody is in quarantine: {waits:?}");
}

/// A machine was replaced behind the copy of the coordinator that is put back, and its certificate
/// expired before it called again.
#[test]
fn a_gateway_that_was_replaced_behind_a_copy_renews_what_expired() {
    let lives = ["--certificate-life", "6s", "--renewal-grace", "1h"];
    let mut fleet = Fleet::serving(&lives, &[&[]]);
    fleet.start_agent(0);
    fleet.wait_online(0);
    fleet.stop_coordinator();
    let older = fleet.base().join("older");
    copy(&fleet.data(), &older);
    fleet.start_coordinator();
    fleet.kill_agent(0);
    // a certificate ends with a second, and only a younger one proves something
    wait_past(&fleet, until(&fleet, "gw-0"));
    fs::rename(fleet.agent_data(0), fleet.base().join("old")).unwrap();
    fleet.start_agent(0);
    fleet.wait_online(0);
    let (own, last) = (key(&fleet, 0), until(&fleet, "gw-0"));

    fleet.kill_agent(0);
    fleet.kill_coordinator();
    fs::rename(fleet.data(), fleet.base().join("newer")).unwrap();
    fs::rename(&older, fleet.data()).unwrap();
    fleet.start_coordinator();
    wait_past(&fleet, last + 7000);
    fleet.start_agent(0);
    logged(&fleet, "gw-0", "the certificate was renewed");
    // the copy knows another life of the node, too: a person decides, and takes its word
    let waits = fleet.wait("the quarantine", || {
        let waits = fleet.json(&["waits", "list"]);
        let told = |wait: &Value| wait.to_string().contains("is the one that counts");
        waits.iter().any(told).then_some(waits)
    });
    let told = |wait: &Value| wait.to_string().contains("another key speaks for it");
    assert!(waits.iter().any(told), "{waits:?}");
    let _ = fleet.json(&["node", "release", "gw-0"]);
    // who was refused for that calls again after minutes, or when it begins anew
    fleet.kill_agent(0);
    fleet.start_agent(0);
    fleet.wait_online(0);
    assert_eq!(key(&fleet, 0), own, "nobody enrolled it anew");
    let node = fleet.json(&["node", "get", "gw-0"]).remove(0);
    assert_eq!(node["certificate"]["revoked_keys"], 1, "{node}");
}

/// The names of what a check found, with its judgement.
fn found(lines: &str) -> Vec<(String, String)> {
    let text = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_owned();
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .map(|line| (text(&line, "check"), text(&line, "state")))
        .collect()
}

#[test]
fn a_gateway_is_checked_with_and_without_its_agent_and_its_link() {
    let lives = ["--certificate-life", "90d"];
    let mut fleet = Fleet::serving(&lives, &[&[]]);
    fleet.start_agent(0);
    fleet.wait_online(0);
    let look = |fleet: &Fleet| {
        let output = fleet.agent_cli(0, &["check"]);
        (
            output.status.code(),
            found(&String::from_utf8_lossy(&output.stdout)),
        )
    };
    let is = |found: &[(String, String)], check: &str, state: &str| {
        let pair = (check.to_owned(), state.to_owned());
        assert!(found.contains(&pair), "{check} is {state}: {found:?}");
    };
    let (code, lines) = look(&fleet);
    for check in [
        "directory",
        "clock",
        "store",
        "certificate",
        "coordinator",
        "mtu",
        "kernel",
    ] {
        is(&lines, check, "ok");
    }
    assert_eq!(code, Some(0), "{lines:?}");
    for check in ["rtc", "disk", "inodes", "cgroups", "pressure"] {
        assert!(
            lines.iter().any(|(name, _)| name == check),
            "{check}: {lines:?}"
        );
    }

    fleet.stop_coordinator();
    let (code, lines) = look(&fleet);
    is(&lines, "coordinator", "error");
    is(&lines, "store", "ok");
    assert_eq!(code, Some(1));

    fleet.kill_agent(0);
    is(&look(&fleet).1, "store", "ok");
    fs::write(fleet.agent_data(0).join("store.redb"), b"").unwrap();
    is(&look(&fleet).1, "store", "error");
    let nowhere = output(program("driftless-agent").args(["check", "--data", "/nowhere"]));
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stdout).contains("--data"));
}

#[test]
fn certificates_are_listed_by_their_end_and_shown_at_the_gateway() {
    let fleet = Fleet::start(&[&[], &[]]);
    let all = fleet.json(&["cert", "list"]);
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(
        fleet
            .json(&["cert", "list", "--expiring-within", "80d"])
            .is_empty()
    );
    assert_eq!(
        fleet
            .json(&["cert", "list", "--expiring-within", "91d"])
            .len(),
        2
    );
    let _ = fleet.json(&["node", "forget", "gw-1"]);
    assert_eq!(fleet.json(&["cert", "list"])[0]["node"], "gw-0");
    let status = fleet.agent_json(0, &["status"]).remove(0);
    assert_eq!(status["certificate"]["days_left"], 89, "{status}");
    let tokens = fleet.json(&["token", "list"]);
    assert!(
        tokens.iter().all(|token| token["state"] == "used"),
        "{tokens:?}"
    );
    let token = fleet.json(&["token", "create", "--name", "gw-9"]).remove(0);
    let id = token["id"].as_str().unwrap().to_owned();
    let void = fleet.json(&["token", "revoke", &id[..6]]).remove(0);
    assert_eq!(void["state"], "void", "{void}");
}

#[test]
fn a_coordinator_is_examined_while_it_runs_and_when_it_does_not() {
    let mut fleet = Fleet::start(&[&[]]);
    let look = |fleet: &Fleet| {
        let output = fleet.cli(&["doctor"]);
        (
            output.status.code(),
            found(&String::from_utf8_lossy(&output.stdout)),
        )
    };
    let state = |found: &[(String, String)], check: &str| {
        let line = found.iter().find(|(name, _)| name == check);
        line.map(|(_, state)| state.clone()).unwrap_or_default()
    };
    let (code, lines) = look(&fleet);
    for check in [
        "directory",
        "clock",
        "authority",
        "store",
        "coordinator",
        "nodes",
        "waits",
    ] {
        assert_eq!(state(&lines, check), "ok", "{check}: {lines:?}");
    }
    assert_eq!(code, Some(0), "{lines:?}");
    fleet.stop_coordinator();
    let (code, lines) = look(&fleet);
    assert_eq!(
        (code, state(&lines, "coordinator").as_str()),
        (Some(1), "error")
    );
    assert_eq!(state(&lines, "store"), "ok", "{lines:?}");
    fs::rename(
        fleet.data().join("authority/seal.key"),
        fleet.base().join("seal"),
    )
    .unwrap();
    assert_eq!(state(&look(&fleet).1, "authority"), "error");
    fs::write(fleet.data().join("store.redb"), b"").unwrap();
    assert_eq!(state(&look(&fleet).1, "store"), "error");
}

/// The same directory runs twice: the second one stays outside until a person decides.
#[test]
fn a_copied_directory_is_quarantined_and_released() {
    let mut fleet = Fleet::start(&[&[]]);
    fleet.stop_agent(0);
    let twin_data = fleet.base().join("copied");
    copy(fleet.agent_data(0), &twin_data);
    fleet.start_agent(0);
    fleet.wait_online(0);
    let twin = fleet.clone_agent("twin", &twin_data);
    logged(&fleet, "twin", "the coordinator refuses this agent");
    let waits = fleet.wait("the quarantine", || {
        Some(fleet.json(&["waits", "list"])).filter(|waits| !waits.is_empty())
    });
    assert_eq!(waits[0]["node"], "gw-0", "{waits:?}");
    fleet.wait_online(0);
    drop(twin);
    let _ = fleet.json(&["node", "release", "gw-0"]);
    assert!(fleet.json(&["waits", "list"]).is_empty());
}
