//! Who may take memory from a pool: nobody once it is closed. And who may look at it.
//!
//! A pool that was closed may be taken apart when nobody is inside and nothing of it is used. What
//! is taken is counted before its taker leaves, so both are over for good once they are seen so.
//! Who only looks at it, and uses nothing, is waited for.

use crate::os::sync::{AtomicU64, Ordering, fence};

/// How many are inside, and in the highest bit that it is closed.
pub(crate) struct Gate(AtomicU64);

const CLOSED: u64 = 1 << 63;

impl Gate {
    #[cfg(not(loom))]
    pub(crate) const fn closed() -> Gate {
        Gate(AtomicU64::new(CLOSED))
    }

    /// Opens it. Whoever still finds out that it was closed leaves again.
    pub(crate) fn open(&self) {
        // Release pairs with the Acquire in `enter`: what the pool is now is seen.
        self.0.fetch_and(!CLOSED, Ordering::Release);
    }

    /// Closes it to all who come.
    pub(crate) fn close(&self) {
        self.0.fetch_or(CLOSED, Ordering::Relaxed);
    }

    /// Goes in, unless it is closed.
    pub(crate) fn enter(&self) -> bool {
        // Acquire: see `open`.
        let open = self.0.fetch_add(1, Ordering::Acquire) & CLOSED == 0;
        if !open {
            self.leave();
        }
        open
    }

    /// Goes out.
    pub(crate) fn leave(&self) {
        // Release pairs with the Acquire in `is_left`: what was taken inside is counted.
        self.0.fetch_sub(1, Ordering::Release);
    }

    /// Whether it is closed and nobody is inside.
    pub(crate) fn is_left(&self) -> bool {
        self.0.load(Ordering::Acquire) == CLOSED
    }
}

/// Whether there is anything of a pool to be looked at, and how many do.
pub(crate) struct Views {
    made: AtomicU64,
    looking: AtomicU64,
}

impl Views {
    #[cfg(not(loom))]
    pub(crate) const fn none() -> Views {
        Views {
            made: AtomicU64::new(0),
            looking: AtomicU64::new(0),
        }
    }

    /// How many regions there are.
    #[inline]
    pub(crate) fn made(&self) -> u64 {
        // Acquire pairs with the Release in `set_made`: the regions are made.
        self.made.load(Ordering::Acquire)
    }

    /// Says how many regions there are. The caller keeps all others from doing so.
    pub(crate) fn set_made(&self, made: u64) {
        self.made.store(made, Ordering::Release);
    }

    /// Runs `look` with the number of regions; none of them is taken apart meanwhile.
    pub(crate) fn look<T>(&self, look: impl FnOnce(u64) -> T) -> T {
        self.looking.fetch_add(1, Ordering::Relaxed);
        // Pairs with the fence in `end`: either this thread is seen to look, or it sees that there
        // are none.
        fence(Ordering::SeqCst);
        let result = look(self.made());
        // Release pairs with the Acquire in `end`: what was looked at is not any more. It may have
        // been forgotten: by a child forked in a signal handler that interrupted `look`.
        let less = |looking: u64| looking.checked_sub(1);
        let _ = self
            .looking
            .fetch_update(Ordering::Release, Ordering::Relaxed, less);
        result
    }

    /// Lets nobody look at any regions any more, and waits for those who do; `give_way` lets others
    /// go on.
    pub(crate) fn end(&self, give_way: impl Fn()) {
        self.made.store(0, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        while self.looking.load(Ordering::Acquire) != 0 {
            give_way();
        }
    }

    /// Nobody looks: in a forked child, those who did are not there.
    #[cfg(not(loom))]
    pub(crate) fn forget_all(&self) {
        self.looking.store(0, Ordering::Relaxed);
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    /// While a pool is closed, somebody takes a slice and gives it back, and another sees to its
    /// end: it is not taken apart while a slice of it is used.
    #[test]
    fn nothing_is_used_of_a_pool_that_is_taken_apart() {
        loom::model(|| {
            let pool = Arc::new((
                Gate(AtomicU64::new(0)),
                AtomicU64::new(0),
                AtomicU64::new(0),
            ));
            let other = Arc::clone(&pool);
            let thread = thread::spawn(move || {
                let (gate, used, apart) = &*other;
                if gate.enter() {
                    used.fetch_add(1, Ordering::Relaxed);
                    gate.leave();
                    assert_eq!(apart.load(Ordering::Relaxed), 0);
                    used.fetch_sub(1, Ordering::Release);
                }
            });
            let (gate, used, apart) = &*pool;
            gate.close();
            if gate.is_left() && used.load(Ordering::Acquire) == 0 {
                apart.store(1, Ordering::Relaxed);
            }
            thread.join().unwrap();
            assert!(gate.is_left());
            assert_eq!(used.load(Ordering::Relaxed), 0);
        });
    }

    /// While somebody looks at the regions of a pool, it is taken apart, and made again.
    #[test]
    fn nobody_looks_at_what_is_taken_apart() {
        loom::model(|| {
            let views = Views {
                made: AtomicU64::new(1),
                looking: AtomicU64::new(0),
            };
            // Loom refuses unordered accesses to it.
            let pool = Arc::new((views, UnsafeCell::new(7)));
            let other = Arc::clone(&pool);
            let thread = thread::spawn(move || {
                let (views, region) = &*other;
                // SAFETY: what the model checks: nobody takes it apart meanwhile.
                let read = || region.with(|region| unsafe { *region });
                views.look(|made| (made != 0).then(read))
            });
            let (views, region) = &*pool;
            views.end(thread::yield_now);
            // SAFETY: what the model checks: nobody looks at it.
            region.with_mut(|region| unsafe { *region = 8 });
            views.set_made(1);
            let seen = thread.join().unwrap();
            assert!(matches!(seen, None | Some(7 | 8)));
        });
    }
}
