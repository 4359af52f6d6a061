//! What people are asked for, and what they ask about a run that is over or went wrong.

use super::error::{ApiError, Asked, Body, Named};
use super::lists::lines;
use super::types::{Ask, Forgetting, NewAnswer, NewRetry};
use super::{Shared, find, runs};
use axum::extract::State;
use axum::response::{Json, Response};
use cloud_core::event::{Refused, Reply, Request};
use cloud_core::view::{Run, Task};
use serde::Deserialize;

/// POST /runs/{run}/tasks/{task}/answer
pub(super) async fn answer(
    State(app): Shared,
    Named((run, task)): Named<(String, String)>,
    Body(NewAnswer { by, yes, input }): Body<NewAnswer>,
) -> Result<Json<Task>, ApiError> {
    let run = find::run(&app, &run).await?;
    let request = Request::Answer {
        run,
        task: task.clone(),
        yes,
        input,
        by,
    };
    match app.engine.ask(request).await? {
        Reply::Done => runs::find_task(&app, &run.to_string(), &task)
            .await
            .map(Json),
        Reply::Refused(refused @ Refused::NotFound { .. }) => {
            Err(find::no_task(&app, run, &task, refused).await)
        }
        other => Err(ApiError::odd(&other)),
    }
}

/// POST /runs/{run}/retry
pub(super) async fn retry(
    State(app): Shared,
    Named(run): Named<String>,
    Body(NewRetry { by, from }): Body<NewRetry>,
) -> Result<Json<Run>, ApiError> {
    runs::bounded(&[("by", &by)])?;
    let run = find::run(&app, &run).await?;
    let task = from.clone().unwrap_or_default();
    match app.engine.ask(Request::Retry { run, from, by }).await? {
        Reply::Done => runs::one(&app, run).await.map(Json),
        Reply::Refused(refused @ Refused::NotFound { .. }) if !task.is_empty() => {
            Err(find::no_task(&app, run, &task, refused).await)
        }
        other => Err(ApiError::odd(&other)),
    }
}

/// POST /runs/{run}/forget
pub(super) async fn forget(
    State(app): Shared,
    Named(run): Named<String>,
    Body(Ask { by, .. }): Body<Ask>,
) -> Result<Json<Forgetting>, ApiError> {
    runs::bounded(&[("by", &by)])?;
    let id = find::run(&app, &run).await?;
    match app.engine.ask(Request::ForgetRun { run: id, by }).await? {
        Reply::Done => {}
        other => return Err(ApiError::odd(&other)),
    }
    let (forgotten, requests) = match app.engine.ask(Request::Run { run: id }).await? {
        Reply::Run(run) => (false, run.requests),
        Reply::Refused(Refused::NotFound { .. }) => (true, Vec::new()),
        other => return Err(ApiError::odd(&other)),
    };
    Ok(Json(Forgetting {
        id,
        forgotten,
        requests,
    }))
}

/// Which conflicts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    run: Option<String>,
    limit: Option<usize>,
}

/// GET /conflicts
pub(super) async fn conflicts(
    State(app): Shared,
    Asked(Which { run, limit }): Asked<Which>,
) -> Result<Response, ApiError> {
    let run = match run {
        Some(run) => Some(find::run(&app, &run).await?),
        None => None,
    };
    match app.engine.ask(Request::Conflicts { run }).await? {
        Reply::Conflicts(mut conflicts) => {
            conflicts.truncate(limit.unwrap_or(usize::MAX));
            Ok(lines(conflicts))
        }
        other => Err(ApiError::odd(&other)),
    }
}
