//! The agent's end of the link: dials when the core says so, carries messages both ways, moves
//! files. It decides nothing; whatever goes wrong is told to the loop as an event.

use crate::clock::Clocks;
use crate::looping::Message;
use crate::mailbox::Handle;
use crate::renewing::{LOOK_AGAIN, Renewing};
use crate::talk::Talk;
use crate::telemetry::Measures;
use certs::Refusal;
use contents::{Dir as FileDir, FilesError};
use edge_core::event::Event;
use link::bulk::{self, BulkError};
use link::{Close, Connection, Endpoint, Ground, LinkError, Settings};
use shared::ids::Hash;
use shared::time::Span;
use shared::wire::Up;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Sender, UnboundedReceiver, channel};
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

pub(crate) fn settings(idle: Duration) -> Settings {
    let idle = Span(u64::try_from(idle.as_millis()).unwrap_or(60_000));
    Settings {
        idle,
        keep_alive: Span((idle.0 / 3).clamp(100, 20_000)),
        ..Settings::agent()
    }
}

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
pub(crate) struct Sockets(Arc<std::sync::Mutex<Families>>);

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
    pub(crate) fn of(
        &self,
        address: SocketAddr,
        options: &LinkOptions,
    ) -> Result<Endpoint, String> {
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

pub(crate) fn tell(handle: &Handle, event: Event) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry;
    use shared::ids::Incarnation;
    use std::path::Path;
    use tokio::sync::mpsc::unbounded_channel;

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
