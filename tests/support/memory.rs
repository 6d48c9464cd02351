//! An allocator that counts the memory of each thread.
//!
//! A test or a bench runs on one thread with all its instances, so the memory of other tests does not count.

#![expect(unsafe_code, reason = "a global allocator cannot be written otherwise")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, with a count of the current and the maximum allocation of each thread.
pub(crate) struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // A thread that ends frees memory after its counters have been destroyed.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        unsafe { System.realloc(at, layout, size) }
    }
}

/// A measurement of this thread's memory, from its beginning on.
pub(crate) struct Watch {
    held: isize,
}

impl Watch {
    /// Begins a measurement. It ends an earlier measurement on this thread, whose peak is lost.
    pub(crate) fn begin() -> Self {
        let held = HELD.get();
        PEAK.set(held);
        Watch { held }
    }

    /// Returns the maximum increase since the beginning, in bytes.
    #[allow(dead_code, reason = "a test of leaks measures what is left")]
    pub(crate) fn peak(&self) -> usize {
        (PEAK.get() - self.held).max(0) as usize
    }

    /// Returns the increase since the beginning, in bytes: less than zero if memory was freed.
    #[allow(dead_code, reason = "most tests measure the maximum")]
    pub(crate) fn held(&self) -> isize {
        HELD.get() - self.held
    }

    /// Asserts that the increase has stayed below `bytes_max`. `case` names the case under test in the message.
    #[track_caller]
    #[allow(dead_code, reason = "not every user has a limit")]
    pub(crate) fn assert_below(&self, bytes_max: usize, case: &str) {
        let peak = self.peak();
        assert!(peak < bytes_max, "{case}: {peak} bytes held, but at most {bytes_max} are allowed");
    }
}
