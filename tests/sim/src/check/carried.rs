//! The link of the shells (layer 3): what is heard in a session is what was said in it.

use crate::net::Stream;
use crate::queue::{MIN, Time};
use crate::world::World;
use cloud_core::offered::Offered;
use shared::ids::NodeId;
use shared::log::Head;
use shared::wire::{Down, Up};
use std::collections::{BTreeMap, VecDeque};

/// What it means.
pub const DEFINITION: &str = "What a side hears in a session, stream by stream, is what the other side said in it, \
    in order, each message once and none left out; what is said over a link that is whole is heard within ten minutes \
    or the session ends; who says hello is the node, under the name, that the certificate was issued for.";

/// A session that lives over a whole link brings everything within this time.
const LATEST: Time = 10 * MIN;

/// What was said in one direction of a session and is not heard, by stream, each with its time.
type Unheard<M> = [VecDeque<(Time, M)>; 4];

/// What was said and is not heard.
#[derive(Debug, Default)]
pub struct Said {
    /// By machine, life of its agent, number of the session.
    up: BTreeMap<(usize, u64, u64), Unheard<Up>>,
    /// By connection.
    down: BTreeMap<u64, Unheard<Down>>,
}

/// The stream of the real link that brings `message`: all but three kinds share one.
fn stream_of(message: &Up) -> Stream {
    match message {
        Up::Facts(_) | Up::Packed(_) => Stream::Facts,
        Up::Telemetry(_) => Stream::Details,
        Up::InventoryPart(_) => Stream::Inventory,
        _ => Stream::Control,
    }
}

/// Receipts go another way at the gateway than all else, so only their own order is seen there.
fn heard_by(message: &Down) -> usize {
    usize::from(matches!(message, Down::Telemetry(_)))
}

impl Said {
    /// An agent says something.
    pub fn up(&mut self, at: Time, session: (usize, u64, u64), message: &Up) {
        let streams = self.up.entry(session).or_default();
        streams[stream_of(message) as usize].push_back((at, message.clone()));
    }

    /// The coordinator says something.
    pub fn down(&mut self, at: Time, conn: u64, message: &Down) {
        let streams = self.down.entry(conn).or_default();
        streams[heard_by(message)].push_back((at, message.clone()));
    }

    /// Nobody hears anything any more in this connection.
    pub fn over(&mut self, conn: u64, session: (usize, u64, u64)) {
        self.down.remove(&conn);
        self.up.remove(&session);
    }
}

/// What is due next in a stream of a connection.
fn due_up(world: &mut World, conn: u64, stream: Stream) -> Option<Up> {
    let one = world.conns.get(&conn)?;
    let session = (one.machine, one.life, one.session);
    let said = &mut world.carried.as_mut()?.said;
    let (_, message) = said.up.get_mut(&session)?[stream as usize].pop_front()?;
    Some(message)
}

fn wrong(world: &mut World, conn: u64, stream: Stream) {
    let text = format!("connection {conn} brings on {stream:?} what was not said next in it");
    world.fail("carried", text);
}

/// The coordinator hears something.
pub fn on_up(world: &mut World, conn: u64, message: &Up) {
    let stream = stream_of(message);
    // telemetry has a queue of its own, and may come behind the end of its session
    let over = !world.conns.contains_key(&conn) && stream == Stream::Details;
    if over {
        return;
    }
    if due_up(world, conn, stream).as_ref() != Some(message) {
        wrong(world, conn, stream);
    }
}

/// The coordinator hears facts: the numbers around them.
pub fn on_facts(world: &mut World, conn: u64, batch: &Offered) -> (u64, u64) {
    let due = due_up(world, conn, Stream::Facts);
    let around = due.as_ref().and_then(Up::facts);
    let around = around.map_or((0, 0), |(after, Head { number, .. })| {
        (after.number, number)
    });
    let due = match due {
        Some(Up::Facts(due)) => Some(Offered::from(due)),
        Some(Up::Packed(due)) => Offered::unpack(due).ok(),
        _ => None,
    };
    if due.as_ref() != Some(batch) {
        wrong(world, conn, Stream::Facts);
    }
    around
}

/// An agent hears something.
pub fn on_down(world: &mut World, m: usize, session: u64, message: &Down) {
    let agent = world.machines[m].agent.as_ref();
    let conn = agent.and_then(|agent| agent.sessions.get(&session).copied());
    let due = conn.and_then(|conn| {
        let said = &mut world.carried.as_mut()?.said;
        said.down.get_mut(&conn)?[heard_by(message)].pop_front()
    });
    if due.is_none_or(|(_, due)| due != *message) {
        let text = format!(
            "gw-{} hears in session {session} what was not said next in it",
            m + 1
        );
        world.fail("carried", text);
    }
}

/// Somebody says hello.
pub fn on_hello(world: &mut World, from: (usize, u64), key: Option<u64>, who: (NodeId, &str)) {
    let machine = &world.machines[from.0];
    if machine.process != from.1 {
        // of a life before: its disk may be another one by now
        return;
    }
    let right = machine.node == Some(who.0) && machine.name == who.1 && key == Some(machine.key);
    if !right {
        let text = format!("gw-{} is taken for {} ({})", from.0 + 1, who.1, who.0);
        world.fail("carried", text);
    }
}

/// Once a minute.
pub fn look(world: &mut World) {
    let Some(carried) = &world.carried else {
        return;
    };
    let mut late = None;
    for (conn, one) in &world.conns {
        let link = &world.machines[one.machine].link;
        let undisturbed = link.whole() && link.slow == 0 && one.agent_open && one.cloud_open;
        let since = link.changed_up.max(link.changed_down).max(link.slow_until);
        if !undisturbed || world.t < since + LATEST {
            continue;
        }
        let up = carried
            .said
            .up
            .get(&(one.machine, one.life, one.session))
            .and_then(oldest);
        let down = carried.said.down.get(conn).and_then(oldest);
        let oldest = up.into_iter().chain(down).min();
        if oldest.is_some_and(|said| said + LATEST < world.t) {
            late = Some(one.machine);
        }
    }
    if let Some(m) = late {
        let text = format!("a session of gw-{} lives and keeps something back", m + 1);
        world.fail("carried", text);
    }
}

fn oldest<M>(streams: &Unheard<M>) -> Option<Time> {
    let first = |stream: &VecDeque<(Time, M)>| stream.front().map(|(at, _)| *at);
    streams.iter().filter_map(first).min()
}
