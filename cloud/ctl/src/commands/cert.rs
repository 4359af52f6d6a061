//! `driftless cert`.

use crate::args::Global;
use crate::client::Client;
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::table::{Cell, Table};
use crate::text::{ago, now, parse_span};
use clap::Subcommand;
use cloud_core::view::{Certificate, Node};
use serde::Serialize;
use shared::ids::NodeId;
use shared::state::NodeState;
use shared::time::{Span, Unix};

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// List the nodes' certificates, those that expire first on top.
    #[command(after_help = "\
Examples:
  driftless cert list
  driftless cert list --expiring-within 30d        also those that have expired

Nodes renew their certificates by themselves; one that is in this list for long is offline.")]
    List {
        /// Only those that expire within this time, or have expired
        #[arg(long, value_name = "DURATION", value_parser = parse_span)]
        expiring_within: Option<Span>,
    },
}

/// A node's certificate, as `cert list --json` prints it.
#[derive(Serialize)]
struct Listed {
    node: String,
    id: NodeId,
    state: String,
    until: Unix,
    expired: bool,
    key: String,
    authority: String,
}

pub(super) fn run(command: Command, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let Command::List { expiring_within } = command;
    let within = expiring_within.map(|span| Unix(now().0.saturating_add(span.0 as i64)));
    let mut nodes = Vec::new();
    Client::new(global)?.list("/nodes", |node: Node| {
        let shown = node.state != NodeState::Forgotten.text();
        if let Some(certificate) = node.certificate.clone().filter(|_| shown) {
            nodes.push((certificate, node));
        }
        Ok(true)
    })?;
    nodes.retain(|(certificate, _)| within.is_none_or(|at| certificate.until <= at));
    nodes.sort_by(|a, b| (a.0.until, &a.1.name).cmp(&(b.0.until, &b.1.name)));
    if out.json {
        for (certificate, node) in nodes {
            out.object(&listed(certificate, node))?;
        }
        return Ok(Code::Done);
    }
    if nodes.is_empty() {
        out.say("no certificates that expire so soon; nodes renew theirs by themselves");
        return Ok(Code::Done);
    }
    let header = ["NODE", "STATE", "EXPIRES", "UNTIL", "AUTHORITY"];
    let mut table = Table::new(header, out.colour);
    for (certificate, node) in &nodes {
        out.row(&mut table, row(certificate, node))?;
    }
    out.finish(table)?;
    Ok(Code::Done)
}

fn listed(certificate: Certificate, node: Node) -> Listed {
    Listed {
        node: node.name,
        id: node.id,
        state: node.state,
        until: certificate.until,
        expired: certificate.until < now(),
        key: certificate.key,
        authority: certificate.authority,
    }
}

fn row(certificate: &Certificate, node: &Node) -> [Cell; 5] {
    [
        (&node.name).into(),
        Cell::state(&node.state),
        expires(certificate).into(),
        certificate.until.to_string().into(),
        certificate.authority.get(..12).unwrap_or_default().into(),
    ]
}

/// `in 60 d`, or `EXPIRED 3 d ago`.
pub(super) fn expires(certificate: &Certificate) -> String {
    let text = ago(certificate.until, now());
    match certificate.until < now() {
        true => format!("EXPIRED {text}"),
        false => text,
    }
}
