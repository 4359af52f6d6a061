//! Promise 6: convergence.

use crate::machine::Proc;
use crate::queue::{MIN, SEC, Time};
use crate::world::World;
use cloud_core::event::Reply;
use cloud_core::view;
use shared::ids::{AttemptRef, RunId};
use shared::state::RunState;
use std::collections::{BTreeMap, BTreeSet};

/// What it means.
pub const DEFINITION: &str = "Faults stop, every node is back or forgotten, people free what is in quarantine: within \
    two hours plus the time of all work one after another every run is final or waits for a \
    person, none is held, every node has a session, each cursor equals its node's head, both \
    sides agree, also on settings, and no process, launch, transfer, request or second \
    connection is left. At any time: a process is told to end within two minutes of the moment \
    when the end of its run is durable at its gateway, while the agent that began it runs.";

/// A process that nobody told to end is looked at so long.
const PATIENCE: Time = 2 * MIN;

/// Once a minute.
pub fn look(world: &mut World) {
    let mut found = None;
    for m in 0..world.machines.len() {
        let machine = &world.machines[m];
        let Some(truth) = world
            .lives
            .get(machine.life)
            .filter(|_| machine.agent.is_some())
        else {
            world.machines[m].unheeded.clear();
            continue;
        };
        let goes_on = |proc: &&Proc| {
            let own = proc.life == machine.process;
            own && !proc.stopping && truth.model.is_cancelled(proc.attempt.slice.run)
        };
        let attempts = machine
            .procs
            .values()
            .filter(goes_on)
            .map(|proc| proc.attempt);
        let now: BTreeMap<AttemptRef, Time> = attempts
            .map(|one| (one, machine.unheeded.get(&one).copied().unwrap_or(world.t)))
            .collect();
        let late = now.iter().find(|(_, since)| world.t - **since > PATIENCE);
        if let Some((attempt, _)) = late {
            found = Some(format!(
                "gw-{} lets {attempt:?} go on, whose run was cancelled",
                m + 1
            ));
        }
        world.machines[m].unheeded = now;
    }
    if let Some(text) = found {
        world.fail("convergence", text);
    }
}

/// What is not at rest at the edge and between the sides.
#[must_use]
pub fn restless(world: &World) -> Vec<String> {
    let mut out = Vec::new();
    let waiting: BTreeSet<RunId> = world
        .machines
        .iter()
        .filter(|one| !one.destroyed && one.life != usize::MAX)
        .flat_map(|one| world.lives[one.life].model.waiting_runs(&world.flows))
        .chain(world.people.waiting.iter().copied())
        .collect();
    for (m, machine) in world.machines.iter().enumerate() {
        if !machine.destroyed && machine.node.is_some() && !world.is_declared_gone(m) {
            out.extend(restless_node(world, m, &waiting));
        }
    }
    if world.cloud.authorities.next.is_some() {
        out.push("the fleet changes its authority".to_owned());
    }
    if !world.people.asks.is_empty() {
        out.push(format!(
            "{} requests without an answer",
            world.people.asks.len()
        ));
    }
    out
}

fn restless_node(world: &World, m: usize, waiting: &BTreeSet<RunId>) -> Vec<String> {
    let machine = &world.machines[m];
    let name = &machine.name;
    if machine.life == usize::MAX {
        return vec![format!("{name} is not enrolled again")];
    }
    let mut out = Vec::new();
    if !world.has_session(m) {
        out.push(format!("{name} has no session"));
    }
    let line = machine.link.busy.iter().max().copied().unwrap_or(0);
    if line > world.t + 2 * SEC {
        out.push(format!(
            "the narrow link of {name} carries what was sent before"
        ));
    }
    if !machine.procs.is_empty() {
        out.push(format!("{name} has {} processes", machine.procs.len()));
    }
    out.extend(left_over(world, m));
    let truth = &world.lives[machine.life];
    let unfinished = truth.model.unfinished(waiting, &world.flows);
    out.extend(unfinished.into_iter().map(|text| format!("{name}: {text}")));
    let number = |head: Option<&shared::log::Head>| head.map_or(0, |head| head.number);
    let known = number(world.cloud.truth.heads.get(&truth.log));
    if known != truth.facts.len() as u64 {
        out.push(format!(
            "{name}: {known} of {} facts recorded",
            truth.facts.len()
        ));
    }
    let written = number(world.cloud.truth.directives.get(&truth.log));
    if written != truth.last_directive() {
        let arrived = truth.last_directive();
        out.push(format!("{name}: {arrived} of {written} directives arrived"));
    }
    out
}

/// What a gateway holds on to although nothing needs it: sessions beside the one that lives,
/// transfers, launches.
fn left_over(world: &World, m: usize) -> Vec<String> {
    let machine = &world.machines[m];
    let name = &machine.name;
    let open = world.conns.values().filter(|one| one.machine == m);
    let mut out = Vec::new();
    let sessions = open.count();
    if sessions > 1 {
        out.push(format!("{name} has {sessions} connections"));
    }
    let Some(agent) = &machine.agent else {
        return out;
    };
    let moving = agent.fetching.len() + agent.uploading.len();
    if moving > 0 {
        out.push(format!("{name} moves {moving} files"));
    }
    if !agent.waiting.is_empty() {
        out.push(format!(
            "{name} has {} launches that wait",
            agent.waiting.len()
        ));
    }
    out
}

/// Runs that are neither final nor wait for somebody. A hold is no such wait: everybody is back,
/// and has to be heard.
#[must_use]
pub fn unsettled(runs: &[view::Run]) -> Vec<String> {
    runs.iter()
        .filter(|run| {
            let is_final = RunState::from_text(&run.state).is_some_and(RunState::is_final);
            let held = run.state == RunState::Held.text();
            !is_final && (held || run.waits.is_empty())
        })
        .map(|run| format!("run {} is {} ({:?})", run.id, run.state, run.tasks))
        .collect()
}

/// Gateways that do not follow the settings that the coordinator shows for them.
#[must_use]
pub fn settings(world: &World, nodes: Option<&Reply>) -> Vec<String> {
    let Some(Reply::Nodes(nodes)) = nodes else {
        return vec!["the coordinator does not say what is set".to_owned()];
    };
    let mut differ = Vec::new();
    for machine in world.machines.iter().filter(|one| !one.destroyed) {
        let shown = nodes.iter().find(|one| Some(one.id) == machine.node);
        let gone = |one: &&view::Node| one.state == "forgotten";
        let Some(shown) = shown.filter(|one| !gone(one) && machine.life != usize::MAX) else {
            continue;
        };
        let set = shown
            .settings
            .settings
            .iter()
            .filter(|one| one.from != "default");
        let set: BTreeMap<String, String> = set
            .map(|one| (one.key.clone(), one.value.clone()))
            .collect();
        let there = world.lives[machine.life].model.settings.texts();
        let silent = world.lives[machine.life].silent.is_some();
        if shown.sync_paused.is_some() != silent {
            let name = &machine.name;
            differ.push(format!(
                "{name}: silent {silent}, the coordinator shows another"
            ));
        }
        if set != there || shown.settings.confirmed == Some(false) {
            let name = &machine.name;
            differ.push(format!("{name} follows {there:?}, {set:?} is shown"));
        }
    }
    differ
}

/// The runs in an answer.
#[must_use]
pub fn runs(reply: &Reply) -> Option<&[view::Run]> {
    match reply {
        Reply::Runs(runs) => Some(runs),
        _ => None,
    }
}
