//! What the fast paths leave: a run without a free slot, a block of another owner, thread or run
//! in a special state, a thread without an arena.

use super::bins::{Bins, empty_bins};
use super::fast::current_bins;
use super::{Arena, life};
use crate::config;
use crate::os::thread::thread_word;
use crate::pool::AllocFailure;
use crate::run::descriptor::{Run, run_of};
use crate::units::ClassIndex;
use core::ptr::null_mut;

thread_word! {
    /// Why this thread's last allocation failed.
    pub(crate) mod last_failure: Option<AllocFailure> = None;
}

/// Notes why an allocation failed. Its null pointer.
#[cold]
pub(crate) fn failed(failure: AllocFailure) -> *mut u8 {
    last_failure::set(Some(failure));
    null_mut()
}

/// Lets the fast paths use the bins of the arena's current owner, if it has any and the arena is
/// the thread's own.
pub(super) fn publish(arena: &Arena) {
    if !life::is_own(arena) {
        return;
    }
    let bins = arena
        .current()
        .bins()
        .map_or(empty_bins(), core::ptr::from_ref);
    // In junk mode every request takes the slow path, which fills blocks.
    current_bins::set(if config::junk() { empty_bins() } else { bins });
}

/// A block of `class`, through the slow path.
pub(crate) fn allocate(class: ClassIndex) -> *mut u8 {
    life::with_arena(|arena| allocate_in(arena, class))
        .unwrap_or_else(|| failed(AllocFailure::Metadata))
}

/// A block of `class` for the arena's current owner.
pub(super) fn allocate_in(arena: &'static Arena, class: ClassIndex) -> *mut u8 {
    match arena.take(class) {
        Ok(slot) => {
            if config::junk() {
                junk(slot.address.as_ptr(), class, JUNK_ALLOCATED);
            }
            slot.address.as_ptr()
        }
        Err(failure) => failed(failure),
    }
}

/// A block of `class` that reads as zero; slots that do so already are not touched.
pub(crate) fn allocate_zeroed(class: ClassIndex, size: usize) -> *mut u8 {
    let taken = life::with_arena(|arena| arena.take(class));
    match taken.unwrap_or(Err(AllocFailure::Metadata)) {
        Ok(slot) => {
            if !slot.zero {
                // SAFETY: the slot is the caller's and has room for `size` bytes.
                unsafe { slot.address.write_bytes(0, size) };
            }
            slot.address.as_ptr()
        }
        Err(failure) => failed(failure),
    }
}

const JUNK_ALLOCATED: u8 = 0xa5;
const JUNK_FREED: u8 = 0x5a;

fn junk(block: *mut u8, class: ClassIndex, byte: u8) {
    let size = class.row().size as usize;
    // SAFETY: a block of that class that nobody reads.
    unsafe { block.write_bytes(byte, size) };
}

/// Takes a block back, through the slow path.
///
/// # Safety
/// As for [`super::fast::deallocate`].
#[cold]
#[inline(never)]
pub(crate) unsafe fn deallocate(block: *mut u8, class: ClassIndex) {
    if config::junk() {
        junk(block, class, JUNK_FREED);
    }
    // Without memory for an arena the block stays on the books: a free that cannot be counted is
    // not made.
    life::with_arena(|arena| {
        // SAFETY: the caller's promise.
        unsafe {
            let run = run_of(block, class).cast_mut();
            if !arena.book_freed((*run).tag_of(block.addr()), class) {
                return;
            }
            if let Some(side) = (*run).side() {
                // The next block in the slot may come from the fast path, which sets no tag.
                side.as_ref().reset((*run).slot_of(block.addr()));
            }
            let bins = &*core::ptr::with_exposed_provenance::<Bins>((*run).bins());
            if core::ptr::eq(bins.arena.get(), arena) {
                free_here(arena, bins, &*run, block);
            } else {
                free_remotely(run, block);
            }
            arena.tick_now_and_then();
        }
    });
}

/// Takes back a block of a run of this thread's bins.
///
/// # Safety
/// As said, and the block was counted as freed.
unsafe fn free_here(arena: &Arena, bins: &Bins, run: &Run, block: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        if run.put_slot(block) && !unpark(bins, run) {
            return;
        }
        if run.surplus.get() >= 0 {
            let current = core::ptr::from_ref(run).cast_mut();
            bins.bin(run.head.class()).set_current(current);
        } else if run.is_unused() {
            arena.retire(bins, run);
        }
    }
}

/// A block was put on the free list of a run where it is alone: makes sure that the run is in the
/// list of its bins. If another thread has the run, the block goes the way of that thread's, and
/// the result is false.
///
/// # Safety
/// The run belongs to these bins, which are this thread's.
#[inline(never)]
pub(super) unsafe fn unpark(bins: &Bins, run: &Run) -> bool {
    // SAFETY: the caller's promise; the block was put on the list just now, and is alone there.
    unsafe {
        if bins.unpark(run) {
            return true;
        }
        let block = run.take_only();
        free_remotely(core::ptr::from_ref(run).cast_mut(), block);
        false
    }
}

/// Takes back a block of another thread's run.
///
/// # Safety
/// The block is the caller's, and was counted as freed.
unsafe fn free_remotely(run: *mut Run, block: *mut u8) {
    // SAFETY: the caller's promise. The run stays alive while the block is not on its list, and
    // after that as long as this thread has it to notify its owner.
    unsafe {
        let start = (*run).start();
        if (*run).remote.push(block.cast(), start) {
            let bins = &*core::ptr::with_exposed_provenance::<Bins>((*run).bins());
            (*bins.arena.get()).notify(run);
        }
    }
}

/// A run of the current bins has become unused.
#[cold]
#[inline(never)]
pub(crate) fn retire(run: &Run) {
    life::with_arena(|arena| {
        // SAFETY: the run is in a list of the current bins, which are this arena's.
        unsafe {
            let bins = &*core::ptr::with_exposed_provenance::<Bins>(run.bins());
            arena.retire(bins, run);
        }
        arena.tick_now_and_then();
    });
}
