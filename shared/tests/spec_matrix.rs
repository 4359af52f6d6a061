//! Tasks written as one: ids, templates, edges and files of their members, and what is refused.

use shared::ids::TaskIdx;
use shared::limits::{MATRIX_EDGES, TASKS};
use shared::spec::{self, SentFiles};
use shared::time::Unix;
use shared::workflow::{Action, Source, Task, Workflow};
use std::collections::BTreeMap;

fn compile(text: &str) -> Result<Workflow, String> {
    let none = BTreeMap::new();
    spec::submission("f", text, &none, &SentFiles::new(), Unix(0)).map_err(|m| m.to_string())
}

fn compiled(text: &str) -> Workflow {
    let workflow = compile(text).unwrap_or_else(|mistakes| panic!("{mistakes}\n{text}"));
    let expanded = spec::read("f", text).expect("it compiles").expanded();
    let again = compile(&expanded);
    assert_eq!(
        Ok(&workflow.clone().decided()),
        again.as_ref(),
        "{expanded}"
    );
    workflow
}

#[track_caller]
fn refused(text: &str, wanted: &str) {
    let mistakes = compile(text).expect_err(text);
    assert!(mistakes.contains(wanted), "{mistakes}");
    assert_eq!(mistakes.matches("mend:").count(), 1, "{mistakes}");
}

fn task<'w>(workflow: &'w Workflow, id: &str) -> &'w Task {
    let found = workflow.tasks.iter().find(|task| task.id == id);
    found.unwrap_or_else(|| panic!("no task {id}"))
}

fn ids(workflow: &Workflow) -> Vec<&str> {
    workflow.tasks.iter().map(|t| t.id.as_str()).collect()
}

const TRAIN: &str = "name: f
params: {where: {default: here}}
tasks:
  train:
    matrix: {rate: [0.1, 2], seed: [a, b]}
    command: [fit, '${matrix.rate}/${params.where}']
    env: {SEED: '${matrix.seed}'}
    when: matrix.rate < 2 or matrix.seed == 'a'
    timeout: '${matrix.rate}m'
    outputs: [{name: model, path: m.bin}]
";

#[test]
fn each_combination_is_a_task_of_its_own() {
    let text = TRAIN.replace("    timeout: '${matrix.rate}m'\n", "");
    let workflow = compiled(&text);
    assert_eq!(
        ids(&workflow),
        [
            "train[rate=0.1,seed=a]",
            "train[rate=0.1,seed=b]",
            "train[rate=2,seed=a]",
            "train[rate=2,seed=b]"
        ]
    );
    let last = task(&workflow, "train[rate=2,seed=b]");
    let argv = ["fit", "2/here"].map(str::to_owned).to_vec();
    assert_eq!(last.action, Action::Argv(argv));
    assert_eq!(last.env["SEED"], "b");
    assert!(last.when.as_ref().is_some_and(|when| !when.holds));
    assert_eq!(last.outputs[0].name, "model[rate=2,seed=b]");
    assert_eq!(last.outputs[0].path, "m.bin");
    assert_eq!(last.matrix, Some(0));
    assert_eq!(workflow.matrices[0].id, "train");
    refused(TRAIN, "`timeout`: ");
}

#[test]
fn the_name_of_a_matrix_means_all_its_members() {
    let workflow = compiled(
        "name: f
tasks:
  load: {command: [p]}
  fit: {matrix: {n: [1, 2]}, needs: [load], command: [p], outputs: [{name: m, path: d/m}]}
  one: {command: [p], inputs: ['m[n=2]']}
  all: {command: [p], inputs: [{name: m, path: in/m}]}
  after: {command: [p], needs: [fit]}
  pick: {command: [p], needs: ['fit[n=1]']}
  same: {matrix: {n: [1, 2]}, command: [p], inputs: ['m[n=${matrix.n}]']}",
    );
    let needs = |id: &str| -> Vec<&str> {
        let needs = task(&workflow, id).needs.iter();
        needs
            .map(|TaskIdx(t)| ids(&workflow)[*t as usize])
            .collect()
    };
    assert_eq!(needs("fit[n=2]"), ["load"]);
    assert_eq!(needs("one"), ["fit[n=2]"]);
    assert_eq!(needs("all"), ["fit[n=1]", "fit[n=2]"]);
    assert_eq!(needs("after"), ["fit[n=1]", "fit[n=2]"]);
    assert_eq!(needs("pick"), ["fit[n=1]"]);
    assert_eq!(needs("same[n=2]"), ["fit[n=2]"]);
    let files = &task(&workflow, "all").inputs;
    let paths: Vec<&str> = files.iter().map(|input| input.path.as_str()).collect();
    assert_eq!(paths, ["in/m[n=1]", "in/m[n=2]"]);
    assert!(
        files
            .iter()
            .all(|i| matches!(i.source, Source::Task { output: 0, .. }))
    );
    assert_eq!(task(&workflow, "one").inputs[0].path, "d/m");
}

#[test]
fn what_cannot_be_told_apart_is_refused() {
    let head = "name: f\ntasks:\n  fit: {matrix: {n: [1, 2]}, command: [p], outputs: [m]}\n";
    refused(
        &format!("{head}  two: {{command: [p], outputs: [m]}}"),
        "output 'm' is written by task 'fit[n=1]' (line 3) and by task 'two'",
    );
    refused(
        &format!("{head}  two: {{matrix: {{k: [a]}}, command: [p], outputs: [m]}}"),
        "output 'm' is written by task 'fit[n=1]' (line 3) and by task 'two[k=a]'",
    );
    refused(
        &format!("{head}  two: {{command: [p], inputs: [{{name: m, source: 'file:/x'}}]}}"),
        "input 'm' has a source, but task 'fit[n=1]' writes it",
    );
    let own = "name: f\ntasks: {t: {matrix: {n: [1]}, command: [p], needs: [t]}}";
    refused(own, "task 't[n=1]' waits for itself");
    let own = "name: f\ntasks: {t: {matrix: {n: [1]}, command: [p], outputs: [o], inputs: [o]}}";
    refused(own, "reads its own output");
}

#[test]
fn axes_are_short_distinct_and_few() {
    let with = |matrix: &str, command: &str| {
        format!("name: f\ntasks:\n  t:\n    matrix: {matrix}\n    command: {command}\n")
    };
    refused(&with("[a]", "[p]"), "`matrix` is a list, not a map");
    refused(&with("{n: 3}", "[p]"), "`n` is a single value, not a list");
    refused(&with("{n: []}", "[p]"), "axis 'n' has no values");
    refused(
        &with("{n: [1, 2, 1]}", "[p]"),
        "the value '1' stands there twice",
    );
    refused(&with("{n: ['a b']}", "[p]"), "'a b' is no value of an axis");
    refused(&with("{n: ['a,b=c']}", "[p]"), "is no value of an axis");
    refused(
        &with("{n: ['${params.x}']}", "[p]"),
        "is no value of an axis",
    );
    refused(&with("{n-m: [a]}", "[p]"), "'n-m' is no name of an axis");
    refused(&with("{n: [a]}", "[p, '${matrix.m}']"), "no axis 'm'");
    let alone = "name: f\ntasks: {t: {command: [p, '${matrix.m}']}}";
    refused(alone, "outside of a task with a matrix");
    let long = ["x"; 20].concat();
    let wide: Vec<String> = (0..16).map(|n| format!("a{n}: [{long}]")).collect();
    refused(
        &with(&format!("{{{}}}", wide.join(", ")), "[p]"),
        "are longer than",
    );
    let shell = "name: f\ntasks: {t: {matrix: {n: [1]}, shell: 'echo ${matrix.n}'}}";
    refused(shell, "a parameter never becomes program text");
}

#[test]
fn a_matrix_that_is_too_large_is_refused_before_it_is_made() {
    let values: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    let axis = format!("[{}]", values.join(", "));
    let text = format!(
        "name: f\ntasks: {{t: {{matrix: {{a: {axis}, b: {axis}, c: {axis}}}, command: [p]}}}}"
    );
    refused(&text, &format!("more than {TASKS} tasks"));
    let large = ["x"; 100_000].concat();
    let text = format!(
        "name: f\ntasks: {{t: {{matrix: {{a: {axis}, b: [1, 2, 3]}}, command: [p, {large}]}}}}"
    );
    refused(&text, "members of 't' are too large");
    let text = format!(
        "name: f\ntasks:\n  a: {{matrix: {{a: {axis}, b: [1, 2, 3]}}, command: [p]}}\n  \
         b: {{matrix: {{a: {axis}, b: [1, 2, 3]}}, command: [p], needs: [a]}}"
    );
    refused(&text, &format!("more than {MATRIX_EDGES} edges"));
}
