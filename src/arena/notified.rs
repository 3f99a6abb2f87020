//! What becomes of the runs in an arena's queue: those that were full until another thread freed a
//! block of them, and sparse ones that the arena leaves there for others to look after.
//!
//! Whoever empties the queue has its runs: the arena's thread, when it wants slots, or any thread
//! that looks after all arenas, since this one's may sleep for long. What a run in the queue holds
//! without need goes back like that of others: the run when all its blocks wait, and the free pages
//! of one that has not changed for a while.

use super::bins::Bins;
use super::queue::Linked;
use super::record::Arena;
use super::trim::{IDLE_LOOKS, Zeal};
use crate::os::sync::{AtomicPtr, Ordering::Relaxed};
use crate::pool::DEFAULT;
use crate::run::descriptor::Run;
use crate::run::watch::LOOK_AFTER_SPARSE;
use crate::units::ClassIndex;

/// A run in the queue that was seen so often without a change gives its free pages back: one time
/// less than a run that its arena allocates from.
const QUEUE_LOOKS: u8 = IDLE_LOOKS - 1;

impl Linked for Run {
    fn link(&self) -> &AtomicPtr<Run> {
        &self.notified_next
    }
}

impl Arena {
    /// Puts a run that the caller has notified, or taken out of the queue, into the queue.
    pub(super) fn notify(&self, run: *mut Run) {
        // SAFETY: a notified run is whoever's has it, and alive while a block of it is, or until
        // who has it gives it back.
        unsafe { self.queue.push(run) };
    }

    /// A block was freed in a run that is [watched](Run::is_watched): one that is unused is kept or
    /// given back, and a sparse one left to others.
    ///
    /// # Safety
    /// The caller has this arena; the run is in a list of its bins.
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn look_at(&self, run: &Run) {
        // SAFETY: the caller's promise.
        unsafe {
            if run.is_unused() {
                return self.retire(run);
            }
            run.watch_less();
            if LOOK_AFTER_SPARSE.load(Relaxed) && !run.is_kept() {
                let bins = &*core::ptr::with_exposed_provenance::<Bins>(run.bins());
                bins.unlink(run);
                run.leave();
                self.notify(core::ptr::from_ref(run).cast_mut());
            }
        }
    }

    /// Takes up again all runs in the queue. Those that have become unused are retired.
    pub(super) fn collect_notified(&self) {
        // SAFETY: whoever empties the queue has its runs, and the caller has their bins.
        self.queue.empty(|run| unsafe { self.take_up(run) });
    }

    /// The same for some runs of `class`, and for those that are not sparse: the others may have to
    /// be looked after when this thread sleeps. Whether there were any.
    pub(super) fn collect_wanted(&self, class: ClassIndex) -> bool {
        let eager = self.eager.get();
        self.eager.set(eager.saturating_mul(2));
        self.collect_some(Some(class), eager)
    }

    /// The same for those that are not sparse. Of the others few are taken up when this thread next
    /// wants slots.
    pub(super) fn collect_dense(&self) {
        self.eager.set(1);
        self.collect_some(None, 0);
    }

    /// Takes up runs that are not sparse, and so many others of a class.
    fn collect_some(&self, class: Option<ClassIndex>, mut eager: u32) -> bool {
        let mut any = false;
        self.queue.empty(|run| {
            // SAFETY: as in `collect_notified`.
            let this = unsafe { &*run };
            let left = LOOK_AFTER_SPARSE.load(Relaxed) && this.is_sparse();
            let wanted = Some(this.head.class()) == class && eager > 0;
            if left && !wanted {
                return self.notify(run);
            }
            if left {
                eager -= 1;
            }
            any = true;
            // SAFETY: as above.
            unsafe { self.take_up(run) };
        });
        any
    }

    /// Takes a run up again.
    ///
    /// # Safety
    /// The caller has this arena, and took the run from its queue.
    unsafe fn take_up(&self, run: *mut Run) {
        // SAFETY: the caller's promise.
        unsafe {
            (*run).collect();
            let bins = &*core::ptr::with_exposed_provenance::<Bins>((*run).bins());
            bins.link(run);
            if (*run).is_unused() {
                self.retire(&*run);
            }
        }
    }

    /// Looks through the runs in the queue, whoever has the arena. Returns the bytes of pages inside
    /// runs that live on.
    pub(super) fn look_through_queue(&self, zeal: Zeal) -> u64 {
        let mut purged = 0;
        self.queue.empty(|run| {
            // SAFETY: whoever empties the queue has its runs.
            unsafe {
                let run = &*run;
                let bins = &*core::ptr::with_exposed_provenance::<Bins>(run.bins());
                if run.all_wait() {
                    // What the freers did to the run is seen before it is taken apart; when all
                    // its blocks wait, nobody is left who could free another.
                    run.remote.take(run.start());
                    bins.release(run);
                    return;
                }
                let before = run.look(run.remote.count() as i32, zeal.missed());
                let became_idle = before < QUEUE_LOOKS && run.looks() >= QUEUE_LOOKS;
                let drains = run.is_hollow(run.alive_in_queue());
                if zeal == Zeal::All || (zeal != Zeal::Unused && (became_idle || drains)) {
                    let before = run.available_bytes();
                    purged += (run.purge_waiting() + run.purge_unextended()) as u64;
                    bins.uncharge(before - run.available_bytes());
                }
                self.notify(core::ptr::from_ref(run).cast_mut());
            }
        });
        DEFAULT.counts.purged_in_runs.fetch_add(purged, Relaxed);
        purged
    }
}
