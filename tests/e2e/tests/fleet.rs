//! Coordinator and agents together: work crosses nodes, goes on without a link, survives ends of
//! any process, and each outcome counts once.

use e2e::fleet::{Fleet, HOLD};
use serde_json::Value;

const SITES: [&[&str]; 2] = [&["--label", "site=a"], &["--label", "site=b"]];

/// A chain of `first`, `second`, `third` on site a, each noting that it ran; `first` holds until
/// the mark.
fn chain() -> String {
    format!(
        r#"
name: chain
defaults: {{placement: {{site: a}}}}
tasks:
  first:
    outputs: [one.txt]
    shell: |
      echo first >> @M/ran; {HOLD}; echo 1 > one.txt
  second:
    inputs: [one.txt]
    outputs: [two.txt]
    shell: |
      echo second >> @M/ran; cat one.txt one.txt > two.txt
  third:
    inputs: [two.txt]
    shell: |
      echo third >> @M/ran; test "$(cat two.txt | wc -l)" = 2
"#
    )
}

fn ran(fleet: &Fleet) -> Vec<String> {
    fleet.mark("ran").lines().map(str::to_owned).collect()
}

/// Every attempt that the coordinator shows of a run's task, as outcome and whether it counts.
fn history(fleet: &Fleet, run: &str, task: &str) -> Vec<(String, bool)> {
    let task = fleet.task(run, task);
    let attempts = task["history"].as_array().cloned().unwrap_or_default();
    let one = |a: &Value| {
        (
            a["outcome"].as_str().unwrap_or_default().to_owned(),
            a["not_applied"].is_null(),
        )
    };
    attempts.iter().map(one).collect()
}

#[test]
fn a_workflow_runs_to_its_end_and_its_files_cross_nodes() {
    let fleet = Fleet::start(&SITES);
    let spec = r#"
name: crossing
params: {word: {default: none}}
tasks:
  write:
    placement: {site: a}
    env: {WORD: "${params.word}"}
    outputs: [word.txt]
    shell: echo "$WORD" > word.txt
  count:
    placement: {site: b}
    inputs: [word.txt]
    outputs: [count.txt]
    shell: wc -c < word.txt > count.txt
  compare:
    placement: {site: a}
    inputs: [word.txt, count.txt]
    shell: test "$(wc -c < word.txt)" -eq "$(cat count.txt)"
"#;
    let output = fleet.try_submit(
        spec,
        &["--param", "word=gateway", "--wait", "--timeout", "50s"],
    );
    assert_eq!(
        output.status.code(),
        Some(0),
        "{output:?}\n{}",
        fleet.logs()
    );
    let said = e2e::agent::stdout(&output);
    let run: Value = serde_json::from_str(said.lines().last().unwrap_or_default()).unwrap();
    assert_eq!(run["state"], "succeeded");
    let tasks = fleet.tasks(run["id"].as_str().unwrap());
    let placed = |task: &str| tasks[task]["node"].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        [placed("write"), placed("count"), placed("compare")],
        ["gw-0", "gw-1", "gw-0"]
    );
    let hash = tasks["write"]["outputs"][0]["hash"].as_str().unwrap();
    assert!(hash.starts_with("blake3:") && hash.len() == 71, "{hash}");
}

#[test]
fn with_the_cable_pulled_tasks_go_on_and_are_brought_back_once() {
    let fleet = Fleet::start(&SITES);
    let run = fleet.submit(&chain());
    let _ = fleet.wait_local(0, "first", "running");
    fleet.cut(0);
    fleet.wait_node(0, "offline");
    fleet.put_mark("go", "");
    let _ = fleet.wait_local(0, "third", "succeeded");
    assert_eq!(
        fleet.run(&run)["state"],
        "running",
        "the coordinator cannot know yet"
    );
    assert_ne!(fleet.task(&run, "third")["state"], "succeeded");
    fleet.join(0);
    let _ = fleet.wait_run(&run, "succeeded");
    assert_eq!(ran(&fleet), ["first", "second", "third"]);
    for task in ["first", "second", "third"] {
        assert_eq!(
            history(&fleet, &run, task),
            [("succeeded".to_owned(), true)]
        );
    }
}

#[test]
fn an_agent_that_is_killed_without_a_link_goes_on_from_its_disk() {
    let mut fleet = Fleet::start(&SITES);
    let run = fleet.submit(&chain());
    // Only what has begun is interrupted.
    fleet.wait("first to begin", || (!ran(&fleet).is_empty()).then_some(()));
    fleet.cut(0);
    fleet.kill_agent(0);
    fleet.put_mark("go", "");
    fleet.start_agent(0);
    let _ = fleet.wait_local(0, "third", "succeeded");
    fleet.join(0);
    let _ = fleet.wait_run(&run, "succeeded");
    let first = history(&fleet, &run, "first");
    assert_eq!(first.last(), Some(&("succeeded".to_owned(), true)));
    assert_eq!(
        first.len(),
        2,
        "the interrupted attempt is shown: {first:?}"
    );
    assert_eq!(ran(&fleet), ["first", "first", "second", "third"]);
}

#[test]
fn acknowledgements_that_are_swallowed_lead_to_no_second_outcome() {
    let fleet = Fleet::start(&SITES);
    let run = fleet.submit(&chain());
    let _ = fleet.wait_local(0, "first", "running");
    fleet.relay().mute(0);
    fleet.put_mark("go", "");
    let _ = fleet.wait_local(0, "third", "succeeded");
    fleet.cut(0);
    fleet.wait_node(0, "offline");
    fleet.join(0);
    let _ = fleet.wait_run(&run, "succeeded");
    fleet.wait_delivered(0);
    for task in ["first", "second", "third"] {
        assert_eq!(
            history(&fleet, &run, task),
            [("succeeded".to_owned(), true)]
        );
    }
    assert_eq!(ran(&fleet), ["first", "second", "third"]);
}

#[test]
fn a_coordinator_that_is_killed_knows_everything_when_it_is_back() {
    let mut fleet = Fleet::start(&SITES);
    let run = fleet.submit(&chain());
    let _ = fleet.wait_local(0, "first", "running");
    fleet.kill_coordinator();
    fleet.put_mark("go", "");
    let _ = fleet.wait_local(0, "third", "succeeded");
    fleet.start_coordinator();
    let _ = fleet.wait_run(&run, "succeeded");
    assert_eq!(ran(&fleet), ["first", "second", "third"]);
}

#[test]
fn a_new_address_of_the_gateway_does_not_end_its_session() {
    let fleet = Fleet::start(&SITES);
    let run = fleet.submit(&chain());
    let _ = fleet.wait_local(0, "first", "running");
    let session = || fleet.agent_json(0, &["status"]).remove(0)["session"].clone();
    let before = session();
    fleet.relay().rebind(0);
    fleet.put_mark("go", "");
    let _ = fleet.wait_run(&run, "succeeded");
    assert_eq!(session(), before);
}

#[test]
fn a_failed_task_ends_the_run_failed_and_what_depends_on_it_is_aborted() {
    let fleet = Fleet::start(&SITES);
    let spec = r#"
name: failing
defaults: {retry: {max_attempts: 2, initial_interval: 10ms}}
tasks:
  missing: {command: [no-such-program-here], outputs: [x]}
  after: {inputs: [x], shell: "true"}
  beside: {shell: "true"}
"#;
    let output = fleet.try_submit(spec, &["--wait", "--timeout", "50s"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let run: Value = serde_json::from_str(
        e2e::agent::stdout(&output)
            .lines()
            .last()
            .unwrap_or_default(),
    )
    .unwrap();
    assert_eq!(run["state"], "failed");
    let tasks = fleet.tasks(run["id"].as_str().unwrap());
    let state = |task: &str| tasks[task]["state"].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        [state("missing"), state("after"), state("beside")],
        ["failed", "aborted", "succeeded"]
    );
    assert_eq!(
        tasks["missing"]["reason"], "cannot_start",
        "{}",
        tasks["missing"]
    );
}

#[test]
fn a_file_that_could_not_be_brought_is_brought_again_while_the_link_stays_up() {
    let fleet = Fleet::start(&SITES);
    let (files, away) = (fleet.data().join("files"), fleet.base().join("away"));
    std::fs::rename(&files, &away).unwrap();
    std::fs::write(&files, "in the way").unwrap();
    let spec = r#"
name: crossing
tasks:
  write: {placement: {site: a}, outputs: [word.txt], shell: echo word > word.txt}
  read: {placement: {site: b}, inputs: [word.txt], shell: grep word word.txt}
"#;
    let run = fleet.submit(spec);
    fleet.wait("a transfer that fails", || {
        let log = fleet.log_text("gw-0");
        log.contains("could not be brought").then_some(())
    });
    assert_eq!(fleet.task(&run, "read")["attempts"], 0);
    std::fs::remove_file(&files).unwrap();
    std::fs::rename(&away, &files).unwrap();
    let _ = fleet.wait_run(&run, "succeeded");
    let log = fleet.log_text("gw-0");
    assert_eq!(log.matches("the link is up").count(), 1, "{log}");
}

#[test]
fn a_terminal_fact_that_was_acknowledged_survives_ten_restarts_unchanged() {
    let mut fleet = Fleet::start(&[&["--cpus", "2"]]);
    let run = fleet.submit(
        "name: ends
tasks:
  good: {shell: echo good >> @M/ran; echo x > out, outputs: [out]}
  bad: {shell: echo bad >> @M/ran; exit 3, retry: {max_attempts: 1}}
  after: {command: 'true', needs: [bad]}
  never: {command: 'true', when: 1 == 2}",
    );
    let _ = fleet.wait_run(&run, "failed");
    fleet.wait_delivered(0);
    let there = fleet.json(&["task", "list", &run]);
    let here = fleet.local_tasks(0);
    assert_eq!((there.len(), here.len()), (4, 4));
    for round in 0..10 {
        if round % 2 == 0 {
            fleet.kill_agent(0);
        } else {
            fleet.stop_agent(0);
        }
        if round == 5 {
            fleet.kill_coordinator();
            fleet.start_coordinator();
        }
        fleet.start_agent(0);
        fleet.wait_online(0);
        assert_eq!(fleet.local_tasks(0), here, "after restart {round}");
        assert_eq!(fleet.json(&["task", "list", &run]), there, "{round}");
    }
    fleet.wait_delivered(0);
    let conflicts = fleet.run(&run)["conflicts"].clone();
    assert_eq!(conflicts.as_array().map(Vec::len), Some(0), "{conflicts}");
    assert_eq!(fleet.mark("ran").lines().count(), 2, "nothing ran again");
}
