//! Whether the coordinator lives and can work, and its figures for Prometheus.

use super::Shared;
use super::authority;
use super::error::ApiError;
use super::types::{Health, Readiness};
use crate::app::App;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Json, Response};
use cloud_core::event::{Reply, Request};
use cloud_core::view::{Carriers, Figures};
use shared::figures::{MEDIA_TYPE, Page};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Longest time for an answer of an engine that turns.
const TURN: Duration = Duration::from_secs(5);

/// Answers that were given, by the first digit of their status.
#[derive(Debug, Default)]
pub(crate) struct Answered([AtomicU64; 6]);

impl Answered {
    pub(super) fn count(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).min(5);
        self.0[class].fetch_add(1, Ordering::Relaxed);
    }
}

/// GET /healthz
pub(super) async fn healthz(State(app): Shared) -> Json<Health> {
    Json(Health {
        status: "ok".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        listen: app.listen.to_string(),
    })
}

/// GET /readyz
pub(super) async fn readyz(State(app): Shared) -> Response {
    // The authority was loaded before anything was served; what can be missing is the engine and
    // the store behind it, which answer together.
    let mut reasons = Vec::new();
    if let Err(why) = turn(&app).await {
        reasons.push(why);
    }
    if *app.stopping.borrow() {
        reasons.push("the coordinator is stopping".to_owned());
    }
    let status = match reasons.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let ready = reasons.is_empty();
    (status, Json(Readiness { ready, reasons })).into_response()
}

/// Asks the engine, whose answer comes from the open store's state.
async fn turn(app: &App) -> Result<Figures, String> {
    match tokio::time::timeout(TURN, app.engine.ask(Request::Figures)).await {
        Ok(Ok(Reply::Figures(figures))) => Ok(*figures),
        Ok(Ok(other)) => Err(crate::host::unexpected(&other).to_string()),
        Ok(Err(stopping)) => Err(stopping.to_string()),
        Err(_) => Err(format!("the engine did not turn for {} s", TURN.as_secs())),
    }
}

/// GET /metrics
pub(super) async fn metrics(State(app): Shared) -> Result<Response, ApiError> {
    let figures = turn(&app)
        .await
        .map_err(|why| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why))?;
    let carriers = authority::carriers(&app).await?;
    let text = page(&app, &figures, &carriers);
    Ok(([(CONTENT_TYPE, MEDIA_TYPE)], text).into_response())
}

/// All figures.
const CATALOGUE: &str = "\
driftless_build_info gauge The version that runs.
driftless_coordinator_start_time_seconds gauge When this coordinator started, seconds since 1970.
driftless_coordinator_generation gauge Life of the store; it grows with each start.
driftless_coordinator_nodes gauge Nodes.
driftless_coordinator_runs gauge Runs that are kept.
driftless_coordinator_tasks gauge Tasks of those runs.
driftless_coordinator_sessions gauge Live sessions of nodes.
driftless_coordinator_calls_total counter Callers on the agents' port, by what became of them.
driftless_coordinator_facts_behind gauge Facts that nodes have and that are not here.
driftless_coordinator_directives_unconfirmed gauge Directives not confirmed.
driftless_coordinator_facts_not_applied gauge Facts recorded and not applied.
driftless_coordinator_events_total counter Events that were numbered.
driftless_coordinator_audit_entries_total counter Audit entries that were numbered.
driftless_coordinator_files gauge Files in the file store.
driftless_coordinator_files_bytes gauge Bytes of the file store.
driftless_coordinator_files_budget_bytes gauge Most bytes of the file store.
driftless_coordinator_store_bytes gauge Bytes of the state's file.
driftless_coordinator_access_tokens gauge Access tokens.
driftless_coordinator_authority_changing gauge 1 while the fleet changes its authority.
driftless_coordinator_authority_nodes_left gauge Nodes whose certificate is not of the authority that counts.
driftless_api_answers_total counter Answers of the API, by class of their status.";

fn page(app: &App, figures: &Figures, carriers: &Carriers) -> String {
    let mut page = Page::new(CATALOGUE);
    let version = [(env!("CARGO_PKG_VERSION"), 1)];
    page.each("driftless_build_info", "version", version);
    let mut states = |name: &str, values| {
        page.each(&format!("driftless_coordinator_{name}"), "state", values);
    };
    states("nodes", &figures.nodes);
    states("runs", &figures.runs);
    states("tasks", &figures.tasks);
    let mut one = |name: &str, value: u64| {
        page.one(&format!("driftless_coordinator_{name}"), value);
    };
    one(
        "start_time_seconds",
        u64::try_from(app.started.0 / 1000).unwrap_or(0),
    );
    one("generation", figures.generation);
    one("sessions", figures.sessions);
    one("facts_behind", figures.behind);
    one("directives_unconfirmed", figures.unconfirmed);
    one("facts_not_applied", figures.not_applied);
    one("events_total", figures.events);
    one("audit_entries_total", figures.audit);
    one("files", figures.files);
    one("files_bytes", figures.file_bytes);
    one("files_budget_bytes", app.file_budget);
    one(
        "store_bytes",
        std::fs::metadata(&app.store).map_or(0, |meta| meta.len()),
    );
    one("access_tokens", app.engine.access().borrow().len() as u64);
    let changing = app.authorities.known().next.is_some();
    one("authority_changing", changing.into());
    one("authority_nodes_left", carriers.left.len() as u64);
    let calls = app.admission.counts.each();
    page.each("driftless_coordinator_calls_total", "end", calls);
    let classes = app.answered.0.iter().enumerate().skip(1);
    let classes = classes.map(|(class, n)| (format!("{class}xx"), n.load(Ordering::Relaxed)));
    page.each("driftless_api_answers_total", "code", classes);
    page.text()
}
