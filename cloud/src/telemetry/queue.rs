//! What waits for the thread of telemetry. Small pieces do not wake it: nobody waits for them
//! before the next sync, and the wake-up would cost more than the piece.

use super::{Command, Content};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Bytes that wait for the thread; what comes on top is not taken, and sent again by its agent.
const MOST: usize = 16 << 20;
/// So many bytes that wait wake the thread.
const ENOUGH: usize = 256 << 10;
/// A piece of so many bytes is of a time that the agent has to catch up with, and goes on with the
/// receipt.
const LARGE: usize = 4 << 10;
/// What a piece or a question counts for itself.
const QUESTION: usize = 512;

/// What waits.
#[derive(Debug, Default)]
struct State {
    commands: VecDeque<Command>,
    bytes: usize,
    /// Something waits that shall not.
    urgent: bool,
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end that brings; the last one that is dropped closes the queue.
#[derive(Debug)]
pub(super) struct Sender(Arc<Shared>);

/// The thread's end.
#[derive(Debug)]
pub(super) struct Receiver(Arc<Shared>);

/// What [`Receiver::take`] found.
#[derive(Debug)]
pub(super) enum Taken {
    /// All that waited; nothing when the time has come.
    Commands(VecDeque<Command>),
    /// Nothing waits, and nobody is left who could bring more.
    Closed,
}

/// A new queue.
pub(super) fn queue() -> (Sender, Receiver) {
    let shared = Arc::<Shared>::default();
    (Sender(shared.clone()), Receiver(shared))
}

impl Command {
    /// What it counts. Of the beginning and the end of a session there are only as many as
    /// connections.
    fn bytes(&self) -> usize {
        match self {
            Self::Begin { .. } | Self::End { .. } => 0,
            Self::Piece { report, .. } => match &report.piece.content {
                Content::Block(packed) => QUESTION + packed.len(),
                Content::Gap(_) => QUESTION,
            },
            Self::Newest(..) | Self::Missing(..) | Self::Query(..) => QUESTION,
        }
    }

    fn can_wait(&self, bytes: usize) -> bool {
        matches!(self, Self::Piece { .. } | Self::End { .. }) && bytes < LARGE
    }
}

impl Sender {
    /// Whether there is room for it.
    pub(super) fn tell(&self, command: Command) -> bool {
        let bytes = command.bytes();
        let mut state = self.0.lock();
        if bytes > 0 && state.bytes >= MOST {
            return false;
        }
        state.bytes += bytes;
        state.urgent |= !command.can_wait(bytes) || state.bytes >= ENOUGH;
        let urgent = state.urgent;
        state.commands.push_back(command);
        drop(state);
        if urgent {
            self.0.arrived.notify_one();
        }
        true
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.arrived.notify_one();
    }
}

impl Receiver {
    /// Takes all there is, without waiting.
    pub(super) fn take_now(&self) -> VecDeque<Command> {
        let mut state = self.0.lock();
        (state.bytes, state.urgent) = (0, false);
        std::mem::take(&mut state.commands)
    }

    /// Waits for something that cannot wait, until `due` at the longest, and takes all there is.
    pub(super) fn take(&self, due: Instant) -> Taken {
        let mut state = self.0.lock();
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if state.urgent || left.is_zero() || state.closed {
                break;
            }
            state = self
                .0
                .arrived
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        if state.closed && state.commands.is_empty() {
            return Taken::Closed;
        }
        (state.bytes, state.urgent) = (0, false);
        Taken::Commands(std::mem::take(&mut state.commands))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloud_core::event::Conn;
    use shared::ids::{Incarnation, NodeId};
    use shared::telemetry::{At, GapReason, Piece, Range, Report};
    use std::time::Duration;

    const NODE: NodeId = NodeId([1; 16]);

    fn piece(bytes: usize) -> Command {
        let at = |ms| At { boot: 1, ms };
        let content = match bytes {
            0 => Content::Gap(GapReason::Off),
            bytes => Content::Block(vec![0; bytes]),
        };
        let range = Range::new(at(1), at(2));
        let piece = Piece { range, content };
        let incarnation = Incarnation([2; 16]);
        Command::Piece {
            node: NODE,
            conn: Conn(1),
            report: Box::new(Report { incarnation, piece }),
            at: shared::time::Unix(0),
        }
    }

    fn newest() -> Command {
        Command::Newest(NODE, tokio::sync::oneshot::channel().0)
    }

    fn taken(from: &Receiver, within: Duration) -> usize {
        match from.take(Instant::now() + within) {
            Taken::Commands(commands) => commands.len(),
            Taken::Closed => usize::MAX,
        }
    }

    #[test]
    fn small_pieces_wait_for_the_time_or_for_company_that_cannot() {
        const LONG: Duration = Duration::from_secs(60);
        let (to, from) = queue();
        assert!(to.tell(piece(0)) && to.tell(piece(100)));
        assert_eq!(taken(&from, Duration::from_millis(1)), 2);
        assert_eq!(taken(&from, Duration::ZERO), 0);
        assert!(to.tell(piece(100)) && to.tell(newest()));
        assert_eq!(taken(&from, LONG), 2);
        assert!(to.tell(piece(LARGE)));
        assert_eq!(taken(&from, LONG), 1);
        let many = ENOUGH / QUESTION;
        assert!((0..many).all(|_| to.tell(piece(0))));
        assert_eq!(taken(&from, LONG), many);
    }

    #[test]
    fn a_full_queue_takes_no_piece_and_every_end() {
        let (to, from) = queue();
        let taken_in = (0..).take_while(|_| to.tell(piece(1 << 20))).count();
        assert_eq!(taken_in, MOST >> 20);
        assert!(!to.tell(newest()));
        let (node, conn) = (NODE, Conn(1));
        assert!(to.tell(Command::End { node, conn }));
        assert_eq!(taken(&from, Duration::ZERO), taken_in + 1);
        assert!(to.tell(newest()));
        drop(to);
        assert_eq!(taken(&from, Duration::from_secs(60)), 1);
        assert_eq!(taken(&from, Duration::from_secs(60)), usize::MAX);
    }
}
