//! Bytes that were asked for, beside those that blocks occupy: an option, since it costs each
//! request a look at its owner's ledger.

use super::life::with_arena;
use super::owner::tag_of;
use core::alloc::Layout;

/// Whether they are counted.
pub(crate) const COUNTED: bool = cfg!(feature = "requested");

/// The current owner was given a block for `bytes`.
#[inline(always)]
pub(crate) fn allocated(bytes: usize) {
    if COUNTED {
        with_arena(|arena| arena.current().count_requested(bytes, 0));
    }
}

/// A block is freed.
///
/// # Safety
/// It is alive and was allocated with this layout.
#[inline(always)]
pub(crate) unsafe fn freed(block: *mut u8, layout: Layout) {
    if COUNTED {
        // SAFETY: the caller's promise.
        unsafe { changed(block, layout, layout.size(), 0) };
    }
}

/// A block for `from` bytes is now one for `to`, of the same owner.
///
/// # Safety
/// The block is alive and has this layout now.
#[inline(always)]
pub(crate) unsafe fn changed(block: *mut u8, layout: Layout, from: usize, to: usize) {
    if COUNTED {
        // SAFETY: the caller's promise.
        let tag = unsafe { tag_of(block, layout) };
        with_arena(|arena| {
            // A ledger that there is no memory for counts nothing else either.
            if let Some(ledger) = arena.ledger(tag) {
                ledger.count_requested(to, from);
            }
        });
    }
}
