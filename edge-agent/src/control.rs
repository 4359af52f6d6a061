//! Local commands: JSON lines over `DIR/agent.sock`, answered without any network. A request is one
//! line; some are followed by raw bytes whose number the line names. The answer is one line, or
//! lines up to `done`.

use crate::telemetry::Question;
use serde::{Deserialize, Serialize};
use shared::ids::{Hash, RunId};
use shared::time::{Span, Unix};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest line of a request or an answer.
pub const LINE_BYTES: u64 = 64 * 1024 * 1024;

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// State of the agent, its link and its backlog.
    Status,
    /// Its tasks.
    Ps {
        /// Ended ones, too.
        all: bool,
    },
    /// Why a task runs or does not run yet.
    Explain {
        /// A run, or the unique beginning of its id.
        run: String,
        /// The task's id.
        task: String,
    },
    /// What a task wrote.
    Logs {
        /// A run, or the unique beginning of its id.
        run: String,
        /// The task's id.
        task: String,
        /// The attempt, as `EPOCH.NUMBER`; the newest if absent.
        attempt: Option<String>,
    },
    /// What a task wrote behind a place; asked again and again by whoever follows.
    Tail {
        /// A run, or the unique beginning of its id.
        run: String,
        /// The task's id.
        task: String,
        /// Where to go on.
        from: TailFrom,
    },
    /// Stores the `size` bytes that follow the line as a file.
    Put {
        /// Bytes.
        size: u64,
    },
    /// Starts the workflow whose packed bytes follow the line.
    Submit {
        /// Bytes.
        size: u64,
    },
    /// Ends a run here.
    Cancel {
        /// A run, or the unique beginning of its id.
        run: String,
        /// Why.
        reason: String,
    },
    /// Lets a run stand still, or go on.
    Pause {
        /// A run, or the unique beginning of its id.
        run: String,
        /// Stand still, or go on.
        on: bool,
    },
    /// What the gateway measured of itself.
    Telemetry {
        /// What of it.
        question: Question,
    },
    /// Lets a paused or lost task run again.
    Resume {
        /// A run, or the unique beginning of its id.
        run: String,
        /// The task's id.
        task: String,
    },
    /// What waits for a person.
    Waits,
    /// Answers a question.
    Answer {
        /// A run, or the unique beginning of its id.
        run: String,
        /// The task's id.
        task: String,
        /// Approve, or reject.
        yes: bool,
        /// What is filled in.
        input: BTreeMap<String, String>,
    },
    /// The schedules that it fires.
    ScheduleList,
    /// One of them.
    ScheduleGet {
        /// Its name, or the unique beginning of its id.
        schedule: String,
    },
    /// Its next slots.
    ScheduleNext {
        /// Its name, or the unique beginning of its id.
        schedule: String,
        /// How many, at most 1,000.
        count: u32,
    },
    /// Makes a schedule of the workflow whose packed bytes follow the line.
    ScheduleCreate {
        /// Bytes.
        size: u64,
        /// As a new revision of the one with the same name.
        replace: bool,
    },
    /// Asks something of a schedule.
    ScheduleAsk {
        /// Its name, or the unique beginning of its id.
        schedule: String,
        /// What.
        ask: ScheduleAsk,
    },
    /// The link, and what waits for it.
    Sync,
    /// Sends nothing until it is resumed, or for so long (milliseconds).
    SyncPause {
        /// For so long.
        length: Option<Span>,
    },
    /// Sends again.
    SyncResume,
    /// Every entry of both logs, or (`verify`) what their chains say.
    Journal {
        /// Recompute instead of showing.
        verify: bool,
    },
}

/// What can be asked of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ScheduleAsk {
    /// Fire nothing.
    Pause,
    /// Fire again.
    Resume,
    /// Run once, now.
    Trigger,
    /// Run past slots, one after another.
    Backfill {
        /// The first, or an instant before it.
        from: Unix,
        /// The last, or an instant behind it.
        to: Unix,
    },
    /// Take it away; its runs go on.
    Delete,
}

/// A place in what an attempt wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TailFrom {
    /// The attempt, as `EPOCH.NUMBER`; the newest if absent.
    pub attempt: Option<String>,
    /// Byte of its standard output.
    pub out: u64,
    /// Byte of its standard error.
    pub err: u64,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// A value as it is shown with `--json`.
    Value {
        /// It.
        value: serde_json::Value,
    },
    /// One item of a list.
    Item {
        /// It.
        value: serde_json::Value,
    },
    /// The end of a list, or of an order that was carried out durably.
    Done,
    /// A file was stored.
    Stored {
        /// Its content.
        hash: Hash,
        /// Bytes.
        size: u64,
    },
    /// A run was started.
    Submitted {
        /// It.
        run: RunId,
    },
    /// Not honoured; nothing was changed.
    Refused {
        /// Why, for people.
        why: String,
    },
}

/// Why an agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("no agent runs on {dir} ({source}); start it with `driftless-agent run --data {dir}`")]
    NotRunning {
        /// The data directory.
        dir: String,
        /// What failed.
        source: io::Error,
    },
    /// Its socket is for its owner and root.
    #[error("{dir} is another user's ({source}): run this as root, or as the user of the agent")]
    NotAllowed {
        /// The data directory.
        dir: String,
        /// What failed.
        source: io::Error,
    },
    /// The conversation broke off.
    #[error("the agent on {dir} did not answer: {source}")]
    Broken {
        /// The data directory.
        dir: String,
        /// What failed.
        source: io::Error,
    },
}

/// A conversation with the agent of a data directory.
#[derive(Debug)]
pub struct Client {
    dir: String,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the agent that runs on `dir`.
    ///
    /// # Errors
    /// [`AskError::NotRunning`], or [`AskError::NotAllowed`].
    pub fn connect(dir: &Path) -> Result<Self, AskError> {
        let name = dir.display().to_string();
        let stream = connect_short(&dir.join("agent.sock"))
            .and_then(|stream| {
                stream.set_read_timeout(Some(Duration::from_secs(60)))?;
                Ok(stream)
            })
            .map_err(|source| {
                let dir = name.clone();
                match source.kind() {
                    io::ErrorKind::PermissionDenied => AskError::NotAllowed { dir, source },
                    _ => AskError::NotRunning { dir, source },
                }
            })?;
        Ok(Self {
            dir: name,
            stream: BufReader::new(stream),
        })
    }

    /// Sends `request` with the bytes that follow it.
    ///
    /// # Errors
    /// [`AskError::Broken`].
    pub fn send(&mut self, request: &Request, body: &[u8]) -> Result<(), AskError> {
        let line = serde_json::to_string(request).map_err(io::Error::from);
        let stream = self.stream.get_mut();
        let sent = line.and_then(|line| {
            stream.write_all(line.as_bytes())?;
            stream.write_all(b"\n")?;
            stream.write_all(body)
        });
        sent.map_err(|source| AskError::Broken {
            dir: self.dir.clone(),
            source,
        })
    }

    /// The next line of the answer.
    ///
    /// # Errors
    /// [`AskError::Broken`].
    pub fn next_answer(&mut self) -> Result<Answer, AskError> {
        let mut line = String::new();
        let read = (&mut self.stream).take(LINE_BYTES).read_line(&mut line);
        let broken = |source| AskError::Broken {
            dir: self.dir.clone(),
            source,
        };
        match read {
            Ok(0) => Err(broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => serde_json::from_str(&line).map_err(|error| broken(error.into())),
            Err(error) => Err(broken(error)),
        }
    }

    /// Asks with the `size` bytes of `body`, which are sent as they are read.
    ///
    /// # Errors
    /// [`AskError::Broken`], also when `body` has fewer bytes.
    pub fn ask_with(
        &mut self,
        request: &Request,
        body: &mut dyn Read,
        size: u64,
    ) -> Result<Answer, AskError> {
        self.send(request, &[])?;
        let sent = io::copy(&mut body.take(size), self.stream.get_mut());
        let whole = sent.and_then(|sent| match sent == size {
            true => Ok(()),
            false => Err(io::Error::other(
                "what was to be sent became shorter meanwhile",
            )),
        });
        whole.map_err(|source| AskError::Broken {
            dir: self.dir.clone(),
            source,
        })?;
        self.next_answer()
    }

    /// Asks and takes a one-line answer.
    ///
    /// # Errors
    /// [`AskError::Broken`].
    pub fn ask(&mut self, request: &Request, body: &[u8]) -> Result<Answer, AskError> {
        self.send(request, body)?;
        self.next_answer()
    }
}

/// A socket's path may have 107 bytes at most; a longer one is reached through `/proc/self/fd`.
fn connect_short(path: &Path) -> io::Result<UnixStream> {
    if path.as_os_str().len() < 108 {
        return UnixStream::connect(path);
    }
    let dir = std::fs::File::open(path.parent().unwrap_or_else(|| Path::new("/")))?;
    let short = short_path(&dir);
    UnixStream::connect(short)
}

/// The path of `agent.sock` in the open directory `dir`, short whatever its real path is.
#[must_use]
pub fn short_path(dir: &std::fs::File) -> std::path::PathBuf {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}/agent.sock", dir.as_raw_fd()).into()
}
