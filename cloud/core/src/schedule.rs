//! The schedule aggregate: what it is, who fires it, what was asked of its owner, and what became
//! of its slots. A schedule that was made at a gateway is that gateway's; here it is only shown.

use crate::effects::Effects;
use crate::inbox::{Message, Post};
use crate::store::AggregateId;
use serde::{Deserialize, Serialize};
use shared::explain::Reason;
use shared::fact::Body;
use shared::ids::{Epoch, Generation, Hash, Incarnation, NodeId};
use shared::schedule::due::{Firing, Progress};
use shared::schedule::{Calendar, Order};
use shared::time::Unix;
use shared::workflow::{Source, Workflow};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

/// Revisions whose workflows are kept, for firings that come late.
const REVISIONS: usize = 8;
/// Firings of former owners that are remembered.
const FORMER: usize = 64;

/// Who fires it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Owner {
    /// The coordinator.
    #[default]
    Coordinator,
    /// A node, in this life of its data directory.
    Node(NodeId, Incarnation),
}

/// A revision with its calendar.
#[derive(Clone, Debug)]
pub struct Template {
    /// The workflow, with the schedule in it.
    pub workflow: Arc<Workflow>,
    /// Its slots; none if its rule cannot be read (it came from a gateway).
    pub calendar: Option<Calendar>,
}

/// An order to run slots that the owner refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Declined {
    /// When.
    pub at: Unix,
    /// What.
    pub what: Order,
    /// Why.
    pub why: (Reason, String),
}

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            Order::Backfill(from, to) => write!(f, "to run the slots from {from} to {to}")?,
            _ => f.write_str("to run it once, at once")?,
        }
        let (reason, text) = &self.why;
        write!(f, " ({reason}): {text}")
    }
}

/// State of a schedule aggregate.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Schedule {
    /// Name of its workflow; empty if it is known only from facts that name it.
    pub name: String,
    /// The newest revision.
    pub revision: u32,
    /// Who made it, and when.
    pub by: (String, Unix),
    /// Who fires it.
    pub owner: Owner,
    /// The gateway where it was made.
    pub origin: Option<NodeId>,
    /// The node that a person named.
    pub wanted: Option<String>,
    /// The owner's epoch.
    pub epoch: Epoch,
    /// Counter of epochs.
    pub epochs: u32,
    /// Number of the last order to an owner, and of the last that was confirmed.
    pub orders: (u64, u64),
    /// Why the owner refused an order.
    pub refused: Option<(Reason, String)>,
    /// Who fires it as soon as the present owner has confirmed that it does no more.
    pub next: Option<Owner>,
    /// A person took it away: when.
    pub dropped: Option<Unix>,
    /// Who paused it here.
    pub paused: Option<String>,
    /// Who paused it at its gateway.
    pub paused_at: Option<String>,
    /// What became of its slots.
    pub progress: Progress,
    /// Slots that a former owner fired, newest last.
    pub former: VecDeque<(NodeId, Firing)>,
    /// Runs that persons want at once.
    pub triggers: VecDeque<Unix>,
    /// Messages.
    pub post: Post,
    /// Since when it stands still for a person: paused, or refused by its owner.
    pub stands_since: Option<Unix>,
    /// Orders to run slots, by number, that the owner has not answered.
    pub runs: BTreeMap<u64, Order>,
    /// The last of them that the owner refused, which says nothing about the schedule.
    pub declined: Option<Declined>,
    /// Workflows by revision; stored in rows.
    #[serde(skip)]
    pub templates: BTreeMap<u32, Template>,
}

/// The name of the row of a revision.
#[must_use]
pub fn row(revision: u32) -> String {
    format!("w{revision:08x}")
}

impl Schedule {
    /// The newest revision.
    #[must_use]
    pub fn template(&self) -> Option<&Template> {
        self.templates.get(&self.revision)
    }

    /// Takes a revision in; the oldest goes.
    pub fn learn(&mut self, revision: u32, packed: Vec<u8>, workflow: Workflow, fx: &mut Effects) {
        self.name.clone_from(&workflow.name);
        self.revision = revision;
        self.remember(revision, workflow);
        fx.rows.push((row(revision), Some(packed)));
        while self.templates.len() > REVISIONS {
            if let Some((old, _)) = self.templates.pop_first() {
                fx.rows.push((row(old), None));
            }
        }
    }

    /// Puts a stored revision into memory.
    pub fn remember(&mut self, revision: u32, workflow: Workflow) {
        let schedule = workflow.schedule.as_ref();
        let calendar = schedule.and_then(|schedule| Calendar::new(schedule).ok());
        let workflow = Arc::new(workflow);
        self.templates
            .insert(revision, Template { workflow, calendar });
    }

    /// Takes the files that it names out of those that shall go.
    pub fn spare(&self, doomed: &mut BTreeSet<Hash>) {
        let tasks = self.templates.values().flat_map(|t| &t.workflow.tasks);
        for input in tasks.flat_map(|task| &task.inputs) {
            if let Source::Sent { hash, .. } = input.source {
                doomed.remove(&hash);
            }
        }
    }

    /// A new epoch for a new owner. What a person paused at the gateway of the one before stays
    /// paused; from now on the coordinator's mark says so, and is taken away there.
    pub fn give(&mut self, owner: Owner, generation: Generation) {
        if let Some(who) = self.paused_at.take() {
            self.paused.get_or_insert(who);
        }
        self.epochs += 1;
        self.epoch = Epoch::new(generation, self.epochs);
        self.owner = owner;
        self.refused = None;
        self.runs.clear();
        self.declined = None;
        if !self.paused() {
            self.stands_since = None;
        }
    }

    fn paused(&self) -> bool {
        self.paused.is_some() || self.paused_at.is_some()
    }

    /// Remembers since when it stands still for a person; to be called when that may have changed.
    pub fn note_stand(&mut self, now: Unix) {
        let stands = self.paused() || self.refused.is_some();
        self.stands_since = stands.then(|| self.stands_since.unwrap_or(now));
    }

    /// Asks something of the owner, if that is a node.
    pub fn ask(&mut self, what: Order, by: &str, fx: &mut Effects) {
        let Owner::Node(node, _) = self.owner else {
            return;
        };
        self.orders.0 += 1;
        if matches!(what, Order::Trigger(_) | Order::Backfill(..)) {
            self.runs.insert(self.orders.0, what.clone());
        }
        let message = Message::Schedule {
            epoch: self.epoch,
            order: self.orders.0,
            what,
            by: by.to_owned(),
        };
        fx.send(&mut self.post, AggregateId::Node(node), message);
    }

    /// The order that makes the newest revision.
    #[must_use]
    pub fn set(&self, after: Unix) -> Option<Order> {
        let workflow = &self.template()?.workflow;
        Some(Order::Set {
            revision: self.revision,
            workflow: shared::codec::pack(workflow).0,
            after,
            paused: self.paused.is_some(),
        })
    }

    /// The order for what is left of a backfill.
    #[must_use]
    pub fn fill(&self) -> Option<Order> {
        let calendar = self.template()?.calendar.as_ref()?;
        let first = self.progress.wanted(calendar)?;
        Some(Order::Backfill(first, self.progress.backfill?.1))
    }

    /// Whether its owner has confirmed all that was asked.
    #[must_use]
    pub fn confirmed(&self) -> bool {
        self.owner == Owner::Coordinator || self.orders.0 == self.orders.1
    }

    /// Folds what a node told. Whether the owner has given it up.
    pub fn heard(&mut self, node: NodeId, at: Unix, body: Body, fx: &mut Effects) -> bool {
        let left = self.fold(node, at, body, fx);
        self.note_stand(at);
        left
    }

    /// Whether this node fires it: what any other says of it changes nothing.
    fn is_of(&self, node: NodeId) -> bool {
        let owns = matches!(self.owner, Owner::Node(owner, _) if owner == node);
        owns || self.origin == Some(node)
    }

    /// Whether a firing at this epoch may be this node's: at the present one it is the owner's
    /// alone. Who had an older one, or one that this store forgot, is not known here.
    pub(crate) fn may_fire(&self, node: NodeId, epoch: Epoch) -> bool {
        epoch != self.epoch || self.is_of(node)
    }

    fn fold(&mut self, node: NodeId, at: Unix, body: Body, fx: &mut Effects) -> bool {
        let own = self.is_of(node);
        match body {
            Body::Fired {
                epoch,
                slot,
                slice,
                cause,
                trusted,
                ..
            } => {
                let run = slice.run;
                let firing = Firing {
                    slot,
                    run,
                    at,
                    cause,
                    trusted,
                };
                if own && epoch == self.epoch {
                    self.progress.fire(firing);
                } else {
                    self.former.push_back((node, firing));
                    if self.former.len() > FORMER {
                        self.former.pop_front();
                    }
                }
            }
            Body::SlotsSkipped { epoch, skipped, .. } if own && epoch == self.epoch => {
                self.progress.skip(skipped);
            }
            Body::ScheduleDone {
                epoch,
                order,
                refused,
                ..
            } if own && epoch == self.epoch => {
                self.orders.1 = order.max(self.orders.1);
                let asked = self.runs.remove(&order);
                self.runs.retain(|number, _| *number > order);
                match (asked, refused) {
                    (Some(what), Some(why)) => self.declined = Some(Declined { at, what, why }),
                    (Some(_), None) => (self.declined, self.refused) = (None, None),
                    (None, refused) => self.refused = refused,
                }
                return self.confirmed() && (self.next.is_some() || self.dropped.is_some());
            }
            Body::ScheduleAsked { what, by, .. } => self.asked_there(node, at, what, by, fx),
            _ => {}
        }
        false
    }

    /// A person at a gateway asked. It was of the schedule as that gateway knows it: a former owner
    /// fires what it was asked for, and what it fired is shown as such.
    fn asked_there(&mut self, node: NodeId, at: Unix, what: Order, by: String, fx: &mut Effects) {
        match what {
            Order::Set {
                revision,
                workflow,
                after,
                ..
            } => {
                let Ok((compiled, _)) = shared::codec::unpack(&workflow) else {
                    return;
                };
                if crate::audit::workflow(&compiled).is_err() {
                    return;
                }
                if self.revision == 0 {
                    self.origin = Some(node);
                }
                if self.origin == Some(node) {
                    self.by = (by, at);
                    self.progress.cursor = after.max(self.progress.cursor);
                    self.learn(revision, workflow, compiled, fx);
                }
            }
            _ if !self.is_of(node) => {}
            Order::Pause(on) => self.paused_at = on.then_some(by),
            Order::Backfill(from, to) => {
                self.progress.backfill = Some((Unix(from.0.saturating_sub(1)), to));
            }
            Order::Drop if self.origin == Some(node) => self.dropped = Some(at),
            Order::Trigger(_) | Order::Drop => {}
        }
    }
}
