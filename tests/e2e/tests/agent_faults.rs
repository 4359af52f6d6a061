//! Tasks that go wrong, and specifications that cannot be kept: each fault stays where it is.

use e2e::agent::{Gateway, stderr};
use std::fs;

#[test]
fn a_hung_task_holds_its_slot_and_nothing_else() {
    let gateway = Gateway::started(&["--cpus", "2"]);
    let hung = gateway.submit(
        "name: hung
tasks: {hung: {kill_grace: 200ms, shell: 'trap \"\" TERM; echo x >> @M/hung; while :; do sleep 0.05; done'}}",
    );
    let _ = gateway.wait_mark("hung", 1);
    let others = "name: others
tasks: {a: {command: 'true'}, b: {command: 'true', needs: [a]}, c: {shell: sleep 0.1}, d: {command: 'true'}}";
    let _ = gateway.succeeds(others);
    assert_eq!(gateway.task(&hung, "hung")["state"], "running");
    let _ = gateway.json(&["cancel", &hung, "--reason", "it hangs"]);
    let ended = gateway.wait_state(&hung, "hung", "cancelled");
    assert_eq!(ended["reason"], "cancelled_by_person", "{ended}");
    assert!(gateway.task_processes().is_empty());
}

#[test]
fn a_hung_task_with_a_timeout_is_ended_by_force() {
    let gateway = Gateway::started(&["--cpus", "1"]);
    let run = gateway.submit(
        "name: hung
tasks:
  hung:
    timeout: 150ms
    kill_grace: 100ms
    retry: {max_attempts: 2, initial_interval: 1ms}
    shell: trap '' TERM; setsid sleep 300 & echo $$ >> @M/hung; while :; do sleep 0.05; done
  next: {needs: [hung], trigger_rule: all_done, shell: 'for p in $(cat @M/hung); do
      grep -qs DRIFTLESS_TASK=hung /proc/$p/environ && echo $p >> @M/left; done; true'}",
    );
    let tasks = gateway.settled(&run);
    let hung = &tasks["hung"];
    assert_eq!(
        (&hung["state"], &hung["reason"], &hung["attempts"]),
        (&"failed".into(), &"timed_out".into(), &2.into()),
        "{hung}"
    );
    assert_eq!(gateway.mark("hung").lines().count(), 2);
    assert_eq!(tasks["next"]["state"], "succeeded");
    assert_eq!(gateway.mark("left"), "");
    assert!(gateway.task_processes().is_empty());
}

#[test]
fn a_missing_program_fails_its_task_alone() {
    let gateway = Gateway::started(&["--cpus", "2"]);
    let run = gateway.submit(
        "name: missing
defaults: {retry: {max_attempts: 2, initial_interval: 10ms}}
tasks:
  nowhere: {command: [no-such-program-here]}
  not-a-program: {command: [./empty]}
  after: {command: 'true', needs: [nowhere]}
  other: {command: 'true'}",
    );
    let tasks = gateway.settled(&run);
    for id in ["nowhere", "not-a-program"] {
        let task = &tasks[id];
        assert_eq!(
            (&task["state"], &task["reason"]),
            (&"failed".into(), &"cannot_start".into()),
            "{task}"
        );
        assert_eq!(task["attempts"], 2, "{task}");
    }
    assert_eq!(tasks["after"]["state"], "aborted");
    assert_eq!(tasks["other"]["state"], "succeeded");
    let said = gateway.explain(&run, "nowhere").to_string();
    assert!(said.contains("attempts_used_up"), "{said}");
}

#[test]
fn paths_that_leave_the_work_directory_are_refused() {
    let gateway = Gateway::started(&[]);
    let field = |field: &str| format!("name: out\ntasks: {{one: {{command: 'true', {field}}}}}");
    for bad in [
        "outputs: [../secret]",
        "outputs: [/etc/passwd]",
        "outputs: [a/../../b]",
        "inputs: [{name: x, path: ../x, source: 'file:/etc/hostname'}]",
        "workdir: ..",
        "workdir: /",
        "stdin: ../x",
    ] {
        let said = gateway.refused(&field(bad), &[]);
        assert!(said.contains("flow-"), "{bad}: no place in: {said}");
        assert!(said.contains(":2:"), "{bad}: no line in: {said}");
    }
    assert!(gateway.json(&["ps", "--all"]).is_empty());
}

#[test]
fn links_out_of_the_work_directory_are_not_followed() {
    let gateway = Gateway::started(&["--cpus", "2"]);
    gateway.put_mark("secret", "secret\n");
    let run = gateway.submit(
        "name: links
defaults: {retry: {max_attempts: 1}}
tasks:
  file: {shell: ln -s @M/secret out, outputs: [{name: a, path: out}]}
  folder: {shell: ln -s @M sub, outputs: [{name: b, path: sub/secret}]}
  pipe: {shell: mkfifo pipe, outputs: [{name: c, path: pipe}]}",
    );
    for (id, task) in gateway.settled(&run) {
        assert_eq!(task["state"], "failed", "{id}: {task}");
        assert_eq!(task["reason"], "output_missing", "{id}: {task}");
    }
    let files = gateway.data().join("files");
    let found = std::process::Command::new("grep")
        .args(["-rl", "secret"])
        .arg(files)
        .output()
        .unwrap();
    assert!(found.stdout.is_empty(), "{found:?}");
}

#[test]
fn what_the_node_does_not_offer_is_refused_at_once() {
    let gateway = Gateway::started(&["--cpus", "1", "--memory", "64", "--resource", "camera=1"]);
    for (resources, what) in [
        ("custom: {press: 1}", "press"),
        ("custom: {camera: 2}", "camera"),
        ("cpu: 2", "cpu"),
        ("memory: 65MiB", "memory"),
        ("gpu: 1", "gpu"),
    ] {
        let text =
            format!("name: large\ntasks: {{one: {{command: 'true', resources: {{{resources}}}}}}}");
        let output = gateway.try_submit(&text, &[]);
        assert_eq!(output.status.code(), Some(5), "{resources}: {output:?}");
        let said = stderr(&output);
        assert!(said.contains(what) && said.contains("one"), "{said}");
    }
    assert!(gateway.json(&["ps", "--all"]).is_empty());
    let _ = gateway.succeeds(
        "name: fits
tasks: {one: {command: 'true', resources: {cpu: 1, memory: 64MiB, custom: {camera: 1}}}}",
    );
}

#[test]
fn what_the_node_offers_no_longer_waits_and_says_so() {
    let mut gateway = Gateway::started(&["--cpus", "1", "--resource", "camera=2"]);
    let run = gateway.submit(
        "name: large
tasks:
  first: {shell: 'while [ ! -e @M/go ]; do sleep 0.02; done', priority: 1}
  cameras: {command: 'true', resources: {custom: {camera: 2}}}
  fits: {command: 'true', resources: {custom: {camera: 1}}}",
    );
    gateway.stop();
    gateway.set_args(&["--cpus", "1", "--resource", "camera=1"]);
    gateway.put_mark("go", "");
    gateway.start();
    let _ = gateway.wait_state(&run, "fits", "succeeded");
    let explain = gateway.explain(&run, "cameras");
    assert_eq!(explain["task"]["state"], "ready", "{explain}");
    assert_eq!(explain["task"]["reason"], "does_not_fit", "{explain}");
    let decisions = explain["decisions"].as_array().unwrap();
    let held = decisions
        .iter()
        .find(|decision| decision["reason"] == "does_not_fit");
    let held = held.unwrap_or_else(|| panic!("no decision in {explain}"));
    assert_eq!(held["action"], "held");
    gateway.stop();
    gateway.set_args(&["--cpus", "1", "--resource", "camera=2"]);
    gateway.start();
    let _ = gateway.wait_state(&run, "cameras", "succeeded");
}

#[test]
fn unknown_runs_and_tasks_are_said_to_be_unknown() {
    let gateway = Gateway::started(&[]);
    let run = gateway.succeeds("name: known\ntasks: {one: {command: 'true'}}");
    let none = "ffffffffffffffffffffffffffffffff";
    for args in [
        ["explain", none, "one"],
        ["explain", &run, "two"],
        ["logs", none, "one"],
        ["resume", none, "one"],
    ] {
        let output = gateway.command(&args);
        assert_eq!(output.status.code(), Some(3), "{args:?}: {output:?}");
    }
    let output = gateway.command(&["cancel", none]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

#[test]
fn all_mistakes_of_a_file_are_shown_and_nothing_is_started() {
    let gateway = Gateway::started(&[]);
    let said = gateway.refused(
        "name: wrong
tasks:
  one: {comand: 'true'}
  two: {command: 'true', needs: [three]}
  four: {command: 'true', timeout: 5}",
        &[],
    );
    for place in [":3:", ":4:", ":5:"] {
        assert!(said.contains(place), "no {place} in: {said}");
    }
    assert!(said.contains("command"), "no hint in: {said}");
    assert!(gateway.json(&["ps", "--all"]).is_empty());
}

#[test]
fn an_output_beyond_the_budget_of_the_file_store_fails_its_task_alone() {
    let gateway = Gateway::started(&["--cpus", "1", "--file-budget", "1"]);
    let run = gateway.submit(
        "name: budget
defaults: {retry: {max_attempts: 1}}
tasks:
  small: {shell: head -c 600000 /dev/zero > a, outputs: [a]}
  large: {shell: head -c 600000 /dev/urandom > b, outputs: [b], needs: [small]}
  reads: {inputs: [a], shell: test $(wc -c < a) = 600000}",
    );
    let tasks = gateway.settled(&run);
    assert_eq!(tasks["small"]["state"], "succeeded", "{tasks:?}");
    assert_eq!(tasks["reads"]["state"], "succeeded", "{tasks:?}");
    assert_eq!(tasks["large"]["state"], "failed", "{tasks:?}");
    let said = gateway.explain(&run, "large").to_string();
    assert!(said.contains("no_room"), "{said}");
    let file = gateway.base().join("large");
    fs::write(&file, vec![7; 2 << 20]).unwrap();
    let output = gateway.try_submit(
        "name: sent\ntasks: {one: {inputs: [{name: x, path: x}], command: 'true'}}",
        &["--file", &format!("x={}", file.display())],
    );
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert!(stderr(&output).contains("no room"), "{output:?}");
}
