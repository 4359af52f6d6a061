//! The engine's thread: one engine, one queue of inputs, outputs handed to sessions and waiting
//! requests.
//!
//! Invariant: nothing but this thread touches the engine; whoever wants something of it sends a
//! message and is answered after the commit.

use crate::caller;
use crate::clock;
use cloud_core::access::{Caller, Tokens};
use cloud_core::engine::Engine;
use cloud_core::event::{About, Conn, Input, Output, Refused, Reply, Request, RequestId};
use cloud_core::store::Store;
use shared::ids::{Hash, NodeId, RunId};
use shared::time::Mono;
use shared::wire::Down;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tracing::field::display;

/// Inputs that wait for the engine; senders wait when it is full.
const QUEUE: usize = 4096;
/// Inputs decided and committed together.
const GROUP: usize = 1024;
/// Memory of facts and parts of inventories that wait for the engine, in KiB; whoever brings more
/// waits, and so does its gateway.
const FACTS_KIB: u32 = 64 * 1024;
/// Messages on their way to one session; a session that is slower is closed and resumes from its
/// cursors.
pub(crate) const SESSION_QUEUE: usize = 1024;

/// What a session is told.
#[derive(Debug)]
pub(crate) enum ToSession {
    /// Send this.
    Send(Box<Down>),
    /// Send what was given before, then close.
    Close(String),
}

enum Message {
    Hello {
        conn: Conn,
        from: SocketAddr,
        to: mpsc::Sender<ToSession>,
        input: Input,
    },
    Input(Input),
    /// Facts or a part of an inventory, with their share of [`FACTS_KIB`].
    Facts(Input, OwnedSemaphorePermit),
    Request {
        request: Box<Request>,
        caller: Caller,
        reply: oneshot::Sender<Reply>,
    },
    /// Answered when what came before is decided.
    Turn(oneshot::Sender<()>),
    Stop,
}

/// The way to the engine.
#[derive(Clone, Debug)]
pub struct Handle {
    queue: mpsc::Sender<Message>,
    facts: Arc<Semaphore>,
    changes: watch::Receiver<u64>,
    access: watch::Receiver<Tokens>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Message")
    }
}

/// The engine has ended, or is about to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the coordinator is stopping")]
pub struct Stopping;

impl Handle {
    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// [`Stopping`].
    pub async fn ask(&self, request: Request) -> Result<Reply, Stopping> {
        let (reply, answer) = oneshot::channel();
        let asked = Asked::of(&request);
        let message = Message::Request {
            request: Box::new(request),
            caller: caller::current(),
            reply,
        };
        self.queue.send(message).await.map_err(|_| Stopping)?;
        let reply = answer.await.map_err(|_| Stopping)?;
        if let Some(asked) = asked {
            asked.log(&reply);
        }
        Ok(reply)
    }

    /// Tells of something that happened; waits while the engine has too much to do.
    ///
    /// # Errors
    /// [`Stopping`].
    pub async fn tell(&self, input: Input) -> Result<(), Stopping> {
        self.queue
            .send(Message::Input(input))
            .await
            .map_err(|_| Stopping)
    }

    /// Hands over facts, or a part of an inventory, which take so many bytes of memory; waits while
    /// too many wait for the engine.
    ///
    /// # Errors
    /// [`Stopping`].
    pub(crate) async fn bring(&self, facts: Input, bytes: usize) -> Result<(), Stopping> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let share = self.facts.clone().acquire_many_owned(kib.min(FACTS_KIB));
        let share = share.await.map_err(|_| Stopping)?;
        self.queue
            .send(Message::Facts(facts, share))
            .await
            .map_err(|_| Stopping)
    }

    /// Waits until the engine has taken a turn.
    ///
    /// # Errors
    /// [`Stopping`].
    pub(crate) async fn turned(&self) -> Result<(), Stopping> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Turn(reply);
        self.queue.send(message).await.map_err(|_| Stopping)?;
        answer.await.map_err(|_| Stopping)
    }

    /// Introduces a session with its hello; `from` is where its packets come from.
    ///
    /// # Errors
    /// [`Stopping`].
    pub(crate) async fn open(
        &self,
        (conn, from): (Conn, SocketAddr),
        to: mpsc::Sender<ToSession>,
        input: Input,
    ) -> Result<(), Stopping> {
        self.queue
            .send(Message::Hello {
                conn,
                from,
                to,
                input,
            })
            .await
            .map_err(|_| Stopping)
    }

    /// Ends the engine after what is queued before.
    pub(crate) async fn stop(&self) {
        // It may have ended by itself.
        let _ = self.queue.send(Message::Stop).await;
    }

    /// The access tokens that are good: those of the last commit.
    #[must_use]
    pub fn access(&self) -> watch::Receiver<Tokens> {
        self.access.clone()
    }

    /// Grows whenever something may have changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

/// A request that changes something, for the log.
struct Asked {
    what: &'static str,
    run: Option<RunId>,
    node: Option<NodeId>,
    name: Option<String>,
}

impl Asked {
    fn of(request: &Request) -> Option<Self> {
        let action = request.action()?;
        let (mut run, mut node, mut name) = (None, None, None);
        match action.about {
            About::Run(about) => run = Some(about),
            About::Node(about) => node = Some(about),
            About::Name(about) => name = Some(about.to_owned()),
        }
        let what = action.what;
        Some(Self {
            what,
            run,
            node,
            name,
        })
    }

    fn log(self, reply: &Reply) {
        let run = match reply {
            // of the first submission with its key
            Reply::Submitted(run) => Some(*run),
            _ => self.run,
        };
        let refused = match reply {
            Reply::Refused(why) => Some(why.to_string()),
            _ => None,
        };
        let (run, node) = (run.map(display), self.node.map(display));
        tracing::info!(
            what = self.what,
            run,
            node,
            name = self.name,
            refused,
            "asked"
        );
    }
}

/// Starts the engine's thread. `drop_files` is called for files that no run names any more.
///
/// # Errors
/// When the system gives no thread.
pub fn start<S: Store + Send + 'static>(
    engine: Engine<S>,
    drop_files: impl FnMut(Vec<Hash>) + Send + 'static,
) -> std::io::Result<(Handle, JoinHandle<Result<(), String>>)> {
    let (handle, inputs, news) = ways(engine.access().clone());
    let timers = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let thread = std::thread::Builder::new()
        .name("engine".into())
        .spawn(move || {
            let host = Host {
                engine,
                desk: Desk::default(),
                news,
                drop_files: Box::new(drop_files),
            };
            timers.block_on(host.run(inputs))
        })?;
    Ok((handle, thread))
}

/// The way to an engine, and its end of it.
fn ways(access: Tokens) -> (Handle, mpsc::Receiver<Message>, News) {
    let (queue, inputs) = mpsc::channel(QUEUE);
    let (changed, changes) = watch::channel(0);
    let (tokens, access) = watch::channel(access);
    let handle = Handle {
        queue,
        facts: Arc::new(Semaphore::new(FACTS_KIB as usize)),
        changes,
        access,
    };
    (handle, inputs, News { changed, tokens })
}

/// What everybody may know of the engine.
struct News {
    changed: watch::Sender<u64>,
    tokens: watch::Sender<Tokens>,
}

/// Who waits for the engine's word.
#[derive(Default)]
struct Desk {
    sessions: BTreeMap<Conn, mpsc::Sender<ToSession>>,
    waiting: BTreeMap<RequestId, oneshot::Sender<Reply>>,
    requests: u64,
}

impl Desk {
    fn admit(&mut self, message: Message) -> Input {
        match message {
            Message::Hello {
                conn, to, input, ..
            } => {
                self.sessions.insert(conn, to);
                input
            }
            Message::Input(input) => {
                if let Input::Gone { conn, .. } = &input {
                    self.sessions.remove(conn);
                }
                input
            }
            Message::Request {
                request,
                caller,
                reply,
            } => {
                self.requests += 1;
                let id = RequestId(self.requests);
                self.waiting.insert(id, reply);
                Input::Request {
                    id,
                    request,
                    caller,
                }
            }
            Message::Facts(input, _) => input,
            Message::Turn(_) | Message::Stop => Input::Wake,
        }
    }

    fn take(&mut self, messages: impl IntoIterator<Item = Message>) -> Taken {
        let mut taken = Taken::default();
        for message in messages {
            match message {
                Message::Facts(facts, share) => {
                    taken.inputs.push((facts, None));
                    taken.shares.push(share);
                }
                Message::Turn(reply) => taken.turned.push(reply),
                Message::Stop => taken.stop = true,
                message => {
                    let from = match &message {
                        Message::Hello { from, .. } => Some(*from),
                        _ => None,
                    };
                    taken.inputs.push((self.admit(message), from));
                }
            }
        }
        taken
    }

    /// Hands a message to a session, which is dropped (and then closes itself) when it is too slow.
    fn send(&mut self, conn: Conn, message: Down) {
        self.deliver(conn, ToSession::Send(Box::new(message)));
    }

    fn close(&mut self, conn: Conn, why: String) {
        self.deliver(conn, ToSession::Close(why));
        self.sessions.remove(&conn);
    }

    fn deliver(&mut self, conn: Conn, message: ToSession) {
        if let Some(session) = self.sessions.get(&conn)
            && session.try_send(message).is_err()
        {
            self.sessions.remove(&conn);
        }
    }

    fn reply(&mut self, id: RequestId, reply: Reply) {
        if let Some(waiting) = self.waiting.remove(&id) {
            let _ = waiting.send(reply); // the asker may have gone away
        }
    }
}

/// What the engine decides on in one turn.
#[derive(Default)]
struct Taken {
    /// And where a hello came from.
    inputs: Vec<(Input, Option<SocketAddr>)>,
    /// What the facts among them hold of [`FACTS_KIB`].
    shares: Vec<OwnedSemaphorePermit>,
    /// Who waits for the end of the turn.
    turned: Vec<oneshot::Sender<()>>,
    stop: bool,
}

impl Taken {
    /// The turn is over.
    fn over(self) {
        for reply in self.turned {
            let _ = reply.send(()); // the asker may have gone away
        }
    }
}

/// The engine's end of a [`Handle`] where [`start`] does not run the engine: in a simulation.
pub(crate) struct Inbox {
    queue: mpsc::Receiver<Message>,
    desk: Desk,
    /// What was taken last.
    taken: Taken,
    _news: News,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox")
            .field("sessions", &self.desk.sessions.len())
            .finish_non_exhaustive()
    }
}

impl Inbox {
    /// A handle and its end.
    pub(crate) fn new() -> (Handle, Self) {
        let (handle, queue, news) = ways(Tokens::default());
        let inbox = Self {
            queue,
            desk: Desk::default(),
            taken: Taken::default(),
            _news: news,
        };
        (handle, inbox)
    }

    /// What was brought since the last call, and where a hello came from: a turn, which is over at
    /// the next call.
    pub(crate) fn take(&mut self) -> Vec<(Input, Option<SocketAddr>)> {
        std::mem::take(&mut self.taken).over();
        let Self { queue, desk, .. } = self;
        self.taken = desk.take(std::iter::from_fn(|| queue.try_recv().ok()));
        std::mem::take(&mut self.taken.inputs)
    }

    /// Carries out [`Output::Send`].
    pub(crate) fn send(&mut self, conn: Conn, message: Down) {
        self.desk.send(conn, message);
    }

    /// Carries out [`Output::Close`].
    pub(crate) fn close(&mut self, conn: Conn, why: String) {
        self.desk.close(conn, why);
    }
}

struct Host<S: Store> {
    engine: Engine<S>,
    desk: Desk,
    news: News,
    drop_files: Box<dyn FnMut(Vec<Hash>) + Send>,
}

impl<S: Store> Host<S> {
    async fn run(mut self, mut queue: mpsc::Receiver<Message>) -> Result<(), String> {
        let mut messages = Vec::with_capacity(GROUP);
        loop {
            let wakeup = self.engine.next_wakeup();
            let woken = wait(&mut queue, &mut messages, wakeup).await;
            let closed = !woken && messages.is_empty();
            let mut taken = self.desk.take(messages.drain(..));
            let wake = woken.then_some(Input::Wake);
            let inputs = std::mem::take(&mut taken.inputs);
            let inputs = inputs.into_iter().map(|(input, _)| input);
            let inputs: Vec<Input> = wake.into_iter().chain(inputs).collect();
            if !inputs.is_empty() {
                self.decide(inputs)?;
            }
            let stop = taken.stop || closed;
            taken.over();
            if stop {
                return Ok(());
            }
        }
    }

    fn decide(&mut self, inputs: Vec<Input>) -> Result<(), String> {
        let changes = inputs.iter().any(may_change);
        let Self {
            engine,
            desk,
            news,
            drop_files,
        } = self;
        let mut out = |output| match output {
            Output::Send { conn, message } => desk.send(conn, message),
            Output::Close { conn, why } => desk.close(conn, why),
            Output::Reply { id, reply } => desk.reply(id, *reply),
            Output::DropFiles(hashes) => drop_files(hashes),
            Output::Access(good) => drop(news.tokens.send_replace(good)),
        };
        let done = engine.run(clock::now(), inputs, &mut out);
        if changes {
            self.news.changed.send_modify(|n| *n += 1);
        }
        done.map_err(|error| error.to_string())
    }
}

/// Whether an input can change what others see.
fn may_change(input: &Input) -> bool {
    let Input::Request { request, .. } = input else {
        return true;
    };
    request.action().is_some() || matches!(**request, Request::Enrol { .. })
}

/// Waits for messages or for the wakeup; `true` when the wakeup has come.
async fn wait(
    queue: &mut mpsc::Receiver<Message>,
    messages: &mut Vec<Message>,
    wakeup: Option<Mono>,
) -> bool {
    let Some(wakeup) = wakeup else {
        queue.recv_many(messages, GROUP).await;
        return false;
    };
    let pause = Duration::from_nanos(wakeup.0.saturating_sub(clock::now().mono.0));
    tokio::select! {
        biased;
        _ = queue.recv_many(messages, GROUP) => clock::now().mono >= wakeup,
        () = tokio::time::sleep(pause) => true,
    }
}

/// A refusal for a reply that does not belong to the request: a defect, said as such.
pub(crate) fn unexpected(reply: &Reply) -> Refused {
    Refused::State(format!(
        "the coordinator answered with something else: {reply:?}"
    ))
}
