//! Keeps web pages out: a browser on this machine must not be made to steer the coordinator.
//!
//! Without tokens the API trusts whoever reaches it on loopback, which is any local program, but
//! not any web page that a local browser shows. Such a page gives itself away by an `Origin`, or by
//! a `Host` that is a name which it made point here.

use super::door::Door;
use super::error::ApiError;
use crate::app::App;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;

pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let open = matches!(app.door, Door::Open);
    match judge(request.headers(), open) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn judge(headers: &HeaderMap, loopback: bool) -> Result<(), ApiError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    if let Some(origin) = text(header::ORIGIN)
        && origin.split_once("://").map(|(_, rest)| rest) != Some(host)
    {
        let what = format!("a page of {origin} may not use this API");
        return Err(ApiError::new(StatusCode::FORBIDDEN, what)
            .hint("use `driftless`, or a program outside of a browser"));
    }
    if loopback && !is_local(host) {
        let what = format!("this API is not reached as '{host}'");
        return Err(ApiError::new(StatusCode::FORBIDDEN, what)
            .hint("use its address (127.0.0.1:PORT or localhost:PORT)"));
    }
    Ok(())
}

/// Whether a `Host` names this machine without the help of a name server.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    host.is_empty() || name == "localhost" || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(host: &str, origin: Option<&str>, loopback: bool) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        judge(&headers, loopback).is_ok()
    }

    #[test]
    fn web_pages_are_kept_out_and_programs_are_not() {
        assert!(passes("127.0.0.1:4480", None, true));
        assert!(passes("localhost:4480", None, true));
        assert!(passes("[::1]:4480", None, true));
        assert!(passes(
            "127.0.0.1:4480",
            Some("http://127.0.0.1:4480"),
            true
        ));
        assert!(!passes(
            "127.0.0.1:4480",
            Some("https://evil.example"),
            true
        ));
        assert!(!passes("127.0.0.1:4480", Some("null"), true));
        assert!(!passes("evil.example:4480", None, true));
        assert!(passes("coordinator.lan:4480", None, false));
    }
}
