//! The bounds within which the protocol is checked. One state space for everything at once would
//! be too large, so each configuration has its own accidents; the first has the widest mix.

use crate::action::Fault;
use crate::sight::Sight;
use crate::state::SLICES;

/// Bounds of one state space.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Config {
    pub(crate) name: &'static str,
    pub(crate) slices: usize,
    /// Epochs that may be drawn.
    pub(crate) epochs: u8,
    /// The first slice may be asked back to be moved.
    pub(crate) moves: bool,
    /// The second slice may be replaced while its node is silent.
    pub(crate) replaces: bool,
    /// Backups and images of disks are made until so many epochs were drawn.
    pub(crate) images_until: u8,
    /// Accidents that may happen, each kind once, and how many of them in all.
    pub(crate) faults: &'static [Fault],
    pub(crate) budget: u8,
    /// What must be reached, or the check shows nothing.
    pub(crate) sights: &'static [Sight],
}

/// The configurations of the protocol that each change is checked with.
pub(crate) const CONFIGS: [Config; 7] = [
    Config {
        name: "main",
        slices: SLICES,
        epochs: 3,
        moves: true,
        replaces: false,
        images_until: 0,
        faults: EVERY_SIDE,
        budget: 1,
        sights: &[
            Sight::AllCounted,
            Sight::MovedByRelease,
            Sight::DuplicateIgnored,
            Sight::GapNoticed,
            Sight::GoneBackNoticed,
            Sight::HoldEnded,
            Sight::Rebuilt,
            Sight::DirectivesReset,
            Sight::Fenced,
            Sight::InDoubtAfterCrash,
        ],
    },
    Config {
        name: "sessions",
        slices: 1,
        epochs: 1,
        moves: false,
        replaces: false,
        images_until: 2,
        faults: &[
            Fault::LinkLost(0),
            Fault::LateTeardown(0),
            Fault::DiskCopied,
            Fault::WelcomeLost(0),
        ],
        budget: 4,
        sights: &[
            Sight::OldTeardownIgnored,
            Sight::Quarantined,
            Sight::TookOver,
        ],
    },
    Config {
        name: "versions, clocks, certificates",
        slices: SLICES,
        epochs: 2,
        moves: false,
        replaces: false,
        images_until: 2,
        faults: &[
            Fault::OldVersion,
            Fault::ClockBack(0),
            Fault::Expired(0),
            Fault::Lie(0),
            Fault::LinkLost(0),
        ],
        budget: 2,
        sights: &[
            Sight::UnknownKindCounted,
            Sight::Renewed,
            Sight::LiarDoubted,
        ],
    },
    Config {
        name: "restore after a replacement",
        slices: SLICES,
        epochs: 2,
        moves: false,
        replaces: true,
        images_until: 1,
        faults: &[Fault::LinkLost(0), Fault::LinkLost(1), Fault::Restored],
        budget: 2,
        sights: &[Sight::LateOutcome, Sight::HoldEnded, Sight::Rebuilt],
    },
    Config {
        name: "two accidents",
        slices: SLICES,
        epochs: 2,
        moves: false,
        replaces: true,
        images_until: 2,
        faults: &[
            Fault::Crash(0),
            Fault::Crash(1),
            Fault::CoordinatorCrash,
            Fault::LinkLost(0),
            Fault::LinkLost(1),
            Fault::FactsLost(0, 0),
            Fault::FactsLost(1, 0),
            Fault::FactsTwice(0, 0),
            Fault::FactsTwice(1, 0),
            Fault::DirectivesTwice(0),
            Fault::DirectivesTwice(1),
        ],
        budget: 2,
        sights: &[
            Sight::AllCounted,
            Sight::LateOutcome,
            Sight::InDoubtAfterCrash,
        ],
    },
    Config {
        name: "restore",
        slices: 1,
        epochs: 2,
        moves: true,
        replaces: false,
        images_until: 2,
        faults: &[
            Fault::Restored,
            Fault::WentBack,
            Fault::CoordinatorCrash,
            Fault::Crash(0),
            Fault::Crash(1),
            Fault::LinkLost(0),
            Fault::LinkLost(1),
            Fault::AckLost(0, 0),
            Fault::AckLost(1, 0),
        ],
        budget: 2,
        sights: &[
            Sight::GoneBackNoticed,
            Sight::HoldEnded,
            Sight::DirectivesReset,
        ],
    },
    Config {
        name: "disks",
        slices: SLICES,
        epochs: 2,
        moves: false,
        replaces: false,
        images_until: 2,
        faults: &[
            Fault::DiskWentBack(0),
            Fault::DiskCopied,
            Fault::Reimaged,
            Fault::LinkLost(0),
            Fault::CoordinatorCrash,
        ],
        budget: 2,
        sights: &[
            Sight::Fenced,
            Sight::Quarantined,
            Sight::TookOver,
            Sight::Replaced,
            Sight::ClosedCalled,
            Sight::InDoubtWhenClosed,
        ],
    },
];

/// One accident of any kind, at either node.
const EVERY_SIDE: &[Fault] = &[
    Fault::Crash(0),
    Fault::Crash(1),
    Fault::CoordinatorCrash,
    Fault::DiskWentBack(0),
    Fault::DiskWentBack(1),
    Fault::Restored,
    Fault::WentBack,
    Fault::LinkLost(0),
    Fault::LinkLost(1),
    Fault::FactsLost(0, 0),
    Fault::FactsLost(1, 0),
    Fault::FactsTwice(0, 0),
    Fault::FactsTwice(1, 0),
];

impl Config {
    /// The same with room for one accident more.
    pub(crate) fn deeper(mut self) -> Self {
        self.budget += 1;
        self
    }
}
