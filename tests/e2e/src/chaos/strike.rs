//! Faults: what can happen, to whom, and when.

use super::draw::Rng;
use std::fmt;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing passes between the gateway and the coordinator.
    Cut,
    /// Nothing passes from the gateway to the coordinator.
    CutUp,
    /// Nothing passes from the coordinator to the gateway.
    CutDown,
    /// A share of the packets is lost, in both directions.
    Loss,
    /// Packets take longer, and overtake each other.
    Delay,
    /// A share of the packets arrives twice.
    Duplicate,
    /// Only so many bytes a second pass.
    Rate,
    /// The gateway has another port, as after a NAT has forgotten it.
    Rebind,
    /// SIGKILL of the agent; its tasks go on until it is started again.
    KillAgent,
    /// SIGKILL of the agent and of its tasks.
    KillGateway,
    /// SIGKILL of the coordinator.
    KillCoordinator,
    /// The agent stands still (SIGSTOP, later SIGCONT); its tasks go on.
    StopAgent,
    /// The coordinator stands still.
    StopCoordinator,
    /// The disk of the gateway is full up to its last byte.
    FullDisk,
    /// The wall clock of the agent is off by days, and comes back.
    ClockStep,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Cut,
        Self::CutUp,
        Self::CutDown,
        Self::Loss,
        Self::Delay,
        Self::Duplicate,
        Self::Rate,
        Self::Rebind,
        Self::KillAgent,
        Self::KillGateway,
        Self::KillCoordinator,
        Self::StopAgent,
        Self::StopCoordinator,
        Self::FullDisk,
        Self::ClockStep,
    ];

    /// How it is called in reports and in `docs/simulation.md`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::CutUp => "cut_up",
            Self::CutDown => "cut_down",
            Self::Loss => "loss",
            Self::Delay => "delay",
            Self::Duplicate => "duplicate",
            Self::Rate => "rate",
            Self::Rebind => "rebind",
            Self::KillAgent => "kill_agent",
            Self::KillGateway => "kill_gateway",
            Self::KillCoordinator => "kill_coordinator",
            Self::StopAgent => "stop_agent",
            Self::StopCoordinator => "stop_coordinator",
            Self::FullDisk => "full_disk",
            Self::ClockStep => "clock_step",
        }
    }

    /// What a fault holds for itself while it lasts: no second one may touch it meanwhile.
    fn holds(self) -> &'static str {
        match self {
            Self::KillAgent | Self::KillGateway | Self::StopAgent => "agent",
            Self::KillCoordinator | Self::StopCoordinator => "coordinator",
            Self::FullDisk => "disk",
            Self::ClockStep => "clock",
            _ => self.name(),
        }
    }

    /// Whether it strikes the coordinator, and so no gateway in particular.
    #[must_use]
    pub const fn is_central(self) -> bool {
        matches!(self, Self::KillCoordinator | Self::StopCoordinator)
    }

    /// How long it may last, in milliseconds, and its size: thousandths, milliseconds, bytes a
    /// second or seconds.
    fn ranges(self) -> ((u64, u64), (u64, u64)) {
        match self {
            Self::Cut | Self::CutUp | Self::CutDown => ((500, 6000), (0, 0)),
            Self::Loss => ((1000, 5000), (50, 400)),
            Self::Delay => ((1000, 5000), (5, 250)),
            Self::Duplicate => ((1000, 5000), (100, 600)),
            Self::Rate => ((1000, 5000), (8_000, 120_000)),
            Self::Rebind => ((0, 0), (0, 0)),
            Self::KillAgent | Self::KillGateway => ((0, 2500), (0, 0)),
            Self::KillCoordinator => ((0, 3000), (0, 0)),
            Self::StopAgent | Self::StopCoordinator => ((300, 4000), (0, 0)),
            Self::FullDisk => ((1000, 4000), (0, 0)),
            Self::ClockStep => ((500, 5000), (3600, 172_800)),
        }
    }
}

/// A fault with its place and time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strike {
    /// What happens.
    pub fault: Fault,
    /// At which gateway; 0 for the coordinator.
    pub node: usize,
    /// When it begins, in milliseconds after the workflows were submitted.
    pub from_ms: u64,
    /// When it is over.
    pub to_ms: u64,
    /// Its size, see [`Fault`].
    pub size: i64,
}

impl Strike {
    fn draw(rng: &mut Rng, gateways: usize, window_ms: u64) -> Self {
        let fault = Fault::ALL[rng.index(Fault::ALL.len())];
        let ((shortest, longest), (least, most)) = fault.ranges();
        let node = if fault.is_central() {
            0
        } else {
            rng.index(gateways)
        };
        let from_ms = rng.within(200, window_ms - 500);
        let to_ms = (from_ms + rng.within(shortest, longest)).min(window_ms);
        let size = i64::try_from(rng.within(least, most)).unwrap_or(0);
        let back = fault == Fault::ClockStep && rng.chance(50);
        Self {
            fault,
            node,
            from_ms,
            to_ms,
            size: if back { -size } else { size },
        }
    }

    fn collides(&self, other: &Self) -> bool {
        let same = self.fault.holds() == other.fault.holds() && self.node == other.node;
        // A little apart: what was started again has begun.
        same && self.from_ms <= other.to_ms + 200 && other.from_ms <= self.to_ms + 200
    }
}

/// Draws faults that do not disturb each other, in the order in which they begin.
pub(super) fn draw(rng: &mut Rng, gateways: usize, window_ms: u64) -> Vec<Strike> {
    let wanted = rng.within(4, 10);
    let mut strikes: Vec<Strike> = Vec::new();
    for _ in 0..wanted {
        let strike = Strike::draw(rng, gateways, window_ms);
        if !strikes.iter().any(|other| strike.collides(other)) {
            strikes.push(strike);
        }
    }
    strikes.sort_by_key(|strike| (strike.from_ms, strike.to_ms));
    strikes
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.fault.name())?;
        if !self.fault.is_central() {
            write!(f, " gw-{}", self.node)?;
        }
        match self.fault {
            Fault::Loss | Fault::Duplicate => write!(f, " {} of 1000 packets", self.size),
            Fault::Delay => write!(f, " {} ms and up to as much more", self.size),
            Fault::Rate => write!(f, " {} bytes/s", self.size),
            Fault::ClockStep => write!(f, " {:+} s", self.size),
            _ => Ok(()),
        }
    }
}
