//! `driftless submit`.

use super::spec::Given;
use super::spec::Source;
use super::{run, who};
use crate::args::Global;
use crate::client::{Client, escape};
use crate::exit::{Code, Failure};
use crate::output::{Output, short};
use crate::progress::{self, Show};
use clap::Args;
use cloud_core::view::Run;
use shared::codec;
use shared::limits::SUBMISSION_BYTES;
use shared::time::Span;
use std::fs::File;
use std::path::PathBuf;

/// Check a specification, send it with its files, and start a run.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  driftless submit flow.yaml
  driftless submit flow.yaml --param month=7 --param mode=night --wait
  driftless submit report.yaml --file stations.csv=data/stations.csv
  driftless submit flow.yaml --idempotency-key nightly-2026-11-23

With --wait the exit code says how the run ended: 0 succeeded, 1 failed, cancelled or partly lost.")]
pub(crate) struct Submit {
    /// The specification (YAML); - for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) given: Given,
    /// Wait until the run is over, and show how it goes
    #[arg(long)]
    pub(crate) wait: bool,
    /// With --wait: give up waiting (not the run) after this time, with exit code 7
    #[arg(long, value_name = "DURATION", requires = "wait",
          value_parser = crate::text::parse_span)]
    pub(crate) timeout: Option<Span>,
    /// Submitting again with the same key gives the run of the first time
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
}

pub(super) fn run(args: &Submit, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let source = Source::read(&args.file, &args.given, out)?;
    let workflow = source.compile(out)?;
    if workflow.schedule.is_some() {
        let file = args.file.display();
        let what = format!("{file} has a `schedule`: submitting would run it once");
        let hint = format!(
            "make it with `driftless schedule create {file}`; \
             `driftless schedule trigger {}` then runs it at once",
            workflow.name
        );
        return Err(Failure::new(Code::Usage, what).hint(hint));
    }
    let tasks = match workflow.tasks.len() {
        1 => "1 task".to_owned(),
        n => format!("{n} tasks"),
    };
    let (packed, _) = codec::pack(&workflow);
    drop(workflow);
    if packed.len() > SUBMISSION_BYTES {
        let what = format!("the compiled workflow has {} bytes", packed.len());
        return Err(Failure::new(Code::Refused, what).hint(format!(
            "at most {SUBMISSION_BYTES} fit: split it into several workflows"
        )));
    }
    let client = Client::new(global)?;
    send_files(&client, &source, out)?;
    let path = format!("/runs?by={}", escape(&who()));
    let key = args
        .idempotency_key
        .as_deref()
        .map(|key| ("idempotency-key", key));
    let run: Run = client.post_bytes(&path, key.as_slice(), &packed)?;
    if !args.wait {
        if out.json {
            out.object(&run)?;
        } else {
            out.line(&run.id.to_string())?;
            let id = short(&run.id);
            out.say(&format!(
                "{tasks}; see how it goes: driftless run watch {id}"
            ));
        }
        return Ok(Code::Done);
    }
    if !out.json {
        out.say(&format!("run {} of {tasks}", run.id));
    }
    let run = progress::follow(&client, run.id, Show::Progress, args.timeout, out)?;
    run::ended(&run, true, out)
}

/// Files go first, and only those that the coordinator does not have.
pub(super) fn send_files(client: &Client, source: &Source, out: &Output) -> Result<(), Failure> {
    for (input, (hash, size)) in &source.files {
        let path = format!("/files/{hash}");
        if client.has(&path)? {
            continue;
        }
        let from = &source.paths[input];
        let file = File::open(from).map_err(|error| {
            Failure::new(
                Code::Failed,
                format!("cannot read {}: {error}", from.display()),
            )
        })?;
        if out.live && *size > 10 << 20 {
            out.say(&format!(
                "sending {} ({})",
                from.display(),
                crate::text::bytes(*size)
            ));
        }
        client.put(&path, *size, &file)?;
    }
    Ok(())
}
