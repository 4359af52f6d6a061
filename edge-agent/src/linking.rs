//! The agent's end of the link: dials when the core says so, carries messages both ways, moves
//! files, enrols. It decides nothing; whatever goes wrong is told to the loop as an event.

use crate::clock::Clocks;
use crate::log_wishes::serve_logs;
use crate::looping::Message;
use crate::mailbox::Handle;
use crate::renewing::{LOOK_AGAIN, Renewing};
use crate::telemetry::Measures;
use certs::{Enrolled, Holder, NodeKey, Refusal, Token};
use contents::{Dir as FileDir, FilesError};
use edge_core::event::Event;
use link::bulk::{self, BulkError};
use link::enrol::{EnrolAsk, EnrolReply, EnrolRequest};
use link::frame::FrameError;
use link::session::{AgentTx, InventoryTx, TelemetryTx};
use link::{Close, Connection, Endpoint, Ground, LinkError, Settings};
use shared::ids::{Hash, NodeId};
use shared::inventory::InventoryPart;
use shared::telemetry::Report;
use shared::time::Span;
use shared::wire::{self, Down, Up};
use std::collections::BTreeMap;
use std::future::pending;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{
    Receiver, Sender, UnboundedReceiver, UnboundedSender, channel, unbounded_channel,
};
use tokio::time::{Instant, sleep_until};

/// What the loop asks of the link.
#[derive(Debug)]
pub enum LinkCommand {
    /// Connect.
    Dial {
        /// Number of the session.
        session: u64,
    },
    /// Send a message.
    Send {
        /// Number of the session.
        session: u64,
        /// The message.
        message: Box<Up>,
    },
    /// Close a session.
    Hangup {
        /// Number of the session.
        session: u64,
    },
    /// Get a file.
    Fetch {
        /// Its content.
        hash: Hash,
        /// Bytes.
        size: u64,
    },
    /// Bring a file.
    Upload {
        /// Its content.
        hash: Hash,
    },
    /// Whether the coordinator may be dialled to renew the certificate.
    MayDial(bool),
}

/// What the link needs.
#[derive(Debug)]
pub struct LinkOptions {
    /// `HOST:PORT`, tried in turn; none for a gateway without a coordinator.
    pub coordinators: Vec<String>,
    /// Key and certificates.
    pub pki: PathBuf,
    /// The data directory, for logs that the coordinator asks for.
    pub data: PathBuf,
    /// Files by content.
    pub files: FileDir,
    /// Silence after which the link counts as down.
    pub idle_timeout: Duration,
    /// What the gateway measured of itself.
    pub telemetry: Arc<dyn Measures>,
    /// The network, if it is not the system's.
    pub ground: Option<Arc<dyn Ground>>,
    /// The machine's clocks.
    pub clocks: Clocks,
}

fn settings(idle: Duration) -> Settings {
    let idle = Span(u64::try_from(idle.as_millis()).unwrap_or(60_000));
    Settings {
        idle,
        keep_alive: Span((idle.0 / 3).clamp(100, 20_000)),
        ..Settings::agent()
    }
}

/// Within so much time agents that see the new authority at work stop trusting the one before: all
/// may see it at once.
const DROP_OTHERS: Span = Span::secs(5);

/// Messages that wait to be sent, at most: the core has a window for facts, and little else goes up
/// unasked.
const QUEUE: usize = 1_024;

/// Addresses that one name is tried at, at most.
const ADDRESSES: usize = 4;

pub(crate) async fn resolve(coordinator: &str) -> Result<Vec<SocketAddr>, String> {
    let found = tokio::net::lookup_host(coordinator)
        .await
        .map_err(|error| format!("{coordinator} cannot be resolved: {error}; write HOST:PORT"))?;
    let found: Vec<SocketAddr> = found.take(ADDRESSES).collect();
    match found.is_empty() {
        true => Err(format!("{coordinator} has no address")),
        false => Ok(found),
    }
}

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime for the link: {error}"))
}

/// Enrols by `token` with the first of `coordinators` that answers, keeps what it issued in `pki`,
/// and returns the identity that it gave. A node that is somebody already (`known`) keeps nothing
/// that makes it another one.
///
/// # Errors
/// What to tell a person.
pub fn enrol(
    coordinators: &[String],
    token: &str,
    (name, known): (&str, Option<NodeId>),
    labels: &BTreeMap<String, String>,
    pki: &Path,
) -> Result<NodeId, String> {
    let token = Token::parse(token).map_err(|error| format!("the token: {error}"))?;
    let key = NodeKey::open_or_create(pki).map_err(|error| text(&error))?;
    let request = EnrolRequest {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        token: token.presented.clone(),
        name: name.to_owned(),
        request: key.request().map_err(|error| text(&error))?,
        labels: labels.clone(),
    };
    let reply = runtime()?.block_on(async {
        let mut failures = Vec::new();
        for coordinator in coordinators {
            match ask_to_enrol(coordinator, (&token, pki), &request).await {
                Ok(reply) => return Ok(reply),
                Err(why) => failures.push(why),
            }
        }
        Err(failures.join("; "))
    })?;
    if let (EnrolReply::Enrolled { node, .. } | EnrolReply::Certified { node, .. }, Some(known)) =
        (&reply, known)
        && *node != known
    {
        return Err(format!(
            "the token makes this gateway node {node}, and its data directory is that of node \
             {known}: start it on an empty data directory, or take a token for this node"
        ));
    }
    match reply {
        EnrolReply::Refused(refusal) => Err(refusal.to_string()),
        EnrolReply::Enrolled { issued, now, .. } => key
            .keep(pki, &issued, token.authority, now)
            .map(|enrolled| enrolled.id)
            .map_err(|error| text(&error)),
        EnrolReply::Certified { certified, .. } => key
            .keep_certified(pki, &certified)
            .map(|enrolled| enrolled.id)
            .map_err(|error| text(&error)),
    }
}

async fn ask_to_enrol(
    coordinator: &str,
    (token, pki): (&Token, &Path),
    request: &EnrolRequest,
) -> Result<EnrolReply, String> {
    let failed =
        |error: &dyn std::error::Error| format!("enrolling at {coordinator}: {}", text(error));
    let mut last = String::new();
    for address in resolve(coordinator).await? {
        let endpoint = Endpoint::client(address, &settings(Duration::from_secs(20)))
            .map_err(|error| failed(&error))?;
        let tls = certs::enrol_client(token.authority, Renewing::new(pki).clock())
            .map_err(|error| failed(&error))?;
        match endpoint.dial(address, tls).await {
            Ok(connection) => {
                let reply = connection.enrol(&EnrolAsk::Enrol(request.clone())).await;
                return reply.map_err(|error| failed(&error));
            }
            Err(error) => last = failed(&error),
        }
    }
    Err(last)
}

/// The node that `pki` holds an enrolment of, if it is one of this name: an earlier start got so
/// far. Its token is used up.
#[must_use]
pub fn kept(pki: &Path, name: &str) -> Option<NodeId> {
    if !pki.is_dir() {
        return None;
    }
    let kept = enrolled(pki).ok()?;
    (kept.name == name).then_some(kept.id)
}

/// Serves `commands` until the loop is gone.
pub fn run(options: LinkOptions, handle: Handle, commands: UnboundedReceiver<LinkCommand>) {
    match runtime() {
        Ok(runtime) => runtime.block_on(async {
            tokio::spawn(stop_on_signal(handle.clone()));
            serve(options, handle, commands).await;
        }),
        Err(error) => tracing::error!(%error, "the link cannot start; local work goes on"),
    }
}

/// Serves `commands` until the loop is gone, in the runtime of whoever waits for it.
pub async fn serve(options: LinkOptions, handle: Handle, commands: UnboundedReceiver<LinkCommand>) {
    Link::new(options, handle).serve(commands).await;
}

/// TERM and INT stop the agent; it lives in this runtime because the loop's thread waits for its
/// queue.
async fn stop_on_signal(handle: Handle) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        tracing::error!("no signals can be received; only KILL will stop this agent");
        return;
    };
    tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    tracing::info!("asked to stop");
    handle.tell(Message::Stop);
}

/// A session that stands or is being made.
#[derive(Debug)]
struct Session {
    number: u64,
    to_send: Sender<Up>,
    connection: Arc<tokio::sync::OnceCell<Connection>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Link {
    options: Arc<LinkOptions>,
    handle: Handle,
    sockets: Sockets,
    /// Which of the coordinator's addresses is tried first.
    turn: Arc<AtomicUsize>,
    session: Option<Session>,
    renewing: Renewing,
    /// Certificates may be renewed: the agent has read its journal, and no person paused the link.
    may_dial: bool,
}

/// The sockets of all dials, one of each family of addresses (a NAT keeps its mapping), made by the
/// first dial to such an address.
#[derive(Debug, Clone, Default)]
struct Sockets(Arc<std::sync::Mutex<Families>>);

#[derive(Debug, Default)]
struct Families {
    v4: Option<Endpoint>,
    v6: Option<Endpoint>,
}

impl Sockets {
    fn families(&self) -> std::sync::MutexGuard<'_, Families> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The socket of all dials to addresses of this family.
    ///
    /// # Errors
    /// The machine has none, as without IPv6.
    fn of(&self, address: SocketAddr, options: &LinkOptions) -> Result<Endpoint, String> {
        let mut families = self.families();
        let place = match address.is_ipv4() {
            true => &mut families.v4,
            false => &mut families.v6,
        };
        if let Some(endpoint) = place {
            return Ok(endpoint.clone());
        }
        let settings = settings(options.idle_timeout);
        let endpoint = Endpoint::client_on(options.ground.as_deref(), address, &settings)
            .map_err(|error| text(&error))?;
        *place = Some(endpoint.clone());
        Ok(endpoint)
    }

    /// All that were made.
    fn take(&self) -> Vec<Endpoint> {
        let mut families = self.families();
        let made = [families.v4.take(), families.v6.take()];
        made.into_iter().flatten().collect()
    }
}

impl Link {
    fn new(options: LinkOptions, handle: Handle) -> Self {
        Self {
            renewing: Renewing::with(&options.pki, options.clocks.clone()),
            options: Arc::new(options),
            handle,
            sockets: Sockets::default(),
            turn: Arc::default(),
            session: None,
            may_dial: false,
        }
    }

    async fn serve(mut self, mut commands: UnboundedReceiver<LinkCommand>) {
        let may_renew = !self.options.coordinators.is_empty();
        // Files are read to judge it: not for every message.
        let mut look = Instant::now();
        loop {
            // in this order: commands may come without a pause, the other two do not
            let command = tokio::select! {
                biased;
                () = self.renewing.asked() => {
                    look = Instant::now();
                    continue;
                }
                () = sleep_until(look), if self.may_dial && may_renew => {
                    look = Instant::now() + self.look_at_certificate();
                    continue;
                }
                command = commands.recv() => command,
            };
            let Some(command) = command else { break };
            match command {
                LinkCommand::Dial { session } => {
                    self.dial(session);
                    look = Instant::now();
                }
                LinkCommand::Send { session, message } => self.send(session, *message),
                LinkCommand::Hangup { session } => self.hangup(session, "hung up"),
                LinkCommand::Fetch { hash, size } => self.fetch(hash, size),
                LinkCommand::Upload { hash } => self.upload(hash),
                LinkCommand::MayDial(may) => {
                    self.may_dial = may;
                    look = Instant::now();
                }
            }
        }
        for endpoint in self.sockets.take() {
            // The coordinator shall know at once; a silent one must not hold the stop up.
            let close = endpoint.close(Close::Done, "the agent stops");
            let _ = tokio::time::timeout(Duration::from_millis(500), close).await;
        }
    }

    /// Renews the certificate if that is due. How long until it is to be judged again.
    fn look_at_certificate(&self) -> Duration {
        if self.renewing.wait().is_none() {
            self.renew();
        }
        // At the latest behind the renewal that was begun just now.
        self.renewing.wait().unwrap_or(LOOK_AGAIN)
    }

    /// Renews the certificate beside the session, if it is due.
    fn renew(&self) {
        let (options, sockets) = (self.options.clone(), self.sockets.clone());
        let Some(turn) = self.renewing.begin() else {
            return;
        };
        tokio::spawn(async move {
            let at = places(&options, &sockets).await;
            // A failure was logged, and is tried again after a pause.
            let _ = turn.renew(at).await;
        });
    }

    fn dial(&mut self, number: u64) {
        if let Some(old) = self.session.take() {
            self.end(&old);
        }
        let (to_send, from) = channel(QUEUE);
        let connection = Arc::new(tokio::sync::OnceCell::new());
        let talk = Talk {
            number,
            options: self.options.clone(),
            handle: self.handle.clone(),
            connection: connection.clone(),
            sockets: self.sockets.clone(),
            turn: self.turn.clone(),
            renewing: self.renewing.clone(),
            from,
        };
        let task = tokio::spawn(async move {
            let why = talk.run().await;
            tracing::info!(session = number, why, "the link is down");
        });
        self.session = Some(Session {
            number,
            to_send,
            connection,
            task,
        });
    }

    /// Ends the task of a session, which then says nothing more: neither to the telemetry.
    fn end(&self, session: &Session) {
        session.task.abort();
        self.options.telemetry.unlinked(session.number);
    }

    fn send(&mut self, number: u64, message: Up) {
        let session = self.session.as_ref();
        let Some(session) = session.filter(|session| session.number == number) else {
            return;
        };
        // A session whose task has ended has told the loop, or will.
        if let Err(TrySendError::Full(_)) = session.to_send.try_send(message) {
            let why =
                format!("{QUEUE} messages wait to be sent, and the coordinator asks for more");
            self.hangup(number, &why);
        }
    }

    fn hangup(&mut self, number: u64, why: &str) {
        if let Some(session) = self.session.take_if(|session| session.number == number) {
            if let Some(connection) = session.connection.get() {
                connection.close(Close::Done, "hung up");
            }
            self.end(&session);
            let why = why.to_owned();
            tell(
                &self.handle,
                Event::Unlinked {
                    session: number,
                    why,
                },
            );
        }
    }

    fn connection(&self) -> Option<Connection> {
        self.session
            .as_ref()
            .and_then(|session| session.connection.get().cloned())
    }

    fn fetch(&self, hash: Hash, size: u64) {
        let (files, handle) = (self.options.files.clone(), self.handle.clone());
        let connection = self.connection();
        tokio::spawn(async move {
            let missing = |why: String| Event::FileNotThere { hash, why };
            let event = match connection {
                _ if files.find(hash).is_some() => Event::FileHere { hash },
                None => missing("no link".to_owned()),
                Some(connection) => match bulk::get(&connection, hash, size, &files).await {
                    Ok(_) => Event::FileHere { hash },
                    Err(error) => missing(text(&error)),
                },
            };
            tell(&handle, event);
        });
    }

    fn upload(&self, hash: Hash) {
        let session = self.session.as_ref().map(|session| session.number);
        let (files, handle) = (self.options.files.clone(), self.handle.clone());
        let connection = self.connection();
        tokio::spawn(async move {
            let failed = |here: bool, why: String| {
                tracing::warn!(session, %hash, why, "a file could not be brought");
                Event::NotUploaded { hash, here, why }
            };
            let event = match connection {
                None => failed(true, "no link".to_owned()),
                Some(connection) => match bulk::put(&connection, hash, &files).await {
                    Ok(_) => Event::Uploaded { hash },
                    Err(error) => {
                        let gone = matches!(&error, BulkError::Files(FilesError::Missing(_)));
                        failed(!gone, text(&error))
                    }
                },
            };
            tell(&handle, event);
        });
    }
}

/// An error with what caused it.
pub(crate) fn text(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Why there is no link, for people.
pub(crate) fn not_linked(error: &LinkError) -> String {
    let text = text(error);
    match error {
        LinkError::Untrusted(Refusal::Foreign) => format!(
            "{text}; another coordinator answers there, or the fleet changed its authority while \
             this node was away: then enrol it anew with a token of `driftless token create \
             --replace NAME`"
        ),
        _ => text,
    }
}

fn tell(handle: &Handle, event: Event) {
    handle.tell(Message::Event(event));
}

/// Everywhere that the coordinator may be, with the socket to reach it. What cannot be reached at
/// all, as an address of a family that this machine lacks, keeps nobody from the others.
async fn places(
    options: &LinkOptions,
    sockets: &Sockets,
) -> Result<Vec<(Endpoint, SocketAddr)>, String> {
    let (mut places, mut failures) = (Vec::new(), Vec::new());
    for coordinator in &options.coordinators {
        let found = match resolve(coordinator).await {
            Ok(found) => found,
            Err(why) => {
                failures.push(why);
                continue;
            }
        };
        for address in found {
            match sockets.of(address, options) {
                Ok(endpoint) => places.push((endpoint, address)),
                Err(why) => failures.push(format!("{address}: {why}")),
            }
        }
    }
    match places.is_empty() {
        true => Err(failures.join("; ")),
        false => Ok(places),
    }
}

/// One session from dial to end.
struct Talk {
    number: u64,
    options: Arc<LinkOptions>,
    handle: Handle,
    connection: Arc<tokio::sync::OnceCell<Connection>>,
    sockets: Sockets,
    turn: Arc<AtomicUsize>,
    renewing: Renewing,
    from: Receiver<Up>,
}

impl Talk {
    /// Dials, talks, and returns why it ended; the loop has been told.
    async fn run(mut self) -> String {
        let why = match self.connect().await {
            Ok(connection) => self.talk(connection).await,
            Err(why) => why,
        };
        self.options.telemetry.unlinked(self.number);
        tell(
            &self.handle,
            Event::Unlinked {
                session: self.number,
                why: why.clone(),
            },
        );
        why
    }

    /// Tries the coordinator's addresses in turn, beginning with the one that answered last.
    async fn connect(&self) -> Result<Connection, String> {
        let coordinators = &self.options.coordinators;
        let mut failures = Vec::new();
        for _ in coordinators {
            let turn = self.turn.load(Ordering::Relaxed) % coordinators.len();
            let coordinator = &coordinators[turn];
            match self.connect_to(coordinator).await {
                Ok(connection) => return Ok(connection),
                Err(why) => failures.push(format!("{coordinator}: {why}")),
            }
            self.next_turn();
        }
        match failures.is_empty() {
            true => Err("no coordinator is set".to_owned()),
            false => Err(failures.join("; ")),
        }
    }

    fn next_turn(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
    }

    async fn connect_to(&self, coordinator: &str) -> Result<Connection, String> {
        let mut last = String::new();
        for address in resolve(coordinator).await? {
            match self.connect_at(address).await {
                Ok(connection) => return Ok(connection),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    async fn connect_at(&self, address: SocketAddr) -> Result<Connection, String> {
        let endpoint = self.sockets.of(address, &self.options)?;
        if self.renewing.only_renewable()
            && let Some(turn) = self.renewing.begin()
        {
            let renewed = turn.renew(Ok(vec![(endpoint.clone(), address)])).await;
            // Where only this side takes it for expired its clock may be wrong.
            if let (Err(why), true) = (renewed, self.renewing.said_expired()) {
                return Err(format!(
                    "the certificate has expired and is not renewed: {why}"
                ));
            }
        }
        let enrolled = enrolled(&self.options.pki)?;
        let holder = Holder::new(&enrolled.credential).map_err(|error| text(&error))?;
        let tls = certs::session_client(&enrolled.authorities, &holder, self.renewing.clock())
            .map_err(|error| text(&error))?;
        let connection = endpoint.dial(address, tls).await;
        let connection = connection.map_err(|error| not_linked(&error))?;
        if let [own, _, ..] = &enrolled.authorities[..]
            && connection.peer_is_of(own)
        {
            // The coordinator is of the new authority: the one before is trusted no longer than
            // until the next renewal.
            self.renewing.ask(DROP_OTHERS);
        }
        Ok(connection)
    }

    async fn talk(&mut self, connection: Connection) -> String {
        let (mut tx, mut rx) = match connection.open_session().await {
            Ok(ends) => ends,
            Err(error) => return text(&error),
        };
        // Set once: this session makes one connection.
        let _ = self.connection.set(connection.clone());
        tell(
            &self.handle,
            Event::Linked {
                session: self.number,
            },
        );
        let (parts, of_inventory) = unbounded_channel();
        let send = send_all(&mut tx, &mut self.from, parts);
        let (pieces, to_send) = unbounded_channel();
        let mut pieces = Some(pieces);
        let (handle, session) = (self.handle.clone(), self.number);
        let (turn, renewing) = (&self.turn, self.renewing.clone());
        let mut welcome = false;
        let receive = async {
            loop {
                match rx.recv().await {
                    Ok(Down::Telemetry(receipt)) => {
                        self.options.telemetry.received(session, receipt);
                    }
                    Ok(Down::Renew { within }) => renewing.ask(within),
                    Ok(message) => {
                        if let Down::Welcome(told) = &message {
                            let takes = told.features & wire::TELEMETRY != 0;
                            if let Some(pieces) = pieces.take().filter(|_| takes) {
                                self.options.telemetry.linked(session, pieces);
                            }
                            welcome = true;
                            renewing.hear(told.now);
                            rx.accepted();
                            tracing::info!(session, "the link is up");
                        }
                        log_refusal(session, &message);
                        tell(&handle, Event::Heard { session, message });
                    }
                    Err(error) => {
                        // one that answers and does not let us in shall not keep us from the others
                        if !welcome {
                            turn.fetch_add(1, Ordering::Relaxed);
                        }
                        if let LinkError::Closed { close, .. } = &error
                            && *close == Close::Expired
                        {
                            renewing.is_expired();
                        }
                        return text(&error);
                    }
                }
            }
        };
        let logs = serve_logs(connection.clone(), self.options.data.clone());
        // whichever ends first ends the session: first what was heard is told, so that last words
        // are not lost when nothing can be sent any more
        let why = tokio::select! {
            biased;
            why = receive => why,
            why = send => why,
            why = send_telemetry(connection.telemetry(), to_send) => why,
            why = send_parts(connection.inventory(), of_inventory, (&self.handle, session)) => why,
            why = logs => why,
        };
        connection.close(Close::Done, "the session has ended");
        why
    }
}

/// Sends what the loop says until the session ends; returns why it did. Parts of an inventory go
/// to `parts`: they have a stream of their own, so that nothing waits behind them.
async fn send_all(
    tx: &mut AgentTx,
    from: &mut Receiver<Up>,
    parts: UnboundedSender<InventoryPart>,
) -> String {
    while let Some(message) = from.recv().await {
        let message = match message {
            Up::InventoryPart(part) => {
                let _ = parts.send(part); // the session is ending
                continue;
            }
            message => message,
        };
        match tx.send(&message).await {
            Ok(()) => {}
            // It would be too large in the next session, too: all else goes on.
            Err(error @ LinkError::Frame(FrameError::TooLarge { .. }))
                if matches!(message, Up::Inventory(_)) =>
            {
                let why = text(&error);
                tracing::error!(%why, "the inventory for the coordinator is left out");
            }
            Err(error) => return text(&error),
        }
    }
    "hung up".to_owned()
}

fn log_refusal(session: u64, message: &Down) {
    if let Down::Refuse(refuse) = message {
        let why = &refuse.text;
        tracing::warn!(session, why, "the coordinator refuses this agent");
    }
}

/// Sends pieces of telemetry until the connection ends; returns why it did.
async fn send_telemetry(mut tx: TelemetryTx, mut pieces: UnboundedReceiver<Report>) -> String {
    while let Some(report) = pieces.recv().await {
        if let Err(error) = tx.send(report).await {
            return text(&error);
        }
    }
    // Nothing is measured any more; the session goes on.
    pending().await
}

/// Sends the parts of an inventory until the connection ends; returns why it did. The loop makes
/// one when the link has taken the one before.
async fn send_parts(
    mut tx: InventoryTx,
    mut parts: UnboundedReceiver<InventoryPart>,
    (handle, session): (&Handle, u64),
) -> String {
    while let Some(part) = parts.recv().await {
        if let Err(error) = tx.send(part).await {
            return text(&error);
        }
        tell(handle, Event::PartTaken { session });
    }
    // Whoever gives them has ended, and says why.
    pending().await
}

pub(crate) fn enrolled(pki: &Path) -> Result<Enrolled, String> {
    let key = NodeKey::open_or_create(pki).map_err(|error| text(&error))?;
    key.enrolled(pki)
        .map_err(|error| text(&error))?
        .ok_or_else(|| format!("{} holds no certificate; enrol with --token", pki.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry;
    use shared::ids::Incarnation;

    /// A link without a coordinator. Its sessions do nothing while a test does not wait.
    fn link(dir: &Path) -> Link {
        let options = telemetry::Options {
            data: dir.to_owned(),
            incarnation: Incarnation([1; 16]),
            every: None,
            nvml: None,
            limits: edge_core::telemetry::Limits::default(),
            hold_above: edge_core::pressure::HoldLimits::default(),
        };
        let handle = Handle::default();
        let (telemetry, _) = telemetry::start(options, handle.clone()).unwrap();
        let options = LinkOptions {
            coordinators: Vec::new(),
            pki: dir.join("pki"),
            data: dir.to_owned(),
            files: FileDir::open(&dir.join("files"), 1 << 20).unwrap(),
            idle_timeout: Duration::from_secs(60),
            telemetry: Arc::new(telemetry),
            ground: None,
            clocks: Clocks::default(),
        };
        Link::new(options, handle)
    }

    /// The ring went on sending into a session that was hung up, as long as the link was paused.
    #[test]
    fn a_session_that_is_hung_up_or_replaced_gets_no_telemetry_any_more() {
        let dir = tempfile::tempdir().unwrap();
        runtime().unwrap().block_on(async {
            let mut link = link(dir.path());
            for (number, hang_up) in [(1, true), (2, false)] {
                link.dial(number);
                let (pieces, mut to_send) = unbounded_channel();
                link.options.telemetry.linked(number, pieces);
                match hang_up {
                    true => link.hangup(number, "a test"),
                    false => link.dial(number + 1),
                }
                let over = tokio::time::timeout(Duration::from_secs(60), to_send.recv()).await;
                assert_eq!(over.unwrap(), None, "session {number}");
            }
        });
    }

    #[test]
    fn a_session_that_takes_nothing_is_ended_before_it_fills_the_memory() {
        let dir = tempfile::tempdir().unwrap();
        runtime().unwrap().block_on(async {
            let mut link = link(dir.path());
            link.dial(1);
            for nonce in 0..QUEUE as u64 {
                link.send(1, Up::Pong { nonce });
            }
            assert!(link.session.is_some());
            link.send(1, Up::Pong { nonce: 0 });
            assert!(link.session.is_none());
        });
    }
}
