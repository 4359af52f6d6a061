//! Backups: streamed to whoever asks, and counted once they say that it is in its place.

use super::Shared;
use super::error::{ApiError, Asked, Body as Sent, Named};
use super::runs::{By, bounded};
use super::types::{self, BACKUP_ID, BYTES};
use crate::app::App;
use crate::backup::{self, BackupError, Source, Written};
use crate::host::unexpected;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Json, Response};
use cloud_core::event::{Reply, Request};
use cloud_store::snapshot::{Closing, Snapshot};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

/// Backups that were streamed and wait to be counted.
const WAITING: usize = 8;
/// Bytes that are sent at once.
const BLOCK: usize = 256 * 1024;
/// While a block waits to be taken it is looked so often whether the store is to be closed.
const LOOK: Duration = Duration::from_millis(100);
/// Backups that are streamed at once: each holds a thread for as long as it is taken.
const STREAMS_AT_ONCE: usize = 4;
static STREAMS: Semaphore = Semaphore::const_new(STREAMS_AT_ONCE);

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
    runtime: Handle,
    closing: Closing,
}

impl Answer {
    /// Sends a block; gives up while nobody takes it when the store is to be closed, which waits
    /// for the end of what is read of it.
    async fn send(&self, block: Bytes) -> io::Result<()> {
        loop {
            let place = tokio::time::timeout(LOOK, self.to.reserve()).await;
            match place {
                Ok(Ok(place)) => {
                    place.send(Ok(block));
                    return Ok(());
                }
                Ok(Err(_)) => return Err(io::Error::from(io::ErrorKind::BrokenPipe)),
                Err(_) if self.closing.is_set() => {
                    let text =
                        "the coordinator stops or starts over, and nobody takes what it says";
                    return Err(io::Error::other(text));
                }
                Err(_) => {}
            }
        }
    }
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
        match block.is_empty() {
            true => Ok(()),
            false => self.runtime.block_on(self.send(block.into())),
        }
    }
}

/// Reads everything of the running coordinator.
///
/// # Errors
/// [`BackupError`].
pub(crate) fn of_running<W: Write>(app: &App, out: W) -> Result<(W, Written), BackupError> {
    of_state(app, app.snapshots.take()?, out)
}

fn of_state<W: Write>(app: &App, snapshot: Snapshot, out: W) -> Result<(W, Written), BackupError> {
    let still = app.authorities.still();
    let source = Source {
        snapshot,
        files: &app.files,
        authority: app.authorities.dir(),
        fingerprint: app.authorities.known().present.fingerprint().to_string(),
        still: Some(still),
        at: crate::clock::wall(),
    };
    backup::write(source, out, &mut |_| {})
}

/// GET /backup
pub(super) async fn stream(
    State(app): Shared,
    Asked(By { by }): Asked<By>,
) -> Result<Response, ApiError> {
    bounded(&[("by", &by)])?;
    let permit = STREAMS.try_acquire().map_err(|_| {
        let what = format!("{STREAMS_AT_ONCE} backups are taken just now");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, what).hint("try again later")
    })?;
    let id = app.streamed.number();
    // the keys of the fleet are in it: that somebody takes them is on record before they leave
    let taken = Request::BackupTaken {
        number: id.to_string(),
        by,
    };
    match app.engine.ask(taken).await? {
        Reply::Done => {}
        other => return Err(ApiError::odd(&other)),
    }
    let snapshot = app.snapshots.take().map_err(|error| {
        let what = format!("the store cannot be read just now: {error}");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, what).hint("try again")
    })?;
    let (to, from) = mpsc::channel(4);
    let answer = Answer {
        to,
        block: Vec::new(),
        runtime: Handle::current(),
        closing: snapshot.closing(),
    };
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let to = answer.to.clone();
        match of_state(&app, snapshot, answer) {
            Ok((_, written)) => app.streamed.keep(id, written),
            // `journal export` reads no further than it needs
            Err(error) if is_gone(&error) => {
                tracing::debug!(id, "whoever took a backup wanted no more of it");
            }
            Err(error) => {
                tracing::warn!(id, %error, "a backup was not made");
                // Whoever listens sees that the answer breaks off.
                let _ = to.try_send(Err(io::Error::other(error)));
            }
        }
    });
    let headers = [
        (CONTENT_TYPE.as_str(), BYTES.to_owned()),
        (BACKUP_ID, id.to_string()),
    ];
    Ok((headers, Body::from_stream(ReceiverStream::new(from))).into_response())
}

fn is_gone(error: &BackupError) -> bool {
    matches!(error, BackupError::Io(_, why) if why.kind() == io::ErrorKind::BrokenPipe)
}

/// Counts a backup that is in its place: what it holds is safe from now on.
///
/// # Errors
/// [`BackupError`].
pub(crate) async fn count(
    app: &App,
    written: Written,
    place: String,
    by: String,
) -> Result<(), BackupError> {
    let request = Request::BackupDone {
        at: written.at,
        place,
        cursors: written.cursors,
        by,
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
    Named(id): Named<u64>,
    Asked(By { by }): Asked<By>,
    Sent(placed): Sent<types::Placed>,
) -> Result<Json<types::Backup>, ApiError> {
    bounded(&[("by", &by)])?;
    let written = app.streamed.take(id).ok_or_else(|| {
        let what = format!("no backup {id} waits to be counted");
        ApiError::new(StatusCode::NOT_FOUND, what).hint("make another one")
    })?;
    let at = written.at;
    let place = placed.place.chars().take(1000).collect::<String>();
    let counted = count(&app, written, place.clone(), by).await;
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
