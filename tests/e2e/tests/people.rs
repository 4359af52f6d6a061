//! What people do about runs that went wrong: run again, forget, look at what happened and at what
//! does not count; with the real binaries.

use e2e::agent::stderr;
use e2e::fleet::Fleet;

/// `flaky` fails until there is the mark `good`; `kept` succeeds before it, `after` reads it.
const FLAKY: &str = "
name: flaky
defaults: {retry: {max_attempts: 1}}
tasks:
  kept:
    placement: {site: a}
    outputs: [kept.txt]
    shell: echo kept >> @M/ran; date +%N > kept.txt
  flaky:
    placement: {site: a}
    inputs: [kept.txt]
    outputs: [made.txt]
    shell: test -e @M/good && cp kept.txt made.txt
  after:
    placement: {site: b}
    inputs: [made.txt]
    shell: echo after >> @M/ran
";
const SITES: [&[&str]; 2] = [&["--label", "site=a"], &["--label", "site=b"]];

#[test]
fn a_failed_run_is_retried_while_a_node_is_offline_and_keeps_what_succeeded() {
    let fleet = Fleet::start(&SITES);
    let run = fleet.submit(FLAKY);
    let _ = fleet.wait_run(&run, "failed");
    let kept = fleet.task(&run, "kept")["outputs"][0]["hash"].clone();
    fleet.cut(0);
    fleet.wait_node(0, "offline");
    let asked = fleet.cli(&["run", "retry", &run, "--failed"]);
    assert_eq!(asked.status.code(), Some(0), "{asked:?}");
    let waiting = fleet.run(&run);
    let requests = waiting["requests"].to_string();
    assert!(requests.contains("retry of 2 tasks requested"), "{waiting}");
    let twice = fleet.cli(&["run", "retry", &run]);
    assert_eq!(twice.status.code(), Some(5), "{twice:?}");
    fleet.put_mark("good", "");
    fleet.join(0);
    let _ = fleet.wait_run(&run, "succeeded");
    assert_eq!(
        fleet.mark("ran"),
        "kept\nafter\n",
        "what had succeeded was not done again"
    );
    assert_eq!(fleet.task(&run, "kept")["outputs"][0]["hash"], kept);
    let history = fleet.json(&["task", "history", &run, "flaky"]);
    let what: Vec<&str> = history.iter().filter_map(|e| e["what"].as_str()).collect();
    assert_eq!(
        what.iter().filter(|w| **w == "began").count(),
        2,
        "{history:?}"
    );
    assert!(what.contains(&"retried") && what.contains(&"failed") && what.contains(&"succeeded"));
    assert_eq!(fleet.task(&run, "flaky")["attempts"], 1);
    // a part of a run that is over is run again by name
    let asked = fleet.cli(&["run", "retry", &run, "--from", "after"]);
    assert_eq!(asked.status.code(), Some(0), "{asked:?}");
    fleet.wait("after to run again", || {
        (fleet.mark("ran").ends_with("after\nafter\n")).then_some(())
    });
    let _ = fleet.wait_run(&run, "succeeded");
    assert!(fleet.json(&["conflicts", "list", "--run", &run]).is_empty());
}

#[test]
fn a_cancelled_run_is_retried() {
    let fleet = Fleet::start(&[&[]]);
    let text = "name: c\ntasks: {t: {shell: 'test -e @M/go || sleep 600'}}";
    let run = fleet.submit(text);
    let _ = fleet.wait_task(&run, "t", "running");
    assert_eq!(fleet.cli(&["run", "forget", &run]).status.code(), Some(5));
    assert_eq!(fleet.cli(&["run", "cancel", &run]).status.code(), Some(0));
    let _ = fleet.wait_run(&run, "cancelled");
    fleet.put_mark("go", "");
    let asked = fleet.cli(&["run", "retry", &run]);
    assert_eq!(asked.status.code(), Some(0), "{}", stderr(&asked));
    let _ = fleet.wait_run(&run, "succeeded");
}

#[test]
fn a_run_that_is_over_is_forgotten_when_its_nodes_have_confirmed() {
    let fleet = Fleet::start(&[&[]]);
    let run = fleet.submit("name: f\ntasks: {t: {command: 'true'}}");
    let _ = fleet.wait_run(&run, "succeeded");
    fleet.cut(0);
    fleet.wait_node(0, "offline");
    let asked = fleet.json(&["run", "forget", &run]);
    assert_eq!(asked[0]["forgotten"], false);
    let requests = asked[0]["requests"].to_string();
    assert!(requests.contains("1 nodes have not confirmed"), "{asked:?}");
    fleet.join(0);
    fleet.wait("the run to be forgotten", || {
        (fleet.cli(&["run", "get", &run]).status.code() == Some(3)).then_some(())
    });
    fleet.wait("the gateway to forget it", || {
        fleet.local_tasks(0).is_empty().then_some(())
    });
}

#[test]
fn a_failed_task_is_retried_at_its_gateway_without_a_link() {
    let fleet = Fleet::start(&SITES);
    let run = fleet.submit(FLAKY);
    let _ = fleet.wait_run(&run, "failed");
    fleet.cut(0);
    fleet.put_mark("good", "");
    let asked = fleet.agent_cli(0, &["retry", &run, "flaky"]);
    assert_eq!(asked.status.code(), Some(0), "{asked:?}");
    let _ = fleet.wait_local(0, "flaky", "succeeded");
    let there = fleet.local_tasks(0)["flaky"]["attempts"].clone();
    fleet.join(0);
    let task = fleet.wait_task(&run, "flaky", "succeeded");
    assert_eq!(task["attempts"], there, "both sides count the same");
}
