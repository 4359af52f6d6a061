//! How old the entries of both logs are, in running time of this data directory, so that a gateway
//! that is switched off every day forgets what is old as well.

use serde::{Deserialize, Serialize};
use shared::time::{Mono, Span};
use std::collections::VecDeque;

/// Name of the mark that keeps [`Ages`]; it rides with each snapshot.
pub(crate) const MARK: &str = "ages";

/// A window is cut into so many steps: entries go by that much later at most.
const STEPS: u64 = 24;
/// Time that is counted at least so often in a window; what is not counted when the power fails
/// is running time of less.
const BEATS: u64 = 96;

/// When the logs had which length. Time counts from the first start on and only while the agent
/// runs: neither the wall clock nor, over a reboot, the boot clock says how long it was off.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub(crate) struct Ages {
    /// Running time at the newest snapshot, ms.
    served: u64,
    /// Running time (ms), last fact and last directive of some snapshots, the oldest first.
    points: VecDeque<(u64, u64, u64)>,
    /// The last fact and the last directive that are older than the window.
    aged: (u64, u64),
    /// The boot clock at `served`; none before the first turn of this process.
    #[serde(skip)]
    at: Option<Mono>,
}

impl Ages {
    /// How soon a snapshot is made although nothing changed, so that time is counted: none where
    /// nothing is left to grow old.
    pub(crate) fn beat(&self, window: Span) -> Option<Span> {
        (!self.points.is_empty()).then_some(Span(window.0 / BEATS))
    }

    /// Whether such ages are kept: no time is before the one that came earlier.
    pub(crate) fn follow(&self) -> bool {
        let times = self.points.iter().map(|(at, ..)| *at);
        times.chain([self.served]).is_sorted()
    }

    /// Time runs from now on, unless it does already.
    pub(crate) fn begin(&mut self, now: Mono) {
        self.at.get_or_insert(now);
    }

    /// A snapshot covers `after`. The last fact and the last directive older than `window`.
    pub(crate) fn note(&mut self, now: Mono, after: (u64, u64), window: Span) -> (u64, u64) {
        self.begin(now);
        let passed = self.at.map_or(Span(0), |at| now - at);
        // What is below a millisecond counts with the next snapshot.
        self.at = self.at.map(|at| at + passed);
        self.served = self.served.saturating_add(passed.0);
        let newest = self.points.back().copied();
        let (at, facts, directives) = newest.unwrap_or((0, self.aged.0, self.aged.1));
        let late = newest.is_none() || self.served - at >= window.0 / STEPS;
        if late && after != (facts, directives) {
            self.points.push_back((self.served, after.0, after.1));
        }
        while let Some((at, facts, directives)) = self.points.front().copied()
            && self.served - at >= window.0
        {
            self.aged = (facts, directives);
            self.points.pop_front();
        }
        self.aged
    }
}
