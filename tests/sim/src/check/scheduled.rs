//! Schedules: each slot is decided once, in order, in time, and what became of it is told.

use crate::fault::Kind;
use crate::queue::{MIN, Time};
use crate::slots::{Held, REMEMBERED, Rules};
use crate::truth::{EdgeTruth, Wrong, wrong};
use crate::world::World;
use cloud_core::event::{Reply, Request, ScheduleAsk};
use cloud_core::inbox::Message;
use cloud_core::record::{AUDIT, Audited};
use cloud_core::schedule::{Owner, Schedule};
use cloud_core::store::{AggregateId, Transaction};
use shared::explain::Reason;
use shared::ids::{RunId, ScheduleId};
use shared::schedule::{Cause, Overlap};
use shared::time::Unix;
use std::collections::{BTreeMap, BTreeSet};

/// What it means.
pub const DEFINITION: &str = "By its owner's records each slot of a schedule is decided in order, none left out: it \
    fires, or is told to be skipped for a reason that holds. None fires twice (but behind 128 \
    firings, after a clock was set back), nor early by a clock that is to be trusted, nor \
    later or in greater number than `starting_deadline` and `catchup` allow, nor beside an \
    open run against `overlap`, nor while paused. Where a side runs, has room and knows the \
    time, no slot is undecided 3 minutes after it is due. At rest the coordinator knows every \
    run that was fired, and both sides agree on each schedule (not where a store went back or \
    a disk was copied).";

/// So long a due slot may be undecided.
const PATIENCE: Time = 2 * MIN;
/// Runs of a schedule whose tasks are compared at rest.
const COMPARED: usize = 6;

/// What became of the slots that the coordinator fires, as its commits tell.
#[derive(Debug, Clone, Default)]
pub struct Fires {
    /// The rules of each revision.
    rules: BTreeMap<(ScheduleId, u32), Rules>,
    /// Slots that fired at each epoch, in order.
    fired: BTreeMap<(ScheduleId, u64), Vec<i64>>,
    /// The runs that they became.
    pub runs: BTreeMap<RunId, ScheduleId>,
    /// What people asked of schedules in the commit that is applied: what, of which.
    pub asked: BTreeSet<(String, String)>,
}

impl Fires {
    /// A step of a schedule became durable.
    pub fn apply(
        &mut self,
        id: ScheduleId,
        (old, new): (&Schedule, &Schedule),
        tx: &Transaction,
    ) -> Vec<Wrong> {
        for (name, value) in &tx.rows {
            let revision = u32::from_str_radix(name.get(1..).unwrap_or_default(), 16);
            let packed = value
                .as_ref()
                .and_then(|bytes| shared::codec::unpack(bytes).ok());
            let rules = packed.and_then(|(workflow, _)| Rules::of(workflow.schedule.as_ref()?));
            if let (Ok(revision), Some(rules)) = (revision, rules) {
                self.rules.insert((id, revision), rules);
            }
        }
        let own = |one: &Schedule| one.owner == Owner::Coordinator;
        if !own(new) || !own(old) || old.epoch != new.epoch || old.revision == 0 {
            return Vec::new();
        }
        let Some(rules) = self.rules.get(&(id, new.revision)).cloned() else {
            return vec![wrong("scheduled", format!("{id} has rules nobody planned"))];
        };
        let broken = self.fires(id, new, old, &rules);
        let broken = broken.or_else(|| self.account((id, &rules), old, new));
        let text = broken.map(|why| format!("the coordinator's {}: {why}", new.name));
        text.map(|text| wrong("scheduled", text))
            .into_iter()
            .collect()
    }

    /// New firings.
    fn fires(
        &mut self,
        id: ScheduleId,
        new: &Schedule,
        old: &Schedule,
        rules: &Rules,
    ) -> Option<String> {
        let fresh = (new.progress.counts.0 - old.progress.counts.0) as usize;
        let known = new.progress.fired.len();
        let mut broken = None;
        for firing in new.progress.fired.iter().skip(known.saturating_sub(fresh)) {
            let slot = firing.slot.0;
            let fired = self.fired.entry((id, new.epoch.0)).or_default();
            if fired.iter().rev().take(REMEMBERED).any(|at| *at == slot) {
                broken = Some(format!("slot {slot} fired twice"));
            }
            fired.push(slot);
            self.runs.insert(firing.run, id);
            if old.revision == new.revision
                && let Err(why) = rules.timely(slot, firing.cause, firing.at.0)
            {
                broken = Some(format!("slot {slot} {why}"));
            }
            if old.paused.is_some() && new.paused.is_some() {
                broken = Some(format!("slot {slot} fired while it was paused"));
            }
        }
        broken
    }

    /// Whether somebody asked this of it in the commit that is applied.
    fn was_asked(&self, what: ScheduleAsk, id: ScheduleId, name: &str) -> bool {
        let about = |about: String| self.asked.contains(&(what.text().to_owned(), about));
        about(name.to_owned()) || about(id.to_string())
    }

    /// Every slot that was passed fired or was skipped. A step may begin and end what people asked:
    /// its head tells neither.
    fn account(
        &self,
        (id, rules): (ScheduleId, &Rules),
        old: &Schedule,
        new: &Schedule,
    ) -> Option<String> {
        let set_back = |one: &Schedule| {
            one.progress
                .skipped
                .as_ref()
                .is_some_and(|skipped| skipped.reason == Reason::ClockSetBack)
        };
        let moved = old.revision != new.revision
            || old.paused != new.paused
            || new.progress.cursor < old.progress.cursor
            || set_back(new) && old.progress.skipped != new.progress.skipped;
        // a resume passes over what is undecided
        if moved || self.was_asked(ScheduleAsk::Pause(false), id, &new.name) {
            return None;
        }
        let (from, to) = (old.progress.cursor.0, new.progress.cursor.0);
        let passed = rules.count(from, to);
        let fresh = (new.progress.counts.0 - old.progress.counts.0) as usize;
        let list = &new.progress.fired;
        let timely = |cause: Cause| matches!(cause, Cause::Time | Cause::Catchup);
        let fired = list.iter().skip(list.len().saturating_sub(fresh));
        let fired = fired.filter(|firing| timely(firing.cause)).count() as i64;
        let skipped = (new.progress.counts.1 - old.progress.counts.1) as i64;
        let asked = |what| self.was_asked(what, id, &new.name);
        let any = ScheduleAsk::Backfill {
            from: Unix(0),
            to: Unix(0),
        };
        let fills_anew = asked(any);
        // where a new one began, its head does not tell
        let refilled = match fills_anew {
            true => 0,
            false => refilled(rules, old, new),
        };
        // a wanted run that is skipped counts without a new slot, one skip counts 1,000 at most
        let wanted = !old.triggers.is_empty() || asked(ScheduleAsk::Trigger) || fills_anew;
        let (due, told) = (passed + refilled, fired + skipped);
        let fits = due == told || wanted && due < told || skipped >= 1000;
        (!fits).then(|| {
            format!(
                "{passed} slots were passed up to {to} and {refilled} could not be filled, \
                 {fired} fired and {skipped} were skipped"
            )
        })
    }
}

/// Past slots that a backfill went by in this step and that were skipped, as they had become runs
/// before the firings that are remembered. Those that are remembered it goes by without a word.
fn refilled(rules: &Rules, old: &Schedule, new: &Schedule) -> i64 {
    let (old, new) = (&old.progress, &new.progress);
    let (Some((before, _)), Some((after, _))) = (old.backfill, new.backfill) else {
        return 0;
    };
    let next = |slot: &Unix| Some(Unix(rules.next(slot.0))).filter(|slot| *slot <= after);
    let slots = std::iter::successors(next(&before), next);
    let untold = slots.filter(|slot| !old.has_fired(*slot) && !new.has_fired(*slot));
    untold.count() as i64
}

/// What people asked of schedules, as the audit record of a commit tells.
#[must_use]
pub fn asked(transactions: &[Transaction]) -> BTreeSet<(String, String)> {
    let record = |tx: &&Transaction| tx.aggregate == AggregateId::Record;
    let rows = transactions.iter().filter(record).flat_map(|tx| &tx.rows);
    let audit = rows.filter(|(name, _)| name.starts_with(AUDIT));
    let entries = audit.filter_map(|(_, value)| {
        let entries: Result<Vec<Audited>, _> = shared::codec::decode(value.as_deref()?);
        entries.ok()
    });
    let entries = entries.flatten().filter(|entry| entry.refused.is_none());
    entries.map(|entry| (entry.what, entry.about)).collect()
}

/// A commit of the coordinator is done: what runs that it fires do is known from here on.
pub fn on_cloud_commit(world: &mut World, transactions: &[Transaction]) {
    for tx in transactions {
        let AggregateId::Schedule(id) = tx.aggregate else {
            continue;
        };
        for (to, _, bytes) in &tx.sends {
            let fire = matches!(shared::codec::decode(bytes), Ok(Message::Fire { .. }));
            if let (AggregateId::Run(run), true) = (to, fire) {
                world.happened(Kind::CoordinatorFired);
                world.fired(id, *run, None);
            }
        }
        let new: Option<Schedule> = shared::codec::decode_extended(&tx.head).ok();
        let old = world.cloud.truth.schedules.get(&id);
        if let (Some(new), Some(old)) = (new, old)
            && old.epoch.0 > 0
            && old.epoch != new.epoch
        {
            world.happened(Kind::ScheduleMoved);
        }
    }
}

/// New facts of a gateway, behind position `before`.
pub fn count(world: &mut World, m: usize, before: usize) {
    if world.people.schedules.is_empty() {
        return;
    }
    let fresh = &world.lives[world.machines[m].life].facts[before..];
    let bodies: Vec<_> = fresh
        .iter()
        .filter_map(|row| row.fact.as_ref().map(|fact| fact.body.clone()))
        .collect();
    for body in bodies {
        world.count_slots(m, &body);
    }
}

/// Whether a slot should have been decided, or the last one lies ahead of the clock.
fn undecided(rules: &Rules, cursor: i64, now: i64) -> bool {
    let minute = crate::slots::MINUTE;
    rules.next(cursor) + rules.jitter + minute <= now || cursor > now + 2 * minute
}

/// Once a minute.
pub fn look(world: &mut World) {
    if world.people.schedules.is_empty() {
        return;
    }
    for m in 0..world.machines.len() {
        look_at(world, m);
    }
    look_there(world);
}

fn look_at(world: &mut World, m: usize) {
    let machine = &world.machines[m];
    let known = machine.agent.is_some() && !machine.full && machine.since + PATIENCE <= world.t;
    let life = world.lives.get(machine.life);
    let Some(life) = life.filter(|life| known && sure(life, world.t)) else {
        world.machines[m].undecided.clear();
        return;
    };
    let now = machine.clocks.now(world.t).wall.0;
    let open = |id: ScheduleId| life.model.has_open_run(id);
    let late = |id: &ScheduleId, held: &Held| {
        let rules = held.rules.as_ref()?;
        let waits = rules.overlap == Overlap::Forbid && rules.all && open(*id);
        let late = !held.stands_still() && !waits && undecided(rules, held.cursor, now);
        late.then_some((*id, held.cursor))
    };
    let late: Vec<(ScheduleId, i64)> = life
        .model
        .slots
        .held
        .iter()
        .filter_map(|(id, held)| late(id, held))
        .collect();
    let before = std::mem::take(&mut world.machines[m].undecided);
    let (after, overdue) = again(&before, &late, world.t);
    world.machines[m].undecided = after;
    if let Some((id, cursor)) = overdue {
        let text = format!(
            "gw-{} decides no slot of {id} behind {cursor}, now {now}",
            m + 1
        );
        world.fail("scheduled", text);
    }
}

fn sure(life: &EdgeTruth, t: Time) -> bool {
    life.sure_from.is_some_and(|from| from + PATIENCE <= t)
}

/// Schedules with undecided slots.
type Undecided = BTreeMap<ScheduleId, (Time, i64)>;

/// What is still undecided, and what has been for too long.
fn again(
    before: &Undecided,
    late: &[(ScheduleId, i64)],
    t: Time,
) -> (Undecided, Option<(ScheduleId, i64)>) {
    let mut after = Undecided::new();
    let mut overdue = None;
    for (id, cursor) in late {
        let since = before.get(id).filter(|(_, at)| at == cursor);
        let since = since.map_or(t, |(since, _)| *since);
        if t - since >= PATIENCE {
            overdue = Some((*id, *cursor));
        }
        after.insert(*id, (since, *cursor));
    }
    (after, overdue)
}

fn look_there(world: &mut World) {
    let cloud = &world.cloud;
    let known = cloud.engine.is_some() && !cloud.full && cloud.since + PATIENCE <= world.t;
    if !known || cloud.truth.held {
        world.cloud.undecided.clear();
        return;
    }
    let now = cloud.clocks.now(world.t).wall.0;
    let truth = &cloud.truth;
    let late = |id: &ScheduleId, one: &Schedule| {
        let rules = truth.slots.rules.get(&(*id, one.revision))?;
        let fires =
            one.owner == Owner::Coordinator && one.paused.is_none() && one.dropped.is_none();
        // with these an open run may be waited for
        let waits = rules.overlap == Overlap::Forbid && rules.all;
        let cursor = one.progress.cursor.0;
        (fires && !waits && undecided(rules, cursor, now)).then_some((*id, cursor))
    };
    let late: Vec<(ScheduleId, i64)> = truth
        .schedules
        .iter()
        .filter_map(|(id, one)| late(id, one))
        .collect();
    let (after, overdue) = again(&cloud.undecided, &late, world.t);
    world.cloud.undecided = after;
    if let Some((id, cursor)) = overdue {
        let text = format!("the coordinator decides no slot of {id} behind {cursor}, now {now}");
        world.fail("scheduled", text);
    }
}

/// All is at rest: both sides agree. Some runs that were fired, to be compared task by task.
pub fn at_rest(world: &mut World) -> Vec<RunId> {
    if world.people.schedules.is_empty() {
        return Vec::new();
    }
    let reply = world.view(Request::Runs { state: None });
    let Some(Reply::Runs(shown)) = reply else {
        return Vec::new();
    };
    let shown: BTreeSet<RunId> = shown.iter().map(|run| run.id).collect();
    let mut wrongs = Vec::new();
    let mut compared = Vec::new();
    let there = world.cloud.truth.slots.runs.iter();
    let mut fired: Vec<(String, RunId, ScheduleId)> = there
        .map(|(run, id)| ("the coordinator".to_owned(), *run, *id))
        .collect();
    for (m, life) in settled(world) {
        let runs = life.model.slots.runs.iter();
        let runs = runs.filter(|(run, _)| shown.contains(run) || !was_a_name(world, life, **run));
        fired.extend(runs.map(|(run, (id, _))| (format!("gw-{}", m + 1), *run, *id)));
        wrongs.extend(agree(world, life));
    }
    let mut counts: BTreeMap<ScheduleId, usize> = BTreeMap::new();
    for (who, run, id) in fired {
        if world.cloud.truth.buried.contains(&run) || world.began_in_a_hole(run) {
            continue;
        }
        if !shown.contains(&run) {
            let text = format!("{who} fired {id} into run {run}, which the coordinator has not");
            wrongs.push(wrong("scheduled", text));
        }
        let count = counts.entry(id).or_default();
        *count += 1;
        if *count <= COMPARED {
            compared.push(run);
        }
    }
    world.fail_all(crate::trace::Lane::World, wrongs);
    compared
}

/// Whether a run that is not shown was only a name: its gateway had forgotten it when the store
/// went back behind it, so that facts alone named it again, until the name was forgotten, too. Of
/// that a tombstone is left; no workflow went, which is what [`crate::truth`] takes for the end of
/// a run.
fn was_a_name(world: &World, life: &EdgeTruth, run: RunId) -> bool {
    let left = AggregateId::Run(run);
    world.is_untold(life, run) && world.cloud.truth.versions.contains_key(&left)
}

/// Gateways that are there, with the history that the coordinator holds of them.
pub(crate) fn settled(world: &World) -> Vec<(usize, &EdgeTruth)> {
    let machines = world.machines.iter().enumerate();
    let there = machines.filter(|(_, one)| !one.destroyed && one.life != usize::MAX);
    there
        .map(|(m, one)| (m, &world.lives[one.life]))
        .filter(|(_, life)| world.cloud.truth.heads.get(&life.log) == Some(&life.head()))
        .filter(|(_, life)| !world.people.forgotten.contains(&life.log.node))
        .collect()
}

/// Where a gateway and the coordinator differ about schedules. A store that went back may have
/// forgotten what was asked of them.
fn agree(world: &World, life: &EdgeTruth) -> Vec<Wrong> {
    if world.cloud.went_back || life.branched {
        return Vec::new();
    }
    let mut wrongs = Vec::new();
    let owner = Owner::Node(life.log.node, life.log.incarnation);
    for (id, shown) in &world.cloud.truth.schedules {
        let held = life.model.slots.held.get(id);
        let gone = shown.dropped.is_some();
        let text = match (held, shown.owner == owner && !gone) {
            (None, true) => format!("{} should be at its owner and is not", shown.name),
            (Some(_), false) => format!("{} is at a gateway that is not its owner", shown.name),
            (None, false) => continue,
            (Some(held), true) => {
                let paused = (shown.paused.is_some(), shown.paused_at.is_some());
                let marks = (shown.epoch.0, shown.revision, paused);
                let theirs = (held.epoch, held.revision, held.paused);
                // the coordinator remembers what former owners fired, too
                let here = held.fired.iter().rev().take(REMEMBERED);
                let there = shown.progress.fired.iter().rev();
                let differ = here.zip(there).position(|(a, b)| *a != b.slot.0);
                let known = shown.progress.counts.0 >= held.fired.len() as u64;
                let confirmed = shown.origin.is_some() || shown.confirmed();
                if marks == theirs && differ.is_none() && known && confirmed {
                    continue;
                }
                format!(
                    "{} is {theirs:?} at its owner, where {} slots fired, and {marks:?}, {:?}, \
                     confirmed {confirmed}; the first firing that differs from the end: {differ:?}",
                    shown.name,
                    held.fired.len(),
                    shown.progress.counts,
                )
            }
        };
        wrongs.push(wrong("scheduled", text));
    }
    wrongs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::{Instants, MINUTE};
    use shared::schedule::due::Firing;

    /// What is said of a step of a schedule with a slot each minute.
    fn said(asked: &[(ScheduleAsk, &str)], old: &Schedule, new: &Schedule) -> usize {
        let rules = Rules {
            slots: Instants::Even {
                period: MINUTE,
                phase: 0,
            },
            most: 1,
            late: None,
            all: false,
            overlap: Overlap::Forbid,
            jitter: 0,
        };
        let id = ScheduleId([1; 16]);
        let mut fires = Fires::default();
        fires.rules.insert((id, 1), rules);
        let asked = asked.iter();
        fires.asked = asked
            .map(|(what, name)| (what.text().to_owned(), (*name).to_owned()))
            .collect();
        let tx = Transaction::of(AggregateId::Schedule(id), 1, Vec::new());
        fires.apply(id, (old, new), &tx).len()
    }

    /// A step that passes three slots and tells of `skipped` ones.
    fn step(skipped: u64) -> (Schedule, Schedule) {
        let mut old = Schedule {
            name: "s".to_owned(),
            revision: 1,
            ..Schedule::default()
        };
        old.progress.cursor.0 = MINUTE;
        let mut new = old.clone();
        new.progress.cursor.0 = 4 * MINUTE;
        new.progress.counts.1 = skipped;
        (old, new)
    }

    fn passing(asked: &[(ScheduleAsk, &str)], skipped: u64) -> usize {
        let (old, new) = step(skipped);
        said(asked, &old, &new)
    }

    /// How many skipped slots such a step may tell of if past ones are filled, too, from 0 to 3
    /// minutes, the first of which is known to have fired.
    fn filling(asked: &[(ScheduleAsk, &str)]) -> Vec<u64> {
        let firing = Firing {
            slot: Unix(0),
            run: RunId([1; 16]),
            at: Unix(0),
            cause: Cause::Time,
            trusted: true,
        };
        let fits = |skipped: &u64| {
            let (mut old, mut new) = step(*skipped);
            for (one, after) in [(&mut old, -1), (&mut new, 3 * MINUTE)] {
                one.progress.fired.push_back(firing.clone());
                one.progress.backfill = Some((Unix(after), Unix(3 * MINUTE)));
            }
            said(asked, &old, &new) == 0
        };
        (0..9).filter(fits).collect()
    }

    #[test]
    fn only_a_resume_of_this_schedule_passes_over_slots_that_nobody_told() {
        let (pause, resume) = (ScheduleAsk::Pause(true), ScheduleAsk::Pause(false));
        assert_eq!(passing(&[], 3), 0);
        assert_eq!(passing(&[], 0), 1);
        assert_eq!(passing(&[(resume, "another")], 0), 1);
        assert_eq!(passing(&[(pause, "s")], 0), 1);
        assert_eq!(passing(&[(pause, "s"), (resume, "s")], 0), 0);
    }

    #[test]
    fn a_run_that_was_wanted_and_skipped_in_one_step_is_no_slot() {
        assert_eq!(passing(&[], 4), 1);
        assert_eq!(passing(&[(ScheduleAsk::Trigger, "s")], 4), 0);
        assert_eq!(passing(&[(ScheduleAsk::Trigger, "s")], 2), 1);
    }
    #[test]
    fn past_slots_that_cannot_be_filled_are_told_beside_those_that_pass() {
        let fill = ScheduleAsk::Backfill {
            from: Unix(0),
            to: Unix(3 * MINUTE),
        };
        assert_eq!(filling(&[]), [6], "3 pass, 3 of 4 cannot be filled");
        assert_eq!(filling(&[(fill, "another")]), [6]);
        assert_eq!(filling(&[(fill, "s")]), [3, 4, 5, 6, 7, 8], "since when?");
    }
}
