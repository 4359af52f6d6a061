//! What a check must have come by: a model that never gets there proves nothing.

/// Something that a step reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Sight {
    AllCounted,
    /// A third epoch was drawn for a slice that was given back.
    MovedByRelease,
    /// An outcome of a former owner was recorded and did not count.
    LateOutcome,
    DuplicateIgnored,
    GapNoticed,
    GoneBackNoticed,
    HoldEnded,
    /// A slice that the store did not know was rebuilt from an inventory.
    Rebuilt,
    DirectivesReset,
    Fenced,
    Quarantined,
    /// A copy without a fork took a silent original's place.
    TookOver,
    Replaced,
    ClosedCalled,
    InDoubtAfterCrash,
    InDoubtWhenClosed,
    OldTeardownIgnored,
    UnknownKindCounted,
    Renewed,
    LiarDoubted,
    LeaseRenewed,
    LeaseOver,
    LeaseMoved,
    /// A machine that lost its lease with a reboot did not begin again after the move.
    LeaseAfterReboot,
}

/// All of them.
pub(crate) const SIGHTS: [Sight; 24] = [
    Sight::AllCounted,
    Sight::MovedByRelease,
    Sight::LateOutcome,
    Sight::DuplicateIgnored,
    Sight::GapNoticed,
    Sight::GoneBackNoticed,
    Sight::HoldEnded,
    Sight::Rebuilt,
    Sight::DirectivesReset,
    Sight::Fenced,
    Sight::Quarantined,
    Sight::TookOver,
    Sight::Replaced,
    Sight::ClosedCalled,
    Sight::InDoubtAfterCrash,
    Sight::InDoubtWhenClosed,
    Sight::OldTeardownIgnored,
    Sight::UnknownKindCounted,
    Sight::Renewed,
    Sight::LiarDoubted,
    Sight::LeaseRenewed,
    Sight::LeaseOver,
    Sight::LeaseMoved,
    Sight::LeaseAfterReboot,
];
