//! A chunk's free slices: one word, claimed by compare-and-swap, and beside it one byte that says
//! how long a span fits, so that a search passes over a chunk without touching its record.
//!
//! The byte may lag behind the word while somebody is between the two, but never for good: whoever
//! changes the word recomputes the byte until the word stands still. Two writers exchange the byte
//! with read-modify-writes, so the later one sees the earlier one's word and corrects it.

use super::bits::{first_fit, longest, mask};
#[cfg(not(loom))]
use crate::os::sync::AtomicPtr;
use crate::os::sync::{AtomicU8, AtomicU64, Ordering};

/// What a chunk's slices are: bit i speaks of slice i.
#[cfg(not(loom))]
#[repr(C, align(64))]
pub(crate) struct ChunkRecord {
    /// Belongs to nobody.
    pub(crate) free: AtomicU64,
    /// Readable and writable.
    pub(crate) committed: AtomicU64,
    /// Free, and holds what the last user wrote.
    pub(crate) dirty: AtomicU64,
    /// Dirty already when the current decay period began.
    pub(crate) aged: AtomicU64,
    /// Free, and reads as zero once committed.
    pub(crate) zero: AtomicU64,
    /// The pool that has the chunk.
    pub(crate) pool: AtomicPtr<crate::pool::Pool>,
    unused: [u64; 2],
}

#[cfg(not(loom))]
static_assertions::const_assert_eq!(size_of::<ChunkRecord>(), crate::pool::region::CHUNK_RECORD);

/// The word and the byte.
#[derive(Clone, Copy)]
pub(crate) struct Slots<'a> {
    pub(crate) free: &'a AtomicU64,
    pub(crate) longest: &'a AtomicU8,
}

impl Slots<'_> {
    /// Claims the lowest span of `count` slices of `these` at a multiple of `align`; the first
    /// slice's bit.
    pub(crate) fn claim(self, count: u32, align: u32, these: u64) -> Option<u32> {
        let mut word = self.free.load(Ordering::Relaxed);
        loop {
            let Some(first) = first_fit(word & these, count, align) else {
                // The byte promised more, or the alignment was in the way.
                self.refresh();
                return None;
            };
            match self.swap(word, word & !mask(first, count)) {
                Ok(()) => {
                    self.refresh();
                    return Some(first);
                }
                Err(now) => word = now,
            }
        }
    }

    /// Claims exactly the slices in `wanted`, or nothing.
    pub(crate) fn claim_exactly(self, wanted: u64) -> bool {
        let mut word = self.free.load(Ordering::Relaxed);
        while word & wanted == wanted {
            match self.swap(word, word & !wanted) {
                Ok(()) => {
                    self.refresh();
                    return true;
                }
                Err(now) => word = now,
            }
        }
        false
    }

    /// Claims those slices of `wanted` that are free; their bits.
    pub(crate) fn claim_any(self, wanted: u64) -> u64 {
        let mut word = self.free.load(Ordering::Relaxed);
        while word & wanted != 0 {
            match self.swap(word, word & !wanted) {
                Ok(()) => {
                    self.refresh();
                    return word & wanted;
                }
                Err(now) => word = now,
            }
        }
        0
    }

    fn swap(self, from: u64, to: u64) -> Result<(), u64> {
        // Acquire pairs with the Release in `release`: what the last user did to the slices, and
        // what is noted of their state, is seen.
        self.free
            .compare_exchange_weak(from, to, Ordering::Acquire, Ordering::Relaxed)
            .map(drop)
    }

    /// Gives slices back. Returns the free word from before.
    pub(crate) fn release(self, slices: u64) -> u64 {
        // Release pairs with the Acquire in `swap`.
        let before = self.free.fetch_or(slices, Ordering::Release);
        self.refresh();
        before
    }

    /// Makes the byte agree with the word.
    pub(crate) fn refresh(self) {
        loop {
            let word = self.free.load(Ordering::Relaxed);
            // AcqRel: of two threads here, the second one to exchange the byte sees the first
            // one's change of the word when it loads it again below.
            self.longest.swap(longest(word) as u8, Ordering::AcqRel);
            if self.free.load(Ordering::Relaxed) == word {
                return;
            }
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    struct Chunk {
        free: AtomicU64,
        longest: AtomicU8,
    }

    impl Chunk {
        fn new(free: u64) -> Arc<Chunk> {
            let byte = longest(free) as u8;
            Arc::new(Chunk {
                free: AtomicU64::new(free),
                longest: AtomicU8::new(byte),
            })
        }

        fn slots(&self) -> Slots<'_> {
            Slots {
                free: &self.free,
                longest: &self.longest,
            }
        }

        fn agrees(&self) {
            let word = self.free.load(Ordering::Relaxed);
            assert_eq!(
                u32::from(self.longest.load(Ordering::Relaxed)),
                longest(word)
            );
        }
    }

    #[test]
    fn two_claims_never_overlap() {
        loom::model(|| {
            let chunk = Chunk::new(0b111);
            let other = Arc::clone(&chunk);
            let thread = thread::spawn(move || other.slots().claim(2, 1, u64::MAX));
            let mine = chunk.slots().claim(2, 1, u64::MAX);
            let theirs = thread.join().unwrap();
            assert!(
                mine.is_some() != theirs.is_some(),
                "three slices hold one span of two"
            );
            chunk.agrees();
        });
    }

    #[test]
    fn the_byte_follows_a_claim_and_a_release() {
        loom::model(|| {
            let chunk = Chunk::new(0b0011);
            let other = Arc::clone(&chunk);
            let thread = thread::spawn(move || {
                other.slots().release(0b1100);
            });
            let claimed = chunk.slots().claim(2, 2, u64::MAX);
            thread.join().unwrap();
            assert_eq!(claimed, Some(0));
            chunk.agrees();
        });
    }

    #[test]
    fn a_purge_and_a_claim_share_nothing() {
        loom::model(|| {
            let chunk = Chunk::new(0b11);
            let other = Arc::clone(&chunk);
            let thread = thread::spawn(move || {
                let taken = other.slots().claim_any(0b11);
                other.slots().release(taken);
                taken
            });
            let mine = chunk.slots().claim(1, 1, u64::MAX);
            let taken = thread.join().unwrap();
            if taken == 0b11 && mine.is_none() {
                chunk.agrees();
                return;
            }
            let held = mine.map_or(0, |first| mask(first, 1));
            assert_eq!(chunk.free.load(Ordering::Relaxed), 0b11 & !held);
            chunk.agrees();
        });
    }
}
