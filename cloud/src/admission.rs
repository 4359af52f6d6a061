//! The door for agents: how many of those that call are looked after at once. When a coordinator
//! comes back its whole fleet calls together, and none of it may fail by a time-out.
//!
//! Handshakes cost the processor most: a few are worked on at a time, in the order in which they
//! came. A hello costs a commit: those beyond a bound are told when to call again.

use shared::ids::NodeId;
use shared::time::Span;
use shared::wire::{Down, Refusal, Refuse};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Hellos that are judged at once, unless told otherwise. Each waits for a commit that it shares
/// with all that arrived meanwhile, so this many pile up only where a commit takes very long.
pub const HELLOS_AT_ONCE: usize = 256;
/// Handshakes that are worked on at once. The socket is read between their steps: with 500 at once
/// it waited for a third of a second, its buffer overflowed, and callers waited for their own
/// repetitions, 1, 2, 4 s.
const HANDSHAKES: usize = 32;
/// Of these, handshakes with callers that did not prove their address: the others are asked to, so
/// that first packets with forged addresses leave turns for callers that exist.
const UNPROVEN: usize = HANDSHAKES / 2;
/// How long a handshake keeps others from beginning: a far peer, or one that says no more, holds
/// nobody up.
const TURN: Duration = Duration::from_millis(100);
/// How long a handshake waits for its turn. Agents give a dial up after 10 s: work on one that was
/// given up would only delay those that were not.
const WAIT: Duration = Duration::from_secs(8);
/// Callers that are told to come back within one second.
const A_SECOND: u64 = 200;
/// Longest hint, in seconds.
const LONGEST: u64 = 30;

/// The door.
#[derive(Debug)]
pub(crate) struct Admission {
    turns: Semaphore,
    unproven: Arc<Semaphore>,
    places: Semaphore,
    at_once: usize,
    /// Told to call again since the door was last half empty.
    told: AtomicU64,
    /// What became of callers, for the figures.
    pub(crate) counts: Counts,
}

/// What became of those that called since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    made: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    later: AtomicU64,
    again: AtomicU64,
}

impl Counts {
    /// Handshakes by their end, and sessions that were told to call again.
    pub(crate) fn each(&self) -> [(&'static str, u64); 5] {
        [
            ("made", self.made.load(Ordering::Relaxed)),
            ("failed", self.failed.load(Ordering::Relaxed)),
            ("refused", self.refused.load(Ordering::Relaxed)),
            ("told_later", self.later.load(Ordering::Relaxed)),
            ("asked_again", self.again.load(Ordering::Relaxed)),
        ]
    }

    /// A handshake came to its end.
    pub(crate) fn ended(&self, made: bool) {
        let of = if made { &self.made } else { &self.failed };
        of.fetch_add(1, Ordering::Relaxed);
    }

    /// One was turned away before its handshake.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

impl Admission {
    /// A door for this many hellos at once; at least one.
    pub(crate) fn of(hellos: usize) -> Self {
        let at_once = hellos.max(1);
        Self {
            turns: Semaphore::new(HANDSHAKES),
            unproven: Arc::new(Semaphore::new(UNPROVEN)),
            places: Semaphore::new(at_once),
            at_once,
            told: AtomicU64::new(0),
            counts: Counts::default(),
        }
    }

    /// A place for a handshake with a caller that did not prove its address, held until it ends;
    /// none if the caller is to be asked.
    pub(crate) fn unproven(&self) -> Option<OwnedSemaphorePermit> {
        let place = self.unproven.clone().try_acquire_owned().ok();
        if place.is_none() {
            self.counts.again.fetch_add(1, Ordering::Relaxed);
        }
        place
    }

    /// Does `handshake` when its turn has come; none if that took so long that its peer has given
    /// up by now.
    pub(crate) async fn handshake<F: Future>(
        &self,
        handshake: impl FnOnce() -> F,
    ) -> Option<F::Output> {
        let turn = tokio::time::timeout(WAIT, self.turns.acquire()).await;
        let turn = turn.ok()?.ok();
        let mut work = std::pin::pin!(handshake());
        match tokio::time::timeout(TURN, &mut work).await {
            Ok(done) => Some(done),
            Err(_) => {
                drop(turn);
                Some(work.await)
            }
        }
    }

    /// A place for a hello, held until it is answered.
    ///
    /// # Errors
    /// The answer for one that finds no place: when to call again.
    pub(crate) fn enter(&self, node: NodeId) -> Result<SemaphorePermit<'_>, Down> {
        if let Ok(place) = self.places.try_acquire() {
            if self.places.available_permits() * 2 >= self.at_once {
                self.told.store(0, Ordering::Relaxed);
            }
            return Ok(place);
        }
        self.counts.later.fetch_add(1, Ordering::Relaxed);
        let before = self.told.fetch_add(1, Ordering::Relaxed);
        let seconds = (1 + before / A_SECOND).min(LONGEST);
        tracing::info!(%node, seconds, "told to call again: too many call at once");
        Err(Down::Refuse(Refuse {
            reason: Refusal::Busy,
            text: "too many agents call at once".to_owned(),
            retry_after: Some(Span::secs(seconds)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinSet;

    #[test]
    fn who_finds_no_place_is_told_later_and_later_when_to_call() {
        let door = Admission::of(2);
        let hint = |door: &Admission| match door.enter(NodeId([1; 16])) {
            Err(Down::Refuse(refuse)) => refuse.retry_after.map(|span| span.0),
            _ => None,
        };
        let first = door.enter(NodeId([1; 16]));
        let second = door.enter(NodeId([1; 16]));
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(hint(&door), Some(1000));
        for _ in 0..A_SECOND {
            let _ = hint(&door);
        }
        assert_eq!(hint(&door), Some(2000));
        for _ in 0..A_SECOND * LONGEST {
            let _ = hint(&door);
        }
        assert_eq!(hint(&door), Some(30_000));
        drop((first, second));
        // the rush is over: the next one begins with short hints again
        let first = door.enter(NodeId([1; 16]));
        let second = door.enter(NodeId([1; 16]));
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(hint(&door), Some(1000));
    }

    #[tokio::test]
    async fn handshakes_take_turns_and_stuck_ones_hold_nobody_up_for_long() {
        let door = Arc::new(Admission::of(1));
        let mut stuck = JoinSet::new();
        for _ in 0..HANDSHAKES {
            let door = door.clone();
            stuck.spawn(async move { door.handshake(std::future::pending::<()>).await });
        }
        while door.turns.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(door.turns.try_acquire().is_err(), "all turns are taken");
        assert_eq!(door.handshake(|| async { 7 }).await, Some(7));
        assert_eq!(stuck.len(), HANDSHAKES, "none of them has ended");
    }
}
