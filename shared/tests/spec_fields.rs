//! Every field of the schema: it changes the compiled workflow, it has a row in the documents, and
//! the expanded form with all defaults reads back to the same workflow.

use shared::ids::Hash;
use shared::spec::{self, SentFiles, schema};
use shared::time::{Span, Unix};
use shared::workflow::{Action, Source, Task, TriggerRule, Workflow};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const SUBMITTED: Unix = Unix(1_700_000_000_000);

fn submit(text: &str, params: &[(&str, &str)], files: &SentFiles) -> Workflow {
    let params = params
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    spec::submission("flow.yaml", text, &params, files, SUBMITTED)
        .unwrap_or_else(|mistakes| panic!("{mistakes}\n{text}"))
}

fn compiled(text: &str) -> Workflow {
    submit(text, &[], &SentFiles::new())
}

fn task<'w>(workflow: &'w Workflow, id: &str) -> &'w Task {
    workflow
        .tasks
        .iter()
        .find(|task| task.id == id)
        .expect("a task with this id")
}

/// A workflow in which task `t` has this line; `before` writes what it may need.
fn with_task_line(line: &str) -> String {
    let runs = ["command", "shell", "approval"];
    let command = if runs.iter().any(|what| line.starts_with(what)) {
        ""
    } else {
        "    command: [prog]\n"
    };
    let line = if line.is_empty() {
        String::new()
    } else {
        format!("    {line}\n")
    };
    format!(
        "name: f\ntasks:\n  before: {{command: [prog], outputs: [{{name: o, path: dir/o.txt}}]}}\n  t:\n{command}{line}"
    )
}

/// A field and two texts that differ in it only.
type Pair = (&'static str, String, String);

fn line(path: &'static str, a: &str, b: &str) -> Pair {
    (path, with_task_line(a), with_task_line(b))
}

/// For each field a pair of texts.
fn pairs() -> Vec<Pair> {
    [of_workflow(), of_task(), of_settings(), of_placement()].concat()
}

fn of_workflow() -> Vec<Pair> {
    let whole = |path, a: &str, b: &str| {
        let text = |head: &str| {
            format!("name: f\n{head}tasks:\n  t: {{command: [p]}}\n  u: {{command: [p]}}\n")
        };
        (path, text(a), text(b))
    };
    let hourly = |path, text: &str| whole(path, "schedule: {every: 1h}\n", text);
    vec![
        (
            "name",
            "name: a\ntasks: {t: {command: [p]}}\n".into(),
            "name: b\ntasks: {t: {command: [p]}}\n".into(),
        ),
        whole("description", "", "description: text\n"),
        whole("labels", "", "labels: {team: cold}\n"),
        whole("params", "", "params: {p: {default: x}}\n"),
        whole(
            "params.type",
            "params: {p: {default: '007'}}\n",
            "params: {p: {type: integer, default: '007'}}\n",
        ),
        whole(
            "params.default",
            "params: {p: {default: x}}\n",
            "params: {p: {default: y}}\n",
        ),
        whole("merge_leaves", "", "merge_leaves: 2\n"),
        whole("schedule", "", "schedule: {every: 1h}\n"),
        whole(
            "schedule.cron",
            "schedule: {cron: 0 3 * * *}\n",
            "schedule: {cron: 0 4 * * *}\n",
        ),
        hourly("schedule.every", "schedule: {every: 2h}\n"),
        whole(
            "schedule.timezone",
            "schedule: {cron: 0 3 * * *}\n",
            "schedule: {cron: 0 3 * * *, timezone: Europe/Berlin}\n",
        ),
        hourly(
            "schedule.catchup",
            "schedule: {every: 1h, catchup: latest}\n",
        ),
        whole(
            "schedule.max_catchup",
            "schedule: {every: 1h, catchup: all}\n",
            "schedule: {every: 1h, catchup: all, max_catchup: 9}\n",
        ),
        hourly(
            "schedule.starting_deadline",
            "schedule: {every: 1h, starting_deadline: 5m}\n",
        ),
        hourly(
            "schedule.overlap",
            "schedule: {every: 1h, overlap: replace}\n",
        ),
        hourly("schedule.jitter", "schedule: {every: 1h, jitter: 5m}\n"),
        whole("defaults", "", "defaults: {timeout: 1m}\n"),
        whole("tasks", "", "").clone_with_tasks(),
    ]
}

/// An approval with these fields.
fn asks(path: &'static str, a: &str, b: &str) -> Pair {
    let text = |fields: &str| format!("approval: {{{fields}}}");
    line(path, &text(a), &text(b))
}

fn of_task() -> Vec<Pair> {
    vec![
        line("tasks.description", "", "description: text"),
        line("tasks.command", "command: [prog]", "command: [other]"),
        line("tasks.args", "", "args: [x]"),
        line("tasks.shell", "shell: 'true'", "shell: 'false'"),
        line("tasks.approval", "shell: 'true'", "approval: {prompt: p}"),
        asks("tasks.approval.prompt", "prompt: p", "prompt: q"),
        asks(
            "tasks.approval.input",
            "prompt: p",
            "prompt: p, input: {x: {}}",
        ),
        asks(
            "tasks.approval.input.type",
            "prompt: p, input: {x: {}}",
            "prompt: p, input: {x: {type: integer}}",
        ),
        asks(
            "tasks.approval.input.default",
            "prompt: p, input: {x: {}}",
            "prompt: p, input: {x: {default: y}}",
        ),
        asks(
            "tasks.approval.default",
            "prompt: p, deadline: 1h",
            "prompt: p, deadline: 1h, default: no",
        ),
        asks(
            "tasks.approval.deadline",
            "prompt: p",
            "prompt: p, deadline: 1h",
        ),
        line("tasks.needs", "", "needs: [before]"),
        line("tasks.inputs", "", "inputs: [o]"),
        line(
            "tasks.inputs.name",
            "inputs: [{name: a, source: 'file:/x'}]",
            "inputs: [{name: b, source: 'file:/x'}]",
        ),
        line(
            "tasks.inputs.path",
            "inputs: [{name: o}]",
            "inputs: [{name: o, path: here.txt}]",
        ),
        line(
            "tasks.inputs.source",
            "inputs: [{name: a, source: 'file:/x'}]",
            "inputs: [{name: a, source: 'file:/y'}]",
        ),
        line("tasks.outputs", "", "outputs: [r]"),
        line(
            "tasks.outputs.name",
            "outputs: [{path: r}]",
            "outputs: [{name: n, path: r}]",
        ),
        line(
            "tasks.outputs.path",
            "outputs: [{name: r}]",
            "outputs: [{name: r, path: q}]",
        ),
        line("tasks.env", "", "env: {A: '1'}"),
        line("tasks.workdir", "", "workdir: sub"),
        line(
            "tasks.stdin",
            "inputs: [o]",
            "inputs: [o]\n    stdin: dir/o.txt",
        ),
    ]
}

fn of_placement() -> Vec<Pair> {
    vec![
        line("tasks.placement", "", "placement: {node: gw-7}"),
        line("tasks.placement.node", "", "placement: {node: gw-8}"),
        line("tasks.placement.spread", "", "placement: {spread: site}"),
        line(
            "tasks.placement.affinity",
            "",
            "placement: {affinity: [before]}",
        ),
        line(
            "tasks.placement.anti_affinity",
            "",
            "placement: {anti_affinity: [before]}",
        ),
        line(
            "tasks.placement.tolerations",
            "",
            "placement: {tolerations: [gpu]}",
        ),
        line(
            "tasks.placement.labels",
            "",
            "placement: {labels: {arch: arm64}}",
        ),
        line("tasks.placement.site", "", "placement: {site: plant-3}"),
    ]
}

fn of_settings() -> Vec<Pair> {
    vec![
        line("tasks.resources", "", "resources: {cpu: 2}"),
        line("tasks.resources.cpu", "", "resources: {cpu: 500m}"),
        line("tasks.resources.memory", "", "resources: {memory: 64MiB}"),
        line("tasks.resources.disk", "", "resources: {disk: 1GB}"),
        line("tasks.resources.gpu", "", "resources: {gpu: 0.5}"),
        line(
            "tasks.resources.custom",
            "",
            "resources: {custom: {modem: 1}}",
        ),
        line("tasks.priority", "", "priority: -3"),
        line("tasks.retry", "", "retry: {max_attempts: 1}"),
        line("tasks.retry.max_attempts", "", "retry: {max_attempts: 2}"),
        line(
            "tasks.retry.initial_interval",
            "",
            "retry: {initial_interval: 1s}",
        ),
        line("tasks.retry.backoff", "", "retry: {backoff: 1.5}"),
        line("tasks.retry.max_interval", "", "retry: {max_interval: 1h}"),
        line("tasks.retry.jitter", "", "retry: {jitter: 0}"),
        line("tasks.retry.retry_on", "", "retry: {retry_on: [75]}"),
        line("tasks.retry.no_retry_on", "", "retry: {no_retry_on: [2]}"),
        line(
            "tasks.retry.on_exhausted",
            "",
            "retry: {on_exhausted: pause}",
        ),
        line("tasks.timeout", "", "timeout: 1m30s"),
        line("tasks.deadline", "", "deadline: 2h"),
        line("tasks.kill_grace", "", "kill_grace: 0s"),
        line("tasks.crash_limit", "", "crash_limit: 1"),
        line("tasks.side_effects", "", "side_effects: at_most_once"),
        line("tasks.when", "", "when: 1 == 2"),
        line("tasks.trigger_rule", "", "trigger_rule: all_done"),
        line("tasks.matrix", "", "matrix: {n: [1, 2]}"),
        line(
            "tasks.max_parallel",
            "matrix: {n: [1, 2]}",
            "matrix: {n: [1, 2]}\n    max_parallel: 1",
        ),
        line(
            "tasks.max_fails",
            "matrix: {n: [1, 2]}",
            "matrix: {n: [1, 2]}\n    max_fails: 0",
        ),
        line("tasks.estimate", "", "estimate: 5m"),
        line("tasks.disconnect", "", "disconnect: {lost_after: 1h}"),
        line(
            "tasks.disconnect.lost_after",
            "",
            "disconnect: {lost_after: 2h}",
        ),
        line(
            "tasks.disconnect.replace",
            "disconnect: {lost_after: 1h}",
            "disconnect: {lost_after: 1h, replace: true}",
        ),
    ]
}

trait WithTasks {
    fn clone_with_tasks(self) -> Self;
}
impl WithTasks for (&'static str, String, String) {
    fn clone_with_tasks(self) -> Self {
        let more = format!("{}  v: {{command: [p]}}\n", self.2);
        (self.0, self.1, more)
    }
}

#[test]
fn every_field_changes_the_compiled_workflow() {
    let pairs = pairs();
    let covered: BTreeSet<&str> = pairs.iter().map(|(path, ..)| *path).collect();
    for (path, _) in schema::fields() {
        // Whether a parameter is required decides what is refused; see the next test.
        assert!(
            path == "params.required"
                || path == "tasks.approval.input.required"
                || covered.contains(path.as_str()),
            "{path} is not tested"
        );
    }
    for (path, a, b) in pairs {
        assert_ne!(compiled(&a), compiled(&b), "{path} changes nothing:\n{b}");
        if let Some(field) = path
            .strip_prefix("tasks.")
            .and_then(|p| p.split('.').next())
        {
            check_as_default(field, &a, &b);
        }
    }
}

/// What may stand in `defaults` must mean there what it means at the task, and the rest is refused.
fn check_as_default(field: &str, without: &str, with: &str) {
    let changed: Vec<&str> = with
        .lines()
        .filter(|line| !without.contains(*line))
        .collect();
    let [line] = changed[..] else { return };
    let head = format!("defaults:\n{}\n", &line[2..]);
    let moved = without.replacen("tasks:\n", &format!("{head}tasks:\n"), 1);
    let moved = spec::submission("f", &moved, &BTreeMap::new(), &SentFiles::new(), SUBMITTED);
    if schema::OF_ONE_TASK.contains(&field) {
        assert!(
            moved
                .expect_err("this has no default")
                .to_string()
                .contains("has no default"),
            "{field}"
        );
    } else {
        assert_eq!(
            task(&moved.expect("this may have a default"), "t"),
            task(&compiled(with), "t"),
            "{field}"
        );
    }
}

#[test]
fn a_required_parameter_must_be_given() {
    let text = |p: &str| {
        format!("name: f\nparams: {{p: {p}}}\ntasks: {{t: {{command: [x, '${{params.p}}']}}}}\n")
    };
    let none = BTreeMap::new();
    for required in ["{required: true}", "{type: string}"] {
        let mistakes = spec::submission("f", &text(required), &BTreeMap::new(), &none, SUBMITTED);
        let mistakes = mistakes.unwrap_err().to_string();
        assert!(
            mistakes.contains("f:2:10: parameter 'p' is required"),
            "{mistakes}"
        );
        assert!(spec::lint("f", &text(required), &BTreeMap::new(), &none).is_ok());
    }
    let given = submit(&text("{required: true}"), &[("p", "v")], &none);
    assert_eq!(
        given.tasks[0].action,
        Action::Argv(vec!["x".into(), "v".into()])
    );
    assert_eq!(given.params["p"], "v");
}

#[test]
fn the_expanded_form_reads_back_to_the_same_workflow() {
    for (path, _, text) in pairs() {
        let spec = spec::read("flow.yaml", &text).unwrap();
        let expanded = spec.expanded();
        let again = spec::read("expanded.yaml", &expanded)
            .unwrap_or_else(|m| panic!("{path}: {m}\n{expanded}"));
        let meant = compiled(&text).decided();
        let again_means = compiled(&expanded).decided();
        assert_eq!(again_means, meant, "{path}:\n{expanded}");
        assert_eq!(again.expanded(), expanded, "{path}");
        let json: serde_json::Value = serde_json::from_str(&spec.expanded_json()).unwrap();
        assert_eq!(
            json["tasks"]["t"]["retry"]["on_exhausted"].is_string(),
            !path.starts_with("tasks.approval"),
            "{path}"
        );
    }
}

const COLD_CHAIN: &str = r#"
name: cold-chain
params: {limit: {type: integer, default: 80}, mode: {type: string, default: day}}
defaults: {timeout: 1m30s}
tasks:                                   # a map: id → task
  read:
    command: [sensor-read, --minutes, "1440"]        # argv, no shell
    outputs: [raw.txt]                               # a path, or {name, path}
  clean:
    shell: awk '$2 <= limit' limit="$LIMIT" raw.txt > clean.txt   # text for sh
    env: {LIMIT: "${params.limit}"}
    inputs: [raw.txt]
    outputs: [{name: clean, path: clean.txt}]
  alarm: {when: params.mode == "night", inputs: [clean], command: [send-alarm, clean.txt]}
"#;

#[test]
fn the_example_of_the_documents_compiles() {
    let day = compiled(COLD_CHAIN);
    assert_eq!(task(&day, "clean").env["LIMIT"], "80");
    assert_eq!(task(&day, "clean").timeout, Some(Span::secs(90)));
    assert!(
        matches!(&task(&day, "clean").action, Action::Shell(text) if text.contains("limit=\"$LIMIT\""))
    );
    let input = &task(&day, "alarm").inputs[0];
    assert_eq!(
        (input.name.as_str(), input.path.as_str()),
        ("clean", "clean.txt")
    );
    assert!(matches!(input.source, Source::Task { output: 0, .. }));
    assert!(!task(&day, "alarm").when.as_ref().unwrap().holds);
    let night = submit(
        COLD_CHAIN,
        &[("mode", "night"), ("limit", "75")],
        &SentFiles::new(),
    );
    assert!(task(&night, "alarm").when.as_ref().unwrap().holds);
    assert_eq!(task(&night, "clean").env["LIMIT"], "75");
    let expanded = spec::read("f", COLD_CHAIN).unwrap().expanded();
    assert!(
        expanded.contains("LIMIT: \"${params.limit}\""),
        "{expanded}"
    );
    assert_eq!(compiled(&expanded), day.decided());
}

/// A question has no retry to be said: found by hostile input.
#[test]
fn the_expanded_form_of_a_question_is_the_same_question() {
    let text = "name: f\ntasks: {ask: {approval: {prompt: Go on?}}}\n";
    let expanded = spec::read("f", text).unwrap().expanded();
    assert_eq!(compiled(&expanded), compiled(text).decided());
}

#[test]
fn defaults_of_the_schema_are_those_of_the_documents() {
    let workflow = compiled("name: f\ntasks: {t: {command: [p]}}\n");
    let t = &workflow.tasks[0];
    assert_eq!(
        (t.retry.max_attempts, t.retry.initial_interval),
        (4, Span::secs(30))
    );
    assert_eq!(
        (t.retry.backoff_milli, t.retry.max_interval),
        (2000, Span::secs(600))
    );
    assert_eq!(
        (t.retry.jitter_milli, t.crash_limit, t.kill_grace),
        (200, 5, Span::secs(10))
    );
    assert_eq!(
        (t.resources.cpu_milli, t.resources.memory, t.priority),
        (1000, 0, 0)
    );
    assert_eq!(
        (t.timeout, t.deadline, t.trigger_rule),
        (None, None, TriggerRule::AllSuccess)
    );
    assert_eq!(
        t.disconnect,
        shared::workflow::Disconnect {
            lost_after: None,
            replace: false
        }
    );
}

#[test]
fn layers_are_joined_field_by_field() {
    let workflow = compiled(
        "name: f\ndefaults: {env: {A: '1', B: '1'}, retry: {max_attempts: 9, backoff: 3}, timeout: 1m}\ntasks:\n  t: {command: [p], env: {B: '2'}, retry: {backoff: 1}, timeout: null}\n",
    );
    let t = &workflow.tasks[0];
    assert_eq!(
        t.env,
        [
            ("A".to_owned(), "1".to_owned()),
            ("B".to_owned(), "2".to_owned())
        ]
        .into()
    );
    assert_eq!(
        (t.retry.max_attempts, t.retry.backoff_milli, t.timeout),
        (9, 1000, None)
    );
    let long = compiled("name: f\ntasks: {t: {command: [p], retry: {initial_interval: 1h}}}\n");
    assert_eq!(long.tasks[0].retry.max_interval, Span::secs(3600));
}

#[test]
fn deadlines_are_fixed_at_submission() {
    let at = |text: &str| compiled(&with_task_line(text)).tasks[1].deadline;
    assert_eq!(at("deadline: 2h"), Some(Unix(SUBMITTED.0 + 7_200_000)));
    assert_eq!(
        at("deadline: 2030-01-01T00:00:00Z"),
        Some(Unix(1_893_456_000_000))
    );
}

#[test]
fn sent_files_fill_inputs_by_name() {
    let text = "name: f\ntasks:\n  t: {command: [p], inputs: [stations.csv, {name: cal, path: c/cal.txt}]}\n";
    let (a, b) = ((Hash::of(b"a"), 1), (Hash::of(b"b"), 2));
    let files: SentFiles = [("stations.csv".to_owned(), a), ("cal".to_owned(), b)].into();
    let workflow = submit(text, &[], &files);
    let inputs = &workflow.tasks[0].inputs;
    assert_eq!(inputs[0].source, Source::Sent { hash: a.0, size: 1 });
    assert_eq!(
        (inputs[1].path.as_str(), &inputs[1].source),
        ("c/cal.txt", &Source::Sent { hash: b.0, size: 2 })
    );
}

#[test]
fn templates_stand_in_any_text_but_shell() {
    let text = "name: f\nparams: {n: {type: integer, default: 3}, t: {default: 5m}, who: {default: before}}\ntasks:\n  before: {command: [p]}\n  t: {command: [p, 'a${params.n}b', '$${x}'], timeout: '${params.t}', retry: {max_attempts: '${params.n}'}, needs: ['${params.who}']}\n";
    let workflow = compiled(text);
    let t = task(&workflow, "t");
    assert_eq!(
        t.action,
        Action::Argv(vec!["p".into(), "a3b".into(), "${x}".into()])
    );
    assert_eq!(
        (t.timeout, t.retry.max_attempts, t.needs.len()),
        (Some(Span::secs(300)), 3, 1)
    );
    let shell = compiled("name: f\ntasks: {t: {shell: 'echo ${HOME} $${x}'}}\n");
    assert_eq!(
        shell.tasks[0].action,
        Action::Shell("echo ${HOME} $${x}".into())
    );
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn every_field_has_a_row_in_the_documents() {
    let text = include_str!("../../docs/spec.md");
    let mut rows: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let fields = text
        .split("\n## ")
        .find(|section| section.starts_with("Fields"))
        .unwrap();
    for line in fields.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<String> = line
            .split(" | ")
            .map(|c| c.trim_matches(['|', ' ']).to_owned())
            .collect();
        rows.insert(cells[0].trim_matches('`').to_owned(), cells);
    }
    for (path, field) in schema::fields() {
        let row = rows
            .remove(&path)
            .unwrap_or_else(|| panic!("docs/spec.md has no row for `{path}`"));
        assert_eq!(
            row.len(),
            5,
            "`{path}`: field, default, unit, what it changes, test"
        );
        let default = match field.default {
            "" => "must be given".to_owned(),
            default => format!("`{default}`"),
        };
        assert!(
            row[1].starts_with(&default),
            "`{path}`: the row says {}, the schema {default}",
            row[1]
        );
        assert!(
            row[4].starts_with("tests/e2e: `spec_field_"),
            "`{path}` names no test: {}",
            row[4]
        );
    }
    assert!(
        rows.is_empty(),
        "docs/spec.md has rows for fields that do not exist: {:?}",
        rows.keys()
    );
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a test may read files; the crate itself has none"
)]
fn the_examples_pass_lint() {
    let folder = repository().join("deploy/examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ext| ext != "yaml") {
            continue;
        }
        let name = path.display().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        let linted = spec::lint(&name, &text, &BTreeMap::new(), &SentFiles::new());
        let spec = linted.unwrap_or_else(|mistakes| panic!("{mistakes}"));
        spec::read(&name, &spec.expanded()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        seen += 1;
    }
    assert!(seen >= 3, "{seen} examples");
}
