//! Promise 7: bounded.

use crate::machine::INVENTORY_PART;
use crate::trace::Lane;
use crate::world::World;
use cloud_core::engine::TOMBSTONES;
use cloud_core::store::AggregateId;
use shared::fact::{Body, Outcome};
use shared::ids::RunId;
use shared::limits::{BYTES_PER_COMMIT, ENTRIES_PER_COMMIT, FRAME_BYTES, HELLO_BYTES};
use shared::log::{Batch, Entries};
use shared::wire::{Down, Refusal, Up};
use std::collections::BTreeSet;

/// What it means.
pub const DEFINITION: &str = "No frame, batch, commit, queue or store grows beyond its limit, no task fails more often \
    than its retry policy allows in one epoch, nobody takes 5,000 steps within a minute and \
    one more for each task of the seed, and no more than 20,000 events happen within an \
    instant or 400,000, and 200 for each task, within an hour. A core whose process ends, and whose \
    last commit was done, had no more in memory than this: an agent's 1,216 KiB, 2,560 bytes for each task of the runs \
    that it knows and shall not forget, and 160 for each file that lies there; the coordinator's 1.5 MiB, 4 KiB for each \
    such task, 3 KiB for each run that it forgot and remembers, 2,000 at most, and 256 bytes for each file that it has.";

/// Messages under way on one session.
const LANE: usize = 5000;
/// Requests without an answer, events before an agent.
const INBOX: usize = 20_000;
/// Bytes of a store of one seed.
const STORE: u64 = 256 << 20;

fn batch_too_large(batch: &Batch) -> bool {
    let bytes: usize = batch.entries.iter().map(Vec::len).sum();
    batch.entries.len() > ENTRIES_PER_COMMIT
        || bytes > BYTES_PER_COMMIT && batch.entries.len() > 1 && bytes > 2 * BYTES_PER_COMMIT
}

/// An agent sends a message.
pub fn on_send_up(world: &mut World, m: usize, message: &Up) {
    let too_large = match message {
        Up::Facts(batch) => batch_too_large(batch),
        Up::Packed(batch) => Entries::unpack(&batch.entries).is_err(),
        Up::Hello(_) => shared::codec::encode(message).len() > HELLO_BYTES,
        Up::Inventory(_) => shared::codec::encode(message).len() > FRAME_BYTES,
        Up::InventoryPart(part) => part.bytes.len() > INVENTORY_PART,
        _ => false,
    };
    if too_large {
        world.fail(
            "bounded",
            format!("gw-{} sends a frame that is too large", m + 1),
        );
    }
}

/// The coordinator sends a message.
pub fn on_send_down(world: &mut World, conn: u64, message: &Down) {
    // the Byzantine gateway says what cannot be taken, and may have hung up by now
    if let Down::Refuse(refuse) = message
        && refuse.reason == Refusal::Malformed
        && !world.is_liars_conn(conn)
    {
        let text = format!("an honest agent is refused: {}", refuse.text);
        world.fail("bounded", text);
    }
    if let Down::Directives(batch) = message {
        let bytes: usize = batch.entries.iter().map(Vec::len).sum();
        if bytes > FRAME_BYTES || batch.entries.len() > ENTRIES_PER_COMMIT {
            world.fail("bounded", format!("a batch of {bytes} bytes goes down"));
        }
    }
    let waiting = world
        .conns
        .get(&conn)
        .map_or(0, |one| one.down.len() + one.up.len());
    if waiting > LANE {
        world.fail(
            "bounded",
            format!("{waiting} messages are under way on one session"),
        );
    }
}

/// A commit of an agent became durable; its facts follow position `before`.
pub fn on_edge_commit(world: &mut World, m: usize, before: usize) {
    let truth = &world.lives[world.machines[m].life];
    let fresh = &truth.facts[before..];
    let bytes: usize = fresh.iter().map(|row| row.bytes.len()).sum();
    if fresh.len() > ENTRIES_PER_COMMIT || fresh.len() > 1 && bytes > 2 * BYTES_PER_COMMIT {
        world.fail(
            "bounded",
            format!("gw-{} commits {} facts, {bytes} bytes", m + 1, fresh.len()),
        );
        return;
    }
    let mut found = None;
    for fact in fresh.iter().filter_map(|row| row.fact.as_ref()) {
        let Body::Ended { attempt, end } = &fact.body else {
            continue;
        };
        if end.outcome != Outcome::Failed {
            continue;
        }
        let key = (attempt.slice.run, attempt.task);
        let Some(flow) = world.flows.get(&key.0) else {
            continue;
        };
        let limit = flow.workflow.tasks[key.1.0 as usize].retry.max_attempts as usize;
        let failed = truth
            .model
            .ended
            .range(first(*attempt)..)
            .take_while(|(one, _)| one.slice == attempt.slice && one.task == attempt.task)
            .filter(|(_, outcome)| **outcome == Outcome::Failed)
            .count();
        if failed > limit && !world.people.resumed.contains(&key) {
            found = Some(format!(
                "{attempt:?} is failure {failed} of at most {limit}"
            ));
        }
    }
    if let Some(text) = found {
        world.fail("bounded", text);
    }
}

fn first(mut attempt: shared::ids::AttemptRef) -> shared::ids::AttemptRef {
    attempt.number = 0;
    attempt
}

/// Steps of one process within a minute, besides one for each task of the seed.
const STEPS: u64 = 5_000;

/// A process is about to begin: of those that nobody stops, as many run as there are slots at most.
pub fn on_spawn(world: &mut World, m: usize) {
    let machine = &world.machines[m];
    let going = machine.procs.values().filter(|proc| !proc.stopping).count();
    let slots = machine.slots as usize;
    if going >= slots {
        let text = format!(
            "gw-{} begins a process beside {going}, on {slots} slots",
            m + 1
        );
        world.fail("bounded", text);
    }
}

/// Somebody takes a step.
pub fn on_step(world: &mut World, lane: Lane) {
    let (steps, who) = match lane {
        Lane::Node(m) => (world.machines[m].steps, crate::workload::node_name(m)),
        _ => (world.cloud.steps, "the coordinator".to_owned()),
    };
    if steps == STEPS + world.size {
        let text = format!("{who} takes {steps} steps within a minute");
        world.fail("bounded", text);
    }
}

/// Once a minute.
pub fn look(world: &mut World) {
    world.cloud.steps = 0;
    world.machines.iter_mut().for_each(|one| one.steps = 0);
    let inbox = |one: &crate::machine::Machine| {
        one.agent
            .as_ref()
            .map_or(0, |agent| agent.inbox.len() + agent.waiting.len())
    };
    let longest = world.machines.iter().map(inbox).max().unwrap_or(0);
    let asks = world.people.asks.len();
    if longest > INBOX || asks > INBOX {
        world.fail(
            "bounded",
            format!("{longest} events and {asks} requests wait"),
        );
    }
    let disks = world.machines.iter().filter_map(|one| one.medium.disk());
    let largest = disks
        .chain(world.cloud.medium.disk())
        .map(|disk| disk.size())
        .max();
    if largest.is_some_and(|bytes| bytes > STORE) {
        world.fail(
            "bounded",
            format!("a store has {} bytes", largest.unwrap_or(0)),
        );
    }
}

/// Bytes that a core may take.
struct Share {
    /// Whatever it knows.
    base: u64,
    /// For each task that it must know.
    task: u64,
    /// For each file that is there, whoever names it: what is there is known until it goes.
    file: u64,
}

/// An agent's share: 704 KiB of the base are for the last 8,192 decisions, which it remembers
/// whatever became of their runs.
const AGENT: Share = Share {
    base: 1216 << 10,
    task: 2560,
    file: 160,
};
/// The coordinator's.
const COORDINATOR: Share = Share {
    base: 1536 << 10,
    task: 4096,
    // a run may be forgotten long before its files came over a narrow link: they stay for a day
    file: 256,
};
/// Bytes of the coordinator's for each tombstone.
const TOMBSTONE: u64 = 3072;

/// Tasks of `runs`.
fn tasks_of(world: &World, runs: &BTreeSet<RunId>) -> u64 {
    let flows = runs.iter().filter_map(|run| world.flows.get(run));
    flows.map(|flow| flow.workflow.tasks.len() as u64).sum()
}

impl Share {
    /// What is wrong with so many bytes for so many tasks and files, beside `more`.
    fn wrong(&self, who: &str, bytes: u64, tasks: u64, files: usize, more: u64) -> Option<String> {
        let most = self.base + self.task * tasks + self.file * files as u64 + more;
        let known = format!("{tasks} tasks and {files} files");
        let text = || format!("{who} has {bytes} bytes in memory, for {known}, of {most}");
        (bytes > most).then(text)
    }
}

/// An agent's process is gone, and so many bytes of its core with it.
pub fn on_agent_gone(world: &mut World, m: usize, bytes: u64) {
    let Some(truth) = world.lives.get(world.machines[m].life) else {
        return;
    };
    let marks = &truth.model.runs;
    let runs = truth.model.slices.values().map(|model| model.slice.run);
    let known = runs.filter(|run| !marks.get(run).is_some_and(|marks| marks.forgotten));
    let tasks = tasks_of(world, &known.collect());
    let files = world.machines[m].files.len();
    let wrong = AGENT.wrong(&crate::workload::node_name(m), bytes, tasks, files, 0);
    wrong
        .into_iter()
        .for_each(|text| world.fail("bounded", text));
}

/// Tasks of those of `runs` that nobody planned: a Byzantine gateway made them up and brought their
/// workflows along, as a gateway does that a person asks for a run. The coordinator knows them like
/// any other run.
fn tasks_made_up(world: &World, runs: &BTreeSet<RunId>) -> u64 {
    let Ok(mut store) = world.cloud.medium.open() else {
        return 0;
    };
    let strange = runs.iter().filter(|run| !world.flows.contains_key(run));
    let tasks = strange.filter_map(|run| {
        let packed = store.row(AggregateId::Run(*run), "w").ok()??;
        let (workflow, _) = shared::codec::unpack(&packed).ok()?;
        Some(workflow.tasks.len() as u64)
    });
    tasks.sum()
}

/// The coordinator's process is gone, and so many bytes of its core with it.
pub fn on_cloud_gone(world: &mut World, bytes: u64) {
    let truth = &world.cloud.truth;
    let aggregates = truth.versions.keys();
    let runs = aggregates.filter_map(|one| match one {
        AggregateId::Run(run) if !truth.buried.contains(run) => Some(*run),
        _ => None,
    });
    let runs = runs.collect();
    let tasks = tasks_of(world, &runs) + tasks_made_up(world, &runs);
    let buried = |run: &&RunId| truth.versions.contains_key(&AggregateId::Run(**run));
    let tombstones = truth.buried.iter().filter(buried).count().min(TOMBSTONES);
    let more = TOMBSTONE * tombstones as u64;
    let files = world.cloud.files.len();
    let wrong = COORDINATOR.wrong("the coordinator", bytes, tasks, files, more);
    wrong
        .into_iter()
        .for_each(|text| world.fail("bounded", text));
}
