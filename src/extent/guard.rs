//! Guard pages of the secure profile. They cost address space and a system call each, no memory.
//!
//! ```text
//! | guard: as many slices as the alignment | large block | guard | rest of its last slice
//! ... slots of a run that ends with its chunk | guard | next chunk
//! ```
//! A large block that was freed is guarded whole for as long as it is held back. Where the kernel
//! refuses a guard page there is none: memory is served all the same.

use super::descriptor::{Head, Kind};
use crate::os::map;
use crate::os::process::page_size;
use crate::pool::Pool;
use crate::units::{ClassIndex, OwnerTag, SLICE, Slices};

/// Slices before a block at a multiple of `align` slices.
pub(super) fn front(pool: &Pool, align: Slices) -> Slices {
    Slices(if pool.has_guards() { align.0 } else { 0 })
}

/// Makes the slices before a block a guard.
///
/// # Safety
/// They were claimed with the block's, just now.
pub(super) unsafe fn put_front(address: usize, slices: Slices) {
    if slices.0 == 0 {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let _ = map::guard(address, slices.bytes());
        let head = Head::of_slice(address);
        head.describe(ClassIndex(0), slices, OwnerTag::UNATTRIBUTED);
        head.set_kind(Kind::Guard);
    }
}

/// Removes the guard before a block.
///
/// # Safety
/// It was put there.
pub(super) unsafe fn remove_front(address: usize, slices: Slices) {
    if slices.0 == 0 {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        Head::of_slice(address).clear();
        let _ = map::unguard(address, slices.bytes());
    }
}

/// Guards what is behind the `bytes` of a block.
///
/// # Safety
/// The block is the caller's, and has these slices.
pub(super) unsafe fn put_end(pool: &Pool, address: usize, bytes: usize, slices: Slices) {
    if pool.has_guards() {
        // SAFETY: the caller's promise: a page at least, which nobody uses.
        let _ = unsafe { map::guard(address + bytes, slices.bytes() - bytes) };
    }
}

/// Removes that guard.
///
/// # Safety
/// As there.
pub(super) unsafe fn remove_end(pool: &Pool, address: usize, bytes: usize, slices: Slices) {
    if pool.has_guards() {
        // SAFETY: the caller's promise.
        let _ = unsafe { map::unguard(address + bytes, slices.bytes() - bytes) };
    }
}

/// Guards the last page of a run's span if it is the last of its chunk.
///
/// # Safety
/// The span was claimed from that pool, and nobody uses what lies beyond its room.
pub(crate) unsafe fn close_chunk(pool: &Pool, address: usize, slices: Slices) {
    // SAFETY: the caller's promise.
    in_chunk_end(pool, address, slices, |last, page| unsafe {
        map::guard(last, page)
    });
}

/// Removes that guard.
///
/// # Safety
/// As there; the span is about to be released.
pub(crate) unsafe fn open_chunk(pool: &Pool, address: usize, slices: Slices) {
    // SAFETY: the caller's promise.
    in_chunk_end(pool, address, slices, |last, page| unsafe {
        map::unguard(last, page)
    });
}

fn in_chunk_end(
    pool: &Pool,
    address: usize,
    slices: Slices,
    change: impl FnOnce(usize, usize) -> Result<(), map::Refused>,
) {
    if pool.has_guards() && pool.room(address, slices) < slices.0 * SLICE {
        let page = page_size();
        let _ = change(address + slices.bytes() - page, page);
    }
}
