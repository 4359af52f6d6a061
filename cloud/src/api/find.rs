//! Finds what a path names: runs by the beginning of their id, tasks and nodes with a suggestion.

use super::error::ApiError;
use super::suggest::{distance, nearest};
use crate::app::App;
use axum::http::StatusCode;
use cloud_core::event::{Refused, Reply, Request};
use cloud_core::view::{Node, Run, Task};
use shared::ids::RunId;

/// Candidates that an error names.
const NAMED: usize = 3;

/// The run whose id is, or begins with, `text`.
pub(super) async fn run(app: &App, text: &str) -> Result<RunId, ApiError> {
    if let Ok(run) = text.parse::<RunId>() {
        return Ok(run);
    }
    let runs = runs(app).await?;
    let wanted = text.to_ascii_lowercase();
    let found: Vec<&Run> = runs
        .iter()
        .filter(|run| run.id.to_string().starts_with(&wanted))
        .collect();
    match found.as_slice() {
        [one] if !wanted.is_empty() => Ok(one.id),
        [] => Err(unknown(text, &runs)),
        many => {
            let what = format!("{} runs begin with '{text}'", many.len());
            let hint = format!("write more of one of them: {}", names(many.iter().copied()));
            Err(ApiError::new(StatusCode::CONFLICT, what).hint(hint))
        }
    }
}

async fn runs(app: &App) -> Result<Vec<Run>, ApiError> {
    match app.engine.ask(Request::Runs { state: None }).await? {
        Reply::Runs(runs) => Ok(runs),
        other => Err(ApiError::odd(&other)),
    }
}

fn names<'r>(runs: impl Iterator<Item = &'r Run>) -> String {
    let name = |run: &Run| format!("{} ({})", &run.id.to_string()[..12], run.workflow);
    let mut names: Vec<String> = runs.take(NAMED + 1).map(name).collect();
    if names.len() > NAMED {
        names[NAMED] = "…".to_owned();
    }
    names.join(", ")
}

/// "no run 12ab; did you mean …".
fn unknown(text: &str, runs: &[Run]) -> ApiError {
    let error = ApiError::not_found(format!("no run '{text}'"));
    let wanted = text.to_ascii_lowercase();
    let of_workflow = runs.iter().filter(|run| run.workflow == text);
    // ids are random: a quarter of the letters may be wrong, more would name runs that nobody meant
    let mistyped = |id: &str| {
        let beginning = id.get(..wanted.len());
        beginning.is_some_and(|beginning| distance(&wanted, beginning) <= wanted.len() / 4)
    };
    let near = |run: &&Run| {
        let id = run.id.to_string();
        let same = id.bytes().zip(wanted.bytes()).take_while(|(a, b)| a == b);
        same.count() >= 3 || mistyped(&id)
    };
    let meant = names(
        of_workflow
            .take(1)
            .chain(runs.iter().filter(near))
            .take(NAMED),
    );
    match (meant.is_empty(), runs.is_empty()) {
        (false, _) => error.hint(format!("did you mean {meant}?")),
        (true, false) => error.hint("`driftless run list` shows the runs"),
        (true, true) => error.hint("there are no runs yet: `driftless submit FILE` starts one"),
    }
}

/// Adds a suggestion to "no such task".
pub(super) async fn no_task(app: &App, run: RunId, task: &str, refused: Refused) -> ApiError {
    let error = ApiError::from(refused);
    let asked = app.engine.ask(Request::Tasks { run, state: None }).await;
    let Ok(Reply::Tasks(tasks)) = asked else {
        return error;
    };
    match nearest(task, tasks.iter().map(|task: &Task| task.task.as_str())) {
        Some(meant) => error.hint(format!("did you mean {meant}?")),
        None => error.hint("`driftless task list RUN` shows the tasks"),
    }
}

/// Adds a suggestion to "no such schedule".
pub(super) async fn no_schedule(app: &App, name: &str, refused: Refused) -> ApiError {
    let error = ApiError::from(refused);
    let Ok(Reply::Schedules(all)) = app.engine.ask(Request::Schedules).await else {
        return error;
    };
    match nearest(name, all.iter().map(|one| one.name.as_str())) {
        Some(meant) => error.hint(format!("did you mean {meant}?")),
        None => error.hint("`driftless schedule list` shows the schedules"),
    }
}

/// Adds a suggestion to "no such access token".
pub(super) async fn no_access(app: &App, name: &str, refused: Refused) -> ApiError {
    let error = ApiError::from(refused);
    let Ok(Reply::Access(all)) = app.engine.ask(Request::Access).await else {
        return error;
    };
    match nearest(name, all.iter().map(|one| one.name.as_str())) {
        Some(meant) => error.hint(format!("did you mean {meant}?")),
        None => error.hint("`driftless access list` shows their names"),
    }
}

/// The node called `name`.
pub(super) async fn node(app: &App, name: &str) -> Result<Node, ApiError> {
    match app
        .engine
        .ask(Request::Node {
            name: name.to_owned(),
        })
        .await?
    {
        Reply::Node(node) => Ok(*node),
        Reply::Refused(refused @ Refused::NotFound { .. }) => {
            let error = ApiError::from(refused);
            let asked = app.engine.ask(Request::Nodes).await;
            let Ok(Reply::Nodes(nodes)) = asked else {
                return Err(error);
            };
            Err(
                match nearest(name, nodes.iter().map(|node| node.name.as_str())) {
                    Some(meant) => error.hint(format!("did you mean {meant}?")),
                    None => error.hint("`driftless node list` shows the nodes"),
                },
            )
        }
        other => Err(ApiError::odd(&other)),
    }
}
