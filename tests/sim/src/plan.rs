//! What a seed will do: its topology, its network, its runs, and when which fault strikes. Swarm
//! style: each seed draws its own mix of faults and their intensity, including none at all.

use crate::accidents;
use crate::byzantine::Byzantine;
use crate::cut::Gone;
use crate::queue::{HOUR, MIN, MS, SEC, Time};
use crate::recorded::Trace;
use crate::rng::Rng;
use crate::workload::{self, PlannedRun, Scope};
use shared::schedule::Overlap;
use shared::spec::fleet::Node;
use shared::time::Span;

/// How much of the real thing is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// The cores on stores in memory.
    Cores,
    /// The cores on redb on a simulated disk.
    Disk,
    /// The cores on stores in memory, and the link of the real shells between them.
    Link,
}

impl Layer {
    /// 1, 2 or 3.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Cores => 1,
            Self::Disk => 2,
            Self::Link => 3,
        }
    }
}

/// One fault, or one act of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The link of a gateway is dead.
    Cut {
        /// Which gateway.
        node: usize,
        /// Up, down.
        dead: (bool, bool),
        /// For how long.
        lasts: Time,
    },
    /// The session of a gateway is reset.
    Reset(usize),
    /// Messages of a gateway take so much longer.
    Slow {
        /// Which gateway.
        node: usize,
        /// So much longer.
        by: Time,
        /// For how long.
        lasts: Time,
    },
    /// The coordinator answers no dial.
    RefuseDials(Time),
    /// The agent is killed.
    Kill {
        /// Which gateway.
        node: usize,
        /// Its tasks' processes, too.
        group: bool,
        /// When in the life of a commit.
        moment: Moment,
        /// Its service manager waits so long.
        down: Time,
    },
    /// The agent is asked to stop, and started again.
    Stop {
        /// Which gateway.
        node: usize,
        /// After so long.
        down: Time,
    },
    /// The gateway loses its power.
    Power {
        /// Which gateway.
        node: usize,
        /// When in the life of a commit.
        moment: Moment,
        /// For how long.
        down: Time,
        /// It boots with a wall clock that is not set.
        untrusted: bool,
        /// Its link is cut from before until this long after it booted.
        offline: Option<Time>,
    },
    /// All gateways at the site of one lose their power.
    SitePower {
        /// The one.
        node: usize,
        /// For how long.
        down: Time,
    },
    /// A machine stands still; `None` is the coordinator's.
    Freeze {
        /// Whose.
        node: Option<usize>,
        /// How.
        freeze: Freeze,
    },
    /// All machines lose their power.
    Blackout(Time),
    /// The coordinator is killed.
    CloudKill {
        /// When in the life of a commit.
        moment: Moment,
        /// For how long.
        down: Time,
    },
    /// The coordinator's machine loses its power.
    CloudPower {
        /// When in the life of a commit.
        moment: Moment,
        /// For how long.
        down: Time,
    },
    /// A wall clock jumps; `None` is the coordinator's.
    Clock {
        /// Whose.
        node: Option<usize>,
        /// By so many milliseconds.
        by: i64,
    },
    /// No room on a disk; `None` is the coordinator's.
    Full {
        /// Whose.
        node: Option<usize>,
        /// For how long.
        lasts: Time,
    },
    /// Commits of a disk take so much longer, at most; `None` is the coordinator's.
    SlowDisk {
        /// Whose.
        node: Option<usize>,
        /// So much longer.
        by: Time,
        /// For how long.
        lasts: Time,
    },
    /// An operator drains a gateway, or ends that.
    Drain {
        /// Which gateway.
        node: usize,
        /// Begin or end.
        on: bool,
    },
    /// The next commit fails and may be there or not; `None` is the coordinator's.
    CommitFails(Option<usize>),
    /// A sync of the simulated disk fails; `None` is the coordinator's.
    SyncFails(Option<usize>),
    /// Somebody copies the disk; `None` is the coordinator's.
    KeepImage(Option<usize>),
    /// The gateway starts from the copy.
    PutBack {
        /// Which gateway.
        node: usize,
        /// Off for so long.
        down: Time,
    },
    /// A second machine starts from a copy of the disk as it is.
    CopyDisk {
        /// Which gateway.
        node: usize,
        /// How long the second machine lives.
        lasts: Time,
    },
    /// The coordinator starts from the copy.
    CloudPutBack(Time),
    /// The coordinator's disk is replaced by what is restored of a backup.
    Restore {
        /// Of which one.
        back: Back,
        /// Gateways that will never come back are not waited for.
        accept: bool,
        /// Off for so long.
        down: Time,
    },
    /// The gateway gets an empty disk and a permit.
    Reimage {
        /// Which gateway.
        node: usize,
        /// Off for so long.
        down: Time,
    },
    /// The gateway's store is cut to nothing; its identity and its certificate stay.
    CutStore {
        /// Which gateway.
        node: usize,
        /// Off for so long.
        down: Time,
    },
    /// Bits of a store change; `None` is the coordinator's.
    Rot {
        /// Whose.
        node: Option<usize>,
        /// Off for so long.
        down: Time,
    },
    /// A gateway that was destroyed is there again as it was, until somebody sees that.
    Return {
        /// Which gateway.
        node: usize,
        /// For how long.
        lasts: Time,
    },
    /// The next hello speaks other versions of the protocol.
    Skew(usize),
    /// An entry of an unknown kind gets into the log of facts.
    UnknownFact(usize),
    /// An entry of an unknown kind gets into the log of directives.
    UnknownDirective(usize),
    /// An old hello is said again.
    ReplayHello(usize),
    /// The gateway is destroyed, and forgotten after a while.
    Destroy {
        /// Which gateway.
        node: usize,
        /// Forgotten after so long.
        after: Time,
    },
}

/// How a machine stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freeze {
    /// For how long: less than what the checkers wait for anything.
    pub lasts: Time,
    /// Its boot clock stands still, too.
    pub clock_stops: bool,
}

/// Which backup is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// The newest one (0), or one made so many before it.
    Places(usize),
    /// The newest that was made before this time, or the oldest that is left.
    Before(Time),
}

/// When in the life of a commit somebody dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// At once.
    Now,
    /// In the middle of the next commit.
    InCommit,
    /// After the next commit, when so many of its actions are done.
    AfterCommit(u32),
}

/// A fault and when it strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// When.
    pub at: Time,
    /// What.
    pub what: What,
}

/// The usual behaviour of the network.
#[derive(Debug, Clone, Copy)]
pub struct NetPlan {
    /// Usual time of a message.
    pub delay: Time,
    /// It varies by so much.
    pub jitter: Time,
    /// Messages of a thousand that take ten times as long.
    pub spikes: u64,
    /// Messages of a thousand that arrive twice.
    pub doubles: u64,
    /// A silent session ends after so long.
    pub idle: Time,
    /// Bits a second that a link carries in each direction, if that is a matter.
    pub bits: Option<u64>,
}

impl NetPlan {
    /// Whether it does more than to take its usual time.
    #[must_use]
    pub fn is_rough(&self) -> bool {
        self.spikes + self.doubles > 0 || self.bits.is_some()
    }
}

/// Backups that the coordinator makes by itself.
#[derive(Debug, Clone, Copy)]
pub struct Backups {
    /// From one to the next.
    pub every: Time,
    /// How long each takes at most.
    pub takes: Time,
    /// How many are kept.
    pub keep: usize,
    /// How long gateways keep acknowledged facts in any case: short, so that some go in a seed.
    pub window: Span,
}

/// How runs that are over leave.
#[derive(Debug, Clone, Copy)]
pub struct Leaving {
    /// By themselves so long after their end, if at all.
    pub retention: Option<Span>,
    /// People ask for it so often.
    pub asks: u64,
}

/// Everything that a seed will do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// How much is simulated.
    pub layer: Layer,
    /// Number of gateways.
    pub nodes: usize,
    /// The gateways, if they are given and not drawn.
    pub fleet: Vec<Node>,
    /// Nobody does anything but submit.
    pub deserted: bool,
    /// Nobody changes a setting, works on a node, pauses a link, lets tasks run again or asks
    /// something of a schedule.
    pub undisturbed: bool,
    /// Faults end here.
    pub calm_at: Time,
    /// The network.
    pub net: NetPlan,
    /// The runs.
    pub runs: Vec<PlannedRun>,
    /// How runs leave, if they do.
    pub leaving: Option<Leaving>,
    /// Backups, if any are made.
    pub backups: Option<Backups>,
    /// Certificates are good for so long, if not for ever.
    pub certificates: Option<Time>,
    /// When the fleet's authority is exchanged.
    pub exchanges: Vec<(Time, crate::authority::Planned)>,
    /// A Byzantine gateway beside the others, if there is one.
    pub byzantine: Option<Byzantine>,
    /// The schedules.
    pub schedules: Vec<crate::schedule::PlannedSchedule>,
    /// The faults, by time.
    pub faults: Vec<Planned>,
    /// The disks lie about syncs so often of a thousand (negative control).
    pub lying_disk: u64,
    /// A mistake built into the world (negative control).
    pub planted: Option<Planted>,
    /// What of it does not happen: the rest stays where it is, with its numbers.
    pub gone: Gone,
    /// The world ends here and comes to no rest: for who waits for a promise that breaks before.
    pub stop_at: Option<Time>,
}

/// Mistakes of the world around the cores, for controls: each must be noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// A commit says that it is done and keeps nothing, sometimes.
    AcknowledgeBeforeCommit,
    /// An executor begins an attempt twice.
    BeginTwice,
    /// The executor loses the beginning of an attempt.
    NeverBegin,
    /// An agent takes 4 KiB with each step and keeps them while it lives: seen where bytes are
    /// counted (`memory`).
    Hoard,
}

impl Planted {
    /// All that are seen everywhere.
    pub const ALL: &'static [Self] = &[
        Self::AcknowledgeBeforeCommit,
        Self::BeginTwice,
        Self::NeverBegin,
    ];
}

/// What makes a seed larger than usual.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    /// Gateways.
    nodes: Option<usize>,
    /// Tasks of all runs: short ones, so that six hours are enough for them.
    tasks: Option<usize>,
}

impl Size {
    /// One seed in eight has up to 5,000 tasks, one in thirty up to 50 gateways.
    fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed).fork("size", 0);
        let tasks = rng.log_range(600, 5_000) as usize;
        let nodes = rng.log_range(6, 50) as usize;
        Self {
            tasks: rng.chance(125).then_some(tasks),
            nodes: rng.chance(33).then_some(nodes),
        }
    }
}

/// How long faults go on.
pub const SAFETY: Time = 6 * HOUR;

impl Plan {
    /// Whether a backup takes the place of the coordinator's store.
    #[must_use]
    pub fn restores(&self) -> bool {
        let restores = |fault: &Planned| {
            matches!(
                fault.what,
                What::Restore { .. } | What::Rot { node: None, .. }
            )
        };
        self.faults.iter().any(restores)
    }

    /// Whether that store goes back at all: so, or without a word.
    #[must_use]
    pub fn goes_back(&self) -> bool {
        let put_back = |fault: &Planned| matches!(fault.what, What::CloudPutBack(_));
        self.restores() || self.faults.iter().any(put_back)
    }

    /// What `seed` does.
    #[must_use]
    pub fn draw(seed: u64, layer: Layer) -> Self {
        Self::sized(seed, layer, Size::draw(seed), None)
    }

    /// What `seed` does with what is usually small: a few gateways, some hundred tasks. The seeds
    /// of named scenarios were found so.
    #[must_use]
    pub fn small(seed: u64, layer: Layer) -> Self {
        Self::sized(seed, layer, Size::default(), None)
    }

    /// What `seed` does where its first run is like a recorded execution.
    #[must_use]
    pub fn recorded(seed: u64, layer: Layer, trace: &Trace) -> Self {
        Self::sized(seed, layer, Size::default(), Some(trace))
    }

    fn sized(seed: u64, layer: Layer, size: Size, trace: Option<&Trace>) -> Self {
        let root = Rng::new(seed);
        let mut rng = root.fork("plan", 0);
        let nodes = [1, 2, 2, 3, 3, 3, 4, 5][rng.below(8) as usize];
        let nodes = size.nodes.unwrap_or(nodes);
        let quiet = rng.chance(80);
        let people = rng.chance(600);
        let tasks = rng.log_range(64, 600) as usize;
        let scope = Scope {
            nodes,
            tasks: size.tasks.unwrap_or(tasks),
            largest: if size.tasks.is_some() { 5_000 } else { 400 },
            longest: if size.tasks.is_some() { MIN } else { 10 * MIN },
            until: 5 * HOUR,
            fails: if rng.chance(700) { rng.below(500) } else { 0 },
            hangs: if rng.chance(500) { rng.below(150) } else { 0 },
            lost_after: rng
                .chance(500)
                .then(|| Span::secs(rng.log_range(120, 3600))),
            people,
        };
        let net = NetPlan {
            bits: crate::bandwidth::draw(&root),
            ..net(&mut rng, quiet)
        };
        let backups = backups(&root);
        let faults = match quiet {
            true => Vec::new(),
            false => accidents::draw(&root, nodes, backups.is_some()),
        };
        let mut plan = Self {
            seed,
            layer,
            nodes,
            fleet: Vec::new(),
            deserted: false,
            undisturbed: false,
            calm_at: SAFETY,
            net,
            runs: workload::draw(&root, scope, trace),
            leaving: leaving(&root),
            backups,
            certificates: crate::renewal::draw(&root),
            exchanges: crate::authority::draw(&root),
            byzantine: Byzantine::draw(&root),
            schedules: crate::schedule::draw(&root, scope),
            faults,
            lying_disk: 0,
            planted: None,
            gone: Gone::default(),
            stop_at: None,
        };
        if !quiet {
            accidents::former_owner_calls_first(&root, &mut plan);
        }
        plan
    }

    /// How long gateways keep facts that the coordinator has.
    #[must_use]
    pub fn fact_window(&self) -> Span {
        let window = self.backups.map(|backups| backups.window);
        window.unwrap_or(Span::secs(24 * 3600))
    }

    /// What `seed` does without any accident: an even network, tasks that neither fail nor hang,
    /// nobody who does more than to submit, to make schedules and to answer questions. No backups
    /// either: what is in one makes a difference only where a disk was lost. No slot of a schedule
    /// cancels what is under way.
    #[must_use]
    pub fn without_faults(seed: u64, layer: Layer) -> Self {
        let mut plan = Self::draw(seed, layer);
        plan.faults.clear();
        plan.byzantine = None;
        (plan.backups, plan.certificates) = (None, None);
        plan.exchanges.clear();
        plan.undisturbed = true;
        plan.net = NetPlan {
            spikes: 0,
            doubles: 0,
            bits: None,
            ..plan.net
        };
        for run in &mut plan.runs {
            (run.cancel, run.pause, run.retry) = (None, None, None);
        }
        let runs = plan.runs.iter_mut().flat_map(|run| &mut run.habits);
        let slots = plan.schedules.iter_mut().flat_map(|one| &mut one.habits);
        for habit in runs.chain(slots) {
            (habit.fails, habit.hangs) = (0, 0);
        }
        let revisions = plan.schedules.iter_mut().flat_map(|s| &mut s.revisions);
        for schedule in revisions.filter_map(|workflow| workflow.schedule.as_mut()) {
            if schedule.overlap == Overlap::Replace {
                schedule.overlap = Overlap::Forbid;
            }
        }
        plan
    }
}

/// In one seed of three runs leave when they are over.
fn leaving(root: &Rng) -> Option<Leaving> {
    let mut rng = root.fork("leaving", 0);
    rng.chance(330).then(|| Leaving {
        retention: rng
            .chance(600)
            .then(|| Span::secs(rng.log_range(300, 4 * 3600))),
        asks: rng.below(12),
    })
}

/// One seed in three knows backups.
fn backups(root: &Rng) -> Option<Backups> {
    let mut rng = root.fork("backups", 0);
    rng.chance(330).then(|| Backups {
        every: rng.log_range(4 * MIN, 90 * MIN),
        takes: rng.log_range(SEC, 4 * MIN),
        keep: rng.range(1, 5) as usize,
        window: Span::secs(rng.log_range(120, 3600)),
    })
}

fn net(rng: &mut Rng, quiet: bool) -> NetPlan {
    let delay = rng.log_range(2 * MS, 600 * MS);
    let rough = !quiet && rng.chance(500);
    NetPlan {
        delay,
        jitter: rng.below(delay + 1),
        spikes: if rough { rng.below(30) } else { 0 },
        doubles: if rough { rng.below(30) } else { 0 },
        idle: [15, 30, 60][rng.below(3) as usize] * SEC,
        bits: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_draws_the_same_plan() {
        for seed in 0..30 {
            let one = Plan::draw(seed, Layer::Cores);
            let two = Plan::draw(seed, Layer::Cores);
            assert_eq!(one.faults, two.faults);
            assert_eq!(one.runs.len(), two.runs.len());
            assert!(one.faults.iter().all(|planned| planned.at < SAFETY));
        }
        assert!((0..200).any(|seed| Plan::draw(seed, Layer::Cores).faults.is_empty()));
    }
}
