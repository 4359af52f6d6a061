//! Runs that are over leave: after their retention or at a person's wish, first their nodes, then
//! the store, then the files that nobody else names.

use super::requests::{Answered, no_run};
use super::{At, Engine, TOMBSTONES, at};
use crate::event::{Output, Refused, Reply};
use crate::run::{Asked, Run, TaskRow};
use crate::store::{AggregateId, Prune, Store, StoreError};
use shared::ids::{Hash, RunId};
use shared::time::{Mono, Span, Unix};
use shared::workflow::Source;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Runs whose time has come that are taken up at once.
const AGED: usize = 64;
/// A file that has just arrived may belong to a submission that comes next, or to a fact that is
/// still on its way.
const FRESH: Span = Span::secs(3600);
/// After this time a file that came and that no run names is looked at.
pub const UNNAMED: Span = Span::secs(24 * 3600);

impl<S: Store> Engine<S> {
    /// Whether a run is known and not forgotten.
    pub(super) fn is_here(&self, id: RunId) -> bool {
        self.runs.get(&id).is_some_and(|r| r.head.gone.is_none())
    }

    /// When the next run is to be forgotten: one that ended, or that is only a name and that nobody
    /// rebuilt.
    fn due(&self) -> Option<Unix> {
        let first = [self.ended.first(), self.unknown.first()];
        let first = first.into_iter().flatten().map(|(at, _)| *at).min();
        let first = first.filter(|_| self.fleet.hold.is_none())?;
        let retention = i64::try_from(self.config.retention.0).unwrap_or(i64::MAX);
        Some(Unix(first.0.saturating_add(retention)))
    }

    /// When the next run has been kept long enough.
    pub(super) fn next_aged(&self) -> Option<Mono> {
        let left = self.due()?.0.saturating_sub(self.now.wall.0).max(0);
        Some(self.now.mono + Span(left.unsigned_abs()))
    }

    /// Forgets runs whose retention is over.
    pub(super) fn age(&mut self) -> Result<(), StoreError> {
        for _ in 0..AGED {
            if self.due().is_none_or(|due| due > self.now.wall) {
                break;
            }
            let (ended, unknown) = (self.ended.first(), self.unknown.first());
            let oldest = match (ended, unknown) {
                (Some(ended), Some(unknown)) if unknown < ended => &mut self.unknown,
                (None, Some(_)) => &mut self.unknown,
                _ => &mut self.ended,
            };
            let Some((_, run)) = oldest.pop_first() else {
                break;
            };
            let (at, by, why) = (self.now.wall, "its age".to_owned(), String::new());
            // A run that is no longer over stays.
            let _ = self.forget_now(run, Asked { at, by, why })?;
        }
        Ok(())
    }

    pub(super) fn forget_now(&mut self, id: RunId, asked: Asked) -> Result<Answered, StoreError> {
        if !self.is_here(id) {
            return Ok(Err(no_run(id)));
        }
        if self.fleet.hold.is_some() {
            let text = "nothing is forgotten while old runs are held after a restore";
            return Ok(Err(Refused::State(text.to_owned())));
        }
        match self.step_run(id, |run, _, fx| run.forget(asked, fx))? {
            Some(Err(refused)) => return Ok(Err(refused)),
            Some(Ok(true)) => self.bury(id)?,
            _ => {}
        }
        Ok(Ok(Reply::Done))
    }

    /// Nobody holds anything of a run any more: its rows go, a tombstone stays.
    pub(super) fn bury(&mut self, id: RunId) -> Result<(), StoreError> {
        self.load_body(id)?;
        let mut rows = Vec::new();
        self.store.rows(AggregateId::Run(id), "", &mut |name, _| {
            rows.push((name.to_owned(), None));
        })?;
        let at = at!(self);
        let Some(run) = self.runs.get_mut(&id) else {
            return Ok(());
        };
        self.orphans.extend(run.contents());
        let fx = self.effects.entry(AggregateId::Run(id)).or_default();
        fx.rows.extend(rows);
        run.bury(at.wall, fx);
        self.plan.remove(&id);
        self.collect = true;
        Ok(())
    }

    /// Drops files that only forgotten runs named. Reads the rows of every run, so it is done once
    /// for many.
    pub(super) fn collect_files(&mut self) -> Result<(), StoreError> {
        if !std::mem::take(&mut self.collect) {
            return Ok(());
        }
        let mut doomed = std::mem::take(&mut self.orphans);
        doomed.retain(|hash| self.files.contains_key(hash));
        for schedule in self.schedules.values() {
            schedule.spare(&mut doomed);
        }
        for id in self.by_change() {
            if doomed.is_empty() {
                break;
            }
            for hash in self.names(id)? {
                doomed.remove(&hash);
            }
        }
        let (later, gone): (BTreeSet<Hash>, BTreeSet<Hash>) =
            doomed.into_iter().partition(|hash| self.is_fresh(hash));
        self.orphans = later;
        self.drop_files(gone);
        Ok(())
    }

    /// Files go.
    pub(super) fn drop_files(&mut self, gone: BTreeSet<Hash>) {
        if gone.is_empty() {
            return;
        }
        let fx = self.effects.entry(AggregateId::Fleet).or_default();
        for hash in &gone {
            self.files.remove(hash);
            self.stored.remove(hash);
            self.found.remove(hash);
            fx.rows.push((format!("f{hash}"), None));
        }
        self.outputs
            .push(Output::DropFiles(gone.into_iter().collect()));
    }

    pub(super) fn is_fresh(&self, hash: &Hash) -> bool {
        let arrived = self.stored.get(hash);
        arrived.is_some_and(|at| at + FRESH > self.now.mono)
    }

    /// Runs, those in memory and those that changed last first: they name what came lately.
    fn by_change(&self) -> Vec<RunId> {
        let age = |(id, run): (&RunId, &Run)| {
            let changed = self.changed.get(id).copied().unwrap_or(0);
            (run.body.is_none(), Reverse(changed), *id)
        };
        let mut runs: Vec<_> = self.runs.iter().map(age).collect();
        runs.sort_unstable();
        runs.into_iter().map(|(.., id)| id).collect()
    }

    /// When files are looked at that came and may have been named by nobody.
    pub(super) fn next_collection(&self) -> Option<Mono> {
        let (first, _) = self.stored.oldest()?;
        Some((first + UNNAMED).max(self.collect_after))
    }

    /// Files that came and that no run names in time go; those of nodes only when what the nodes
    /// did is known: their facts may still name them.
    pub(super) fn look_at_files(&mut self) {
        let now = self.now.mono;
        if self.next_collection().is_none_or(|due| due > now) {
            return;
        }
        if !self.all_is_heard() {
            self.collect_after = now + FRESH;
            return;
        }
        while let Some((_, hash)) = self.stored.oldest().filter(|(at, _)| *at + UNNAMED <= now) {
            self.stored.remove(&hash);
            self.orphans.insert(hash);
        }
        self.collect = true;
    }

    /// Whether every node is here with all its facts, and all of them are folded.
    fn all_is_heard(&self) -> bool {
        let nodes = self.nodes.iter();
        let heard = nodes
            .filter(|(_, n)| n.forgotten.is_none() && n.incarnation.is_some())
            .all(|(id, node)| {
                let link = self.links.get(id);
                link.is_some_and(|l| l.live.is_some() && l.ahead <= node.facts.number)
            });
        heard && self.fleet.hold.is_none() && self.runs.values().all(|r| r.head.kept.is_empty())
    }

    /// The oldest tombstones beyond the bound go.
    pub(super) fn drop_tombstones(&mut self) {
        while self.tombstones.len() > TOMBSTONES {
            let Some((_, run)) = self.tombstones.pop_first() else {
                break;
            };
            let id = AggregateId::Run(run);
            let fx = self.effects.entry(id).or_default();
            fx.prune.push(Prune::Aggregate);
        }
    }

    /// Takes out of memory what the transaction that was decided last takes out of the store.
    pub(super) fn end_aggregate(&mut self, id: AggregateId) {
        let ends = self
            .batch
            .last()
            .is_some_and(|tx| tx.prune.contains(&Prune::Aggregate));
        if let (true, AggregateId::Schedule(schedule)) = (ends, id) {
            self.schedules.remove(&schedule);
            self.versions.remove(&id);
        }
        let (true, AggregateId::Run(run)) = (ends, id) else {
            return;
        };
        if let Some(at) = self.runs.remove(&run).and_then(|run| run.head.gone) {
            self.tombstones.remove(&(at, run));
        }
        self.versions.remove(&id);
        self.changed.remove(&run);
        self.record.drop_run(run);
    }

    /// The files that a run names.
    pub(super) fn names(&mut self, id: RunId) -> Result<BTreeSet<Hash>, StoreError> {
        match self.runs.get(&id) {
            Some(run) if !run.head.known => return Ok(BTreeSet::new()),
            Some(run) if run.body.is_some() => return Ok(run.contents()),
            _ => {}
        }
        let (key, mut names) = (AggregateId::Run(id), BTreeSet::new());
        self.store.rows(key, "t", &mut |_, bytes| {
            let rows: Vec<TaskRow> = shared::codec::decode(bytes).unwrap_or_default();
            names.extend(
                rows.iter()
                    .flat_map(|row| &row.outputs)
                    .map(|file| file.hash),
            );
        })?;
        let packed = self.store.row(key, "w")?.unwrap_or_default();
        if let Ok((workflow, _)) = shared::codec::unpack(&packed) {
            for input in workflow.tasks.iter().flat_map(|t| &t.inputs) {
                if let Source::Sent { hash, .. } = input.source {
                    names.insert(hash);
                }
            }
        }
        Ok(names)
    }
}

/// When files came, since the start.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    at: BTreeMap<Hash, Mono>,
    by_age: BTreeSet<(Mono, Hash)>,
}

impl Arrivals {
    pub(super) fn insert(&mut self, hash: Hash, at: Mono) {
        self.remove(&hash);
        self.at.insert(hash, at);
        self.by_age.insert((at, hash));
    }

    fn remove(&mut self, hash: &Hash) {
        if let Some(at) = self.at.remove(hash) {
            self.by_age.remove(&(at, *hash));
        }
    }

    fn get(&self, hash: &Hash) -> Option<Mono> {
        self.at.get(hash).copied()
    }

    /// It is asked for in every turn, whatever came.
    fn oldest(&self) -> Option<(Mono, Hash)> {
        self.by_age.first().copied()
    }
}
