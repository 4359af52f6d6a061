//! Schedules.

use super::error::{ApiError, Asked, Body, Named};
use super::lists::lines;
use super::packed::SUBMITTED;
use super::runs::{bounded, check_sent};
use super::types::{Ask, NewBackfill};
use super::{Shared, find};
use crate::app::App;
use crate::clock;
use axum::extract::{Request as Sent, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use cloud_core::event::{Refused, Reply, Request, ScheduleAsk};
use serde::Deserialize;
use shared::ids::ScheduleId;
use shared::schedule::UNPACKED_BYTES;
use shared::schedule::view::{Slot, View};
use shared::workflow::Workflow;

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
    sent: Sent,
) -> Result<Response, ApiError> {
    bounded(&[("by", &by), ("node", node.as_deref().unwrap_or_default())])?;
    let packed = SUBMITTED.read(sent).await?;
    let files = app.files.clone();
    let check = move |workflow: Workflow| {
        check_sent(&workflow, |hash| files.find(hash).map(|(_, size)| size))?;
        Ok(workflow.name)
    };
    let checked = packed.unpack(UNPACKED_BYTES, "driftless schedule create", check);
    let (name, _) = checked.await?;
    let request = Request::CreateSchedule {
        schedule: ScheduleId(clock::random()),
        name,
        workflow: packed.bytes.to_vec(),
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
    let named = name.to_owned();
    match app.engine.ask(Request::Schedule { name: named }).await? {
        Reply::Schedule(view) => Ok(*view),
        Reply::Refused(refused @ Refused::NotFound { .. }) => {
            Err(find::no_schedule(app, name, refused).await)
        }
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
    let named = name.clone();
    let asked = Request::NextSlots { name: named, count };
    match app.engine.ask(asked).await? {
        Reply::Slots(slots) => Ok(lines(slots.into_iter().map(Slot::from).collect())),
        Reply::Refused(refused @ Refused::NotFound { .. }) => {
            Err(find::no_schedule(&app, &name, refused).await)
        }
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
