//! The network as sessions see it: ordered streams with delay that lose nothing while the session
//! lives.
//!
//! Order holds within a stream and not between streams. While a direction of a link is dead its
//! messages wait; each side gives a silent session up by itself, and what was under way is lost
//! then.

use crate::queue::Time;
use shared::wire::{Down, LogId, Up};
use std::collections::VecDeque;

/// A stream of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Handshake, acknowledgements, directives.
    Control,
    /// Facts.
    Facts,
    /// What may be thinned.
    Details,
    /// Parts of an inventory.
    Inventory,
}

impl Stream {
    /// The stream that carries `message` up.
    #[must_use]
    pub fn of_up(message: &Up) -> Self {
        match message {
            Up::Facts(_) | Up::Packed(_) => Self::Facts,
            Up::Details(_) | Up::Telemetry(_) => Self::Details,
            Up::InventoryPart(_) => Self::Inventory,
            _ => Self::Control,
        }
    }

    /// The stream that carries `message` down.
    #[must_use]
    pub fn of_down(message: &Down) -> Self {
        match message {
            Down::Ack(_) | Down::WantFacts { .. } => Self::Facts,
            Down::FileReady { .. } => Self::Details,
            _ => Self::Control,
        }
    }
}

/// A message under way.
#[derive(Debug, Clone)]
pub struct Flight<M> {
    /// Its place in the order of sending.
    pub order: u64,
    /// The message.
    pub message: M,
}

/// One direction of a session.
#[derive(Debug)]
pub struct Lane<M> {
    streams: [VecDeque<Flight<M>>; 4],
    /// Arrivals that wait for the direction to live again.
    stalled: [u32; 4],
    last: [Time; 4],
    sent: u64,
    newest: u64,
}

impl<M> Default for Lane<M> {
    fn default() -> Self {
        Self {
            streams: Default::default(),
            stalled: [0; 4],
            last: [0; 4],
            sent: 0,
            newest: 0,
        }
    }
}

impl<M> Lane<M> {
    /// Puts `message` on its way; returns when it arrives at the earliest.
    pub fn put(&mut self, stream: Stream, at: Time, message: M) -> Time {
        let stream = stream as usize;
        let at = at.max(self.last[stream] + 1);
        self.last[stream] = at;
        self.sent += 1;
        let order = self.sent;
        self.streams[stream].push_back(Flight { order, message });
        at
    }

    /// The next message of `stream` arrives; the flag tells whether it overtook another one.
    pub fn take(&mut self, stream: Stream) -> Option<(M, bool)> {
        let flight = self.streams[stream as usize].pop_front()?;
        let overtook = flight.order < self.newest;
        self.newest = self.newest.max(flight.order);
        Some((flight.message, overtook))
    }

    /// An arrival on `stream` has to wait.
    pub fn stall(&mut self, stream: Stream) {
        self.stalled[stream as usize] += 1;
    }

    /// The arrivals that had to wait.
    pub fn release(&mut self) -> [u32; 4] {
        std::mem::take(&mut self.stalled)
    }

    /// Everything under way is lost.
    pub fn lose(&mut self) -> Vec<M> {
        self.stalled = [0; 4];
        self.streams
            .iter_mut()
            .flat_map(std::mem::take)
            .map(|flight| flight.message)
            .collect()
    }

    /// What is under way beside control is lost.
    pub fn lose_bulk(&mut self) -> Vec<M> {
        let mut lost = Vec::new();
        for stream in [Stream::Facts, Stream::Details, Stream::Inventory] {
            let stream = stream as usize;
            (self.stalled[stream], self.last[stream]) = (0, 0);
            let flights = std::mem::take(&mut self.streams[stream]);
            lost.extend(flights.into_iter().map(|flight| flight.message));
        }
        lost
    }

    /// How much is under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.streams.iter().map(VecDeque::len).sum()
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When the last message put on its way arrives at the earliest.
    #[must_use]
    pub fn last_arrival(&self) -> Time {
        self.last.iter().copied().max().unwrap_or(0)
    }
}

/// A side of a session or of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The gateway.
    Agent,
    /// The coordinator.
    Cloud,
}

impl Side {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Agent => Self::Cloud,
            Self::Cloud => Self::Agent,
        }
    }
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    /// The machine that dialled.
    pub machine: usize,
    /// The log of that machine's disk when it dialled.
    pub log: LogId,
    /// The life of the agent process that dialled.
    pub life: u64,
    /// The life of the coordinator's process that took it.
    pub cloud_life: u64,
    /// The number that the agent gave it.
    pub session: u64,
    /// The agent has it open.
    pub agent_open: bool,
    /// The coordinator has it open.
    pub cloud_open: bool,
    /// The hello has arrived.
    pub greeted: bool,
    /// Its facts come behind its inventory.
    pub late: bool,
    /// Who issued the certificate that the agent showed.
    pub issuer: crate::authority::Authority,
    /// Messages up.
    pub up: Lane<Up>,
    /// Messages down.
    pub down: Lane<Down>,
}

impl Connection {
    /// Whether `side` has it open.
    #[must_use]
    pub fn is_open(&self, side: Side) -> bool {
        match side {
            Side::Agent => self.agent_open,
            Side::Cloud => self.cloud_open,
        }
    }
}

/// The link of a gateway.
#[derive(Debug, Clone, Default)]
pub struct Link {
    /// Cuts of the upward direction that are in force.
    pub cuts_up: u32,
    /// Cuts of the downward direction that are in force.
    pub cuts_down: u32,
    /// Since when the upward direction is dead (or was alive).
    pub changed_up: Time,
    /// Since when the downward direction is dead (or was alive).
    pub changed_down: Time,
    /// Everything takes so much longer.
    pub slow: Time,
    /// Until when it did last.
    pub slow_until: Time,
    /// When what was sent is through, towards each side.
    pub busy: [Time; 2],
    /// The last cuts.
    pub recent: VecDeque<Time>,
    /// Something wanted through while both directions were dead.
    pub felt: bool,
}

impl Link {
    /// Whether messages towards `side` arrive.
    #[must_use]
    pub fn reaches(&self, side: Side) -> bool {
        match side {
            Side::Agent => self.cuts_down == 0,
            Side::Cloud => self.cuts_up == 0,
        }
    }

    /// Whether both directions work.
    #[must_use]
    pub fn whole(&self) -> bool {
        self.cuts_up == 0 && self.cuts_down == 0
    }

    /// Since when messages towards `side` do not arrive (or do).
    #[must_use]
    pub fn changed(&self, side: Side) -> Time {
        match side {
            Side::Agent => self.changed_down,
            Side::Cloud => self.changed_up,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_keep_their_order_and_overtake_each_other() {
        let mut lane = Lane::default();
        assert_eq!(lane.put(Stream::Control, 50, 'a'), 50);
        assert_eq!(lane.put(Stream::Control, 40, 'b'), 51);
        assert_eq!(lane.put(Stream::Facts, 10, 'c'), 10);
        assert_eq!(lane.take(Stream::Facts), Some(('c', false)));
        assert_eq!(lane.take(Stream::Control), Some(('a', true)));
        assert_eq!(lane.lose(), vec!['b']);
        assert_eq!(lane.take(Stream::Control), None);
    }
}
