//! Takes what a client still sends when its request is answered already.
//!
//! A refusal needs no body. If the connection ended there, a client in the middle of its body, or
//! one that uses the connection again, would see a reset instead of an answer.

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::runtime::Handle;

/// Longest time in which the rest of a body is taken.
const LONGEST: Duration = Duration::from_secs(10);
/// Most bytes of it.
const MOST: usize = 64 << 20;

/// The body of a request. Whoever drops it before its end leaves the rest to a task; it must be
/// dropped on the runtime that serves.
pub(super) struct Taken {
    /// None after its end.
    body: Option<Incoming>,
    /// The client sends it only when it is told to, so there may be nothing to take.
    on_demand: bool,
}

impl Taken {
    pub(super) fn new(body: Incoming, on_demand: bool) -> Self {
        let body = Some(body);
        Self { body, on_demand }
    }
}

impl Body for Taken {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        // It is being read, so the client was told to send it.
        self.on_demand = false;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.as_ref().map(Body::size_hint);
        hint.unwrap_or_else(|| SizeHint::with_exact(0))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        if let (false, Ok(runtime)) = (self.on_demand, Handle::try_current()) {
            runtime.spawn(tokio::time::timeout(LONGEST, take(body)));
        }
    }
}

/// Reads a body to its end, or as much of it as one may send in vain.
async fn take(mut body: Incoming) {
    let mut taken = 0;
    while taken < MOST {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        let Some(Ok(frame)) = frame else { return };
        taken += frame.data_ref().map_or(0, Bytes::len);
    }
}
