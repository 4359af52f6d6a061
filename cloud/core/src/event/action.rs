//! Requests that change something, as the audit record has them, and who asks.

use super::{Exchange, Request};
use crate::settings;
use shared::ids::{NodeId, RunId};

/// What an action is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About<'a> {
    /// A run.
    Run(RunId),
    /// A node.
    Node(NodeId),
    /// Something with a name.
    Name(&'a str),
}

/// A request that changes something, as the audit record has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action<'a> {
    /// As the command is called.
    pub what: &'static str,
    /// What it is done to.
    pub about: About<'a>,
    /// Who, as the client says.
    pub by: Option<&'a str>,
    /// More of it, for people.
    pub detail: String,
}

impl<'a> Action<'a> {
    fn plain(what: &'static str, about: About<'a>, by: Option<&'a str>) -> Self {
        Self {
            what,
            about,
            by,
            detail: String::new(),
        }
    }
}

impl Request {
    /// Whether it only reads.
    #[must_use]
    pub(crate) fn reads(&self) -> bool {
        matches!(
            self,
            Self::GetToken { .. }
                | Self::Runs { .. }
                | Self::Run { .. }
                | Self::Tasks { .. }
                | Self::Task { .. }
                | Self::Explain { .. }
                | Self::Workflow { .. }
                | Self::Nodes
                | Self::Node { .. }
                | Self::Waits
                | Self::Schedules
                | Self::Schedule { .. }
                | Self::NextSlots { .. }
                | Self::EnrolledBefore { .. }
                | Self::Tokens
                | Self::Carriers { .. }
                | Self::Backup
                | Self::Settings { .. }
                | Self::Conflicts { .. }
                | Self::RunsChangedSince { .. }
                | Self::Access
                | Self::Events { .. }
                | Self::Audit { .. }
                | Self::Figures
                | Self::NodeWork { .. }
                | Self::SyncStatus { .. }
                | Self::Ground { .. }
        )
    }

    /// The same for what is done to nodes.
    fn action_on_node(&self) -> Option<Action<'_>> {
        let of = Action::plain;
        Some(match self {
            Self::AcceptGone { node, by } => {
                let about = node.map_or(About::Name("all"), About::Node);
                of("node gone", about, Some(by))
            }
            Self::ForgetNode { node, by } => of("node forget", About::Node(*node), Some(by)),
            Self::ReleaseQuarantine { node, by } => {
                of("node release", About::Node(*node), Some(by))
            }
            Self::Drain { node, on: true, by } => of("node drain", About::Node(*node), Some(by)),
            Self::Drain { node, by, .. } => of("node undrain", About::Node(*node), Some(by)),
            Self::ChangeNode { node, change, by } => {
                let (what, detail) = change.told();
                Action {
                    detail,
                    ..of(what, About::Node(*node), Some(by))
                }
            }
            _ => return None,
        })
    }

    /// The same for what is done to runs.
    fn action_on_run(&self) -> Option<Action<'_>> {
        let of = Action::plain;
        Some(match self {
            Self::Submit {
                run,
                by,
                idempotency_key,
                ..
            } => Action {
                detail: idempotency_key.clone().unwrap_or_default(),
                ..of("submit", About::Run(*run), Some(by))
            },
            Self::Cancel { run, by, why } => Action {
                detail: why.clone(),
                ..of("run cancel", About::Run(*run), Some(by))
            },
            Self::Pause { run, on: true, by } => of("run pause", About::Run(*run), Some(by)),
            Self::Pause { run, by, .. } => of("run resume", About::Run(*run), Some(by)),
            Self::ForgetRun { run, by } => of("run forget", About::Run(*run), Some(by)),
            Self::Answer {
                run, task, yes, by, ..
            } => Action {
                detail: format!("{task} {}", if *yes { "yes" } else { "no" }),
                ..of("answer", About::Run(*run), Some(by))
            },
            Self::Retry { run, from, by } => Action {
                detail: from.clone().unwrap_or_default(),
                ..of("run retry", About::Run(*run), Some(by))
            },
            _ => return None,
        })
    }

    /// The same for who may join, who may ask, and what is set.
    fn action_on_fleet(&self) -> Option<Action<'_>> {
        let of = Action::plain;
        Some(match self {
            Self::AddToken { id, name, by, .. } => Action {
                detail: name.clone().unwrap_or_default(),
                ..of("token create", About::Name(id), Some(by))
            },
            Self::RevokeToken { id, by } => of("token revoke", About::Name(id), Some(by)),
            Self::Exchange { step, by, .. } => {
                let (what, detail) = match step {
                    Exchange::Begin => ("authority rotate begin", ""),
                    Exchange::Finish { force: false } => ("authority rotate finish", ""),
                    Exchange::Finish { force: true } => ("authority rotate finish", "forced"),
                };
                Action {
                    detail: detail.to_owned(),
                    ..of(what, About::Name("authority"), Some(by))
                }
            }
            Self::AddAccess { name, role, by, .. } => Action {
                detail: role.text().to_owned(),
                ..of("access create", About::Name(name), Some(by))
            },
            Self::RevokeAccess { name, by } => of("access revoke", About::Name(name), Some(by)),
            _ => return settings::action(self),
        })
    }

    /// What the audit record has of it; none for what only reads, and for a node's own enrolment.
    #[must_use]
    pub fn action(&self) -> Option<Action<'_>> {
        let of = Action::plain;
        Some(match self {
            Self::AcceptGone { .. }
            | Self::ForgetNode { .. }
            | Self::ReleaseQuarantine { .. }
            | Self::Drain { .. }
            | Self::ChangeNode { .. } => return self.action_on_node(),
            Self::Submit { .. }
            | Self::Cancel { .. }
            | Self::Pause { .. }
            | Self::ForgetRun { .. }
            | Self::Retry { .. }
            | Self::Answer { .. } => return self.action_on_run(),
            Self::AddToken { .. }
            | Self::RevokeToken { .. }
            | Self::Exchange { .. }
            | Self::AddAccess { .. }
            | Self::RevokeAccess { .. }
            | Self::Configure { .. }
            | Self::Settings { .. } => return self.action_on_fleet(),
            Self::CreateSchedule { name, by, .. } => {
                of("schedule create", About::Name(name), Some(by))
            }
            Self::AskSchedule { name, ask, by } => of(ask.text(), About::Name(name), Some(by)),
            Self::BackupTaken { number, by } => of("backup read", About::Name(number), Some(by)),
            Self::BackupDone { place, by, .. } => of("backup create", About::Name(place), Some(by)),
            Self::Enrol { .. }
            | Self::EnrolledBefore { .. }
            | Self::Certify { .. }
            | Self::Revoke { .. }
            | Self::Tokens
            | Self::MakeRoom { .. }
            | Self::Carriers { .. }
            | Self::GetToken { .. }
            | Self::Runs { .. }
            | Self::Run { .. }
            | Self::Tasks { .. }
            | Self::Task { .. }
            | Self::Explain { .. }
            | Self::Workflow { .. }
            | Self::Nodes
            | Self::Node { .. }
            | Self::Waits
            | Self::Conflicts { .. }
            | Self::RunsChangedSince { .. }
            | Self::Access
            | Self::Events { .. }
            | Self::Backup
            | Self::Audit { .. }
            | Self::NodeWork { .. }
            | Self::SyncStatus { .. }
            | Self::Ground { .. }
            | Self::Figures
            | Self::Schedules
            | Self::Schedule { .. }
            | Self::NextSlots { .. } => return None,
        })
    }

    /// Who asks, as the client says: replaced by the name of the token where one was shown.
    pub fn by_mut(&mut self) -> Option<&mut String> {
        match self {
            Self::Submit { by, .. }
            | Self::Cancel { by, .. }
            | Self::Pause { by, .. }
            | Self::AcceptGone { by, .. }
            | Self::ForgetNode { by, .. }
            | Self::ReleaseQuarantine { by, .. }
            | Self::Drain { by, .. }
            | Self::Configure { by, .. }
            | Self::ChangeNode { by, .. }
            | Self::ForgetRun { by, .. }
            | Self::Answer { by, .. }
            | Self::Retry { by, .. }
            | Self::AddAccess { by, .. }
            | Self::RevokeToken { by, .. }
            | Self::Exchange { by, .. }
            | Self::CreateSchedule { by, .. }
            | Self::AskSchedule { by, .. }
            | Self::RevokeAccess { by, .. }
            | Self::AddToken { by, .. }
            | Self::BackupTaken { by, .. }
            | Self::BackupDone { by, .. } => Some(by),
            Self::Enrol { .. }
            | Self::EnrolledBefore { .. }
            | Self::Certify { .. }
            | Self::Revoke { .. }
            | Self::Tokens
            | Self::MakeRoom { .. }
            | Self::Carriers { .. }
            | Self::GetToken { .. }
            | Self::Runs { .. }
            | Self::Run { .. }
            | Self::Tasks { .. }
            | Self::Task { .. }
            | Self::Explain { .. }
            | Self::Workflow { .. }
            | Self::Nodes
            | Self::Node { .. }
            | Self::Waits
            | Self::Settings { .. }
            | Self::Conflicts { .. }
            | Self::RunsChangedSince { .. }
            | Self::Access
            | Self::Events { .. }
            | Self::Backup
            | Self::Schedules
            | Self::Schedule { .. }
            | Self::NextSlots { .. }
            | Self::Audit { .. }
            | Self::Figures
            | Self::NodeWork { .. }
            | Self::SyncStatus { .. }
            | Self::Ground { .. } => None,
        }
    }
}
