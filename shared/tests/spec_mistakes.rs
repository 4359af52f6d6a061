//! One case for each kind of mistake: its place, what is said, and the mend.

use shared::ids::Hash;
use shared::spec::{self, Mistakes, SentFiles};
use shared::time::Unix;
use std::collections::BTreeMap;

fn submit(text: &str, params: &[(&str, &str)], files: &[&str]) -> Result<(), Mistakes> {
    let params = params
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let files: SentFiles = files
        .iter()
        .map(|name| ((*name).to_owned(), (Hash::of(b""), 0)))
        .collect();
    spec::submission("f", text, &params, &files, Unix(1_700_000_000_000)).map(|_| ())
}

#[track_caller]
fn check_all(text: &str, params: &[(&str, &str)], files: &[&str], wanted: &[&str]) {
    let mistakes = submit(text, params, files).expect_err(text);
    let shown: Vec<String> = mistakes.mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(shown.len(), wanted.len(), "{text}\n{mistakes}");
    for (shown, wanted) in shown.iter().zip(wanted) {
        let (place, words) = wanted.split_once(' ').expect("a place and words");
        assert!(
            shown.starts_with(&format!("f:{place}: ")),
            "{wanted}\nbut:\n{shown}"
        );
        for part in words.split(" … ") {
            assert!(shown.contains(part), "{wanted}\nbut:\n{shown}");
        }
        let mend = shown.split("\n  mend: ").nth(1).expect("a mend");
        assert!(!mend.is_empty());
    }
}

#[track_caller]
fn check(text: &str, wanted: &str) {
    check_all(text, &[], &[], &[wanted]);
}

/// A task `t` that runs `p`, with these fields.
#[track_caller]
fn check_task(fields: &str, wanted: &str) {
    check(
        &format!("name: f\ntasks:\n  t:\n    command: [p]\n    {fields}\n"),
        wanted,
    );
}

#[test]
fn the_form_of_the_file() {
    check("", "1:1 the file is empty");
    check("[a]", "1:1 the workflow is a list, not a map");
    check(
        "name: f",
        "1:1 the workflow has no `tasks` … add `tasks: …`",
    );
    check(
        "tasks: {t: {command: [p]}}",
        "1:1 the workflow has no `name`",
    );
    check("name: f\ntasks: {}", "2:1 `tasks` is empty");
    check("name: f\ntasks:\n", "2:1 `tasks` has no value");
    check("name: f\ntasks: [a]", "2:8 `tasks` is a list, not a map");
    check(
        "name: f\ntasks: {t: x}",
        "2:12 task 't' is a single value, not a map",
    );
    check(
        "name: a/b\ntasks: {t: {command: [p]}}",
        "1:7 'a/b' is no name",
    );
    check(
        "name: f\ntasks: {'a b': {command: [p]}}",
        "2:9 'a b' is no name … letters, digits",
    );
    check(
        "name: f\nname: g\ntasks: {t: {command: [p]}}",
        "2:1 'name' is given twice, first on line 1",
    );
    check(
        "name: !x f\ntasks: {t: {command: [p]}}",
        "1:10 the tag !x means nothing here",
    );
}

#[test]
fn unknown_and_later_fields() {
    check_task(
        "tiemout: 1s",
        "5:5 task 't' has no field `tiemout` … did you mean 'timeout'?",
    );
    check_task(
        "colour: red",
        "5:5 no field `colour` … fields here: description, command",
    );
    check_task(
        "retry: {max_attemps: 2}",
        "5:13 `retry` has no field … did you mean 'max_attempts'?",
    );
    for later in spec::schema::LATER {
        check_task(
            &format!("{later}: x"),
            &format!("5:5 `{later}` comes later"),
        );
    }
    for user in spec::schema::USER {
        check_task(
            &format!("{user}: root"),
            &format!("5:5 cannot choose a user: `{user}` is no field … tasks.run_as"),
        );
    }
    check_task(
        "disconnect: {stop_after: 1h}",
        "5:18 `stop_after` comes later",
    );
}

#[test]
fn schedules() {
    let flow = |schedule: &str| {
        format!("name: f\nschedule: {{{schedule}}}\ntasks: {{t: {{command: [p]}}}}")
    };
    check(&flow(""), "2:1 `schedule` has neither `cron` nor `every`");
    check(
        &flow("cron: '* * * * *', every: 1m"),
        "2:31 `schedule` has both `cron` and `every`",
    );
    check(
        &flow("cron: '61 * * * *'"),
        "2:12 `cron`: '61' is no minute",
    );
    check(
        &flow("cron: '0 0 30 2 *'"),
        "2:12 `cron`: '0 0 30 2 *' never comes true",
    );
    check(&flow("every: 1s"), "2:12 `every`: an interval of 1s");
    check(
        &flow("cron: '0 3 * * *', timezone: Nowhere"),
        "2:31 `timezone`: 'Nowhere' is no time zone",
    );
    check(
        &flow("every: 1m, timezone: Europe/Berlin"),
        "2:23 `timezone` means nothing to `every`",
    );
    check(
        &flow("every: 1m, jitter: 2m"),
        "2:23 `jitter` of 2m is longer than 1m",
    );
    check(
        &flow("every: 1m, max_catchup: 5"),
        "2:23 `max_catchup` belongs to `catchup: all`",
    );
    check(
        &flow("every: 1m, catchup: some"),
        "2:32 `catchup`: 'some' is not known here",
    );
    check(
        "name: f\nschedule: {every: 1h}\ntasks: {t: {command: [p], deadline: 2026-11-23T20:00:00Z}}",
        "3:27 `deadline`: 2026-11-23T20:00:00Z in a workflow with a schedule",
    );
}

#[test]
fn values_of_fields() {
    check_task(
        "timeout: 90",
        "5:14 `timeout`: the duration '90' has no unit … 90s",
    );
    check_task("timeout: 1x", "5:14 '1x' is no duration … 1h30m");
    check_task("timeout: 0s", "5:14 0s is too short … null");
    check_task("timeout:", "5:5 `timeout` has no value");
    check_task(
        "timeout: [1s]",
        "5:14 `timeout` is a list, not a single value",
    );
    check_task("kill_grace: null", "5:17 `kill_grace` is null");
    check_task(
        "priority: high",
        "5:15 'high' is no whole number … from -2147483648",
    );
    check_task("crash_limit: 0", "5:18 0 is out of range … from 1 to 1000");
    check_task(
        "resources: {memory: 512}",
        "5:25 the size '512' has no unit … 512MiB",
    );
    check_task(
        "resources: {memory: 1mb}",
        "5:25 'mb' is no unit of size … MiB",
    );
    check_task("resources: {cpu: -1}", "5:22 no number of cores … 500m");
    check_task("resources: {cpu: 5000}", "5:22 more than any machine has");
    check_task("resources: {memory: 9999999TiB}", "5:25 too large");
    check_task(
        "resources: {custom: {modem: 0.5}}",
        "5:33 '0.5' is no whole number",
    );
    check_task(
        "retry: {backoff: 0.5}",
        "5:22 '0.5' is no number from 1 to 100",
    );
    check_task("retry: {jitter: 2}", "5:21 from 0 to 1");
    check_task(
        "retry: {retry_on: [0]}",
        "5:24 0 is out of range … from 1 to 255",
    );
    check_task(
        "disconnect: {replace: yes}",
        "5:27 'yes' is neither true nor false",
    );
    check_task(
        "side_effects: at_most_onec",
        "5:19 not known here … did you mean 'at_most_once'?",
    );
    check_task(
        "trigger_rule: sometimes",
        "5:19 not known … one of: all_success, all_done",
    );
    check_task(
        "deadline: 2026-07-01T06:00:00",
        "5:15 no instant … with its offset",
    );
    check_task("deadline: 2020-01-01T00:00:00Z", "5:5 is over already");
    check_task("env: {A B: x}", "5:11 'A B' is no name of a variable");
    check_task("env: {DRIFTLESS_FENCE: x}", "5:11 is set by the agent");
    check_task("env: {A: null}", "5:14 `A` is null … write ''");
    check_task(
        "args: x",
        "5:11 `args` is a single value, not a list … [a, b]",
    );
    check_task("args: [\"a\\0b\"]", "5:12 a NUL character");
}

#[test]
fn commands() {
    check(
        "name: f\ntasks:\n  t: {description: d}",
        "3:3 task 't' has nothing to run",
    );
    check_task("shell: x", "5:5 both `command` and `shell`");
    check(
        "name: f\ntasks:\n  t: {shell: x, args: [a]}",
        "3:24 `args` belongs to `command`",
    );
    check(
        "name: f\ntasks:\n  t: {command: []}",
        "3:16 `command` names no program",
    );
    check(
        "name: f\ntasks:\n  t: {command: ls -l}",
        "3:16 is not one program … [program, argument]",
    );
    check(
        "name: f\ntasks:\n  t: {shell: ''}",
        "3:14 `shell`: the text is empty",
    );
    let head = "name: f\nparams: {x: {default: a}}\ntasks:\n  t: ";
    check(
        &format!("{head}{{shell: 'echo ${{params.x}}'}}"),
        "4:14 never becomes program text … env",
    );
    check(
        &format!("{head}{{command: [/bin/bash, -ec, 'echo ${{params.x}}']}}"),
        "4:33 never becomes program text",
    );
}

#[test]
fn paths_that_leave_the_work_directory() {
    check_task(
        "outputs: [../x]",
        "5:15 `path`: the path '../x' leaves the attempt's directory",
    );
    check_task("outputs: [/etc/passwd]", "5:15 is absolute … relative");
    check_task(
        "outputs: [{name: a, path: b/../../c}]",
        "5:31 leaves the attempt's directory",
    );
    check_task(
        "inputs: [{name: a, path: ../b, source: 'file:/x'}]",
        "5:30 leaves the attempt's",
    );
    check_task("workdir: a/../..", "5:14 leaves the attempt's directory");
    check_task("stdin: /dev/sda", "5:12 is absolute");
    check_task(
        "inputs: [{name: a, source: 'file:/a/../etc/shadow'}]",
        "5:32 names no absolute path",
    );
    check_task(
        "inputs: [{name: a, source: 'http://x'}]",
        "5:32 is no source … file:/absolute",
    );
    check_task(
        "outputs: [{path: a}, {path: a/b}]",
        "5:5 'a' and 'a/b' are in each other's way",
    );
}

#[test]
fn files_and_edges() {
    let two = |b: &str| {
        format!(
            "name: f\ntasks:\n  a: {{command: [p], outputs: [x.txt]}}\n  b: {{command: [p], {b}}}\n"
        )
    };
    check(
        &two("outputs: [x.txt]"),
        "4:31 'x.txt' is written by task 'a' (line 3) and by task 'b'",
    );
    check(&two("outputs: [y, y]"), "4:34 task 'b' writes 'y' twice");
    check(
        &two("inputs: [x.tx]"),
        "4:30 no task writes input 'x.tx', and it has no source … 'x.txt'",
    );
    check(
        &two("inputs: [data]"),
        "4:30 no task writes input 'data' … --file data=PATH",
    );
    check(
        &two("inputs: [{path: x.txt, source: 'file:/x'}]"),
        "4:52 has a source, but task 'a' writes it",
    );
    check(
        &two("inputs: [{source: 'file:/x'}]"),
        "4:30 neither name nor path",
    );
    check(
        &two("outputs: [o], inputs: [o]"),
        "4:44 task 'b' reads its own output 'o'",
    );
    check(
        &two("needs: [c]"),
        "4:29 there is no task 'c' … did you mean 'a'?",
    );
    check(&two("needs: [b]"), "4:29 task 'b' waits for itself");
    check(&two("stdin: x.txt"), "4:21 is the path of no input");
    check(
        "name: f\ntasks:\n  a: {command: [p], outputs: [{name: m, path: x}]}\n  b: {command: [p], outputs: [{name: n, path: x}]}\n  c: {command: [p], inputs: [x]}\n",
        "5:30 is a path that 2 tasks write … the output's name",
    );
    check_all(
        &two("needs: [a]"),
        &[],
        &["stray"],
        &["1:1 no input is called 'stray'"],
    );
    check_all(
        &two("inputs: [x.txt]"),
        &[],
        &["x.txt"],
        &["1:1 the sent file 'x.txt' is written by task 'a'"],
    );
    assert!(submit(&two("inputs: [data]"), &[], &["data"]).is_ok());
}

#[test]
fn a_cycle_is_shown_whole() {
    check(
        "name: f\ntasks:\n  a: {command: [p], needs: [c]}\n  b: {command: [p], needs: [a], outputs: [x]}\n  c: {command: [p], inputs: [x]}\n  d: {command: [p], needs: [c]}\n",
        "3:3 tasks wait for each other: a → b → c → a",
    );
}

#[test]
fn combinations_that_cannot_be_kept() {
    check_task(
        "side_effects: at_most_once\n    disconnect: {lost_after: 1h, replace: true}",
        "6:34 `replace: true` cannot be kept with `side_effects: at_most_once`",
    );
    check_task(
        "disconnect: {replace: true}",
        "5:18 `replace: true` needs `lost_after`",
    );
    check_task(
        "retry: {initial_interval: 1m, max_interval: 1s}",
        "5:35 is below `initial_interval`",
    );
    check_task(
        "retry: {retry_on: [3], no_retry_on: [3]}",
        "5:28 exit code 3 stands in both",
    );
    check_task(
        "placement: {site: a, labels: {site: b}}",
        "5:41 `site` is a, but the label site is b",
    );
    check(
        "name: f\ndefaults: {disconnect: {lost_after: 1h, replace: true}}\ntasks:\n  t: {command: [p], side_effects: at_most_once}\n",
        "2:41 task 't': `replace: true` cannot be kept",
    );
    check(
        "name: f\ndefaults: {inputs: [a]}\ntasks: {t: {command: [p]}}",
        "2:12 has no default",
    );
}

#[test]
fn parameters() {
    let head = "name: f\nparams:\n  n: ";
    let tail = "\ntasks: {t: {command: [p]}}\n";
    let declared = |text: &str| format!("{head}{text}{tail}");
    check(
        &declared("{type: int}"),
        "3:13 `type`: 'int' is not known here … integer",
    );
    check(
        &declared("{type: integer, default: x}"),
        "3:22 'x' is not of type integer",
    );
    check(
        &declared("{default: x, required: true}"),
        "3:19 is required and has a default",
    );
    check(
        &declared("{required: false}"),
        "3:7 is not required and has no default",
    );
    check(
        &declared("{}"),
        "3:3 parameter 'n' is required … --param n=VALUE",
    );
    check(
        &declared("7"),
        "3:6 parameter 'n' is a single value, not a map",
    );
    let typed = declared("{type: integer, default: 1}");
    check_all(
        &typed,
        &[("n", "x")],
        &[],
        &["3:3 given for parameter 'n' … not of type integer"],
    );
    check_all(
        &typed,
        &[("m", "1")],
        &[],
        &["1:1 there is no parameter 'm' … did you mean 'n'?"],
    );
    let used =
        |text: &str| format!("{head}{{type: integer, default: 1}}\ntasks: {{t: {{{text}}}}}\n");
    check(
        &used("command: [p, '${params.m}']"),
        "4:26 no parameter 'm' … did you mean 'n'?",
    );
    check(
        &used("command: [p, '${HOME}']"),
        "4:26 '${HOME}' is no template … $${",
    );
    check(&used("command: [p, '${params.n']"), "4:26 is not closed");
    check(
        &used("command: [p, '${matrix.n}']"),
        "4:26 'matrix.n' outside of a task with a matrix … add `matrix: {n: [a, b]}`",
    );
    check(
        &used("command: [p], timeout: '${params.n}'"),
        "4:36 the duration '1' has no unit",
    );
    check(
        &used("command: [p], when: params.n == \"x\""),
        "4:33 a number cannot be compared with a text",
    );
    check(
        &used("command: [p], when: '${params.n} == 1'"),
        "4:33 without ${}: params.x",
    );
}

#[test]
fn all_mistakes_are_shown_at_once_in_order() {
    let text = "nmae: f\ntasks:\n  a: {command: [p], needs: [b], timeout: 5}\n  b: {command: [p], needs: [a, zz]}\n  c: {container: x}\n";
    check_all(
        text,
        &[],
        &[],
        &[
            "1:1 the workflow has no `name`",
            "1:1 the workflow has no field `nmae` … did you mean 'name'?",
            "3:3 tasks wait for each other: a → b → a",
            "3:42 has no unit",
            "4:32 there is no task 'zz'",
            "5:3 task 'c' has nothing to run",
            "5:7 `container` comes later",
        ],
    );
}

#[test]
fn mistakes_can_be_read_by_programs() {
    let mistakes = submit("name: f", &[], &[]).unwrap_err();
    let json = serde_json::to_value(&mistakes).unwrap();
    assert_eq!(json["mistakes"][0]["line"], 1);
    assert_eq!(json["mistakes"][0]["mend"], "add `tasks: …`");
}

#[test]
fn what_depends_on_a_submission_is_left_to_it() {
    let text = "name: f\nparams: {d: {type: string}}\ntasks:\n  t: {command: [p], timeout: '${params.d}', inputs: [data], needs: ['${params.d}'], disconnect: {replace: true, lost_after: '${params.d}'}}\n";
    let spec = spec::read("f", text).unwrap_or_else(|m| panic!("{m}"));
    assert_eq!(spec.params()[0].name, "d");
    let compiled = spec
        .compile(&BTreeMap::new(), &SentFiles::new(), Unix(0))
        .unwrap_err();
    assert!(compiled.to_string().contains("parameter 'd' is required"));
    let linted = spec::lint("f", text, &BTreeMap::new(), &SentFiles::new()).unwrap_err();
    assert!(
        linted.to_string().contains("no task writes input 'data'"),
        "{linted}"
    );
}

#[test]
fn approvals() {
    let asks = |fields: &str, wanted: &str| {
        check(&format!("name: f\ntasks:\n  t:\n    {fields}\n"), wanted);
    };
    asks("approval: {}", "4:15 `approval` has no `prompt`");
    asks(
        "approval: {prompt: p}\n    command: [p]",
        "5:5 an approval runs nothing, so it has no `command`",
    );
    asks(
        "approval: {prompt: p}\n    deadline: 1h",
        "5:5 it has no `deadline` … write it below `approval`",
    );
    asks(
        "approval: {prompt: p}\n    outputs: [a.txt]",
        "5:15 an approval writes answer.json only",
    );
    asks(
        "approval: {prompt: p, default: no}",
        "4:27 `default` says what counts when a deadline passes",
    );
    asks(
        "approval: {prompt: p, default: yes, deadline: 1h, input: {x: {type: integer}}}",
        "4:27 nobody fills in 'x' when it is approved by default",
    );
    asks(
        "approval: {prompt: p, input: {x: {type: integer, default: y}}}",
        "4:54 'y' is not of type integer",
    );
}
