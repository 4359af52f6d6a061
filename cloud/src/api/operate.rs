//! What people do with nodes: keep work off them, empty them, label and taint them.

use super::error::{ApiError, Body, Named};
use super::nodes::changed;
use super::types::{Ask, Labels, Taints};
use super::{Shared, find};
use crate::app::App;
use axum::extract::State;
use axum::response::Json;
use cloud_core::change::NodeChange;
use cloud_core::event::{Reply, Request};
use cloud_core::view::{Node, NodeWork, SyncStatus};
use shared::taint::{self, Taint};

/// Bytes of a label's name, and of its value.
const LABEL: (usize, usize) = (128, 1024);

async fn change(
    app: &App,
    name: &str,
    by: String,
    change: NodeChange,
) -> Result<Json<Node>, ApiError> {
    let node = find::node(app, name).await?.id;
    changed(app, Request::ChangeNode { node, change, by }, node).await
}

/// POST /nodes/{node}/cordon
pub(super) async fn cordon(
    State(app): Shared,
    Named(name): Named<String>,
    Body(Ask { by, .. }): Body<Ask>,
) -> Result<Json<Node>, ApiError> {
    change(&app, &name, by, NodeChange::Cordon).await
}

/// POST /nodes/{node}/uncordon
pub(super) async fn uncordon(
    State(app): Shared,
    Named(name): Named<String>,
    Body(Ask { by, .. }): Body<Ask>,
) -> Result<Json<Node>, ApiError> {
    change(&app, &name, by, NodeChange::Uncordon).await
}

/// POST /nodes/{node}/drain
pub(super) async fn drain(
    State(app): Shared,
    Named(name): Named<String>,
    Body(Ask { by, .. }): Body<Ask>,
) -> Result<Json<Node>, ApiError> {
    let node = find::node(&app, &name).await?.id;
    let on = true;
    changed(&app, Request::Drain { node, on, by }, node).await
}

/// POST /nodes/{node}/labels
pub(super) async fn labels(
    State(app): Shared,
    Named(name): Named<String>,
    Body(Labels { by, set }): Body<Labels>,
) -> Result<Json<Node>, ApiError> {
    for (label, value) in &set {
        let long = label.len() > LABEL.0 || value.as_ref().is_some_and(|v| v.len() > LABEL.1);
        let plain = |text: &str| !text.chars().any(char::is_control);
        if label.is_empty() || long || !plain(label) || !value.iter().all(|v| plain(v)) {
            let what = format!("'{}' is no label", label.escape_debug());
            return Err(ApiError::malformed(what).hint("KEY=VALUE, or KEY- to take it away"));
        }
        if label.starts_with(taint::LABEL) {
            let what = format!("labels that begin with {} are taints", taint::LABEL);
            return Err(ApiError::malformed(what).hint("use `driftless node taint`"));
        }
    }
    change(&app, &name, by, NodeChange::Label(set)).await
}

/// POST /nodes/{node}/taints
pub(super) async fn taints(
    State(app): Shared,
    Named(name): Named<String>,
    Body(Taints { by, add, remove }): Body<Taints>,
) -> Result<Json<Node>, ApiError> {
    let parsed: Result<Vec<Taint>, _> = add.iter().map(|text| text.parse()).collect();
    let add = parsed.map_err(|error| ApiError::malformed(error.to_string()))?;
    change(&app, &name, by, NodeChange::Taint { add, remove }).await
}

/// GET /nodes/{node}/work
pub(super) async fn work(
    State(app): Shared,
    Named(name): Named<String>,
) -> Result<Json<NodeWork>, ApiError> {
    let name = find::node(&app, &name).await?.id.to_string();
    match app.engine.ask(Request::NodeWork { name }).await? {
        Reply::NodeWork(work) => Ok(Json(*work)),
        other => Err(ApiError::odd(&other)),
    }
}

/// GET /nodes/{node}/sync
pub(super) async fn sync(
    State(app): Shared,
    Named(name): Named<String>,
) -> Result<Json<SyncStatus>, ApiError> {
    let name = find::node(&app, &name).await?.id.to_string();
    match app.engine.ask(Request::SyncStatus { name }).await? {
        Reply::SyncStatus(status) => Ok(Json(*status)),
        other => Err(ApiError::odd(&other)),
    }
}
