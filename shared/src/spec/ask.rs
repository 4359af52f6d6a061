//! A task that asks a person instead of running something: its question, and what cannot go with
//! it.

use super::assemble::declaration;
use super::build;
use super::mistake::Sink;
use super::schema::OF_RUNNING;
use super::value::{Layers, Value};
use crate::approval::{ANSWER_FILE, Approval, Field};
use crate::time::Unix;
use crate::workflow::{Resources, SideEffects, Task};
use std::collections::BTreeMap;

/// The question of a task.
pub(super) fn approval(id: &str, layers: &Layers<'_>, sink: &mut Sink) -> Approval {
    let inner = layers.inside("approval");
    let named = inner.0[0].map_or(&[][..], |block| block.each("input"));
    let input: Vec<Field> = named
        .iter()
        .map(|named| {
            let declared = declaration(named, sink).param;
            Field {
                name: declared.name,
                kind: declared.kind,
                default: declared.default,
            }
        })
        .collect();
    let default = match build::word(&inner, "default") {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    };
    if let (Some((at, _)), Some(_)) = (inner.given("default"), default) {
        if inner.get("deadline").1 == &Value::Unset {
            let what = format!("task '{id}': `default` says what counts when a deadline passes");
            sink.add(at, what, "add `deadline: 2h` beside it, or remove it");
        }
        let open = input.iter().find(|field| field.default.is_none());
        if let (Some(field), Some(true)) = (open, default) {
            let what = format!(
                "task '{id}': nobody fills in '{}' when it is approved by default",
                field.name
            );
            sink.add(at, what, "give the field a default, or write `default: no`");
        }
    }
    Approval {
        prompt: build::text(&inner, "prompt").unwrap_or_default(),
        input,
        default,
    }
}

/// Takes away what only counts for tasks that run something, and refuses where it is written.
pub(super) fn runs_nothing(
    task: &mut Task,
    layers: &Layers<'_>,
    submitted_at: Option<Unix>,
    sink: &mut Sink,
) {
    let own = layers.0[0];
    let written = |name: &str| own.and_then(|block| block.get(name));
    for name in OF_RUNNING {
        let Some((at, value)) = written(name) else {
            continue;
        };
        if value != &Value::Unset {
            let what = format!(
                "task '{}': an approval runs nothing, so it has no `{name}`",
                task.id
            );
            let mend = match *name {
                "deadline" => "write it below `approval`",
                _ => "remove it, or let another task run that needs this one",
            };
            sink.add(at, what, mend);
        }
    }
    let outputs = own.map_or(&[][..], |block| block.files("outputs"));
    for file in outputs.iter().filter(|file| !file.is_open()) {
        let path = file.path.as_ref().or(file.name.as_ref());
        if path.is_some_and(|path| path.text != ANSWER_FILE) {
            let what = format!("task '{}': an approval writes {ANSWER_FILE} only", task.id);
            sink.add(
                file.at,
                what,
                "write `outputs: [{name: …, path: answer.json}]`",
            );
        }
    }
    task.env = BTreeMap::new();
    (task.workdir, task.stdin) = (String::new(), None);
    task.resources = Resources::default();
    task.timeout = None;
    task.deadline = build::deadline(&layers.inside("approval"), submitted_at, sink);
    task.side_effects = SideEffects::None;
}
