//! A counter with one writer and many readers, that only ever grows.

use crate::os::sync::{AtomicU64, Ordering};

/// The count.
#[repr(transparent)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) const fn new() -> Counter {
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
