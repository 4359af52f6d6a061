//! What is wrong is refused with its reason and changes nothing.

use e2e::agent::{stderr, stdout, wait_for};
use e2e::fleet::{Fleet, output, program, serve_args};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Output};

/// An agent that must end by itself: its exit code and what it said.
fn agent(data: &Path, args: &[&str]) -> (Option<i32>, String) {
    let ended = output(
        program("driftless-agent")
            .arg("run")
            .arg("--data")
            .arg(data)
            .args(args),
    );
    (ended.status.code(), stderr(&ended))
}

fn enrol(fleet: &Fleet, data: &Path, name: &str, token: &str) -> (Option<i32>, String) {
    let coordinator = fleet.listen().to_string();
    agent(
        data,
        &[
            "--coordinator",
            &coordinator,
            "--token",
            token,
            "--name",
            name,
        ],
    )
}

/// A process that is gone with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_wrong_a_reused_and_an_expired_token_enrol_nobody() {
    let fleet = Fleet::enrolling(&[]);
    let data = fleet.base().join("refused");
    let cases = [
        ("malformed", "nonsense".to_owned(), "token"),
        ("for another name", fleet.token(&["--name", "gw-8"]), "gw-8"),
        ("expired", fleet.token(&["--expires", "1ms"]), "expired"),
        ("of another fleet", Fleet::enrolling(&[]).token(&[]), ""),
    ];
    for (what, token, says) in cases {
        let (code, said) = enrol(&fleet, &data, "gw-7", &token);
        assert!(code.is_some_and(|code| code > 0), "{what}: {code:?} {said}");
        assert!(
            said.contains(says) && !said.contains(&token),
            "{what}: {said}"
        );
        assert!(
            !data.join("identity.json").exists(),
            "{what} left an identity"
        );
    }
    assert_eq!(fleet.json(&["node", "list"]).len(), 0);
}

#[test]
fn a_token_enrols_one_node_once() {
    let fleet = Fleet::enrolling(&[]);
    let token = fleet.token(&[]);
    let (first, second) = (fleet.base().join("first"), fleet.base().join("second"));
    let mut command = program("driftless-agent");
    command.args(["run", "--name", "gw-1", "--token", &token, "--coordinator"]);
    command
        .arg(fleet.listen().to_string())
        .arg("--data")
        .arg(&first);
    let running = Running(command.spawn().unwrap());
    fleet.wait("the first agent", || {
        fleet
            .json(&["node", "list"])
            .into_iter()
            .find(|node| node["state"] == "online")
    });
    let (code, said) = enrol(&fleet, &second, "gw-2", &token);
    drop(running);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("used"), "{said}");
    assert_eq!(fleet.json(&["node", "list"]).len(), 1);
}

#[test]
fn two_agents_do_not_share_a_directory() {
    let fleet = Fleet::start(&[&[]]);
    let (code, said) = agent(fleet.agent_data(0), &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("another agent runs on"), "{said}");
}

fn serve(data: &Path, listen: SocketAddr, api: SocketAddr) -> Output {
    output(program("driftless").args(serve_args(data, listen, api)))
}

#[test]
fn a_busy_port_a_directory_in_use_and_a_foreign_one_stop_a_coordinator_at_once() {
    let fleet = Fleet::enrolling(&[]);
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let (udp, tcp) = (
        UdpSocket::bind(any).unwrap(),
        TcpListener::bind(any).unwrap(),
    );
    let (udp, tcp) = (
        udp.local_addr().map(|at| (at, udp)),
        tcp.local_addr().map(|at| (at, tcp)),
    );
    let (busy_udp, busy_tcp) = (udp.unwrap(), tcp.unwrap());
    let foreign = fleet.base().join("home");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("photo"), b"").unwrap();
    let fresh = |name: &str| fleet.base().join(name);
    for (what, ended, says) in [
        (
            "udp",
            serve(&fresh("a"), busy_udp.0, any),
            busy_udp.0.to_string(),
        ),
        (
            "tcp",
            serve(&fresh("b"), any, busy_tcp.0),
            busy_tcp.0.to_string(),
        ),
        (
            "in use",
            serve(&fleet.data(), any, any),
            "another coordinator runs on".to_owned(),
        ),
        ("foreign", serve(&foreign, any, any), "photo".to_owned()),
    ] {
        assert_eq!(ended.status.code(), Some(1), "{what}: {}", stderr(&ended));
        assert!(stderr(&ended).contains(&says), "{what}: {}", stderr(&ended));
    }
    assert_eq!(
        fleet.json(&["run", "list"]).len(),
        0,
        "the one that runs is untouched"
    );
}

#[test]
fn a_specification_with_mistakes_is_refused_whole() {
    let fleet = Fleet::enrolling(&[]);
    let cycle = "name: c\ntasks:\n  a: {needs: [b], shell: x}\n  b: {needs: [a], shell: x}\n";
    let writers = "name: w\ntasks:\n  a: {shell: x, outputs: [o]}\n  b: {shell: x, outputs: [o]}\n";
    let outside = "name: o\ntasks:\n  a: {shell: x, outputs: [../../etc/passwd]}\n";
    let unknown = "name: u\ntasks:\n  a: {shel: x}\n";
    for (spec, says) in [
        (cycle, "a → b → a"),
        (writers, "written by task 'a'"),
        (outside, "leaves the attempt's directory"),
        (unknown, "did you mean"),
        ("name: [", "not YAML"),
    ] {
        let refused = fleet.try_submit(spec, &[]);
        assert_eq!(
            refused.status.code(),
            Some(6),
            "{spec}: {}",
            stderr(&refused)
        );
        let said = stdout(&refused);
        assert!(said.contains(says), "{spec}: {said}");
        let first = said.lines().next().unwrap_or_default();
        let mistake: serde_json::Value = serde_json::from_str(first).unwrap();
        assert!(
            mistake["line"].as_u64().is_some_and(|line| line > 0),
            "{said}"
        );
    }
    assert_eq!(fleet.json(&["run", "list"]).len(), 0);
}

#[test]
fn work_that_fits_nowhere_waits_and_says_so() {
    let fleet = Fleet::start(&[&["--cpus", "1"]]);
    let run = fleet.submit("name: big\ntasks:\n  a: {shell: 'true', resources: {cpu: 64}}\n");
    let said = wait_for("an explanation", || {
        let explained = fleet.json(&["task", "explain", &run, "a"]).remove(0);
        Some(explained.to_string())
            .filter(|text| text.contains("does_not_fit") || text.contains("cpu"))
    });
    assert!(said.contains("64"), "{said}");
    assert_eq!(fleet.task(&run, "a")["attempts"], 0);
}
