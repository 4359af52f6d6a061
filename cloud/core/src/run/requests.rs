//! Cancel and pause: requests of a person that count only when the owners' facts confirm them.

use super::{Asked, NONE, Run, Slice};
use crate::effects::Effects;
use crate::event::Refused;
use crate::inbox::{Message, Recall};
use shared::explain::Reason;
use shared::ids::{NodeId, TaskIdx};
use shared::state::TaskState;
use shared::time::Unix;
use shared::wire::LogId;
use std::collections::{BTreeMap, BTreeSet};

impl Run {
    /// A person asks for the run's end.
    ///
    /// # Errors
    /// [`Refused::State`] for a run that is over or not known.
    pub fn cancel(&mut self, asked: Asked, fx: &mut Effects) -> Result<(), Refused> {
        self.can_ask("cancelled")?;
        let at = asked.at;
        self.drop_retry(at);
        if self.head.cancel.is_some() {
            self.refresh(at);
            return Ok(());
        }
        self.head.cancel = Some(asked);
        if !self.head.held {
            self.cancel_unplaced(at, fx);
            for node in self.owners() {
                self.repeat_requests(node, fx);
            }
        }
        self.refresh(at);
        Ok(())
    }

    /// A person asks for the run to stand still, or to go on.
    ///
    /// # Errors
    /// [`Refused::State`] for a run that is over or not known.
    pub fn pause(&mut self, on: bool, asked: Asked, fx: &mut Effects) -> Result<(), Refused> {
        self.can_ask(if on { "paused" } else { "resumed" })?;
        let (at, by) = (asked.at, asked.by.clone());
        if on == self.head.pause.is_some() {
            return Ok(());
        }
        self.head.pause_asked = at;
        self.head.pause = on.then_some(asked);
        for node in self.owners() {
            let message = Message::Pause {
                run: self.id,
                on,
                by: by.clone(),
            };
            self.send(node, message, fx);
        }
        self.refresh(at);
        Ok(())
    }

    /// A node tells what a person had asked, after the store went back. The latest wish counts.
    pub fn recall(&mut self, asked: Recall, by: Asked, fx: &mut Effects) {
        if self.head.state.is_final() || self.head.gone.is_some() {
            return;
        }
        let at = by.at;
        match asked {
            // one that the run had ended by before it was let run again
            Recall::Cancel if self.head.reopened.is_some_and(|ended| at <= ended) => return,
            Recall::Cancel if self.head.cancel.is_none() => {
                self.head.cancel = Some(by);
                if !self.head.held {
                    self.cancel_unplaced(at, fx);
                }
            }
            Recall::Pause | Recall::Resume if at > self.head.pause_asked => {
                self.head.pause_asked = at;
                self.head.pause = (asked == Recall::Pause).then_some(by);
            }
            _ => return,
        }
        if !self.head.held {
            self.repeat_to_owners(fx);
        }
        self.refresh(at);
    }

    /// Tells every owner what the run asks, also that it does not stand still.
    pub(super) fn repeat_to_owners(&mut self, fx: &mut Effects) {
        for node in self.owners() {
            self.repeat_requests(node, fx);
            if self.head.pause.is_none() {
                let (run, by) = (self.id, "the coordinator".to_owned());
                let on = false;
                self.send(node, Message::Pause { run, on, by }, fx);
            }
        }
    }

    fn can_ask(&self, what: &str) -> Result<(), Refused> {
        let state = self.head.state;
        if state.is_final() {
            let text = format!("run {} is {state} already; it cannot be {what}", self.id);
            return Err(Refused::State(text));
        }
        if !self.head.known {
            let text = format!(
                "run {} is known only from facts that name it; it cannot be {what} until a node tells more",
                self.id
            );
            return Err(Refused::State(text));
        }
        Ok(())
    }

    fn owners(&self) -> BTreeSet<NodeId> {
        let live = self.head.slices.iter().filter(|s| s.live());
        live.map(|s| s.node).collect()
    }

    /// What is on no node ends at once.
    pub(super) fn cancel_unplaced(&mut self, at: Unix, fx: &mut Effects) {
        let rows = self.body.iter().flat_map(|b| &b.tasks);
        let tasks: Vec<TaskIdx> = (0u32..)
            .zip(rows)
            .filter(|(_, row)| row.slice == NONE && !row.state.is_final())
            .map(|(t, _)| TaskIdx(t))
            .collect();
        for task in &tasks {
            let why = Some(Reason::CancelledByPerson);
            self.set(*task, TaskState::Cancelled, why, at);
        }
        self.tell(&tasks, fx);
    }

    /// Sends a node the requests that stand.
    pub(super) fn repeat_requests(&mut self, node: NodeId, fx: &mut Effects) {
        let run = self.id;
        if let Some(Asked { by, why, .. }) = self.head.cancel.clone() {
            self.send(node, Message::Cancel { run, by, why }, fx);
        }
        if let Some(Asked { by, .. }) = self.head.pause.clone() {
            let on = true;
            self.send(node, Message::Pause { run, on, by }, fx);
        }
    }

    /// After a hole in the directives: what the run asks of a node, and that it does not stand
    /// still if it does not.
    pub(super) fn repeat_marks(&mut self, log: LogId, fx: &mut Effects) {
        let there = |s: &Slice| s.live() && s.is_of(log);
        if !self.head.slices.iter().any(there) {
            return;
        }
        self.repeat_requests(log.node, fx);
        // a restored store may have forgotten a pause that other nodes know of
        if self.head.pause.is_none() && !self.head.held {
            let (run, by) = (self.id, "the coordinator".to_owned());
            let on = false;
            self.send(log.node, Message::Pause { run, on, by }, fx);
        }
    }

    /// The requests that are not confirmed everywhere, for people. `silent` says for a node how
    /// long it was not heard, if that is long.
    #[must_use]
    pub fn requests(&self, silent: &dyn Fn(NodeId) -> Option<String>) -> Vec<String> {
        let mut out: Vec<String> = self.retry_text(silent).into_iter().collect();
        if self.head.forgetting.is_some() {
            let left = self.head.unconfirmed.iter();
            let silent: Vec<String> = left.filter_map(|node| silent(*node)).collect();
            let n = self.head.unconfirmed.len();
            let mut text = format!("forget requested, {n} nodes have not confirmed");
            for silence in silent {
                text.push_str(", ");
                text.push_str(&silence);
            }
            out.push(text);
        }
        if self.head.state.is_final() {
            return out;
        }
        if self.head.cancel.is_some() {
            out.push(self.progress("cancel", &|s| s.cancelled || !s.live(), silent));
        }
        if self.head.pause.is_some() {
            out.push(self.progress("pause", &|s| s.paused || !s.live(), silent));
        } else if self.head.slices.iter().any(|s| s.live() && s.paused) {
            out.push(self.progress("resume", &|s| !s.paused || !s.live(), silent));
        }
        out
    }

    fn progress(
        &self,
        what: &str,
        confirmed: &dyn Fn(&Slice) -> bool,
        silent: &dyn Fn(NodeId) -> Option<String>,
    ) -> String {
        let mut nodes: BTreeMap<NodeId, bool> = BTreeMap::new();
        for slice in self.head.slices.iter().filter(|s| s.counts()) {
            *nodes.entry(slice.node).or_insert(true) &= confirmed(slice);
        }
        let done = nodes.values().filter(|c| **c).count();
        let all = nodes.len();
        let mut text = format!("{what} requested, {done} of {all} nodes confirmed");
        for (node, _) in nodes.iter().filter(|(_, c)| !**c) {
            if let Some(silence) = silent(*node) {
                text.push_str(", ");
                text.push_str(&silence);
            }
        }
        text
    }
}
