//! The node aggregate: who may speak for the node, how far its facts are recorded, and its
//! directive log.

use crate::certificate::{Certificate, RevokedKeys};
use crate::effects::Effects;
use crate::inbox::{Message, Post};
use crate::offered::{Decoded, Offered};
use crate::store::{AggregateId, Entry, Prune, Segment};
use crate::trust::Trust;
use serde::{Deserialize, Serialize};
use shared::config::scheduler::Scheduler;
use shared::directive::{Body, Directive};
use shared::explain::Reason;
use shared::fact::{self, Fact};
use shared::ids::{Epoch, Generation, Hash, Incarnation, NodeId, RunId, ScheduleId, SliceRef};
use shared::log::{Direction, Head, Offer};
use shared::planted::{self, Mistake};
use shared::taint::{self, Taint};
use shared::time::{Stamp, Unix};
use shared::wire::{CONFIGURE, Hello, LogId};
use shared::workflow::Resources;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Holes and unreadable entries that are remembered one by one.
const NOTES: usize = 32;
/// Rows of facts offered again that are remembered.
const REPEATS: usize = 64;

/// State of a node aggregate.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its labels, as it says them: at each hello, and before the first one as it was enrolled.
    pub labels: BTreeMap<String, String>,
    /// What it offers in all, once it was heard.
    pub capacity: Resources,
    /// Raised with each session; a stale session's writes carry an older one.
    pub claim: u64,
    /// Number of the last accepted session.
    pub session: u64,
    /// The life of its data directory; none until it is heard for the first time.
    pub incarnation: Option<Incarnation>,
    /// Former incarnations and the last fact of each that counts.
    pub closed: BTreeMap<Incarnation, u64>,
    /// This incarnation went back or forked: a successor that names it is welcome.
    pub fenced: Option<Incarnation>,
    /// A token to replace it was used: a new incarnation is welcome.
    pub replace: bool,
    /// A second machine spoke for it, or it is otherwise in question: since when, why.
    pub suspect: Option<(Unix, String)>,
    /// A person declared it gone: when, who.
    pub forgotten: Option<(Unix, String)>,
    /// It takes no new work.
    pub draining: bool,
    /// Everything it has was asked for and is not here yet.
    pub inventory_wanted: bool,
    /// The last fact that is recorded.
    pub facts: Head,
    /// Edge time of that fact.
    pub facts_at: Option<Stamp>,
    /// The last directive of the log for it.
    pub directives: Head,
    /// The last directive that it confirmed.
    pub confirmed: u64,
    /// Runs whose workflow this incarnation was given.
    pub workflows: BTreeSet<RunId>,
    /// Its slices that are not final.
    pub slices: BTreeMap<(RunId, u32), Epoch>,
    /// Holes and unreadable entries, for people.
    pub notes: Vec<String>,
    /// How many notes were dropped.
    pub notes_dropped: u64,
    /// When it was last heard, as of the last commit that had another reason.
    pub heard: Option<Unix>,
    /// Messages.
    pub post: Post,
    /// Facts that were offered again though they were recorded (first and last), newest last: the
    /// node did not hear of their acknowledgement, or did not keep it. They change nothing.
    pub repeats: VecDeque<(Incarnation, u64, u64)>,
    /// It names directives that are not known here, without proof.
    pub unproven: bool,
    /// A person let that pass: its word is taken at the next hello.
    pub believed: bool,
    /// Its slices that it has taken over.
    pub accepted: BTreeSet<(RunId, u32)>,
    /// Runs that it shall forget, and the directive that says so.
    pub forgets: BTreeMap<RunId, u64>,
    /// Directives up to here are not kept any more.
    pub pruned: u64,
    /// Facts of this incarnation up to here are not kept any more.
    pub facts_pruned: u64,
    /// The certificate that speaks for it; none before it was heard by a version that asks.
    pub certificate: Option<Certificate>,
    /// Keys that spoke for it and may not any more.
    pub revoked: RevokedKeys,
    /// The last fact of this incarnation that is also in a finished backup.
    pub safe: u64,
    /// Features of its last hello.
    pub features: u64,
    /// The settings that its log of directives ends with.
    pub settings: Scheduler,
    /// The directive that said so; 0 for none.
    pub settings_by: u64,
    /// What was asked of schedules and is not answered, by directive: which, order, epoch.
    pub orders: BTreeMap<u64, (ScheduleId, u64, Epoch)>,
    /// A person keeps new work off it: since when, who.
    pub cordoned: Option<(Unix, String)>,
    /// What a person said of its labels, over what it says itself; none takes a label away.
    pub set_labels: BTreeMap<String, Option<String>>,
    /// Taints that a person gave it, besides those that it tells.
    pub set_taints: Vec<Taint>,
    /// How attempts ended there lately.
    pub trust: Trust,
    /// A person at the node let nothing be sent, as far as its recorded facts say: who, since when,
    /// when it ends by itself.
    pub sync_paused: Option<(String, Unix, Option<Unix>)>,
    /// Runs whose workflow this incarnation was given in the format of the first release, and the
    /// hash of that.
    pub older: BTreeMap<RunId, Hash>,
    /// Its log was taken up behind directives that are not known here: it may follow settings that
    /// one of them told, and is told again, also that nothing is set.
    pub settings_unknown: bool,
    /// Since when a key speaks for it that neither a token nor a person let in: it showed a younger
    /// certificate than the one known here.
    pub unconfirmed_key: Option<Unix>,
    /// Facts up to here were there when it was asked for its inventory: it counts as heard when
    /// they are recorded, too. 0 if none are missing.
    pub owes: u64,
    /// The last fact that was recorded when old runs were held last, and its edge time: what came
    /// behind it waits for the end of the hold where it is about those.
    pub held_from: (u64, Option<Unix>),
    /// A person let its word pass: what its next inventory claims counts, although nothing proves
    /// that this store forgot it.
    pub word_taken: bool,
    /// First fact of each incarnation that names a run which is not forgotten; stored in rows.
    #[serde(skip)]
    pub named: BTreeMap<(Incarnation, RunId), u64>,
}

/// What became of facts that were offered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ingested {
    /// Recorded (or known before): to be acknowledged.
    Recorded,
    /// Facts from this number on are wanted first.
    Want(u64),
    /// Another history.
    Fork(u64),
}

impl Node {
    /// The log of its incarnation.
    #[must_use]
    pub fn log(&self, node: NodeId) -> Option<LogId> {
        self.incarnation
            .map(|incarnation| LogId { node, incarnation })
    }

    /// Whether it has slices of a run that are not final.
    #[must_use]
    pub fn has_slices(&self, run: RunId) -> bool {
        let mut slices = self.slices.range((run, 0)..=(run, u32::MAX));
        slices.next().is_some()
    }

    /// Whether it may be given work, sessions apart.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.forgotten.is_none() && self.incarnation.is_some()
    }

    /// Why a person keeps new work off it.
    #[must_use]
    pub fn closed_by(&self) -> Option<String> {
        let Self { name, .. } = self;
        match &self.cordoned {
            _ if self.draining => Some(format!("{name} is drained")),
            Some((_, by)) => Some(format!("{name} is cordoned by {by}")),
            None => None,
        }
    }

    /// Its labels: what it says, overlaid by what a person says.
    #[must_use]
    pub fn all_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        labels.retain(|name, _| !name.starts_with(taint::LABEL));
        for (name, value) in &self.set_labels {
            match value {
                Some(value) => labels.insert(name.clone(), value.clone()),
                None => labels.remove(name),
            };
        }
        labels
    }

    /// Its taints, told by itself or given by a person.
    #[must_use]
    pub fn taints(&self) -> Vec<Taint> {
        let told = taint::among(&self.labels).into_iter();
        let mut all: Vec<Taint> = told.chain(self.set_taints.iter().cloned()).collect();
        all.sort();
        all.dedup();
        all
    }

    /// Takes up a hello that was accepted, of the `same` process as the one before or of another: a
    /// new claim.
    pub fn accept(&mut self, hello: &Hello, same: bool) {
        self.claim += 1;
        // an inventory whose facts did not come may be that of a copy of the disk, which is gone
        self.inventory_wanted |= self.owes > 0 && !same;
        self.session = hello.session;
        self.believed = false;
        self.capacity = hello.capacity.clone();
        self.features = hello.features;
        self.owes = match self.inventory_wanted {
            true => hello.facts.number,
            // its disk may have gone back meanwhile
            false => self.owes.min(hello.facts.number),
        };
        self.labels.clone_from(&hello.labels);
        let told = hello.ack.map_or(0, |ack| ack.head.number);
        self.repeated(told, self.facts.number.min(hello.facts.number));
    }

    /// Notes that facts behind `after`, up to `last`, were offered again.
    fn repeated(&mut self, after: u64, last: u64) {
        let Some(incarnation) = self.incarnation.filter(|_| after < last) else {
            return;
        };
        if self.repeats.len() >= REPEATS {
            self.repeats.pop_front();
        }
        self.repeats.push_back((incarnation, after + 1, last));
    }

    /// Begins a life of its data directory: both logs start at their origin.
    pub fn begin_incarnation(&mut self, node: NodeId, incarnation: Incarnation) {
        self.incarnation = Some(incarnation);
        self.facts = Head::origin(node, incarnation, Direction::Up);
        self.facts_at = None;
        self.directives = Head::origin(node, incarnation, Direction::Down);
        self.confirmed = 0;
        (self.unproven, self.believed) = (false, false);
        (self.pruned, self.facts_pruned, self.safe) = (0, 0, 0);
        (self.settings, self.settings_by) = (Scheduler::default(), 0);
        (self.settings_unknown, self.word_taken) = (false, false);
        self.sync_paused = None;
        (self.owes, self.held_from) = (0, (0, None));
        self.accepted.clear();
        self.workflows.clear();
        self.older.clear();
        self.slices.clear();
    }

    /// Closes the incarnation at its last recorded fact and begins another one.
    pub fn succeed(&mut self, node: NodeId, incarnation: Incarnation, fx: &mut Effects) {
        if let Some(old) = self.incarnation {
            self.closed.insert(old, self.facts.number);
            self.lose(node, old, Reason::NodeReimaged, fx);
            drop_directives(node, old, fx);
        }
        self.fenced = None;
        self.replace = false;
        self.suspect = None;
        self.inventory_wanted = false;
        self.begin_incarnation(node, incarnation);
    }

    fn lose(&mut self, node: NodeId, incarnation: Incarnation, why: Reason, fx: &mut Effects) {
        // also the runs whose slices are over here: what they made may lie nowhere else
        let named = self.named.keys().filter(|(life, _)| *life == incarnation);
        let named = named.map(|(_, run)| *run);
        let runs: BTreeSet<RunId> = self
            .slices
            .keys()
            .map(|(run, _)| *run)
            .chain(named)
            .collect();
        for run in runs {
            let message = Message::NodeLost {
                node,
                incarnation,
                why,
            };
            fx.send(&mut self.post, AggregateId::Run(run), message);
        }
        self.slices.clear();
        self.accepted.clear();
        for run in std::mem::take(&mut self.forgets).into_keys() {
            self.has_forgotten(node, run, fx);
        }
    }

    /// A person declares it gone.
    pub fn forget(&mut self, node: NodeId, at: Unix, by: &str, fx: &mut Effects) {
        self.forgotten = Some((at, by.to_owned()));
        if let Some(known) = self.certificate {
            self.revoke(
                known.key,
                at,
                &format!("the node was declared gone by {by}"),
            );
        }
        self.inventory_wanted = false;
        if let Some(incarnation) = self.incarnation {
            self.lose(node, incarnation, Reason::NodeForgotten, fx);
            drop_directives(node, incarnation, fx);
        }
    }

    /// The incarnation went back or forked: it is fenced, and may present a successor.
    pub fn fence(&mut self) {
        self.fenced = self.incarnation;
    }

    /// Remembers something that a person may want to know.
    pub fn note(&mut self, text: String) {
        if self.notes.len() < NOTES {
            self.notes.push(text);
        } else {
            self.notes_dropped += 1;
        }
    }

    /// Says, for people, that an incarnation ended because its gateway lost the whole store.
    pub fn note_cut(&mut self, old: Incarnation) {
        let last = self.closed.get(&old).copied().unwrap_or(0);
        self.note(format!(
            "incarnation {old} ended at fact {last}: its gateway's store is gone; what was not \
             acknowledged is lost"
        ));
    }

    /// Tells the fleet that the node was heard, when its inventory and all the facts are here that
    /// it had when that was asked for. One alone says too little: what it ended may lie in the
    /// facts, and be done again elsewhere if it falls silent before it sends them.
    pub fn tell_heard(&mut self, node: NodeId, fx: &mut Effects) {
        let whole = self.facts.number >= self.owes || planted::on(Mistake::HeardByInventory);
        if whole && !self.inventory_wanted {
            self.owes = 0;
            fx.send(&mut self.post, AggregateId::Fleet, Message::Heard { node });
        }
    }

    /// Records facts. What is new is also read, for those who fold it.
    pub fn ingest(
        &mut self,
        node: NodeId,
        mut batch: Offered,
        fx: &mut Effects,
    ) -> (Ingested, Decoded) {
        let Some(log) = self.log(node) else {
            return (Ingested::Want(1), Vec::new());
        };
        match batch.offer(self.facts) {
            Offer::Duplicate if planted::on(Mistake::FoldTwice) => {
                let first = batch.after.number + 1;
                self.record(log, (first, batch.last()), &batch.facts, fx);
                (Ingested::Recorded, Vec::new())
            }
            Offer::Duplicate => (Ingested::Recorded, Vec::new()),
            Offer::Fork(number) => {
                self.fence();
                (Ingested::Fork(number), Vec::new())
            }
            Offer::Gap(number) => match self.bridge(node, &batch, fx) {
                true => {
                    self.facts = batch.after;
                    self.ingest(node, batch, fx)
                }
                false => (Ingested::Want(number), Vec::new()),
            },
            Offer::New(position, head) => {
                let known = self.facts.number;
                self.repeated(batch.after.number, known);
                if position > 0 {
                    batch.entries = batch.entries.iter().skip(position).collect();
                    batch.facts.retain(|(number, _)| *number > known);
                    batch.packed = None;
                }
                let segment = Segment {
                    log,
                    after: self.facts,
                    head,
                    entries: batch.entries,
                    packed: batch.packed,
                };
                self.record(log, (known + 1, head.number), &batch.facts, fx);
                self.facts = head;
                fx.facts.push(segment);
                (Ingested::Recorded, batch.facts)
            }
        }
    }

    /// Whether the batch begins with a reset fact that declares all that lies between as gone. What
    /// was begun in between is known by its workflow only, which the inventory brings.
    fn bridge(&mut self, node: NodeId, batch: &Offered, fx: &mut Effects) -> bool {
        let number = batch.after.number + 1;
        let first = batch.facts.first().filter(|(n, _)| *n == number);
        let Some(fact::Body::Reset { from, to, why, .. }) = first.map(|(_, fact)| &fact.body)
        else {
            return false;
        };
        let (from, to) = (*from, *to);
        let wanted = self.facts.number + 1;
        if from > wanted || to < batch.after.number {
            return false;
        }
        self.note(format!("facts {wanted} to {to} are gone: {why}"));
        // that sending goes on again may be among them; a node that sends is not paused
        self.sync_paused = None;
        fx.send(
            &mut self.post,
            AggregateId::Node(node),
            Message::AskInventory,
        );
        true
    }

    /// Takes in new facts, numbered `first` to `last`, and sends each run the numbers of those that
    /// name it.
    fn record(
        &mut self,
        log: LogId,
        (first, last): (u64, u64),
        facts: &[(u64, Fact)],
        fx: &mut Effects,
    ) {
        let mut rows: BTreeMap<RunId, Vec<(u64, u64)>> = BTreeMap::new();
        let (mut next, mut named) = (first, None);
        for (number, fact) in facts {
            let number = *number;
            self.note_unreadable(next..number);
            next = number + 1;
            self.facts_at = Some(fact.at);
            self.follow_sync(fact);
            if let fact::Body::Accepted { slice } = &fact.body {
                self.accepted.insert((slice.run, slice.slice));
            }
            // with its last slice of a run a node lets its workflow go
            if let fact::Body::Released { slice, .. }
            | fact::Body::Refused {
                slice: Some(slice), ..
            } = &fact.body
            {
                self.workflows.remove(&slice.run);
                self.older.remove(&slice.run);
            }
            // what a gateway runs of its own, or again because a person said so, is lost with it
            // like what it was given
            if let fact::Body::Submitted { slice, .. }
            | fact::Body::Fired { slice, .. }
            | fact::Body::Moved {
                slice,
                reason: Reason::ResumedByPerson,
                ..
            } = &fact.body
            {
                self.slices.insert((slice.run, slice.slice), slice.epoch);
            }
            self.tell_schedule(log, fact, fx);
            if let fact::Body::Reset { slices, .. } = &fact.body {
                // what is not named behind a hole was given up in it
                let told = slices.iter().map(|state| state.slice.run);
                let had = self.slices.keys().map(|(run, _)| *run);
                for run in told.chain(had).collect::<BTreeSet<RunId>>() {
                    self.name_run(log.incarnation, run, number, fx);
                    lengthen(rows.entry(run).or_default(), number);
                }
            } else if let Some(run) = fact.body.run() {
                // mostly that of the fact before
                if named != Some(run) {
                    self.name_run(log.incarnation, run, number, fx);
                    named = Some(run);
                }
                lengthen(rows.entry(run).or_default(), number);
            }
            if let fact::Body::Dropped { class, count, why } = &fact.body {
                self.note(format!("{count} {class} were dropped: {why}"));
            }
        }
        self.note_unreadable(next..last + 1);
        for (run, ranges) in rows {
            let message = Message::Facts { log, ranges };
            fx.send(&mut self.post, AggregateId::Run(run), message);
        }
    }

    /// Notes that a person at the node let nothing be sent from this fact on, or again.
    fn follow_sync(&mut self, fact: &Fact) {
        match &fact.body {
            fact::Body::SyncPaused { by, length } => {
                let length = length.map(|length| i64::try_from(length.0).unwrap_or(i64::MAX));
                let until = length.map(|length| Unix(fact.at.wall.0.saturating_add(length)));
                self.sync_paused = Some((by.clone(), fact.at.wall, until));
            }
            fact::Body::SyncResumed { .. } => self.sync_paused = None,
            _ => {}
        }
    }

    fn note_unreadable(&mut self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.note(format!(
                "fact {number} cannot be read by this version; its bytes are kept"
            ));
        }
    }

    /// Tells a schedule what a fact says of it.
    fn tell_schedule(&mut self, log: LogId, fact: &Fact, fx: &mut Effects) {
        use fact::Body;
        let (schedule, body) = match &fact.body {
            Body::Fired { schedule, .. }
            | Body::SlotsSkipped { schedule, .. }
            | Body::ScheduleAsked { schedule, .. } => (*schedule, fact.body.clone()),
            Body::ScheduleDone {
                schedule, order, ..
            } => {
                let answered = (*schedule, *order);
                self.orders.retain(|_, (id, n, _)| (*id, *n) != answered);
                (*schedule, fact.body.clone())
            }
            // an agent that knows no schedules
            Body::Refused {
                directive,
                slice: None,
                reason,
                text,
            } => match self.orders.remove(directive) {
                Some((schedule, order, epoch)) => {
                    let refused = Body::ScheduleDone {
                        schedule,
                        epoch,
                        order,
                        cursor: Unix(0),
                        refused: Some((*reason, text.clone())),
                    };
                    (schedule, refused)
                }
                None => return,
            },
            _ => return,
        };
        let (at, body) = (fact.at.wall, Box::new(body));
        let message = Message::ScheduleFact { log, at, body };
        fx.send(&mut self.post, AggregateId::Schedule(schedule), message);
    }

    /// Appends a directive to the log.
    pub fn append(
        &mut self,
        node: NodeId,
        at: Unix,
        generation: Generation,
        body: Body,
        fx: &mut Effects,
    ) {
        let Some(log) = self.log(node) else { return };
        let directive = Directive {
            at,
            generation,
            body,
        };
        let bytes = directive.encode();
        self.directives = self.directives.then(&bytes);
        let entry = Entry {
            head: self.directives,
            bytes,
        };
        fx.directives.push((log, entry));
    }

    /// Tells it settings that differ from those that its log ends with. An agent of the first
    /// release does not know the directive, and is told after its upgrade.
    pub fn configure(
        &mut self,
        node: NodeId,
        now: (Unix, Generation),
        settings: Scheduler,
        fx: &mut Effects,
    ) {
        self.append(node, now.0, now.1, Body::Configure(settings), fx);
        self.settings = settings;
        self.settings_by = self.directives.number;
        self.settings_unknown = false;
    }

    /// Whether it is to be told these settings.
    #[must_use]
    pub fn wants(&self, settings: Scheduler) -> bool {
        let knows = self.features & CONFIGURE != 0;
        let told = match self.settings_by {
            _ if self.settings_unknown => false,
            0 => settings.is_empty() && self.settings.is_empty(),
            _ => self.settings == settings,
        };
        knows && !told && self.forgotten.is_none() && self.incarnation.is_some()
    }

    /// Goes on behind the agent's last directive, after this log lost entries or forked.
    pub fn reset_directives(
        &mut self,
        node: NodeId,
        now: (Unix, Generation),
        theirs: Head,
        why: &str,
        fx: &mut Effects,
    ) {
        let Some(log) = self.log(node) else { return };
        fx.directives.clear();
        fx.truncate = Some((log, 0));
        self.directives = theirs;
        self.confirmed = theirs.number;
        self.pruned = theirs.number;
        self.workflows.clear();
        self.older.clear();
        // what it was told about settings may be lost with the rest, here or there
        self.settings_by = 0;
        self.settings_unknown = true;
        let slices = self
            .slices
            .iter()
            .filter(|(key, _)| self.accepted.contains(key))
            .map(|((run, slice), epoch)| SliceRef {
                run: *run,
                slice: *slice,
                epoch: *epoch,
            })
            .collect();
        let body = Body::Reset {
            why: why.to_owned(),
            slices,
        };
        self.append(node, now.0, now.1, body, fx);
        let runs: BTreeSet<RunId> = self.slices.keys().map(|(run, _)| *run).collect();
        for run in runs {
            fx.send(
                &mut self.post,
                AggregateId::Run(run),
                Message::Repeat { log },
            );
        }
        let schedules: BTreeSet<ScheduleId> = self.orders.values().map(|(id, ..)| *id).collect();
        self.orders.clear();
        for schedule in schedules {
            let to = AggregateId::Schedule(schedule);
            fx.send(&mut self.post, to, Message::RepeatSchedule);
        }
        let forgets: Vec<RunId> = self.forgets.keys().copied().collect();
        for run in forgets {
            self.append(node, now.0, now.1, Body::Forget { run }, fx);
            self.forgets.insert(run, self.directives.number);
        }
    }

    /// Forgets a slice that is over, and where a run's messages stand with its last one.
    pub fn close_slice(&mut self, slice: SliceRef) {
        let key = (slice.run, slice.slice);
        // its number may have been drawn again, for another slice of this node
        if self
            .slices
            .get(&key)
            .is_some_and(|epoch| *epoch > slice.epoch)
        {
            return;
        }
        self.slices.remove(&key);
        self.accepted.remove(&key);
        if !self.slices.keys().any(|(run, _)| *run == slice.run) {
            self.post.cursors.remove(&AggregateId::Run(slice.run));
        }
    }
}

/// Nobody will ask for the directives of this life again; each may carry a whole workflow.
fn drop_directives(node: NodeId, incarnation: Incarnation, fx: &mut Effects) {
    let log = LogId { node, incarnation };
    fx.prune.push(Prune::Directives(log, u64::MAX));
}

/// Adds `number`, which is not below the last one, to rows of numbers.
fn lengthen(ranges: &mut Vec<(u64, u64)>, number: u64) {
    match ranges.last_mut() {
        Some((_, last)) if *last + 1 == number => *last = number,
        Some((_, last)) if *last == number => {}
        _ => ranges.push((number, number)),
    }
}
