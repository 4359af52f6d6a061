//! Questions to people with the real binaries: answered at the gateway without a link, and from the
//! cloud; one answer counts. `docs/spec.md` names the tests of fields.

use e2e::agent::{Gateway, stderr};
use e2e::fleet::Fleet;

const ASK: &str = "
name: ship
tasks:
  ask:
    approval:
      prompt: Ship it?
      input: {grade: {type: integer}, note: {default: none}}
    outputs: [answer.json]
  act:
    inputs: [answer.json]
    shell: cp answer.json @M/acted
";

#[test]
fn spec_field_approval() {
    let gateway = Gateway::started(&[]);
    let run = gateway.submit(ASK);
    let _ = gateway.wait_state(&run, "ask", "blocked");
    let waits = gateway.json(&["waits"]);
    assert_eq!(waits[0]["what"], "Ship it?");
    assert!(
        waits[0]["since"].is_i64() || waits[0]["since"].is_u64(),
        "{waits:?}"
    );
    let output = gateway.command(&["answer", &run, "ask", "no"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let tasks = gateway.settled(&run);
    assert_eq!(
        (&tasks["ask"]["state"], &tasks["act"]["state"]),
        (&"failed".into(), &"aborted".into())
    );
    assert_eq!(tasks["ask"]["reason"], "rejected");
    assert!(gateway.json(&["waits"]).is_empty());
}

#[test]
fn spec_field_approval_prompt() {
    let gateway = Gateway::started(&[]);
    let run = gateway.submit("name: p\ntasks: {ask: {approval: {prompt: Is the hatch closed?}}}");
    let _ = gateway.wait_state(&run, "ask", "blocked");
    let said = gateway.explain(&run, "ask");
    let summary = said["summary"].as_str().unwrap_or_default();
    assert!(summary.contains("Is the hatch closed?"), "{summary}");
}

#[test]
fn spec_field_approval_input() {
    let mut gateway = Gateway::started(&[]);
    let run = gateway.submit(ASK);
    let _ = gateway.wait_state(&run, "ask", "blocked");
    for (input, says) in [
        (&["--input", "grade=x"][..], "not of type integer"),
        (&[], "must be filled in"),
        (
            &["--input", "grade=1", "--input", "size=1"],
            "no field size",
        ),
    ] {
        let args = [&["answer", &run, "ask", "yes"][..], input].concat();
        let output = gateway.command(&args);
        assert_eq!(output.status.code(), Some(5), "{output:?}");
        assert!(stderr(&output).contains(says), "{output:?}");
    }
    // the question is found again after a crash
    gateway.kill();
    gateway.start();
    let args = ["answer", &run, "ask", "yes", "--input", "grade=7"];
    let output = gateway.command(&args);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let _ = gateway.wait_state(&run, "act", "succeeded");
    let acted: serde_json::Value = serde_json::from_str(&gateway.mark("acted")).unwrap();
    assert_eq!(acted["approved"], true);
    assert_eq!(
        acted["input"],
        serde_json::json!({"grade": 7, "note": "none"})
    );
    let again = gateway.command(&args);
    assert_eq!(again.status.code(), Some(5), "{again:?}");
    assert!(stderr(&again).contains("answered already"), "{again:?}");
}

#[test]
fn spec_field_approval_default() {
    let gateway = Gateway::started(&[]);
    let text = |default: &str| {
        format!(
            "name: d\ntasks: {{ask: {{approval: {{prompt: p, deadline: 1s, default: {default}}}}}}}"
        )
    };
    for (default, state, reason) in [
        ("yes", "succeeded", "approved_by_default"),
        ("no", "failed", "rejected_by_default"),
    ] {
        let run = gateway.submit(&text(default));
        let task = gateway.wait_state(&run, "ask", state);
        assert_eq!(task["reason"], reason);
    }
}

#[test]
fn spec_field_approval_deadline() {
    let gateway = Gateway::started(&[]);
    let run = gateway.submit("name: d\ntasks: {ask: {approval: {prompt: p, deadline: 1s}}}");
    let task = gateway.wait_state(&run, "ask", "failed");
    assert_eq!(task["reason"], "deadline_passed");
}

#[test]
fn an_answer_from_the_cloud_reaches_the_gateway_when_it_is_back_and_one_given_there_before_counts()
{
    let fleet = Fleet::start(&[&[]]);
    let run = fleet.submit(ASK);
    let waits = fleet.wait("the question", || {
        let waits = fleet.json(&["waits", "list"]);
        (!waits.is_empty()).then_some(waits)
    });
    assert_eq!(
        (&waits[0]["what"], &waits[0]["task"]),
        (&"Ship it?".into(), &"ask".into())
    );
    assert!(
        waits[0]["command"]
            .as_str()
            .unwrap()
            .starts_with("driftless answer ")
    );
    fleet.cut(0);
    fleet.wait_node(0, "offline");
    let cloud = fleet.cli(&["answer", &run, "ask", "yes", "--input", "grade=1"]);
    assert_eq!(cloud.status.code(), Some(0), "{cloud:?}");
    let twice = fleet.cli(&["answer", &run, "ask", "no"]);
    assert_eq!(twice.status.code(), Some(5), "{twice:?}");
    assert!(stderr(&twice).contains("on its way"), "{twice:?}");
    let pending = fleet.task(&run, "ask");
    assert_eq!(pending["answers"][0]["counts"], serde_json::Value::Null);
    let here = fleet.agent_cli(0, &["answer", &run, "ask", "no"]);
    assert_eq!(here.status.code(), Some(0), "{here:?}");
    fleet.join(0);
    let _ = fleet.wait_run(&run, "failed");
    let task = fleet.wait("both answers", || {
        let task = fleet.task(&run, "ask");
        let all = task["answers"].as_array()?;
        all.iter().all(|a| !a["counts"].is_null()).then_some(task)
    });
    let counting: Vec<_> = task["answers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| (a["via"].as_str().unwrap(), a["counts"].as_bool().unwrap()))
        .collect();
    assert_eq!(counting, [("coordinator", false), ("gateway", true)]);
    assert_eq!(task["reason"], "rejected");
    let over = fleet.cli(&["answer", &run, "ask", "yes", "--input", "grade=1"]);
    assert_eq!(over.status.code(), Some(5), "{over:?}");
}

#[test]
fn approved_from_the_cloud_the_answer_is_read_by_the_next_task() {
    let fleet = Fleet::start(&[&["--label", "site=a"], &["--label", "site=b"]]);
    let text = ASK
        .replace("    approval:", "    placement: {site: a}\n    approval:")
        .replace("    shell:", "    placement: {site: b}\n    shell:");
    let run = fleet.submit(&text);
    fleet.wait("the question", || {
        (!fleet.json(&["waits", "list"]).is_empty()).then_some(())
    });
    let said = fleet.cli(&["answer", &run, "ask", "yes", "--input", "grade=3"]);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    let _ = fleet.wait_run(&run, "succeeded");
    assert!(fleet.mark("acted").contains("\"grade\":3"));
}
