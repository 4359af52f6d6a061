//! The stream of events: JSON lines from any number that is still kept on, as long as the reader
//! wants.

use super::error::{ApiError, Asked};
use super::lists::line;
use super::types::{Beat, LINES};
use super::watch::watch_permit;
use super::{Shared, door};
use crate::app::App;
use crate::caller;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use cloud_core::access::Caller;
use cloud_core::event::{Refused, Reply, Request};
use serde::Deserialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;

/// A line at least so often, so that both sides notice when the other is gone.
const BEAT: Duration = Duration::from_secs(10);
/// Events that are read at once.
const PIECE: usize = 500;

/// From where on, and for how long.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct What {
    after: Option<u64>,
    #[serde(default)]
    follow: bool,
    limit: Option<u64>,
}

/// GET /events
pub(super) async fn events(
    State(app): Shared,
    Asked(what): Asked<What>,
) -> Result<Response, ApiError> {
    let permit = watch_permit()?;
    let mut reader = Reader {
        app,
        after: what.after,
        left: what.limit.unwrap_or(u64::MAX),
        follow: what.follow,
        changes: 0,
        caller: caller::current(),
        _permit: permit,
    };
    // The first piece is read before anything is answered: a position that is not known is an
    // error, not a stream that ends.
    let first = reader.read().await?;
    let (to, from) = mpsc::channel(4);
    tokio::spawn(reader.run(first, to));
    let body = Body::from_stream(ReceiverStream::new(from));
    Ok(([(CONTENT_TYPE, LINES)], body).into_response())
}

type Lines = mpsc::Sender<Result<Bytes, Infallible>>;

struct Reader {
    app: Arc<App>,
    after: Option<u64>,
    left: u64,
    follow: bool,
    changes: u64,
    /// Whose token may be revoked, or expire, meanwhile.
    caller: Caller,
    _permit: OwnedSemaphorePermit,
}

/// Lines of events, and whether all that there are now were read.
struct Piece {
    text: Vec<u8>,
    all: bool,
}

impl Reader {
    async fn read(&mut self) -> Result<Piece, ApiError> {
        let limit = usize::try_from(self.left).unwrap_or(PIECE).min(PIECE);
        self.changes = *self.app.engine.changes().borrow();
        let asked = Request::Events {
            after: self.after,
            limit,
        };
        let (first, last, events) = match self.app.engine.ask(asked).await? {
            Reply::Events {
                first,
                last,
                events,
            } => (first, last, events),
            Reply::Refused(refused @ Refused::Forgotten { first, last, .. }) => {
                let oldest = first.saturating_sub(1);
                return Err(ApiError::from(refused).hint(format!(
                    "after={oldest} begins with the oldest that is kept, after={last} with what comes"
                )));
            }
            other => return Err(ApiError::odd(&other)),
        };
        let mut text = Vec::new();
        let mut after = self.after.unwrap_or(first - 1);
        for event in events.into_iter().take(limit) {
            after = event.number;
            self.left -= 1;
            line(&mut text, &event);
        }
        self.after = Some(after);
        let all = after >= last || self.left == 0;
        Ok(Piece { text, all })
    }

    async fn run(mut self, first: Piece, to: Lines) {
        let mut piece = first;
        loop {
            if !piece.text.is_empty() && to.send(Ok(Bytes::from(piece.text))).await.is_err() {
                return;
            }
            if piece.all && (!self.follow || self.left == 0 || !self.wait(&to).await) {
                return;
            }
            if !door::stands(&self.app, &self.caller) {
                return;
            }
            // One that fails while others are served was overtaken or is stopped: the reader asks
            // again and is told which.
            match self.read().await {
                Ok(next) => piece = next,
                Err(_) => return,
            }
        }
    }

    /// Waits for a change; `false` if nobody listens any more, or may, or the coordinator stops.
    async fn wait(&self, to: &Lines) -> bool {
        let mut changes = self.app.engine.changes();
        let mut access = self.app.engine.access();
        loop {
            if !door::stands(&self.app, &self.caller) {
                return false;
            }
            if *changes.borrow_and_update() != self.changes {
                return true;
            }
            tokio::select! {
                changed = tokio::time::timeout(BEAT, changes.changed()) => match changed {
                    Ok(Ok(())) => return true,
                    Ok(Err(_)) => return false,
                    Err(_) => {
                        let mut text = Vec::new();
                        let number = self.after.unwrap_or(0);
                        line(&mut text, &Beat { number, kind: "beat".to_owned() });
                        if to.send(Ok(Bytes::from(text))).await.is_err() {
                            return false;
                        }
                    }
                },
                Ok(()) = access.changed() => {}
                () = to.closed() => return false,
                () = self.app.stopped() => return false,
            }
        }
    }
}
