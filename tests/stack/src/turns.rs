//! The agent's loop in the world of `sim`: its turns are those of `edge-agent`, its threads,
//! executor and disk are the world's.

use crate::carrier::{MISTAKEN, Mistake};
use edge_agent::control::Answer;
use edge_agent::looping::{Ending, Message, Order};
use edge_agent::turns::{Place, Turns};
use edge_core::agent::Agent;
use edge_core::driver::{Driver, DriverError};
use edge_core::event::{Action, Boot, Event, Local, LocalReply, ProcessEnd};
use edge_core::store::StoreError;
use edge_exec::Ended;
use shared::ids::{AttemptRef, RunId, TaskIdx};
use shared::time::{Mono, Now, Stamp};
use sim::rng::Rng;
use sim::shell::{Act, Acts, Around, Shell};
use sim::tap::{EdgeNote, EdgeTap, Handle};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Messages of one turn, as in the loop.
const GROUP: usize = 512;
/// What telemetry may take of the disk; the world measures for itself.
const QUOTA: u64 = 8 << 20;
/// Requests that are events for the loop, and no orders of people, have numbers beyond its own.
const FOREIGN: u64 = 1 << 48;

/// Mistakes that a loop makes now and then.
pub(crate) struct Slips {
    mistake: Option<Mistake>,
    dice: Rng,
}

impl Slips {
    /// One of so many moments meets `mistake`.
    pub(crate) fn new(mistake: Option<Mistake>, dice: Rng) -> Self {
        Self { mistake, dice }
    }

    fn slip(&mut self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake) && self.dice.below(MISTAKEN) == 0
    }
}

/// A simulated machine, seen from a loop.
struct Simulated {
    around: Around,
    handle: Handle<EdgeNote>,
    acts: Acts,
    slips: Slips,
}

impl Simulated {
    /// A process that died in a commit does nothing more.
    fn say(&mut self, act: Act) {
        let shared = self.handle.lock();
        if !shared.dead {
            self.acts.push((act, shared.notes.len()));
        }
    }
}

impl Place for Simulated {
    fn now(&self) -> Now {
        self.around.now
    }

    fn clock_trusted(&self) -> bool {
        self.around.trusted
    }

    fn free_room(&self) -> Option<u64> {
        Some(self.around.free)
    }

    fn telemetry_quota(&self) -> u64 {
        QUOTA
    }

    fn thin(&mut self, _: bool) {}

    fn booted(&mut self, _: u32) {}

    fn facts(&mut self, _: u64) {}

    fn act(&mut self, action: Action) {
        if matches!(action, Action::Begin(_)) && self.slips.slip(Mistake::LosesBegin) {
            return;
        }
        let action = match action {
            Action::Reply { request, reply } => Action::Reply {
                request: request - FOREIGN,
                reply,
            },
            action => action,
        };
        self.say(Act::Core(action));
    }

    fn settle(&mut self, attempts: Vec<AttemptRef>) {
        if !attempts.is_empty() {
            self.say(Act::Settled(attempts));
        }
    }

    fn pause(&mut self, _: Duration) {}
}

/// The loop of one agent.
pub(crate) struct Looping {
    turns: Turns<EdgeTap, Simulated>,
    begun: bool,
    /// Orders that are not answered yet.
    orders: Vec<(u64, Receiver<Answer>)>,
}

impl Looping {
    /// A loop that has not begun.
    pub(crate) fn new(
        driver: Driver<EdgeTap>,
        handle: Handle<EdgeNote>,
        boot: Boot,
        around: Around,
        slips: Slips,
    ) -> Self {
        let place = Simulated {
            around,
            handle,
            acts: Acts::new(),
            slips,
        };
        Self {
            turns: Turns::new(driver, place, boot),
            begun: false,
            orders: Vec::new(),
        }
    }

    /// The event as the loop hears it; none of what it finds out by itself.
    fn message(&mut self, event: Event) -> Option<Message> {
        match event {
            Event::Boot(_) | Event::Room { .. } | Event::Clock { .. } | Event::Wake => None,
            Event::Began { attempt, at } => Some(Message::Began {
                attempt,
                at: read(at),
            }),
            Event::Ended(_) if self.slips(Mistake::LosesEnd) => None,
            Event::Ended(end) => Some(Message::Ended(ended(
                end,
                self.turns.place_mut().around.now,
            ))),
            Event::Local { request, what } => Some(self.asked(request, what)),
            event => Some(Message::Event(event)),
        }
    }

    fn slips(&mut self, mistake: Mistake) -> bool {
        self.turns.place_mut().slips.slip(mistake)
    }

    fn asked(&mut self, request: u64, what: Local) -> Message {
        match order(self.agent(), what) {
            Ok(order) => {
                let (reply, answer): (SyncSender<Answer>, _) = sync_channel(1);
                self.orders.push((request, answer));
                Message::Order(order, reply)
            }
            Err(what) => Message::Event(Event::Local {
                request: request + FOREIGN,
                what,
            }),
        }
    }

    fn answers(&mut self) {
        let place = self.turns.place_mut();
        self.orders.retain(|(request, answer)| {
            let reply = match answer.try_recv() {
                Err(_) => return true,
                Ok(Answer::Refused { why }) => LocalReply::Refused(why),
                Ok(_) => LocalReply::Done,
            };
            let request = *request;
            place.say(Act::Core(Action::Reply { request, reply }));
            false
        });
    }

    fn ended(&mut self) -> Result<(), DriverError> {
        match self.turns.take_ending() {
            None | Some(Ending::Stopped) => Ok(()),
            Some(Ending::NewIncarnation(why)) => {
                let action = Action::NewIncarnation { why };
                self.turns.place_mut().say(Act::Core(action));
                Ok(())
            }
            Some(Ending::Fatal(why)) => Err(DriverError::Fatal(StoreError::Failed(why))),
        }
    }
}

impl Shell for Looping {
    fn step(&mut self, around: Around, events: Vec<Event>) -> (Acts, Result<(), DriverError>) {
        self.turns.place_mut().around = around;
        if !std::mem::replace(&mut self.begun, true) {
            self.turns.begin();
        }
        let messages: Vec<Message> = events
            .into_iter()
            .filter_map(|event| self.message(event))
            .collect();
        let mut messages = messages.into_iter().peekable();
        loop {
            self.turns.turn(messages.by_ref().take(GROUP));
            if messages.peek().is_none() {
                break;
            }
        }
        self.answers();
        let result = self.ended();
        (std::mem::take(&mut self.turns.place_mut().acts), result)
    }

    fn stop(&mut self, around: Around, events: Vec<Event>) -> (Acts, Result<(), DriverError>) {
        self.turns.place_mut().around = around;
        let events = events.into_iter();
        let messages: Vec<Message> = events.filter_map(|event| self.message(event)).collect();
        let stop = std::iter::once(Message::Stop);
        self.turns.turn(stop.chain(messages));
        self.turns.flush();
        self.answers();
        let result = self.ended();
        (std::mem::take(&mut self.turns.place_mut().acts), result)
    }

    fn next_wakeup(&self) -> Option<Mono> {
        let now = self.turns.place().around.now.mono;
        Some(Mono(now.0 + self.turns.patience().as_nanos() as u64))
    }

    fn agent(&self) -> &Agent {
        self.turns.driver().agent()
    }

    fn has_uncommitted(&self) -> bool {
        self.turns.driver().has_uncommitted()
    }
}

/// A stamp as the executor reads the clocks.
fn read(at: Stamp) -> Now {
    Now {
        mono: Mono(at.mono_ms * 1_000_000),
        wall: at.wall,
    }
}

/// An end as the executor tells it.
fn ended(end: ProcessEnd, at: Now) -> Ended {
    Ended {
        attempt: end.attempt,
        exit: end.exit,
        outputs: end.outputs,
        reason: end.reason,
        began: end.began.map(read),
        at,
        cpu_ms: end.cpu_ms,
        peak_memory: end.peak_memory,
        log_dropped: 0,
        text: end.text,
        idle: false,
    }
}

/// What a person at the gateway asks for as the local commands do; what none of them does comes
/// back.
fn order(agent: &Agent, what: Local) -> Result<Order, Local> {
    let name = |run: RunId, task: TaskIdx| {
        let tasks = agent.ps(true).into_iter();
        let found = tasks.filter(|one| one.run == run && one.index == task);
        found.map(|one| one.task).next()
    };
    Ok(match what {
        Local::Submit { run, workflow, by } => Order::Submit { run, workflow, by },
        Local::Cancel { run, by, why } => Order::Cancel {
            run: run.to_string(),
            by,
            why,
        },
        Local::Pause { run, on, by } => Order::Pause {
            run: run.to_string(),
            on,
            by,
        },
        Local::Resume { run, task, by } => match name(run, task) {
            Some(task) => Order::Resume {
                run: run.to_string(),
                task,
                by,
            },
            None => return Err(Local::Resume { run, task, by }),
        },
        Local::Answer {
            run,
            task,
            yes,
            input,
            by,
        } => match name(run, task) {
            Some(task) => Order::Answer {
                run: run.to_string(),
                task,
                yes,
                input,
                by,
            },
            None => {
                return Err(Local::Answer {
                    run,
                    task,
                    yes,
                    input,
                    by,
                });
            }
        },
        Local::PauseSync { length, by } => Order::PauseSync { length, by },
        Local::ResumeSync { by } => Order::ResumeSync { by },
        // the world says by which slots a schedule goes on
        what @ Local::Schedule { .. } => return Err(what),
    })
}
