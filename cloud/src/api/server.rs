//! Serves the API's connections: TLS where it is asked for, and bounds on what a client may hold.
//! Slow or stuck clients lose their connection, never anybody else's.

use super::taken::Taken;
use crate::app::App;
use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::header::EXPECT;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tower_service::Service;

/// Connections at once.
const CONNECTIONS: usize = 1024;
/// Connections at once of one address.
const CONNECTIONS_OF_ONE: usize = 256;
/// Longest time for the head of a request, from the connection or the answer before on.
const HEAD: Duration = Duration::from_secs(15);
/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longest time in which a client takes nothing of an answer.
const STUCK: Duration = Duration::from_secs(60);
/// Most bytes of a request's head.
const HEAD_BYTES: usize = 32 * 1024;
/// Most headers of a request.
const HEADERS: usize = 64;
/// Pause after a connection could not be accepted (no descriptor is free).
const PAUSE: Duration = Duration::from_millis(100);

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Serves until the coordinator stops; what is under way then may end.
pub(crate) async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let (open, mut served) = (Arc::new(Open::default()), JoinSet::new());
    loop {
        while served.try_join_next().is_some() {}
        let (stream, from) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "the API cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
            () = app.stopped() => break,
        };
        let Some(place) = open.clone().enter(from.ip()) else {
            tracing::warn!(%from, "the API turned a connection away: too many");
            continue;
        };
        let (app, router, acceptor) = (app.clone(), router.clone(), acceptor.clone());
        served.spawn(async move {
            let _place = place;
            if let Err(error) = connection(&app, stream, from, acceptor, router).await {
                tracing::debug!(%from, error = crate::sessions::chain(&*error), "the API lost a client");
            }
        });
    }
    while served.join_next().await.is_some() {}
}

type Lost = Box<dyn std::error::Error + Send + Sync>;

async fn connection(
    app: &App,
    stream: TcpStream,
    from: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    router: Router,
) -> Result<(), Lost> {
    stream.set_nodelay(true)?;
    let stream = Patient::new(stream);
    match acceptor {
        None => exchange(app, stream, from, router).await,
        Some(acceptor) => {
            let secured = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
            let secured = secured.map_err(|_| "the TLS handshake took too long")??;
            exchange(app, secured, from, router).await
        }
    }
}

async fn exchange(
    app: &App,
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    from: SocketAddr,
    router: Router,
) -> Result<(), Lost> {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let waits = request.headers().contains_key(EXPECT);
        let mut request = request.map(|body| Body::new(Taken::new(body, waits)));
        request.extensions_mut().insert(Peer(from));
        router.clone().call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    tokio::select! {
        ended = served.as_mut() => return Ok(ended?),
        () = app.stopped() => served.as_mut().graceful_shutdown(),
    }
    Ok(served.await?)
}

/// Connections that are open, by address.
#[derive(Debug, Default)]
struct Open(Mutex<BTreeMap<IpAddr, usize>>);

/// A connection's place among them, until it is dropped.
struct Place(Arc<Open>, IpAddr);

impl Open {
    fn enter(self: Arc<Self>, from: IpAddr) -> Option<Place> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_it = open.get(&from).copied().unwrap_or(0);
        let full = open.values().sum::<usize>() >= CONNECTIONS;
        if full || of_it >= CONNECTIONS_OF_ONE {
            return None;
        }
        open.insert(from, of_it + 1);
        drop(open);
        Some(Place(self, from))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.1);
            }
        }
    }
}

/// A stream whose writes fail when the other side takes nothing for [`STUCK`].
struct Patient {
    stream: TcpStream,
    until: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            until: None,
        }
    }

    fn wait<T>(&mut self, cx: &mut Context<'_>, went: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if went.is_ready() {
            self.until = None;
            return went;
        }
        let until = self
            .until
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + STUCK)));
        ready!(until.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client takes nothing of its answer",
        )))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, to)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let went = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wait(cx, went)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let went = Pin::new(&mut self.stream).poll_flush(cx);
        self.wait(cx, went)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let went = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.wait(cx, went)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
