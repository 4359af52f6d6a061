//! A test for each field of the specification that needs a coordinator: what people are shown,
//! where tasks run, what happens while a node cannot be heard. Each one fails if the field is
//! ignored. `docs/spec.md` names them.

use e2e::fleet::{Fleet, HOLD};
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The fleet that tests share which pull no cable; it ends with the last of them.
fn shared() -> Arc<Fleet> {
    static SHARED: Mutex<Weak<Fleet>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let nodes: [&[&str]; 2] = [
            &["--label", "site=a", "--label", "kind=large"],
            &["--label", "site=b", "--label", "kind=small"],
        ];
        let fleet = Arc::new(Fleet::start(&nodes));
        *shared = Arc::downgrade(&fleet);
        fleet
    })
}

#[test]
fn spec_field_description() {
    let fleet = shared();
    let run = fleet.submit("name: d\ndescription: for the plant\ntasks: {a: {command: 'true'}}");
    assert_eq!(fleet.run(&run)["description"], "for the plant");
    let _ = fleet.wait_run(&run, "succeeded");
    assert_eq!(fleet.run(&run)["description"], "for the plant");
}

#[test]
fn spec_field_description_of_task() {
    let fleet = shared();
    let run = fleet.submit("name: d\ntasks: {a: {description: looks, command: 'true'}}");
    assert_eq!(fleet.task(&run, "a")["description"], "looks");
}

#[test]
fn spec_field_labels() {
    let fleet = shared();
    let run = fleet.submit("name: l\nlabels: {team: cold-chain}\ntasks: {a: {command: 'true'}}");
    assert_eq!(fleet.run(&run)["labels"]["team"], "cold-chain");
}

/// Nodes on which three tasks with this placement ran.
fn placed(placement: &str) -> Vec<Value> {
    let fleet = shared();
    let run = fleet.submit(&format!(
        "name: placed
defaults: {{placement: {{{placement}}}}}
tasks: {{a: {{command: 'true'}}, b: {{command: 'true'}}, c: {{command: 'true'}}}}"
    ));
    let _ = fleet.wait_run(&run, "succeeded");
    let tasks = fleet.tasks(&run).into_values();
    tasks.map(|task| task["node"].clone()).collect()
}

/// Both nodes can be meant: a placement that is ignored misses one of them.
fn places(on_first: &str, on_second: &str) {
    assert_eq!(placed(on_first), ["gw-0"; 3], "{on_first}");
    assert_eq!(placed(on_second), ["gw-1"; 3], "{on_second}");
}

#[test]
fn spec_field_placement_node() {
    places("node: gw-0", "node: gw-1");
}

#[test]
fn spec_field_placement_labels() {
    places("labels: {kind: large}", "labels: {kind: small}");
}

#[test]
fn spec_field_placement_site() {
    places("site: a", "site: b");
}

/// Nodes of tasks `a` and `b` of this workflow, once it succeeded.
fn of_two(tasks: &str) -> (Value, Value) {
    let fleet = shared();
    let run = fleet.submit(&format!("name: two\ntasks: {{{tasks}}}"));
    let _ = fleet.wait_run(&run, "succeeded");
    let node = |id: &str| fleet.task(&run, id)["node"].clone();
    (node("a"), node("b"))
}

#[test]
fn spec_field_placement_spread() {
    // linked tasks stay together, unless they are spread
    let (a, b) = of_two("a: {command: 'true'}, b: {needs: [a], command: 'true'}");
    assert_eq!(a, b);
    let spread = "placement: {spread: node}, command: 'true'";
    let (a, b) = of_two(&format!("a: {{{spread}}}, b: {{needs: [a], {spread}}}"));
    assert_ne!(a, b);
}

#[test]
fn spec_field_placement_affinity() {
    for node in ["gw-0", "gw-1"] {
        let (_, b) = of_two(&format!(
            "a: {{placement: {{node: {node}}}, command: 'true'}}, \
             b: {{placement: {{affinity: [a]}}, command: 'true'}}"
        ));
        assert_eq!(b, node);
    }
}

#[test]
fn spec_field_placement_anti_affinity() {
    for node in ["gw-0", "gw-1"] {
        let (_, b) = of_two(&format!(
            "a: {{placement: {{node: {node}}}, command: 'true'}}, \
             b: {{needs: [a], placement: {{anti_affinity: [a]}}, command: 'true'}}"
        ));
        assert_ne!(b, node);
    }
}

#[test]
fn spec_field_placement_tolerations() {
    let fleet = Fleet::start(&[&["--taint", "gpu=a100:refuse"], &[]]);
    let place = |tolerations: &str| {
        let run = fleet.submit(&format!(
            "name: t\ntasks: {{a: {{placement: {{node: gw-0, tolerations: [{tolerations}]}}, \
             command: 'true'}}}}"
        ));
        (fleet.wait_task_placed(&run, "a"), run)
    };
    assert_eq!(place("gpu").0, "gw-0");
    assert_eq!(place("'gpu=a100'").0, "gw-0");
    let (nowhere, run) = place("other");
    assert!(nowhere.is_null());
    let why = fleet.json(&["task", "explain", &run, "a"]);
    assert!(
        why[0]["summary"].to_string().contains("gpu=a100:refuse"),
        "{why:?}"
    );
    // an operator adds taints, and takes only those away
    let told = fleet.json(&["node", "taint", "gw-1", "own:avoid"]);
    assert_eq!(told[0]["taints"], serde_json::json!(["own:avoid"]));
    let told = fleet.json(&["node", "taint", "gw-1", "own-"]);
    assert_eq!(told[0]["taints"], serde_json::json!([]));
}

/// A matrix with two members on each node, one of them at a time.
fn rolling(fields: &str, shell: &str) -> String {
    format!(
        "name: rolling
tasks:
  step:
    matrix: {{node: [gw-0, gw-1], n: [1, 2]}}
    {fields}
    placement: {{node: '${{matrix.node}}'}}
    retry: {{max_attempts: 1}}
    shell: {shell}"
    )
}

#[test]
fn spec_field_max_parallel() {
    let fleet = shared();
    let note = "echo begin >> @M/rolled; sleep 0.2; echo end >> @M/rolled";
    let run = fleet.submit(&rolling("max_parallel: 1", note));
    let _ = fleet.wait_run(&run, "succeeded");
    let lines = fleet.mark("rolled");
    let pairs: Vec<&str> = lines.lines().collect();
    assert_eq!(pairs, ["begin", "end"].repeat(4), "never two at once");
}

#[test]
fn spec_field_max_fails() {
    let fleet = shared();
    let run = fleet.submit(&rolling("max_parallel: 1\n    max_fails: 1", "exit 1"));
    let _ = fleet.wait_run(&run, "failed");
    let tasks = fleet.json(&["task", "list", &run]);
    let count = |state: &str| tasks.iter().filter(|task| task["state"] == state).count();
    assert_eq!((count("failed"), count("skipped")), (2, 2), "{tasks:?}");
    let skipped = tasks.iter().find(|task| task["state"] == "skipped");
    let skipped = skipped.and_then(|task| task["task"].as_str()).expect("one");
    assert_eq!(fleet.task(&run, skipped)["reason"], "too_many_failed");
}

#[test]
fn spec_field_placement() {
    let (first, second) = ("site: a, labels: {kind: large}", "site: b, node: gw-1");
    places(first, second);
    let fleet = shared();
    let nowhere = "name: nowhere
tasks: {a: {placement: {site: a, labels: {kind: small}}, command: 'true'}}";
    let run = fleet.submit(nowhere);
    let waits = fleet.wait("the run to wait for a node", || {
        Some(fleet.run(&run)).filter(|run| run["waits"].as_array().is_some_and(|w| !w.is_empty()))
    });
    assert!(waits["waits"].to_string().contains("labels"), "{waits}");
    assert!(fleet.task(&run, "a")["node"].is_null());
}

/// Two nodes of one site. A task with these fields of `disconnect` holds on one of them when that
/// one's cable is pulled; with it the run and which node is cut off.
fn cut_off(disconnect: &str) -> (Fleet, String, usize) {
    let nodes: [&[&str]; 2] = [&["--label", "site=a"], &["--label", "site=a"]];
    let fleet = Fleet::start(&nodes);
    let run = fleet.submit(&format!(
        "name: cut
tasks:
  it:
    disconnect: {{{disconnect}}}
    placement: {{site: a}}
    shell: |
      echo x >> @M/ran; {HOLD}"
    ));
    fleet.wait("the task to run", || {
        (!fleet.mark("ran").is_empty()).then_some(())
    });
    let node = fleet.wait_task(&run, "it", "running");
    let cut = usize::from(node["node"] == "gw-1");
    fleet.cut(cut);
    (fleet, run, cut)
}

#[test]
fn spec_field_disconnect_lost_after() {
    let (fleet, run, cut) = cut_off("lost_after: 1s");
    let lost = fleet.wait_task(&run, "it", "lost");
    assert_eq!(lost["reason"], "node_silent", "{lost}");
    fleet.put_mark("go", "");
    fleet.join(cut);
    fleet.wait_delivered(cut);
    let still = fleet.task(&run, "it");
    assert_eq!(
        still["state"], "lost",
        "a late outcome does not count: {still}"
    );
}

#[test]
fn spec_field_disconnect_replace() {
    let (fleet, run, cut) = cut_off("lost_after: 1s, replace: true");
    let other = format!("gw-{}", 1 - cut);
    fleet.wait("the task to be placed on the other node", || {
        (fleet.task(&run, "it")["node"] == *other).then_some(())
    });
    fleet.put_mark("go", "");
    let done = fleet.wait_task(&run, "it", "succeeded");
    assert_eq!(done["node"], *other, "{done}");
    fleet.join(cut);
    fleet.wait_delivered(cut);
    let still = fleet.task(&run, "it");
    assert_eq!(
        (&still["state"], &still["node"]),
        (&done["state"], &done["node"]),
        "{still}"
    );
}

#[test]
fn spec_field_disconnect() {
    // By default the work of a node that cannot be heard is kept however long that is.
    let (fleet, run, cut) = cut_off("");
    fleet.wait_node(cut, "offline");
    fleet.put_mark("go", "");
    let _ = fleet.wait_local(cut, "it", "succeeded");
    assert_eq!(fleet.task(&run, "it")["state"], "running");
    fleet.join(cut);
    let _ = fleet.wait_run(&run, "succeeded");
    let refused = fleet.try_submit(
        "name: r\ntasks: {a: {command: 'true', disconnect: {replace: true}}}",
        &[],
    );
    assert!(!refused.status.success(), "{refused:?}");
}
