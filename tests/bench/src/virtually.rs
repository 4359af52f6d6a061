//! The agent's driver with processes that take no time of their own: for what is measured without
//! starting any.

use anyhow::{Result, bail};
use edge_core::driver::Driver;
use edge_core::event::{Action, Boot, Config, Event, Local, LocalReply, ProcessEnd};
use edge_core::store::Store;
use shared::codec;
use shared::explain::Reason;
use shared::ids::{AttemptRef, BootId, RunId};
use shared::time::{Mono, Now, Span, Stamp, Unix};
use shared::workflow::{Resources, Workflow};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::gateway::IDENTITY;

/// The clocks of this machine.
pub(crate) fn now() -> Now {
    edge_agent::clock::now()
}

/// Settings as the agent's shell makes them.
pub(crate) fn config(slots: u32) -> Config {
    Config {
        node: IDENTITY.node,
        incarnation: IDENTITY.incarnation,
        succeeds: None,
        name: "bench".to_owned(),
        labels: BTreeMap::new(),
        capacity: Resources {
            cpu_milli: 2000,
            memory: u64::MAX / 4,
            disk: u64::MAX / 4,
            ..Resources::default()
        },
        slots,
        redial: (Span(200), Span::secs(30)),
        snapshot_interval: Span::secs(10),
        fact_window: Span::secs(24 * 3600),
        inventory_part: shared::limits::INVENTORY_PART_BYTES,
        has_coordinator: false,
        version: "bench".to_owned(),
        scheduler: shared::config::scheduler::Scheduler::default(),
    }
}

/// How the benchmarks' agents start.
pub(crate) fn boot() -> Boot {
    Boot {
        boot: BootId([5; 16]),
        seed: 1,
        directories: BTreeSet::new(),
        alive: BTreeSet::new(),
        ended: Vec::new(),
        clock_trusted: true,
        clean_stop: false,
    }
}

/// An agent on a clock of its own.
#[derive(Debug)]
pub(crate) struct Virtual<S: Store> {
    driver: Driver<S>,
    now: Now,
    slots: usize,
    /// Attempts that were begun, oldest first; so many as there are slots run.
    begun: VecDeque<AttemptRef>,
    runs: u8,
}

impl<S: Store> Virtual<S> {
    /// An agent on `store`.
    pub(crate) fn boot(store: S, slots: u32) -> Result<Self> {
        Self::boot_as(store, config(slots))
    }

    /// An agent with these settings on `store`.
    pub(crate) fn boot_as(store: S, config: Config) -> Result<Self> {
        let slots = config.slots;
        let mut agent = Self {
            driver: Driver::open(store, config)?,
            now: Now {
                mono: Mono(1_000_000_000),
                wall: Unix(1_800_000_000_000),
            },
            slots: slots as usize,
            begun: VecDeque::new(),
            runs: 0,
        };
        agent.step(vec![Event::Boot(boot())])?;
        Ok(agent)
    }

    /// Submits a run.
    pub(crate) fn submit(&mut self, workflow: &Workflow) -> Result<()> {
        self.submit_packed(codec::pack(workflow).0)
    }

    /// Submits a run of a packed workflow.
    pub(crate) fn submit_packed(&mut self, workflow: Vec<u8>) -> Result<()> {
        let mut run = [self.runs; 16];
        run[..8].copy_from_slice(&self.now.mono.0.to_le_bytes());
        self.runs = self.runs.wrapping_add(1);
        let what = Local::Submit {
            run: RunId(run),
            workflow,
            by: "bench".to_owned(),
        };
        self.step(vec![Event::Local { request: 1, what }])
    }

    /// So many bytes are free, and so many are wanted before new work is begun.
    pub(crate) fn measure_room(&mut self, free: u64, wanted: u64) -> Result<()> {
        self.step(vec![Event::Room { free, wanted }])
    }

    /// Number of attempts that were begun and not ended.
    pub(crate) fn running(&self) -> usize {
        self.begun.len()
    }

    /// Lets the clock go on, with the driver awake where it wants to be.
    pub(crate) fn pass(&mut self, micros: u64) -> Result<()> {
        let until = self.now.mono.0 + micros * 1000;
        while let Some(at) = self.driver.next_wakeup().filter(|at| at.0 <= until) {
            self.set_clock(at.0.max(self.now.mono.0));
            self.step(vec![Event::Wake])?;
        }
        self.set_clock(until);
        Ok(())
    }

    fn set_clock(&mut self, nanos: u64) {
        // What is below a millisecond counts with the next step: both clocks run at one rate.
        let passed = nanos / 1_000_000 - self.now.mono.0 / 1_000_000;
        self.now.wall.0 += i64::try_from(passed).unwrap_or(0);
        self.now.mono = Mono(nanos);
    }

    /// The oldest attempt ends well, and the one that takes its slot begins: the events of one
    /// task.
    pub(crate) fn end_one(&mut self) -> Result<()> {
        let Some(attempt) = self.begun.pop_front() else {
            return Ok(());
        };
        let mut events = vec![self.ended(attempt, 1, 1 << 20)];
        if let Some(next) = self.begun.get(self.slots.saturating_sub(1)) {
            let at = self.stamp();
            events.push(Event::Began { attempt: *next, at });
        }
        self.step(events)
    }

    /// All attempts that have begun end well, in one group of events, after more or less work.
    pub(crate) fn end_all(&mut self) -> Result<()> {
        let begun = std::mem::take(&mut self.begun);
        let ends = begun.into_iter().map(|attempt| {
            // digits of a number that nobody can compress
            let hash = shared::ids::Hash::of(&attempt.task.0.to_le_bytes()).0;
            let cpu_ms = u64::from(u16::from_le_bytes([hash[0], hash[1]]));
            let memory = u64::from(u16::from_le_bytes([hash[2], hash[3]])) << 12;
            self.ended(attempt, cpu_ms, memory)
        });
        let ends = ends.collect();
        self.step(ends)
    }

    fn stamp(&self) -> Stamp {
        Stamp {
            boot: 1,
            mono_ms: self.now.mono.0 / 1_000_000,
            wall: self.now.wall,
        }
    }

    fn ended(&self, attempt: AttemptRef, cpu_ms: u64, peak_memory: u64) -> Event {
        Event::Ended(ProcessEnd {
            attempt,
            began: Some(self.stamp()),
            exit: Some(0),
            reason: Reason::ExitedZero,
            text: String::new(),
            outputs: Vec::new(),
            cpu_ms,
            peak_memory,
        })
    }

    fn step(&mut self, events: Vec<Event>) -> Result<()> {
        let begun = &mut self.begun;
        let mut refused = None;
        self.driver
            .run(self.now, events, &mut |action| match action {
                Action::Begin(launch) => begun.push_back(launch.attempt),
                Action::Reply {
                    reply: LocalReply::Refused(why),
                    ..
                } => refused = Some(why),
                _ => {}
            })?;
        if let Some(why) = refused {
            bail!("the submission was refused: {why}");
        }
        Ok(())
    }
}
