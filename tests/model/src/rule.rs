//! The rules that can be taken out, one for each row of the contract's tables that a model can
//! contain. `docs/model.md` says what each row is and which rows no model contains.

use clap::ValueEnum;
use serde::Serialize;

/// A rule of the protocol. Taking any one of them out leads to a broken promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Rule {
    /// A newcomer with a token replaces a node only if the old session answers no probe.
    ProbeBeforeReplace,
    /// Slices of an incarnation that was closed are lost, and placed again as their spec allows.
    LostPlacedAgain,
    /// Logs are compared by number and hash, not by number alone.
    Chain,
    /// A live session that answers a probe is the original; who else calls is quarantined.
    ProbeBeforeTakeover,
    /// Work with side effects at most once of a closed incarnation is in doubt, never placed again.
    InDoubtWhenClosed,
    /// A coordinator whose store went back notices it by what a node names.
    NoticeGoneBack,
    /// Only a seal proves that the store went back, not the word of one gateway.
    Seal,
    /// Each start of the store draws a new generation, part of each epoch.
    Generation,
    /// A generation is at least the wall clock, not only the stored one raised.
    GenerationByClock,
    /// After a restore old runs stand still until all nodes were heard.
    Hold,
    /// While runs are held, outcomes are recorded and do not count: a former owner may be heard
    /// before the one that replaced it.
    HoldBeforeCounting,
    /// A node was heard when all facts are back that its sealed acknowledgement names.
    HeardWithFacts,
    /// Unknown slices are rebuilt from inventories.
    Inventory,
    /// Work that a reset does not mention is not stopped.
    ResetKeeps,
    /// Facts are kept at the edge until they are in a finished backup.
    Safe,
    /// The registry's entry is compared before it is removed.
    TeardownCompare,
    /// After a reconnect facts go on from the coordinator's cursor, not the agent's idea of it.
    ResumeFromCursor,
    /// Exactly the next entry is applied; what was there before is ignored.
    ExactlyNext,
    /// Acknowledged only after the commit.
    CommitBeforeAck,
    /// Order is that of numbers, never of the wall clock.
    OrderByNumber,
    /// Unknown kinds are kept as bytes.
    KeepUnknown,
    /// An expired certificate may do one thing: renew.
    RenewInGrace,
    /// Outcomes count at the current epoch only.
    EpochFence,
    /// A slice moves when its release was confirmed.
    ReleaseConfirmed,
    /// What is at most once is in doubt after an unclean stop, and does not begin again by itself.
    InDoubtAfterCrash,
    /// A process begins after its `started` was committed.
    StartedFirst,
    /// Leases count on the boot clock.
    LeaseBootClock,
    /// Each request of a lease has a new number.
    LeaseNewNumber,
    /// The process is confirmed gone when the lease ends.
    LeaseEarlyEnd,
    /// After a reboot no lease is valid.
    LeaseEndsWithBoot,
    /// A coordinator that started counts one maximal lease from then on.
    LeaseWaitAfterStart,
}

impl Rule {
    /// Whether it belongs to leases, which have a model of their own.
    pub fn is_of_the_lease(self) -> bool {
        self as u8 >= Self::LeaseBootClock as u8
    }
}

/// A set of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules(u32);

impl Rules {
    /// The whole contract.
    pub fn all() -> Self {
        Self(u32::MAX)
    }

    /// The contract without one of its rules.
    pub fn without(rule: Rule) -> Self {
        Self(!(1 << rule as u8))
    }

    /// Whether a rule is in force.
    pub fn has(self, rule: Rule) -> bool {
        self.0 & 1 << rule as u8 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rule_is_taken_out_and_no_other() {
        for out in Rule::value_variants() {
            for rule in Rule::value_variants() {
                assert_eq!(Rules::without(*out).has(*rule), out != rule);
                assert!(Rules::all().has(*rule));
            }
        }
    }
}
