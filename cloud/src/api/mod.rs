//! The HTTP JSON API, under `/v1`: `docs/api.md` describes it. Every answer comes from committed
//! state.
//!
//! Invariants: whatever is wrong with a request is answered with a status and a [`types::Problem`],
//! and changes nothing; no route is without the least role that it needs.

mod access;
mod authority;
pub(crate) mod backup;
pub(crate) mod door;
mod error;
mod events;
mod files;
mod find;
mod guard;
pub(crate) mod health;
mod lists;
mod logs;
mod nodes;
mod operate;
mod packed;
mod people;
mod plan;
mod routes;
mod runs;
mod schedules;
pub(crate) mod server;
mod settings;
mod suggest;
mod taken;
pub mod telemetry;
mod tokens;
pub mod types;
mod watch;

use crate::app::App;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use cloud_core::access::Role::{Admin, Operator, Viewer};
use error::ApiError;
pub use routes::Route;
use routes::Routes;
use shared::limits::SUBMISSION_BYTES;
use std::sync::Arc;

type Shared = State<Arc<App>>;

/// Bytes of a packed workflow with a schedule, and some more so that the engine says what is too
/// much.
const SCHEDULE: usize = 2 * shared::schedule::WORKFLOW_BYTES;

/// The table of routes below `/v1`.
fn v1() -> Routes {
    Routes::new()
        .open("/healthz", health::healthz)
        .open("/openapi.json", openapi)
        .get("/runs", Viewer, runs::list)
        .post_up_to(SUBMISSION_BYTES, "/runs", Operator, runs::submit)
        .post_up_to(SUBMISSION_BYTES, "/plan", Viewer, plan::plan)
        .get("/settings", Viewer, settings::get)
        .post("/settings", Admin, settings::change)
        .get("/runs/{run}", Viewer, runs::get)
        .post("/runs/{run}/cancel", Operator, runs::cancel)
        .post("/runs/{run}/pause", Operator, runs::pause)
        .post("/runs/{run}/resume", Operator, runs::resume)
        .post("/runs/{run}/retry", Operator, people::retry)
        .post("/runs/{run}/forget", Operator, people::forget)
        .get("/runs/{run}/workflow", Viewer, runs::workflow)
        .get("/runs/{run}/tasks", Viewer, runs::tasks)
        .get("/runs/{run}/tasks/{task}", Viewer, runs::task)
        .get("/runs/{run}/tasks/{task}/explain", Viewer, runs::explain)
        .post("/runs/{run}/tasks/{task}/answer", Operator, people::answer)
        .get("/runs/{run}/tasks/{task}/logs", Viewer, logs::logs)
        .get("/nodes", Viewer, nodes::list)
        .get("/nodes/{node}", Viewer, nodes::get)
        .get("/nodes/{node}/telemetry", Viewer, telemetry::query)
        .get("/nodes/{node}/telemetry/gaps", Viewer, telemetry::gaps)
        .get("/nodes/{node}/telemetry/newest", Viewer, telemetry::newest)
        .post("/nodes/{node}/forget", Admin, nodes::forget)
        .post("/nodes/{node}/release", Admin, nodes::release)
        .post("/nodes/{node}/gone", Admin, nodes::gone)
        .post("/nodes/{node}/cordon", Operator, operate::cordon)
        .post("/nodes/{node}/uncordon", Operator, operate::uncordon)
        .post("/nodes/{node}/drain", Operator, operate::drain)
        .post("/nodes/{node}/labels", Admin, operate::labels)
        .post("/nodes/{node}/taints", Admin, operate::taints)
        .get("/nodes/{node}/work", Viewer, operate::work)
        .get("/nodes/{node}/sync", Viewer, operate::sync)
        .get("/tokens", Admin, tokens::list)
        .post("/tokens", Admin, tokens::create)
        .post("/tokens/{token}/revoke", Admin, tokens::revoke)
        .get("/authority", Viewer, authority::get)
        .post("/authority/begin", Admin, authority::begin)
        .post("/authority/finish", Admin, authority::finish)
        .get("/waits", Viewer, nodes::waits)
        .get("/backup", Admin, backup::stream)
        .get("/backup/newest", Viewer, backup::newest)
        .post("/backup/{id}", Admin, backup::placed)
        .get("/schedules", Viewer, schedules::list)
        .post_up_to(SCHEDULE, "/schedules", Operator, schedules::create)
        .get("/schedules/{name}", Viewer, schedules::get)
        .get("/schedules/{name}/next", Viewer, schedules::next)
        .post("/schedules/{name}/pause", Operator, schedules::pause)
        .post("/schedules/{name}/resume", Operator, schedules::resume)
        .post("/schedules/{name}/trigger", Operator, schedules::trigger)
        .post("/schedules/{name}/backfill", Operator, schedules::backfill)
        .post("/schedules/{name}/delete", Operator, schedules::delete)
        .get("/conflicts", Viewer, people::conflicts)
        .get("/files/{hash}", Viewer, files::get)
        .put("/files/{hash}", Operator, files::put)
        .get("/watch", Viewer, watch::watch)
        .get("/events", Viewer, events::events)
        .get("/access", Admin, access::list)
        .post("/access", Admin, access::create)
        .post("/access/{name}/revoke", Admin, access::revoke)
        .get("/audit", Admin, access::audit)
}

/// The table of routes above `/v1`. Figures need a token unless a setting opens them.
fn root(metrics_open: bool) -> Routes {
    let routes = Routes::new()
        .open("/healthz", health::healthz)
        .open("/readyz", health::readyz);
    match metrics_open {
        true => routes.open("/metrics", health::metrics),
        false => routes.get("/metrics", Viewer, health::metrics),
    }
}

/// The description of the API.
const OPENAPI: &str = include_str!("../../../docs/openapi.json");

/// GET /openapi.json
async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], OPENAPI)
}

/// All routes, for those who compare them with their description.
#[must_use]
pub fn routes() -> Vec<Route> {
    let below = v1().done().1;
    let below = below.into_iter().map(|route| Route {
        path: format!("/v1{}", route.path),
        ..route
    });
    root(false).done().1.into_iter().chain(below).collect()
}

/// All routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    root(app.metrics_open)
        .done()
        .0
        .nest("/v1", v1().done().0)
        .fallback(async || {
            let error = ApiError::new(StatusCode::NOT_FOUND, "there is nothing at this path");
            error.hint("the API is under /v1; docs/api.md lists its paths")
        })
        .method_not_allowed_fallback(async || {
            let what = "this path does not take this method";
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, what).hint("docs/api.md lists them")
        })
        .layer(from_fn_with_state(app.clone(), door::meet))
        .layer(from_fn_with_state(app.clone(), guard::guard))
        .with_state(app)
}
