//! Packed workflows in bodies. A few bytes unpack to many, so both are bounded before they are
//! taken: how many bodies are held at once, and how many of them are unpacked, on threads beside
//! those that serve.

use super::error::{ApiError, Raw};
use crate::host::Stopping;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use shared::codec;
use shared::workflow::Workflow;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Bodies that are held at once; others are not read before one is done.
const HELD: usize = 16;
/// Workflows that are unpacked at once.
const UNPACKED: usize = 2;
/// Longest wait for a place.
const WAIT: Duration = Duration::from_secs(10);

/// Places for workflows that come in.
pub(super) struct Places {
    held: Semaphore,
    unpacked: Semaphore,
}

/// For what is to be kept: runs and schedules.
pub(super) static SUBMITTED: Places = Places::new();
/// For what is only looked at: who may do that and no more holds up nobody who submits.
pub(super) static PLANNED: Places = Places::new();

/// A place, until it is dropped.
pub(super) type Place = SemaphorePermit<'static>;

/// The body of a request, which is to be a packed workflow.
pub(super) struct Packed {
    pub(super) bytes: Bytes,
    places: &'static Places,
    _held: Place,
}

impl Places {
    const fn new() -> Self {
        Self {
            held: Semaphore::const_new(HELD),
            unpacked: Semaphore::const_new(UNPACKED),
        }
    }

    /// Reads the body of `request` when there is a place for it.
    pub(super) async fn read(&'static self, request: Request) -> Result<Packed, ApiError> {
        let held = place(&self.held).await?;
        let Raw(bytes) = Raw::from_request(request, &()).await?;
        Ok(Packed {
            bytes,
            places: self,
            _held: held,
        })
    }
}

async fn place(of: &'static Semaphore) -> Result<Place, ApiError> {
    match tokio::time::timeout(WAIT, of.acquire()).await {
        Ok(Ok(place)) => Ok(place),
        _ => {
            let what = "too many workflows come in at once";
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, what).hint("try again later"))
        }
    }
}

impl Packed {
    /// What `look` makes of the workflow, which may have `limit` bytes, and the place it takes.
    /// `command` sends such bodies.
    pub(super) async fn unpack<T: Send + 'static>(
        &self,
        limit: usize,
        command: &'static str,
        look: impl FnOnce(Workflow) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<(T, Place), ApiError> {
        let bytes = self.bytes.clone();
        aside(place(&self.places.unpacked).await?, move || {
            let (workflow, _) = codec::unpack_within(&bytes, limit).map_err(|error| {
                ApiError::malformed(format!("the workflow cannot be read: {error}")).hint(format!(
                    "send what `{command}` sends: a compiled workflow, packed"
                ))
            })?;
            look(workflow)
        })
        .await
    }
}

/// Work that takes long, beside the threads that serve. It keeps its place to its end, also when
/// whoever asked for it goes away.
pub(super) async fn aside<T: Send + 'static>(
    place: Place,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<(T, Place), ApiError> {
    let work = move || work().map(|made| (made, place));
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| ApiError::from(Stopping))?
}
