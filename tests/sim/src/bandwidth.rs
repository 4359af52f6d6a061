//! Narrow links: in some seeds what a link carries a second is bounded, in each direction. What is
//! sent waits until what was sent before it is through; control and parts of an inventory, of which
//! one is under way at a time, pass it at half of the rate, as they do where streams share a link.

use crate::fault::Kind;
use crate::net::{Side, Stream};
use crate::queue::{SEC, Time};
use crate::rng::Rng;
use crate::world::World;

/// Nanoseconds of a second, times the bits of a byte.
const BITS: u64 = 8 * SEC;
/// What is added to each message: headers of QUIC, UDP and IP.
const HEADERS: u64 = 60;

/// Bits a second of a seed's links, if they are narrow: from what a radio in a mine carries to what
/// nobody notices.
pub(crate) fn draw(root: &Rng) -> Option<u64> {
    let mut rng = root.fork("bandwidth", 0);
    rng.chance(250).then(|| rng.log_range(24_000, 4_000_000))
}

impl World {
    /// How long a message to `side` of the link of `m` waits, and takes, until it is on its way.
    pub(crate) fn queue_on_line(
        &mut self,
        m: usize,
        side: Side,
        stream: Stream,
        bytes: impl FnOnce() -> usize,
    ) -> Time {
        let Some(bits) = self.plan.net.bits.filter(|_| self.carried.is_none()) else {
            return 0;
        };
        let takes = (bytes() as u64 + HEADERS) * BITS / bits;
        if matches!(stream, Stream::Control | Stream::Inventory) {
            return 2 * takes;
        }
        let busy = &mut self.machines[m].link.busy[side as usize];
        *busy = takes + (*busy).max(self.t);
        let waits = *busy - self.t;
        if waits > SEC {
            self.happened(Kind::NarrowLink);
        }
        waits
    }

    /// The same for a file.
    pub(crate) fn queue_file_on_line(&mut self, m: usize, side: Side, size: u64) -> Time {
        let bytes = usize::try_from(size).unwrap_or(usize::MAX);
        self.queue_on_line(m, side, Stream::Details, || bytes)
    }

    /// A session is over for `side`: what it still had to send is gone with it, so nothing of it
    /// comes behind what the next session says.
    pub(crate) fn clear_line(&mut self, conn: u64, side: Side) {
        let narrow = self.plan.net.bits.is_some() && self.carried.is_none();
        let Some(connection) = self.conns.get_mut(&conn).filter(|_| narrow) else {
            return;
        };
        let (m, to) = (connection.machine, side.other());
        self.machines[m].link.busy[to as usize] = self.t;
        match side {
            Side::Agent => {
                let lost = connection.up.lose_bulk();
                lost.iter().for_each(|message| self.lost_up(message));
            }
            Side::Cloud => {
                let lost = connection.down.lose_bulk();
                lost.iter().for_each(|message| self.lost_down(m, message));
            }
        }
    }
}
