//! `driftless support-bundle`: what the coordinator knows of itself, in one file that may be given
//! away.

use super::doctor;
use super::serve::Serve;
use crate::args::Global;
use crate::client::Client;
use crate::config;
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::target::{by_api, data_dir};
use crate::text::now;
use bundle::Bundle;
use clap::Args;
use cloud_core::view::{Node, Run};
use serde_json::{Value, json};
use shared::config::{From, Value as Setting};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

const UNIT: &str = "driftless-coordinator";

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  driftless support-bundle coordinator.tar.zst
  driftless support-bundle coordinator.tar.zst --log /var/log/driftless.log
  tar --zstd -tf coordinator.tar.zst              what is in it

It holds versions, the configuration, what `doctor` finds, the nodes with how far their facts and
directives are, runs by state, figures, sizes, and the end of the log; manifest.json says what is there
and why something is not. It holds no token, key, environment, command, parameter or output of a task.
It works also when the coordinator does not run.
Exit codes: 0 done · 1 it cannot be written · 5 PATH exists")]
pub(crate) struct Support {
    /// The file that is made
    path: PathBuf,
    /// The file that the coordinator logs to; without it the system's journal is asked
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

pub(super) fn run(args: &Support, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let path = args.path.display();
    let manifest = gather(args, global).write(&args.path).map_err(|error| {
        let exists = error.kind() == io::ErrorKind::AlreadyExists;
        let what = format!("{path} cannot be written: {error}");
        match exists {
            true => Failure::new(Code::Refused, what).hint("name another file"),
            false => Failure::new(Code::Failed, what),
        }
    })?;
    if out.json {
        let (parts, missing) = (&manifest.parts, &manifest.missing);
        out.object(&json!({"path": args.path, "parts": parts, "missing": missing}))?;
        return Ok(Code::Done);
    }
    out.line(&format!("wrote {path} with {} parts", manifest.parts.len()))?;
    for missing in &manifest.missing {
        out.line(&format!("without {}: {}", missing.name, missing.why))?;
    }
    Ok(Code::Done)
}

fn gather(args: &Support, global: &Global) -> Bundle {
    let told = |failure: Failure| failure.what;
    let mut bundle = Bundle::new("driftless", env!("CARGO_PKG_VERSION"), now());
    bundle.json("machine.json", &bundle::machine());
    bundle.json_or("configuration.json", configuration(global));
    bundle.json_or("doctor.json", doctor::findings(global).map_err(told));
    let client = Client::new(global).map_err(told);
    let client = client.as_ref().map_err(Clone::clone);
    let nodes = |client| nodes(client).map_err(told);
    bundle.json_or("nodes.json", client.clone().and_then(nodes));
    let runs = |client| runs(client).map_err(told);
    bundle.json_or("runs.json", client.clone().and_then(runs));
    match client.and_then(|client| client.figures().map_err(told)) {
        Ok(text) => bundle.text("metrics.txt", &text),
        Err(why) => bundle.missing("metrics.txt", &why),
    }
    if !by_api(global) {
        bundle.json_or("sizes.json", bundle::sizes(&data_dir(global)));
    } else {
        bundle.missing(
            "sizes.json",
            "the coordinator was named by its API, not by its directory",
        );
    }
    bundle.log(args.log.as_deref(), UNIT);
    bundle
}

/// Keys with their values; none of them is a secret, files with secrets are named by their path.
fn configuration(global: &Global) -> Result<Vec<Value>, String> {
    let read = config::read(global, &Serve::default());
    let (_, values) = read.map_err(|mistakes| mistakes.to_string())?;
    Ok(values.all().map(setting).collect())
}

fn setting((key, value, from): (&str, Option<&Setting>, &From)) -> Value {
    json!({"key": key, "value": value, "from": from.to_string()})
}

fn nodes(client: &Client) -> Result<Vec<Node>, Failure> {
    let mut nodes = Vec::new();
    client.list("/nodes", |node: Node| {
        nodes.push(node);
        Ok(true)
    })?;
    Ok(nodes)
}

/// How many runs are in each state. What a run is called, and what it was given, is its owner's.
fn runs(client: &Client) -> Result<BTreeMap<String, u64>, Failure> {
    let mut states = BTreeMap::new();
    client.list("/runs", |run: Run| {
        *states.entry(run.state).or_default() += 1;
        Ok(true)
    })?;
    Ok(states)
}
