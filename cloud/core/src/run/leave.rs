//! Leaving a node that is drained: which slices may go, and what keeps the others.

use super::fit::fits;
use super::place::Candidate;
use super::{Run, Stage};
use shared::ids::{NodeId, TaskIdx};
use shared::state::TaskState;
use shared::workflow::SideEffects;

impl Run {
    /// The slices on a node that may go elsewhere, and those that may not with what keeps them.
    /// Those that were asked for already are neither.
    #[must_use]
    pub fn leaving(
        &self,
        node: NodeId,
        name: &str,
        nodes: &[Candidate],
    ) -> (Vec<u32>, Vec<(u32, String)>) {
        let (mut goes, mut stays) = (Vec::new(), Vec::new());
        let there = (0u32..).zip(&self.head.slices);
        let there =
            there.filter(|(_, s)| s.node == node && s.live() && s.stage != Stage::Releasing);
        for (number, _) in there {
            match self.keeps_there(number, name, nodes) {
                Some(why) => stays.push((number, why)),
                None => goes.push(number),
            }
        }
        (goes, stays)
    }

    /// What keeps a slice on its node.
    fn keeps_there(&self, slice: u32, name: &str, nodes: &[Candidate]) -> Option<String> {
        let body = self.body.as_ref()?;
        if self.head.held {
            return Some("its run is held after a restore".to_owned());
        }
        if self.head.state.is_final() {
            // it may have been let run again behind a backup, and is not held
            return Some("its run is over, and the node is still to say so".to_owned());
        }
        if self.head.origin.is_some() {
            return Some("its run was submitted at this node".to_owned());
        }
        if self.head.cancel.is_some() {
            return Some("its run is being cancelled".to_owned());
        }
        let mut last: Option<(TaskIdx, Option<String>)> = None;
        for task in self.open_tasks(slice) {
            let spec = &body.workflow.tasks[task.0 as usize];
            let row = &body.tasks[task.0 as usize];
            let began = matches!(row.state, TaskState::Running | TaskState::Checkpointing);
            if spec.placement.node.as_deref() == Some(name) {
                return Some(format!("task {} names this node", spec.id));
            }
            if began && spec.side_effects == SideEffects::AtMostOnce {
                return Some(format!("task {} runs and may not run twice", spec.id));
            }
            // most tasks of a slice are alike
            let alike = last.as_ref().is_some_and(|(before, _)| {
                let before = &body.workflow.tasks[before.0 as usize];
                (
                    &before.placement,
                    &before.resources,
                    before.disconnect.lost_after,
                ) == (&spec.placement, &spec.resources, spec.disconnect.lost_after)
            });
            if !alike {
                let why = fits(spec, nodes).err();
                last = Some((task, why.map(|why| format!("task {}: {why}", spec.id))));
            }
            if let Some((_, Some(why))) = &last {
                return Some(why.clone());
            }
        }
        None
    }
}
