//! Large blocks: a span each, described by the descriptor of its first slice alone.
//!
//! A block's bytes are its size rounded up to OS pages; slices behind that are never touched. It
//! grows into the free slices behind it, or moves: below [`MOVE_MIN`] by copying, above by moving
//! its pages, which costs the kernel two mappings for as long as the block lives. Such a block is
//! mapped afresh when it is released, and moves stop when too many are alive. What was mapped afresh
//! has to be faulted in again, so up to [`COPY_MAX`] a block that is resident is copied to a span that
//! is resident too, where others left one.

use super::descriptor::{Head, Kind};
use super::fit::{self, Contents, Zeroing};
use super::guard;
use super::places::Places;
use crate::class::class_of_layout;
use crate::config;
use crate::os::map;
use crate::os::process::page_size;
use crate::os::sync::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use crate::pool::region::DESCRIPTOR;
use crate::pool::router::{self, Wanted};
use crate::pool::{AllocFailure, Pool, fixed, page_rounded};
use crate::units::{ClassIndex, OwnerTag, SLICE, Slices};
use core::alloc::Layout;

/// Blocks of this many bytes are moved by the kernel rather than copied.
pub(crate) const MOVE_MIN: usize = 512 << 10;
/// Blocks of at most so many bytes are copied to where others have been, if there is such memory. Tests
/// touch every page of several.
pub(crate) const COPY_MAX: usize = if cfg!(test) { 16 << 20 } else { 256 << 20 };
/// Blocks alive whose pages were moved; two mappings each, of the 65,530 that a process may have.
const MOVED_MAX: u32 = 4096;
/// The block's pages were moved into its span.
const MOVED: u8 = 1;

static MOVED_ALIVE: AtomicU32 = AtomicU32::new(0);

/// The descriptor of a large block.
#[repr(C)]
pub(crate) struct Large {
    pub(crate) head: Head,
    /// So that a reader of statistics that takes a run for a block, as it has become one meanwhile,
    /// reads what is mostly 0 there, and is not written but atomically.
    unused: [usize; 3],
    bytes: AtomicUsize,
    /// Slices of the guard before it.
    front: AtomicU32,
}

static_assertions::const_assert!(size_of::<Large>() <= DESCRIPTOR);

/// Where the descriptor has the bytes.
pub(crate) const BYTES_AT: usize = core::mem::offset_of!(Large, bytes);

/// A block that was made or given up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) address: usize,
    /// What it occupies.
    pub(crate) bytes: usize,
}

/// What a large block of `size` bytes occupies.
pub(crate) fn block_bytes(size: usize) -> Option<usize> {
    page_rounded(size.max(1))
}

/// What a block of a layout occupies, small or large; `usize::MAX` if no block can have it.
pub(crate) fn block_size(layout: Layout) -> usize {
    match class_of_layout(layout) {
        Some(class) => class.row().size as usize,
        None => block_bytes(layout.size()).unwrap_or(usize::MAX),
    }
}

/// Whether so many bytes are most of `size`: what a copy touches beyond them is resident twice while
/// both blocks are there.
fn is_mostly(bytes: usize, size: usize) -> bool {
    bytes / 15 >= size / 16
}

/// A block for what is wanted, booked to `tag`.
pub(crate) fn allocate(
    wanted: &Wanted,
    tag: OwnerTag,
    zeroing: Zeroing,
) -> Result<Block, AllocFailure> {
    in_span(wanted, tag, zeroing).map(|(block, _)| block)
}

/// The same, and how many of its slices were dirty.
fn in_span(
    wanted: &Wanted,
    tag: OwnerTag,
    zeroing: Zeroing,
) -> Result<(Block, Slices), AllocFailure> {
    let too_large = AllocFailure::TooLarge {
        bytes: wanted.size as u64,
    };
    let bytes = block_bytes(wanted.size).ok_or(too_large)?;
    let align = Slices(wanted.align.div_ceil(SLICE).max(1));
    router::in_order(wanted, tag, |pool, _| {
        let slices = slices_for(pool, bytes).ok_or(too_large)?;
        let front = guard::front(pool, align);
        let whole = Slices(slices.0 + front.0);
        if u32::try_from(whole.0).is_err() {
            return Err(too_large);
        }
        pool.counts.requests.fetch_add(1, Relaxed);
        let span = fit::allocate(pool, whole, align, bytes, zeroing)?;
        let address = span.address + front.bytes();
        // SAFETY: claimed just now.
        unsafe {
            guard::put_front(span.address, front);
            guard::put_end(pool, address, bytes, slices);
        }
        let block = describe(address, slices, bytes, tag);
        // SAFETY: made just now.
        unsafe { of(address) }.front.store(front.0 as u32, Relaxed);
        Ok((block, span.dirty))
    })
}

/// Slices of a pool for a block of so many bytes, with what guards its end. `None` for more than
/// there can be.
pub(crate) fn slices_for(pool: &Pool, bytes: usize) -> Option<Slices> {
    let guard = if pool.has_guards() { page_size() } else { 0 };
    pool.slices_for(bytes.checked_add(guard)?)
}

fn describe(address: usize, slices: Slices, bytes: usize, tag: OwnerTag) -> Block {
    // SAFETY: the slices were claimed just now.
    let large = unsafe { of(address) };
    large.head.describe(ClassIndex(0), slices, tag);
    large.bytes.store(bytes, Relaxed);
    large.front.store(0, Relaxed);
    large.head.set_kind(Kind::Large);
    Block { address, bytes }
}

/// Spans of together at most this many slices are kept for reuse by a thread.
const KEPT_MAX: usize = (8 << 20) / SLICE;

/// Gives the spans back that are kept: none has the size that is wanted, and in the pool they may
/// become that block, or part of it, where otherwise fresh memory would be touched.
pub(crate) fn give_way(places: &Places) {
    // What the secure profile keeps is held back.
    if !config::is_secure() {
        // SAFETY: each span is handed over when it has left its place.
        places.age(true, |kept| unsafe { release_kept(kept) });
    }
}

/// A block from a span that was kept. Only spans of the growing pool are kept: in others they may be
/// wanted by another thread.
#[inline]
pub(crate) fn reuse(
    places: &Places,
    wanted: &Wanted,
    tag: OwnerTag,
    zeroing: Zeroing,
) -> Option<Block> {
    let is_kept = router::is_simple() && wanted.pool.is_none() && wanted.size <= KEPT_MAX * SLICE;
    // What the secure profile keeps is not to be had before it was released.
    if !is_kept || config::is_secure() {
        return None;
    }
    let bytes = block_bytes(wanted.size)?;
    let slices = Slices(bytes.div_ceil(SLICE));
    // SAFETY: what was kept has a descriptor for good, though it may be another's by now.
    let fits = |address: usize| unsafe {
        of(address).head.slices() == slices && address & (wanted.align - 1) == 0
    };
    let address = places.take(slices.0, fits)?;
    if zeroing == Zeroing::Whole {
        // SAFETY: a committed span of that many bytes, taken above.
        unsafe { core::ptr::write_bytes(address as *mut u8, 0, bytes) };
    }
    // SAFETY: taken just now. All else is as the block left it that was there.
    let large = unsafe { of(address) };
    large.head.set_tag(tag);
    large.bytes.store(bytes, Relaxed);
    large.head.set_kind(Kind::Large);
    Some(Block { address, bytes })
}

/// Gives a span back that was kept.
///
/// # Safety
/// It was taken from its place.
pub(crate) unsafe fn release_kept(address: usize) {
    // SAFETY: the caller's promise.
    unsafe { of(address).release() };
}

/// The descriptor of the large block at `address`.
///
/// # Safety
/// A large block, or a span about to become one, starts there.
#[inline]
pub(crate) unsafe fn of(address: usize) -> &'static Large {
    // SAFETY: the caller's promise; a descriptor has room for a `Large`.
    unsafe { &*core::ptr::from_ref(Head::of_slice(address)).cast::<Large>() }
}

impl Large {
    /// What the block occupies.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    fn pool(&self) -> &'static Pool {
        // SAFETY: the block's slices were claimed from it.
        unsafe { fit::pool_of(self.head.address()) }
    }

    /// Whether its pages can be moved: they are of anonymous memory, and together, without guards.
    fn is_movable(&self) -> bool {
        let pool = self.pool();
        !pool.kind().is_object() && !pool.is_small() && !pool.has_guards()
    }

    /// Gives the block up, keeping its span for reuse if it is small enough.
    ///
    /// # Safety
    /// The block is alive, nobody uses it any more, and the caller has the places.
    pub(crate) unsafe fn keep_or_release(&self, places: &Places) {
        // SAFETY: the caller's promise.
        unsafe {
            if config::is_secure() {
                return self.release_securely(places);
            }
            let slices = self.head.slices().0;
            if slices > KEPT_MAX || self.head.flags() & MOVED != 0 || self.is_of_fixed() {
                return self.release();
            }
            // What was kept may be another's by now: then it only makes less room for the rest. It
            // has a descriptor for good, and is handed over when it has left its place.
            let measure = |kept| of(kept).head.slices().0;
            places.make_room(slices, KEPT_MAX, measure, |kept| release_kept(kept));
        }
        self.keep(places);
    }

    /// Whether it is of a pool of a set size.
    #[inline]
    fn is_of_fixed(&self) -> bool {
        !fixed::holds_first(self.head.address()) && self.pool().is_fixed()
    }

    /// Keeps the span for reuse.
    #[inline]
    fn keep(&self, places: &Places) {
        self.head.set_kind(Kind::Kept);
        if let Some(left) = places.put(self.head.address()) {
            // SAFETY: it has left its place.
            unsafe { release_kept(left) };
        }
    }

    /// The same in the secure profile, in which what the block held is taken away, or cleared.
    ///
    /// # Safety
    /// As for [`keep_or_release`](Self::keep_or_release).
    #[cold]
    unsafe fn release_securely(&self, places: &Places) {
        // SAFETY: the caller's promise.
        unsafe {
            if self.pool().has_guards() {
                return self.hold_back(places);
            }
            self.pool().clear(self.head.address(), self.bytes());
            self.release();
        }
    }

    /// Takes away what the block holds, and access to it, and keeps its span from being used for a
    /// while.
    ///
    /// # Safety
    /// As for [`keep_or_release`](Self::keep_or_release).
    unsafe fn hold_back(&self, places: &Places) {
        let (address, slices) = (self.head.address(), self.head.slices());
        // SAFETY: the caller's promise. Without a guard the contents have to go all the same.
        unsafe {
            if map::guard(address, slices.bytes()).is_err() {
                self.pool().clear(address, self.bytes());
            }
        }
        self.keep(places);
    }

    /// Gives the block's slices back.
    ///
    /// # Safety
    /// The block is alive, and nobody uses it any more.
    pub(crate) unsafe fn release(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.release_holding(Contents::Dirty) }
    }

    /// [`release`](Self::release), telling what the slices hold.
    ///
    /// # Safety
    /// As there, and `contents` is true.
    unsafe fn release_holding(&self, contents: Contents) {
        let address = self.head.address();
        let slices = self.head.slices();
        let mut left = Some(contents);
        if self.head.flags() & MOVED != 0 {
            // SAFETY: the block's own slices.
            left = unsafe { self.contents_left_in(address, slices) };
            MOVED_ALIVE.fetch_sub(1, Relaxed);
        }
        self.head.set_flags(0);
        let Some(contents) = left else {
            return self.head.set_kind(Kind::Kept);
        };
        let front = Slices(self.front.load(Relaxed) as usize);
        self.head.clear();
        // SAFETY: the caller's promise; what may be guarded is free of that again.
        unsafe {
            let pool = self.pool();
            if pool.has_guards() {
                let _ = map::unguard(address, slices.bytes());
            }
            let start = address - front.bytes();
            guard::remove_front(start, front);
            let whole = Slices(front.0 + slices.0);
            fit::release(pool, start, whole, contents);
        }
    }

    /// What slices hold that the block gives up: moved ones are mapped afresh. `None` if the kernel
    /// has unmapped them and does not map them again: they are lost.
    ///
    /// # Safety
    /// The block's own slices, whose contents nobody wants.
    unsafe fn contents_left_in(&self, address: usize, slices: Slices) -> Option<Contents> {
        if self.head.flags() & MOVED == 0 {
            return Some(Contents::Dirty);
        }
        let huge = self.pool().huge_pages();
        // SAFETY: the caller's promise.
        unsafe {
            match map::map_afresh(address, slices.bytes(), huge) {
                Ok(()) => Some(Contents::Zero),
                // The mappings stay split.
                Err(_) => map::mend(address, slices.bytes())
                    .ok()
                    .map(|()| Contents::Dirty),
            }
        }
    }

    /// Makes the block `size` bytes without moving it; its bytes now, or `None` with nothing
    /// changed.
    ///
    /// # Safety
    /// The block is alive and the caller's; what lies behind a smaller `size` is given up.
    pub(crate) unsafe fn resize_in_place(&self, size: usize) -> Option<usize> {
        let pool = self.pool();
        let bytes = block_bytes(size)?;
        let wanted = slices_for(pool, bytes)?;
        let have = self.head.slices();
        let address = self.head.address();
        if !pool.admits(size) || bytes > pool.room(address, wanted) {
            return None;
        }
        let before = self.bytes();
        // SAFETY: the block's own slices. What is given up is cleared as freed memory is.
        unsafe {
            guard::remove_end(pool, address, before, have);
            if pool.has_guards() && bytes < before {
                let tail = (address + bytes) as *mut u8;
                core::ptr::write_bytes(tail, 0, before - bytes);
            }
        }
        // SAFETY: the caller's promise.
        let resized = unsafe { self.resize_to(pool, wanted) };
        let bytes = resized.map_or(before, |()| bytes);
        self.bytes.store(bytes, Relaxed);
        // SAFETY: the block's own slices.
        unsafe { guard::put_end(pool, address, bytes, self.head.slices()) };
        resized.map(|()| bytes)
    }

    /// Makes the block so many slices without moving it; `None` with nothing changed.
    ///
    /// # Safety
    /// As for [`resize_in_place`](Self::resize_in_place).
    unsafe fn resize_to(&self, pool: &Pool, wanted: Slices) -> Option<()> {
        let have = self.head.slices();
        let address = self.head.address();
        if wanted > have {
            let more = Slices(wanted.0 - have.0);
            if !fit::extend(pool, address + have.bytes(), more) {
                return None;
            }
            self.head.set_slices(wanted);
        } else if wanted < have {
            self.head.set_slices(wanted);
            let tail = (address + wanted.bytes(), Slices(have.0 - wanted.0));
            // SAFETY: the tail is the block's own, and nothing counts on it any more.
            unsafe {
                match self.contents_left_in(tail.0, tail.1) {
                    Some(contents) => fit::release(pool, tail.0, tail.1, contents),
                    None => self.head.set_slices(have),
                }
            }
        }
        Some(())
    }

    /// Whether copying costs less than moving pages when the block becomes `size` bytes, if there is a
    /// dirty span for it.
    fn may_be_copied(&self, size: usize) -> bool {
        let len = self.bytes().min(size);
        // SAFETY: the block's own pages.
        let resident = || unsafe { map::resident_bytes(self.head.address(), len) };
        len <= COPY_MAX
            && is_mostly(self.pool().dirty_bytes() as usize, size)
            && is_mostly(resident(), len)
    }

    /// Moves the block to a new one of `size` bytes at a multiple of `align` with the same tag, and
    /// releases the old one. `None`, with nothing changed, where the caller is to copy it.
    ///
    /// # Safety
    /// The block is alive and the caller's.
    pub(crate) unsafe fn relocate(&self, size: usize, align: usize) -> Option<Block> {
        let len = self.bytes().min(size);
        if len < MOVE_MIN || !self.is_movable() {
            return None;
        }
        let may_be_moved = MOVED_ALIVE.load(Relaxed) < MOVED_MAX;
        let may_be_copied = self.may_be_copied(size);
        if !may_be_moved && !may_be_copied {
            return None;
        }
        let layout = Layout::from_size_align(size, align).ok()?;
        let wanted = Wanted::new(layout);
        let (block, dirty) = in_span(&wanted, self.head.tag(), Zeroing::None).ok()?;
        // SAFETY: made just now, and seen by nobody; the old one is the caller's to give up.
        unsafe {
            let new = of(block.address);
            // Who had the slices before need not have touched them.
            let resident = || map::resident_bytes(block.address, size);
            if may_be_copied && is_mostly(dirty.bytes(), size) && is_mostly(resident(), size) {
                let (from, to) = (self.head.address(), block.address);
                core::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, len);
                self.release();
                return Some(block);
            }
            if !may_be_moved || !new.is_movable() {
                new.release_holding(Contents::Dirty);
                return None;
            }
            self.move_pages(new).then_some(block)
        }
    }

    /// Moves the pages to a block that was made for them, and releases the old one. If it fails, the
    /// new one is released.
    ///
    /// # Safety
    /// Both blocks are alive and the caller's, and their pages can be moved.
    unsafe fn move_pages(&self, new: &Large) -> bool {
        // Whole slices, so that nothing of the old ones is left to be purged.
        let (from, to) = (self.head.slices(), new.head.slices());
        let (address, len) = (new.head.address(), from.min(to).bytes());
        // SAFETY: two spans of the caller's, and as much as both have. The slices of the new one may
        // have been unmapped where it fails; what cannot be mapped again is lost.
        unsafe {
            if map::move_pages(self.head.address(), address, len).is_err() {
                match map::mend(address, len) {
                    Ok(()) => new.release(),
                    Err(_) => new.head.set_kind(Kind::Kept),
                }
                return false;
            }
        }
        new.head.set_flags(MOVED);
        MOVED_ALIVE.fetch_add(1, Relaxed);
        let contents = if to >= from {
            Contents::Zero
        } else {
            Contents::Dirty
        };
        // SAFETY: the caller has given it up, and what was moved away reads as zero.
        unsafe { self.release_holding(contents) };
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::extent::decay::{DECAY, purge_all};
    use std::vec::Vec;

    fn make(places: &Places, size: usize) -> &'static Large {
        let tag = OwnerTag::UNATTRIBUTED;
        let wanted = Wanted::new(Layout::from_size_align(size, 8).unwrap());
        let block = reuse(places, &wanted, tag, Zeroing::None).unwrap_or_else(|| {
            give_way(places);
            allocate(&wanted, tag, Zeroing::None).unwrap()
        });
        // SAFETY: made just now.
        unsafe { of(block.address) }
    }

    fn kept(places: &Places) -> Vec<usize> {
        places.iter().collect()
    }

    #[test]
    fn kept_spans_are_bounded_together_and_go_when_none_fits() {
        const MIB: usize = 1 << 20;
        let places = Places::new();
        let blocks = [(); 6].map(|()| make(&places, 3 * MIB));
        for block in blocks {
            // SAFETY: alive, and nobody uses it any more.
            unsafe { block.keep_or_release(&places) };
            let bytes: usize = kept(&places).len() * 3 * MIB;
            assert!(
                (3 * MIB..=8 * MIB).contains(&bytes),
                "{bytes} bytes are kept"
            );
        }
        // The same size comes from what is kept, another has all of it given back.
        let before = kept(&places);
        let again = make(&places, 3 * MIB);
        assert!(before.contains(&again.head.address()));
        let other = make(&places, 2 * MIB);
        assert!(kept(&places).is_empty());
        // SAFETY: alive, and nobody uses them any more.
        unsafe {
            again.release();
            other.release();
        }
    }

    /// Touches every page of a block, or none.
    ///
    /// # Safety
    /// It is this test's.
    unsafe fn touch(block: &Large, touched: bool) {
        let start = block.head.address() as *mut u8;
        for place in (0..block.bytes()).step_by(page_size()).filter(|_| touched) {
            // SAFETY: in the block.
            unsafe { start.add(place).write_volatile(1) };
        }
    }

    /// Whether a block's pages are moved as it becomes twice as large, `touched` or not.
    fn is_moved(size: usize, touched: bool) -> bool {
        let large = make(&Places::new(), size);
        // SAFETY: this test's blocks; the old one is given up as it moves.
        unsafe {
            touch(large, touched);
            let block = large.relocate(2 * size, 1);
            let grown = block.map_or(large, |block| of(block.address));
            let moved = grown.head.flags() & MOVED != 0;
            grown.release();
            moved
        }
    }

    /// Other tests make memory dirty too, and use it again.
    #[test]
    fn blocks_are_copied_to_dirty_spans() {
        const SIZE: usize = 1 << 20;
        let where_none_is = || {
            purge_all(&DECAY.hold());
            is_moved(SIZE, true)
        };
        assert!((0..1_000).any(|_| where_none_is()));
        // First fit finds what was released last if the same is asked for in the same order.
        let where_its_span_is = |size, resident, touched| {
            purge_all(&DECAY.hold());
            let places = Places::new();
            let (block, grown) = (make(&places, size), make(&places, 2 * size));
            // SAFETY: this test's blocks.
            unsafe {
                touch(grown, resident);
                block.release();
                grown.release();
            }
            is_moved(size, touched)
        };
        assert!((0..1_000).any(|_| !where_its_span_is(SIZE, true, true)));
        assert!((0..1_000).any(|_| where_its_span_is(SIZE, true, false)));
        assert!((0..1_000).any(|_| where_its_span_is(SIZE, false, true)));
        assert!((0..1_000).any(|_| !where_its_span_is(COPY_MAX, true, true)));
        assert!(where_its_span_is(2 * COPY_MAX, true, true));
        // As much is dirty, but elsewhere.
        let where_another_is = |size| {
            purge_all(&DECAY.hold());
            let places = Places::new();
            let clean = make(&places, 4 * size);
            let between = make(&places, 1);
            let dirty = make(&places, 2 * size);
            // SAFETY: this test's blocks, and nobody has written to the first.
            unsafe {
                touch(dirty, true);
                dirty.release();
                clean.release_holding(Contents::Zero);
                let moved = is_moved(size, true);
                between.release();
                moved
            }
        };
        assert!((0..1_000).any(|_| where_another_is(8 * SIZE)));
    }
}
