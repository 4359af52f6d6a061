//! A gateway that works alone joins a fleet later: it stays the node that it is, with its runs.

use e2e::agent::{Gateway, wait_for};
use e2e::fleet::Fleet;

const SPEC: &str = "name: early\ntasks: {one: {shell: 'echo early > one.txt', outputs: [one.txt]}}";

fn is_online(fleet: &Fleet, name: &str) -> bool {
    let nodes = fleet.json(&["node", "list"]);
    nodes
        .iter()
        .any(|node| node["name"] == name && node["state"] == "online")
}

#[test]
fn a_gateway_that_worked_alone_joins_with_a_token_and_brings_its_runs() {
    let fleet = Fleet::enrolling(&[]);
    let mut gateway = Gateway::started(&["--cpus", "1"]);
    let run = gateway.succeeds(SPEC);
    gateway.stop();
    let coordinator = fleet.listen().to_string();
    let file = gateway.base().join("token");
    let path = file.display().to_string();
    let args = ["--cpus", "1", "--redial-max", "1", "--coordinator"];
    let joins = [&args[..], &[&coordinator, "--token-file", &path]].concat();

    // without the token, and with one that is refused, it works on alone
    gateway.set_args(&joins);
    gateway.start();
    assert!(gateway.agent_log().contains("does not join the fleet"));
    assert_eq!(gateway.json(&["status"])[0]["link"], "alone");
    assert_eq!(gateway.task(&run, "one")["state"], "succeeded");
    gateway.stop();
    std::fs::write(&file, fleet.token(&["--name", "another"])).unwrap();
    gateway.start();
    assert_eq!(gateway.json(&["status"])[0]["link"], "alone");
    assert!(file.exists(), "a token that was not used stays");
    gateway.stop();

    let name = "gw-1";
    std::fs::write(&file, fleet.token(&["--name", name])).unwrap();
    gateway.start();
    wait_for("the gateway online", || {
        is_online(&fleet, name).then_some(())
    });
    assert!(!file.exists(), "the token is used up");
    wait_for("its run at the coordinator", || {
        let shown = fleet.json(&["run", "list"]);
        let known = shown.iter().find(|shown| shown["id"] == *run)?;
        (known["state"] == "succeeded").then_some(())
    });
    wait_for("its output at the coordinator", || {
        let told = fleet.cli(&["task", "output", &run, "one", "one.txt"]);
        (told.status.success() && told.stdout == b"early\n").then_some(())
    });
    gateway.stop();
    gateway.set_args(&["--cpus", "1"]);
    gateway.start();
    wait_for("the gateway again", || {
        is_online(&fleet, name).then_some(())
    });
}
