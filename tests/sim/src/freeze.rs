//! Machines that stand still and go on: a virtual machine that is paused or moved, a host that
//! swaps. Nothing runs there and nothing passes its link; what comes meanwhile is found when it
//! goes on. The boot clock of a paused machine stands still as well; the wall clock is right again
//! at once.

use crate::fault::Kind;
use crate::plan::Freeze;
use crate::queue::Time;
use crate::trace::Lane;
use crate::world::{Ev, World};

impl World {
    /// A machine stands still; `None` is the coordinator's.
    pub(crate) fn freeze(&mut self, node: Option<usize>, freeze: Freeze) {
        let Freeze { lasts, clock_stops } = freeze;
        let until = self.t + lasts;
        let links = match node {
            Some(m) => {
                self.machines[m].frozen_until = until.max(self.machines[m].frozen_until);
                m..m + 1
            }
            None => {
                self.cloud.frozen_until = until.max(self.cloud.frozen_until);
                0..self.machines.len()
            }
        };
        for m in links {
            self.cut(m, true, true);
            self.queue.at(until, Ev::Healed(m, true, true));
        }
        // the shells of layer 3 read their clocks at any time
        if clock_stops && self.carried.is_none() {
            self.queue.at(until, Ev::Thawed(node, lasts));
        }
    }

    /// The boot clock of a machine that was paused goes on where it stood, unless it booted since.
    pub(crate) fn thawed(&mut self, node: Option<usize>, lasts: Time) {
        let began = self.t - lasts;
        let clocks = match node {
            Some(m) => &mut self.machines[m].clocks,
            None => &mut self.cloud.clocks,
        };
        if clocks.booted <= began {
            clocks.booted += lasts;
        }
    }

    /// Until when what is due now at a machine waits because it stands still.
    pub(crate) fn stands_still(&mut self, node: Option<usize>) -> Option<Time> {
        let until = match node {
            Some(m) => self.machines[m].frozen_until,
            None => self.cloud.frozen_until,
        };
        let waits = (until > self.t).then_some(until);
        if waits.is_some() {
            self.happened(Kind::Frozen);
            let lane = node.map_or(Lane::Cloud, Lane::Node);
            self.trace.mark(self.t, lane, 13, until);
        }
        waits
    }
}
