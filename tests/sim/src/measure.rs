//! Telemetry in the world: each gateway measures once a minute, keeps its ring on a small disk that
//! survives its agent, and sends it as the real shells do.

use crate::fault::Kind;
use crate::net::Side;
use crate::trace::Lane;
use crate::world::World;
use cloud_core::telemetry::{Book, Keep, MemoryJournal};
use edge_core::telemetry::{Limits, MemoryMedia, Next, Ring};
use shared::ids::{Incarnation, NodeId};
use shared::telemetry::{At, Key, Metric, RangeSet, Receipt, Report, Sample};
use shared::time::{Span, Unix};
use shared::wire::{Down, LogId, TELEMETRY, Up};
use std::collections::BTreeMap;

/// Milliseconds between two samples.
const EVERY: u64 = 60_000;
/// What a ring may take while its disk is full.
pub const SCARCE: u64 = 2048;

fn limits() -> Limits {
    Limits {
        // small, so that outages of an hour are thinned
        quota: 4096,
        save_ms: 5 * EVERY,
        live_ms: 2 * EVERY,
        rate: 1 << 20,
    }
}

/// A gateway's telemetry.
#[derive(Debug, Default)]
pub struct Gauge {
    /// Its files.
    pub media: MemoryMedia,
    /// The ring, while the agent runs.
    pub ring: Option<Ring<MemoryMedia>>,
    /// It took a sample since its agent started.
    pub measures: bool,
    /// The session that takes telemetry, and whether the coordinator said what it has.
    session: Option<(u64, bool)>,
}

/// Telemetry at the coordinator.
#[derive(Debug, Default)]
pub struct Books {
    journals: BTreeMap<NodeId, MemoryJournal>,
    books: BTreeMap<NodeId, Book<MemoryJournal>>,
    sessions: BTreeMap<NodeId, (u64, Incarnation)>,
}

/// What really was, and was promised.
#[derive(Debug, Default)]
pub struct Measured {
    /// Every sample that a gateway took.
    pub samples: BTreeMap<LogId, BTreeMap<At, i64>>,
    /// What the coordinator acknowledged.
    pub receipted: BTreeMap<LogId, RangeSet>,
}

impl World {
    /// The agent of `m` starts: it finds its ring again.
    pub(crate) fn gauge_starts(&mut self, m: usize) {
        let machine = &mut self.machines[m];
        let media = machine.gauge.media.clone();
        machine.gauge.measures = false;
        match Ring::open(media, machine.incarnation, limits()) {
            Ok(ring) => machine.gauge.ring = Some(ring),
            Err(error) => self.fail("measured", format!("gw-{}: {error}", m + 1)),
        }
    }

    /// The agent of `m` dies, now and then in the middle of a save.
    pub(crate) fn gauge_dies(&mut self, m: usize) {
        let left = self.dice.disk.below(2000);
        let dice = self.dice.disk.chance(500);
        let gauge = &mut self.machines[m].gauge;
        gauge.session = None;
        let Some(mut ring) = gauge.ring.take() else {
            return;
        };
        if dice {
            let before = gauge.media.bytes();
            gauge.media.die_after(Some(left));
            ring.save();
            gauge.media.die_after(None);
            if gauge.media.bytes() != before {
                self.happened(Kind::TelemetryTorn);
            }
        }
    }

    /// The disk of `m` is full, or is not any more.
    pub(crate) fn gauge_room(&mut self, m: usize) {
        let machine = &mut self.machines[m];
        let full = machine.full;
        let Some(ring) = &mut machine.gauge.ring else {
            return;
        };
        machine.gauge.media.set_room(None);
        ring.set_quota(if full { SCARCE } else { limits().quota });
        let bytes = machine.gauge.media.bytes();
        machine.gauge.media.set_room(full.then_some(bytes));
    }

    /// Once a minute everybody measures and sends, and the coordinator syncs.
    pub(crate) fn measure(&mut self) {
        if self.plan.deserted {
            // a rehearsal goes on for weeks, and what is left of them is told by `thinned`
            return;
        }
        for m in 0..self.machines.len() {
            if self.machines[m].frozen_until <= self.t {
                self.sample(m);
                self.gauge_sends(m);
            }
        }
        self.books_sync();
    }

    fn sample(&mut self, m: usize) {
        let value = self.dice.cpu.below(1000).cast_signed();
        let machine = &mut self.machines[m];
        let Some(agent) = &machine.agent else {
            return;
        };
        // the number of the boot is known when the start is committed
        let state = agent.shell.agent().state();
        if !agent.inbox.is_empty() || agent.shell.has_uncommitted() || state.boots == 0 {
            return;
        }
        let now = machine.clocks.now(self.t);
        let (boot, fact) = (state.boots, state.facts);
        let sample = Sample {
            ms: now.mono.0 / 1_000_000,
            wall: now.wall,
            fact,
            values: vec![(Key::new(Metric::Load, ""), value)],
        };
        let at = At {
            boot,
            ms: sample.ms,
        };
        let log = machine.log();
        if let Some(ring) = &mut machine.gauge.ring {
            ring.record(boot, machine.boot, EVERY, &sample);
            machine.gauge.measures = true;
            let thinned = ring.status().levels[1..].iter().any(|bytes| *bytes > 0);
            let samples = self.measured.samples.entry(log).or_default();
            samples.insert(at, value);
            if thinned {
                self.happened(Kind::TelemetryThinned);
            }
        }
    }

    fn gauge_sends(&mut self, m: usize) {
        loop {
            let machine = &mut self.machines[m];
            let now = machine.clocks.now(self.t).mono.0 / 1_000_000;
            let (Some(ring), Some((session, true))) =
                (&mut machine.gauge.ring, machine.gauge.session)
            else {
                return;
            };
            let Next::Piece(piece) = ring.next(now) else {
                return;
            };
            let incarnation = ring.incarnation();
            let report = Report { incarnation, piece };
            self.send_up(m, session, Up::Telemetry(report));
        }
    }

    /// A session of `m` was welcomed.
    pub(crate) fn gauge_linked(&mut self, m: usize, session: u64, features: u64) {
        let gauge = &mut self.machines[m].gauge;
        if let Some(ring) = gauge.ring.as_mut().filter(|_| features & TELEMETRY != 0) {
            ring.disconnected();
            gauge.session = Some((session, false));
        }
    }

    /// A session of `m` is over.
    pub(crate) fn gauge_unlinked(&mut self, m: usize, session: u64) {
        let gauge = &mut self.machines[m].gauge;
        if gauge
            .session
            .take_if(|(known, _)| *known == session)
            .is_some()
            && let Some(ring) = &mut gauge.ring
        {
            ring.disconnected();
        }
    }

    /// The coordinator's word arrives at `m`.
    pub(crate) fn receipt_arrives(&mut self, m: usize, session: u64, receipt: &Receipt) {
        let gauge = &mut self.machines[m].gauge;
        let (Some(ring), Some((known, greeted))) = (&mut gauge.ring, &mut gauge.session) else {
            return;
        };
        if *known != session || ring.incarnation() != receipt.incarnation {
            return;
        }
        if std::mem::replace(greeted, true) {
            ring.acknowledged(&receipt.ranges);
        } else {
            ring.connected(&receipt.ranges);
        }
        self.gauge_sends(m);
    }

    /// The coordinator welcomes the gateway of a connection.
    pub(crate) fn books_begin(&mut self, conn: u64, features: u64) {
        let Some(log) = self.conns.get(&conn).map(|connection| connection.log) else {
            return;
        };
        if features & TELEMETRY != 0 {
            let session = (conn, log.incarnation);
            self.cloud.books.sessions.insert(log.node, session);
            self.book(log.node);
            self.sync_book(log.node);
        }
    }

    fn book(&mut self, node: NodeId) -> Option<&mut Book<MemoryJournal>> {
        let keep = Keep {
            bytes: 64 << 10,
            age: Span::secs(10_000 * 86_400),
        };
        let books = &mut self.cloud.books;
        if !books.books.contains_key(&node) {
            let journal = books.journals.entry(node).or_default().clone();
            match Book::open(journal, keep) {
                Ok(book) => drop(books.books.insert(node, book)),
                Err(error) => self.fail("measured", format!("telemetry of {node}: {error}")),
            }
        }
        self.cloud.books.books.get_mut(&node)
    }

    /// A piece arrives at the coordinator.
    pub(crate) fn piece_arrives(&mut self, conn: u64, report: Report) {
        let Some(log) = self.conns.get(&conn).map(|connection| connection.log) else {
            return;
        };
        let session = self.cloud.books.sessions.get(&log.node).copied();
        if session != Some((conn, report.incarnation)) {
            return;
        }
        let now = self.cloud.clocks.now(self.t).wall;
        let journals = &self.cloud.books.journals;
        if let Some(journal) = journals.get(&log.node) {
            journal.set_full(self.cloud.full);
        }
        let taken = self
            .book(log.node)
            .map(|book| book.take(report, Unix(now.0.max(0))));
        if let Some(Err(error)) = taken
            && !self.cloud.full
        {
            self.fail("measured", format!("gw-{}: {error}", log.node));
        }
    }

    fn books_sync(&mut self) {
        if self.cloud.engine.is_none() {
            return;
        }
        let live: Vec<NodeId> = self.cloud.books.sessions.keys().copied().collect();
        let mut owed = Vec::new();
        for node in live {
            let is_new = !self.cloud.books.books.contains_key(&node);
            if self.book(node).is_some_and(|book| is_new || book.is_owed()) {
                owed.push(node);
            }
        }
        for node in owed {
            self.sync_book(node);
        }
    }

    fn sync_book(&mut self, node: NodeId) {
        let books = &mut self.cloud.books;
        if let Some(journal) = books.journals.get(&node) {
            journal.set_full(self.cloud.full);
        }
        let Some(book) = books.books.get_mut(&node) else {
            return;
        };
        if book.sync().is_err() {
            books.books.remove(&node);
            return;
        }
        let Some((conn, incarnation)) = books.sessions.get(&node).copied() else {
            return;
        };
        let receipt = book.receipt(incarnation);
        crate::check::measured::on_receipt(self, LogId { node, incarnation }, &receipt);
        let open = self
            .conns
            .get(&conn)
            .is_some_and(|one| one.is_open(Side::Cloud));
        if open {
            self.trace
                .mark(self.t, Lane::Cloud, 10, receipt.ranges.len() as u64);
            self.send_down(conn, Down::Telemetry(receipt));
        }
    }

    /// The coordinator's process is gone; with the power, what was not synced.
    pub(crate) fn books_close(&mut self, power: bool) {
        let books = &mut self.cloud.books;
        books.books.clear();
        books.sessions.clear();
        if power {
            for journal in books.journals.values() {
                let kept = usize::try_from(self.dice.disk.below(4000)).unwrap_or(0);
                journal.crash(kept);
            }
        }
    }

    /// What the coordinator has of a node, read again from its file.
    pub(crate) fn book_of(&mut self, node: NodeId) -> Option<&Book<MemoryJournal>> {
        self.book(node).map(|book| &*book)
    }
}
