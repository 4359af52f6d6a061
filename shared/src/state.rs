//! Closed lists of states. Their text is what people and programs see; it never changes.

use serde::{Deserialize, Serialize};

macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// The text that people and programs see.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
            /// The state with this text.
            #[must_use]
            pub fn from_text(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|state| state.text() == text)
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.text())
            }
        }
    };
}
pub(crate) use states;

states! {
    /// State of a task, as the agent that owns it knows it.
    TaskState {
        /// Waits for other tasks, a file, or a person.
        Blocked = "blocked",
        /// May start as soon as there is room.
        Ready = "ready",
        /// An attempt has `started` and no end yet (it may not have begun).
        Running = "running",
        /// A checkpoint of it is being taken.
        Checkpointing = "checkpointing",
        /// It is being undone.
        RollingBack = "rolling_back",
        /// Waits for its next attempt.
        Retrying = "retrying",
        /// Stands until a person says otherwise.
        Paused = "paused",
        /// Ended well.
        Succeeded = "succeeded",
        /// Ended badly, no attempt is left.
        Failed = "failed",
        /// A person ended it.
        Cancelled = "cancelled",
        /// A task it depends on did not succeed.
        Aborted = "aborted",
        /// Its condition did not hold, or a task it depends on was skipped.
        Skipped = "skipped",
        /// Began and its end is not known; may not run again by itself.
        Lost = "lost",
    }
}
impl TaskState {
    /// Whether nothing follows it (an undo apart).
    #[must_use]
    pub fn is_final(self) -> bool {
        use TaskState::{Aborted, Cancelled, Failed, Lost, Skipped, Succeeded};
        matches!(
            self,
            Succeeded | Failed | Cancelled | Aborted | Skipped | Lost
        )
    }
}

states! {
    /// State of a run, as the coordinator knows it.
    RunState {
        /// Recorded; nothing is placed yet.
        Accepted = "accepted",
        /// At least one slice is assigned.
        Running = "running",
        /// A person paused it.
        Paused = "paused",
        /// Stands still after a restore until its nodes were heard.
        Held = "held",
        /// All tasks succeeded or were skipped.
        Succeeded = "succeeded",
        /// At least one task failed.
        Failed = "failed",
        /// A person's request took something away.
        Cancelled = "cancelled",
        /// At least one task is lost, none failed.
        PartlyLost = "partly_lost",
        /// Known only from facts that name it.
        UnknownRun = "unknown_run",
    }
}
impl RunState {
    /// Whether nothing follows it.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::PartlyLost
        )
    }
}

states! {
    /// State of a node, as the coordinator knows it.
    NodeState {
        /// A session is live.
        Online = "online",
        /// No session is live.
        Offline = "offline",
        /// Its identity is in question; a person decides.
        Quarantined = "quarantined",
        /// Takes no new work.
        Draining = "draining",
        /// A person declared it gone.
        Forgotten = "forgotten",
    }
}
