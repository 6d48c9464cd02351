//! How much memory a thread holds: an allocator that counts.
//!
//! A test or a bench runs on one thread, all its instances included, so what other tests hold does not count.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, which counts for each thread what it holds and held at most.
pub struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // A thread that ends frees what it held after its counters are gone.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is passed on as it came.
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

/// A moment from which on this thread's memory is watched.
pub struct Watch {
    held: isize,
}

impl Watch {
    /// Begins now. One at a time: another one on this thread forgets the peak of the one before.
    pub fn begin() -> Self {
        let held = HELD.get();
        PEAK.set(held);
        Watch { held }
    }

    /// How much more than at the beginning was held at most, in bytes.
    pub fn peak(&self) -> usize {
        (PEAK.get() - self.held).max(0) as usize
    }
}
