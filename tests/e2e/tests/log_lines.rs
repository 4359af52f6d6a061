//! The logs of both programs as JSON: their lines name the run, the task, the epoch, the attempt
//! and the session that they speak of.

use e2e::fleet::Fleet;
use serde_json::Value;

fn lines(fleet: &Fleet, name: &str) -> Vec<Value> {
    let text = fleet.log_text(name);
    let lines = text.lines().filter(|line| line.starts_with('{'));
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn with_message<'a>(lines: &'a [Value], message: &str) -> Vec<&'a Value> {
    let found = lines
        .iter()
        .filter(|line| line["fields"]["message"] == message);
    found.collect()
}

#[test]
fn the_lines_of_a_run_name_it_on_both_sides() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("agent.toml");
    std::fs::write(&config, "[log]\nfilter = 'debug'\nformat = 'json'\n").unwrap();
    let config = config.display().to_string();
    let mut fleet = Fleet::serving(&["--log", "json"], &[&["--config", &config]]);
    fleet.start_agent(0);
    fleet.wait_online(0);
    let run = fleet.submit(
        "name: two\ntasks:\n  good: {command: [\"true\"]}\n  bad: {command: [\"false\"], \
         retry: {max_attempts: 1}}\n",
    );
    let _ = fleet.wait_run(&run, "failed");
    let epoch = fleet.json(&["task", "get", &run, "bad"])[0]["history"][0]["epoch"].clone();
    let agent = fleet.wait("the agent's lines", || {
        let lines = lines(&fleet, "gw-0");
        let told = |message| !with_message(&lines, message).is_empty();
        (told("succeeded") && told("did not succeed")).then_some(lines)
    });
    for (message, task) in [
        ("began", None),
        ("succeeded", Some("good")),
        ("did not succeed", Some("bad")),
    ] {
        for line in with_message(&agent, message) {
            let span = &line["span"];
            assert_eq!(
                (&span["run"], &span["epoch"]),
                (&Value::from(run.as_str()), &epoch),
                "{line}"
            );
            assert_eq!(span["attempt"], 1, "{line}");
            let named = span["task"].as_str();
            assert!(
                named.is_some() && task.is_none_or(|task| named == Some(task)),
                "{line}"
            );
        }
    }
    let up = with_message(&agent, "the link is up")[0]["fields"]["session"].clone();
    assert!(up.is_u64(), "{up}");
    let coordinator = lines(&fleet, "coordinator");
    let began = with_message(&coordinator, "a session began");
    assert!(
        began.iter().any(|line| line["fields"]["session"] == up),
        "{began:?}"
    );
    let asked = with_message(&coordinator, "asked");
    let submit = asked.iter().find(|line| line["fields"]["what"] == "submit");
    assert_eq!(submit.unwrap()["fields"]["run"], run.as_str(), "{asked:?}");
}
