//! Errors of the API, and extractors whose refusals are such errors.

use super::types::Problem;
use crate::host::{Stopping, unexpected};
use axum::body::{Bytes, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Json, Response};
use cloud_core::event::{Refused, Reply};
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Longest time for a body.
const BODY_TIME: Duration = Duration::from_secs(30);

/// Why a request was not honoured.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    problem: Problem,
}

impl ApiError {
    /// What happened, and where.
    pub(super) fn new(status: StatusCode, what: impl Into<String>) -> Self {
        Self {
            status,
            problem: Problem {
                error: what.into(),
                hint: None,
            },
        }
    }

    /// The request is malformed.
    pub(super) fn malformed(what: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, what)
    }

    /// Nothing of that name.
    pub(super) fn not_found(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, what)
    }

    /// What to do.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.problem.hint = Some(hint.into());
        self
    }

    /// An answer that does not belong to the question.
    pub(super) fn odd(reply: &Reply) -> Self {
        match reply {
            Reply::Refused(refused) => refused.clone().into(),
            other => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                unexpected(other).to_string(),
            ),
        }
    }
}

/// Goes on with `work` to its end although whoever asked for it goes away: its steps belong
/// together, and a handler is dropped with its connection.
pub(super) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    let broken = |_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the request broke off");
    tokio::spawn(work).await.map_err(broken)?
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.problem)).into_response()
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let status = match &refused {
            Refused::NotFound { .. } => StatusCode::NOT_FOUND,
            Refused::Malformed(_) => StatusCode::BAD_REQUEST,
            Refused::Forgotten { .. } => StatusCode::GONE,
            Refused::NoRoom(_) => StatusCode::INSUFFICIENT_STORAGE,
            Refused::Token(_) | Refused::NameTaken(_) | Refused::State(_) => StatusCode::CONFLICT,
        };
        Self::new(status, refused.to_string())
    }
}

impl From<Stopping> for ApiError {
    fn from(stopping: Stopping) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, stopping.to_string()).hint("try again later")
    }
}

/// A JSON body; unknown fields are refused. An empty one is an object without any field.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Raw::from_request(request, state).await?.0;
        let object: &[u8] = match bytes.is_empty() {
            true => b"{}",
            false => &bytes,
        };
        serde_json::from_slice(object).map(Self).map_err(|error| {
            ApiError::malformed(format!("the body cannot be read: {error}"))
                .hint("send one JSON object with the fields of docs/api.md")
        })
    }
}

/// Most bytes of a route's body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit(pub(super) usize);

/// The body's bytes within the route's [`Limit`]. One that is announced too large is refused before
/// any of it is asked for.
#[derive(Debug)]
pub(super) struct Raw(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Raw {
    type Rejection = ApiError;
    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let limit = request.extensions().get().map_or(0, |Limit(limit)| *limit);
        let length = request.headers().get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if length.is_some_and(|length| length > limit) {
            return Err(too_large(limit));
        }
        let body = tokio::time::timeout(BODY_TIME, to_bytes(request.into_body(), limit)).await;
        let body = body.map_err(|_| {
            let what = format!("the body did not come within {} s", BODY_TIME.as_secs());
            Self::Rejection::new(StatusCode::REQUEST_TIMEOUT, what)
        })?;
        body.map(Self).map_err(|error| {
            if length.is_none() {
                too_large(limit)
            } else {
                ApiError::malformed(format!("the body broke off: {error}"))
            }
        })
    }
}

fn too_large(limit: usize) -> ApiError {
    let what = format!("the body is cut off or has more than {limit} bytes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, what)
}

/// The names in the path.
#[derive(Debug)]
pub(super) struct Named<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(names)) => Ok(Self(names)),
            Err(error) => Err(ApiError::malformed(format!(
                "the path cannot be read: {}",
                error.body_text()
            ))),
        }
    }
}

/// The query; unknown fields are refused.
#[derive(Debug)]
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(query)) => Ok(Self(query)),
            Err(error) => Err(ApiError::malformed(format!(
                "the query cannot be read: {error}"
            ))),
        }
    }
}
