//! Answers to questions, from committed state.

use crate::control::Answer;
use crate::looping::Ask;
use crate::schedule;
use edge_core::agent::Agent;
use serde_json::json;
use shared::ids::{RunId, TaskIdx};

/// Tasks that are shown in one turn of the loop: there may be a million.
const PAGE: usize = 1000;

/// The one run whose id begins with `text`.
pub(crate) fn find_run(agent: &Agent, text: &str) -> Result<RunId, String> {
    let runs = agent.runs().into_iter().map(|run| run.id);
    let mut found = runs.filter(|id| id.to_string().starts_with(&text.to_ascii_lowercase()));
    match (found.next(), found.next()) {
        (Some(run), None) => Ok(run),
        (None, _) => Err(format!("no run {text} here; `ps --all` lists what is")),
        (Some(_), Some(_)) => Err(format!(
            "{text} is the beginning of several runs; give more of it"
        )),
    }
}

/// The task with this id of that run.
pub(crate) fn find_task(agent: &Agent, run: &str, task: &str) -> Result<(RunId, TaskIdx), String> {
    let run = find_run(agent, run)?;
    match agent.find(run, task) {
        Some(index) => Ok((run, index)),
        None => Err(format!(
            "no task {task} of this run here; `ps --all` lists what is"
        )),
    }
}

/// The answer to `ask`.
pub(crate) fn answer(agent: &Agent, ask: &Ask) -> Answer {
    let value = match ask {
        Ask::Status => serde_json::to_value(agent.status()),
        Ask::Sync => serde_json::to_value(agent.sync_status()),
        Ask::Waits => serde_json::to_value(agent.waits()),
        Ask::Schedules => serde_json::to_value(agent.schedule_views()),
        Ask::Schedule { schedule } => match schedule::find(agent, schedule) {
            Ok(view) => serde_json::to_value(view),
            Err(why) => return Answer::Refused { why },
        },
        Ask::NextSlots { schedule, count } => match schedule::find(agent, schedule) {
            Ok(view) => serde_json::to_value(schedule::next_slots(agent, &view, *count)),
            Err(why) => return Answer::Refused { why },
        },
        Ask::Tasks { all, after } => {
            let found = agent.ps_behind(*all, *after, PAGE);
            let last = found.last().filter(|_| found.len() == PAGE);
            let last = last.map(|(key, _)| (key.slice.0, key.slice.1, key.pos));
            let tasks: Vec<_> = found.iter().map(|(_, task)| task).collect();
            Ok(json!({"tasks": tasks, "last": last}))
        }
        Ask::Explain { run, task } => match find_task(agent, run, task) {
            Ok((run, _)) => serde_json::to_value(agent.explain(run, task)),
            Err(why) => return Answer::Refused { why },
        },
        Ask::Locate { run, task } => match find_task(agent, run, task) {
            Ok((run, index)) => {
                let open = agent.is_open(run, task);
                Ok(json!({"run": run.to_string(), "index": index.0, "open": open}))
            }
            Err(why) => return Answer::Refused { why },
        },
    };
    value.map_or_else(
        |error| Answer::Refused {
            why: format!("cannot be shown: {error}"),
        },
        |value| Answer::Value { value },
    )
}
