//! Nodes, and what waits for a person.

use super::authority;
use super::error::{ApiError, Asked, Body, Named, to_the_end};
use super::lists::lines;
use super::types::Ask;
use super::{Shared, find};
use crate::app::App;
use crate::clock;
use crate::revoked;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{Json, Response};
use cloud_core::event::{Reply, Request};
use cloud_core::view::{Node, Wait};
use serde::Deserialize;
use shared::ids::NodeId;
use shared::state::NodeState;
use shared::time::Unix;
use std::sync::Arc;

/// GET /nodes
pub(super) async fn list(State(app): Shared) -> Result<Response, ApiError> {
    match app.engine.ask(Request::Nodes).await? {
        Reply::Nodes(nodes) => Ok(lines(nodes)),
        other => Err(ApiError::odd(&other)),
    }
}

/// GET /nodes/{node}
pub(super) async fn get(
    State(app): Shared,
    Named(node): Named<String>,
) -> Result<Json<Node>, ApiError> {
    find::node(&app, &node).await.map(Json)
}

/// POST /nodes/{node}/forget
pub(super) async fn forget(
    State(app): Shared,
    Named(name): Named<String>,
    Body(Ask { by, .. }): Body<Ask>,
) -> Result<Json<Node>, ApiError> {
    to_the_end(forget_now(app, name, by)).await
}

async fn forget_now(app: Arc<App>, name: String, by: String) -> Result<Json<Node>, ApiError> {
    let node = find::node(&app, &name).await?;
    let request = Request::ForgetNode {
        node: node.id,
        by: by.clone(),
    };
    let forgotten = changed(&app, request, node.id).await?;
    let entry = revoked::Entry {
        node: node.id,
        name: node.name,
        key: node.certificate.map(|known| known.key),
        at: clock::wall(),
        why: format!("the node was declared gone by {by}"),
        gone: Some(by),
        let_in: false,
    };
    revoked::keep(&app, entry).await.map_err(|error| {
        let what = format!(
            "node {name} is declared gone, but an older copy of the store would let it in again: \
             the list of revocations cannot be written: {error}"
        );
        let hint = "mend that (is the disk full?) and repeat the command";
        ApiError::new(StatusCode::INSUFFICIENT_STORAGE, what).hint(hint)
    })?;
    Ok(forgotten)
}

/// POST /nodes/{node}/release
pub(super) async fn release(
    State(app): Shared,
    Named(name): Named<String>,
    Body(Ask { by, .. }): Body<Ask>,
) -> Result<Json<Node>, ApiError> {
    let node = find::node(&app, &name).await?;
    let request = Request::ReleaseQuarantine { node: node.id, by };
    changed(&app, request, node.id).await
}

/// POST /nodes/{node}/gone
pub(super) async fn gone(
    State(app): Shared,
    Named(name): Named<String>,
    Body(Ask { by, .. }): Body<Ask>,
) -> Result<Json<Node>, ApiError> {
    let node = find::node(&app, &name).await?;
    let request = Request::AcceptGone {
        node: Some(node.id),
        by,
    };
    changed(&app, request, node.id).await
}

/// Asks for a change of a node; what it is afterwards.
pub(super) async fn changed(
    app: &App,
    request: Request,
    node: NodeId,
) -> Result<Json<Node>, ApiError> {
    match app.engine.ask(request).await? {
        Reply::Done => find::node(app, &node.to_string()).await.map(Json),
        other => Err(ApiError::odd(&other)),
    }
}

/// Which waits.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoQuery {}

/// GET /waits
pub(super) async fn waits(
    State(app): Shared,
    Asked(NoQuery {}): Asked<NoQuery>,
) -> Result<Response, ApiError> {
    match app.engine.ask(Request::Waits).await? {
        Reply::Waits(mut waits) => {
            waits.extend(shut_out(&app).await?);
            waits.extend(authority::waits(&app).await?);
            waits.sort_by_key(|wait| wait.since.0);
            Ok(lines(waits))
        }
        other => Err(ApiError::odd(&other)),
    }
}

/// Nodes whose certificate expired so long ago that they may not renew it.
async fn shut_out(app: &App) -> Result<Vec<Wait>, ApiError> {
    let nodes = match app.engine.ask(Request::Nodes).await? {
        Reply::Nodes(nodes) => nodes,
        other => return Err(ApiError::odd(&other)),
    };
    let grace = i64::try_from(app.lives.grace.0).unwrap_or(i64::MAX);
    let now = clock::wall();
    let wait = |node: Node| {
        let until = node.certificate?.until;
        let since = Unix(until.0.saturating_add(grace));
        (since < now).then(|| Wait {
            run: None,
            task: None,
            what: format!("its certificate expired on {until}, too long ago to be renewed"),
            since,
            command: Some(format!("driftless token create --replace {}", node.name)),
            node: Some(node.name),
        })
    };
    let here = |node: &Node| node.state != NodeState::Forgotten.text();
    Ok(nodes.into_iter().filter(here).filter_map(wait).collect())
}
