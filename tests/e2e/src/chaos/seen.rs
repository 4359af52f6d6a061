//! What is to be judged: marks of the tasks, and what the programs say.

use super::marks::{Fence, Mark};
use std::collections::BTreeMap;

/// An attempt as the coordinator shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Which one.
    pub fence: Fence,
    /// How it ended.
    pub outcome: String,
    /// Why.
    pub reason: String,
    /// Whether it was applied.
    pub counts: bool,
}

/// A task as the coordinator shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSeen {
    /// Its state.
    pub state: String,
    /// Its gateway.
    pub node: Option<usize>,
    /// Attempts that were used up.
    pub attempts: u64,
    /// Hash and size of its output.
    pub output: Option<(String, usize)>,
    /// Its attempts.
    pub history: Vec<Attempt>,
}

/// A run as the coordinator shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSeen {
    /// Its id.
    pub id: String,
    /// Its state.
    pub state: String,
    /// Facts that were recorded and not applied, as they are shown.
    pub conflicts: Vec<String>,
    /// Its tasks by id.
    pub tasks: BTreeMap<String, TaskSeen>,
}

/// A task as its gateway shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalTask {
    /// The run.
    pub run: String,
    /// Its id.
    pub task: String,
    /// Its state.
    pub state: String,
    /// Attempts that were used up.
    pub attempts: u64,
    /// Its newest attempt; number 0 if there is none.
    pub fence: Fence,
    /// Hash and size of its output.
    pub output: Option<(String, usize)>,
}

/// What a gateway says at rest, and what is found there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GatewaySeen {
    /// Its tasks.
    pub tasks: Vec<LocalTask>,
    /// What is not brought to the coordinator, in words.
    pub undelivered: Vec<String>,
    /// Processes of tasks and directories of attempts.
    pub left: Vec<String>,
}

/// Everything that is judged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observation {
    /// What was not at rest when the time for it was over.
    pub unrest: Option<String>,
    /// What tasks wrote, in its order.
    pub marks: Vec<Mark>,
    /// Lines of the marks that cannot be read.
    pub unreadable: Vec<String>,
    /// The run of each workflow, in the order of the plan.
    pub runs: Vec<RunSeen>,
    /// Runs and tasks that wait for a person.
    pub waits: Vec<(String, String)>,
    /// The gateways.
    pub gateways: Vec<GatewaySeen>,
    /// Content at the coordinator by hash; nothing where it is not there.
    pub files: BTreeMap<String, Option<Vec<u8>>>,
    /// Processes that ended by themselves, and not for want of room.
    pub ended: Vec<String>,
    /// The runs after the coordinator was killed and started once more, if it was.
    pub again: Option<Vec<RunSeen>>,
    /// What is wrong with the stores after all processes ended.
    pub unsound: Vec<String>,
}
