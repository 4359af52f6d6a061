//! Lists as JSON lines, written as they are read.

use super::types::LINES;
use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::convert::Infallible;

/// Objects that are written in one piece.
const PIECE: usize = 256;

/// One object a line.
pub(super) fn lines<T: Serialize + Send + 'static>(items: Vec<T>) -> Response {
    let mut items = items.into_iter();
    let pieces = std::iter::from_fn(move || {
        let mut piece = Vec::new();
        for item in items.by_ref().take(PIECE) {
            line(&mut piece, &item);
        }
        (!piece.is_empty()).then(|| Ok::<_, Infallible>(Bytes::from(piece)))
    });
    let body = Body::from_stream(tokio_stream::iter(pieces));
    ([(CONTENT_TYPE, LINES)], body).into_response()
}

/// Adds one line.
pub(super) fn line<T: Serialize>(to: &mut Vec<u8>, item: &T) {
    serde_json::to_writer(&mut *to, item).expect("views can always be written as JSON");
    to.push(b'\n');
}
