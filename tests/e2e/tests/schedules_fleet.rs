//! Schedules of a fleet, with the real binaries: a gateway fires its own without a link and both
//! sides agree afterwards; the coordinator fires what no single node owns.

use e2e::agent::{stderr, stdout};
use e2e::fleet::Fleet;
use serde_json::Value;

fn create(fleet: &Fleet, text: &str, more: &[&str]) -> Value {
    let file = fleet.spec(text).display().to_string();
    let args = [&["schedule", "create", file.as_str()], more].concat();
    fleet.json(&args).into_iter().next().expect("a schedule")
}

fn get(fleet: &Fleet, name: &str) -> Value {
    let list = fleet.json(&["schedule", "get", name]);
    list.into_iter().next().expect("a schedule")
}

#[test]
fn a_gateway_fires_its_schedule_without_a_link_and_both_sides_agree() {
    let fleet = Fleet::start(&[&["--label", "site=a"]]);
    let text = "
name: often
schedule: {every: 10s, overlap: allow}
tasks: {note: {placement: {site: a}, shell: echo $DRIFTLESS_SCHEDULED_FOR >> @M/slots}}
";
    let made = create(&fleet, text, &[]);
    assert_eq!(made["owner"], "gw-0");
    fleet.wait("the gateway's confirmation", || {
        get(&fleet, "often")["why"].is_null().then_some(())
    });
    fleet.cut(0);
    fleet.wait("two slots without a link", || {
        (fleet.mark("slots").lines().count() >= 2).then_some(())
    });
    // A wish that the gateway does not know of yet is shown as such.
    assert!(fleet.cli(&["schedule", "pause", "often"]).status.success());
    let why = get(&fleet, "often")["why"].clone();
    assert!(
        why.as_str()
            .expect("why")
            .contains("gw-0 has not confirmed"),
        "{why}"
    );
    fleet.join(0);
    let paused = fleet.wait("the pause and all firings", || {
        let view = get(&fleet, "often");
        let known = view["why"]
            .as_str()
            .is_some_and(|why| why.starts_with("paused by"));
        known.then_some(view)
    });
    let slots: Vec<String> = fleet.mark("slots").lines().map(str::to_owned).collect();
    let mut once = slots.clone();
    once.dedup();
    assert_eq!(once, slots, "no slot ran twice");
    let fired = paused["fired"].as_u64().expect("a number");
    assert!(fired >= slots.len() as u64, "{fired} of {slots:?}");
    let run = paused["last"][0]["run"].as_str().expect("a run").to_owned();
    let run = fleet.wait_run(&run, "succeeded");
    assert_eq!(run["by"], "schedule often");
    let list = stdout(&fleet.agent_cli(0, &["schedule", "list"]));
    assert!(list.contains("often") && list.contains("paused"), "{list}");
    let refused = fleet.agent_cli(0, &["schedule", "delete", "often"]);
    assert_eq!(refused.status.code(), Some(5), "{}", stderr(&refused));
    assert!(fleet.cli(&["schedule", "delete", "often"]).status.success());
    fleet.wait("the end of the schedule at the gateway", || {
        fleet
            .agent_json(0, &["schedule", "list"])
            .is_empty()
            .then_some(())
    });
    assert!(fleet.json(&["schedule", "list"]).is_empty());
}

#[test]
fn the_coordinator_fires_what_may_run_anywhere() {
    let fleet = Fleet::start(&[&[], &[]]);
    let text = "
name: anywhere
schedule: {cron: 0 3 * * *, timezone: Asia/Kathmandu}
tasks: {show: {shell: echo $DRIFTLESS_SCHEDULED_FOR}}
";
    let made = create(&fleet, text, &[]);
    assert_eq!(made["owner"], "coordinator");
    for slot in fleet.json(&["schedule", "next", "anywhere", "2"]) {
        let slot = slot["utc"].as_str().expect("a slot");
        assert!(slot.ends_with("T21:15:00Z"), "{slot}");
    }
    assert!(
        fleet
            .cli(&["schedule", "trigger", "anywhere"])
            .status
            .success()
    );
    let run = fleet.wait("a run", || {
        let view = get(&fleet, "anywhere");
        view["last"][0]["run"].as_str().map(str::to_owned)
    });
    let run = fleet.wait_run(&run, "succeeded");
    assert_eq!(run["by"], "schedule anywhere");
    let args = [
        "schedule",
        "backfill",
        "anywhere",
        "--from",
        "2026-01-01",
        "--to",
        "2026-01-03",
    ];
    assert!(fleet.cli(&args).status.success());
    let view = fleet.wait("two past slots", || {
        let view = get(&fleet, "anywhere");
        (view["fired"] == 3).then_some(view)
    });
    assert_eq!(view["last"][0]["cause"], "backfill");
    let submitted = fleet.try_submit(text, &[]);
    assert_eq!(submitted.status.code(), Some(2));
    assert!(stderr(&submitted).contains("driftless schedule create"));
    assert_eq!(
        fleet.cli(&["schedule", "get", "nothing"]).status.code(),
        Some(3)
    );
    let again = fleet.spec(text).display().to_string();
    assert_eq!(
        fleet.cli(&["schedule", "create", &again]).status.code(),
        Some(5)
    );
    let elsewhere = ["schedule", "create", &again, "--replace", "--node", "gw-1"];
    assert!(fleet.cli(&elsewhere).status.success());
    assert_eq!(get(&fleet, "anywhere")["owner"], "gw-1");
}
