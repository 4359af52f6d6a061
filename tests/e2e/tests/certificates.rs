//! Certificates in the field: renewed while tasks run, after they expired, and never for a node
//! that a person shut out.

#![expect(clippy::unwrap_used, reason = "a test ends with its first surprise")]

use e2e::fleet::{Fleet, HOLD, output, program};
use serde_json::Value;
use std::fs;

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
    fleet.wait("the end of the certificate", || {
        let now = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap()
            .as_millis() as i64;
        (now > last + 1000).then_some(())
    });
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
    fleet.wait("the end of the grace period", || {
        let now = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap()
            .as_millis() as i64;
        (now > last + 2000).then_some(())
    });
    fleet.start_agent(0);
    logged(
        &fleet,
        "gw-0",
        "the certificate has expired and could not be renewed",
    );
    logged(&fleet, "coordinator", "the certificate expired at");
    fleet.wait_node(0, "offline");
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
