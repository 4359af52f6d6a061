//! Everything that waits for a person stands in one list, with its age and the command that ends
//! the wait; with the real binaries. Each test ends every wait with the very command that is shown.
//!
//! Kinds that need more of a story have their tests there: a hold (`backup`), a clone's quarantine
//! (`field`), a key in doubt and an expired certificate (`certificates`).

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use e2e::fleet::{Fleet, HOLD, copy};
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// The wait whose text contains `what`, in a list; its age must be right.
fn find(fleet: &Fleet, list: impl Fn() -> Vec<Value>, what: &str, after: i64) -> Value {
    let found = fleet.wait(what, || {
        let is = |wait: &Value| wait["what"].as_str().unwrap().contains(what);
        list().into_iter().find(is)
    });
    let since = found["since"].as_i64().unwrap_or_default();
    assert!((after..=now()).contains(&since), "{after} {found}");
    found
}

fn listed(fleet: &Fleet, what: &str, after: i64) -> Value {
    find(fleet, || fleet.json(&["waits", "list"]), what, after)
}

fn listed_there(fleet: &Fleet, what: &str, after: i64) -> Value {
    find(fleet, || fleet.agent_json(0, &["waits"]), what, after)
}

/// Runs the command that is said to end a wait; the wait must end.
fn end(fleet: &Fleet, wait: &Value) {
    let line = wait["command"].as_str().unwrap().replace("yes|no", "yes");
    let words: Vec<&str> = line.split(' ').collect();
    let done = match words[0] {
        "driftless" => fleet.cli(&words[1..]),
        _ => fleet.agent_cli(0, &words[1..]),
    };
    assert!(done.status.success(), "{line}: {done:?}");
    fleet.wait(&format!("the end of {wait}"), || {
        let same = |w: &Value| w["what"] == wait["what"] && w["run"] == wait["run"];
        let mut all = fleet.json(&["waits", "list"]);
        all.extend(fleet.agent_json(0, &["waits"]));
        (!all.iter().any(same)).then_some(())
    });
}

#[test]
fn what_runs_wait_for_is_listed_with_its_age_and_what_ends_it() {
    let fleet = Fleet::start(&[&[]]);
    let begun = now();
    let asking = fleet.submit("name: a\ntasks: {ask: {approval: {prompt: 'May it go on?'}}}");
    let asked = listed(&fleet, "May it go on?", begun);
    assert_eq!(
        (&asked["run"], &asked["task"]),
        (&asking.as_str().into(), &"ask".into())
    );
    assert_eq!(asked["node"], "gw-0");
    let there = listed_there(&fleet, "May it go on?", begun);
    assert_eq!(there["run"], asking);
    end(&fleet, &there);
    let _ = fleet.wait_run(&asking, "succeeded");

    let text = format!(
        "name: h\ntasks: {{hold: {{shell: '{HOLD}'}}, after: {{needs: [hold], command: 'true'}}}}"
    );
    let holding = fleet.submit(&text);
    let _ = fleet.wait_task(&holding, "hold", "running");
    let later = now();
    assert!(fleet.cli(&["run", "pause", &holding]).status.success());
    let paused = listed(&fleet, "paused by", later);
    assert_eq!(paused["run"], holding);
    let _ = listed_there(&fleet, "paused at the coordinator", later);
    end(&fleet, &paused);
    let later = now();
    assert!(fleet.agent_cli(0, &["pause", &holding]).status.success());
    let paused = listed(&fleet, "at gw-0", later);
    let _ = listed_there(&fleet, "paused at this gateway", later);
    end(&fleet, &paused);
    fleet.put_mark("go", "");
    let _ = fleet.wait_run(&holding, "succeeded");

    let failing = fleet.submit(
        "name: f\ntasks: {t: {shell: 'test -e @M/good', \
         retry: {max_attempts: 1, on_exhausted: pause}}}",
    );
    let exhausted = listed(&fleet, "no attempt is left", later);
    assert_eq!(
        (&exhausted["run"], &exhausted["task"]),
        (&failing.as_str().into(), &"t".into())
    );
    let _ = listed_there(&fleet, "no attempt is left", later);
    fleet.put_mark("good", "");
    end(&fleet, &exhausted);
    let _ = fleet.wait_run(&failing, "succeeded");

    let later = now();
    let nowhere = fleet.submit("name: n\ntasks: {t: {command: 'true', placement: {site: b}}}");
    let unplaced = listed(&fleet, "wait for a node", later);
    assert_eq!(unplaced["run"], nowhere);
    assert!(
        unplaced["command"].is_null(),
        "a node is wanted: {unplaced}"
    );
    assert!(fleet.cli(&["run", "cancel", &nowhere]).status.success());
    let _ = fleet.wait_run(&nowhere, "cancelled");
    assert!(fleet.json(&["waits", "list"]).is_empty());
    assert!(fleet.agent_json(0, &["waits"]).is_empty());
}

#[test]
fn what_nodes_and_schedules_wait_for_is_listed_with_its_age_and_what_ends_it() {
    let fleet = Fleet::start(&[&[]]);
    for verb in ["cordon", "drain"] {
        let begun = now();
        assert!(fleet.cli(&["node", verb, "gw-0"]).status.success());
        let closed = listed(&fleet, "it is given no work", begun);
        assert_eq!(closed["node"], "gw-0");
        end(&fleet, &closed);
    }

    let begun = now();
    assert!(
        fleet
            .agent_cli(0, &["sync", "pause", "--for", "10m"])
            .status
            .success()
    );
    assert!(
        fleet.agent_json(0, &["waits"]).is_empty(),
        "that ends by itself"
    );
    assert!(fleet.agent_cli(0, &["sync", "resume"]).status.success());
    fleet.wait_online(0);
    fleet.wait("the end of that pause", || {
        let node = fleet.json(&["node", "get", "gw-0"]).remove(0);
        node["sync_paused"].is_null().then_some(())
    });
    assert!(fleet.agent_cli(0, &["sync", "pause"]).status.success());
    let _ = listed_there(&fleet, "lets nothing be sent", begun);
    let silent = listed(&fleet, "lets it send nothing", begun);
    assert_eq!(silent["node"], "gw-0");
    end(&fleet, &silent);
    fleet.wait_online(0);

    let nightly = "name: nightly\nschedule: {cron: '0 3 * * *'}\ntasks: {a: {command: ['true']}}";
    let spec = fleet.spec(nightly).display().to_string();
    let _ = fleet.json(&["schedule", "create", &spec, "--node", "gw-0"]);
    let there = || fleet.agent_json(0, &["schedule", "list"]).pop();
    fleet.wait("the schedule at the gateway", there);
    let begun = now();
    assert!(
        fleet
            .cli(&["schedule", "pause", "nightly"])
            .status
            .success()
    );
    let paused = listed(&fleet, "schedule nightly is paused", begun);
    let _ = listed_there(
        &fleet,
        "schedule nightly is paused by the coordinator",
        begun,
    );
    end(&fleet, &paused);
    let begun = now();
    assert!(
        fleet
            .agent_cli(0, &["schedule", "pause", "nightly"])
            .status
            .success()
    );
    let _ = listed_there(&fleet, "schedule nightly is paused", begun);
    let paused = listed(&fleet, "at its gateway", begun);
    end(&fleet, &paused);
    assert!(fleet.json(&["waits", "list"]).is_empty());
}

#[test]
fn a_task_in_doubt_waits_until_a_person_lets_it_run_again() {
    let mut fleet = Fleet::start(&[&[]]);
    let begun = now();
    let run = fleet.submit(&format!(
        "name: d\ntasks: {{once: {{side_effects: at_most_once, shell: '{HOLD}'}}}}"
    ));
    let _ = fleet.wait_task(&run, "once", "running");
    fleet.kill_agent(0);
    fleet.end_tasks_left();
    fleet.start_agent(0);
    let doubt = listed(&fleet, "in doubt", begun);
    assert_eq!(
        (&doubt["run"], &doubt["task"]),
        (&run.as_str().into(), &"once".into())
    );
    let _ = listed_there(&fleet, "in doubt", begun);
    fleet.put_mark("go", "");
    end(&fleet, &doubt);
    let _ = fleet.wait_run(&run, "succeeded");
}

#[test]
fn a_run_that_only_facts_name_waits_to_be_forgotten() {
    let mut fleet = Fleet::start(&[&[]]);
    fleet.stop_coordinator();
    let old = fleet.base().join("older");
    copy(&fleet.data(), &old);
    fleet.start_coordinator();
    fleet.wait_online(0);
    let begun = now();
    let run = fleet.submit("name: gone\ntasks: {t: {command: 'true'}}");
    let _ = fleet.wait_run(&run, "succeeded");
    assert!(fleet.cli(&["run", "forget", &run]).status.success());
    fleet.wait("the gateway to forget it", || {
        fleet
            .agent_json(0, &["ps", "--all"])
            .is_empty()
            .then_some(())
    });
    fleet.wait_delivered(0);
    // a directory from before the run is put back: only the gateway's facts name it
    fleet.stop_coordinator();
    std::fs::rename(fleet.data(), fleet.base().join("newer")).unwrap();
    copy(&old, &fleet.data());
    fleet.start_coordinator();
    let unknown = listed(&fleet, "known only from facts", begun);
    assert_eq!(unknown["run"], run);
    assert_eq!(fleet.run(&run)["state"], "unknown_run");
    end(&fleet, &unknown);
}
