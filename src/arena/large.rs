//! Large blocks: booking what the extent layer hands out. No thread has a large block; only its
//! owner's tag is kept with it.

use super::life::with_arena;
use super::record::Arena;
use super::slow::failed;
use crate::extent::fit::Zeroing;
use crate::extent::large::{self, Large};
use crate::pool::AllocFailure;
use crate::units::OwnerTag;
use core::ptr::null_mut;

impl Arena {
    fn book_large_allocated(&self, tag: OwnerTag, blocks: u64, bytes: usize) -> bool {
        let Some(ledger) = self.ledger(tag) else {
            return false;
        };
        ledger.book_allocated(blocks, bytes);
        self.large_allocated[0].add(blocks);
        self.large_allocated[1].add(bytes as u64);
        true
    }

    fn book_large_freed(&self, tag: OwnerTag, blocks: u64, bytes: usize) -> bool {
        let Some(ledger) = self.ledger(tag) else {
            return false;
        };
        ledger.book_freed(blocks, bytes);
        self.large_freed[0].add(blocks);
        self.large_freed[1].add(bytes as u64);
        true
    }
}

/// A large block for the current owner; null if memory cannot be had.
pub(crate) fn allocate(size: usize, align: usize, zeroing: Zeroing) -> *mut u8 {
    with_arena(|arena| allocate_in(arena, size, align, zeroing))
        .unwrap_or_else(|| failed(AllocFailure::Metadata))
}

/// A large block for the arena's current owner.
pub(super) fn allocate_in(
    arena: &'static Arena,
    size: usize,
    align: usize,
    zeroing: Zeroing,
) -> *mut u8 {
    arena.tick_now_and_then();
    let tag = arena.current().tag();
    let allocate = || large::reuse_or_allocate(&arena.places, size, align, tag, zeroing);
    match allocate().or_else(|failure| arena.reclaim(failure).and_then(|()| allocate())) {
        Ok(block) => {
            // The current owner has a ledger, so this cannot fail.
            arena.book_large_allocated(tag, 1, block.bytes);
            core::ptr::with_exposed_provenance_mut(block.address)
        }
        Err(failure) => failed(failure),
    }
}

/// Takes a large block back.
///
/// # Safety
/// The block is large, alive, and not used any more.
#[cold]
#[inline(never)]
pub(crate) unsafe fn deallocate(block: *mut u8) {
    with_arena(|arena| {
        // Before the block is free: a thread that comes by after a long pause does all that was
        // due meanwhile, and this block is not part of that.
        arena.tick();
        // SAFETY: the caller's promise.
        unsafe {
            let large = large::of(block.addr());
            if arena.book_large_freed(large.head.tag(), 1, large.bytes()) {
                large.keep_or_release(&arena.places);
            }
        }
    });
}

/// Makes a large block `size` bytes, in place or by moving its pages. Null, with nothing changed,
/// where the caller has to copy. The owner stays.
///
/// # Safety
/// The block is large, alive and the caller's; if the result is not null, the block is there.
#[cold]
#[inline(never)]
pub(crate) unsafe fn resize(block: *mut u8, size: usize, align: usize) -> *mut u8 {
    with_arena(|arena| {
        // SAFETY: the caller's promise.
        unsafe {
            let large = large::of(block.addr());
            let (tag, before) = (large.head.tag(), large.bytes());
            if arena.ledger(tag).is_none() {
                return null_mut();
            }
            let (address, after) = match large.resize_in_place(size) {
                Some(bytes) => (block, bytes),
                None => match large.relocate(size, align) {
                    Some(new) => (
                        core::ptr::with_exposed_provenance_mut(new.address),
                        new.bytes,
                    ),
                    None => return null_mut(),
                },
            };
            if after > before {
                arena.book_large_allocated(tag, 0, after - before);
            } else {
                arena.book_large_freed(tag, 0, before - after);
            }
            address
        }
    })
    .unwrap_or(null_mut())
}

/// Books a large block to another owner. O(1). False if there is no memory for a ledger.
///
/// # Safety
/// The block is large, alive and the caller's.
pub(super) unsafe fn retag(arena: &Arena, large: &Large, to: OwnerTag) -> bool {
    let from = large.head.tag();
    if arena.ledger(from).is_none() || arena.ledger(to).is_none() {
        return false;
    }
    let bytes = large.bytes();
    large.head.set_tag(to);
    arena.book_large_allocated(to, 1, bytes) && arena.book_large_freed(from, 1, bytes)
}
