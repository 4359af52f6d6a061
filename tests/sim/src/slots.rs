//! What became of the slots of schedules, told by records alone: a second, independent fold. The
//! slots of a rule are the instants `period * n + phase`; no calendar of the cores is asked but for
//! the crons of a rehearsal, which are not of this simulator.

use crate::schedule::CRONS;
use shared::explain::Reason;
use shared::fact::Body;
use shared::ids::{RunId, ScheduleId};
use shared::schedule::due::Skipped;
use shared::schedule::{Calendar, Catchup, Cause, Order, Overlap, Rule, Schedule};
use shared::time::Unix;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A slot is missed, and not late by chance, from here on; a last slot further ahead of the clock
/// than this was fired by a wrong clock. Milliseconds.
pub const MINUTE: i64 = 60_000;
/// Firings of a schedule that are remembered one by one.
pub const REMEMBERED: usize = 128;
/// No slot is that late.
const NEVER: i64 = i64::MAX / 4;
/// Skipped slots are counted up to here.
const COUNTED: i64 = 1000;
/// Runs of a schedule that may be open with `overlap: allow`.
const OPEN: usize = 100;

/// Which instants are slots. All in milliseconds.
#[derive(Debug, Clone)]
pub enum Instants {
    /// Every so often.
    Even {
        /// Time between two slots.
        period: i64,
        /// The first slot since 1970.
        phase: i64,
    },
    /// As the calendar of the cores says.
    Told(Arc<Calendar>),
}

/// When a schedule fires. All in milliseconds.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Its slots.
    pub slots: Instants,
    /// Slots that may be caught up at once.
    pub most: i64,
    /// How late a slot may fire.
    pub late: Option<i64>,
    /// `catchup: all`.
    pub all: bool,
    /// What happens beside an open run.
    pub overlap: Overlap,
    /// A slot fires by up to this later.
    pub jitter: i64,
}

impl Rules {
    /// The rules of a schedule; none if nobody can read them.
    #[must_use]
    pub fn of(schedule: &Schedule) -> Option<Self> {
        let even = |period, phase| Instants::Even { period, phase };
        let slots = match &schedule.rule {
            Rule::Every(span) => even(millis(span.0), 0),
            Rule::Cron(text) => {
                let known = |row: &&(&str, &str, i64, i64)| {
                    row.0 == text.as_str() && row.1 == schedule.timezone
                };
                match CRONS.iter().find(known) {
                    Some(row) => even(row.2 * MINUTE, row.3 * MINUTE),
                    None => Instants::Told(Arc::new(Calendar::new(schedule).ok()?)),
                }
            }
        };
        let given = schedule.starting_deadline.map(|span| millis(span.0));
        let (most, late) = match schedule.catchup {
            Catchup::None => (1, given.or(Some(MINUTE))),
            Catchup::Latest => (1, given),
            Catchup::All => (i64::from(schedule.max_catchup), given),
        };
        Some(Self {
            slots,
            most,
            late,
            all: schedule.catchup == Catchup::All,
            overlap: schedule.overlap,
            jitter: millis(schedule.jitter.0),
        })
    }

    /// Slots behind `after`, up to `upto`.
    #[must_use]
    pub fn count(&self, after: i64, upto: i64) -> i64 {
        match &self.slots {
            Instants::Even { period, phase } => {
                let number = |at: i64| (at - phase).div_euclid(*period);
                number(upto) - number(after)
            }
            Instants::Told(_) if upto < after => -self.count(upto, after),
            Instants::Told(_) => {
                let next = |at: &i64| Some(self.next(*at)).filter(|slot| *slot <= upto);
                std::iter::successors(next(&after), next).count() as i64
            }
        }
    }

    /// The first slot behind `after`.
    #[must_use]
    pub fn next(&self, after: i64) -> i64 {
        match &self.slots {
            Instants::Even { period, phase } => {
                ((after - phase).div_euclid(*period) + 1) * period + phase
            }
            Instants::Told(calendar) => calendar.next(Unix(after)).map_or(NEVER, |slot| slot.0),
        }
    }

    /// Whether this instant is a slot.
    #[must_use]
    pub fn is_slot(&self, at: i64) -> bool {
        self.next(at - 1) == at
    }

    /// What is wrong about firing `slot` at the instant `now` of a clock that is to be trusted.
    ///
    /// # Errors
    /// What is wrong.
    pub fn timely(&self, slot: i64, cause: Cause, now: i64) -> Result<(), String> {
        if !matches!(cause, Cause::Time | Cause::Catchup) {
            return Ok(());
        }
        // by jitter a slot is due somewhere between these two
        let (surely_late, at_most_late) = (now - slot - self.jitter, now - slot);
        if at_most_late < 0 {
            return Err(format!("fired {} ms before its time", -at_most_late));
        }
        if self.late.is_some_and(|limit| surely_late > limit) {
            return Err(format!("fired {surely_late} ms late"));
        }
        let caught_up = cause == Cause::Catchup;
        if caught_up && at_most_late <= MINUTE || !caught_up && surely_late > MINUTE {
            let text = cause.text();
            return Err(format!("fired as {text} {at_most_late} ms after it"));
        }
        let newer = self.count(slot, now - self.jitter);
        if newer >= self.most.max(1) {
            return Err(format!(
                "fired although {newer} newer ones are due, of which {} are caught up",
                self.most
            ));
        }
        Ok(())
    }
}

fn millis(span: u64) -> i64 {
    i64::try_from(span).unwrap_or(i64::MAX / 4)
}

/// A schedule as its owner's records tell.
#[derive(Debug, Clone)]
pub struct Held {
    /// The epoch at which it is owned.
    pub epoch: u64,
    /// Its revision.
    pub revision: u32,
    /// Its rules; none if nobody can read them.
    pub rules: Option<Rules>,
    /// The coordinator's pause mark, and the gateway's.
    pub paused: (bool, bool),
    /// The last slot that was decided.
    pub cursor: i64,
    /// Slots that fired, in order.
    pub fired: Vec<i64>,
    /// Past slots that a person wants: behind the first, up to the second.
    pub backfill: Option<(i64, i64)>,
    /// Runs that persons want at once.
    pub triggers: VecDeque<i64>,
}

impl Held {
    /// Whether a person lets it stand still.
    #[must_use]
    pub fn stands_still(&self) -> bool {
        self.paused.0 || self.paused.1
    }

    fn fired_lately(&self, slot: i64) -> bool {
        self.fired
            .iter()
            .rev()
            .take(REMEMBERED)
            .any(|at| *at == slot)
    }
}

/// A run of a schedule when a fact about the schedule is folded.
#[derive(Debug, Clone, Copy)]
pub struct OpenRun {
    /// Its tasks are all final; that was not said yet.
    pub over: bool,
    /// Somebody asked for its end.
    pub cancelled: bool,
}

/// All schedules of a node.
#[derive(Debug, Clone, Default)]
pub struct Slots {
    /// By id.
    pub held: BTreeMap<ScheduleId, Held>,
    /// Runs that were fired here.
    pub runs: BTreeMap<RunId, (ScheduleId, i64)>,
    /// Those of them of which it was said that they are over.
    pub done: BTreeSet<RunId>,
    /// The wall clock of the facts is the one that slots go by.
    pub sure: bool,
}

impl Slots {
    /// Folds what somebody asked of a schedule: a directive, or a fact of the gateway (`here`).
    pub fn order(&mut self, id: ScheduleId, epoch: u64, what: &Order, at: Unix, here: bool) {
        let known = self.held.get(&id).map(|held| held.epoch);
        let known = if here { known.map(|_| epoch) } else { known };
        if known.is_some_and(|known| known > epoch) {
            return;
        }
        if let Order::Set { .. } = what {
            self.set(id, epoch, what, at);
            return;
        }
        let Some(held) = self.held.get_mut(&id).filter(|held| held.epoch == epoch) else {
            return;
        };
        match what {
            Order::Set { .. } => {}
            Order::Pause(on) => {
                let still = held.stands_still();
                match here {
                    true => held.paused.1 = *on,
                    false => held.paused.0 = *on,
                }
                // what passed while it stood still does not fire
                if still && !held.stands_still() {
                    held.cursor = held.cursor.max(at.0);
                }
            }
            // more are refused
            Order::Trigger(slot) if held.triggers.len() < 16 => held.triggers.push_back(slot.0),
            Order::Trigger(_) => {}
            Order::Backfill(from, to) if held.loses(from.0, to.0) => {}
            Order::Backfill(from, to) => held.backfill = Some((from.0 - 1, to.0)),
            Order::Drop => drop(self.held.remove(&id)),
        }
    }

    fn set(&mut self, id: ScheduleId, epoch: u64, what: &Order, at: Unix) {
        let Order::Set {
            revision,
            workflow,
            after,
            paused,
        } = what
        else {
            return;
        };
        let Ok((workflow, _)) = shared::codec::unpack(workflow) else {
            return;
        };
        let old = self.held.remove(&id);
        let here = old.as_ref().is_some_and(|old| old.paused.1);
        let mut held = match old.filter(|old| old.epoch == epoch) {
            // by its new rules nothing was missed before
            Some(old) => Held {
                cursor: old.cursor.max(at.0),
                ..old
            },
            None => Held {
                epoch,
                revision: 0,
                rules: None,
                paused: (false, false),
                cursor: after.0,
                fired: Vec::new(),
                backfill: None,
                triggers: VecDeque::new(),
            },
        };
        held.revision = *revision;
        held.rules = workflow.schedule.as_ref().and_then(Rules::of);
        held.paused = (*paused, here);
        self.held.insert(id, held);
    }

    /// Folds a firing, beside these runs that are open.
    ///
    /// # Errors
    /// Why it is impossible.
    pub fn fired(&mut self, body: &Body, now: Unix, open: &[OpenRun]) -> Result<(), String> {
        let Body::Fired {
            schedule,
            epoch,
            slot,
            slice,
            cause,
            revision,
            ..
        } = body
        else {
            return Ok(());
        };
        let (slot, sure) = (slot.0, self.sure);
        let again = self.runs.insert(slice.run, (*schedule, slot)).is_some();
        let Some(held) = self.held.get_mut(schedule) else {
            return Err(format!(
                "slot {slot} of {schedule} fired, which is not here"
            ));
        };
        let what = format!("slot {slot} of {schedule} ({})", cause.text());
        if (held.epoch, held.revision) != (epoch.0, *revision) {
            return Err(format!("{what} fired by another revision than is here"));
        }
        if held.stands_still() {
            return Err(format!("{what} fired while it was paused"));
        }
        if again || held.fired_lately(slot) {
            return Err(format!("{what} fired twice"));
        }
        held.fired.push(slot);
        let rules = held.rules.clone().ok_or("rules that nobody planned")?;
        held.advance(&rules, slot, *cause)
            .map_err(|why| format!("{what} {why}"))?;
        beside(&rules, *cause, open).map_err(|why| format!("{what} {why}"))?;
        if sure {
            let timely = rules.timely(slot, *cause, now.0);
            timely.map_err(|why| format!("{what} {why}"))?;
        }
        Ok(())
    }

    /// Folds slots that did not fire, beside these runs that are open.
    ///
    /// # Errors
    /// Why that is impossible.
    pub fn skipped(
        &mut self,
        (id, epoch): (ScheduleId, u64),
        skipped: &Skipped,
        now: Unix,
        open: &[OpenRun],
    ) -> Result<(), String> {
        let sure = self.sure;
        let known = self.runs.values().any(|run| *run == (id, skipped.to.0));
        let Some(held) = self.held.get_mut(&id) else {
            return Err(format!("slots of {id} were skipped, which is not here"));
        };
        if held.epoch != epoch {
            return Err(format!("slots of {id} were skipped at another epoch"));
        }
        let rules = held.rules.clone().ok_or("rules that nobody planned")?;
        let what = format!("{skipped:?} of {id} at {}", now.0);
        let (from, to) = (skipped.from.0, skipped.to.0);
        let fits = match skipped.reason {
            Reason::ClockSetBack => {
                let back = from == held.cursor && from - to > MINUTE && skipped.count == 0;
                held.cursor = to;
                back && (!sure || to == now.0)
            }
            reason => {
                let wanted = held.triggers.contains(&to);
                held.triggers.retain(|slot| *slot != to);
                let whole = wanted || held.refills(skipped) || held.covers(&rules, skipped);
                let newer = rules.count(to, now.0);
                let late = now.0 - to;
                whole
                    && match reason {
                        Reason::SlotMissed | Reason::SlotTooLate if sure => {
                            newer >= rules.most.max(1)
                                || rules.late.is_some_and(|limit| late > limit)
                        }
                        Reason::SlotMissed | Reason::SlotTooLate => true,
                        Reason::RunOpen => {
                            rules.overlap == Overlap::Forbid
                                && (wanted || !rules.all)
                                && !open.is_empty()
                        }
                        Reason::NoRoom => open.len() >= OPEN,
                        Reason::FiredBefore => known || held.fired.contains(&to),
                        _ => false,
                    }
            }
        };
        if fits { Ok(()) } else { Err(what) }
    }
}

impl Held {
    /// A slot fires: it must be the next one, or one that a person wanted.
    fn advance(&mut self, rules: &Rules, slot: i64, cause: Cause) -> Result<(), String> {
        let next = match cause {
            Cause::Trigger => {
                let wanted = self.triggers.pop_front();
                return match wanted == Some(slot) {
                    true => Ok(()),
                    false => Err(format!("fired, {wanted:?} was wanted")),
                };
            }
            Cause::Time | Cause::Catchup => {
                let next = rules.next(self.cursor);
                self.cursor = slot.max(self.cursor);
                next
            }
            Cause::Backfill => {
                let Some((after, upto)) = &mut self.backfill else {
                    return Err("fired, and nobody asked for it".to_owned());
                };
                let within = (*after < slot && slot <= *upto) && rules.is_slot(slot);
                *after = slot;
                return match within {
                    true => Ok(()),
                    false => Err("fired, which nobody asked for".to_owned()),
                };
            }
        };
        match next == slot {
            true => Ok(()),
            false => Err(format!("fired before {next} was decided")),
        }
    }

    /// Whether past slots that a person wanted are left which those between these instants do not
    /// hold: asked for now, they are refused, and the others go on.
    fn loses(&self, from: i64, to: i64) -> bool {
        let (Some(rules), Some((after, upto))) = (&self.rules, self.backfill) else {
            return false;
        };
        let last = upto.min(self.cursor);
        let next = |slot: &i64| Some(rules.next(*slot)).filter(|slot| *slot <= last);
        let mut slots = std::iter::successors(next(&after), next);
        let left = slots.find(|slot| !self.fired_lately(*slot));
        left.is_some_and(|slot| slot < from || to < upto)
    }

    /// A past slot that a person wanted and that fired long ago.
    fn refills(&mut self, skipped: &Skipped) -> bool {
        let slot = skipped.to.0;
        match &mut self.backfill {
            Some((after, upto)) if slot <= self.cursor && *after < slot && slot <= *upto => {
                *after = slot;
                skipped.from == skipped.to && skipped.count == 1
            }
            _ => false,
        }
    }

    /// Skipped slots: all from the next one on, as many as are told.
    fn covers(&mut self, rules: &Rules, skipped: &Skipped) -> bool {
        let (from, to) = (skipped.from.0, skipped.to.0);
        let count = rules.count(self.cursor, to);
        let whole = from == rules.next(self.cursor)
            && rules.is_slot(to)
            && i64::from(skipped.count) == count.min(COUNTED);
        self.cursor = self.cursor.max(to);
        whole
    }
}

/// What `overlap` says of a firing beside open runs.
fn beside(rules: &Rules, cause: Cause, open: &[OpenRun]) -> Result<(), String> {
    let running = open.iter().filter(|run| !run.over).count();
    match (cause, rules.overlap) {
        (Cause::Backfill, _) | (_, Overlap::Forbid) if running > 0 => {
            Err(format!("fired beside {running} open runs"))
        }
        (Cause::Time | Cause::Catchup, Overlap::Allow) if running >= OPEN => {
            Err(format!("fired beside {running} open runs"))
        }
        (_, Overlap::Replace) if cause != Cause::Backfill => {
            match open.iter().any(|run| !run.over && !run.cancelled) {
                true => Err("fired, and the run before it goes on".to_owned()),
                false => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::time::Span;

    fn rules(rule: Rule, timezone: &str) -> (Rules, Calendar) {
        let schedule = Schedule {
            rule,
            timezone: timezone.to_owned(),
            catchup: Catchup::All,
            max_catchup: 3,
            starting_deadline: None,
            overlap: Overlap::Allow,
            jitter: Span(0),
        };
        let calendar = Calendar::new(&schedule).expect("a rule");
        (Rules::of(&schedule).expect("a planned rule"), calendar)
    }

    #[test]
    fn the_slots_of_the_planned_rules_are_those_of_the_calendar() {
        let crons = CRONS
            .iter()
            .map(|row| (Rule::Cron(row.0.to_owned()), row.1));
        let every = (Rule::Every(Span::secs(420)), "UTC");
        for (rule, zone) in crons.chain([every]) {
            let (rules, calendar) = rules(rule, zone);
            let mut at = Unix(crate::machine::EPOCH_MS - 400 * 86_400_000);
            for _ in 0..20_000 {
                let next = calendar.next(at).expect("another slot");
                assert_eq!(rules.next(at.0), next.0, "{rules:?}");
                at = next;
            }
        }
    }

    #[test]
    fn what_fires_too_early_too_late_or_too_often_is_noticed() {
        let (rules, _) = rules(Rule::Every(Span::secs(600)), "UTC");
        assert!(rules.timely(600_000, Cause::Time, 600_000).is_ok());
        assert!(rules.timely(600_000, Cause::Time, 599_999).is_err());
        assert!(rules.timely(600_000, Cause::Time, 700_000).is_err());
        assert!(rules.timely(600_000, Cause::Catchup, 1_900_000).is_ok());
        assert!(rules.timely(600_000, Cause::Catchup, 2_400_000).is_err());
    }

    /// Which slots are wanted when 1 to 6 were asked for, these fired, and others are asked for.
    fn wanted(fired: &[i64], from: i64, to: i64) -> (i64, i64) {
        const PERIOD: i64 = 600_000;
        let held = Held {
            epoch: 1,
            revision: 1,
            rules: Some(rules(Rule::Every(Span(PERIOD as u64)), "UTC").0),
            paused: (false, false),
            cursor: 9 * PERIOD,
            fired: fired.iter().map(|slot| slot * PERIOD).collect(),
            backfill: None,
            triggers: VecDeque::new(),
        };
        let id = ScheduleId([1; 16]);
        let mut slots = Slots::default();
        slots.held.insert(id, held);
        for (from, to) in [(1, 6), (from, to)] {
            let order = Order::Backfill(Unix(from * PERIOD), Unix(to * PERIOD));
            slots.order(id, 1, &order, Unix(0), false);
        }
        let (after, upto) = slots.held[&id].backfill.expect("some are wanted");
        ((after + 1) / PERIOD, upto / PERIOD)
    }

    #[test]
    fn past_slots_that_are_left_go_on_unless_others_hold_them_all() {
        assert_eq!(wanted(&[1], 3, 9), (1, 6), "2 is left");
        assert_eq!(wanted(&[1], 2, 5), (1, 6), "6 is left");
        assert_eq!(wanted(&[1], 2, 6), (2, 6));
        assert_eq!(wanted(&[1, 2, 3, 4, 5, 6], 3, 5), (3, 5));
    }
}
