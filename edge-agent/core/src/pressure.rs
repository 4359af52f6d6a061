//! Pressure: when the machine itself suffers, new starts wait. Never for ever: a reading grows old,
//! and while nothing of ours runs one task a minute may start all the same.

use crate::agent::{Agent, Effects, Timer};
use serde::{Deserialize, Serialize};
use shared::explain::Reason;
use shared::time::{Mono, Span};

/// A reading that is older says nothing.
const STALE: Span = Span::secs(30);
/// While nothing of ours runs, so often one task may start under pressure.
const TRICKLE: Span = Span::secs(60);
/// What is below so many percent of its limit is not worth telling.
const NOTABLE: u32 = 50;
/// A hold ends when what caused it has gone by so many percent of its limit.
const SLACK: u32 = 25;

/// What a monitor read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Pressure {
    /// Share of 10 s in which some task waited for a core, in hundredths of a percent.
    pub cpu_some: Option<u16>,
    /// Share of 10 s in which every task waited for memory, in hundredths of a percent.
    pub memory_full: Option<u16>,
    /// Share of 10 s in which every task waited for a disk, in hundredths of a percent.
    pub io_full: Option<u16>,
    /// Memory that programs may still take, in thousandths of all.
    pub memory_available_permille: Option<u16>,
    /// The hottest thermal zone or processor, in thousandths of a degree Celsius.
    pub temperature: Option<i32>,
}

/// From where on new starts wait; none: never for that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HoldLimits {
    /// Percent of [`Pressure::cpu_some`].
    pub cpu: Option<u8>,
    /// Percent of [`Pressure::memory_full`].
    pub memory: Option<u8>,
    /// Percent of [`Pressure::io_full`].
    pub io: Option<u8>,
    /// Percent of memory that must be available.
    pub available: Option<u8>,
    /// Degrees Celsius.
    pub temperature: Option<u8>,
}

impl Default for HoldLimits {
    /// Only what a busy gateway never reaches by its tasks alone: they wait for cores and disks
    /// whenever all slots are taken.
    fn default() -> Self {
        Self {
            cpu: None,
            memory: Some(20),
            io: None,
            available: Some(2),
            temperature: Some(100),
        }
    }
}

impl HoldLimits {
    /// Reads `memory=20,available=2,temperature=100`, or `off`; what is not named is off.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut limits = Self {
            cpu: None,
            memory: None,
            io: None,
            available: None,
            temperature: None,
        };
        if text.trim() == "off" {
            return Ok(limits);
        }
        for part in text.split(',') {
            let form = "write off, or cpu, memory, io, available or temperature with =NUMBER";
            let (name, number) = part.trim().split_once('=').ok_or(form)?;
            let most = if name == "temperature" { 250 } else { 100 };
            let number = number.parse().ok().filter(|n| (1..=most).contains(n));
            let number = number.ok_or_else(|| format!("{part}: a number from 1 to {most}"))?;
            let limit = match name {
                "cpu" => &mut limits.cpu,
                "memory" => &mut limits.memory,
                "io" => &mut limits.io,
                "available" => &mut limits.available,
                "temperature" => &mut limits.temperature,
                _ => return Err(format!("{name}: {form}")),
            };
            *limit = Some(number);
        }
        Ok(limits)
    }
}

/// What holds starts; its number is shown as evidence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cause {
    Cpu,
    Memory,
    Io,
    Available,
    Temperature,
}

impl Cause {
    const ALL: [Self; 5] = [
        Self::Cpu,
        Self::Memory,
        Self::Io,
        Self::Available,
        Self::Temperature,
    ];

    /// The value read and its limit, each so that more is worse.
    fn read(self, limits: &HoldLimits, now: &Pressure) -> Option<(u32, u32)> {
        let share = |value: Option<u16>, limit: Option<u8>| {
            Some((u32::from(value?), u32::from(limit?) * 100))
        };
        match self {
            Self::Cpu => share(now.cpu_some, limits.cpu),
            Self::Memory => share(now.memory_full, limits.memory),
            Self::Io => share(now.io_full, limits.io),
            Self::Available => {
                let used = 1000u16.saturating_sub(now.memory_available_permille?.min(1000));
                let limit = 100u8.saturating_sub(limits.available?);
                Some((u32::from(used) * 10, u32::from(limit) * 100))
            }
            Self::Temperature => {
                let degrees = u32::try_from(now.temperature?.max(0)).unwrap_or(0);
                Some((degrees / 10, u32::from(limits.temperature?) * 100))
            }
        }
    }

    /// Where a hold by it ends.
    fn low(self, limit: u32) -> u32 {
        match self {
            // Counted from what is free: the hold ends when half as much again is available.
            Self::Available => limit.saturating_sub((10_000 - limit.min(10_000)) / 2),
            Self::Temperature => limit.saturating_sub(500),
            _ => limit - limit * SLACK / 100,
        }
    }

    /// The evidence of a hold has this reason's name.
    fn reason(self) -> Reason {
        match self {
            Self::Cpu => Reason::CpuPressure,
            Self::Memory | Self::Available => Reason::MemoryPressure,
            Self::Io => Reason::IoPressure,
            Self::Temperature => Reason::TooHot,
        }
    }
}

/// What the core knows of it.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    pub(crate) limits: HoldLimits,
    last: Pressure,
    read_at: Mono,
    cause: Option<Cause>,
    /// When a task may start under pressure all the same.
    trickle: Mono,
}

impl Pressure {
    /// Whether a reading is far from every limit that can be set usefully: what the shell need not
    /// tell the core becomes the default.
    #[must_use]
    pub fn if_notable(self, limits: &HoldLimits) -> Self {
        let notable = |cause: &Cause| {
            let read = cause.read(limits, &self);
            read.is_some_and(|(value, limit)| value * 100 >= limit * NOTABLE)
        };
        if Cause::ALL.iter().any(notable) {
            self
        } else {
            Self::default()
        }
    }
}

impl Agent {
    /// A monitor has read the pressure.
    pub(crate) fn on_pressure(&mut self, reading: Pressure) {
        let hold = &mut self.hold;
        (hold.last, hold.read_at) = (reading, self.now.mono);
        let (limits, held) = (hold.limits, hold.cause.is_some());
        let over = |cause: Cause| {
            let read = cause.read(&limits, &reading);
            read.is_some_and(|(value, limit)| value >= limit)
        };
        let stays = |cause: &Cause| {
            let read = cause.read(&limits, &reading);
            read.is_some_and(|(value, limit)| value > cause.low(limit))
        };
        hold.cause = hold
            .cause
            .filter(stays)
            .or_else(|| Cause::ALL.into_iter().find(|cause| over(*cause)));
        if !held {
            hold.trickle = self.now.mono + TRICKLE;
        }
        if hold.cause.is_none() {
            return;
        }
        let stale = self.now.mono + STALE;
        self.timers.retain(|(_, timer)| *timer != Timer::Pressure);
        self.timers.insert((stale, Timer::Pressure));
    }

    /// Why new starts wait, with the value that was read and its limit, in hundredths.
    pub(crate) fn pressed(&self) -> Option<(Reason, u64, u64)> {
        let fresh = self.now.mono - self.hold.read_at < STALE;
        let cause = self.hold.cause.filter(|_| fresh)?;
        let (value, limit) = cause.read(&self.hold.limits, &self.hold.last)?;
        Some((cause.reason(), value.into(), limit.into()))
    }

    /// Starts what may start although new starts are held, and says of the first one that does not
    /// why it waits. Whether anything started.
    pub(crate) fn admit_pressed(&mut self, pressed: (Reason, u64, u64), fx: &mut Effects) -> bool {
        let trickle = self.hold.trickle;
        if self.attempts.is_empty() && trickle <= self.now.mono {
            if let Some((key, class)) = self.next_fit(fx) {
                self.hold.trickle = self.now.mono + TRICKLE;
                self.start(key, class, false, fx);
                return true;
            }
        } else if self.attempts.is_empty() {
            self.timers.insert((trickle, Timer::Pressure));
        }
        let (reason, value, limit) = pressed;
        self.hold_head(reason, [value, limit, 0], fx);
        false
    }
}
