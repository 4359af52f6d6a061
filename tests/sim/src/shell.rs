//! What of an agent's shell takes its steps: on layers 1 and 2 the core alone, on layer 3 the turns
//! of the real loop.

use crate::machine::Machine;
use crate::queue::Time;
use crate::tap::{EdgeNote, EdgeTap, Handle};
use edge_core::agent::Agent;
use edge_core::driver::{Driver, DriverError};
use edge_core::event::{Action, Event};
use shared::ids::AttemptRef;
use shared::time::{Mono, Now};

/// Something that is to be done.
#[derive(Debug)]
pub enum Act {
    /// The core asks for it.
    Core(Action),
    /// The ends of these attempts are durable: their directories may go.
    Settled(Vec<AttemptRef>),
}

/// What a step asks for, each with the number of notes of the tap before it.
pub type Acts = Vec<(Act, usize)>;

/// What a step can see of its machine.
#[derive(Debug, Clone, Copy)]
pub struct Around {
    /// Both clocks.
    pub now: Now,
    /// The wall clock was set.
    pub trusted: bool,
    /// Bytes that may be written.
    pub free: u64,
}

/// Takes the steps of an agent.
pub trait Shell {
    /// Decides on what came, commits, and says what is to be done.
    ///
    /// # Errors
    /// [`DriverError`]: whether the core was rebuilt or the process must end.
    fn step(&mut self, around: Around, events: Vec<Event>) -> (Acts, Result<(), DriverError>);
    /// The last step: records what came and what is known, and starts nothing more.
    ///
    /// # Errors
    /// As of [`Self::step`]: what is not recorded runs again.
    fn stop(&mut self, around: Around, events: Vec<Event>) -> (Acts, Result<(), DriverError>);
    /// When it wants to take one although nothing comes.
    fn next_wakeup(&self) -> Option<Mono>;
    /// The core.
    fn agent(&self) -> &Agent;
    /// Whether something is decided and not durable.
    fn has_uncommitted(&self) -> bool;
}

/// The core alone.
pub(crate) struct Core {
    pub(crate) driver: Driver<EdgeTap>,
    pub(crate) handle: Handle<EdgeNote>,
    /// What it keeps of each step, where that is planted.
    pub(crate) hoard: Option<Vec<[u8; 4096]>>,
}

impl Shell for Core {
    fn step(&mut self, around: Around, events: Vec<Event>) -> (Acts, Result<(), DriverError>) {
        if let Some(hoard) = &mut self.hoard {
            hoard.push([0; 4096]);
        }
        let (mut acts, handle) = (Acts::new(), &self.handle);
        let result = self.driver.run(around.now, events, &mut |action| {
            acts.push((Act::Core(action), handle.lock().notes.len()));
        });
        (acts, result)
    }

    fn stop(&mut self, around: Around, events: Vec<Event>) -> (Acts, Result<(), DriverError>) {
        self.driver.close();
        let (mut acts, result) = self.step(around, events);
        let handle = &self.handle;
        let flushed = result.and_then(|()| {
            self.driver.flush(around.now, &mut |action| {
                acts.push((Act::Core(action), handle.lock().notes.len()));
            })
        });
        (acts, flushed)
    }

    fn next_wakeup(&self) -> Option<Mono> {
        self.driver.next_wakeup()
    }

    fn agent(&self) -> &Agent {
        self.driver.agent()
    }

    fn has_uncommitted(&self) -> bool {
        self.driver.has_uncommitted()
    }
}

impl Machine {
    /// What an agent's step can see of it at `t`.
    pub(crate) fn around(&self, t: Time) -> Around {
        Around {
            now: self.clocks.now(t),
            trusted: self.clocks.trusted,
            free: if self.full { 0 } else { 8 << 30 },
        }
    }
}
