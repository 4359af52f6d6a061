//! What the shell (or the simulator) tells the engine, and what the engine asks of it.

mod action;

pub use action::{About, Action};

use crate::access::{Caller, Role, Tokens};
use crate::certificate::Certificate;
use crate::change::NodeChange;
use crate::offered::Offered;
use crate::record;
use crate::settings::Scope;
use crate::view;
use serde::{Deserialize, Serialize};
use shared::config::scheduler::Scheduler;
use shared::ids::{Hash, Incarnation, NodeId, RunId, ScheduleId};
use shared::schedule::view::View;
use shared::state::{RunState, TaskState};
use shared::time::{Span, Unix};
use shared::wire::{Down, Up};
use std::collections::BTreeMap;

/// A transport connection, numbered by the shell; never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Conn(pub u64);

/// A request of the API, numbered by the shell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// What happened outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A node's connection said hello; `node` and `name` are those of its certificate.
    Hello {
        /// The connection.
        conn: Conn,
        /// From the certificate.
        node: NodeId,
        /// From the certificate.
        name: String,
        /// The certificate itself.
        certificate: Certificate,
        /// What it said.
        hello: Box<shared::wire::Hello>,
        /// 16 random bytes: the secret that the welcome may give out.
        secret: [u8; 16],
    },
    /// A later message of a connection.
    Heard {
        /// The connection.
        conn: Conn,
        /// The message.
        message: Up,
    },
    /// Facts of a connection, read already: the same as hearing them.
    Offered {
        /// The connection.
        conn: Conn,
        /// The facts.
        batch: Box<Offered>,
    },
    /// A connection is gone.
    Gone {
        /// The connection.
        conn: Conn,
        /// For people.
        why: String,
    },
    /// A file is durable in the file store.
    FileStored {
        /// Its content.
        hash: Hash,
        /// Bytes.
        size: u64,
    },
    /// A file was in the file store when the process started.
    FileFound {
        /// Its content.
        hash: Hash,
        /// Bytes.
        size: u64,
    },
    /// The API asks for something.
    Request {
        /// To be repeated in the reply.
        id: RequestId,
        /// What.
        request: Box<Request>,
        /// Who.
        caller: Caller,
    },
    /// `next_wakeup` has come. A spurious one changes nothing.
    Wake,
}

impl Input {
    /// Whether it brings facts.
    #[must_use]
    pub fn has_facts(&self) -> bool {
        match self {
            Self::Heard { message, .. } => message.facts().is_some(),
            Self::Offered { .. } => true,
            _ => false,
        }
    }
}

/// What the API (or the enrolment exchange) can ask for. Reads are answered from committed state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Start a run.
    Submit {
        /// Drawn by the shell.
        run: RunId,
        /// `codec::pack` of the compiled workflow; its sent files are in the file store already.
        workflow: Vec<u8>,
        /// Who.
        by: String,
        /// A repeated submission with the same key gives the first one's run.
        idempotency_key: Option<String>,
    },
    /// Ask for a run's end.
    Cancel {
        /// The run.
        run: RunId,
        /// Who.
        by: String,
        /// Why.
        why: String,
    },
    /// Ask for a run to stand still, or to go on.
    Pause {
        /// The run.
        run: RunId,
        /// Pause, or go on.
        on: bool,
        /// Who.
        by: String,
    },
    /// Store a new enrolment token (made by `certs`; only the secret's hash gets here).
    AddToken {
        /// `certs::TokenRecord`, encoded; opaque here but for the fields beside it.
        record: Vec<u8>,
        /// Its id.
        id: String,
        /// The only name that it enrols, if it is bound to one.
        name: Option<String>,
        /// It may replace a node of that name that exists (re-image).
        replace: bool,
        /// Until when it is good.
        expires: Unix,
        /// Who.
        by: String,
    },
    /// Read a token before it is used.
    GetToken {
        /// Its id.
        id: String,
    },
    /// Use a token up and make (or replace) the node, in one transaction.
    Enrol {
        /// The token's id; the shell has verified its secret.
        token: String,
        /// The node's new identity (drawn by the shell; ignored when an existing node is replaced).
        node: NodeId,
        /// The node's name.
        name: String,
        /// Its labels.
        labels: BTreeMap<String, String>,
        /// The certificate that it will be given.
        certificate: Certificate,
    },
    /// End the hold for a node that will not come back; for `None`: all of them.
    AcceptGone {
        /// The node.
        node: Option<NodeId>,
        /// Who.
        by: String,
    },
    /// Declare a node gone: its slices are lost and placed again as their spec allows; it may not
    /// come back.
    ForgetNode {
        /// The node.
        node: NodeId,
        /// Who.
        by: String,
    },
    /// Free a quarantined node: the next caller with its identity is the original.
    ReleaseQuarantine {
        /// The node.
        node: NodeId,
        /// Who.
        by: String,
    },
    /// All runs, newest first.
    Runs {
        /// Only those in this state.
        state: Option<RunState>,
    },
    /// One run.
    Run {
        /// The run.
        run: RunId,
    },
    /// The tasks of a run.
    Tasks {
        /// The run.
        run: RunId,
        /// Only those in this state.
        state: Option<TaskState>,
    },
    /// One task, with its attempts.
    Task {
        /// The run.
        run: RunId,
        /// Its id in the specification.
        task: String,
    },
    /// Why a task runs where it runs, or why it does not run yet.
    Explain {
        /// The run.
        run: RunId,
        /// Its id in the specification.
        task: String,
    },
    /// The compiled workflow of a run (`codec::pack`).
    Workflow {
        /// The run.
        run: RunId,
    },
    /// All nodes.
    Nodes,
    /// One node.
    Node {
        /// Its name or id.
        name: String,
    },
    /// Everything that waits for a person.
    Waits,
    /// What changed since a version (for watching): answered at once with the new version.
    RunsChangedSince {
        /// Version of the answer before.
        version: u64,
    },
    /// Give a node no new work and ask it to hand back what may run elsewhere; or end that.
    Drain {
        /// The node.
        node: NodeId,
        /// Begin, or end.
        on: bool,
        /// Who.
        by: String,
    },
    /// Let what failed of a run (or a task and all behind it) run again.
    Retry {
        /// The run.
        run: RunId,
        /// The task's id in the specification; without it all that failed.
        from: Option<String>,
        /// Who.
        by: String,
    },
    /// What was recorded and not applied, newest first.
    Conflicts {
        /// Of this run only.
        run: Option<RunId>,
    },
    /// Answer a question of a task.
    Answer {
        /// The run.
        run: RunId,
        /// The task's id in the specification.
        task: String,
        /// Approve, or reject.
        yes: bool,
        /// What is filled in.
        input: BTreeMap<String, String>,
        /// Who.
        by: String,
    },
    /// Forget a run that is over (or known only from facts) now, instead of after its retention.
    ForgetRun {
        /// The run.
        run: RunId,
        /// Who.
        by: String,
    },
    /// Store a new access token (only its hash gets here).
    AddAccess {
        /// Its name.
        name: String,
        /// What its bearer may do.
        role: Role,
        /// Its public part.
        id: String,
        /// SHA-256 over id and secret.
        hash: [u8; 32],
        /// Until when it is good.
        expires: Option<Unix>,
        /// Who.
        by: String,
    },
    /// End an access token.
    RevokeAccess {
        /// Its name.
        name: String,
        /// Who.
        by: String,
    },
    /// All access tokens.
    Access,
    /// Events, oldest first.
    Events {
        /// Behind this number; without it from the first that is still there.
        after: Option<u64>,
        /// At most so many.
        limit: usize,
    },
    /// The audit record, oldest first.
    Audit {
        /// Behind this number.
        after: u64,
        /// At most so many.
        limit: usize,
    },
    /// Read which node a token enrolled with this key lately: its answer may have been lost.
    EnrolledBefore {
        /// The token's id.
        token: String,
        /// SHA-256 of the public key.
        key: [u8; 32],
        /// The id of a node whose first key it is.
        first: NodeId,
    },
    /// A node is about to be issued this certificate: first of all, or in place of an older one.
    Certify {
        /// The node.
        node: NodeId,
        /// The certificate.
        certificate: Certificate,
        /// The older one, which may have expired, as the node showed it; none for a newcomer whose
        /// answer was lost.
        shown: Option<Certificate>,
    },
    /// A key is known to be revoked from before this store went back.
    Revoke {
        /// The node.
        node: NodeId,
        /// SHA-256 of the key; none where the node was forgotten before its key was known.
        key: Option<[u8; 32]>,
        /// When.
        at: Unix,
        /// Why, for people.
        why: String,
        /// Who declared the node gone, if it was not a replacement.
        gone: Option<String>,
    },
    /// All enrolment tokens.
    Tokens,
    /// Make an enrolment token void.
    RevokeToken {
        /// Its id.
        id: String,
        /// Who.
        by: String,
    },
    /// Somebody is given a backup, with the keys of the fleet in it.
    BackupTaken {
        /// Which, for people.
        number: String,
        /// Who.
        by: String,
    },
    /// A backup is durable in its place; what it holds is safe.
    BackupDone {
        /// When its content was read.
        at: Unix,
        /// Where it is, for people.
        place: String,
        /// What it holds of each node's facts.
        cursors: Vec<Cursor>,
        /// Who.
        by: String,
    },
    /// The newest finished backup.
    Backup,
    /// Set or unset what holds where specifications say nothing.
    Configure {
        /// For whom.
        scope: Scope,
        /// The key, with or without its section.
        name: String,
        /// In the grammar of the configuration; none unsets it.
        value: Option<String>,
        /// Who.
        by: String,
    },
    /// What holds for a scope, and where it comes from.
    Settings {
        /// For whom.
        scope: Scope,
    },
    /// Make a schedule, or its next revision.
    CreateSchedule {
        /// Drawn by the shell, for a new one.
        schedule: ScheduleId,
        /// Its name, for the record.
        name: String,
        /// `codec::pack` of the compiled workflow, whose deadlines count from 1970.
        workflow: Vec<u8>,
        /// The node that shall fire it.
        node: Option<String>,
        /// As the next revision of the one with the same name.
        replace: bool,
        /// Who.
        by: String,
    },
    /// Ask something of a schedule.
    AskSchedule {
        /// Its name, or the beginning of its id.
        name: String,
        /// What.
        ask: ScheduleAsk,
        /// Who.
        by: String,
    },
    /// All schedules.
    Schedules,
    /// One schedule.
    Schedule {
        /// Its name, or the beginning of its id.
        name: String,
    },
    /// The next slots of a schedule.
    NextSlots {
        /// Its name, or the beginning of its id.
        name: String,
        /// How many.
        count: u32,
    },
    /// Figures of the coordinator.
    Figures,
    /// Change what a person says of a node.
    ChangeNode {
        /// The node.
        node: NodeId,
        /// What.
        change: NodeChange,
        /// Who.
        by: String,
    },
    /// What is left on a node, and what keeps it there.
    NodeWork {
        /// Its name or id.
        name: String,
    },
    /// How far a node's logs are across.
    SyncStatus {
        /// Its name or id.
        name: String,
    },
    /// What a plan of where tasks would be placed now starts from.
    Ground {
        /// Name of the workflow.
        workflow: String,
    },
    /// Something new needs so many bytes in the file store.
    MakeRoom {
        /// Bytes.
        bytes: u64,
    },
    /// Which nodes carry certificates of this authority.
    Carriers {
        /// SHA-256 of its certificate.
        authority: [u8; 32],
    },
    /// The fleet's authority is about to be exchanged: a step of it.
    Exchange {
        /// Which.
        step: Exchange,
        /// SHA-256 of the next authority's certificate; at the beginning there is none yet.
        authority: [u8; 32],
        /// Who.
        by: String,
    },
}

/// What can be asked of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScheduleAsk {
    /// Fire nothing, or fire again.
    Pause(bool),
    /// Run once, now.
    Trigger,
    /// Run past slots, one after another.
    Backfill {
        /// The first, or an instant before it.
        from: Unix,
        /// The last, or an instant behind it.
        to: Unix,
    },
    /// Take it away.
    Delete,
}

impl ScheduleAsk {
    /// The command that asks it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Pause(true) => "schedule pause",
            Self::Pause(false) => "schedule resume",
            Self::Trigger => "schedule trigger",
            Self::Backfill { .. } => "schedule backfill",
            Self::Delete => "schedule delete",
        }
    }
}

/// How far a backup holds the facts of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cursor {
    /// The node.
    pub node: NodeId,
    /// The life of its data directory.
    pub incarnation: Incarnation,
    /// The last fact in it.
    pub facts: u64,
}

/// Answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// It is durable.
    Done,
    /// A schedule was made or changed.
    Scheduled(ScheduleId),
    /// Schedules.
    Schedules(Vec<View>),
    /// A schedule.
    Schedule(Box<View>),
    /// Slots that are to come.
    Slots(Vec<Unix>),
    /// A run was started (or is the one of the same idempotency key).
    Submitted(RunId),
    /// A node was enrolled under this identity.
    Enrolled(NodeId),
    /// A token's record.
    Token(Vec<u8>),
    /// The record of a used token, and whom it enrolled.
    UsedToken(Vec<u8>, NodeId),
    /// Runs.
    Runs(Vec<view::Run>),
    /// A run.
    Run(Box<view::Run>),
    /// Tasks.
    Tasks(Vec<view::Task>),
    /// A task.
    Task(Box<view::Task>),
    /// An explanation.
    Explain(Box<view::Explain>),
    /// A packed workflow.
    Workflow(Vec<u8>),
    /// Settings.
    Settings(view::Settings),
    /// Nodes.
    Nodes(Vec<view::Node>),
    /// A node.
    Node(Box<view::Node>),
    /// Waits.
    Waits(Vec<view::Wait>),
    /// What was recorded and not applied.
    Conflicts(Vec<view::Conflict>),
    /// Runs that changed, and the version to ask with next.
    Changed {
        /// To be given the next time.
        version: u64,
        /// The runs.
        runs: Vec<view::Run>,
    },
    /// It was not honoured and changed nothing.
    Refused(Refused),
    /// Access tokens.
    Access(Vec<view::Access>),
    /// Events.
    Events {
        /// Number of the first that is still there.
        first: u64,
        /// Number of the last.
        last: u64,
        /// Those asked for.
        events: Vec<view::Event>,
    },
    /// Audit entries.
    Audit(Vec<view::Audited>),
    /// Enrolment tokens.
    Tokens(Vec<view::Token>),
    /// The newest finished backup: when, where.
    Backup(Option<(Unix, String)>),
    /// Figures.
    Figures(Box<view::Figures>),
    /// What is left on a node.
    NodeWork(Box<view::NodeWork>),
    /// How far a node's logs are across.
    SyncStatus(Box<view::SyncStatus>),
    /// Where tasks would be placed.
    Ground(Box<crate::plan::Ground>),
    /// Bytes of the file store that became free.
    Room(u64),
    /// Which nodes carry certificates of an authority.
    Carriers(Box<view::Carriers>),
    /// The next authority may take the place of the present one.
    Exchanged {
        /// Names of the nodes that are left behind.
        left: Vec<String>,
        /// How many enrolment tokens became void.
        void: u64,
    },
}

/// A step of the exchange of the fleet's authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exchange {
    /// The next one is made.
    Begin,
    /// It takes the place of the present one.
    Finish {
        /// Although nodes are left behind.
        force: bool,
    },
}

/// Why a request was not honoured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refused {
    /// Nothing of that name.
    #[error("no {what} {name}")]
    NotFound {
        /// `run`, `task`, `node`, `token`.
        what: String,
        /// What was looked for.
        name: String,
    },
    /// The token is not good.
    #[error("{0}")]
    Token(String),
    /// The name is taken.
    #[error(
        "a node named {0} is enrolled already; to replace it, use a token of `driftless token create --replace {0}`"
    )]
    NameTaken(String),
    /// It does not go with the state.
    #[error("{0}")]
    State(String),
    /// It is malformed.
    #[error("{0}")]
    Malformed(String),
    /// There is no room.
    #[error("no room: {0}")]
    NoRoom(String),
    /// Events from there on are not known (any more).
    #[error("event {after} is not known: the events that are kept are {first} to {last}")]
    Forgotten {
        /// What was asked for.
        after: u64,
        /// Number of the first that is still there.
        first: u64,
        /// Number of the last.
        last: u64,
    },
}

/// What the engine wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send a message.
    Send {
        /// The connection.
        conn: Conn,
        /// The message.
        message: Down,
    },
    /// Close a connection.
    Close {
        /// The connection.
        conn: Conn,
        /// For people, after the last message was sent.
        why: String,
    },
    /// Answer a request.
    Reply {
        /// As in the request.
        id: RequestId,
        /// The answer.
        reply: Box<Reply>,
    },
    /// These files are no longer named by any run.
    DropFiles(Vec<Hash>),
    /// From now on these access tokens are good.
    Access(Tokens),
}

/// How long runs that are over are kept unless set otherwise.
pub const RETENTION: Span = Span::secs(7 * 86_400);

/// Settings of the engine, given at every start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The key of seals.
    pub seal_key: [u8; 32],
    /// Time after its end when a run is forgotten.
    pub retention: Span,
    /// How long the evidence of decisions is kept, in entries a run.
    pub decisions_per_run: usize,
    /// Facts folded into runs in a turn that brings new ones: the share of the time that folding
    /// takes from recording. More are folded when none arrive.
    pub fold_facts: usize,
    /// How much of the record is kept.
    pub record: record::Limits,
    /// Backups are made by themselves.
    pub backups: bool,
    /// What holds where neither specifications nor people say anything, as far as it was
    /// configured.
    pub scheduler: Scheduler,
}
