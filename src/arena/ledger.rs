//! Ledgers: what one owner's blocks did on one thread.
//!
//! Every count has one writer, the thread that has the arena, and only ever grows. An owner's live
//! bytes are all that was allocated less all that was freed, over all arenas. A block is counted
//! as freed by the thread that frees it, before anybody can be given it again.

use super::bins::Bins;
use super::counter::Counter;
use crate::os::sync::{AtomicPtr, AtomicU32, Ordering};
use crate::pool::metadata;
use crate::units::OwnerTag;
use core::cell::Cell;
use core::ptr::{NonNull, null_mut};

/// Counts of blocks and bytes.
///
/// A reader takes everything freed first and everything allocated after it, so that a block which
/// comes and goes meanwhile is never seen freed but not allocated.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Totals {
    pub(crate) allocated_blocks: u64,
    pub(crate) allocated_bytes: u64,
    pub(crate) freed_blocks: u64,
    pub(crate) freed_bytes: u64,
}

/// One owner on one thread. Type-stable.
#[repr(C, align(128))]
pub(crate) struct Ledger {
    tag: AtomicU32,
    /// The owner's own bins on this thread, once it has enough blocks to fill runs.
    bins: AtomicPtr<Bins>,
    /// The arena's next ledger.
    pub(super) next: AtomicPtr<Ledger>,
    /// Blocks in mixed runs and large blocks: all that the bins do not count.
    pub(super) allocated_blocks: Counter,
    pub(super) allocated_bytes: Counter,
    pub(super) freed_blocks: Counter,
    pub(super) freed_bytes: Counter,
}

impl Ledger {
    pub(crate) const fn new(tag: OwnerTag) -> Ledger {
        Ledger {
            tag: AtomicU32::new(tag.0),
            bins: AtomicPtr::new(null_mut()),
            next: AtomicPtr::new(null_mut()),
            allocated_blocks: Counter::new(),
            allocated_bytes: Counter::new(),
            freed_blocks: Counter::new(),
            freed_bytes: Counter::new(),
        }
    }

    pub(crate) fn tag(&self) -> OwnerTag {
        OwnerTag(self.tag.load(Ordering::Relaxed))
    }

    /// The owner's own bins on this thread.
    pub(crate) fn bins(&self) -> Option<&'static Bins> {
        // Acquire pairs with the Release in `set_bins`: readers of totals see initialised bins.
        // SAFETY: bins are never given up.
        unsafe { self.bins.load(Ordering::Acquire).as_ref() }
    }

    pub(super) fn set_bins(&self, bins: *const Bins) {
        self.bins.store(bins.cast_mut(), Ordering::Release);
    }

    /// Counts `bytes` in `blocks` blocks as allocated outside the bins.
    pub(super) fn book_allocated(&self, blocks: u64, bytes: usize) {
        self.allocated_blocks.add(blocks);
        self.allocated_bytes.add(bytes as u64);
    }

    /// Counts `bytes` in `blocks` blocks as freed outside the bins.
    pub(super) fn book_freed(&self, blocks: u64, bytes: usize) {
        self.freed_blocks.add(blocks);
        self.freed_bytes.add(bytes as u64);
    }

    /// Adds what this owner freed on this thread.
    pub(crate) fn add_freed(&self, totals: &mut Totals) {
        totals.freed_blocks += self.freed_blocks.get();
        totals.freed_bytes += self.freed_bytes.get();
        if let Some(bins) = self.bins() {
            bins.add_freed(totals);
        }
    }

    /// Adds what this owner allocated on this thread.
    pub(crate) fn add_allocated(&self, totals: &mut Totals) {
        totals.allocated_blocks += self.allocated_blocks.get();
        totals.allocated_bytes += self.allocated_bytes.get();
        if let Some(bins) = self.bins() {
            bins.add_allocated(totals);
        }
    }
}

/// An arena's ledgers by tag: a hash table for the thread that has the arena, and a list, which
/// only grows, for readers.
pub(crate) struct Ledgers {
    first: AtomicPtr<Ledger>,
    table: Cell<*mut *const Ledger>,
    capacity: Cell<usize>,
    len: Cell<usize>,
}

const FIRST_CAPACITY: usize = 16;

impl Ledgers {
    pub(crate) const fn new() -> Ledgers {
        Ledgers {
            first: AtomicPtr::new(null_mut()),
            table: Cell::new(null_mut()),
            capacity: Cell::new(0),
            len: Cell::new(0),
        }
    }

    /// All ledgers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'static Ledger> {
        // Acquire pairs with the Release in `add`: ledgers are initialised when they are seen.
        let mut next = self.first.load(Ordering::Acquire);
        core::iter::from_fn(move || {
            // SAFETY: ledgers are never given up.
            let ledger = unsafe { next.as_ref()? };
            next = ledger.next.load(Ordering::Relaxed);
            Some(ledger)
        })
    }

    /// The place of `tag` in the table, or where it would go.
    fn place(&self, tag: OwnerTag) -> *mut *const Ledger {
        let mask = self.capacity.get() - 1;
        let mut index = (tag.0 as usize).wrapping_mul(0x9e37_79b9) >> 7 & mask;
        loop {
            // SAFETY: the table has `capacity` places, and one at least is empty.
            let place = unsafe { self.table.get().add(index) };
            // SAFETY: as above; ledgers are never given up.
            match unsafe { (*place).as_ref() } {
                Some(ledger) if ledger.tag() != tag => index = (index + 1) & mask,
                _ => return place,
            }
        }
    }

    /// The ledger of `tag`, if it has one here.
    pub(crate) fn find(&self, tag: OwnerTag) -> Option<&'static Ledger> {
        if self.capacity.get() == 0 {
            return None;
        }
        // SAFETY: `place` returns a place of the table; ledgers are never given up.
        unsafe { (*self.place(tag)).as_ref() }
    }

    /// The ledger of `tag`, made if need be. `None` if there is no memory.
    pub(crate) fn find_or_add(&self, tag: OwnerTag) -> Option<&'static Ledger> {
        if let Some(ledger) = self.find(tag) {
            return Some(ledger);
        }
        if (self.len.get() + 1) * 2 > self.capacity.get() {
            self.grow()?;
        }
        let record = metadata::allocate(size_of::<Ledger>())?.cast::<Ledger>();
        // SAFETY: a fresh record of that size.
        let ledger = unsafe {
            record.write(Ledger::new(tag));
            record.as_ref()
        };
        ledger
            .next
            .store(self.first.load(Ordering::Relaxed), Ordering::Relaxed);
        // Release pairs with the Acquire in `iter`.
        self.first.store(record.as_ptr(), Ordering::Release);
        // SAFETY: `place` returns a place of the table.
        unsafe { *self.place(tag) = ledger };
        self.len.set(self.len.get() + 1);
        Some(ledger)
    }

    fn grow(&self) -> Option<()> {
        let old = (self.table.get(), self.capacity.get());
        let capacity = (old.1 * 2).max(FIRST_CAPACITY);
        let bytes = |capacity: usize| capacity * size_of::<*const Ledger>();
        let table = metadata::allocate(bytes(capacity))?;
        // SAFETY: a record of that size; all places empty.
        unsafe { table.write_bytes(0, bytes(capacity)) };
        self.table.set(table.as_ptr().cast());
        self.capacity.set(capacity);
        for ledger in self.iter() {
            // SAFETY: `place` returns a place of the table.
            unsafe { *self.place(ledger.tag()) = ledger };
        }
        if let Some(table) = NonNull::new(old.0) {
            // SAFETY: the old table, which only this thread read.
            unsafe { metadata::release(table.cast(), bytes(old.1)) };
        }
        Some(())
    }
}
