//! The allocator with a flag around its calls, by which a signal handler knows what it interrupts.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{Ordering, compiler_fence};

use crate::blocks::Heap;

/// The allocator, with a flag around its calls.
pub struct Flagged(pub &'static Heap);

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Runs a call of the allocator with the flag set.
pub fn inside<T>(call: impl FnOnce() -> T) -> T {
    INSIDE.set(true);
    // A handler runs on this very thread: the compiler alone must keep the order.
    compiler_fence(Ordering::SeqCst);
    let result = call();
    compiler_fence(Ordering::SeqCst);
    INSIDE.set(false);
    result
}

// SAFETY: forwards to the allocator.
unsafe impl GlobalAlloc for Flagged {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        inside(|| unsafe { self.0.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        inside(|| unsafe { self.0.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        inside(|| unsafe { self.0.dealloc(block, layout) });
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        inside(|| unsafe { self.0.realloc(block, layout, size) })
    }
}

/// Whether this thread is in such a call.
pub fn is_inside() -> bool {
    INSIDE.get()
}
