//! What travels over the HTTP API besides the views of `cloud_core::view`. Names are part of the
//! interface.

use cloud_core::access::Role;
use cloud_core::view;
use serde::{Deserialize, Serialize};
use shared::time::Unix;
use std::collections::BTreeMap;

/// Media type of lists: one JSON object a line.
pub const LINES: &str = "application/x-ndjson";
/// Media type of packed workflows, files and logs.
pub const BYTES: &str = "application/octet-stream";
/// Header of a log's answer: the offset to go on from.
pub const NEXT: &str = "driftless-next";
/// Header of a log's answer: the attempt that it is of, as `EPOCH.NUMBER`.
pub const ATTEMPT: &str = "driftless-attempt";
/// Header of a log's answer: `true` when the attempt has ended and nothing follows.
pub const COMPLETE: &str = "driftless-complete";

/// Why a request was not honoured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What happened, and where.
    pub error: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// A token to make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// The only name that it enrols.
    #[serde(default)]
    pub name: Option<String>,
    /// For how long it is good, in milliseconds; an hour if absent.
    #[serde(default)]
    pub expires_in_ms: Option<u64>,
    /// It may replace an enrolled node of that name.
    #[serde(default)]
    pub replace: bool,
}

/// A token that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its text: a secret, given out once.
    pub token: String,
    /// Until when it is good, in milliseconds since 1970.
    pub expires: Unix,
    /// Its name in lists and logs.
    pub id: String,
    /// The only name that it enrols.
    pub name: Option<String>,
    /// It may replace an enrolled node of that name.
    pub replace: bool,
    /// Where the coordinator listens for agents.
    pub listen: String,
}

/// The fleet's authority, and how far its exchange is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Fingerprint of the one that the coordinator shows.
    pub authority: String,
    /// End of its certificate.
    pub until: Option<Unix>,
    /// Fingerprint of the one that is to take its place; absent where none is.
    pub next: Option<String>,
    /// Since when there is one.
    pub since: Option<Unix>,
    /// What the newest finished backup has was read then.
    pub backup: Option<Unix>,
    /// Nodes that are enrolled.
    pub nodes: u64,
    /// Those that carry a certificate of the next authority, or, where there is none, of this one.
    pub carry: u64,
    /// The others.
    pub left: Vec<view::Left>,
    /// In the answer to its end: enrolment tokens that became void with it.
    #[serde(default)]
    pub void_tokens: u64,
    /// Certificates of both, PEM: what clients of the API trust.
    pub certificates: String,
}

/// To let the next authority take the place of the present one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finish {
    /// Who.
    #[serde(default)]
    pub by: String,
    /// Although nodes are left behind, which must be enrolled anew then.
    #[serde(default)]
    pub force: bool,
}

/// For whom a setting holds: one node, those with a label (`KEY=VALUE`), or the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopeQuery {
    /// Its name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// A setting to change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSetting {
    /// The name or id of the node that it holds for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Or the label (`KEY=VALUE`) that it holds for; without both: the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Its key, as `max_retries`.
    pub key: String,
    /// Its value in the grammar of the configuration; null unsets it, and must be written.
    #[serde(deserialize_with = "Option::deserialize")]
    pub value: Option<String>,
    /// Who.
    #[serde(default)]
    pub by: String,
}

/// Who asks for something, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// Who.
    #[serde(default)]
    pub by: String,
    /// Why.
    #[serde(default)]
    pub why: String,
}

/// An answer to a task's question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAnswer {
    /// Who.
    #[serde(default)]
    pub by: String,
    /// Approve, or reject.
    pub yes: bool,
    /// What is filled in, by field.
    #[serde(default)]
    pub input: BTreeMap<String, String>,
}

/// An access token to make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAccess {
    /// Its name.
    pub name: String,
    /// `viewer`, `operator` or `admin`.
    pub role: String,
    /// For how long it is good, in milliseconds; until it is revoked if absent.
    #[serde(default)]
    pub expires_in_ms: Option<u64>,
    /// Who asks.
    #[serde(default)]
    pub by: String,
}

/// An access token that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenAccess {
    /// Its text: a secret, given out once.
    pub token: String,
    /// Its name.
    pub name: String,
    /// What its bearer may do.
    pub role: Role,
    /// Its public part.
    pub id: String,
    /// Until when it is good.
    pub expires: Option<Unix>,
}

/// An access token that was ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// Its name.
    pub revoked: String,
}

/// A line of a stream of events that says that it lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Number of the last event that was sent.
    pub number: u64,
    /// `beat`.
    pub kind: String,
}

/// Past slots to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewBackfill {
    /// Who.
    #[serde(default)]
    pub by: String,
    /// The first, or an instant before it, in milliseconds since 1970.
    pub from: Unix,
    /// The last, or an instant behind it.
    pub to: Unix,
}

/// Labels of a node to set, or (with null) to take away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labels {
    /// Who.
    #[serde(default)]
    pub by: String,
    /// By name.
    pub set: BTreeMap<String, Option<String>>,
}

/// Taints of a node to add and to remove.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taints {
    /// Who.
    #[serde(default)]
    pub by: String,
    /// `KEY=VALUE:EFFECT` or `KEY:EFFECT`.
    #[serde(default)]
    pub add: Vec<String>,
    /// Keys.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// What is to run again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRetry {
    /// Who.
    #[serde(default)]
    pub by: String,
    /// This task and all behind it; all that failed if absent.
    #[serde(default)]
    pub from: Option<String>,
}

/// How far a run is forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgetting {
    /// The run.
    pub id: shared::ids::RunId,
    /// Nothing of it is left.
    pub forgotten: bool,
    /// What is waited for, for people.
    pub requests: Vec<String>,
}

/// One line of a watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// To be given as `after` by a watch that goes on from here.
    pub version: u64,
    /// A run that changed; absent in the lines that only say that the watch is alive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<view::Run>,
}

/// Whether the coordinator can work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// It can.
    pub ready: bool,
    /// Why it cannot.
    pub reasons: Vec<String>,
}

/// The coordinator is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// Version of the program.
    pub version: String,
    /// Where it listens for agents.
    pub listen: String,
}

/// The header that names a backup.
pub const BACKUP_ID: &str = "driftless-backup";

/// A backup is in its place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placed {
    /// Where, for people.
    pub place: String,
}

/// The newest backup that was finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// When its content was read; absent if there is none.
    pub at: Option<Unix>,
    /// Where it was put.
    pub place: Option<String>,
}
