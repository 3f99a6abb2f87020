//! Ledgers: what one owner's blocks did on one thread.
//!
//! Every count has one writer, the thread that has the arena, and only ever grows. An owner's live
//! bytes are all that was allocated less all that was freed, over all arenas. A block is counted
//! as freed by the thread that frees it, before anybody can be given it again.

use super::bins::{Bins, empty_bins};
use super::counter::Counter;
use super::mixed::FILL_STAY;
use super::owners::{Owner, STEP};
use super::room::Room;
use crate::class::CLASSES;
use crate::os::sync::{AtomicPtr, AtomicU32, Ordering, Ordering::Relaxed};
use crate::pool::AllocFailure;
use crate::units::{ClassIndex, OwnerTag};
use core::cell::Cell;
use core::ptr::null_mut;
use static_assertions::const_assert;

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

/// One owner on one thread. Type-stable. What frees and allocations of few blocks need comes first.
#[repr(C, align(128))]
pub(crate) struct Ledger {
    pub(super) tag: AtomicU32,
    /// By how much the owner's bound is above what this ledger counts.
    slack: Cell<i32>,
    /// How often the thread entered a scope of this owner, and left one. Two counts: one that goes
    /// up and down would have each entry wait for the leave before it.
    entered: AtomicU32,
    left: AtomicU32,
    /// Blocks in mixed runs and large blocks: all that the bins do not count.
    pub(super) allocated_blocks: Counter,
    pub(super) allocated_bytes: Counter,
    pub(super) freed_blocks: Counter,
    pub(super) freed_bytes: Counter,
    /// The owner's own bins on this thread, once it has enough blocks to fill runs.
    bins: AtomicPtr<Bins>,
    /// The bins that fast paths use in its scopes.
    pub(super) shown: Cell<*const Bins>,
    /// How many blocks of a class may still come from mixed runs. Freed ones for which there is no
    /// count here are counted in bins.
    room: Room,
    /// Whether the owner's bound was raised when it was changed last for want of slack. Where it is
    /// raised and lowered by turns the slack is best half way: then it takes the swings.
    rises: Cell<bool>,
    /// The entry to a scope of this owner in which the thread last looked how long it stays there,
    /// and the blocks that were allocated when it did so first.
    looked_at: Cell<u16>,
    blocks_then: Cell<u32>,
    /// Null for what no consumer claimed.
    pub(super) owner: AtomicPtr<Owner>,
    /// The arena's next ledger.
    pub(super) next: AtomicPtr<Ledger>,
    /// The owner's next ledger.
    pub(super) next_of_owner: AtomicPtr<Ledger>,
    freed_remotely: Counter,
    #[cfg(feature = "requested")]
    requested: [Counter; 2],
}

// What is asked of many of them in turn shares lines of cache: one more would be a third more.
const_assert!(cfg!(feature = "requested") || size_of::<Ledger>() == 256);

impl Ledger {
    pub(crate) const fn new(tag: OwnerTag) -> Ledger {
        Ledger {
            tag: AtomicU32::new(tag.0),
            entered: AtomicU32::new(0),
            left: AtomicU32::new(0),
            bins: AtomicPtr::new(null_mut()),
            shown: Cell::new(empty_bins()),
            next: AtomicPtr::new(null_mut()),
            owner: AtomicPtr::new(null_mut()),
            next_of_owner: AtomicPtr::new(null_mut()),
            slack: Cell::new(0),
            rises: Cell::new(true),
            looked_at: Cell::new(0),
            blocks_then: Cell::new(0),
            allocated_blocks: Counter::new(),
            allocated_bytes: Counter::new(),
            freed_blocks: Counter::new(),
            freed_bytes: Counter::new(),
            freed_remotely: Counter::new(),
            #[cfg(feature = "requested")]
            requested: [const { Counter::new() }; 2],
            room: Room::new(),
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
        if !crate::config::looks_at_each() {
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
    #[inline(always)]
    pub(super) fn enter(&self) {
        // Release here and below pairs with the Acquire in `is_entered`.
        let entered = self.entered.load(Relaxed).wrapping_add(1);
        self.entered.store(entered, Ordering::Release);
    }

    /// The thread leaves a scope of this owner.
    #[inline(always)]
    pub(super) fn leave(&self) {
        let left = self.left.load(Relaxed).wrapping_add(1);
        self.left.store(left, Ordering::Release);
    }

    /// Whether the thread is in a scope of this owner.
    pub(super) fn is_entered(&self) -> bool {
        // In this order: what was entered and left in between only makes it more.
        let left = self.left.load(Ordering::Acquire);
        self.entered.load(Ordering::Acquire) != left
    }

    /// By how much the owner's bound is above what this ledger counts.
    #[inline(always)]
    pub(crate) fn slack(&self) -> i64 {
        self.slack.get().into()
    }

    /// Whether blocks of a class come from runs of the owner's own.
    #[inline(always)]
    pub(super) fn fills(&self, class: ClassIndex) -> bool {
        self.bins().is_some_and(|bins| bins.fills(class))
    }

    /// Makes room in the owner's bound for a block outside its own runs.
    #[inline]
    pub(super) fn charge(&self, bytes: usize, fallible: bool) -> Result<(), AllocFailure> {
        let left = self.slack() - bytes as i64;
        match self.owner() {
            Some(owner) if left < 0 => self.charge_owner(owner, left, bytes, fallible),
            _ => {
                self.set_slack(left.max(0));
                Ok(())
            }
        }
    }

    /// The same where the slack would be `left`, which is below zero.
    #[cold]
    #[inline(never)]
    fn charge_owner(
        &self,
        owner: &Owner,
        left: i64,
        bytes: usize,
        fallible: bool,
    ) -> Result<(), AllocFailure> {
        let least = left.unsigned_abs();
        // As much as leaves room for two such blocks to be freed, unless that would be refused.
        let most = (2 * STEP - 1).saturating_sub(turns(bytes));
        let rose = self.rises.replace(true);
        let more = least + if rose { most } else { most.min(STEP) };
        let charged = match owner.charge(more, fallible) {
            Ok(()) => more,
            Err(_) => owner.charge(least, fallible).map(|()| least)?,
        };
        self.set_slack(left + charged as i64);
        Ok(())
    }

    /// Takes a block of a class from the slack. False if that leaves it below zero, which is for
    /// [`return_slack`](Self::return_slack).
    #[inline(always)]
    pub(super) fn use_slack(&self, class: ClassIndex) -> bool {
        let slack = self.slack.get() - class.size() as i32;
        self.slack.set(slack);
        slack >= 0
    }

    /// Undoes that.
    pub(super) fn return_slack(&self, class: ClassIndex) {
        self.set_slack(self.slack() + i64::from(class.row().size));
    }

    /// Whether the owner has taken so many blocks from mixed runs that it is worth runs of its own,
    /// since this was first asked in this stay in its scope.
    pub(super) fn stays_long(&self) -> bool {
        let entered = self.entered.load(Relaxed);
        // A block that grows has its owner's ledger in use where nobody is in its scope.
        if entered == self.left.load(Relaxed) {
            return false;
        }
        // Parts of the numbers will do: of two stays taken for one, the second gets such runs early.
        let (entry, blocks) = (entered as u16, self.allocated_blocks.get() as u32);
        if self.looked_at.replace(entry) != entry {
            self.blocks_then.set(blocks);
        }
        blocks.wrapping_sub(self.blocks_then.get()) >= FILL_STAY
    }

    /// Whether a block of a class that is freed fits into the slack.
    #[inline(always)]
    pub(super) fn has_slack_for(&self, class: ClassIndex) -> bool {
        self.slack.get() + (class.size() as i32) < 2 * STEP as i32
    }

    /// A block outside the owner's own runs is freed.
    pub(super) fn uncharge(&self, bytes: usize) {
        self.keep_slack_bounded(bytes);
        self.set_slack(self.slack() + bytes as i64);
    }

    /// Lowers the owner's bound if `bytes` more to come would leave it two steps above what this
    /// ledger counts.
    pub(super) fn keep_slack_bounded(&self, bytes: usize) {
        let most = 2 * STEP as i64 - 1;
        if self.slack() + bytes as i64 > most {
            // Such blocks may come and go by turns.
            let least = turns(bytes).min(STEP);
            let keep = if self.rises.replace(false) {
                STEP
            } else {
                least
            };
            self.give_slack_back((keep as i64).min(most - bytes as i64));
        }
    }

    /// Lowers the owner's bound to what this ledger counts and at most `keep` more; less than that
    /// if it is negative, for what is freed next.
    #[cold]
    pub(super) fn give_slack_back(&self, keep: i64) {
        let excess = self.slack() - keep;
        if excess > 0 {
            self.set_slack(keep);
            if let Some(owner) = self.owner() {
                owner.uncharge(excess as u64);
            }
        }
    }

    fn set_slack(&self, slack: i64) {
        debug_assert!(i32::try_from(slack).is_ok());
        self.slack.set(slack as i32);
    }

    /// Whether more blocks of a class may come from mixed runs.
    pub(super) fn has_room(&self, class: ClassIndex) -> bool {
        self.room.is_any(class)
    }

    /// Whether a block of a class from a mixed run can be counted by
    /// [`book_at_hand_allocated`](Self::book_at_hand_allocated).
    #[inline(always)]
    pub(super) fn has_room_at_hand(&self, class: ClassIndex) -> bool {
        self.room.at_hand(class) > 0
    }

    /// Counts a block of a class that is taken from a mixed run, for which there is room. The slack
    /// has been used.
    #[inline(always)]
    pub(super) fn book_at_hand_allocated(&self, class: ClassIndex) {
        self.room.set_at_hand(class, self.room.at_hand(class) - 1);
        self.book_allocated(1, class.size() as usize);
    }

    /// Counts a block of a class in a mixed run as freed, for which there is
    /// [slack](Self::has_slack_for). False if the class's count needs more than an addition.
    #[inline(always)]
    pub(super) fn try_book_few_freed(&self, class: ClassIndex) -> bool {
        let size = class.size() as usize;
        let Some(room) = self.room.at_hand(class).checked_add(1) else {
            return false;
        };
        self.slack.set(self.slack.get() + size as i32);
        self.room.set_at_hand(class, room);
        self.book_freed(1, size);
        true
    }

    /// Counts a block of a class in a mixed run as allocated. False if this ledger has no room for
    /// the count, which then needs bins.
    #[inline(always)]
    pub(super) fn book_few_allocated(&self, class: ClassIndex) -> bool {
        self.room.count(class, -1) && {
            self.book_allocated(1, class.row().size as usize);
            true
        }
    }

    /// The same for one that is freed.
    #[inline(always)]
    pub(super) fn book_few_freed(&self, class: ClassIndex) -> bool {
        self.room.count(class, 1) && {
            self.book_freed(1, class.row().size as usize);
            true
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
            *sum += i64::from(self.room.live(class));
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

    /// What this owner allocated on this thread less what it freed here, in bytes. Exact on the
    /// thread itself.
    pub(crate) fn balance(&self) -> i64 {
        let own = self.allocated_bytes.get() as i64 - self.freed_bytes.get() as i64;
        own + self.bins().map_or(0, Bins::balance)
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

/// What the bound's slack can take, or give, before it has to be changed again for blocks of
/// `bytes` that come and go by turns.
fn turns(bytes: usize) -> u64 {
    (2 * bytes as u64).max(STEP / 4)
}
