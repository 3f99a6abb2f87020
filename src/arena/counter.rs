//! A counter with one writer and many readers, that only ever grows.

use crate::os::sync::{AtomicU64, Ordering};

/// The count.
#[repr(transparent)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    /// Adds one. Only by the writer: a plain increment, no locked instruction.
    #[inline(always)]
    pub(crate) fn bump(&self) {
        self.add(1);
    }

    /// Adds `amount`. Only by the writer.
    #[inline(always)]
    pub(crate) fn add(&self, amount: u64) {
        // Release pairs with the Acquire in `get`: a reader that sees a block freed also sees it
        // allocated, since the allocation was counted before the block could be freed.
        let next = self.0.load(Ordering::Relaxed).wrapping_add(amount);
        self.0.store(next, Ordering::Release);
    }

    /// The count.
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        // Acquire: see `add`.
        self.0.load(Ordering::Acquire)
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// One thread allocates a block and passes it on, another frees it, a third reads the books:
    /// what was freed first, then what was allocated. It never sees more freed than allocated.
    #[test]
    fn nothing_is_seen_freed_that_is_not_seen_allocated() {
        struct Books {
            allocated: Counter,
            freed: Counter,
            passed: AtomicU64,
        }
        loom::model(|| {
            let books = Arc::new(Books {
                allocated: Counter::new(),
                freed: Counter::new(),
                passed: AtomicU64::new(0),
            });
            let (maker, freer) = (Arc::clone(&books), Arc::clone(&books));
            let threads = [
                thread::spawn(move || {
                    maker.allocated.bump();
                    // However a block gets to another thread, it is by a Release and an Acquire.
                    maker.passed.store(1, Ordering::Release);
                }),
                thread::spawn(move || {
                    if freer.passed.load(Ordering::Acquire) == 1 {
                        freer.freed.bump();
                    }
                }),
            ];
            let freed = books.freed.get();
            let allocated = books.allocated.get();
            assert!(freed <= allocated);
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }
}
