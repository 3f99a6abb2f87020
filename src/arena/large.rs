//! Large blocks: booking what the extent layer hands out. No thread has a large block; only its
//! owner's tag is kept with it.

use super::ledger::Ledger;
use super::life::with_arena;
use super::record::Arena;
use super::secure;
use super::slow::failed;
use crate::config;
use crate::extent::fit::Zeroing;
use crate::extent::large::{self, Block, Large};
use crate::pool::AllocFailure;
use crate::pool::router::Wanted;
use core::ptr::null_mut;

impl Arena {
    fn book_large_allocated(&self, ledger: &Ledger, blocks: u64, bytes: usize) {
        ledger.book_allocated(blocks, bytes);
        self.large_allocated[0].add(blocks);
        self.large_allocated[1].add(bytes as u64);
    }

    fn book_large_freed(&self, ledger: &Ledger, blocks: u64, bytes: usize) {
        ledger.book_freed(blocks, bytes);
        uncharge(ledger, bytes);
        self.large_freed[0].add(blocks);
        self.large_freed[1].add(bytes as u64);
    }
}

/// Raises the bound of a ledger's owner before bytes are handed out.
fn charge(ledger: &Ledger, bytes: usize, fallible: bool) -> Result<(), AllocFailure> {
    match ledger.owner() {
        Some(owner) => owner.charge(bytes as u64, fallible),
        None => Ok(()),
    }
}

/// Lowers it after they came back.
fn uncharge(ledger: &Ledger, bytes: usize) {
    if let Some(owner) = ledger.owner() {
        owner.uncharge(bytes as u64);
    }
}

/// A large block for the current owner; null if memory cannot be had.
pub(crate) fn allocate(wanted: &Wanted, zeroing: Zeroing) -> *mut u8 {
    with_arena(|arena| allocate_in(arena, wanted, zeroing))
        .unwrap_or_else(|| failed(AllocFailure::Metadata))
}

/// A large block for the arena's current owner.
#[inline]
pub(super) fn allocate_in(arena: &'static Arena, wanted: &Wanted, zeroing: Zeroing) -> *mut u8 {
    arena.tick_now_and_then();
    match take_kept(arena, wanted, zeroing) {
        Some(block) => hand_out(arena, &block),
        None => allocate_anew(arena, wanted, zeroing),
    }
}

/// A block from a span that this thread freed lately, if one fits.
#[inline]
fn take_kept(arena: &Arena, wanted: &Wanted, zeroing: Zeroing) -> Option<Block> {
    let ledger = arena.current();
    let charged = large::block_bytes(wanted.size)?;
    charge(ledger, charged, arena.is_fallible()).ok()?;
    let block = large::reuse(&arena.places, wanted, ledger.tag(), zeroing);
    if block.is_none() {
        uncharge(ledger, charged);
    }
    block
}

/// A block from a pool.
#[inline(never)]
fn allocate_anew(arena: &'static Arena, wanted: &Wanted, zeroing: Zeroing) -> *mut u8 {
    let ledger = arena.current();
    let allocate = || {
        let charged = large::block_bytes(wanted.size).unwrap_or(0);
        charge(ledger, charged, arena.is_fallible())?;
        large::give_way(&arena.places);
        large::allocate(wanted, ledger.tag(), zeroing).inspect_err(|_| uncharge(ledger, charged))
    };
    match allocate().or_else(|failure| arena.reclaim(failure).and_then(|()| allocate())) {
        Ok(block) => hand_out(arena, &block),
        Err(failure) => failed(failure),
    }
}

#[inline]
fn hand_out(arena: &Arena, block: &Block) -> *mut u8 {
    arena.book_large_allocated(arena.current(), 1, block.bytes);
    core::ptr::with_exposed_provenance_mut(block.address)
}

/// Takes a large block of `size` bytes back.
///
/// # Safety
/// The block is large, of that size, alive, and not used any more.
#[cold]
#[inline(never)]
pub(crate) unsafe fn deallocate(block: *mut u8, size: usize) {
    if config::is_secure() {
        secure::expect_large(block, large::block_bytes(size));
    }
    with_arena(|arena| {
        // Before the block is free: a thread that comes by after a long pause does all that was
        // due meanwhile, and this block is not part of that.
        arena.tick_sooner();
        // SAFETY: the caller's promise.
        unsafe {
            let large = large::of(block.addr());
            let (tag, current) = (large.head.tag(), arena.current());
            let ledger = match current.tag() == tag {
                true => Some(current),
                false => arena.ledger(tag),
            };
            // Without memory for a ledger the block stays on the books.
            if let Some(ledger) = ledger {
                arena.book_large_freed(ledger, 1, large.bytes());
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
    if config::is_secure() {
        secure::expect_large(block, None);
    }
    with_arena(|arena| {
        // SAFETY: the caller's promise.
        unsafe {
            let large = large::of(block.addr());
            let before = large.bytes();
            let Some(ledger) = arena.ledger(large.head.tag()) else {
                return null_mut();
            };
            let Some(after) = large::block_bytes(size) else {
                return null_mut();
            };
            let more = after.saturating_sub(before);
            if charge(ledger, more, arena.is_fallible()).is_err() {
                return null_mut();
            }
            let resized = match large.resize_in_place(size) {
                Some(_) => block,
                None => match large.relocate(size, align) {
                    Some(new) => core::ptr::with_exposed_provenance_mut(new.address),
                    None => {
                        uncharge(ledger, more);
                        return null_mut();
                    }
                },
            };
            if after > before {
                arena.book_large_allocated(ledger, 0, more);
            } else {
                arena.book_large_freed(ledger, 0, before - after);
            }
            resized
        }
    })
    .unwrap_or(null_mut())
}

/// Books a large block to another owner, both of whom have ledgers here. O(1).
///
/// # Safety
/// The block is large, alive and the caller's.
pub(super) unsafe fn retag(arena: &Arena, large: &Large, from: &Ledger, to: &Ledger) {
    let bytes = large.bytes();
    // A hand-over is not refused for a limit.
    let _ = charge(to, bytes, false);
    large.head.set_tag(to.tag());
    arena.book_large_allocated(to, 1, bytes);
    arena.book_large_freed(from, 1, bytes);
}
