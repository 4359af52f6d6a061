//! What a seed will do: its topology, its network, its runs, and when which fault strikes. Swarm
//! style: each seed draws its own mix of faults and their intensity, including none at all.

use crate::byzantine::Byzantine;
use crate::cut::Gone;
use crate::queue::{HOUR, MIN, MS, SEC, Time};
use crate::rng::Rng;
use crate::workload::{self, PlannedRun, Scope};
use shared::spec::fleet::Node;
use shared::time::Span;

/// How much of the real thing is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// The cores on stores in memory.
    Cores,
    /// The cores on redb on a simulated disk.
    Disk,
}

impl Layer {
    /// 1 or 2.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Cores => 1,
            Self::Disk => 2,
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
        /// Of the newest one (0), or of one made so many before it.
        back: usize,
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
}

impl Planted {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::AcknowledgeBeforeCommit,
        Self::BeginTwice,
        Self::NeverBegin,
    ];
}

/// How long faults go on.
pub const SAFETY: Time = 6 * HOUR;

impl Plan {
    /// What `seed` does.
    #[must_use]
    pub fn draw(seed: u64, layer: Layer) -> Self {
        let root = Rng::new(seed);
        let mut rng = root.fork("plan", 0);
        let nodes = [1, 2, 2, 3, 3, 3, 4, 5][rng.below(8) as usize];
        let quiet = rng.chance(80);
        let people = rng.chance(600);
        let scope = Scope {
            nodes,
            tasks: rng.log_range(64, 600) as usize,
            until: 5 * HOUR,
            fails: if rng.chance(700) { rng.below(500) } else { 0 },
            hangs: if rng.chance(500) { rng.below(150) } else { 0 },
            lost_after: rng
                .chance(500)
                .then(|| Span::secs(rng.log_range(120, 3600))),
            people,
        };
        let net = net(&mut rng, quiet);
        let backups = backups(&root);
        let faults = if quiet {
            Vec::new()
        } else {
            faults(&root, nodes, backups.is_some())
        };
        Self {
            seed,
            layer,
            nodes,
            fleet: Vec::new(),
            deserted: false,
            calm_at: SAFETY,
            net,
            runs: workload::draw(&root, scope),
            leaving: leaving(&root),
            backups,
            byzantine: Byzantine::draw(&root),
            schedules: crate::schedule::draw(&root, scope),
            faults,
            lying_disk: 0,
            planted: None,
            gone: Gone::default(),
            stop_at: None,
        }
    }

    /// How long gateways keep facts that the coordinator has.
    #[must_use]
    pub fn fact_window(&self) -> Span {
        let window = self.backups.map(|backups| backups.window);
        window.unwrap_or(Span::secs(24 * 3600))
    }

    /// What `seed` does without any accident: an even network, tasks that neither fail nor hang,
    /// nobody who cancels, pauses or tries again.
    #[must_use]
    pub fn without_faults(seed: u64, layer: Layer) -> Self {
        let mut plan = Self::draw(seed, layer);
        plan.faults.clear();
        plan.byzantine = None;
        (plan.net.spikes, plan.net.doubles) = (0, 0);
        for run in &mut plan.runs {
            (run.cancel, run.pause, run.retry) = (None, None, None);
            for habit in &mut run.habits {
                (habit.fails, habit.hangs) = (0, 0);
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
    }
}

/// One kind of accident: draws it and puts it into the plan.
type Draw = fn(&mut Rng, &mut Accidents, Time);

/// Accidents of one seed as they are drawn.
struct Accidents {
    nodes: usize,
    list: Vec<Planned>,
    destroyed: bool,
    backups: bool,
}

impl Accidents {
    fn put(&mut self, at: Time, what: What) {
        if at < SAFETY {
            self.list.push(Planned { at, what });
        }
    }

    fn node(&self, rng: &mut Rng) -> usize {
        rng.below(self.nodes as u64) as usize
    }
}

/// Accident, its chance of a thousand to be part of a seed, most times in a seed.
const MENU: &[(Draw, u64, u64)] = &[
    (cut, 600, 30),
    (long_cut, 300, 4),
    (one_way, 300, 15),
    (flap, 250, 5),
    (reset, 350, 40),
    (slow, 300, 10),
    (refuse, 200, 6),
    (kill, 450, 20),
    (kill_in_commit, 350, 15),
    (group_kill, 300, 10),
    (power, 400, 10),
    (blackout, 120, 2),
    (cloud_kill, 350, 8),
    (cloud_power, 300, 6),
    (clock, 300, 10),
    (full, 300, 5),
    (cloud_full, 200, 4),
    (commit_fails, 250, 10),
    (sync_fails, 250, 8),
    (put_back, 120, 2),
    (copy_disk, 120, 2),
    (cloud_put_back, 120, 1),
    (reimage, 120, 2),
    (skew, 150, 4),
    (unknown, 200, 3),
    (replay, 200, 6),
    (destroy, 80, 1),
    (cut_store, 120, 2),
    (restore, 600, 2),
];

fn faults(root: &Rng, nodes: usize, backups: bool) -> Vec<Planned> {
    let mut rng = root.fork("faults", 0);
    let mut accidents = Accidents {
        nodes,
        list: Vec::new(),
        destroyed: false,
        backups,
    };
    let intensity = [100, 300, 1000][rng.below(3) as usize];
    for (position, (draw, chance, most)) in MENU.iter().enumerate() {
        let mut own = rng.fork("kind", position as u64);
        if !own.chance(*chance) {
            continue;
        }
        let times = 1 + own.below(most * intensity / 1000 + 1);
        for _ in 0..times {
            let at = 2 * MIN + own.below(SAFETY - 4 * MIN);
            draw(&mut own, &mut accidents, at);
        }
    }
    accidents.list.sort_by_key(|planned| planned.at);
    accidents.list
}

fn pause(rng: &mut Rng) -> Time {
    rng.log_range(SEC, 20 * MIN)
}

pub(crate) fn moment(rng: &mut Rng) -> Moment {
    match rng.below(4) {
        0 => Moment::Now,
        1 => Moment::InCommit,
        _ => Moment::AfterCommit(rng.below(4) as u32),
    }
}

fn cut(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    let lasts = rng.log_range(SEC, 30 * MIN);
    let dead = (true, true);
    accidents.put(at, What::Cut { node, dead, lasts });
    if rng.chance(200) {
        let down = rng.log_range(SEC, lasts.max(2 * SEC));
        let group = rng.chance(300);
        let moment = moment(rng);
        accidents.put(
            at + lasts / 3,
            What::Kill {
                node,
                group,
                moment,
                down,
            },
        );
    }
}

fn long_cut(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let lasts = rng.range(20 * MIN, 3 * HOUR);
    let dead = (true, true);
    if rng.chance(200) {
        for node in 0..accidents.nodes {
            accidents.put(at, What::Cut { node, dead, lasts });
        }
    } else {
        let node = accidents.node(rng);
        accidents.put(at, What::Cut { node, dead, lasts });
    }
}

fn one_way(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    let dead = if rng.chance(500) {
        (true, false)
    } else {
        (false, true)
    };
    let lasts = rng.log_range(SEC, 10 * MIN);
    accidents.put(at, What::Cut { node, dead, lasts });
}

fn flap(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    let mut at = at;
    for _ in 0..rng.range(5, 12) {
        let lasts = rng.log_range(SEC, 20 * SEC);
        let dead = (true, true);
        accidents.put(at, What::Cut { node, dead, lasts });
        if rng.chance(500) {
            accidents.put(at + lasts + SEC, What::Reset(node));
        }
        at += lasts + rng.log_range(SEC, 20 * SEC);
    }
}

fn reset(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    accidents.put(at, What::Reset(node));
}

fn slow(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    let by = rng.log_range(100 * MS, 20 * SEC);
    let lasts = rng.log_range(10 * SEC, 20 * MIN);
    accidents.put(at, What::Slow { node, by, lasts });
}

fn refuse(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let lasts = pause(rng);
    accidents.put(at, What::RefuseDials(lasts));
    let node = accidents.node(rng);
    accidents.put(at + SEC, What::Reset(node));
}

fn kill(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    let down = pause(rng);
    let moment = Moment::Now;
    accidents.put(
        at,
        What::Kill {
            node,
            group: false,
            moment,
            down,
        },
    );
}

fn kill_in_commit(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    let down = rng.log_range(SEC, MIN);
    let moment = moment(rng);
    let group = rng.chance(300);
    accidents.put(
        at,
        What::Kill {
            node,
            group,
            moment,
            down,
        },
    );
}

fn group_kill(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    let down = pause(rng);
    let moment = Moment::Now;
    accidents.put(
        at,
        What::Kill {
            node,
            group: true,
            moment,
            down,
        },
    );
}

fn power(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let what = What::Power {
        node: accidents.node(rng),
        moment: moment(rng),
        down: pause(rng),
        untrusted: rng.chance(300),
        offline: rng.chance(400).then(|| rng.log_range(MIN, HOUR)),
    };
    accidents.put(at, what);
}

fn blackout(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let down = pause(rng);
    accidents.put(at, What::Blackout(down));
}

fn cloud_kill(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let moment = moment(rng);
    let down = pause(rng);
    accidents.put(at, What::CloudKill { moment, down });
}

fn cloud_power(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let moment = moment(rng);
    let down = pause(rng);
    accidents.put(at, What::CloudPower { moment, down });
}

fn clock(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = rng.chance(800).then(|| accidents.node(rng));
    let size = rng.log_range(100, 400 * 24 * 3_600_000) as i64;
    let by = if rng.chance(500) { size } else { -size };
    accidents.put(at, What::Clock { node, by });
}

fn full(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = Some(accidents.node(rng));
    let lasts = rng.log_range(10 * SEC, HOUR);
    accidents.put(at, What::Full { node, lasts });
}

fn cloud_full(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let lasts = rng.log_range(10 * SEC, HOUR);
    accidents.put(at, What::Full { node: None, lasts });
}

fn commit_fails(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = rng.chance(700).then(|| accidents.node(rng));
    accidents.put(at, What::CommitFails(node));
}

fn sync_fails(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = rng.chance(700).then(|| accidents.node(rng));
    accidents.put(at, What::SyncFails(node));
    if rng.chance(500) {
        let what = match node {
            Some(node) => What::Power {
                node,
                moment: Moment::Now,
                down: pause(rng),
                untrusted: false,
                offline: None,
            },
            None => What::CloudPower {
                moment: Moment::Now,
                down: pause(rng),
            },
        };
        accidents.put(at + rng.log_range(SEC, MIN), what);
    }
}

fn put_back(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    accidents.put(at, What::KeepImage(Some(node)));
    let down = pause(rng);
    let later = at + rng.log_range(MIN, HOUR);
    accidents.put(later, What::PutBack { node, down });
}

fn copy_disk(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    let lasts = rng.log_range(MIN, HOUR);
    accidents.put(at, What::CopyDisk { node, lasts });
}

fn cloud_put_back(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    accidents.put(at, What::KeepImage(None));
    let down = pause(rng);
    let later = at + rng.log_range(MIN, HOUR);
    accidents.put(later, What::CloudPutBack(down));
}

fn reimage(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    let down = rng.log_range(MIN, 20 * MIN);
    accidents.put(at, What::Reimage { node, down });
}

fn cut_store(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    let down = pause(rng);
    accidents.put(at, What::CutStore { node, down });
}

fn skew(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    accidents.put(at, What::Skew(node));
    accidents.put(at + SEC, What::Reset(node));
}

fn unknown(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    if rng.chance(500) {
        accidents.put(at, What::UnknownFact(node));
    } else {
        accidents.put(at, What::UnknownDirective(node));
    }
}

fn replay(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    accidents.put(at, What::ReplayHello(node));
}

fn destroy(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    if accidents.nodes < 2 || std::mem::replace(&mut accidents.destroyed, true) {
        return;
    }
    let node = accidents.node(rng);
    let after = rng.log_range(MIN, HOUR);
    accidents.put(at, What::Destroy { node, after });
}

/// A restore, often together with what makes it hard: a gateway that is away for long, one whose
/// own disk goes back as well, one that never comes back, one that was away before and calls first.
fn restore(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    if !accidents.backups {
        return;
    }
    let node = accidents.node(rng);
    match rng.below(6) {
        0 => {
            let dead = (true, true);
            let lasts = rng.range(20 * MIN, 2 * HOUR);
            accidents.put(
                at.saturating_sub(lasts / 2),
                What::Cut { node, dead, lasts },
            );
        }
        1 => {
            let kept = at.saturating_sub(rng.log_range(MIN, HOUR));
            accidents.put(kept, What::KeepImage(Some(node)));
            let back = at + rng.below(10 * MIN);
            let down = pause(rng);
            accidents.put(back.saturating_sub(5 * MIN), What::PutBack { node, down });
        }
        2 | 3 => destroy(rng, accidents, at.saturating_sub(10 * MIN)),
        4 => {
            // what is taken from it meanwhile it may do as well, and it calls before who has it now
            let dead = (true, true);
            let before = rng.range(40 * MIN, 2 * HOUR);
            let lasts = before + rng.log_range(SEC, 5 * MIN);
            accidents.put(at.saturating_sub(before), What::Cut { node, dead, lasts });
            let node = accidents.node(rng);
            let lasts = rng.range(10 * MIN, HOUR);
            accidents.put(at, What::Cut { node, dead, lasts });
        }
        _ => {}
    }
    let what = What::Restore {
        back: rng.below(4).saturating_sub(1) as usize,
        accept: rng.chance(900),
        down: pause(rng),
    };
    accidents.put(at, what);
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
