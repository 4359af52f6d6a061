//! The way to the loop: one bounded queue, and the loan of a thread.
//!
//! Whoever brings a message wakes the loop's own thread up. A worker of the executor that has
//! nothing left to run lends its thread instead: it takes the loop's turn itself, and often finds
//! its next attempt begun by that, without two threads having waited for each other.

use crate::control::Answer;
use crate::looping::{Ask, Message, Order};
use crate::reading::{Found, Look};
use std::collections::VecDeque;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Messages that wait for the loop; whoever brings more waits with them.
const QUEUE: usize = 4096;

/// Takes a turn of the loop, unless somebody is taking one.
type Turn = dyn Fn() -> bool + Send + Sync;

/// The way to the loop.
#[derive(Debug, Clone, Default)]
pub struct Handle(Arc<Mailbox>);

#[derive(Debug, Default)]
struct Mailbox {
    state: Mutex<State>,
    /// There is something for the loop's thread.
    arrived: Condvar,
    /// There is room for more messages.
    room: Condvar,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Message>,
    /// Until when the loop's thread sleeps; none while it is awake.
    asleep: Option<Instant>,
    /// Turns that were taken.
    turns: u64,
    turn: Option<Arc<Turn>>,
    /// Nobody takes messages any more: who finds the queue full does not wait.
    ending: bool,
    closed: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("messages", &self.messages.len())
            .field("asleep", &self.asleep)
            .finish_non_exhaustive()
    }
}

/// The next turn of the loop, as it stands after one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Next {
    /// When it is due even without a message.
    pub(crate) due: Instant,
    /// The loop is to end.
    pub(crate) over: bool,
}

impl Handle {
    /// Brings a message; waits while the queue is full. A loop that has ended takes nothing more.
    pub fn tell(&self, message: Message) {
        if self.push(message) {
            self.0.arrived.notify_one();
        }
    }

    /// Brings a message from a thread that has nothing else to do: it takes the loop's turn, unless
    /// somebody is taking one.
    pub fn tell_and_lend(&self, message: Message) {
        self.push(message);
        let turn = self.0.lock().turn.clone();
        if !turn.is_some_and(|turn| turn()) {
            self.0.arrived.notify_one();
        }
    }

    /// Asks and waits.
    #[must_use]
    pub fn ask(&self, ask: Ask) -> Answer {
        self.wait_for(|reply| Message::Ask(ask, reply))
    }

    /// Orders and waits until it is durable.
    #[must_use]
    pub fn order(&self, order: Order) -> Answer {
        self.wait_for(|reply| Message::Order(order, reply))
    }

    /// Asks and waits, but not for long.
    pub(crate) fn ask_within(&self, ask: Ask, longest: Duration) -> Option<Answer> {
        let (reply, answer) = sync_channel(1);
        self.tell(Message::Ask(ask, reply));
        answer.recv_timeout(longest).ok()
    }

    /// Looks into the journal.
    ///
    /// # Errors
    /// Why it cannot be read, for people.
    pub(crate) fn read(&self, what: Look) -> Result<Found, String> {
        let (reply, answer) = sync_channel(1);
        self.tell(Message::Look(what, reply));
        answer
            .recv_timeout(Duration::from_secs(50))
            .unwrap_or_else(|_| Err("the agent is stopping or too busy".to_owned()))
    }

    fn wait_for(&self, message: impl FnOnce(SyncSender<Answer>) -> Message) -> Answer {
        let (reply, answer) = sync_channel(1);
        self.tell(message(reply));
        answer
            .recv_timeout(Duration::from_secs(50))
            .unwrap_or_else(|_| Answer::Refused {
                why: "the agent is stopping or too busy; whether it was done is not known"
                    .to_owned(),
            })
    }

    /// Whether the loop's thread is to be woken.
    fn push(&self, message: Message) -> bool {
        let mut state = self.0.lock();
        while state.messages.len() >= QUEUE && !state.ending && !state.closed {
            state = wait(&self.0.room, state);
        }
        if !state.closed && state.messages.len() < QUEUE {
            state.messages.push_back(message);
        }
        state.asleep.is_some()
    }

    /// At most `most` messages, oldest first.
    #[must_use]
    pub fn take(&self, most: usize) -> VecDeque<Message> {
        let mut state = self.0.lock();
        let rest = state.messages.len().min(most);
        let rest = state.messages.split_off(rest);
        let taken = std::mem::replace(&mut state.messages, rest);
        drop(state);
        self.0.room.notify_all();
        taken
    }

    /// From now on idle threads can take turns.
    pub(crate) fn open(&self, turn: Arc<Turn>) {
        self.0.lock().turn = Some(turn);
    }

    /// Nobody takes turns any more, and messages are dropped.
    pub fn close(&self) {
        let mut state = self.0.lock();
        state.turn = None;
        state.closed = true;
        state.messages.clear();
        drop(state);
        self.0.room.notify_all();
    }

    /// Nobody takes turns any more, and nobody waits for room.
    pub(crate) fn end(&self) {
        let mut state = self.0.lock();
        state.turn = None;
        state.ending = true;
        drop(state);
        self.0.room.notify_all();
    }

    /// Turns so far. Only who takes turns may rely on it.
    pub(crate) fn turns(&self) -> u64 {
        self.0.lock().turns
    }

    /// A lent thread has taken a turn: the loop's thread is woken if it sleeps longer than it may.
    pub(crate) fn turned(&self, next: Next) {
        let mut state = self.0.lock();
        state.turns += 1;
        let late = state.asleep.is_some_and(|until| next.due < until);
        let wake = late || next.over || !state.messages.is_empty();
        drop(state);
        if wake {
            self.0.arrived.notify_one();
        }
    }

    /// Waits for a message until `due`. Returns at once if a turn was taken after the `seen`-th:
    /// something else may be due by now.
    pub(crate) fn wait(&self, due: Instant, seen: u64) {
        let mut state = self.0.lock();
        let left = due.saturating_duration_since(Instant::now());
        if state.messages.is_empty() && state.turns == seen && !left.is_zero() {
            state.asleep = Some(due);
            let waited = self.0.arrived.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.asleep = None;
        }
        drop(state);
    }
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wait<'a>(on: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    on.wait(state).unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn never() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[test]
    fn a_message_ends_the_wait_and_comes_in_order() {
        let handle = Handle::default();
        let other = handle.clone();
        let told = std::thread::spawn(move || (0..3).for_each(|_| other.tell(Message::Stop)));
        let mut taken = 0;
        while taken < 3 {
            handle.wait(never(), 0);
            taken += handle.take(2).len();
        }
        told.join().expect("it ends");
        assert!(handle.take(2).is_empty());
    }

    #[test]
    fn an_idle_thread_takes_the_turn_itself_or_wakes_the_loop() {
        let handle = Handle::default();
        let turns = Arc::new(AtomicU64::new(0));
        let (own, count) = (handle.clone(), Arc::clone(&turns));
        handle.open(Arc::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
            // the second time somebody else holds the loop
            count.load(Ordering::Relaxed) == 1 && own.take(10).len() == 1
        }));
        handle.tell_and_lend(Message::Stop);
        assert!(
            handle.take(10).is_empty(),
            "the thread that brought it took it"
        );
        handle.tell_and_lend(Message::Stop);
        handle.wait(never(), 0);
        assert_eq!(handle.take(10).len(), 1);
        assert_eq!(turns.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_turn_between_looking_and_sleeping_is_not_overlooked() {
        let handle = Handle::default();
        let seen = handle.turns();
        let due = Instant::now() + Duration::from_secs(1800);
        handle.turned(Next { due, over: false });
        handle.wait(never(), seen);
        assert_eq!(handle.turns(), seen + 1);
    }

    #[test]
    fn an_earlier_wake_up_or_the_end_wakes_the_loop() {
        for over in [false, true] {
            let handle = Handle::default();
            let seen = handle.turns();
            let other = handle.clone();
            let lent = std::thread::spawn(move || {
                while other.0.lock().asleep.is_none() {
                    std::thread::yield_now();
                }
                let far = Duration::from_secs(if over { 7200 } else { 60 });
                let due = Instant::now() + far;
                other.turned(Next { due, over });
            });
            handle.wait(never(), seen);
            lent.join().expect("it ends");
            assert_eq!(handle.turns(), seen + 1);
        }
    }

    #[test]
    fn a_full_queue_holds_up_nobody_once_the_loop_ends() {
        let handle = Handle::default();
        (0..QUEUE).for_each(|_| handle.tell(Message::Stop));
        let other = handle.clone();
        let waits = std::thread::spawn(move || other.tell(Message::Stop));
        handle.end();
        waits.join().expect("it does not wait for ever");
        handle.tell(Message::Stop);
        assert_eq!(handle.take(2 * QUEUE).len(), QUEUE);
    }

    #[test]
    fn what_is_brought_to_a_closed_loop_is_dropped() {
        let handle = Handle::default();
        handle.close();
        handle.tell(Message::Stop);
        assert!(handle.take(1).is_empty());
    }
}
