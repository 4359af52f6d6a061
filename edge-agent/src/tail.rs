//! What a task writes, piece by piece: `driftless-agent logs --follow` asks again and again from
//! where the last piece ended, so a slow reader holds nobody up and a broken conversation repeats
//! nothing.

use crate::cli::Common;
use crate::commands::{Failure, finish, unexpected};
use crate::control::{Answer, AskError, Client, Request, TailFrom};
use crate::local::newest;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Most bytes of one stream in one answer.
const PIECE: u64 = 64 * 1024;
/// Pause before more is asked for.
const PAUSE: Duration = Duration::from_millis(500);

/// The lines of an attempt behind `from`, as `logs --follow` is answered. `open` says that the task
/// is not over: it is asked for before the files are read, so that what is over is read whole.
pub(crate) fn answer(dir: &Path, from: &TailFrom, open: bool) -> Answer {
    let last = newest(dir);
    let Some(attempt) = from.attempt.clone().or_else(|| last.clone()) else {
        let value = json!({"attempt": null, "newest": null, "open": open, "lines": []});
        return Answer::Value { value };
    };
    let over = !open || last.as_ref().is_some_and(|last| *last != attempt);
    let mut lines = Vec::new();
    let mut next = [from.out, from.err];
    for (stream, at) in ["out", "err"].into_iter().zip(&mut next) {
        let bytes = read(&dir.join(format!("{attempt}.{stream}")), *at).unwrap_or_default();
        let whole = whole_lines(&bytes, over);
        *at += whole.len() as u64;
        for line in whole.split_inclusive(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = String::from_utf8_lossy(line);
            lines.push(json!({"attempt": attempt, "stream": stream, "line": line}));
        }
    }
    let [out, err] = next;
    let value = json!({
        "attempt": attempt, "newest": last, "open": open, "lines": lines, "out": out, "err": err,
    });
    Answer::Value { value }
}

fn read(path: &Path, from: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(PIECE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Up to the last end of a line; all of it where none can follow, or where a line fills a piece.
fn whole_lines(bytes: &[u8], over: bool) -> &[u8] {
    match bytes.iter().rposition(|byte| *byte == b'\n') {
        Some(end) if !over || bytes.len() as u64 == PIECE => &bytes[..=end],
        None if !over && (bytes.len() as u64) < PIECE => &[],
        _ => bytes,
    }
}

/// `logs --follow`.
pub(crate) fn follow(
    common: &Common,
    run: String,
    task: String,
    attempt: Option<String>,
) -> ExitCode {
    finish(follow_until_over(common, &run, &task, attempt))
}

fn follow_until_over(
    common: &Common,
    run: &str,
    task: &str,
    pinned: Option<String>,
) -> Result<(), Failure> {
    let mut from = TailFrom {
        attempt: pinned.clone(),
        out: 0,
        err: 0,
    };
    let (mut asked, mut told) = (false, false);
    loop {
        let request = Request::Tail {
            run: run.to_owned(),
            task: task.to_owned(),
            from: from.clone(),
        };
        let value = match Client::connect(&common.data).and_then(|mut c| c.ask(&request, &[])) {
            Ok(Answer::Value { value }) => value,
            Ok(other) => return Err(unexpected(&other)),
            Err(error) if asked => {
                wait_for_agent(&error, &mut told);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        (asked, told) = (true, false);
        let new = show(common, &value)?;
        from.attempt = value["attempt"].as_str().map(str::to_owned);
        (from.out, from.err) = (number(&value["out"]), number(&value["err"]));
        if new {
            continue;
        }
        let newest = value["newest"].as_str().map(str::to_owned);
        if pinned.is_none() && newest != from.attempt {
            from = TailFrom {
                attempt: newest,
                out: 0,
                err: 0,
            };
            continue;
        }
        if value["open"] == false || pinned.is_some() && newest != from.attempt {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
}

/// The agent was stopped, or is started anew: it goes on where it stopped.
fn wait_for_agent(error: &AskError, told: &mut bool) {
    if !std::mem::replace(told, true) {
        // nobody is left to tell when standard error is closed
        let _ = writeln!(io::stderr(), "{error}; waiting for it");
    }
    std::thread::sleep(PAUSE);
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// Prints the lines of an answer. Returns whether there were any.
fn show(common: &Common, value: &Value) -> Result<bool, Failure> {
    let lines = value["lines"].as_array().map_or(&[][..], Vec::as_slice);
    let mut out = io::stdout().lock();
    for line in lines {
        let text = line["line"].as_str().unwrap_or_default();
        match (common.json, line["stream"] == "err") {
            (true, _) => writeln!(out, "{line}")?,
            (false, true) => writeln!(io::stderr(), "{text}")?,
            (false, false) => writeln!(out, "{text}")?,
        }
    }
    out.flush()?;
    Ok(!lines.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_told_when_it_is_whole_or_nothing_can_follow() {
        assert_eq!(whole_lines(b"a\nb", false), b"a\n");
        assert_eq!(whole_lines(b"a\nb", true), b"a\nb");
        assert_eq!(whole_lines(b"b", false), b"");
        let long = vec![b'x'; PIECE as usize];
        assert_eq!(whole_lines(&long, false), &long[..]);
    }
}
