//! The HTTP JSON API, under `/v1`: `docs/api.md` describes it. Every answer comes from committed
//! state.
//!
//! Invariant: whatever is wrong with a request is answered with a status and a [`types::Problem`],
//! and changes nothing.

mod error;
mod files;
mod find;
mod guard;
mod lists;
mod logs;
mod nodes;
mod people;
mod runs;
mod suggest;
mod tokens;
pub mod types;
mod watch;

use crate::app::App;
use axum::Router;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json};
use axum::routing::{get, post};
use error::{ApiError, Limit};
use shared::limits::ENTRY_BYTES;
use std::sync::Arc;

type Shared = State<Arc<App>>;

/// All routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    let small = Extension(Limit(64 * 1024));
    let submit = post(runs::submit).layer(Extension(Limit(ENTRY_BYTES)));
    let v1 = Router::new()
        .route("/healthz", get(health))
        .route("/runs", get(runs::list).merge(submit))
        .route("/runs/{run}", get(runs::get))
        .route("/runs/{run}/cancel", post(runs::cancel))
        .route("/runs/{run}/pause", post(runs::pause))
        .route("/runs/{run}/resume", post(runs::resume))
        .route("/runs/{run}/workflow", get(runs::workflow))
        .route("/runs/{run}/tasks", get(runs::tasks))
        .route("/runs/{run}/tasks/{task}", get(runs::task))
        .route("/runs/{run}/tasks/{task}/explain", get(runs::explain))
        .route("/runs/{run}/tasks/{task}/answer", post(people::answer))
        .route("/runs/{run}/tasks/{task}/logs", get(logs::logs))
        .route("/nodes", get(nodes::list))
        .route("/nodes/{node}", get(nodes::get))
        .route("/nodes/{node}/forget", post(nodes::forget))
        .route("/nodes/{node}/release", post(nodes::release))
        .route("/nodes/{node}/gone", post(nodes::gone))
        .route("/tokens", get(tokens::list).post(tokens::create))
        .route("/tokens/{token}/revoke", post(tokens::revoke))
        .route("/waits", get(nodes::waits))
        .route("/files/{hash}", get(files::get).put(files::put))
        .route("/watch", get(watch::watch))
        .layer(small);
    Router::new()
        .nest("/v1", v1)
        .fallback(async || {
            let error = ApiError::new(StatusCode::NOT_FOUND, "there is nothing at this path");
            error.hint("the API is under /v1; docs/api.md lists its paths")
        })
        .method_not_allowed_fallback(async || {
            let what = "this path does not take this method";
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, what).hint("docs/api.md lists them")
        })
        .layer(axum::middleware::from_fn_with_state(
            app.clone(),
            guard::guard,
        ))
        .with_state(app)
}

async fn health(State(app): Shared) -> impl IntoResponse {
    Json(types::Health {
        status: "ok".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        listen: app.listen.to_string(),
    })
}
