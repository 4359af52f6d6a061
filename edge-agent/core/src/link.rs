//! The link: when to dial, the handshake, the acknowledged and the sent fact, and what the
//! coordinator says.

use crate::agent::{Agent, Effects, Post, Timer};
use crate::event::Action;
use crate::inventory::Outgoing;
use shared::codec;
use shared::ids::Generation;
use shared::limits::{IDLE_COMMIT_MS, SESSION_BLOCK};
use shared::log::{Batch, Head, Offer};
use shared::planted::{self, Mistake};
use shared::time::{Mono, Span};
use shared::wire::{self, Ack, DirectiveSeal, Down, Hello, Refusal, Refuse, Up, Welcome};
use std::collections::VecDeque;

/// Batches of facts under way at once: enough for what the coordinator reads, commits and
/// acknowledges at the same time.
const WINDOW: usize = 64;
/// Bytes of them under way, unless it is a single batch.
const WINDOW_BYTES: usize = 1 << 20;
/// How long a dial and a handshake may take.
const WATCHDOG: Span = Span::secs(60);
/// Shortest and longest pause after a refusal that a person must resolve.
const LONG: (Span, Span) = (Span::secs(300), Span::secs(900));

/// Name of the mark with the first session number that is not reserved.
pub(crate) const SESSIONS: &str = "sessions";
/// Name of the mark with the newest acknowledgement.
pub(crate) const ACK: &str = "ack";
/// Name of the mark with the last fact that is in a backup, where backups are made.
pub(crate) const SAFE: &str = "safe";
/// Name of the mark with the newest generation.
pub(crate) const GENERATION: &str = "generation";
/// Name of the mark with the newest sealed head of the directives that is applied.
pub(crate) const DIRECTIVE_SEAL: &str = "directive_seal";

/// Where the link stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Phase {
    #[default]
    Offline,
    Dialing(u64),
    Greeting(u64),
    Online(u64),
}

/// A batch of facts that was sent and is not acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    last: u64,
    bytes: usize,
}

/// The link.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub(crate) phase: Phase,
    /// Next session number, and the first one that is not reserved.
    pub(crate) next: u64,
    pub(crate) reserved: u64,
    pub(crate) failures: u32,
    pub(crate) proof: Option<[u8; 16]>,
    pub(crate) ack: Option<Ack>,
    pub(crate) generation: Generation,
    /// The newest sealed head of the directives that is applied, and one that is not reached yet.
    pub(crate) directive_seal: Option<DirectiveSeal>,
    pub(crate) seal_ahead: Option<DirectiveSeal>,
    /// What both sides of the session have.
    pub(crate) features: u64,
    /// Where the coordinator makes backups: facts up to here are in a finished one.
    pub(crate) safe: Option<u64>,
    /// Facts up to here are durable at the coordinator (as it said last).
    pub(crate) acked: u64,
    /// Facts up to here were sent in this session.
    pub(crate) sent: u64,
    pub(crate) flying: VecDeque<Flight>,
    /// When the acknowledgement must be committed even alone.
    pub(crate) ack_due: Option<Mono>,
    /// Number of the first fact that is still in the store.
    pub(crate) facts_first: u64,
    /// Last entry of the directive log.
    pub(crate) directives: Option<Head>,
    /// Why the link is down, for people.
    pub(crate) trouble: Option<String>,
    pub(crate) since: Mono,
    /// Sending was paused: the session ends once this fact, which says so, is acknowledged.
    pub(crate) last_words: Option<u64>,
    /// The inventory that this session is being told in parts.
    pub(crate) inventory: Option<Outgoing>,
    /// Whether there is room for more work, as this session was told.
    pub(crate) room: Option<bool>,
    /// There was none once: the coordinator may have been told so, or not what came after.
    pub(crate) was_full: bool,
}

impl Link {
    pub(crate) fn online(&self) -> bool {
        matches!(self.phase, Phase::Online(_))
    }

    /// The session and the fact behind which to go on sending, if the window is open.
    pub(crate) fn may_send(&self) -> Option<(u64, u64)> {
        let bytes: usize = self.flying.iter().map(|flight| flight.bytes).sum();
        let open = self.flying.len() < WINDOW && bytes < WINDOW_BYTES;
        match self.phase {
            Phase::Online(session) if open => Some((session, self.sent)),
            _ => None,
        }
    }

    /// Facts up to `last` were sent, in a message of so many bytes.
    pub(crate) fn note_sent(&mut self, last: u64, bytes: usize) {
        self.sent = last;
        self.flying.push_back(Flight { last, bytes });
    }

    fn acknowledged(&mut self, last: u64) {
        while self
            .flying
            .pop_front_if(|flight| flight.last <= last)
            .is_some()
        {}
        self.sent = self.sent.max(last);
        self.acked = last;
    }

    fn is(&self, session: u64) -> bool {
        match self.phase {
            Phase::Dialing(s) | Phase::Greeting(s) | Phase::Online(s) => s == session,
            Phase::Offline => false,
        }
    }
}

impl Agent {
    /// Dials at once, as if nothing had failed before.
    pub(crate) fn dial_now(&mut self, fx: &mut Effects) {
        self.link.phase = Phase::Offline;
        self.link.failures = 0;
        if self.config.has_coordinator {
            self.redial_due(fx);
        }
    }

    /// Full jitter ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015): any moment up
    /// to a bound that doubles with each failure. All that one event cut off call again spread over
    /// it, and one that is alone soon.
    fn dial_jittered(&mut self, failures: u32) {
        let (low, high) = self.config.redial;
        let top = low.0.saturating_mul(1 << failures.min(20));
        let pause = self.rng.up_to(top.min(high.0).max(low.0));
        self.dial_after(Span(pause));
    }

    fn dial_after(&mut self, pause: Span) {
        self.link.phase = Phase::Offline;
        self.timers.retain(|(_, timer)| *timer != Timer::Redial);
        if planted::on(Mistake::NoRedial) {
            return;
        }
        self.timers.insert((self.now.mono + pause, Timer::Redial));
    }

    pub(crate) fn redial_due(&mut self, fx: &mut Effects) {
        if self.link.phase != Phase::Offline || self.state.sync.is_some() {
            return;
        }
        if self.link.next >= self.link.reserved {
            self.link.reserved = self.link.next + SESSION_BLOCK;
            fx.marks
                .insert(SESSIONS.to_owned(), codec::encode(&self.link.reserved));
            fx.hurry = true;
        }
        let session = self.link.next;
        self.link.next += 1;
        self.link.phase = Phase::Dialing(session);
        fx.after.push(Post::Act(Action::Dial { session }));
        self.timers
            .insert((self.now.mono + WATCHDOG, Timer::Watchdog(session)));
    }

    pub(crate) fn watchdog_due(&mut self, session: u64, fx: &mut Effects) {
        if self.link.is(session) && !self.link.online() {
            fx.before.push(Action::Hangup { session });
            self.offline("the coordinator did not answer");
        }
    }

    fn offline(&mut self, why: &str) {
        if self.link.online() {
            self.link.since = self.now.mono;
        }
        self.link.inventory = None;
        self.link.trouble = Some(why.to_owned());
        let failures = self.link.failures.saturating_add(1);
        self.link.failures = failures;
        self.dial_jittered(failures);
    }

    pub(crate) fn hang_up(&mut self, session: u64, why: &str, fx: &mut Effects) {
        fx.after.push(Post::Act(Action::Hangup { session }));
        fx.hurry = true;
        self.offline(why);
    }

    pub(crate) fn on_linked(&mut self, session: u64, fx: &mut Effects) {
        if self.link.phase == Phase::Dialing(session) {
            self.link.phase = Phase::Greeting(session);
            fx.after.push(Post::Hello(session));
            fx.hurry = true;
        } else {
            fx.before.push(Action::Hangup { session });
        }
    }

    pub(crate) fn on_unlinked(&mut self, session: u64, why: &str) {
        if self.link.is(session) {
            self.offline(why);
        }
    }

    /// The first message of a session, with the heads as committed.
    pub(crate) fn hello(&self, session: u64, facts: Head, directives: Head) -> Up {
        let config = &self.config;
        Up::Hello(Box::new(Hello {
            protocol_min: wire::PROTOCOL_MIN,
            protocol_max: wire::PROTOCOL_MAX,
            features: wire::FEATURES,
            version: config.version.clone(),
            node: config.node,
            name: config.name.clone(),
            incarnation: config.incarnation,
            boot: self.boot,
            session,
            proof: self.link.proof,
            facts_first: self.link.facts_first,
            facts,
            directives,
            ack: self.link.ack,
            generation: self.link.generation,
            now: self.now,
            clock_trusted: self.clock_trusted,
            labels: config.labels.clone(),
            capacity: config.capacity.clone(),
            succeeds: config.succeeds,
            directive_seal: self.link.directive_seal,
        }))
    }

    pub(crate) fn on_heard(
        &mut self,
        session: u64,
        message: Down,
        known: Option<Head>,
        fx: &mut Effects,
    ) {
        match message {
            _ if !self.link.is(session) => {}
            Down::Welcome(welcome) => self.on_welcome(session, &welcome, known, fx),
            Down::Refuse(refuse) => self.on_refuse(session, &refuse, fx),
            _ if !self.link.online() => {}
            Down::Directives(batch) => self.on_directives(session, batch, fx),
            Down::Ack(ack) => self.on_ack(session, ack, known, fx),
            Down::Ping { nonce } => {
                let message = Up::Pong { nonce };
                fx.before.push(Action::Send { session, message });
            }
            Down::WantFacts { from } => {
                self.link.flying.clear();
                self.link.sent = from.saturating_sub(1);
            }
            // The shell hands the one to the ring, and keeps the certificate by the other.
            Down::Telemetry(_) | Down::Renew { .. } => {}
            Down::DirectiveSeal(seal) => {
                self.link.seal_ahead = Some(seal);
                self.keep_seal(fx);
            }
            Down::FileReady { hash } => {
                if let Some(want) = self.files.wanted.get_mut(&hash) {
                    // A fetch that is under way may have asked too early.
                    (want.ready, want.asked) = (true, 0);
                    fx.before.push(Action::Fetch {
                        hash,
                        size: want.size,
                    });
                }
            }
        }
    }

    fn on_welcome(
        &mut self,
        session: u64,
        welcome: &Welcome,
        known: Option<Head>,
        fx: &mut Effects,
    ) {
        if self.link.phase != Phase::Greeting(session) || welcome.session != session {
            return;
        }
        if !(wire::PROTOCOL_MIN..=wire::PROTOCOL_MAX).contains(&welcome.protocol) {
            let why = format!("the coordinator chose protocol {}", welcome.protocol);
            self.hang_up(session, &why, fx);
            return;
        }
        let there = welcome.facts.head;
        let other = |own: Head| own.hash != there.hash && !planted::on(Mistake::CursorsByNumber);
        if there.number > self.state.facts || known.is_some_and(other) {
            self.forked(session, there.number, fx);
            return;
        }
        self.link.phase = Phase::Online(session);
        self.heard_clock(welcome.now);
        self.link.failures = 0;
        self.link.proof = Some(welcome.secret);
        self.link.features = welcome.features & wire::FEATURES;
        self.link.room = None;
        self.link.trouble = None;
        self.link.since = self.now.mono;
        self.link.flying.clear();
        self.link.acked = there.number;
        self.link.sent = there.number;
        let went_back = welcome.want_inventory || welcome.generation > self.link.generation;
        if welcome.generation > self.link.generation {
            self.link.generation = welcome.generation;
            fx.marks
                .insert(GENERATION.to_owned(), codec::encode(&welcome.generation));
        }
        let makes_backups = self.link.features & wire::BACKUPS != 0;
        self.note_safe(makes_backups.then_some(welcome.facts.safe), fx);
        if there.number + 1 < self.link.facts_first
            && let Err(why) = self.declare_hole(there.number + 1, fx)
        {
            // directives go on: to forget a run may be one of them
            self.link.trouble = Some(why);
            self.link.sent = u64::MAX;
        }
        if welcome.want_inventory {
            fx.after
                .push(Post::Inventory(session, welcome.directives.number));
            fx.hurry = true;
        }
        self.ask_for_directives(session, welcome.directives, fx);
        self.restart_uploads(fx);
        if went_back {
            self.bring_again(fx);
        }
    }

    /// Tells the coordinator whether there is room for more work: what it gave without would be
    /// recorded only to be refused, in the room that is left for ends.
    pub(crate) fn tell_room(&mut self, fx: &mut Effects) {
        let Phase::Online(session) = self.link.phase else {
            return;
        };
        let enough = self.has_room();
        // as long as it is told nothing it takes it that there is some
        self.link.was_full |= !enough;
        let told = !self.link.was_full || self.link.room == Some(enough);
        if self.link.features & wire::ROOM != 0 && !told {
            self.link.room = Some(enough);
            let message = Up::Room { enough };
            fx.before.push(Action::Send { session, message });
        }
    }

    fn ask_for_directives(&mut self, session: u64, there: Head, fx: &mut Effects) {
        let own = self.link.directives.map_or(0, |head| head.number);
        if there.number > own {
            let message = Up::WantDirectives { from: own + 1 };
            fx.after.push(Post::Act(Action::Send { session, message }));
        }
    }

    /// The coordinator knows more of this log, or another one: this data directory went back or was
    /// copied.
    fn forked(&mut self, session: u64, number: u64, fx: &mut Effects) {
        let own = self.state.facts;
        let why = format!(
            "the coordinator holds another fact {number} of this node than its journal, which ends \
             at {own}"
        );
        self.hang_up(session, &why, fx);
        fx.after.push(Post::Act(Action::NewIncarnation { why }));
    }

    fn on_refuse(&mut self, session: u64, refuse: &Refuse, fx: &mut Effects) {
        if self.link.online() {
            return;
        }
        let why = format!("refused: {}", refuse.text);
        self.hang_up(session, &why, fx);
        let long = LONG.0.0 + self.rng.up_to(LONG.1.0 - LONG.0.0);
        match refuse.reason {
            Refusal::NewIncarnation => {
                let why = refuse.text.clone();
                fx.after.push(Post::Act(Action::NewIncarnation { why }));
                self.dial_after(Span(long));
            }
            Refusal::Quarantined | Refusal::NotEnrolled | Refusal::Protocol => {
                self.dial_after(refuse.retry_after.unwrap_or(Span(long)));
            }
            Refusal::OldSession => self.link.next = self.link.reserved,
            Refusal::Busy | Refusal::Malformed => {
                // those that were told at the same moment do not come back at the same one
                if let Some(hint) = refuse.retry_after {
                    let hint = hint.0.min(LONG.1.0);
                    let pause = hint + self.rng.up_to(hint);
                    self.dial_after(Span(pause));
                }
            }
        }
    }

    fn on_directives(&mut self, session: u64, mut batch: Batch, fx: &mut Effects) {
        let Some(own) = self.link.directives else {
            return;
        };
        match batch.offer(own) {
            Offer::New(from, head) => {
                let first = batch.after.number + from as u64 + 1;
                for (n, bytes) in batch.entries.drain(from..).enumerate() {
                    let number = first + n as u64;
                    self.record(number, bytes, fx);
                    self.settle(fx);
                }
                self.link.directives = Some(head);
                self.keep_seal(fx);
                fx.after.push(Post::Applied(session));
            }
            Offer::Duplicate => fx.after.push(Post::Applied(session)),
            Offer::Gap(from) => {
                let message = Up::WantDirectives { from };
                fx.before.push(Action::Send { session, message });
            }
            Offer::Fork(number) => {
                let why = format!(
                    "directive {number} of the coordinator is another one than the one recorded here"
                );
                self.hang_up(session, &why, fx);
            }
        }
    }

    /// Keeps a seal once exactly what it covers is applied; it rides with the commit of those
    /// directives.
    fn keep_seal(&mut self, fx: &mut Effects) {
        let own = self.link.directives;
        let Some(seal) = self.link.seal_ahead.take_if(|seal| own == Some(seal.head)) else {
            return;
        };
        if self.link.directive_seal != Some(seal) {
            self.link.directive_seal = Some(seal);
            fx.marks
                .insert(DIRECTIVE_SEAL.to_owned(), codec::encode(&seal));
        }
    }

    fn on_ack(&mut self, session: u64, ack: Ack, known: Option<Head>, fx: &mut Effects) {
        if ack.head.number > self.state.facts || known.is_some_and(|own| own.hash != ack.head.hash)
        {
            self.forked(session, ack.head.number, fx);
            return;
        }
        if ack.head.number < self.link.acked {
            return;
        }
        self.link.acknowledged(ack.head.number);
        self.link.ack = Some(ack);
        if ack.safe > 0 {
            self.note_safe(Some(ack.safe), fx);
        }
        fx.marks.insert(ACK.to_owned(), codec::encode(&ack));
        if self.link.ack_due.is_none() {
            self.link.ack_due = Some(self.now.mono + Span(IDLE_COMMIT_MS));
        }
        if self
            .link
            .last_words
            .is_some_and(|last| last <= ack.head.number)
        {
            self.last_words_due(session, fx);
        }
    }

    /// How far facts are in a backup, as the coordinator says now: a restored one may know less.
    fn note_safe(&mut self, safe: Option<u64>, fx: &mut Effects) {
        if self.link.safe != safe {
            self.link.safe = safe;
            fx.marks.insert(SAFE.to_owned(), codec::encode(&safe));
        }
    }
}
