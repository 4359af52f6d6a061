//! A workflow as its runs hold it: with its edges, once in memory for all runs that are made of it.

use shared::codec::{self, DecodeError};
use shared::ids::{Hash, TaskIdx};
use shared::workflow::{Source, Workflow};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

/// Workflows that are remembered at once.
const REMEMBERED: usize = 64;

/// Tasks, for each task.
pub type Edges = Vec<Vec<TaskIdx>>;

/// A workflow with its edges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The workflow.
    pub workflow: Arc<Workflow>,
    /// For each task: those whose ends it waits for or whose outputs it reads.
    pub deps: Arc<Edges>,
    /// For each task: those that depend on it.
    pub dependents: Arc<Edges>,
}

impl Definition {
    /// A workflow and its edges.
    #[must_use]
    pub fn new(workflow: Workflow) -> Self {
        let n = workflow.tasks.len();
        let mut deps = Vec::with_capacity(n);
        let mut dependents = vec![Vec::new(); n];
        for (at, task) in workflow.tasks.iter().enumerate() {
            let mut list = task.needs.clone();
            list.extend(task.inputs.iter().filter_map(|input| match input.source {
                Source::Task { task, .. } => Some(task),
                _ => None,
            }));
            list.retain(|d| (d.0 as usize) < n);
            list.sort_unstable();
            list.dedup();
            for dep in &list {
                dependents[dep.0 as usize].push(TaskIdx(at as u32));
            }
            deps.push(list);
        }
        Self {
            workflow: Arc::new(workflow),
            deps: Arc::new(deps),
            dependents: Arc::new(dependents),
        }
    }
}

/// Packed workflows that runs in memory are made of: a gateway begins many runs of one workflow,
/// and unpacking it takes as long as folding thousands of facts. Keeps nothing alive by itself.
#[derive(Debug, Default)]
pub struct Definitions(RefCell<VecDeque<Known>>);

#[derive(Debug)]
struct Known {
    /// Hash of the packed bytes.
    packed: Hash,
    /// Hash of the content.
    hash: Hash,
    /// Whether it can be worked on.
    sound: bool,
    workflow: Weak<Workflow>,
    deps: Weak<Edges>,
    dependents: Weak<Edges>,
}

impl Known {
    fn definition(&self) -> Option<Definition> {
        Some(Definition {
            workflow: self.workflow.upgrade()?,
            deps: self.deps.upgrade()?,
            dependents: self.dependents.upgrade()?,
        })
    }
}

impl Definitions {
    /// The workflow in `packed`, its content hash, and whether it can be worked on
    /// (`audit::workflow`).
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn unpack(&self, packed: &[u8]) -> Result<(Definition, Hash, bool), DecodeError> {
        let key = Hash::of(packed);
        let mut all = self.0.borrow_mut();
        if let Some(known) = all.iter().find(|known| known.packed == key)
            && let Some(definition) = known.definition()
        {
            return Ok((definition, known.hash, known.sound));
        }
        let (workflow, hash) = codec::unpack(packed)?;
        let sound = crate::audit::workflow(&workflow).is_ok();
        let definition = Definition::new(workflow);
        all.retain(|known| known.workflow.strong_count() > 0);
        if all.len() >= REMEMBERED {
            all.pop_front();
        }
        all.push_back(Known {
            packed: key,
            hash,
            sound,
            workflow: Arc::downgrade(&definition.workflow),
            deps: Arc::downgrade(&definition.deps),
            dependents: Arc::downgrade(&definition.dependents),
        });
        Ok((definition, hash, sound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn runs_of_one_workflow_share_it_and_none_outlives_them() {
        let known = Definitions::default();
        let packed = |name: &str| {
            codec::pack(&Workflow {
                format: shared::workflow::FORMAT,
                name: name.to_owned(),
                description: String::new(),
                labels: BTreeMap::new(),
                params: BTreeMap::new(),
                tasks: Vec::new(),
                matrices: Vec::new(),
                schedule: None,
            })
        };
        let (bytes, hash) = packed("a");
        let (first, found, sound) = known.unpack(&bytes).unwrap();
        assert_eq!((found, sound), (hash, false), "it has no tasks");
        let (second, ..) = known.unpack(&bytes).unwrap();
        assert!(Arc::ptr_eq(&first.workflow, &second.workflow));
        assert_eq!(known.unpack(&packed("b").0).unwrap().0.workflow.name, "b");
        drop((first, second));
        known.unpack(&packed("c").0).unwrap();
        assert_eq!(known.0.borrow().len(), 1);
        assert!(known.unpack(b"nothing").is_err());
    }
}
