//! Receipts that wait for the next piece of their session. Who reports now and then needs no
//! receipt at once, and one that goes out when a piece came in shares the packet that acknowledges
//! it. Thousands of receipts at one moment would moreover keep the agents' answers waiting for so
//! long that the transport sends them again.

use crate::host::ToSession;
use cloud_core::event::Conn;
use shared::telemetry::Receipt;
use shared::wire::Down;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::WeakSender;
use tokio::sync::mpsc::error::TrySendError;

/// A receipt that waited so long goes with the next sync: agents report as often.
const LONGEST: Duration = Duration::from_secs(15);

/// Sends a receipt to a session; whether that was not too slow for it. Weak: a session that the
/// engine gave up shall end.
pub(super) fn send(to: &WeakSender<ToSession>, receipt: &Receipt) -> bool {
    let message = ToSession::Send(Box::new(Down::Telemetry(receipt.clone())));
    let told = to.upgrade().map(|to| to.try_send(message));
    !matches!(told, Some(Err(TrySendError::Full(_))))
}

#[derive(Debug)]
struct Waiting {
    to: WeakSender<ToSession>,
    receipt: Receipt,
    since: Instant,
}

/// At most one a session: a newer one says all that an older one does.
#[derive(Debug, Default)]
pub(super) struct Receipts(Mutex<BTreeMap<Conn, Waiting>>);

impl Receipts {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Conn, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One waits from `now` on.
    pub(super) fn put(
        &self,
        conn: Conn,
        to: &WeakSender<ToSession>,
        receipt: Receipt,
        now: Instant,
    ) {
        let mut waiting = self.lock();
        let since = waiting.get(&conn).map_or(now, |older| older.since);
        let to = to.clone();
        waiting.insert(conn, Waiting { to, receipt, since });
    }

    /// A piece came.
    pub(super) fn answer(&self, conn: Conn) {
        let waiting = self.lock().remove(&conn);
        if let Some(Waiting { to, receipt, .. }) = waiting {
            // The receipt of this piece says all of it to a session that is too slow for it.
            let _ = send(&to, &receipt);
        }
    }

    /// No piece came for long.
    pub(super) fn flush(&self, now: Instant) {
        let stays = |one: &Waiting| now < one.since + LONGEST || !send(&one.to, &one.receipt);
        self.lock().retain(|_, one| stays(one));
    }

    /// A session is over.
    pub(super) fn end(&self, conn: Conn) {
        self.lock().remove(&conn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::ids::Incarnation;
    use tokio::sync::mpsc;

    const CONN: Conn = Conn(7);

    fn receipt(life: u8) -> Receipt {
        Receipt {
            incarnation: Incarnation([life; 16]),
            ranges: Vec::new(),
        }
    }

    fn told(from: &mut mpsc::Receiver<ToSession>) -> Option<Receipt> {
        match from.try_recv() {
            Ok(ToSession::Send(down)) => match *down {
                Down::Telemetry(receipt) => Some(receipt),
                _ => None,
            },
            _ => None,
        }
    }

    #[test]
    fn the_newest_goes_with_a_piece_or_after_a_while() {
        let (to, mut from) = mpsc::channel(1);
        let (receipts, begin) = (Receipts::default(), Instant::now());
        let to_session = to.downgrade();
        let put = |life, now| receipts.put(CONN, &to_session, receipt(life), now);
        put(1, begin);
        put(2, begin + LONGEST / 2);
        receipts.answer(Conn(8));
        assert_eq!(told(&mut from), None, "the piece of another session");
        receipts.answer(CONN);
        assert_eq!(told(&mut from), Some(receipt(2)));
        receipts.answer(CONN);
        assert_eq!(told(&mut from), None, "once is enough");
        put(3, begin);
        put(4, begin + LONGEST / 2);
        receipts.flush(begin + LONGEST / 2);
        assert_eq!(told(&mut from), None, "a piece may come yet");
        to.try_send(ToSession::Close("full".to_owned())).unwrap();
        receipts.flush(begin + LONGEST);
        assert_eq!(told(&mut from), None, "there was no room");
        receipts.flush(begin + LONGEST);
        assert_eq!(told(&mut from), Some(receipt(4)));
        put(5, begin);
        receipts.end(CONN);
        receipts.answer(CONN);
        assert_eq!(told(&mut from), None, "the session is over");
    }
}
