//! Blocks by address alone, for interfaces that know no layout when a block comes back, as C's.
//!
//! What a block is stands in its descriptor, which follows from the address by arithmetic; only
//! here an address may be one that was never given out, so it is compared with the regions first.

use crate::arena::bins::Bin;
pub use crate::arena::lookup::NotABlock;
use crate::arena::lookup::block_at;
use crate::arena::{fast, large, life, owner, requested, sites};
use crate::class::{LOOKUP_MAX, class_of_layout};
use crate::config;
use crate::extent::descriptor::Head;
use crate::extent::large as spans;
use crate::facade::Bursar;
use crate::os::output::Output;
use crate::os::process;
use crate::pool::{fixed, router};
use crate::run::descriptor::{Run, run_at, run_of};
use crate::units::{ClassIndex, SLICE};
use core::alloc::{GlobalAlloc, Layout};
use core::fmt;

static GLOBAL: Bursar = Bursar::new();

/// Reads the settings and installs the hooks of the process, if the first request came too early
/// for that: the dynamic linker allocates before the C library is up. For a constructor of a shared
/// object that serves such requests; elsewhere it does nothing that would not happen by itself.
pub fn begin() {
    GLOBAL.offer();
    life::begin();
}

/// Prints on standard error. Allocates nothing, and cancels no thread.
pub fn print(text: impl fmt::Display) {
    let _ = fmt::Write::write_fmt(&mut Output::stderr(), format_args!("{text}"));
}

/// Prints a line on standard error, cut off at 512 bytes, and aborts.
pub fn end_with(line: fmt::Arguments<'_>) -> ! {
    process::end_with_line(line)
}

/// Whether the secure profile is in force, in which who frees a block with a size is held to it.
#[inline]
pub fn is_secure() -> bool {
    config::is_secure()
}

/// A block for the current consumer; null if memory cannot be had.
#[inline]
pub fn allocate(layout: Layout) -> *mut u8 {
    // SAFETY: the size is not zero where it matters: a class has a size, whatever was asked for.
    unsafe { GLOBAL.alloc(whole(layout)) }
}

/// The largest size that [`allocate_sixteens`] serves without a detour.
pub const SIXTEENS_MAX: usize = LOOKUP_MAX;

/// A block of at least `size` bytes, and of at least one, at a multiple of 16, for the current consumer.
/// Where memory cannot be had, what `refused` returns, which is told of the size and may unwind.
#[inline(always)]
pub fn allocate_sixteens(size: usize, refused: fn(usize) -> *mut u8) -> *mut u8 {
    if size > LOOKUP_MAX || requested::COUNTED || sites::SAMPLED {
        return allocate_by_layout(size, refused);
    }
    fast::allocate(ClassIndex::of_sixteens(size), |bin| {
        refill(size, bin, refused)
    })
}

#[inline(never)]
fn allocate_by_layout(size: usize, refused: fn(usize) -> *mut u8) -> *mut u8 {
    let block = match Layout::from_size_align(size.max(1), 16) {
        Ok(layout) => allocate(layout),
        Err(_) => core::ptr::null_mut(),
    };
    if block.is_null() {
        refused(size)
    } else {
        block
    }
}

#[cold]
#[inline(never)]
fn refill(size: usize, bin: *const Bin, refused: fn(usize) -> *mut u8) -> *mut u8 {
    // SAFETY: so small a size fits.
    let layout = unsafe { Layout::from_size_align_unchecked(size.max(1), 16) };
    let block = GLOBAL.refill(layout, bin);
    if block.is_null() {
        refused(size)
    } else {
        block
    }
}

/// A block that reads as zero, for the current consumer; null if memory cannot be had.
#[inline]
pub fn allocate_zeroed(layout: Layout) -> *mut u8 {
    // SAFETY: as in `allocate`.
    unsafe { GLOBAL.alloc_zeroed(whole(layout)) }
}

/// What is counted as asked for, and sampled: a block that comes back without its layout was asked
/// for whole.
#[inline]
fn whole(layout: Layout) -> Layout {
    if !requested::COUNTED && !sites::SAMPLED {
        return layout;
    }
    let size = spans::block_size(layout);
    Layout::from_size_align(size, layout.align()).unwrap_or(layout)
}

/// The slot that starts at an address in a slice that has a descriptor: its class and run, whether a
/// block is alive there or not.
///
/// # Safety
/// As said; the address is else anything.
#[inline(always)]
unsafe fn slot(start: usize) -> Option<(ClassIndex, &'static Run)> {
    // SAFETY: the caller's promise.
    let (head, back) = unsafe { Head::of_slice(start) }.first_and_back();
    let class = head.class();
    let is_slot = head.is_run() && class.starts_slot(back + start % SLICE);
    // SAFETY: the descriptor of a run, which stays one while a block in it is alive.
    is_slot.then(|| (class, unsafe { run_at(head) }))
}

/// Frees the block that starts at `address`, which may be anything, if it is small and in the growing
/// pool's first region, in the fewest instructions. Else, or if it was freed just now, `otherwise`:
/// [`Block::at`] knows.
///
/// # Safety
/// If there is a block, it is not used any more.
#[inline(always)]
pub unsafe fn free_small(address: *mut u8, otherwise: impl Fn()) {
    if requested::COUNTED || sites::SAMPLED {
        return otherwise();
    }
    let start = address.addr();
    if !fixed::holds_first(start) {
        return otherwise();
    }
    // SAFETY: the slice has a descriptor; the caller's promise.
    unsafe {
        match slot(start) {
            Some((class, run)) => fast::give_back(address, class, run, Some(otherwise)),
            None => otherwise(),
        }
    }
}

/// A block that was found by its address. It may have been freed: that of a small block shows only
/// if this thread freed none of the same run since, or when the whole run is gone.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    start: *mut u8,
    /// `None` for a large block.
    class: Option<ClassIndex>,
}

impl Block {
    /// The block that starts at `address`, which may be anything. O(1), no allocation, no lock.
    ///
    /// # Errors
    /// If none does.
    #[inline(always)]
    #[expect(
        clippy::not_unsafe_ptr_arg_deref,
        reason = "only its address is looked at"
    )]
    pub fn at(address: *mut u8) -> Result<Block, NotABlock> {
        let class = block_at(address.addr())?;
        // SAFETY: a slot of a run of that class.
        if class.is_some_and(|class| unsafe { fast::was_freed_last(address, class) }) {
            return Err(NotABlock::Free);
        }
        Ok(Block {
            start: address,
            class,
        })
    }

    /// Bytes that may be used.
    #[inline]
    pub fn size(&self) -> usize {
        match self.class {
            Some(class) => class.row().size as usize,
            // SAFETY: a large block starts there.
            None => unsafe { spans::of(self.start.addr()).bytes() },
        }
    }

    /// Whether a block that is asked for with this layout is one of its kind. O(1).
    pub fn is_of(&self, layout: Layout) -> bool {
        let class = class_of_layout(layout);
        class == self.class && (class.is_some() || spans::block_size(layout) == self.size())
    }

    /// Frees it.
    ///
    /// # Safety
    /// The block is alive, and not used any more.
    #[inline]
    pub unsafe fn free(self) {
        // SAFETY: the caller's promise.
        unsafe {
            let whole = Layout::from_size_align_unchecked(self.size(), 1);
            requested::freed(self.start, whole);
            sites::freed(self.start);
            match self.class {
                Some(class) => fast::deallocate(self.start, class),
                None => large::deallocate(self.start, self.size()),
            }
        }
    }

    /// Makes it one of another layout, in place or by moving it; its owner stays. Null, with
    /// nothing changed, if memory cannot be had. A block that is more than half used afterwards
    /// stays where it is.
    ///
    /// # Safety
    /// The block is alive, and the caller's; after a success it is no more, but for the result.
    pub unsafe fn resize(self, layout: Layout) -> *mut u8 {
        let (size, wanted) = (self.size(), layout.size());
        let aligned = self.start.addr().is_multiple_of(layout.align());
        if aligned && wanted <= size && (wanted > size / 2 || wanted == size) && self.admits(wanted)
        {
            return self.start;
        }
        let sampled = sites::lift(self.start);
        // SAFETY: the caller's promise.
        let resized = unsafe { self.move_to(layout) };
        if sites::SAMPLED {
            let at = if resized.is_null() {
                self.start
            } else {
                resized
            };
            let now = Block::at(at).map_or(wanted, |block| block.size());
            let of = |size| Layout::from_size_align(size, layout.align()).unwrap_or(layout);
            sampled.put(at, of(size), of(now));
        }
        resized
    }

    /// The same where it does not stay as it is, and without its sample.
    ///
    /// # Safety
    /// As there.
    #[inline]
    unsafe fn move_to(self, layout: Layout) -> *mut u8 {
        let (size, wanted) = (self.size(), layout.size());
        // SAFETY: the caller's promise; the two blocks do not overlap.
        unsafe {
            if self.class.is_none() && class_of_layout(layout).is_none() {
                let resized = large::resize(self.start, wanted, layout.align());
                if !resized.is_null() {
                    let now = Block::at(resized).map_or(wanted, |block| block.size());
                    requested::changed(resized, layout, size, now);
                    return resized;
                }
            }
            let (tag, new) = (|| self.tag(), whole(layout));
            let moved = GLOBAL.allocate_beside(self.start, self.class, tag, new);
            if !moved.is_null() {
                core::ptr::copy_nonoverlapping(self.start, moved, size.min(wanted));
                requested::changed(moved, layout, 0, whole(layout).size());
                self.free();
            }
            moved
        }
    }

    /// Whether the pool that it lies in serves requests of that size.
    fn admits(&self, size: usize) -> bool {
        match self.class {
            // SAFETY: a block of that class.
            Some(class) if router::is_cut(class) => unsafe {
                owner::admits(self.start, class, size)
            },
            _ => true,
        }
    }

    /// # Safety
    /// The block is alive.
    unsafe fn tag(&self) -> crate::units::OwnerTag {
        // SAFETY: the caller's promise.
        unsafe {
            match self.class {
                Some(class) => (*run_of(self.start, class)).tag_of(self.start.addr()),
                None => spans::of(self.start.addr()).head.tag(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// In runs of one slice and of several: at the start of a block, and at no other place.
    #[test]
    fn slots_are_found_by_their_start() {
        for size in [16, 5_000, 40_000, 200_000] {
            let layout = Layout::from_size_align(size, 16).unwrap();
            let blocks: Vec<_> = (0..40).map(|_| allocate(layout)).collect();
            for &block in &blocks {
                let class = class_of_layout(layout);
                // SAFETY: a block's slices have descriptors.
                unsafe {
                    assert_eq!(slot(block.addr()).map(|slot| slot.0), class);
                    assert!(slot(block.addr() + 8).is_none());
                    assert!(slot(block.addr() + size / 2 + 1).is_none());
                    Block::at(block).unwrap().free();
                }
            }
        }
    }
}
