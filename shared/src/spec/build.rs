//! From the fields of one task, in their layers, to the compiled task without its edges and files.
//! Refuses combinations that cannot be kept.

use super::ask;
use super::mistake::{Pos, Sink, brief};
use super::units::Deadline;
use super::value::{Layers, Value};
use crate::graph;
use crate::taint;
use crate::time::{Span, Unix};
use crate::workflow::{
    Action, Disconnect, OnExhausted, Placement, Resources, Retry, RetryLeft, SideEffects, Task,
    TriggerRule, When,
};
use std::collections::BTreeMap;

/// The value that counts; what is still open counts as the schema's default.
fn value<'a>(layers: &Layers<'a>, name: &str) -> &'a Value {
    match layers.get(name).1 {
        Value::Open(_) => layers.0[2]
            .and_then(|b| b.get(name))
            .map_or(&Value::Unset, |(_, v)| v),
        value => value,
    }
}

pub(super) fn text(layers: &Layers<'_>, name: &str) -> Option<String> {
    match value(layers, name) {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    }
}

fn number<T: TryFrom<i64> + Default>(layers: &Layers<'_>, name: &str) -> T {
    match value(layers, name) {
        Value::Int(n) => T::try_from(*n).unwrap_or_default(),
        _ => T::default(),
    }
}

fn milli(layers: &Layers<'_>, name: &str) -> u32 {
    if let Value::Milli(n) = value(layers, name) {
        *n
    } else {
        0
    }
}

fn bytes(layers: &Layers<'_>, name: &str) -> u64 {
    if let Value::Bytes(n) = value(layers, name) {
        *n
    } else {
        0
    }
}

fn span(layers: &Layers<'_>, name: &str) -> Option<Span> {
    if let Value::Span(span) = value(layers, name) {
        Some(*span)
    } else {
        None
    }
}

pub(super) fn word(layers: &Layers<'_>, name: &str) -> &'static str {
    if let Value::Word(word) = value(layers, name) {
        word
    } else {
        ""
    }
}

fn codes(layers: &Layers<'_>, name: &str) -> Vec<i32> {
    if let Value::Codes(codes) = value(layers, name) {
        codes.clone()
    } else {
        Vec::new()
    }
}

fn pairs(layers: &Layers<'_>, name: &str) -> BTreeMap<String, String> {
    let pairs = layers.pairs(name);
    pairs
        .into_iter()
        .map(|(key, word)| (key.to_owned(), word.text.clone()))
        .collect()
}

/// The compiled task, without edges and files.
pub(crate) fn task(
    id: &str,
    at: Pos,
    layers: &Layers<'_>,
    submitted_at: Option<Unix>,
    sink: &mut Sink,
) -> Task {
    let mut task = Task {
        id: id.to_owned(),
        description: text(layers, "description").unwrap_or_default(),
        action: action(id, at, layers, sink),
        env: pairs(layers, "env"),
        workdir: text(layers, "workdir").unwrap_or_default(),
        stdin: text(layers, "stdin"),
        needs: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        resources: resources(&layers.inside("resources")),
        priority: number(layers, "priority"),
        retry: retry(&layers.inside("retry"), sink),
        retry_left: retry_left(&layers.inside("retry")),
        timeout: span(layers, "timeout"),
        deadline: deadline(layers, submitted_at, sink),
        kill_grace: span(layers, "kill_grace").unwrap_or_default(),
        crash_limit: number(layers, "crash_limit"),
        side_effects: match word(layers, "side_effects") {
            "idempotent" => SideEffects::Idempotent,
            "at_most_once" => SideEffects::AtMostOnce,
            _ => SideEffects::None,
        },
        when: when(layers),
        trigger_rule: match word(layers, "trigger_rule") {
            "all_done" => TriggerRule::AllDone,
            "one_failed" => TriggerRule::OneFailed,
            "none_failed" => TriggerRule::NoneFailed,
            _ => TriggerRule::AllSuccess,
        },
        placement: placement(&layers.inside("placement"), sink),
        disconnect: Disconnect {
            lost_after: span(&layers.inside("disconnect"), "lost_after"),
            replace: value(&layers.inside("disconnect"), "replace") == &Value::Switch(true),
        },
        batch: None,
        upward_rank: graph::weight(span(layers, "estimate")),
        matrix: None,
    };
    if let Action::Approval(_) = task.action {
        ask::runs_nothing(&mut task, layers, submitted_at, sink);
    }
    check_disconnect(&task, layers, sink);
    task
}

fn action(id: &str, at: Pos, layers: &Layers<'_>, sink: &mut Sink) -> Action {
    if let (_, Value::Block(_)) = layers.get("approval") {
        return Action::Approval(Box::new(ask::approval(id, layers, sink)));
    }
    let (command, shell) = (layers.get("command"), layers.get("shell"));
    let given = |(_, value): (Pos, &Value)| value != &Value::Unset;
    let args = layers.0[0].map_or(&[][..], |block| block.texts("args"));
    match (given(command), given(shell)) {
        // Open means that a mistake was noted there already.
        (true, true) if !matches!(command.1, Value::Open(_)) => {
            let what = format!("task '{id}' has both `command` and `shell`");
            sink.add(shell.0, what, "keep one of the two");
        }
        (false, false) => {
            let what = format!("task '{id}' has nothing to run");
            sink.add(
                at,
                what,
                "add `command: [program, argument]`, `shell: text for sh`, or `approval: {prompt: …}`",
            );
        }
        (false, true) if !args.is_empty() => {
            let mend = "pass values to shell text by `env`";
            sink.add(
                args[0].at,
                "`args` belongs to `command`, not to `shell`",
                mend,
            );
        }
        _ => {}
    }
    if let Value::Text(text) = shell.1 {
        return Action::Shell(text.clone());
    }
    let command = layers.0[0].map_or(&[][..], |block| block.texts("command"));
    Action::Argv(
        command
            .iter()
            .chain(args)
            .map(|word| word.text.clone())
            .collect(),
    )
}

fn resources(layers: &Layers<'_>) -> Resources {
    Resources {
        cpu_milli: milli(layers, "cpu"),
        memory: bytes(layers, "memory"),
        disk: bytes(layers, "disk"),
        gpu_milli: milli(layers, "gpu"),
        custom: layers.counts("custom"),
    }
}

fn retry(layers: &Layers<'_>, sink: &mut Sink) -> Retry {
    let mut initial_interval = span(layers, "initial_interval").unwrap_or_default();
    let mut max_interval = span(layers, "max_interval").unwrap_or_default();
    if max_interval < initial_interval {
        match layers.given("max_interval") {
            // the first pause is the default, and gives way
            Some(_) if layers.given("initial_interval").is_none() => {
                initial_interval = max_interval;
            }
            Some((at, Value::Span(_))) => {
                let first = initial_interval;
                let what = format!(
                    "`max_interval` of {max_interval} is below `initial_interval` of {first}"
                );
                sink.add(at, what, format!("write at least {first}"));
            }
            // The default gives way to a longer first pause.
            _ => max_interval = initial_interval,
        }
    }
    let (retry_on, no_retry_on) = (codes(layers, "retry_on"), codes(layers, "no_retry_on"));
    if let Some(code) = retry_on.iter().find(|code| no_retry_on.contains(code)) {
        let what = format!("exit code {code} stands in both `retry_on` and `no_retry_on`");
        sink.add(
            layers.get("no_retry_on").0,
            what,
            "keep it in one of the two",
        );
    }
    Retry {
        max_attempts: number(layers, "max_attempts"),
        initial_interval,
        backoff_milli: milli(layers, "backoff"),
        max_interval,
        jitter_milli: milli(layers, "jitter"),
        retry_on,
        no_retry_on,
        on_exhausted: match word(layers, "on_exhausted") {
            "pause" => OnExhausted::Pause,
            _ => OnExhausted::Fail,
        },
    }
}

/// The fields that nobody wrote.
fn retry_left(layers: &Layers<'_>) -> RetryLeft {
    let left = |name: &str| layers.given(name).is_none();
    RetryLeft {
        max_attempts: left("max_attempts"),
        initial_interval: left("initial_interval"),
        max_interval: left("max_interval"),
    }
}

pub(super) fn deadline(
    layers: &Layers<'_>,
    submitted_at: Option<Unix>,
    sink: &mut Sink,
) -> Option<Unix> {
    let Value::Deadline(deadline, written) = value(layers, "deadline") else {
        return None;
    };
    let submitted = submitted_at?;
    match *deadline {
        Deadline::After(span) => Some(Unix(
            submitted
                .0
                .saturating_add(i64::try_from(span.0).unwrap_or(i64::MAX)),
        )),
        Deadline::At(at) if at <= submitted => {
            let what = format!("`deadline`: {written} is over already");
            sink.add(
                layers.get("deadline").0,
                what,
                "write a later instant, or a duration",
            );
            Some(at)
        }
        Deadline::At(at) => Some(at),
    }
}

fn when(layers: &Layers<'_>) -> Option<When> {
    match value(layers, "when") {
        Value::When(text, holds) => Some(When {
            text: text.clone(),
            holds: holds.unwrap_or(true),
        }),
        _ => None,
    }
}

fn placement(layers: &Layers<'_>, sink: &mut Sink) -> Placement {
    let placement = Placement {
        node: text(layers, "node"),
        labels: pairs(layers, "labels"),
        site: text(layers, "site"),
        spread: text(layers, "spread"),
        // filled in when all tasks are known
        affinity: Vec::new(),
        anti_affinity: Vec::new(),
        tolerations: tolerations(layers, sink),
    };
    if let (Some(site), Some(label)) = (&placement.site, layers.pairs("labels").get("site"))
        && !label.open
        && label.text != *site
    {
        let what = format!("`site` is {site}, but the label site is {}", label.text);
        sink.add(label.at, what, "no node has both; keep one of the two");
    }
    placement
}

fn tolerations(layers: &Layers<'_>, sink: &mut Sink) -> Vec<String> {
    let Value::Texts(words) = value(layers, "tolerations") else {
        return Vec::new();
    };
    let good = |text: &str| {
        let (key, value) = text.split_once('=').unwrap_or((text, "v"));
        text == "*" || taint::is_key(key) && taint::is_key(value)
    };
    for word in words.iter().filter(|word| !word.open && !good(&word.text)) {
        let what = format!("`tolerations`: '{}' is no toleration", brief(&word.text));
        let mend = "write KEY, KEY=VALUE or '*'; the effect of the taint does not stand there";
        sink.add(word.at, what, mend);
    }
    words.iter().map(|word| word.text.clone()).collect()
}

fn check_disconnect(task: &Task, layers: &Layers<'_>, sink: &mut Sink) {
    let disconnect = layers.inside("disconnect");
    let (at, replace) = disconnect.get("replace");
    if replace != &Value::Switch(true) {
        return;
    }
    let at = if disconnect.given("replace").is_some() {
        at
    } else {
        layers.at()
    };
    if task.side_effects == SideEffects::AtMostOnce {
        let what = format!(
            "task '{}': `replace: true` cannot be kept with `side_effects: at_most_once`",
            task.id
        );
        let mend = "a replaced task may run twice: set `replace: false` or other `side_effects`";
        sink.add(at, what, mend);
    }
    if disconnect.get("lost_after").1 == &Value::Unset {
        let what = format!("task '{}': `replace: true` needs `lost_after`", task.id);
        sink.add(
            at,
            what,
            "say after which silence it is replaced: `lost_after: 1h`",
        );
    }
}
