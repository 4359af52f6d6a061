//! `driftless demo`, as people and scripts run it: it keeps its promises, its figures notice a
//! loss, and whatever way it ends it leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use e2e::agent::{binary, stderr, stdout, wait_for};
use e2e::fleet::{output, program};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// The demo with everything of it below `dir`.
fn demo(dir: &Path, args: &[&str]) -> Command {
    let mut command = program("driftless");
    command.arg("demo").args(args).env("TMPDIR", dir);
    command
}

fn directory() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// Runs it to its end; the object of its last line.
fn figures(dir: &Path, args: &[&str]) -> Value {
    let ended = output(&mut demo(dir, args));
    assert_eq!(
        ended.status.code(),
        Some(0),
        "{}\n{}",
        stdout(&ended),
        stderr(&ended)
    );
    serde_json::from_str(stdout(&ended).lines().last().unwrap_or_default()).unwrap()
}

fn number(object: &Value, path: &str) -> u64 {
    object
        .pointer(path)
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("{path}: {object}"))
}

fn check(object: &Value) {
    let n = |path: &str| number(object, path);
    assert_eq!(
        (
            n("/runs/submitted"),
            n("/runs/succeeded"),
            n("/runs/failed")
        ),
        (1, 1, 0)
    );
    assert!(n("/tasks/total") >= 40, "{object}");
    assert!(n("/tasks/finished_offline") >= 15, "{object}");
    assert!(n("/tasks/following_offline") >= 5, "{object}");
    assert!(n("/tasks/started_after_restart") >= 3, "{object}");
    assert!(n("/outcomes/recorded") >= n("/tasks/total"), "{object}");
    assert_eq!(n("/outcomes/recorded"), n("/outcomes/received"), "{object}");
    assert_eq!(n("/outcomes/received"), n("/outcomes/applied"), "{object}");
    assert!(n("/outcomes/duplicates_ignored") >= 1, "{object}");
    assert_eq!(n("/outcomes/lost"), 0, "{object}");
    assert_eq!(
        (n("/faults/links_cut"), n("/faults/agents_killed")),
        (2, 1),
        "{object}"
    );
    let seconds = |path: &str| object.pointer(path).and_then(Value::as_f64).unwrap();
    assert!(seconds("/offline_seconds") > 0.0);
    assert!(seconds("/offline_seconds") < seconds("/elapsed_seconds"));
    let report = fs::read_to_string(object["report"].as_str().unwrap()).unwrap();
    assert_eq!(report.matches("2010-03-14 03:00").count(), 2, "{report}");
}

/// Processes that work below `dir`, or were told of it.
fn processes(dir: &Path) -> Vec<String> {
    let name = dir.display().to_string();
    let entries = fs::read_dir("/proc")
        .unwrap()
        .filter_map(Result::ok)
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.parse::<u32>().is_ok())
        });
    let told = entries.filter_map(|entry| {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let works = fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        (works || command.contains(&name)).then_some(command)
    });
    told.collect()
}

fn left(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().filter_map(Result::ok);
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn the_demo_loses_nothing_and_its_figures_notice_a_loss() {
    let dir = directory();
    let kept = dir.path().join("kept");
    let object = figures(
        dir.path(),
        &["--json", "--keep", &kept.display().to_string()],
    );
    check(&object);
    assert_eq!(processes(dir.path()), Vec::<String>::new());
    let again = |args: &[&str]| {
        let mut command = program("driftless");
        command
            .arg("demo-figures")
            .arg("--coordinator")
            .arg(kept.join("coordinator"));
        for agent in ["gw-seattle", "gw-sf", "gw-daily"] {
            command.arg("--agent").arg(kept.join(agent));
        }
        let ended = output(
            command
                .arg("--relay")
                .arg(kept.join("relay.jsonl"))
                .args(args),
        );
        assert!(ended.status.success(), "{}", stderr(&ended));
        serde_json::from_str::<Value>(&stdout(&ended)).unwrap()
    };
    assert_eq!(again(&[])["outcomes"], object["outcomes"]);
    let less = again(&["--remove-one"]);
    assert_eq!(number(&less, "/outcomes/lost"), 1);
    assert_eq!(
        number(&less, "/outcomes/received") + 1,
        number(&object, "/outcomes/received")
    );
    assert_eq!(
        number(&less, "/outcomes/recorded"),
        number(&object, "/outcomes/recorded")
    );
}

#[test]
fn the_demo_runs_with_the_slim_agent_and_leaves_only_its_report() {
    let dir = directory();
    let agent = binary("driftless-agent").display().to_string();
    let object = figures(dir.path(), &["--json", "--agent-bin", &agent]);
    check(&object);
    assert_eq!(processes(dir.path()), Vec::<String>::new());
    assert_eq!(left(dir.path()), ["driftless-demo-report.txt"]);
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    let dir = directory();
    let mut running = demo(dir.path(), &[]).spawn().unwrap();
    wait_for("work on a gateway", || {
        let tasks = processes(dir.path())
            .iter()
            .filter(|command| command.contains("sleep"))
            .count();
        (tasks > 0).then_some(())
    });
    kill_process(Pid::from_child(&running), Signal::INT).unwrap();
    let ended = wait_for("the end of the demo", || running.try_wait().ok()?);
    assert_eq!(ended.code(), Some(1));
    assert_eq!(processes(dir.path()), Vec::<String>::new());
    assert_eq!(left(dir.path()), Vec::<String>::new());
}

#[test]
fn a_demo_that_is_killed_takes_its_processes_along() {
    let dir = directory();
    let mut running = demo(dir.path(), &[]).spawn().unwrap();
    wait_for("all agents", || {
        (processes(dir.path()).len() >= 5).then_some(())
    });
    running.kill().unwrap();
    running.wait().unwrap();
    wait_for("the end of all processes", || {
        processes(dir.path()).is_empty().then_some(())
    });
}

#[test]
fn the_example_is_what_its_generator_writes() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples/weather");
    let written = output(Command::new("sh").arg("generate.sh").current_dir(&example));
    let kept = fs::read_to_string(example.join("weather.yaml")).unwrap();
    assert!(
        stdout(&written) == kept,
        "run `sh generate.sh > weather.yaml` in {}",
        example.display()
    );
}

#[test]
fn a_demo_that_cannot_begin_says_why() {
    let dir = directory();
    fs::write(dir.path().join("something"), b"").unwrap();
    let kept = dir.path().display().to_string();
    for (args, says) in [
        (["--keep", kept.as_str()], "not empty"),
        (["--agent-bin", "/no/such/agent"], "/no/such/agent"),
        (
            ["--report", "/no/such/folder/report"],
            "/no/such/folder/report",
        ),
    ] {
        let ended = output(&mut demo(dir.path(), &args));
        assert_eq!(ended.status.code(), Some(2), "{}", stderr(&ended));
        assert!(stderr(&ended).contains(says), "{}", stderr(&ended));
    }
    assert_eq!(left(dir.path()), ["something"]);
}
