//! The descriptor of a run, its free list, and how the list is extended a unit at a time.

use super::remote::{FreeSlot, Remote};
use super::tags::Side;
use crate::class::SizeClass;
use crate::extent::bits::{bits, mask};
use crate::extent::descriptor::{Head, Kind};
use crate::extent::fit::{self, Contents, Zeroing};
use crate::os::process::page_size;
use crate::os::sync::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering::Relaxed};
use crate::pool::region::DESCRIPTOR;
use crate::pool::{AllocFailure, Pool};
use crate::units::{ClassIndex, OwnerTag, SLICE, Slices, SlotIndex};
use core::cell::Cell;
use core::ptr::{NonNull, null_mut};
use static_assertions::{const_assert, const_assert_eq};

/// A run. The first cache line is its owner's, the second is shared with threads that free.
#[repr(C, align(128))]
pub(crate) struct Run {
    pub(crate) head: Head,
    /// The free list.
    pub(crate) free: Cell<*mut FreeSlot>,
    /// Address of the owner's bins, and in the lowest bit whether slots are [`TAGGED`].
    pub(crate) owner: AtomicUsize,
    /// Slots that are not the owner's to give, above [`dense`](Self::dense): negative in a run
    /// that is sparse. Waiting slots count until the owner takes them.
    pub(crate) surplus: Cell<i32>,
    /// With a [`surplus`](Self::surplus) of this or less, its arena is to look at it when a block
    /// is freed: it is unused, or so sparse that what it holds is worth giving back.
    watch: Cell<i32>,
    /// The next run in its bin's list.
    pub(crate) next: Cell<*mut Run>,
    /// The previous one.
    pub(crate) prev: Cell<*mut Run>,
    /// Tags by slot, for a run whose blocks have several owners.
    side: AtomicPtr<Side>,
    /// Blocks that other threads freed.
    pub(crate) remote: Remote,
    /// The next run in the queue of runs that were notified.
    pub(crate) notified_next: AtomicPtr<Run>,
    /// Units that are extended.
    extended: AtomicU64,
    /// From this many slots that are not the owner's to give on the run is worth filling up again.
    dense: Cell<i32>,
    /// Slots that there are: fewer than those of the class where the pool has no room for more.
    slots: Cell<u32>,
    /// Slots that are available.
    available: Cell<u32>,
    /// Waiting slots that are not available any more: their units were purged in the queue.
    withdrawn: Cell<u32>,
    /// `surplus` when the arena last looked, or the waiting blocks in its queue.
    seen: Cell<i32>,
    /// How many times in a row the arena has seen that number.
    looks: Cell<u8>,
    /// Units that are not extended read as zero.
    zero: Cell<bool>,
    /// Pages of units that are not extended may be resident: the slices were in use before.
    stale: Cell<bool>,
}

/// Some slots have a tag of their own: each free takes the slow path.
pub(crate) const TAGGED: usize = 1;

/// Bytes that a current run may hold touched while no block of it is alive, without its arena
/// deciding on it.
pub(crate) const WIDE: usize = 32 << 10;
/// A flag of the head: more than [`WIDE`] bytes are touched.
const WIDELY_TOUCHED: u8 = 1;
/// A flag of the head: the arena keeps the run for when it is unused.
const KEPT: u8 = 2;
/// A flag of the head: it does not serve all requests of its class.
const APART: u8 = 4;

const_assert_eq!(size_of::<Run>(), DESCRIPTOR);
const_assert!(core::mem::offset_of!(Run, remote) == 64);

/// A slot that was handed out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) address: NonNull<u8>,
    /// It reads as zero.
    pub(crate) zero: bool,
}

/// A run without slots, in place of a null pointer: its free list is empty.
#[repr(transparent)]
pub(crate) struct EmptyRun(pub(crate) Run);

// SAFETY: nobody writes to it: a fast path that finds its free list empty leaves it alone.
unsafe impl Sync for EmptyRun {}

/// The run that every bin begins with.
pub(crate) static EMPTY: EmptyRun = EmptyRun(Run {
    head: Head::empty(),
    free: Cell::new(null_mut()),
    owner: AtomicUsize::new(0),
    surplus: Cell::new(0),
    watch: Cell::new(0),
    next: Cell::new(null_mut()),
    prev: Cell::new(null_mut()),
    extended: AtomicU64::new(0),
    remote: Remote::new(),
    notified_next: AtomicPtr::new(null_mut()),
    side: AtomicPtr::new(null_mut()),
    dense: Cell::new(0),
    slots: Cell::new(0),
    available: Cell::new(0),
    withdrawn: Cell::new(0),
    seen: Cell::new(0),
    looks: Cell::new(0),
    zero: Cell::new(false),
    stale: Cell::new(false),
});

/// The address of [`EMPTY`].
#[inline(always)]
pub(crate) const fn empty_run() -> *mut Run {
    core::ptr::from_ref(&EMPTY.0).cast_mut()
}

/// The run of a block of `class`.
///
/// # Safety
/// The block is alive and of that class.
#[inline(always)]
pub(crate) unsafe fn run_of(block: *mut u8, class: ClassIndex) -> *const Run {
    // SAFETY: the block lies in a claimed slice.
    let head = unsafe { Head::of_slice(block.addr()) };
    // With a constant class this is decided at compile time.
    let first = if class.row().slices == 1 {
        head
    } else {
        head.first()
    };
    core::ptr::from_ref(first).cast()
}

impl Run {
    /// Acquires a run of `class` from a pool for the bins at `owner`, whose blocks are booked to
    /// `tag`. One that is `apart` does not serve all requests of its class.
    pub(crate) fn acquire(
        pool: &Pool,
        class: ClassIndex,
        owner: usize,
        tag: OwnerTag,
        apart: bool,
    ) -> Result<*mut Run, AllocFailure> {
        let row = class.row();
        let size = row.size as usize;
        pool.counts.requests.fetch_add(1, Relaxed);
        let acquire = |slices| fit::allocate(pool, slices, Slices(1), size, Zeroing::None);
        let span = if pool.is_small() {
            let least = Slices(size.div_ceil(pool.grain()));
            match dense_length(size, pool.grain()) {
                more if more > least => acquire(more).or_else(|_| acquire(least))?,
                _ => acquire(least)?,
            }
        } else {
            acquire(Slices(row.slices as usize))?
        };
        let slices = span.slices;
        let slots = (pool.room(span.address, slices) / size).min(row.slots as usize) as u32;
        // SAFETY: claimed just now, all slices of it.
        let head = unsafe { Head::of_slice(span.address) };
        let run: *mut Run = core::ptr::from_ref(head).cast_mut().cast();
        head.describe(class, slices, tag);
        head.set_flags(if apart { APART } else { 0 });
        for slice in 1..slices.0 {
            // SAFETY: as above.
            let inner = unsafe { Head::of_slice(span.address + slice * SLICE) };
            inner.lead_back(slice * DESCRIPTOR);
        }
        // SAFETY: the descriptor is this run's; nobody else looks at it before a block is out.
        let this = unsafe { &*run };
        // One that is apart is never dense: a block freed in it does not make it the current one.
        let dense = if apart {
            slots + 1
        } else {
            (slots / DENSE_PART).max(1)
        } as i32;
        this.free.set(null_mut());
        this.owner.store(owner, Relaxed);
        this.surplus.set(-dense);
        this.dense.set(dense);
        this.next.set(null_mut());
        this.prev.set(null_mut());
        this.extended.store(0, Relaxed);
        this.remote.reset();
        this.notified_next.store(null_mut(), Relaxed);
        this.side.store(null_mut(), Relaxed);
        this.slots.set(slots);
        this.available.set(0);
        this.withdrawn.set(0);
        this.watch();
        this.seen.set(NEVER_SEEN);
        this.looks.set(0);
        this.zero.set(span.zero);
        this.stale.set(!span.zero);
        head.set_kind(Kind::Run);
        Ok(run)
    }

    /// Gives the run back to its pool.
    ///
    /// # Safety
    /// The caller looks after it, no block of it is alive, and it is in no list.
    pub(crate) unsafe fn release(&self) {
        let address = self.head.address();
        let slices = self.head.slices();
        let pool = self.pool();
        if let Some(side) = self.side() {
            self.side.store(null_mut(), Relaxed);
            // SAFETY: no block is alive, so nobody asks for a tag.
            unsafe { Side::release(side, self.row().slots) };
        }
        self.free.set(null_mut());
        self.owner.store(0, Relaxed);
        for slice in (0..slices.0).rev() {
            // SAFETY: slices of this run.
            unsafe { Head::of_slice(address + slice * SLICE) }.clear();
        }
        // SAFETY: the caller's promise.
        unsafe { fit::release(pool, address, slices, Contents::Dirty) };
    }

    /// The pool that it is of.
    #[inline]
    pub(crate) fn pool(&self) -> &'static Pool {
        // SAFETY: the run's slices were claimed from it.
        unsafe { fit::pool_of(self.head.address()) }
    }

    /// Whether it serves not all requests of its class, but those that are routed to it one by one.
    #[inline]
    pub(crate) fn is_apart(&self) -> bool {
        self.head.flags() & APART != 0
    }

    /// Slots that there are.
    pub(crate) fn slots(&self) -> u32 {
        self.slots.get()
    }

    /// Units that hold slots.
    fn units(&self) -> u32 {
        if self.unit_is_slot() {
            self.slots()
        } else {
            (self.slots() as usize * self.row().size as usize).div_ceil(page_size()) as u32
        }
    }

    /// The run's size class.
    #[inline]
    pub(crate) fn row(&self) -> &'static SizeClass {
        self.head.class().row()
    }

    /// Where its first slot starts.
    #[inline]
    pub(crate) fn start(&self) -> *mut u8 {
        core::ptr::with_exposed_provenance_mut(self.head.address())
    }

    /// The slot that holds the byte at `address`.
    #[inline]
    pub(crate) fn slot_of(&self, address: usize) -> SlotIndex {
        self.row().slot_of(address - self.head.address())
    }

    /// Slots that are not the owner's to give: blocks that are alive, or wait.
    #[inline]
    pub(crate) fn used(&self) -> u32 {
        (self.surplus.get() + self.dense.get()) as u32
    }

    /// Whether no block is alive and none waits.
    #[inline(always)]
    pub(crate) fn is_unused(&self) -> bool {
        self.used() == 0
    }

    /// Whether its arena wants to look at it: it is unused, or has become sparse.
    #[inline(always)]
    pub(crate) fn is_watched(&self) -> bool {
        self.surplus.get() <= self.watch.get()
    }

    /// Whether it is so sparse that what it holds is worth giving back.
    pub(crate) fn is_sparse(&self) -> bool {
        (self.used() - self.remote.count()) as i32 <= self.dense.get() / SPARSE_PART
    }

    /// Has its arena look at it when it is unused, and before that when it has become sparse if
    /// there is somebody to [look after sparse runs](LOOK_AFTER_SPARSE).
    pub(crate) fn watch(&self) {
        let sparse = match LOOK_AFTER_SPARSE.load(Relaxed) {
            true => self.dense.get() / SPARSE_PART,
            false => 0,
        };
        self.watch.set(sparse - self.dense.get());
    }

    /// Notes what an arena sees when it looks through its runs, and that it would have seen the
    /// same at `missed` looks before. How often in a row it had seen this before.
    pub(crate) fn look(&self, seen: i32, missed: u8) -> u8 {
        let same = self.seen.replace(seen) == seen;
        let before = if same { self.looks.get() } else { 0 };
        let looks = before.saturating_add(same.into()).saturating_add(missed);
        self.looks.set(looks);
        before
    }

    /// How often in a row an arena has now seen the same, after the first time.
    pub(crate) fn looks(&self) -> u8 {
        self.looks.get()
    }

    /// Has its arena look at it again when half as much of it is used: what was looked at is not
    /// looked at with every block that is freed.
    pub(crate) fn watch_less(&self) {
        self.watch.set(self.used() as i32 / 2 - self.dense.get());
    }

    /// Address of the bins that the run serves.
    #[inline]
    pub(crate) fn bins(&self) -> usize {
        // Acquire pairs with the Release in `set_bins`: the new owner's bins are seen.
        self.owner.load(crate::os::sync::Ordering::Acquire) & !TAGGED
    }

    /// Gives the run to other bins, tagged or not as it is.
    pub(crate) fn set_bins(&self, bins: usize) {
        use crate::os::sync::Ordering::Release;
        // One exchange, since another thread may be setting the flag. Release: see `bins`.
        let set = |word: usize| Some(bins | word & TAGGED);
        let _ = self.owner.fetch_update(Release, Relaxed, set);
    }

    /// Slots that are available.
    pub(crate) fn available(&self) -> u32 {
        self.available.get()
    }

    /// Waiting slots that are not available any more.
    pub(crate) fn withdrawn(&self) -> u32 {
        self.withdrawn.get()
    }

    /// Takes slots that were free, or waited, out of use.
    pub(super) fn withdraw(&self, slots: u32, waiting: bool) {
        self.available.set(self.available.get() - slots);
        if waiting {
            self.withdrawn.set(self.withdrawn.get() + slots);
        }
    }

    /// Whether more than [`WIDE`] bytes of it are touched, and its arena has not decided yet to
    /// keep it for when it is unused.
    #[inline(always)]
    pub(crate) fn is_wide(&self) -> bool {
        self.head.flags() == WIDELY_TOUCHED
    }

    /// Whether its arena keeps it for when it is unused.
    pub(crate) fn is_kept(&self) -> bool {
        self.head.flags() & KEPT != 0
    }

    /// Notes whether its arena keeps it for when it is unused.
    pub(crate) fn set_kept(&self, kept: bool) {
        let others = self.head.flags() & !KEPT;
        self.head.set_flags(others | if kept { KEPT } else { 0 });
    }

    /// Units that are extended, a bit each.
    pub(super) fn extended(&self) -> u64 {
        self.extended.load(Relaxed)
    }

    pub(super) fn set_extended(&self, extended: u64) {
        self.extended.store(extended, Relaxed);
        let wide = if self.touched() > WIDE {
            WIDELY_TOUCHED
        } else {
            0
        };
        self.head
            .set_flags(self.head.flags() & (KEPT | APART) | wide);
    }

    /// Forgets that units which are not extended read as zero.
    pub(super) fn forget_zero(&self) {
        self.zero.set(false);
    }

    /// Whether pages of units that were never extended may be resident.
    pub(super) fn is_stale(&self) -> bool {
        self.stale.get()
    }

    /// Says whether they may be.
    pub(super) fn set_stale(&self, stale: bool) {
        self.stale.set(stale);
    }

    /// Bytes that may be resident.
    pub(crate) fn resident(&self) -> usize {
        match self.stale.get() {
            true => self.head.slices().bytes(),
            false => self.touched(),
        }
    }

    /// Whether an arena has [looked](Self::look) at it before.
    pub(crate) fn was_looked_at(&self) -> bool {
        self.seen.get() != NEVER_SEEN
    }

    /// The tags of its slots, if they have their own.
    pub(crate) fn side(&self) -> Option<NonNull<Side>> {
        // Acquire pairs with the Release in `install_side`: its contents are seen.
        NonNull::new(self.side.load(crate::os::sync::Ordering::Acquire))
    }

    /// The tags of its slots, which have their own from now on; `None` if there is no memory. Those
    /// of a `fresh` run, of which no block is out, are set as blocks are handed out.
    pub(crate) fn install_side(&self, fresh: bool) -> Option<NonNull<Side>> {
        use crate::os::sync::Ordering::{AcqRel, Acquire};
        if let Some(side) = self.side() {
            return Some(side);
        }
        let slots = self.row().slots;
        let made = if fresh {
            Side::new(slots)?
        } else {
            Side::filled(self.head.tag(), slots)?
        };
        // Release: the contents are seen with the pointer. Acquire: those of a faster thread's.
        let won = self
            .side
            .compare_exchange(null_mut(), made.as_ptr(), AcqRel, Acquire);
        let side = match won {
            Ok(_) => made,
            Err(other) => {
                // SAFETY: nobody has seen it.
                unsafe { Side::release(made, slots) };
                NonNull::new(other)?
            }
        };
        // After the side array: who sees the flag finds the array.
        self.owner.fetch_or(TAGGED, AcqRel);
        Some(side)
    }

    /// The owner of the block at `address`.
    pub(crate) fn tag_of(&self, address: usize) -> OwnerTag {
        match self.side() {
            // SAFETY: the array is this run's, and the block is alive.
            Some(side) => unsafe { side.as_ref().tag(self.slot_of(address)) },
            None => self.head.tag(),
        }
    }

    /// At most what extending the run by one unit makes available, in bytes.
    pub(crate) fn unit_bytes(&self) -> usize {
        let size = self.row().size as usize;
        if self.unit_is_slot() {
            size
        } else {
            (page_size() / size + 2) * size
        }
    }

    /// What its slots occupy that are available.
    pub(crate) fn available_bytes(&self) -> u64 {
        u64::from(self.available.get()) * u64::from(self.row().size)
    }

    /// Whether a unit is a slot rather than an OS page.
    #[inline]
    pub(crate) fn unit_is_slot(&self) -> bool {
        self.row().slices > 1
    }

    /// Bytes of extended units.
    pub(crate) fn touched(&self) -> usize {
        let unit = if self.unit_is_slot() {
            self.row().size as usize
        } else {
            page_size()
        };
        self.extended().count_ones() as usize * unit
    }

    /// Whether a slot is on the free list, or waits to get there.
    #[inline]
    pub(crate) fn has_free(&self) -> bool {
        !self.free.get().is_null() || !self.remote.is_empty()
    }

    /// Whether a unit is left that is not extended.
    #[inline]
    pub(crate) fn is_extensible(&self) -> bool {
        self.extended().trailing_ones() < self.units()
    }

    /// A free slot: from the free list, from the remote list, or from a unit that is extended for
    /// it. `None` if the run is full.
    ///
    /// # Safety
    /// The caller is the run's owner.
    #[inline]
    pub(crate) unsafe fn take_slot(&self) -> Option<Slot> {
        if self.free.get().is_null() && !self.remote.is_empty() {
            // SAFETY: the caller's promise.
            unsafe { self.collect() };
        }
        // SAFETY: the caller's promise.
        if let Some(address) = unsafe { self.take_first() } {
            return Some(Slot {
                address,
                zero: false,
            });
        }
        let slot = self.extend()?;
        self.surplus.set(self.surplus.get() + 1);
        self.watch();
        Some(slot)
    }

    /// The first slot of the free list.
    ///
    /// # Safety
    /// The caller is the run's owner.
    #[inline(always)]
    pub(crate) unsafe fn take_first(&self) -> Option<NonNull<u8>> {
        let first = NonNull::new(self.free.get())?;
        // SAFETY: a slot on the free list holds its link.
        self.free.set(unsafe { first.as_ref().next });
        self.surplus.set(self.surplus.get() + 1);
        Some(first.cast())
    }

    /// Puts a slot on the free list. Whether the list was empty: the run may be full no longer.
    ///
    /// # Safety
    /// The caller is the run's owner, and the slot a block of it that nobody uses any more.
    #[inline(always)]
    pub(crate) unsafe fn put_slot(&self, block: *mut u8) -> bool {
        let slot: *mut FreeSlot = block.cast();
        let first = self.free.get();
        // SAFETY: the caller's promise.
        unsafe { FreeSlot::link(slot, first) };
        self.free.set(slot);
        self.surplus.set(self.surplus.get() - 1);
        first.is_null()
    }

    /// Takes the only slot off the free list again.
    ///
    /// # Safety
    /// The caller has just put it there, and it is alone.
    pub(crate) unsafe fn take_only(&self) -> *mut u8 {
        self.surplus.set(self.surplus.get() + 1);
        self.free.replace(null_mut()).cast()
    }

    /// Takes the blocks that other threads freed onto the free list.
    ///
    /// # Safety
    /// The caller looks after the run.
    pub(crate) unsafe fn collect(&self) {
        let taken = self.remote.take(self.start());
        if taken.count == 0 {
            return;
        }
        if !self.free.get().is_null() {
            // SAFETY: blocks on the taken list are ours and linked, the last one to null.
            unsafe {
                let mut last = taken.first;
                while !(*last).next.is_null() {
                    last = (*last).next;
                }
                FreeSlot::link(last, self.free.get());
            }
        }
        self.free.set(taken.first);
        self.surplus.set(self.surplus.get() - taken.count as i32);
        self.withdrawn.set(0);
    }

    /// Extends the lowest unit that is not; a slot of it, the others on the free list.
    fn extend(&self) -> Option<Slot> {
        if self.unit_is_slot() {
            self.extend_slot()
        } else {
            self.extend_page()
        }
    }

    fn extend_slot(&self) -> Option<Slot> {
        let row = self.row();
        let extended = self.extended();
        let unit = extended.trailing_ones();
        if unit >= self.slots() {
            return None;
        }
        self.set_extended(extended | 1 << unit);
        self.available.set(self.available.get() + 1);
        let address = self.start().wrapping_add(unit as usize * row.size as usize);
        Some(Slot {
            address: NonNull::new(address)?,
            zero: self.zero.get(),
        })
    }

    fn extend_page(&self) -> Option<Slot> {
        let row = self.row();
        let size = row.size as usize;
        let page = page_size();
        let shift = page.trailing_zeros();
        let pages = self.units();
        let start = self.start();
        loop {
            let extended = self.extended();
            let unit = extended.trailing_ones();
            if unit >= pages {
                return None;
            }
            let extended = extended | 1 << unit;
            self.set_extended(extended);
            let (mut from, mut to) = self.touching(unit as usize * page, page);
            // Slots at either end may reach into a page that is not extended yet.
            while from < to && reaches_out(from, size, shift, extended) {
                from += 1;
            }
            while from < to && reaches_out(to - 1, size, shift, extended) {
                to -= 1;
            }
            if from == to {
                continue;
            }
            self.available.set(self.available.get() + (to - from));
            // Linked in ascending order, the first one handed out at once and never touched.
            let at = |slot: u32| start.wrapping_add(slot as usize * size).cast::<FreeSlot>();
            let mut next = null_mut();
            for slot in (from + 1..to).rev() {
                // SAFETY: slots of this run that became available just now.
                unsafe { FreeSlot::link(at(slot), next) };
                next = at(slot);
            }
            self.free.set(next);
            return Some(Slot {
                address: NonNull::new(at(from).cast())?,
                zero: self.zero.get(),
            });
        }
    }
}

/// No number of used slots: what was never looked at is not idle.
const NEVER_SEEN: i32 = i32::MAX;

/// Whether a thread looks after sparse runs in their owners' stead.
pub(crate) static LOOK_AFTER_SPARSE: AtomicBool = AtomicBool::new(false);

/// A run with at most this part of what makes it dense is sparse.
const SPARSE_PART: i32 = 2;

/// A run with at least this part of its slots used is dense: a block freed in it makes it the
/// current one. Sparser runs are left to drain.
const DENSE_PART: u32 = 4;

/// How many grains a run has whose slots leave no more than an eighth of it unused; a few at most,
/// lest few runs fill a small pool.
fn dense_length(size: usize, grain: usize) -> Slices {
    const MOST: usize = 3;
    let is_dense = |grains: &usize| (grains * grain) % size * 8 <= grains * grain;
    Slices((1..=MOST).find(is_dense).unwrap_or(1))
}

/// Visits the runs of a pool, while nobody takes or gives up any.
pub(crate) fn for_each_run(pool: &Pool, mut visit: impl FnMut(&'static Run)) {
    for region in pool.regions() {
        for chunk in fit::chunks(region) {
            let used = region.slices_in(chunk) & !fit::free_slices(region, chunk);
            for slice in bits(used) {
                // SAFETY: a slice of a chunk that the region has.
                let head = unsafe { Head::of_slice(region.chunk_address(chunk) + slice * SLICE) };
                if head.kind() == Kind::Run {
                    // SAFETY: the head says so.
                    visit(unsafe { &*core::ptr::from_ref(head).cast::<Run>() });
                }
            }
        }
    }
}

impl Run {
    /// Forgets its free slots, since its pages are not there any more: it has those that are used
    /// and no others. Only while there is no other thread.
    pub(crate) fn forget_free(&self) {
        let live = self.used() - self.remote.count();
        self.remote.forget();
        self.free.set(null_mut());
        self.surplus.set(live as i32 - self.dense.get());
        self.available.set(live);
        self.withdrawn.set(0);
        self.set_extended(mask(0, self.units()));
    }

    /// The slots that touch `len` bytes from `offset` on, as a range.
    pub(super) fn touching(&self, offset: usize, len: usize) -> (u32, u32) {
        let (row, slots) = (self.row(), self.slots());
        let from = row.slot_of(offset).0.min(slots);
        let to = (row.slot_of(offset + len - 1).0 + 1).min(slots);
        (from, to)
    }
}

/// The first and the last page that a slot touches.
#[inline]
pub(super) fn slot_pages(slot: u32, size: usize, page_shift: u32) -> (usize, usize) {
    let start = slot as usize * size;
    (start >> page_shift, (start + size - 1) >> page_shift)
}

/// Whether a slot touches a page that is not among `pages`.
#[inline]
pub(super) fn reaches_out(slot: u32, size: usize, page_shift: u32, pages: u64) -> bool {
    let (first, last) = slot_pages(slot, size, page_shift);
    mask(first as u32, (last - first + 1) as u32) & !pages != 0
}
