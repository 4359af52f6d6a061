//! The kinds of faults, and how often each really happened. Planning a fault does not count it: a
//! lost acknowledgement counts when a message that was one is thrown away, and not before.

use std::collections::BTreeMap;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Kind { $($(#[$doc])* $variant,)* }

        impl Kind {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// Its name in tables and timelines.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

kinds! {
    /// Both directions of a link were dead while something wanted through.
    Partition = "partition",
    /// Only one direction was dead.
    OneWayCut = "one_way_cut",
    /// A gateway was shown that was cut off and had gone on.
    ShownBehind = "shown_behind",
    /// A live session was reset.
    SessionReset = "session_reset",
    /// A message was lost with its session.
    MessageLoss = "message_loss",
    /// An acknowledgement was lost with its session.
    LostAck = "lost_ack",
    /// Facts were lost with their session.
    LostFacts = "lost_facts",
    /// Facts or directives arrived that had arrived before.
    Duplicate = "duplicate",
    /// Directives arrived at a gateway that they had arrived at before.
    StaleDirectives = "stale_directives",
    /// A message overtook one that was sent before it on another stream or session.
    Reorder = "reorder",
    /// A message took ten times as long as usual.
    DelaySpike = "delay_spike",
    /// A message waited a second or more until a narrow link had carried what was before it.
    NarrowLink = "narrow_link",
    /// Somebody stood still who had something to do.
    Frozen = "frozen",
    /// A commit of a gateway found no room while its link was cut.
    FullOffline = "full_offline",
    /// Bits of a store changed while its machine was off, and its verification found it damaged.
    RotFound = "rot_found",
    /// Bits of a store's file changed that no page in use has: it was found whole, and started.
    RotUnseen = "rot_unseen",
    /// A step waited for a disk that was slow.
    SlowDisk = "slow_disk",
    /// A dial was not answered.
    DialRefused = "dial_refused",
    /// One side believed a session to be alive that the other had given up.
    HalfOpen = "half_open",
    /// Three cuts within two minutes.
    FlappingLink = "flapping_link",
    /// The coordinator heard of the end of a session after it had welcomed the next one.
    TeardownRace = "teardown_race",
    /// A hello of a former session was said again.
    ReplayedHello = "replayed_hello",
    /// A gateway was turned away because its certificate had expired.
    CertificateExpired = "certificate_expired",
    /// A gateway renewed its certificate.
    CertificateRenewed = "certificate_renewed",
    /// A certificate was issued for a gateway and did not arrive.
    RenewalLost = "renewal_lost",
    /// The next authority of the fleet was made.
    AuthorityBegun = "authority_begun",
    /// It took the place of the one before.
    AuthorityExchanged = "authority_exchanged",
    /// It did so although nodes did not carry it.
    LeftBehind = "left_behind",
    /// A gateway and the coordinator trusted each other's certificates no longer.
    ShutOut = "shut_out",
    /// A hello without a common protocol version.
    VersionSkew = "version_skew",
    /// An entry of a kind that this version does not know stood in a fact log.
    UnknownFact = "unknown_fact",
    /// An entry of a kind that this version does not know stood in a directive log.
    UnknownDirective = "unknown_directive",
    /// kill -9 of the agent alone; its tasks' processes went on.
    AgentKill = "agent_kill",
    /// The agent was asked to stop and did.
    AgentStopped = "agent_stopped",
    /// kill -9 of the agent between a commit and all of what it was to do.
    KillAfterCommit = "kill_after_commit",
    /// The agent or its machine died in the middle of a commit.
    DeathInCommit = "death_in_commit",
    /// kill -9 of the agent and all processes of its tasks.
    GroupKill = "group_kill",
    /// An agent's machine lost its power.
    AgentPowerCut = "agent_power_cut",
    /// A gateway booted while its link was cut, with work to do.
    ColdBootOffline = "cold_boot_offline",
    /// A gateway that had facts for the coordinator was without power for longer than facts are
    /// kept that the coordinator has.
    OffForLong = "off_for_long",
    /// All machines lost their power at once.
    Blackout = "blackout",
    /// All gateways of a site, two at least, lost their power at once, and others did not.
    SitePowerCut = "site_power_cut",
    /// Writes that were not synced were lost at a power cut.
    LostWrite = "lost_write",
    /// A write that was not synced survived in part.
    TornWrite = "torn_write",
    /// kill -9 of the coordinator.
    CoordinatorKill = "coordinator_kill",
    /// The coordinator's machine lost its power.
    CoordinatorPowerCut = "coordinator_power_cut",
    /// A wall clock jumped forward.
    ClockForward = "clock_forward",
    /// A wall clock jumped back.
    ClockBack = "clock_back",
    /// A gateway booted with a wall clock that was not set.
    ClockUntrusted = "clock_untrusted",
    /// An agent's commit found no room.
    AgentDiskFull = "agent_disk_full",
    /// A full disk made the store of an agent give its reserve back.
    ReserveGivenBack = "reserve_given_back",
    /// A commit of the coordinator found no room.
    CoordinatorDiskFull = "coordinator_disk_full",
    /// An agent's commit failed and nobody knows whether it is there.
    AgentCommitFailed = "agent_commit_failed",
    /// A commit of the coordinator failed and nobody knows whether it is there.
    CoordinatorCommitFailed = "coordinator_commit_failed",
    /// A sync of a simulated disk failed.
    SyncFailed = "sync_failed",
    /// An attempt failed.
    TaskFailure = "task_failure",
    /// An attempt hung until it was stopped.
    TaskHang = "task_hang",
    /// A process ignored TERM and was killed.
    TermIgnored = "term_ignored",
    /// A program could not be started.
    CannotStart = "cannot_start",
    /// A gateway started from an older image of its disk.
    DiskWentBack = "disk_went_back",
    /// A second machine started from a copy of a disk that was in use.
    DiskCopied = "disk_copied",
    /// The coordinator started from an older image of its disk.
    CoordinatorWentBack = "coordinator_went_back",
    /// A gateway started with an empty disk, enrolled again.
    Reimaged = "reimaged",
    /// A gateway was destroyed and forgotten by an operator.
    Forgotten = "forgotten",
    /// A gateway that had been declared gone was there again, as it was, and was turned away.
    GoneReturned = "gone_returned",
    /// A slice was placed again because its node had been silent for too long.
    Replaced = "replaced",
    /// A node came back after its slice had been placed again.
    LateReturn = "late_return",
    /// A person cancelled a run.
    Cancelled = "cancelled",
    /// A person paused a run.
    Paused = "paused",
    /// A run was submitted at a gateway.
    LocalSubmit = "local_submit",
    /// A person let a task run again that waited for one.
    Resumed = "resumed",
    /// A question of a task was answered.
    Answered = "answered",
    /// A person let a run that was over run again.
    Retried = "retried",
    /// An answer came from the coordinator when another one counted already.
    AnsweredTwice = "answered_twice",
    /// An agent died in the middle of a save of telemetry.
    TelemetryTorn = "telemetry_torn",
    /// Telemetry of an outage was thinned.
    TelemetryThinned = "telemetry_thinned",
    /// A gateway started with a store that had been cut to nothing, its identity beside it.
    StoreCut = "store_cut",
    /// An operator kept new work off a node.
    Cordoned = "cordoned",
    /// An operator drained a node.
    Drained = "drained",
    /// An operator drained a node that was away.
    DrainedAway = "drained_away",
    /// An operator tainted a node.
    Tainted = "tainted",
    /// An operator changed a label of a node.
    Labelled = "labelled",
    /// A person let a gateway send nothing.
    SyncPaused = "sync_paused",
    /// An inventory came in parts.
    InventoryParts = "inventory_parts",
    /// A session ended between two parts of an inventory.
    InventoryCut = "inventory_cut",
    /// A gateway was cut off between its inventory and facts that the coordinator had lost.
    SilentBehindInventory = "silent_behind_inventory",
    /// As many of a matrix ran as may run at once.
    LimitReached = "limit_reached",
    /// A task ended because too many of its matrix had failed.
    TooManyFailed = "too_many_failed",
    /// A gateway fired a slot in time.
    SlotFired = "slot_fired",
    /// A gateway fired a slot while its link was cut.
    SlotFiredOffline = "slot_fired_offline",
    /// A gateway caught a slot up.
    SlotCaughtUp = "slot_caught_up",
    /// A gateway ran a schedule once because a person wanted that.
    SlotTriggered = "slot_triggered",
    /// A gateway ran a past slot because a person wanted that.
    SlotFilled = "slot_filled",
    /// Slots of a gateway were missed, and told to be.
    SlotMissed = "slot_missed",
    /// A slot did not fire because the run before it was open.
    SlotOverlapped = "slot_overlapped",
    /// A slot did not fire because it had fired before.
    SlotFiredBefore = "slot_fired_before",
    /// A gateway's clock went back behind slots that had fired.
    SlotsSetBack = "slots_set_back",
    /// The coordinator fired a slot.
    CoordinatorFired = "coordinator_fired",
    /// A schedule got another owner.
    ScheduleMoved = "schedule_moved",
    /// The coordinator forgot a run.
    RunForgotten = "run_forgotten",
    /// The coordinator removed facts that only forgotten runs needed.
    FactsPruned = "facts_pruned",
    /// A backup of the running coordinator was finished and counted.
    BackupMade = "backup_made",
    /// The coordinator died while a backup was made of it.
    BackupCutShort = "backup_cut_short",
    /// A gateway removed facts that were in a backup.
    SafePruned = "safe_pruned",
    /// The coordinator began with what was restored of its newest backup.
    Restored = "restored",
    /// The coordinator began with what was restored of a backup that was not its newest.
    RestoredOlder = "restored_older",
    /// A restore that did not wait for a gateway that is gone.
    RestoredWithout = "restored_without",
    /// Facts that a restored coordinator lacks were gone at their gateway, which said so.
    HoleDeclared = "hole_declared",
    /// A fact of the Byzantine gateway about an open slice of another node arrived in a session
    /// that the coordinator had welcomed.
    ByzantineLie = "byzantine_lie",
    /// An inventory of the Byzantine gateway arrived that claims an open slice of another node.
    ByzantineInventory = "byzantine_inventory",
}

impl Kind {
    /// Whether only a simulated disk beneath the stores can show it.
    #[must_use]
    pub fn needs_disk(self) -> bool {
        matches!(
            self,
            Self::LostWrite
                | Self::TornWrite
                | Self::SyncFailed
                | Self::RotFound
                | Self::RotUnseen
                | Self::ReserveGivenBack
        )
    }
}

/// How often each kind happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<Kind, u64>);

impl Tally {
    /// It happened once more.
    pub fn add(&mut self, kind: Kind) {
        self.add_n(kind, 1);
    }

    /// It happened `n` times more.
    pub fn add_n(&mut self, kind: Kind, n: u64) {
        if n > 0 {
            *self.0.entry(kind).or_insert(0) += n;
        }
    }

    /// How often it happened.
    #[must_use]
    pub fn count(&self, kind: Kind) -> u64 {
        self.0.get(&kind).copied().unwrap_or(0)
    }

    /// The kinds that happened, with how often.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, u64)> + '_ {
        self.0.iter().map(|(kind, n)| (*kind, *n))
    }
}
