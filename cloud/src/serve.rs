//! From start to stop: opens everything in order, says when it is ready, and ends within a bound.

use crate::admission::Admission;
use crate::api::backup::Streamed;
use crate::api::door::{Door, Tries};
use crate::api::health::Answered;
use crate::api::{self, server};
use crate::app::App;
use crate::authorities::{Authorities, ExchangeError, Known, Shown};
use crate::backup::Periodic;
use crate::clock;
use crate::data::{DataDir, DataError};
use crate::enrol::{self, Lives};
use crate::host::{self, Handle};
use crate::periodic;
use crate::revoked::{self, Revocations};
use crate::service;
use crate::sessions::{self, Sessions};
use crate::telemetry;
use certs::{AccessToken, ApiTlsError, Authority, AuthorityError, Clock, TlsError};
use cloud_core::engine::Engine;
use cloud_core::event::{Config, Input};
use cloud_core::record;
use cloud_core::store::StoreError;
use cloud_store::snapshot::Snapshots;
use contents::{Dir, FilesError};
use link::{Close, Endpoint, LinkError, Settings};
use serde::Serialize;
use shared::config::scheduler::Scheduler;
use shared::time::Span;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_rustls::rustls::ServerConfig;

/// Facts that are folded in a turn that brings new ones.
const FOLD_FACTS: usize = 1000;
/// Decisions that are kept of a run.
const DECISIONS: usize = 10_000;
/// Longest stop of the API, of the link, of the engine: each.
const STOP: Duration = Duration::from_secs(3);

/// How to run a coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The data directory; made if it does not exist.
    pub data: PathBuf,
    /// Where agents connect. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the API is. Port 0 takes a free one.
    pub api: SocketAddr,
    /// Most bytes that the file store may take.
    pub file_budget: u64,
    /// Time after its end when a run is forgotten.
    pub retention: Span,
    /// Validity of nodes' certificates.
    pub certificate_life: Span,
    /// How long an expired certificate may still be renewed.
    pub renewal_grace: Span,
    /// How the API is guarded.
    pub access: Guarded,
    /// How much of the record of events and actions is kept.
    pub record: record::Limits,
    /// Backups that are made by themselves.
    pub backup: Option<Periodic>,
    /// What holds for all nodes where neither specifications nor people say anything.
    pub scheduler: Scheduler,
    /// Hellos of agents that are judged at once; who calls beyond them is told when to call again.
    pub hellos_at_once: usize,
}

/// How the API is guarded: on loopback by nothing unless asked for, elsewhere always by TLS and
/// access tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Guarded {
    /// Ask for TLS and tokens on loopback, too.
    pub tls: bool,
    /// A certificate chain and its key, PEM; without them the fleet's authority makes one.
    pub files: Option<(PathBuf, PathBuf)>,
    /// `/metrics` needs no token.
    pub metrics_open: bool,
    /// Names and addresses under which the API is reached, besides those of this machine.
    pub names: Vec<String>,
}

/// Where a coordinator is that has become ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ready {
    /// Where agents connect.
    pub listen: SocketAddr,
    /// Where the API is.
    pub api: SocketAddr,
    /// The API asks for TLS and an access token.
    pub guarded: bool,
    /// The data directory, absolute.
    pub data: String,
    /// Fingerprint of the fleet's authority.
    pub authority: String,
}

/// Why a coordinator does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The authority.
    #[error("the fleet's authority cannot be used")]
    Authority(#[from] AuthorityError),
    /// The list of revocations.
    #[error("the list of revocations in the authority's directory cannot be read")]
    Revocations(#[source] io::Error),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The file store.
    #[error("the file store cannot be used")]
    Files(#[from] FilesError),
    /// The state.
    #[error("{} cannot be used", .path.display())]
    Store {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The address for agents.
    #[error("cannot listen for agents at {address} (UDP)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: LinkError,
    },
    /// The address of the API.
    #[error("cannot serve the API at {address} (TCP)")]
    Api {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificate of the API.
    #[error("cannot serve the API over TLS")]
    ApiTls(#[from] ApiTlsError),
    /// Telemetry.
    #[error("telemetry cannot be kept")]
    Telemetry(#[source] io::Error),
    /// A thread.
    #[error("cannot start the engine's thread")]
    Thread(#[source] io::Error),
    /// The engine ended.
    #[error("the coordinator cannot go on: {0}")]
    Engine(String),
}

impl ServeError {
    /// What to do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Data(error) => Some(error.hint().to_owned()),
            Self::Listen { .. } => Some(
                "another program may use this port: choose another with --listen ADDR:PORT \
                 (0 takes a free one)"
                    .to_owned(),
            ),
            Self::Api { .. } => Some(
                "another program may use this port: choose another with --api ADDR:PORT \
                 (0 takes a free one)"
                    .to_owned(),
            ),
            Self::ApiTls(_) => Some(
                "name a certificate and its key in PEM (access.cert, access.key), or neither"
                    .to_owned(),
            ),
            Self::Engine(_) => Some("start it again; what was acknowledged is stored".to_owned()),
            _ => None,
        }
    }
}

/// Ends when the process is asked to stop: SIGTERM or SIGINT.
///
/// # Errors
/// When signals cannot be waited for.
pub fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => tracing::info!("stopping: SIGTERM"),
            _ = int.recv() => tracing::info!("stopping: interrupted"),
        }
    })
}

/// Runs a coordinator until `stop` ends. `ready` is called once, when everybody is served.
///
/// # Errors
/// [`ServeError`]: nothing was served, or the engine had to end.
pub async fn serve(
    options: Options,
    stop: impl Future<Output = ()>,
    ready: impl FnOnce(&Ready),
) -> Result<(), ServeError> {
    let mut parts = Parts::open(&options).await?;
    let app = parts.app.clone();
    let data = &mut parts.data;
    data.complete()?;
    let token = match &app.door {
        Door::Open => None,
        Door::Guarded { local, .. } => Some(local.text()),
    };
    let api = dialled(app.api, token.is_some(), &options.access);
    data.publish(app.listen, &api, token.as_deref())?;
    ready(&Ready {
        listen: app.listen,
        api: app.api,
        guarded: token.is_some(),
        data: data.path().display().to_string(),
        authority: app.authorities.known().present.fingerprint().to_string(),
    });
    parts.run(stop).await
}

/// The engine's thread, from outside.
type Thread = JoinHandle<Result<(), String>>;

/// All that runs.
struct Parts {
    data: DataDir,
    app: Arc<App>,
    endpoint: Endpoint,
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    thread: Thread,
    stopping: watch::Sender<bool>,
    backup: Option<Periodic>,
}

impl Parts {
    async fn open(options: &Options) -> Result<Self, ServeError> {
        let data = DataDir::open(&options.data)?;
        let known = authorities(&data)?;
        let files = Dir::open(&data.files(), options.file_budget)?;
        let clock = Clock::new(clock::wall);
        let lives = Lives {
            certificate: options.certificate_life,
            grace: options.renewal_grace,
        };
        let revocations = Revocations::open(&data.authority()).map_err(ServeError::Revocations)?;
        let at_api = |source| ServeError::Api {
            address: options.api,
            source,
        };
        let listener = TcpListener::bind(options.api).await.map_err(at_api)?;
        let api = listener.local_addr().map_err(at_api)?;
        let guarded = guarded(api, &options.access);
        let own = options.access.files.is_none() && guarded;
        let names = own.then(|| names(api, &options.access));
        let shown = Shown::of(&known, names, clock.now()).map_err(shown_error)?;
        let endpoint = listen(options.listen, &known, &shown, (&clock, lives.grace))?;
        let at_listen = |source| ServeError::Listen {
            address: options.listen,
            source,
        };
        let listen = endpoint.address().map_err(at_listen)?;
        let (tls, door) = match guarded {
            true => guard(&shown, &options.access)?,
            false => (None, Door::Open),
        };
        let telemetry = telemetry::start(data.telemetry(), cloud_core::telemetry::Keep::default())
            .map_err(ServeError::Telemetry)?;
        let (engine, thread, snapshots) = start_engine(&data, options, &known.present, &files)?;
        tell_files(&engine, &files).await?;
        let (stopping, stop_seen) = watch::channel(false);
        let app = Arc::new(App {
            engine,
            files,
            snapshots,
            streamed: Streamed::default(),
            authorities: Authorities::new(&data.authority(), known, shown, clock.clone()),
            lives,
            revocations,
            clock,
            listen,
            api,
            started: clock::wall(),
            store: data.store(),
            file_budget: options.file_budget,
            metrics_open: options.access.metrics_open,
            answered: Answered::default(),
            door,
            admission: Admission::of(options.hellos_at_once),
            sessions: Sessions::default(),
            telemetry,
            stopping: stop_seen,
            connections: AtomicU64::new(0),
        });
        revoked::apply(&app).await;
        Ok(Self {
            data,
            app,
            endpoint,
            listener,
            tls,
            thread,
            stopping,
            backup: options.backup.clone(),
        })
    }

    async fn run(self, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self {
            data,
            app,
            endpoint,
            listener,
            tls,
            thread,
            stopping,
            backup,
        } = self;
        let (room, wanted) = endpoint.receive_buffer();
        if room < wanted {
            tracing::info!(
                room,
                wanted,
                "the system gives the agents' socket less room than a large fleet that calls at \
                 once fills: raise net.core.rmem_max"
            );
        }
        let backups = backup.map(|periodic| tokio::spawn(periodic::run(app.clone(), periodic)));
        let accepting = tokio::spawn(sessions::accept(app.clone(), endpoint.clone()));
        let warning = tokio::spawn(enrol::warn_of_expiry(app.clone()));
        let router = api::router(app.clone());
        let serving = tokio::spawn(server::serve(app.clone(), listener, tls, router));
        let watching = tokio::spawn(service::watch(app.clone()));
        service::ready();
        let mut changes = app.engine.changes();
        let engine_ended = async move { while changes.changed().await.is_ok() {} };
        tokio::select! {
            () = stop => {}
            () = engine_ended => {}
        }
        service::stopping();
        watching.abort();
        data.withdraw();
        // Nobody listens when everything has ended already.
        let _ = stopping.send(true);
        let _ = tokio::time::timeout(STOP, serving).await;
        let close = endpoint.close(Close::Stopping, "the coordinator stops: dial again later");
        let _ = tokio::time::timeout(STOP, close).await;
        accepting.abort();
        backups.iter().for_each(tokio::task::JoinHandle::abort);
        warning.abort();
        app.engine.stop().await;
        let ended = tokio::task::spawn_blocking(move || thread.join());
        match tokio::time::timeout(STOP, ended).await {
            Ok(Ok(Ok(ended))) => ended.map_err(ServeError::Engine),
            Ok(_) => Err(ServeError::Engine("its thread panicked".into())),
            Err(_) => Err(ServeError::Engine("the engine did not stop in time".into())),
        }
    }
}

pub(crate) fn shown_error(error: ExchangeError) -> ServeError {
    match error {
        ExchangeError::Authority(error) => error.into(),
        ExchangeError::Tls(error) => error.into(),
        ExchangeError::Api(error) => error.into(),
        other => ServeError::Engine(other.to_string()),
    }
}

/// The authority in the directory, and the one that is to follow it.
fn authorities(data: &DataDir) -> Result<Known, ServeError> {
    let dir = data.authority();
    let present = Authority::open_or_create(&dir)?;
    let next = present.next(&dir)?.map(Arc::new);
    if let Some(next) = &next {
        let (present, next) = (present.fingerprint(), next.fingerprint());
        tracing::warn!(%present, %next, "the fleet changes its authority: \
            `driftless authority rotate status`");
    }
    Ok(Known {
        present: Arc::new(present),
        next,
    })
}

/// Whether the API asks for TLS and tokens.
fn guarded(api: SocketAddr, access: &Guarded) -> bool {
    !api.ip().is_loopback() || access.tls || access.files.is_some()
}

/// The names and addresses under which the API is reached.
fn names(api: SocketAddr, access: &Guarded) -> Vec<String> {
    let mut names = access.names.clone();
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let local = [
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
        host,
    ];
    names.extend(local.into_iter().filter(|name| !name.is_empty()));
    names.push(api.ip().to_string());
    names
}

/// The settings of the API's TLS, and who may use it.
fn guard(shown: &Shown, access: &Guarded) -> Result<(Option<Arc<ServerConfig>>, Door), ServeError> {
    let tls = match (&access.files, &shown.api) {
        (Some((cert, key)), _) => Some(certs::api_server_of_files(cert, key)?),
        (None, Some((holder, _))) => Some(certs::api_server(holder)?),
        (None, None) => None,
    };
    let door = Door::Guarded {
        local: AccessToken::create(),
        tries: Tries::default(),
    };
    Ok((tls, door))
}

/// The API as commands on this machine dial it.
fn dialled(api: SocketAddr, guarded: bool, access: &Guarded) -> String {
    if !guarded {
        return api.to_string();
    }
    let host = match (access.names.first(), api.ip().is_unspecified()) {
        (Some(name), _) if access.files.is_some() => name.clone(),
        (_, true) => "127.0.0.1".to_owned(),
        (_, false) => return format!("https://{api}"),
    };
    format!("https://{host}:{}", api.port())
}

fn listen(
    address: SocketAddr,
    known: &Known,
    shown: &Shown,
    (clock, grace): (&Clock, Span),
) -> Result<Endpoint, ServeError> {
    let tls = certs::server(&shown.trusted, &shown.link, clock.clone(), grace)?;
    let keys = known.present.transport();
    Endpoint::server(address, tls, keys, &Settings::coordinator())
        .map_err(|source| ServeError::Listen { address, source })
}

fn start_engine(
    data: &DataDir,
    options: &Options,
    authority: &Authority,
    files: &Dir,
) -> Result<(Handle, Thread, Snapshots), ServeError> {
    let path = data.store();
    let failed = |source| ServeError::Store {
        path: path.clone(),
        source,
    };
    if data.needs_store() {
        let new = data.new_store()?;
        cloud_store::open_file(&new, true)
            .map(drop)
            .map_err(failed)?;
        data.place_store()?;
    }
    let store = cloud_store::open_file(&path, false).map_err(failed)?;
    let snapshots = store.snapshots();
    let config = Config {
        seal_key: authority.seal().bytes(),
        retention: options.retention,
        decisions_per_run: DECISIONS,
        fold_facts: FOLD_FACTS,
        record: options.record,
        backups: options.backup.is_some(),
        scheduler: options.scheduler,
    };
    let random = clock::random();
    let mut seed = [0; 8];
    seed.copy_from_slice(&random[..8]);
    let engine = Engine::open(store, config, clock::now(), u64::from_le_bytes(seed));
    let engine = engine.map_err(failed)?;
    let files = files.clone();
    let drop_files = move |hashes: Vec<_>| {
        for hash in hashes {
            if let Err(error) = files.remove(hash) {
                tracing::warn!(%hash, error = sessions::chain(&error), "a file stays");
            }
        }
    };
    let (handle, thread) = host::start(engine, drop_files).map_err(ServeError::Thread)?;
    Ok((handle, thread, snapshots))
}

/// So long what is here of a file waits for the rest of it; looked at when the coordinator starts.
const STOPPED: Duration = Duration::from_secs(24 * 3600);

/// The engine learns at every start what is in the file store.
async fn tell_files(engine: &Handle, files: &Dir) -> Result<(), ServeError> {
    let dropped = files.drop_parts(STOPPED, |_| false)?;
    if !dropped.is_empty() {
        tracing::info!(
            files = dropped.len(),
            "removed parts of files that were not sent on"
        );
    }
    for (hash, size) in files.list()? {
        let told = engine.tell(Input::FileFound { hash, size }).await;
        told.map_err(|stopping| ServeError::Engine(stopping.to_string()))?;
    }
    Ok(())
}
