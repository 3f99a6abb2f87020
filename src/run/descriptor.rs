//! The descriptor of a run: what and whose it is, how much of it is in use.

use super::extended::Extended;
use super::links::FreeSlot;
use super::marks::Marks;
use super::remote::Remote;
use super::tags::Side;
use crate::class::SizeClass;
use crate::config;
use crate::extent::bits::mask;
use crate::extent::decay::DECAY;
use crate::extent::descriptor::{Head, Kind};
use crate::extent::fit::{self, Contents, Zeroing};
use crate::extent::guard;
use crate::extent::large::{BYTES_AT, Large};
use crate::os::process::page_size;
use crate::os::sync::{AtomicPtr, AtomicUsize, Ordering::Relaxed};
use crate::pool::region::DESCRIPTOR;
use crate::pool::{AllocFailure, Pool};
use crate::units::{ClassIndex, OwnerTag, SLICE, Slices, SlotIndex};
use core::cell::Cell;
use core::ptr::{NonNull, null, null_mut};
use static_assertions::{const_assert, const_assert_eq};

/// A run. The first cache line is for threads that free, the second is its owner's: it may be
/// allocating from the very run of which others free blocks.
#[repr(C, align(128))]
pub(crate) struct Run {
    pub(crate) head: Head,
    /// Address of the owner's bins, and in the lowest bits whether slots are [`TAGGED`] and
    /// whether frees take the [`LONG_WAY`].
    pub(crate) owner: AtomicUsize,
    /// Blocks that other threads freed.
    pub(crate) remote: Remote,
    /// The next run in the queue of runs that were notified.
    pub(crate) notified_next: AtomicPtr<Run>,
    /// Tags by slot, for a run whose blocks have several owners.
    pub(super) side: AtomicPtr<Side>,
    /// What the secure profile keeps of it; null elsewhere.
    marks: Cell<*const Marks>,
    /// Slots that there are: fewer than those of the class where the pool has no room for more.
    pub(super) slots: Cell<u32>,
    /// Units that hold them.
    units: Cell<u32>,
    /// The free list.
    pub(crate) free: Cell<*mut FreeSlot>,
    /// Slots that are not the owner's to give, above [`dense`](Self::dense): negative in a run
    /// that is sparse. Waiting slots count until the owner takes them.
    pub(crate) surplus: Cell<i32>,
    /// With a [`surplus`](Self::surplus) of this or less, its arena is to look at it when a block
    /// is freed: it is unused, or so sparse that what it holds is worth giving back.
    pub(super) watch: Cell<i32>,
    /// The next run in its bin's list.
    pub(crate) next: Cell<*mut Run>,
    /// The previous one.
    pub(crate) prev: Cell<*mut Run>,
    /// Units that are extended, and whether pages of the others may be resident.
    pub(super) extended: Extended,
    /// From this many slots that are not the owner's to give on the run is worth filling up again.
    pub(super) dense: Cell<i32>,
    /// Slots that are available.
    pub(super) available: Cell<u32>,
    /// Waiting slots that are not available any more: their units were purged in the queue.
    pub(super) withdrawn: Cell<u32>,
    /// `surplus` when the arena last looked, or the waiting blocks in its queue.
    pub(super) seen: Cell<i32>,
    /// How many times in a row the arena has seen that number.
    pub(super) looks: Cell<u8>,
    /// Units that are not extended read as zero.
    pub(super) zero: Cell<bool>,
}

/// Some slots have a tag of their own: each free takes the slow path.
pub(crate) const TAGGED: usize = 1;

/// Of a tagged run: its slots are not to be found from the class alone, or a block was handed over,
/// so that a tag may be one of which the run's arena has no ledger.
const LONG_WAY: usize = 2;

/// All flags of the owner word.
const OWNER_FLAGS: usize = TAGGED | LONG_WAY;

/// Bytes that a current run may hold touched while no block of it is alive, without its arena
/// deciding on it.
pub(crate) const WIDE: usize = 32 << 10;
/// A flag of the head: more than [`WIDE`] bytes are touched.
pub(super) const WIDELY_TOUCHED: u8 = 1;
/// A flag of the head: the arena keeps the run for when it is unused.
pub(super) const KEPT: u8 = 2;
/// A flag of the head: it does not serve all requests of its class.
const APART: u8 = 4;

const_assert_eq!(size_of::<Run>(), DESCRIPTOR);
const_assert!(core::mem::offset_of!(Run, free) == 64);
const_assert_eq!(core::mem::offset_of!(Run, side), BYTES_AT);
// A large block leaves it alone: who purges for others takes what was a run for one.
const_assert!(core::mem::offset_of!(Run, extended) >= size_of::<Large>());

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
pub(crate) static EMPTY: EmptyRun = EmptyRun(Run::without_slots());

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

/// The run that a descriptor is of.
///
/// # Safety
/// It is the descriptor of a run's first slice.
#[cfg(feature = "raw")]
#[inline(always)]
pub(crate) unsafe fn run_at(head: &'static Head) -> &'static Run {
    // SAFETY: the caller's promise; a run's descriptor begins with the head.
    unsafe { &*core::ptr::from_ref(head).cast() }
}

impl Run {
    /// A run without slots of its own.
    pub(crate) const fn without_slots() -> Run {
        Run {
            head: Head::empty(),
            free: Cell::new(null_mut()),
            owner: AtomicUsize::new(0),
            surplus: Cell::new(0),
            watch: Cell::new(0),
            next: Cell::new(null_mut()),
            prev: Cell::new(null_mut()),
            extended: Extended::new(),
            remote: Remote::new(),
            notified_next: AtomicPtr::new(null_mut()),
            side: AtomicPtr::new(null_mut()),
            dense: Cell::new(0),
            slots: Cell::new(0),
            units: Cell::new(0),
            available: Cell::new(0),
            withdrawn: Cell::new(0),
            seen: Cell::new(0),
            looks: Cell::new(0),
            zero: Cell::new(false),
            marks: Cell::new(null()),
        }
    }

    /// Acquires a run of `class` from a pool for the bins at `owner`, which have so many `live` blocks
    /// of it, booked to `tag`. One that is `apart` does not serve all requests of its class.
    pub(crate) fn acquire(
        pool: &Pool,
        class: ClassIndex,
        owner: usize,
        live: usize,
        tag: OwnerTag,
        apart: bool,
    ) -> Result<*mut Run, AllocFailure> {
        let row = class.row();
        let marks = match config::is_secure() {
            true => Some(Marks::new(row.slots).ok_or(AllocFailure::Metadata)?),
            false => None,
        };
        let length = length(pool, row, live);
        let run = Self::acquire_bare(pool, class, length, owner, tag, apart).inspect_err(|_| {
            if let Some(marks) = marks {
                // SAFETY: made just now for so many slots.
                unsafe { Marks::release(marks, row.slots) };
            }
        })?;
        if let Some(marks) = marks {
            // SAFETY: a run that nobody else knows.
            unsafe { (*run).set_marks(marks) };
        }
        Ok(run)
    }

    /// The same without marks, of that length where there is room.
    fn acquire_bare(
        pool: &Pool,
        class: ClassIndex,
        length: Slices,
        owner: usize,
        tag: OwnerTag,
        apart: bool,
    ) -> Result<*mut Run, AllocFailure> {
        let row = class.row();
        let size = row.size as usize;
        pool.counts.requests.fetch_add(1, Relaxed);
        let acquire = |slices| fit::allocate(pool, slices, Slices(1), size, Zeroing::None);
        let least = Slices(size.div_ceil(pool.grain()));
        let span = match length {
            more if more > least => acquire(more).or_else(|_| acquire(least))?,
            _ => acquire(least)?,
        };
        let slices = span.slices;
        let slots = (pool.room(span.address, slices) / size).min(row.slots as usize) as u32;
        // SAFETY: claimed just now, all slices of it.
        let head = unsafe { Head::of_slice(span.address) };
        let run: *mut Run = core::ptr::from_ref(head).cast_mut().cast();
        head.describe(class, slices, tag);
        head.set_flags(if apart { APART } else { 0 });
        // SAFETY: claimed just now.
        unsafe { guard::close_chunk(pool, span.address, slices) };
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
        // Release: who finds the run by its descriptor sees the bins (pairs with the Acquire in `bins`).
        this.owner.store(owner, crate::os::sync::Ordering::Release);
        this.surplus.set(-dense);
        this.dense.set(dense);
        this.next.set(null_mut());
        this.prev.set(null_mut());
        this.remote.reset();
        this.notified_next.store(null_mut(), Relaxed);
        this.side.store(null_mut(), Relaxed);
        this.slots.set(slots);
        this.units.set(if this.unit_is_slot() {
            slots
        } else {
            (slots as usize * size).div_ceil(page_size()) as u32
        });
        this.available.set(0);
        this.withdrawn.set(0);
        this.watch();
        this.seen.set(super::watch::NEVER_SEEN);
        this.looks.set(0);
        this.zero.set(span.zero);
        this.marks.set(null());
        head.set_kind(Kind::Run);
        // The slices were in use before.
        this.extended.begin(!span.zero);
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
        if let Some(marks) = NonNull::new(self.marks.replace(null()).cast_mut()) {
            // SAFETY: no block is alive whose slot anybody would look up. Free slots held links.
            unsafe {
                Marks::release(marks, self.row().slots);
                pool.clear(address, (self.slots() * self.row().size) as usize);
            }
        }
        self.extended.end(|| DECAY.hold_or_held());
        self.free.set(null_mut());
        self.owner.store(0, Relaxed);
        for slice in (0..slices.0).rev() {
            // SAFETY: slices of this run.
            unsafe { Head::of_slice(address + slice * SLICE) }.clear();
        }
        // SAFETY: the caller's promise.
        unsafe {
            guard::open_chunk(pool, address, slices);
            fit::release(pool, address, slices, Contents::Dirty);
        }
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

    /// What the secure profile keeps of it.
    #[inline]
    pub(crate) fn marks(&self) -> Option<&Marks> {
        // SAFETY: the run's own, for as long as it lives.
        unsafe { self.marks.get().as_ref() }
    }

    pub(super) fn set_marks(&self, marks: NonNull<Marks>) {
        self.marks.set(marks.as_ptr());
    }

    /// Slots that there are.
    #[inline]
    pub(crate) fn slots(&self) -> u32 {
        self.slots.get()
    }

    /// Says how many slots there are.
    #[inline]
    pub(crate) fn set_slots(&self, slots: u32) {
        self.slots.set(slots);
    }

    /// Units that hold slots.
    pub(super) fn units(&self) -> u32 {
        self.units.get()
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

    /// Address of the bins that the run serves.
    #[inline]
    pub(crate) fn bins(&self) -> usize {
        // Acquire pairs with the Release in `set_bins`: the new owner's bins are seen.
        self.owner.load(crate::os::sync::Ordering::Acquire) & !OWNER_FLAGS
    }

    /// Gives the run to other bins, with its flags as they are.
    pub(crate) fn set_bins(&self, bins: usize) {
        use crate::os::sync::Ordering::Release;
        // One exchange, since another thread may be setting a flag. Release: see `bins`.
        let set = |word: usize| Some(bins | word & OWNER_FLAGS);
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

    /// Units that are extended, a bit each.
    pub(super) fn extended(&self) -> u64 {
        self.extended.units()
    }

    pub(super) fn set_extended(&self, extended: u64) {
        self.extended.set(extended, || DECAY.hold_or_held());
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
    pub(crate) fn is_stale(&self) -> bool {
        self.extended.is_stale()
    }

    /// Bytes that may be resident.
    pub(crate) fn resident(&self) -> usize {
        match self.is_stale() {
            true => self.head.slices().bytes(),
            false => self.touched(),
        }
    }

    /// The tags of its slots, if they have their own.
    pub(crate) fn side(&self) -> Option<NonNull<Side>> {
        // Acquire pairs with the Release in `install_side`: its contents are seen.
        NonNull::new(self.side.load(crate::os::sync::Ordering::Acquire))
    }

    /// The same for a run that has them for sure, as mixed ones with a block do.
    ///
    /// # Safety
    /// The run has them, and this thread knows, since it has its arena or a block of it.
    #[inline(always)]
    pub(crate) unsafe fn side_of_mixed(&self) -> &Side {
        let side = self.side.load(crate::os::sync::Ordering::Acquire);
        debug_assert!(!side.is_null());
        // SAFETY: the caller's promise.
        unsafe { &*side }
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

    /// Whether some slots have a tag of their own.
    #[inline(always)]
    pub(crate) fn is_tagged(&self) -> bool {
        self.owner.load(Relaxed) & TAGGED != 0
    }

    /// Has frees take the long way. Who hands a block over does so before its tag is set: then who
    /// frees the block sees the flag.
    pub(crate) fn take_long_way(&self) {
        if self.owner.load(Relaxed) & LONG_WAY == 0 {
            self.owner.fetch_or(LONG_WAY, Relaxed);
        }
    }

    /// The owner of the block at `address`.
    pub(crate) fn tag_of(&self, address: usize) -> OwnerTag {
        match self.side() {
            // SAFETY: the array is this run's, and the block is alive.
            Some(side) => unsafe { side.as_ref().tag(self.slot_of(address)) },
            None => self.head.tag(),
        }
    }
}

/// A run with at least this part of its slots used is dense: a block freed in it makes it the
/// current one. Sparser runs are left to drain.
const DENSE_PART: u32 = 4;

/// Slots of a run at least, where there is room, and at most in a pool of a set size: there the slots
/// that a run does not need are room that other classes lack.
const FEW_SLOTS: usize = 8;

/// The length of a run where there is room. It has no more slots than there are live blocks: where few
/// blocks come and go, many slots would only be touched one after the other.
fn length(pool: &Pool, row: &SizeClass, live: usize) -> Slices {
    let size = row.size as usize;
    if pool.is_small() {
        return dense_length(size, pool.grain());
    }
    let slots = match pool.is_fixed() {
        true => FEW_SLOTS,
        false => live.clamp(FEW_SLOTS, row.slots as usize),
    };
    Slices((size * slots).div_ceil(SLICE).min(row.slices as usize))
}

/// How many grains a run has whose slots leave no more than an eighth of it unused; a few at most,
/// lest few runs fill a small pool.
fn dense_length(size: usize, grain: usize) -> Slices {
    const MOST: usize = 3;
    let is_dense = |grains: &usize| (grains * grain) % size * 8 <= grains * grain;
    Slices((1..=MOST).find(is_dense).unwrap_or(1))
}

/// Visits the runs of a pool; while threads take and give up some, what was one when it was looked at.
pub(crate) fn for_each_run(pool: &Pool, mut visit: impl FnMut(&'static Run)) {
    for region in pool.regions() {
        fit::for_each_head(region, |head| {
            if head.kind() == Kind::Run {
                // SAFETY: the head says so.
                visit(unsafe { &*core::ptr::from_ref(head).cast::<Run>() });
            }
        });
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
}
