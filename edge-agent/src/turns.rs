//! The turns of the agent's loop: what came becomes events, the driver decides and commits, and
//! what it asks for is done at the place where the agent runs. Threads, clocks and disks belong to
//! that place, so that the simulator takes the same turns in a world of its own.

use crate::asked::{answer, find_run, find_task};
use crate::control::Answer;
use crate::looping::{Ask, Ending, Message, Order};
use crate::reading;
use crate::room::{ROOM_FOR_FILES, is_to_thin};
use crate::schedule;
use edge_core::driver::{Driver, DriverError};
use edge_core::event::{Action, Boot, Event, Local, LocalReply, ProcessEnd};
use edge_core::store::Store;
use edge_exec as exec;
use shared::explain::Reason;
use shared::ids::{AttemptRef, Hash};
use shared::time::{Mono, Now, Stamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

/// How long an end by a signal that nobody here sent waits for the stop that may have come with it.
const SIGNAL_PAUSE: Duration = Duration::from_millis(250);
/// How often free room is measured.
const ROOM_INTERVAL: Duration = Duration::from_secs(2);
/// The same while nothing runs and there is room enough.
const IDLE_ROOM_INTERVAL: Duration = Duration::from_secs(30);
/// Longest sleep.
const LONGEST: Duration = Duration::from_secs(3600);
/// Pause after a commit that failed, so that a broken disk is not asked in a tight loop.
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// Where an agent's loop takes its turns: this machine, or a simulated one.
pub trait Place {
    /// Both clocks now.
    fn now(&self) -> Now;
    /// Whether the wall clock can have been set.
    fn clock_trusted(&self) -> bool;
    /// Bytes that may be written to the disk of the data directory; none if nobody can say.
    fn free_room(&self) -> Option<u64>;
    /// Bytes that telemetry takes of the disk at most.
    fn telemetry_quota(&self) -> u64;
    /// Telemetry gives up its room, or may take it again.
    fn thin(&mut self, thin: bool);
    /// The number of this boot is known.
    fn booted(&mut self, number: u32);
    /// The node's last fact.
    fn facts(&mut self, number: u64);
    /// Does what the core asks for. The end of an incarnation is not asked of it, nor is a reply to
    /// an order: those are the loop's own.
    fn act(&mut self, action: Action);
    /// The ends of these attempts are durable: their directories may go.
    fn settle(&mut self, attempts: Vec<AttemptRef>);
    /// Lets so much time pass.
    fn pause(&mut self, length: Duration);
}

/// An agent's core, and what its loop remembers between two turns.
pub struct Turns<S: Store, P: Place> {
    driver: Driver<S>,
    hands: Hands<P>,
    next_request: u64,
    /// Ends that were told to the core; their directories go once they are durable.
    unsettled: Vec<AttemptRef>,
    /// Questions that came while something was decided and not durable: what is shown must not be
    /// undone by a crash.
    asked: Vec<(Ask, SyncSender<Answer>)>,
    /// Ends by a signal that may be part of a stop of everything, and when they are told.
    signalled: Vec<(Mono, exec::Ended)>,
    boot: Boot,
    /// Number of this boot, for the stamps of what the executor reports.
    boot_number: u32,
    room_due: Mono,
    /// Whether the last measurement left no room for more work.
    scarce: bool,
    /// Whether telemetry was told to give up room.
    thinned: bool,
}

/// What a turn acts with.
struct Hands<P> {
    place: P,
    pending: BTreeMap<u64, SyncSender<Answer>>,
    /// Attempts that the executor holds.
    alive: BTreeSet<AttemptRef>,
    /// Those of them whose program is known to run; the others wait for a slot or just began.
    begun: BTreeSet<AttemptRef>,
    /// Why the loop is to end.
    ending: Option<Ending>,
}

impl<S: Store, P: Place> std::fmt::Debug for Turns<S, P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turns")
            .field("alive", &self.hands.alive.len())
            .finish_non_exhaustive()
    }
}

impl<S: Store, P: Place> Turns<S, P> {
    /// Turns that have not begun; `boot`: how this start came about.
    #[must_use]
    pub fn new(driver: Driver<S>, place: P, boot: Boot) -> Self {
        let room_due = place.now().mono;
        let hands = Hands {
            place,
            pending: BTreeMap::new(),
            alive: BTreeSet::new(),
            begun: BTreeSet::new(),
            ending: None,
        };
        Self {
            driver,
            hands,
            next_request: 0,
            unsettled: Vec::new(),
            asked: Vec::new(),
            signalled: Vec::new(),
            boot,
            boot_number: 0,
            room_due,
            scarce: false,
            thinned: false,
        }
    }

    /// The first turn: resumes all work.
    pub fn begin(&mut self) {
        let mut events = vec![Event::Boot(self.boot.clone())];
        self.measure_room(&mut events);
        self.decide(events);
        self.boot_number = self.driver.agent().status().boots;
        self.hands.place.booted(self.boot_number);
        self.settle_former();
    }

    /// Decides on `messages`, oldest first, and acts. Once the loop is to stop only ends are still
    /// recorded.
    pub fn turn(&mut self, messages: impl IntoIterator<Item = Message>) {
        let mut events = Vec::new();
        for message in messages {
            self.take(message, &mut events);
        }
        if events.is_empty() {
            events.push(Event::Wake);
        }
        match self.hands.ending {
            None => {
                self.release_signalled(&mut events);
                self.measure_room(&mut events);
                self.decide(events);
                self.answer_asked();
            }
            Some(Ending::Stopped) => {
                self.driver.close();
                self.decide(events);
            }
            Some(_) => {}
        }
    }

    /// Makes durable what still waits for company.
    pub fn flush(&mut self) {
        let Self { driver, hands, .. } = self;
        let now = hands.place.now();
        if let Err(why) = driver.flush(now, &mut |action| hands.act(action)) {
            tracing::error!(%why, "the last ends could not be recorded: those tasks run again");
        }
    }

    /// How long until the next turn is due, if no message comes.
    pub fn patience(&self) -> Duration {
        let now = self.hands.place.now().mono;
        let wake = self.driver.next_wakeup().map(|at| until(at, now));
        let signal = self.signalled.iter().map(|(due, _)| until(*due, now)).min();
        let room = match self.held() == 0 && !self.scarce {
            true => IDLE_ROOM_INTERVAL,
            false => until(self.room_due, now),
        };
        let wake = wake.unwrap_or(LONGEST);
        wake.min(room).min(signal.unwrap_or(Duration::MAX))
    }

    /// Why the loop is to end, if it is.
    pub fn ending(&self) -> Option<&Ending> {
        self.hands.ending.as_ref()
    }

    /// The same, and it is not to end any more.
    pub fn take_ending(&mut self) -> Option<Ending> {
        self.hands.ending.take()
    }

    /// Attempts that the executor holds.
    pub fn held(&self) -> usize {
        self.hands.alive.len()
    }

    /// The core with its store.
    pub fn driver(&self) -> &Driver<S> {
        &self.driver
    }

    /// Where they are taken.
    pub fn place(&self) -> &P {
        &self.hands.place
    }

    /// The same, to change it.
    pub fn place_mut(&mut self) -> &mut P {
        &mut self.hands.place
    }

    /// Files that nobody named were removed.
    pub fn files_gone(&mut self, gone: &BTreeSet<Hash>) {
        self.driver.files_gone(gone);
    }

    /// All attempts of the process before have a durable end by now.
    fn settle_former(&mut self) {
        let directories = self.boot.directories.iter();
        let former = directories.filter(|attempt| !self.hands.alive.contains(attempt));
        let former = former.copied().collect();
        self.hands.place.settle(former);
    }

    fn take(&mut self, message: Message, events: &mut Vec<Event>) {
        match message {
            Message::Event(event) => events.push(event),
            Message::Began { attempt, at } => {
                self.hands.begun.insert(attempt);
                let at = self.stamp(at);
                events.push(Event::Began { attempt, at });
            }
            Message::Ended(ended) if self.may_be_a_stop(&ended) => {
                let due = later(self.hands.place.now().mono, SIGNAL_PAUSE);
                self.signalled.push((due, ended));
            }
            Message::Ended(ended) => events.push(self.end(ended)),
            Message::Ask(ask, reply) => {
                self.asked.push((ask, reply));
                self.answer_asked();
            }
            Message::Order(order, reply) => self.order(order, reply, events),
            Message::Look(what, reply) => {
                let found = reading::read(&mut self.driver, what);
                // Whoever asked may be gone.
                let _ = reply.send(found.map_err(|error| error.to_string()));
            }
            Message::Stop => self.hands.ending = Some(Ending::Stopped),
        }
    }

    /// Answers from committed state, at the latest when the facts that wait for company are
    /// committed.
    fn answer_asked(&mut self) {
        if self.driver.has_uncommitted() {
            return;
        }
        for (ask, reply) in self.asked.drain(..) {
            // Whoever asked may be gone.
            let _ = reply.send(answer(self.driver.agent(), &ask));
        }
    }

    /// A service manager ends the agent and its tasks with one signal. Such an end is no failure of
    /// the task: it waits until it is clear that only the task was meant.
    fn may_be_a_stop(&self, ended: &exec::Ended) -> bool {
        const TERM_INT_KILL_HUP: [i32; 4] = [-15, -2, -9, -1];
        ended.reason == Reason::Signalled
            && ended
                .exit
                .is_some_and(|exit| TERM_INT_KILL_HUP.contains(&exit))
    }

    fn release_signalled(&mut self, events: &mut Vec<Event>) {
        if self.signalled.is_empty() {
            return;
        }
        let now = self.hands.place.now().mono;
        let all = std::mem::take(&mut self.signalled);
        let (due, waiting): (Vec<_>, Vec<_>) = all.into_iter().partition(|(at, _)| *at <= now);
        self.signalled = waiting;
        events.extend(due.into_iter().map(|(_, ended)| self.end(ended)));
    }

    fn end(&mut self, ended: exec::Ended) -> Event {
        self.hands.alive.remove(&ended.attempt);
        self.hands.begun.remove(&ended.attempt);
        self.unsettled.push(ended.attempt);
        let began = ended.began.map(|now| self.stamp(now));
        Event::Ended(ProcessEnd {
            attempt: ended.attempt,
            began,
            exit: ended.exit,
            reason: ended.reason,
            text: ended.text,
            outputs: ended.outputs,
            cpu_ms: ended.cpu_ms,
            peak_memory: ended.peak_memory,
        })
    }

    fn stamp(&self, now: Now) -> Stamp {
        Stamp {
            boot: self.boot_number,
            mono_ms: now.mono.0 / 1_000_000,
            wall: now.wall,
        }
    }

    /// Puts the room that there is before the events that are decided on; tasks can fill a disk at
    /// any time.
    fn measure_room(&mut self, events: &mut Vec<Event>) {
        let wanted = self.driver.room_wanted() + ROOM_FOR_FILES;
        let Some(mut free) = self.hands.place.free_room() else {
            return;
        };
        let agent = self.driver.agent();
        let enough = |free| agent.is_enough(free, wanted);
        let quota = self.hands.place.telemetry_quota();
        let thin = is_to_thin(self.thinned, free, quota, enough);
        if thin != self.thinned {
            // Telemetry is thinned before any work waits or an outcome is refused.
            self.hands.place.thin(thin);
            self.thinned = thin;
            free = self.hands.place.free_room().unwrap_or(free);
        }
        let scarce = !self.driver.agent().is_enough(free, wanted);
        let now = self.hands.place.now().mono;
        if scarce != self.scarce || now >= self.room_due {
            self.room_due = later(now, ROOM_INTERVAL);
            self.scarce = scarce;
            events.insert(0, Event::Room { free, wanted });
        }
        self.look_at_clock(events);
    }

    /// Says when the wall clock was set, or turned out not to be.
    fn look_at_clock(&mut self, events: &mut Vec<Event>) {
        let trusted = self.hands.place.clock_trusted();
        if trusted != self.boot.clock_trusted {
            self.boot.clock_trusted = trusted;
            events.insert(0, Event::Clock { trusted });
        }
    }

    fn order(&mut self, order: Order, reply: SyncSender<Answer>, events: &mut Vec<Event>) {
        let agent = self.driver.agent();
        let what = match order {
            Order::Submit { run, workflow, by } => Ok(Local::Submit { run, workflow, by }),
            Order::Cancel { run, by, why } => {
                find_run(agent, &run).map(|run| Local::Cancel { run, by, why })
            }
            Order::Pause { run, on, by } => {
                find_run(agent, &run).map(|run| Local::Pause { run, on, by })
            }
            Order::Resume { run, task, by } => {
                find_task(agent, &run, &task).map(|(run, task)| Local::Resume { run, task, by })
            }
            Order::Answer {
                run,
                task,
                yes,
                input,
                by,
            } => find_task(agent, &run, &task).map(|(run, task)| Local::Answer {
                run,
                task,
                yes,
                input,
                by,
            }),
            Order::CreateSchedule {
                id,
                workflow,
                replace,
                by,
            } => schedule::create(agent, id, workflow, replace, by),
            Order::AskSchedule { schedule, ask, by } => schedule::asked(agent, &schedule, ask, by),
            Order::PauseSync { length, by } => Ok(Local::PauseSync { length, by }),
            Order::ResumeSync { by } => Ok(Local::ResumeSync { by }),
        };
        match what {
            Ok(what) => {
                self.next_request += 1;
                self.hands.pending.insert(self.next_request, reply);
                events.push(Event::Local {
                    request: self.next_request,
                    what,
                });
            }
            Err(why) => {
                // Whoever asked may be gone.
                let _ = reply.send(Answer::Refused { why });
            }
        }
    }

    fn decide(&mut self, events: Vec<Event>) {
        let Self { driver, hands, .. } = self;
        let now = hands.place.now();
        let result = driver.run(now, events, &mut |action| hands.act(action));
        self.hands.place.facts(self.driver.agent().state().facts);
        match result {
            Ok(()) if self.unsettled.is_empty() || self.driver.has_uncommitted() => {}
            Ok(()) => {
                let settled = std::mem::take(&mut self.unsettled);
                self.hands.place.settle(settled);
            }
            Err(DriverError::Rebuilt(why)) => {
                tracing::error!(%why, "a commit failed; the state was read again from the store");
                self.hands.place.pause(AFTER_FAILURE);
                let boot = Boot {
                    directories: self.hands.begun.clone(),
                    alive: self.hands.alive.clone(),
                    ..self.boot.clone()
                };
                self.decide(vec![Event::Boot(boot)]);
            }
            Err(DriverError::Fatal(why)) => {
                self.hands.ending = Some(Ending::Fatal(why.to_string()));
            }
        }
    }
}

impl<P: Place> Hands<P> {
    fn act(&mut self, action: Action) {
        match action {
            Action::Begin(launch) => {
                self.alive.insert(launch.attempt);
                self.place.act(Action::Begin(launch));
            }
            Action::Reply { request, reply } => {
                let answer = match &reply {
                    LocalReply::Done => Answer::Done,
                    LocalReply::Refused(why) => Answer::Refused { why: why.clone() },
                };
                match self.pending.remove(&request) {
                    // Whoever asked may be gone.
                    Some(to) => drop(to.send(answer)),
                    None => self.place.act(Action::Reply { request, reply }),
                }
            }
            Action::NewIncarnation { why } => {
                self.ending.get_or_insert(Ending::NewIncarnation(why));
            }
            action => self.place.act(action),
        }
    }
}

fn until(due: Mono, now: Mono) -> Duration {
    Duration::from_nanos(due.0.saturating_sub(now.0))
}

fn later(now: Mono, by: Duration) -> Mono {
    Mono(now.0 + by.as_nanos() as u64)
}
