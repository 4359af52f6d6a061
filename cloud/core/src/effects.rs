//! What a step of one aggregate wants stored besides its own state.

use crate::inbox::{Message, Post};
use crate::store::{AggregateId, Entry, EventId, Prune, Segment};
use shared::wire::LogId;

/// Collected between two commits for one aggregate.
#[derive(Debug, Default)]
pub struct Effects {
    /// Numbered messages to others.
    pub sends: Vec<(AggregateId, u64, Message)>,
    /// Messages folded.
    pub drained: Vec<(AggregateId, u64)>,
    /// Events answered.
    pub events: Vec<EventId>,
    /// Rows changed.
    pub rows: Vec<(String, Option<Vec<u8>>)>,
    /// Facts received.
    pub facts: Vec<Segment>,
    /// Entries of a directive log to drop.
    pub truncate: Option<(LogId, u64)>,
    /// New directives.
    pub directives: Vec<(LogId, Entry)>,
    /// Old entries that go.
    pub prune: Vec<Prune>,
}

impl Effects {
    /// Sends `message`, numbered by the sender's counter.
    pub fn send(&mut self, post: &mut Post, to: AggregateId, message: Message) {
        post.sent += 1;
        self.sends.push((to, post.sent, message));
    }
}
