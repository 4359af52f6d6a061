//! Programs with a bound on time, memory and what they say.

use anyhow::{Context as _, Result};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Address space of a program, in KiB: a mutant that takes memory without end ends by itself.
const MEMORY_KIB: &str = "6000000";

/// How a program ended.
#[derive(Debug)]
pub enum End {
    /// By itself.
    Exit(ExitStatus),
    /// A line was the one that was waited for.
    Line(String),
    /// It took too long.
    Timeout,
}

/// Runs a program until it ends, says a line that `wanted` takes, or takes longer than `most`.
///
/// # Errors
///
/// Where it cannot be started.
pub fn bounded(
    program: &Path,
    arguments: &[String],
    folder: &Path,
    environment: &[(&str, String)],
    most: Duration,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<End> {
    let mut child = start(program, arguments, folder, environment)?;
    let output = child.stdout.take().context("a program without output")?;
    let (send, receive) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output
            .read_until(b'\n', &mut line)
            .is_ok_and(|read| read > 0)
        {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if send.send(text).is_err() {
                break;
            }
            line.clear();
        }
    });
    let until = Instant::now() + most;
    let end = loop {
        match receive.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) if wanted(&line) => break Some(End::Line(line)),
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => break Some(End::Timeout),
            Err(RecvTimeoutError::Disconnected) => break None,
        }
    };
    let end = match end {
        Some(end) => {
            child.kill().context("a program cannot be ended")?;
            child.wait().context("a program cannot be waited for")?;
            end
        }
        None => End::Exit(child.wait().context("a program cannot be waited for")?),
    };
    drop(receive);
    drop(reader.join());
    Ok(end)
}

/// Through a shell, since limits are set from within a process.
fn start(
    program: &Path,
    arguments: &[String],
    folder: &Path,
    environment: &[(&str, String)],
) -> Result<Child> {
    let script = "ulimit -v \"$0\" && ulimit -c 0 && exec nice -n 10 \"$@\" 2>&1";
    let mut command = Command::new("sh");
    command
        .args(["-c", script, MEMORY_KIB])
        .arg(program)
        .args(arguments)
        .current_dir(folder);
    command.env("CARGO_MANIFEST_DIR", folder);
    for (name, value) in environment {
        command.env(name, value);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
        .spawn()
        .with_context(|| format!("{} cannot be started", program.display()))
}
