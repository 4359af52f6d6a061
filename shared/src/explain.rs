//! Why something was decided: a closed list of reasons, and the record that carries one with its
//! evidence.

use crate::state::states;
use serde::{Deserialize, Serialize};

states! {
    /// Why. The reason stands in the fact or the answer; `docs/explain.md` describes each.
    Reason {
        /// Chosen: the only node that fits.
        OnlyFit = "only_fit",
        /// Chosen: most of its inputs are there or come from tasks placed there.
        DataThere = "data_there",
        /// Chosen: the least loaded node that fits.
        LeastLoaded = "least_loaded",
        /// Chosen: named by the specification.
        NamedBySpec = "named_by_spec",
        /// Chosen: its batch or neighbours run there, so no edge crosses the link.
        KeepsTogether = "keeps_together",
        /// First in the ready queue: priority, then upward rank, then age.
        FirstInQueue = "first_in_queue",
        /// Everything it asks for is free.
        ResourcesFree = "resources_free",
        /// Its start is committed ahead of a free slot.
        StartedAhead = "started_ahead",
        /// Waits for tasks it needs.
        WaitsForTasks = "waits_for_tasks",
        /// Waits for a file that is still on another node.
        WaitsForFile = "waits_for_file",
        /// Waits for resources that other tasks hold.
        WaitsForResources = "waits_for_resources",
        /// Waits for its next attempt.
        WaitsForRetry = "waits_for_retry",
        /// Waits for a person.
        WaitsForPerson = "waits_for_person",
        /// Waits for room on the disk.
        WaitsForDisk = "waits_for_disk",
        /// Waits for a node that fits to be heard.
        WaitsForNode = "waits_for_node",
        /// Waits until the nodes of before the restore were heard.
        WaitsForHold = "waits_for_hold",
        /// A person paused it.
        PausedByPerson = "paused_by_person",
        /// Exited with 0 and all outputs are there.
        ExitedZero = "exited_zero",
        /// Exited with another code.
        ExitedNonzero = "exited_nonzero",
        /// Ended by a signal that the agent did not send.
        Signalled = "signalled",
        /// Exited with 0, but a declared output is missing.
        OutputMissing = "output_missing",
        /// The program could not be started.
        CannotStart = "cannot_start",
        /// An input could not be laid down.
        InputMissing = "input_missing",
        /// Ran longer than its timeout.
        TimedOut = "timed_out",
        /// Its deadline passed.
        DeadlinePassed = "deadline_passed",
        /// Retried: an attempt is left.
        AttemptLeft = "attempt_left",
        /// Not retried: no attempt is left.
        AttemptsUsedUp = "attempts_used_up",
        /// Not retried: its exit code is excluded.
        ExitCodeExcluded = "exit_code_excluded",
        /// The agent or the node died while it ran; it runs again and no retry is used up.
        AgentDied = "agent_died",
        /// Agent or node died too often while it ran.
        CrashLimit = "crash_limit",
        /// Its start was committed, it never began.
        NeverBegan = "never_began",
        /// It began, its end is not known, and it may not run twice.
        InDoubt = "in_doubt",
        /// Its condition does not hold.
        WhenFalse = "when_false",
        /// A task it needs was skipped.
        NeedSkipped = "need_skipped",
        /// A task it needs did not succeed.
        NeedFailed = "need_failed",
        /// Its trigger rule can no longer come true.
        TriggerNotMet = "trigger_not_met",
        /// A person cancelled it.
        CancelledByPerson = "cancelled_by_person",
        /// Another epoch of its slice counts now.
        Superseded = "superseded",
        /// Its node was silent for longer than `lost_after`.
        NodeSilent = "node_silent",
        /// A person declared its node gone.
        NodeForgotten = "node_forgotten",
        /// Its node came back as a new incarnation.
        NodeReimaged = "node_reimaged",
        /// The run is not known.
        UnknownRun = "unknown_run",
        /// The kind of the entry is not known to this version.
        UnknownKind = "unknown_kind",
        /// The change is not possible in the state it meets.
        ImpossibleTransition = "impossible_transition",
        /// There is no room for it.
        NoRoom = "no_room",
        /// The node does not offer what it asks for.
        DoesNotFit = "does_not_fit",
        /// The entry could not be read.
        Malformed = "malformed",
        /// A person let a paused or lost task run again.
        ResumedByPerson = "resumed_by_person",
        /// The run is over and was forgotten.
        ForgottenRun = "forgotten_run",
        /// What it made lay only on a node that is gone, others need it, and it may not be done
        /// again.
        OutputLost = "output_lost",
        /// A person approved it.
        Approved = "approved",
        /// A person rejected it.
        Rejected = "rejected",
        /// Nobody answered before its deadline, and then it counts as approved.
        ApprovedByDefault = "approved_by_default",
        /// Nobody answered before its deadline, and then it counts as rejected.
        RejectedByDefault = "rejected_by_default",
        /// Slots passed while nobody could fire them, and are not caught up.
        SlotMissed = "slot_missed",
        /// It was later than the schedule's `starting_deadline`.
        SlotTooLate = "slot_too_late",
        /// A run of the schedule is not over.
        RunOpen = "run_open",
        /// The wall clock was set back: slots are looked for from there on.
        ClockSetBack = "clock_set_back",
        /// The slot fired before.
        FiredBefore = "fired_before",
        /// New starts wait: tasks wait for cores too much of the time.
        CpuPressure = "cpu_pressure",
        /// New starts wait: memory is short.
        MemoryPressure = "memory_pressure",
        /// New starts wait: everything waits for a disk too much of the time.
        IoPressure = "io_pressure",
        /// New starts wait: the machine is too hot.
        TooHot = "too_hot",
        /// Chosen: the fewest of the tasks that are spread are there.
        SpreadOut = "spread_out",
        /// Chosen: the node of a task that it must be with.
        NextToTask = "next_to_task",
        /// A person keeps new work off the node.
        NodeClosed = "node_closed",
        /// A person let what had ended run again.
        RetriedByPerson = "retried_by_person",
        /// As many of its matrix run as may run at once here.
        WaitsForLimit = "waits_for_limit",
        /// More of its matrix failed than may fail.
        TooManyFailed = "too_many_failed",
    }
}

/// What was decided about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum DecisionKind {
    /// A node was chosen for a task.
    Placed,
    /// A task was put into an order.
    Ordered,
    /// A task was let start.
    Admitted,
    /// A task was not let start yet.
    Held,
    /// An attempt follows another.
    Retried,
    /// A slice went to another node.
    Moved,
    /// A request was not honoured.
    Refused,
}

impl DecisionKind {
    /// The text that people and programs see.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Ordered => "ordered",
            Self::Admitted => "admitted",
            Self::Held => "held",
            Self::Retried => "retried",
            Self::Moved => "moved",
            Self::Refused => "refused",
        }
    }
}

/// One number or name that decided.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Evidence {
    /// What it is, with its unit last (`free_cpu_milli`).
    pub name: String,
    /// Its value, as text.
    pub value: String,
}

impl Evidence {
    /// Evidence `name` = `value`.
    pub fn new(name: impl Into<String>, value: impl ToString) -> Self {
        Self {
            name: name.into(),
            value: value.to_string(),
        }
    }
}

/// A decision with its reason and evidence. `decision_id` is `NODE/FACT.POSITION` or
/// `RUN/VERSION.POSITION` when shown.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Decision {
    /// What was decided about.
    pub action: DecisionKind,
    /// Why.
    pub reason: Reason,
    /// 1000 where a rule decided, less where an estimate did.
    pub confidence_milli: u16,
    /// The numbers that decided.
    pub evidence: Vec<Evidence>,
    /// How often it was decided the same way again.
    pub repeats: u32,
}
