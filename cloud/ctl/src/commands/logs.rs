//! `driftless task logs` and `driftless run logs`: what tasks write, read at their gateways piece
//! by piece. Whoever follows asks again from the byte where the last piece ended, so neither a cut
//! link nor a slow reader loses or repeats anything, and nobody waits for this reader.

use super::task::{Stream, TaskName, path};
use crate::client::{Client, escape};
use crate::exit::{Code, Failure, written};
use crate::output::Output;
use crate::text::{ago, now, safe};
use cloud::api::types::{ATTEMPT, COMPLETE, NEXT};
use cloud_core::view::{Attempt, Run, Task};
use serde::Serialize;
use shared::state::{RunState, TaskState};
use shared::time::Unix;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Pause before more is asked for.
const PAUSE: Duration = Duration::from_millis(700);
/// A line that is longer is shown in parts.
const LINE_BYTES: usize = 64 << 10;
/// Most bytes of a piece that are taken.
const PIECE_BYTES: u64 = 1 << 20;

/// Pieces of one log that are read before others have their turn.
const PIECES: usize = 16;

/// Epoch and number.
type Which = (u64, u32);
/// Shows a line, which begins at this byte of the log.
type Show<'a> = dyn FnMut(&Tail, u64, &[u8]) -> Result<(), Failure> + 'a;

/// A line as `--json` shows it.
#[derive(Serialize)]
struct Line<'a> {
    task: &'a str,
    epoch: u64,
    attempt: u32,
    stream: &'static str,
    /// Of its first byte in the attempt's log.
    offset: u64,
    line: &'a str,
}

/// What came with one question.
struct Piece {
    bytes: Vec<u8>,
    attempt: Which,
    /// The attempt has ended, and nothing follows.
    complete: bool,
}

/// One stream of one attempt, and how far it was read.
struct Tail {
    name: TaskName,
    stream: Stream,
    attempt: Option<Which>,
    next: u64,
    /// The beginning of a line whose end did not come yet.
    rest: Vec<u8>,
    done: bool,
}

impl Tail {
    fn new(run: &str, task: &str, stream: Stream, attempt: Option<Which>) -> Self {
        Self {
            name: TaskName {
                run: run.to_owned(),
                task: task.to_owned(),
            },
            stream,
            attempt,
            next: 0,
            rest: Vec::new(),
            done: false,
        }
    }

    /// Asks for what follows. `number` names an attempt before its epoch is known.
    fn ask(&mut self, client: &Client, number: Option<u32>) -> Result<Piece, Failure> {
        let which = match (self.attempt, number) {
            (Some((epoch, number)), _) => format!("&epoch={epoch}&attempt={number}"),
            (None, Some(number)) => format!("&attempt={number}"),
            (None, None) => String::new(),
        };
        let (stream, from) = (self.stream.text(), self.next);
        let query = format!("stream={stream}&from={from}{which}");
        let mut answer = client.open(&format!("{}/logs?{query}", path(&self.name)))?;
        let header = |name| answer.headers().get(name).and_then(|v| v.to_str().ok());
        let attempt = header(ATTEMPT).and_then(|text| {
            let (epoch, number) = text.split_once('.')?;
            Some((epoch.parse().ok()?, number.parse().ok()?))
        });
        let complete = header(COMPLETE) == Some("true");
        let next: Option<u64> = header(NEXT).and_then(|text| text.parse().ok());
        let body = answer.body_mut().with_config().limit(PIECE_BYTES);
        let bytes = body.read_to_vec().map_err(|error| {
            let what = format!("the coordinator's answer broke off: {error}");
            Failure::new(Code::Unreachable, what)
        })?;
        let whole = next == Some(self.next + bytes.len() as u64);
        match attempt.filter(|_| whole) {
            Some(attempt) => Ok(Piece {
                bytes,
                attempt,
                complete,
            }),
            None => Err(
                Failure::new(Code::Failed, "the answer with the log is not whole")
                    .hint("is it an older coordinator?"),
            ),
        }
    }

    /// Takes everything that is there now. Returns whether anything was new.
    fn drain(
        &mut self,
        client: &Client,
        number: Option<u32>,
        show: &mut Show<'_>,
    ) -> Result<bool, Failure> {
        let mut new = false;
        for _ in 0..PIECES {
            if self.done {
                break;
            }
            let piece = self.ask(client, number)?;
            self.attempt = Some(piece.attempt);
            self.done = piece.complete;
            if piece.bytes.is_empty() {
                break;
            }
            new = true;
            let mut at = self.next - self.rest.len() as u64;
            self.next += piece.bytes.len() as u64;
            self.rest.extend_from_slice(&piece.bytes);
            let all = std::mem::take(&mut self.rest);
            let mut left = all.as_slice();
            while let Some(end) = line_end(left) {
                show(self, at, &left[..end])?;
                at += end as u64;
                left = &left[end..];
            }
            self.rest = left.to_vec();
        }
        if self.done {
            self.flush(show)?;
        }
        Ok(new)
    }

    /// Shows a last line that has no end.
    fn flush(&mut self, show: &mut Show<'_>) -> Result<(), Failure> {
        let rest = std::mem::take(&mut self.rest);
        match rest.is_empty() {
            true => Ok(()),
            false => show(self, self.next - rest.len() as u64, &rest),
        }
    }
}

/// Where the first line of `bytes` ends, behind its end of line.
fn line_end(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().take(LINE_BYTES).position(|b| *b == b'\n');
    end.map(|at| at + 1)
        .or_else(|| (bytes.len() >= LINE_BYTES).then_some(LINE_BYTES))
}

/// Writes a line: as an object, behind the name of its task, or as it is.
fn write(out: &mut Output, tail: &Tail, named: bool, at: u64, line: &[u8]) -> Result<(), Failure> {
    let bare = line.strip_suffix(b"\n").unwrap_or(line);
    let text = String::from_utf8_lossy(bare);
    let (epoch, attempt) = tail.attempt.unwrap_or_default();
    if out.json {
        return out.object(&Line {
            task: &tail.name.task,
            epoch,
            attempt,
            stream: tail.stream.text(),
            offset: at,
            line: &text,
        });
    }
    if named {
        let mark = match tail.stream {
            Stream::Stdout => '|',
            Stream::Stderr => '!',
        };
        return out.line(&format!("{} {mark} {}", tail.name.task, safe(&text)));
    }
    written(out.raw().write_all(line))?;
    out.flush()
}

/// Tells once that something does not answer, and once that it does again.
#[derive(Default)]
struct Silence {
    told: bool,
    heard: Option<Unix>,
}

impl Silence {
    fn begins(&mut self, out: &Output, failure: &Failure, from: u64) {
        if !std::mem::replace(&mut self.told, true) {
            let age = match (self.heard, from) {
                (None, _) => "nothing was read yet".to_owned(),
                (Some(at), 0) => format!("what is shown was read {}", ago(at, now())),
                (Some(at), _) => {
                    format!("what is shown, {from} bytes, was read {}", ago(at, now()))
                }
            };
            out.say(&format!("{}; {age}; waiting for it", failure.what));
        }
    }

    /// Something was read: `from` bytes then, and `to` now.
    fn read(&mut self, from: u64, to: u64) {
        if to > from {
            self.heard = Some(now());
        }
    }

    fn ends(&mut self, out: &Output) {
        self.heard = Some(now());
        if std::mem::take(&mut self.told) {
            out.say("it answers again");
        }
    }
}

fn newest(task: &Task) -> Option<&Attempt> {
    task.history.iter().max_by_key(|a| (a.epoch, a.number))
}

fn is_over(task: &Task) -> bool {
    TaskState::from_text(&task.state).is_some_and(TaskState::is_final)
}

/// `task logs`.
pub(super) fn task(
    client: &Client,
    name: &TaskName,
    stream: Stream,
    number: Option<u32>,
    follow: bool,
    out: &mut Output,
) -> Result<(), Failure> {
    let mut tail = Tail::new(&name.run, &name.task, stream, None);
    if !follow {
        let mut show = |tail: &Tail, at: u64, line: &[u8]| write(out, tail, false, at, line);
        let drained = tail.drain(client, number, &mut show);
        let drained = drained.and_then(|_| tail.flush(&mut show));
        let silent = drained
            .as_ref()
            .map_or_else(|f| f.code == Code::NotFound, |()| tail.next == 0);
        if silent && stream == Stream::Stdout && has_written(client, name, Stream::Stderr, number) {
            out.say("it wrote to standard error only: --stream stderr shows it");
        }
        drained?;
        return out.flush();
    }
    let mut silence = Silence::default();
    loop {
        let before = tail.next;
        // what stands before the log is read: whatever was written until then is in it
        let found = client.get::<Task>(&path(name)).and_then(|task| {
            let mut show = |tail: &Tail, at: u64, line: &[u8]| write(out, tail, false, at, line);
            let read = match newest(&task) {
                Some(_) => tail.drain(client, number, &mut show),
                None => Ok(false),
            };
            match read {
                // nothing was written there, or not yet
                Err(failure) if failure.code == Code::NotFound => Ok((task, None)),
                Err(failure) if failure.code == Code::Unreachable => Ok((task, Some(failure))),
                read => read.map(|_| (task, None)),
            }
        });
        silence.read(before, tail.next);
        let (task, silent) = match found {
            Ok(found) => found,
            Err(failure) if failure.code == Code::Unreachable => {
                silence.begins(out, &failure, tail.next);
                std::thread::sleep(PAUSE);
                client.find_again();
                continue;
            }
            Err(failure) => return Err(failure),
        };
        match &silent {
            Some(failure) if is_over(&task) && moved(&tail, &task).is_none() => {
                return Err(Failure::new(failure.code, failure.what.clone())
                    .hint("the task is over; the rest of what it wrote is there"));
            }
            Some(failure) => silence.begins(out, failure, tail.next),
            None => silence.ends(out),
        }
        match moved(&tail, &task).filter(|_| number.is_none()) {
            Some(next) if tail.done || silent.is_some() || ended(&tail, &task) => {
                let mut show =
                    |tail: &Tail, at: u64, line: &[u8]| write(out, tail, false, at, line);
                tail.flush(&mut show)?;
                let (node, n) = (safe(&next.node), next.number);
                out.say(&format!("attempt {n} on {node}"));
                let which = Some((next.epoch, next.number));
                tail = Tail::new(&name.run, &name.task, stream, which);
                continue;
            }
            _ => {}
        }
        let pinned = number.is_some() && ended(&tail, &task);
        if silent.is_none() && (pinned || is_over(&task)) {
            return out.flush();
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether anything of that stream can be read.
fn has_written(client: &Client, name: &TaskName, stream: Stream, number: Option<u32>) -> bool {
    let mut tail = Tail::new(&name.run, &name.task, stream, None);
    tail.ask(client, number)
        .is_ok_and(|piece| !piece.bytes.is_empty())
}

/// The newest attempt, if another one is read.
fn moved<'a>(tail: &Tail, task: &'a Task) -> Option<&'a Attempt> {
    let read = tail.attempt?;
    newest(task).filter(|a| (a.epoch, a.number) > read)
}

/// Whether the attempt that is read has ended.
fn ended(tail: &Tail, task: &Task) -> bool {
    let mut history = task.history.iter();
    history.any(|a| Some((a.epoch, a.number)) == tail.attempt && a.ended.is_some())
}

fn task_of(client: &Client, run: &str, task: &str) -> Result<Task, Failure> {
    let (run, task) = (run.to_owned(), task.to_owned());
    client.get(&path(&TaskName { run, task }))
}

/// What `run logs` has read.
#[derive(Default)]
struct Reading {
    /// Only of this task.
    only: Option<String>,
    follow: bool,
    tails: BTreeMap<(String, Which, &'static str), Tail>,
    silences: BTreeMap<String, Silence>,
}

/// `run logs`: all tasks of a run, or one, each line behind the name of its task.
pub(super) fn run(
    client: &Client,
    run: &str,
    only: Option<&str>,
    follow: bool,
    out: &mut Output,
) -> Result<(), Failure> {
    let mut reading = Reading {
        only: only.map(str::to_owned),
        follow,
        ..Reading::default()
    };
    loop {
        let place = format!("/runs/{}", escape(run));
        let over = match only {
            None => client
                .get::<Run>(&place)
                .map(|seen| RunState::from_text(&seen.state).is_some_and(RunState::is_final)),
            Some(task) => task_of(client, run, task).map(|task| is_over(&task)),
        };
        let pass =
            over.and_then(|over| reading.pass(client, run, out).map(|silent| (over, silent)));
        match pass {
            Ok((over, None)) if over || !follow => return reading.end(out),
            Ok((over, Some(failure))) if over || !follow => {
                reading.end(out)?;
                return Err(failure);
            }
            Ok(_) => {}
            Err(failure) if follow && failure.code == Code::Unreachable => {
                let silence = reading.silences.entry(String::new()).or_default();
                silence.begins(out, &failure, 0);
                client.find_again();
            }
            Err(failure) => return Err(failure),
        }
        std::thread::sleep(PAUSE);
    }
}

impl Reading {
    /// Reads what is new of all tasks. Returns why a gateway was not asked, if one was not.
    fn pass(
        &mut self,
        client: &Client,
        run: &str,
        out: &mut Output,
    ) -> Result<Option<Failure>, Failure> {
        let mut begun = Vec::new();
        let mut take = |task: Task| {
            let last = newest(&task).map(|a| (a.epoch, a.number, a.node.clone()));
            let over = newest(&task).is_some_and(|a| a.ended.is_some());
            begun
                .extend(last.map(|(epoch, number, node)| (task.task, (epoch, number), node, over)));
            Ok(true)
        };
        match &self.only {
            None => client.list(&format!("/runs/{}/tasks", escape(run)), take)?,
            Some(task) => drop(take(task_of(client, run, task)?)?),
        }
        self.silences.entry(String::new()).or_default().ends(out);
        let mut silent: BTreeSet<String> = BTreeSet::new();
        let mut why = None;
        for (task, which, node, over) in begun {
            for stream in [Stream::Stdout, Stream::Stderr] {
                let key = (task.clone(), which, stream.text());
                let fresh = || Tail::new(run, &task, stream, Some(which));
                let tail = self.tails.entry(key).or_insert_with(fresh);
                if tail.done || silent.contains(&node) {
                    continue;
                }
                let mut show = |tail: &Tail, at: u64, line: &[u8]| write(out, tail, true, at, line);
                let silence = self.silences.entry(node.clone()).or_default();
                let before = tail.next;
                let drained = tail.drain(client, None, &mut show);
                silence.read(before, tail.next);
                match drained {
                    Err(failure) if failure.code == Code::Unreachable => {
                        if self.follow {
                            silence.begins(out, &failure, tail.next);
                        }
                        silent.insert(node.clone());
                        why = Some(failure);
                    }
                    // it wrote nothing there, or not yet
                    Err(failure) if failure.code == Code::NotFound => tail.done = over,
                    Err(failure) => return Err(failure),
                    Ok(_) => silence.ends(out),
                }
            }
        }
        Ok(why)
    }

    /// Shows last lines without an end.
    fn end(&mut self, out: &mut Output) -> Result<(), Failure> {
        for tail in self.tails.values_mut() {
            let mut show = |tail: &Tail, at: u64, line: &[u8]| write(out, tail, true, at, line);
            tail.flush(&mut show)?;
        }
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_their_end_or_when_they_are_too_long() {
        assert_eq!(line_end(b"a\nb\n"), Some(2));
        assert_eq!(line_end(b"no end yet"), None);
        assert_eq!(line_end(&vec![b'x'; LINE_BYTES + 1]), Some(LINE_BYTES));
    }
}
