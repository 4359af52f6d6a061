//! What people are asked for, and what they ask about a run that is over or went wrong.

use super::error::{ApiError, Body};
use super::types::NewAnswer;
use super::{Shared, find, runs};
use axum::extract::{Path, State};
use axum::response::Json;
use cloud_core::event::{Refused, Reply, Request};
use cloud_core::view::Task;

/// POST /runs/{run}/tasks/{task}/answer
pub(super) async fn answer(
    State(app): Shared,
    Path((run, task)): Path<(String, String)>,
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
