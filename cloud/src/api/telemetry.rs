//! What nodes measured of themselves.

use super::error::{ApiError, Asked, Named};
use super::lists::lines;
use super::{Shared, find};
use crate::clock;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{Json, Response};
use serde::{Deserialize, Serialize};
use shared::telemetry::Key;
use shared::telemetry::query::{Answer, Query};
use shared::time::{Span, Unix};
use std::collections::BTreeMap;

/// Without `since`.
const HOUR_MS: i64 = 3_600_000;

/// Which values.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Names of series or beginnings of names of metrics, with commas between.
    metric: Option<String>,
    /// Milliseconds since 1970.
    since: Option<i64>,
    until: Option<i64>,
    /// Milliseconds.
    step: Option<u64>,
}

fn unreadable(why: String) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why)
}

/// GET /nodes/{node}/telemetry
pub(super) async fn query(
    State(app): Shared,
    Named(node): Named<String>,
    Asked(which): Asked<Which>,
) -> Result<Json<Answer>, ApiError> {
    let node = find::node(&app, &node).await?;
    let now = clock::wall().0;
    let until = which.until.unwrap_or(i64::MAX);
    let since = which
        .since
        .unwrap_or_else(|| now.min(until).saturating_sub(HOUR_MS));
    if since >= until {
        let what = "no time lies between since and until";
        return Err(ApiError::malformed(what).hint("both are milliseconds since 1970"));
    }
    let metrics = which.metric.unwrap_or_default();
    let query = Query {
        metrics: metrics
            .split(',')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
        since: Unix(since),
        until: Unix(until),
        step: Span(which.step.unwrap_or(0)),
    };
    let answer = app.telemetry.query(node.id, query).await;
    answer.map(Json).map_err(unreadable)
}

/// GET /nodes/{node}/telemetry/gaps
pub(super) async fn gaps(
    State(app): Shared,
    Named(node): Named<String>,
) -> Result<Response, ApiError> {
    let node = find::node(&app, &node).await?;
    let missing = app.telemetry.missing(node.id).await;
    missing.map(lines).map_err(unreadable)
}

/// The newest sample of a node.
#[derive(Debug, Serialize, Deserialize)]
pub struct Newest {
    /// When, as the node's wall clock had it.
    pub at: Unix,
    /// When it arrived here.
    pub received: Unix,
    /// Number of the node's boot.
    pub boot: u32,
    /// The node's last fact then.
    pub fact: u64,
    /// Values by series.
    pub values: BTreeMap<String, i64>,
}

/// GET /nodes/{node}/telemetry/newest: null if there is none.
pub(super) async fn newest(
    State(app): Shared,
    Named(node): Named<String>,
) -> Result<Json<Option<Newest>>, ApiError> {
    let node = find::node(&app, &node).await?;
    let newest = app.telemetry.newest(node.id).await.map_err(unreadable)?;
    let values = |values: Vec<(Key, i64)>| {
        let named = values.into_iter();
        named.map(|(key, value)| (key.to_string(), value)).collect()
    };
    Ok(Json(newest.map(|newest| Newest {
        at: newest.wall,
        received: newest.received,
        boot: newest.at.boot,
        fact: newest.fact,
        values: values(newest.values),
    })))
}
