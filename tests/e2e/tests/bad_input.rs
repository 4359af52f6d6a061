//! What is wrong is refused with its reason and changes nothing.

use e2e::agent::{Gateway, stderr, stdout, wait_for};
use e2e::fleet::{Fleet, output, program, serve_args};
use shared::codec;
use shared::limits::WORKFLOW_BYTES;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Output, Stdio};

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
        (
            "of another fleet",
            Fleet::enrolling(&[]).token(&[]),
            "fingerprint",
        ),
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
fn a_busy_port_or_a_directory_that_cannot_be_its_own_stops_a_coordinator_at_once() {
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
    let newer = fleet.base().join("newer");
    std::fs::create_dir(&newer).unwrap();
    std::fs::write(newer.join("format"), "driftless coordinator 99\n").unwrap();
    let file = fleet.base().join("file");
    std::fs::write(&file, "").unwrap();
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
        ("newer", serve(&newer, any, any), "layout 99".to_owned()),
        (
            "below a file",
            serve(&file.join("data"), any, any),
            "the data directory".to_owned(),
        ),
        (
            // Not even root may make a directory there.
            "unwritable",
            serve(Path::new("/proc/self/data"), any, any),
            "the data directory".to_owned(),
        ),
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

/// A file that has no end, or is as large as a disk image, must not fill the memory.
#[test]
fn a_specification_of_100_mb_or_without_an_end_is_refused_by_its_size() {
    let fleet = Fleet::start(&[&[]]);
    let large = fleet.base().join("large.yaml");
    let file = std::fs::File::create(&large).unwrap();
    file.set_len(100_000_000).unwrap();
    let (coordinator, gateway) = (fleet.data(), fleet.agent_data(0));
    for path in [&large, Path::new("/dev/zero")] {
        for (name, command, data) in [
            ("driftless", "lint", None),
            ("driftless", "graph", None),
            ("driftless", "submit", Some(coordinator.as_path())),
            ("driftless-agent", "submit", Some(gateway)),
        ] {
            let mut asked = program(name);
            asked.arg(command).arg(path);
            if let Some(data) = data {
                asked.arg("--data").arg(data);
            }
            let ended = output(&mut asked);
            let said = stderr(&ended);
            assert_eq!(ended.status.code(), Some(1), "{name} {command}: {said}");
            assert!(
                said.contains("more than 32 MiB"),
                "{name} {command}: {said}"
            );
        }
    }
    assert_eq!(fleet.json(&["run", "list"]).len(), 0);
    assert_eq!(fleet.local_tasks(0).len(), 0);
}

#[test]
fn what_is_no_quic_at_all_disturbs_no_coordinator() {
    let fleet = Fleet::start(&[&[]]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut state = 5u64;
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    for size in (0..1500).step_by(7) {
        let mut packet: Vec<u8> = (0..size).map(|_| random()).collect();
        if let Some(first) = packet.first_mut() {
            // every other one looks like a long header
            *first |= if size % 2 == 0 { 0xc0 } else { 0 };
        }
        // A full buffer of the system is no matter here.
        let _ = socket.send_to(&packet, fleet.listen());
    }
    let run = fleet.submit("name: goes-on\ntasks: {one: {command: 'true'}}");
    let _ = fleet.wait_run(&run, "succeeded");
}

#[test]
fn a_certificate_of_another_fleet_is_refused_and_local_work_goes_on() {
    let (ours, theirs) = (Fleet::enrolling(&[]), Fleet::start(&[&[]]));
    let data = theirs.base().join("moved");
    let mut theirs = theirs;
    theirs.stop_agent(0);
    std::fs::rename(theirs.agent_data(0), &data).unwrap();
    let mut command = program("driftless-agent");
    command.args(["run", "--redial-max", "1", "--coordinator"]);
    command
        .arg(ours.listen().to_string())
        .arg("--data")
        .arg(&data);
    let _running = Running(command.spawn().unwrap());
    let status = wait_for("the trouble of the link", || {
        let mut command = program("driftless-agent");
        command.args(["status", "--json", "--data"]).arg(&data);
        let said = stdout(&output(&mut command));
        let status: serde_json::Value = serde_json::from_str(&said).ok()?;
        status["trouble"].is_string().then_some(status)
    });
    let trouble = status["trouble"].to_string();
    assert!(trouble.contains("certificate"), "{status}");
    let spec = theirs.base().join("local.yaml");
    std::fs::write(&spec, "name: local\ntasks: {one: {command: 'true'}}").unwrap();
    let mut submit = program("driftless-agent");
    submit.arg("submit").arg(&spec).arg("--data").arg(&data);
    assert!(output(&mut submit).status.success());
    assert_eq!(ours.json(&["node", "list"]).len(), 0);
}

/// The status that a request without a client's help is answered with.
fn post(api: &str, path: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(api).expect("it can be done");
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {api}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream
        .write_all(&[head.as_bytes(), body].concat())
        .expect("it can be done");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it can be done");
    answer
}

/// The most memory that a process had, in MiB.
fn peak(process: &Child) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("it can be done");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = line
        .expect("it can be done")
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("it can be done");
    kib >> 10
}

/// Four kilobytes that are 128 MiB: whoever may use the API must not fill the memory with them.
#[test]
fn few_of_many_workflows_that_come_at_once_are_unpacked_at_once() {
    let base = tempfile::tempdir().unwrap();
    let (data, any) = (
        base.path().join("coordinator"),
        "127.0.0.1:0".parse().unwrap(),
    );
    let mut command = program("driftless");
    command
        .args(serve_args(&data, any, any))
        .stderr(Stdio::null());
    let running = Running(command.spawn().unwrap());
    let api = wait_for("the coordinator", || {
        let text = std::fs::read_to_string(data.join("api.addr")).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    });
    let bomb = codec::compress(&vec![0; WORKFLOW_BYTES]);
    assert!(bomb.len() < 20_000, "{} bytes", bomb.len());
    let (at, body) = (&api, &bomb);
    std::thread::scope(|scope| {
        for path in ["/v1/runs", "/v1/plan", "/v1/schedules"] {
            for _ in 0..16 {
                scope.spawn(move || {
                    let answer = post(at, path, body);
                    let refused = ["HTTP/1.1 400", "HTTP/1.1 503"];
                    assert!(refused.iter().any(|s| answer.starts_with(s)), "{answer}");
                });
            }
        }
    });
    let peak = peak(&running.0);
    assert!(peak < 1000, "{peak} MiB");
    let answer = post(&api, "/v1/schedules", &bomb);
    assert!(
        answer.contains("cannot be decompressed within 16777216 bytes"),
        "{answer}"
    );
}

#[test]
fn mistakes_are_objects_at_a_gateway_too() {
    let gateway = Gateway::started(&[]);
    let refused = gateway.try_submit("name: u\ntasks:\n  a: {shel: x}\n", &[]);
    assert_eq!(refused.status.code(), Some(6), "{}", stderr(&refused));
    let said = stdout(&refused);
    let mistake: serde_json::Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!(mistake["line"], 3, "{said}");
    assert!(said.contains("did you mean 'shell'?"), "{said}");
}

#[test]
fn a_gateway_reads_a_specification_from_standard_input() {
    let gateway = Gateway::started(&[]);
    let mut command = program("driftless-agent");
    command
        .args(["submit", "-", "--json", "--data"])
        .arg(gateway.data());
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let spec = "name: piped\ntasks: {one: {command: 'true'}}";
    child
        .stdin
        .take()
        .unwrap()
        .write_all(spec.as_bytes())
        .unwrap();
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", stderr(&ended));
    let run: serde_json::Value = serde_json::from_str(&stdout(&ended)).unwrap();
    let _ = gateway.settled(run["id"].as_str().unwrap());
}

#[test]
fn what_is_not_there_is_told_with_what_to_do() {
    let fleet = Fleet::enrolling(&[]);
    let spec = fleet.spec("name: nightly\nschedule: {every: 1d}\ntasks: {a: {command: 'true'}}");
    let made = fleet.cli(&["schedule", "create", spec.to_str().unwrap()]);
    assert!(made.status.success(), "{}", stderr(&made));
    let _ = fleet.json(&["access", "create", "--role", "viewer", "--name", "display"]);
    let there = fleet.base().join("letter");
    std::fs::write(&there, "no backup").unwrap();
    let there = there.to_str().unwrap();
    for (args, code, says) in [
        (
            &["schedule", "get", "nihgtly"][..],
            3,
            "did you mean nightly?",
        ),
        (
            &["schedule", "next", "zebra"],
            3,
            "`driftless schedule list`",
        ),
        (&["access", "revoke", "dispaly"], 3, "did you mean display?"),
        (&["access", "revoke", "zebra"], 3, "`driftless access list`"),
        (
            &["events", "--after", "99999"],
            5,
            "after=0 begins with the oldest",
        ),
        (&["backup", "create", there], 5, "name another file"),
        (&["journal", "verify", there], 5, "is not a backup"),
        (
            &["journal", "export", "/nowhere/at.all"],
            3,
            "/nowhere/at.all",
        ),
    ] {
        let refused = fleet.cli(args);
        let said = stderr(&refused);
        assert_eq!(refused.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(says), "{args:?}: {said}");
    }
    assert_eq!(std::fs::read_to_string(there).unwrap(), "no backup");
}
