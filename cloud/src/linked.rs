//! The coordinator's end of the link by itself, around an engine that somebody else runs: the
//! simulator. Handshakes, the door, sessions and what waits for them are those of
//! [`crate::serve()`]; store, files, telemetry and API are not there.

use crate::admission::{Admission, HELLOS_AT_ONCE};
use crate::api::door::Door;
use crate::app::App;
use crate::authorities::{Authorities, Known, Shown};
use crate::enrol::{CERTIFICATE_LIFE, Lives, RENEWAL_GRACE};
use crate::host::Inbox;
use crate::revoked::Revocations;
use crate::serve::{ServeError, shown_error};
use crate::sessions;
use crate::telemetry::{self, Bringing, Brought};
use certs::{Authority, Clock};
use cloud_core::event::{Conn, Input};
use contents::Dir;
use link::{Endpoint, Ground, Settings};
use shared::telemetry::Report;
use shared::wire::Down;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the end of the link needs.
#[derive(Debug)]
pub struct LinkedOptions {
    /// The network.
    pub ground: Arc<dyn Ground>,
    /// Where agents connect.
    pub listen: SocketAddr,
    /// Who issued their certificates.
    pub authority: Arc<Authority>,
    /// By which certificates are judged.
    pub clock: Clock,
    /// An empty directory.
    pub dir: PathBuf,
    /// Connections are numbered behind it.
    pub after: u64,
    /// How long a silent agent is waited for.
    pub settings: Settings,
}

/// What came.
#[derive(Debug)]
pub enum Came {
    /// For the engine; with where a hello came from.
    Input(Input, Option<SocketAddr>),
    /// A session was welcomed that sends telemetry.
    Measures(Conn),
    /// A piece of telemetry.
    Piece(Conn, Box<Report>),
}

/// The coordinator's end of the link.
#[derive(Debug)]
pub struct Linked {
    inbox: Inbox,
    brought: Brought,
    accepting: JoinHandle<()>,
    /// The sender of what nobody sends.
    _stopping: watch::Sender<bool>,
}

impl Linked {
    /// Serves whoever dials, in the present tokio runtime.
    ///
    /// # Errors
    /// [`ServeError`].
    pub fn start(options: LinkedOptions) -> Result<Self, ServeError> {
        let LinkedOptions {
            ground,
            listen,
            authority,
            clock,
            dir,
            after,
            settings,
        } = options;
        let known = Known {
            present: authority.clone(),
            next: None,
        };
        let shown = Shown::of(&known, None, clock.now()).map_err(shown_error)?;
        let tls = certs::server(&shown.trusted, &shown.link, clock.clone(), RENEWAL_GRACE)?;
        let keys = authority.transport();
        let endpoint = Endpoint::server_on(Some(&*ground), listen, tls, keys, &settings);
        let endpoint = endpoint.map_err(|source| ServeError::Listen {
            address: listen,
            source,
        })?;
        let (engine, inbox) = Inbox::new();
        let (telemetry, brought) = telemetry::without_thread();
        let (stopping, stop_seen) = watch::channel(false);
        let app = App {
            engine,
            files: Dir::open(&dir.join("files"), 1 << 30)?,
            snapshots: Default::default(),
            streamed: Default::default(),
            authorities: Authorities::new(&dir, known, shown, clock.clone()),
            lives: Lives {
                certificate: CERTIFICATE_LIFE,
                grace: RENEWAL_GRACE,
            },
            revocations: Revocations::open(&dir).map_err(ServeError::Revocations)?,
            started: clock.now(),
            clock,
            listen,
            api: listen,
            store: dir.join("store"),
            file_budget: 1 << 30,
            metrics_open: false,
            answered: Default::default(),
            door: Door::Open,
            admission: Admission::of(HELLOS_AT_ONCE),
            sessions: Default::default(),
            telemetry,
            stopping: stop_seen,
            connections: AtomicU64::new(after),
        };
        Ok(Self {
            inbox,
            brought,
            accepting: tokio::spawn(sessions::accept(Arc::new(app), endpoint)),
            _stopping: stopping,
        })
    }

    /// What came since the last call: what the engine is to be told in its order, then what was
    /// measured.
    pub fn take(&mut self) -> Vec<Came> {
        let inputs = self.inbox.take().into_iter();
        let mut came: Vec<Came> = inputs
            .map(|(input, from)| Came::Input(input, from))
            .collect();
        came.extend(self.brought.take().into_iter().map(|one| match one {
            Bringing::Begins(conn) => Came::Measures(conn),
            Bringing::Piece(conn, report) => Came::Piece(conn, report),
        }));
        came
    }

    /// The engine has a message for a session.
    pub fn send(&mut self, conn: Conn, message: Down) {
        self.inbox.send(conn, message);
    }

    /// The engine closes a session.
    pub fn close(&mut self, conn: Conn, why: String) {
        self.inbox.close(conn, why);
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
