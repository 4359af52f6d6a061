//! Accidents of the field with the real binaries, each as docs/field.md lists it: a store that is
//! cut to nothing, disks that go back or are copied, links that die in one direction only.

use e2e::fleet::{Fleet, HOLD, copy};
use relay::{Conditions, Direction};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Two kinds of work that hold until the mark `go`, and one that is over; each notes that it began.
fn work(name: &str) -> String {
    format!(
        "name: {name}
defaults: {{placement: {{node: gw-0}}}}
tasks:
  done: {{shell: echo {name} >> @M/done}}
  again: {{shell: 'echo {name} >> @M/again; {HOLD}', side_effects: idempotent, needs: [done]}}
  once: {{shell: 'echo {name} >> @M/once; {HOLD}', side_effects: at_most_once, needs: [done]}}"
    )
}

/// A run that holds: `done` is over and known to the coordinator, the others run.
fn holding(fleet: &Fleet, name: &str) -> String {
    let run = fleet.submit(&work(name));
    for task in ["again", "once"] {
        let _ = fleet.wait_task(&run, task, "running");
    }
    let _ = fleet.wait_task(&run, "done", "succeeded");
    run
}

/// What `identity.json` says.
fn identity(data: &Path) -> BTreeMap<String, Value> {
    let text = fs::read_to_string(data.join("identity.json")).expect("an enrolled agent");
    serde_json::from_str(&text).expect("an identity")
}

/// The attempts of a task that count, by their outcome.
fn counted(fleet: &Fleet, run: &str, task: &str) -> Vec<String> {
    let task = fleet.task(run, task);
    let attempts = task["history"].as_array().cloned().unwrap_or_default();
    let counts = attempts.iter().filter(|a| a["not_applied"].is_null());
    counts
        .filter_map(|a| a["outcome"].as_str().map(str::to_owned))
        .collect()
}

/// Waits until a person is asked about this task.
fn waits_for(fleet: &Fleet, task: &str) -> Value {
    fleet.wait(&format!("{task} to wait for a person"), || {
        let waits = fleet.json(&["waits", "list"]);
        waits.into_iter().find(|wait| wait["task"] == task)
    })
}

fn logged(fleet: &Fleet, name: &str, text: &str) {
    fleet.wait(&format!("'{text}' from {name}"), || {
        fleet.log_text(name).contains(text).then_some(())
    });
}

/// After a new incarnation of gw-0: what was over stays so, what may run again does and counts
/// once, and what may not waits for a person.
fn goes_on_as_a_new_incarnation(fleet: &Fleet, run: &str, old: &str) {
    fleet.wait_online(0);
    fleet.wait("a second process of again", || {
        (fleet.mark("again").lines().count() == 2).then_some(())
    });
    let now = identity(fleet.agent_data(0));
    assert_eq!(now["succeeds"], old, "{now:?}");
    assert!(
        fleet
            .agent_data(0)
            .join("old")
            .join(format!("{old}.redb"))
            .exists(),
        "the old journal is kept"
    );
    let wait = waits_for(fleet, "once");
    assert_eq!(wait["run"], run, "{wait}");
    fleet.put_mark("go", "");
    let _ = fleet.wait_task(run, "again", "succeeded");
    assert_eq!(
        counted(fleet, run, "again").last().map(String::as_str),
        Some("succeeded")
    );
    assert_eq!(counted(fleet, run, "done"), ["succeeded"]);
    let lost = fleet.task(run, "once");
    assert_eq!(lost["state"], "lost", "{lost}");
    assert!(lost["reason"].is_string(), "with the reason: {lost}");
    for (mark, times) in [("done", 1), ("once", 1), ("again", 2)] {
        assert_eq!(fleet.mark(mark).lines().count(), times, "{mark}");
    }
    fs::remove_file(fleet.marks().join("go")).expect("the mark");
    // and new work is taken
    let new = fleet.submit("name: new\ntasks: {it: {placement: {node: gw-0}, shell: 'true'}}");
    let _ = fleet.wait_run(&new, "succeeded");
    fleet.wait_delivered(0);
}

#[test]
fn a_store_cut_to_zero_bytes_is_a_new_incarnation_by_itself_and_never_nothing_to_do() {
    let mut fleet = Fleet::start(&[&["--cpus", "4"]]);
    let run = holding(&fleet, "held");
    // an outcome that the coordinator cannot know: it is lost with the store, and made again
    let unheard = "name: unheard\ntasks: {one: {placement: {node: gw-0}, \
                   shell: 'echo x >> @M/unheard; until [ -e @M/end ]; do sleep 0.02; done'}}";
    let unheard = fleet.submit(unheard);
    let _ = fleet.wait_task(&unheard, "one", "running");
    fleet.cut(0);
    fleet.put_mark("end", "");
    let _ = fleet.wait_local(0, "one", "succeeded");
    let old = identity(fleet.agent_data(0))["incarnation"].clone();
    fleet.kill_agent(0);
    fs::write(fleet.agent_data(0).join("store.redb"), b"").expect("the store");
    fleet.start_agent(0);
    logged(&fleet, "gw-0", "store.redb was cut to nothing");
    assert!(fleet.local_tasks(0).is_empty(), "nothing is known any more");
    fleet.join(0);
    goes_on_as_a_new_incarnation(&fleet, &run, old.as_str().unwrap_or_default());
    let _ = fleet.wait_run(&unheard, "succeeded");
    assert_eq!(
        counted(&fleet, &unheard, "one").last().map(String::as_str),
        Some("succeeded")
    );
    assert_eq!(fleet.mark("unheard").lines().count(), 2);
    let node = fleet.json(&["node", "get", "gw-0"]).remove(0);
    let note = node["note"].as_str().unwrap_or_default();
    assert!(note.contains("store is gone"), "{node}");
    // the same accident again
    fleet.kill_agent(0);
    fs::write(fleet.agent_data(0).join("store.redb"), b"").expect("the store");
    fleet.start_agent(0);
    fleet.wait_online(0);
}

#[test]
fn a_disk_that_went_back_takes_a_new_incarnation_and_its_running_work_is_in_doubt() {
    let mut fleet = Fleet::start(&[&["--cpus", "4"]]);
    let (data, older) = (fleet.agent_data(0).to_owned(), fleet.base().join("older"));
    fleet.stop_agent(0);
    copy(&data, &older);
    fleet.start_agent(0);
    fleet.wait_online(0);
    let run = holding(&fleet, "held");
    let old = identity(&data)["incarnation"].clone();
    fleet.kill_agent(0);
    fs::rename(&data, fleet.base().join("newer")).expect("the directory");
    fs::rename(&older, &data).expect("its copy");
    fleet.start_agent(0);
    logged(&fleet, "gw-0", "going on as a new incarnation");
    goes_on_as_a_new_incarnation(&fleet, &run, old.as_str().unwrap_or_default());
}

#[test]
fn a_copied_disk_that_runs_later_is_fenced_and_the_original_that_returns_waits_for_a_person() {
    let mut fleet = Fleet::start(&[&["--cpus", "4"]]);
    let (data, copied) = (fleet.agent_data(0).to_owned(), fleet.base().join("copied"));
    fleet.stop_agent(0);
    copy(&data, &copied);
    fleet.start_agent(0);
    fleet.wait_online(0);
    let run = holding(&fleet, "held");
    let old = identity(&data)["incarnation"].clone();
    fleet.kill_agent(0);
    // the original is off; its copy calls with an older end of the same history
    let twin = fleet.clone_agent("twin", &copied);
    logged(&fleet, "twin", "going on as a new incarnation");
    fleet.wait_online(0);
    assert_eq!(identity(&copied)["succeeds"], old);
    let _ = waits_for(&fleet, "once");
    fleet.put_mark("go", "");
    let _ = fleet.wait_task(&run, "again", "succeeded");
    assert_eq!(counted(&fleet, &run, "done"), ["succeeded"]);
    // the original is back while the copy answers, and then alone: it was closed
    fleet.start_agent(0);
    logged(&fleet, "gw-0", "the coordinator refuses this agent");
    let quarantine = fleet.wait("the quarantine", || {
        let waits = fleet.json(&["waits", "list"]);
        waits
            .into_iter()
            .find(|wait| wait["node"] == "gw-0" && wait["task"].is_null())
    });
    assert!(
        quarantine["command"]
            .as_str()
            .is_some_and(|c| c.contains("node release"))
    );
    drop(twin);
    let local = fleet.agent_json(0, &["status"]).remove(0);
    assert_ne!(local["link"], "online", "{local}");
    // an agent that was refused for good asks again after minutes, or when it is started
    fleet.stop_agent(0);
    fleet.start_agent(0);
    // first a person lets the node back in, then the machine whose incarnation was closed
    for why in [
        "in quarantine until a person decides",
        "is the one that counts",
    ] {
        logged(&fleet, "gw-0", why);
        let _ = fleet.json(&["node", "release", "gw-0"]);
        fleet.stop_agent(0);
        fleet.start_agent(0);
    }
    fleet.wait("the original as a new incarnation", || {
        (identity(&data)["succeeds"] == old).then_some(())
    });
    fleet.wait_online(0);
    assert_eq!(fleet.mark("once").lines().count(), 1, "never begun again");
    assert_eq!(counted(&fleet, &run, "done"), ["succeeded"]);
}

#[test]
fn a_gateway_that_is_imaged_again_needs_a_token_and_its_work_is_placed_again() {
    let mut fleet = Fleet::start(&[&["--cpus", "4"]]);
    let run = holding(&fleet, "held");
    let data = fleet.agent_data(0).to_owned();
    let old = identity(&data)["incarnation"].clone();
    fleet.kill_agent(0);
    // its tasks end with the machine
    fleet.end_tasks_left();
    fs::remove_dir_all(&data).expect("the directory");
    // the fleet makes a token of `--replace gw-0` for a known name
    fleet.start_agent(0);
    fleet.wait_online(0);
    let now = identity(&data);
    assert_ne!(now["incarnation"], old);
    assert_eq!(now["succeeds"], Value::Null);
    fleet.wait("a second process of again", || {
        (fleet.mark("again").lines().count() == 2).then_some(())
    });
    let _ = waits_for(&fleet, "once");
    fleet.put_mark("go", "");
    let _ = fleet.wait_task(&run, "again", "succeeded");
    assert_eq!(fleet.task(&run, "once")["state"], "lost");
    assert_eq!(counted(&fleet, &run, "done"), ["succeeded"]);
    assert_eq!(fleet.mark("done").lines().count(), 1);
    assert_eq!(fleet.mark("once").lines().count(), 1);
}

/// A link of which one direction is dead: first the agent is not heard, then it hears nothing.
#[test]
fn a_link_that_is_half_open_is_given_up_by_both_sides_and_nothing_runs_twice() {
    let fleet = Fleet::start(&[&[]]);
    for direction in [Direction::Up, Direction::Down] {
        let name = format!("{direction:?}").to_lowercase();
        let run = fleet.submit(&format!(
            "name: {name}
tasks:
  {name}-a: {{shell: 'echo a >> @M/{name}; until [ -e @M/go-{name} ]; do sleep 0.02; done'}}
  {name}-b: {{shell: echo b >> @M/{name}, needs: [{name}-a]}}"
        ));
        let _ = fleet.wait_local(0, &format!("{name}-a"), "running");
        fleet.relay().set(0, direction, Conditions::CUT);
        fleet.put_mark(&format!("go-{name}"), "");
        let _ = fleet.wait_local(0, &format!("{name}-b"), "succeeded");
        fleet.wait("the agent to notice", || {
            let status = fleet.agent_json(0, &["status"]).remove(0);
            (status["link"] != "online").then_some(())
        });
        fleet.wait_node(0, "offline");
        // dials go on being answered in one direction only
        fleet.wait("a dial that fails", || {
            let log = fleet.log_text("gw-0");
            (log.matches("the link is down").count() >= 2).then_some(())
        });
        fleet.join(0);
        let _ = fleet.wait_run(&run, "succeeded");
        assert_eq!(fleet.mark(&name), "a\nb\n");
        for task in [format!("{name}-a"), format!("{name}-b")] {
            assert_eq!(counted(&fleet, &run, &task), ["succeeded"]);
        }
        fleet.wait_delivered(0);
    }
}

/// More outcomes than one batch holds are delivered and recorded; their acknowledgements are lost.
#[test]
fn newer_facts_arrive_after_the_acknowledgement_of_a_full_batch_was_lost() {
    const TASKS: usize = 520;
    let mut fleet = Fleet::start(&[&["--cpus", "4"]]);
    let many = (0..TASKS).map(|n| format!("  t{n}: {{command: 'true', needs: [first]}}\n"));
    let spec = format!(
        "name: many\nmerge_leaves: 1\ntasks:\n  first: {{shell: '{HOLD}'}}\n  \
         last: {{shell: 'until [ -e @M/last ]; do sleep 0.02; done', needs: [first]}}\n"
    );
    let run = fleet.submit(&(spec + &many.collect::<String>()));
    let _ = fleet.wait_local(0, "first", "running");
    fleet.cut(0);
    fleet.put_mark("go", "");
    fleet.wait("all outcomes without a link", || {
        let tasks = fleet.local_tasks(0);
        let over = tasks.values().filter(|task| task["state"] == "succeeded");
        (over.count() > TASKS).then_some(())
    });
    let facts = |fleet: &Fleet| {
        let node = fleet.json(&["node", "get", "gw-0"]).remove(0);
        node["as_of"]["fact"].as_u64().unwrap_or(0)
    };
    // what the coordinator says takes so long that it can be lost after it was said
    let slow = Conditions {
        delay: Duration::from_millis(900),
        ..Conditions::OPEN
    };
    fleet.relay().set(0, Direction::Down, slow);
    fleet.relay().set(0, Direction::Up, Conditions::OPEN);
    fleet.wait("a full batch to be recorded", || {
        (facts(&fleet) >= 1000).then_some(())
    });
    fleet.relay().mute(0);
    let status = fleet.agent_json(0, &["status"]).remove(0);
    let count = |key: &str| status[key].as_u64().unwrap_or(0);
    assert!(
        count("facts") - count("behind") < 1000,
        "the acknowledgement was lost: {status}"
    );
    // newer facts, made while nothing is heard; and the agent that waits for the answer may die
    fleet.put_mark("last", "");
    let _ = fleet.wait_local(0, "last", "succeeded");
    fleet.kill_agent(0);
    fleet.start_agent(0);
    fleet.join(0);
    let _ = fleet.wait_run(&run, "succeeded");
    fleet.wait_delivered(0);
    let tasks = fleet.tasks(&run);
    assert_eq!(tasks.len(), TASKS + 2);
    assert!(
        tasks
            .values()
            .all(|task| task["state"] == "succeeded" && task["attempts"] == 1)
    );
    let conflicts = fleet.run(&run)["conflicts"].clone();
    assert_eq!(conflicts.as_array().map(Vec::len), Some(0), "{conflicts}");
}

/// Nothing has changed, nobody answers: what was assigned starts from the disk all the same.
#[test]
fn a_cold_start_without_a_link_and_with_unchanged_settings_starts_what_waits() {
    let mut fleet = Fleet::start(&[&["--cpus", "1"]]);
    let _ = fleet.json(&["config", "set", "max_retries", "1"]);
    let run = fleet.submit(&format!(
        "name: cold
tasks:
  before: {{shell: 'echo before >> @M/ran; {HOLD}', side_effects: idempotent}}
  after: {{shell: echo after >> @M/ran, needs: [before]}}
  fails: {{shell: echo fails >> @M/ran; exit 1, needs: [before]}}"
    ));
    let _ = fleet.wait_local(0, "before", "running");
    fleet.wait("the setting", || {
        let status = fleet.agent_json(0, &["status"]).remove(0);
        (status["scheduler"]["max_retries"] == "1").then_some(())
    });
    fleet.stop_agent(0);
    fleet.cut(0);
    fleet.kill_coordinator();
    fleet.put_mark("go", "");
    for _ in 0..2 {
        fleet.start_agent(0);
        let _ = fleet.wait_local(0, "after", "succeeded");
        let _ = fleet.wait_local(0, "fails", "failed");
        fleet.stop_agent(0);
    }
    fleet.start_agent(0);
    let status = fleet.agent_json(0, &["status"]).remove(0);
    assert_eq!(status["scheduler"]["max_retries"], "1", "{status}");
    let ran = fleet.mark("ran");
    fleet.start_coordinator();
    fleet.join(0);
    let _ = fleet.wait_run(&run, "failed");
    fleet.wait_delivered(0);
    assert_eq!(
        fleet.mark("ran"),
        ran,
        "an unchanged log runs nothing again"
    );
    assert_eq!(ran.matches("before").count(), 2, "{ran}");
    assert_eq!(ran.matches("fails").count(), 2, "{ran}");
    assert_eq!(ran.matches("after").count(), 1, "{ran}");
}
