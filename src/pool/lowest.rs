//! Where a search for free slices begins: no chunk below has any.
//!
//! The index may only be raised by a searcher that has seen every chunk below without free slices,
//! and only if nothing was released in the meantime: each release changes the version beside it.

use crate::os::sync::{AtomicU64, Ordering};

/// A version in the upper half, the index of a chunk in the lower.
pub(crate) struct Lowest(AtomicU64);

const INDEX: u64 = u32::MAX as u64;

/// What a search saw when it began.
#[derive(Clone, Copy)]
pub(crate) struct Seen(u64);

impl Seen {
    /// Where to begin.
    pub(crate) fn index(self) -> usize {
        (self.0 & INDEX) as usize
    }
}

impl Lowest {
    #[cfg(not(loom))]
    pub(crate) const fn new(index: usize) -> Self {
        Lowest(AtomicU64::new(index as u64))
    }

    /// The start of a search.
    pub(crate) fn begin(&self) -> Seen {
        // Acquire pairs with the Release in `lower`: what was released below is seen.
        Seen(self.0.load(Ordering::Acquire))
    }

    /// Tells that no chunk below `index` had free slices, seen by a search that began with `seen`.
    pub(crate) fn raise(&self, seen: Seen, index: usize) {
        if index > seen.index() {
            let raised = seen.0 & !INDEX | index as u64;
            // If the version moved on, a chunk below may have free slices again: nothing to tell.
            let _ = self
                .0
                .compare_exchange(seen.0, raised, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Begins anew at `index`, while nobody searches or releases.
    #[cfg(not(loom))]
    pub(crate) fn set(&self, index: usize) {
        let version = self.0.load(Ordering::Relaxed) & !INDEX;
        self.0.store(version | index as u64, Ordering::Relaxed);
        self.lower(index);
    }

    /// Tells that `index` has free slices, after they can be found.
    pub(crate) fn lower(&self, index: usize) {
        let mut now = self.0.load(Ordering::Relaxed);
        loop {
            let version = (now & !INDEX).wrapping_add(INDEX + 1);
            let next = version | (now & INDEX).min(index as u64);
            // Release pairs with the Acquire in `begin`.
            match self
                .0
                .compare_exchange_weak(now, next, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(other) => now = other,
            }
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::os::sync::AtomicU8;
    use loom::sync::Arc;
    use loom::thread;

    /// A searcher that finds nothing raises the index while another thread releases a chunk: a
    /// later search must find that chunk.
    #[test]
    fn a_released_chunk_is_found() {
        loom::model(|| {
            let lowest = Arc::new(Lowest(AtomicU64::new(0)));
            let longest = Arc::new([AtomicU8::new(0), AtomicU8::new(0)]);
            let (lowest2, longest2) = (Arc::clone(&lowest), Arc::clone(&longest));
            let thread = thread::spawn(move || {
                longest2[0].swap(1, Ordering::AcqRel);
                lowest2.lower(0);
            });
            let seen = lowest.begin();
            let first = (seen.index()..2)
                .find(|&chunk| longest[chunk].load(Ordering::Relaxed) > 0)
                .unwrap_or(2);
            lowest.raise(seen, first);
            thread.join().unwrap();
            assert_eq!(lowest.begin().index(), 0);
        });
    }
}
