//! Watching runs: JSON lines as long as the watcher wants, a run a line when it changed.

use super::error::{ApiError, Asked};
use super::lists::line;
use super::types::{LINES, Watched};
use super::{Shared, find};
use crate::app::App;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use cloud_core::event::{Reply, Request};
use cloud_core::view::Run;
use serde::Deserialize;
use shared::ids::RunId;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

/// A line at least so often, so that both sides notice when the other is gone.
const BEAT: Duration = Duration::from_secs(1);
/// Changes within this time are told together.
const GATHER: Duration = Duration::from_millis(50);
/// A watch ends by itself after this time, and the watcher goes on with a new one.
const LENGTH: Duration = Duration::from_secs(50);
/// Watches at once.
static WATCHES: std::sync::LazyLock<Arc<Semaphore>> =
    std::sync::LazyLock::new(|| Arc::new(Semaphore::new(512)));

/// What is watched, from where on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct What {
    #[serde(default)]
    after: u64,
    run: Option<String>,
}

/// GET /watch
pub(super) async fn watch(
    State(app): Shared,
    Asked(what): Asked<What>,
) -> Result<Response, ApiError> {
    let run = match &what.run {
        Some(run) => Some(find::run(&app, run).await?),
        None => None,
    };
    let permit = watch_permit()?;
    let (to, from) = mpsc::channel(4);
    let watcher = Watcher {
        app,
        run,
        version: what.after,
        to,
        _permit: permit,
    };
    tokio::spawn(watcher.run());
    let body = Body::from_stream(ReceiverStream::new(from));
    Ok(([(CONTENT_TYPE, LINES)], body).into_response())
}

/// Leave to watch.
pub(super) fn watch_permit() -> Result<OwnedSemaphorePermit, ApiError> {
    WATCHES.clone().try_acquire_owned().map_err(|_| {
        let status = axum::http::StatusCode::SERVICE_UNAVAILABLE;
        ApiError::new(status, "too many watch at once").hint("try again later")
    })
}

struct Watcher {
    app: Arc<App>,
    run: Option<RunId>,
    version: u64,
    to: mpsc::Sender<Result<Bytes, Infallible>>,
    _permit: OwnedSemaphorePermit,
}

impl Watcher {
    async fn run(mut self) {
        let mut changes = self.app.engine.changes();
        let end = Instant::now() + LENGTH;
        while Instant::now() < end {
            changes.mark_unchanged();
            let Some(piece) = self.piece().await else {
                return;
            };
            if self.to.send(Ok(piece)).await.is_err() {
                return;
            }
            tokio::select! {
                changed = tokio::time::timeout(BEAT, changes.changed()) => {
                    if matches!(changed, Ok(Err(_))) {
                        return;
                    }
                }
                () = self.to.closed() => return,
                () = self.app.stopped() => return,
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    async fn ask(&self, version: u64) -> Option<(u64, Vec<Run>)> {
        let asked = Request::RunsChangedSince { version };
        match self.app.engine.ask(asked).await {
            Ok(Reply::Changed { version, runs }) => Some((version, runs)),
            _ => None,
        }
    }

    /// What changed since the version before, as lines; none when the coordinator stops.
    async fn piece(&mut self) -> Option<Bytes> {
        let (mut version, mut runs) = self.ask(self.version).await?;
        if version < self.version {
            // A version of another life of this coordinator: everything may have changed.
            (version, runs) = self.ask(0).await?;
        }
        self.version = version;
        let mut text = Vec::new();
        for run in runs
            .into_iter()
            .filter(|run| self.run.is_none_or(|wanted| wanted == run.id))
        {
            line(
                &mut text,
                &Watched {
                    version,
                    run: Some(run),
                },
            );
        }
        if text.is_empty() {
            line(&mut text, &Watched { version, run: None });
        }
        Some(Bytes::from(text))
    }
}
