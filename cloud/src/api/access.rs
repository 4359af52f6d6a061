//! Access tokens, and the record of what was done with them.

use super::error::{ApiError, Asked, Body, Named};
use super::lists::lines;
use super::types::{Ask, GivenAccess, NewAccess, Revoked};
use super::{Shared, find};
use crate::clock;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use certs::AccessToken;
use cloud_core::access::Role;
use cloud_core::event::{Refused, Reply, Request};
use serde::Deserialize;
use shared::time::{Span, Unix};

/// Longest life of a token that has an end.
const LIFE_MAX: Span = Span::secs(10 * 365 * 86_400);

/// GET /access
pub(super) async fn list(State(app): Shared) -> Result<Response, ApiError> {
    match app.engine.ask(Request::Access).await? {
        Reply::Access(tokens) => Ok(lines(tokens)),
        other => Err(ApiError::odd(&other)),
    }
}

/// POST /access
pub(super) async fn create(
    State(app): Shared,
    Body(NewAccess {
        name,
        role,
        expires_in_ms,
        by,
    }): Body<NewAccess>,
) -> Result<Response, ApiError> {
    certs::check_name(&name).map_err(|error| ApiError::malformed(error.to_string()))?;
    let Some(role) = Role::from_text(&role) else {
        let names: Vec<&str> = Role::ALL.iter().map(|role| role.text()).collect();
        let what = format!("'{role}' is no role");
        return Err(ApiError::malformed(what).hint(format!("one of {}", names.join(", "))));
    };
    let life = expires_in_ms.map(Span);
    if let Some(life) = life.filter(|life| life.0 == 0 || *life > LIFE_MAX) {
        let what = format!("an access token cannot be good for {life}");
        return Err(ApiError::malformed(what).hint(format!("at most {LIFE_MAX}")));
    }
    let expires = life.map(|life| Unix(clock::wall().0.saturating_add(life.0 as i64)));
    let token = AccessToken::create();
    let request = Request::AddAccess {
        name: name.clone(),
        role,
        id: token.id(),
        hash: token.hash(),
        expires,
        by,
    };
    match app.engine.ask(request).await? {
        Reply::Done => {
            let given = GivenAccess {
                token: token.text(),
                name,
                role,
                id: token.id(),
                expires,
            };
            Ok((StatusCode::CREATED, Json(given)).into_response())
        }
        other => Err(ApiError::odd(&other)),
    }
}

/// POST /access/{name}/revoke
pub(super) async fn revoke(
    State(app): Shared,
    Named(name): Named<String>,
    Body(Ask { by, .. }): Body<Ask>,
) -> Result<Json<Revoked>, ApiError> {
    let request = Request::RevokeAccess {
        name: name.clone(),
        by,
    };
    match app.engine.ask(request).await? {
        Reply::Done => Ok(Json(Revoked { revoked: name })),
        Reply::Refused(refused @ Refused::NotFound { .. }) => {
            Err(find::no_access(&app, &name, refused).await)
        }
        other => Err(ApiError::odd(&other)),
    }
}

/// Which entries.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

/// GET /audit
pub(super) async fn audit(
    State(app): Shared,
    Asked(Which { mut after, limit }): Asked<Which>,
) -> Result<Response, ApiError> {
    let (mut found, limit) = (Vec::new(), limit.unwrap_or(usize::MAX));
    while found.len() < limit {
        let wanted = limit - found.len();
        let request = Request::Audit {
            after,
            limit: wanted,
        };
        let entries = match app.engine.ask(request).await? {
            Reply::Audit(entries) => entries,
            other => return Err(ApiError::odd(&other)),
        };
        let Some(last) = entries.last() else { break };
        after = last.number;
        found.extend(entries);
    }
    Ok(lines(found))
}
