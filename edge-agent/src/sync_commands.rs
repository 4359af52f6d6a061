//! `driftless-agent sync …`.

use crate::cli::{Common, parse_span};
use crate::commands::{Failure, age, finish, one_value, order, text};
use crate::control::Request;
use clap::Subcommand;
use serde_json::Value;
use shared::time::{Span, Unix};
use std::io::{self, Write};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  driftless-agent sync status              is the link up, and what waits to be sent
  driftless-agent sync pause --for 2h      the link is needed for something else
  driftless-agent sync resume

A pause stands in the journal, so it outlasts restarts and reboots. Tasks go on as they do without a
link. The coordinator is told of it (`driftless node get`) if it can be reached within 5 s.";

/// What is done with the link.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Command {
    /// Show the link, what waits to be sent, and what is held back and why.
    Status,
    /// Send nothing to the coordinator and do not dial it, until `resume`.
    Pause {
        /// End the pause by itself after so long.
        #[arg(long = "for", value_name = "DURATION", value_parser = parse_span)]
        length: Option<Span>,
    },
    /// Dial and send again.
    Resume,
}

pub(crate) fn run(common: &Common, command: Command) -> ExitCode {
    match command {
        Command::Status => finish(status(common)),
        Command::Pause { length } => {
            let done = match length {
                Some(length) => format!("nothing is sent for {length}; work goes on"),
                None => "nothing is sent until `driftless-agent sync resume`; work goes on".into(),
            };
            order(common, &Request::SyncPause { length }, &done)
        }
        Command::Resume => order(common, &Request::SyncResume, "sending goes on"),
    }
}

fn status(common: &Common) -> Result<(), Failure> {
    let value = one_value(common, &Request::Sync)?;
    let mut out = io::stdout().lock();
    if common.json {
        return Ok(writeln!(out, "{value}")?);
    }
    for (name, line) in lines(&value) {
        writeln!(out, "{name:<11}  {line}")?;
    }
    Ok(())
}

fn lines(value: &Value) -> Vec<(&'static str, String)> {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let at = |value: &Value| value.as_i64().map(Unix);
    let since = age(value["since"].as_i64());
    let mut lines = vec![("link", format!("{} for {since}", text(&value["link"])))];
    if let Some(session) = value["session"].as_u64() {
        lines.push(("session", session.to_string()));
    }
    if let Some(pause) = value["paused"].as_object() {
        let (by, since) = (text(&pause["by"]), at(&pause["since"]));
        let end = match at(&pause["until"]) {
            Some(until) => format!("until {until}"),
            None => "until `sync resume`".to_owned(),
        };
        let since = since.map_or_else(String::new, |since| format!(" at {since}"));
        lines.push(("paused", format!("by {by}{since}, {end}")));
    } else if let Some(trouble) = value["trouble"].as_str() {
        lines.push(("trouble", trouble.to_owned()));
    }
    let waiting = &value["waiting"];
    let oldest = match waiting["oldest"].as_i64() {
        Some(oldest) => format!(", the oldest {} old", age(Some(oldest))),
        None => String::new(),
    };
    let (facts, bytes) = (number(&waiting["facts"]), number(&waiting["bytes"]));
    lines.push(("waiting", format!("{facts} facts, {bytes} bytes{oldest}")));
    let ring = &value["telemetry"];
    let blocks = ring["unsent_blocks"].as_u64();
    let telemetry = blocks.map_or_else(|| "off".to_owned(), |n| format!("{n} blocks not sent"));
    lines.push(("telemetry", telemetry));
    let facts = &value["facts"];
    let mut cursors = format!(
        "{} recorded, {} sent, {} acknowledged",
        number(&facts["last"]),
        number(&facts["sent"]),
        number(&facts["acknowledged"])
    );
    if let Some(safe) = facts["safe"].as_u64() {
        cursors = format!("{cursors}, {safe} in a backup");
    }
    lines.push(("facts", cursors));
    let applied = number(&value["directives"]);
    lines.push(("directives", format!("{applied} applied")));
    let (uploads, missing) = (number(&value["uploads"]), number(&value["files_missing"]));
    let files = format!("{uploads} to be brought, {missing} waited for");
    lines.push(("files", files));
    for held in value["held"].as_array().into_iter().flatten() {
        let line = format!("{}: {}", text(&held["what"]), text(&held["why"]));
        lines.push(("held back", line));
    }
    lines
}
