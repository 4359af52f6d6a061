//! Which slots are to fire now: a pure function of the schedule, of what became of its slots so
//! far, and of the time. Both owners go by it, and whoever explains.

use super::{Calendar, Catchup, Cause, FIRINGS, OPEN_RUNS, Overlap, SLOTS, Schedule};
use crate::explain::Reason;
use crate::ids::{RunId, ScheduleId};
use crate::time::{Span, Unix};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// A slot counts as missed, and not as late by chance, from here on.
const MISSED: Span = Span::secs(60);
/// A last slot that lies ahead of the clock by more than this was fired by a clock that was wrong.
const AHEAD: i64 = 60_000;

/// A slot that fired.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Firing {
    /// The slot.
    pub slot: Unix,
    /// The run that it became.
    pub run: RunId,
    /// When, by the clock of then.
    pub at: Unix,
    /// Why.
    pub cause: Cause,
    /// Whether that clock was to be trusted.
    pub trusted: bool,
}

/// Slots that did not fire.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Skipped {
    /// The first.
    pub from: Unix,
    /// The last.
    pub to: Unix,
    /// How many; at most [`SLOTS`] are counted.
    pub count: u32,
    /// Why.
    pub reason: Reason,
}

/// What became of the slots so far.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// The last slot that was decided, or the instant behind which the first one is looked for.
    pub cursor: Unix,
    /// The last that fired, newest last.
    pub fired: VecDeque<Firing>,
    /// Past slots that a person wants: behind the first, up to the second.
    pub backfill: Option<(Unix, Unix)>,
    /// The last that did not fire.
    pub skipped: Option<Skipped>,
    /// Firings and skipped slots so far.
    pub counts: (u64, u64),
}

impl Progress {
    /// Takes up a firing.
    pub fn fire(&mut self, firing: Firing) {
        match (firing.cause, &mut self.backfill) {
            (Cause::Backfill, Some((after, _))) => *after = firing.slot.max(*after),
            (Cause::Time | Cause::Catchup, _) => self.cursor = firing.slot.max(self.cursor),
            _ => {}
        }
        self.counts.0 += 1;
        self.fired.push_back(firing);
        if self.fired.len() > FIRINGS {
            self.fired.pop_front();
        }
    }

    /// Takes up slots that do not fire.
    pub fn skip(&mut self, skipped: Skipped) {
        let refilled = self.refills(&skipped);
        match &mut self.backfill {
            _ if skipped.reason == Reason::ClockSetBack => self.cursor = skipped.to,
            Some((after, _)) if refilled => *after = skipped.to,
            _ => self.cursor = skipped.to.max(self.cursor),
        }
        if skipped.reason != Reason::ClockSetBack {
            self.counts.1 += u64::from(skipped.count);
        }
        self.skipped = Some(skipped);
    }

    /// Whether it is a past slot that a person wants and that cannot fire, as one that became a
    /// run before the firings that are remembered: the backfill goes on behind it.
    fn refills(&self, skipped: &Skipped) -> bool {
        let wanted =
            |(after, upto): (Unix, Unix)| after < skipped.to && skipped.to <= upto.min(self.cursor);
        self.backfill.is_some_and(wanted)
    }

    /// The next slot that a person wants and that did not fire, as far as is remembered. Slots that
    /// still lie ahead are left to time.
    #[must_use]
    pub fn wanted(&self, calendar: &Calendar) -> Option<Unix> {
        let (mut after, upto) = self.backfill?;
        let upto = upto.min(self.cursor);
        loop {
            let slot = calendar.next(after).filter(|slot| *slot <= upto)?;
            if !self.has_fired(slot) {
                return Some(slot);
            }
            after = slot;
        }
    }

    /// Whether a slot fired already, as far as is remembered.
    #[must_use]
    pub fn has_fired(&self, slot: Unix) -> bool {
        self.fired.iter().any(|firing| firing.slot == slot)
    }
}

/// What is to be done next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Look {
    /// Fire this slot.
    Fire(Unix, Cause),
    /// These do not fire.
    Skip(Skipped),
    /// Nothing before this instant of the wall clock, or before something else happens; why, if it
    /// is not just the time.
    Wait(Option<Unix>, Option<Reason>),
}

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Which schedule.
    pub id: ScheduleId,
    /// Its rules.
    pub schedule: &'a Schedule,
    /// Its slots.
    pub calendar: &'a Calendar,
    /// What became of them so far.
    pub progress: &'a Progress,
    /// The wall clock.
    pub now: Unix,
    /// Runs of it that are not over.
    pub open: usize,
}

impl Question<'_> {
    /// What is to be done next.
    #[must_use]
    pub fn look(&self) -> Look {
        let (cursor, now) = (self.progress.cursor, self.now);
        if cursor.0.saturating_sub(now.0) > AHEAD {
            let reason = Reason::ClockSetBack;
            let (from, to, count) = (cursor, now, 0);
            return Look::Skip(Skipped {
                from,
                to,
                count,
                reason,
            });
        }
        let Some(first) = self.calendar.next(cursor) else {
            return self.fill(None);
        };
        let due = self.due(first);
        if due > now {
            return self.fill(Some(due));
        }
        self.judge(first)
    }

    fn due(&self, slot: Unix) -> Unix {
        let delay = i64::try_from(self.schedule.delay(self.id, slot).0).unwrap_or(0);
        Unix(slot.0.saturating_add(delay))
    }

    fn late(&self, slot: Unix) -> Span {
        Span(u64::try_from(self.now.0.saturating_sub(self.due(slot).0)).unwrap_or(0))
    }

    /// `first` is due, and perhaps others behind it.
    fn judge(&self, first: Unix) -> Look {
        let most = match self.schedule.catchup {
            Catchup::All => (self.schedule.max_catchup as usize).clamp(1, SLOTS),
            Catchup::None | Catchup::Latest => 1,
        };
        let cursor = self.progress.cursor;
        let mut list = self.calendar.newest(cursor, self.now, most + 1);
        if list.last().is_some_and(|last| self.due(*last) > self.now) {
            list.pop();
        }
        list.drain(..list.len().saturating_sub(most));
        let Some(last) = list.last().copied() else {
            return self.fill(Some(self.due(first)));
        };
        let limit = self.schedule.lateness();
        let in_time = |slot: &&Unix| limit.is_none_or(|limit| self.late(**slot) <= limit);
        let Some(next) = list.iter().find(in_time).copied() else {
            return self.missed(last);
        };
        if next != first {
            let before = self.calendar.newest(cursor, Unix(next.0 - 1), 1);
            return self.missed(before.first().copied().unwrap_or(first));
        }
        self.overlaps(next)
    }

    fn missed(&self, to: Unix) -> Look {
        let reason = match self.schedule.starting_deadline {
            Some(limit) if self.late(to) > limit => Reason::SlotTooLate,
            _ => Reason::SlotMissed,
        };
        self.skip(to, reason)
    }

    fn skip(&self, to: Unix, reason: Reason) -> Look {
        let cursor = self.progress.cursor;
        let count = self.calendar.newest(cursor, to, SLOTS).len();
        Look::Skip(Skipped {
            from: self.calendar.next(cursor).unwrap_or(to),
            to,
            count: u32::try_from(count).unwrap_or(u32::MAX),
            reason,
        })
    }

    fn overlaps(&self, slot: Unix) -> Look {
        if self.progress.has_fired(slot) {
            return self.skip(slot, Reason::FiredBefore);
        }
        match self.schedule.overlap {
            Overlap::Forbid if self.open > 0 => match self.schedule.catchup {
                Catchup::All => Look::Wait(None, Some(Reason::RunOpen)),
                Catchup::None | Catchup::Latest => self.skip(slot, Reason::RunOpen),
            },
            Overlap::Allow if self.open >= OPEN_RUNS => self.skip(slot, Reason::NoRoom),
            _ if self.late(slot) > MISSED => Look::Fire(slot, Cause::Catchup),
            _ => Look::Fire(slot, Cause::Time),
        }
    }

    /// No slot is due: time for one that a person wants, one run after another.
    fn fill(&self, until: Option<Unix>) -> Look {
        match self.progress.wanted(self.calendar) {
            Some(_) if self.open > 0 => Look::Wait(until, Some(Reason::RunOpen)),
            Some(slot) => Look::Fire(slot, Cause::Backfill),
            None => Look::Wait(until, None),
        }
    }
}

#[cfg(test)]
mod tests;
