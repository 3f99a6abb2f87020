//! Runs without a block that an arena keeps for its next requests.
//!
//! What is kept is bounded by its touched bytes: by [`LEAST`] as long as nothing speaks for more. A
//! run that is acquired after another was given back for want of room shows that the thread goes
//! round in more than that. Then the bound doubles, up to [`MOST`]; it halves each time that the arena
//! looks through its runs, which also gives back those that stay unused.
//!
//! A thread that sleeps does not look through its runs, and a program may have many such threads. So
//! what all bounds are above the least is limited together, by as much as the processors have use for.

use super::bins::Bins;
use super::record::Arena;
use crate::os::process::processors;
use crate::os::sync::{AtomicUsize, Ordering::Relaxed};
use crate::run::descriptor::{Run, WIDE};
use core::cell::Cell;
use core::ptr::null;

/// Runs that are kept at most.
const RUNS: usize = 32;
/// Their touched bytes at most, where the thread does not go round in more.
const LEAST: usize = 8 * WIDE;
/// The same where it does.
const MOST: usize = 8 * LEAST;

/// The unused runs that an arena keeps, beside current ones that are not wide.
pub(super) struct Unused {
    /// Those kept, some perhaps in use again: the first `count`.
    runs: [Cell<*const Run>; RUNS],
    count: Cell<usize>,
    bound: Bound,
}

impl Unused {
    pub(super) const fn new() -> Unused {
        Unused {
            runs: [const { Cell::new(null()) }; RUNS],
            count: Cell::new(0),
            bound: Bound::new(),
        }
    }

    /// Keeps a run, if there is room for it.
    ///
    /// # Safety
    /// The caller has the arena; the run is its, unused and not kept.
    unsafe fn keep(&self, run: &Run) -> bool {
        // What was taken into use again is forgotten, and what is left moves down.
        let (mut kept, mut bytes) = (0, run.touched());
        for place in self.runs.iter().take(self.count.get()) {
            // SAFETY: a run leaves this list before it is given back.
            let other = unsafe { &*place.get() };
            if other.is_unused() {
                bytes += other.touched();
                self.runs[kept].set(other);
                kept += 1;
            } else {
                other.set_kept(false);
            }
        }
        let has_room = kept < RUNS && self.bound.admits(bytes);
        if has_room {
            self.runs[kept].set(run);
            run.set_kept(true);
            kept += 1;
        }
        self.count.set(kept);
        has_room
    }

    /// Forgets a run, if it is kept.
    fn forget(&self, run: &Run) {
        let kept = self.runs.iter().take(self.count.get());
        let is_it = |place: &&Cell<*const Run>| core::ptr::eq(place.get(), run);
        if let (Some(last), Some(place)) = (kept.clone().last(), kept.clone().find(is_it)) {
            place.set(last.get());
            self.count.set(self.count.get() - 1);
            run.set_kept(false);
        }
    }
}

/// Bytes by which the bounds of all arenas are above the least, together.
struct Above(AtomicUsize);

static ABOVE: Above = Above(AtomicUsize::new(0));

impl Above {
    /// Adds to them, if they stay within what so many processors have use for.
    fn add(&self, bytes: usize, processors: usize) -> bool {
        let most = (MOST - LEAST).saturating_mul(processors);
        // Relaxed: a number that stands for nothing else in memory.
        self.0
            .fetch_update(Relaxed, Relaxed, |above| {
                Some(above + bytes).filter(|&sum| sum <= most)
            })
            .is_ok()
    }

    fn sub(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Relaxed);
    }
}

/// How many touched bytes are kept at most.
struct Bound {
    bytes: Cell<usize>,
    /// Runs that were not admitted, and for which none was acquired since.
    refused: Cell<u32>,
}

impl Bound {
    const fn new() -> Bound {
        Bound {
            bytes: Cell::new(LEAST),
            refused: Cell::new(0),
        }
    }

    /// Whether so many bytes may be kept. If not, a run is given back.
    fn admits(&self, bytes: usize) -> bool {
        let admitted = bytes <= self.bytes.get();
        if !admitted {
            self.refused.set(self.refused.get().saturating_add(1));
        }
        admitted
    }

    /// A run was acquired.
    fn note_acquired(&self, above: &Above, processors: impl FnOnce() -> usize) {
        let Some(rest) = self.refused.get().checked_sub(1) else {
            return;
        };
        self.refused.set(rest);
        let bytes = self.bytes.get();
        let more = (2 * bytes).min(MOST) - bytes;
        if more > 0 && above.add(more, processors()) {
            self.bytes.set(bytes + more);
        }
    }

    /// What was refused was not missed for long. Makes the bound half as much, or the least.
    fn lower(&self, above: &Above, to_least: bool) {
        self.refused.set(0);
        let bytes = self.bytes.get();
        let lower = if to_least {
            LEAST
        } else {
            (bytes / 2).max(LEAST)
        };
        if lower < bytes {
            above.sub(bytes - lower);
            self.bytes.set(lower);
        }
    }
}

impl Arena {
    /// A run has become unused: keeps it for the next request, or gives it back.
    ///
    /// # Safety
    /// The caller has this arena; the run is in a list of its bins.
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn retire(&self, run: &Run) {
        if run.is_kept() {
            return;
        }
        // In a pool of a set size another thread, or another size class, may find no room.
        // SAFETY: the caller's promise.
        unsafe {
            if run.pool().is_fixed() || !self.unused.keep(run) {
                self.give_back(run);
            }
        }
    }

    /// Gives an unused run back to its pool.
    ///
    /// # Safety
    /// The caller has this arena, and the run is in a list of its bins and not kept.
    pub(super) unsafe fn give_back(&self, run: &Run) {
        // SAFETY: a run in a list points to its bins.
        unsafe {
            let bins = &*core::ptr::with_exposed_provenance::<Bins>(run.bins());
            bins.unlink(run);
            bins.release(run);
        }
    }

    /// Forgets that a run is kept.
    pub(super) fn forget(&self, run: &Run) {
        self.unused.forget(run);
    }

    /// A run was acquired for want of one at hand.
    pub(super) fn note_acquired(&self) {
        self.unused.bound.note_acquired(&ABOVE, processors);
    }

    /// Has fewer unused runs kept, unless the thread goes round in more; `to_least`, as few as can be.
    pub(super) fn keep_fewer(&self, to_least: bool) {
        self.unused.bound.lower(&ABOVE, to_least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> usize {
        1
    }

    #[test]
    fn who_goes_round_in_more_may_keep_more() {
        let (bound, above) = (Bound::new(), Above(AtomicUsize::new(0)));
        assert!(bound.admits(LEAST) && !bound.admits(LEAST + 1));
        bound.note_acquired(&above, one);
        assert!(bound.admits(2 * LEAST) && !bound.admits(2 * LEAST + 1));
        for _ in 0..10 {
            assert!(!bound.admits(MOST + 1));
            bound.note_acquired(&above, one);
        }
        assert!(bound.admits(MOST), "there is an end to it");
        for _ in 0..10 {
            bound.lower(&above, false);
        }
        assert!(bound.admits(LEAST) && !bound.admits(LEAST + 1));
    }

    #[test]
    fn who_only_frees_or_only_takes_keeps_no_more() {
        let (bound, above) = (Bound::new(), Above(AtomicUsize::new(0)));
        (0..10).for_each(|_| bound.note_acquired(&above, one));
        assert!(!bound.admits(LEAST + 1), "nothing was given back before");
        (0..10).for_each(|_| assert!(!bound.admits(LEAST + 1)));
        bound.lower(&above, false);
        (0..10).for_each(|_| bound.note_acquired(&above, one));
        assert!(!bound.admits(LEAST + 1), "what was refused was long ago");
    }

    #[test]
    fn many_keep_no_more_than_their_processors_have_use_for() {
        let above = Above(AtomicUsize::new(0));
        let raise = |bound: &Bound| {
            for _ in 0..10 {
                bound.admits(MOST + 1);
                bound.note_acquired(&above, || 2);
            }
            bound.bytes.get()
        };
        let bounds = [(); 3].map(|()| Bound::new());
        assert_eq!(bounds.each_ref().map(raise), [MOST, MOST, LEAST]);
        bounds[0].lower(&above, true);
        assert_eq!(raise(&bounds[2]), MOST, "what one gives up another has");
        for bound in &bounds {
            bound.lower(&above, true);
        }
        assert_eq!(above.0.load(Relaxed), 0);
    }
}
