//! What the relay did and when: one JSON object a line, and the windows that follow from them.

use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// What was done to a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Nothing passes from now on.
    Cut,
    /// Nothing passes down from now on.
    Mute,
    /// Everything passes from now on.
    Join,
    /// The lane has a new port towards the coordinator.
    Rebind,
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Boot clock, milliseconds.
    pub mono_ms: u64,
    /// Name of the lane.
    pub lane: String,
    /// What was done.
    pub what: What,
}

/// A time without a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Name of the lane.
    pub lane: String,
    /// From this moment of the boot clock, in milliseconds.
    pub from_ms: u64,
    /// Up to this one; for good if absent.
    pub to_ms: Option<u64>,
}

impl Window {
    /// Whether all of `from..=to` lies within.
    #[must_use]
    pub fn holds(&self, from: u64, to: u64) -> bool {
        self.from_ms <= from && self.to_ms.is_none_or(|end| to < end)
    }
}

/// Reads the log of a relay.
///
/// # Errors
/// If it cannot be read, or a line is not one of a relay.
pub fn read(path: &Path) -> io::Result<Vec<Line>> {
    let text = std::fs::read_to_string(path)?;
    text.lines()
        .map(|line| serde_json::from_str(line).map_err(io::Error::from))
        .collect()
}

/// The times in which a lane passed nothing, in the order in which they began.
#[must_use]
pub fn windows(lines: &[Line]) -> Vec<Window> {
    let mut windows: Vec<Window> = Vec::new();
    for line in lines {
        let open = windows
            .iter_mut()
            .find(|w| w.lane == line.lane && w.to_ms.is_none());
        match (line.what, open) {
            (What::Cut, None) => windows.push(Window {
                lane: line.lane.clone(),
                from_ms: line.mono_ms,
                to_ms: None,
            }),
            (What::Join | What::Mute, Some(window)) => window.to_ms = Some(line.mono_ms),
            _ => {}
        }
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_last_from_cut_to_join() {
        let line = |mono_ms, lane: &str, what| Line {
            mono_ms,
            lane: lane.to_owned(),
            what,
        };
        let lines = [
            line(5, "a", What::Mute),
            line(10, "a", What::Cut),
            line(11, "b", What::Cut),
            line(12, "a", What::Cut),
            line(20, "a", What::Join),
            line(25, "c", What::Join),
        ];
        let windows = windows(&lines);
        assert_eq!(windows.len(), 2);
        assert_eq!((windows[0].from_ms, windows[0].to_ms), (10, Some(20)));
        assert_eq!((windows[1].lane.as_str(), windows[1].to_ms), ("b", None));
        assert!(windows[0].holds(10, 19) && !windows[0].holds(9, 19) && !windows[0].holds(10, 20));
        assert!(windows[1].holds(11, u64::MAX));
    }
}
