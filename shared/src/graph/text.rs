//! Drawings made of text: a table for terminals, Graphviz, Mermaid.

use super::Picture;
use crate::ids::TaskIdx;
use crate::workflow::{Action, Task};
use std::fmt::Write as _;

/// Names of needs shown in a row of the table.
const NEEDS_SHOWN: usize = 4;
/// Characters of a command shown in a row of the table.
const COMMAND_SHOWN: usize = 48;

/// A table: one row a task, by level, tasks of the critical path marked.
pub(super) fn table(picture: &Picture<'_>) -> String {
    let tasks = &picture.workflow.tasks;
    let levels = picture.levels();
    let edges: usize = tasks.iter().map(|task| task.needs.len()).sum();
    let widest = levels.iter().map(Vec::len).max().unwrap_or(0);
    let name_width = tasks
        .iter()
        .map(|t| t.id.chars().count())
        .max()
        .unwrap_or(0)
        .min(40);
    let after: Vec<String> = picture
        .indices()
        .map(|index| needs_text(picture, index))
        .collect();
    let after_width = after
        .iter()
        .map(|a| a.chars().count())
        .max()
        .unwrap_or(0)
        .clamp(5, 60);
    let mut out = format!(
        "{}: {}, {}, {}, at most {widest} at a time\n",
        picture.workflow.name,
        count(tasks.len(), "task"),
        count(edges, "edge"),
        count(levels.len(), "level"),
    );
    let path: Vec<&str> = picture
        .critical
        .iter()
        .map(|t| picture.task(*t).id.as_str())
        .collect();
    let _ = writeln!(
        out,
        "critical path (●), {}: {}",
        count(path.len(), "task"),
        chain(&path)
    );
    let _ = writeln!(
        out,
        "\nlevel   {:name_width$}  {:after_width$}  runs",
        "task", "after"
    );
    for (number, level) in levels.iter().enumerate() {
        for (row, index) in level.iter().enumerate() {
            let task = picture.task(*index);
            let number = if row == 0 {
                number.to_string()
            } else {
                String::new()
            };
            let mark = if picture.is_critical(*index) {
                '●'
            } else {
                '○'
            };
            let after = &after[index.0 as usize];
            let line = format!(
                "{number:>5} {mark} {:name_width$}  {after:after_width$}  {}",
                task.id,
                runs(task)
            );
            let _ = writeln!(out, "{}", line.trim_end());
        }
    }
    out
}

fn count(n: usize, word: &str) -> String {
    format!("{n} {word}{}", if n == 1 { "" } else { "s" })
}

/// The names with arrows; the middle of a long chain is left out.
fn chain(names: &[&str]) -> String {
    if names.len() <= 12 {
        return names.join(" → ");
    }
    let (head, tail) = (names[..6].join(" → "), names[names.len() - 5..].join(" → "));
    format!("{head} → … {} more … → {tail}", names.len() - 11)
}

fn needs_text(picture: &Picture<'_>, index: TaskIdx) -> String {
    let needs = &picture.task(index).needs;
    let shown: Vec<&str> = needs
        .iter()
        .take(NEEDS_SHOWN)
        .map(|need| picture.task(*need).id.as_str())
        .collect();
    match needs.len().saturating_sub(NEEDS_SHOWN) {
        0 if shown.is_empty() => "–".to_owned(),
        0 => shown.join(", "),
        more => format!("{}, +{more}", shown.join(", ")),
    }
}

/// What a task executes and what is special about it, short.
pub(super) fn runs(task: &Task) -> String {
    let command = match &task.action {
        Action::Argv(argv) => argv.join(" "),
        Action::Shell(text) => format!("sh: {text}"),
        Action::Approval(approval) => format!("asks: {}", approval.prompt),
    };
    let one_line: String = command.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut short: String = one_line.chars().take(COMMAND_SHOWN).collect();
    if short.len() < one_line.len() {
        short.push('…');
    }
    if let Some(batch) = task.batch {
        let _ = write!(short, "  [batch {batch}]");
    }
    if let Some(when) = task.when.as_ref().filter(|when| !when.holds) {
        let _ = write!(short, "  [skipped: {}]", when.text);
    }
    short
}

/// For Graphviz. Nodes have numbers as names, so no id can break the syntax.
pub(super) fn dot(picture: &Picture<'_>) -> String {
    let mut out = format!("digraph {} {{\n", quoted(&picture.workflow.name));
    out.push_str("  rankdir=LR;\n  node [shape=box, style=\"rounded,filled\", ");
    out.push_str("fillcolor=\"#f4f6f8\", color=\"#8a94a0\", fontname=\"sans-serif\"];\n");
    out.push_str("  edge [color=\"#8a94a0\"];\n");
    for index in picture.indices() {
        let task = picture.task(index);
        let mark = if picture.is_critical(index) {
            ", color=\"#d9480f\", penwidth=2"
        } else {
            ""
        };
        let _ = writeln!(
            out,
            "  t{} [label={}, tooltip={}{mark}];",
            index.0,
            quoted(&task.id),
            quoted(&runs(task))
        );
    }
    for (from, to) in picture.edges() {
        let critical = picture.is_critical_edge(from, to);
        let mark = if critical {
            " [color=\"#d9480f\", penwidth=2]"
        } else {
            ""
        };
        let _ = writeln!(out, "  t{} -> t{}{mark};", from.0, to.0);
    }
    out.push_str("}\n");
    out
}

fn quoted(text: &str) -> String {
    format!(
        "\"{}\"",
        text.replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', " ")
    )
}

/// For Mermaid.
pub(super) fn mermaid(picture: &Picture<'_>) -> String {
    let mut out = "flowchart LR\n".to_owned();
    for index in picture.indices() {
        // Ids are made of letters, digits and `-_.`; nothing needs an escape in quotes.
        let _ = writeln!(out, "  t{}[\"{}\"]", index.0, picture.task(index).id);
    }
    let mut critical = Vec::new();
    for (number, (from, to)) in picture.edges().enumerate() {
        let _ = writeln!(out, "  t{} --> t{}", from.0, to.0);
        if picture.is_critical_edge(from, to) {
            critical.push(number.to_string());
        }
    }
    out.push_str("  classDef critical stroke:#d9480f,stroke-width:3px\n");
    let path: Vec<String> = picture
        .critical
        .iter()
        .map(|t| format!("t{}", t.0))
        .collect();
    if !path.is_empty() {
        let _ = writeln!(out, "  class {} critical", path.join(","));
    }
    if !critical.is_empty() {
        let _ = writeln!(
            out,
            "  linkStyle {} stroke:#d9480f,stroke-width:3px",
            critical.join(",")
        );
    }
    out
}
