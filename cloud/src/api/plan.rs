//! What would become of a workflow.

use super::Shared;
use super::error::{ApiError, Raw};
use axum::extract::State;
use axum::response::Json;
use cloud_core::event::{Reply, Request};
use cloud_core::view::Plan;

/// POST /plan
pub(super) async fn plan(State(app): Shared, Raw(body): Raw) -> Result<Json<Plan>, ApiError> {
    let workflow = body.to_vec();
    match app.engine.ask(Request::Plan { workflow }).await? {
        Reply::Plan(plan) => Ok(Json(*plan)),
        other => Err(ApiError::odd(&other)),
    }
}
