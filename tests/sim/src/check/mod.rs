//! The invariants: one module for each promise of the design. Each names what it found by its
//! module's name.
//!
//! None of them reads a counter of a core. They compare what the world saw (processes, messages,
//! durable commits) with an independent fold of the records, and answers to people with both.

pub mod acknowledged_is_durable;
pub mod applied_once_in_order;
pub mod bounded;
pub mod carried;
pub mod contained;
pub mod convergence;
pub mod counted_once;
pub mod explained;
pub mod forgotten;
pub mod held;
pub mod limits;
pub mod measured;
pub mod no_invented_history;
pub mod no_offline_mode;
pub mod one_owner;
pub mod placed;
pub mod recorded;
pub mod reserve;
pub mod safe;
pub mod scheduled;
pub mod silent;
pub mod trusted;

use crate::fault::Kind;
use crate::people::Purpose;
use crate::queue::MIN;
use crate::world::World;
use cloud_core::event::{Reply, Request};
use cloud_core::run::{CHUNK, TaskRow};
use cloud_core::store::Transaction;
use shared::directive::{Assign, Body as Wanted, Directive};
use shared::explain::Reason;
use shared::fact::Body;
use shared::ids::Generation;
use shared::wire::{Down, LogId, Up};
use std::collections::BTreeMap;

/// All invariants, with their definitions.
pub const ALL: &[(&str, &str)] = &[
    ("no_offline_mode", no_offline_mode::DEFINITION),
    (
        "acknowledged_is_durable",
        acknowledged_is_durable::DEFINITION,
    ),
    ("applied_once_in_order", applied_once_in_order::DEFINITION),
    ("counted_once", counted_once::DEFINITION),
    ("one_owner", one_owner::DEFINITION),
    ("no_invented_history", no_invented_history::DEFINITION),
    ("convergence", convergence::DEFINITION),
    ("bounded", bounded::DEFINITION),
    ("explained", explained::DEFINITION),
    ("recorded", recorded::DEFINITION),
    ("measured", measured::DEFINITION),
    ("placed", placed::DEFINITION),
    ("silent", silent::DEFINITION),
    ("limits", limits::DEFINITION),
    ("held", held::DEFINITION),
    ("scheduled", scheduled::DEFINITION),
    ("safe", safe::DEFINITION),
    ("reserve", reserve::DEFINITION),
    ("forgotten", forgotten::DEFINITION),
    ("contained", contained::DEFINITION),
    ("carried", carried::DEFINITION),
    ("trusted", trusted::DEFINITION),
];

/// Once a minute.
pub fn look(world: &mut World) {
    no_offline_mode::look(world);
    bounded::look(world);
    silent::look(world);
    reserve::look(world);
    convergence::look(world);
    carried::look(world);
    scheduled::look(world);
    let minute = world.t / MIN;
    if minute.is_multiple_of(7) {
        explained::look(world);
        measured::look(world);
    }
    if minute.is_multiple_of(10) && world.cloud.engine.is_some() {
        world.ask(Request::Nodes, Purpose::Watch);
        world.ask(Request::Runs { state: None }, Purpose::Watch);
        counted_once::look(world);
    }
}

/// The coordinator answered a question of the checkers.
pub fn on_view(world: &mut World, reply: &Reply) {
    match reply {
        Reply::Nodes(nodes) => no_invented_history::on_nodes(world, nodes),
        Reply::Runs(runs) => {
            no_invented_history::on_runs(world, runs);
            forgotten::on_runs(world, runs);
        }
        _ => {}
    }
}

/// An agent sends a message.
pub fn on_send_up(world: &mut World, m: usize, message: &Up) {
    acknowledged_is_durable::on_send_up(world, m, message);
    bounded::on_send_up(world, m, message);
}

/// The coordinator sends a message.
pub fn on_send_down(world: &mut World, conn: u64, message: &Down) {
    acknowledged_is_durable::on_send_down(world, conn, message);
    safe::on_send_down(world, conn, message);
    bounded::on_send_down(world, conn, message);
    one_owner::on_send_down(world, conn, message);
}

/// A message reaches an agent.
pub fn on_hear_down(world: &mut World, m: usize, message: &Down) {
    acknowledged_is_durable::on_hear_down(world, m, message);
    safe::on_hear_down(world, m, message);
}

/// A commit of an agent became durable; its facts follow position `before`.
pub fn on_edge_commit(world: &mut World, m: usize, before: usize) {
    world.machines[m].idle_since = None;
    bounded::on_edge_commit(world, m, before);
    reserve::on_edge_commit(world, m, before);
    no_invented_history::on_edge_commit(world, m, before);
    count_answers(world, m, before);
    scheduled::count(world, m, before);
}

fn count_answers(world: &mut World, m: usize, before: usize) {
    let fresh = &world.lives[world.machines[m].life].facts[before..];
    let kinds: Vec<Kind> = fresh
        .iter()
        .filter_map(|row| match &row.fact.as_ref()?.body {
            Body::Answered { not: None, .. } => Some(Kind::Answered),
            Body::Answered { .. } => Some(Kind::AnsweredTwice),
            Body::Moved {
                reason: Reason::TooManyFailed,
                ..
            } => Some(Kind::TooManyFailed),
            _ => None,
        })
        .collect();
    kinds.into_iter().for_each(|kind| world.happened(kind));
}

/// A commit of the coordinator is done.
pub fn on_cloud_commit(world: &mut World, transactions: &[Transaction]) {
    contained::on_cloud_commit(world, transactions);
    counted_once::on_cloud_commit(world, transactions);
    applied_once_in_order::on_cloud_commit(world, transactions);
    let assigned = assigned_by(transactions);
    one_owner::on_cloud_commit(world, &assigned);
    held::on_cloud_commit(world, transactions);
    placed::on_cloud_commit(world, &assigned);
    scheduled::on_cloud_commit(world, transactions);
}

/// The assignments of a commit, and to whom each goes.
fn assigned_by(transactions: &[Transaction]) -> Vec<(LogId, Generation, Assign)> {
    let entries = transactions.iter().flat_map(|tx| &tx.directives);
    let assigns = entries.filter_map(|(log, entry)| {
        let directive = Directive::decode(entry.head.number, &entry.bytes).ok()?;
        match directive.body {
            Wanted::Assign(assign) => Some((*log, directive.generation, assign)),
            _ => None,
        }
    });
    assigns.collect()
}

/// The tasks in the rows of a commit, by number.
fn tasks_of(tx: &Transaction) -> BTreeMap<u32, TaskRow> {
    let mut out = BTreeMap::new();
    for (name, value) in &tx.rows {
        let chunk = name
            .strip_prefix('t')
            .and_then(|n| u32::from_str_radix(n, 16).ok());
        let (Some(chunk), Some(value)) = (chunk, value) else {
            continue;
        };
        let rows: Vec<TaskRow> = shared::codec::decode(value).unwrap_or_default();
        let first = chunk * CHUNK as u32;
        out.extend((first..).zip(rows));
    }
    out
}
