//! Decide, commit, act: feeds events to the core, makes its records durable in one commit, and only
//! then hands out the actions. The same loop runs in the agent and in the simulator.

use crate::agent::{Agent, Effects, Entry, Post};
use crate::ages::{self, Ages};
use crate::event::{Action, Config, Event, ProcessEnd};
use crate::link::{self, Link, Phase};
use crate::pressure::HoldLimits;
use crate::snapshot;
use crate::state::{State, Touch};
use crate::store::{Commit, Store, StoreError};
use shared::codec;
use shared::directive::{Body as Wish, Directive};
use shared::fact::Fact;
use shared::ids::Hash;
use shared::limits::{BYTES_PER_COMMIT, ENTRIES_PER_COMMIT, LINGER_AHEAD_MS, LINGER_MS};
use shared::log::{Head, LAST_NUMBER, PackedBatch};
use shared::planted::{self, Mistake};
use shared::time::{Mono, Now, Span};
use shared::wire::{self, Down, Up};
use std::collections::{BTreeSet, VecDeque};

/// Commits that may fail in a row before the process must start again.
const RETRIES: u32 = 3;

/// So many facts become smaller when they are packed before they are sent.
const WORTH_PACKING: usize = 8;
/// Segments that a store packs with one snapshot at most.
const PACKED: usize = 8;

/// Why a group of events was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The commit failed. The core was thrown away and built anew from the store: the next call
    /// must begin with [`Event::Boot`] that says what is alive. Requests of this call are not
    /// answered.
    #[error("a commit failed, the state was loaded again: {0}")]
    Rebuilt(StoreError),
    /// The process must end and be started again.
    #[error("the journal cannot be used, the agent must start again: {0}")]
    Fatal(StoreError),
}

/// Drives one agent on one store.
#[derive(Debug)]
pub struct Driver<S: Store> {
    store: S,
    config: Config,
    agent: Agent,
    fx: Effects,
    /// Last entries that are durable.
    facts: Head,
    directives: Head,
    linger: Option<Mono>,
    snapshot_due: Option<Mono>,
    snapshot: (u64, u64),
    ages: Ages,
    unrecorded: Vec<ProcessEnd>,
    /// A session of the core before this one.
    orphan: Option<u64>,
    /// Commits that failed in a row.
    failures: u32,
}

struct Opened {
    agent: Agent,
    facts: Head,
    directives: Head,
    snapshot: (u64, u64),
    ages: Ages,
}

impl<S: Store> Driver<S> {
    /// Loads the snapshot and folds what came after it. Nothing acts yet; the first event given to
    /// [`Self::run`] must be [`Event::Boot`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(mut store: S, config: Config) -> Result<Self, StoreError> {
        let opened = load(&mut store, &config)?;
        Ok(Self {
            store,
            config,
            agent: opened.agent,
            fx: Effects::default(),
            facts: opened.facts,
            directives: opened.directives,
            linger: None,
            snapshot_due: None,
            snapshot: opened.snapshot,
            ages: opened.ages,
            unrecorded: Vec::new(),
            orphan: None,
            failures: 0,
        })
    }

    /// Decides on all events in order, commits once (terminal facts that nobody waits for may stay
    /// for a few milliseconds, see `limits::LINGER_MS` and [`Self::next_wakeup`]), then acts.
    /// Actions that rest only on records committed earlier are handed out before the commit.
    ///
    /// # Errors
    /// [`DriverError`]: whether the core was rebuilt or the process must end.
    pub fn run(
        &mut self,
        now: Now,
        events: Vec<Event>,
        act: &mut dyn FnMut(Action),
    ) -> Result<(), DriverError> {
        // First of all: also the ends behind one whose turn fails are not heard again.
        let prepare = |event| self.prepare(event, act);
        let events: Vec<_> = events.into_iter().map(prepare).collect();
        for event in events {
            if let Event::Room { free, .. } = event {
                self.store.note_room(free);
            }
            let known = match named_fact(&event).map(|number| self.store.fact_hash(number)) {
                None => None,
                Some(Ok(known)) => known,
                Some(Err(error)) => return Err(self.rebuild(error)),
            };
            self.agent.step(now, event, known, &mut self.fx);
        }
        self.agent.tick(now, &mut self.fx);
        self.ages.begin(now.mono);
        self.check();
        self.fx.before.drain(..).for_each(&mut *act);
        if self.must_commit(now) {
            if let Err(error) = self.commit(now) {
                if planted::on(Mistake::ConfirmBeforeCommit)
                    && let (Phase::Online(session), Some(head)) =
                        (self.agent.link.phase, self.agent.link.directives)
                {
                    let message = Up::Applied(head);
                    act(Action::Send { session, message });
                }
                return Err(self.rebuild(error));
            }
            self.act_after(act)?;
        } else if !self.fx.entries.is_empty() && self.linger.is_none() {
            let busy = !self.agent.queued.is_empty();
            let linger = if busy { LINGER_AHEAD_MS } else { LINGER_MS };
            self.linger = Some(now.mono + Span(linger));
        }
        self.plan_snapshot(now);
        self.pump(act)
    }

    /// The process is about to end: from now on nothing is started any more.
    pub fn close(&mut self) {
        self.agent.closing = true;
    }

    /// Makes durable what was decided and waits for company, and acts on it.
    ///
    /// # Errors
    /// As of [`Self::run`].
    pub fn flush(&mut self, now: Now, act: &mut dyn FnMut(Action)) -> Result<(), DriverError> {
        self.fx.hurry = true;
        self.run(now, Vec::new(), act)
    }

    /// When [`Self::run`] wants to be called again without another event.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Mono> {
        let own = [self.linger, self.snapshot_due, self.agent.link.ack_due];
        own.into_iter()
            .flatten()
            .chain(self.agent.next_timer())
            .min()
    }

    /// The agent, for views.
    #[must_use]
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// How long runs that were submitted here are kept after their end, where no coordinator
    /// decides on that.
    pub fn keep_runs(&mut self, span: Span) {
        self.agent.keep_runs = span;
    }

    /// From which pressure on new starts wait.
    pub fn hold_above(&mut self, limits: HoldLimits) {
        self.agent.hold.limits = limits;
    }

    /// Files that are no longer here.
    pub fn files_gone(&mut self, gone: &BTreeSet<Hash>) {
        self.agent.files.gone(gone);
    }

    /// The store.
    pub fn store(&mut self) -> &mut S {
        &mut self.store
    }

    /// The last durable fact and directive.
    #[must_use]
    pub fn heads(&self) -> (Head, Head) {
        (self.facts, self.directives)
    }

    /// Whether something was decided that is not durable yet (it waits for company).
    #[must_use]
    pub fn has_uncommitted(&self) -> bool {
        !self.fx.entries.is_empty()
    }

    /// Bytes that the store needs on its device for its largest commit.
    #[must_use]
    pub fn room_wanted(&self) -> u64 {
        self.store.room_needed(BYTES_PER_COMMIT)
    }

    /// Gives the store back.
    #[must_use]
    pub fn into_store(self) -> S {
        self.store
    }

    fn prepare(&mut self, mut event: Event, act: &mut dyn FnMut(Action)) -> Event {
        match &mut event {
            Event::Ended(end) => self.unrecorded.push(end.clone()),
            Event::Boot(boot) => {
                for end in self.unrecorded.drain(..) {
                    if !boot.ended.iter().any(|known| known.attempt == end.attempt) {
                        boot.ended.push(end);
                    }
                }
                for end in &boot.ended {
                    boot.alive.remove(&end.attempt);
                }
                self.unrecorded.clone_from(&boot.ended);
                if let Some(session) = self.orphan.take() {
                    act(Action::Hangup { session });
                }
            }
            _ => {}
        }
        event
    }

    fn must_commit(&self, now: Now) -> bool {
        let due = |at: Option<Mono>| at.is_some_and(|at| at <= now.mono);
        let free = self.fx.entries.is_empty() && !self.fx.after.is_empty();
        self.fx.hurry
            || free
            || due(self.linger)
            || due(self.snapshot_due)
            || due(self.agent.link.ack_due)
            || self.fx.entries.len() >= ENTRIES_PER_COMMIT
    }

    /// Makes everything decided so far durable, in as many commits as their bounds ask for.
    fn commit(&mut self, now: Now) -> Result<(), StoreError> {
        let due = |at: Option<Mono>| at.is_some_and(|at| at <= now.mono);
        let snapshot = due(self.snapshot_due);
        let calm = [link::ACK, link::DIRECTIVE_SEAL];
        let urgent = self
            .fx
            .marks
            .keys()
            .any(|name| !calm.contains(&name.as_str()));
        let ack = due(self.agent.link.ack_due);
        self.fx.hurry = false;
        self.linger = None;
        if self.fx.entries.is_empty() && !snapshot && !urgent && !ack {
            return Ok(());
        }
        let mut commit = Commit::default();
        let (mut facts, mut directives, mut bytes) = (self.facts, self.directives, 0);
        for entry in std::mem::take(&mut self.fx.entries) {
            let (Entry::Fact(data) | Entry::Directive(data)) = &entry;
            let count = commit.facts.len() + commit.directives.len();
            if count >= ENTRIES_PER_COMMIT || count > 0 && bytes + data.len() > BYTES_PER_COMMIT {
                self.store.commit(&commit)?;
                (self.facts, self.directives) = (facts, directives);
                (commit, bytes) = (Commit::default(), 0);
            }
            bytes += data.len();
            match entry {
                Entry::Fact(data) => {
                    facts = facts.then(&data);
                    commit.facts_head = Some(facts);
                    commit.facts.push(data);
                }
                Entry::Directive(data) => {
                    directives = directives.then(&data);
                    commit.directives_head = Some(directives);
                    commit.directives.push(data);
                }
            }
        }
        commit.marks = std::mem::take(&mut self.fx.marks).into_iter().collect();
        commit.details = std::mem::take(&mut self.fx.details);
        if snapshot {
            self.add_snapshot(&mut commit, now, (facts.number, directives.number));
        }
        self.store.commit(&commit)?;
        self.committed(facts, directives, &commit);
        Ok(())
    }

    fn committed(&mut self, facts: Head, directives: Head, commit: &Commit) {
        (self.facts, self.directives) = (facts, directives);
        self.agent.link.ack_due = None;
        self.unrecorded.clear();
        self.failures = 0;
        if let Some(after) = commit.snapshot {
            self.snapshot = after;
            self.snapshot_due = None;
            self.agent.dirty.clear();
            self.agent.state.rest();
        }
        if let Some(last) = commit.prune_facts {
            self.agent.link.facts_first = last + 1;
        }
    }

    fn add_snapshot(&mut self, commit: &mut Commit, now: Now, after: (u64, u64)) {
        let state = &self.agent.state;
        let row = |row: &crate::state::Row| (snapshot::name(row), snapshot::value(state, row));
        let rows: Vec<_> = self.agent.dirty.iter().map(row).collect();
        if !self.has_room_for(&rows) {
            self.snapshot_due = Some(now.mono + self.config.snapshot_interval);
            return;
        }
        commit.rows = rows;
        commit.snapshot = Some(after);
        let (facts, directives) = self.ages.note(now.mono, after, self.config.fact_window);
        let ages = codec::encode(&self.ages);
        commit.marks.push((ages::MARK.to_owned(), ages));
        if planted::on(Mistake::DropOldest) && after.0 > 40 {
            commit.prune_facts = Some(after.0 / 2).filter(|n| *n >= self.agent.link.facts_first);
            return;
        }
        if facts + directives > 0 {
            let last = facts.min(self.unneeded());
            commit.prune_facts = (last >= self.agent.link.facts_first).then_some(last);
            commit.prune_directives = Some(directives);
        }
    }

    /// The last fact that the coordinator will not ask for again: it has it, in a backup too where
    /// backups are made. Without room what is in no backup goes as well.
    fn unneeded(&self) -> u64 {
        // Without a coordinator nobody will ask; one that comes later is told of the hole.
        if !self.config.has_coordinator {
            return u64::MAX;
        }
        let link = &self.agent.link;
        let acked = link.ack.map_or(0, |ack| ack.head.number).min(link.acked);
        let scarce = !self.agent.has_room() || planted::on(Mistake::PruneWithRoom);
        let safe = link.safe.filter(|_| !scarce).unwrap_or(u64::MAX);
        acked.min(safe)
    }

    /// A snapshot waits rather than use up the room for what must be recorded.
    fn has_room_for(&self, rows: &[(String, Option<Vec<u8>>)]) -> bool {
        let size =
            |(name, row): &(String, Option<Vec<u8>>)| name.len() + row.as_ref().map_or(0, Vec::len);
        let bytes: usize = rows.iter().map(size).sum();
        // Behind it facts are packed into segments.
        let needed = self.store.room_needed(bytes + PACKED * BYTES_PER_COMMIT);
        let enough = |(free, _): (u64, u64)| free >= needed.saturating_add(self.agent.reserve());
        self.agent.room.is_none_or(enough)
    }

    fn plan_snapshot(&mut self, now: Now) {
        let pause = match self.agent.dirty.is_empty() {
            true => self.ages.beat(self.config.fact_window),
            false => Some(self.config.snapshot_interval),
        };
        let due = pause.map(|pause| now.mono + pause);
        self.snapshot_due = self.snapshot_due.into_iter().chain(due).min();
    }

    fn act_after(&mut self, act: &mut dyn FnMut(Action)) -> Result<(), DriverError> {
        for post in std::mem::take(&mut self.fx.after) {
            match post {
                Post::Act(action) => act(action),
                Post::Hello(session) => {
                    let message = self.agent.hello(session, self.facts, self.directives);
                    act(Action::Send { session, message });
                }
                Post::Applied(session) => {
                    let message = Up::Applied(self.directives);
                    act(Action::Send { session, message });
                }
                Post::Inventory(session, after) => self.begin_inventory(session, after, act)?,
            }
        }
        Ok(())
    }

    /// Begins to tell everything that this node has, or tells it at once to a coordinator that does
    /// not take it in parts.
    fn begin_inventory(
        &mut self,
        session: u64,
        after: u64,
        act: &mut dyn FnMut(Action),
    ) -> Result<(), DriverError> {
        let in_parts = self.agent.link.features & wire::INVENTORY_PARTS != 0;
        let mut known = Vec::new();
        let read = self.store.each_directive(0, &mut |number, bytes| {
            let wish = Directive::decode(number, bytes).ok();
            let wanted = |wish: &Directive| !in_parts && number > after || is_persons(&wish.body);
            known.extend(wish.filter(wanted));
        });
        if let Err(error) = read {
            return Err(self.rebuild(error));
        }
        if in_parts {
            self.agent.begin_inventory(session, known);
        } else {
            let message = self.agent.inventory(known);
            act(Action::Send { session, message });
        }
        Ok(())
    }

    /// Sends the next part of an inventory, facts while the window is open, then evidence.
    fn pump(&mut self, act: &mut dyn FnMut(Action)) -> Result<(), DriverError> {
        // Only what is durable is told.
        if self.fx.entries.is_empty()
            && let Some(part) = self.agent.next_part()
        {
            let (session, message) = (part.session, Up::InventoryPart(part));
            act(Action::Send { session, message });
        }
        while let Some((session, after)) = self.agent.link.may_send()
            && after < self.facts.number
        {
            let (message, last, bytes) = match self.next_facts(after) {
                Ok(Some(next)) if next.1 > after => next,
                Ok(_) => break,
                Err(error) => return Err(self.rebuild(error)),
            };
            self.agent.link.note_sent(last, bytes);
            act(Action::Send { session, message });
        }
        if let Some((session, after)) = self.agent.link.may_send()
            && after >= self.facts.number
            && self.fx.entries.is_empty()
        {
            let details = self.agent.notes.unsent();
            if !details.is_empty() {
                act(Action::Send {
                    session,
                    message: Up::Details(details),
                });
            }
        }
        Ok(())
    }

    /// The next facts to send behind `after`, the number of their last, and their bytes.
    fn next_facts(&mut self, after: u64) -> Result<Option<(Up, u64, usize)>, StoreError> {
        let packed = |batch: PackedBatch| {
            let (last, bytes) = (batch.head.number, batch.entries.len());
            (Up::Packed(batch), last, bytes)
        };
        let again = self.agent.link.next > 2;
        let cut = planted::on(Mistake::CutInCommit) && again;
        let may_pack = self.agent.link.features & wire::PACKED != 0 && !cut;
        if may_pack && let Some(batch) = self.store.packed_after(after)? {
            return Ok(Some(packed(batch)));
        }
        let batch = self.store.facts_after(after)?;
        Ok(batch.map(|mut batch| {
            if cut {
                batch.entries.truncate(batch.entries.len().div_ceil(2));
                batch = shared::log::Batch::new(batch.after, batch.entries);
            }
            let head = batch.head();
            if may_pack && batch.entries.len() >= WORTH_PACKING {
                return packed(PackedBatch::new(batch.after, head, &batch.entries));
            }
            let bytes = batch.entries.iter().map(Vec::len).sum();
            (Up::Facts(batch), head.number, bytes)
        }))
    }

    /// Throws the core away and builds it anew from the store.
    fn rebuild(&mut self, error: StoreError) -> DriverError {
        let full = matches!(error, StoreError::Full(_));
        if planted::on(Mistake::KeepMemory) && self.store.reopen().is_ok() {
            self.fx = Effects::default();
            return DriverError::Rebuilt(error);
        }
        self.failures += 1;
        if self.failures > if full { 1 } else { RETRIES } {
            return DriverError::Fatal(error);
        }
        let loaded = self
            .store
            .reopen()
            .and_then(|()| load(&mut self.store, &self.config));
        let opened = match loaded {
            Ok(opened) => opened,
            Err(error) => return DriverError::Fatal(error),
        };
        self.orphan = match self.agent.link.phase {
            Phase::Offline => None,
            Phase::Dialing(s) | Phase::Greeting(s) | Phase::Online(s) => Some(s),
        };
        let room = if full { Some((0, 1)) } else { self.agent.room };
        let keep_runs = self.agent.keep_runs;
        let hold = std::mem::take(&mut self.agent.hold);
        let closing = self.agent.closing;
        self.agent = opened.agent;
        self.agent.closing = closing;
        self.agent.keep_runs = keep_runs;
        self.agent.hold = hold;
        self.agent.room = room;
        (self.facts, self.directives) = (opened.facts, opened.directives);
        self.snapshot = opened.snapshot;
        self.ages = opened.ages;
        self.fx = Effects::default();
        (self.linger, self.snapshot_due) = (None, None);
        DriverError::Rebuilt(error)
    }

    #[cfg(debug_assertions)]
    fn check(&self) {
        if let Err(wrong) = self.agent.sanity_check() {
            panic!("the agent's state contradicts itself: {wrong}");
        }
    }

    #[cfg(not(debug_assertions))]
    fn check(&self) {}
}

/// Whether a person stands behind a directive: a coordinator that lost its store asks for those,
/// and after a reset of the log it cannot say which ones it lost.
fn is_persons(wish: &Wish) -> bool {
    matches!(wish, Wish::Cancel { .. } | Wish::Pause { .. })
}

/// The fact that an event names, so that the core can compare it with its own log.
fn named_fact(event: &Event) -> Option<u64> {
    match event {
        Event::Heard {
            message: Down::Welcome(welcome),
            ..
        } => Some(welcome.facts.head.number),
        Event::Heard {
            message: Down::Ack(ack),
            ..
        } => Some(ack.head.number),
        _ => None,
    }
}

fn mark<T: serde::de::DeserializeOwned>(
    marks: &[(String, Vec<u8>)],
    name: &str,
) -> Result<Option<T>, StoreError> {
    let found = marks.iter().find(|(other, _)| other == name);
    found
        .map(|(_, bytes)| codec::decode(bytes))
        .transpose()
        .map_err(|error| StoreError::Damaged(format!("mark {name}: {error}")))
}

fn load<S: Store>(store: &mut S, config: &Config) -> Result<Opened, StoreError> {
    let loaded = store.load()?;
    let mut state = snapshot::read(store, loaded.snapshot)?;
    let mut touch = Touch::default();
    fold(store, &mut state, loaded.snapshot, &mut touch)?;
    if (state.facts, state.directives) != (loaded.facts.number, loaded.directives.number) {
        let text = format!(
            "its logs end at {} and {}, entries were found up to {} and {}",
            loaded.facts.number, loaded.directives.number, state.facts, state.directives
        );
        return Err(StoreError::Damaged(text));
    }
    let damaged = |name: &str| StoreError::Damaged(format!("mark {name} was never written so"));
    let reserved = mark(&loaded.marks, link::SESSIONS)?.unwrap_or(1);
    let ages: Ages = mark(&loaded.marks, ages::MARK)?.unwrap_or_default();
    if reserved > LAST_NUMBER {
        // sessions are counted on from it
        return Err(damaged(link::SESSIONS));
    }
    if !ages.follow() {
        return Err(damaged(ages::MARK));
    }
    let ack: Option<wire::Ack> = mark(&loaded.marks, link::ACK)?;
    let link = Link {
        next: reserved,
        reserved,
        ack,
        acked: ack.map_or(0, |ack| ack.head.number),
        safe: mark(&loaded.marks, link::SAFE)?.flatten(),
        generation: mark(&loaded.marks, link::GENERATION)?.unwrap_or_default(),
        directive_seal: mark(&loaded.marks, link::DIRECTIVE_SEAL)?,
        facts_first: loaded.facts_first,
        directives: Some(loaded.directives),
        ..Link::default()
    };
    let mut agent = Agent::new(config.clone(), state, link);
    agent.dirty = touch.rows;
    agent.commit_room = store.room_needed(BYTES_PER_COMMIT);
    let (facts, directives) = (loaded.facts, loaded.directives);
    Ok(Opened {
        ages,
        agent,
        facts,
        directives,
        snapshot: loaded.snapshot,
    })
}

/// Folds what came after the snapshot: each fact after the directives that it was decided in
/// knowledge of.
fn fold<S: Store>(
    store: &mut S,
    state: &mut State,
    after: (u64, u64),
    touch: &mut Touch,
) -> Result<(), StoreError> {
    let mut directives = VecDeque::new();
    store.each_directive(after.1, &mut |number, bytes| {
        directives.push_back((number, Directive::decode(number, bytes).ok()));
    })?;
    let mut wrong = None;
    store.each_fact(after.0, &mut |number, bytes| {
        if wrong.is_some() || number != state.facts + 1 {
            wrong.get_or_insert(number);
            return;
        }
        let Ok(fact) = Fact::decode(number, bytes) else {
            // a later version wrote it before it was taken off again: it is kept and changes
            // nothing here
            state.facts = number;
            return;
        };
        while let Some((n, _)) = directives.front()
            && *n <= fact.seen
            && let Some((n, directive)) = directives.pop_front()
        {
            state.apply_directive(n, directive.as_ref(), touch);
        }
        state.apply_fact(&fact, touch);
        forget_indexes(touch);
    })?;
    if let Some(number) = wrong {
        return Err(StoreError::Damaged(format!("fact {number} is missing")));
    }
    for (n, directive) in directives {
        state.apply_directive(n, directive.as_ref(), touch);
    }
    Ok(())
}

/// Only the rows matter while folding; the indexes are built once afterwards.
fn forget_indexes(touch: &mut Touch) {
    let rows = std::mem::take(&mut touch.rows);
    *touch = Touch {
        rows,
        ..Touch::default()
    };
}
