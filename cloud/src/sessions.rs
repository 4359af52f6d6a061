//! Connections of agents: who they are, their hello, the messages of the session, their files.
//!
//! A session is three loops on one connection (messages up, messages down, files); the first that
//! ends ends them all. What the messages mean is the engine's business.

use crate::app::App;
use crate::authorities::Known;
use crate::clock;
use crate::enrol;
use crate::host::{SESSION_QUEUE, ToSession};
use crate::room;
use certs::{Caller, Fingerprint, Peer};
use cloud_core::certificate::Certificate;
use cloud_core::event::{Conn, Input};
use cloud_core::offered::Offered;
use link::bulk::{FileStream, Wish};
use link::frame::{FrameError, Kind};
use link::session::{CoordinatorRx, CoordinatorTx};
use link::{Close, Connection, Endpoint, Handshake, LinkError};
use shared::ids::{Incarnation, NodeId};
use shared::inventory::InventoryPart;
use shared::time::Span;
use shared::wire::{Down, RENEW, TELEMETRY, Up};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit, mpsc, oneshot};

/// How long a connection may take to say who it is.
const HELLO: Duration = Duration::from_secs(10);
/// What a node is told whose certificate was good when it dialled.
const OUTDATED: &str =
    "the fleet has changed its authority, and this certificate is of the one before";
/// How long a last message may take to arrive.
const FAREWELL: Duration = Duration::from_secs(5);
/// Connections at once; more are turned away.
const CONNECTIONS: usize = 20_000;

/// From the answer to a renewal until its node shall dial with what it got.
const KEPT: Duration = Duration::from_secs(1);
/// Time for the renewal of one of many nodes that are asked at once.
const RENEWAL: Span = Span(20);

/// A session that was welcomed.
#[derive(Debug, Clone)]
struct Live {
    conn: Conn,
    connection: Connection,
    /// Whose certificate it was made with.
    issuer: Fingerprint,
    /// Its program renews when it is asked to.
    renews: bool,
    to: mpsc::WeakSender<ToSession>,
}

/// The live sessions by node. An entry goes only with the connection that made it.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<BTreeMap<NodeId, Live>>);

impl Sessions {
    /// The connection of a node that was welcomed.
    pub(crate) fn get(&self, node: NodeId) -> Option<Connection> {
        self.lock().get(&node).map(|live| live.connection.clone())
    }

    /// Nodes that were welcomed and are still here.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    fn insert(&self, node: NodeId, live: Live) {
        self.lock().insert(node, live);
    }

    /// Of one node.
    fn live(&self, node: NodeId) -> Option<Live> {
        self.lock().get(&node).cloned()
    }

    /// Of all nodes.
    fn all(&self) -> Vec<Live> {
        self.lock().values().cloned().collect()
    }

    fn remove(&self, node: NodeId, conn: Conn) {
        let mut sessions = self.lock();
        if sessions.get(&node).is_some_and(|live| live.conn == conn) {
            sessions.remove(&node);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, Live>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A node was issued a new certificate. If it is of another authority than the one that its session
/// was made with, it shall dial with it: only a handshake proves that it has it.
pub(crate) async fn shall_show(app: Arc<App>, node: NodeId) {
    tokio::time::sleep(KEPT).await;
    let wanted = app.authorities.known().renewing().fingerprint();
    if let Some(live) = app.sessions.live(node).filter(|live| live.issuer != wanted) {
        let why =
            "dial again with the certificate that was renewed: the fleet changes its authority";
        live.connection.close(Close::Done, why);
    }
}

/// How long nodes may wait before they renew so that not all do at once.
fn within(app: &App) -> Span {
    Span(RENEWAL.0 * app.sessions.count() as u64)
}

/// Asks all nodes that are here, and whose programs understand it, to renew their certificates.
pub(crate) fn ask_all_to_renew(app: &App) {
    let within = within(app);
    for live in app.sessions.all() {
        let to = live.to.upgrade().filter(|_| live.renews);
        if let Some(to) = to {
            let message = ToSession::Send(Box::new(Down::Renew { within }));
            // one that ends, or is too slow for it, is asked at its next welcome
            let _ = to.try_send(message);
        }
    }
}

/// Ends the sessions that were made with a certificate which is not trusted any more.
pub(crate) fn close_untrusted(app: &App) {
    let known = app.authorities.known();
    for live in app.sessions.all() {
        if !trusts(&known, &live.issuer) {
            live.connection.close(Close::Refused, OUTDATED);
        }
    }
}

/// Whether certificates of `issuer` are good now.
fn trusts(known: &Known, issuer: &Fingerprint) -> bool {
    let all = known.certificates();
    all.iter().any(|one| Fingerprint::of(one) == *issuer)
}

/// Serves whoever dials, until the endpoint is closed.
pub(crate) async fn accept(app: Arc<App>, endpoint: Endpoint) {
    while let Some(handshake) = endpoint.accept().await {
        if endpoint.connections() > CONNECTIONS {
            tracing::warn!(from = %handshake.address(), "turned away: too many connections");
            app.admission.counts.refused();
            handshake.refuse();
            continue;
        }
        let reached = handshake.is_reached();
        let place = if reached {
            None
        } else {
            app.admission.unproven()
        };
        if !reached && place.is_none() {
            handshake.ask_again();
            continue;
        }
        tokio::spawn(serve(app.clone(), handshake, place));
    }
}

async fn serve(app: Arc<App>, handshake: Handshake, unproven: Option<OwnedSemaphorePermit>) {
    let from = handshake.address();
    let admission = &app.admission;
    let made = admission.handshake(|| handshake.finish(&app.clock)).await;
    drop(unproven);
    let Some(made) = made else {
        tracing::warn!(%from, "turned away: too many handshakes wait");
        admission.counts.refused();
        return;
    };
    admission.counts.ended(made.is_ok());
    let (peer, connection) = match made {
        Ok(known) => known,
        Err(error) => {
            tracing::info!(%from, error = %chain(&error), "a handshake failed");
            return;
        }
    };
    let ended = match peer {
        Peer::Anonymous => {
            let renews = connection.asks_for_certificate();
            enrol::newcomer(&app, &connection, renews).await
        }
        Peer::Expired(caller) | Peer::Node(caller) if connection.asks_for_certificate() => {
            enrol::renew(&app, &connection, caller).await
        }
        Peer::Expired(caller) => {
            expired(&caller, &connection);
            Ok(())
        }
        Peer::Node(caller) => session(&app, connection, caller).await,
    };
    if let Err(error) = ended {
        tracing::debug!(%from, error = %chain(&error), "a connection ended");
    }
}

/// A certificate that expired may be renewed and is good for nothing else.
fn expired(caller: &Caller, connection: &Connection) {
    let (name, until) = (&caller.name, caller.until.0);
    tracing::warn!(name, until, from = %connection.address(), "turned away: its certificate expired");
    let text = format!(
        "the certificate of {name} expired at {until} ms since 1970: it may only be renewed"
    );
    connection.close(Close::Expired, &text);
}

/// Text of `error` and of what caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

async fn session(app: &Arc<App>, connection: Connection, caller: Caller) -> Result<(), LinkError> {
    let opened = tokio::time::timeout(HELLO, async {
        let (tx, mut rx) = connection.accept_session().await?;
        let first = rx.recv().await?;
        Ok::<_, LinkError>((tx, rx, first))
    });
    let (tx, rx, first) = opened.await.map_err(|_| LinkError::TimedOut)??;
    let Up::Hello(hello) = first else {
        connection.close(
            Close::Protocol,
            "the first message of a session is the hello",
        );
        return Err(LinkError::Ended);
    };
    // judged now: the hello of a connection may be older than the end of an exchange, or younger
    let certificate = shown(app, &connection, &caller)?;
    let issuer = Fingerprint(certificate.authority);
    let (node, name) = (caller.id, caller.name);
    let place = match app.admission.enter(node) {
        Ok(place) => place,
        Err(later) => return tell_later(&connection, tx, &later).await,
    };
    let (conn, number) = (Conn(app.next_connection()), hello.session);
    let (to, from) = mpsc::channel(SESSION_QUEUE);
    let mine = (hello.incarnation, to.downgrade());
    let input = Input::Hello {
        conn,
        node,
        name: name.clone(),
        certificate,
        hello,
        secret: clock::random(),
    };
    let caller = (conn, connection.address());
    if app.engine.open(caller, to, input).await.is_err() {
        connection.close(Close::Stopping, "the coordinator is stopping");
        return Ok(());
    }
    let (welcomed, is_welcome) = oneshot::channel();
    let up = receive(app, conn, node, rx, is_welcome);
    let down = Sender {
        app,
        conn,
        node,
        number,
        connection: &connection,
        issuer,
        welcomed: Some((welcomed, mine.0, mine.1)),
        place: Some(place),
    };
    // whichever ends first ends the session; in a fixed order, so that a simulation repeats it
    let why = tokio::select! {
        biased;
        ended = up => ended,
        ended = down.run(tx, from) => ended,
    };
    app.sessions.remove(node, conn);
    app.telemetry.end(node, conn);
    let why = why
        .err()
        .map_or_else(|| "closed here".to_owned(), |error| chain(&error));
    connection.close(Close::Done, "the session has ended");
    tracing::info!(
        node = name,
        session = number,
        conn = conn.0,
        why,
        "a session ended"
    );
    // When the engine has stopped nobody needs to know.
    let _ = app.engine.tell(Input::Gone { conn, why }).await;
    Ok(())
}

/// The certificate that a node showed. One of an authority that was given up since the handshake
/// ends the connection.
fn shown(app: &App, connection: &Connection, caller: &Caller) -> Result<Certificate, LinkError> {
    app.authorities.known().shown(caller).ok_or_else(|| {
        let why = "the authority of this certificate is not trusted any more";
        connection.close(Close::Refused, why);
        LinkError::Ended
    })
}

/// Says when to call again.
async fn tell_later(
    connection: &Connection,
    mut tx: CoordinatorTx,
    later: &Down,
) -> Result<(), LinkError> {
    tx.send(later).await?;
    // An agent that does not take its last message is closed all the same.
    let _ = tokio::time::timeout(FAREWELL, tx.finish()).await;
    connection.close(Close::Refused, "too many agents call at once");
    Ok(())
}

/// A message as the engine takes it.
enum Read {
    Facts(Offered),
    /// Of an inventory.
    Part(InventoryPart),
    Other(Up),
}

/// Facts are read here, so that the engine's thread need not.
fn read(message: Up) -> Result<Read, LinkError> {
    match message {
        Up::Facts(batch) => Ok(Read::Facts(Offered::from(batch))),
        Up::Packed(batch) => {
            let malformed = |source| FrameError::Malformed {
                kind: Kind::Facts,
                source,
            };
            Ok(Read::Facts(Offered::unpack(batch).map_err(malformed)?))
        }
        Up::InventoryPart(part) => Ok(Read::Part(part)),
        message => Ok(Read::Other(message)),
    }
}

/// Hands the agent's messages to the engine. Until the welcome only small ones pass.
async fn receive(
    app: &Arc<App>,
    conn: Conn,
    node: NodeId,
    mut rx: CoordinatorRx,
    mut welcome: oneshot::Receiver<()>,
) -> Result<(), LinkError> {
    let mut waiting = true;
    loop {
        let message = tokio::select! {
            biased;
            welcomed = &mut welcome, if waiting => {
                waiting = false;
                if welcomed.is_ok() {
                    rx.accepted();
                }
                continue;
            }
            message = rx.recv() => message?,
        };
        let message = match message {
            Up::Telemetry(report) => {
                app.telemetry.piece(node, conn, report);
                continue;
            }
            message => message,
        };
        let told = match read(message)? {
            Read::Facts(batch) => {
                let (bytes, batch) = (batch.memory(), Box::new(batch));
                app.engine
                    .bring(Input::Offered { conn, batch }, bytes)
                    .await
            }
            Read::Part(part) => {
                let bytes = part.bytes.len();
                let message = Up::InventoryPart(part);
                app.engine
                    .bring(Input::Heard { conn, message }, bytes)
                    .await
            }
            Read::Other(message) => app.engine.tell(Input::Heard { conn, message }).await,
        };
        if told.is_err() {
            return Ok(());
        }
    }
}

/// Sends the engine's messages.
struct Sender<'a> {
    app: &'a Arc<App>,
    conn: Conn,
    node: NodeId,
    /// The number that the agent gave the session.
    number: u64,
    connection: &'a Connection,
    /// Whose certificate the node showed.
    issuer: Fingerprint,
    welcomed: Option<Welcomed>,
    /// Its place at the door, until the hello is answered.
    place: Option<SemaphorePermit<'a>>,
}

/// Who waits for the welcome, whose life it is, and the way back to its session.
type Welcomed = (
    oneshot::Sender<()>,
    Incarnation,
    mpsc::WeakSender<ToSession>,
);

impl Sender<'_> {
    async fn run(
        mut self,
        mut tx: CoordinatorTx,
        mut from: mpsc::Receiver<ToSession>,
    ) -> Result<(), LinkError> {
        while let Some(message) = from.recv().await {
            match message {
                ToSession::Send(message) => {
                    self.place = None;
                    tx.send(&message).await?;
                    if let Down::Welcome(welcome) = *message {
                        self.welcome(welcome.features);
                        if let Some(message) = self.asks(welcome.features) {
                            tx.send(&message).await?;
                        }
                    }
                }
                ToSession::Close(why) => {
                    // An agent that does not take its last message is closed all the same.
                    let _ = tokio::time::timeout(FAREWELL, tx.finish()).await;
                    self.connection.close(Close::Refused, &why);
                    return Ok(());
                }
            }
        }
        self.connection.close(
            Close::Stopping,
            "too slow, or the coordinator stops: dial again",
        );
        Ok(())
    }

    /// What a node is told whose certificate is of the authority that is to go.
    fn asks(&self, features: u64) -> Option<Down> {
        let wanted = self.app.authorities.known().renewing().fingerprint();
        let asks = features & RENEW != 0 && self.issuer != wanted;
        let within = within(self.app);
        asks.then_some(Down::Renew { within })
    }

    /// From now on messages may be large, and files may move.
    fn welcome(&mut self, features: u64) {
        let Some((welcomed, incarnation, to)) = self.welcomed.take() else {
            return;
        };
        if features & TELEMETRY != 0 {
            let telemetry = &self.app.telemetry;
            telemetry.begin(self.node, incarnation, self.conn, to.clone());
        }
        let _ = welcomed.send(()); // the receiving side may have ended
        let live = Live {
            conn: self.conn,
            connection: self.connection.clone(),
            issuer: self.issuer,
            renews: features & RENEW != 0,
            to,
        };
        self.app.sessions.insert(self.node, live);
        // behind the insertion: an exchange that ended before it did not see this session
        let known = self.app.authorities.known();
        if !trusts(&known, &self.issuer) {
            self.connection.close(Close::Refused, OUTDATED);
        }
        let from = self.connection.address();
        tracing::info!(node = %self.node, session = self.number, conn = self.conn.0, %from,
            "a session began");
        tokio::spawn(files(self.app.clone(), self.connection.clone()));
    }
}

/// Serves the files that a welcomed node wants to get or to give, until its connection ends. The
/// number of streams at once is bounded by the transport.
async fn files(app: Arc<App>, connection: Connection) {
    while let Ok(stream) = connection.accept_file().await {
        let app = app.clone();
        tokio::spawn(async move {
            if let Err(error) = file(&app, stream).await {
                tracing::debug!(error, "a file transfer ended early");
            }
        });
    }
}

async fn file(app: &Arc<App>, stream: FileStream) -> Result<(), String> {
    let read = tokio::time::timeout(HELLO, stream.wish()).await;
    let ask = read
        .map_err(|_| "no wish came".to_owned())?
        .map_err(|e| chain(&e))?;
    let wish = ask.wish();
    if let Wish::Put { hash, size } = wish {
        room::make(app, hash, size).await;
    }
    ask.grant(&app.files).await.map_err(|e| chain(&e))?;
    if let Wish::Put { hash, size } = wish {
        // When the engine has stopped the agent offers the file again.
        let _ = app.engine.tell(Input::FileStored { hash, size }).await;
    }
    Ok(())
}
