//! Forgetting: a run that is over leaves its nodes first, then this store; a tombstone answers what
//! comes late.

use super::{Asked, At, Run, Stage};
use crate::effects::Effects;
use crate::event::Refused;
use crate::inbox::Message;
use shared::explain::Reason;
use shared::fact::{Fact, SliceState};
use shared::ids::{Hash, NodeId};
use shared::time::Unix;
use shared::wire::LogId;
use shared::workflow::Source;
use std::collections::BTreeSet;

impl Run {
    /// Whether it may be forgotten when its time has come, and nobody asked yet.
    #[must_use]
    pub fn may_age(&self) -> bool {
        self.head.state.is_final() && self.head.forgetting.is_none() && self.head.gone.is_none()
    }

    /// A person, or its age, asks for it to be forgotten. True if no node has to be asked.
    ///
    /// # Errors
    /// [`Refused::State`] for a run that is not over.
    pub fn forget(&mut self, asked: Asked, fx: &mut Effects) -> Result<bool, Refused> {
        let state = self.head.state;
        if self.head.known && !state.is_final() {
            let text = format!(
                "run {} is {state}; only a run that is over can be forgotten, cancel it first",
                self.id
            );
            return Err(Refused::State(text));
        }
        if self.head.forgetting.is_some() {
            return Ok(false);
        }
        self.head.forgetting = Some(asked);
        self.head.unconfirmed = self.holders();
        let run = self.id;
        for node in self.head.unconfirmed.clone() {
            self.send(node, Message::Forget { run }, fx);
        }
        Ok(self.head.unconfirmed.is_empty())
    }

    /// All nodes that ever held something of it.
    fn holders(&self) -> BTreeSet<NodeId> {
        let slices = self.head.slices.iter().map(|s| s.node);
        let logs = self.head.folded.keys().map(|log| log.node);
        let kept = self.head.kept.iter().map(|(log, ..)| log.node);
        let mut nodes: BTreeSet<NodeId> = slices.chain(logs).chain(kept).collect();
        nodes.remove(&NodeId::default());
        nodes
    }

    /// An inventory shows that its node has something of this run, too, which a store that went
    /// back did not know when it was asked to forget the run: so the node is asked as well. Where
    /// a task is open there, the run is not over, and stays.
    pub(super) fn shown_by(&mut self, node: NodeId, slices: &[SliceState], fx: &mut Effects) {
        let settled = self.head.forgetting.is_none() || self.head.unconfirmed.contains(&node);
        if settled || slices.is_empty() {
            return;
        }
        let mut tasks = slices.iter().flat_map(|state| &state.tasks);
        if tasks.any(|task| !task.state.is_final()) {
            self.head.forgetting = None;
            self.head.unconfirmed.clear();
            return;
        }
        self.head.unconfirmed.insert(node);
        let run = self.id;
        self.send(node, Message::Forget { run }, fx);
    }

    /// A node has forgotten it, or is gone. True if it was the last one.
    pub fn forgotten_by(&mut self, node: NodeId) -> bool {
        let waited = self.head.unconfirmed.remove(&node);
        waited && self.head.unconfirmed.is_empty()
    }

    /// Contents that it names.
    #[must_use]
    pub fn contents(&self) -> BTreeSet<Hash> {
        let Some(body) = &self.body else {
            return BTreeSet::new();
        };
        let made = body.tasks.iter().flat_map(|t| &t.outputs).map(|f| f.hash);
        let inputs = body.workflow.tasks.iter().flat_map(|t| &t.inputs);
        let sent = inputs.filter_map(|input| match input.source {
            Source::Sent { hash, .. } => Some(hash),
            _ => None,
        });
        made.chain(sent).collect()
    }

    /// Leaves a tombstone.
    pub fn bury(&mut self, at: Unix, fx: &mut Effects) {
        let run = self.id;
        for node in self.holders() {
            self.send(node, Message::Unneeded { run }, fx);
        }
        let event = self.head.event.take();
        fx.prune.extend(event.map(crate::store::Prune::Event));
        let mut left = Self::unknown(run, self.head.submitted);
        left.head.gone = Some(at);
        left.head.post = std::mem::take(&mut self.head.post);
        *self = left;
    }

    /// Facts that come when it is forgotten are recorded and change nothing.
    pub fn too_late(
        &mut self,
        log: LogId,
        facts: &mut dyn Iterator<Item = (u64, &Fact)>,
        fx: &mut Effects,
    ) {
        for (number, fact) in facts {
            self.conflict(log.node, number, fact, Reason::ForgottenRun);
        }
        let run = self.id;
        self.send(log.node, Message::Unneeded { run }, fx);
    }

    /// Says again what a node may have missed of its directives.
    pub fn repeat(&mut self, at: At<'_>, log: LogId, fx: &mut Effects) {
        if self.head.held {
            return;
        }
        let ours = |s: &&super::Slice| s.is_of(log);
        let slices = (0u32..).zip(&self.head.slices);
        let slices: Vec<(u32, Stage)> = slices
            .filter(|(_, s)| ours(s))
            .map(|(n, s)| (n, s.stage))
            .collect();
        for (number, stage) in slices {
            match stage {
                Stage::Assigned => {
                    self.send_assign(number, fx);
                    self.repeat_answers(number, fx);
                }
                Stage::Accepted => {
                    self.tell_again(number, fx);
                    self.repeat_answers(number, fx);
                }
                Stage::Releasing | Stage::Lost => {
                    let slice = self.slice_ref(number);
                    self.send(log.node, Message::Release { slice }, fx);
                }
                Stage::Released | Stage::Done => {}
            }
            if matches!(stage, Stage::Assigned | Stage::Accepted | Stage::Done) {
                self.repeat_shares(at, number, fx);
            }
        }
        self.repeat_marks(log, fx);
    }
}
