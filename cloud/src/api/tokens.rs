//! The tokens that let nodes join.

use super::Shared;
use super::error::{ApiError, Asked, Body, Named};
use super::lists::lines;
use super::runs::{By, bounded};
use super::types::{Ask, NewToken, Token};
use crate::app::App;
use crate::clock;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use cloud_core::event::{Reply, Request};
use cloud_core::view;
use shared::codec;
use shared::time::{Span, Unix};

/// A token that nobody gave a time.
const TOKEN_LIFE: Span = Span::secs(3600);
/// Longest life of a token.
const TOKEN_LIFE_MAX: Span = Span::secs(365 * 86_400);

/// POST /tokens
pub(super) async fn create(
    State(app): Shared,
    Asked(By { by }): Asked<By>,
    Body(NewToken {
        name,
        expires_in_ms,
        replace,
    }): Body<NewToken>,
) -> Result<Response, ApiError> {
    bounded(&[("by", &by)])?;
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
    let fingerprint = app.authorities.known().present.fingerprint();
    let (token, record) = certs::Token::create(fingerprint, expires, name.clone(), replace);
    let id = record.id.to_string();
    let request = Request::AddToken {
        record: codec::encode(&record),
        id: id.clone(),
        name: name.clone(),
        replace,
        expires,
        by,
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

/// GET /tokens
pub(super) async fn list(State(app): Shared) -> Result<Response, ApiError> {
    all(&app).await.map(lines)
}

async fn all(app: &App) -> Result<Vec<view::Token>, ApiError> {
    match app.engine.ask(Request::Tokens).await? {
        Reply::Tokens(tokens) => Ok(tokens),
        other => Err(ApiError::odd(&other)),
    }
}

/// The one token whose id is, or begins with, `text`.
async fn find(app: &App, text: &str) -> Result<view::Token, ApiError> {
    let tokens = all(app).await?;
    let mut found = tokens
        .into_iter()
        .filter(|token| token.id.starts_with(text));
    match (found.next(), found.next()) {
        (Some(one), None) if !text.is_empty() => Ok(one),
        (None, _) => Err(ApiError::not_found(format!("no token '{text}'"))
            .hint("`driftless token list` shows their ids")),
        _ => {
            let what = format!("several tokens begin with '{text}'");
            Err(ApiError::new(StatusCode::CONFLICT, what).hint("write more of its id"))
        }
    }
}

/// POST /tokens/{token}/revoke
pub(super) async fn revoke(
    State(app): Shared,
    Named(token): Named<String>,
    Body(Ask { by, .. }): Body<Ask>,
) -> Result<Json<view::Token>, ApiError> {
    let id = find(&app, &token).await?.id;
    let request = Request::RevokeToken { id: id.clone(), by };
    match app.engine.ask(request).await? {
        Reply::Done => find(&app, &id).await.map(Json),
        other => Err(ApiError::odd(&other)),
    }
}
