//! `driftless-agent sync` and the journal of a running agent, with the real programs.

use e2e::agent::{Gateway, binary, stderr, stdout};
use e2e::fleet::{Fleet, output, program};
use serde_json::Value;
use std::process::Command;

const QUICK: &str = "name: quick\ntasks:\n  one: {command: [\"true\"]}\n";

fn link(fleet: &Fleet) -> Value {
    fleet.agent_json(0, &["sync", "status"]).remove(0)
}

fn done(output: &std::process::Output) {
    assert!(output.status.success(), "{}", stderr(output));
}

#[test]
fn a_paused_link_stays_silent_over_a_restart_while_work_goes_on_and_is_shown_on_both_sides() {
    let mut fleet = Fleet::start(&[&[]]);
    fleet.wait_delivered(0);
    let up = link(&fleet);
    assert_eq!(
        (&up["link"], &up["paused"]),
        (&"online".into(), &Value::Null)
    );
    done(&fleet.agent_cli(0, &["sync", "pause"]));
    fleet.wait("the link to be paused", || {
        (link(&fleet)["link"] == "paused").then_some(())
    });
    fleet.wait_node(0, "offline");
    let node = fleet.json(&["node", "get", "gw-0"]).remove(0);
    assert!(node["sync_paused"]["by"].is_string(), "{node}");
    fleet.stop_agent(0);
    fleet.start_agent(0);
    let spec = fleet.spec(QUICK);
    let submitted = fleet.agent_cli(0, &["submit", spec.to_str().unwrap()]);
    done(&submitted);
    let _ = fleet.wait_local(0, "one", "succeeded");
    let silent = link(&fleet);
    assert_eq!(
        (&silent["link"], &silent["session"]),
        (&"paused".into(), &Value::Null)
    );
    assert!(silent["waiting"]["facts"].as_u64() > Some(0), "{silent}");
    assert!(silent["waiting"]["bytes"].as_u64() > Some(0), "{silent}");
    assert!(silent["waiting"]["oldest"].as_i64() > Some(0), "{silent}");
    assert!(
        silent["held"][0]["why"]
            .as_str()
            .unwrap()
            .contains("paused"),
        "{silent}"
    );
    let status = fleet.agent_json(0, &["status"]).remove(0);
    assert!(status["sync_paused"]["since"].is_i64(), "{status}");
    let mut plain = program("driftless-agent");
    plain.args(["sync", "status", "--data"]);
    let text = stdout(&output(plain.arg(fleet.agent_data(0))));
    assert!(text.contains("held back"), "{text}");
    done(&fleet.agent_cli(0, &["sync", "resume"]));
    fleet.wait_online(0);
    fleet.wait_delivered(0);
    let node = fleet.wait("the end of the pause to be known", || {
        let node = fleet.json(&["node", "get", "gw-0"]).remove(0);
        node["sync_paused"].is_null().then_some(node)
    });
    assert_eq!(node["state"], "online");
    // A pause of a stated length ends by itself.
    done(&fleet.agent_cli(0, &["sync", "pause", "--for", "2s"]));
    fleet.wait("the pause to be over", || {
        link(&fleet)["paused"].is_null().then_some(())
    });
    fleet.wait_online(0);
}

#[test]
fn without_a_coordinator_a_pause_is_refused() {
    let gateway = Gateway::started(&[]);
    let refused = gateway.command(&["sync", "pause"]);
    assert_eq!(refused.status.code(), Some(5), "{}", stderr(&refused));
    let wrong = gateway.command(&["sync", "pause", "--for", "soon"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", stderr(&wrong));
    let status = gateway.json(&["sync", "status"]).remove(0);
    assert_eq!(status["link"], "alone");
}

#[test]
fn the_journal_of_a_running_agent_is_the_one_that_it_leaves() {
    let mut gateway = Gateway::started(&[]);
    let _ = gateway.succeeds(QUICK);
    let verified = gateway.json(&["journal", "verify"]);
    assert_eq!(verified.len(), 2, "{verified:?}");
    assert!(
        verified.iter().all(|log| log["checked"] == true),
        "{verified:?}"
    );
    let running = gateway.json(&["journal", "export"]);
    let last = verified[0]["last"].as_u64().unwrap() as usize;
    assert!(last > 2 && running.len() >= last);
    gateway.stop();
    let output = Command::new(binary("driftless-agent"))
        .args(["journal", "export", "--data"])
        .arg(gateway.data())
        .output()
        .unwrap();
    done(&output);
    let stopped: Vec<Value> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(running[..last], stopped[..last]);
    assert_eq!(stopped[last - 1]["hash"], verified[0]["hash"]);
}
