//! An allocator that counts what each thread gives back.

#![expect(unsafe_code, reason = "an allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static GIVEN_BACK: Cell<u64> = const { Cell::new(0) };
}

/// Counts, then asks the system.
pub(crate) struct Counting;

/// Bytes that this thread has given back since it began.
pub(crate) fn given_back() -> u64 {
    GIVEN_BACK.get()
}

// SAFETY: every call goes to the system's allocator as it came; the counter touches no memory of
// it, and has no destructor that could have run before.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        GIVEN_BACK.set(GIVEN_BACK.get() + layout.size() as u64);
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        unsafe { System.realloc(at, layout, size) }
    }
}
