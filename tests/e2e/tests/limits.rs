//! The limit of a matrix over two gateways while the link of one is cut.

use e2e::fleet::{Fleet, HOLD};

#[test]
fn what_a_silent_gateway_may_run_nobody_else_runs() {
    let fleet = Fleet::start(&[&[], &[]]);
    let run = fleet.submit(&format!(
        "name: roll
tasks:
  step:
    matrix: {{node: [gw-0, gw-1]}}
    max_parallel: 1
    placement: {{node: '${{matrix.node}}'}}
    env: {{NODE: '${{matrix.node}}'}}
    shell: echo $NODE >> @M/ran; {HOLD}"
    ));
    fleet.wait("the first to run", || {
        Some(()).filter(|()| !fleet.mark("ran").is_empty())
    });
    let tasks = ["step[node=gw-0]", "step[node=gw-1]"];
    let running = |task: &str| fleet.task(&run, task)["state"] == "running";
    fleet.wait("the coordinator to know", || {
        tasks.iter().position(|task| running(task))
    });
    let first = tasks
        .iter()
        .position(|task| running(task))
        .expect("one runs");
    let (here, there) = (tasks[first], tasks[1 - first]);
    fleet.cut(first);
    let why = fleet.json(&["task", "explain", &run, there]);
    let text = why[0]["summary"].to_string();
    assert!(text.contains("of step at most 1 run at once"), "{text}");
    assert!(text.contains(&format!("gw-{first} holds 1")), "{text}");
    fleet.put_mark("go", "");
    fleet.wait("it to end without a link", || {
        let tasks = fleet.agent_json(first, &["ps", "--all"]);
        tasks
            .into_iter()
            .find(|task| task["task"] == here && task["state"] == "succeeded")
    });
    assert_eq!(fleet.mark("ran").lines().count(), 1, "the other one waits");
    fleet.join(first);
    let _ = fleet.wait_run(&run, "succeeded");
    assert_eq!(fleet.mark("ran").lines().count(), 2);
}
