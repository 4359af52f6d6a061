//! Files by content: sent along with submissions, written by tasks for other nodes.

use super::Shared;
use super::error::{ApiError, Named};
use super::types::BYTES;
use crate::app::App;
use crate::room;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use cloud_core::event::Input;
use contents::{Begin, FilesError, Reader, Writer};
use shared::ids::Hash;
use std::io;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

/// Bytes that are read at once.
const BLOCK: usize = 256 * 1024;
/// Longest time in which nothing of a file comes.
const PIECE_TIME: Duration = Duration::from_secs(30);

impl From<FilesError> for ApiError {
    fn from(error: FilesError) -> Self {
        let status = match &error {
            FilesError::Missing(_) => StatusCode::NOT_FOUND,
            FilesError::NoRoom { .. } => StatusCode::INSUFFICIENT_STORAGE,
            FilesError::Busy(_) => StatusCode::CONFLICT,
            FilesError::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        let room = status == StatusCode::INSUFFICIENT_STORAGE;
        let error = Self::new(status, crate::sessions::chain(&error));
        if room {
            error.hint(
                "what is there is needed by runs that are not over, or has just been sent: \
                 `driftless serve --file-budget SIZE` allows more",
            )
        } else {
            error
        }
    }
}

fn hash(text: &str) -> Result<Hash, ApiError> {
    text.parse()
        .map_err(|error| ApiError::malformed(format!("'{text}' names no file: {error}")))
}

/// Work on the disk, beside the threads that serve requests.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FilesError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|_| ApiError::from(crate::host::Stopping))??)
}

/// GET (and HEAD) /files/{hash}
pub(super) async fn get(
    State(app): Shared,
    method: Method,
    Named(name): Named<String>,
) -> Result<Response, ApiError> {
    let (hash, files) = (hash(&name)?, app.files.clone());
    let reader = blocking(move || files.open_read(hash, 0)).await?;
    let headers = [
        (CONTENT_TYPE, BYTES.to_owned()),
        (CONTENT_LENGTH, reader.size().to_string()),
    ];
    if method == Method::HEAD {
        return Ok(headers.into_response());
    }
    let (to, from) = mpsc::channel(2);
    tokio::spawn(send(reader, to));
    Ok((headers, Body::from_stream(ReceiverStream::new(from))).into_response())
}

/// Reads the file into the answer until it ends or nobody listens. A thread is used for a block at
/// a time: whoever takes the file slowly keeps none from others.
async fn send(mut reader: Reader, to: mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let mut block = vec![0; BLOCK];
            let read = reader.read(&mut block);
            read.map(|n| {
                block.truncate(n);
                (reader, Bytes::from(block))
            })
        });
        let (next, block) = match read.await {
            Ok(Ok((_, block))) if block.is_empty() => return,
            Ok(Ok((next, block))) => (next, block),
            Ok(Err(error)) => {
                // whoever listens sees that the answer breaks off
                let _ = to.send(Err(io::Error::other(error))).await;
                return;
            }
            Err(_) => return,
        };
        if to.send(Ok(block)).await.is_err() {
            return;
        }
        reader = next;
    }
}

/// PUT /files/{hash}
pub(super) async fn put(
    State(app): Shared,
    Named(name): Named<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let hash = hash(&name)?;
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let Some(size) = length else {
        let what = "a file needs a Content-Length";
        return Err(ApiError::new(StatusCode::LENGTH_REQUIRED, what));
    };
    room::make(&app, hash, size).await;
    let files = app.files.clone();
    let status = match blocking(move || files.begin_write(hash, size)).await? {
        Begin::Complete => StatusCode::OK,
        Begin::From(writer) => {
            receive(writer, body).await?;
            StatusCode::CREATED
        }
    };
    stored(&app, hash, size).await?;
    Ok(status)
}

async fn stored(app: &App, hash: Hash, size: u64) -> Result<(), ApiError> {
    Ok(app.engine.tell(Input::FileStored { hash, size }).await?)
}

/// Stores the body. What an earlier, broken upload left is passed over, not sent again by half.
async fn receive(mut writer: Box<Writer>, body: Body) -> Result<(), ApiError> {
    let mut skip = writer.offset();
    let mut stream = body.into_data_stream();
    loop {
        let next = tokio::time::timeout(PIECE_TIME, stream.next()).await;
        let next = next.map_err(|_| {
            let what = format!("nothing of the file came for {} s", PIECE_TIME.as_secs());
            ApiError::new(StatusCode::REQUEST_TIMEOUT, what)
        })?;
        let Some(piece) = next else { break };
        let mut piece =
            piece.map_err(|error| ApiError::malformed(format!("the upload broke off: {error}")))?;
        let known = skip.min(piece.len() as u64);
        skip -= known;
        let piece = piece.split_off(known as usize);
        if !piece.is_empty() {
            writer = blocking(move || {
                writer.append(&piece)?;
                Ok(writer)
            })
            .await?;
        }
    }
    blocking(move || writer.finish()).await
}
