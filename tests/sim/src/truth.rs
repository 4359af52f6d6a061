//! The truth: what became durable where, as the taps and the disks tell, and which processes ran.
//! Checkers judge the cores by this and by nothing that a core says of itself.

use crate::model::{Flows, Model};
use crate::queue::Time;
use crate::tap::Ended;
use cloud_core::fleet::Fleet;
use cloud_core::schedule::Schedule;
use cloud_core::store::{AggregateId, Prune, Transaction};
use shared::directive::{Body as Wanted, Directive};
use shared::explain::Reason;
use shared::fact::{Body as Said, Fact};
use shared::ids::{AttemptRef, Hash, RunId, ScheduleId, SliceRef, TaskIdx};
use shared::log::{Direction, Head};
use shared::time::Span;
use shared::wire::LogId;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// A fact as it became durable.
#[derive(Debug, Clone)]
pub struct FactRow {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What they say, if this version can read them.
    pub fact: Option<Fact>,
    /// Hash of the chain up to it.
    pub hash: Hash,
    /// Last of a commit.
    pub ends: bool,
    /// When it became durable.
    pub at: Time,
}

/// The bytes of entries of a log.
pub type Entries = Vec<Vec<u8>>;

/// One life of a gateway's disk: a branch of the history of a log.
#[derive(Debug, Clone)]
pub struct EdgeTruth {
    /// Which log.
    pub log: LogId,
    /// Its facts, from number 1.
    pub facts: Vec<FactRow>,
    /// Its directives.
    pub directives: Vec<Vec<u8>>,
    /// Number of the first directive (a reset starts later).
    pub directives_base: u64,
    /// A commit of which nobody knows the end.
    pub open: Option<(Entries, Entries)>,
    /// The fold of it.
    pub model: Model,
    /// Last fact that was sent up.
    pub sent: u64,
    /// Last directive that was said to be applied.
    pub applied: u64,
    /// Runs that a person at the gateway was told to be submitted.
    pub promised: BTreeSet<RunId>,
    /// Start facts by attempt: their number.
    pub starts: BTreeMap<AttemptRef, u64>,
    /// The disk was copied or put back: this branch shares its beginning with another one.
    pub branched: bool,
    /// The store was cut to nothing, or the disk replaced by an empty one: whoever asked this
    /// gateway for a run may ask its successor again.
    pub emptied: bool,
    /// Last fact that may be gone.
    pub pruned: u64,
    /// The same, if commits are there whose end nobody knows.
    pub maybe_pruned: u64,
    /// Last fact that was acknowledged to this store.
    pub acked: u64,
    /// A person let nothing be sent: since when that is durable, for how long.
    pub silent: Option<(Time, Option<Span>)>,
    /// From when on the wall clock of its facts is the one that its schedules go by; none: not.
    pub sure_from: Option<Time>,
}

/// What a commit did to the truth that it must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The invariant that is broken.
    pub invariant: &'static str,
    /// What was seen.
    pub text: String,
}

/// `Wrong`, shortly.
#[must_use]
pub fn wrong(invariant: &'static str, text: impl Into<String>) -> Wrong {
    Wrong {
        invariant,
        text: text.into(),
    }
}

impl EdgeTruth {
    /// A new disk.
    #[must_use]
    pub fn new(log: LogId) -> Self {
        Self {
            log,
            facts: Vec::new(),
            directives: Vec::new(),
            directives_base: 0,
            open: None,
            model: Model::default(),
            sent: 0,
            applied: 0,
            promised: BTreeSet::new(),
            starts: BTreeMap::new(),
            branched: false,
            emptied: false,
            pruned: 0,
            maybe_pruned: 0,
            acked: 0,
            silent: None,
            sure_from: None,
        }
    }

    /// The last fact.
    #[must_use]
    pub fn head(&self) -> Head {
        let origin = Head::origin(self.log.node, self.log.incarnation, Direction::Up);
        self.facts.last().map_or(origin, |row| Head {
            number: self.facts.len() as u64,
            hash: row.hash,
        })
    }

    /// Number of the last directive.
    #[must_use]
    pub fn last_directive(&self) -> u64 {
        self.directives_base + self.directives.len() as u64
    }

    /// Whether `number` is the last fact of a commit (or nothing).
    #[must_use]
    pub fn is_end(&self, number: u64) -> bool {
        number == 0
            || self
                .facts
                .get(number as usize - 1)
                .is_some_and(|row| row.ends)
    }

    /// Whether the start of an attempt is among facts that were declared to be gone.
    #[must_use]
    pub fn declared_gone(&self, attempt: &AttemptRef) -> bool {
        let number = self.starts.get(attempt);
        number.is_some_and(|number| self.is_declared_gone(*number))
    }

    /// Whether a reset declares that a fact is gone.
    #[must_use]
    pub fn is_declared_gone(&self, number: u64) -> bool {
        let mut facts = self.facts.iter().filter_map(|row| row.fact.as_ref());
        facts.any(|fact| match &fact.body {
            Said::Reset { from, to, .. } => (*from..=*to).contains(&number),
            _ => false,
        })
    }

    /// Whether it was told to give up something of a run.
    #[must_use]
    pub fn was_asked_back(&self, run: RunId) -> bool {
        let mut read = self.directives.iter().zip(self.directives_base + 1..);
        read.any(|(bytes, number)| {
            let told = Directive::decode(number, bytes);
            told.is_ok_and(|one| matches!(one.body, Wanted::Release { slice } if slice.run == run))
        })
    }

    /// Numbers of the facts that say that a slice was taken over here.
    pub fn claims(&self, slice: SliceRef) -> impl Iterator<Item = u64> + '_ {
        let says = move |row: &FactRow| match row.fact.as_ref().map(|fact| &fact.body) {
            Some(Said::Accepted { slice: taken }) => *taken == slice,
            Some(Said::Reset { slices, .. }) => slices.iter().any(|state| state.slice == slice),
            _ => false,
        };
        let rows = (1..).zip(&self.facts);
        rows.filter_map(move |(number, row)| says(row).then_some(number))
    }

    /// A commit became durable.
    pub fn commit(
        &mut self,
        at: Time,
        facts: Vec<Vec<u8>>,
        directives: Vec<Vec<u8>>,
        flows: &Flows,
    ) -> Vec<Wrong> {
        let mut out = Vec::new();
        self.model.slots.sure = self.sure_from.is_some_and(|from| from <= at);
        self.directives.extend(directives);
        let count = facts.len();
        for (position, bytes) in facts.into_iter().enumerate() {
            let head = self.head().then(&bytes);
            let fact = Fact::decode(head.number, &bytes).ok();
            match fact.as_ref().map(|fact| &fact.body) {
                Some(Said::SyncPaused { length, .. }) => self.silent = Some((at, *length)),
                Some(Said::SyncResumed { .. }) => self.silent = None,
                _ => {}
            }
            if let Some(fact) = &fact
                && let Err(text) = self.fold(head.number, fact, flows)
            {
                let about_slots =
                    matches!(fact.body, Said::Fired { .. } | Said::SlotsSkipped { .. });
                let invariant = if about_slots {
                    "scheduled"
                } else {
                    "explained"
                };
                out.push(wrong(invariant, format!("fact {}: {text}", head.number)));
            }
            self.facts.push(FactRow {
                bytes,
                fact,
                hash: head.hash,
                ends: position + 1 == count,
                at,
            });
        }
        if count == 0 {
            self.catch_up(self.last_directive());
        }
        out
    }

    fn catch_up(&mut self, seen: u64) {
        while self.model.directives < seen.min(self.last_directive()) {
            let next = self.model.directives.max(self.directives_base) + 1;
            let bytes = &self.directives[(next - self.directives_base) as usize - 1];
            self.model.directive(next, bytes);
        }
    }

    fn fold(&mut self, number: u64, fact: &Fact, flows: &Flows) -> Result<(), String> {
        if fact.seen > self.last_directive() {
            return Err(format!(
                "it saw directive {}, which is not there",
                fact.seen
            ));
        }
        self.catch_up(fact.seen);
        if let shared::fact::Body::Started { attempt } = &fact.body {
            self.starts.insert(*attempt, number);
        }
        self.model.fact(fact, flows)
    }

    /// The fold of its facts up to this number.
    #[must_use]
    pub fn model_at(&self, number: u64, flows: &Flows) -> Cow<'_, Model> {
        if number >= self.facts.len() as u64 {
            return Cow::Borrowed(&self.model);
        }
        let mut beginning = Self::new(self.log);
        beginning.directives.clone_from(&self.directives);
        beginning.directives_base = self.directives_base;
        for (number, row) in (1..=number).zip(&self.facts) {
            // what is impossible about it was told when it became durable
            let folded = row.fact.as_ref().map(|f| beginning.fold(number, f, flows));
            drop(folded);
        }
        Cow::Owned(beginning.model)
    }

    /// A commit ended without a word: the next start tells whether it is there.
    pub fn unknown(&mut self, facts: Vec<Vec<u8>>, directives: Vec<Vec<u8>>, pruned: Option<u64>) {
        self.open = Some((facts, directives));
        self.maybe_pruned = self.maybe_pruned.max(pruned.unwrap_or(0));
    }

    /// The store was read: it must hold all that was acknowledged, and nothing else but an open
    /// commit.
    pub fn loaded(&mut self, at: Time, found: Head, directives: u64, flows: &Flows) -> Vec<Wrong> {
        let mut out = Vec::new();
        if let Some((facts, wanted)) = self.open.take() {
            let grown = self.head().then_all(&facts);
            let more = self.last_directive() + wanted.len() as u64;
            if found == grown && directives == more && (!facts.is_empty() || !wanted.is_empty()) {
                out = self.commit(at, facts, wanted, flows);
            }
        }
        if found != self.head() {
            let text = format!(
                "facts up to {} are there, {} were durable",
                found.number,
                self.head().number
            );
            out.push(wrong("acknowledged_is_durable", text));
        }
        if directives != self.last_directive() {
            let text = format!(
                "directives up to {directives} are there, {} were durable",
                self.last_directive()
            );
            out.push(wrong("acknowledged_is_durable", text));
        }
        out
    }

    /// Compares the facts that a disk holds with those that were made durable.
    #[must_use]
    pub fn compare(&self, entries: &[(u64, Vec<u8>)]) -> Option<Wrong> {
        entries.iter().find_map(|(number, bytes)| {
            let known = self.facts.get(*number as usize - 1).map(|row| &row.bytes);
            (known != Some(bytes)).then(|| {
                wrong(
                    "acknowledged_is_durable",
                    format!("fact {number} on the disk is not the one that was committed"),
                )
            })
        })
    }
}

/// An assignment that the coordinator wrote.
#[derive(Debug, Clone)]
pub struct Assigned {
    /// To whom.
    pub log: LogId,
    /// Its number among that log's directives.
    pub number: u64,
    /// The slice.
    pub slice: SliceRef,
    /// Its tasks.
    pub tasks: Vec<TaskIdx>,
}

/// Facts that the coordinator never recorded, as their node declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// The last one before them.
    pub known: u64,
    /// The last one of them.
    pub to: Head,
}

/// What is durable at the coordinator.
#[derive(Debug, Clone, Default)]
pub struct CloudTruth {
    /// Versions of the aggregates.
    pub versions: BTreeMap<AggregateId, u64>,
    /// The last fact of each log.
    pub heads: BTreeMap<LogId, Head>,
    /// The last directive of each log.
    pub directives: BTreeMap<LogId, Head>,
    /// All assignments, in the order in which they were written.
    pub assigned: Vec<Assigned>,
    /// A commit of which nobody knows the end.
    pub open: Vec<Transaction>,
    /// Highest epoch of each task.
    pub epochs: BTreeMap<(RunId, TaskIdx), (u64, LogId)>,
    /// Former owners of tasks that were assigned again, since the world looked.
    pub former: Vec<LogId>,
    /// Runs whose submission was acknowledged.
    pub promised: BTreeSet<RunId>,
    /// Facts that were acknowledged before they were durable: not wrong until somebody hears it.
    pub early: BTreeSet<(LogId, u64)>,
    /// Runs that were forgotten everywhere.
    pub buried: BTreeSet<RunId>,
    /// Those that the world did not look at.
    pub new_buried: Vec<RunId>,
    /// Those of the coordinator's present turn: it may have answered before it forgot them.
    pub buried_now: Vec<RunId>,
    /// Slices that some node was told to give up.
    pub releases: BTreeSet<SliceRef>,
    /// Runs that some node was told to forget.
    pub forgets: BTreeSet<RunId>,
    /// Those that the world did not look at, with whose logs.
    pub new_forgets: Vec<(LogId, RunId)>,
    /// Facts of each log up to which the records may be gone.
    pub pruned: BTreeMap<LogId, u64>,
    /// How often facts went since the world looked.
    pub new_pruned: u64,
    /// Facts of each log behind which the records go on although there are none before.
    pub holes: BTreeMap<LogId, Vec<Hole>>,
    /// Those that the world did not look at.
    pub new_holes: Vec<(LogId, Hole)>,
    /// Old runs stand still after a restore.
    pub held: bool,
    /// The schedules.
    pub schedules: BTreeMap<ScheduleId, Schedule>,
    /// What became of the slots that the coordinator fires.
    pub slots: crate::check::scheduled::Fires,
    /// What is durable of the record.
    pub record: crate::check::recorded::Recorded,
}

impl CloudTruth {
    /// A commit went through.
    pub fn commit(&mut self, ended: Ended, transactions: Vec<Transaction>) -> Vec<Wrong> {
        match ended {
            Ended::Refused => Vec::new(),
            Ended::Unknown => {
                self.open = transactions;
                Vec::new()
            }
            Ended::Done => {
                self.slots.asked = crate::check::scheduled::asked(&transactions);
                transactions.iter().flat_map(|tx| self.apply(tx)).collect()
            }
        }
    }

    fn apply(&mut self, tx: &Transaction) -> Vec<Wrong> {
        let mut out = Vec::new();
        let version = self.versions.get(&tx.aggregate).copied().unwrap_or(0);
        if tx.expected != version {
            let text = format!(
                "{:?} has version {} in the store, {version} was durable",
                tx.aggregate, tx.expected
            );
            out.push(wrong("acknowledged_is_durable", text));
        }
        self.versions.insert(tx.aggregate, tx.expected + 1);
        out.extend(self.record.apply(tx));
        if tx.aggregate == AggregateId::Fleet {
            let fleet = shared::codec::decode_extended::<Fleet>(&tx.head);
            self.held = fleet.is_ok_and(|fleet| fleet.hold.is_some());
        }
        if let AggregateId::Schedule(id) = tx.aggregate {
            out.extend(self.schedule(id, tx));
            if tx.prune.contains(&Prune::Aggregate) {
                self.versions.remove(&tx.aggregate);
                self.schedules.remove(&id);
            }
        }
        for segment in &tx.facts {
            out.extend(self.segment(segment));
        }
        out.extend(self.leaves(tx));
        if let Some((log, above)) = tx.truncate {
            self.assigned
                .retain(|one| one.log != log || one.number <= above);
        }
        for (log, entry) in &tx.directives {
            out.extend(self.entry(*log, entry));
        }
        out
    }

    /// What goes with a transaction.
    fn leaves(&mut self, tx: &Transaction) -> Option<Wrong> {
        for prune in &tx.prune {
            match *prune {
                Prune::Facts(log, upto) => {
                    let pruned = self.pruned.entry(log).or_insert(0);
                    *pruned = upto.max(*pruned);
                    self.new_pruned += 1;
                }
                Prune::Aggregate => {
                    self.versions.remove(&tx.aggregate);
                    if let AggregateId::Schedule(id) = tx.aggregate {
                        self.schedules.remove(&id);
                    }
                }
                _ => {}
            }
        }
        let AggregateId::Run(run) = tx.aggregate else {
            return None;
        };
        let workflow = tx.rows.iter().rev().find(|(name, _)| name == "w");
        match workflow? {
            (_, None) => {
                self.buried.insert(run);
                self.new_buried.push(run);
                None
            }
            (_, Some(_)) => self.buried.contains(&run).then(|| {
                let text = format!("run {run} was forgotten and is there again");
                wrong("forgotten", text)
            }),
        }
    }

    fn schedule(&mut self, id: ScheduleId, tx: &Transaction) -> Vec<Wrong> {
        let Ok(new) = shared::codec::decode_extended::<Schedule>(&tx.head) else {
            return vec![wrong("scheduled", format!("{id} cannot be read"))];
        };
        let old = self.schedules.insert(id, new.clone()).unwrap_or_default();
        self.slots.apply(id, (&old, &new), tx)
    }

    fn segment(&mut self, segment: &cloud_core::store::Segment) -> Option<Wrong> {
        let origin = Head::origin(segment.log.node, segment.log.incarnation, Direction::Up);
        let known = self.heads.get(&segment.log).copied().unwrap_or(origin);
        self.heads.insert(segment.log, segment.head);
        if segment.after.number > known.number {
            // whether there is one is judged by who knows both sides
            let (known, to) = (known.number, segment.after);
            let hole = Hole { known, to };
            self.holes.entry(segment.log).or_default().push(hole);
            self.new_holes.push((segment.log, hole));
        } else if segment.after != known {
            return Some(wrong(
                "applied_once_in_order",
                format!(
                    "facts from {} were recorded behind {}",
                    segment.after.number, known.number
                ),
            ));
        }
        (segment.after.then_all(segment.entries.iter()) != segment.head).then(|| {
            wrong(
                "applied_once_in_order",
                format!("facts up to {} do not make their hash", segment.head.number),
            )
        })
    }

    fn entry(&mut self, log: LogId, entry: &cloud_core::store::Entry) -> Option<Wrong> {
        self.directives.insert(log, entry.head);
        let number = entry.head.number;
        let directive = Directive::decode(number, &entry.bytes).ok()?;
        let assign = match directive.body {
            Wanted::Assign(assign) => assign,
            Wanted::Release { slice } => {
                self.releases.insert(slice);
                return None;
            }
            Wanted::Forget { run } => {
                self.forgets.insert(run);
                self.new_forgets.push((log, run));
                return None;
            }
            _ => return None,
        };
        let epoch = assign.slice.epoch.0;
        let mut old = None;
        for task in &assign.tasks {
            let key = (assign.slice.run, *task);
            let last = self.epochs.entry(key).or_insert((0, log));
            // after a reset of the log the same assignment is said again
            if last.0 > epoch || last.0 == epoch && last.1 != log {
                old = Some(last.0);
            }
            if last.0 != 0 && last.0 < epoch {
                self.former.push(last.1);
            }
            *last = (epoch, log);
        }
        let text = old.map(|last| format!("{:?} was assigned behind epoch {last}", assign.slice));
        self.assigned.push(Assigned {
            log,
            number,
            slice: assign.slice,
            tasks: assign.tasks,
        });
        text.map(|text| wrong("one_owner", text))
    }

    /// Who owns `task` of `run` now, by the highest epoch.
    #[must_use]
    pub fn owner(&self, run: RunId, task: TaskIdx) -> Option<&Assigned> {
        self.assigned
            .iter()
            .filter(|one| one.slice.run == run && one.tasks.binary_search(&task).is_ok())
            .max_by_key(|one| one.slice.epoch)
    }
}

/// A process of a task.
#[derive(Debug, Clone)]
pub struct Ran {
    /// On which machine.
    pub machine: usize,
    /// Which branch of history wrote its start.
    pub life: usize,
    /// Which attempt.
    pub attempt: AttemptRef,
    /// Since when.
    pub from: Time,
    /// Until when.
    pub to: Option<Time>,
    /// Its end was seen by its agent.
    pub seen: bool,
    /// How it ended, unless it was killed together with its machine.
    pub end: Option<Reason>,
}
