//! The memory that one input takes: an allocator that counts what is alive in this process, the
//! most that ever was, and the largest single piece.
//!
//! Invariant: what is asked for beyond [`REFUSED`] is not given, so that no input takes the machine
//! down with it; whoever watches finds it waiting ([`is_refused`]).

#![expect(unsafe_code, reason = "an allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Bytes in one piece, or alive in all, that no input can have a reason for.
pub(crate) const REFUSED: usize = 3 << 30;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);
static OVER: AtomicBool = AtomicBool::new(false);

/// Counts, then asks the system.
#[derive(Debug)]
pub(crate) struct Counting;

fn take(size: usize) {
    let live = LIVE.fetch_add(size, Relaxed) + size;
    PEAK.fetch_max(live, Relaxed);
    LARGEST.fetch_max(size, Relaxed);
    CALLS.fetch_add(1, Relaxed);
    if size > REFUSED || live > REFUSED {
        OVER.store(true, Relaxed);
        // The watchdog keeps the input and ends the process.
        loop {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

// SAFETY: every call goes to the system's allocator as it came; the counters touch no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new may both be there for a moment.
        take(size);
        LIVE.fetch_sub(layout.size(), Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Whether somebody asked for more than [`REFUSED`].
pub(crate) fn is_refused() -> bool {
    OVER.load(Relaxed)
}

/// A measurement that has begun.
#[derive(Debug)]
pub(crate) struct Meter {
    live: usize,
    calls: usize,
}

/// What an input took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken {
    /// Most bytes that were alive at once.
    pub(crate) peak: usize,
    /// Bytes of the largest piece.
    pub(crate) largest: usize,
    /// Pieces.
    pub(crate) calls: usize,
}

impl Meter {
    /// From now on.
    pub(crate) fn start() -> Self {
        let live = LIVE.load(Relaxed);
        PEAK.store(live, Relaxed);
        LARGEST.store(0, Relaxed);
        Self {
            live,
            calls: CALLS.load(Relaxed),
        }
    }

    /// Until now.
    pub(crate) fn taken(&self) -> Taken {
        Taken {
            peak: PEAK.load(Relaxed).saturating_sub(self.live),
            largest: LARGEST.load(Relaxed),
            calls: CALLS.load(Relaxed).wrapping_sub(self.calls),
        }
    }
}
