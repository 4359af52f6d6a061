//! Tasks written as one: the axes of a matrix, and a member for each combination of their values.
//!
//! Members, their outputs, and the files of whoever reads all of them bear the same suffix,
//! `[axis=value,…]`, so that no two of them can be taken for each other.
//!
//! Invariant: how large a matrix grows is known, and bounded, before its first member is made.

use super::decode::Decoder;
use super::mistake::{Pos, Sink, brief};
use super::schema::Field;
use super::template::{Known, Scope, Type, Values, number};
use super::units::Wrong;
use super::value::{Axis, Block, Named, Value};
use super::yaml::{self, Node};
use crate::limits::{MATRIX_AXES, TASKS, WORKFLOW_BYTES};
use crate::workflow::Matrix;

/// Characters of a member's suffix.
const SUFFIX: usize = 120;

/// What matrices grew to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Grown {
    members: usize,
    bytes: usize,
}

/// A task as it is compiled: one that stands alone, or a member of a matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    pub(crate) named: &'a Named,
    /// The task that it was written as.
    pub(crate) whole: &'a Named,
    /// Position of its matrix.
    pub(crate) matrix: Option<u32>,
}

impl<'a> Part<'a> {
    /// `[axis=value,…]`, or nothing for a task that stands alone.
    pub(crate) fn suffix(&self) -> &'a str {
        &self.named.name[self.whole.name.len()..]
    }
}

/// All tasks, members in the place of their matrix; what is said of matrices goes to `matrices`.
pub(crate) fn parts<'a>(
    named: &'a [Named],
    matrices: &mut Vec<Matrix>,
    sink: &mut Sink,
) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    for whole in named {
        let limits = limits(whole, sink);
        if whole.members.is_empty() {
            parts.push(Part {
                named: whole,
                whole,
                matrix: None,
            });
            continue;
        }
        let matrix = u32::try_from(matrices.len()).ok();
        matrices.push(Matrix {
            id: whole.name.clone(),
            max_parallel: limits[0],
            max_fails: limits[1],
        });
        let member = |named| Part {
            named,
            whole,
            matrix,
        };
        parts.extend(whole.members.iter().map(member));
    }
    parts
}

/// `max_parallel` and `max_fails` of a task.
fn limits(task: &Named, sink: &mut Sink) -> [Option<u32>; 2] {
    ["max_parallel", "max_fails"].map(|name| {
        let (at, value) = task.block.get(name)?;
        let matrix = matches!(task.block.get("matrix"),
            Some((_, Value::Axes(axes))) if !axes.is_empty());
        let open = matches!(task.block.get("matrix"), Some((_, Value::Open(_))));
        if !matrix && !open && *value != Value::Unset {
            let what = format!("`{name}` of task '{}', which has no matrix", task.name);
            sink.add(at, what, "add `matrix: {axis: [a, b]}`, or remove it");
        }
        match value {
            Value::Int(n) => u32::try_from(*n).ok(),
            Value::Open(text) if text.contains("matrix.") => {
                let what = format!("`{name}` depends on the member");
                sink.add(
                    at,
                    what,
                    "it holds for all members together: write a number",
                );
                None
            }
            _ => None,
        }
    })
}

/// What stands under `matrix` of a task.
pub(crate) fn node_of(task: &Node) -> Option<&Node> {
    let yaml::Kind::Map(entries) = &task.kind else {
        return None;
    };
    let entry = entries.iter().find(|entry| &*entry.key == "matrix")?;
    Some(&entry.value)
}

impl Decoder<'_> {
    /// The field `matrix`.
    pub(super) fn axes(&mut self, name: &str, node: &Node) -> Option<Value> {
        let before = self.sink.count();
        let entries = self.map(node, &format!("`{name}`"))?;
        if entries.len() > MATRIX_AXES {
            let what = format!("`{name}` has {} axes", entries.len());
            let mend = format!("write at most {MATRIX_AXES}");
            self.sink.add(node.at, what, mend);
        }
        let mut axes: Vec<Axis> = Vec::new();
        for entry in entries {
            if let Err(wrong) = axis(&entry.key) {
                self.wrong(entry.at, name, wrong);
            }
            let mut values = Vec::new();
            for item in self.list(&entry.key, &entry.value)? {
                let text = self.plain(&entry.key, item)?.to_owned();
                if let Err(wrong) = short(&text) {
                    self.wrong(item.at, &entry.key, wrong);
                }
                values.push((text, item.at));
            }
            if values.is_empty() {
                let what = format!("axis '{}' has no values", brief(&entry.key));
                self.sink
                    .add(entry.at, what, "write at least one, or remove it");
            }
            self.twice(&values);
            let values = values.into_iter().map(|(text, _)| text);
            axes.push(((*entry.key).to_owned(), values.collect()));
        }
        let longest = |(axis, values): &Axis| {
            axis.len() + values.iter().map(String::len).max().unwrap_or(0) + 2
        };
        if axes.iter().map(longest).sum::<usize>() + 1 > SUFFIX {
            let what = format!("names and values of `{name}` are longer than {SUFFIX} characters");
            self.sink.add(node.at, what, "write shorter ones");
        }
        (self.sink.count() == before).then_some(Value::Axes(axes))
    }

    fn twice(&mut self, values: &[(String, Pos)]) {
        let mut sorted: Vec<&(String, Pos)> = values.iter().collect();
        sorted.sort();
        for pair in sorted.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            let what = format!("the value '{}' stands there twice", brief(&pair[1].0));
            self.sink.add(pair[1].1, what, "remove one of them");
        }
    }

    /// A task with a matrix: its block with what depends on the axes left open, and its members.
    pub(super) fn matrix(
        &mut self,
        axes: &Node,
        (table, node): (&'static [Field], &Node),
        owner: &str,
        named: &mut Named,
    ) {
        let mut quiet = Sink::default();
        let read = Decoder::new(self.scope, &mut quiet).axes("matrix", axes);
        let Some(Value::Axes(axes)) = read else {
            // what is wrong with it is said when its field is read
            let any = Values::new();
            named.block = self.within(&any, (table, node), owner);
            return;
        };
        let open: Values = axes
            .iter()
            .map(|axis| (axis.0.clone(), known(axis, None)))
            .collect();
        let before = self.sink.count();
        named.block = self.within(&open, (table, node), owner);
        if axes.is_empty() || self.sink.count() > before || !self.grow(&axes, node, &named.name) {
            return;
        }
        let mut at = vec![0; axes.len()];
        loop {
            let pairs = || axes.iter().zip(&at);
            let scope = pairs().map(|(axis, n)| (axis.0.clone(), known(axis, Some(*n))));
            let words: Vec<String> = pairs()
                .map(|((axis, values), n)| format!("{axis}={}", values[*n]))
                .collect();
            let scope: Values = scope.collect();
            named.members.push(Named {
                at: named.at,
                name: format!("{}[{}]", named.name, words.join(",")),
                block: self.within(&scope, (table, node), owner),
                members: Vec::new(),
            });
            // what is wrong with one is mostly wrong with all
            if self.sink.count() > before || !next(&mut at, &axes) {
                return;
            }
        }
    }

    /// The task's block with these axes.
    fn within(
        &mut self,
        axes: &Values,
        (table, node): (&'static [Field], &Node),
        owner: &str,
    ) -> Block {
        let mut inner = Decoder {
            sink: &mut *self.sink,
            scope: Scope {
                params: self.scope.params,
                matrix: Some(axes),
            },
            filled: self.filled,
            grown: self.grown,
        };
        let block = inner.block(table, node, owner);
        self.filled = inner.filled;
        block
    }

    /// Whether there is room for the members of a matrix; says so if not.
    fn grow(&mut self, axes: &[Axis], node: &Node, name: &str) -> bool {
        let members = axes
            .iter()
            .try_fold(1usize, |n, (_, values)| n.checked_mul(values.len()))
            .unwrap_or(usize::MAX);
        self.grown.members = self.grown.members.saturating_add(members);
        let bytes = weight(node).saturating_mul(members);
        self.grown.bytes = self.grown.bytes.saturating_add(bytes);
        let what = if self.grown.members > TASKS {
            format!("with the matrix of '{name}' the workflow has more than {TASKS} tasks")
        } else if self.grown.bytes > 2 * WORKFLOW_BYTES {
            format!("the {members} members of '{name}' are too large")
        } else {
            return true;
        };
        self.sink
            .add(node.at, what, "write fewer values, or split the workflow");
        false
    }
}

/// A measure of what one member occupies: its texts, and what each value takes.
fn weight(node: &Node) -> usize {
    const EACH: usize = 32;
    let inner: usize = match &node.kind {
        yaml::Kind::Map(entries) => entries
            .iter()
            .filter(|entry| &*entry.key != "matrix")
            .map(|entry| entry.key.len() + weight(&entry.value))
            .sum(),
        yaml::Kind::List(list) => list.iter().map(weight).sum(),
        yaml::Kind::Scalar(text) => text.len(),
        _ => 0,
    };
    inner + EACH
}

/// The next combination; the last axis turns fastest.
fn next(at: &mut [usize], axes: &[Axis]) -> bool {
    for (n, (_, values)) in at.iter_mut().zip(axes).rev() {
        *n += 1;
        if *n < values.len() {
            return true;
        }
        *n = 0;
    }
    false
}

/// An axis as a condition sees it: numbers, if all its values are.
fn known((_, values): &Axis, at: Option<usize>) -> Known {
    let kind = if values.iter().all(|value| number(value).is_some()) {
        Type::Number
    } else {
        Type::String
    };
    Known {
        kind,
        value: at.map(|n| values[n].clone()),
    }
}

fn axis(text: &str) -> Result<(), Wrong> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let first = text.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if first && text.len() <= 64 && text.bytes().all(fine) {
        return Ok(());
    }
    let what = format!("'{}' is no name of an axis", brief(text));
    let mend = "use letters, digits and '_', beginning with a letter";
    Err((what, mend.to_owned()))
}

fn short(text: &str) -> Result<(), Wrong> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'+' | b':');
    if !text.is_empty() && text.len() <= 64 && text.bytes().all(fine) {
        return Ok(());
    }
    let what = format!("'{}' is no value of an axis", brief(text));
    let mend = "it stands in ids: use up to 64 letters, digits, '-', '_', '.', '+' and ':'";
    Err((what, mend.to_owned()))
}
