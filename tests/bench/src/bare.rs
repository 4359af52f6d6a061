//! Bare QUIC connections that carry messages of given sizes: what the transport alone costs. The
//! server is a process of its own, so that its memory and CPU can be seen.

use anyhow::{Context, Result};
use certs::{Authority, Clock, Fingerprint, Holder, Trusted};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, RecvStream, SendStream, ServerConfig, TransportConfig};
use shared::time::{Span, Unix};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Bytes of the length before each message and of the length of its answer.
const HEAD: usize = 8;
/// The longest message.
const LONGEST: usize = 1 << 20;

fn wall() -> Unix {
    edge_agent::clock::now().wall
}

/// The same keep-alives and windows as ours.
fn transport() -> Result<Arc<TransportConfig>> {
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(Duration::from_secs(60).try_into()?))
        .keep_alive_interval(Some(Duration::from_secs(20)))
        .datagram_receive_buffer_size(None);
    Ok(Arc::new(config))
}

/// Serves until it is killed; prints where and as whom.
pub(crate) fn serve() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let authority = Authority::ephemeral()?;
        let holder = Holder::new(&authority.coordinator(wall(), Span::secs(86_400))?)?;
        let trusted = Trusted::new(&[authority.certificate().clone()])?;
        let tls = certs::server(&trusted, &holder, Clock::new(wall), Span(0))?;
        let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
        config.transport_config(transport()?);
        let endpoint = Endpoint::server(config, "127.0.0.1:0".parse()?)?;
        let mut out = std::io::stdout();
        writeln!(
            out,
            "{} {}",
            endpoint.local_addr()?,
            authority.fingerprint()
        )?;
        out.flush()?;
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                // A connection that ends early is missed by its client.
                let _ = answer(incoming.await?).await;
                anyhow::Ok(())
            });
        }
        Ok(())
    })
}

/// Answers each message of the peer's one stream with as many bytes as it asks for.
async fn answer(connection: Connection) -> Result<()> {
    let (mut tx, mut rx) = connection.accept_bi().await?;
    loop {
        let mut head = [0; HEAD];
        rx.read_exact(&mut head).await?;
        let [message, answer] = sizes(head);
        let mut bytes = vec![0; message.min(LONGEST)];
        rx.read_exact(&mut bytes).await?;
        tx.write_all(&vec![1; answer.min(LONGEST)]).await?;
    }
}

fn sizes(head: [u8; HEAD]) -> [usize; 2] {
    let (one, other) = head.split_at(HEAD / 2);
    [one, other].map(|half| {
        let bytes = half.try_into().unwrap_or_default();
        u32::from_le_bytes(bytes) as usize
    })
}

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    fingerprint: Fingerprint,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// This program once more, as a server.
    pub(crate) fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--bare-server")
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("no output")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let (address, fingerprint) = line.trim().split_once(' ').context("it does not serve")?;
        Ok(Self {
            child,
            address: address.parse()?,
            fingerprint: fingerprint.parse()?,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// Clients of one server.
#[derive(Debug)]
pub(crate) struct Clients {
    streams: Vec<Client>,
    _endpoints: Vec<Endpoint>,
}

#[derive(Debug)]
struct Client {
    tx: SendStream,
    rx: RecvStream,
    _connection: Connection,
}

impl Clients {
    /// Connects `count` clients, some of them sharing a socket.
    pub(crate) fn connect(runtime: &Runtime, server: &Server, count: usize) -> Result<Self> {
        runtime.block_on(async {
            let mut endpoints = Vec::new();
            let mut streams = Vec::new();
            while streams.len() < count {
                let endpoint = Endpoint::client("127.0.0.1:0".parse()?)?;
                let more = crate::swarm::PER_SOCKET.min(count - streams.len());
                for _ in 0..more {
                    streams.push(Client::connect(&endpoint, server).await?);
                }
                endpoints.push(endpoint);
            }
            Ok(Self {
                streams,
                _endpoints: endpoints,
            })
        })
    }

    /// Each client sends a message of `message` bytes every `every`, the clients spread over it,
    /// and awaits an answer of `answer` bytes to three of four, for `long` in all.
    pub(crate) fn talk(
        self,
        runtime: &Runtime,
        (message, answer): (usize, usize),
        every: Duration,
        long: Duration,
    ) -> Result<Self> {
        let count = self.streams.len() as u32;
        runtime.block_on(async {
            let (mut talks, begin) = (JoinSet::new(), Instant::now());
            for (n, mut client) in self.streams.into_iter().enumerate() {
                talks.spawn(async move {
                    let mut due = begin + every * n as u32 / count;
                    for turn in n.. {
                        tokio::time::sleep_until(due.min(begin + long)).await;
                        if due >= begin + long {
                            break;
                        }
                        let answer = if turn % 4 == 3 { 0 } else { answer };
                        client.ask(message, answer).await?;
                        due += every;
                    }
                    anyhow::Ok(client)
                });
            }
            let streams = talks.join_all().await.into_iter().collect::<Result<_>>()?;
            Ok(Self {
                streams,
                _endpoints: self._endpoints,
            })
        })
    }
}

impl Client {
    async fn connect(endpoint: &Endpoint, server: &Server) -> Result<Self> {
        let tls = certs::enrol_client(server.fingerprint, Clock::new(wall))?;
        let crypto = QuicClientConfig::try_from(tls.config)?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(transport()?);
        let connection = endpoint
            .connect_with(config, server.address, certs::SERVER_NAME)?
            .await?;
        let (tx, rx) = connection.open_bi().await?;
        Ok(Self {
            tx,
            rx,
            _connection: connection,
        })
    }

    async fn ask(&mut self, message: usize, answer: usize) -> Result<()> {
        let mut bytes = vec![0; HEAD + message];
        bytes[..HEAD / 2].copy_from_slice(&(message as u32).to_le_bytes());
        bytes[HEAD / 2..HEAD].copy_from_slice(&(answer as u32).to_le_bytes());
        self.tx.write_all(&bytes).await?;
        self.tx.flush().await?;
        let mut bytes = vec![0; answer];
        self.rx.read_exact(&mut bytes).await?;
        Ok(())
    }
}
