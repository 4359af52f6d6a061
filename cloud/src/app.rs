//! What the parts of a running coordinator share.

use crate::admission::Admission;
use crate::api::backup::Streamed;
use crate::api::door::Door;
use crate::api::health::Answered;
use crate::authorities::Authorities;
use crate::enrol::Lives;
use crate::host::Handle;
use crate::revoked::Revocations;
use crate::sessions::Sessions;
use crate::telemetry::Telemetry;
use certs::Clock;
use cloud_store::snapshot::Snapshots;
use contents::Dir;
use shared::time::Unix;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// A running coordinator.
#[derive(Debug)]
pub(crate) struct App {
    /// The way to the engine.
    pub(crate) engine: Handle,
    /// Contents by hash.
    pub(crate) files: Dir,
    /// The state of the store, for backups.
    pub(crate) snapshots: Snapshots,
    /// Backups that wait to be counted.
    pub(crate) streamed: Streamed,
    /// Who issues certificates.
    pub(crate) authorities: Authorities,
    /// How long certificates are good.
    pub(crate) lives: Lives,
    /// Whom the store must not let in again after it went back.
    pub(crate) revocations: Revocations,
    /// By which certificates are judged.
    pub(crate) clock: Clock,
    /// Where agents connect.
    pub(crate) listen: SocketAddr,
    /// Where the API is.
    pub(crate) api: SocketAddr,
    /// Since when.
    pub(crate) started: Unix,
    /// The state's file.
    pub(crate) store: PathBuf,
    /// Most bytes of the file store.
    pub(crate) file_budget: u64,
    /// Figures need no token.
    pub(crate) metrics_open: bool,
    /// What the API answered.
    pub(crate) answered: Answered,
    /// Who may use the API.
    pub(crate) door: Door,
    /// How many agents that call are looked after at once.
    pub(crate) admission: Admission,
    /// The live sessions.
    pub(crate) sessions: Sessions,
    /// What nodes measured of themselves.
    pub(crate) telemetry: Telemetry,
    /// Becomes true when the coordinator stops.
    pub(crate) stopping: watch::Receiver<bool>,
    /// Numbers connections.
    pub(crate) connections: AtomicU64,
}

impl App {
    /// A number that no connection had before.
    pub(crate) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Waits until the coordinator stops.
    pub(crate) async fn stopped(&self) {
        let mut stopping = self.stopping.clone();
        // An error says that whoever would say so is gone already.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }
}
