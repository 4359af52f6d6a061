//! Endpoints and connections: QUIC settings of both sides, dialling, accepting.

use crate::bulk::PARALLEL;
use crate::error::{Close, LinkError};
use crate::ground::Ground;
use certs::{ClientTls, Clock, Peer, SERVER_NAME, TransportKeys};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ConnectionId, ConnectionIdGenerator, EndpointConfig, MtuDiscoveryConfig, TransportConfig,
    VarInt,
};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{hkdf, hmac};
use rustix::net::sockopt;
use rustls::pki_types::CertificateDer;
use shared::time::Span;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Streams that a peer may have open at once, of each direction: quinn reserves room for each.
const STREAMS: u32 = 8;
/// Connections whose handshake has not been looked at yet: a fleet that calls at once.
const WAITING: usize = 8192;
/// Bytes of datagrams that wait for the coordinator. The kernel counts about twice what it takes a
/// datagram, and its usual 208 KiB hold some 90 first packets: of 500 agents that call at once
/// most would wait for their own repetition.
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;
/// Bytes of a connection id.
const ID_BYTES: usize = 8;
/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Settings of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// A packet at least so often, so that routers keep the way open; zero for never.
    pub keep_alive: Span,
    /// Silence after which the connection is given up.
    pub idle: Span,
    /// Bytes that one stream of the peer may be ahead of its reader.
    pub stream_window: u32,
    /// Bytes that all streams of the peer may be ahead of their readers.
    pub window: u32,
    /// Bytes on their way to the peer.
    pub send_window: u32,
    /// Look for larger packets than 1200 bytes; to be switched off where a tunnel swallows them.
    pub probe_mtu: bool,
}

impl Settings {
    /// For gateways: small windows.
    #[must_use]
    pub fn agent() -> Self {
        Self {
            keep_alive: Span::secs(20),
            idle: Span::secs(60),
            stream_window: 512 * 1024,
            window: 1024 * 1024,
            send_window: 1024 * 1024,
            probe_mtu: true,
        }
    }

    /// For the coordinator: agents send the keep-alives; room for uploads over slow and long links.
    #[must_use]
    pub fn coordinator() -> Self {
        let window = 2 * 1024 * 1024;
        Self {
            keep_alive: Span(0),
            stream_window: 1024 * 1024,
            window,
            send_window: window,
            ..Self::agent()
        }
    }

    fn transport(&self) -> Result<Arc<TransportConfig>, LinkError> {
        let idle = Duration::from_millis(self.idle.0).try_into();
        let idle = idle.map_err(|_| LinkError::Setup("the idle timeout is too long".into()))?;
        let keep_alive = Some(Duration::from_millis(self.keep_alive.0)).filter(|d| !d.is_zero());
        let mut config = TransportConfig::default();
        config
            .max_concurrent_bidi_streams(STREAMS.into())
            .max_concurrent_uni_streams(STREAMS.into())
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(keep_alive)
            .stream_receive_window(VarInt::from_u32(self.stream_window))
            .receive_window(VarInt::from_u32(self.window))
            .send_window(self.send_window.into())
            .datagram_receive_buffer_size(None)
            .initial_mtu(1200)
            .mtu_discovery_config(self.probe_mtu.then(MtuDiscoveryConfig::default));
        Ok(Arc::new(config))
    }
}

/// Connection ids that any life of an endpoint takes for its own. The usual generator signs its ids
/// with a key of the process, drops packets with ids of a former life unread, and so never answers
/// them with the stateless reset that the persisted key is for.
#[derive(Debug)]
struct RandomIds(SystemRandom);

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_BYTES];
        self.0
            .fill(&mut id)
            .expect("the system's random numbers are always there");
        ConnectionId::new(&id)
    }
    fn cid_len(&self) -> usize {
        ID_BYTES
    }
    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// One UDP socket with QUIC on it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    quic: quinn::Endpoint,
    transport: Arc<TransportConfig>,
    /// Bytes that its socket holds until they are read.
    room: usize,
}

fn endpoint(
    ground: Option<&dyn Ground>,
    address: SocketAddr,
    keys: &TransportKeys,
    server: Option<quinn::ServerConfig>,
    transport: Arc<TransportConfig>,
) -> Result<Endpoint, LinkError> {
    let bind = |source| LinkError::Bind { address, source };
    let reset = hmac::Key::new(hmac::HMAC_SHA256, &keys.reset);
    let mut config = EndpointConfig::new(Arc::new(reset));
    config.cid_generator(|| Box::new(RandomIds(SystemRandom::new())));
    let runtime = quinn::default_runtime()
        .ok_or_else(|| LinkError::Setup("an endpoint is made inside a tokio runtime".into()))?;
    let (quic, room) = match ground {
        Some(ground) => {
            config.rng_seed(Some(ground.seed()));
            let socket = ground.socket(address).map_err(bind)?;
            let quic = quinn::Endpoint::new_with_abstract_socket(config, server, socket, runtime);
            (quic, RECEIVE_BUFFER)
        }
        None => {
            let socket = UdpSocket::bind(address).map_err(bind)?;
            if server.is_some() {
                enlarge(&socket);
            }
            let room = sockopt::socket_recv_buffer_size(&socket).unwrap_or(0);
            (quinn::Endpoint::new(config, server, socket, runtime), room)
        }
    };
    Ok(Endpoint {
        quic: quic.map_err(bind)?,
        transport,
        room,
    })
}

/// Asks for [`RECEIVE_BUFFER`]: beyond the system's limit (`net.core.rmem_max` on Linux) where we
/// may, up to it where not. Whatever is granted works; less makes storms slower.
fn enlarge(socket: &UdpSocket) {
    #[cfg(target_os = "linux")]
    if sockopt::set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER).is_ok() {
        return;
    }
    let _ = sockopt::set_socket_recv_buffer_size(socket, RECEIVE_BUFFER);
}

impl Endpoint {
    /// An agent's endpoint, on a free port, for coordinators of the address family of
    /// `coordinator`.
    ///
    /// # Errors
    /// [`LinkError::Bind`] or [`LinkError::Setup`].
    pub fn client(coordinator: SocketAddr, settings: &Settings) -> Result<Self, LinkError> {
        Self::client_on(None, coordinator, settings)
    }

    /// The same on a simulated network, if one is given.
    ///
    /// # Errors
    /// [`LinkError::Bind`] or [`LinkError::Setup`].
    pub fn client_on(
        ground: Option<&dyn Ground>,
        coordinator: SocketAddr,
        settings: &Settings,
    ) -> Result<Self, LinkError> {
        let any = if coordinator.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let keys = TransportKeys::random();
        endpoint(ground, any, &keys, None, settings.transport()?)
    }

    /// The coordinator's endpoint. With the `keys` of its former life the agents notice a restart
    /// at once.
    ///
    /// # Errors
    /// [`LinkError::Bind`] (the port is busy) or [`LinkError::Setup`].
    pub fn server(
        listen: SocketAddr,
        tls: rustls::ServerConfig,
        keys: &TransportKeys,
        settings: &Settings,
    ) -> Result<Self, LinkError> {
        Self::server_on(None, listen, tls, keys, settings)
    }

    /// The same on a simulated network, if one is given.
    ///
    /// # Errors
    /// [`LinkError::Bind`] (the port is busy) or [`LinkError::Setup`].
    pub fn server_on(
        ground: Option<&dyn Ground>,
        listen: SocketAddr,
        tls: rustls::ServerConfig,
        keys: &TransportKeys,
        settings: &Settings,
    ) -> Result<Self, LinkError> {
        let crypto =
            QuicServerConfig::try_from(tls).map_err(|e| LinkError::Setup(e.to_string()))?;
        let token = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&keys.token);
        let mut config = quinn::ServerConfig::new(Arc::new(crypto), Arc::new(token));
        let transport = settings.transport()?;
        config
            .transport_config(transport.clone())
            .migration(true)
            .max_incoming(WAITING)
            .incoming_buffer_size(64 * 1024)
            .incoming_buffer_size_total(8 * 1024 * 1024);
        endpoint(ground, listen, keys, Some(config), transport)
    }

    /// The address of its socket.
    ///
    /// # Errors
    /// [`LinkError::Setup`] when the system does not tell.
    pub fn address(&self) -> Result<SocketAddr, LinkError> {
        self.quic
            .local_addr()
            .map_err(|error| LinkError::Setup(error.to_string()))
    }

    /// Bytes that the system grants its socket for datagrams that wait, and what was asked for at a
    /// coordinator.
    #[must_use]
    pub fn receive_buffer(&self) -> (usize, usize) {
        (self.room, RECEIVE_BUFFER)
    }

    /// Dials the coordinator at `address` with the settings of [`certs::enrol_client`],
    /// [`certs::renewal_client`] or [`certs::session_client`], made for this dial.
    ///
    /// # Errors
    /// [`LinkError::Untrusted`] when its certificate is refused; others when it cannot be reached.
    /// A refusal of *our* certificate comes with the first message, as
    /// [`LinkError::RefusedByPeer`].
    pub async fn dial(&self, address: SocketAddr, tls: ClientTls) -> Result<Connection, LinkError> {
        let ClientTls { config, verdict } = tls;
        let crypto =
            QuicClientConfig::try_from(config).map_err(|e| LinkError::Setup(e.to_string()))?;
        let mut client = quinn::ClientConfig::new(Arc::new(crypto));
        client.transport_config(self.transport.clone());
        let connecting = self
            .quic
            .connect_with(client, address, SERVER_NAME)
            .map_err(|error| LinkError::Setup(format!("cannot dial {address}: {error}")))?;
        let made = tokio::time::timeout(HANDSHAKE, connecting).await;
        match made.map_err(|_| LinkError::TimedOut)? {
            Ok(quic) => Ok(Connection::new(quic)),
            Err(error) => Err(match verdict.take() {
                Some(refusal) => LinkError::Untrusted(refusal),
                None => error.into(),
            }),
        }
    }

    /// The next one who dials; none when the endpoint was closed. The handshake is a future of its
    /// own, so that a slow one delays nobody.
    pub async fn accept(&self) -> Option<Handshake> {
        self.quic.accept().await.map(Handshake)
    }

    /// Goes on from another socket: when the machine changed its network.
    ///
    /// # Errors
    /// [`LinkError::Setup`] when the socket cannot be used; the old one stays.
    pub fn rebind(&self, socket: UdpSocket) -> Result<(), LinkError> {
        self.quic
            .rebind(socket)
            .map_err(|error| LinkError::Setup(error.to_string()))
    }

    /// Connections that are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.quic.open_connections()
    }

    /// Closes every connection, tells the peers, and waits until they were told.
    pub async fn close(&self, close: Close, text: &str) {
        self.quic.close(close.code(), text.as_bytes());
        self.quic.wait_idle().await;
    }
}

/// Somebody who dials the coordinator.
#[derive(Debug)]
pub struct Handshake(quinn::Incoming);

impl Handshake {
    /// Where the packets come from.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.remote_address()
    }

    /// Whether it is known that packets reach it there: a first packet may name any address.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.0.remote_address_validated()
    }

    /// Asks it to begin again with what it is sent, and forgets it: one round trip more for it, and
    /// nothing comes of a first packet with a forged address.
    pub fn ask_again(self) {
        // it is refused for those only that proved their address by a retry
        let _ = self.0.retry();
    }

    /// Says no before any work is done.
    pub fn refuse(self) {
        self.0.refuse();
    }

    /// Who it is, and the connection. `clock` is the one that the TLS settings have.
    ///
    /// # Errors
    /// [`LinkError::Handshake`] names the reason when its certificate is refused.
    pub async fn finish(self, clock: &Clock) -> Result<(Peer, Connection), LinkError> {
        let made = tokio::time::timeout(HANDSHAKE, self.0).await;
        let quic = made.map_err(|_| LinkError::TimedOut)??;
        let identity = quic.peer_identity();
        let chain = identity
            .as_ref()
            .and_then(|any| any.downcast_ref::<Vec<CertificateDer<'_>>>());
        let peer = Peer::of(chain.map(Vec::as_slice), clock.now())
            .map_err(|refusal| LinkError::Handshake(refusal.to_string()))?;
        Ok((peer, Connection::new(quic)))
    }
}

/// A connection to an authenticated peer (or, at the coordinator, to an anonymous one that may
/// enrol).
#[derive(Clone, Debug)]
pub struct Connection {
    pub(crate) quic: quinn::Connection,
    pub(crate) transfers: Arc<Semaphore>,
}

impl Connection {
    fn new(quic: quinn::Connection) -> Self {
        Self {
            quic,
            transfers: Arc::new(Semaphore::new(PARALLEL)),
        }
    }

    /// Whether it was made to ask for a certificate ([`certs::ALPN_CERTIFICATE`]) and not for a
    /// session.
    #[must_use]
    pub fn asks_for_certificate(&self) -> bool {
        let data = self.quic.handshake_data();
        let data = data.and_then(|any| any.downcast::<quinn::crypto::rustls::HandshakeData>().ok());
        let spoken = data.and_then(|data| data.protocol);
        spoken.as_deref() == Some(certs::ALPN_CERTIFICATE)
    }

    /// Whether `authority` issued the certificate that the peer showed.
    #[must_use]
    pub fn peer_is_of(&self, authority: &CertificateDer<'_>) -> bool {
        let shown = self.quic.peer_identity();
        let shown = shown.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        let leaf = shown.as_ref().and_then(|chain| chain.first());
        leaf.is_some_and(|leaf| certs::is_issued_by(leaf, authority))
    }

    /// Where the peer is now; it may move.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.quic.remote_address()
    }

    /// The present estimate of the round trip.
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        self.quic.rtt()
    }

    /// Largest packet that is known to pass, in bytes.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.quic.stats().path.current_mtu
    }

    /// Bytes sent and received in UDP packets.
    #[must_use]
    pub fn traffic(&self) -> (u64, u64) {
        let stats = self.quic.stats();
        (stats.udp_tx.bytes, stats.udp_rx.bytes)
    }

    /// Ends it at once; what was not acknowledged may be lost.
    pub fn close(&self, close: Close, text: &str) {
        self.quic.close(close.code(), text.as_bytes());
    }

    /// Waits for its end and says why.
    pub async fn closed(&self) -> LinkError {
        self.quic.closed().await.into()
    }
}
