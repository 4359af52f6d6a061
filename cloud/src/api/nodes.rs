//! Nodes, the tokens that let them join, and what waits for a person.

use super::error::{ApiError, Asked, Body};
use super::lists::lines;
use super::types::{Ask, NewToken, Token};
use super::{Shared, find};
use crate::app::App;
use crate::clock;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use cloud_core::event::{Reply, Request};
use cloud_core::view::Node;
use serde::Deserialize;
use shared::codec;
use shared::ids::NodeId;
use shared::time::{Span, Unix};

/// A token that nobody gave a time.
const TOKEN_LIFE: Span = Span::secs(3600);
/// Longest life of a token.
const TOKEN_LIFE_MAX: Span = Span::secs(365 * 86_400);

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
    Path(node): Path<String>,
) -> Result<Json<Node>, ApiError> {
    find::node(&app, &node).await.map(Json)
}

/// POST /nodes/{node}/forget
pub(super) async fn forget(
    State(app): Shared,
    Path(name): Path<String>,
    Body(Ask { by, .. }): Body<Ask>,
) -> Result<Json<Node>, ApiError> {
    let node = find::node(&app, &name).await?;
    let request = Request::ForgetNode { node: node.id, by };
    changed(&app, request, node.id).await
}

/// POST /nodes/{node}/release
pub(super) async fn release(
    State(app): Shared,
    Path(name): Path<String>,
    Body(Ask { by, .. }): Body<Ask>,
) -> Result<Json<Node>, ApiError> {
    let node = find::node(&app, &name).await?;
    let request = Request::ReleaseQuarantine { node: node.id, by };
    changed(&app, request, node.id).await
}

/// POST /nodes/{node}/gone
pub(super) async fn gone(
    State(app): Shared,
    Path(name): Path<String>,
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
async fn changed(app: &App, request: Request, node: NodeId) -> Result<Json<Node>, ApiError> {
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
            waits.sort_by_key(|wait| wait.since.0);
            Ok(lines(waits))
        }
        other => Err(ApiError::odd(&other)),
    }
}

/// POST /tokens
pub(super) async fn create_token(
    State(app): Shared,
    Body(NewToken {
        name,
        expires_in_ms,
        replace,
    }): Body<NewToken>,
) -> Result<Response, ApiError> {
    let life = expires_in_ms.map_or(TOKEN_LIFE, Span);
    if life.0 == 0 || life > TOKEN_LIFE_MAX {
        let what = format!("a token cannot be good for {life}");
        return Err(ApiError::malformed(what).hint(format!("at most {TOKEN_LIFE_MAX}")));
    }
    if let Some(name) = &name {
        certs::check_name(name).map_err(|error| ApiError::malformed(error.to_string()))?;
    }
    if replace && name.is_none() {
        let what = "a token that replaces a node must name it";
        return Err(ApiError::malformed(what));
    }
    let expires = Unix(clock::wall().0.saturating_add(life.0 as i64));
    let fingerprint = app.authority.fingerprint();
    let (token, record) = certs::Token::create(fingerprint, expires, name.clone(), replace);
    let id = record.id.to_string();
    let request = Request::AddToken {
        record: codec::encode(&record),
        id: id.clone(),
        name: name.clone(),
        replace,
        expires,
    };
    match app.engine.ask(request).await? {
        Reply::Done => {
            let listen = app.listen.to_string();
            let made = Token {
                token: token.text(),
                expires,
                id,
                name,
                replace,
                listen,
            };
            Ok((StatusCode::CREATED, Json(made)).into_response())
        }
        other => Err(ApiError::odd(&other)),
    }
}
