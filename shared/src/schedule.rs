//! Schedules: what a workflow says about when it runs, and the pure formulas on both sides: which
//! slots there are, how far a firing is put off, which run a slot becomes.
//!
//! Invariant: nothing here knows what time it is. A slot is an instant of the calendar; whoever
//! owns the schedule decides whether it fires.

mod calendar;
pub mod due;
pub mod view;

pub use calendar::{BadSchedule, Calendar, instant, utc};

use crate::ids::{Epoch, Hash, RunId, ScheduleId};
use crate::time::{Span, Unix};
use crate::workflow::Workflow;
use serde::{Deserialize, Serialize};

/// The variable in which a task finds the slot that it runs for, as in `2026-11-24T03:00:00Z`.
pub const SCHEDULED_FOR: &str = "DRIFTLESS_SCHEDULED_FOR";
/// Schedules of one owner.
pub const SCHEDULES: usize = 256;
/// Bytes of a packed workflow that is fired by a schedule.
pub const WORKFLOW_BYTES: usize = 256 * 1024;
/// Bytes of the same, unpacked.
pub const UNPACKED_BYTES: usize = 64 * WORKFLOW_BYTES;
/// Slots of one backfill, and slots that a catch-up may ask for.
pub const SLOTS: usize = 1000;
/// Firings that are remembered one by one.
pub const FIRINGS: usize = 128;
/// Runs of one schedule that may be open at once.
pub const OPEN_RUNS: usize = 100;

/// When a workflow runs, with every default filled in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Schedule {
    /// The rule.
    pub rule: Rule,
    /// Name of the time zone of `Rule::Cron`.
    pub timezone: String,
    /// What becomes of slots that could not fire in time.
    pub catchup: Catchup,
    /// How many of them fire with `Catchup::All`, the newest.
    pub max_catchup: u32,
    /// How late a slot may fire; none for the default of `catchup`.
    pub starting_deadline: Option<Span>,
    /// What happens while a run of the schedule is not over.
    pub overlap: Overlap,
    /// Firings are put off by up to this.
    pub jitter: Span,
}

/// Which instants are slots.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Rule {
    /// Five fields: minute, hour, day of the month, month, day of the week.
    Cron(String),
    /// Multiples of this since 1970-01-01 00:00 UTC.
    Every(Span),
}

/// What becomes of slots that could not fire in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Catchup {
    /// They are skipped.
    None,
    /// The newest of them fires.
    Latest,
    /// The newest `max_catchup` of them fire, in order.
    All,
}

/// What happens while a run of the schedule is not over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Overlap {
    /// The slot is skipped (with `Catchup::All` it waits).
    Forbid,
    /// Both run.
    Allow,
    /// The older one is cancelled.
    Replace,
}

/// Why a slot fired.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Cause {
    /// Its time came.
    Time,
    /// It was missed, and is caught up.
    Catchup,
    /// A person wanted a run at once.
    Trigger,
    /// A person wanted past slots to run.
    Backfill,
}

impl Cause {
    /// The text that people and programs see.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Catchup => "catchup",
            Self::Trigger => "trigger",
            Self::Backfill => "backfill",
        }
    }
}

/// What is asked of a schedule, by its coordinator or by a person at the gateway. Variants are
/// numbered by position and may only be appended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Order {
    /// 0: a new one, or a new revision of it.
    Set {
        /// Counts its revisions, from 1.
        revision: u32,
        /// `codec::pack` of the workflow, with the schedule in it.
        workflow: Vec<u8>,
        /// Slots behind this one are looked for, if it is new here.
        after: Unix,
        /// The asking side's pause mark.
        paused: bool,
    },
    /// 1: the asking side's pause mark.
    Pause(bool),
    /// 2: run once, as this slot.
    Trigger(Unix),
    /// 3: run past slots from the first to the second, both included.
    Backfill(Unix, Unix),
    /// 4: it is gone. Runs of it go on.
    Drop,
}

impl Schedule {
    /// How late a slot may fire. Without a word about it: a minute if what is missed is skipped,
    /// else as late as it likes.
    #[must_use]
    pub fn lateness(&self) -> Option<Span> {
        match (self.starting_deadline, self.catchup) {
            (None, Catchup::None) => Some(Span::secs(60)),
            (given, _) => given,
        }
    }

    /// By how much the firing of a slot is put off: always the same for the same slot, below
    /// `jitter`.
    #[must_use]
    pub fn delay(&self, id: ScheduleId, slot: Unix) -> Span {
        if self.jitter.0 == 0 {
            return Span(0);
        }
        let digest = fire_digest(id, slot, b"jitter");
        let mut first = [0; 8];
        first.copy_from_slice(&digest.0[..8]);
        Span(u64::from_le_bytes(first) % self.jitter.0)
    }
}

fn fire_digest(id: ScheduleId, slot: Unix, what: &[u8]) -> Hash {
    let mut bytes = b"driftless schedule 1\0".to_vec();
    bytes.extend_from_slice(what);
    bytes.extend_from_slice(&id.0);
    bytes.extend_from_slice(&slot.0.to_le_bytes());
    Hash::of(&bytes)
}

/// The run that a slot becomes at an owner: the same on both sides and at every repetition, so that
/// a repeated firing is one run. `epoch` is the schedule's, which is another one at another owner.
#[must_use]
pub fn run_of(id: ScheduleId, epoch: Epoch, slot: Unix) -> RunId {
    let digest = fire_digest(id, slot, &epoch.0.to_le_bytes());
    let mut run = [0; 16];
    run.copy_from_slice(&digest.0[..16]);
    RunId(run)
}

/// Whether past slots can be asked for.
///
/// # Errors
/// Why not, for people.
pub fn check_backfill(
    calendar: &Calendar,
    progress: &due::Progress,
    from: Unix,
    to: Unix,
) -> Result<(), String> {
    if from > to {
        return Err("the backfill ends before it begins".to_owned());
    }
    let before = Unix(from.0.saturating_sub(1));
    match calendar.newest(before, to, SLOTS + 1).len() {
        0 => Err("no slot lies between these instants".to_owned()),
        n if n > SLOTS => Err(format!(
            "more than {SLOTS} slots lie between these instants; ask for fewer at a time"
        )),
        _ => keeps_backfill(calendar, progress, from, to),
    }
}

/// Whether a backfill that is under way loses no slot when this one takes its place.
///
/// # Errors
/// Why it would, for people.
pub fn keeps_backfill(
    calendar: &Calendar,
    progress: &due::Progress,
    from: Unix,
    to: Unix,
) -> Result<(), String> {
    match (progress.wanted(calendar), progress.backfill) {
        (Some(slot), Some((_, upto))) if slot < from || to < upto => Err(format!(
            "a backfill is under way, its slots from {} to {} are left: wait for it, or ask for \
             these, too",
            utc(slot),
            utc(upto)
        )),
        _ => Ok(()),
    }
}

/// The workflow of one firing: without the schedule, with the slot in each task's environment, and
/// with deadlines counted from `fired` (the schedule's own are counted from 1970).
#[must_use]
pub fn workflow_of(template: &Workflow, slot: Unix, fired: Unix) -> Workflow {
    let mut workflow = template.clone();
    workflow.schedule = None;
    let text = utc(slot);
    for task in &mut workflow.tasks {
        task.env.insert(SCHEDULED_FOR.to_owned(), text.clone());
        if let Some(deadline) = &mut task.deadline {
            deadline.0 = deadline.0.saturating_add(fired.0);
        }
    }
    workflow
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_slot_is_the_same_run_and_another_owner_makes_another_one() {
        let id = ScheduleId([7; 16]);
        assert_eq!(
            run_of(id, Epoch(1), Unix(60_000)),
            run_of(id, Epoch(1), Unix(60_000))
        );
        assert_ne!(
            run_of(id, Epoch(1), Unix(60_000)),
            run_of(id, Epoch(2), Unix(60_000))
        );
        assert_ne!(
            run_of(id, Epoch(1), Unix(60_000)),
            run_of(id, Epoch(1), Unix(120_000))
        );
    }

    #[test]
    fn jitter_is_the_same_for_the_same_slot_and_below_its_bound() {
        let schedule = Schedule {
            rule: Rule::Every(Span::secs(60)),
            timezone: "UTC".to_owned(),
            catchup: Catchup::None,
            max_catchup: 1,
            starting_deadline: None,
            overlap: Overlap::Forbid,
            jitter: Span::secs(30),
        };
        let id = ScheduleId([1; 16]);
        let delays: Vec<Span> = (0..100)
            .map(|n| schedule.delay(id, Unix(n * 60_000)))
            .collect();
        assert!(delays.iter().all(|delay| delay.0 < 30_000));
        assert_eq!(delays[3], schedule.delay(id, Unix(180_000)));
        assert!(delays.iter().any(|delay| *delay != delays[0]));
    }
}
