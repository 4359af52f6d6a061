//! Backups with the real programs: made while work goes on, restored, and what happens then; and an
//! older copy of the directory that somebody puts back without a word.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use e2e::agent::{binary, stderr, stdout};
use e2e::fleet::{Fleet, HOLD, copy, output, program};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

const ON_0: &[&str] = &["--label", "at=0"];
const ON_1: &[&str] = &["--label", "at=1"];

fn driftless(args: &[&str]) -> Output {
    output(program("driftless").args(args))
}

fn done(out: &Output) {
    assert!(out.status.success(), "{}{}", stdout(out), stderr(out));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A run that waits for the mark `go` on one gateway.
fn holding(fleet: &Fleet, name: &str, at: usize) -> String {
    let run = fleet.submit(&format!(
        "name: {name}\ndefaults: {{placement: {{labels: {{at: \"{at}\"}}}}}}\ntasks:\n  \
         a: {{shell: '{HOLD}; echo {name} > out', outputs: [out], side_effects: idempotent}}\n  \
         b: {{shell: cat out > all, inputs: [out], outputs: [all]}}"
    ));
    let _ = fleet.wait_task(&run, "a", "running");
    run
}

/// Waits until a run that the store forgot is known from its gateway.
fn known_again(fleet: &Fleet, run: &str) {
    fleet.wait("the run to be known again", || {
        fleet
            .cli(&["run", "get", run])
            .status
            .success()
            .then_some(())
    });
}

fn backup(fleet: &Fleet) -> PathBuf {
    let path = fleet.base().join("one.backup");
    done(&fleet.cli(&["backup", "create", text(&path)]));
    path
}

/// The coordinator is gone, and what it had; a backup takes its place.
fn restore(fleet: &mut Fleet, path: &Path, further: &[&str]) {
    fleet.kill_coordinator();
    fs::rename(fleet.data(), fleet.base().join("lost")).unwrap();
    let args = ["backup", "restore", text(path), "--data"];
    let data = fleet.data();
    done(&driftless(&[&args[..], &[text(&data)], further].concat()));
    fleet.start_coordinator();
}

#[test]
fn a_restored_coordinator_holds_until_all_were_heard_and_nothing_is_lost() {
    let mut fleet = Fleet::start(&[ON_0, ON_1]);
    let made = "name: made\ntasks: {a: {shell: echo made > out, outputs: [out]}}";
    let made = fleet.submit(made);
    let _ = fleet.wait_run(&made, "succeeded");
    let known = holding(&fleet, "known", 0);
    let token = fleet.token(&["--name", "gw-9"]);
    let path = backup(&fleet);
    let verified = driftless(&["backup", "verify", text(&path), "--json"]);
    done(&verified);
    let verified: serde_json::Value = serde_json::from_str(&stdout(&verified)).unwrap();
    assert_eq!(
        (&verified["nodes"], &verified["runs"]),
        (&2.into(), &2.into())
    );
    let audit = fleet.json(&["audit", "list"]);
    let who = |what: &str| &audit.iter().find(|entry| entry["what"] == what).unwrap()["who"];
    for what in ["token create", "backup read", "backup create"] {
        assert_eq!(who(what), who("submit"), "{what}: {audit:?}");
    }
    let newest = fleet.json(&["backup", "status"]).remove(0);
    assert!(newest["place"].as_str().unwrap().contains("one.backup"));

    // what the backup does not know
    let later = holding(&fleet, "later", 1);
    done(&fleet.cli(&["run", "pause", &known]));
    fleet.wait("the pause to arrive", || {
        fleet.run(&known)["requests"]
            .to_string()
            .contains("1 of 1")
            .then_some(())
    });
    fleet.cut(1);
    restore(&mut fleet, &path, &[]);

    fleet.wait_online(0);
    assert_eq!(fleet.run(&known)["state"], "held");
    let waits = fleet.json(&["waits", "list"]);
    let hold = |wait: &serde_json::Value| wait["what"].as_str().unwrap().contains("backup");
    assert!(waits.iter().any(hold), "{waits:?}");
    let enrolled = output(program("driftless-agent").args([
        "run",
        "--data",
        text(&fleet.base().join("gw-9")),
        "--name",
        "gw-9",
        "--token",
        &token,
        "--coordinator",
        &fleet.listen().to_string(),
    ]));
    assert!(!enrolled.status.success());
    assert!(stderr(&enrolled).contains("void"), "{}", stderr(&enrolled));
    assert_eq!(fleet.run(&made)["state"], "succeeded");

    fleet.join(1);
    fleet.wait_online(1);
    // a run that only its gateway knew is built again, and a pause that was forgotten holds
    known_again(&fleet, &later);
    let _ = fleet.wait_run(&later, "running");
    let _ = fleet.wait_run(&known, "paused");
    fleet.put_mark("go", "");
    let _ = fleet.wait_run(&later, "succeeded");
    let _ = fleet.wait_task(&known, "a", "succeeded");
    assert_eq!(fleet.run(&known)["state"], "paused");
    done(&fleet.cli(&["run", "resume", &known]));
    let _ = fleet.wait_run(&known, "succeeded");
    let out = fleet.cli(&["task", "output", &made, "a"]);
    assert_eq!(stdout(&out), "made\n");
    assert!(fleet.json(&["waits", "list"]).is_empty());
}

/// A task was taken from a gateway that was away and counted at another one; then a backup of
/// before comes into force, and the first one, which did the task as well, is the first that calls.
#[test]
fn what_counted_before_a_restore_counts_behind_it() {
    let mut fleet = Fleet::start(&[ON_0, ON_1]);
    fleet.cut(1);
    fleet.wait_node(1, "offline");
    let run = fleet.submit(&format!(
        "name: moved\ntasks:\n  a: {{shell: '{HOLD}; echo $DRIFTLESS_NODE > out', outputs: [out], \
         side_effects: idempotent, disconnect: {{lost_after: 1s, replace: true}}}}"
    ));
    let _ = fleet.wait_task(&run, "a", "running");
    fleet.join(1);
    fleet.wait_online(1);
    let path = backup(&fleet);
    // each is told something that the backup does not know
    let later = [holding(&fleet, "x", 0), holding(&fleet, "y", 1)];
    fleet.cut(0);
    fleet.wait("the task to be taken over", || {
        (fleet.task(&run, "a")["node"] == "gw-1").then_some(())
    });
    fleet.put_mark("go", "");
    let _ = fleet.wait_run(&run, "succeeded");
    let _ = fleet.wait_local(0, "a", "succeeded");
    fleet.cut(1);
    restore(&mut fleet, &path, &[]);

    fleet.join(0);
    fleet.wait_online(0);
    fleet.wait_delivered(0);
    assert_eq!(fleet.run(&run)["state"], "held");
    assert_ne!(fleet.task(&run, "a")["state"], "succeeded");
    fleet.join(1);
    let _ = fleet.wait_run(&run, "succeeded");
    let task = fleet.task(&run, "a");
    assert_eq!(task["node"], "gw-1", "{task}");
    for run in later {
        let _ = fleet.wait_run(&run, "succeeded");
    }
    assert!(fleet.json(&["waits", "list"]).is_empty());
}

/// Text of which packing leaves three quarters.
fn noise(seed: u64, bytes: usize) -> String {
    const LETTERS: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_.";
    let mut state = seed;
    let letter = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        char::from(LETTERS[(state >> 58) as usize])
    };
    (0..bytes).map(letter).collect()
}

/// What the gateway has does not fit into one message: 12 MiB of workflows, and many tasks.
#[test]
fn a_large_inventory_is_told_in_parts_and_ends_the_hold() {
    const RUNS: u64 = 4;
    let mut fleet = Fleet::start(&[ON_0]);
    let path = backup(&fleet);
    let axis: Vec<String> = (0..45).map(|n| n.to_string()).collect();
    let axis = axis.join(", ");
    let later: Vec<String> = (1..=RUNS)
        .map(|n| {
            let noise = noise(n, 4 << 20);
            let run = fleet.submit(&format!(
                "name: large-{n}\ndescription: '{noise}'\ntasks:\n  \
                 a: {{shell: '{HOLD}'}}\n  b: {{shell: 'true', needs: [a]}}\n  \
                 many: {{shell: 'true', needs: [b], when: 'false', \
                 matrix: {{x: [{axis}], y: [{axis}]}}}}"
            ));
            let _ = fleet.wait_task(&run, "a", "running");
            run
        })
        .collect();
    restore(&mut fleet, &path, &[]);
    let up = |fleet: &Fleet| fleet.relay().traffic(0)[0].passed_bytes;
    let before = up(&fleet);
    fleet.wait_online(0);
    for run in &later {
        known_again(&fleet, run);
        let _ = fleet.wait_run(run, "running");
    }
    let told = up(&fleet) - before;
    assert!(told > shared::limits::FRAME_BYTES as u64, "{told} bytes");
    assert!(fleet.json(&["waits", "list"]).is_empty());
    fleet.put_mark("go", "");
    for run in &later {
        let _ = fleet.wait_run(run, "succeeded");
    }
    fleet.wait_delivered(0);
}

#[test]
fn a_cancel_that_the_backup_does_not_know_is_not_forgotten_and_a_dead_gateway_is_accepted() {
    let mut fleet = Fleet::start(&[ON_0, ON_1]);
    let run = fleet.submit(&format!(
        "name: two\ntasks:\n  a: {{shell: '{HOLD}', placement: {{labels: {{at: \"0\"}}}}}}\n  \
         b: {{shell: echo b >> @M/b, needs: [a], placement: {{labels: {{at: \"0\"}}}}}}"
    ));
    let _ = fleet.wait_task(&run, "a", "running");
    let path = backup(&fleet);
    done(&fleet.cli(&["run", "cancel", &run, "--reason", "no need"]));
    let _ = fleet.wait_run(&run, "cancelled");
    fleet.kill_agent(1);
    restore(&mut fleet, &path, &["--accept", "gw-1"]);
    fleet.wait_online(0);
    let run = fleet.wait_run(&run, "cancelled");
    assert_eq!(run["waits"].as_array().unwrap().len(), 0);
    assert_eq!(fleet.mark("b"), "");
}

#[test]
fn an_older_copy_that_was_put_back_without_a_word_is_noticed_at_the_first_contact() {
    let mut fleet = Fleet::start(&[ON_0]);
    fleet.stop_coordinator();
    let older = fleet.base().join("older");
    copy(&fleet.data(), &older);
    fleet.start_coordinator();
    fleet.wait_online(0);
    let run = holding(&fleet, "unknown", 0);
    fleet.kill_coordinator();
    fs::rename(fleet.data(), fleet.base().join("newer")).unwrap();
    fs::rename(&older, fleet.data()).unwrap();
    fleet.start_coordinator();
    fleet.wait_online(0);
    known_again(&fleet, &run);
    let _ = fleet.wait_run(&run, "running");
    fleet.put_mark("go", "");
    let _ = fleet.wait_run(&run, "succeeded");
    fleet.wait_delivered(0);
}

#[test]
fn a_bad_backup_and_a_used_directory_are_refused_and_leave_nothing() {
    let mut fleet = Fleet::start(&[]);
    let path = backup(&fleet);
    fleet.stop_coordinator();
    let refused = |args: &[&str], says: &str| {
        let out = driftless(args);
        assert_eq!(out.status.code(), Some(5), "{}", stderr(&out));
        assert!(stderr(&out).contains(says), "{says}: {}", stderr(&out));
    };
    let whole = fs::read(&path).unwrap();
    let bad = fleet.base().join("bad");
    let dir = fleet.base().join("new");
    let mut turned = whole.clone();
    turned[whole.len() / 2] ^= 1;
    let cases: [(&[u8], &str); 5] = [
        (&whole[..whole.len() - 1], "truncated"),
        (&whole[..whole.len() / 2], "truncated"),
        (&whole[..3], "truncated"),
        (b"a letter to somebody else", "not a backup"),
        (&turned, "damaged"),
    ];
    for (bytes, says) in cases {
        fs::write(&bad, bytes).unwrap();
        refused(&["backup", "verify", text(&bad)], says);
        refused(
            &["backup", "restore", text(&bad), "--data", text(&dir)],
            says,
        );
        assert!(!dir.exists());
    }
    let data = fleet.data();
    let used = ["backup", "restore", text(&path), "--data", text(&data)];
    refused(&used, "not empty");
    let other = Fleet::start(&[]);
    let others = other.data();
    refused(
        &["backup", "restore", text(&path), "--data", text(&others)],
        "another authority",
    );
    // an interrupted restore is no directory to start on
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("restoring"), "").unwrap();
    let started = driftless(&["serve", "--data", text(&dir), "--listen", "127.0.0.1:0"]);
    assert!(
        stderr(&started).contains("interrupted"),
        "{}",
        stderr(&started)
    );
}

#[test]
fn a_stopped_coordinator_is_backed_up_with_its_keys_or_not_at_all() {
    let mut fleet = Fleet::start(&[]);
    fleet.stop_coordinator();
    let data = fleet.data();
    let stopped = fleet.base().join("stopped.backup");
    done(&driftless(&[
        "backup",
        "create",
        text(&stopped),
        "--data",
        text(&data),
    ]));
    done(&driftless(&["backup", "verify", text(&stopped)]));
    // one before it was killed, and had the same process id in its container
    let script = "mkdir $TMPDIR/driftless-verify-$$ && exec \"$0\" backup verify \"$1\"";
    let mut after_a_kill = std::process::Command::new("sh");
    after_a_kill
        .args(["-c", script])
        .args([&binary("driftless"), &stopped])
        .env("TMPDIR", fleet.base());
    done(&output(&mut after_a_kill));
    let again = driftless(&["backup", "create", text(&stopped), "--data", text(&data)]);
    assert!(!again.status.success(), "nothing is overwritten");
    // a copy that left the keys out is neither started nor saved with new ones
    fs::rename(data.join("authority"), fleet.base().join("aside")).unwrap();
    let second = fleet.base().join("second.backup");
    for args in [
        &["backup", "create", text(&second), "--data", text(&data)][..],
        &["serve", "--data", text(&data)],
    ] {
        let without = driftless(args);
        assert!(!without.status.success());
        let why = stderr(&without);
        assert!(why.contains("authority/authority.crt is missing"), "{why}");
    }
    assert!(!data.join("authority").exists() && !second.exists());
    fs::rename(fleet.base().join("aside"), data.join("authority")).unwrap();
    let unknown = fleet.base().join("unknown");
    let args = [
        "backup",
        "restore",
        text(&stopped),
        "--data",
        text(&unknown),
        "--accept",
        "gw-77",
    ];
    assert_eq!(driftless(&args).status.code(), Some(3));
}

#[test]
fn backups_are_made_by_themselves_the_oldest_go_and_facts_become_safe() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("backups");
    let args = [
        "--backup-dir",
        text(&dir),
        "--backup-every",
        "1s",
        "--backup-keep",
        "2",
    ];
    let mut fleet = Fleet::serving(&args, &[&[]]);
    fleet.start_agent(0);
    let run = fleet.submit("name: r\ntasks: {a: {shell: echo a}}");
    let _ = fleet.wait_run(&run, "succeeded");
    fleet.wait("its facts to be safe", || {
        let status = fleet.agent_json(0, &["status"]).remove(0);
        (status["safe"].as_u64() == status["facts"].as_u64()).then_some(())
    });
    let count = || fs::read_dir(&dir).unwrap().count();
    fleet.wait("old backups to go", || {
        let names = fs::read_dir(&dir).unwrap().count();
        (names == 2).then_some(())
    });
    assert!(count() <= 3, "one may be under way");
}
