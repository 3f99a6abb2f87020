//! The secure profile: what each request does beyond the slow path. A block that is handed back is
//! looked up before anything is believed of it, cleared, and held back for a while.

#[cfg(feature = "raw")]
use super::bins::empty_bins;
use super::life::with_arena;
use super::lookup::{NotABlock, block_at};
#[cfg(feature = "raw")]
use super::record::Arena;
use super::slow;
use crate::os::process;
#[cfg(feature = "raw")]
use crate::pool::DEFAULT;
#[cfg(feature = "raw")]
use crate::run::descriptor::for_each_run;
use crate::run::descriptor::{Slot, run_of};
use crate::units::ClassIndex;
use core::fmt;

/// Brings what the process allocated before it read its settings into the profile. Without memory for
/// that it stays as it is.
#[cfg(feature = "raw")]
pub(super) fn begin(arena: &'static Arena) {
    // SAFETY: there is no other thread yet, and the arena is this one's.
    unsafe { arena.base.empty_all_loose(arena) };
    for_each_run(&DEFAULT, |run| {
        // SAFETY: there is no other thread yet.
        let _ = unsafe { run.harden() };
    });
    arena.base_ledger.shown.set(empty_bins());
    slow::publish(arena);
}

/// Says that a slot that was taken from its run is a block now.
pub(super) fn hand_out(slot: Slot, class: ClassIndex) -> Slot {
    // SAFETY: taken from a run of that class just now.
    let run = unsafe { &*run_of(slot.address.as_ptr(), class) };
    run.hand_out(slot.address, slot.zero);
    slot
}

/// Takes a block back.
///
/// # Safety
/// A block of `class` starts there, is alive, and not used any more; where it can be told that this
/// is not so, the process ends.
pub(super) unsafe fn deallocate(block: *mut u8, class: ClassIndex) {
    match block_at(block.addr()) {
        Ok(Some(found)) if found == class => {}
        Ok(found) => freed_as_another(block, Some(class), found),
        Err(what) => end(block, &what),
    }
    // Without memory for an arena the block stays on the books.
    with_arena(|arena| {
        // SAFETY: the caller's promise, as far as it was not verified.
        unsafe {
            let run = &*run_of(block, class);
            let index = run.slot_of(block.addr());
            let marks = run.marks();
            if marks.is_some_and(|marks| !marks.hold(index)) {
                end_free(block);
            }
            block.write_bytes(0, class.row().size as usize);
            if slow::book_freed(arena, run, block, class) {
                match marks {
                    Some(_) => arena.quarantine.hold(arena, block, class),
                    None => slow::free_booked(arena, core::ptr::from_ref(run).cast_mut(), block),
                }
            }
            arena.tick_now_and_then();
        }
    });
}

/// Ends the process unless a large block that occupies `bytes` starts there, or else the caller says
/// that it is one without knowing how large.
pub(super) fn expect_large(block: *mut u8, bytes: Option<usize>) {
    match block_at(block.addr()) {
        Ok(None) => {
            // SAFETY: a large block starts there.
            let found = unsafe { crate::extent::large::of(block.addr()) }.bytes();
            if bytes.is_some_and(|bytes| bytes != found) {
                end(block, &"freed as a block of another size");
            }
        }
        Ok(found) => freed_as_another(block, None, found),
        Err(what) => end(block, &what),
    }
}

#[cold]
fn freed_as_another(block: *mut u8, told: Option<ClassIndex>, found: Option<ClassIndex>) -> ! {
    let size = |class: Option<ClassIndex>| class.map_or(0, |class| class.row().size);
    let (told, found) = (size(told), size(found));
    process::end_with_line(format_args!(
        "bursar: {block:p}: freed as a block of {told} bytes, and is one of {found} (0: a large one)"
    ))
}

/// Ends the process, since a block was freed twice.
#[cold]
pub(super) fn end_free(block: *mut u8) -> ! {
    end(block, &NotABlock::Free)
}

#[cold]
fn end(block: *mut u8, what: &dyn fmt::Display) -> ! {
    process::end_with_line(format_args!("bursar: {block:p}: {what}"))
}
