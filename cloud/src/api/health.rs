//! Whether the coordinator lives and can work, and its figures for Prometheus.

use super::Shared;
use super::error::ApiError;
use super::types::{Health, Readiness};
use crate::app::App;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Json, Response};
use cloud_core::event::{Reply, Request};
use cloud_core::view::Figures;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Longest time for an answer of an engine that turns.
const TURN: Duration = Duration::from_secs(5);
/// Media type of the text that Prometheus reads.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

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
    let text = page(&app, &figures);
    Ok(([(CONTENT_TYPE, TEXT)], text).into_response())
}

/// The text that Prometheus reads, as it grows.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn one(&mut self, (name, kind): (&str, &str), help: &str, value: u64) {
        self.family(name, kind, help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    /// One value for each of a closed list of states.
    fn by_state(&mut self, name: &str, help: &str, values: &BTreeMap<String, u64>) {
        self.family(name, "gauge", help);
        for (state, value) in values {
            let _ = writeln!(self.0, "{name}{{state=\"{state}\"}} {value}");
        }
    }
}

fn page(app: &App, figures: &Figures) -> String {
    let mut page = Page(String::with_capacity(8192));
    let (gauge, counter) = ("gauge", "counter");
    page.family("driftless_build_info", gauge, "The version that runs.");
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(page.0, "driftless_build_info{{version=\"{version}\"}} 1");
    let started = u64::try_from(app.started.0 / 1000).unwrap_or(0);
    let name = ("driftless_coordinator_start_time_seconds", gauge);
    page.one(
        name,
        "When this coordinator started, seconds since 1970.",
        started,
    );
    let name = ("driftless_coordinator_generation", gauge);
    page.one(
        name,
        "Life of the store; it grows with each start.",
        figures.generation,
    );
    page.by_state("driftless_coordinator_nodes", "Nodes.", &figures.nodes);
    page.by_state(
        "driftless_coordinator_runs",
        "Runs that are kept.",
        &figures.runs,
    );
    page.by_state(
        "driftless_coordinator_tasks",
        "Tasks of those runs.",
        &figures.tasks,
    );
    counts(app, figures, &mut page);
    let tokens = app.engine.access().borrow().len() as u64;
    let name = ("driftless_coordinator_access_tokens", gauge);
    page.one(name, "Access tokens.", tokens);
    let name = "driftless_api_answers_total";
    page.family(
        name,
        counter,
        "Answers of the API, by class of their status.",
    );
    for (class, count) in app.answered.0.iter().enumerate().skip(1) {
        let count = count.load(Ordering::Relaxed);
        let _ = writeln!(page.0, "{name}{{code=\"{class}xx\"}} {count}");
    }
    page.0
}

/// What has one value.
fn counts(app: &App, figures: &Figures, page: &mut Page) {
    let (gauge, counter) = ("gauge", "counter");
    let singles = [
        (
            "sessions",
            gauge,
            "Live sessions of nodes.",
            figures.sessions,
        ),
        (
            "facts_behind",
            gauge,
            "Facts that nodes have and that are not here.",
            figures.behind,
        ),
        (
            "directives_unconfirmed",
            gauge,
            "Directives not confirmed.",
            figures.unconfirmed,
        ),
        (
            "facts_not_applied",
            gauge,
            "Facts recorded and not applied.",
            figures.not_applied,
        ),
        (
            "events_total",
            counter,
            "Events that were numbered.",
            figures.events,
        ),
        (
            "audit_entries_total",
            counter,
            "Audit entries that were numbered.",
            figures.audit,
        ),
        ("files", gauge, "Files in the file store.", figures.files),
        (
            "files_bytes",
            gauge,
            "Bytes of the file store.",
            figures.file_bytes,
        ),
        (
            "files_budget_bytes",
            gauge,
            "Most bytes of the file store.",
            app.file_budget,
        ),
        (
            "store_bytes",
            gauge,
            "Bytes of the state's file.",
            size(&app.store),
        ),
    ];
    for (name, kind, help, value) in singles {
        page.one(
            (&format!("driftless_coordinator_{name}"), kind),
            help,
            value,
        );
    }
}

fn size(path: &std::path::Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}
