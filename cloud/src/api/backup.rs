//! Backups: streamed to whoever asks, and counted once they say that it is in its place.

use super::Shared;
use super::error::{ApiError, Body as Asked};
use super::types::{self, BACKUP_ID, BYTES};
use crate::app::App;
use crate::backup::{self, BackupError, Source, Written};
use crate::host::unexpected;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Json, Response};
use cloud_core::event::{Reply, Request};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Backups that were streamed and wait to be counted.
const WAITING: usize = 8;
/// Bytes that are sent at once.
const BLOCK: usize = 256 * 1024;

/// Backups that were streamed, by number, until somebody says that they are in their place.
#[derive(Debug, Default)]
pub(crate) struct Streamed(Mutex<(u64, BTreeMap<u64, Written>)>);

impl Streamed {
    fn number(&self) -> u64 {
        let mut this = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        this.0 += 1;
        this.0
    }

    fn keep(&self, id: u64, written: Written) {
        let mut this = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        this.1.insert(id, written);
        while this.1.len() > WAITING {
            this.1.pop_first();
        }
    }

    fn take(&self, id: u64) -> Option<Written> {
        let mut this = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        this.1.remove(&id)
    }
}

/// Writes into the answer, in blocks.
struct Answer {
    to: mpsc::Sender<io::Result<Bytes>>,
    block: Vec<u8>,
}

impl Write for Answer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.block.extend_from_slice(bytes);
        if self.block.len() >= BLOCK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let block = std::mem::take(&mut self.block);
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        match block.is_empty() {
            true => Ok(()),
            false => self.to.blocking_send(Ok(block.into())).map_err(gone),
        }
    }
}

/// Reads everything of the running coordinator.
///
/// # Errors
/// [`BackupError`].
pub(crate) fn of_running<W: Write>(app: &App, out: W) -> Result<(W, Written), BackupError> {
    let snapshot = app.snapshots.take()?;
    let still = app.authorities.still();
    let source = Source {
        snapshot: &snapshot,
        files: &app.files,
        authority: app.authorities.dir(),
        fingerprint: app.authorities.known().present.fingerprint().to_string(),
        still: Some(still),
        at: crate::clock::wall(),
    };
    backup::write(source, out, &mut |_| {})
}

/// GET /backup
pub(super) async fn stream(State(app): Shared) -> Response {
    let id = app.streamed.number();
    let (to, from) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let block = Vec::new();
        let answer = Answer { to, block };
        let to = answer.to.clone();
        match of_running(&app, answer) {
            Ok((_, written)) => app.streamed.keep(id, written),
            Err(error) => {
                tracing::warn!(%error, "a backup was not made");
                // Whoever listens sees that the answer breaks off.
                let _ = to.blocking_send(Err(io::Error::other(error)));
            }
        }
    });
    let headers = [
        (CONTENT_TYPE.as_str(), BYTES.to_owned()),
        (BACKUP_ID, id.to_string()),
    ];
    (headers, Body::from_stream(ReceiverStream::new(from))).into_response()
}

/// Counts a backup that is in its place: what it holds is safe from now on.
///
/// # Errors
/// [`BackupError`].
pub(crate) async fn count(app: &App, written: Written, place: String) -> Result<(), BackupError> {
    let request = Request::BackupDone {
        at: written.at,
        place,
        cursors: written.cursors,
    };
    match app.engine.ask(request).await {
        Ok(Reply::Done) => Ok(()),
        Ok(Reply::Refused(refused)) => Err(BackupError::NotCounted(refused.to_string())),
        Ok(other) => Err(BackupError::NotCounted(unexpected(&other).to_string())),
        Err(_) => Err(BackupError::Stopping),
    }
}

/// POST /backup/{id}
pub(super) async fn placed(
    State(app): State<Arc<App>>,
    Path(id): Path<u64>,
    Asked(placed): Asked<types::Placed>,
) -> Result<Json<types::Backup>, ApiError> {
    let written = app.streamed.take(id).ok_or_else(|| {
        let what = format!("no backup {id} waits to be counted");
        ApiError::new(StatusCode::NOT_FOUND, what).hint("make another one")
    })?;
    let at = written.at;
    let place = placed.place.chars().take(1000).collect::<String>();
    let counted = count(&app, written, place.clone()).await;
    counted.map_err(|error| ApiError::new(StatusCode::CONFLICT, error.to_string()))?;
    Ok(Json(types::Backup {
        at: Some(at),
        place: Some(place),
    }))
}

/// GET /backup/newest
pub(super) async fn newest(State(app): Shared) -> Result<Json<types::Backup>, ApiError> {
    match app.engine.ask(Request::Backup).await? {
        Reply::Backup(newest) => {
            let (at, place) = newest.unzip();
            Ok(Json(types::Backup { at, place }))
        }
        other => Err(ApiError::odd(&other)),
    }
}
