//! Runs and their tasks.

use super::error::{ApiError, Asked, Body, Named};
use super::lists::lines;
use super::packed::SUBMITTED;
use super::types::{Ask, BYTES};
use super::{Shared, find};
use crate::app::App;
use crate::clock;
use axum::extract::{Request as Sent, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use cloud_core::event::{Refused, Reply, Request};
use cloud_core::view::{Run, Task};
use serde::Deserialize;
use shared::ids::{Hash, RunId};
use shared::limits::WORKFLOW_BYTES;
use shared::state::{RunState, TaskState};
use shared::workflow::{Source, Workflow};

/// Longest name of somebody who asks, longest reason, longest idempotency key.
const TEXT: usize = 1024;

/// Which of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    state: Option<String>,
    #[serde(default)]
    limit: usize,
}

impl Which {
    fn limit(&self) -> usize {
        if self.limit == 0 {
            usize::MAX
        } else {
            self.limit
        }
    }
}

fn state_of<S: Copy>(
    text: Option<&str>,
    all: &[S],
    parse: impl Fn(&str) -> Option<S>,
    name: impl Fn(S) -> &'static str,
) -> Result<Option<S>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    parse(text).map(Some).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|state| name(*state)).collect();
        let names = names.join(", ");
        ApiError::malformed(format!("'{text}' is no state")).hint(format!("one of {names}"))
    })
}

/// GET /runs
pub(super) async fn list(
    State(app): Shared,
    Asked(which): Asked<Which>,
) -> Result<Response, ApiError> {
    let state = state_of(
        which.state.as_deref(),
        RunState::ALL,
        RunState::from_text,
        RunState::text,
    )?;
    match app.engine.ask(Request::Runs { state }).await? {
        Reply::Runs(mut runs) => {
            runs.truncate(which.limit());
            Ok(lines(runs))
        }
        other => Err(ApiError::odd(&other)),
    }
}

pub(super) async fn one(app: &App, run: RunId) -> Result<Run, ApiError> {
    match app.engine.ask(Request::Run { run }).await? {
        Reply::Run(run) => Ok(*run),
        Reply::Refused(refused @ Refused::NotFound { .. }) => {
            Err(ApiError::from(refused).hint("`driftless run list` shows the runs"))
        }
        other => Err(ApiError::odd(&other)),
    }
}

/// GET /runs/{run}
pub(super) async fn get(
    State(app): Shared,
    Named(run): Named<String>,
) -> Result<Json<Run>, ApiError> {
    let run = find::run(&app, &run).await?;
    one(&app, run).await.map(Json)
}

/// Who asks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct By {
    #[serde(default)]
    pub(super) by: String,
}

/// POST /runs
pub(super) async fn submit(
    State(app): Shared,
    Asked(By { by }): Asked<By>,
    headers: HeaderMap,
    sent: Sent,
) -> Result<Response, ApiError> {
    bounded(&[("by", &by)])?;
    let idempotency_key = match headers.get("idempotency-key").map(|value| value.to_str()) {
        None => None,
        Some(Ok(key)) if (1..=TEXT).contains(&key.len()) => Some(key.to_owned()),
        Some(_) => {
            let what = format!("the idempotency key is not 1 to {TEXT} visible ASCII characters");
            return Err(ApiError::malformed(what));
        }
    };
    let packed = SUBMITTED.read(sent).await?;
    let files = app.files.clone();
    let check = move |workflow: Workflow| {
        check_sent(&workflow, |hash| files.find(hash).map(|(_, size)| size))
    };
    let checked = packed.unpack(WORKFLOW_BYTES, "driftless submit", check);
    // others may be unpacked while this one is committed
    drop(checked.await?);
    let workflow = packed.bytes.to_vec();
    let run = RunId(clock::random());
    let request = Request::Submit {
        run,
        workflow,
        by,
        idempotency_key,
    };
    match app.engine.ask(request).await? {
        Reply::Submitted(accepted) => {
            let status = if accepted == run {
                StatusCode::CREATED
            } else {
                StatusCode::OK
            };
            Ok((status, Json(one(&app, accepted).await?)).into_response())
        }
        other => Err(ApiError::odd(&other)),
    }
}

/// Files that are sent along must be here before the run is.
pub(super) fn check_sent(
    workflow: &Workflow,
    here: impl Fn(Hash) -> Option<u64>,
) -> Result<(), ApiError> {
    let inputs = workflow.tasks.iter().flat_map(|task| &task.inputs);
    for input in inputs {
        let Source::Sent { hash, size } = input.source else {
            continue;
        };
        if here(hash) != Some(size) {
            let what = format!("the file for input '{}' ({hash}) was not sent", input.name);
            let error = ApiError::new(StatusCode::CONFLICT, what);
            return Err(error.hint(format!("PUT /v1/files/{hash} first, then submit")));
        }
    }
    Ok(())
}

pub(super) fn bounded(texts: &[(&str, &str)]) -> Result<(), ApiError> {
    match texts.iter().find(|(_, text)| text.len() > TEXT) {
        Some((name, _)) => Err(ApiError::malformed(format!(
            "{name} is longer than {TEXT} bytes"
        ))),
        None => Ok(()),
    }
}

async fn ask(app: &App, run: RunId, request: Request) -> Result<Json<Run>, ApiError> {
    match app.engine.ask(request).await? {
        Reply::Done => one(app, run).await.map(Json),
        other => Err(ApiError::odd(&other)),
    }
}

/// POST /runs/{run}/cancel
pub(super) async fn cancel(
    State(app): Shared,
    Named(run): Named<String>,
    Body(Ask { by, why }): Body<Ask>,
) -> Result<Json<Run>, ApiError> {
    bounded(&[("by", &by), ("why", &why)])?;
    let run = find::run(&app, &run).await?;
    ask(&app, run, Request::Cancel { run, by, why }).await
}

/// POST /runs/{run}/pause
pub(super) async fn pause(
    State(app): Shared,
    Named(run): Named<String>,
    Body(Ask { by, .. }): Body<Ask>,
) -> Result<Json<Run>, ApiError> {
    bounded(&[("by", &by)])?;
    let run = find::run(&app, &run).await?;
    ask(&app, run, Request::Pause { run, on: true, by }).await
}

/// POST /runs/{run}/resume
pub(super) async fn resume(
    State(app): Shared,
    Named(run): Named<String>,
    Body(Ask { by, .. }): Body<Ask>,
) -> Result<Json<Run>, ApiError> {
    bounded(&[("by", &by)])?;
    let run = find::run(&app, &run).await?;
    ask(&app, run, Request::Pause { run, on: false, by }).await
}

/// GET /runs/{run}/workflow
pub(super) async fn workflow(
    State(app): Shared,
    Named(run): Named<String>,
) -> Result<Response, ApiError> {
    let run = find::run(&app, &run).await?;
    match app.engine.ask(Request::Workflow { run }).await? {
        Reply::Workflow(packed) => Ok(([(CONTENT_TYPE, BYTES)], packed).into_response()),
        other => Err(ApiError::odd(&other)),
    }
}

/// GET /runs/{run}/tasks
pub(super) async fn tasks(
    State(app): Shared,
    Named(run): Named<String>,
    Asked(which): Asked<Which>,
) -> Result<Response, ApiError> {
    let state = state_of(
        which.state.as_deref(),
        TaskState::ALL,
        TaskState::from_text,
        TaskState::text,
    )?;
    let run = find::run(&app, &run).await?;
    match app.engine.ask(Request::Tasks { run, state }).await? {
        Reply::Tasks(mut tasks) => {
            tasks.truncate(which.limit());
            Ok(lines(tasks))
        }
        other => Err(ApiError::odd(&other)),
    }
}

/// The task of that id.
pub(super) async fn find_task(app: &App, run: &str, task: &str) -> Result<Task, ApiError> {
    let run = find::run(app, run).await?;
    match app
        .engine
        .ask(Request::Task {
            run,
            task: task.to_owned(),
        })
        .await?
    {
        Reply::Task(task) => Ok(*task),
        Reply::Refused(refused @ Refused::NotFound { .. }) => {
            Err(find::no_task(app, run, task, refused).await)
        }
        other => Err(ApiError::odd(&other)),
    }
}

/// GET /runs/{run}/tasks/{task}
pub(super) async fn task(
    State(app): Shared,
    Named((run, task)): Named<(String, String)>,
) -> Result<Json<Task>, ApiError> {
    find_task(&app, &run, &task).await.map(Json)
}

/// GET /runs/{run}/tasks/{task}/explain
pub(super) async fn explain(
    State(app): Shared,
    Named((run, task)): Named<(String, String)>,
) -> Result<Response, ApiError> {
    let run = find::run(&app, &run).await?;
    match app
        .engine
        .ask(Request::Explain {
            run,
            task: task.clone(),
        })
        .await?
    {
        Reply::Explain(explain) => Ok(Json(*explain).into_response()),
        Reply::Refused(refused @ Refused::NotFound { .. }) => {
            Err(find::no_task(&app, run, &task, refused).await)
        }
        other => Err(ApiError::odd(&other)),
    }
}
