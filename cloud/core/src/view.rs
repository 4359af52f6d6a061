//! What people and programs see of the state. Field names are part of the interface (`--json`) and
//! stay.

use crate::access::Role;
use crate::record;
use serde::{Deserialize, Serialize};
use shared::ids::{NodeId, RunId};
use shared::time::Unix;
use std::collections::BTreeMap;

/// How fresh a view of a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsOf {
    /// Edge time of the last fact that is applied, milliseconds since 1970.
    pub at: Option<Unix>,
    /// Its number.
    pub fact: u64,
    /// How many facts the agent is known to be ahead.
    pub behind: u64,
    /// When the node was last heard, by the coordinator's wall clock.
    pub heard: Option<Unix>,
}

/// Something that waits for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// The run, if it concerns one.
    pub run: Option<RunId>,
    /// The task, if it concerns one.
    pub task: Option<String>,
    /// The node, if it concerns one.
    pub node: Option<String>,
    /// What is waited for, for people.
    pub what: String,
    /// Since when.
    pub since: Unix,
    /// The command that ends the wait, if one does.
    #[serde(default)]
    pub command: Option<String>,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Name of its workflow.
    pub workflow: String,
    /// Its state's text.
    pub state: String,
    /// What it waits for from people.
    pub waits: Vec<Wait>,
    /// Content hash of the compiled workflow.
    pub version: String,
    /// What it is for.
    pub description: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its parameters.
    pub params: BTreeMap<String, String>,
    /// When it was submitted.
    pub submitted: Unix,
    /// When it became final.
    pub ended: Option<Unix>,
    /// Who submitted it.
    pub by: String,
    /// Requests that are not confirmed everywhere, for people ("cancel requested, 1 of 2 nodes
    /// confirmed").
    pub requests: Vec<String>,
    /// Number of tasks in each state.
    pub tasks: BTreeMap<String, u64>,
    /// Its view of each of its nodes.
    pub nodes: BTreeMap<String, AsOf>,
    /// The last facts that were recorded and not applied.
    #[serde(default)]
    pub conflicts: Vec<Conflict>,
}

/// A fact that was recorded and changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The run.
    #[serde(default)]
    pub run: Option<RunId>,
    /// The task, if it is about one.
    #[serde(default)]
    pub task: Option<String>,
    /// Name of the node.
    pub node: String,
    /// Epoch of the slice that it is about.
    #[serde(default)]
    pub epoch: Option<u64>,
    /// Number of the attempt, if it is about one.
    #[serde(default)]
    pub number: Option<u32>,
    /// Number of the fact.
    pub fact: u64,
    /// When it happened, by the node's wall clock.
    pub at: Unix,
    /// Why it was not applied.
    pub reason: String,
}

/// A task of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The run.
    pub run: RunId,
    /// Its id in the specification.
    pub task: String,
    /// What it is for.
    pub description: String,
    /// Its state's text.
    pub state: String,
    /// What the coordinator lays over it: `unknown`, `given up`, `cancel requested`.
    pub overlay: Option<String>,
    /// Name of the node that owns it.
    pub node: Option<String>,
    /// Executions that count, over all epochs: those that failed, and the one that succeeded.
    pub attempts: u32,
    /// Its outputs if it succeeded.
    pub outputs: Vec<OutputFile>,
    /// Why it is in this state.
    pub reason: Option<String>,
    /// When it reached this state, by its node's wall clock.
    pub since: Option<Unix>,
    /// What else is known of attempts: also those that do not count (`also ran on`).
    pub history: Vec<Attempt>,
    /// What it asks a person, if it does that instead of running something.
    #[serde(default)]
    pub question: Option<Question>,
    /// The answers, oldest first, also those that do not count.
    #[serde(default)]
    pub answers: Vec<Answer>,
}

/// A question to a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// What is asked.
    pub prompt: String,
    /// What is to be filled in.
    pub input: Vec<Field>,
    /// What counts as answered when the deadline passes.
    pub default: Option<bool>,
    /// When nobody is waited for any more.
    pub deadline: Option<Unix>,
}

/// A field that a person fills in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its type: `string`, `integer`, `number`, `boolean`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What counts when it is left out.
    pub default: Option<String>,
    /// It must be filled in.
    pub required: bool,
}

/// An answer to a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Approved, or rejected.
    pub yes: bool,
    /// What was filled in.
    pub input: BTreeMap<String, String>,
    /// Who.
    pub by: String,
    /// When, by the clock of the side where it was given.
    pub at: Unix,
    /// `gateway`, `coordinator`, or `deadline` when nobody answered in time.
    pub via: String,
    /// The node that recorded it; absent while it is on its way.
    pub node: Option<String>,
    /// Whether it counts; absent while it is on its way.
    pub counts: Option<bool>,
    /// Why it does not count.
    pub reason: Option<String>,
}

/// An output of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// Its name.
    pub name: String,
    /// Its path below the attempt's directory.
    pub path: String,
    /// Its content, `ALGORITHM:HEX`.
    pub hash: String,
    /// Bytes.
    pub size: u64,
}

/// An attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Name of the node.
    pub node: String,
    /// Epoch of the slice.
    pub epoch: u64,
    /// Its number within the epoch.
    pub number: u32,
    /// `running`, or the outcome's text.
    pub outcome: String,
    /// Why.
    pub reason: Option<String>,
    /// Exit code, or minus the signal's number.
    pub exit: Option<i32>,
    /// When it began, by the node's wall clock.
    pub began: Option<Unix>,
    /// When it ended, by the node's wall clock.
    pub ended: Option<Unix>,
    /// Whether it counts; else why not.
    pub not_applied: Option<String>,
}

/// Why a task is where it is and as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explain {
    /// The task.
    pub task: Task,
    /// In one sentence, for people.
    pub summary: String,
    /// The decisions, oldest first.
    pub decisions: Vec<Decision>,
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Its id.
    pub decision_id: String,
    /// When.
    pub at: Unix,
    /// What was decided about.
    pub action: String,
    /// Why.
    pub reason: String,
    /// 1 where a rule decided.
    pub confidence: f64,
    /// The numbers that decided, `name=value`.
    pub evidence: Vec<String>,
    /// How often it was decided the same way again.
    pub repeats: u32,
}
impl Eq for Decision {}

/// An enrolment token. Its secret is not known here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its id.
    pub id: String,
    /// The only name that it enrols.
    pub name: Option<String>,
    /// It may take the place of an enrolled node of that name.
    pub replace: bool,
    /// Until when it is good.
    pub expires: Unix,
    /// `open`, `used`, `void` or `expired`.
    pub state: String,
    /// Name of the node that used it.
    pub used_by: Option<String>,
    /// When it was used.
    pub used_at: Option<Unix>,
    /// Why it is void.
    pub why: Option<String>,
}

/// A node's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// End of its validity.
    pub until: Unix,
    /// SHA-256 of its public key, in hexadecimal digits.
    pub key: String,
    /// Fingerprint of the authority that issued the one which it showed last.
    pub authority: String,
    /// Keys of the node that are revoked.
    pub revoked_keys: u64,
}

/// Which nodes carry a certificate of one authority.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Carriers {
    /// Nodes that are enrolled.
    pub nodes: u64,
    /// Those that carry one.
    pub carry: u64,
    /// The others, by name.
    pub left: Vec<Left>,
}

/// A node that does not carry a certificate of the authority that counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Its name.
    pub node: String,
    /// Its id.
    pub id: NodeId,
    /// Its state's text.
    pub state: String,
    /// When it was heard last, by the coordinator's wall clock.
    pub heard: Option<Unix>,
    /// Fingerprint of the authority of the certificate that it showed last; absent until it is
    /// heard, and until it is heard again where the coordinator's store went back.
    pub authority: Option<String>,
    /// End of that certificate.
    pub until: Option<Unix>,
    /// Its program renews its certificate when it is asked to; an older one after two thirds of its
    /// life.
    pub asked: bool,
    /// Its key took the place of another one by a younger certificate: a person confirms it first.
    #[serde(default)]
    pub unconfirmed: bool,
}

/// What holds for a node, a label or the fleet where specifications say nothing.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Settings {
    /// By key.
    pub settings: Vec<Setting>,
    /// Of a node: whether it has confirmed what it was told.
    pub confirmed: Option<bool>,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Its key.
    pub key: String,
    /// Its value, in the grammar of the configuration.
    pub value: String,
    /// `node`, `label KEY=VALUE`, `fleet`, `configuration` or `default`.
    pub from: String,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: NodeId,
    /// Its state's text.
    pub state: String,
    /// How fresh the view of it is.
    pub as_of: AsOf,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it offers: `cpu_milli`, `memory`, … .
    pub capacity: BTreeMap<String, u64>,
    /// The life of its data directory.
    pub incarnation: String,
    /// Number of slices that are not final.
    pub slices: u64,
    /// Number of tasks running.
    pub running: u64,
    /// Number of directives that it has not confirmed.
    pub unconfirmed: u64,
    /// What holds there where specifications say nothing, but for what its own file says.
    #[serde(default)]
    pub settings: Settings,
    /// Why it is quarantined or otherwise unusual, for people.
    pub note: Option<String>,
    /// The certificate that speaks for it; absent until it is heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// How far its wall clock was ahead of the coordinator's at its last hello, in milliseconds;
    /// negative if it was behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_ahead_ms: Option<i64>,
    /// What keeps work off it, as written.
    #[serde(default)]
    pub taints: Vec<String>,
    /// A person keeps new work off it.
    #[serde(default)]
    pub cordoned: bool,
    /// By how many thousandths its load counts for more because attempts failed there lately.
    #[serde(default)]
    pub distrust_milli: u64,
    /// A person at the node lets nothing be sent, as of its last fact that is known here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_paused: Option<SyncPaused>,
}

/// What is left on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeWork {
    /// Name of the node.
    pub node: String,
    /// It is asked to give back what may run elsewhere.
    pub draining: bool,
    /// Slices that are not over.
    pub left: u64,
    /// Those of them that are on their way elsewhere.
    pub moving: u64,
    /// The first thousand of them.
    pub slices: Vec<SliceLeft>,
    /// Schedules that it fires.
    #[serde(default)]
    pub schedules: Vec<ScheduleLeft>,
}

/// A schedule that a node fires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleLeft {
    /// Its name.
    pub name: String,
    /// It is on its way elsewhere.
    pub moves: bool,
    /// What is waited for, or what keeps it there.
    pub why: String,
}

/// A slice on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceLeft {
    /// Its run.
    pub run: RunId,
    /// Name of the workflow.
    pub workflow: String,
    /// Tasks that are not final.
    pub tasks: u64,
    /// It is on its way elsewhere.
    pub moves: bool,
    /// What is waited for, or what keeps it there.
    pub why: String,
}

/// How far a node's logs are across.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncStatus {
    /// Name of the node.
    pub node: String,
    /// Its state's text.
    pub state: String,
    /// Number of the live session.
    pub session: Option<u64>,
    /// Number of the last session that was accepted.
    pub last_session: u64,
    /// When it was last heard, by the coordinator's wall clock.
    pub heard: Option<Unix>,
    /// Without a session: silent for so long, in milliseconds.
    pub silence_ms: Option<u64>,
    /// How fresh the view of it is.
    pub as_of: AsOf,
    /// One row a log.
    pub classes: Vec<SyncClass>,
}

/// One log between coordinator and node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncClass {
    /// `facts` (up) or `directives` (down).
    pub class: String,
    /// Number of the last entry on the side that is read here: recorded facts, written directives.
    pub last: u64,
    /// Entries that are not across, as far as is known.
    pub behind: u64,
    /// Age of what is across last (facts), or of the oldest that is not (directives), where
    /// something is behind.
    pub age_ms: Option<u64>,
    /// Entries that came across per second lately.
    pub per_second: u64,
}

/// A pause of sending at a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncPaused {
    /// Who.
    pub by: String,
    /// Since when, by the node's wall clock.
    pub since: Unix,
    /// When it ends by itself, if it does.
    pub until: Option<Unix>,
}

/// What would become of a workflow if it was submitted now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the workflow.
    pub workflow: String,
    /// Its tasks, in the order of the specification.
    pub tasks: Vec<PlannedTask>,
    /// The slices that it would be cut into.
    pub slices: Vec<PlannedSlice>,
    /// The longest path from a first task to a last one.
    pub critical_path: CriticalPath,
}

/// A task that is not submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedTask {
    /// Its id.
    pub task: String,
    /// Name of the node; none if it would wait for one.
    pub node: Option<String>,
    /// Why there, or what it would wait for.
    pub why: String,
    /// How long it took in earlier runs (the median), or else takes by the specification's
    /// `estimate`, in milliseconds.
    pub takes_ms: Option<u64>,
    /// Where `takes_ms` is from: `runs` or `estimate`.
    #[serde(default)]
    pub takes_by: Option<String>,
    /// The first twenty of the other nodes, and why not there; with very many tasks only of the
    /// first tasks, and of the one that was asked for.
    pub elsewhere: Vec<Elsewhere>,
}

/// A node on which a task would not be placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// Its name.
    pub node: String,
    /// Why not there.
    pub why: String,
}

/// A slice that is not made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedSlice {
    /// Name of its node.
    pub node: String,
    /// A session is live.
    pub online: bool,
    /// Its tasks.
    pub tasks: u64,
    /// Edges between its tasks and those of other slices.
    pub edges_out: u64,
    /// Tasks placed there that are not final, of other runs.
    pub open_there: u64,
}

/// The longest path through a workflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CriticalPath {
    /// Ids of its tasks, in order.
    pub tasks: Vec<String>,
    /// What they take together, in milliseconds, as far as is known.
    pub takes_ms: Option<u64>,
    /// Tasks of it of which nobody knows how long they take.
    pub unknown: u64,
    /// Tasks of it that never ran and count with the specification's `estimate`.
    #[serde(default)]
    pub estimated: u64,
    /// Earlier runs of the workflow that this is known from.
    pub runs: u64,
}

/// An event. Which fields are there depends on its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number: to be given as `after` by a reader that goes on behind it.
    pub number: u64,
    /// When it was decided, by the coordinator's wall clock.
    pub at: Unix,
    /// What kind of event it is.
    pub kind: String,
    /// The run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Name of the run's workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// The task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Name of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The new state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The state before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<String>,
    /// How many tasks came into which state.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tasks: BTreeMap<String, u64>,
    /// Number of the node's live session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many facts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Number of the last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fact: Option<u64>,
    /// Life of the coordinator's store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Who did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// Which action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// What it was done to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
}

/// An operator's action, as the audit record has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audited {
    /// Its number.
    pub number: u64,
    /// When.
    pub at: Unix,
    /// Name of the token, or of the local user as the client gave it.
    pub who: String,
    /// A token was shown, so the name is proven.
    pub token: bool,
    /// The address that it came from.
    pub from: String,
    /// Which action, as the command is called.
    pub what: String,
    /// What it was done to: a run, a node, a name.
    pub about: String,
    /// More of it, for people.
    pub detail: String,
    /// `done` or `refused`.
    pub result: String,
    /// Why it was refused.
    pub reason: Option<String>,
}

impl Audited {
    /// An entry with its number.
    #[must_use]
    pub fn new(number: u64, entry: record::Audited) -> Self {
        let result = if entry.refused.is_some() {
            "refused"
        } else {
            "done"
        };
        Self {
            number,
            at: entry.at,
            who: entry.who,
            token: entry.token,
            from: entry.from,
            what: entry.what,
            about: entry.about,
            detail: entry.detail,
            result: result.to_owned(),
            reason: entry.refused,
        }
    }
}

/// An access token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Its name.
    pub name: String,
    /// What its bearer may do.
    pub role: Role,
    /// Its public part.
    pub id: String,
    /// When it was made.
    pub created: Unix,
    /// By whom.
    pub by: String,
    /// Until when it is good; none: until it is revoked.
    pub expires: Option<Unix>,
    /// Whether it is past that.
    pub expired: bool,
}

/// Figures of a coordinator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Life of the store.
    pub generation: u64,
    /// Nodes by state.
    pub nodes: BTreeMap<String, u64>,
    /// Runs that are kept, by state.
    pub runs: BTreeMap<String, u64>,
    /// Tasks of those runs, by state.
    pub tasks: BTreeMap<String, u64>,
    /// Live sessions.
    pub sessions: u64,
    /// Facts that nodes are known to have and that are not here.
    pub behind: u64,
    /// Directives that nodes have not confirmed.
    pub unconfirmed: u64,
    /// Facts of those runs that were recorded and not applied.
    pub not_applied: u64,
    /// Number of the last event.
    pub events: u64,
    /// Number of the last audit entry.
    pub audit: u64,
    /// Files that are named or wait to be.
    pub files: u64,
    /// Their bytes.
    pub file_bytes: u64,
}
