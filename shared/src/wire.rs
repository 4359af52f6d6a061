//! Messages of a session. Up goes agent → coordinator, down the other way. One message is one
//! frame; the transport keeps the order within each of its streams and loses nothing while the
//! session lives.
//!
//! Variants are numbered by position and may only be appended.

use crate::directive::Directive;
use crate::explain::Decision;
use crate::fact::{Acknowledged, SliceState};
use crate::ids::{BootId, Generation, Hash, Incarnation, NodeId};
use crate::inventory::InventoryPart;
use crate::log::{Batch, Head, PackedBatch};
use crate::telemetry::{Receipt, Report};
use crate::time::{Now, Span, Unix};
use crate::workflow::Resources;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Oldest protocol version that this build speaks.
pub const PROTOCOL_MIN: u16 = 1;
/// Newest protocol version that this build speaks.
pub const PROTOCOL_MAX: u16 = 1;
/// Feature: the coordinator takes facts as [`Up::Packed`].
pub const PACKED: u64 = 1;
/// Feature: telemetry goes up in a stream of its own, and receipts of it come down.
pub const TELEMETRY: u64 = 2;
/// Feature: the coordinator makes backups, so that facts are kept until they are in one
/// ([`Ack::safe`]). One that makes none leaves it out of its welcome.
pub const BACKUPS: u64 = 4;
/// Feature: the agent follows the directive `configure`.
pub const CONFIGURE: u64 = 8;
/// Feature: the agent follows the directive `retry`.
pub const RETRY: u64 = 16;
/// Feature: the agent keeps within shares of a matrix's limits, and follows the directive `limit`.
pub const LIMITS: u64 = 32;
/// Feature: the agent reads workflows of format 2. Others get them in format 1, as far as that can
/// say what they need ([`crate::workflow::Workflow::for_first_release`]).
pub const WORKFLOW_2: u64 = 64;
/// Feature: the agent renews its certificate when it is asked to ([`Down::Renew`]).
pub const RENEW: u64 = 128;
/// Feature: the coordinator takes an inventory in parts ([`Up::InventoryPart`]).
pub const INVENTORY_PARTS: u64 = 256;
/// Feature: the agent says whether its disk has room for more work ([`Up::Room`]).
pub const ROOM: u64 = 512;
/// Features of this build, one bit each; what both have is used.
pub const FEATURES: u64 = PACKED
    | TELEMETRY
    | BACKUPS
    | CONFIGURE
    | RETRY
    | LIMITS
    | WORKFLOW_2
    | RENEW
    | INVENTORY_PARTS
    | ROOM;

/// Agent → coordinator.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Up {
    /// 0: the first message of a session.
    Hello(Box<Hello>),
    /// 1: facts, in order; ends at the end of one of the agent's commits.
    Facts(Batch),
    /// 2: directives up to here are durable and applied.
    Applied(Head),
    /// 3: answer to a ping.
    Pong {
        /// As in the ping.
        nonce: u64,
    },
    /// 4: everything the coordinator asked for after it lost part of its store, in one message; not
    /// where both sides have [`INVENTORY_PARTS`].
    Inventory(Inventory),
    /// 5: evidence that hangs on facts; may be thinned.
    Details(Vec<Detail>),
    /// 6: directives from this number on are wanted (again).
    WantDirectives {
        /// First number wanted.
        from: u64,
    },
    /// 7: like `Facts`, as they lie on the agent's disk; only where both sides have [`PACKED`].
    Packed(PackedBatch),
    /// 8: what the gateway measured of itself; only where both sides have [`TELEMETRY`].
    Telemetry(Report),
    /// 9: the next part of everything the coordinator asked for after it lost part of its store;
    /// only where both sides have [`INVENTORY_PARTS`].
    InventoryPart(InventoryPart),
    /// 10: whether the disk has room for more work, where both sides have [`ROOM`]: at each change,
    /// and once there was none in this life of the process, first of all in each session. A process
    /// that never said anything has some.
    Room {
        /// It has.
        enough: bool,
    },
}

impl Up {
    /// The heads before and after the facts in it, if it carries any.
    #[must_use]
    pub fn facts(&self) -> Option<(Head, Head)> {
        match self {
            Self::Facts(batch) => Some((batch.after, batch.head())),
            Self::Packed(batch) => Some((batch.after, batch.head)),
            _ => None,
        }
    }
}

/// Coordinator → agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Down {
    /// 0: the session is accepted.
    Welcome(Box<Welcome>),
    /// 1: it is not.
    Refuse(Refuse),
    /// 2: directives, in order.
    Directives(Batch),
    /// 3: facts up to here are durable.
    Ack(Ack),
    /// 4: to be answered at once, within `limits::PROBE_MS`.
    Ping {
        /// To be repeated in the answer.
        nonce: u64,
    },
    /// 5: facts from this number on are wanted (again).
    WantFacts {
        /// First number wanted.
        from: u64,
    },
    /// 6: a file that somebody may be waiting for has arrived.
    FileReady {
        /// Its content.
        hash: Hash,
    },
    /// 7: proof that the coordinator wrote its log for this node up to here; comes before the batch
    /// that it covers.
    DirectiveSeal(DirectiveSeal),
    /// 8: all telemetry that is durable here; only where both sides have [`TELEMETRY`].
    Telemetry(Receipt),
    /// 9: the certificate is to be renewed although it is good for long, since the fleet changes
    /// its authority; only where both sides have [`RENEW`].
    Renew {
        /// At a moment of this time that the agent draws, so that not all ask at once.
        within: Span,
    },
}

/// A head of a node's directive log under the coordinator's seal. The agent keeps the newest one
/// that it has applied and shows it at the next hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DirectiveSeal {
    /// The life of the store that wrote it.
    pub generation: Generation,
    /// The last directive covered.
    pub head: Head,
    /// HMAC-SHA-256 over (`directives`, node, incarnation, generation, number, hash) by the seal
    /// key.
    pub seal: [u8; 32],
}

/// Who calls, and where its two logs stand.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest protocol version spoken.
    pub protocol_min: u16,
    /// Newest protocol version spoken.
    pub protocol_max: u16,
    /// Features offered.
    pub features: u64,
    /// Version of the program, for people.
    pub version: String,
    /// The caller; must be the one in its certificate.
    pub node: NodeId,
    /// Name of the node, as in its certificate.
    pub name: String,
    /// The life of its data directory.
    pub incarnation: Incarnation,
    /// The kernel's boot.
    pub boot: BootId,
    /// Grows with each dial.
    pub session: u64,
    /// The secret of the session before, if it is still in memory.
    pub proof: Option<[u8; 16]>,
    /// Number of the first fact that is still there.
    pub facts_first: u64,
    /// The last fact.
    pub facts: Head,
    /// The last directive applied.
    pub directives: Head,
    /// The newest acknowledgement of facts, with its seal.
    pub ack: Option<Ack>,
    /// The newest generation heard of.
    pub generation: Generation,
    /// Its clocks.
    pub now: Now,
    /// Whether its wall clock was set since it booted.
    pub clock_trusted: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it offers in all.
    pub capacity: Resources,
    /// Facts about others' replacement: it is a new incarnation that a refusal told it to take.
    pub succeeds: Option<Incarnation>,
    /// The newest sealed head of the directive log that it has applied.
    pub directive_seal: Option<DirectiveSeal>,
}

/// The answer to a hello that is accepted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// Protocol version from now on.
    pub protocol: u16,
    /// Features that both have.
    pub features: u64,
    /// As in the hello.
    pub session: u64,
    /// Life of the coordinator's store.
    pub generation: Generation,
    /// What the agent proves itself with at the next dial.
    pub secret: [u8; 16],
    /// The last fact that is durable at the coordinator; sending goes on behind it.
    pub facts: Acknowledged,
    /// The last directive of the coordinator's log for this node.
    pub directives: Head,
    /// The coordinator lost part of its store and asks for everything.
    pub want_inventory: bool,
    /// Wall clock of the coordinator.
    pub now: Unix,
}

/// The answer to a hello that is not accepted. Local work goes on in every case.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refuse {
    /// Why.
    pub reason: Refusal,
    /// Why, for people.
    pub text: String,
    /// Not to be tried again sooner; absent for the usual backoff.
    pub retry_after: Option<Span>,
}

/// Why a hello is not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// No common protocol version.
    Protocol,
    /// The identity is in use elsewhere; a person decides.
    Quarantined,
    /// The node is not known or was forgotten.
    NotEnrolled,
    /// The fact log went back or forked: take a new incarnation, keep the old journal.
    NewIncarnation,
    /// A newer session of this incarnation is known.
    OldSession,
    /// Too much is going on.
    Busy,
    /// The hello contradicts its certificate or itself.
    Malformed,
}

/// Facts up to `head` are durable. What the agent keeps and shows at the next hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ack {
    /// The life of the store that holds them.
    pub generation: Generation,
    /// The last one.
    pub head: Head,
    /// HMAC-SHA-256 over (`facts`, node, incarnation, generation, number, hash) by the
    /// coordinator's seal key.
    pub seal: [u8; 32],
    /// The last one that is in a finished backup, too.
    pub safe: u64,
}

/// What a node has, for a coordinator that lost part of its store.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Inventory {
    /// Its slices.
    pub slices: Vec<SliceState>,
    /// `codec::pack` of the workflows of those slices, once each.
    pub workflows: Vec<Vec<u8>>,
    /// Directives that it applied after the last one that the coordinator still knows.
    pub directives: Vec<Directive>,
}

/// Evidence of decisions; hangs on the number of a fact.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Detail {
    /// The last fact before it.
    pub fact: u64,
    /// The slice and task it is about.
    pub task: Option<(crate::ids::SliceRef, crate::ids::TaskIdx)>,
    /// The decision.
    pub decision: Decision,
}

/// Facts of a batch need no more than this to be recorded: node, incarnation, and the batch itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct LogId {
    /// The writer.
    pub node: NodeId,
    /// The life of its data directory.
    pub incarnation: Incarnation,
}
