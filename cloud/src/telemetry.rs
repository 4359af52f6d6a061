//! Telemetry at the coordinator: one thread keeps a file for each node, outside the store, and
//! answers from it. Sessions hand pieces over and never wait for a disk.

mod queue;
mod receipts;

use crate::clock;
use crate::host::ToSession;
use cloud_core::event::Conn;
use cloud_core::telemetry::{Book, Journal, JournalError, Keep, Missing, Newest, Refused};
use queue::{Receiver, Sender, Taken, queue};
use receipts::Receipts;
use shared::ids::{Incarnation, NodeId};
use shared::telemetry::query::{Answer, Collector, Query};
use shared::telemetry::{Content, Report};
use shared::time::Unix;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Longest time until a piece is durable; it is acknowledged with the next one.
const SYNC: Duration = Duration::from_secs(20);
/// The same where an agent waits for it: others that come at the same time share a sync.
const SOON: Duration = Duration::from_millis(100);
/// More files than this are made durable by one sync of the file system, which takes a moment even
/// for thousands of them; one by one each waits for a commit of the file system.
const MANY: usize = 4;
/// The first Linux whose syncfs(2) says that something could not be written.
const SYNCFS_TELLS: (u32, u32) = (5, 8);

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
        /// When it came.
        at: Unix,
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
pub(crate) struct Telemetry {
    queue: Arc<Sender>,
    receipts: Arc<Receipts>,
}

/// Starts the thread; the files lie in `dir`.
///
/// # Errors
/// When the directory or the thread cannot be made.
pub(crate) fn start(dir: PathBuf, keep: Keep) -> io::Result<Telemetry> {
    fs::create_dir_all(&dir)?;
    let (to, from) = queue();
    let receipts = Arc::<Receipts>::default();
    let keeper = Keeper {
        receipts: receipts.clone(),
        file_system: file_system(&dir)?,
        dir,
        keep,
        books: BTreeMap::new(),
        sessions: BTreeMap::new(),
        due: Instant::now() + SYNC,
    };
    std::thread::Builder::new()
        .name("telemetry".into())
        .spawn(move || keeper.run(&from))?;
    let queue = Arc::new(to);
    Ok(Telemetry { queue, receipts })
}

/// What sessions bring, where no thread keeps it: in a simulation.
#[derive(Debug)]
pub(crate) struct Brought(Receiver);

/// Something of a session.
#[derive(Debug)]
pub(crate) enum Bringing {
    /// It was welcomed and sends telemetry.
    Begins(Conn),
    /// A piece.
    Piece(Conn, Box<Report>),
}

/// The way to nobody, and what comes on it.
pub(crate) fn without_thread() -> (Telemetry, Brought) {
    let (to, from) = queue();
    let (queue, receipts) = (Arc::new(to), Arc::default());
    (Telemetry { queue, receipts }, Brought(from))
}

impl Brought {
    /// What came since the last call.
    pub(crate) fn take(&self) -> Vec<Bringing> {
        let commands = self.0.take_now().into_iter();
        let of_sessions = commands.filter_map(|command| match command {
            Command::Begin { conn, .. } => Some(Bringing::Begins(conn)),
            Command::Piece { conn, report, .. } => Some(Bringing::Piece(conn, report)),
            // a question gets no answer, as from a thread that has ended
            _ => None,
        });
        of_sessions.collect()
    }
}

/// What syncs the file system of `dir`, and tells of every failure since it was opened.
fn file_system(dir: &Path) -> io::Result<Option<File>> {
    let uname = rustix::system::uname();
    let mut numbers = uname
        .release()
        .to_str()
        .unwrap_or_default()
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse::<u32>().ok());
    let release = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (release >= SYNCFS_TELLS)
        .then(|| File::open(dir))
        .transpose()
}

impl Telemetry {
    /// A session was welcomed that sends telemetry: it is told what is here.
    pub(crate) fn begin(
        &self,
        node: NodeId,
        incarnation: Incarnation,
        conn: Conn,
        to: mpsc::WeakSender<ToSession>,
    ) {
        self.queue.tell(Command::Begin {
            node,
            incarnation,
            conn,
            to,
        });
    }

    /// A piece of a session, which gets the receipt for those before it.
    pub(crate) fn piece(&self, node: NodeId, conn: Conn, report: Report) {
        self.receipts.answer(conn);
        let (report, at) = (Box::new(report), clock::wall());
        if !self.queue.tell(Command::Piece {
            node,
            conn,
            report,
            at,
        }) {
            tracing::debug!("telemetry comes faster than it can be written");
        }
    }

    /// A session is over.
    pub(crate) fn end(&self, node: NodeId, conn: Conn) {
        self.queue.tell(Command::End { node, conn });
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, String>>) -> Command,
    ) -> Result<T, String> {
        let (reply, answer) = oneshot::channel();
        let busy = || "telemetry cannot be read just now: ask again".to_owned();
        if !self.queue.tell(command(reply)) {
            return Err(busy());
        }
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
    /// Its agent needs a receipt to go on.
    waits: bool,
}

struct Keeper {
    dir: PathBuf,
    /// Syncs all files at once, where that tells of failures.
    file_system: Option<File>,
    keep: Keep,
    books: BTreeMap<NodeId, Book<NodeFile>>,
    sessions: BTreeMap<NodeId, Session>,
    receipts: Arc<Receipts>,
    /// When to sync next.
    due: Instant,
}

impl Keeper {
    fn run(mut self, from: &Receiver) {
        while let Taken::Commands(commands) = from.take(self.due) {
            for command in commands {
                self.obey(command);
            }
            if Instant::now() >= self.due {
                self.due = Instant::now() + SYNC;
                self.sync_all();
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
                    waits: true,
                },
            ),
            Command::Piece {
                node,
                conn,
                report,
                at,
            } => self.piece(node, conn, *report, at),
            Command::End { node, conn } => {
                if self.sessions.get(&node).is_some_and(|s| s.conn == conn) {
                    self.sessions.remove(&node);
                }
                self.receipts.end(conn);
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

    /// Somebody waits for a receipt.
    fn hurry(&mut self) {
        self.due = self.due.min(Instant::now() + SOON);
    }

    fn begin(&mut self, node: NodeId, session: Session) {
        self.sessions.insert(node, session);
        match self.book(node) {
            Ok(book) => book.owe(),
            Err(error) => tracing::warn!(%node, error, "telemetry of this node cannot be kept"),
        }
        self.hurry();
    }

    fn book(&mut self, node: NodeId) -> Result<&mut Book<NodeFile>, String> {
        if !self.books.contains_key(&node) {
            let file = NodeFile::new(self.dir.join(format!("{node}.tel")));
            let book = Book::open(file, self.keep).map_err(|error| error.to_string())?;
            self.books.insert(node, book);
        }
        self.books
            .get_mut(&node)
            .ok_or_else(|| "no such telemetry".to_owned())
    }

    fn piece(&mut self, node: NodeId, conn: Conn, report: Report, at: Unix) {
        let session = self.sessions.get(&node).filter(|s| s.conn == conn);
        if session.is_none_or(|s| s.incarnation != report.incarnation) {
            return;
        }
        let taken = match self.book(node) {
            Ok(book) => book.take(report, at).map(|()| book.is_urgent()),
            Err(error) => Err(Refused::Journal(JournalError(error))),
        };
        match taken {
            Ok(true) => {
                if let Some(session) = self.sessions.get_mut(&node) {
                    session.waits = true;
                }
                self.hurry();
            }
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
        let whole = owed.len() > MANY && self.sync_file_system();
        for node in owed {
            let Some(book) = self.books.get_mut(&node) else {
                continue;
            };
            if whole {
                book.synced();
            } else if let Err(error) = book.sync() {
                tracing::warn!(%node, %error, "telemetry cannot be made durable");
                // What is known in memory may not be on the disk: read again when it is needed.
                self.books.remove(&node);
                continue;
            }
            self.acknowledge(node);
        }
        self.receipts.flush(Instant::now());
    }

    /// Makes all files durable at once, if that can be done: one by one failures are known better.
    fn sync_file_system(&self) -> bool {
        let synced = self.file_system.as_ref().map(rustix::fs::syncfs);
        if let Some(Err(error)) = synced {
            tracing::warn!(%error, "the file system cannot be synced");
        }
        synced == Some(Ok(()))
    }

    /// Tells a node's session what is durable, at once or with its next piece; right behind a sync.
    fn acknowledge(&mut self, node: NodeId) {
        let (Some(book), Some(session)) = (self.books.get_mut(&node), self.sessions.get_mut(&node))
        else {
            return;
        };
        let receipt = book.receipt(session.incarnation);
        if !session.waits {
            let (conn, to) = (session.conn, &session.to);
            self.receipts.put(conn, to, receipt, Instant::now());
        } else if receipts::send(&session.to, &receipt) {
            session.waits = false;
            self.receipts.end(session.conn); // an older one says less
        } else {
            // A session that is too slow for it is told again: before the first one its agent says
            // nothing that another would answer.
            book.owe();
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
struct NodeFile {
    path: PathBuf,
    /// There may be something behind the end of what is whole.
    torn: bool,
    /// Its name may not be durable.
    new: bool,
}

fn failed(path: &Path) -> impl Fn(io::Error) -> JournalError {
    move |error| JournalError(format!("{}: {error}", path.display()))
}

impl NodeFile {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            torn: true,
            new: true,
        }
    }

    fn sync_dir(&self) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or_else(|| Path::new("."));
        File::open(dir)?.sync_all()
    }
}

impl Journal for NodeFile {
    fn read(&self) -> Result<Vec<u8>, JournalError> {
        let mut bytes = Vec::new();
        match File::open(&self.path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&self.path)(error)),
            _ => Ok(bytes),
        }
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), JournalError> {
        let cut = std::mem::replace(&mut self.torn, true);
        let write = || {
            let mut options = OpenOptions::new();
            // One that is gone is not begun in the middle.
            let options = options.write(true).create(offset == 0).truncate(false);
            let file = options.open(&self.path)?;
            if cut {
                file.set_len(offset)?;
            }
            file.write_all_at(bytes, offset)
        };
        write().map_err(failed(&self.path))?;
        self.torn = false;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        let synced = File::open(&self.path).and_then(|file| file.sync_data());
        synced.map_err(failed(&self.path))?;
        if std::mem::take(&mut self.new) {
            self.sync_dir().map_err(failed(&self.path))?;
        }
        Ok(())
    }

    fn replace(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        let aside = self.path.with_extension("new");
        let write = || {
            let mut file = File::create(&aside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&aside, &self.path)?;
            self.sync_dir()
        };
        write().map_err(failed(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::wire::Down;

    fn is_receipt(told: &mut mpsc::Receiver<ToSession>) -> bool {
        let message = told.try_recv();
        matches!(&message, Ok(ToSession::Send(down)) if matches!(**down, Down::Telemetry(_)))
    }

    #[test]
    fn a_session_that_was_too_slow_for_its_first_receipt_gets_it_later() {
        let dir = tempfile::tempdir().unwrap();
        let mut keeper = Keeper {
            file_system: None,
            dir: dir.path().to_owned(),
            keep: Keep::default(),
            books: BTreeMap::new(),
            sessions: BTreeMap::new(),
            receipts: Arc::default(),
            due: Instant::now(),
        };
        let (to, mut told) = mpsc::channel(1);
        to.try_send(ToSession::Close("full".to_owned())).unwrap();
        keeper.obey(Command::Begin {
            node: NodeId([1; 16]),
            incarnation: Incarnation([1; 16]),
            conn: Conn(7),
            to: to.downgrade(),
        });
        keeper.sync_all();
        assert!(!is_receipt(&mut told), "there was no room");
        keeper.sync_all();
        assert!(is_receipt(&mut told));
        keeper.sync_all();
        assert!(!is_receipt(&mut told), "once is enough");
    }
}
