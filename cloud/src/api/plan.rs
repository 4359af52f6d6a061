//! What would become of a workflow.

use super::Shared;
use super::error::{ApiError, Asked, Raw};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use cloud_core::event::{Reply, Request};
use serde::Deserialize;
use tokio::sync::Semaphore;

/// Plans that are made at once; others wait.
static AT_ONCE: Semaphore = Semaphore::const_new(2);

/// For which task other nodes are named in any case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct What {
    task: Option<String>,
}

/// Work that takes long, beside the threads that serve requests.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| ApiError::from(crate::host::Stopping))?
        .map_err(ApiError::malformed)
}

/// POST /plan
pub(super) async fn plan(
    State(app): Shared,
    Asked(What { task }): Asked<What>,
    Raw(body): Raw,
) -> Result<Response, ApiError> {
    let _permit = AT_ONCE.acquire().await;
    let unpacked = move || shared::codec::unpack(&body).map_err(|error| error.to_string());
    let (workflow, _) = aside(unpacked).await?;
    let name = workflow.name.clone();
    let ground = match app.engine.ask(Request::Ground { workflow: name }).await? {
        Reply::Ground(ground) => ground,
        other => return Err(ApiError::odd(&other)),
    };
    let json = aside(move || {
        let plan = cloud_core::plan::plan(workflow, &ground, task.as_deref())?;
        serde_json::to_vec(&plan).map_err(|error| error.to_string())
    });
    Ok(([(CONTENT_TYPE, "application/json")], json.await?).into_response())
}
