//! A first start that is killed at any moment: the next one goes on, with the same command line, as
//! a service manager does it. The moments are spread over the whole start; whichever of them is
//! hit, it must go on.

use e2e::agent::Gateway;
use e2e::fleet::{Fleet, program};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// A process that is gone with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(command: &mut Command) -> Running {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Running(command.spawn().expect("a built program can be started"))
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn an_agent_that_is_killed_during_its_first_start_goes_on() {
    for n in 0..30 {
        let mut gateway = Gateway::new(&["--cpus", "1"]);
        gateway.start_silently();
        sleep(Duration::from_micros(n * 700));
        gateway.kill();
        let left = names(gateway.data());
        gateway.start();
        let run = gateway.succeeds("name: first\ntasks: {one: {command: 'true'}}");
        gateway.kill();
        gateway.start();
        let ended = gateway.json(&["ps", "--all"]);
        assert_eq!(
            ended.len(),
            1,
            "{run:?}, {n}: after the kill there was {left:?}"
        );
        let left = names(gateway.data());
        for name in ["identity.next", "store.new"] {
            assert!(!left.iter().any(|l| l == name), "{n}: {left:?}");
        }
    }
}

#[test]
fn a_start_goes_on_behind_the_identity_that_was_announced() {
    let mut gateway = Gateway::started(&["--cpus", "1"]);
    gateway.stop();
    let at = |name: &str| gateway.data().join(name);
    let identity = std::fs::read(at("identity.json")).unwrap();
    std::fs::rename(at("identity.json"), at("identity.next")).unwrap();
    std::fs::rename(at("store.redb"), at("store.new")).unwrap();
    let half = std::fs::File::options().write(true).open(at("store.new"));
    half.unwrap().set_len(5000).unwrap();
    gateway.start();
    let _ = gateway.succeeds("name: first\ntasks: {one: {command: 'true'}}");
    let data = gateway.data();
    assert_eq!(std::fs::read(data.join("identity.json")).unwrap(), identity);
}

#[test]
fn an_enrolment_that_is_killed_anywhere_is_ended_by_the_next_start_with_its_token() {
    let fleet = Fleet::enrolling(&[]);
    let coordinator = fleet.listen().to_string();
    for n in 0..25 {
        let name = format!("new-{n}");
        let token = fleet.token(&["--name", &name]);
        let agent = || {
            let mut command = program("driftless-agent");
            command.args(["run", "--coordinator", &coordinator, "--redial-max", "1"]);
            command.args(["--token", &token, "--name", &name, "--data"]);
            command.arg(fleet.base().join(&name));
            start(&mut command)
        };
        let first = agent();
        sleep(Duration::from_millis(n * 4));
        drop(first);
        let left = names(&fleet.base().join(&name));
        let again = agent();
        fleet.wait(&format!("{name} online; there was {left:?}"), || {
            let nodes = fleet.json(&["node", "list"]);
            nodes
                .into_iter()
                .find(|node| node["name"] == *name && node["state"] == "online")
        });
        drop(again);
    }
    assert_eq!(fleet.json(&["node", "list"]).len(), 25, "each one once");
}

#[test]
fn a_coordinator_that_is_killed_during_its_first_start_goes_on() {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    for n in 0..25 {
        let base = tempfile::tempdir().unwrap();
        let data = base.path().join("coordinator");
        let serve = || start(program("driftless").args(e2e::fleet::serve_args(&data, any, any)));
        let first = serve();
        sleep(Duration::from_millis(n * 3));
        drop(first);
        let left = names(&data);
        // A coordinator that was killed may have said where it was.
        let _ = std::fs::remove_file(data.join("api.addr"));
        let _again = serve();
        let answers = || {
            let mut list = program("driftless");
            list.args(["node", "list", "--data"]).arg(&data);
            e2e::fleet::output(&mut list).status.success().then_some(())
        };
        e2e::agent::wait_for(&format!("an answer; there was {left:?}"), answers);
    }
}
