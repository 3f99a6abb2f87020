//! Which units of a run are extended, and whether the pages of the others may be resident.
//!
//! Slices that were in use before come with their pages, most of which a run may never come to use,
//! and its thread may sleep. So anybody may give them back who holds what only one thread can hold:
//! it marks the run for that time, and whoever has the run waits before it extends a unit or gives the
//! run up. All that is in one word, which is changed atomically as long as there are such pages.

use crate::os::sync::{AtomicU64, Ordering, Ordering::Relaxed};
#[cfg(not(loom))]
use crate::os::thread::give_way;
#[cfg(loom)]
use loom::thread::yield_now as give_way;
#[cfg(not(loom))]
use static_assertions::const_assert;

/// A bit for each unit, and above them what is said of the rest.
pub(crate) struct Extended(AtomicU64);

/// Pages of units that are not extended may be resident.
const STALE: u64 = 1 << 63;
/// Somebody who does not have the run gives them back just now.
const PURGED: u64 = 1 << 62;
/// A bit for each unit.
const UNITS: u64 = PURGED - 1;

#[cfg(not(loom))]
const_assert!(UNITS.count_ones() == crate::class::UNITS_MAX);

impl Extended {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Extended {
        Extended(AtomicU64::new(0))
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Extended {
        Extended(AtomicU64::new(0))
    }

    /// The units that are.
    #[inline]
    pub(crate) fn units(&self) -> u64 {
        self.0.load(Relaxed) & UNITS
    }

    /// Whether pages of the others may be resident. Then the description is seen.
    #[inline]
    pub(crate) fn is_stale(&self) -> bool {
        // Acquire pairs with the Release in `begin`: as long as it is stale the word is only changed
        // from what it was, which what was released goes along with.
        self.0.load(Ordering::Acquire) & STALE != 0
    }

    /// Of a new run, of which none is, and which has been described.
    pub(crate) fn begin(&self, stale: bool) {
        // Release pairs with the Acquire in `purge`: the description is seen.
        self.0
            .store(if stale { STALE } else { 0 }, Ordering::Release);
    }

    /// Says which units are. `hold` tries to hold what purgers hold, or knows that the caller does. Only
    /// by who has the run.
    #[inline]
    pub(crate) fn set<G>(&self, units: u64, hold: impl Fn() -> Option<G>) {
        debug_assert!(units & !UNITS == 0, "there is a bit for each unit");
        // Acquire pairs with the Release in `purge`: what was taken away is gone before anything is
        // written there.
        if self.0.load(Ordering::Acquire) & !UNITS == 0 {
            // Nobody else changes it.
            return self.0.store(units, Relaxed);
        }
        self.change(|word| units | word & STALE, hold);
    }

    /// Of a run that is given up. As [`set`](Self::set).
    #[inline]
    pub(crate) fn end<G>(&self, hold: impl Fn() -> Option<G>) {
        // Acquire as in `set`.
        if self.0.load(Ordering::Acquire) & !UNITS != 0 {
            self.change(|_| 0, hold);
        }
    }

    /// Makes the word anew while nobody purges.
    #[cold]
    fn change<G>(&self, new: impl Fn(u64) -> u64, hold: impl Fn() -> Option<G>) {
        loop {
            let word = self.0.load(Relaxed);
            if word & PURGED != 0 {
                match hold() {
                    // Nobody purges now: a fork left the purger behind in the parent.
                    Some(_held) => drop(self.0.fetch_and(!PURGED, Relaxed)),
                    // Who purges goes on to other runs, which is not waited for.
                    None => give_way(),
                }
                continue;
            }
            // Acquire as in `set`. Release pairs with the Acquire in `purge`: what was read on units
            // that are so no more was read before they are purged.
            let changed = self
                .0
                .compare_exchange(word, new(word), Ordering::AcqRel, Relaxed);
            if changed.is_ok() {
                return;
            }
        }
    }

    /// Forgets that pages may be resident, which who has the run has given back.
    pub(crate) fn forget_stale(&self) {
        // Who purges the same just now goes on, and is waited for. Acquire as in `set`.
        self.0.fetch_and(!STALE, Ordering::Acquire);
    }

    /// Hands what is not extended to `purge` if that may be resident. `purge` says whether all is gone.
    /// By anybody who holds what purgers hold, whoever has the run, if there is one.
    pub(crate) fn purge(&self, purge: impl FnOnce(u64) -> bool) {
        // If it is marked, a fork left the purger behind in the parent.
        let word = self.0.load(Relaxed);
        if word & STALE == 0 {
            return;
        }
        // Acquire pairs with the Release in `begin` and in `change`. From now on who has the run waits.
        let marked = self
            .0
            .compare_exchange(word, word | PURGED, Ordering::Acquire, Relaxed);
        if marked.is_ok() {
            let gone = purge(!word & UNITS);
            let over = if gone { STALE | PURGED } else { PURGED };
            // Release pairs with the Acquire in `change`.
            self.0.fetch_and(!over, Ordering::Release);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_extended_is_purged_once() {
        let run = Extended::new();
        let purged = |gone: bool| {
            let mut purged = None;
            run.purge(|units| {
                purged = Some(units & 7);
                gone
            });
            purged
        };
        run.begin(true);
        let nobody = || -> Option<()> { panic!("nobody purges") };
        run.set(1, nobody);
        assert!(run.is_stale());
        assert_eq!(purged(false), Some(6), "and is left where it is refused");
        run.set(3, nobody);
        assert_eq!(purged(true), Some(4));
        assert!(!run.is_stale() && run.units() == 3);
        assert_eq!(purged(true), None);
        run.begin(true);
        run.end(nobody);
        assert_eq!(purged(true), None, "there is no run");
        run.begin(false);
        assert_eq!(purged(true), None, "nothing is resident");
    }

    /// As the child of a fork finds a run that another thread purged.
    #[test]
    fn a_purger_that_is_gone_is_not_waited_for() {
        let left_behind = || {
            let run = Extended::new();
            run.begin(true);
            run.0.fetch_or(PURGED, Relaxed);
            run
        };
        let held = || Some(());
        let run = left_behind();
        run.set(1, held);
        assert!(run.is_stale() && run.units() == 1);
        left_behind().end(held);
        let run = left_behind();
        run.purge(|_| true);
        assert!(!run.is_stale());
        run.set(1, || -> Option<()> { panic!("nobody purges") });
    }

    /// One that is at work elsewhere still holds what purgers hold.
    #[test]
    fn who_purges_other_runs_is_not_waited_for() {
        let run = Extended::new();
        run.begin(true);
        run.0.fetch_or(PURGED, Relaxed);
        std::thread::scope(|scope| {
            scope.spawn(|| run.0.fetch_and(!PURGED, Ordering::Release));
            run.set(1, || None::<()>);
        });
        assert_eq!(run.units(), 1);
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::{Arc, Mutex};
    use loom::thread;

    /// A run of one unit, and its page.
    struct Run {
        extended: Extended,
        page: UnsafeCell<u32>,
        purgers: Mutex<()>,
    }

    // SAFETY: loom sees every access to the page.
    unsafe impl Sync for Run {}

    impl Run {
        fn new() -> Arc<Run> {
            let run = Run {
                extended: Extended::new(),
                page: UnsafeCell::new(7),
                purgers: Mutex::new(()),
            };
            run.extended.begin(true);
            Arc::new(run)
        }

        fn write(&self, value: u32) {
            // SAFETY: by the one that may; loom says if it is not alone.
            self.page.with_mut(|page| unsafe { *page = value });
        }

        fn purge(&self, purge: impl FnOnce(u64)) {
            let _held = self.purgers.lock().unwrap();
            self.extended.purge(|units| {
                purge(units & 1);
                true
            });
        }

        fn purge_page(&self) {
            self.purge(|units| {
                if units == 1 {
                    self.write(0);
                }
            });
        }

        fn hold(&self) -> Option<impl Drop + '_> {
            self.purgers.try_lock().ok()
        }

        fn expect(&self, value: u32) {
            // SAFETY: there is no other thread any more.
            self.page.with(|page| assert_eq!(unsafe { *page }, value));
        }
    }

    #[test]
    fn what_is_extended_is_not_purged() {
        loom::model(|| {
            let run = Run::new();
            let other = Arc::clone(&run);
            let purger = thread::spawn(move || other.purge_page());
            run.extended.set(1, || run.hold());
            run.write(1);
            purger.join().unwrap();
            run.expect(1);
        });
    }

    #[test]
    fn what_was_given_up_is_not_purged() {
        loom::model(|| {
            let run = Run::new();
            let others = [(); 2].map(|()| {
                let other = Arc::clone(&run);
                thread::spawn(move || other.purge_page())
            });
            run.extended.end(|| run.hold());
            // Somebody else has it now, for something else.
            run.write(1);
            for other in others {
                other.join().unwrap();
            }
            run.expect(1);
        });
    }

    #[test]
    fn what_was_read_is_purged_afterwards() {
        loom::model(|| {
            let run = Run::new();
            run.extended.set(1, || run.hold());
            let other = Arc::clone(&run);
            let purger = thread::spawn(move || other.purge_page());
            run.page.with(|_| ());
            run.extended.set(0, || run.hold());
            purger.join().unwrap();
        });
    }

    /// Who has the run may purge while another does: the kernel bears it.
    #[test]
    fn who_has_it_may_purge_too() {
        loom::model(|| {
            let run = Run::new();
            let other = Arc::clone(&run);
            let purger = thread::spawn(move || {
                other.purge(|units| {
                    if units == 1 {
                        other.page.with(|_| ());
                    }
                });
            });
            run.extended.forget_stale();
            run.extended.set(1, || run.hold());
            run.write(1);
            purger.join().unwrap();
            assert!(!run.extended.is_stale() && run.extended.units() == 1);
        });
    }
}
