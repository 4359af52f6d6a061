//! An agent that is asked to stop, as service managers do for an upgrade or a reboot: it records
//! what it knows, its tasks are ended with it, and the next start knows that this was no crash.

use crate::fault::Kind;
use crate::queue::Time;
use crate::trace::Lane;
use crate::world::{Ev, World};
use edge_core::event::Event;

impl World {
    /// Somebody stops the agent of `m`, which is started again after `down`.
    pub(crate) fn stop_agent(&mut self, m: usize, down: Time) {
        let around = self.machines[m].around(self.t);
        let process = self.machines[m].process;
        if self.stands_still(Some(m)).is_some() {
            return;
        }
        let Some(agent) = &mut self.machines[m].agent else {
            return;
        };
        // one that has not read its store yet listens to nobody
        if agent.inbox.iter().any(|one| matches!(one, Event::Boot(_))) {
            return;
        }
        let events = std::mem::take(&mut agent.inbox);
        let handle = agent.handle.clone();
        let (acts, result) = agent.shell.stop(around, events);
        self.trace
            .say(self.t, Lane::Node(m), || "agent stops".to_owned());
        self.carry_out(m, process, &handle, acts);
        if self.machines[m].process != process {
            return;
        }
        self.happened(Kind::AgentStopped);
        // else the next start takes it for a crash
        self.machines[m].clean_stop = result.is_ok();
        self.kill_agent(m, true);
        let process = self.machines[m].process;
        self.queue.at(self.t + down, Ev::Start(m, process));
    }
}
