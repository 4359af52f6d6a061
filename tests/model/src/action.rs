//! What can happen next, and how it reads in a history.

use crate::state::node_of;
use std::fmt;

/// An accident. Each costs one of the faults that a configuration allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// kill -9 or a power cut of a machine, which starts again.
    Crash(usize),
    /// A machine's disk goes back to its image.
    DiskWentBack(usize),
    /// The first node's disk is copied into a second machine.
    DiskCopied,
    /// A machine with an empty disk and a token enrols as the first node.
    Reimaged,
    /// The coordinator is killed and starts again.
    CoordinatorCrash,
    /// `backup restore`.
    Restored,
    /// The coordinator starts with an older store, and nobody tells it.
    WentBack,
    /// The coordinator's binary goes back to the version before.
    OldVersion,
    /// A session breaks.
    LinkLost(usize),
    /// The welcome does not arrive.
    WelcomeLost(usize),
    /// The end of a connection that was replaced is seen.
    LateTeardown(usize),
    /// A batch of facts is lost.
    FactsLost(usize, usize),
    /// A batch of facts arrives and arrives again.
    FactsTwice(usize, usize),
    /// A batch of facts arrives, its acknowledgement is lost.
    AckLost(usize, usize),
    /// Directives arrive and arrive again.
    DirectivesTwice(usize),
    /// A certificate expires.
    Expired(usize),
    /// A machine's wall clock goes back.
    ClockBack(usize),
    /// A gateway claims a directive that nobody gave.
    Lie(usize),
}

/// A step of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// A slice is placed on a node.
    Assign(usize, usize),
    /// A slice is to move: its owner is asked to give it back.
    AskBack(usize),
    /// The owner was silent for longer than `lost_after`.
    Replace(usize),
    Backup,
    Image(usize),
    Upgrade,
    Renew(usize),
    /// A connection that the coordinator forgot is given up.
    HangUp(usize),
    Dial(usize),
    FactsArrive(usize, usize),
    DirectivesArrive(usize),
    /// A process begins.
    Begin(usize, usize),
    /// `started` is committed after the fact, where that rule is out.
    CommitStarted(usize, usize),
    Finish(usize, usize),
    /// What was acknowledged becomes durable, where that rule is out.
    CommitFacts(usize),
    Fault(Fault),
}

const MACHINE: [&str; 3] = ["A", "B", "A'"];
const NODE: [&str; 2] = ["node A", "node B"];

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Assign(s, n) => write!(f, "the coordinator assigns S{s} to {}", NODE[n]),
            Self::AskBack(s) => write!(f, "the coordinator asks S{s} back"),
            Self::Replace(s) => write!(f, "the coordinator counts S{s} as lost, to be replaced"),
            Self::Backup => write!(f, "a backup is finished"),
            Self::Image(m) => write!(f, "an image of {}'s disk is taken", MACHINE[m]),
            Self::Upgrade => write!(f, "the coordinator is upgraded again"),
            Self::Renew(m) => write!(f, "{} renews its expired certificate", MACHINE[m]),
            Self::HangUp(m) => write!(f, "{} gives up a connection that is not served", MACHINE[m]),
            Self::Dial(m) => write!(f, "{} ({}) dials", MACHINE[m], NODE[node_of(m)]),
            Self::FactsArrive(m, _) => write!(f, "facts of {} arrive", MACHINE[m]),
            Self::DirectivesArrive(m) => write!(f, "directives arrive at {}", MACHINE[m]),
            Self::Begin(m, s) => write!(f, "{} begins S{s}", MACHINE[m]),
            Self::CommitStarted(m, s) => write!(f, "{} commits that S{s} started", MACHINE[m]),
            Self::Finish(m, s) => write!(f, "S{s} ends at {}", MACHINE[m]),
            Self::CommitFacts(n) => write!(f, "the coordinator commits facts of {}", NODE[n]),
            Self::Fault(fault) => write!(f, "! {fault}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Crash(m) => write!(f, "{} is killed and starts again", MACHINE[m]),
            Self::DiskWentBack(m) => write!(f, "{}'s disk goes back to its image", MACHINE[m]),
            Self::DiskCopied => write!(f, "A's disk is copied, the copy runs as A'"),
            Self::Reimaged => write!(f, "A' with an empty disk and a token wants to be node A"),
            Self::CoordinatorCrash => write!(f, "the coordinator is killed and starts again"),
            Self::Restored => write!(f, "the coordinator is restored from the backup"),
            Self::WentBack => write!(f, "the coordinator starts with the old store, unannounced"),
            Self::OldVersion => write!(f, "the coordinator's binary goes back to the old version"),
            Self::LinkLost(m) => write!(f, "{} loses its session", MACHINE[m]),
            Self::WelcomeLost(m) => write!(f, "{} dials, the welcome is lost", MACHINE[m]),
            Self::LateTeardown(n) => {
                write!(f, "the old connection's end of {} comes late", NODE[n])
            }
            Self::FactsLost(m, _) => write!(f, "facts of {} are lost", MACHINE[m]),
            Self::FactsTwice(m, _) => {
                write!(f, "facts of {} arrive, and once more later", MACHINE[m])
            }
            Self::AckLost(m, _) => {
                write!(
                    f,
                    "facts of {} arrive, the acknowledgement is lost",
                    MACHINE[m]
                )
            }
            Self::DirectivesTwice(m) => {
                write!(
                    f,
                    "directives for {} arrive, and once more later",
                    MACHINE[m]
                )
            }
            Self::Expired(m) => write!(f, "{}'s certificate expires", MACHINE[m]),
            Self::ClockBack(m) => write!(f, "{}'s wall clock goes back", MACHINE[m]),
            Self::Lie(m) => write!(f, "{} claims a directive that nobody gave", MACHINE[m]),
        }
    }
}
