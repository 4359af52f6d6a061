//! `support-bundle`: what this gateway knows of itself, in one file that may be given away.

use crate::check;
use crate::cli::Given;
use crate::clock;
use crate::commands::{FAILED, REFUSED};
use crate::config::Settings;
use crate::control::{Answer, Client, Request};
use crate::data::identity_at;
use crate::journal;
use crate::telemetry::Question;
use bundle::{Bundle, Manifest};
use clap::Args;
use serde_json::{Value, json};
use shared::config;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const UNIT: &str = "driftless-agent";

/// Where to write it, and what else to take.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  driftless-agent support-bundle gw-7.tar.zst
  driftless-agent support-bundle gw-7.tar.zst --log /var/log/driftless-agent.log
  tar --zstd -tf gw-7.tar.zst                     what is in it

It holds versions, the configuration, what `check` finds, the agent's state, the heads of its journal (if
the agent is stopped), sizes, the newest measurements, and the end of its log; manifest.json says what is
there and why something is not. It holds no token and no key, and no environment, parameter or output of a
task; the log may name the program that a task could not run, and where it was looked for. It works
without a network and without a running agent.
Exit codes: 0 done, 1 it cannot be written, 5 PATH exists")]
pub(crate) struct SupportArgs {
    /// The file that is made
    path: PathBuf,
    /// The file that the agent logs to; without it the system's journal is asked
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

/// `support-bundle`.
pub(crate) fn main(given: &Given, args: &SupportArgs) -> ExitCode {
    match gather(given, args.log.as_deref()).write(&args.path) {
        Ok(manifest) => match print(&args.path, &manifest, given.json) {
            Ok(()) => ExitCode::SUCCESS,
            // nobody reads it any more
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            let exists = error.kind() == io::ErrorKind::AlreadyExists;
            let mend = if exists { "; name another file" } else { "" };
            let path = args.path.display();
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(
                io::stderr(),
                "error: {path} cannot be written: {error}{mend}"
            );
            ExitCode::from(if exists { REFUSED } else { FAILED })
        }
    }
}

fn print(path: &Path, manifest: &Manifest, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        let line = json!({
            "path": path, "parts": manifest.parts, "missing": manifest.missing,
        });
        return writeln!(out, "{line}");
    }
    writeln!(
        out,
        "wrote {} with {} parts",
        path.display(),
        manifest.parts.len()
    )?;
    for missing in &manifest.missing {
        writeln!(out, "without {}: {}", missing.name, missing.why)?;
    }
    Ok(())
}

fn gather(given: &Given, log: Option<&Path>) -> Bundle {
    let dir = given.common().data;
    let version = env!("CARGO_PKG_VERSION");
    let mut bundle = Bundle::new("driftless-agent", version, clock::now().wall);
    bundle.json("machine.json", &bundle::machine());
    bundle.json_or("configuration.json", configuration(given));
    bundle.json("check.json", &check::findings(given));
    bundle.json_or("status.json", ask(&dir, &Request::Status));
    let question = Question::Newest;
    bundle.json_or(
        "telemetry.json",
        ask(&dir, &Request::Telemetry { question }),
    );
    bundle.json_or("journal.json", heads(&dir));
    bundle.json_or("sizes.json", bundle::sizes(&dir));
    bundle.log(log, UNIT);
    bundle
}

/// Keys with their values; none of them is a secret, files with secrets are named by their path.
fn configuration(given: &Given) -> Result<Vec<Value>, String> {
    let read = Settings::read(given.config.as_deref(), given.flags());
    let (_, values) = read.map_err(|mistakes| mistakes.to_string())?;
    Ok(values.all().map(setting).collect())
}

fn setting((key, value, from): (&str, Option<&config::Value>, &config::From)) -> Value {
    json!({"key": key, "value": value, "from": from.to_string()})
}

/// The heads of the journal. A directory without an agent stays without one.
fn heads(dir: &Path) -> Result<[Value; 2], String> {
    match identity_at(dir)? {
        Some(_) => journal::heads(dir),
        None => Err(format!("there is no agent in {}", dir.display())),
    }
}

fn ask(dir: &Path, request: &Request) -> Result<Value, String> {
    let mut client = Client::connect(dir).map_err(|error| error.to_string())?;
    match client.ask(request, &[]) {
        Ok(Answer::Value { value }) => Ok(value),
        Ok(other) => Err(format!("{other:?}")),
        Err(error) => Err(error.to_string()),
    }
}
