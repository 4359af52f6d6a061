//! The way from a tree of YAML to a compiled workflow, for all purposes: reading (nothing is known
//! of a submission), linting (what is known is used), submitting (everything must be known).

use super::build;
use super::decode::Decoder;
use super::link::{self, SentFiles};
use super::matrix;
use super::mistake::{Pos, Sink, brief, did_you_mean};
use super::schema::{self, Kind};
use super::template::{Known, Scope, Type, Values};
use super::value::{self, Block, Layers, Named, Value};
use super::yaml::{self, Node};
use crate::limits::{TASKS, WORKFLOW_BYTES};
use crate::time::Unix;
use crate::workflow::{FORMAT, Matrix, Task, Workflow};
use crate::{codec, graph};
use std::collections::BTreeMap;

/// A declared parameter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Param {
    /// As in `${params.name}`.
    pub name: String,
    /// Its type.
    pub kind: Type,
    /// What counts when none is given; required if absent.
    pub default: Option<String>,
}

/// What is known of a submission.
#[derive(Clone, Copy, Default)]
pub(crate) struct Given<'a> {
    /// Values of parameters; none at all if absent, not even defaults.
    pub(crate) params: Option<&'a BTreeMap<String, String>>,
    /// Whether a parameter without a value is a mistake.
    pub(crate) complete: bool,
    pub(crate) sent: Option<&'a SentFiles>,
    pub(crate) submitted_at: Option<Unix>,
}

/// What a file says.
pub(crate) struct Assembled {
    pub(crate) block: Block,
    pub(crate) params: Vec<Param>,
    pub(crate) workflow: Workflow,
}

/// What stands in the tree, before it is compiled. The tree is not needed any more.
pub(crate) struct Decoded {
    block: Block,
    params: Vec<Param>,
    values: Values,
}

/// Reads the tree.
pub(crate) fn decode(root: &Node, given: Given<'_>, sink: &mut Sink) -> Decoded {
    let declared = declared(root, sink);
    let values = values(&declared, given, sink);
    let scope = Scope {
        params: &values,
        matrix: None,
    };
    let mut decoder = Decoder::new(scope, sink);
    let block = decoder.block(schema::WORKFLOW, root, "the workflow");
    let params = declared.into_iter().map(|declared| declared.param);
    Decoded {
        block,
        params: params.collect(),
        values,
    }
}

/// Compiles what was read. The workflow means something only if no mistake was noted and all
/// parameters had values.
pub(crate) fn assemble(decoded: Decoded, given: Given<'_>, sink: &mut Sink) -> Assembled {
    let Decoded {
        block,
        params,
        values,
    } = decoded;
    let (tasks, matrices) = tasks(&block, given, sink);
    let schedule = super::schedule::schedule(&block, sink);
    let text = |name| match block.get(name) {
        Some((_, Value::Text(text) | Value::Open(text))) => text.clone(),
        _ => String::new(),
    };
    let workflow = Workflow {
        format: FORMAT,
        name: text("name"),
        description: text("description"),
        labels: labels(&block),
        params: values
            .into_iter()
            .map(|(n, known)| (n, known.value.unwrap_or_default()))
            .collect(),
        tasks,
        matrices,
        schedule,
    };
    Assembled {
        block,
        params,
        workflow,
    }
}

fn labels(block: &Block) -> BTreeMap<String, String> {
    let pairs = Layers([Some(block), None, None]).pairs("labels");
    pairs
        .into_iter()
        .map(|(key, word)| (key.to_owned(), word.text.clone()))
        .collect()
}

/// The layer of `defaults`.
pub(crate) fn defaults(block: &Block) -> Option<&Block> {
    match block.get("defaults") {
        Some((_, Value::Block(defaults))) => Some(defaults),
        _ => None,
    }
}

fn tasks(block: &Block, given: Given<'_>, sink: &mut Sink) -> (Vec<Task>, Vec<Matrix>) {
    let named = block.each("tasks");
    let at = block.get("tasks").map_or(block.at, |(at, _)| at);
    if named.is_empty() {
        if matches!(block.get("tasks"), Some((_, Value::Each(_)))) {
            sink.add(at, "`tasks` is empty", "a workflow needs at least one task");
        }
        return (Vec::new(), Vec::new());
    }
    let builtin = value::builtin(schema::TASK);
    let count = named.iter().map(|task| task.members.len().max(1)).sum();
    if !fits(count, defaults(block), &builtin) {
        let what = format!("{count} tasks with these defaults are too large");
        sink.add(
            at,
            what,
            "split the workflow, or take large values out of `defaults`",
        );
        return (Vec::new(), Vec::new());
    }
    let mut matrices = Vec::new();
    let parts = matrix::parts(named, &mut matrices, sink);
    let mut tasks: Vec<Task> = parts
        .iter()
        .map(|part| {
            let layers = Layers([Some(&part.named.block), defaults(block), Some(&builtin)]);
            let (id, at) = (&part.named.name, part.named.at);
            let mut task = build::task(id, at, &layers, given.submitted_at, sink);
            task.matrix = part.matrix;
            task
        })
        .collect();
    link::link(&parts, defaults(block), &mut tasks, given.sent, sink);
    if sink.count() == 0 {
        let merge = match block.get("merge_leaves") {
            Some((_, Value::Int(most))) => usize::try_from(*most).unwrap_or(1),
            _ => 1,
        };
        let limited: Vec<bool> = matrices
            .iter()
            .map(|matrix| matrix.max_parallel.is_some())
            .collect();
        graph::arrange(&mut tasks, merge, &limited);
    }
    (tasks, matrices)
}

/// Whether a workflow of this many tasks stays within its bounds; `defaults` are copied into each
/// task.
fn fits(count: usize, defaults: Option<&Block>, builtin: &Block) -> bool {
    let layers = Layers([None, defaults, Some(builtin)]);
    let task = build::task("", Pos::START, &layers, None, &mut Sink::default());
    let copied = codec::encode(&task).len().saturating_mul(count);
    count <= TASKS && copied <= WORKFLOW_BYTES / 2
}

/// A declaration and its place.
pub(super) struct Declared {
    at: Pos,
    pub(super) param: Param,
    /// It has a mistake, so nothing is said about its value.
    broken: bool,
}

/// The declarations under `params`, which are needed before anything else is read.
fn declared(root: &Node, sink: &mut Sink) -> Vec<Declared> {
    let yaml::Kind::Map(entries) = &root.kind else {
        return Vec::new();
    };
    let Some(entry) = entries.iter().find(|entry| &*entry.key == "params") else {
        return Vec::new();
    };
    // Only `params` is read here; what is wrong with its form is noted when the whole file is read.
    let mut quiet = Sink::default();
    let none = Values::new();
    let scope = Scope {
        params: &none,
        matrix: None,
    };
    let mut decoder = Decoder::new(scope, &mut quiet);
    let holder = Node {
        at: root.at,
        kind: yaml::Kind::Map(vec![entry.clone()]),
    };
    let block = decoder.block(ONLY_PARAMS, &holder, "");
    block
        .each("params")
        .iter()
        .map(|named| declaration(named, sink))
        .collect()
}

const ONLY_PARAMS: &[schema::Field] = &[schema::Field {
    name: "params",
    kind: Kind::Each(schema::PARAM),
    default: "{}",
}];

pub(super) fn declaration(named: &Named, sink: &mut Sink) -> Declared {
    let before = sink.count();
    let Named {
        name, block, at, ..
    } = named;
    if name.contains('.') || name.contains('-') {
        let what = format!("'{name}' is no name of a parameter");
        sink.add(*at, what, "use letters, digits and '_'");
    }
    let kind = match block.get("type") {
        Some((_, Value::Word(word))) => Type::named(word),
        _ => Type::String,
    };
    let mut default = None;
    if let Some((at, Value::Text(text))) = block.get("default") {
        match kind.check(text) {
            Ok(text) => default = Some(text),
            Err((what, mend)) => sink.add(at, format!("parameter '{name}': {what}"), mend),
        }
    }
    let has_default = matches!(
        block.get("default"),
        Some((_, Value::Text(_) | Value::Open(_)))
    );
    match block.get("required") {
        Some((at, Value::Switch(true))) if has_default => {
            let what = format!("parameter '{name}' is required and has a default");
            sink.add(at, what, "keep one of the two");
        }
        Some((at, Value::Switch(false))) if !has_default => {
            let what = format!("parameter '{name}' is not required and has no default");
            sink.add(at, what, "give it a default");
        }
        _ => {}
    }
    let open = block
        .values
        .iter()
        .any(|(.., value)| matches!(value, Value::Open(_)));
    let broken = open || sink.count() > before;
    Declared {
        at: *at,
        param: Param {
            name: name.clone(),
            kind,
            default,
        },
        broken,
    }
}

fn values(declared: &[Declared], given: Given<'_>, sink: &mut Sink) -> Values {
    let mut values = Values::new();
    let params = given.params;
    for Declared { at, param, broken } in declared {
        let (name, kind) = (&param.name, param.kind);
        let mut value = params.and_then(|_| param.default.clone());
        if let Some(text) = params.and_then(|params| params.get(name)) {
            match kind.check(text) {
                Ok(text) => value = Some(text),
                Err((what, mend)) => {
                    sink.add(
                        *at,
                        format!("the value given for parameter '{name}': {what}"),
                        mend,
                    );
                }
            }
        } else if value.is_none() && given.complete && !broken {
            let mend = format!("give it: --param {name}=VALUE");
            sink.add(*at, format!("parameter '{name}' is required"), mend);
        }
        values.insert(name.clone(), Known { kind, value });
    }
    for name in params.into_iter().flat_map(BTreeMap::keys) {
        if !values.contains_key(name) {
            let known: Vec<&str> = values.keys().map(String::as_str).collect();
            let otherwise = match known.len() {
                0 => "the workflow declares no parameters".to_owned(),
                _ => format!("parameters: {}", known.join(", ")),
            };
            let mend = did_you_mean(name, known, &otherwise);
            sink.add(
                Pos::START,
                format!("there is no parameter '{}' to give", brief(name)),
                mend,
            );
        }
    }
    values
}
