//! The agent is ended in every way while it works, without any coordinator: the run resumes by
//! itself, no retry is used up, what ran is gone before anything starts again, and nothing that was
//! acknowledged is forgotten.

use e2e::agent::Gateway;
use rustix::process::Signal;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::thread::sleep;
use std::time::Duration;

/// What each task of [`dag`] does. It notes its start and its end, leaves a process behind that
/// fled into a session of its own, and complains if a process of an agent before (another
/// generation) is still there.
const STEP: &str = r#"
gen=$(cat @M/gen)
while read -r what id pid then mark; do
  if [ "$what" = start ] && [ "$then" != "$gen" ] &&
     tr '\0' '\n' < /proc/$pid/environ 2>/dev/null | grep -qx "DRIFTLESS_MARK=$mark"
  then echo "$DRIFTLESS_TASK beside $id of $then" >> @M/overlaps; fi
done < @M/log
setsid sleep 300 &
echo "start $DRIFTLESS_TASK $! $gen $DRIFTLESS_MARK
start $DRIFTLESS_TASK $$ $gen $DRIFTLESS_MARK" >> @M/log
sleep 0.03
echo out > $DRIFTLESS_TASK
echo "end $DRIFTLESS_TASK $$ $gen" >> @M/log
"#;

/// Eight tasks in five layers, each with one attempt only.
fn dag() -> String {
    let step = STEP.replace('\n', "\n      ");
    let edges = [
        ("a", ""),
        ("b", "a"),
        ("c", "a"),
        ("d", "a"),
        ("e", "b, c"),
        ("f", "c, d"),
        ("g", "e, f"),
        ("h", "g"),
    ];
    let mut text =
        "name: steps\ndefaults: {retry: {max_attempts: 1}, crash_limit: 1000}\ntasks:\n".to_owned();
    for (id, inputs) in edges {
        writeln!(
            text,
            "  {id}:\n    inputs: [{inputs}]\n    outputs: [{id}]\n    shell: |\n      {step}"
        )
        .expect("writing to a string cannot fail");
    }
    text
}

/// A small generator of moments: the same ones in every run of the test.
struct Moments(u64);

impl Moments {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

fn count(gateway: &Gateway, what: &str) -> usize {
    let log = gateway.mark("log");
    log.lines().filter(|line| line.starts_with(what)).count()
}

fn all_ended(gateway: &Gateway, run: &str) -> bool {
    gateway
        .tasks(run)
        .values()
        .all(|task| task["state"] == "succeeded")
}

/// Waits until one more task started (or ended), then a little.
fn wait_step(gateway: &Gateway, run: &str, what: &str, little: u64) {
    let before = count(gateway, what);
    gateway.wait("the next step", || {
        (count(gateway, what) > before || all_ended(gateway, run)).then_some(())
    });
    sleep(Duration::from_millis(little));
}

fn end(gateway: &mut Gateway, signal: Signal, all: bool, tasks_first: bool) {
    if all {
        gateway.signal_all(signal, tasks_first);
    } else {
        gateway.signal(signal);
    }
    let status = gateway.wait_exit();
    if signal == Signal::TERM {
        assert_eq!(status.code(), Some(0), "{}", gateway.agent_log());
    }
}

/// Ends the agent at 20 moments of a run, after starts and after ends in turn.
fn sweep(signal: Signal, all: bool, seed: u64) {
    let mut moments = Moments(seed);
    let mut gateway = Gateway::new(&["--cpus", "2"]);
    gateway.put_mark("log", "");
    // Tasks may run as another user.
    let log = gateway.marks().join("log");
    fs::set_permissions(log, Permissions::from_mode(0o666)).expect("its owner may change its mode");
    gateway.put_mark("gen", "0");
    gateway.start();
    let run = gateway.submit(&dag());
    for generation in 1..=20 {
        if all_ended(&gateway, &run) {
            break;
        }
        let what = if generation % 2 == 1 { "start" } else { "end" };
        wait_step(&gateway, &run, what, moments.next(25));
        end(&mut gateway, signal, all, moments.next(2) == 0);
        gateway.put_mark("gen", &generation.to_string());
        gateway.start();
    }
    for (id, task) in gateway.settled(&run) {
        assert_eq!(task["state"], "succeeded", "{task}");
        assert_eq!(
            task["attempts"], 1,
            "{id}: an interruption is no attempt: {task}"
        );
    }
    assert_eq!(gateway.mark("overlaps"), "");
    gateway.wait("the end of what tasks left", || {
        gateway.task_processes().is_empty().then_some(())
    });
}

#[test]
fn sigkill_of_the_agent_alone_at_any_step_loses_nothing() {
    sweep(Signal::KILL, false, 1);
}

#[test]
fn sigkill_of_the_whole_group_at_any_step_loses_nothing() {
    sweep(Signal::KILL, true, 2);
}

#[test]
fn sigterm_of_the_agent_alone_at_any_step_loses_nothing() {
    sweep(Signal::TERM, false, 3);
}

#[test]
fn sigterm_of_the_whole_group_at_any_step_loses_nothing() {
    sweep(Signal::TERM, true, 4);
}

#[test]
fn a_stop_has_a_bound_even_with_a_task_that_ignores_it() {
    let mut gateway = Gateway::started(&["--cpus", "1"]);
    let run = gateway.submit(
        "name: deaf
tasks:
  deaf:
    kill_grace: 1h
    retry: {max_attempts: 1}
    shell: trap '' TERM; echo $$ >> @M/pids; while [ ! -e @M/go ]; do sleep 0.05; done",
    );
    let _ = gateway.wait_mark("pids", 1);
    gateway.stop();
    assert!(
        gateway.task_processes().is_empty(),
        "a stopped agent leaves no process"
    );
    gateway.start();
    let _ = gateway.wait_mark("pids", 2);
    gateway.put_mark("go", "");
    let deaf = gateway.wait_state(&run, "deaf", "succeeded");
    assert_eq!(deaf["attempts"], 1, "{deaf}");
}

#[test]
fn a_terminal_fact_survives_ten_restarts_unchanged() {
    let mut gateway = Gateway::started(&["--cpus", "2"]);
    let run = gateway.submit(
        "name: ends
tasks:
  good: {shell: echo good >> @M/ran; echo x > out, outputs: [out]}
  bad: {shell: echo bad >> @M/ran; exit 3, retry: {max_attempts: 1}}
  after: {command: 'true', needs: [bad]}
  never: {command: 'true', when: 1 == 2}",
    );
    let before = gateway.settled(&run);
    let states: Vec<&str> = before
        .values()
        .filter_map(|t| t["state"].as_str())
        .collect();
    assert_eq!(states, ["aborted", "failed", "succeeded", "skipped"]);
    for round in 0..10 {
        if round % 2 == 0 {
            gateway.kill();
        } else {
            gateway.stop();
        }
        gateway.start();
        assert_eq!(gateway.tasks(&run), before, "after restart {round}");
    }
    assert_eq!(gateway.mark("ran").lines().count(), 2, "nothing ran again");
}

#[test]
fn a_submission_that_was_acknowledged_survives_kill_9() {
    let mut gateway = Gateway::started(&["--cpus", "2"]);
    let mut runs = Vec::new();
    for round in 0..5 {
        runs.push(gateway.submit(&format!(
            "name: kept
tasks: {{one: {{shell: echo {round} >> @M/ran, retry: {{max_attempts: 1}}}}}}"
        )));
        gateway.kill();
        gateway.start();
    }
    for run in runs {
        let one = gateway.wait_state(&run, "one", "succeeded");
        assert_eq!(one["attempts"], 1, "{one}");
    }
    let ran = gateway.mark("ran");
    for round in 0..5 {
        assert!(
            ran.lines().any(|line| line == round.to_string()),
            "{round}: {ran}"
        );
    }
}

#[test]
fn a_kill_before_the_first_task_ended_loses_nothing() {
    let mut gateway = Gateway::started(&["--cpus", "2"]);
    let run = gateway.submit(
        "name: early
defaults: {retry: {max_attempts: 1}}
tasks:
  first: {shell: 'echo begun >> @M/began; [ -e @M/go ] || sleep 300; echo x > out', outputs: [out]}
  second: {inputs: [out], shell: cat out >> @M/second}",
    );
    let _ = gateway.wait_mark("began", 1);
    gateway.kill();
    gateway.put_mark("go", "");
    gateway.start();
    let ended = gateway.settled(&run);
    assert!(
        ended
            .values()
            .all(|t| t["state"] == "succeeded" && t["attempts"] == 1),
        "{ended:?}"
    );
    assert_eq!(
        gateway.mark("began").lines().count(),
        2,
        "the first one was begun again"
    );
    assert_eq!(gateway.mark("second"), "x\n");
}

#[test]
fn paused_and_cancelled_runs_stay_so_after_kill_9() {
    let mut gateway = Gateway::started(&["--cpus", "1"]);
    let text = "name: held
tasks: {first: {shell: 'echo x >> @M/first; sleep 300'}, second: {command: 'true', needs: [first]}}";
    let cancelled = gateway.submit(text);
    let _ = gateway.wait_mark("first", 1);
    assert_eq!(gateway.json(&["cancel", &cancelled])[0]["done"], true);
    gateway.kill();
    gateway.start();
    let ended = gateway.settled(&cancelled);
    assert!(
        ended.values().all(|task| task["state"] == "cancelled"),
        "{ended:?}"
    );
    let paused = gateway.submit(
        "name: stands\ntasks: {one: {shell: sleep 0.3}, two: {command: 'true', needs: [one]}}",
    );
    assert_eq!(gateway.json(&["pause", &paused])[0]["done"], true);
    gateway.kill();
    gateway.start();
    let two = gateway.task(&paused, "two");
    assert_ne!(two["state"], "succeeded", "{two}");
    assert_eq!(gateway.json(&["resume", &paused])[0]["done"], true);
    let _ = gateway.wait_state(&paused, "two", "succeeded");
}
