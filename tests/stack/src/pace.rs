//! Virtual time: one tokio runtime that goes on only as far as it is told to.

use sim::queue::{MS, Time};
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::runtime::{EnterGuard, Runtime};
use tokio::time::{Instant, sleep_until};

/// A runtime whose clock stands still but when it is let on. It counts in whole milliseconds, as
/// tokio's timers do.
#[derive(Debug)]
pub(crate) struct Pace {
    runtime: Runtime,
    clock: Clock,
    gate: Arc<Gate>,
}

/// What time it is in a runtime.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// Milliseconds since the world began.
    pub(crate) fn ms(self) -> u64 {
        (Instant::now() - self.0).as_millis() as u64
    }

    /// The same as the world counts.
    pub(crate) fn time(self) -> Time {
        self.ms() * MS
    }

    /// When it will be so late.
    pub(crate) fn at(self, ms: u64) -> Instant {
        self.0 + Duration::from_millis(ms)
    }
}

/// Decides, whenever no task can go on, whether time may pass.
#[derive(Debug, Default)]
struct Gate {
    /// Time may pass once more.
    may_pass: AtomicBool,
    /// Passing is over: whoever waits for it goes on.
    over: AtomicBool,
    /// Where it ends.
    until_ms: AtomicU64,
    waits: Mutex<Option<Waker>>,
}

impl Gate {
    fn idle(&self, now_ms: u64) {
        let there = now_ms >= self.until_ms.load(Ordering::Relaxed);
        if there || !self.may_pass.swap(false, Ordering::Relaxed) {
            self.over.store(true, Ordering::Relaxed);
            let waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(waker) = &*waits {
                waker.wake_by_ref();
            }
        }
    }

    fn passed(&self) -> impl Future<Output = ()> {
        poll_fn(|cx| {
            if self.over.swap(false, Ordering::Relaxed) {
                return Poll::Ready(());
            }
            let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
            *waits = Some(cx.waker().clone());
            Poll::Pending
        })
    }
}

impl Pace {
    pub(crate) fn new() -> std::io::Result<Self> {
        let gate = Arc::<Gate>::default();
        let begun: Arc<Mutex<Option<Clock>>> = Arc::default();
        let (own, known) = (Arc::clone(&gate), Arc::clone(&begun));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            // later than at the start a part of a millisecond of real time has passed
            .start_paused(true)
            .on_thread_park(move || {
                let clock = *known.lock().unwrap_or_else(PoisonError::into_inner);
                own.idle(clock.map_or(0, Clock::ms));
            })
            .build()?;
        let clock = {
            let _in_it = runtime.enter();
            Clock(Instant::now())
        };
        *begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock);
        Ok(Self {
            runtime,
            clock,
            gate,
        })
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// Whoever spawns tasks or makes endpoints does it within.
    pub(crate) fn enter(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    /// Lets all tasks go on that can, then time pass to the next timer and whom that wakes go on,
    /// but not beyond `until_ms`. The time then, and whether it is `until_ms`.
    pub(crate) fn step(&self, until_ms: u64) -> (u64, bool) {
        let Self {
            runtime,
            clock,
            gate,
        } = self;
        gate.until_ms.store(until_ms, Ordering::Relaxed);
        gate.may_pass.store(true, Ordering::Relaxed);
        runtime.block_on(async {
            let mut limit = std::pin::pin!(sleep_until(clock.at(until_ms)));
            let mut passed = std::pin::pin!(gate.passed());
            poll_fn(|cx| {
                // so that nothing beyond it is next
                let _ = limit.as_mut().poll(cx);
                passed.as_mut().poll(cx)
            })
            .await;
            let now = clock.ms();
            (now, now >= until_ms)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_from_timer_to_timer_and_never_beyond_its_end() {
        let pace = Pace::new().unwrap();
        let clock = pace.clock();
        let seen: Arc<Mutex<Vec<u64>>> = Arc::default();
        let own = Arc::clone(&seen);
        pace.runtime.spawn(async move {
            for at in [3, 7, 4_000_000] {
                sleep_until(clock.at(at)).await;
                own.lock().unwrap().push(clock.ms());
            }
        });
        let mut there = false;
        while !there {
            there = pace.step(5).1;
        }
        assert_eq!(*seen.lock().unwrap(), [3]);
        assert_eq!(pace.step(5), (5, true));
        let mut there = false;
        while !there {
            there = pace.step(5_000_000).1;
        }
        assert_eq!(*seen.lock().unwrap(), [3, 7, 4_000_000]);
    }
}
