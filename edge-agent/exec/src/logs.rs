//! Output of attempts: captured into files that are made when the first byte comes, with a quota
//! for each attempt and one for the node.

use crate::model::Error;
use shared::ids::{AttemptRef, Epoch, RunId, SliceRef, TaskIdx};
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// What a file takes at least, however little stands in it: a block, and room for its name. So the
/// quota bounds the number of files as well.
const BLOCK: u64 = 4096;

/// Which output of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Where the output of an attempt is kept below the data directory. There is no file if it wrote
/// nothing.
#[must_use]
pub fn log_path(data: &Path, attempt: &AttemptRef, stream: Stream) -> PathBuf {
    let ending = match stream {
        Stream::Out => "out",
        Stream::Err => "err",
    };
    run_dir(data, &attempt.slice.run)
        .join(attempt.task.0.to_string())
        .join(format!(
            "{}.{}.{ending}",
            attempt.slice.epoch, attempt.number
        ))
}

fn run_dir(data: &Path, run: &RunId) -> PathBuf {
    data.join("logs").join(run.to_string())
}

/// All logs of the node.
#[derive(Debug)]
pub(crate) struct Logs {
    data: PathBuf,
    per_attempt: u64,
    per_node: u64,
    closed: Mutex<Closed>,
}

/// Logs of attempts that ended, oldest first.
#[derive(Debug, Default)]
struct Closed {
    files: VecDeque<Log>,
    /// Room that they take.
    bytes: u64,
}

/// One closed file; its path is made of it.
#[derive(Debug, Clone, Copy)]
struct Log {
    attempt: AttemptRef,
    stream: Stream,
    len: u64,
}

impl Log {
    /// The log at a path that [`log_path`] made.
    fn at(path: &Path, len: u64) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let task = path.parent()?;
        let run = task.parent()?.file_name()?.to_str()?;
        let (name, ending) = name.rsplit_once('.')?;
        let (epoch, number) = name.split_once('.')?;
        let slice = SliceRef {
            run: run.parse().ok()?,
            slice: 0,
            epoch: Epoch(epoch.parse().ok()?),
        };
        Some(Self {
            attempt: AttemptRef {
                slice,
                task: TaskIdx(task.file_name()?.to_str()?.parse().ok()?),
                number: number.parse().ok()?,
            },
            stream: match ending {
                "out" => Stream::Out,
                "err" => Stream::Err,
                _ => return None,
            },
            len,
        })
    }

    /// What it takes of the disk: a block at least.
    fn room(&self) -> u64 {
        self.len.max(BLOCK)
    }
}

impl Logs {
    /// Takes stock of the logs that are there.
    pub(crate) fn open(data: &Path, per_attempt: u64, per_node: u64) -> Result<Self, Error> {
        let dir = data.join("logs");
        let mut found: Vec<(SystemTime, Log)> = Vec::new();
        for run in entries(&dir) {
            for task in entries(&run) {
                for file in entries(&task) {
                    let Ok(meta) = fs::symlink_metadata(&file) else {
                        continue;
                    };
                    let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    found.extend(Log::at(&file, meta.len()).map(|log| (modified, log)));
                }
            }
        }
        found.sort_by_key(|(modified, _)| *modified);
        let bytes = found.iter().map(|(_, log)| log.room()).sum();
        let files = found.into_iter().map(|(_, log)| log).collect();
        let closed = Mutex::new(Closed { files, bytes });
        Ok(Self {
            data: data.to_owned(),
            per_attempt,
            per_node,
            closed,
        })
    }

    /// Removes what a run wrote.
    pub(crate) fn forget(&self, run: &RunId) {
        let dir = run_dir(&self.data, run);
        let mut closed = self.lock();
        let Closed { files, bytes } = &mut *closed;
        files.retain(|log| {
            let keep = log.attempt.slice.run != *run;
            if !keep {
                *bytes = bytes.saturating_sub(log.room());
            }
            keep
        });
        drop(closed);
        if let Err(error) = fs::remove_dir_all(&dir)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, dir = %dir.display(), "logs of a forgotten run stay");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Closed> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a finished log and removes the oldest ones above the node's quota: files and bytes
    /// removed.
    fn closed(&self, log: Log) -> (u64, u64) {
        let mut closed = self.lock();
        closed.files.push_back(log);
        closed.bytes += log.room();
        let mut removed = (0, 0);
        while closed.bytes > self.per_node {
            let Some(log) = closed.files.pop_front() else {
                break;
            };
            closed.bytes = closed.bytes.saturating_sub(log.room());
            removed = (removed.0 + 1, removed.1 + log.len);
            let path = log_path(&self.data, &log.attempt, log.stream);
            let _ = fs::remove_file(&path);
            // gone too once they are empty
            let _ = path.parent().map(fs::remove_dir);
            let _ = path.parent().and_then(Path::parent).map(fs::remove_dir);
        }
        removed
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// The output of one attempt while it is written.
#[derive(Debug)]
pub(crate) struct Capture<'a> {
    logs: &'a Logs,
    attempt: AttemptRef,
    left: u64,
    streams: [Sink; 2],
}

#[derive(Debug, Default)]
struct Sink {
    file: Option<File>,
    written: u64,
    dropped: u64,
}

/// What became of the output of an attempt.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Captured {
    /// Bytes that were not kept.
    pub(crate) dropped: u64,
    /// Old files removed for it, and their bytes.
    pub(crate) evicted: (u64, u64),
}

impl<'a> Capture<'a> {
    pub(crate) fn new(logs: &'a Logs, attempt: AttemptRef) -> Self {
        Self {
            logs,
            attempt,
            left: logs.per_attempt,
            streams: Default::default(),
        }
    }

    /// Keeps `bytes`, or as much of it as the quota and the disk allow. The task never learns of
    /// it.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let room = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let sink = &mut self.streams[stream as usize];
        sink.dropped += (bytes.len() - room) as u64;
        if room == 0 {
            return;
        }
        if sink.file.is_none() {
            sink.file = create(&log_path(&self.logs.data, &self.attempt, stream));
        }
        if sink
            .file
            .as_mut()
            .is_some_and(|file| file.write_all(&bytes[..room]).is_ok())
        {
            sink.written += room as u64;
            self.left -= room as u64;
        } else {
            sink.dropped += room as u64;
        }
    }

    /// Closes the files; a last line says what is missing.
    pub(crate) fn finish(mut self) -> Captured {
        let mut captured = Captured::default();
        for stream in [Stream::Out, Stream::Err] {
            let sink = &mut self.streams[stream as usize];
            captured.dropped += sink.dropped;
            let path = log_path(&self.logs.data, &self.attempt, stream);
            if sink.dropped > 0 && sink.file.is_none() {
                sink.file = create(&path);
            }
            let Some(file) = &mut sink.file else { continue };
            if sink.dropped > 0 {
                let line = format!(
                    "\n[driftless: {} more bytes were dropped; {} bytes are kept of an attempt]\n",
                    sink.dropped, self.logs.per_attempt
                );
                if file.write_all(line.as_bytes()).is_ok() {
                    sink.written += line.len() as u64;
                }
            }
            let (files, bytes) = self.logs.closed(Log {
                attempt: self.attempt,
                stream,
                len: sink.written,
            });
            captured.evicted.0 += files;
            captured.evicted.1 += bytes;
        }
        captured
    }
}

fn create(path: &Path) -> Option<File> {
    let open = || {
        OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(path)
    };
    open()
        .or_else(|_| {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            open()
        })
        .inspect_err(|error| tracing::warn!(%error, path = %path.display(), "cannot make a log"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(run: u8, number: u32) -> AttemptRef {
        AttemptRef {
            slice: SliceRef {
                run: RunId([run; 16]),
                slice: 3,
                epoch: Epoch(2),
            },
            task: TaskIdx(7),
            number,
        }
    }

    fn write(logs: &Logs, attempt: AttemptRef, text: &[u8]) -> (u64, u64) {
        let mut capture = Capture::new(logs, attempt);
        capture.write(Stream::Err, text);
        capture.finish().evicted
    }

    #[test]
    fn small_logs_count_as_the_room_that_they_take() {
        let data = tempfile::tempdir().unwrap();
        let open = || Logs::open(data.path(), 1 << 20, 10 * BLOCK).unwrap();
        let there = |n: &u32| log_path(data.path(), &attempt(1, *n), Stream::Err).exists();
        let count = || (1..=11).filter(there).count();
        let logs = open();
        for n in 1..=10 {
            assert_eq!(write(&logs, attempt(1, n), b"x"), (0, 0));
        }
        assert_eq!(write(&logs, attempt(1, 11), b"x"), (1, 1));
        assert!(!there(&1) && there(&2) && count() == 10);
        drop(logs);
        // a later process counts the same
        let logs = open();
        assert_eq!(
            write(&logs, attempt(2, 1), &[b'x'; 3 * BLOCK as usize]),
            (3, 3)
        );
        assert_eq!(count(), 7);
        logs.forget(&RunId([1; 16]));
        assert_eq!(count(), 0);
        assert_eq!(
            write(&logs, attempt(3, 1), &[b'x'; 7 * BLOCK as usize]),
            (0, 0)
        );
    }
}
