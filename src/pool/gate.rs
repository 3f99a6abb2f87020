//! Who may take memory from a pool: nobody once it is closed.
//!
//! A pool that was closed may be taken apart when nobody is inside and nothing of it is used. What
//! is taken is counted before its taker leaves, so both are over for good once they are seen so.

use crate::os::sync::{AtomicU64, Ordering};

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

#[cfg(all(test, loom))]
mod models {
    use super::*;
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
}
