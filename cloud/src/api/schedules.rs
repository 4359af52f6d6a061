//! Schedules.

use super::Shared;
use super::error::{ApiError, Asked, Body, Named, Raw};
use super::lists::lines;
use super::runs::{bounded, check_sent};
use super::types::{Ask, NewBackfill};
use crate::app::App;
use crate::clock;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use cloud_core::event::{Reply, Request, ScheduleAsk};
use serde::Deserialize;
use shared::codec;
use shared::ids::ScheduleId;
use shared::schedule::view::{Slot, View};

/// How a schedule is made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Creation {
    #[serde(default)]
    by: String,
    node: Option<String>,
    #[serde(default)]
    replace: bool,
}

/// POST /schedules
pub(super) async fn create(
    State(app): Shared,
    Asked(Creation { by, node, replace }): Asked<Creation>,
    Raw(body): Raw,
) -> Result<Response, ApiError> {
    bounded(&[("by", &by), ("node", node.as_deref().unwrap_or_default())])?;
    let (workflow, _) = codec::unpack(&body).map_err(|error| {
        ApiError::malformed(format!("the workflow cannot be read: {error}"))
            .hint("send what `driftless schedule create` sends: a compiled workflow, packed")
    })?;
    check_sent(&workflow, |hash| app.files.find(hash).map(|(_, size)| size))?;
    let request = Request::CreateSchedule {
        schedule: ScheduleId(clock::random()),
        name: workflow.name,
        workflow: body.to_vec(),
        node,
        replace,
        by,
    };
    match app.engine.ask(request).await? {
        Reply::Scheduled(id) => {
            let view = one(&app, &id.to_string()).await?;
            let status = match replace {
                true => StatusCode::OK,
                false => StatusCode::CREATED,
            };
            Ok((status, Json(view)).into_response())
        }
        other => Err(ApiError::odd(&other)),
    }
}

async fn one(app: &App, name: &str) -> Result<View, ApiError> {
    let name = name.to_owned();
    match app.engine.ask(Request::Schedule { name }).await? {
        Reply::Schedule(view) => Ok(*view),
        other => Err(ApiError::odd(&other)),
    }
}

/// GET /schedules
pub(super) async fn list(State(app): Shared) -> Result<Response, ApiError> {
    match app.engine.ask(Request::Schedules).await? {
        Reply::Schedules(list) => Ok(lines(list)),
        other => Err(ApiError::odd(&other)),
    }
}

/// GET /schedules/{name}
pub(super) async fn get(
    State(app): Shared,
    Named(name): Named<String>,
) -> Result<Json<View>, ApiError> {
    one(&app, &name).await.map(Json)
}

/// How many slots.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Count {
    #[serde(default = "five")]
    count: u32,
}

fn five() -> u32 {
    5
}

/// GET /schedules/{name}/next
pub(super) async fn next(
    State(app): Shared,
    Named(name): Named<String>,
    Asked(Count { count }): Asked<Count>,
) -> Result<Response, ApiError> {
    match app.engine.ask(Request::NextSlots { name, count }).await? {
        Reply::Slots(slots) => Ok(lines(slots.into_iter().map(Slot::from).collect())),
        other => Err(ApiError::odd(&other)),
    }
}

async fn ask(
    app: &App,
    name: String,
    ask: ScheduleAsk,
    by: String,
) -> Result<Json<View>, ApiError> {
    bounded(&[("by", &by)])?;
    let before = one(app, &name).await?;
    match app
        .engine
        .ask(Request::AskSchedule { name, ask, by })
        .await?
    {
        // one that is gone at once is shown as it was
        Reply::Scheduled(id) if ask != ScheduleAsk::Delete => {
            one(app, &id.to_string()).await.map(Json)
        }
        Reply::Scheduled(_) => Ok(Json(View {
            state: "deleting".to_owned(),
            ..before
        })),
        other => Err(ApiError::odd(&other)),
    }
}

/// POST /schedules/{name}/pause
pub(super) async fn pause(
    State(app): Shared,
    Named(name): Named<String>,
    Body(Ask { by, .. }): Body<Ask>,
) -> Result<Json<View>, ApiError> {
    ask(&app, name, ScheduleAsk::Pause(true), by).await
}

/// POST /schedules/{name}/resume
pub(super) async fn resume(
    State(app): Shared,
    Named(name): Named<String>,
    Body(Ask { by, .. }): Body<Ask>,
) -> Result<Json<View>, ApiError> {
    ask(&app, name, ScheduleAsk::Pause(false), by).await
}

/// POST /schedules/{name}/trigger
pub(super) async fn trigger(
    State(app): Shared,
    Named(name): Named<String>,
    Body(Ask { by, .. }): Body<Ask>,
) -> Result<Json<View>, ApiError> {
    ask(&app, name, ScheduleAsk::Trigger, by).await
}

/// POST /schedules/{name}/backfill
pub(super) async fn backfill(
    State(app): Shared,
    Named(name): Named<String>,
    Body(NewBackfill { by, from, to }): Body<NewBackfill>,
) -> Result<Json<View>, ApiError> {
    ask(&app, name, ScheduleAsk::Backfill { from, to }, by).await
}

/// POST /schedules/{name}/delete
pub(super) async fn delete(
    State(app): Shared,
    Named(name): Named<String>,
    Body(Ask { by, .. }): Body<Ask>,
) -> Result<Json<View>, ApiError> {
    ask(&app, name, ScheduleAsk::Delete, by).await
}
