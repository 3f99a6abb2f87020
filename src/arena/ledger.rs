//! Ledgers: what one owner's blocks did on one thread.
//!
//! Every count has one writer, the thread that has the arena, and only ever grows. An owner's live
//! bytes are all that was allocated less all that was freed, over all arenas. A block is counted
//! as freed by the thread that frees it, before anybody can be given it again.

use super::bins::{Bins, empty_bins};
use super::counter::Counter;
use super::owners::{Owner, STEP};
use crate::class::CLASSES;
use crate::os::sync::{AtomicI16, AtomicPtr, AtomicU32, Ordering, Ordering::Relaxed};
use crate::pool::{AllocFailure, metadata};
use crate::units::{ClassIndex, OwnerTag};
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
    /// Of the blocks freed, those that another thread freed than the one that had their run.
    pub(crate) freed_remotely: u64,
    /// Bytes that were asked for, of what was allocated and of what was freed; only with the
    /// feature.
    pub(crate) requested: [u64; 2],
}

impl Totals {
    /// Takes what was freed before `base` was read off again.
    pub(crate) fn subtract_freed(&mut self, base: &Totals) {
        self.freed_blocks -= base.freed_blocks;
        self.freed_bytes -= base.freed_bytes;
        self.freed_remotely -= base.freed_remotely;
        self.requested[1] -= base.requested[1];
    }

    /// The same for what was allocated.
    pub(crate) fn subtract_allocated(&mut self, base: &Totals) {
        self.allocated_blocks -= base.allocated_blocks;
        self.allocated_bytes -= base.allocated_bytes;
        self.requested[0] -= base.requested[0];
    }

    /// Adds other counts.
    pub(crate) fn add(&mut self, other: &Totals) {
        self.allocated_blocks += other.allocated_blocks;
        self.allocated_bytes += other.allocated_bytes;
        self.freed_blocks += other.freed_blocks;
        self.freed_bytes += other.freed_bytes;
        self.freed_remotely += other.freed_remotely;
        for (sum, more) in self.requested.iter_mut().zip(other.requested) {
            *sum += more;
        }
    }

    /// Bytes alive.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.allocated_bytes - self.freed_bytes
    }

    /// Whether no block is alive.
    pub(crate) fn is_even(&self) -> bool {
        self.allocated_blocks == self.freed_blocks && self.allocated_bytes == self.freed_bytes
    }
}

/// One owner on one thread. Type-stable.
#[repr(C, align(128))]
pub(crate) struct Ledger {
    tag: AtomicU32,
    /// Scopes of this owner that the thread is in.
    scopes: AtomicU32,
    /// By how much the owner's bound is above what this ledger counts.
    slack: Cell<i64>,
    /// Blocks in mixed runs and large blocks: all that the bins do not count.
    pub(super) allocated_blocks: Counter,
    pub(super) allocated_bytes: Counter,
    pub(super) freed_blocks: Counter,
    pub(super) freed_bytes: Counter,
    /// The owner's own bins on this thread, once it has enough blocks to fill runs.
    bins: AtomicPtr<Bins>,
    /// The bins that fast paths use in its scopes.
    pub(super) shown: Cell<*const Bins>,
    /// Null for what no consumer claimed.
    owner: AtomicPtr<Owner>,
    /// The arena's next ledger.
    pub(super) next: AtomicPtr<Ledger>,
    /// The owner's next ledger.
    pub(super) next_of_owner: AtomicPtr<Ledger>,
    freed_remotely: Counter,
    #[cfg(feature = "requested")]
    requested: [Counter; 2],
    /// Live blocks in mixed runs by class, allocated less freed here. What does not fit is counted
    /// in bins.
    few: [AtomicI16; CLASSES],
}

impl Ledger {
    pub(crate) const fn new(tag: OwnerTag) -> Ledger {
        Ledger {
            tag: AtomicU32::new(tag.0),
            scopes: AtomicU32::new(0),
            bins: AtomicPtr::new(null_mut()),
            shown: Cell::new(empty_bins()),
            next: AtomicPtr::new(null_mut()),
            owner: AtomicPtr::new(null_mut()),
            next_of_owner: AtomicPtr::new(null_mut()),
            slack: Cell::new(0),
            allocated_blocks: Counter::new(),
            allocated_bytes: Counter::new(),
            freed_blocks: Counter::new(),
            freed_bytes: Counter::new(),
            freed_remotely: Counter::new(),
            #[cfg(feature = "requested")]
            requested: [const { Counter::new() }; 2],
            few: [const { AtomicI16::new(0) }; CLASSES],
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
        // In junk mode every request takes the slow path, which fills blocks.
        if !crate::config::junk() {
            self.shown.set(bins);
        }
    }

    /// What all threads know of the owner; `None` for what no consumer claimed.
    #[inline]
    pub(crate) fn owner(&self) -> Option<&'static Owner> {
        // SAFETY: owners are never given up.
        unsafe { self.owner.load(Relaxed).as_ref() }
    }

    /// The thread enters a scope of this owner.
    #[inline]
    pub(super) fn enter(&self) {
        // Release here and below pairs with the Acquire in `is_entered`.
        self.scopes
            .store(self.scopes.load(Relaxed) + 1, Ordering::Release);
    }

    /// The thread leaves a scope of this owner.
    #[inline]
    pub(super) fn leave(&self) {
        self.scopes
            .store(self.scopes.load(Relaxed) - 1, Ordering::Release);
    }

    /// Whether the thread is in a scope of this owner.
    pub(super) fn is_entered(&self) -> bool {
        self.scopes.load(Ordering::Acquire) != 0
    }

    /// By how much the owner's bound is above what this ledger counts.
    #[cfg(feature = "check")]
    pub(crate) fn slack(&self) -> i64 {
        self.slack.get()
    }

    /// Whether blocks of a class come from runs of the owner's own.
    #[inline(always)]
    pub(super) fn fills(&self, class: ClassIndex) -> bool {
        self.bins().is_some_and(|bins| bins.fills(class))
    }

    /// Makes room in the owner's bound for a block outside its own runs, if that is at hand.
    #[inline(always)]
    pub(super) fn charge_at_hand(&self, bytes: usize) -> bool {
        let left = self.slack.get() - bytes as i64;
        if left >= 0 {
            self.slack.set(left);
        }
        left >= 0
    }

    /// A block outside the owner's own runs is freed, if the owner's bound need not be lowered.
    #[inline(always)]
    pub(super) fn uncharge_at_hand(&self, bytes: usize) -> bool {
        let slack = self.slack.get() + bytes as i64;
        let at_hand = slack < 2 * STEP as i64;
        if at_hand {
            self.slack.set(slack);
        }
        at_hand
    }

    /// Makes room in the owner's bound for a block outside its own runs.
    #[cold]
    pub(super) fn charge(&self, bytes: usize, fallible: bool) -> Result<(), AllocFailure> {
        let left = self.slack.get() - bytes as i64;
        let Some(owner) = self.owner().filter(|_| left < 0) else {
            self.slack.set(left.max(0));
            return Ok(());
        };
        let more = left.unsigned_abs().next_multiple_of(STEP);
        owner.charge(more, fallible)?;
        self.slack.set(left + more as i64);
        Ok(())
    }

    /// A block outside the owner's own runs is freed.
    pub(super) fn uncharge(&self, bytes: usize) {
        if !self.uncharge_at_hand(bytes) {
            self.slack.set(self.slack.get() + bytes as i64);
            self.give_slack_back(STEP as i64);
        }
    }

    /// Lowers the owner's bound to what this ledger counts and at most `keep` more.
    #[cold]
    pub(super) fn give_slack_back(&self, keep: i64) {
        if let Some(owner) = self.owner() {
            let excess = self.slack.get() - keep;
            if excess > 0 {
                self.slack.set(keep);
                owner.uncharge(excess as u64);
            }
        }
    }

    /// Live blocks of a class in mixed runs, allocated less freed here.
    #[inline]
    pub(super) fn few(&self, class: ClassIndex) -> i16 {
        self.few_of(class).load(Relaxed)
    }

    #[inline]
    fn few_of(&self, class: ClassIndex) -> &AtomicI16 {
        debug_assert!(class.index() < CLASSES);
        // SAFETY: every class has a count.
        unsafe { self.few.get_unchecked(class.index()) }
    }

    /// Counts a block of a class in a mixed run as allocated. False if this ledger has no room for
    /// the count, which then needs bins.
    #[inline(always)]
    pub(super) fn book_few_allocated(&self, class: ClassIndex) -> bool {
        self.count_few(class, 1) && {
            self.book_allocated(1, class.row().size as usize);
            true
        }
    }

    /// The same for one that is freed.
    #[inline(always)]
    pub(super) fn book_few_freed(&self, class: ClassIndex) -> bool {
        self.count_few(class, -1) && {
            self.book_freed(1, class.row().size as usize);
            true
        }
    }

    #[inline]
    fn count_few(&self, class: ClassIndex, by: i16) -> bool {
        let few = self.few_of(class);
        match few.load(Relaxed).checked_add(by) {
            Some(sum) => {
                few.store(sum, Relaxed);
                true
            }
            None => false,
        }
    }

    /// Counts bytes that were asked for in blocks allocated and in blocks freed.
    pub(super) fn count_requested(&self, allocated: usize, freed: usize) {
        #[cfg(feature = "requested")]
        {
            self.requested[0].add(allocated as u64);
            self.requested[1].add(freed as u64);
        }
        let _ = (allocated, freed);
    }

    /// Counts a block as freed by a thread that does not have its run.
    pub(super) fn book_freed_remotely(&self) {
        self.freed_remotely.bump();
    }

    /// Adds the live blocks by class. Exact while nobody allocates or frees.
    pub(crate) fn add_classes(&self, live: &mut [i64; CLASSES]) {
        let bins = self.bins();
        for (class, sum) in live.iter_mut().enumerate() {
            let class = ClassIndex(class as u8);
            *sum += i64::from(self.few(class));
            *sum += bins.map_or(0, |bins| bins.bin(class).live());
        }
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
        totals.freed_remotely += self.freed_remotely.get();
        #[cfg(feature = "requested")]
        {
            totals.requested[1] += self.requested[1].get();
        }
        if let Some(bins) = self.bins() {
            bins.add_freed(totals);
        }
    }

    /// Adds what this owner allocated on this thread.
    pub(crate) fn add_allocated(&self, totals: &mut Totals) {
        totals.allocated_blocks += self.allocated_blocks.get();
        totals.allocated_bytes += self.allocated_bytes.get();
        #[cfg(feature = "requested")]
        {
            totals.requested[0] += self.requested[0].get();
        }
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
    /// A power of two.
    capacity: Cell<usize>,
    /// 32 less its logarithm.
    shift: Cell<u32>,
    len: Cell<usize>,
}

const FIRST_CAPACITY: usize = 16;

impl Ledgers {
    pub(crate) const fn new() -> Ledgers {
        Ledgers {
            first: AtomicPtr::new(null_mut()),
            table: Cell::new(null_mut()),
            capacity: Cell::new(0),
            shift: Cell::new(0),
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
    #[inline]
    fn place(&self, tag: OwnerTag) -> *mut *const Ledger {
        // Fibonacci hashing: tags that follow each other spread evenly.
        let mask = self.capacity.get() - 1;
        let mut index = (tag.0.wrapping_mul(0x9e37_79b9) >> self.shift.get()) as usize & mask;
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
    #[inline]
    pub(crate) fn find(&self, tag: OwnerTag) -> Option<&'static Ledger> {
        if self.capacity.get() == 0 {
            return None;
        }
        // SAFETY: `place` returns a place of the table; ledgers are never given up.
        unsafe { (*self.place(tag)).as_ref() }
    }

    /// The ledger of `tag`, made if need be. `None` if there is no memory.
    #[inline(always)]
    pub(crate) fn find_or_add(&self, tag: OwnerTag) -> Option<&'static Ledger> {
        self.find(tag).or_else(|| self.add(tag))
    }

    #[cold]
    #[inline(never)]
    fn add(&self, tag: OwnerTag) -> Option<&'static Ledger> {
        if (self.len.get() + 1) * 2 > self.capacity.get() {
            self.grow()?;
        }
        let owner = Owner::find_or_make(tag)?;
        let record = metadata::allocate(size_of::<Ledger>())?.cast::<Ledger>();
        // SAFETY: a fresh record of that size.
        let ledger = unsafe {
            record.write(Ledger::new(tag));
            record.as_ref()
        };
        ledger
            .next
            .store(self.first.load(Ordering::Relaxed), Ordering::Relaxed);
        ledger
            .owner
            .store(core::ptr::from_ref(owner).cast_mut(), Relaxed);
        owner.add_ledger(ledger);
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
        self.shift.set(32 - capacity.trailing_zeros());
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
