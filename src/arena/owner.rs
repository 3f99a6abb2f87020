//! Owners: whose scope a thread is in, what an owner holds, and moving a block to another.

use super::ledger::{Ledger, Totals};
use super::life::{self, arenas, with_arena};
use super::{large, slow};
use crate::class::class_of_layout;
use crate::extent::fit::Zeroing;
use crate::pool::AllocFailure;
use crate::run::descriptor::run_of;
use crate::units::OwnerTag;
use core::alloc::Layout;

/// Makes `tag` the owner of what this thread allocates from now on. Returns the owner before, or
/// `None`, with nothing changed, if there is no memory for a ledger or the thread has ended.
pub(crate) fn enter(tag: OwnerTag) -> Option<OwnerTag> {
    with_arena(|arena| {
        if !life::is_own(arena) {
            return None;
        }
        let ledger = arena.ledger(tag)?;
        let before = arena.current().tag();
        arena.current.set(ledger);
        slow::publish(arena);
        Some(before)
    })
    .flatten()
}

/// What `tag` allocated and freed on all threads so far. Exact when nobody does either; never
/// freed more than allocated.
pub(crate) fn totals(tag: OwnerTag) -> Totals {
    let mut totals = Totals::default();
    for_ledgers(tag, |ledger| ledger.add_freed(&mut totals));
    for_ledgers(tag, |ledger| ledger.add_allocated(&mut totals));
    totals
}

fn for_ledgers(tag: OwnerTag, mut visit: impl FnMut(&'static Ledger)) {
    for arena in arenas() {
        if tag == OwnerTag::UNATTRIBUTED {
            visit(&arena.base_ledger);
        } else {
            arena
                .ledgers
                .iter()
                .filter(|ledger| ledger.tag() == tag)
                .for_each(&mut visit);
        }
    }
}

/// The owner of a block.
///
/// # Safety
/// The block is alive and was allocated with this layout.
pub(crate) unsafe fn tag_of(block: *mut u8, layout: Layout) -> OwnerTag {
    // SAFETY: the caller's promise.
    unsafe {
        match class_of_layout(layout) {
            Some(class) => (*run_of(block, class)).tag_of(block.addr()),
            None => crate::extent::large::of(block.addr()).head.tag(),
        }
    }
}

/// Books a block to another owner: O(1) for a large one; a small one costs its run a tag a slot,
/// and each free in that run the slow path. False, with nothing changed, if the run has no room
/// for one more owner or there is no memory.
///
/// # Safety
/// The block is alive, was allocated with this layout, and is the caller's.
pub(crate) unsafe fn retag(block: *mut u8, layout: Layout, to: OwnerTag) -> bool {
    with_arena(|arena| {
        // SAFETY: the caller's promise.
        unsafe {
            let Some(class) = class_of_layout(layout) else {
                let large = crate::extent::large::of(block.addr());
                return large::retag(arena, large, to);
            };
            let run = &*run_of(block, class);
            let from = run.tag_of(block.addr());
            let Some(ledger) = arena.ledger(to) else {
                return false;
            };
            let Some(side) = run.install_side() else {
                return false;
            };
            if arena.ledger(from).is_none()
                || side
                    .as_ref()
                    .set_tag(run.slot_of(block.addr()), to)
                    .is_err()
            {
                return false;
            }
            let bytes = class.row().size as usize;
            ledger.book_allocated(1, bytes);
            arena.mixed.bin(class).allocated.bump();
            arena.book_freed(from, class)
        }
    })
    .unwrap_or(false)
}

/// A block for the owner of `block`, which is about to move. Null if memory cannot be had.
///
/// # Safety
/// The block is alive and was allocated with layout `old`.
pub(crate) unsafe fn allocate_for_owner_of(block: *mut u8, old: Layout, new: Layout) -> *mut u8 {
    // SAFETY: the caller's promise.
    let tag = unsafe { tag_of(block, old) };
    with_arena(|arena| match arena.ledger(tag) {
        // The arena's own scope, not the thread's: a thread that has ended only borrows it.
        Some(ledger) => arena.in_scope_of(ledger, || match class_of_layout(new) {
            Some(class) => slow::allocate_in(arena, class),
            None => large::allocate_in(arena, new.size(), new.align(), Zeroing::None),
        }),
        None => slow::failed(AllocFailure::Metadata),
    })
    .unwrap_or_else(|| slow::failed(AllocFailure::Metadata))
}
