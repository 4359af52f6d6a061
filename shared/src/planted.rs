//! Mistakes that can be switched on in both cores, to measure whether the simulator's checkers
//! notice them: mutation testing by hand-picked mutants (DeMillo, Lipton, Sayward, "Hints on Test
//! Data Selection", Computer 11(4), 1978). See `docs/simulation.md`.
//!
//! Without the feature `planted`, which nothing that is shipped enables, [`on`] is always false and
//! the mistakes are not compiled in.

macro_rules! mistakes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// A mistake in a core.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum Mistake {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Mistake {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Its name on the command line and in tables.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

mistakes! {
    /// The coordinator acknowledges facts before they are durable.
    AckBeforeCommit = "ack_before_commit",
    /// The agent confirms directives also where their commit failed.
    ConfirmBeforeCommit = "confirm_before_commit",
    /// Both sides compare logs by the number of their last entry, not by its hash.
    CursorsByNumber = "cursors_by_number",
    /// After its store went back the coordinator drops facts of runs that it does not know.
    RefuseUnknownRun = "refuse_unknown_run",
    /// The generation is the stored one plus one, whatever the clock and the gateways say.
    GenerationFromStore = "generation_from_store",
    /// Old runs go on at once after the coordinator's store went back.
    NoHold = "no_hold",
    /// Every slice counts its own epochs.
    EpochPerSlice = "epoch_per_slice",
    /// Facts count whatever epoch they name.
    IgnoreEpoch = "ignore_epoch",
    /// Facts that are sent again are cut anywhere, not at the end of a commit.
    CutInCommit = "cut_in_commit",
    /// A reset of the directives ends work that it does not name.
    ResetStopsOthers = "reset_stops_others",
    /// A failed task is tried again without end.
    NoRetryLimit = "no_retry_limit",
    /// The agent makes room by its oldest facts, acknowledged or not.
    DropOldest = "drop_oldest",
    /// The agent lets facts go that are in no backup, while it has room and could wait for one.
    PruneWithRoom = "prune_with_room",
    /// On a full disk the agent's store lets its older facts go, and keeps its reserve.
    PruneBeforeReserve = "prune_before_reserve",
    /// A task that may run once at most is begun again when its attempt is in doubt.
    BeginInDoubt = "begin_in_doubt",
    /// The agent goes on with what it has in memory after a commit that failed.
    KeepMemory = "keep_memory",
    /// The coordinator goes on with what it has in memory after a commit that failed.
    KeepMemoryAbove = "keep_memory_above",
    /// The agent starts tasks only while it is online.
    WaitForLink = "wait_for_link",
    /// After a start of its own the agent waits for the coordinator before it resumes.
    DialFirst = "dial_first",
    /// An attempt gets the number of the one before it.
    SameNumber = "same_number",
    /// Tasks of a run that is paused are started.
    StartPaused = "start_paused",
    /// The agent has no reason for a task that waits.
    NoReason = "no_reason",
    /// What runs on while the agent starts again takes no slot.
    AdoptedTakeNone = "adopted_take_none",
    /// Facts that come a second time are folded a second time.
    FoldTwice = "fold_twice",
    /// What a silent node has is never taken from it.
    NeverLost = "never_lost",
    /// A link that broke is not dialled again.
    NoRedial = "no_redial",
    /// A cancel does not reach what runs.
    CancelNothing = "cancel_nothing",
    /// The view of a node shows facts that were heard of and are not here.
    ViewAhead = "view_ahead",
    /// A task that ended by a signal is told as a success.
    SignalIsGood = "signal_is_good",
    /// Outcomes count as they come, also while a node that was not heard may have a newer claim.
    CountWhileHeld = "count_while_held",
    /// A node counts as heard with its inventory, whatever it still has to bring.
    HeardByInventory = "heard_by_inventory",
    /// Facts about a slice count whoever says them.
    BelieveStrangers = "believe_strangers",
    /// The exchange of the fleet's authority ends, whoever does not carry the next one.
    ShutOut = "shut_out",
}

#[cfg(feature = "planted")]
static CURRENT: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(u8::MAX);

/// Switches a mistake on, or the one that was on off, in the whole process.
#[cfg(feature = "planted")]
pub fn plant(mistake: Option<Mistake>) {
    let number = mistake.map_or(u8::MAX, |mistake| mistake as u8);
    CURRENT.store(number, std::sync::atomic::Ordering::Relaxed);
}

/// Whether a mistake is on.
#[cfg(feature = "planted")]
#[must_use]
pub fn on(mistake: Mistake) -> bool {
    CURRENT.load(std::sync::atomic::Ordering::Relaxed) == mistake as u8
}

/// Whether a mistake is on: never.
#[cfg(not(feature = "planted"))]
#[must_use]
#[inline(always)]
pub const fn on(_: Mistake) -> bool {
    false
}
