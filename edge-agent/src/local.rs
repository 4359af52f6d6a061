//! The server behind `DIR/agent.sock`: one thread accepts, a few serve. Reads are answered by the
//! loop from committed state, orders once they are durable.

use crate::control::{Answer, LINE_BYTES, Request, TailFrom, short_path};
use crate::journal::{self, JournalError};
use crate::looping::{Ask, Order};
use crate::mailbox::Handle;
use crate::reading::{self, Found, Look};
use crate::telemetry::{Question, Telemetry};
use contents::Dir as FileDir;
use edge_core::state::TaskKey;
use serde_json::{Value, json};
use shared::ids::{Hash, RunId, ScheduleId};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

/// Conversations at once; a further one is closed.
const CONVERSATIONS: usize = 16;
/// Pause after a connection that the system could not give.
const PAUSE: Duration = Duration::from_millis(100);
/// Largest packed workflow that is taken.
const SUBMIT_BYTES: u64 = shared::limits::ENTRY_BYTES as u64;
/// Largest file that is taken.
const PUT_BYTES: u64 = 16 * 1024 * 1024 * 1024;

/// What a conversation needs.
#[derive(Debug, Clone)]
struct Service {
    handle: Handle,
    files: FileDir,
    data: PathBuf,
    telemetry: Telemetry,
}

/// Listens in `data` until the process ends.
///
/// # Errors
/// Where the socket cannot be made.
pub fn serve(data: &Path, handle: Handle, files: FileDir, telemetry: Telemetry) -> io::Result<()> {
    let path = data.join("agent.sock");
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let dir = File::open(data)?;
    let listener = UnixListener::bind(short_path(&dir))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    let service = Service {
        handle,
        files,
        data: data.to_owned(),
        telemetry,
    };
    std::thread::Builder::new()
        .name("local".into())
        .spawn(move || accept(&listener, &service))?;
    Ok(())
}

fn accept(listener: &UnixListener, service: &Service) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // No descriptor is left, and none comes by asking at once.
            std::thread::sleep(PAUSE);
            continue;
        };
        if open.fetch_add(1, Ordering::Relaxed) >= CONVERSATIONS {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (service, counter) = (service.clone(), open.clone());
        let serve = move || {
            if let Err(error) = converse(&service, stream) {
                tracing::debug!(%error, "a local conversation broke off");
            }
            counter.fetch_sub(1, Ordering::Relaxed);
        };
        if std::thread::Builder::new()
            .name("local".into())
            .spawn(serve)
            .is_err()
        {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn converse(service: &Service, stream: UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_write_timeout(Some(Duration::from_secs(60)))?;
    let by = caller(&stream);
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = io::BufWriter::new(stream);
    loop {
        let mut line = String::new();
        if (&mut reader).take(LINE_BYTES).read_line(&mut line)? == 0 {
            return Ok(());
        }
        match serde_json::from_str::<Request>(&line) {
            Ok(request) => answer(service, request, &by, &mut reader, &mut writer)?,
            Err(error) => say(&mut writer, &refused(format!("not a request: {error}")))?,
        }
        writer.flush()?;
    }
}

/// The name of the user at the other end.
fn caller(stream: &UnixStream) -> String {
    let Ok(peer) = rustix::net::sockopt::socket_peercred(stream) else {
        return "unknown".to_owned();
    };
    let uid = peer.uid.as_raw().to_string();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1) == Some(uid.as_str())).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("uid {uid}"))
}

fn say(writer: &mut impl Write, answer: &Answer) -> io::Result<()> {
    let line = serde_json::to_string(answer)?;
    writeln!(writer, "{line}")
}

fn refused(why: impl Into<String>) -> Answer {
    Answer::Refused { why: why.into() }
}

fn answer(
    service: &Service,
    request: Request,
    by: &str,
    reader: &mut impl Read,
    writer: &mut impl Write,
) -> io::Result<()> {
    let by = by.to_owned();
    let handle = &service.handle;
    let answer = match request {
        Request::Status => handle.ask(Ask::Status),
        Request::Ps { all } => return tasks(handle, all, writer),
        Request::Explain { run, task } => handle.ask(Ask::Explain { run, task }),
        Request::Telemetry { question } => match service.telemetry.ask(question) {
            Some(value) => Answer::Value { value },
            None => refused("telemetry is off: the agent's log says why"),
        },
        Request::Logs { run, task, attempt } => return logs(service, run, task, attempt, writer),
        Request::Tail { run, task, from } => tail(service, run, task, &from),
        Request::Put { size } => put(service, size, reader)?,
        Request::Submit { size } if size > SUBMIT_BYTES => {
            return Err(io::Error::other("the workflow is too large"));
        }
        Request::Submit { size } => {
            let mut workflow = Vec::new();
            reader.take(size).read_to_end(&mut workflow)?;
            submit(handle, workflow, by)?
        }
        Request::ScheduleList => return list(handle.ask(Ask::Schedules), writer),
        Request::ScheduleGet { schedule } => handle.ask(Ask::Schedule { schedule }),
        Request::ScheduleNext { schedule, count } => {
            return list(handle.ask(Ask::NextSlots { schedule, count }), writer);
        }
        Request::ScheduleCreate { size, .. } if size > SUBMIT_BYTES => {
            return Err(io::Error::other("the workflow is too large"));
        }
        Request::ScheduleCreate { size, replace } => {
            let mut workflow = Vec::new();
            reader.take(size).read_to_end(&mut workflow)?;
            let id = ScheduleId(crate::data::random()?);
            handle.order(Order::CreateSchedule {
                id,
                workflow,
                replace,
                by,
            })
        }
        Request::ScheduleAsk { schedule, ask } => {
            handle.order(Order::AskSchedule { schedule, ask, by })
        }
        Request::Sync => sync_status(service),
        Request::SyncPause { length } => handle.order(Order::PauseSync { length, by }),
        Request::SyncResume => handle.order(Order::ResumeSync { by }),
        Request::Journal { verify } => return journal(handle, verify, writer),
        Request::Cancel { run, reason } => handle.order(Order::Cancel {
            run,
            by,
            why: reason,
        }),
        Request::Pause { run, on } => handle.order(Order::Pause { run, on, by }),
        Request::Resume { run, task } => handle.order(Order::Resume { run, task, by }),
        Request::Waits => return list(handle.ask(Ask::Waits), writer),
        Request::Answer {
            run,
            task,
            yes,
            input,
        } => handle.order(Order::Answer {
            run,
            task,
            yes,
            input,
            by,
        }),
    };
    say(writer, &answer)
}

/// The link and what waits for it: the core's view, with what is counted in the journal and in the
/// ring of telemetry.
fn sync_status(service: &Service) -> Answer {
    let mut value = match service.handle.ask(Ask::Sync) {
        Answer::Value { value } => value,
        other => return other,
    };
    let waiting = match reading::backlog(&service.handle) {
        Ok(all) => json!({"facts": all.facts, "bytes": all.bytes, "oldest": all.oldest}),
        Err(why) => return refused(why),
    };
    let telemetry = service.telemetry.ask(Question::Newest);
    if let Some(fields) = value.as_object_mut() {
        fields.insert("waiting".to_owned(), waiting);
        let ring = telemetry.map(|mut value| value["ring"].take());
        fields.insert("telemetry".to_owned(), ring.unwrap_or(Value::Null));
    }
    Answer::Value { value }
}

/// Shows or verifies the journal, a page at a time.
fn journal(handle: &Handle, verify: bool, writer: &mut impl Write) -> io::Result<()> {
    let mut pages = |log, after| match handle.read(Look::Page(log, after))? {
        Found::Page(page) => Ok(page),
        _ => Err("the journal was not read".to_owned()),
    };
    let mut show = |value| say(writer, &Answer::Item { value });
    let identity = match handle.read(Look::Identity) {
        Ok(Found::Identity(node, incarnation)) => Ok((node, incarnation)),
        Ok(_) => Err("the journal was not read".to_owned()),
        Err(why) => Err(why),
    };
    let read = identity
        .map_err(JournalError::Wrong)
        .and_then(|identity| journal::walk(identity, verify, &mut pages, &mut show));
    match read {
        Ok(()) => say(writer, &Answer::Done),
        Err(JournalError::Io(error)) => Err(error),
        Err(other) => say(writer, &refused(other.to_string())),
    }
}

/// Tells all tasks, a page at a time.
fn tasks(handle: &Handle, all: bool, writer: &mut impl Write) -> io::Result<()> {
    let mut after = None;
    loop {
        let mut page = match handle.ask(Ask::Tasks { all, after }) {
            Answer::Value { value } => value,
            other => return say(writer, &other),
        };
        if let Value::Array(tasks) = page["tasks"].take() {
            let mut tasks = tasks.into_iter();
            tasks.try_for_each(|value| say(writer, &Answer::Item { value }))?;
        }
        let last: Option<(RunId, u32, u32)> =
            serde_json::from_value(page["last"].take()).map_err(io::Error::from)?;
        let Some((run, slice, pos)) = last else {
            return say(writer, &Answer::Done);
        };
        let slice = (run, slice);
        after = Some(TaskKey { slice, pos });
    }
}

fn list(answer: Answer, writer: &mut impl Write) -> io::Result<()> {
    match answer {
        Answer::Value {
            value: Value::Array(items),
        } => {
            items
                .into_iter()
                .try_for_each(|value| say(writer, &Answer::Item { value }))?;
            say(writer, &Answer::Done)
        }
        other => say(writer, &other),
    }
}

fn submit(handle: &Handle, workflow: Vec<u8>, by: String) -> io::Result<Answer> {
    if let Err(error) = shared::codec::unpack(&workflow) {
        return Ok(refused(format!("the workflow cannot be read: {error}")));
    }
    let run = RunId(crate::data::random()?);
    Ok(match handle.order(Order::Submit { run, workflow, by }) {
        Answer::Done => Answer::Submitted { run },
        other => other,
    })
}

fn put(service: &Service, size: u64, reader: &mut impl Read) -> io::Result<Answer> {
    if size > PUT_BYTES {
        return Err(io::Error::other("the file is too large"));
    }
    let mut whole = Whole { left: size, reader };
    let stored = service.files.add(&mut whole).and_then(|stored| {
        service.files.sync([stored.0])?;
        Ok(stored)
    });
    // Whoever sends it listens to the answer behind its last byte only.
    let left = whole.left;
    if io::copy(&mut reader.take(left), &mut io::sink())? < left {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(match stored {
        Ok((hash, size)) => {
            freshen(service, hash);
            Answer::Stored { hash, size }
        }
        Err(error) => refused(format!("the file cannot be stored: {error}")),
    })
}

/// Exactly so many bytes of a reader; fewer are an error.
struct Whole<'a, R> {
    left: u64,
    reader: &'a mut R,
}

impl<R: Read> Read for Whole<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if most == 0 {
            // Not even to read nothing: a buffered reader would wait for what comes next.
            return Ok(0);
        }
        let len = self.reader.read(&mut buffer[..most])?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= len as u64;
        Ok(len)
    }
}

/// A content that was here before counts as new: a submission is about to name it.
fn freshen(service: &Service, hash: Hash) {
    if let Some((path, _)) = service.files.find(hash)
        && let Ok(file) = File::open(path)
    {
        // Where that cannot be said the file may be swept before the submission comes.
        let _ = file.set_modified(SystemTime::now());
    }
}

fn logs(
    service: &Service,
    run: String,
    task: String,
    attempt: Option<String>,
    writer: &mut impl Write,
) -> io::Result<()> {
    let found = match service.handle.ask(Ask::Locate { run, task }) {
        Answer::Value { value } => value,
        other => return say(writer, &other),
    };
    let dir = log_dir(service, &found);
    let Some(name) = attempt.or_else(|| newest(&dir)) else {
        return say(writer, &Answer::Done);
    };
    if !is_attempt(&name) {
        return say(
            writer,
            &refused(format!("'{name}' is no attempt; write EPOCH.NUMBER")),
        );
    }
    for stream in ["out", "err"] {
        let Ok(file) = File::open(dir.join(format!("{name}.{stream}"))) else {
            continue;
        };
        for line in BufReader::new(file).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            let value = json!({"attempt": name, "stream": stream, "line": line});
            say(writer, &Answer::Item { value })?;
        }
    }
    say(writer, &Answer::Done)
}

fn tail(service: &Service, run: String, task: String, from: &TailFrom) -> Answer {
    let found = match service.handle.ask(Ask::Locate { run, task }) {
        Answer::Value { value } => value,
        other => return other,
    };
    if let Some(name) = from.attempt.as_deref().filter(|name| !is_attempt(name)) {
        return refused(format!("'{name}' is no attempt; write EPOCH.NUMBER"));
    }
    let open = found["open"] == true;
    crate::tail::answer(&log_dir(service, &found), from, open)
}

fn is_attempt(name: &str) -> bool {
    name.bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// Where the logs of a located task lie.
fn log_dir(service: &Service, found: &Value) -> PathBuf {
    let run = found["run"].as_str().unwrap_or("");
    let index = found["index"].as_u64().unwrap_or(0);
    service.data.join("logs").join(run).join(index.to_string())
}

/// The attempt in `dir` with the largest epoch and number.
pub(crate) fn newest(dir: &Path) -> Option<String> {
    let names = fs::read_dir(dir).ok()?.filter_map(Result::ok);
    let attempts = names.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let (epoch, rest) = name.split_once('.')?;
        let (number, _) = rest.split_once('.')?;
        Some((epoch.parse::<u64>().ok()?, number.parse::<u32>().ok()?))
    });
    attempts
        .max()
        .map(|(epoch, number)| format!("{epoch}.{number}"))
}
