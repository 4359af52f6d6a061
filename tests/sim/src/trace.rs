//! What happened, twice: as one hash (the same seed gives the same one) and, when asked for, as a
//! timeline for people with one lane per machine.

use crate::queue::{SEC, Time};
use crate::rng::mix;

/// Whose lane a line stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// A gateway.
    Node(usize),
    /// The coordinator.
    Cloud,
    /// The world.
    World,
}

impl Lane {
    fn code(self) -> u64 {
        match self {
            Self::World => 0,
            Self::Cloud => 1,
            Self::Node(n) => 2 + n as u64,
        }
    }
}

/// What a line of the timeline is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// What machines do.
    Talk,
    /// A fault strikes.
    Fault,
    /// Somebody does something.
    Deed,
    /// A backup, or a restore.
    Backup,
    /// Another phase of the seed begins.
    Phase,
    /// A promise is broken.
    Violation,
}

/// A line that gets a mark in a drawing.
#[derive(Debug, Clone)]
pub struct Note {
    /// When.
    pub at: Time,
    /// Whose.
    pub lane: Lane,
    /// About what.
    pub sort: Sort,
    /// What happened.
    pub text: String,
}

/// The trace of one seed.
#[derive(Default)]
pub struct Trace {
    hash: u64,
    /// Takes lines for people, if they are wanted.
    lines: Option<Sink>,
    /// Lines of what happens now: time and lane, text.
    fresh: Vec<(Time, Lane, String)>,
    /// The state that was last seen beside lines.
    state: String,
    /// What gets a mark in a drawing, if lines are wanted.
    notes: Vec<Note>,
}

/// Lines of one event that are held back until its end is seen: one that does not end is seen, too.
const HELD: usize = 100;

/// Takes lines as they come.
pub type Sink = Box<dyn FnMut(&str) + Send>;

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trace")
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

impl Trace {
    /// With lines for people or without.
    #[must_use]
    pub fn new(lines: Option<Sink>) -> Self {
        Self {
            lines,
            ..Self::default()
        }
    }

    /// Something happened: it is mixed into the hash.
    pub fn mark(&mut self, at: Time, lane: Lane, code: u64, detail: u64) {
        self.hash = mix(self.hash ^ at)
            .wrapping_add(mix(code << 8 | lane.code()))
            .rotate_left(17)
            ^ detail;
    }

    /// Something that people want to see happened.
    pub fn say(&mut self, at: Time, lane: Lane, text: impl FnOnce() -> String) {
        if self.lines.is_some() {
            self.hold(at, lane, text());
        }
    }

    fn hold(&mut self, at: Time, lane: Lane, text: String) {
        self.fresh.push((at, lane, text));
        if self.fresh.len() >= HELD {
            let state = std::mem::take(&mut self.state);
            self.flush(&state);
        }
    }

    /// Something happened that gets a mark in a drawing.
    pub fn note(&mut self, at: Time, lane: Lane, sort: Sort, text: impl FnOnce() -> String) {
        if self.lines.is_none() {
            return;
        }
        let text = text();
        self.hold(at, lane, text.clone());
        if sort != Sort::Talk {
            self.notes.push(Note {
                at,
                lane,
                sort,
                text,
            });
        }
    }

    /// Hands on the lines of what just happened, each beside the `state` of all lanes after it.
    pub fn flush(&mut self, state: &str) {
        let Some(lines) = &mut self.lines else {
            return;
        };
        for (at, lane, text) in self.fresh.drain(..) {
            let name = match lane {
                Lane::World => "world".to_owned(),
                Lane::Cloud => "cloud".to_owned(),
                Lane::Node(n) => crate::workload::node_name(n),
            };
            lines(&format!("{}  {state}  {name:<6} {text}", clock(at)));
        }
        state.clone_into(&mut self.state);
    }

    /// Whether something was said that is not handed on.
    #[must_use]
    pub fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// What gets a mark in a drawing.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// The hash of everything so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

/// `h:mm:ss.mmm` since the world began.
#[must_use]
pub fn clock(at: Time) -> String {
    let seconds = at / SEC;
    format!(
        "{}:{:02}:{:02}.{:03}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        at % SEC / 1_000_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_content_both_count() {
        let (send, receive) = std::sync::mpsc::channel();
        let sink: Sink = Box::new(move |line| drop(send.send(line.to_owned())));
        let mut one = Trace::new(Some(sink));
        one.mark(1, Lane::Cloud, 2, 3);
        one.mark(1, Lane::Node(0), 2, 3);
        let mut two = Trace::new(None);
        two.mark(1, Lane::Node(0), 2, 3);
        two.mark(1, Lane::Cloud, 2, 3);
        assert_ne!(one.hash(), two.hash());
        one.say(3_661_000_000_000, Lane::Node(1), || "hello".to_owned());
        one.flush("| x |");
        assert_eq!(
            receive.try_recv().as_deref(),
            Ok("1:01:01.000  | x |  gw-2   hello")
        );
        // an event that does not end is seen beside the last state
        for _ in 0..HELD + 7 {
            one.say(0, Lane::Node(1), || "again".to_owned());
        }
        let lines: Vec<String> = receive.try_iter().collect();
        assert_eq!(lines.len(), HELD);
        assert!(
            lines
                .iter()
                .all(|line| line == "0:00:00.000  | x |  gw-2   again")
        );
    }
}
