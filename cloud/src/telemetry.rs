//! Telemetry at the coordinator: one thread keeps a file for each node, outside the store, and
//! answers from it. Sessions hand pieces over and never wait for a disk.

use crate::clock;
use crate::host::ToSession;
use cloud_core::event::Conn;
use cloud_core::telemetry::{Book, Journal, JournalError, Keep, Missing, Newest, Refused};
use shared::ids::{Incarnation, NodeId};
use shared::telemetry::Report;
use shared::telemetry::query::{Answer, Collector, Query};
use shared::wire::Down;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Pieces that wait for the thread; what comes on top is not taken, and sent again by its agent.
const QUEUE: usize = 1024;
/// Longest time until a piece is durable and acknowledged.
const SYNC: Duration = Duration::from_secs(20);

#[derive(Debug)]
enum Command {
    /// A session was welcomed that sends telemetry.
    Begin {
        node: NodeId,
        incarnation: Incarnation,
        conn: Conn,
        to: mpsc::WeakSender<ToSession>,
    },
    Piece {
        node: NodeId,
        conn: Conn,
        report: Box<Report>,
    },
    End {
        node: NodeId,
        conn: Conn,
    },
    Newest(NodeId, oneshot::Sender<Result<Option<Newest>, String>>),
    Missing(NodeId, oneshot::Sender<Result<Vec<Missing>, String>>),
    Query(NodeId, Query, oneshot::Sender<Result<Answer, String>>),
}

/// The way to the thread.
#[derive(Debug, Clone)]
pub(crate) struct Telemetry(SyncSender<Command>);

/// Starts the thread; the files lie in `dir`.
///
/// # Errors
/// When the directory or the thread cannot be made.
pub(crate) fn start(dir: PathBuf, keep: Keep) -> io::Result<Telemetry> {
    fs::create_dir_all(&dir)?;
    let (to, from) = sync_channel(QUEUE);
    let keeper = Keeper {
        dir,
        keep,
        books: BTreeMap::new(),
        sessions: BTreeMap::new(),
    };
    std::thread::Builder::new()
        .name("telemetry".into())
        .spawn(move || keeper.run(&from))?;
    Ok(Telemetry(to))
}

impl Telemetry {
    fn tell(&self, command: Command) {
        if let Err(TrySendError::Full(_)) = self.0.try_send(command) {
            tracing::debug!("telemetry comes faster than it can be written");
        }
    }

    /// A session was welcomed that sends telemetry: it is told what is here.
    pub(crate) fn begin(
        &self,
        node: NodeId,
        incarnation: Incarnation,
        conn: Conn,
        to: mpsc::WeakSender<ToSession>,
    ) {
        self.tell(Command::Begin {
            node,
            incarnation,
            conn,
            to,
        });
    }

    /// A piece of a session.
    pub(crate) fn piece(&self, node: NodeId, conn: Conn, report: Report) {
        let report = Box::new(report);
        self.tell(Command::Piece { node, conn, report });
    }

    /// A session is over.
    pub(crate) fn end(&self, node: NodeId, conn: Conn) {
        self.tell(Command::End { node, conn });
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, String>>) -> Command,
    ) -> Result<T, String> {
        let (reply, answer) = oneshot::channel();
        let busy = || "telemetry cannot be read just now: ask again".to_owned();
        self.0.try_send(command(reply)).map_err(|_| busy())?;
        answer.await.map_err(|_| busy())?
    }

    /// The newest sample of a node.
    pub(crate) async fn newest(&self, node: NodeId) -> Result<Option<Newest>, String> {
        self.ask(|reply| Command::Newest(node, reply)).await
    }

    /// What is missing of a node.
    pub(crate) async fn missing(&self, node: NodeId) -> Result<Vec<Missing>, String> {
        self.ask(|reply| Command::Missing(node, reply)).await
    }

    /// Values of a node.
    pub(crate) async fn query(&self, node: NodeId, query: Query) -> Result<Answer, String> {
        self.ask(|reply| Command::Query(node, query, reply)).await
    }
}

struct Session {
    conn: Conn,
    incarnation: Incarnation,
    /// Weak: a session that the engine gave up shall end.
    to: mpsc::WeakSender<ToSession>,
}

struct Keeper {
    dir: PathBuf,
    keep: Keep,
    books: BTreeMap<NodeId, Book<NodeFile>>,
    sessions: BTreeMap<NodeId, Session>,
}

impl Keeper {
    fn run(mut self, from: &Receiver<Command>) {
        let mut due = Instant::now() + SYNC;
        loop {
            let left = due.saturating_duration_since(Instant::now());
            match from.recv_timeout(left) {
                Ok(command) => self.obey(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if Instant::now() >= due {
                self.sync_all();
                due = Instant::now() + SYNC;
            }
        }
        self.sync_all();
    }

    fn obey(&mut self, command: Command) {
        // Whoever asked may be gone.
        match command {
            Command::Begin {
                node,
                incarnation,
                conn,
                to,
            } => self.begin(
                node,
                Session {
                    conn,
                    incarnation,
                    to,
                },
            ),
            Command::Piece { node, conn, report } => self.piece(node, conn, *report),
            Command::End { node, conn } => {
                if self.sessions.get(&node).is_some_and(|s| s.conn == conn) {
                    self.sync(node);
                    self.sessions.remove(&node);
                }
            }
            Command::Newest(node, reply) => {
                let _ = reply.send(self.book(node).map(|book| book.newest().cloned()));
            }
            Command::Missing(node, reply) => {
                let _ = reply.send(self.book(node).map(|book| book.missing()));
            }
            Command::Query(node, query, reply) => {
                let _ = reply.send(self.book(node).and_then(|book| answer(book, query)));
            }
        }
    }

    fn begin(&mut self, node: NodeId, session: Session) {
        self.sessions.insert(node, session);
        if let Err(error) = self.book(node) {
            tracing::warn!(%node, error, "telemetry of this node cannot be kept");
        }
        self.sync(node);
    }

    fn book(&mut self, node: NodeId) -> Result<&mut Book<NodeFile>, String> {
        if !self.books.contains_key(&node) {
            let file = NodeFile(self.dir.join(format!("{node}.tel")));
            let book = Book::open(file, self.keep).map_err(|error| error.to_string())?;
            self.books.insert(node, book);
        }
        self.books
            .get_mut(&node)
            .ok_or_else(|| "no such telemetry".to_owned())
    }

    fn piece(&mut self, node: NodeId, conn: Conn, report: Report) {
        let session = self.sessions.get(&node).filter(|s| s.conn == conn);
        if session.is_none_or(|s| s.incarnation != report.incarnation) {
            return;
        }
        let taken = match self.book(node) {
            Ok(book) => book.take(report, clock::wall()).map(|()| book.is_urgent()),
            Err(error) => Err(Refused::Journal(JournalError(error))),
        };
        match taken {
            Ok(true) => self.sync(node),
            Ok(false) => {}
            Err(error) => tracing::warn!(%node, %error, "a piece of telemetry was not taken"),
        }
    }

    fn sync_all(&mut self) {
        // A session whose file could not be synced or read waits for a receipt all the same.
        let live = self.sessions.keys().copied();
        let lost: Vec<NodeId> = live.filter(|node| !self.books.contains_key(node)).collect();
        let again = lost.into_iter().filter(|node| self.book(*node).is_ok());
        let mut owed: Vec<NodeId> = again.collect();
        let books = self.books.iter();
        owed.extend(
            books
                .filter(|(_, book)| book.is_owed())
                .map(|(node, _)| *node),
        );
        for node in owed {
            self.sync(node);
        }
    }

    /// Makes what is there durable and tells its session.
    fn sync(&mut self, node: NodeId) {
        let Some(book) = self.books.get_mut(&node) else {
            return;
        };
        if let Err(error) = book.sync() {
            tracing::warn!(%node, %error, "telemetry cannot be made durable");
            // What is known in memory may not be on the disk: read again when it is needed.
            self.books.remove(&node);
            return;
        }
        if let Some(session) = self.sessions.get(&node) {
            let receipt = book.receipt(session.incarnation);
            let message = ToSession::Send(Box::new(Down::Telemetry(receipt)));
            // A session that is too slow for it gets the next one, or ends.
            let _ = session.to.upgrade().map(|to| to.try_send(message));
        }
    }
}

fn answer(book: &Book<NodeFile>, query: Query) -> Result<Answer, String> {
    let mut collector = Collector::new(query);
    let failed = |error: JournalError| error.to_string();
    book.visit(|who, block| collector.note(who, block))
        .map_err(failed)?;
    book.visit(|who, block| collector.take(who, block))
        .map_err(failed)?;
    Ok(collector.answer())
}

/// `NODE.tel`.
#[derive(Debug)]
struct NodeFile(PathBuf);

fn failed(path: &Path) -> impl Fn(io::Error) -> JournalError {
    move |error| JournalError(format!("{}: {error}", path.display()))
}

impl Journal for NodeFile {
    fn read(&self) -> Result<Vec<u8>, JournalError> {
        let mut bytes = Vec::new();
        match File::open(&self.0).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&self.0)(error)),
            _ => Ok(bytes),
        }
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), JournalError> {
        let write = || {
            let mut file = OpenOptions::new().write(true).open(&self.0)?;
            file.set_len(offset)?;
            file.seek(SeekFrom::Start(offset))?;
            file.write_all(bytes)
        };
        write().map_err(failed(&self.0))
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        let synced = File::open(&self.0).and_then(|file| file.sync_data());
        synced.map_err(failed(&self.0))
    }

    fn replace(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        let aside = self.0.with_extension("new");
        let write = || {
            let mut file = File::create(&aside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&aside, &self.0)?;
            let dir = self.0.parent().unwrap_or_else(|| Path::new("."));
            File::open(dir)?.sync_all()
        };
        write().map_err(failed(&self.0))
    }
}
