//! The units under systemd itself, with all their hardening: installed, started, crashed, stuck,
//! stopped, removed.

use e2e::agent::wait_for;
use e2e::systemd::Systemd;
use std::fs;

const COORDINATOR: &str = "driftless-coordinator";
const AGENT: &str = "driftless-agent";

/// Both installed by the installer, which starts them by systemd; the watchdog is short.
fn installed() -> Option<Systemd> {
    let systemd = Systemd::boot()?;
    for unit in [AGENT, COORDINATOR] {
        let dir = systemd
            .sandbox()
            .path(&format!("etc/systemd/system/{unit}.service.d"));
        fs::create_dir_all(&dir).expect("the sandbox can be written");
        let short = "[Service]\nWatchdogSec=4s\n";
        fs::write(dir.join("short.conf"), short).expect("the sandbox can be written");
    }
    let install = "/src/install.sh";
    let any = ["--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"];
    let from = ["--from", "/src/built"];
    let told = systemd.succeeds(&[&[install, "coordinator"], &from[..], &any[..]].concat());
    assert!(told.contains("driftless-coordinator runs"), "{told}");
    let token = systemd.succeeds(&["driftless", "token", "create", "--name", "gw-1"]);
    fs::write(systemd.sandbox().path("token"), token).expect("the sandbox can be written");
    let at = systemd.succeeds(&["cat", "/var/lib/driftless/coordinator/quic.addr"]);
    let config = systemd.sandbox().path("etc/driftless/coordinator.toml");
    let text = fs::read_to_string(&config).expect("it was installed");
    fs::write(&config, text.replacen("127.0.0.1:0", &at, 1)).expect("the sandbox can be written");
    let who = [
        "--name",
        "gw-1",
        "--coordinator",
        &at,
        "--token-file",
        "/token",
    ];
    let told = systemd.succeeds(&[&[install, "agent"], &from[..], &who[..]].concat());
    assert!(told.contains("driftless-agent runs"), "{told}");
    Some(systemd)
}

fn main_process(systemd: &Systemd, unit: &str) -> String {
    systemd.property(unit, "MainPID")
}

/// Waits until systemd has started a unit anew so often and it is ready.
fn wait_restarts(systemd: &Systemd, unit: &str, times: &str) {
    wait_for(&format!("{times} restarts of {unit}"), || {
        let is = |name: &str, value: &str| systemd.property(unit, name) == value;
        (is("NRestarts", times) && is("ActiveState", "active")).then_some(())
    });
}

/// How many processes have this command line.
fn count(line: &str) -> usize {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|found| found == line.as_bytes()).count()
}

#[test]
fn both_units_start_restart_watch_and_stop() {
    let Some(systemd) = installed() else {
        return;
    };
    let spec = "name: f\ntasks: {one: {shell: 'id -un; grep NoNewPrivs /proc/self/status'}}\n";
    fs::write(systemd.sandbox().path("flow.yaml"), spec).unwrap();
    let run = systemd.succeeds(&["driftless", "submit", "/flow.yaml"]);
    let _ = systemd.succeeds(&["driftless", "run", "wait", &run, "--timeout", "1m"]);
    let wrote = systemd.succeeds(&["driftless", "task", "logs", &run, "one"]);
    assert_eq!(wrote, "driftless-agent\nNoNewPrivs:\t1");

    // A task with a process of another session: nothing of it may be left by a crash or a stop.
    // The number tells them from those of other tests.
    let seconds = (1_000_000 + std::process::id()).to_string();
    let long = format!("setsid sleep {seconds} & sleep {seconds}");
    let long = format!("name: f\ntasks: {{one: {{shell: '{long}'}}}}\n");
    fs::write(systemd.sandbox().path("long.yaml"), long).unwrap();
    let _ = systemd.succeeds(&["driftless", "submit", "/long.yaml"]);
    let line = format!("sleep\0{seconds}\0");
    let begun = || wait_for("the task", || (count(&line) == 2).then_some(()));
    begun();
    let before = main_process(&systemd, AGENT);
    let _ = systemd.succeeds(&["kill", "-KILL", &before]);
    wait_restarts(&systemd, AGENT, "1");
    begun();
    for unit in [AGENT, COORDINATOR] {
        let status = systemd.property(unit, "StatusText");
        assert!(!status.is_empty(), "{unit} tells how it is");
    }

    // Stuck processes are ended by the watchdog and started anew.
    for (unit, times) in [(AGENT, "2"), (COORDINATOR, "1")] {
        let stuck = main_process(&systemd, unit);
        let _ = systemd.succeeds(&["kill", "-STOP", &stuck]);
        wait_restarts(&systemd, unit, times);
    }
    begun();
    let _ = systemd.succeeds(&["systemctl", "stop", AGENT, COORDINATOR]);
    assert_eq!(count(&line), 0);
    for unit in [AGENT, COORDINATOR] {
        assert_eq!(systemd.property(unit, "Result"), "success", "{unit}");
    }
    let _ = systemd.succeeds(&["/src/install.sh", "remove", "--purge"]);
    assert_eq!(systemd.property(AGENT, "LoadState"), "not-found");
}
