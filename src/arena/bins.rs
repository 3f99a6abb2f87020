//! Bins: for each size class the run that serves it now, the runs with free slots, and how many
//! blocks were allocated and freed through them.
//!
//! A run in a bin's list is `Owned` and either uniform for the bins' owner or, in the mixed bins,
//! tagged slot by slot. The current run is one of the list, or the empty run.

use super::Arena;
use super::counter::Counter;
use super::ledger::{Ledger, Totals};
use crate::class::{CLASSES, TABLE};
use crate::os::sync::{AtomicPtr, Ordering::Relaxed};
use crate::pool::AllocFailure;
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

/// Runs that may refuse an owner before a new one is opened for it.
const MOST_REFUSALS: usize = 8;

/// All size classes for one owner on one thread. Type-stable: a freer may follow a stale pointer.
#[repr(C)]
pub(crate) struct Bins {
    pub(crate) bin: [Bin; CLASSES],
    pub(crate) arena: Cell<*const Arena>,
    /// Null for mixed bins.
    pub(crate) ledger: Cell<*const Ledger>,
}

/// Bins without a run, in place of a null pointer: each request finds its way to the slow path.
#[repr(transparent)]
pub(crate) struct EmptyBins(Bins);

// SAFETY: nobody writes to them: the fast paths leave the empty run alone.
unsafe impl Sync for EmptyBins {}

static EMPTY: EmptyBins = EmptyBins(Bins::new());

/// The bins that a thread begins with.
pub(crate) const fn empty_bins() -> *const Bins {
    &raw const EMPTY.0
}

impl Bins {
    pub(crate) const fn new() -> Bins {
        Bins {
            bin: [const { Bin::new() }; CLASSES],
            arena: Cell::new(null()),
            ledger: Cell::new(null()),
        }
    }

    /// The bin of a class.
    #[inline(always)]
    pub(crate) fn bin(&self, class: ClassIndex) -> &Bin {
        debug_assert!(class.index() < CLASSES);
        // SAFETY: every class has a bin. Unchecked, since a panic has no place in a fast path.
        unsafe { self.bin.get_unchecked(class.index()) }
    }

    fn address(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    fn arena(&self) -> &'static Arena {
        // SAFETY: bins that belong to an arena point to it; arenas are never given up.
        unsafe { &*self.arena.get() }
    }

    /// The tag that runs of these bins have.
    fn tag(&self) -> OwnerTag {
        // SAFETY: ledgers are never given up.
        match unsafe { self.ledger.get().as_ref() } {
            Some(ledger) => ledger.tag(),
            None => OwnerTag::UNATTRIBUTED,
        }
    }

    /// A slot of `class` from a run that `accepts` it, or from a new one; that run is then the
    /// current one. Counts nothing.
    ///
    /// # Safety
    /// The caller is the thread that has the arena.
    pub(crate) unsafe fn take(
        &self,
        class: ClassIndex,
        accepts: impl Fn(&Run) -> bool,
    ) -> Result<Slot, AllocFailure> {
        let bin = self.bin(class);
        // SAFETY: the caller's promise.
        unsafe {
            if let Some(slot) = self.take_from_list(bin, class, &accepts) {
                return Ok(slot);
            }
            self.arena().tick();
            if self.arena().collect_notified()
                && let Some(slot) = self.take_from_list(bin, class, &accepts)
            {
                return Ok(slot);
            }
        }
        while let Some(run) = super::life::adopt_run(self, class) {
            // SAFETY: taken over just now, in no list; it is this thread's.
            unsafe {
                self.link(run);
                if let Some(slot) = self.take_from_list(bin, class, &accepts) {
                    return Ok(slot);
                }
            }
        }
        let run = Run::acquire(class, self.address(), self.tag())?;
        // SAFETY: made just now, in no list, and this thread's.
        unsafe {
            self.link(run);
            bin.set_current(run);
            // A run has slots: the table of its class says so.
            (*run).take_slot().ok_or(AllocFailure::Metadata)
        }
    }

    /// A slot from the first run of the list that has a free one, else from the first that can be
    /// extended: what was used before is used again before fresh pages are touched. Runs without
    /// either leave the list.
    ///
    /// # Safety
    /// The caller is the thread that has the arena.
    unsafe fn take_from_list(
        &self,
        bin: &Bin,
        class: ClassIndex,
        accepts: &impl Fn(&Run) -> bool,
    ) -> Option<Slot> {
        while let Some(run) = self.find_in_list(class, accepts) {
            bin.set_current(core::ptr::from_ref(run).cast_mut());
            // A run whose last units hold no slot has none after all, and is parked next time.
            // SAFETY: the run is in the list, and the caller has the arena.
            if let Some(slot) = unsafe { run.take_slot() } {
                return Some(slot);
            }
        }
        None
    }

    fn find_in_list(&self, class: ClassIndex, accepts: &impl Fn(&Run) -> bool) -> Option<&Run> {
        let mut found: Option<&Run> = None;
        let mut refusals = 0;
        for run in self.runs(class.index()) {
            if run.has_free() || run.is_extensible() {
                if !accepts(run) {
                    refusals += 1;
                    if refusals == MOST_REFUSALS {
                        break;
                    }
                } else if run.has_free() {
                    found = Some(run);
                    break;
                } else {
                    found = found.or(Some(run));
                }
            } else {
                self.park(run);
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
        for (bin, row) in self.bin.iter().zip(&TABLE) {
            let freed = bin.freed.get();
            totals.freed_blocks += freed;
            totals.freed_bytes += freed * u64::from(row.size);
        }
    }

    /// Adds what was allocated through these bins.
    pub(super) fn add_allocated(&self, totals: &mut Totals) {
        for (bin, row) in self.bin.iter().zip(&TABLE) {
            let allocated = bin.allocated.get();
            totals.allocated_blocks += allocated;
            totals.allocated_bytes += allocated * u64::from(row.size);
        }
    }
}
