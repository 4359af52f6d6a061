//! A gateway: its power, clocks, disk, files, processes and link, and the agent that runs on it.

use crate::medium::EdgeMedium;
use crate::net::Link;
use crate::plan::{Layer, Moment, Plan};
use crate::queue::{MS, Time};
use crate::shell::Shell;
use crate::tap::{EdgeNote, Handle};
use crate::workload::Deed;
use cloud_core::certificate::Certificate;
use edge_core::event::{Config, Event, Launch};
use shared::ids::{AttemptRef, BootId, Hash, Incarnation, NodeId, ScheduleId};
use shared::spec::fleet::Node;
use shared::time::{Mono, Now, Span, Stamp, Unix};
use shared::wire::LogId;
use shared::workflow::Resources;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The wall clock when the world begins: 2026-01-01.
pub const EPOCH_MS: i64 = 1_767_225_600_000;
/// The boot clock when the first process can run.
pub const BOOT_NS: u64 = 5_000_000_000;

/// Bytes of a part of an inventory: so few that most have several, and a run may span some.
pub const INVENTORY_PART: usize = 600;

/// Two clocks of a machine.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// When it booted.
    pub booted: Time,
    /// The wall clock is off by so many milliseconds.
    pub off: i64,
    /// It was set since the boot.
    pub trusted: bool,
}

impl Clocks {
    /// Both clocks at `t`.
    #[must_use]
    pub fn now(&self, t: Time) -> Now {
        Now {
            mono: Mono(t.saturating_sub(self.booted) + BOOT_NS),
            wall: Unix(EPOCH_MS + (t / MS) as i64 + self.off),
        }
    }

    /// When the boot clock shows `mono`.
    #[must_use]
    pub fn when(&self, mono: Mono) -> Time {
        (self.booted + mono.0).saturating_sub(BOOT_NS)
    }
}

/// The certificate over the key that a permit let in, by the permit's number.
#[must_use]
pub fn certificate(permit: u64) -> Certificate {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&permit.to_le_bytes());
    Certificate {
        key,
        // a permit that came later gave a certificate that ends later
        until: Unix(EPOCH_MS + 315_360_000_000 + permit as i64),
        authority: crate::authority::Authority::default().fingerprint(),
    }
}

/// A process of a task.
#[derive(Debug, Clone)]
pub struct Proc {
    /// Which attempt.
    pub attempt: AttemptRef,
    /// The life of the agent that started it.
    pub life: u64,
    /// When it began.
    pub began: Stamp,
    /// What it does.
    pub deed: Deed,
    /// TERM was sent.
    pub stopping: bool,
    /// Its number in the world's log.
    pub ran: usize,
}

/// How an agent is going to die.
#[derive(Debug, Clone, Copy)]
pub struct Doom {
    /// When in the life of a commit.
    pub moment: Moment,
    /// The machine loses its power (else only the process ends).
    pub power: bool,
    /// Its tasks' processes die, too.
    pub group: bool,
    /// It stays down for so long.
    pub down: Time,
}

/// The agent's process.
pub struct Agent {
    /// The core with its store, and what takes its steps.
    pub shell: Box<dyn Shell>,
    /// The world's end of the tap.
    pub handle: Handle<EdgeNote>,
    /// What it will be told at its next step.
    pub inbox: Vec<Event>,
    /// When its next step is.
    pub step_at: Option<Time>,
    /// It is busy until then.
    pub free_at: Time,
    /// When it will be woken.
    pub wake_at: Option<Time>,
    /// Launches that wait for a slot.
    pub waiting: VecDeque<Launch>,
    /// Connections by session.
    pub sessions: BTreeMap<u64, u64>,
    /// Files being fetched.
    pub fetching: BTreeSet<Hash>,
    /// Files being brought to the coordinator.
    pub uploading: BTreeMap<Hash, u64>,
    /// How it is going to die.
    pub doom: Option<Doom>,
    /// The next hello speaks other versions.
    pub skew: bool,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("inbox", &self.inbox)
            .finish_non_exhaustive()
    }
}

/// A copy of a gateway's disk.
#[derive(Debug)]
pub struct Image {
    /// The store.
    pub medium: EdgeMedium,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The incarnation that it succeeds.
    pub succeeds: Option<Incarnation>,
    /// Directories of attempts.
    pub dirs: BTreeSet<AttemptRef>,
    /// Files.
    pub files: BTreeMap<Hash, u64>,
    /// The certificate.
    pub renewal: crate::renewal::Renewal,
    /// Which branch of history it belongs to.
    pub life: usize,
    /// The truth about it at that moment.
    pub truth: crate::truth::EdgeTruth,
}

/// A machine at the edge.
#[derive(Debug)]
pub struct Machine {
    /// Its position.
    pub n: usize,
    /// The name in its certificate.
    pub name: String,
    /// The identity in its certificate, once enrolled.
    pub node: Option<NodeId>,
    /// Which permit let the key of its certificate in.
    pub key: u64,
    /// Until when its certificate is good, and what it does about that.
    pub renewal: crate::renewal::Renewal,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What tasks may use.
    pub capacity: Resources,
    /// Attempts from the executor's queue that run at once.
    pub slots: u32,
    /// It is a copy of that machine.
    pub copy_of: Option<usize>,
    /// It has power.
    pub power: bool,
    /// It will never come back.
    pub destroyed: bool,
    /// When it was there again although it had been declared gone.
    pub returned: Option<Time>,
    /// The kernel's boot.
    pub boot: BootId,
    /// Its clocks.
    pub clocks: Clocks,
    /// The store's disk.
    pub medium: EdgeMedium,
    /// The life of its data directory.
    pub incarnation: Incarnation,
    /// The incarnation that it succeeds.
    pub succeeds: Option<Incarnation>,
    /// Directories of attempts on the disk.
    pub dirs: BTreeSet<AttemptRef>,
    /// The agent's last process was asked to stop, and did so well.
    pub clean_stop: bool,
    /// Files on the disk.
    pub files: BTreeMap<Hash, u64>,
    /// Processes of tasks.
    pub procs: BTreeMap<u64, Proc>,
    /// The agent, while it runs.
    pub agent: Option<Agent>,
    /// Number of the agent's life: old events name old lives.
    pub process: u64,
    /// Pause before the next start after a fatal error.
    pub penance: Time,
    /// Its link.
    pub link: Link,
    /// A copy of its disk that somebody keeps.
    pub image: Option<Image>,
    /// Which branch of history its disk belongs to.
    pub life: usize,
    /// The disk is full.
    pub full: bool,
    /// Its commits take so much longer, at most.
    pub disk_slow: Time,
    /// When it was full last.
    pub full_until: Time,
    /// It stands still until then.
    pub frozen_until: Time,
    /// A record of an unknown kind is to be written while the agent is down.
    pub unknown_fact: bool,
    /// Since when tasks could start and none did.
    pub idle_since: Option<Time>,
    /// Attempts that nobody told to end although their runs were cancelled, and since when.
    pub unheeded: BTreeMap<AttemptRef, Time>,
    /// When its agent started.
    pub since: Time,
    /// When it lost its power last.
    pub off_since: Time,
    /// Slots that should have been decided: since when, behind which one, by schedule.
    pub undecided: BTreeMap<ScheduleId, (Time, i64)>,
    /// Since when its link should no longer be paused.
    pub overdue_since: Option<Time>,
    /// The link has been cut since before it booted.
    pub cold: bool,
    /// The last hello that it said.
    pub hello: Option<Box<shared::wire::Hello>>,
    /// Highest fact that arrived at the coordinator in any session.
    pub arrived: u64,
    /// Highest directive that arrived here in any session.
    pub told: u64,
    /// Steps of its agent since the world looked around.
    pub steps: u64,
    /// What it measures of itself.
    pub gauge: crate::measure::Gauge,
}

impl Machine {
    /// One that stands there, without power and unknown to anybody.
    #[must_use]
    pub fn new(
        n: usize,
        described: Node,
        layer: Layer,
        (boot, incarnation): (BootId, Incarnation),
    ) -> Self {
        Self {
            n,
            name: described.name,
            node: None,
            key: 0,
            renewal: crate::renewal::Renewal::default(),
            labels: described.labels,
            slots: (described.capacity.cpu_milli / 1000).max(1),
            capacity: described.capacity,
            copy_of: None,
            power: false,
            destroyed: false,
            returned: None,
            boot,
            clocks: Clocks {
                booted: 0,
                off: 0,
                trusted: true,
            },
            medium: EdgeMedium::new(layer),
            incarnation,
            succeeds: None,
            dirs: BTreeSet::new(),
            clean_stop: false,
            files: BTreeMap::new(),
            procs: BTreeMap::new(),
            agent: None,
            process: 0,
            penance: 0,
            link: Link::default(),
            image: None,
            life: usize::MAX,
            full: false,
            full_until: 0,
            disk_slow: 0,
            frozen_until: 0,
            unknown_fact: false,
            idle_since: None,
            unheeded: BTreeMap::new(),
            since: 0,
            off_since: 0,
            undecided: BTreeMap::new(),
            overdue_since: None,
            cold: false,
            hello: None,
            arrived: 0,
            told: 0,
            steps: 0,
            gauge: crate::measure::Gauge::default(),
        }
    }

    /// Its log at this incarnation.
    #[must_use]
    pub fn log(&self) -> LogId {
        LogId {
            node: self.node.unwrap_or_default(),
            incarnation: self.incarnation,
        }
    }

    /// The certificate that it shows.
    #[must_use]
    pub fn certificate(&self) -> Certificate {
        let made = certificate(self.key);
        Certificate {
            until: self.renewal.until.unwrap_or(made.until),
            authority: self.renewal.issuer.fingerprint(),
            ..made
        }
    }

    /// The agent's settings.
    #[must_use]
    pub fn config(&self, plan: &Plan) -> Config {
        Config {
            node: self.node.unwrap_or_default(),
            incarnation: self.incarnation,
            succeeds: self.succeeds,
            name: self.name.clone(),
            labels: self.labels.clone(),
            capacity: self.capacity.clone(),
            slots: self.slots,
            redial: (Span::secs(1), Span::secs(60)),
            snapshot_interval: Span::secs(10),
            fact_window: plan.fact_window(),
            inventory_part: INVENTORY_PART,
            has_coordinator: true,
            version: "simulated".to_owned(),
            scheduler: shared::config::scheduler::Scheduler::default(),
        }
    }

    /// Whether the executor knows `attempt` (in this life of the agent).
    #[must_use]
    pub fn executes(&self, attempt: &AttemptRef) -> bool {
        let queued = self
            .agent
            .as_ref()
            .is_some_and(|agent| agent.waiting.iter().any(|one| one.attempt == *attempt));
        queued
            || self
                .procs
                .values()
                .any(|one| one.life == self.process && one.attempt == *attempt)
    }
}
