//! `driftless plan` says what a submission then does, and changes nothing.

use e2e::fleet::{Fleet, output, program};

const SPEC: &str = "name: planned
tasks:
  load: {placement: {node: gw-0}, command: 'true'}
  train: {needs: [load], placement: {site: b}, shell: sleep 0.1}
  show: {needs: [train], placement: {labels: {kind: large}}, command: 'true'}
  side: {placement: {node: gw-0}, command: 'true'}";

#[test]
fn a_plan_says_where_tasks_would_go_and_why_not_elsewhere() {
    let fleet = Fleet::start(&[&["--label", "site=a"], &["--label", "site=b"]]);
    let file = fleet.base().join("planned.yaml");
    std::fs::write(&file, SPEC).expect("a file");
    let file = file.to_str().expect("text");
    let shown = fleet.cli(&["plan", file]);
    assert_eq!(shown.status.code(), Some(1), "a task would wait: {shown:?}");
    let plan: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("an object");
    let task = |id: &str| {
        let tasks = plan["tasks"].as_array().expect("a list");
        tasks
            .iter()
            .find(|task| task["task"] == id)
            .cloned()
            .expect("listed")
    };
    assert_eq!(task("load")["node"], "gw-0");
    assert_eq!(task("load")["why"], "named_by_spec");
    assert_eq!(task("train")["node"], "gw-1");
    let elsewhere = task("train")["elsewhere"].to_string();
    assert!(elsewhere.contains("gw-0"), "{elsewhere}");
    assert!(task("show")["node"].is_null());
    assert!(task("show")["why"].to_string().contains("labels"));
    let path = plan["critical_path"]["tasks"].to_string();
    assert_eq!(path, r#"["load","train","show"]"#);
    assert!(
        plan["critical_path"]["takes_ms"].is_null(),
        "nothing ran yet"
    );
    assert_eq!(plan["slices"].as_array().map(Vec::len), Some(2));
    assert!(
        fleet.json(&["run", "list"]).is_empty(),
        "nothing was submitted"
    );

    let run = fleet.submit(&SPEC.replace("labels: {kind: large}", "site: a"));
    let _ = fleet.wait_run(&run, "succeeded");
    let shown = fleet.cli(&["plan", file]);
    let plan: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("an object");
    assert!(
        plan["critical_path"]["takes_ms"].as_u64() >= Some(50),
        "{plan}"
    );
    assert_eq!(plan["critical_path"]["runs"], 1);
    let api = fleet.api().to_string();
    let text = |args: &[&str]| {
        let mut command = program("driftless");
        let shown = output(command.args(["plan", file, "--api", &api]).args(args));
        String::from_utf8_lossy(&shown.stdout).into_owned()
    };
    let table = text(&[]);
    assert!(table.contains("load → train → show"), "{table}");
    let one = text(&["--task", "train"]);
    assert!(one.contains("gw-0"), "{one}");
}

#[test]
fn spec_field_estimate() {
    let fleet = Fleet::start(&[&[]]);
    let text = "name: guessed
tasks:
  long: {command: 'true', estimate: 5m}
  short: {command: 'true'}
  next: {needs: [short], command: 'true', estimate: 20s}
  never: {needs: [short], command: 'true', estimate: 9h, when: 1 == 2}";
    let file = fleet.spec(text).display().to_string();
    let plan = || fleet.json(&["plan", &file]).remove(0);
    let said = plan();
    let task = |plan: &serde_json::Value, id: &str| {
        let mut tasks = plan["tasks"].as_array().expect("a list").iter();
        tasks
            .find(|task| task["task"] == id)
            .cloned()
            .expect("listed")
    };
    assert_eq!(task(&said, "long")["takes_ms"], 300_000);
    assert_eq!(task(&said, "long")["takes_by"], "estimate");
    assert!(task(&said, "short")["takes_ms"].is_null());
    let path = said["critical_path"].clone();
    assert_eq!(path["tasks"].to_string(), r#"["short","next"]"#, "{path}");
    // the median of the estimates stands for the task that has none
    assert_eq!(
        (&path["takes_ms"], &path["estimated"]),
        (&20_000.into(), &1.into())
    );
    assert_eq!(path["unknown"], 1);
    // what is known from a run counts more
    let run = fleet.submit(text);
    let _ = fleet.wait_run(&run, "succeeded");
    let said = plan();
    assert_eq!(task(&said, "long")["takes_by"], "runs");
    assert!(task(&said, "long")["takes_ms"].as_u64() < Some(300_000));
    assert_eq!(said["critical_path"]["estimated"], 0);
}
