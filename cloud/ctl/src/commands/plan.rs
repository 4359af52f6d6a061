//! `driftless plan`.

use super::spec::{Given, Source};
use crate::args::Global;
use crate::client::{Client, escape};
use crate::exit::{Code, Failure};
use crate::output::{Output, or_dash};
use crate::table::{Cell, Table};
use clap::Args;
use cloud_core::view;
use shared::codec;
use shared::time::Span;
use std::path::PathBuf;

/// See where the tasks of a workflow would run, why not elsewhere, and its longest path.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  driftless plan flow.yaml
  driftless plan flow.yaml --param month=7 --task clean       why one task would not run elsewhere
  driftless plan flow.yaml --json | jq .slices

It asks the coordinator as things stand now; nothing is written, nothing is sent to nodes. What a task takes
is the median of the last runs of the workflow; where no run tells, the `estimate` of the specification
(marked with ~).
Exit codes: 0 all tasks have a node, 1 some would wait for one")]
pub(crate) struct Plan {
    /// The specification (YAML); - for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) given: Given,
    /// Show for this task why it would not run elsewhere
    #[arg(long, value_name = "TASK")]
    pub(crate) task: Option<String>,
}

pub(super) fn run(args: &Plan, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let source = Source::read(&args.file, &args.given, out)?;
    let (packed, _) = codec::pack(&source.compile(out)?);
    let path = match &args.task {
        Some(task) => format!("/plan?task={}", escape(task)),
        None => "/plan".to_owned(),
    };
    let plan: view::Plan = Client::new(global)?.post_bytes(&path, &[], &packed)?;
    let waits = |task: &&view::PlannedTask| task.node.is_none() && task.why.starts_with("waits");
    let waiting = plan.tasks.iter().filter(waits).count();
    if out.json {
        out.object(&plan)?;
    } else {
        show(&plan, args.task.as_deref(), out)?;
    }
    Ok(match waiting {
        0 => Code::Done,
        _ => Code::Failed,
    })
}

fn show(plan: &view::Plan, one: Option<&str>, out: &mut Output) -> Result<(), Failure> {
    if let Some(id) = one {
        let found = plan.tasks.iter().find(|task| task.task == id);
        let missing = || Failure::new(Code::NotFound, format!("no task '{id}'"));
        let task = found.ok_or_else(missing)?;
        out.facts(&[
            ("task", Cell::from(&task.task)),
            ("node", or_dash(task.node.as_deref()).into()),
            ("why", Cell::from(&task.why)),
        ])?;
        let mut table = Table::new(["ELSEWHERE", "WHY NOT"], out.colour);
        for other in &task.elsewhere {
            out.row(
                &mut table,
                [Cell::from(&other.node), Cell::from(&other.why)],
            )?;
        }
        return out.finish(table);
    }
    let mut table = Table::new(["TASK", "NODE", "TAKES", "WHY"], out.colour);
    for task in &plan.tasks {
        let row = [
            Cell::from(&task.task),
            or_dash(task.node.as_deref()).into(),
            takes(task).into(),
            Cell::from(&task.why),
        ];
        out.row(&mut table, row)?;
    }
    out.finish(table)?;
    out.heading("Slices")?;
    let mut table = Table::new(
        ["NODE", "LINK", "TASKS", "EDGES OUT", "OPEN THERE"],
        out.colour,
    );
    for slice in &plan.slices {
        let row = [
            Cell::from(&slice.node),
            if slice.online { "connected" } else { "away" }.into(),
            Cell::number(slice.tasks),
            Cell::number(slice.edges_out),
            Cell::number(slice.open_there),
        ];
        out.row(&mut table, row)?;
    }
    out.finish(table)?;
    out.heading("Longest path")?;
    let path = &plan.critical_path;
    out.line(&crate::text::safe(&path.tasks.join(" → ")))?;
    out.line(&estimate(path))
}

/// How long a task takes; an estimate is marked.
fn takes(task: &view::PlannedTask) -> String {
    match (task.takes_ms, task.takes_by.as_deref()) {
        (None, _) => "-".to_owned(),
        (Some(ms), Some("estimate")) => format!("~{}", Span(ms)),
        (Some(ms), _) => Span(ms).to_string(),
    }
}

/// What is known of how long the path takes.
fn estimate(path: &view::CriticalPath) -> String {
    let tasks = path.tasks.len();
    let Some(ms) = path.takes_ms else {
        return format!("{tasks} tasks; neither a run nor an estimate tells how long they take");
    };
    let known = tasks as u64 - path.unknown;
    let mut by = Vec::new();
    if path.estimated < known {
        by.push(format!("the last {} runs", path.runs));
    }
    if path.estimated > 0 {
        by.push(format!("the estimates of {}", path.estimated));
    }
    let without = match path.unknown {
        0 => String::new(),
        n => format!(" without {n} of which nothing is known"),
    };
    format!(
        "{tasks} tasks, {} by {}{without}",
        Span(ms),
        by.join(" and ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_the_path_takes_says_how_that_is_known() {
        let path = |takes_ms, unknown, estimated| view::CriticalPath {
            tasks: vec!["a".into(), "b".into(), "c".into()],
            takes_ms,
            unknown,
            estimated,
            runs: 2,
        };
        let said = [
            path(None, 3, 0),
            path(Some(5000), 0, 0),
            path(Some(5000), 0, 1),
            path(Some(5000), 1, 2),
        ]
        .map(|path| estimate(&path));
        let beginnings = [
            "3 tasks; neither",
            "3 tasks, 5s by the last 2 runs",
            "3 tasks, 5s by the last 2 runs and the estimates of 1",
            "3 tasks, 5s by the estimates of 2 without 1 of",
        ];
        for (said, begins) in said.iter().zip(beginnings) {
            assert!(said.starts_with(begins), "{said}");
        }
    }
}
