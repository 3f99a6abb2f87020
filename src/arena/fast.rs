//! The fast paths: one block from the current run, one block back onto its run.
//!
//! Nothing here tests an owner, a flag or a setting. What is not the common case finds an empty
//! free list or a foreign run, and leaves through one cold call.

use super::bins::{Bin, Bins, EMPTY};
use super::slow;
use crate::class::CLASSES;
use crate::config;
use crate::os::sync::Ordering::Relaxed;
use crate::os::thread::thread_word;
use crate::run::descriptor::{Run, run_of};
use crate::run::remote::State;
use crate::units::ClassIndex;
use core::hint::cold_path;

thread_word! {
    /// The bins of the thread's current owner.
    pub(crate) mod current_bins: *const Bins = &raw const EMPTY;
}

/// A block of `class`, from the current run or else from `refill`, the slow path. That is told of the
/// bin rather than of the class, which would have to be kept: [`class_of_bin`] finds it again.
#[inline(always)]
pub(crate) fn allocate(class: ClassIndex, refill: impl FnOnce(*const Bin) -> *mut u8) -> *mut u8 {
    // SAFETY: the word points to bins, whose current run is never null and theirs to pop from; a
    // slot on its free list holds its link.
    unsafe {
        let bin = (*current_bins::get()).bin(class);
        let run = &*bin.current();
        let slot = run.free.get();
        if slot.is_null() {
            return refill(core::ptr::from_ref(bin));
        }
        run.free.set((*slot).next);
        run.surplus.set(run.surplus.get() + 1);
        bin.allocated.bump();
        slot.cast()
    }
}

/// The class of a bin of the current bins.
///
/// # Safety
/// As said.
#[inline(always)]
pub(crate) unsafe fn class_of_bin(bin: *const Bin) -> ClassIndex {
    // SAFETY: the caller's promise; there is a bin for each class. So the compiler need not cut the
    // index to a byte.
    unsafe {
        let index = bin.offset_from_unsigned(current_bins::get().cast());
        core::hint::assert_unchecked(index < CLASSES);
        ClassIndex(index as u8)
    }
}

/// Whether a block is the current owner's, as far as that shows at one look at its run.
///
/// # Safety
/// The block is of `class`, and alive.
#[inline(always)]
pub(crate) unsafe fn is_current_owners(block: *mut u8, class: ClassIndex) -> bool {
    // SAFETY: the run of a block that is alive.
    unsafe { (*run_of(block, class)).owner.load(Relaxed) == current_bins::get().addr() }
}

/// Whether a block is the one that this thread freed last in a run of its current owner's: it is not
/// alive then, though nothing else of the run shows it.
///
/// # Safety
/// The block is of `class`, alive or not.
#[cfg(feature = "raw")]
#[inline(always)]
pub(crate) unsafe fn was_freed_last(block: *mut u8, class: ClassIndex) -> bool {
    // SAFETY: the caller's promise; the free list of a run of these bins is this thread's to read.
    unsafe {
        let run = &*run_of(block, class);
        run.owner.load(Relaxed) == current_bins::get().addr() && run.free.get() == block.cast()
    }
}

/// Takes a block back.
///
/// # Safety
/// The block is of `class`, alive, and not used any more.
#[inline(always)]
pub(crate) unsafe fn deallocate(block: *mut u8, class: ClassIndex) {
    // SAFETY: the run of a block that is alive; the caller's promise.
    unsafe { give_back(block, class, &*run_of(block, class), None::<fn()>) };
}

/// Takes a block of a run back. With `twice`, that is called instead if the block is the one that this
/// thread freed last there, and in the secure profile, where more is known of blocks.
///
/// # Safety
/// The block is of `class`, of that run, alive but for that, and not used any more.
#[inline(always)]
pub(crate) unsafe fn give_back(
    block: *mut u8,
    class: ClassIndex,
    run: &Run,
    twice: Option<impl FnOnce()>,
) {
    // SAFETY: if the run's owner word is the address of this thread's current bins, without flags, it
    // is in a list of theirs and this thread's to push to.
    unsafe {
        let bins = current_bins::get();
        if run.owner.load(Relaxed) != bins.addr() {
            if let Some(twice) = twice
                && config::is_secure()
            {
                return twice();
            }
            return slow::deallocate(block, class, run);
        }
        if let Some(twice) = twice
            && run.free.get() == block.cast()
        {
            return twice();
        }
        let bin = &(*bins).bin(class);
        let put = run.put_known(block);
        bin.freed.bump();
        let is_current = core::ptr::eq(bin.current(), run);
        // Calls are the last thing done, so that none of this needs a stack.
        if put.was_empty {
            cold_path();
            if !is_current && run.remote.state() != State::Owned {
                return slow::take_up(run);
            }
        }
        if put.surplus >= 0 {
            bin.set_current(core::ptr::from_ref(run).cast_mut());
        } else if run.is_watched(put.surplus) && (run.is_wide() || !is_current) {
            slow::look_at(run);
        }
    }
}
