//! Layer 4 of the simulator: the built binaries on this machine, under faults drawn from a seed.
//!
//! A seed gives a [`Plan`]: gateways, workflows, and faults with their times. A world plays it with
//! a [`Fleet`](crate::fleet::Fleet); tasks leave marks outside the directories of the programs, and
//! what the programs say at the end is held against the marks and the specifications by
//! [`judge()`], which is pure. The same seed gives the same plan; processes and packets of
//! real programs are not the same twice, so a seed that failed may pass when it is played again.

mod draw;
mod flow;
mod judge;
mod marks;
mod observe;
mod plan;
mod runner;
mod seen;
mod strike;
mod world;

pub use flow::{Flow, Kind, Source, Task};
pub use judge::{Broken, Invariant, judge};
pub use marks::{Fence, Mark, Said, checksum};
pub use plan::Plan;
pub use runner::{Outcome, play, play_all};
pub use seen::{Attempt, GatewaySeen, LocalTask, Observation, RunSeen, TaskSeen};
pub use strike::{Fault, Strike};
