//! Figures for Prometheus, and whether the agent lives and works: a small HTTP listener, off unless
//! `metrics.listen` names an address. It only reads.
//!
//! Invariant: being ready does not depend on the link. A gateway without one does its work; the
//! state of the link is a figure.

use crate::clock;
use crate::control::Answer;
use crate::data::DataDir;
use crate::looping::Ask;
use crate::mailbox::Handle;
use edge_core::view::Status;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use shared::figures::{MEDIA_TYPE, Page};
use shared::state::TaskState;
use shared::time::Unix;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// Connections at once; a further one is closed.
const CONNECTIONS: usize = 16;
/// Longest time from a connection to the end of its only answer.
const LONGEST: Duration = Duration::from_secs(10);
/// Longest time for an answer of a loop that turns.
const TURN: Duration = Duration::from_secs(5);
/// Most bytes of a request's head.
const HEAD_BYTES: usize = 8 * 1024;
/// Pause after a connection could not be accepted (no descriptor is free).
const PAUSE: Duration = Duration::from_millis(100);
/// States of the link.
const LINK: [&str; 4] = ["online", "connecting", "offline", "alone"];
/// Says in the data directory where the listener is.
const ADDRESS: &str = "metrics.addr";

/// Where to listen: an address with a port, or a port of loopback.
///
/// # Errors
/// What is wrong with it, for people.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let port = text
        .parse()
        .map(|port: u16| (Ipv4Addr::LOCALHOST, port).into());
    port.or_else(|_| text.parse())
        .map_err(|_| format!("'{text}' is no address"))
}

/// The listener, and the agent that it speaks of.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    at: SocketAddr,
    since: Unix,
    agent: Arc<Mutex<Option<Agent>>>,
}

/// An agent whose store is open.
#[derive(Debug, Clone)]
struct Agent {
    handle: Handle,
    store: PathBuf,
}

/// An agent that is spoken of, until this is dropped.
pub(crate) struct Shown {
    metrics: Metrics,
    /// The file that says where the listener is.
    address: PathBuf,
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.metrics.set(None);
        // The next start writes it anew.
        let _ = std::fs::remove_file(&self.address);
    }
}

impl Metrics {
    /// Listens until the process ends.
    ///
    /// # Errors
    /// Where the address is taken or not ours, or there is no thread.
    pub(crate) fn start(at: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(at)?;
        listener.set_nonblocking(true)?;
        let metrics = Self {
            at: listener.local_addr()?,
            since: clock::now().wall,
            agent: Arc::default(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let served = metrics.clone();
        let serve = move || {
            if let Err(error) = runtime.block_on(accept(listener, served)) {
                tracing::error!(%error, "nobody can read the figures");
            }
        };
        std::thread::Builder::new()
            .name("metrics".into())
            .spawn(serve)?;
        tracing::info!(at = %metrics.at, "figures can be read");
        Ok(metrics)
    }

    /// Speaks of an agent whose store is open and whose loop is about to turn.
    pub(crate) fn show(&self, handle: &Handle, data: &DataDir) -> Shown {
        let address = data.path().join(ADDRESS);
        if let Err(error) = std::fs::write(&address, format!("{}\n", self.at)) {
            let path = address.display();
            tracing::warn!(%path, %error, "the listener's address is not written");
        }
        let (handle, store) = (handle.clone(), data.store());
        self.set(Some(Agent { handle, store }));
        let metrics = self.clone();
        Shown { metrics, address }
    }

    fn set(&self, agent: Option<Agent>) {
        *self.agent.lock().unwrap_or_else(PoisonError::into_inner) = agent;
    }

    /// What the loop says of itself, and the open store.
    async fn turn(&self) -> Result<(Status, PathBuf), String> {
        let agent = self
            .agent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let Agent { handle, store } = agent.ok_or("the store is not open")?;
        let asked = tokio::task::spawn_blocking(move || handle.ask_within(Ask::Status, TURN));
        let late = || format!("the loop did not turn for {} s", TURN.as_secs());
        let asked = tokio::time::timeout(TURN, asked).await;
        match asked
            .map_err(|_| late())?
            .map_err(|error| error.to_string())?
        {
            Some(Answer::Value { value }) => serde_json::from_value(value)
                .map(|status| (status, store))
                .map_err(|error| error.to_string()),
            Some(other) => Err(format!("the loop answered with something else: {other:?}")),
            None => Err(late()),
        }
    }
}

async fn accept(listener: TcpListener, metrics: Metrics) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a reader of figures cannot be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue;
        };
        let metrics = metrics.clone();
        tokio::spawn(async move {
            let _place = place;
            // A client that is too slow loses its connection, as one that speaks no HTTP does.
            let _ = tokio::time::timeout(LONGEST, exchange(stream, metrics)).await;
        });
    }
}

/// One request and its answer.
async fn exchange(stream: TcpStream, metrics: Metrics) -> Result<(), hyper::Error> {
    let service = service_fn(move |request: Request<Incoming>| {
        let metrics = metrics.clone();
        async move {
            Ok::<_, Infallible>(answer(&metrics, request.method(), request.uri().path()).await)
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer(metrics: &Metrics, method: &Method, path: &str) -> Response<String> {
    let (status, kind, text) = match (method, path) {
        (&Method::GET | &Method::HEAD, "/healthz") => {
            let text = json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")});
            (StatusCode::OK, JSON, text.to_string())
        }
        (&Method::GET | &Method::HEAD, "/readyz") => match metrics.turn().await {
            Ok(_) => (StatusCode::OK, JSON, ready(None)),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, JSON, ready(Some(why))),
        },
        (&Method::GET | &Method::HEAD, "/metrics") => match metrics.turn().await {
            Ok((status, store)) => (StatusCode::OK, MEDIA_TYPE, page(metrics, &status, &store)),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, JSON, problem(&why)),
        },
        (_, "/healthz" | "/readyz" | "/metrics") => {
            let text = problem("figures are only read: use GET");
            (StatusCode::METHOD_NOT_ALLOWED, JSON, text)
        }
        _ => {
            let text = problem("there are only /metrics, /healthz and /readyz here");
            (StatusCode::NOT_FOUND, JSON, text)
        }
    };
    let mut answer = Response::new(text);
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

const JSON: &str = "application/json";

fn ready(reason: Option<String>) -> String {
    let reasons: Vec<String> = reason.into_iter().collect();
    json!({"ready": reasons.is_empty(), "reasons": reasons}).to_string()
}

fn problem(what: &str) -> String {
    json!({"error": what}).to_string()
}

/// All figures.
const CATALOGUE: &str = "\
driftless_build_info gauge The version that runs.
driftless_agent_start_time_seconds gauge When this agent started, seconds since 1970.
driftless_agent_boots gauge Boots of the machine within the store's life.
driftless_agent_link gauge 1 for the state of the link.
driftless_agent_sessions_total counter Sessions that were tried within the store's life.
driftless_agent_facts_total counter Facts that were recorded.
driftless_agent_facts_behind gauge Facts that the coordinator did not confirm yet.
driftless_agent_directives_total counter Directives that were taken.
driftless_agent_tasks gauge Tasks that are here.
driftless_agent_slots gauge Slots for attempts.
driftless_agent_slots_used gauge Slots that attempts hold.
driftless_agent_files_missing gauge Files that are waited for.
driftless_agent_uploads gauge Files that the coordinator still gets.
driftless_agent_has_room gauge 1 if the disk has room for more work.
driftless_agent_clock_trusted gauge 1 if the wall clock was set since the machine booted.
driftless_agent_store_bytes gauge Bytes of the store's file.";

fn page(metrics: &Metrics, status: &Status, store: &Path) -> String {
    let mut page = Page::new(CATALOGUE);
    let version = [(env!("CARGO_PKG_VERSION"), 1)];
    page.each("driftless_build_info", "version", version);
    let link = LINK.map(|state| (state, u8::from(state == status.link)));
    page.each("driftless_agent_link", "state", link);
    let count = |state: &TaskState| status.tasks.get(state.text()).copied().unwrap_or(0);
    let tasks = TaskState::ALL.iter();
    let tasks = tasks.map(|state| (state.text(), count(state)));
    page.each("driftless_agent_tasks", "state", tasks);
    let mut one = |name: &str, value: u64| page.one(&format!("driftless_agent_{name}"), value);
    let (used, slots) = status.slots;
    one(
        "start_time_seconds",
        u64::try_from(metrics.since.0 / 1000).unwrap_or(0),
    );
    one("boots", status.boots.into());
    one("sessions_total", status.session);
    one("facts_total", status.facts);
    one("facts_behind", status.behind);
    one("directives_total", status.directives);
    one("slots", slots.into());
    one("slots_used", used.into());
    one("files_missing", status.files_missing);
    one("uploads", status.uploads);
    one("has_room", status.room.into());
    one("clock_trusted", status.clock_trusted.into());
    one(
        "store_bytes",
        std::fs::metadata(store).map_or(0, |meta| meta.len()),
    );
    page.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_one_of_loopback() {
        assert_eq!(address("9464"), Ok("127.0.0.1:9464".parse().unwrap()));
        assert_eq!(address("[::]:1"), Ok("[::]:1".parse().unwrap()));
        assert!(address("somewhere:9464").is_err() && address("70000").is_err());
    }

    #[test]
    fn it_is_not_ready_before_the_store_is_open_and_after_the_loop() {
        let metrics = Metrics {
            at: ([127, 0, 0, 1], 1).into(),
            since: Unix(0),
            agent: Arc::default(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let ask = |path| answer(&metrics, &Method::GET, path);
        let runtime = runtime.unwrap();
        let ready = runtime.block_on(ask("/readyz"));
        assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(ready.body().contains("the store is not open"), "{ready:?}");
        assert_eq!(runtime.block_on(ask("/metrics")).status(), 503);
        assert_eq!(runtime.block_on(ask("/healthz")).status(), 200);
        let dir = tempfile::tempdir().unwrap();
        let shown = metrics.show(&Handle::default(), &DataDir::open(dir.path()).unwrap());
        assert!(dir.path().join(ADDRESS).exists());
        drop(shown);
        assert!(!dir.path().join(ADDRESS).exists());
        assert_eq!(runtime.block_on(ask("/readyz")).status(), 503);
    }
}
