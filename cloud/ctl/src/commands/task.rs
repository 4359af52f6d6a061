//! `driftless task`.

use super::list::List;
use super::logs;
use crate::args::Global;
use crate::client::{Client, escape};
use crate::exit::{Code, Failure, written};
use crate::output::{Output, or_dash};
use crate::table::{Cell, Table};
use crate::text::{Style, ago, bytes, now, safe, took};
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, ValueEnum};
use cloud_core::view::{Answer, Attempt, Decision, Explain, OutputFile, Task};
use shared::state::TaskState;
use shared::time::Span;
use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// List the tasks of a run, in the order of the specification.
    List {
        /// The run's id, or the beginning of it
        run: String,
        /// Only those in this state
        #[arg(long, value_name = "STATE", value_parser = task_states())]
        state: Option<String>,
    },
    /// Show a task with its attempts and outputs.
    Get(TaskName),
    /// Show why a task runs where it runs, or why it does not run yet.
    Explain(TaskName),
    /// Show all that is known of a task's attempts, over all epochs and nodes: moves, retries,
    /// answers, and what was recorded and does not count.
    History(TaskName),
    /// Print what a task wrote, as kept on its gateway.
    #[command(after_help = "\
Examples:
  driftless task logs 4f1c train
  driftless task logs 4f1c train --follow            until it is over, also behind retries and moves
  driftless task logs 4f1c train --stream stderr --json

Nothing is lost or repeated when the link is cut while it follows: it says that the gateway is offline and
how old what is shown is, and goes on where it stopped.")]
    Logs {
        #[command(flatten)]
        name: TaskName,
        /// Which of its streams
        #[arg(long, value_enum, default_value_t = Stream::Stdout)]
        stream: Stream,
        /// Which of its attempts; the last one without it
        #[arg(long, value_name = "N")]
        attempt: Option<u32>,
        /// Go on with what it writes until it is over, also in its next attempts
        #[arg(long, short)]
        follow: bool,
    },
    /// Get one of a task's outputs.
    Output {
        #[command(flatten)]
        name: TaskName,
        /// The output's name or path; may be left out when there is only one
        output: Option<String>,
        /// Write it to this file and not to standard output
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

/// Names a task of a run.
#[derive(Args, Debug)]
pub(crate) struct TaskName {
    /// The run's id, or the beginning of it
    pub(crate) run: String,
    /// The task's id in the specification
    pub(crate) task: String,
}

fn task_states() -> PossibleValuesParser {
    PossibleValuesParser::new(TaskState::ALL.iter().map(|state| state.text()))
}

/// One of a process's two streams.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output
    Stdout,
    /// Standard error
    Stderr,
}

impl Stream {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

pub(super) fn run(command: Command, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let client = Client::new(global)?;
    match command {
        Command::List { run, state } => list(&client, &run, state.as_deref(), out)?,
        Command::Get(name) => {
            let task = client.get(&path(&name))?;
            if out.json {
                out.object(&task)?
            } else {
                show(&task, out)?
            }
        }
        Command::Explain(name) => {
            let explain: Explain = client.get(&format!("{}/explain", path(&name)))?;
            if out.json {
                out.object(&explain)?
            } else {
                show_explain(&explain, out)?
            }
        }
        Command::History(name) => super::history::show(&client, &name, out)?,
        Command::Logs {
            name,
            stream,
            attempt,
            follow,
        } => logs::task(&client, &name, stream, attempt, follow, out)?,
        Command::Output { name, output, to } => {
            output_file(&client, &name, output.as_deref(), to.as_deref(), out)?;
        }
    }
    Ok(Code::Done)
}

pub(super) fn path(name: &TaskName) -> String {
    format!("/runs/{}/tasks/{}", escape(&name.run), escape(&name.task))
}

fn list(client: &Client, run: &str, state: Option<&str>, out: &mut Output) -> Result<(), Failure> {
    let state = state.map_or_else(String::new, |state| format!("?state={}", escape(state)));
    let path = format!("/runs/{}/tasks{state}", escape(run));
    let header = [
        "TASK", "STATE", "NODE", "ATTEMPTS", "SINCE", "WHY", "OUTPUTS",
    ];
    let (path, none) = (&path, "no such tasks");
    let list = List { path, header, none };
    list.print(client, out, row).map(drop)
}

/// The state with what the coordinator lays over it.
fn state(task: &Task) -> Cell {
    match &task.overlay {
        Some(overlay) => Cell::styled(format!("{} ({overlay})", task.state), Style::Odd),
        None => Cell::state(&task.state),
    }
}

fn row(task: &Task) -> [Cell; 7] {
    let outputs: Vec<&str> = task
        .outputs
        .iter()
        .map(|output| output.name.as_str())
        .collect();
    [
        (&task.task).into(),
        state(task),
        or_dash(task.node.as_deref()).into(),
        Cell::number(task.attempts),
        task.since
            .map_or_else(|| "-".to_owned(), |at| ago(at, now()))
            .into(),
        or_dash(task.reason.as_deref()).into(),
        if outputs.is_empty() {
            "-".into()
        } else {
            outputs.join(", ").into()
        },
    ]
}

fn show(task: &Task, out: &mut Output) -> Result<(), Failure> {
    let mut lines = vec![
        ("task", Cell::from(&task.task)),
        ("run", task.run.to_string().into()),
        ("state", state(task)),
        ("node", or_dash(task.node.as_deref()).into()),
        ("attempts", task.attempts.to_string().into()),
    ];
    if !task.description.is_empty() {
        lines.insert(1, ("description", (&task.description).into()));
    }
    if let Some(reason) = &task.reason {
        lines.push(("why", reason.into()));
    }
    if let Some(since) = task.since {
        lines.push(("since", format!("{since} ({})", ago(since, now())).into()));
    }
    if let Some(question) = &task.question {
        lines.push(("asks", (&question.prompt).into()));
        for field in &question.input {
            let default = match &field.default {
                Some(text) => format!("{text} if left out"),
                None => "must be filled in".to_owned(),
            };
            let text = format!("{}: {}, {default}", field.name, field.kind);
            lines.push(("input", text.into()));
        }
        if let Some(deadline) = question.deadline {
            let then = match question.default {
                Some(true) => "then yes",
                Some(false) => "then no",
                None => "then it fails",
            };
            lines.push(("until", format!("{deadline}, {then}").into()));
        }
    }
    out.facts(&lines)?;
    if !task.answers.is_empty() {
        out.heading("ANSWERS")?;
        show_answers(&task.answers, out)?;
    }
    if !task.history.is_empty() {
        out.heading("ATTEMPTS")?;
        show_attempts(&task.history, out)?;
    }
    if !task.outputs.is_empty() {
        out.heading("OUTPUTS")?;
        let mut table = Table::new(["NAME", "PATH", "SIZE", "HASH"], out.colour);
        for file in &task.outputs {
            let size = Cell::number(bytes(file.size));
            let cells = [
                (&file.name).into(),
                (&file.path).into(),
                size,
                (&file.hash).into(),
            ];
            out.row(&mut table, cells)?;
        }
        out.finish(table)?;
    }
    Ok(())
}

fn show_answers(answers: &[Answer], out: &mut Output) -> Result<(), Failure> {
    let header = ["ANSWER", "BY", "AT", "VIA", "NODE", "COUNTS", "INPUT"];
    let mut table = Table::new(header, out.colour);
    for answer in answers {
        let counts = match (answer.counts, &answer.reason) {
            (Some(true), _) => Cell::styled("yes", Style::Bold),
            (Some(false), Some(why)) => Cell::styled(format!("no: {why}"), Style::Odd),
            (Some(false), None) => "no".into(),
            (None, _) => Cell::styled("on its way", Style::Odd),
        };
        let cells = [
            if answer.yes { "yes" } else { "no" }.into(),
            or_dash(Some(answer.by.as_str()).filter(|by| !by.is_empty())).into(),
            answer.at.to_string().into(),
            (&answer.via).into(),
            or_dash(answer.node.as_deref()).into(),
            counts,
            super::node::pairs(&answer.input).into(),
        ];
        out.row(&mut table, cells)?;
    }
    out.finish(table)
}

fn show_attempts(history: &[Attempt], out: &mut Output) -> Result<(), Failure> {
    let header = ["ATTEMPT", "NODE", "OUTCOME", "EXIT", "BEGAN", "TOOK", "WHY"];
    let mut table = Table::new(header, out.colour);
    let moved = history
        .iter()
        .any(|attempt| attempt.epoch != history[0].epoch);
    for attempt in history {
        let took = attempt.began.zip(attempt.ended).map(|(began, ended)| {
            took(Span(ended.0.saturating_sub(began.0).max(0).unsigned_abs()))
        });
        let why = match &attempt.not_applied {
            Some(why) => Cell::styled(format!("does not count: {why}"), Style::Odd),
            None => or_dash(attempt.reason.as_deref()).into(),
        };
        let cells = [
            Cell::number(numbered(attempt, moved)),
            (&attempt.node).into(),
            Cell::state(&attempt.outcome),
            Cell::number(
                attempt
                    .exit
                    .map_or_else(|| "-".to_owned(), |code| code.to_string()),
            ),
            attempt
                .began
                .map_or_else(|| "-".to_owned(), |at| at.to_string())
                .into(),
            Cell::number(took.unwrap_or_else(|| "-".to_owned())),
            why,
        ];
        out.row(&mut table, cells)?;
    }
    out.finish(table)
}

/// The attempt's number, with the epoch where there are several.
fn numbered(attempt: &Attempt, moved: bool) -> String {
    let Attempt { epoch, number, .. } = attempt;
    if moved {
        format!("{epoch}.{number}")
    } else {
        number.to_string()
    }
}

fn show_explain(explain: &Explain, out: &mut Output) -> Result<(), Failure> {
    out.line(&safe(&explain.summary))?;
    if explain.decisions.is_empty() {
        return Ok(());
    }
    out.heading("DECISIONS")?;
    let header = ["AT", "ACTION", "REASON", "TIMES", "EVIDENCE"];
    let mut table = Table::new(header, out.colour);
    for decision in &explain.decisions {
        out.row(&mut table, decision_row(decision))?;
    }
    out.finish(table)
}

fn decision_row(decision: &Decision) -> [Cell; 5] {
    let mut evidence = decision.evidence.join("  ");
    if decision.confidence < 1.0 {
        evidence = format!("confidence {:.2}  {evidence}", decision.confidence);
    }
    [
        decision.at.to_string().into(),
        (&decision.action).into(),
        Cell::styled(&decision.reason, Style::Bold),
        Cell::number(u64::from(decision.repeats) + 1),
        evidence.into(),
    ]
}

/// Copies bytes to the standard output; a broken source and a broken sink are told apart.
fn copy(from: &mut dyn io::Read, out: &mut Output) -> Result<(), Failure> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n = from.read(&mut buffer).map_err(|error| {
            Failure::new(
                Code::Failed,
                format!("the coordinator's answer broke off: {error}"),
            )
        })?;
        if n == 0 {
            return Ok(());
        }
        written(out.raw().write_all(&buffer[..n]))?;
    }
}

fn output_file(
    client: &Client,
    name: &TaskName,
    output: Option<&str>,
    to: Option<&Path>,
    out: &mut Output,
) -> Result<(), Failure> {
    let task: Task = client.get(&path(name))?;
    let file = choose(&task, output)?;
    let mut answer = client
        .open(&format!("/files/{}", file.hash))
        .map_err(|failure| {
            if failure.code != Code::NotFound {
                return failure;
            }
            let node = task.node.as_deref().unwrap_or("its node");
            let what = format!(
                "{} has not arrived here: it is on {}",
                file.name,
                safe(node)
            );
            Failure::new(Code::NotFound, what)
                .hint("files that no other node needs stay where they were written")
        })?;
    let mut body = answer.body_mut().as_reader();
    let Some(to) = to else {
        copy(&mut body, out)?;
        return out.flush();
    };
    let failed = |error: io::Error| {
        Failure::new(
            Code::Failed,
            format!("cannot write {}: {error}", to.display()),
        )
    };
    let mut target = File::create(to).map_err(failed)?;
    io::copy(&mut body, &mut target).map_err(failed)?;
    target.sync_all().map_err(failed)?;
    out.say(&format!("{} written to {}", bytes(file.size), to.display()));
    Ok(())
}

fn choose<'t>(task: &'t Task, output: Option<&str>) -> Result<&'t OutputFile, Failure> {
    let names = || {
        let names: Vec<String> = task.outputs.iter().map(|file| safe(&file.name)).collect();
        format!("it has: {}", names.join(", "))
    };
    match (output, task.outputs.as_slice()) {
        (_, []) => {
            let what = format!(
                "task {} has no outputs: it is {}",
                safe(&task.task),
                task.state
            );
            Err(Failure::new(Code::NotFound, what))
        }
        (None, [only]) => Ok(only),
        (None, _) => {
            let what = format!("task {} has several outputs", safe(&task.task));
            Err(Failure::new(Code::Usage, what).hint(names()))
        }
        (Some(wanted), all) => all
            .iter()
            .find(|file| file.name == wanted || file.path == wanted)
            .ok_or_else(|| {
                let what = format!("task {} has no output {wanted}", safe(&task.task));
                Failure::new(Code::NotFound, what).hint(names())
            }),
    }
}
