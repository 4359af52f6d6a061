//! The compiled workflow: what the reader of specifications makes and what cores work on. Names are
//! resolved to positions, parameters are substituted, defaults are filled in; nothing is left to
//! interpret.
//!
//! It travels inside the first `assign` of a run to a node (`codec::pack`), so its encoding is
//! versioned by [`FORMAT`]. An encoding never changes its bytes, since its hash names it: what was
//! compiled to an older format is read through its old types, keeps its `format`, and is written
//! in it again.

use crate::approval::Approval;
use crate::codec::{self, DecodeError};
use crate::config::scheduler::Scheduler;
use crate::ids::{Hash, TaskIdx};
use crate::limits::TASKS;
use crate::schedule::Schedule;
use crate::time::{Span, Unix};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

mod v1;

/// Version of this encoding.
pub const FORMAT: u16 = 2;
/// Tasks that get memory before they are read.
const TASKS_AT_ONCE: usize = 1024;

/// One revision of a workflow with the parameters of one run. Its content hash is the hash of its
/// encoding.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Workflow {
    /// The format that it was compiled to, and is encoded in: [`FORMAT`] or an older one.
    pub format: u16,
    /// The specification's `name`.
    pub name: String,
    /// The specification's `description`.
    pub description: String,
    /// The specification's `labels`.
    pub labels: BTreeMap<String, String>,
    /// Parameters after defaults, as text.
    pub params: BTreeMap<String, String>,
    /// In the order of the specification; positions are `TaskIdx`. Edges never form a cycle.
    #[serde(deserialize_with = "tasks")]
    pub tasks: Vec<Task>,
    /// Those of its tasks that were written as one.
    pub matrices: Vec<Matrix>,
    /// When it runs by itself; a run never has one.
    pub schedule: Option<Schedule>,
}

/// Tasks that were written as one, with the limits that hold for them together.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Matrix {
    /// Key of the task in the specification; its members are called `id[axis=value,…]`.
    pub id: String,
    /// How many of them may run at once, over all nodes.
    pub max_parallel: Option<u32>,
    /// With more failed ones than this, those that have not begun are not begun any more.
    pub max_fails: Option<u32>,
}

/// A list of at most [`TASKS`]: a task is many times as large in memory as its shortest encoding.
fn tasks<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    struct Tasks<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Tasks<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {TASKS} tasks")
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let claimed = seq.size_hint().unwrap_or(0);
            if claimed > TASKS {
                return Err(de::Error::invalid_length(claimed, &self));
            }
            let mut tasks = Vec::with_capacity(claimed.min(TASKS_AT_ONCE));
            while let Some(task) = seq.next_element()? {
                if tasks.len() == TASKS {
                    return Err(de::Error::invalid_length(TASKS + 1, &self));
                }
                tasks.push(task);
            }
            Ok(tasks)
        }
    }

    from.deserialize_seq(Tasks(PhantomData))
}

impl Workflow {
    /// The same with nothing of `retry` left to the node that runs a task: what the expanded form
    /// of a specification says. Of a question it says nothing: nobody runs that.
    #[must_use]
    pub fn decided(mut self) -> Self {
        let run = self
            .tasks
            .iter_mut()
            .filter(|task| task.approval().is_none());
        for task in run {
            task.retry_left = RetryLeft::default();
        }
        self
    }

    /// The same in format 1, for an agent of the first release. What only the coordinator uses
    /// (where tasks may go, which were written as one) and what a node's settings would decide
    /// stays behind.
    ///
    /// # Errors
    /// What format 1 cannot say and the agent would have to do, for people.
    pub fn for_first_release(&self) -> Result<Self, String> {
        if let Some(task) = self.tasks.iter().find(|task| task.approval().is_some()) {
            return Err(format!("cannot ask people, as task '{}' does", task.id));
        }
        let limited = |m: &&Matrix| m.max_parallel.is_some() || m.max_fails.is_some();
        if let Some(matrix) = self.matrices.iter().find(limited) {
            let id = &matrix.id;
            return Err(format!(
                "cannot keep the limits of matrix '{id}' (max_parallel, max_fails)"
            ));
        }
        let mut same = self.clone();
        same.format = 1;
        Ok(same)
    }

    /// The matrix that a task belongs to, with its position.
    #[must_use]
    pub fn matrix_of(&self, task: TaskIdx) -> Option<(u32, &Matrix)> {
        let at = self.tasks.get(task.0 as usize)?.matrix?;
        Some((at, self.matrices.get(at as usize)?))
    }

    /// Its encoding, in its own format; the same bytes as it was read from.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self.format {
            1 => codec::encode(&v1::Workflow::from(self)),
            _ => codec::encode(self),
        }
    }

    /// Reads a workflow of any format up to [`FORMAT`].
    ///
    /// # Errors
    /// [`DecodeError`]; a later format is told apart from malformed bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (found, _) = postcard::take_from_bytes::<u16>(bytes)
            .map_err(|error| DecodeError::Malformed(error.to_string()))?;
        match found {
            1 => codec::decode::<v1::Workflow>(bytes).map(Self::from),
            FORMAT => codec::decode(bytes),
            0 => Err(DecodeError::Malformed("a workflow of format 0".to_owned())),
            _ => Err(DecodeError::Format {
                found,
                known: FORMAT,
            }),
        }
    }
}

/// One task with every default filled in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Task {
    /// Its key in the specification.
    pub id: String,
    /// What it is for.
    pub description: String,
    /// What is executed.
    pub action: Action,
    /// Environment besides what the agent sets.
    pub env: BTreeMap<String, String>,
    /// Directory below the attempt's directory to run in; empty for that directory itself.
    pub workdir: String,
    /// Path, below the attempt's directory, of the file to read standard input from.
    pub stdin: Option<String>,
    /// Tasks it waits for, after transitive reduction, ascending.
    pub needs: Vec<TaskIdx>,
    /// Files laid into the attempt's directory before it starts.
    pub inputs: Vec<Input>,
    /// Files taken from there when it succeeded.
    pub outputs: Vec<Output>,
    /// What it occupies while it runs.
    pub resources: Resources,
    /// Larger goes first.
    pub priority: i32,
    /// When a failed attempt is followed by another.
    pub retry: Retry,
    /// Longest time of one attempt on the boot clock; none if absent.
    pub timeout: Option<Span>,
    /// Wall-clock instant, fixed at submission, after which it is ended and not begun.
    pub deadline: Option<Unix>,
    /// Time between TERM and KILL.
    pub kill_grace: Span,
    /// How many deaths of agent or node it may see while running before it counts as failed.
    pub crash_limit: u32,
    /// Whether it may run again after an unclean stop.
    pub side_effects: SideEffects,
    /// The condition and whether it holds for this run's parameters.
    pub when: Option<When>,
    /// Which ends of `needs` let it start.
    pub trigger_rule: TriggerRule,
    /// Where it may run.
    pub placement: Placement,
    /// What happens while its node cannot be heard.
    pub disconnect: Disconnect,
    /// Tasks with the same number are started as one batch in one slot, one after another.
    pub batch: Option<u32>,
    /// Milliseconds of estimated work on the longest path from here to an end, itself included.
    pub upward_rank: u64,
    /// Position of its matrix in the workflow's `matrices`.
    pub matrix: Option<u32>,
    /// Which fields of `retry` the specification left to whoever runs the task.
    pub retry_left: RetryLeft,
}

impl Task {
    /// The question, if it asks a person instead of running something.
    #[must_use]
    pub fn approval(&self) -> Option<&Approval> {
        match &self.action {
            Action::Approval(approval) => Some(approval),
            Action::Argv(_) | Action::Shell(_) => None,
        }
    }
}

/// What a task executes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Action {
    /// A program and its arguments; at least one item.
    Argv(Vec<String>),
    /// Text for `sh -c`.
    Shell(String),
    /// Nothing: a person is asked, and the answer is its end.
    Approval(Box<Approval>),
}

/// A file that a task reads.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Input {
    /// Name in messages.
    pub name: String,
    /// Where it is laid, below the attempt's directory; relative, without `..`.
    pub path: String,
    /// Where it comes from.
    pub source: Source,
}

/// Where an input comes from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Source {
    /// Output number `output` of `task` in the same workflow.
    Task {
        /// The task that writes it.
        task: TaskIdx,
        /// Position in its `outputs`.
        output: u32,
    },
    /// An absolute path on the node, as far as the node's configuration allows.
    NodeFile(String),
    /// A file sent along with the submission.
    Sent {
        /// Content.
        hash: Hash,
        /// Bytes.
        size: u64,
    },
}

/// A file that a task writes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Output {
    /// Unique within the workflow.
    pub name: String,
    /// Where it is found, below the attempt's directory; relative, without `..`.
    pub path: String,
}

/// What a task occupies.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_milli: u32,
    /// Bytes.
    pub memory: u64,
    /// Bytes in the attempt's directory.
    pub disk: u64,
    /// Thousandths of a GPU.
    pub gpu_milli: u32,
    /// Whatever else the nodes count, in whole units.
    pub custom: BTreeMap<String, u64>,
}

impl Resources {
    /// The first resource of which `self` does not hold `wanted`: its name, wanted, held.
    #[must_use]
    pub fn lacks(&self, wanted: &Self) -> Option<(String, u64, u64)> {
        let fixed = [
            (
                "cpu",
                u64::from(wanted.cpu_milli),
                u64::from(self.cpu_milli),
            ),
            ("memory", wanted.memory, self.memory),
            ("disk", wanted.disk, self.disk),
            (
                "gpu",
                u64::from(wanted.gpu_milli),
                u64::from(self.gpu_milli),
            ),
        ];
        let custom = wanted.custom.iter().map(|(name, want)| {
            (
                name.as_str(),
                *want,
                self.custom.get(name).copied().unwrap_or(0),
            )
        });
        fixed
            .into_iter()
            .chain(custom)
            .find(|(_, want, have)| want > have)
            .map(|(name, want, have)| (name.to_owned(), want, have))
    }

    /// Takes `used` away; must have been found to fit.
    pub fn take(&mut self, used: &Self) {
        self.cpu_milli = self.cpu_milli.saturating_sub(used.cpu_milli);
        self.memory = self.memory.saturating_sub(used.memory);
        self.disk = self.disk.saturating_sub(used.disk);
        self.gpu_milli = self.gpu_milli.saturating_sub(used.gpu_milli);
        for (name, n) in &used.custom {
            if let Some(have) = self.custom.get_mut(name) {
                *have = have.saturating_sub(*n);
            }
        }
    }

    /// Gives `used` back.
    pub fn give(&mut self, used: &Self) {
        self.cpu_milli += used.cpu_milli;
        self.memory += used.memory;
        self.disk += used.disk;
        self.gpu_milli += used.gpu_milli;
        for (name, n) in &used.custom {
            if let Some(have) = self.custom.get_mut(name) {
                *have += n;
            }
        }
    }
}

/// When a failed attempt is followed by another one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Retry {
    /// Executions in total, the first one included; at least 1.
    pub max_attempts: u32,
    /// Pause before the second attempt.
    pub initial_interval: Span,
    /// Growth of the pause for each further attempt, in thousandths (2000 doubles it).
    pub backoff_milli: u32,
    /// Longest pause.
    pub max_interval: Span,
    /// The pause is drawn from ± this many thousandths of itself.
    pub jitter_milli: u32,
    /// Exit codes that are retried; empty for all.
    pub retry_on: Vec<i32>,
    /// Exit codes that are never retried.
    pub no_retry_on: Vec<i32>,
    /// What follows when no attempt is left.
    pub on_exhausted: OnExhausted,
}

/// Fields of [`Retry`] that a specification left to the settings of the node that runs the task;
/// what the fields hold then are the defaults.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RetryLeft {
    /// `max_attempts` follows `max_retries`.
    pub max_attempts: bool,
    /// `initial_interval` follows `backoff_duration`.
    pub initial_interval: bool,
    /// `max_interval` gives way to a longer first pause.
    pub max_interval: bool,
}

impl Task {
    /// The task's retry rule under the settings of a node.
    #[must_use]
    pub fn retry_under(&self, settings: &Scheduler) -> Retry {
        let (mut retry, left) = (self.retry.clone(), self.retry_left);
        if let (true, Some(retries)) = (left.max_attempts, settings.max_retries) {
            retry.max_attempts = retries.saturating_add(1);
        }
        if let (true, Some(pause)) = (left.initial_interval, settings.backoff_duration) {
            retry.initial_interval = pause;
            match left.max_interval {
                true => retry.max_interval = retry.max_interval.max(pause),
                false => retry.initial_interval = pause.min(retry.max_interval),
            }
        }
        retry
    }
}

/// What follows when no attempt is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum OnExhausted {
    /// The task failed.
    Fail,
    /// The task is paused and waits for a person.
    Pause,
}

/// Whether a task may run again after an unclean stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SideEffects {
    /// It only writes its outputs.
    None,
    /// Running it twice does no harm.
    Idempotent,
    /// It must never run twice; in doubt a person decides.
    AtMostOnce,
}

/// A condition over the run's parameters.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct When {
    /// As written.
    pub text: String,
    /// Decided when the run was submitted.
    pub holds: bool,
}

/// Which ends of the tasks it needs let a task start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TriggerRule {
    /// All succeeded. A skipped one skips it, a failed, aborted, cancelled or lost one aborts it.
    AllSuccess,
    /// All are final, however they ended.
    AllDone,
    /// At least one failed or was lost (as soon as all are final); else it is skipped.
    OneFailed,
    /// All are final and none failed, was aborted, cancelled or lost; skipped ones do not count.
    NoneFailed,
}

/// Where a task may run.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Placement {
    /// Name of the node.
    pub node: Option<String>,
    /// Labels that the node must have.
    pub labels: BTreeMap<String, String>,
    /// Value of the node's `site` label.
    pub site: Option<String>,
    /// Name of the label over whose values tasks are spread, or `node`.
    pub spread: Option<String>,
    /// Tasks on whose node it must run: ranges from the first to the last.
    pub affinity: Vec<(TaskIdx, TaskIdx)>,
    /// Tasks on whose node it must not run.
    pub anti_affinity: Vec<(TaskIdx, TaskIdx)>,
    /// Taints that it does not mind: `KEY`, `KEY=VALUE` or `*`.
    pub tolerations: Vec<String>,
}

/// What happens while a task's node cannot be heard. By default work is kept however long that is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Disconnect {
    /// Silence after which the slice counts as lost.
    pub lost_after: Option<Span>,
    /// Whether it is then placed again at a new epoch.
    pub replace: bool,
}
