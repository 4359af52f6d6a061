//! Promise 5: no invented history.

use crate::fault::Kind;
use crate::machine::Machine;
use crate::truth::{EdgeTruth, wrong};
use crate::workload::Ending;
use crate::world::World;
use cloud_core::view;
use shared::fact::{Body, Outcome};
use shared::ids::Incarnation;
use shared::wire::LogId;
use std::collections::BTreeSet;

/// What it means.
pub const DEFINITION: &str = "Whatever the coordinator shows of a node is \"as of\" a number that ends one of the node's \
    commits and is recorded durably, with that fact's edge time, and it never claims that the node is further ahead \
    than it is; a run's view of each node obeys the same; it shows no task and no state that the records do not hold, and no \
    gateway records a success of a process that failed.";

fn judge(world: &World, log: LogId, name: &str, as_of: &view::AsOf) -> Option<String> {
    let durable = world
        .cloud
        .truth
        .heads
        .get(&log)
        .map_or(0, |head| head.number);
    if as_of.fact > durable {
        return Some(format!(
            "{name} is shown as of fact {}, recorded: {durable}",
            as_of.fact
        ));
    }
    if as_of.fact == 0 {
        return None;
    }
    let ends = world.ends.get(&log);
    if ends.is_none_or(|ends| !ends.contains_key(&as_of.fact)) {
        return Some(format!(
            "{name} is shown as of fact {}, not the end of a commit",
            as_of.fact
        ));
    }
    let lives = || world.lives.iter().filter(|truth| truth.log == log);
    let at = as_of.at?;
    let times: Vec<_> = lives()
        .filter_map(|truth| truth.facts.get(as_of.fact as usize - 1)?.fact.as_ref())
        .map(|fact| fact.at.wall)
        .collect();
    if !times.is_empty() && !times.contains(&at) {
        return Some(format!(
            "{name} is shown as of {at:?}, its facts say {times:?}"
        ));
    }
    if world.is_liar_node(log.node) {
        // how far it is ahead only the Byzantine gateway itself says
        return None;
    }
    let longest = lives()
        .map(|truth| truth.facts.len() as u64)
        .max()
        .unwrap_or(0);
    (as_of.fact + as_of.behind > longest).then(|| {
        format!(
            "{name} is said to be {} ahead of fact {}, it has {longest}",
            as_of.behind, as_of.fact
        )
    })
}

/// A commit of an agent became durable; its facts follow position `before`: what they tell as a
/// success was one.
pub fn on_edge_commit(world: &mut World, m: usize, before: usize) {
    let fresh = &world.lives[world.machines[m].life].facts[before..];
    let mut good = fresh
        .iter()
        .filter_map(|row| match &row.fact.as_ref()?.body {
            Body::Ended { attempt, end } if end.outcome == Outcome::Succeeded => Some(*attempt),
            _ => None,
        });
    let wrong = good.find(|attempt| {
        let ends = world.deed(attempt).map(|deed| deed.ends);
        !matches!(ends, Some(Ending::Well | Ending::OutputMissing))
    });
    if let Some(attempt) = wrong {
        let text = format!("gw-{} tells {attempt:?}, which failed, as a success", m + 1);
        world.fail("no_invented_history", text);
    }
}

/// Whether a gateway that cannot be reached has gone on behind what is shown of it.
fn is_behind(world: &World, log: LogId, shown: u64) -> bool {
    let mut machines = world.machines.iter();
    let found = machines.find(|one| one.log() == log && !one.link.whole());
    let life = found.and_then(|one| world.lives.get(one.life));
    life.is_some_and(|truth| truth.facts.len() as u64 > shown)
}

/// The coordinator shows its nodes.
pub fn on_nodes(world: &mut World, nodes: &[view::Node]) {
    let mut wrongs = Vec::new();
    for node in nodes {
        let Ok(incarnation) = node.incarnation.parse::<Incarnation>() else {
            continue;
        };
        let log = LogId {
            node: node.id,
            incarnation,
        };
        if is_behind(world, log, node.as_of.fact) {
            world.happened(Kind::ShownBehind);
        }
        if let Some(text) = judge(world, log, &node.name, &node.as_of) {
            wrongs.push(wrong("no_invented_history", text));
        }
    }
    world.fail_all(crate::trace::Lane::Cloud, wrongs);
}

/// The coordinator shows its runs.
pub fn on_runs(world: &mut World, runs: &[view::Run]) {
    let mut wrongs = Vec::new();
    for run in runs {
        let people = &world.people;
        // what the Byzantine gateway makes up is shown as its word
        let made_up = world
            .liar
            .as_ref()
            .is_some_and(|liar| liar.speaks_of(run.id));
        let known = people.submitted.contains(&run.id) || people.fired.contains(&run.id);
        if !known && !made_up {
            let text = format!("run {} was neither submitted nor fired", run.id);
            wrongs.push(wrong("no_invented_history", text));
        }
        for (name, as_of) in &run.nodes {
            // the view may be of a former incarnation
            let mine = |truth: &&EdgeTruth| {
                let one = |one: &Machine| one.name == *name && one.node == Some(truth.log.node);
                world.machines.iter().any(one)
            };
            let logs: BTreeSet<LogId> = world
                .lives
                .iter()
                .filter(mine)
                .map(|truth| truth.log)
                .collect();
            let found = logs.iter().map(|log| judge(world, *log, name, as_of));
            if let Some(Some(text)) = found.reduce(|one, other| one.and(other)) {
                wrongs.push(wrong(
                    "no_invented_history",
                    format!("run {}: {text}", run.id),
                ));
            }
        }
    }
    world.fail_all(crate::trace::Lane::Cloud, wrongs);
}
