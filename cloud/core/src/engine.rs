//! The engine: inputs → steps of aggregates → one commit → outputs; then the inboxes are drained,
//! many messages a commit.
//!
//! Nothing leaves before it is durable. After a commit that failed, all that is in memory is thrown
//! away and built again from the store; sessions are closed, and requests are answered by what the
//! store says.

mod assign;
mod authority;
mod backups;
mod certificates;
mod drain;
mod figures;
mod forget;
mod handshake;
mod heard;
mod inventory;
mod load;
mod messages;
mod operate;
mod plan;
mod record;
mod requests;
mod room;
mod schedules;
mod settings;
mod timers;
mod views;
mod waits;

pub use backups::EXPECTED;
pub use forget::UNNAMED;

use crate::effects::Effects;
use crate::event::{Config, Conn, Input, Output, Refused, Reply, RequestId};
use crate::fleet::Fleet;
use crate::node::Node;
use crate::offered::Decoded;
use crate::run::definition::Definitions;
use crate::run::{At, Run};
use crate::schedule::Schedule;
use crate::store::{AggregateId, EventId, Outcome, Prune, Store, StoreError, Transaction};
use shared::ids::{Hash, NodeId, RunId, ScheduleId};
use shared::limits::{BYTES_PER_COMMIT, ENTRIES_PER_COMMIT};
use shared::log::{Batch, Direction, Head};
use shared::planted::{self, Mistake};
use shared::time::{Mono, Now, Span, Unix};
use shared::wire::{Ack, Down, Hello, LogId};
use std::collections::{BTreeMap, BTreeSet};

/// Directives sent ahead of what a node confirmed.
const WINDOW: u64 = 4 * ENTRIES_PER_COMMIT as u64;
/// Forgotten runs that are remembered; a late fact of an older one makes a run that is not known.
pub const TOMBSTONES: usize = 2000;
/// Pause before nodes that refused a slice are offered the run again.
pub const REFUSED_AGAIN: Span = Span::secs(60);
/// Pause before the engine works on its own again when a commit failed: a full disk stays full.
pub const STALL: Span = Span::secs(1);
/// Bodies of final runs that stay in memory.
const BODIES: usize = 32;

/// The engine cannot go on; the process must end and be started again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The store could not be opened again, or is damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A live session.
#[derive(Debug, Clone)]
struct Link {
    conn: Conn,
    session: u64,
    secret: [u8; 16],
    sent: Head,
    /// What was heard of an inventory that comes in parts.
    incoming: Option<inventory::Incoming>,
}

/// A newcomer that waits while the live session is asked whether it lives.
#[derive(Debug, Clone)]
struct Probe {
    nonce: u64,
    until: Mono,
    conn: Conn,
    hello: Box<Hello>,
    secret: [u8; 16],
}

/// How many facts came lately: in the second that is counted, and in the one before.
#[derive(Debug, Clone, Copy, Default)]
struct Rate {
    second: u64,
    count: u64,
    before: u64,
}

impl Rate {
    fn turn(&mut self, now: Mono) {
        let second = now.0 / 1_000_000_000;
        if second != self.second {
            let next = second == self.second + 1;
            self.before = if next { self.count } else { 0 };
            (self.second, self.count) = (second, 0);
        }
    }

    /// So many came now.
    fn add(&mut self, now: Mono, count: u64) {
        self.turn(now);
        self.count += count;
    }

    fn per_second(mut self, now: Mono) -> u64 {
        self.turn(now);
        self.before.max(self.count)
    }
}

/// What is known of a node's connection; none of it is stored.
#[derive(Debug, Clone, Default)]
struct NodeLink {
    live: Option<Link>,
    secret: Option<[u8; 16]>,
    heard: Mono,
    heard_wall: Option<Unix>,
    ahead: u64,
    /// How far its wall clock was ahead at its last hello, in milliseconds.
    clock_ahead: Option<i64>,
    rate: Rate,
    probe: Option<Probe>,
    /// This session's inventory was asked for and is not here yet.
    asked: bool,
    /// It said last that its disk has no room for more work.
    full: bool,
}

/// An answer that waits for its commit.
#[derive(Debug)]
struct Answer {
    id: RequestId,
    event: Option<EventId>,
    reply: Reply,
}

/// The coordinator's engine over a store.
#[derive(Debug)]
pub struct Engine<S: Store> {
    store: S,
    config: Config,
    now: Now,
    random: u64,
    fleet: Fleet,
    files: BTreeMap<Hash, u64>,
    nodes: BTreeMap<NodeId, Node>,
    runs: BTreeMap<RunId, Run>,
    versions: BTreeMap<AggregateId, u64>,
    effects: BTreeMap<AggregateId, Effects>,
    batch: Vec<Transaction>,
    /// Messages that are not folded yet; those to runs may wait (`drain`).
    inbox: BTreeMap<AggregateId, drain::Inbox>,
    /// Edge time of the last fact that was folded, where more wait.
    folded_at: BTreeMap<(RunId, NodeId), Unix>,
    /// Whose facts were folded last.
    folded_last: AggregateId,
    decoded: BTreeMap<LogId, Decoded>,
    conns: BTreeMap<Conn, NodeId>,
    links: BTreeMap<NodeId, NodeLink>,
    outputs: Vec<Output>,
    /// The newest acknowledgement for each connection: one covers those before it.
    acks: BTreeMap<Conn, Ack>,
    answers: Vec<Answer>,
    pump: BTreeSet<NodeId>,
    plan: BTreeSet<RunId>,
    plan_all: bool,
    /// Nodes that may have to be told other settings.
    configure: BTreeSet<NodeId>,
    /// Nodes that are drained, and runs of which something may leave them.
    draining: BTreeSet<NodeId>,
    leave: BTreeSet<RunId>,
    lost_after: BTreeMap<RunId, Vec<(NodeId, Span)>>,
    /// Runs that wait although a node is left which refused: when it is offered them again.
    refused: BTreeMap<RunId, Mono>,
    /// Number of the last request of this life.
    requests: u32,
    /// Ids of requests that this run of the engine answers, and those that earlier ones did.
    asked: Vec<EventId>,
    settled: Vec<EventId>,
    watch: u64,
    changed: BTreeMap<RunId, u64>,
    /// Runs that are over, by when they ended.
    ended: BTreeSet<(Unix, RunId)>,
    /// Runs that are known only from facts which name them, by when they were named first.
    unknown: BTreeSet<(Unix, RunId)>,
    /// Forgotten runs, by when they went.
    tombstones: BTreeSet<(Unix, RunId)>,
    /// Contents that forgotten runs named, and whether to look for those that nobody else names.
    orphans: BTreeSet<Hash>,
    collect: bool,
    /// Files that arrived and were not looked at since, with when they came.
    stored: forget::Arrivals,
    /// Those that were there when this process started, and were not sent since.
    found: BTreeSet<Hash>,
    /// When too little could go that somebody needed room.
    no_room: Option<Mono>,
    /// Its last commit failed: until when it does nothing on its own.
    stalled: Option<Mono>,
    /// When they are looked at again, if that was in vain.
    collect_after: Mono,
    /// What is told and audited with the next commit.
    record: record::Record,
    schedules: BTreeMap<ScheduleId, Schedule>,
    definitions: Definitions,
    /// When slots of the coordinator's own are looked at next.
    slots_due: Option<Mono>,
}

/// What a run's step looks at, from fields of the engine that the step does not change.
macro_rules! at {
    ($engine:expr) => {
        At {
            wall: $engine.now.wall,
            generation: $engine.fleet.generation,
            hold: $engine.fleet.hold.as_ref().map(|hold| hold.since),
            files: &$engine.files,
            nodes: &$engine.nodes,
            schedules: &$engine.schedules,
            definitions: &$engine.definitions,
            decisions: $engine.config.decisions_per_run,
        }
    };
}
use at;

impl<S: Store> Engine<S> {
    /// Draws the generation max(stored + 1, wall clock in seconds) and commits it before anything
    /// else.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(store: S, config: Config, now: Now, seed: u64) -> Result<Self, StoreError> {
        let mut engine = Self {
            store,
            config,
            now,
            random: seed,
            fleet: Fleet::default(),
            files: BTreeMap::new(),
            nodes: BTreeMap::new(),
            runs: BTreeMap::new(),
            versions: BTreeMap::new(),
            effects: BTreeMap::new(),
            batch: Vec::new(),
            inbox: BTreeMap::new(),
            folded_at: BTreeMap::new(),
            folded_last: AggregateId::Fleet,
            decoded: BTreeMap::new(),
            conns: BTreeMap::new(),
            links: BTreeMap::new(),
            outputs: Vec::new(),
            acks: BTreeMap::new(),
            answers: Vec::new(),
            pump: BTreeSet::new(),
            plan: BTreeSet::new(),
            plan_all: true,
            configure: BTreeSet::new(),
            draining: BTreeSet::new(),
            leave: BTreeSet::new(),
            lost_after: BTreeMap::new(),
            refused: BTreeMap::new(),
            requests: 0,
            asked: Vec::new(),
            settled: Vec::new(),
            watch: 1,
            changed: BTreeMap::new(),
            ended: BTreeSet::new(),
            unknown: BTreeSet::new(),
            tombstones: BTreeSet::new(),
            orphans: BTreeSet::new(),
            collect: false,
            stored: forget::Arrivals::default(),
            found: BTreeSet::new(),
            no_room: None,
            stalled: None,
            collect_after: Mono(0),
            record: record::Record::default(),
            schedules: BTreeMap::new(),
            definitions: Definitions::default(),
            slots_due: None,
        };
        engine.load()?;
        engine.fleet.draw_generation(now.wall);
        let fx = engine.effects.entry(AggregateId::Fleet).or_default();
        fx.prune.push(Prune::Requests(engine.fleet.generation));
        engine.begin_restored_hold()?;
        engine.configure_all();
        engine.tell_beginning("");
        engine.seal_round();
        engine.commit()?;
        engine.drain(false)?;
        Ok(engine)
    }

    /// Handles all inputs: decides, commits once, hands the outputs to `out`, drains the inboxes.
    ///
    /// # Errors
    /// [`EngineError`] if the process must end.
    pub fn run(
        &mut self,
        now: Now,
        inputs: Vec<Input>,
        out: &mut dyn FnMut(Output),
    ) -> Result<(), EngineError> {
        self.now = now;
        self.settled.append(&mut self.asked);
        match self.work(inputs, out) {
            Ok(()) => self.stalled = None,
            Err(StoreError::NotDone(why) | StoreError::Unknown(why)) => {
                self.stalled = Some(now.mono + STALL);
                self.rebuild(&why)?;
            }
            Err(fatal) => return Err(fatal.into()),
        }
        self.flush(out);
        Ok(())
    }

    fn work(&mut self, inputs: Vec<Input>, out: &mut dyn FnMut(Output)) -> Result<(), StoreError> {
        let arriving = inputs.iter().any(Input::has_facts);
        for input in inputs {
            self.input(input)?;
        }
        self.timers()?;
        if planted::on(Mistake::AckBeforeCommit) {
            self.send_acks(out);
        }
        self.seal_round();
        if !arriving {
            self.commit()?;
            self.flush(out);
        }
        // What is folded of facts that arrive is little, and shares the commit that records them.
        self.drain(arriving)?;
        self.send_directives()?;
        self.evict();
        Ok(())
    }

    fn input(&mut self, input: Input) -> Result<(), StoreError> {
        match input {
            Input::Hello {
                conn,
                node,
                name,
                certificate,
                hello,
                secret,
            } => match self.certificate_counts(conn, node, certificate) {
                true => self.hello(conn, (node, &name), hello, secret),
                false => Ok(()),
            },
            Input::Heard { conn, message } => self.heard(conn, message),
            Input::Offered { conn, batch } => {
                if let Some(node) = self.live_node(conn) {
                    self.heard_now(node);
                    self.facts(conn, node, *batch);
                }
                Ok(())
            }
            Input::Gone { conn, .. } => self.gone(conn),
            Input::FileStored { hash, size } => {
                self.found.remove(&hash);
                self.file_stored(hash, size);
                Ok(())
            }
            Input::FileFound { hash, size } => {
                self.found.insert(hash);
                self.file_stored(hash, size);
                Ok(())
            }
            Input::Request {
                id,
                request,
                caller,
            } => self.request(id, *request, caller),
            Input::Wake => Ok(()),
        }
    }

    fn send_acks(&mut self, out: &mut dyn FnMut(Output)) {
        for (conn, ack) in std::mem::take(&mut self.acks) {
            let message = Down::Ack(ack);
            out(Output::Send { conn, message });
        }
    }

    fn flush(&mut self, out: &mut dyn FnMut(Output)) {
        self.send_acks(out);
        for output in std::mem::take(&mut self.outputs) {
            out(output);
        }
        for answer in std::mem::take(&mut self.answers) {
            out(Output::Reply {
                id: answer.id,
                reply: Box::new(answer.reply),
            });
        }
    }

    /// Turns what the steps left into transactions.
    fn seal_round(&mut self) {
        for (id, fx) in std::mem::take(&mut self.effects) {
            let (head, mut rows) = match id {
                AggregateId::Fleet => (shared::codec::encode(&self.fleet), Vec::new()),
                AggregateId::Record => continue,
                AggregateId::Schedule(schedule) => match self.schedules.get(&schedule) {
                    Some(state) => (shared::codec::encode(state), Vec::new()),
                    None => continue,
                },
                AggregateId::Node(node) => match self.nodes.get_mut(&node) {
                    Some(state) => {
                        self.record.touch(node);
                        state.heard = self.links.get(&node).and_then(|l| l.heard_wall);
                        (shared::codec::encode(state), Vec::new())
                    }
                    None => continue,
                },
                AggregateId::Run(run) => match self.runs.get_mut(&run) {
                    Some(state) => {
                        let rows = state.changed_rows();
                        (shared::codec::encode(&state.head), rows)
                    }
                    None => continue,
                },
            };
            rows.extend(fx.rows);
            self.watch_run(id);
            let version = self.versions.entry(id).or_default();
            let mut sends = Vec::with_capacity(fx.sends.len());
            for (to, number, message) in fx.sends {
                sends.push((to, number, shared::codec::encode(&message)));
                let inbox = self.inbox.entry(to).or_default();
                inbox.insert((id, number), message);
            }
            self.batch.push(Transaction {
                aggregate: id,
                expected: *version,
                events: fx.events,
                head,
                rows,
                sends,
                drained: fx.drained,
                facts: fx.facts,
                truncate: fx.truncate,
                directives: fx.directives,
                prune: fx.prune,
            });
            *version += 1;
            self.end_aggregate(id);
        }
    }

    /// Remembers that a run changed, for watchers and timers.
    fn watch_run(&mut self, id: AggregateId) {
        let AggregateId::Run(id) = id else { return };
        self.tell_run(id);
        self.watch += 1;
        self.changed.insert(id, self.watch);
        let Some(run) = self.runs.get(&id) else {
            return;
        };
        if let Some(at) = run.head.gone {
            self.tombstones.insert((at, id));
        }
        if let Some(at) = run.head.ended {
            match run.may_age() {
                true => self.ended.insert((at, id)),
                false => self.ended.remove(&(at, id)),
            };
        }
        let unknown = (run.head.submitted, id);
        match !run.head.known && run.head.gone.is_none() && run.head.forgetting.is_none() {
            true => self.unknown.insert(unknown),
            false => self.unknown.remove(&unknown),
        };
        if self.is_leaving(run) {
            self.leave.insert(id);
        }
        if run.waits_for_refusing() {
            let due = self.now.mono + REFUSED_AGAIN;
            self.refused.entry(id).or_insert(due);
        } else {
            self.refused.remove(&id);
        }
        let timed: Vec<(NodeId, Span)> = run
            .head
            .slices
            .iter()
            .filter(|s| s.live() && s.open > 0 && !run.head.held)
            .filter_map(|s| Some((s.node, s.lost_after?)))
            .collect();
        if timed.is_empty() {
            self.lost_after.remove(&id);
        } else {
            self.lost_after.insert(id, timed);
        }
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.seal_record();
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        let outcomes = self.store.commit(&batch)?;
        let conflict = batch
            .iter()
            .zip(&outcomes)
            .find(|(_, o)| **o != Outcome::Done);
        if let Some((tx, _)) = conflict {
            let text = format!("another writer changed {:?}", tx.aggregate);
            return Err(StoreError::Unknown(text));
        }
        for tx in &batch {
            if let (AggregateId::Node(node), false) = (tx.aggregate, tx.directives.is_empty()) {
                self.pump.insert(node);
            }
        }
        Ok(())
    }

    /// Sends the directives that live sessions have not been sent, as far as their windows go.
    fn send_directives(&mut self) -> Result<(), StoreError> {
        for id in std::mem::take(&mut self.pump) {
            let Some(node) = self.nodes.get(&id) else {
                continue;
            };
            let live = self.links.get_mut(&id).and_then(|l| l.live.as_mut());
            let (Some(link), Some(log)) = (live, node.log(id)) else {
                continue;
            };
            while link.sent.number < node.directives.number
                && link.sent.number < node.confirmed + WINDOW
            {
                let after = link.sent;
                let entries = self.store.directives(
                    log,
                    after.number,
                    ENTRIES_PER_COMMIT,
                    BYTES_PER_COMMIT,
                )?;
                let Some(last) = entries.last().map(|e| e.head) else {
                    break;
                };
                let batch = Batch {
                    after,
                    entries: entries.into_iter().map(|e| e.bytes).collect(),
                    hash: last.hash,
                };
                link.sent = last;
                let (key, generation) = (&self.config.seal_key, self.fleet.generation);
                self.outputs.push(Output::Send {
                    conn: link.conn,
                    message: Down::DirectiveSeal(crate::seal::directives(
                        key, log, generation, last,
                    )),
                });
                self.outputs.push(Output::Send {
                    conn: link.conn,
                    message: Down::Directives(batch),
                });
            }
        }
        Ok(())
    }

    /// Head of a node's directive log at `number`, if it is known.
    fn directive_head(&mut self, node: NodeId, number: u64) -> Result<Option<Head>, StoreError> {
        let Some(log) = self.nodes.get(&node).and_then(|n| n.log(node)) else {
            return Ok(None);
        };
        if number == 0 {
            let origin = Head::origin(node, log.incarnation, Direction::Down);
            return Ok(Some(origin));
        }
        let known = self.nodes.get(&node).map(|n| n.directives);
        if let Some(head) = known.filter(|h| h.number == number) {
            return Ok(Some(head));
        }
        let hash = self.store.directive_hash(log, number)?;
        Ok(hash.map(|hash| Head { number, hash }))
    }

    /// Throws away what is in memory after a failed commit and starts from the store.
    fn rebuild(&mut self, why: &str) -> Result<(), StoreError> {
        if planted::on(Mistake::KeepMemoryAbove) {
            self.batch.clear();
            return Ok(());
        }
        self.store.reopen()?;
        self.effects.clear();
        self.batch.clear();
        self.decoded.clear();
        self.outputs.clear();
        self.acks.clear();
        let files = std::mem::take(&mut self.files);
        self.load()?;
        // that a file is in the file store is said once; it is there whatever became of the commit
        for (hash, size) in files {
            if !self.files.contains_key(&hash) {
                self.file_stored(hash, size);
            }
        }
        let conns = std::mem::take(&mut self.conns);
        self.outputs
            .extend(conns.into_keys().map(|conn| Output::Close {
                conn,
                why: format!("the coordinator starts over: {why}"),
            }));
        for answer in &mut self.answers {
            let done = match &answer.event {
                Some(event) => self.store.event(event)?.is_some(),
                None => false,
            };
            if !done {
                answer.reply = Reply::Refused(Refused::State(format!(
                    "nothing was changed: {why}; try again"
                )));
            }
        }
        self.plan_all = true;
        self.configure_all();
        self.outputs.push(Output::Access(self.fleet.access.clone()));
        self.tell_beginning(why);
        self.drain(false)
    }

    /// Bodies of runs that are over leave the memory when they are many.
    fn evict(&mut self) {
        let over = |run: &&mut Run| run.body.is_some() && run.head.state.is_final();
        let many = self.runs.values_mut().filter(over).count();
        if many > BODIES {
            for run in self.runs.values_mut().filter(over) {
                run.body = None;
            }
        }
    }

    /// The next number of the engine's own generator (nonces, event ids).
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The store, for those who inspect it.
    pub fn store(&mut self) -> &mut S {
        &mut self.store
    }

    /// Number of runs whose bodies are in memory, for those who inspect it.
    #[must_use]
    pub fn loaded(&self) -> usize {
        self.runs.values().filter(|r| r.body.is_some()).count()
    }

    /// The access tokens that are good.
    #[must_use]
    pub fn access(&self) -> &crate::access::Tokens {
        &self.fleet.access
    }

    /// The life of the store.
    #[must_use]
    pub fn generation(&self) -> shared::ids::Generation {
        self.fleet.generation
    }
}
