//! The record aggregate: what happened, for people and programs. Two numbered lists, each a window
//! that moves on: events, and the audit of what operators asked for.
//!
//! Invariant: an entry is in the same commit as what it tells, so that neither is there without the
//! other. Numbers have no gap and are never used again (a store that is put back apart).
//!
//! An event tells how a committed state differs from the one committed before, so the events of one
//! commit are bounded by what changed, and several changes of one task in one commit are one event.

use crate::store::AggregateId;
use serde::{Deserialize, Serialize};
use shared::explain::Reason;
use shared::ids::{Generation, NodeId, RunId};
use shared::log::{self, LAST_NUMBER};
use shared::state::{NodeState, RunState, TaskState};
use shared::time::{Span, Unix};
use std::collections::VecDeque;

/// Changes of tasks of one run that one commit tells one by one; of more it tells the numbers.
pub const TASKS_PER_COMMIT: usize = 256;
/// Rows of one list that are kept, whatever their size.
pub const ROWS: usize = 32_768;
/// Longest text of an audit entry that a request brought along.
const TEXT: usize = 1024;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of events.
    pub events: u64,
    /// Bytes of the audit record.
    pub audit: u64,
    /// Age of the audit record.
    pub audit_age: Span,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            events: 16 << 20,
            audit: 16 << 20,
            audit_age: Span::secs(400 * 86_400),
        }
    }
}

/// State of the record aggregate; the entries are its rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Head {
    /// Number of the last event.
    #[serde(deserialize_with = "log::number")]
    pub events: u64,
    /// Number of the last audit entry.
    #[serde(deserialize_with = "log::number")]
    pub audit: u64,
}

/// An operator's action.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Audited {
    /// When, by the coordinator's wall clock.
    pub at: Unix,
    /// Name of the token, or of the local user as the client gave it.
    pub who: String,
    /// A token was shown, so the name is proven.
    pub token: bool,
    /// The address that it came from.
    pub from: String,
    /// Which action, as the command is called: `run cancel`.
    pub what: String,
    /// What it was done to: a run, a node, a name.
    pub about: String,
    /// More of it, for people.
    pub detail: String,
    /// Why it was refused; none: it was done.
    pub refused: Option<String>,
}

/// What the audit record says of a request that was sent before.
const REPEATED: &str = "sent again: nothing more was done";

impl Audited {
    /// Of a request that was sent before and did nothing this time.
    pub(crate) fn repeated(mut self) -> Self {
        self.detail = match self.detail.as_str() {
            "" => REPEATED.to_owned(),
            detail => format!("{detail}; {REPEATED}"),
        };
        self
    }

    /// The same with its texts bounded.
    pub(crate) fn bounded(mut self) -> Self {
        let refused = self.refused.iter_mut();
        let texts = [&mut self.who, &mut self.about, &mut self.detail];
        for text in texts.into_iter().chain(refused) {
            *text = bounded(std::mem::take(text));
        }
        self
    }
}

/// A text for people, cut off where it is too long.
pub(crate) fn bounded(mut text: String) -> String {
    if text.len() > TEXT {
        let end = (0..=TEXT).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

/// What happened. Kinds are only appended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum What {
    /// The coordinator started (or started over after its store failed): no session of before
    /// lives.
    Began {
        /// Life of the store.
        generation: Generation,
        /// Why, if it started over.
        why: String,
    },
    /// A run is in another state.
    Run {
        /// Which.
        run: RunId,
        /// Name of its workflow.
        workflow: String,
        /// The state.
        state: RunState,
        /// The state before; none if it is new.
        was: Option<RunState>,
    },
    /// A run was forgotten.
    RunForgotten {
        /// Which.
        run: RunId,
    },
    /// A task is in another state.
    Task {
        /// Its run.
        run: RunId,
        /// Its id in the specification.
        task: String,
        /// The state.
        state: TaskState,
        /// The node that owns it.
        node: Option<NodeId>,
        /// Why.
        reason: Option<Reason>,
    },
    /// So many tasks of a run are in other states that only their numbers are told.
    Tasks {
        /// The run.
        run: RunId,
        /// How many came into which state.
        states: Vec<(TaskState, u32)>,
    },
    /// A node is in another state, or has another session.
    Node {
        /// Which.
        node: NodeId,
        /// Its name.
        name: String,
        /// The state.
        state: NodeState,
        /// Number of its live session.
        session: Option<u64>,
    },
    /// Facts were recorded and not applied.
    Conflict {
        /// The run that they are about.
        run: RunId,
        /// How many in this commit.
        count: u64,
        /// Whose the last is.
        node: NodeId,
        /// Number of the last.
        fact: u64,
        /// Why the last does not count.
        reason: Reason,
    },
    /// An operator's action was done.
    Action(Audited),
    /// A node joined (or took the place of one) and has its certificate.
    Enrolled {
        /// Which.
        node: NodeId,
        /// Its name.
        name: String,
    },
}

impl What {
    /// Names of all kinds.
    pub const KINDS: &'static [&'static str] = &[
        "began",
        "run",
        "run_forgotten",
        "task",
        "tasks",
        "node",
        "conflict",
        "action",
        "enrolled",
    ];

    /// Its kind, as people and programs see it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        let at = match self {
            Self::Began { .. } => 0,
            Self::Run { .. } => 1,
            Self::RunForgotten { .. } => 2,
            Self::Task { .. } => 3,
            Self::Tasks { .. } => 4,
            Self::Node { .. } => 5,
            Self::Conflict { .. } => 6,
            Self::Action(_) => 7,
            Self::Enrolled { .. } => 8,
        };
        Self::KINDS[at]
    }
}

/// An event; its number is that of its row's first, plus its position.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// When it was decided, by the coordinator's wall clock.
    pub at: Unix,
    /// What happened.
    pub what: What,
}

/// Changed rows of the aggregate.
pub type Rows = Vec<(String, Option<Vec<u8>>)>;

/// Which row holds what of a list, oldest first.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    prefix: char,
    last: u64,
    rows: VecDeque<Row>,
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    first: u64,
    at: Unix,
    bytes: u32,
}

/// First letter of the rows of events.
pub const EVENTS: char = 'e';
/// First letter of the rows of the audit record.
pub const AUDIT: char = 'a';

/// Name of the row of `prefix` whose first entry has this number.
#[must_use]
pub fn row(prefix: char, first: u64) -> String {
    format!("{prefix}{first:016x}")
}

impl Window {
    pub(crate) fn new(prefix: char, last: u64) -> Self {
        Self {
            prefix,
            last,
            rows: VecDeque::new(),
            bytes: 0,
        }
    }

    /// A row that is stored, in the order of their names.
    pub(crate) fn stored(&mut self, name: &str, at: Unix, bytes: usize) {
        let first = u64::from_str_radix(name.trim_start_matches(self.prefix), 16);
        if let Some(first) = first.ok().filter(|first| *first <= LAST_NUMBER) {
            self.keep(first, at, bytes);
        }
    }

    fn keep(&mut self, first: u64, at: Unix, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.bytes += u64::from(bytes);
        self.rows.push_back(Row { first, at, bytes });
    }

    /// Number of the last entry.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// When the newest row was told.
    pub(crate) fn newest(&self) -> Option<Unix> {
        self.rows.back().map(|row| row.at)
    }

    /// Number of the first entry that is still there.
    pub(crate) fn first(&self) -> u64 {
        self.rows.front().map_or(self.last + 1, |row| row.first)
    }

    /// Adds entries as one row.
    pub(crate) fn append<T: Serialize>(&mut self, entries: &[T], at: Unix, rows: &mut Rows) {
        if entries.is_empty() {
            return;
        }
        let (first, value) = (self.last + 1, shared::codec::encode(entries));
        self.keep(first, at, value.len());
        self.last += entries.len() as u64;
        rows.push((row(self.prefix, first), Some(value)));
    }

    /// Drops the oldest rows beyond `bytes` or older than `before`; the last row stays.
    pub(crate) fn expire(&mut self, bytes: u64, before: Unix, rows: &mut Rows) {
        while self.rows.len() > 1 {
            let Some(oldest) = self.rows.front().copied() else {
                return;
            };
            let over = self.bytes > bytes || self.rows.len() > ROWS || oldest.at < before;
            if !over {
                return;
            }
            self.rows.pop_front();
            self.bytes -= u64::from(oldest.bytes);
            rows.push((row(self.prefix, oldest.first), None));
        }
    }

    /// First numbers of the rows that hold entries behind `after`, and their names.
    pub(crate) fn behind(&self, after: u64) -> impl Iterator<Item = (u64, String)> + '_ {
        let from = self
            .rows
            .partition_point(|row| row.first <= after.saturating_add(1));
        let rows = self.rows.range(from.saturating_sub(1)..);
        rows.map(|one| (one.first, row(self.prefix, one.first)))
    }
}

/// The aggregate.
pub const RECORD: AggregateId = AggregateId::Record;

#[cfg(test)]
mod tests {
    use super::*;

    fn window(sizes: &[usize]) -> (Window, Rows) {
        let (mut window, mut rows) = (Window::new(EVENTS, 0), Rows::new());
        for (at, size) in sizes.iter().enumerate() {
            window.append(&vec![7_u8; *size], Unix(at as i64), &mut rows);
        }
        (window, rows)
    }

    #[test]
    fn numbers_go_on_and_rows_are_found_by_them() {
        let (window, rows) = window(&[3, 1, 0, 2]);
        assert_eq!((window.first(), window.last(), rows.len()), (1, 6, 3));
        let behind = |after| {
            window
                .behind(after)
                .map(|(first, _)| first)
                .collect::<Vec<_>>()
        };
        assert_eq!(behind(0), [1, 4, 5]);
        assert_eq!(behind(2), [1, 4, 5]);
        assert_eq!(behind(3), [4, 5]);
        assert_eq!(behind(4), [5]);
        assert_eq!(behind(6), [5]);
    }

    #[test]
    fn a_window_is_bounded_by_bytes_and_age_and_comes_back_from_its_rows() {
        let (mut all, mut rows) = window(&[10, 10, 10, 10]);
        let row_bytes = all.bytes / 4;
        all.expire(3 * row_bytes, Unix(0), &mut rows);
        assert_eq!(all.first(), 11);
        all.expire(u64::MAX, Unix(2), &mut rows);
        assert_eq!(all.first(), 21);
        all.expire(0, Unix(9), &mut rows);
        assert_eq!((all.first(), all.last()), (31, 40), "the last row stays");
        let mut back = Window::new(EVENTS, 40);
        let kept = rows.iter().filter(|(_, value)| value.is_some()).skip(3);
        for (name, value) in kept {
            back.stored(name, Unix(3), value.as_ref().unwrap().len());
        }
        assert_eq!((back.first(), back.bytes), (31, all.bytes));
    }

    #[test]
    fn long_texts_are_cut_at_a_letter() {
        let entry = Audited {
            at: Unix(0),
            who: "é".repeat(2000),
            token: false,
            from: String::new(),
            what: String::new(),
            about: String::new(),
            detail: String::new(),
            refused: Some("x".repeat(5000)),
        };
        let entry = entry.bounded();
        assert!(entry.who.len() <= TEXT + 3 && entry.who.ends_with('…'));
        assert!(entry.refused.unwrap().len() <= TEXT + 3);
    }
}
