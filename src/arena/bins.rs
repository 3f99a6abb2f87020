//! Bins: for each size class the run that serves it now, the runs with free slots, and how many
//! blocks were allocated and freed through them.
//!
//! A run in a bin's list is `Owned` and either uniform for the bins' owner or, in the mixed bins,
//! tagged slot by slot. The current run is one of the list, or the empty run.

use super::Arena;
use super::counter::Counter;
use super::ledger::Ledger;
use crate::class::{CLASSES, TABLE};
use crate::os::sync::Ordering::Relaxed;
use crate::pool::AllocFailure;
use crate::run::descriptor::{FLAGS, FULL, Run, Slot, TAGGED, empty_run};
use crate::units::{ClassIndex, OwnerTag};
use core::cell::Cell;
use core::ptr::{null, null_mut};

/// One size class.
#[repr(C)]
pub(crate) struct Bin {
    /// The run that serves the next request; never null.
    pub(crate) current: Cell<*mut Run>,
    /// Blocks allocated so far.
    pub(crate) allocated: Counter,
    /// Blocks freed so far, whoever allocated them.
    pub(crate) freed: Counter,
    /// Runs of these bins that are not full, most recently filled up first.
    pub(crate) list: Cell<*mut Run>,
}

impl Bin {
    const fn new() -> Bin {
        Bin {
            current: Cell::new(empty_run()),
            allocated: Counter::new(),
            freed: Counter::new(),
            list: Cell::new(null_mut()),
        }
    }
}

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

    /// A slot of `class`, from a run that has one or a new one, which is then the current run.
    /// Counts nothing.
    ///
    /// # Safety
    /// The caller is the thread that has the arena.
    pub(crate) unsafe fn take(&self, class: ClassIndex) -> Result<Slot, AllocFailure> {
        let bin = self.bin(class);
        // SAFETY: the current run is in the list, or the empty run, which gives nothing; the
        // caller's promise.
        unsafe {
            let current = &*bin.current.get();
            if bin.current.get() != empty_run()
                && let Some(slot) = current.take_slot()
            {
                return Ok(slot);
            }
            if let Some(slot) = self.take_from_list(bin, class) {
                return Ok(slot);
            }
            if self.arena().collect_notified()
                && let Some(slot) = self.take_from_list(bin, class)
            {
                return Ok(slot);
            }
        }
        let run = match super::life::adopt_run(self, class) {
            Some(run) => run,
            None => Run::acquire(class, self.address(), self.tag())?,
        };
        // SAFETY: made or taken over just now, in no list; it is this thread's.
        unsafe {
            self.link(run);
            bin.current.set(run);
            match (*run).take_slot() {
                Some(slot) => Ok(slot),
                // Adopted without a free slot: it is parked when the list is gone through.
                None => self.take(class),
            }
        }
    }

    /// A slot from the first run of the list that has a free one, else from the first that can be
    /// extended: what was used before is used again before fresh pages are touched.
    ///
    /// A run that has neither is parked when it is met so for the second time: in a table whose
    /// blocks come and go, one of its blocks will soon be freed.
    ///
    /// # Safety
    /// The caller is the thread that has the arena.
    unsafe fn take_from_list(&self, bin: &Bin, class: ClassIndex) -> Option<Slot> {
        let mut extensible: Option<&Run> = None;
        for run in self.runs(class.index()) {
            if run.has_free() {
                extensible = Some(run);
                break;
            }
            if run.is_extensible() {
                extensible = extensible.or(Some(run));
            } else if run.struck.replace(true) {
                self.park(run);
            }
        }
        let run = extensible?;
        run.struck.set(false);
        bin.current.set(core::ptr::from_ref(run).cast_mut());
        // SAFETY: the run is in the list, and the caller has the arena.
        unsafe { run.take_slot() }
    }

    /// Takes a run without a free slot out of the list, unless one is freed just now.
    fn park(&self, run: &Run) {
        if run.remote.try_mark_full() {
            // A freer that sees `Full` before the flag merely takes the longer way.
            run.owner.fetch_or(FULL, Relaxed);
            // SAFETY: the run is in this bin's list.
            unsafe { self.unlink(run) };
        }
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
        if core::ptr::eq(bin.current.get(), run) {
            bin.current.set(empty_run());
        }
    }

    /// Takes up again a run that was `Full` and is `Owned` now.
    ///
    /// # Safety
    /// The run belongs to these bins and is in no list.
    pub(crate) unsafe fn unpark(&self, run: *mut Run) {
        // SAFETY: the caller's promise.
        unsafe {
            (*run).owner.fetch_and(!FULL, Relaxed);
            self.link(run);
        }
    }

    /// Makes a run of another arena's bins, which is in no list, one of these.
    pub(crate) fn claim(&self, run: &Run) {
        let tagged = run.owner.load(Relaxed) & TAGGED;
        run.owner.store(self.address() | tagged, Relaxed);
        debug_assert_eq!(self.address() & FLAGS, 0);
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

    /// Blocks and bytes allocated and freed through these bins, per class summed up.
    pub(crate) fn totals(&self) -> super::ledger::Totals {
        let mut totals = super::ledger::Totals::default();
        // All that was freed first: see `Totals`.
        for (bin, row) in self.bin.iter().zip(&TABLE) {
            let freed = bin.freed.get();
            totals.freed_blocks += freed;
            totals.freed_bytes += freed * u64::from(row.size);
        }
        for (bin, row) in self.bin.iter().zip(&TABLE) {
            let allocated = bin.allocated.get();
            totals.allocated_blocks += allocated;
            totals.allocated_bytes += allocated * u64::from(row.size);
        }
        totals
    }
}
