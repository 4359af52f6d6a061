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

    /// Introduces a session with its hello.
    ///
    /// # Errors
    /// [`Stopping`].
    pub(crate) async fn open(
        &self,
        conn: Conn,
        to: mpsc::Sender<ToSession>,
        input: Input,
    ) -> Result<(), Stopping> {
        self.queue
            .send(Message::Hello { conn, to, input })
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
    let (queue, inputs) = mpsc::channel(QUEUE);
    let (changed, changes) = watch::channel(0);
    let (tokens, access) = watch::channel(engine.access().clone());
    let timers = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let thread = std::thread::Builder::new()
        .name("engine".into())
        .spawn(move || {
            let host = Host {
                engine,
                sessions: BTreeMap::new(),
                waiting: BTreeMap::new(),
                requests: 0,
                changed,
                tokens,
                drop_files: Box::new(drop_files),
            };
            timers.block_on(host.run(inputs))
        })?;
    let handle = Handle {
        queue,
        facts: Arc::new(Semaphore::new(FACTS_KIB as usize)),
        changes,
        access,
    };
    Ok((handle, thread))
}

struct Host<S: Store> {
    engine: Engine<S>,
    sessions: BTreeMap<Conn, mpsc::Sender<ToSession>>,
    waiting: BTreeMap<RequestId, oneshot::Sender<Reply>>,
    requests: u64,
    changed: watch::Sender<u64>,
    tokens: watch::Sender<Tokens>,
    drop_files: Box<dyn FnMut(Vec<Hash>) + Send>,
}

impl<S: Store> Host<S> {
    async fn run(mut self, mut queue: mpsc::Receiver<Message>) -> Result<(), String> {
        let mut messages = Vec::with_capacity(GROUP);
        loop {
            let wakeup = self.engine.next_wakeup();
            let woken = wait(&mut queue, &mut messages, wakeup).await;
            let mut stop = !woken && messages.is_empty();
            let mut inputs = if woken { vec![Input::Wake] } else { Vec::new() };
            let (mut turned, mut shares) = (Vec::new(), Vec::new());
            for message in messages.drain(..) {
                match message {
                    Message::Facts(facts, share) => {
                        inputs.push(facts);
                        shares.push(share);
                    }
                    Message::Stop => stop = true,
                    Message::Turn(reply) => turned.push(reply),
                    message => inputs.push(self.admit(message)),
                }
            }
            if !inputs.is_empty() {
                self.decide(inputs)?;
            }
            drop(shares);
            for reply in turned {
                let _ = reply.send(()); // the asker may have gone away
            }
            if stop {
                return Ok(());
            }
        }
    }

    fn admit(&mut self, message: Message) -> Input {
        match message {
            Message::Hello { conn, to, input } => {
                self.sessions.insert(conn, to);
                input
            }
            Message::Facts(input, _) => input,
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
            Message::Turn(_) | Message::Stop => Input::Wake,
        }
    }

    fn decide(&mut self, inputs: Vec<Input>) -> Result<(), String> {
        let changes = inputs.iter().any(may_change);
        let Self {
            engine,
            sessions,
            waiting,
            tokens,
            drop_files,
            ..
        } = self;
        let mut out = |output| match output {
            Output::Send { conn, message } => {
                deliver(sessions, conn, ToSession::Send(Box::new(message)));
            }
            Output::Close { conn, why } => {
                deliver(sessions, conn, ToSession::Close(why));
                sessions.remove(&conn);
            }
            Output::Reply { id, reply } => {
                if let Some(waiting) = waiting.remove(&id) {
                    let _ = waiting.send(*reply); // the asker may have gone away
                }
            }
            Output::DropFiles(hashes) => drop_files(hashes),
            Output::Access(good) => drop(tokens.send_replace(good)),
        };
        let done = engine.run(clock::now(), inputs, &mut out);
        if changes {
            self.changed.send_modify(|n| *n += 1);
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

/// Hands a message to a session, which is dropped (and then closes itself) when it is too slow.
fn deliver(sessions: &mut BTreeMap<Conn, mpsc::Sender<ToSession>>, conn: Conn, message: ToSession) {
    if let Some(session) = sessions.get(&conn)
        && session.try_send(message).is_err()
    {
        sessions.remove(&conn);
    }
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
