//! Firing: which slots of the schedules here are due, and what they become. Each firing is a fact
//! before it is a run; which slot became which run is the same however often it is decided.
//!
//! While the wall clock is not to be trusted, slots go by the best guess (the coordinator's word in
//! this boot, else the later of the clock and of the last fact's time plus what has passed since
//! the start); when the clock is corrected, `due` judges what was missed or fired ahead of time.

use crate::agent::{Agent, Effects, Timer};
use crate::scheduled::Scheduled;
use shared::explain::Reason;
use shared::fact::Body;
use shared::ids::{Epoch, Hash, RunId, ScheduleId, SliceRef};
use shared::schedule::due::{Look, Question, Skipped};
use shared::schedule::view::View;
use shared::schedule::{Calendar, Cause, Order, Overlap, Schedule, run_of};
use shared::time::{Mono, Span, Unix};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The clock may jump without anybody saying so: it is looked at again after this time.
const GLANCE: Span = Span::secs(30);
/// So many firings of one schedule within [`BRAKE`] are enough, whatever the calendar says.
const BURST: usize = 10;
/// See [`BURST`].
const BRAKE: Span = Span::secs(60);
/// Runs here, beyond which no schedule fires.
const RUNS: usize = 5000;
/// Decisions about one schedule in one step; what is left is decided after [`REST`].
const DECISIONS: usize = 64;
/// See [`DECISIONS`].
const REST: i64 = 1000;

/// What is derived from a schedule.
#[derive(Debug)]
struct Live {
    workflow: Hash,
    schedule: Schedule,
    calendar: Calendar,
    until: Option<Unix>,
    why: Option<Reason>,
    fires: VecDeque<Mono>,
}

/// What is derived from all of them.
#[derive(Debug, Default)]
pub(crate) struct Schedules {
    live: BTreeMap<ScheduleId, Live>,
    /// To be looked at.
    looks: BTreeSet<ScheduleId>,
    /// What the wall clock showed at the last fact before this start, and when that was.
    floor: (Unix, Mono),
    /// What the coordinator's clock showed, and when.
    heard: Option<(Unix, Mono)>,
    due: Option<Mono>,
}

impl Agent {
    /// Begins to look at schedules; before the first fact of this start.
    pub(crate) fn begin_schedules(&mut self) {
        self.schedules.floor = (self.state.wall, self.now.mono);
        self.look_at_schedules();
    }

    fn look_at_schedules(&mut self) {
        self.schedules.looks = self.state.schedules.keys().copied().collect();
    }

    /// Schedules that a fold touched.
    pub(crate) fn touch_schedules(&mut self, touched: BTreeSet<ScheduleId>) {
        self.schedules.looks.extend(touched);
    }

    /// The shell says whether the wall clock was set.
    pub(crate) fn on_clock(&mut self, trusted: bool) {
        if self.clock_trusted != trusted {
            self.clock_trusted = trusted;
            self.look_at_schedules();
            self.arm_sync_end();
            self.arm_deadlines();
        }
    }

    /// The coordinator said what its clock shows.
    pub(crate) fn heard_clock(&mut self, wall: Unix) {
        self.schedules.heard = Some((wall, self.now.mono));
        if !self.clock_trusted {
            self.look_at_schedules();
        }
    }

    /// Whether the time is known, by this machine's clock or by the coordinator's.
    pub(crate) fn clock_known(&self) -> bool {
        self.clock_trusted || self.schedules.heard.is_some()
    }

    /// The wall clock that schedules go by.
    #[must_use]
    pub fn calendar_now(&self) -> Unix {
        let passed = |(wall, mono): (Unix, Mono)| {
            let passed = i64::try_from((self.now.mono - mono).0).unwrap_or(i64::MAX);
            Unix(wall.0.saturating_add(passed))
        };
        match self.schedules.heard {
            _ if self.clock_trusted => self.now.wall,
            Some(heard) => passed(heard),
            None => passed(self.schedules.floor).max(self.now.wall),
        }
    }

    /// Looks at one schedule that may have something to do. Whether there was one.
    pub(crate) fn look_at_next_schedule(&mut self, fx: &mut Effects) -> bool {
        let Some(id) = self.schedules.looks.pop_first() else {
            return false;
        };
        self.look_at_schedule(id, fx);
        if self.schedules.looks.is_empty() {
            self.arm_slots();
        }
        true
    }

    fn look_at_schedule(&mut self, id: ScheduleId, fx: &mut Effects) {
        if !self.make_live(id) {
            self.schedules.live.remove(&id);
            return;
        }
        let mut decisions = 0;
        let (until, why) = loop {
            let Some(held) = self.state.schedules.get(&id) else {
                return;
            };
            if decisions == DECISIONS {
                // each decision has it looked at again, in this very step
                self.schedules.looks.remove(&id);
                break (Some(Unix(self.calendar_now().0.saturating_add(REST))), None);
            }
            decisions += 1;
            if held.paused() {
                break (None, Some(Reason::PausedByPerson));
            }
            let Some(live) = self.schedules.live.get(&id) else {
                return;
            };
            let open = self.state.open_runs(id);
            let question = Question {
                id,
                schedule: &live.schedule,
                calendar: &live.calendar,
                progress: &held.progress,
                now: self.calendar_now(),
                open: open.len(),
            };
            let wanted = held.triggers.front().copied();
            let look = match (wanted, live.schedule.overlap) {
                (Some(slot), Overlap::Forbid) if !open.is_empty() => {
                    Look::Skip(one(slot, Reason::RunOpen))
                }
                (Some(slot), _) => Look::Fire(slot, Cause::Trigger),
                (None, _) => question.look(),
            };
            match look {
                Look::Wait(until, why) => break (until, why),
                Look::Skip(skipped) => self.skip_slots(id, skipped, fx),
                Look::Fire(slot, cause) => {
                    if let Err(wait) = self.fire_slot(id, slot, cause, &open, fx) {
                        break wait;
                    }
                }
            }
        };
        if let Some(live) = self.schedules.live.get_mut(&id) {
            (live.until, live.why) = (until, why);
        }
    }

    fn make_live(&mut self, id: ScheduleId) -> bool {
        let Some(template) = self.state.template(id) else {
            return false;
        };
        let hash = self.state.schedules.get(&id).map(|held| held.workflow);
        let live = self.schedules.live.get(&id);
        if live.map(|live| live.workflow) == hash {
            return true;
        }
        let (Some(schedule), Some(workflow)) = (template.schedule.clone(), hash) else {
            return false;
        };
        let Ok(calendar) = Calendar::new(&schedule) else {
            return false;
        };
        let live = Live {
            workflow,
            schedule,
            calendar,
            until: None,
            why: None,
            fires: VecDeque::new(),
        };
        self.schedules.live.insert(id, live);
        true
    }

    fn skip_slots(&mut self, schedule: ScheduleId, skipped: Skipped, fx: &mut Effects) {
        let epoch = self.epoch_of(schedule);
        self.emit(
            Body::SlotsSkipped {
                schedule,
                epoch,
                skipped,
            },
            fx,
        );
    }

    fn epoch_of(&self, id: ScheduleId) -> Epoch {
        self.state
            .schedules
            .get(&id)
            .map_or(Epoch(0), |held| held.epoch)
    }

    /// Fires a slot, or says until when it cannot.
    fn fire_slot(
        &mut self,
        schedule: ScheduleId,
        slot: Unix,
        cause: Cause,
        open: &[RunId],
        fx: &mut Effects,
    ) -> Result<(), (Option<Unix>, Option<Reason>)> {
        let epoch = self.epoch_of(schedule);
        let run = run_of(schedule, epoch, slot);
        if self.state.runs.contains_key(&run) || self.state.forgotten.contains(&run) {
            self.skip_slots(schedule, one(slot, Reason::FiredBefore), fx);
            return Ok(());
        }
        let later = Some(Unix(self.calendar_now().0.saturating_add(GLANCE.0 as i64)));
        if !self.has_room() {
            return Err((later, Some(Reason::WaitsForDisk)));
        }
        if self.state.runs.len() >= RUNS {
            return Err((later, Some(Reason::NoRoom)));
        }
        let now = self.now.mono;
        if let Some(live) = self.schedules.live.get_mut(&schedule) {
            live.fires.retain(|at| now - *at < BRAKE);
            if live.fires.len() >= BURST {
                return Err((later, Some(Reason::WaitsForResources)));
            }
        }
        if self.never_fits(schedule) {
            self.skip_slots(schedule, one(slot, Reason::DoesNotFit), fx);
            return Ok(());
        }
        self.replace_runs(schedule, slot, open, fx);
        if let Some(live) = self.schedules.live.get_mut(&schedule) {
            live.fires.push_back(now);
        }
        let slice = SliceRef {
            run,
            slice: 0,
            epoch: Epoch::LOCAL,
        };
        let trusted = self.clock_known();
        let held = self.state.schedules.get(&schedule);
        let revision = held.map_or(0, |held| held.revision);
        self.emit(
            Body::Fired {
                schedule,
                epoch,
                slot,
                slice,
                cause,
                trusted,
                revision,
            },
            fx,
        );
        self.tidy_soon();
        Ok(())
    }

    fn never_fits(&self, id: ScheduleId) -> bool {
        let tasks = self.state.template(id).map(|template| &template.tasks);
        let mut tasks = tasks.into_iter().flatten();
        tasks.any(|task| self.config.capacity.lacks(&task.resources).is_some())
    }

    /// The runs that a firing replaces are cancelled.
    fn replace_runs(&mut self, id: ScheduleId, slot: Unix, open: &[RunId], fx: &mut Effects) {
        let overlap = self
            .schedules
            .live
            .get(&id)
            .map(|live| live.schedule.overlap);
        if overlap != Some(Overlap::Replace) {
            return;
        }
        let name = self.state.schedules.get(&id).map(|held| held.name.clone());
        let by = format!("schedule {}", name.unwrap_or_default());
        for run in open {
            if self
                .state
                .runs
                .get(run)
                .is_some_and(|run| run.cancel.is_none())
            {
                let (run, by) = (*run, by.clone());
                let why = format!("replaced by the run of {slot}");
                self.emit(Body::CancelledHere { run, by, why }, fx);
            }
        }
    }

    /// Arms the next look at what is due by then; the clock itself is looked at now and then.
    fn arm_slots(&mut self) {
        let now = self.calendar_now();
        let waits = self
            .schedules
            .live
            .values()
            .filter(|live| live.until.is_some());
        let next = waits.filter_map(|live| live.until).min();
        let due = next.map(|until| {
            let left = Span(u64::try_from(until.0.saturating_sub(now.0)).unwrap_or(0));
            self.now.mono + left.min(GLANCE)
        });
        if due != self.schedules.due {
            self.timers.retain(|(_, timer)| *timer != Timer::Slots);
            self.timers.extend(due.map(|due| (due, Timer::Slots)));
            self.schedules.due = due;
        }
    }

    /// What is due, or lies ahead of a clock that was set back, is looked at.
    pub(crate) fn slots_due(&mut self) {
        self.schedules.due = None;
        let now = self.calendar_now();
        for (id, live) in &self.schedules.live {
            let cursor = self
                .state
                .schedules
                .get(id)
                .map(|held| held.progress.cursor);
            let due = live.until.is_some_and(|until| until <= now);
            if due || cursor > Some(now) {
                self.schedules.looks.insert(*id);
            }
        }
        if self.schedules.looks.is_empty() {
            self.arm_slots();
        }
    }

    /// What a person at the gateway asks of a schedule.
    pub(crate) fn ask_schedule(
        &mut self,
        schedule: ScheduleId,
        what: Order,
        by: String,
        fx: &mut Effects,
    ) -> Result<(), String> {
        let held = self.state.schedules.get(&schedule);
        let foreign = held.is_some_and(|held| !held.local);
        if foreign && matches!(what, Order::Set { .. } | Order::Drop) {
            let text = "the schedule is the coordinator's: change or delete it there, or pause it \
                        here";
            return Err(text.to_owned());
        }
        let epoch = held.map_or(Epoch(0), |held| held.epoch);
        if let Order::Set { workflow, .. } = &what {
            let (workflow, ..) = crate::scheduled::readable(workflow).map_err(|(_, text)| text)?;
            let taken = |(id, held): (&ScheduleId, &Scheduled)| {
                *id != schedule && held.local && held.name == workflow.name
            };
            if self.state.schedules.iter().any(taken) {
                return Err(format!(
                    "a schedule named {} is here already",
                    workflow.name
                ));
            }
            if !self.has_room() {
                return Err("there is no room on the disk for more work".to_owned());
            }
        }
        self.state
            .judge_order(schedule, epoch, &what)
            .map_err(|(_, text)| text)?;
        self.emit(Body::ScheduleAsked { schedule, what, by }, fx);
        Ok(())
    }

    /// The slots of a schedule.
    #[must_use]
    pub fn calendar(&self, id: ScheduleId) -> Option<&Calendar> {
        self.schedules.live.get(&id).map(|live| &live.calendar)
    }

    /// The schedules that this node fires, by name.
    #[must_use]
    pub fn schedule_views(&self) -> Vec<View> {
        let ids = self.state.schedules.keys();
        let mut views: Vec<View> = ids.filter_map(|id| self.schedule_view(*id)).collect();
        views.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        views
    }

    fn schedule_view(&self, id: ScheduleId) -> Option<View> {
        let held = self.state.schedules.get(&id)?;
        let schedule = self.state.template(id)?.schedule.as_ref()?;
        let live = self.schedules.live.get(&id);
        let calendar = live.map(|live| &live.calendar);
        let mut view = View::new(
            (id, &held.name, &self.config.name),
            schedule,
            calendar,
            &held.progress,
        );
        (view.revision, view.epoch) = (held.revision, held.epoch.0);
        (view.by, view.since) = held.by.clone();
        if held.paused() {
            "paused".clone_into(&mut view.state);
        }
        view.why = match (live.and_then(|live| live.why), &held.paused_here) {
            (_, Some(who)) => Some(format!("paused here by {who}")),
            (Some(reason), None) => Some(shared::schedule::view::sentence(reason)),
            (None, None) if !self.clock_known() => {
                Some("the clock was not set since the machine started; it goes by a guess".into())
            }
            (None, None) => None,
        };
        Some(view)
    }

    /// The next `most` slots of a schedule, by its clock.
    #[must_use]
    pub fn next_slots(&self, id: ScheduleId, most: usize) -> Vec<Unix> {
        let (Some(held), Some(live)) =
            (self.state.schedules.get(&id), self.schedules.live.get(&id))
        else {
            return Vec::new();
        };
        let mut at = held.progress.cursor.max(self.calendar_now());
        let next = std::iter::from_fn(|| {
            at = live.calendar.next(at)?;
            Some(at)
        });
        next.take(most).collect()
    }
}

fn one(slot: Unix, reason: Reason) -> Skipped {
    Skipped {
        from: slot,
        to: slot,
        count: 1,
        reason,
    }
}
