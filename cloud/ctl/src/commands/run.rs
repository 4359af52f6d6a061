//! `driftless run`.

use super::list::List;
use super::logs;
use super::node::{as_of, pairs};
use super::who;
use crate::args::Global;
use crate::client::{Client, escape};
use crate::exit::{Code, Failure};
use crate::output::{Output, short};
use crate::progress::{self, Show, code_of, counts, done_of};
use crate::table::Cell;
use crate::text::{Style, ago, now, took};
use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use cloud::api::types::{Ask, Forgetting, NewRetry};
use cloud_core::view::Run;
use shared::state::RunState;
use shared::time::Span;

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// List the runs, newest first.
    List {
        /// Only those in this state
        #[arg(long, value_name = "STATE", value_parser = run_states())]
        state: Option<String>,
        /// At most so many; 0 for all
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
    },
    /// Show one run.
    Get {
        /// The run's id, or the beginning of it
        run: String,
    },
    /// Show how a run goes until it is over (Ctrl-C stops watching, not the run).
    Watch {
        /// The run's id, or the beginning of it
        run: String,
    },
    /// Wait until a run is over; the exit code says how: 0 succeeded, 1 not, 7 not over in time.
    Wait {
        /// The run's id, or the beginning of it
        run: String,
        /// Give up waiting (not the run) after this time
        #[arg(long, value_name = "DURATION", value_parser = crate::text::parse_span)]
        timeout: Option<Span>,
    },
    /// Ask for a run's end. Nodes that cannot be reached follow when they are heard again.
    Cancel {
        /// The run's id, or the beginning of it
        run: String,
        /// Why; shown with the run
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Ask that nothing more of a run begins; what runs goes on to its end.
    Pause {
        /// The run's id, or the beginning of it
        run: String,
    },
    /// Let a paused run go on.
    Resume {
        /// The run's id, or the beginning of it
        run: String,
    },
    /// Let what failed run again, or a task and all behind it; what else succeeded stays.
    #[command(after_help = RETRY_EXAMPLES)]
    Retry {
        /// The run's id, or the beginning of it
        run: String,
        /// What failed, was cancelled or is lost, and what fell with it (the default)
        #[arg(long, conflicts_with = "from")]
        failed: bool,
        /// This task, whatever its end, and all behind it
        #[arg(long, value_name = "TASK")]
        from: Option<String>,
    },
    /// Print what the tasks of a run wrote, as kept on their gateways; `|` stands before standard
    /// output, `!` before standard error.
    #[command(after_help = "\
Examples:
  driftless run logs 4f1c
  driftless run logs 4f1c --follow             until the run is over
  driftless run logs 4f1c train --follow       one task, as `task logs` does

It goes on where it stopped when a link was cut.")]
    Logs {
        /// The run's id, or the beginning of it
        run: String,
        /// Only this task
        task: Option<String>,
        /// Go on with what they write until the run is over
        #[arg(long, short)]
        follow: bool,
    },
    /// Forget a run that is over, now: first its nodes do, then the coordinator.
    Forget {
        /// The run's id, or the beginning of it
        run: String,
    },
}

const RETRY_EXAMPLES: &str = "\
Examples:
  driftless run retry 4f1c                    what failed, was cancelled or is lost
  driftless run retry 4f1c --from train       train and all behind it, also what succeeded

The nodes give up the parts concerned first, and only then does the work start again, at new epochs: a
node that cannot be reached is waited for, and `run get` shows it. Tasks in doubt (waits list) run again
only when named. Retries count from the beginning.";

fn run_states() -> PossibleValuesParser {
    PossibleValuesParser::new(RunState::ALL.iter().map(|state| state.text()))
}

pub(super) fn run(command: Command, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let client = Client::new(global)?;
    match command {
        Command::List { state, limit } => list(&client, state.as_deref(), limit, out)?,
        Command::Get { run } => {
            let run = get(&client, &run)?;
            if out.json {
                out.object(&run)?
            } else {
                show(&run, out)?
            }
        }
        Command::Watch { run } => {
            let id = get(&client, &run)?.id;
            let run = progress::follow(&client, id, Show::Changes, None, out)?;
            return ended(&run, !out.json, out);
        }
        Command::Wait { run, timeout } => {
            let id = get(&client, &run)?.id;
            let run = progress::follow(&client, id, Show::Progress, timeout, out)?;
            return ended(&run, true, out);
        }
        Command::Cancel { run, reason } => ask(&client, &run, "cancel", reason, out)?,
        Command::Pause { run } => ask(&client, &run, "pause", String::new(), out)?,
        Command::Resume { run } => ask(&client, &run, "resume", String::new(), out)?,
        Command::Retry { run, from, .. } => retry(&client, &run, from, out)?,
        Command::Forget { run } => forget(&client, &run, out)?,
        Command::Logs { run, task, follow } => show_logs(&client, run, task, follow, out)?,
    }
    Ok(Code::Done)
}

fn get(client: &Client, run: &str) -> Result<Run, Failure> {
    client.get(&format!("/runs/{}", escape(run)))
}

/// Says how a run ended, and turns it into the exit code.
pub(super) fn ended(run: &Run, tell: bool, out: &mut Output) -> Result<Code, Failure> {
    if tell && out.json {
        out.object(run)?;
    } else if tell {
        let span = run
            .ended
            .map_or(0, |ended| ended.0.saturating_sub(run.submitted.0).max(0));
        let state = Style::of_state(&run.state).paint(&run.state, out.colour);
        let after = took(Span(span.unsigned_abs()));
        out.line(&format!(
            "{} {state} after {after}: {}",
            short(&run.id),
            counts(run)
        ))?;
    }
    let code = code_of(run);
    if code != Code::Done && !out.json {
        let id = short(&run.id);
        out.say(&format!(
            "  see `driftless task list {id}` and `driftless task explain {id} TASK`"
        ));
    }
    Ok(code)
}

fn retry(
    client: &Client,
    run: &str,
    from: Option<String>,
    out: &mut Output,
) -> Result<(), Failure> {
    let new = NewRetry { by: who(), from };
    let run: Run = client.post(&format!("/runs/{}/retry", escape(run)), &new)?;
    told(&run, out)
}

fn show_logs(
    client: &Client,
    run: String,
    task: Option<String>,
    follow: bool,
    out: &mut Output,
) -> Result<(), Failure> {
    logs::run(client, &run, task.as_deref(), follow, out)
}

fn forget(client: &Client, run: &str, out: &mut Output) -> Result<(), Failure> {
    let ask = Ask {
        by: who(),
        why: String::new(),
    };
    let path = format!("/runs/{}/forget", escape(run));
    let answer: Forgetting = client.post(&path, &ask)?;
    if out.json {
        return out.object(&answer);
    }
    let id = short(&answer.id);
    if answer.forgotten {
        out.say(&format!("run {id} is forgotten"));
    } else {
        out.say(&format!("run {id} will be forgotten"));
    }
    for request in &answer.requests {
        out.say(&format!("  {}", crate::text::safe(request)));
    }
    Ok(())
}

fn ask(
    client: &Client,
    run: &str,
    what: &str,
    why: String,
    out: &mut Output,
) -> Result<(), Failure> {
    let ask = Ask { by: who(), why };
    let run: Run = client.post(&format!("/runs/{}/{what}", escape(run)), &ask)?;
    told(&run, out)
}

/// What became of a request.
fn told(run: &Run, out: &mut Output) -> Result<(), Failure> {
    if out.json {
        return out.object(run);
    }
    out.say(&format!("run {} is {}", short(&run.id), run.state));
    for request in &run.requests {
        out.say(&format!("  {}", crate::text::safe(request)));
    }
    Ok(())
}

fn list(
    client: &Client,
    state: Option<&str>,
    limit: usize,
    out: &mut Output,
) -> Result<(), Failure> {
    let state = state.map_or_else(String::new, |state| format!("&state={}", escape(state)));
    let path = format!("/runs?limit={limit}{state}");
    let header = [
        "RUN",
        "WORKFLOW",
        "STATE",
        "DONE",
        "SUBMITTED",
        "BY",
        "WAITS",
    ];
    let none = "no runs: start one with `driftless submit FILE`";
    let path = &path;
    let shown = List { path, header, none }.print(client, out, row)?;
    if !out.json && limit != 0 && shown == limit {
        out.say(&format!("the newest {limit}; --limit 0 shows all"));
    }
    Ok(())
}

fn row(run: &Run) -> [Cell; 7] {
    let (done, all) = done_of(run);
    let waits = run.waits.len();
    let waits_style = if waits > 0 { Style::Odd } else { Style::Dim };
    let waits = if waits > 0 {
        waits.to_string()
    } else {
        "-".to_owned()
    };
    [
        short(&run.id).into(),
        (&run.workflow).into(),
        Cell::state(&run.state),
        Cell::number(format!("{done}/{all}")),
        ago(run.submitted, now()).into(),
        (&run.by).into(),
        Cell::styled(waits, waits_style),
    ]
}

fn show(run: &Run, out: &mut Output) -> Result<(), Failure> {
    let mut lines = vec![
        ("run", Cell::from(run.id.to_string())),
        ("workflow", (&run.workflow).into()),
        ("state", Cell::state(&run.state)),
        ("tasks", counts(run).into()),
        ("labels", pairs(&run.labels).into()),
        ("params", pairs(&run.params).into()),
        (
            "submitted",
            format!("{} by {}", run.submitted, run.by).into(),
        ),
    ];
    if !run.description.is_empty() {
        lines.insert(2, ("description", (&run.description).into()));
    }
    if let Some(ended) = run.ended {
        let span = Span(
            ended
                .0
                .saturating_sub(run.submitted.0)
                .max(0)
                .unsigned_abs(),
        );
        lines.push(("ended", format!("{ended} after {}", took(span)).into()));
    }
    lines.push(("version", (&run.version).into()));
    for request in &run.requests {
        lines.push(("request", Cell::styled(request, Style::Odd)));
    }
    for wait in &run.waits {
        let text = format!("{} (since {})", wait.what, ago(wait.since, now()));
        lines.push(("waits for", Cell::styled(text, Style::Odd)));
    }
    out.facts(&lines)?;
    if !run.nodes.is_empty() {
        out.heading("NODES")?;
        let nodes: Vec<_> = run
            .nodes
            .iter()
            .map(|(name, view)| (name.as_str(), as_of(view).into()))
            .collect();
        out.facts(&nodes)?;
    }
    Ok(())
}
