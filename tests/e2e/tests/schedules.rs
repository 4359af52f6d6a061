//! Schedules on a gateway without a coordinator, with the real agent: a test for each field of the
//! block `schedule`, people's commands, and a kill between two slots.

use e2e::agent::{Gateway, stderr, stdout};
use serde_json::Value;
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::Duration;

fn flow(name: &str, schedule: &str, shell: &str) -> String {
    format!("name: {name}\nschedule: {{{schedule}}}\ntasks: {{show: {{shell: {shell}}}}}")
}

/// Makes a schedule and gives what is shown of it.
fn create(gateway: &Gateway, text: &str) -> Value {
    let file = gateway.spec(text);
    let made = gateway.json(&["schedule", "create", &file.display().to_string()]);
    made.into_iter().next().expect("a schedule")
}

fn get(gateway: &Gateway, name: &str) -> Value {
    let list = gateway.json(&["schedule", "get", name]);
    list.into_iter().next().expect("a schedule")
}

fn next(gateway: &Gateway, name: &str, count: &str) -> Vec<String> {
    let list = gateway.json(&["schedule", "next", name, count]);
    let text = |slot: Value| slot["utc"].as_str().expect("a slot").to_owned();
    list.into_iter().map(text).collect()
}

fn order(gateway: &Gateway, args: &[&str]) {
    let output = gateway.command(&[&["schedule"], args].concat());
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
}

/// Waits for the newest firing that is another one than `before`.
fn fired(gateway: &Gateway, name: &str, before: &Value) -> Value {
    gateway.wait("a slot that fires", || {
        let last = get(gateway, name)["last"][0].clone();
        (last != *before && last != Value::Null).then_some(last)
    })
}

fn run_of(firing: &Value) -> String {
    firing["run"].as_str().expect("a run").to_owned()
}

#[test]
fn spec_field_schedule() {
    let gateway = Gateway::started(&[]);
    let text = flow("nightly", "cron: 0 3 * * *", "'true'");
    assert!(gateway.refused(&text, &[]).contains("schedule create"));
    let made = create(&gateway, &text);
    assert_eq!(made["name"], "nightly");
    assert_eq!(made["state"], "active");
    let list = stdout(&gateway.command(&["schedule", "list"]));
    assert!(
        list.contains("nightly") && list.contains("cron 0 3 * * *"),
        "{list}"
    );
    let plain = gateway.spec("name: plain\ntasks: {a: {command: 'true'}}");
    let plain = plain.display().to_string();
    let refused = gateway.command(&["schedule", "create", &plain]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("has no `schedule`"));
}

#[test]
fn spec_field_schedule_cron() {
    let gateway = Gateway::started(&[]);
    create(&gateway, &flow("c", "cron: 30 4 * * *", "'true'"));
    for slot in next(&gateway, "c", "3") {
        assert!(slot.ends_with("T04:30:00Z"), "{slot}");
    }
}

#[test]
fn spec_field_schedule_timezone() {
    let gateway = Gateway::started(&[]);
    let text = flow("c", "cron: 0 3 * * *, timezone: Asia/Kathmandu", "'true'");
    create(&gateway, &text);
    for slot in next(&gateway, "c", "3") {
        assert!(slot.ends_with("T21:15:00Z"), "{slot}");
    }
}

#[test]
fn spec_field_schedule_every() {
    let mut gateway = Gateway::started(&[]);
    let shell = "echo $DRIFTLESS_SCHEDULED_FOR";
    create(&gateway, &flow("often", "every: 10s", shell));
    let first = fired(&gateway, "often", &Value::Null);
    let run = run_of(&first);
    let _ = gateway.wait_state(&run, "show", "succeeded");
    let slot = first["slot"].as_i64().expect("an instant");
    assert_eq!(slot % 10_000, 0);
    let said = gateway.output(&run, "show");
    assert!(said.ends_with("0Z") && said.contains('T'), "{said}");
    // It goes on after a kill, and no slot fires twice.
    gateway.kill();
    gateway.start();
    let second = fired(&gateway, "often", &first);
    assert!(second["slot"].as_i64() > Some(slot));
    let all = get(&gateway, "often")["last"].clone();
    let slots: Vec<i64> = all
        .as_array()
        .expect("a list")
        .iter()
        .map(|f| f["slot"].as_i64().expect("an instant"))
        .collect();
    assert!(slots.windows(2).all(|pair| pair[0] > pair[1]), "{slots:?}");
}

/// Four schedules, all of which saw the same 35 seconds pass while their agent was down.
fn after_downtime() -> &'static [Value; 4] {
    static SEEN: OnceLock<[Value; 4]> = OnceLock::new();
    SEEN.get_or_init(|| {
        let mut gateway = Gateway::started(&["--cpus", "8"]);
        let rules = [
            ("none", "every: 10s, overlap: allow"),
            (
                "all",
                "every: 10s, overlap: allow, catchup: all, max_catchup: 3",
            ),
            (
                "two",
                "every: 10s, overlap: allow, catchup: all, max_catchup: 2",
            ),
            (
                "soon",
                "every: 60s, overlap: allow, catchup: latest, starting_deadline: 1s",
            ),
        ];
        for (name, rule) in rules {
            create(&gateway, &flow(name, rule, "'true'"));
        }
        // Past a full minute, so that `soon` misses it.
        gateway.kill();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let in_minute = now.expect("a time after 1970").as_millis() as u64 % 60_000;
        let left = Duration::from_millis(60_000 - in_minute);
        sleep(
            left.max(Duration::from_secs(35))
                .max(left + Duration::from_secs(3)),
        );
        gateway.start();
        rules.map(|(name, _)| {
            gateway.wait("slots that were looked at", || {
                let view = get(&gateway, name);
                let seen = view["fired"].as_u64() > Some(0) || view["skipped"].as_u64() > Some(0);
                seen.then_some(view)
            })
        })
    })
}

/// The most that fired together: a slot may also have come before the power went.
fn fired_at_once(view: &Value) -> usize {
    let last = view["last"].as_array().expect("a list").iter();
    let at: Vec<i64> = last.filter_map(|firing| firing["at"].as_i64()).collect();
    let together = |first: &i64| {
        let with = at.iter().filter(|at| (*first..first + 500).contains(at));
        with.count()
    };
    at.iter().map(together).max().unwrap_or(0)
}

#[test]
fn spec_field_schedule_catchup() {
    let [none, all, ..] = after_downtime();
    assert_eq!(fired_at_once(none), 1, "{none}");
    assert_eq!(none["last_skipped"]["reason"], "slot_missed");
    assert_eq!(fired_at_once(all), 3, "{all}");
}

#[test]
fn spec_field_schedule_max_catchup() {
    assert_eq!(fired_at_once(&after_downtime()[2]), 2);
}

#[test]
fn spec_field_schedule_starting_deadline() {
    let soon = &after_downtime()[3];
    assert_eq!(soon["last_skipped"]["reason"], "slot_too_late", "{soon}");
}

#[test]
fn spec_field_schedule_overlap() {
    let gateway = Gateway::started(&["--cpus", "4"]);
    for name in ["forbid", "allow", "replace"] {
        let rule = format!("cron: 0 0 1 1 *, overlap: {name}");
        create(&gateway, &flow(name, &rule, "sleep 600"));
        order(&gateway, &["trigger", name]);
        let first = fired(&gateway, name, &Value::Null);
        let _ = gateway.wait_state(&run_of(&first), "show", "running");
        order(&gateway, &["trigger", name]);
        match name {
            "forbid" => {
                let why = gateway.wait("a slot that does not fire", || {
                    let view = get(&gateway, name);
                    view["last_skipped"]["reason"].as_str().map(str::to_owned)
                });
                assert_eq!(why, "run_open");
            }
            _ => {
                let second = fired(&gateway, name, &first);
                let _ = gateway.wait_state(&run_of(&second), "show", "running");
                let state = match name {
                    "allow" => "running",
                    _ => "cancelled",
                };
                let _ = gateway.wait_state(&run_of(&first), "show", state);
            }
        }
    }
}

#[test]
fn spec_field_schedule_jitter() {
    let gateway = Gateway::started(&[]);
    let made = create(&gateway, &flow("j", "every: 1h, jitter: 20m", "'true'"));
    assert_eq!(made["jitter"], 1_200_000);
    let file = gateway.spec(&flow("k", "every: 1h, jitter: 2h", "'true'"));
    let refused = gateway.command(&["schedule", "create", &file.display().to_string()]);
    assert!(stdout(&refused).contains("`jitter` of 2h is longer than 1h"));
}

#[test]
fn people_change_a_schedule_at_the_gateway() {
    let mut gateway = Gateway::started(&[]);
    let text = flow(
        "daily",
        "cron: 0 5 * * *, overlap: allow",
        "echo $DRIFTLESS_SCHEDULED_FOR",
    );
    create(&gateway, &text);
    order(&gateway, &["pause", "daily"]);
    let paused = get(&gateway, "daily");
    assert_eq!(paused["state"], "paused");
    assert!(
        paused["why"]
            .as_str()
            .expect("why")
            .starts_with("paused here by ")
    );
    gateway.kill();
    gateway.start();
    assert_eq!(get(&gateway, "daily")["state"], "paused");
    order(&gateway, &["resume", "daily"]);
    order(
        &gateway,
        &[
            "backfill",
            "daily",
            "--from",
            "2026-01-01",
            "--to",
            "2026-01-03",
        ],
    );
    let done = gateway.wait("both past slots", || {
        let view = get(&gateway, "daily");
        (view["fired"] == 2 && view["backfill"] == Value::Null).then_some(view)
    });
    let run = run_of(&done["last"][0]);
    let _ = gateway.wait_state(&run, "show", "succeeded");
    assert_eq!(gateway.output(&run, "show"), "2026-01-02T05:00:00Z");
    let file = gateway.spec(&text.replace("0 5", "0 6"));
    let file = file.display().to_string();
    let refused = gateway.command(&["schedule", "create", &file]);
    assert_eq!(refused.status.code(), Some(5));
    assert!(
        stderr(&refused).contains("--replace"),
        "{}",
        stderr(&refused)
    );
    let new = gateway.json(&["schedule", "create", &file, "--replace"]);
    assert_eq!(
        (&new[0]["revision"], &new[0]["rule"]),
        (&2.into(), &"cron 0 6 * * *".into())
    );
    let wrong = [
        "schedule",
        "backfill",
        "daily",
        "--from",
        "2026-02-01",
        "--to",
        "2026-01-01",
    ];
    assert_eq!(gateway.command(&wrong).status.code(), Some(5));
    order(&gateway, &["delete", "daily"]);
    assert_eq!(
        gateway.command(&["schedule", "get", "daily"]).status.code(),
        Some(3)
    );
    assert!(gateway.json(&["schedule", "list"]).is_empty());
}
