//! A test for each field of the specification that says what a task is: its program, files,
//! parameters. Each one fails if the field is ignored. `docs/spec.md` names them.

use e2e::agent::{Gateway, stdout};
use serde_json::Value;
use std::fs;
use std::sync::{Arc, Mutex, Weak};

/// The gateway that tests share which do not mind others; it ends with the last of them.
fn shared() -> Arc<Gateway> {
    static SHARED: Mutex<Weak<Gateway>> = Mutex::new(Weak::new());
    let mut shared = SHARED
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let gateway = Arc::new(Gateway::started(&["--cpus", "4"]));
        *shared = Arc::downgrade(&gateway);
        gateway
    })
}

/// Runs a workflow and gives what its task `show` wrote.
fn shown(text: &str) -> String {
    let gateway = shared();
    let run = gateway.succeeds(text);
    gateway.output(&run, "show")
}

#[test]
fn spec_field_name() {
    let gateway = shared();
    let text = "name: my-name\ntasks: {show: {shell: echo $DRIFTLESS_WORKFLOW}}";
    let submitted = gateway.try_submit(text, &[]);
    let submitted: Value = serde_json::from_str(&stdout(&submitted)).unwrap();
    assert_eq!(submitted["workflow"], "my-name");
    let run = submitted["id"].as_str().unwrap();
    let _ = gateway.wait_state(run, "show", "succeeded");
    assert_eq!(gateway.output(run, "show"), "my-name");
    assert!(
        gateway
            .refused("tasks: {a: {command: 'true'}}", &[])
            .contains("name")
    );
}

#[test]
fn spec_field_tasks() {
    let gateway = shared();
    let run = gateway.succeeds("name: two\ntasks: {a: {command: 'true'}, b: {command: 'true'}}");
    let ids: Vec<String> = gateway.tasks(&run).into_keys().collect();
    assert_eq!(ids, ["a", "b"]);
    assert!(gateway.refused("name: none", &[]).contains("tasks"));
}

#[test]
fn spec_field_command() {
    // An argument that a shell would split and expand.
    let said = shown("name: c\ntasks: {show: {command: [echo, 'two  words', '$HOME', '*']}}");
    assert_eq!(said, "two  words $HOME *");
    let said = shown("name: c\ntasks: {show: {command: env}}");
    assert!(said.contains("DRIFTLESS_TASK=show"), "{said}");
}

#[test]
fn spec_field_args() {
    let said = shown("name: c\ntasks: {show: {command: [echo, a], args: [b, 'c d']}}");
    assert_eq!(said, "a b c d");
}

#[test]
fn spec_field_shell() {
    let said = shown("name: c\ntasks: {show: {shell: 'for i in 1 2; do echo $i | cat; done'}}");
    assert_eq!(said, "1\n2");
}

#[test]
fn spec_field_needs() {
    let gateway = shared();
    let run = gateway.succeeds(
        "name: needs
tasks:
  show: {shell: cat @M/needed, needs: [first]}
  first: {shell: sleep 0.1; echo done > @M/needed}",
    );
    assert_eq!(gateway.output(&run, "show"), "done");
}

#[test]
fn spec_field_inputs() {
    let said = shown(
        "name: inputs
tasks:
  write: {shell: sleep 0.05; echo text > out.txt; echo other > other.txt, outputs: [out.txt, other.txt]}
  show: {inputs: [out.txt], shell: cat out.txt; ls}",
    );
    assert_eq!(
        said, "text\nout.txt",
        "its inputs and nothing else are there"
    );
}

#[test]
fn spec_field_inputs_name() {
    let gateway = shared();
    let run = gateway.succeeds(
        "name: inputs
tasks:
  one: {shell: echo one > same, outputs: [{name: first, path: same}]}
  two: {shell: echo two > same, outputs: [{name: second, path: same}]}
  show: {inputs: [{name: second}], shell: cat same}",
    );
    assert_eq!(gateway.output(&run, "show"), "two");
    let file = gateway.base().join("sent");
    fs::write(&file, "sent\n").unwrap();
    let run = gateway.submit_with(
        "name: sent\ntasks: {show: {inputs: [{name: table}], shell: cat table}}",
        &["--file", &format!("table={}", file.display())],
    );
    let _ = gateway.wait_state(&run, "show", "succeeded");
    assert_eq!(gateway.output(&run, "show"), "sent");
}

#[test]
fn spec_field_inputs_path() {
    let said = shown(
        "name: inputs
tasks:
  write: {shell: echo text > out, outputs: [out]}
  show: {inputs: [{name: out, path: sub/here}], shell: find . -type f}",
    );
    assert_eq!(said, "./sub/here");
}

#[test]
fn spec_field_matrix() {
    let gateway = shared();
    let run = gateway.succeeds(
        "name: grid
tasks:
  fit:
    matrix: {rate: [1, 2], seed: [a, b]}
    env: {WHICH: '${matrix.rate}${matrix.seed}'}
    shell: echo $WHICH > m
    outputs: [{name: model, path: m}]
  show: {inputs: [model], shell: cat m*}",
    );
    assert_eq!(gateway.output(&run, "show"), "1a\n1b\n2a\n2b");
    let tasks = gateway.tasks(&run);
    let fit: Vec<&String> = tasks.keys().filter(|id| id.starts_with("fit")).collect();
    assert_eq!(fit.len(), 4, "{fit:?}");
    assert_eq!(tasks["fit[rate=2,seed=a]"]["state"], "succeeded");
}

#[test]
fn spec_field_inputs_source() {
    let mut gateway = Gateway::new(&["--cpus", "2"]);
    let allowed = gateway.base().join("allowed");
    fs::create_dir(&allowed).unwrap();
    fs::write(allowed.join("good"), "from the node\n").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", allowed.join("link")).unwrap();
    gateway.set_args(&[
        "--cpus",
        "2",
        "--allow-read",
        &allowed.display().to_string(),
    ]);
    gateway.start();
    let from = |name: &str| {
        format!(
            "name: node
tasks:
  show:
    retry: {{max_attempts: 1}}
    inputs: [{{name: it, source: 'file:{}/{name}'}}]
    shell: cat it",
            allowed.display()
        )
    };
    let run = gateway.succeeds(&from("good"));
    assert_eq!(gateway.output(&run, "show"), "from the node");
    for bad in ["link", "none"] {
        let run = gateway.submit(&from(bad));
        let show = &gateway.settled(&run)["show"];
        assert_eq!(show["reason"], "input_missing", "{bad}: {show}");
    }
}

#[test]
fn spec_field_outputs() {
    let gateway = shared();
    let run = gateway.submit(
        "name: outputs
defaults: {retry: {max_attempts: 1}}
tasks:
  kept: {shell: echo x > a; echo y > b, outputs: [a]}
  missing: {command: 'true', outputs: [c]}",
    );
    let tasks = gateway.settled(&run);
    assert_eq!(tasks["missing"]["reason"], "output_missing");
    let outputs = tasks["kept"]["outputs"].as_array().unwrap();
    assert_eq!(outputs.len(), 1, "{outputs:?}");
    assert!(
        outputs[0]["hash"]
            .as_str()
            .is_some_and(|hash| hash.contains(':')),
        "{outputs:?}"
    );
}

#[test]
fn spec_field_outputs_name() {
    let gateway = shared();
    let run = gateway.succeeds(
        "name: outputs
tasks:
  write: {shell: echo text > file.txt, outputs: [{name: report, path: file.txt}]}
  show: {inputs: [report], shell: cat file.txt}",
    );
    assert_eq!(gateway.output(&run, "show"), "text");
    assert_eq!(gateway.task(&run, "write")["outputs"][0]["name"], "report");
}

#[test]
fn spec_field_outputs_path() {
    let gateway = shared();
    let run = gateway.succeeds(
        "name: outputs
tasks:
  write: {shell: mkdir sub; echo wrong > report; echo right > sub/file, outputs: [{name: report, path: sub/file}]}
  show: {inputs: [{name: report, path: it}], shell: cat it}",
    );
    assert_eq!(gateway.output(&run, "show"), "right");
    assert_eq!(
        gateway.task(&run, "write")["outputs"][0]["path"],
        "sub/file"
    );
}

#[test]
fn spec_field_env() {
    let said = shown(
        "name: env
params: {who: {default: you}}
tasks: {show: {env: {A: '1 2', B: 'hello ${params.who}'}, shell: 'echo \"$A|$B\"'}}",
    );
    assert_eq!(said, "1 2|hello you");
    let refused = shared().refused(
        "name: env\ntasks: {a: {command: 'true', env: {DRIFTLESS_TASK: x}}}",
        &[],
    );
    assert!(refused.contains("DRIFTLESS_"), "{refused}");
}

#[test]
fn spec_field_workdir() {
    let said = shown(
        "name: workdir
tasks:
  write: {shell: echo text > out, outputs: [out]}
  show: {inputs: [{name: out, path: sub/out}], workdir: sub, shell: cat out}",
    );
    assert_eq!(said, "text");
}

#[test]
fn spec_field_stdin() {
    let said = shown(
        "name: stdin
tasks:
  write: {shell: echo text > out, outputs: [out]}
  empty: {command: cat, needs: [write]}
  show: {inputs: [out], stdin: out, command: cat}",
    );
    assert_eq!(said, "text");
}

#[test]
fn spec_field_params() {
    let gateway = shared();
    let text =
        "name: params\nparams: {month: {}}\ntasks: {show: {command: [echo, '${params.month}']}}";
    let run = gateway.submit_with(text, &["--param", "month=7"]);
    let _ = gateway.wait_state(&run, "show", "succeeded");
    assert_eq!(gateway.output(&run, "show"), "7");
    let refused = gateway.refused(text, &["--param", "month=7", "--param", "year=2010"]);
    assert!(refused.contains("year"), "{refused}");
}

#[test]
fn spec_field_params_type() {
    let gateway = shared();
    let of = |kind: &str| {
        format!(
            "name: t\nparams: {{n: {{type: {kind}}}}}\ntasks: {{show: {{command: [echo, '${{params.n}}']}}}}"
        )
    };
    for (kind, good, bad) in [
        ("integer", "7", "seven"),
        ("number", "0.5", "half"),
        ("boolean", "true", "perhaps"),
    ] {
        let _ = gateway.submit_with(&of(kind), &["--param", &format!("n={good}")]);
        let refused = gateway.refused(&of(kind), &["--param", &format!("n={bad}")]);
        assert!(
            refused.contains(bad) && refused.contains(kind),
            "{kind}: {refused}"
        );
    }
    let _ = gateway.submit_with(&of("string"), &["--param", "n=seven"]);
    let run = gateway.submit_with(
        "name: t
params: {a: {type: integer}, b: {type: string}}
tasks: {larger: {when: params.a > 9, command: 'true'}, same: {when: params.b == '10', command: 'true'}}",
        &["--param", "a=10", "--param", "b=10"],
    );
    let tasks = gateway.settled(&run);
    assert_eq!(tasks["larger"]["state"], "succeeded", "10 > 9 as numbers");
    assert_eq!(tasks["same"]["state"], "succeeded");
}

#[test]
fn spec_field_params_default() {
    let said = shown(
        "name: d\nparams: {n: {type: integer, default: 80}}\ntasks: {show: {command: [echo, '${params.n}']}}",
    );
    assert_eq!(said, "80");
}

#[test]
fn spec_field_params_required() {
    let gateway = shared();
    let with = |fields: &str| {
        format!("name: r\nparams: {{month: {{{fields}}}}}\ntasks: {{a: {{command: 'true'}}}}")
    };
    let _ = gateway.submit_with(&with("required: true"), &["--param", "month=2"]);
    let refused = gateway.refused(&with("required: true"), &[]);
    assert!(refused.contains("month"), "{refused}");
    let _ = gateway.submit(&with("required: false, default: 1"));
    // It says what is the case: the other two combinations cannot be meant.
    let refused = gateway.refused(&with("required: true, default: 1"), &[]);
    assert!(refused.contains("required"), "{refused}");
    let refused = gateway.refused(&with("required: false"), &[]);
    assert!(refused.contains("required"), "{refused}");
}

#[test]
fn spec_field_defaults() {
    let gateway = shared();
    let run = gateway.submit(
        "name: defaults
defaults: {retry: {max_attempts: 1}, env: {A: all, B: all}}
tasks:
  show: {env: {B: own}, shell: echo $A $B}
  fails: {command: 'false'}",
    );
    let tasks = gateway.settled(&run);
    assert_eq!(gateway.output(&run, "show"), "all own");
    assert_eq!(tasks["fails"]["attempts"], 1, "the default is 4");
}

#[test]
fn spec_field_when() {
    let gateway = shared();
    let text = "name: when
params: {mode: {default: day}}
tasks:
  night: {when: params.mode == 'night', command: 'true'}
  after: {needs: [night], command: 'true'}
  day: {when: not (params.mode == 'night'), command: 'true'}";
    let states = |args: &[&str]| {
        let run = gateway.submit_with(text, args);
        let tasks = gateway.settled(&run);
        ["night", "after", "day"].map(|id| tasks[id]["state"].as_str().unwrap().to_owned())
    };
    assert_eq!(states(&[]), ["skipped", "skipped", "succeeded"]);
    assert_eq!(
        states(&["--param", "mode=night"]),
        ["succeeded", "succeeded", "skipped"]
    );
}

#[test]
fn spec_field_trigger_rule() {
    let gateway = shared();
    let run = gateway.submit(
        "name: rules
defaults: {retry: {max_attempts: 1}}
tasks:
  good: {command: 'true'}
  bad: {command: 'false'}
  never: {command: 'true', when: 1 == 2}
  success-of-good: {command: 'true', needs: [good]}
  success-of-bad: {command: 'true', needs: [good, bad]}
  success-of-never: {command: 'true', needs: [good, never]}
  done-of-bad: {command: 'true', needs: [good, bad, never], trigger_rule: all_done}
  failed-of-bad: {command: 'true', needs: [good, bad], trigger_rule: one_failed}
  failed-of-good: {command: 'true', needs: [good], trigger_rule: one_failed}
  none-of-never: {command: 'true', needs: [good, never], trigger_rule: none_failed}
  none-of-bad: {command: 'true', needs: [good, bad], trigger_rule: none_failed}",
    );
    let tasks = gateway.settled(&run);
    for (id, state) in [
        ("success-of-good", "succeeded"),
        ("success-of-bad", "aborted"),
        ("success-of-never", "skipped"),
        ("done-of-bad", "succeeded"),
        ("failed-of-bad", "succeeded"),
        ("failed-of-good", "skipped"),
        ("none-of-never", "succeeded"),
        ("none-of-bad", "aborted"),
    ] {
        assert_eq!(tasks[id]["state"], state, "{id}: {}", tasks[id]);
    }
}
