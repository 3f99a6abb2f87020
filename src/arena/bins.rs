//! Bins: for each size class the run that serves it now, the runs with free slots, and how many
//! blocks were allocated and freed through them.
//!
//! A run in a bin's list is `Owned` and either uniform for the bins' owner or tagged slot by slot:
//! in the mixed bins, and where a block was handed over. The current run is one of the list, the
//! empty run, or the list of blocks that were freed in full runs ([`loose`](super::loose)).

use super::Arena;
use super::counter::Counter;
use super::ledger::{Ledger, Totals};
use super::owners::Owner;
use crate::class::{CLASSES, SIZES};
use crate::extent::bits::bits;
use crate::os::sync::{AtomicBool, AtomicPtr, AtomicU64, Ordering::Relaxed};
use crate::pool::router::{self, Wanted};
use crate::pool::{AllocFailure, metadata};
use crate::run::descriptor::{Run, Slot, empty_run};
use crate::run::remote::State;
use crate::units::{ClassIndex, OwnerTag};
use core::cell::Cell;
use core::ptr::{null, null_mut};

/// One size class.
#[repr(C)]
pub(crate) struct Bin {
    /// The run that serves the next request; never null. Written by the owner, and by who wants it
    /// to come through the slow path: see [`Bins::divert`].
    current: AtomicPtr<Run>,
    /// Blocks allocated so far.
    pub(crate) allocated: Counter,
    /// Blocks freed so far, whoever allocated them.
    pub(crate) freed: Counter,
    /// Runs of these bins that are not full; the one that was full last comes first.
    pub(crate) list: Cell<*mut Run>,
}

impl Bin {
    const fn new() -> Bin {
        Bin {
            current: AtomicPtr::new(empty_run()),
            allocated: Counter::new(),
            freed: Counter::new(),
            list: Cell::new(null_mut()),
        }
    }
}

impl Bin {
    /// Blocks allocated less those freed through this bin.
    pub(super) fn live(&self) -> i64 {
        self.allocated.get().wrapping_sub(self.freed.get()) as i64
    }

    /// The run that serves the next request.
    #[inline(always)]
    pub(crate) fn current(&self) -> *mut Run {
        self.current.load(Relaxed)
    }

    /// Makes a run the one that serves the next request.
    #[inline(always)]
    pub(crate) fn set_current(&self, run: *mut Run) {
        self.current.store(run, Relaxed);
    }
}

/// All size classes for one owner on one thread. Type-stable: a freer may follow a stale pointer.
#[repr(C)]
pub(crate) struct Bins {
    pub(crate) bin: [Bin; CLASSES],
    pub(crate) arena: Cell<*const Arena>,
    /// Null for mixed bins.
    ledger: Cell<*const Ledger>,
    /// The tag that runs of these bins have: who frees a block of theirs reads it here, where nothing
    /// changes.
    tag: Cell<OwnerTag>,
    /// The classes, a bit each, whose blocks come from runs of these bins; the others' come from
    /// mixed runs.
    filled: [Cell<u64>; 2],
    /// The classes, a bit each, that were ever counted here: readers pass over the others.
    counted: [AtomicU64; 2],
    /// Whether those are most of them.
    counts_many: AtomicBool,
    /// Blocks freed in full runs: see [`loose`](super::loose).
    pub(super) loose: [Cell<*const Run>; CLASSES],
}

/// Bins without a run, in place of a null pointer: each request finds its way to the slow path.
#[repr(transparent)]
pub(crate) struct EmptyBins(Bins);

// SAFETY: nobody writes to them: the fast paths leave the empty run alone.
unsafe impl Sync for EmptyBins {}

pub(super) static EMPTY: EmptyBins = EmptyBins(Bins::new());

/// The bins that a thread begins with.
pub(crate) const fn empty_bins() -> *const Bins {
    &raw const EMPTY.0
}

/// From so many classes on most of them are counted.
const MANY: u32 = CLASSES as u32 / 3;

impl Bins {
    /// Bins of an arena for the runs of a ledger's owner, or mixed ones for null. `None` if there
    /// is no memory.
    #[cold]
    pub(super) fn make(arena: &'static Arena, ledger: *const Ledger) -> Option<&'static Bins> {
        let record = metadata::allocate(size_of::<Bins>())?.cast::<Bins>();
        // SAFETY: a fresh record of that size.
        let bins = unsafe {
            record.write(Bins::new());
            record.as_ref()
        };
        bins.begin(arena, ledger);
        Some(bins)
    }

    pub(crate) const fn new() -> Bins {
        Bins {
            bin: [const { Bin::new() }; CLASSES],
            arena: Cell::new(null()),
            ledger: Cell::new(null()),
            tag: Cell::new(OwnerTag::UNATTRIBUTED),
            filled: [const { Cell::new(0) }; 2],
            counted: [const { AtomicU64::new(0) }; 2],
            counts_many: AtomicBool::new(false),
            loose: [const { Cell::new(null()) }; CLASSES],
        }
    }

    /// The bin of a class.
    #[inline(always)]
    pub(crate) fn bin(&self, class: ClassIndex) -> &Bin {
        debug_assert!(class.index() < CLASSES);
        // SAFETY: every class has a bin. Unchecked, since a panic has no place in a fast path.
        unsafe { self.bin.get_unchecked(class.index()) }
    }

    pub(super) fn address(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    pub(super) fn arena(&self) -> &'static Arena {
        // SAFETY: bins that belong to an arena point to it; arenas are never given up.
        unsafe { &*self.arena.get() }
    }

    /// The tag that runs of these bins have.
    #[inline(always)]
    pub(super) fn tag(&self) -> OwnerTag {
        self.tag.get()
    }

    /// Gives the bins to an arena and an owner of its, or to nobody for null.
    pub(super) fn begin(&self, arena: &'static Arena, ledger: *const Ledger) {
        self.arena.set(arena);
        self.ledger.set(ledger);
        // SAFETY: ledgers are never given up.
        let tag = unsafe { ledger.as_ref() }.map_or(OwnerTag::UNATTRIBUTED, Ledger::tag);
        self.tag.set(tag);
    }

    /// Whether the blocks of a class come from runs of these bins.
    #[inline(always)]
    pub(super) fn fills(&self, class: ClassIndex) -> bool {
        let index = class.index();
        let word = self.filled[index / 64 % self.filled.len()].get();
        word >> (index % 64) & 1 == 1
    }

    /// Whether a run of a class is at hand.
    pub(super) fn has_runs(&self, class: ClassIndex) -> bool {
        !self.bin(class).list.get().is_null()
    }

    /// Has the blocks of a class come from runs of these bins, or not.
    pub(super) fn set_fills(&self, class: ClassIndex, fills: bool) {
        let index = class.index();
        let word = &self.filled[index / 64];
        let bit = 1 << (index % 64);
        word.set(if fills {
            word.get() | bit
        } else {
            word.get() & !bit
        });
        // A class that was never filled has nothing to be counted.
        if fills {
            self.begin_counting(class);
        }
    }

    /// Whether readers look at the counts of a class.
    #[inline(always)]
    pub(super) fn counts(&self, class: ClassIndex) -> bool {
        let index = class.index();
        let word = self.counted[index / 64 % self.counted.len()].load(Relaxed);
        word >> (index % 64) & 1 == 1
    }

    /// Has readers look at the counts of a class from now on.
    #[inline]
    pub(super) fn begin_counting(&self, class: ClassIndex) {
        let index = class.index();
        let word = &self.counted[index / 64];
        let counted = word.load(Relaxed) | 1 << (index % 64);
        if counted == word.load(Relaxed) {
            return;
        }
        // Relaxed: the counts themselves order what is read of them.
        word.store(counted, Relaxed);
        let counted = self
            .counted
            .iter()
            .map(|word| word.load(Relaxed).count_ones());
        self.counts_many
            .store(counted.sum::<u32>() >= MANY, Relaxed);
    }

    /// Blocks and bytes by one of the counts of each class, or by what comes of both.
    #[inline(always)]
    fn sum(&self, count: impl Fn(&Bin) -> u64) -> (u64, u64) {
        let (mut blocks, mut bytes) = (0, 0);
        let mut add = |bin: &Bin, size: u32| {
            let more = count(bin);
            blocks = u64::wrapping_add(blocks, more);
            bytes = u64::wrapping_add(bytes, more.wrapping_mul(u64::from(size)));
        };
        if self.counts_many.load(Relaxed) {
            // To find out which the others are takes longer than to look at them.
            let sizes = self.bin.iter().zip(&SIZES);
            sizes.for_each(|(bin, size)| add(bin, *size));
        } else {
            for (index, word) in self.counted.iter().enumerate() {
                for bit in bits(word.load(Relaxed)) {
                    let class = ClassIndex((index * 64 + bit) as u8);
                    add(self.bin(class), class.row().size);
                }
            }
        }
        (blocks, bytes)
    }

    /// What all threads know of the owner of the runs of these bins; `None` for what no consumer
    /// claimed and for mixed bins, whose runs count for nobody.
    pub(super) fn owner(&self) -> Option<&'static Owner> {
        // SAFETY: ledgers are never given up.
        unsafe { self.ledger.get().as_ref() }.and_then(Ledger::owner)
    }

    /// A slot of `class`; its run is then the current one. Counts nothing.
    ///
    /// # Safety
    /// The caller is the thread that has the arena.
    #[inline]
    pub(crate) unsafe fn take(
        &self,
        class: ClassIndex,
        wanted: &Wanted,
    ) -> Result<Slot, AllocFailure> {
        if wanted.is_like_all_of(class) {
            // SAFETY: the caller's promise; the current run is in the list, or the empty run.
            if let Some(address) = unsafe { (*self.bin(class).current()).take_first() } {
                return Ok(Slot {
                    address,
                    zero: false,
                });
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.take_elsewhere(class, wanted) }
    }

    /// The same where the current run has none at hand.
    ///
    /// # Safety
    /// As there.
    #[inline(never)]
    unsafe fn take_elsewhere(
        &self,
        class: ClassIndex,
        wanted: &Wanted,
    ) -> Result<Slot, AllocFailure> {
        let serves_all = |run: &Run| !run.is_apart();
        let alike = wanted.is_like_all_of(class);
        // SAFETY: the caller's promise.
        unsafe {
            if alike && let Some(slot) = self.take_loose(class) {
                return Ok(slot);
            }
            if alike && let Some(slot) = self.take_from_list(class, serves_all)? {
                return Ok(slot);
            }
            self.arena().tick();
            let collected = self.arena().collect_wanted(class);
            if alike
                && collected
                && let Some(slot) = self.take_from_list(class, serves_all)?
            {
                return Ok(slot);
            }
            if alike && let Some(slot) = self.take_adopted(class, serves_all)? {
                return Ok(slot);
            }
            self.take_routed(class, wanted)
        }
    }

    /// A slot of a run of the first pool that has one: of those runs that serve only what is routed
    /// to them, or of a new one.
    ///
    /// # Safety
    /// The caller is the thread that has the arena.
    unsafe fn take_routed(&self, class: ClassIndex, wanted: &Wanted) -> Result<Slot, AllocFailure> {
        // SAFETY: the caller's promise; a new run is in no list, and this thread's.
        router::in_order(wanted, self.tag(), |pool, is_first| unsafe {
            let of_pool = |run: &Run| run.is_apart() && core::ptr::eq(run.pool(), pool);
            if !router::is_simple() {
                if let Some(slot) = self.take_from_list(class, of_pool)? {
                    return Ok(slot);
                }
                if let Some(slot) = self.take_adopted(class, of_pool)? {
                    return Ok(slot);
                }
            }
            let apart = !is_first || pool.is_small() || !wanted.is_like_all_of(class);
            let live = self.bin(class).live().max(0) as usize;
            let run = Run::acquire(pool, class, self.address(), live, self.tag(), apart)?;
            self.arena().note_acquired();
            self.link(run);
            if !apart {
                self.bin(class).set_current(run);
            }
            // A run has a slot at least.
            self.take_slot(&*run)?.ok_or(AllocFailure::Metadata)
        })
    }

    /// A slot of a run that is taken over from an arena without a thread.
    ///
    /// # Safety
    /// The caller is the thread that has the arena.
    unsafe fn take_adopted(
        &self,
        class: ClassIndex,
        which: impl Fn(&Run) -> bool,
    ) -> Result<Option<Slot>, AllocFailure> {
        while let Some(run) = super::life::adopt_run(self, class, &which) {
            // SAFETY: taken over just now, in no list; it is this thread's.
            unsafe {
                self.link(run);
                if let Some(slot) = self.take_from_list(class, &which)? {
                    return Ok(Some(slot));
                }
            }
        }
        Ok(None)
    }

    /// A slot of a run of these bins. What it makes available is charged to their owner first.
    ///
    /// # Safety
    /// The caller is the thread that has the arena.
    unsafe fn take_slot(&self, run: &Run) -> Result<Option<Slot>, AllocFailure> {
        // SAFETY: the caller's promise.
        unsafe {
            let Some(owner) = self.owner().filter(|_| !run.has_free()) else {
                return Ok(run.take_slot());
            };
            let most = run.unit_bytes() as u64;
            owner.charge(most, self.arena().is_fallible())?;
            let before = run.available_bytes();
            let slot = run.take_slot();
            owner.uncharge(most - (run.available_bytes() - before));
            Ok(slot)
        }
    }

    /// A slot from the first of `which` runs of the list that has a free one, else from the first
    /// that can be extended: what was used before is used again before fresh pages are touched.
    /// Runs without either leave the list.
    ///
    /// # Safety
    /// The caller is the thread that has the arena.
    unsafe fn take_from_list(
        &self,
        class: ClassIndex,
        which: impl Fn(&Run) -> bool,
    ) -> Result<Option<Slot>, AllocFailure> {
        while let Some(run) = self.find_in_list(class, &which) {
            if !run.is_apart() {
                let bin = self.bin(class);
                bin.set_current(core::ptr::from_ref(run).cast_mut());
            }
            // A run whose last units hold no slot has none after all, and is parked next time.
            // SAFETY: the run is in the list, and the caller has the arena.
            if let Some(slot) = unsafe { self.take_slot(run)? } {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    fn find_in_list(&self, class: ClassIndex, which: impl Fn(&Run) -> bool) -> Option<&Run> {
        let mut found: Option<&Run> = None;
        for run in self.runs(class.index()) {
            let (has_free, is_wanted) = (run.has_free(), which(run));
            if has_free && is_wanted {
                return Some(run);
            }
            if !has_free && !run.is_extensible() {
                self.park(run);
            } else if is_wanted {
                found = found.or(Some(run));
            }
        }
        found
    }

    /// Takes a run without a free slot out of the list, unless one is freed just now.
    ///
    /// Once the run is full, whoever frees its last block may have it given back: by then nothing
    /// here may point to it.
    fn park(&self, run: &Run) {
        // SAFETY: the run is in the list of these bins, and in no list once it was taken out.
        unsafe {
            self.unlink(run);
            if run.is_kept() {
                self.arena().forget(run);
            }
            run.watch();
            if !run.remote.try_mark_full() {
                self.link(core::ptr::from_ref(run).cast_mut());
            }
        }
    }

    /// A block was freed in a run whose free list was empty: if the run was full, takes it up
    /// again. False if another thread was faster; the run comes back by way of the queue, and
    /// until then this thread must leave its free list alone.
    ///
    /// # Safety
    /// The run belongs to these bins, and the caller is the thread that has the arena.
    pub(crate) unsafe fn unpark(&self, run: &Run) -> bool {
        if run.remote.state() == State::Owned {
            return true;
        }
        let taken_back = run.remote.try_take_back();
        if taken_back {
            // SAFETY: a full run is in no list.
            unsafe { self.link(core::ptr::from_ref(run).cast_mut()) };
        }
        taken_back
    }

    /// Has the owner's next request of each class come through the slow path, where it looks after
    /// its runs. By any thread; a store of the owner's at the same time wins, which does no harm.
    pub(super) fn divert(&self) {
        self.bin.iter().for_each(|bin| bin.set_current(empty_run()));
    }

    /// Has the blocks of classes without a run at hand come from mixed runs again, until they are
    /// more, or a full run is at hand again.
    pub(super) fn forget_empty(&self) {
        for class in (0..CLASSES as u8).map(ClassIndex) {
            if !self.has_runs(class) {
                self.set_fills(class, false);
            }
        }
    }

    /// What the runs could hand out has become less by so many bytes.
    pub(super) fn uncharge(&self, bytes: u64) {
        if let Some(owner) = self.owner() {
            owner.uncharge(bytes);
        }
    }

    /// Gives an unused run of these bins back to its pool.
    ///
    /// # Safety
    /// No block of the run is alive, it is in no list, and the caller looks after it.
    pub(super) unsafe fn release(&self, run: &Run) {
        self.uncharge(run.available_bytes());
        // SAFETY: the caller's promise.
        unsafe { run.release() };
    }

    /// Puts a run into its bin's list.
    ///
    /// # Safety
    /// The run belongs to these bins, is `Owned`, and is in no list.
    pub(crate) unsafe fn link(&self, run: *mut Run) {
        // SAFETY: the caller's promise; runs in the list are alive.
        unsafe {
            let bin = &self.bin((*run).head.class());
            let head = bin.list.get();
            (*run).prev.set(null_mut());
            (*run).next.set(head);
            if let Some(head) = head.as_ref() {
                head.prev.set(run);
            }
            bin.list.set(run);
        }
    }

    /// Takes a run out of its bin's list. It is no longer current.
    ///
    /// # Safety
    /// The run is in the list of these bins.
    pub(crate) unsafe fn unlink(&self, run: &Run) {
        let bin = &self.bin(run.head.class());
        let (prev, next) = (run.prev.get(), run.next.get());
        // SAFETY: neighbours in the list are alive.
        unsafe {
            match prev.as_ref() {
                Some(prev) => prev.next.set(next),
                None => bin.list.set(next),
            }
            if let Some(next) = next.as_ref() {
                next.prev.set(prev);
            }
        }
        if core::ptr::eq(bin.current(), run) {
            bin.set_current(empty_run());
        }
    }

    /// Makes a run of another arena's bins, which is in no list, one of these.
    pub(crate) fn claim(&self, run: &Run) {
        run.set_bins(self.address());
    }

    /// The runs of a bin's list. The run that was returned last may be unlinked.
    pub(crate) fn runs(&self, class: usize) -> impl Iterator<Item = &'static Run> {
        let mut next = self.bin[class].list.get();
        core::iter::from_fn(move || {
            // SAFETY: runs in the list are alive.
            let run = unsafe { next.as_ref()? };
            next = run.next.get();
            Some(run)
        })
    }

    /// Adds what was freed through these bins.
    pub(super) fn add_freed(&self, totals: &mut Totals) {
        let (blocks, bytes) = self.sum(|bin| bin.freed.get());
        totals.freed_blocks += blocks;
        totals.freed_bytes += bytes;
    }

    /// Bytes allocated through these bins less those freed. Exact on the thread that has them.
    pub(super) fn balance(&self) -> i64 {
        let (_, bytes) = self.sum(|bin| bin.live() as u64);
        bytes as i64
    }

    /// Adds what was allocated through these bins.
    pub(super) fn add_allocated(&self, totals: &mut Totals) {
        let (blocks, bytes) = self.sum(|bin| bin.allocated.get());
        totals.allocated_blocks += blocks;
        totals.allocated_bytes += bytes;
    }
}
