//! `driftless node cordon`, `uncordon`, `drain`, `label`, `taint`, `sync-status`.

use super::node::{ask, heard, pairs};
use super::who;
use crate::client::{Client, escape};
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::table::{Cell, Table};
use clap::Subcommand;
use cloud::api::types::{Labels, Taints};
use cloud_core::view::{Node, NodeWork, SyncClass, SyncStatus};
use shared::time::Span;
use std::time::{Duration, Instant};

/// Pause between two looks at what is left.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Give a node no new work. What it has goes on.
    Cordon {
        /// Its name or id
        node: String,
    },
    /// Give a node work again; ends a drain, too.
    Uncordon {
        /// Its name or id
        node: String,
    },
    /// Give a node no new work, and ask it to hand back what may run elsewhere.
    #[command(after_help = "\
Examples:
  driftless node drain gw-7                        begin it, and see what is left and why
  driftless node drain gw-7 --wait --timeout 10m   wait until nothing is left there
  driftless node uncordon gw-7                     end it

What a task pins there (its name, a local submission, at_most_once while it runs, no other node that fits)
stays and goes on there. With --wait: exit code 0 when nothing is left, 7 when the time is over.")]
    Drain {
        /// Its name or id
        node: String,
        /// Wait until nothing is left on it
        #[arg(long)]
        wait: bool,
        /// Give up waiting (not the drain) after this time, with exit code 7
        #[arg(long, value_name = "DURATION", requires = "wait",
              value_parser = crate::text::parse_span)]
        timeout: Option<Span>,
    },
    /// Change labels of a node, over those that it says itself.
    #[command(after_help = "\
Examples:
  driftless node label gw-7 site=plant-3 rack=2    set two
  driftless node label gw-7 rack-                  take one away")]
    Label {
        /// Its name or id
        node: String,
        /// A label to set, or one to take away
        #[arg(value_name = "KEY=VALUE|KEY-", required = true)]
        labels: Vec<String>,
    },
    /// Change taints of a node, which keep off it what does not tolerate them.
    #[command(after_help = "\
Examples:
  driftless node taint gw-7 gpu:refuse             only tasks that tolerate `gpu` are placed there
  driftless node taint gw-7 link=slow:avoid        only if nothing else fits
  driftless node taint gw-7 gpu-                   take it away")]
    Taint {
        /// Its name or id
        node: String,
        /// A taint to add, or the key of one to take away
        #[arg(value_name = "KEY[=VALUE]:EFFECT|KEY-", required = true)]
        taints: Vec<String>,
    },
    /// Show how far the logs between the coordinator and a node are across.
    SyncStatus {
        /// Its name or id
        node: String,
    },
}

pub(super) fn run(command: Command, client: &Client, out: &mut Output) -> Result<Code, Failure> {
    match command {
        Command::Cordon { node } => {
            ask(client, &node, "cordon", "is given no new work", out)?;
        }
        Command::Uncordon { node } => {
            ask(client, &node, "uncordon", "is given work again", out)?;
        }
        Command::Drain {
            node,
            wait,
            timeout,
        } => return drain(client, &node, wait, timeout, out),
        Command::Label { node, labels } => label(client, &node, &labels, out)?,
        Command::Taint { node, taints } => taint(client, &node, &taints, out)?,
        Command::SyncStatus { node } => {
            let status: SyncStatus = client.get(&format!("/nodes/{}/sync", escape(&node)))?;
            if out.json {
                out.object(&status)?;
            } else {
                show(&status, out)?;
            }
        }
    }
    Ok(Code::Done)
}

fn drain(
    client: &Client,
    node: &str,
    wait: bool,
    timeout: Option<Span>,
    out: &mut Output,
) -> Result<Code, Failure> {
    let path = format!("/nodes/{}", escape(node));
    let by = cloud::api::types::Ask {
        by: who(),
        why: String::new(),
    };
    let node: Node = client.post(&format!("{path}/drain"), &by)?;
    let begun = Instant::now();
    let mut told = None;
    loop {
        let work: NodeWork = client.get(&format!("/nodes/{}/work", node.id))?;
        let over = timeout.is_some_and(|limit| begun.elapsed() >= Duration::from_millis(limit.0));
        let fires = work.schedules.iter().any(|schedule| schedule.moves);
        let left = work.left > 0 || fires;
        if !wait || !left || over {
            report(&work, out)?;
            let late = wait && left;
            return Ok(if late { Code::TimedOut } else { Code::Done });
        }
        let now = (work.left, work.moving);
        if told.replace(now) != Some(now) && !out.json {
            let (left, moving) = now;
            out.say(&format!(
                "{left} slices left, {moving} of them on their way"
            ));
        }
        std::thread::sleep(LOOK);
    }
}

fn report(work: &NodeWork, out: &mut Output) -> Result<(), Failure> {
    if out.json {
        return out.object(work);
    }
    let name = crate::text::safe(&work.node);
    for schedule in &work.schedules {
        let what = if schedule.moves { "moves" } else { "stays" };
        let (of, why) = (
            crate::text::safe(&schedule.name),
            crate::text::safe(&schedule.why),
        );
        out.say(&format!("schedule {of} {what}: {why}"));
    }
    if work.left == 0 {
        out.say(&format!(
            "{name} is given no new work, and nothing is left there"
        ));
        return Ok(());
    }
    let (left, moving) = (work.left, work.moving);
    out.say(&format!(
        "{name} is given no new work; {left} slices are left, {moving} of them on their way"
    ));
    let mut table = Table::new(["RUN", "WORKFLOW", "TASKS", "MOVES", "WHY"], out.colour);
    for slice in &work.slices {
        let row = [
            crate::output::short(&slice.run).into(),
            Cell::from(&slice.workflow),
            Cell::number(slice.tasks),
            if slice.moves { "yes" } else { "no" }.into(),
            Cell::from(&slice.why),
        ];
        out.row(&mut table, row)?;
    }
    out.finish(table)
}

/// A word for something to take away: `KEY-`.
fn away(text: &str) -> Option<&str> {
    let key = text.strip_suffix('-')?;
    (!key.is_empty() && !key.contains(['=', ':'])).then_some(key)
}

fn label(client: &Client, node: &str, labels: &[String], out: &mut Output) -> Result<(), Failure> {
    let mut body = Labels {
        by: who(),
        ..Labels::default()
    };
    for text in labels {
        let (name, value) = match (text.split_once('='), away(text)) {
            (Some((name, value)), _) => (name, Some(value.to_owned())),
            (None, Some(name)) => (name, None),
            (None, None) => {
                let failure = Failure::new(Code::Usage, format!("'{text}' is no label"));
                return Err(failure.hint("write KEY=VALUE to set it, or KEY- to take it away"));
            }
        };
        body.set.insert(name.to_owned(), value);
    }
    let node: Node = client.post(&format!("/nodes/{}/labels", escape(node)), &body)?;
    if out.json {
        return out.object(&node);
    }
    let name = crate::text::safe(&node.name);
    out.say(&format!("{name} has the labels {}", pairs(&node.labels)));
    Ok(())
}

fn taint(client: &Client, node: &str, taints: &[String], out: &mut Output) -> Result<(), Failure> {
    let mut body = Taints {
        by: who(),
        ..Taints::default()
    };
    for text in taints {
        match away(text) {
            Some(key) => body.remove.push(key.to_owned()),
            None => {
                let taint: Result<shared::taint::Taint, _> = text.parse();
                let wrong = |error| Failure::new(Code::Usage, format!("{error}"));
                body.add.push(taint.map_err(wrong)?.to_string());
            }
        }
    }
    let node: Node = client.post(&format!("/nodes/{}/taints", escape(node)), &body)?;
    if out.json {
        return out.object(&node);
    }
    let name = crate::text::safe(&node.name);
    let text = match node.taints.len() {
        0 => format!("{name} has no taints"),
        _ => format!("{name} has the taints {}", node.taints.join(", ")),
    };
    out.say(&text);
    Ok(())
}

fn show(status: &SyncStatus, out: &mut Output) -> Result<(), Failure> {
    let session = match (status.session, status.silence_ms) {
        (Some(n), _) => format!("{n}, live"),
        (None, Some(ms)) => format!(
            "none for {} (the last was {})",
            Span(ms),
            status.last_session
        ),
        (None, None) => "none yet".to_owned(),
    };
    out.facts(&[
        ("node", Cell::from(&status.node)),
        ("state", Cell::state(&status.state)),
        ("session", session.into()),
        ("heard", heard(&status.as_of).into()),
    ])?;
    let mut table = Table::new(["LOG", "LAST", "BEHIND", "AGE", "RATE"], out.colour);
    for class in &status.classes {
        out.row(&mut table, row(class))?;
    }
    out.finish(table)
}

fn row(class: &SyncClass) -> [Cell; 5] {
    let age = class.age_ms.map(|ms| Span(ms / 1000 * 1000).to_string());
    [
        Cell::from(&class.class),
        Cell::number(class.last),
        Cell::number(class.behind),
        age.unwrap_or_else(|| "-".to_owned()).into(),
        format!("{}/s", class.per_second).into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::away;

    #[test]
    fn a_dash_at_the_end_takes_away() {
        assert_eq!(away("rack-"), Some("rack"));
        assert_eq!(away("a-b-"), Some("a-b"));
        for other in ["rack", "-", "k=v-", "k:refuse-"] {
            assert_eq!(away(other), None, "{other}");
        }
    }
}
