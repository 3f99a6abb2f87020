//! Searches for free slices that find none while some are just being purged.
//!
//! A purger claims what it purges, and for that time it is not to be had; but it is free, and in a
//! pool of a set size there may be nothing else. Who finds nothing looks again once the purge is
//! over.

use crate::os::sync::{AtomicU64, Ordering, fence};

/// Counts the beginnings and the ends of purges, of which there is one at a time: odd while there
/// is one.
pub(crate) struct Purges(AtomicU64);

impl Purges {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Purges {
        Purges(AtomicU64::new(0))
    }

    /// Runs `purge`, which claims free slices and gives them back.
    pub(crate) fn during<T>(&self, purge: impl FnOnce() -> T) -> T {
        self.0.fetch_add(1, Ordering::Relaxed);
        // Pairs with the fence in `past`: who does not find a slice since it was claimed here finds
        // the purge.
        fence(Ordering::Release);
        let result = purge();
        // Release pairs with the Acquire in `past`: what was purged is free again.
        self.0.fetch_add(1, Ordering::Release);
        result
    }

    /// Runs `search` again for as long as it fails and purges began or ended meanwhile. `wait` ends
    /// when the purge does that there is.
    pub(crate) fn past<T, E>(
        &self,
        search: impl Fn() -> Result<T, E>,
        wait: impl Fn(),
    ) -> Result<T, E> {
        loop {
            let before = self.0.load(Ordering::Acquire);
            let result = search();
            if result.is_ok() {
                return result;
            }
            fence(Ordering::Acquire);
            if self.0.load(Ordering::Relaxed) % 2 == 1 {
                wait();
            }
            if self.0.load(Ordering::Relaxed) == before {
                return result;
            }
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// A free slice, claimed and given back as [`Slots`](crate::extent::chunk::Slots) does it.
    struct Pool {
        free: AtomicU64,
        purges: Purges,
    }

    impl Pool {
        fn new(free: u64) -> Arc<Pool> {
            Arc::new(Pool {
                free: AtomicU64::new(free),
                purges: Purges(AtomicU64::new(0)),
            })
        }

        fn claim(&self) -> Result<(), ()> {
            let claimed = self
                .free
                .compare_exchange(1, 0, Ordering::Acquire, Ordering::Relaxed);
            claimed.map(drop).map_err(drop)
        }

        fn purge(&self) {
            self.purges.during(|| {
                if self.claim().is_ok() {
                    self.free.fetch_or(1, Ordering::Release);
                }
            });
        }

        /// Stands for waiting for the lock that purgers hold.
        fn wait(&self) {
            while self.purges.0.load(Ordering::Acquire) % 2 == 1 {
                thread::yield_now();
            }
        }
    }

    #[test]
    fn a_slice_that_is_being_purged_is_found() {
        loom::model(|| {
            let pool = Pool::new(1);
            let other = Arc::clone(&pool);
            let purger = thread::spawn(move || {
                other.purge();
                other.purge();
            });
            assert_eq!(pool.purges.past(|| pool.claim(), || pool.wait()), Ok(()));
            purger.join().unwrap();
        });
    }

    #[test]
    fn a_search_of_a_full_pool_ends() {
        loom::model(|| {
            let pool = Pool::new(0);
            let other = Arc::clone(&pool);
            let purger = thread::spawn(move || other.purge());
            assert_eq!(pool.purges.past(|| pool.claim(), || pool.wait()), Err(()));
            purger.join().unwrap();
        });
    }
}
