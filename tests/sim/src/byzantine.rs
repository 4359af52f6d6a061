//! A Byzantine gateway: it has a certificate of its own node, keeps to the framing and to the
//! hello, and says what it likes. It runs no agent; what it says is drawn here and in `lies`.
//!
//! It stands beside the gateways of the plan, under the number behind theirs, and goes on with an
//! honest chain of facts of its own, so that its lies are recorded and folded.

mod lies;

use crate::fault::Kind;
use crate::net::{Side, Stream};
use crate::queue::{HOUR, MIN, SEC, Time};
use crate::rng::Rng;
use crate::trace::Lane;
use crate::world::{Ev, World};
use shared::codec;
use shared::directive::{Assign, Body as Wanted, Directive};
use shared::fact::{Body, Fact};
use shared::ids::{Epoch, Hash, Incarnation, NodeId, RunId, SliceRef, TaskIdx};
use shared::log::{Batch, Direction, Head, PackedBatch};
use shared::time::{Stamp, Unix};
use shared::wire::{Ack, DirectiveSeal, Down, FEATURES, Hello, PACKED, Refusal, Up, Welcome};
use shared::workflow::Resources;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Messages that it keeps to say them again.
const KEPT: usize = 16;
/// Runs that it makes up, at most.
const MADE_UP: usize = 24;
/// Lives of its disk that it begins because it was caught with two histories.
const LIVES: u32 = 12;
/// How long it keeps away when it is in quarantine.
const QUARANTINE: Time = 10 * MIN;

/// A gateway that says what it likes.
#[derive(Debug, Clone, Copy)]
pub struct Byzantine {
    /// It begins then.
    pub from: Time,
    /// Longest pause between two messages.
    pub pause: Time,
    /// It is given work; else it tells a taint that keeps work away.
    pub works: bool,
}

impl Byzantine {
    /// One seed in eight has a gateway that lies.
    pub(crate) fn draw(root: &Rng) -> Option<Self> {
        let mut rng = root.fork("byzantine", 0);
        rng.chance(125).then(|| Self {
            from: rng.log_range(SEC, 2 * HOUR),
            pause: rng.log_range(8 * SEC, 4 * MIN),
            works: rng.chance(500),
        })
    }
}

/// The Byzantine gateway of a world.
#[derive(Debug)]
pub struct Liar {
    /// Which machine it is.
    pub m: usize,
    /// Runs that nobody but it knows of.
    pub made_up: BTreeSet<RunId>,
    plan: Byzantine,
    rng: Rng,
    conn: Option<u64>,
    /// All connections that it dialled: what it said there may be answered when they are over.
    dialled: BTreeSet<u64>,
    session: u64,
    welcomed: bool,
    proof: Option<[u8; 16]>,
    /// What its chain goes on from, and what follows there.
    base: Head,
    chain: Vec<(Vec<u8>, Head)>,
    /// The last fact that the coordinator has.
    known: Head,
    directives: Head,
    ack: Option<Ack>,
    seal: Option<DirectiveSeal>,
    features: u64,
    /// The welcome asked for everything it has.
    wanted: bool,
    /// What it was really given.
    given: Vec<Assign>,
    said: VecDeque<Up>,
    lives: u32,
    away_until: Time,
}

impl Liar {
    /// Whether it may be all that knows of a run.
    #[must_use]
    pub fn speaks_of(&self, run: RunId) -> bool {
        self.made_up.contains(&run)
    }

    /// The one at machine `m`.
    #[must_use]
    pub fn new(m: usize, plan: Byzantine, rng: Rng) -> Self {
        Self {
            m,
            made_up: BTreeSet::new(),
            plan,
            rng,
            conn: None,
            dialled: BTreeSet::new(),
            session: 0,
            welcomed: false,
            proof: None,
            base: Head::default(),
            chain: Vec::new(),
            known: Head::default(),
            directives: Head::default(),
            ack: None,
            seal: None,
            features: 0,
            wanted: false,
            given: Vec::new(),
            said: VecDeque::new(),
            lives: 0,
            away_until: 0,
        }
    }

    fn head(&self) -> Head {
        self.chain.last().map_or(self.base, |(_, head)| *head)
    }

    /// Goes on from what the coordinator says it has: behind that fact of its own chain, or, where
    /// that is of another history, from there.
    fn rebase(&mut self, known: Head) {
        self.known = known;
        let own = std::iter::once(self.base).chain(self.chain.iter().map(|(_, head)| *head));
        if !own.clone().any(|head| head == known) {
            self.base = known;
            self.chain.clear();
        }
    }

    /// The entries behind `after`, if that is of its chain.
    fn behind(&self, after: Head) -> Option<Vec<Vec<u8>>> {
        let from = match after == self.base {
            true => 0,
            false => 1 + self.chain.iter().position(|(_, head)| *head == after)?,
        };
        Some(self.chain[from..].iter().map(|row| row.0.clone()).collect())
    }
}

impl World {
    /// Whether machine `m` is the Byzantine one.
    #[must_use]
    pub fn is_liar(&self, m: usize) -> bool {
        self.plan.byzantine.is_some() && m == self.plan.nodes
    }

    /// Whether that node is the Byzantine one.
    #[must_use]
    pub fn is_liar_node(&self, node: NodeId) -> bool {
        let mut machines = self.machines.iter();
        machines.any(|one| one.node == Some(node) && self.is_liar(one.n))
    }

    /// Whether the Byzantine one dialled that connection, which may be over.
    #[must_use]
    pub fn is_liars_conn(&self, conn: u64) -> bool {
        let liar = self.liar.as_ref();
        liar.is_some_and(|liar| liar.dialled.contains(&conn))
    }

    /// The Byzantine gateway of the plan stands there and is enrolled like any other.
    pub(crate) fn add_liar(&mut self) {
        let Some(plan) = self.plan.byzantine else {
            return;
        };
        let m = self.machines.len();
        self.add_machine(m);
        let site = [("site".to_owned(), "away".to_owned())];
        self.machines[m].labels.extend(site);
        let rng = Rng::new(self.plan.seed).fork("byzantine", 1);
        self.liar = Some(Box::new(Liar::new(m, plan, rng)));
        self.enrol(m, false);
    }

    /// It begins to talk, at once or behind a loss of power.
    pub(crate) fn liar_starts(&mut self) {
        let Some(liar) = &mut self.liar else { return };
        let machine = &self.machines[liar.m];
        let log = machine.log();
        if liar.base == Head::default() {
            liar.base = Head::origin(log.node, log.incarnation, Direction::Up);
            liar.known = liar.base;
            liar.directives = Head::origin(log.node, log.incarnation, Direction::Down);
        }
        (liar.conn, liar.welcomed) = (None, false);
        let at = (self.t + SEC).max(liar.plan.from);
        self.queue.at(at, Ev::Lie(machine.process));
    }

    /// It says or does the next thing.
    pub(crate) fn lie(&mut self, process: u64) {
        let Some(mut liar) = self.liar.take() else {
            return;
        };
        let machine = &self.machines[liar.m];
        if machine.process == process && machine.power && !machine.destroyed {
            let pause = liar.rng.log_range(SEC, liar.plan.pause);
            self.queue.at(self.t + pause, Ev::Lie(process));
            match liar.conn {
                None if self.t >= liar.away_until => {
                    liar.session += 1 + liar.rng.below(3);
                    self.dial(liar.m, liar.session);
                }
                Some(conn) if liar.welcomed => self.speak_up(&mut liar, conn),
                _ => {}
            }
        }
        self.liar = Some(liar);
    }

    /// Its dial was answered: it says hello, nearly always as it should.
    pub(crate) fn liar_linked(&mut self, conn: u64) {
        let Some(mut liar) = self.liar.take() else {
            return;
        };
        liar.dialled.insert(conn);
        if let Some(old) = liar.conn.replace(conn) {
            self.close(old, Side::Agent, "dialled anew");
        }
        liar.welcomed = false;
        let hello = self.its_hello(&mut liar);
        self.put_up(&mut liar, conn, Up::Hello(Box::new(hello)));
        self.liar = Some(liar);
    }

    fn its_hello(&mut self, liar: &mut Liar) -> Hello {
        let machine = &self.machines[liar.m];
        let mut labels = machine.labels.clone();
        if !liar.plan.works {
            labels.insert("taint.foreign".to_owned(), "yes:refuse".to_owned());
        }
        let mut hello = Hello {
            protocol_min: 1,
            protocol_max: 1,
            features: FEATURES,
            version: "simulated".to_owned(),
            node: machine.node.unwrap_or_default(),
            name: machine.name.clone(),
            incarnation: machine.incarnation,
            boot: machine.boot,
            session: liar.session,
            proof: liar.proof,
            facts_first: 1,
            facts: liar.head(),
            directives: liar.directives,
            ack: liar.ack,
            generation: self.cloud_generation(liar),
            now: machine.clocks.now(self.t),
            clock_trusted: true,
            labels,
            capacity: machine.capacity.clone(),
            succeeds: machine.succeeds,
            directive_seal: liar.seal,
        };
        if liar.rng.chance(250) {
            self.bend_hello(liar, &mut hello);
        }
        hello
    }

    fn cloud_generation(&self, liar: &Liar) -> shared::ids::Generation {
        liar.ack.map(|ack| ack.generation).unwrap_or_default()
    }

    /// A hello that contradicts its certificate, its past or itself.
    fn bend_hello(&mut self, liar: &mut Liar, hello: &mut Hello) {
        let rng = &mut liar.rng;
        let other = rng.below(self.plan.nodes as u64) as usize;
        let other = &self.machines[other];
        match rng.below(10) {
            0 => hello.node = other.node.unwrap_or_default(),
            1 => hello.name.clone_from(&other.name),
            2 => hello.labels.clone_from(&other.labels),
            3 => hello.session = 1,
            4 => hello.proof = Some(rng.id()),
            5 => hello.facts.number += 1 + rng.below(1000),
            6 => hello.generation.0 = u64::from(u32::MAX),
            7 => {
                // a seal of somebody else, or of nobody
                hello.ack = Some(Ack {
                    generation: shared::ids::Generation(u64::from(u32::MAX)),
                    head: hello.facts,
                    seal: [7; 32],
                    safe: hello.facts.number,
                });
            }
            8 => {
                hello.now.wall = Unix([i64::MAX, i64::MIN][rng.below(2) as usize]);
                hello.now.mono.0 = u64::MAX;
            }
            _ if liar.plan.works => {
                hello.capacity = Resources {
                    cpu_milli: u32::MAX,
                    memory: u64::MAX,
                    disk: u64::MAX,
                    gpu_milli: u32::MAX,
                    custom: BTreeMap::from([("press".to_owned(), u64::MAX)]),
                };
            }
            _ => hello.succeeds = Some(Incarnation(rng.id())),
        }
    }

    /// The coordinator says something to it.
    pub(crate) fn liar_hears(&mut self, conn: u64, message: Down) {
        let Some(mut liar) = self.liar.take() else {
            return;
        };
        if liar.conn == Some(conn) {
            self.it_hears(&mut liar, conn, message);
        }
        self.liar = Some(liar);
    }

    fn it_hears(&mut self, liar: &mut Liar, conn: u64, message: Down) {
        match message {
            Down::Welcome(welcome) => Self::it_is_welcome(liar, &welcome),
            Down::Ack(ack) => {
                liar.known = ack.head;
                liar.ack = Some(ack);
            }
            Down::Directives(batch) if batch.after == liar.directives => {
                liar.directives = batch.head();
                let numbered = (batch.after.number + 1..).zip(&batch.entries);
                let read = numbered.filter_map(|(n, bytes)| Directive::decode(n, bytes).ok());
                liar.given.extend(read.filter_map(|one| match one.body {
                    Wanted::Assign(assign) => Some(assign),
                    _ => None,
                }));
            }
            Down::DirectiveSeal(seal) if liar.rng.chance(500) => liar.seal = Some(seal),
            Down::WantFacts { from } => {
                let base = liar.base.number;
                let after = match from.checked_sub(base + 2) {
                    None => liar.base,
                    Some(n) => liar.chain.get(n as usize).map_or(liar.base, |row| row.1),
                };
                liar.known = after;
            }
            Down::Ping { nonce } => self.put_up(liar, conn, Up::Pong { nonce }),
            Down::Refuse(refuse) => self.it_is_refused(liar, refuse.reason),
            _ => {}
        }
    }

    fn it_is_welcome(liar: &mut Liar, welcome: &Welcome) {
        liar.welcomed = true;
        liar.proof = Some(welcome.secret);
        liar.features = welcome.features;
        liar.wanted = welcome.want_inventory;
        liar.rebase(welcome.facts.head);
    }

    fn it_is_refused(&mut self, liar: &mut Liar, why: Refusal) {
        match why {
            Refusal::NewIncarnation if liar.lives < LIVES => {
                liar.lives += 1;
                let id = Incarnation(liar.rng.id());
                let machine = &mut self.machines[liar.m];
                machine.succeeds = Some(std::mem::replace(&mut machine.incarnation, id));
                let log = machine.log();
                liar.base = Head::origin(log.node, log.incarnation, Direction::Up);
                liar.directives = Head::origin(log.node, log.incarnation, Direction::Down);
                liar.known = liar.base;
                liar.chain.clear();
                liar.given.clear();
                (liar.ack, liar.seal, liar.proof) = (None, None, None);
            }
            Refusal::NewIncarnation | Refusal::Quarantined | Refusal::NotEnrolled => {
                liar.away_until = self.t + QUARANTINE;
            }
            _ => {}
        }
    }

    /// Its connection is over.
    pub(crate) fn liar_unlinked(&mut self, conn: u64) {
        if let Some(liar) = &mut self.liar
            && liar.conn == Some(conn)
        {
            (liar.conn, liar.welcomed) = (None, false);
        }
    }

    /// Faults stop: an operator declares it gone, like a gateway that was destroyed.
    pub(crate) fn liar_leaves(&mut self) {
        let Some(m) = self.liar.as_ref().map(|liar| liar.m) else {
            return;
        };
        let theirs = |(_, one): &(&u64, &crate::net::Connection)| one.machine == m;
        let conns = self.conns.iter().filter(theirs);
        let conns: Vec<u64> = conns.map(|(conn, _)| *conn).collect();
        conns
            .into_iter()
            .for_each(|conn| self.close(conn, Side::Agent, "is gone"));
        self.machines[m].power = false;
        self.machines[m].destroyed = true;
    }

    /// One message, or a few, in a session.
    fn speak_up(&mut self, liar: &mut Liar, conn: u64) {
        if std::mem::take(&mut liar.wanted) {
            return self.tell_inventory(liar, conn);
        }
        match liar.rng.below(100) {
            0..=59 => self.go_on_lying(liar, conn),
            60..=66 => {
                let again = liar.said.iter().cloned().collect::<Vec<_>>();
                for _ in 0..1 + liar.rng.below(4) {
                    if let Some(one) = liar.rng.pick(&again).cloned() {
                        self.put_up(liar, conn, one);
                    }
                }
            }
            67..=74 => self.confirm(liar, conn),
            75..=79 => {
                let from = lies::number(&mut liar.rng, liar.directives.number);
                self.put_up(liar, conn, Up::WantDirectives { from });
            }
            80..=82 => {
                let nonce = liar.rng.bits();
                self.put_up(liar, conn, Up::Pong { nonce });
            }
            83..=88 => self.tell_details(liar, conn),
            89..=92 => self.tell_telemetry(liar, conn),
            93..=95 => self.tell_inventory(liar, conn),
            96 => self.fork(liar, conn),
            97 => {
                let entries = liar.rng.id().to_vec();
                let (after, head) = (liar.known, liar.head());
                let packed = PackedBatch {
                    after,
                    head,
                    entries,
                };
                self.put_up(liar, conn, Up::Packed(packed));
            }
            98 => {
                let hello = self.its_hello(liar);
                self.put_up(liar, conn, Up::Hello(Box::new(hello)));
            }
            _ => {
                (liar.conn, liar.welcomed) = (None, false);
                self.close(conn, Side::Agent, "hung up");
            }
        }
    }

    /// Facts that continue its chain: some of its own work as it should be, most of others'.
    fn go_on_lying(&mut self, liar: &mut Liar, conn: u64) {
        let targets = self.overheard(liar);
        let bodies = lies::facts(self, liar, &targets);
        if bodies.is_empty() {
            return;
        }
        let after = liar.head();
        if liar.rng.chance(20) {
            return self.bridge(liar, conn, &targets);
        }
        let stamp = self.its_stamp(liar);
        for body in bodies {
            let (at, seen) = (stamp, liar.directives.number);
            let bytes = Fact { at, seen, body }.encode();
            let head = liar.head().then(&bytes);
            liar.chain.push((bytes, head));
            // asked to go on from anywhere, it does
            self.note_end(liar);
        }
        let from = match liar.rng.below(4) {
            // one that leaves out what it said before, and comes too early
            0 => after,
            _ => liar.known,
        };
        self.send_behind(liar, conn, from);
    }

    fn send_behind(&mut self, liar: &mut Liar, conn: u64, after: Head) {
        let Some(entries) = liar.behind(after) else {
            return;
        };
        let batch = match liar.features & PACKED != 0 && liar.rng.chance(400) {
            true => Up::Packed(PackedBatch::new(after, liar.head(), &entries)),
            false => Up::Facts(Batch::new(after, entries)),
        };
        self.put_up(liar, conn, batch);
    }

    /// Its chain ends here: what it says is a history like any other.
    fn note_end(&mut self, liar: &Liar) {
        let (log, head) = (self.machines[liar.m].log(), liar.head());
        self.note_history(log, head);
    }

    fn note_history(&mut self, log: shared::wire::LogId, head: Head) {
        let ends = self.ends.entry(log).or_default();
        ends.entry(head.number).or_default().push(head.hash);
    }

    /// A hole that it declares is said again in a new life of its disk, too: as good there.
    fn note_bridge(&mut self, liar: &Liar, batch: &Batch) {
        let first = batch.entries.first();
        let fact = first.and_then(|bytes| Fact::decode(batch.after.number + 1, bytes).ok());
        if let (Some(bytes), Some(Body::Reset { .. })) = (first, fact.map(|fact| fact.body)) {
            let log = self.machines[liar.m].log();
            self.note_history(log, batch.after);
            self.note_history(log, batch.after.then(bytes));
        }
    }

    /// A hole in its facts that it declares, which makes the coordinator ask for all it has.
    fn bridge(&mut self, liar: &mut Liar, conn: u64, targets: &[Target]) {
        let number = liar.head().number + 1 + liar.rng.below(50);
        let after = Head {
            number,
            hash: Hash::of(&liar.rng.id()),
        };
        let body = lies::reset(&mut liar.rng, liar.known.number + 1, number, targets);
        let (at, seen) = (self.its_stamp(liar), liar.directives.number);
        let bytes = Fact { at, seen, body }.encode();
        liar.base = after;
        liar.chain = vec![(bytes.clone(), after.then(&bytes))];
        self.put_up(liar, conn, Up::Facts(Batch::new(after, vec![bytes])));
    }

    /// Another history of the same numbers.
    fn fork(&mut self, liar: &mut Liar, conn: u64) {
        let mut batch = Batch::new(liar.known, vec![liar.rng.id().to_vec()]);
        batch.hash = Hash::of(&liar.rng.id());
        self.put_up(liar, conn, Up::Facts(batch));
    }

    fn its_stamp(&self, liar: &mut Liar) -> Stamp {
        let now = self.machines[liar.m].clocks.now(self.t);
        let far = [Unix(i64::MAX), Unix(i64::MIN), Unix(0)];
        let wall = match liar.rng.chance(60) {
            true => far[liar.rng.below(3) as usize],
            false => now.wall,
        };
        Stamp {
            boot: 1 + liar.rng.below(3) as u32,
            mono_ms: lies::number(&mut liar.rng, now.mono.0 / 1_000_000),
            wall,
        }
    }

    /// Puts a message on its way, if it can be framed at all.
    fn put_up(&mut self, liar: &mut Liar, conn: u64, message: Up) {
        let Ok(message) = codec::decode::<Up>(&codec::encode(&message)) else {
            return;
        };
        if let Up::Facts(batch) = &message {
            self.note_bridge(liar, batch);
        }
        if !matches!(message, Up::Hello(_)) {
            liar.said.push_back(message.clone());
            if liar.said.len() > KEPT {
                liar.said.pop_front();
            }
        }
        let at = self.t + self.delay(liar.m);
        let stream = Stream::of_up(&message);
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        if connection.agent_open {
            let at = connection.up.put(stream, at, message);
            self.queue.at(at, Ev::Up(conn, stream));
        }
    }

    /// A message of the Byzantine gateway is here: whether it is a lie that could matter.
    pub(crate) fn watch_lie(&mut self, conn: u64, message: &Up) {
        let live = |liar: &&Liar| liar.conn == Some(conn) && liar.welcomed;
        let Some(liar) = self.liar.as_deref().filter(live) else {
            return;
        };
        let node = self.machines[liar.m].node;
        let slices: Vec<SliceRef> = match message {
            Up::Facts(batch) => read(batch.after.number, batch.entries.iter().map(Vec::as_slice)),
            Up::Packed(batch) => {
                let entries = shared::log::Entries::unpack(&batch.entries);
                entries.map_or_else(|_| Vec::new(), |e| read(batch.after.number, e.iter()))
            }
            Up::Inventory(all) => all.slices.iter().map(|state| state.slice).collect(),
            _ => return,
        };
        let open = |slice: &SliceRef| self.is_open_elsewhere(*slice, node);
        if !slices.iter().any(open) {
            return;
        }
        self.happened(match message {
            Up::Inventory(_) => Kind::ByzantineInventory,
            _ => Kind::ByzantineLie,
        });
        self.trace.say(self.t, Lane::Cloud, || {
            format!("hears of {} from who does not own it", slices.len())
        });
    }

    /// Whether a slice is the present one of its tasks, at another node, and not over there.
    fn is_open_elsewhere(&self, slice: SliceRef, node: Option<NodeId>) -> bool {
        let truth = &self.cloud.truth;
        let mut assigned = truth.assigned.iter().rev();
        let found =
            assigned.find(|one| one.slice.run == slice.run && one.slice.slice == slice.slice);
        let Some(found) = found.filter(|one| Some(one.log.node) != node) else {
            return false;
        };
        let theirs = |life: &&crate::truth::EdgeTruth| life.log == found.log;
        let life = self.lives.iter().rev().find(theirs);
        let model = life.and_then(|life| life.model.slices.get(&(slice.run, slice.slice)));
        model.is_none_or(|model| {
            let mut tasks = model.tasks.values();
            !model.released && tasks.any(|task| !task.state.is_final())
        })
    }

    /// Slices of others that it has heard of.
    fn overheard(&self, liar: &mut Liar) -> Vec<Target> {
        let node = self.machines[liar.m].node;
        let others = self.cloud.truth.assigned.iter().rev();
        let others = others.filter(|one| Some(one.log.node) != node).take(24);
        let mut out: Vec<Target> = others
            .map(|one| Target {
                slice: one.slice,
                tasks: one.tasks.clone(),
            })
            .collect();
        let local = self
            .flows
            .iter()
            .filter(|(run, flow)| flow.local.is_some() && self.is_known(**run));
        out.extend(local.take(4).map(|(run, flow)| Target {
            slice: SliceRef {
                run: *run,
                slice: 0,
                epoch: Epoch::LOCAL,
            },
            tasks: (0..flow.workflow.tasks.len() as u32).map(TaskIdx).collect(),
        }));
        liar.rng.shuffle(&mut out);
        out
    }

    /// Whether the coordinator knows of a run: who has not heard of one cannot guess its id.
    fn is_known(&self, run: RunId) -> bool {
        let id = cloud_core::store::AggregateId::Run(run);
        self.cloud.truth.versions.contains_key(&id)
    }

    /// A run that nobody knows of.
    fn make_up(&self, liar: &mut Liar) -> RunId {
        let known: Vec<RunId> = liar.made_up.iter().copied().collect();
        match known.len() < MADE_UP {
            true => {
                let run = RunId(liar.rng.id());
                liar.made_up.insert(run);
                run
            }
            false => liar.rng.pick(&known).copied().unwrap_or_default(),
        }
    }
}

/// A slice of another node, with its tasks.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) slice: SliceRef,
    pub(crate) tasks: Vec<TaskIdx>,
}

fn read<'a>(after: u64, entries: impl Iterator<Item = &'a [u8]>) -> Vec<SliceRef> {
    let numbered = (after + 1..).zip(entries);
    let facts = numbered.filter_map(|(n, bytes)| Fact::decode(n, bytes).ok());
    facts.filter_map(|fact| fact.body.slice()).collect()
}
