//! What the service manager is told: that the agent is ready, that its loop turns, that it stops.
//! Where nobody listens (`NOTIFY_SOCKET` is not set) nothing is told.

use sd_notify::{NotifyState, notify, watchdog_enabled};
use std::time::{Duration, Instant};

/// What a stop may take beyond the grace of the tasks.
const STOP_MARGIN: Duration = Duration::from_secs(15);
/// How often the service manager is asked for more time to stop, and for how much, µs.
const EXTEND: Duration = Duration::from_secs(10);
const EXTENSION_USEC: u32 = 30_000_000;

/// Tells the service manager that the loop turns, as often as it wants to hear it.
#[derive(Debug)]
pub(crate) struct Watchdog {
    /// Half of the time after which the service manager takes the agent for stuck.
    every: Option<Duration>,
    due: Instant,
}

impl Watchdog {
    /// As the service manager asked for in the environment.
    pub(crate) fn of_environment() -> Self {
        Self::every(watchdog_enabled().map(|limit| limit / 2))
    }

    fn every(every: Option<Duration>) -> Self {
        let due = Instant::now();
        Self { every, due }
    }

    /// How long the loop may sleep.
    pub(crate) fn left(&self) -> Duration {
        match self.every {
            Some(_) => self.due.saturating_duration_since(Instant::now()),
            None => Duration::MAX,
        }
    }

    /// A turn was taken.
    pub(crate) fn turned(&mut self, headline: impl FnOnce() -> String) {
        let Some(every) = self.every else {
            return;
        };
        let now = Instant::now();
        if now >= self.due {
            self.due = now + every;
            tell(&[NotifyState::Watchdog, NotifyState::Status(&headline())]);
        }
    }
}

/// All work of before is resumed, and local commands are answered.
pub(crate) fn ready(headline: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(headline)]);
}

/// The agent stops, and its tasks with it.
pub(crate) fn stopping() {
    let text = "stopping: tasks have their grace to end";
    tell(&[NotifyState::Stopping, NotifyState::Status(text)]);
}

/// A stop ends within the grace of its tasks and a little more, whatever hangs: what is left is
/// taken for a crash by the next start.
pub(crate) fn bound_the_stop(grace: Duration) {
    let watch = move || {
        let end = Instant::now() + grace + STOP_MARGIN;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            // However short the unit's own limit is (`TimeoutStopSec=`).
            tell(&[NotifyState::ExtendTimeoutUsec(EXTENSION_USEC)]);
            std::thread::sleep(left.min(EXTEND));
        }
        tracing::error!("the stop takes too long; leaving at once");
        std::process::abort();
    };
    if let Err(error) = std::thread::Builder::new().name("stop".into()).spawn(watch) {
        tracing::warn!(%error, "the stop is not watched");
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_watchdog_the_loop_sleeps_as_long_as_it_likes() {
        let mut none = Watchdog::every(None);
        none.turned(|| unreachable!("nobody asked"));
        assert_eq!(none.left(), Duration::MAX);
        let mut some = Watchdog::every(Some(Duration::from_secs(3600)));
        assert_eq!(some.left(), Duration::ZERO, "the first turn tells");
        some.turned(String::new);
        assert!(some.left() > Duration::from_secs(1800));
    }
}
