//! What the programs tell a service manager, what the units say, and a reboot of a machine on which
//! both are installed.

use e2e::agent::{Gateway, stderr, wait_for};
use e2e::fleet::{output, program, serve_args};
use e2e::sandbox::{Sandbox, Service};
use e2e::unit::{Notices, Unit};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A process that is gone with this.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("a built program can be started"))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("a child can be signalled");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Started as a service: ready once, then alive as often as asked, then stopping.
fn tells_its_state(command: &mut Command, socket: &std::path::Path, headline: &str) {
    let notices = Notices::listen(socket);
    command
        .env("NOTIFY_SOCKET", socket)
        .env("WATCHDOG_USEC", "400000");
    let mut service = Running::start(command);
    notices.wait("WATCHDOG=1", 3);
    let told = notices.all();
    let at = |line: &str| told.iter().position(|told| told == line);
    assert_eq!(notices.count("READY=1"), 1, "{told:?}");
    assert!(told.iter().any(|line| line.contains(headline)), "{told:?}");
    assert!(at("STOPPING=1").is_none(), "{told:?}");
    service.signal(Signal::STOP);
    // what was on its way arrives before the count
    std::thread::sleep(Duration::from_millis(100));
    let before = notices.count("WATCHDOG=1");
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(notices.count("WATCHDOG=1"), before, "it does not turn");
    service.signal(Signal::CONT);
    notices.wait("WATCHDOG=1", before + 1);
    service.signal(Signal::TERM);
    notices.wait("STOPPING=1", 1);
    let ended = wait_for("the end", || service.0.try_wait().ok()?);
    assert_eq!(ended.code(), Some(0));
}

#[test]
fn both_say_when_they_are_ready_alive_and_stopping() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("notify");
    let mut agent = program("driftless-agent");
    agent.args(["run", "--name", "gw-1", "--data"]);
    agent.arg(dir.path().join("agent"));
    tells_its_state(&mut agent, &socket, "STATUS=link: alone, 0 tasks run");
    let any = "127.0.0.1:0".parse().unwrap();
    let mut coordinator = program("driftless");
    coordinator.args(serve_args(&dir.path().join("coordinator"), any, any));
    tells_its_state(&mut coordinator, &socket, "STATUS=0 nodes are connected");
}

#[test]
fn who_cannot_start_is_never_ready() {
    let dir = tempfile::tempdir().unwrap();
    let notices = Notices::listen(&dir.path().join("notify"));
    let data = dir.path().join("other");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("somebody's file"), "").unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let mut agent = program("driftless-agent");
    agent.args(["run", "--name", "gw-1", "--data"]).arg(&data);
    let mut coordinator = program("driftless");
    coordinator.args(serve_args(&data, any, any));
    for mut command in [agent, coordinator] {
        let ended = output(command.env("NOTIFY_SOCKET", notices.path()));
        assert_eq!(ended.status.code(), Some(1), "{}", stderr(&ended));
    }
    assert_eq!(notices.all(), Vec::<String>::new());
}

#[test]
fn tasks_do_not_speak_to_the_service_manager() {
    let dir = tempfile::tempdir().unwrap();
    let notices = Notices::listen(&dir.path().join("notify"));
    let mut gateway = Gateway::new(&[]);
    gateway.set_env("NOTIFY_SOCKET", notices.path());
    gateway.start();
    let _ = gateway.succeeds("name: f\ntasks: {one: {shell: 'env > @M/env'}}");
    let env = gateway.mark("env");
    assert!(
        env.contains("DRIFTLESS_") && !env.contains("NOTIFY"),
        "{env}"
    );
}

#[test]
fn units_say_what_the_programs_need() {
    for (name, binary) in [
        ("driftless-agent", "driftless-agent"),
        ("driftless-coordinator", "driftless"),
    ] {
        let unit = Unit::ours(name);
        let line = unit.command_line();
        assert_eq!(line[0], format!("/usr/local/bin/{binary}"));
        assert_ne!(unit.service("User"), "root", "{name}");
        assert!(!unit.service("User").is_empty(), "{name}");
        assert_eq!(unit.service("Restart"), "always");
        assert_eq!(
            unit.get("Unit", "StartLimitIntervalSec"),
            "0",
            "it never gives up"
        );
        assert_eq!(unit.get("Install", "WantedBy"), "multi-user.target");
        assert!(
            unit.span("WatchdogSec") >= Duration::from_secs(60),
            "disks stall"
        );
    }
    let agent = Unit::ours("driftless-agent");
    // `stop_grace` is 5 s, and the agent gives a stop 15 s more before it leaves at once
    assert!(agent.span("TimeoutStopSec") > Duration::from_secs(20));
    assert_eq!(
        agent.service("OOMPolicy"),
        "continue",
        "a task's end is not the agent's"
    );
    assert!(
        !agent.get("Unit", "After").contains("online"),
        "no network is waited for"
    );
}

/// A user that is not root, for children of tests that are.
const SOMEBODY: u32 = 54_321;

/// A gateway whose agent is not root, whoever the test is.
fn gateway_of_somebody(args: &[&str]) -> (Gateway, u32) {
    let mut gateway = Gateway::new(args);
    let own = rustix::process::geteuid();
    if !own.is_root() {
        return (gateway, own.as_raw());
    }
    gateway.set_user(SOMEBODY);
    (gateway, SOMEBODY)
}

#[test]
fn tasks_of_an_agent_that_is_not_root_run_as_the_agent() {
    let (mut gateway, user) = gateway_of_somebody(&[]);
    gateway.start();
    let _ = gateway.succeeds("name: f\ntasks: {one: {shell: 'id -u > @M/user'}}");
    assert_eq!(gateway.mark("user").trim(), user.to_string());
    let check = gateway.command(&["check"]);
    let text = e2e::agent::stdout(&check);
    let wanted = format!("they run as the agent's own user, {user}");
    assert!(text.contains(&wanted), "{text}");
}

#[test]
fn another_user_is_refused_where_the_agent_cannot_become_it() {
    let (gateway, user) = gateway_of_somebody(&["--run-as", "12:34"]);
    let refused = gateway.start_refused();
    let told = stderr(&refused);
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(told.contains("tasks cannot run as user 12"), "{told}");
    let mut check = gateway.program();
    check.args(["check", "--data"]).arg(gateway.data());
    check.env("DRIFTLESS_AGENT_CONFIG", "/dev/null");
    check.env("DRIFTLESS_AGENT_TASKS_RUN_AS", "12:34");
    let checked = output(&mut check);
    let text = e2e::agent::stdout(&checked);
    assert_eq!(checked.status.code(), Some(1), "{text}");
    let wanted = format!("they shall run as user 12, and the agent is user {user}");
    assert!(text.contains(&wanted), "{text}");
}

#[test]
fn a_specification_cannot_choose_a_user() {
    let gateway = Gateway::started(&[]);
    for field in ["user", "run_as"] {
        let spec = format!("name: f\ntasks: {{one: {{command: 'true', {field}: root}}}}");
        let told = gateway.refused(&spec, &[]);
        assert!(told.contains("cannot choose a user"), "{told}");
        assert!(told.contains("tasks.run_as"), "{told}");
    }
}

/// A sandbox with both installed and enrolled, on ports of its own; both run.
fn install_both(sandbox: &Sandbox) -> (Service<'_>, Service<'_>) {
    let _ = sandbox.succeeds(&[
        "/src/install.sh",
        "coordinator",
        "--from",
        "/src/built",
        "--listen",
        "127.0.0.1:0",
        "--api",
        "127.0.0.1:0",
    ]);
    let mut coordinator = Service::installed(sandbox, "driftless-coordinator");
    coordinator.start();
    let token = sandbox.succeeds(&["driftless", "token", "create", "--name", "gw-1", "--json"]);
    let token: Value = serde_json::from_str(&token).expect("a token as JSON");
    let said = format!("{}\n", token["token"].as_str().expect("a token as JSON"));
    std::fs::write(sandbox.path("root-token"), said).expect("the test's directory can be written");
    // From now on where it is now: gateways know this address.
    let at = std::fs::read_to_string(sandbox.path("var/lib/driftless/coordinator/quic.addr"));
    let at = at.expect("it can be read").trim().to_owned();
    let config = sandbox.path("etc/driftless/coordinator.toml");
    let text = std::fs::read_to_string(&config).expect("it can be read");
    std::fs::write(&config, text.replacen("127.0.0.1:0", &at, 1))
        .expect("the test's directory can be written");
    let _ = sandbox.succeeds(&[
        "/src/install.sh",
        "agent",
        "--from",
        "/src/built",
        "--name",
        "gw-1",
        "--coordinator",
        &at,
        "--token-file",
        "/root-token",
        "--label",
        "site=plant-3",
    ]);
    let mut agent = Service::installed(sandbox, "driftless-agent");
    agent.start();
    (coordinator, agent)
}

fn wait_run(sandbox: &Sandbox, run: &str, state: &str) {
    wait_for(&format!("the run to be {state}"), || {
        let shown = sandbox.run(&["driftless", "run", "get", run, "--json"]);
        let shown: Value = serde_json::from_slice(&shown.stdout).ok()?;
        (shown["state"] == state).then_some(())
    });
}

#[test]
fn a_reboot_brings_both_back_and_a_run_goes_on() {
    let Some(sandbox) = Sandbox::new() else {
        return;
    };
    let (mut coordinator, mut agent) = install_both(&sandbox);
    assert!(
        !sandbox.path("var/lib/driftless-agent/token").exists(),
        "it is used up"
    );
    let marks = sandbox.path("var/marks");
    std::fs::create_dir(&marks).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(&marks, open).unwrap();
    let spec = "name: f\ntasks:\n  first: {shell: 'echo x >> /var/marks/first'}\n  \
                second: {needs: [first], shell: 'echo x >> /var/marks/second; \
                while ! [ -e /var/marks/go ]; do sleep 0.05; done'}\n  \
                third: {needs: [second], shell: 'id -un > /var/marks/third'}\n";
    std::fs::write(sandbox.path("flow.yaml"), spec).unwrap();
    let run = sandbox.succeeds(&["driftless", "submit", "/flow.yaml"]);
    let run = run.trim();
    wait_for("the second task", || {
        marks.join("second").exists().then_some(())
    });

    sandbox.cut_power();
    coordinator.is_without_power();
    agent.is_without_power();
    std::fs::write(marks.join("go"), "").unwrap();
    // The gateway is up first, and does not wait for anybody.
    agent.start();
    wait_for("the third task without a coordinator", || {
        marks.join("third").exists().then_some(())
    });
    coordinator.start();
    wait_run(&sandbox, run, "succeeded");
    let lines = |name: &str| std::fs::read_to_string(marks.join(name)).unwrap();
    assert_eq!(lines("first"), "x\n", "what was done is not done again");
    assert_eq!(lines("second"), "x\nx\n");
    assert_eq!(lines("third"), "driftless-agent\n");
}

#[test]
fn a_crash_a_restart_and_a_stop_follow_the_units() {
    let Some(sandbox) = Sandbox::new() else {
        return;
    };
    let (mut coordinator, mut agent) = install_both(&sandbox);
    for service in [&coordinator, &agent] {
        service.notices().wait("WATCHDOG=1", 2);
    }
    let spec = "name: f\ntasks: {long: {shell: 'echo x >> /tmp/long; sleep 600'}}";
    std::fs::write(sandbox.path("flow.yaml"), spec).unwrap();
    let _ = sandbox.succeeds(&["driftless", "submit", "/flow.yaml"]);
    let begun = |times: usize| {
        wait_for(&format!("the task to begin {times} times"), || {
            let text = std::fs::read_to_string(sandbox.path("tmp/long")).ok()?;
            (text.lines().count() == times).then_some(())
        });
    };
    begun(1);
    let store = "var/lib/driftless-agent/store.redb";
    assert_eq!(
        sandbox.owner_and_mode(store).1,
        0o600,
        "it holds tasks' environments"
    );
    let as_of_the_first_release = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(sandbox.path(store), as_of_the_first_release).unwrap();
    for service in [&mut coordinator, &mut agent] {
        service.signal(Signal::KILL);
        assert!(!service.wait_end().success());
        assert_eq!(service.unit().service("Restart"), "always");
        service.start();
    }
    begun(2);
    assert_eq!(sandbox.owner_and_mode(store).1, 0o600);
    for service in [&mut agent, &mut coordinator] {
        service.signal(Signal::TERM);
        assert!(service.wait_end().success(), "{}", service.log());
        service.notices().wait("STOPPING=1", 1);
    }
    sandbox.cut_power();
}
