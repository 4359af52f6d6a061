//! Memory of the cores: what one of them gives back when its process ends. Only the program `sim`
//! counts; elsewhere nothing is known, and nothing is judged.

use crate::machine::Agent;
use crate::tap::CloudTap;
use crate::world::World;
use cloud_core::engine::Engine;
use std::sync::OnceLock;

/// Says how many bytes this thread has given back since it began.
type Counter = fn() -> u64;

static COUNTER: OnceLock<Counter> = OnceLock::new();

/// From now on bytes are counted by `counter`.
pub fn count_with(counter: Counter) {
    // the first one stays: both would say the same
    let _ = COUNTER.set(counter);
}

/// Bytes that go with `thing`, where somebody counts. What it shares with others stays.
pub(crate) fn weigh<T>(thing: T) -> Option<u64> {
    let counter = COUNTER.get()?;
    let before = counter();
    drop(thing);
    Some(counter() - before)
}

impl World {
    /// An agent's process is gone.
    pub(crate) fn weigh_agent(&mut self, m: usize, agent: Agent) {
        // the cache of a database is no core's; what a commit that did not happen brought (a
        // large slice) is in no truth
        let on_disk = self.machines[m].medium.disk().is_some();
        let unclear = on_disk || agent.handle.lock().ahead;
        if let (false, Some(bytes)) = (unclear, weigh(agent.shell)) {
            crate::check::bounded::on_agent_gone(self, m, bytes);
        }
    }

    /// The coordinator's process is gone, which had its store in memory.
    pub(crate) fn weigh_cloud(&mut self, engine: Engine<CloudTap>) {
        let ahead = self.cloud.handle.lock().ahead;
        if let (false, Some(bytes)) = (ahead, weigh(engine)) {
            crate::check::bounded::on_cloud_gone(self, bytes);
        }
    }

    /// All processes end with the world.
    pub(crate) fn weigh_all(&mut self) {
        for m in 0..self.machines.len() {
            if let Some(agent) = self.machines[m].agent.take() {
                self.weigh_agent(m, agent);
            }
        }
        let on_disk = self.cloud.medium.disk().is_some();
        if let (false, Some(engine)) = (on_disk, self.cloud.engine.take()) {
            self.weigh_cloud(engine);
        }
    }
}
