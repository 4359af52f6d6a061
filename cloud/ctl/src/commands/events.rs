//! `driftless events`.

use crate::args::Global;
use crate::client::Client;
use crate::exit::{Code, Failure};
use crate::output::{Output, short};
use crate::text::safe;
use clap::Args;
use cloud_core::view::Event;
use serde::Deserialize;
use std::time::Duration;

/// Read what happened: runs, tasks, nodes and their sessions, conflicts, operators' actions.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  driftless events
  driftless events --follow --json
  driftless events --after 4711 --follow           go on behind event 4711

Events are numbered without gap, also over restarts of the coordinator. A reader that knows the last
number it saw misses nothing and sees nothing twice. A number that is no longer kept is refused with the
first one that is.")]
pub(crate) struct Events {
    /// Only what came behind this number; without it from the first that is kept
    #[arg(long, value_name = "N")]
    pub(crate) after: Option<u64>,
    /// Go on with what happens from now on
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// At most so many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
}

/// Pause before a stream that broke off is asked for again.
const AGAIN: Duration = Duration::from_secs(1);

/// A line of the stream: an event, or a sign of life.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Event(Box<Event>),
    Beat {},
}

pub(super) fn run(args: &Events, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let client = Client::new(global)?;
    let (mut after, mut left) = (args.after, args.limit);
    loop {
        let read = read(&client, args.follow, &mut after, &mut left, out);
        let over = !args.follow || left == Some(0);
        match read {
            Ok(()) if over => return Ok(Code::Done),
            // the coordinator stops, or starts: it goes on behind what was seen
            Ok(()) => {}
            Err(failure) if failure.code == Code::Unreachable && args.follow && after.is_some() => {
            }
            Err(failure) => return Err(failure),
        }
        std::thread::sleep(AGAIN);
        client.find_again();
    }
}

fn read(
    client: &Client,
    follow: bool,
    after: &mut Option<u64>,
    left: &mut Option<u64>,
    out: &mut Output,
) -> Result<(), Failure> {
    let mut path = format!("/events?follow={follow}");
    for (name, value) in [("after", *after), ("limit", *left)] {
        if let Some(value) = value {
            path = format!("{path}&{name}={value}");
        }
    }
    client.list(&path, |line: Line| {
        let Line::Event(event) = line else {
            return Ok(true);
        };
        *after = Some(event.number);
        *left = left.map(|left| left.saturating_sub(1));
        if out.json {
            out.object(&event)?;
        } else {
            out.line(&text(&event))?;
        }
        Ok(*left != Some(0))
    })
}

/// An event for people.
fn text(event: &Event) -> String {
    let run = event.run.as_ref().map(short);
    let fields = [
        ("", run),
        ("", event.task.clone()),
        ("", event.node.clone()),
        ("", event.workflow.clone()),
        ("", event.what.clone()),
        ("", event.about.clone()),
        ("-> ", event.state.clone()),
        ("was ", event.was.clone()),
        ("session ", event.session.map(|n| n.to_string())),
        ("by ", event.who.clone()),
        ("facts ", event.count.map(|n| n.to_string())),
        ("up to ", event.fact.map(|n| n.to_string())),
        ("generation ", event.generation.map(|n| n.to_string())),
        ("because ", event.reason.clone()),
    ];
    let mut text = format!("{:>8} {} {:<12}", event.number, event.at, safe(&event.kind));
    for (name, value) in fields {
        if let Some(value) = value {
            text = format!("{text} {name}{}", safe(&value));
        }
    }
    for (state, n) in &event.tasks {
        text = format!("{text} {n} {}", safe(state));
    }
    text.trim_end().to_owned()
}
