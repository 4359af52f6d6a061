//! `driftless node`.

use super::list::List;
use super::{cert, operate, telemetry, who};
use crate::args::Global;
use crate::client::{Client, escape};
use crate::exit::{Code, Failure};
use crate::output::{Output, short};
use crate::table::Cell;
use crate::text::{ago, bytes, now, rough};
use clap::Subcommand;
use cloud::api::telemetry::Newest;
use cloud::api::types::Ask;
use cloud_core::view::{AsOf, Node, Settings};
use serde::Serialize;
use shared::state::NodeState;
use shared::time::Span;
use std::collections::BTreeMap;

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// List the nodes.
    List,
    /// Show one node.
    Get {
        /// Its name or id
        node: String,
    },
    /// Declare a node gone: its work is lost and placed again as its specification allows.
    Forget {
        /// Its name or id
        node: String,
    },
    /// Free a quarantined node: the next caller with its identity is taken for the original.
    Release {
        /// Its name or id
        node: String,
    },
    /// Say that a node will not come back after a restore: the hold of old runs waits for it no
    /// longer.
    Gone {
        /// Its name or id
        node: String,
    },
    #[command(flatten)]
    Operate(operate::Command),
}

pub(super) fn run(command: Command, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let client = Client::new(global)?;
    match command {
        Command::List => list(&client, out)?,
        Command::Get { node } => {
            let newest = telemetry::newest(&client, &node)?;
            let node: Node = client.get(&format!("/nodes/{}", escape(&node)))?;
            if out.json {
                out.object(&Whole {
                    node: &node,
                    telemetry: newest.as_ref(),
                })?
            } else {
                show(&node, newest.as_ref(), out)?
            }
        }
        Command::Forget { node } => {
            ask(
                &client,
                &node,
                "forget",
                "is forgotten; its certificate is good for nothing",
                out,
            )?;
        }
        Command::Release { node } => {
            let done = "is free: its next caller is taken for the original";
            ask(&client, &node, "release", done, out)?;
        }
        Command::Gone { node } => {
            ask(&client, &node, "gone", "is not waited for any more", out)?;
        }
        Command::Operate(command) => return operate::run(command, &client, out),
    }
    Ok(Code::Done)
}

/// A node with its newest sample.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    node: &'a Node,
    telemetry: Option<&'a Newest>,
}

pub(super) fn ask(
    client: &Client,
    node: &str,
    what: &str,
    done: &str,
    out: &mut Output,
) -> Result<(), Failure> {
    let ask = Ask {
        by: who(),
        why: String::new(),
    };
    let node: Node = client.post(&format!("/nodes/{}/{what}", escape(node)), &ask)?;
    if out.json {
        return out.object(&node);
    }
    out.say(&format!("{} {done}", crate::text::safe(&node.name)));
    Ok(())
}

fn list(client: &Client, out: &mut Output) -> Result<(), Failure> {
    let header = [
        "NAME", "ID", "STATE", "HEARD", "BEHIND", "RUNNING", "SLICES", "CERT", "LABELS",
    ];
    let none = "no nodes yet: make a token with `driftless token create`";
    let list = List {
        path: "/nodes",
        header,
        none,
    };
    list.print(client, out, row).map(drop)
}

fn row(node: &Node) -> [Cell; 9] {
    [
        (&node.name).into(),
        short(&node.id).into(),
        Cell::state(&node.state),
        if node.state == NodeState::Online.text() {
            "connected".into()
        } else {
            heard(&node.as_of).into()
        },
        Cell::number(node.as_of.behind),
        Cell::number(node.running),
        Cell::number(node.slices),
        node.certificate
            .as_ref()
            .map_or_else(|| "-".to_owned(), cert::expires)
            .into(),
        pairs(&node.labels).into(),
    ]
}

pub(super) fn heard(as_of: &AsOf) -> String {
    as_of
        .heard
        .map_or_else(|| "never".to_owned(), |at| ago(at, now()))
}

/// `a=b, c=d`, or a dash.
pub(super) fn pairs(map: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = map
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    if pairs.is_empty() {
        "-".to_owned()
    } else {
        pairs.join(", ")
    }
}

fn taints(node: &Node) -> String {
    if node.taints.is_empty() {
        "-".to_owned()
    } else {
        node.taints.join(", ")
    }
}

/// "as of 14:02 at the node, catching up, 41 behind".
pub(super) fn as_of(as_of: &AsOf) -> String {
    let at = as_of.at.map_or_else(
        || "nothing known".to_owned(),
        |at| format!("as of {at} at the node"),
    );
    let behind = match as_of.behind {
        0 => String::new(),
        n => format!(", catching up, {n} facts behind"),
    };
    format!("{at}{behind}, heard {}", heard(as_of))
}

/// What holds there, but for what its own configuration says.
fn settings(settings: &Settings) -> String {
    let set = settings.settings.iter();
    let set: Vec<String> = set
        .map(|one| format!("{}={}", one.key, one.value))
        .collect();
    let confirmed = match settings.confirmed {
        Some(false) => " (not confirmed yet)",
        _ => "",
    };
    format!("{}{confirmed}", set.join(", "))
}

/// Milliseconds that a node's clock may be off before it is worth a line.
const CLOCK_OFF: i64 = 60_000;
/// A capacity from here on says that the node does not count this resource.
const UNLIMITED: u64 = 1 << 60;

fn capacity(node: &Node) -> String {
    let text = |(name, n): (&String, &u64)| match name.as_str() {
        "cpu_milli" => format!("{} cores", *n as f64 / 1000.0),
        "gpu_milli" => format!("{} GPUs", *n as f64 / 1000.0),
        "memory" | "disk" => format!("{} {name}", bytes(*n)),
        _ => format!("{n} {name}"),
    };
    let parts: Vec<String> = node
        .capacity
        .iter()
        .filter(|(_, n)| (1..UNLIMITED).contains(*n))
        .map(text)
        .collect();
    if parts.is_empty() {
        "-".to_owned()
    } else {
        parts.join(", ")
    }
}

fn show(node: &Node, newest: Option<&Newest>, out: &mut Output) -> Result<(), Failure> {
    let mut lines = vec![
        ("name", Cell::from(&node.name)),
        ("id", node.id.to_string().into()),
        ("state", Cell::state(&node.state)),
        ("view", as_of(&node.as_of).into()),
        ("labels", pairs(&node.labels).into()),
        ("taints", taints(node).into()),
        ("offers", capacity(node).into()),
        (
            "work",
            format!("{} slices, {} tasks running", node.slices, node.running).into(),
        ),
        (
            "not confirmed",
            format!("{} directives", node.unconfirmed).into(),
        ),
        ("settings", settings(&node.settings).into()),
        ("incarnation", (&node.incarnation).into()),
    ];
    lines.extend(newest.map(telemetry::lines).into_iter().flatten());
    if let Some(known) = &node.certificate {
        let revoked = match known.revoked_keys {
            0 => String::new(),
            n => format!(", {n} keys of it are revoked"),
        };
        let text = format!("until {} ({}){revoked}", known.until, cert::expires(known));
        lines.push(("certificate", text.into()));
        lines.push(("key", known.key.as_str().into()));
    }
    if let Some(ahead) = node.clock_ahead_ms.filter(|ahead| ahead.abs() > CLOCK_OFF) {
        let which = if ahead > 0 { "ahead" } else { "behind" };
        let text = format!("{} {which}", rough(Span(ahead.unsigned_abs())));
        lines.push(("its clock", text.into()));
    }
    if let Some(pause) = &node.sync_paused {
        let end = match pause.until {
            Some(until) => format!("until {until}"),
            None => format!("until `driftless-agent sync resume` at {}", node.name),
        };
        let text = format!(
            "paused at the gateway by {} at {}, {end}",
            pause.by, pause.since
        );
        lines.push(("link", text.into()));
    }
    if let Some(note) = &node.note {
        lines.push(("note", note.into()));
    }
    out.facts(&lines)
}
