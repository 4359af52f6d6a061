//! A test for each field of the specification that says how a task runs: what it occupies, when it
//! is repeated, how it ends. Each one fails if the field is ignored. `docs/spec.md` names them.

use e2e::agent::Gateway;
use serde_json::Value;

/// Ends only if tasks `a` and `b` run at the same time.
const MEET: &str =
    "touch @M/$DRIFTLESS_TASK; until [ -e @M/a ] && [ -e @M/b ]; do sleep 0.01; done";
/// Notes a clash if two of it run at the same time.
const ALONE: &str = "mkdir @M/held || echo clash >> @M/clashes; sleep 0.1; rmdir @M/held";

/// With `half` of something two tasks run at the same time, with the `whole` of it one after the
/// other.
fn limits(args: &[&str], half: &str, whole: &str) {
    let gateway = Gateway::started(args);
    let _ = gateway.succeeds(&two(half, MEET));
    let _ = gateway.succeeds(&two(whole, ALONE));
    assert_eq!(gateway.mark("clashes"), "", "{whole}");
}

fn two(resources: &str, shell: &str) -> String {
    format!(
        "name: two
defaults: {{resources: {{{resources}}}}}
tasks: {{a: {{shell: '{shell}'}}, b: {{shell: '{shell}'}}}}"
    )
}

#[test]
fn spec_field_resources_cpu() {
    limits(&["--cpus", "2"], "cpu: 1", "cpu: 1500m");
}

#[test]
fn spec_field_resources_memory() {
    let args = ["--cpus", "2", "--memory", "64"];
    limits(&args, "memory: 32MiB", "memory: 33MiB");
}

#[test]
fn spec_field_resources_disk() {
    let args = ["--cpus", "2", "--disk", "64"];
    limits(&args, "disk: 32MiB", "disk: 33MiB");
}

#[test]
fn spec_field_resources_gpu() {
    limits(&["--cpus", "2", "--gpus", "1"], "gpu: 0.5", "gpu: 0.6");
}

#[test]
fn spec_field_resources_custom() {
    let args = ["--cpus", "2", "--resource", "camera=2"];
    limits(&args, "custom: {camera: 1}", "custom: {camera: 2}");
}

#[test]
fn spec_field_resources() {
    let args = ["--cpus", "2", "--memory", "64", "--resource", "camera=2"];
    let half = "cpu: 500m, memory: 30MiB, custom: {camera: 1}";
    limits(&args, half, "cpu: 500m, memory: 30MiB, custom: {camera: 2}");
}

#[test]
fn spec_field_merge_leaves() {
    let gateway = Gateway::started(&["--cpus", "2"]);
    let leaves = |merge: u32, shell: &str| {
        format!(
            "name: leaves
merge_leaves: {merge}
tasks: {{a: {{shell: '{shell}'}}, b: {{shell: '{shell}'}}}}"
        )
    };
    let _ = gateway.succeeds(&leaves(1, MEET));
    let run = gateway.succeeds(&leaves(2, ALONE));
    assert_eq!(gateway.mark("clashes"), "", "a batch runs in one slot");
    let tasks = gateway.tasks(&run);
    assert!(tasks.values().all(|task| task["attempts"] == 1));
}

#[test]
fn spec_field_priority() {
    let gateway = Gateway::started(&["--cpus", "1"]);
    let _ = gateway.succeeds(
        "name: order
tasks:
  low: {priority: -5, shell: echo low >> @M/order}
  middle: {shell: echo middle >> @M/order}
  high: {priority: 5, shell: echo high >> @M/order}",
    );
    assert_eq!(gateway.mark("order"), "high\nmiddle\nlow\n");
}

/// The pauses before the attempts of a task, in milliseconds, as its decisions say.
fn pauses(gateway: &Gateway, run: &str, task: &str) -> Vec<u64> {
    let explain = gateway.explain(run, task);
    let decisions = explain["decisions"].as_array().cloned().unwrap_or_default();
    let pause = |decision: &Value| {
        let evidence = decision["evidence"].as_array()?.iter();
        let mut found = evidence.filter_map(|item| item.as_str()?.strip_prefix("pause_ms="));
        found.next()?.parse().ok()
    };
    decisions.iter().filter_map(pause).collect()
}

/// A workflow of one task that always fails, with these fields of `retry`.
fn failing(retry: &str) -> String {
    format!("name: fails\ntasks: {{it: {{retry: {{{retry}}}, shell: echo x >> @M/ran; exit 7}}}}")
}

/// Runs [`failing`] to its end; the task and the pauses.
fn fails(retry: &str) -> (Value, Vec<u64>, usize) {
    let gateway = Gateway::started(&["--cpus", "1"]);
    let run = gateway.submit(&failing(retry));
    let task = gateway
        .settled(&run)
        .remove("it")
        .expect("the task is there");
    let ran = gateway.mark("ran").lines().count();
    (task, pauses(&gateway, &run, "it"), ran)
}

/// The first pause of a task that will not run again soon.
fn first_pause(retry: &str) -> u64 {
    let gateway = Gateway::started(&["--cpus", "1"]);
    let run = gateway.submit(&failing(retry));
    let waits = gateway.wait_state(&run, "it", "retrying");
    assert_eq!(waits["reason"], "waits_for_retry", "{waits}");
    pauses(&gateway, &run, "it")[0]
}

#[test]
fn spec_field_retry() {
    let gateway = Gateway::started(&["--cpus", "1"]);
    let run = gateway.succeeds(
        "name: flaky
tasks: {it: {retry: {initial_interval: 1ms}, shell: 'mkdir @M/first && exit 1; true'}}",
    );
    assert_eq!(gateway.task(&run, "it")["attempts"], 2);
}

#[test]
fn spec_field_retry_max_attempts() {
    let (task, _, ran) = fails("max_attempts: 3, initial_interval: 1ms");
    assert_eq!(task["state"], "failed");
    assert_eq!(task["exit"], 7);
    assert_eq!((&task["attempts"], ran), (&3.into(), 3), "{task}");
    let (_, _, ran) = fails("max_attempts: 1");
    assert_eq!(ran, 1);
}

#[test]
fn spec_field_retry_initial_interval() {
    assert_eq!(first_pause("initial_interval: 1h, jitter: 0"), 3_600_000);
}

#[test]
fn spec_field_retry_backoff() {
    let (_, pauses, _) = fails("max_attempts: 4, initial_interval: 2ms, backoff: 3, jitter: 0");
    assert_eq!(pauses, [2, 6, 18]);
}

#[test]
fn spec_field_retry_max_interval() {
    let retry =
        "max_attempts: 4, initial_interval: 2ms, max_interval: 5ms, backoff: 100, jitter: 0";
    let (_, pauses, _) = fails(retry);
    assert_eq!(pauses, [2, 5, 5]);
}

#[test]
fn spec_field_retry_jitter() {
    // With the default of 0.2 both would be drawn from 800,001 values.
    for _ in 0..2 {
        assert_eq!(
            first_pause("initial_interval: 2000s, max_interval: 1h, jitter: 0"),
            2_000_000
        );
    }
    let wide = first_pause("initial_interval: 2000s, max_interval: 1h, jitter: 1");
    assert_ne!(wide, 2_000_000);
}

#[test]
fn spec_field_retry_retry_on() {
    let (_, _, ran) = fails("max_attempts: 2, initial_interval: 1ms, retry_on: [7]");
    assert_eq!(ran, 2);
    let (task, _, ran) = fails("max_attempts: 2, initial_interval: 1ms, retry_on: [8]");
    assert_eq!((&task["state"], ran), (&"failed".into(), 1));
}

#[test]
fn spec_field_retry_no_retry_on() {
    let (_, _, ran) = fails("max_attempts: 2, initial_interval: 1ms, no_retry_on: [8]");
    assert_eq!(ran, 2);
    let (task, _, ran) = fails("max_attempts: 2, initial_interval: 1ms, no_retry_on: [7]");
    assert_eq!((&task["state"], ran), (&"failed".into(), 1));
}

#[test]
fn spec_field_retry_on_exhausted() {
    let (failed, _, _) = fails("max_attempts: 1");
    assert_eq!(failed["state"], "failed");
    let gateway = Gateway::started(&["--cpus", "1"]);
    let run = gateway.submit(
        "name: waits
tasks: {it: {retry: {max_attempts: 1, on_exhausted: pause}, shell: '[ -e @M/mended ]'}}",
    );
    let _ = gateway.wait_state(&run, "it", "paused");
    gateway.put_mark("mended", "");
    let _ = gateway.json(&["resume", &run, "it"]);
    let _ = gateway.wait_state(&run, "it", "succeeded");
}

#[test]
fn spec_field_timeout() {
    let gateway = Gateway::started(&["--cpus", "1"]);
    let run = gateway.submit(
        "name: slow
tasks: {it: {timeout: 100ms, retry: {max_attempts: 1}, command: [sleep, '300']}}",
    );
    let it = gateway.wait_state(&run, "it", "failed");
    assert_eq!(it["reason"], "timed_out", "{it}");
}

#[test]
fn spec_field_deadline() {
    let gateway = Gateway::started(&["--cpus", "1"]);
    let run = gateway.submit(
        "name: late
tasks:
  runs: {deadline: 500ms, command: [sleep, '300'], priority: 1}
  waits: {deadline: 500ms, command: 'true', resources: {cpu: 1}, needs: [runs], trigger_rule: all_done}",
    );
    let tasks = gateway.settled(&run);
    for (id, task) in tasks {
        assert_eq!(task["state"], "failed", "{id}: {task}");
        assert_eq!(task["reason"], "deadline_passed", "{id}: {task}");
    }
}

#[test]
fn spec_field_kill_grace() {
    let gateway = Gateway::started(&["--cpus", "1"]);
    let run = gateway.submit(
        "name: deaf
tasks:
  it:
    timeout: 100ms
    kill_grace: 50ms
    retry: {max_attempts: 1}
    shell: |
      trap 'echo asked >> @M/asked; sleep 3; echo late >> @M/late; exit 1' TERM
      sleep 300 & wait",
    );
    let it = gateway.wait_state(&run, "it", "failed");
    assert_eq!(it["reason"], "timed_out", "{it}");
    assert_eq!(gateway.mark("asked"), "asked\n");
    assert_eq!(gateway.mark("late"), "", "it was given longer than 50 ms");
}

/// Kills the agent with -9 while `it` runs, `times` times; what becomes of it.
fn crashed(fields: &str, times: usize) -> (Gateway, String) {
    let mut gateway = Gateway::started(&["--cpus", "1"]);
    let run = gateway.submit(&format!(
        "name: crash
tasks:
  it:
    {fields}
    shell: echo x >> @M/ran; while [ ! -e @M/go ]; do sleep 0.02; done"
    ));
    for n in 1..=times {
        let _ = gateway.wait_mark("ran", n);
        gateway.kill();
        gateway.start();
    }
    (gateway, run)
}

#[test]
fn spec_field_crash_limit() {
    let (gateway, run) = crashed("crash_limit: 2", 2);
    let it = gateway.wait_state(&run, "it", "failed");
    assert_eq!(it["reason"], "crash_limit", "{it}");
    let (gateway, run) = crashed("crash_limit: 3", 2);
    gateway.put_mark("go", "");
    let _ = gateway.wait_state(&run, "it", "succeeded");
}

#[test]
fn spec_field_side_effects() {
    let (gateway, run) = crashed("side_effects: at_most_once", 1);
    let it = gateway.wait_state(&run, "it", "lost");
    assert_eq!(it["reason"], "in_doubt", "{it}");
    assert_eq!(
        gateway.mark("ran"),
        "x\n",
        "it must not run twice by itself"
    );
    gateway.put_mark("go", "");
    let _ = gateway.json(&["resume", &run, "it"]);
    let _ = gateway.wait_state(&run, "it", "succeeded");
    assert_eq!(
        gateway.mark("ran"),
        "x\nx\n",
        "a person may let it run again"
    );
    for repeatable in ["none", "idempotent"] {
        let (gateway, run) = crashed(&format!("side_effects: {repeatable}"), 1);
        gateway.put_mark("go", "");
        let _ = gateway.wait_state(&run, "it", "succeeded");
    }
}
