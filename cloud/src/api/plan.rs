//! What would become of a workflow.

use super::Shared;
use super::error::{ApiError, Asked};
use super::packed::{PLANNED, aside};
use axum::extract::{Request as Sent, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use cloud_core::event::{Reply, Request};
use serde::Deserialize;
use shared::limits::WORKFLOW_BYTES;

/// For which task other nodes are named in any case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct What {
    task: Option<String>,
}

/// POST /plan
pub(super) async fn plan(
    State(app): Shared,
    Asked(What { task }): Asked<What>,
    sent: Sent,
) -> Result<Response, ApiError> {
    let packed = PLANNED.read(sent).await?;
    let unpacked = packed.unpack(WORKFLOW_BYTES, "driftless plan", Ok).await?;
    let (workflow, place) = unpacked;
    let name = workflow.name.clone();
    let ground = match app.engine.ask(Request::Ground { workflow: name }).await? {
        Reply::Ground(ground) => ground,
        other => return Err(ApiError::odd(&other)),
    };
    let planned = aside(place, move || {
        let plan = cloud_core::plan::plan(workflow, &ground, task.as_deref());
        let plan = plan.map_err(ApiError::malformed)?;
        serde_json::to_vec(&plan).map_err(|error| ApiError::malformed(error.to_string()))
    });
    let (json, _) = planned.await?;
    Ok(([(CONTENT_TYPE, "application/json")], json).into_response())
}
