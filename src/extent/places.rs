//! Places for a few freed spans of one thread, which reuses them without the pool.
//!
//! Only the thread that has the places fills them. It takes a span back with one compare-and-swap,
//! and anybody may empty a place in the same way, so that the spans of a thread that sleeps are
//! given back too. A word holds a span's address, which is a multiple of a slice, and in its
//! lowest bit that the span has been there for a while.

use crate::os::sync::{AtomicU64, Ordering};
use crate::units::SLICE_SHIFT;
use core::cell::Cell;

/// How many spans a thread keeps at most.
pub(crate) const PLACES: usize = 8;

/// The places.
pub(crate) struct Places {
    words: [AtomicU64; PLACES],
    /// What the spans in them hold together is at most this, by the measure of who has them.
    load: Cell<usize>,
}

const AGED: u64 = 1;

// SAFETY: `load` is reached only by who has the places; all else is atomic.
unsafe impl Sync for Places {}

impl Places {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Places {
        Places {
            words: [const { AtomicU64::new(0) }; PLACES],
            load: Cell::new(0),
        }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Places {
        Places {
            words: core::array::from_fn(|_| AtomicU64::new(0)),
            load: Cell::new(0),
        }
    }

    /// Keeps a span. Returns the span that had to leave for it. Only by who has the places.
    pub(crate) fn put(&self, address: usize) -> Option<usize> {
        // Release pairs with the Acquire of who takes it: the span's descriptor is seen.
        let empty = self
            .words
            .iter()
            .find(|place| place.load(Ordering::Relaxed) == 0);
        if let Some(place) = empty {
            place.store(address as u64, Ordering::Release);
            return None;
        }
        let victim = &self.words[(address >> SLICE_SHIFT) % PLACES];
        let old = victim.swap(address as u64, Ordering::AcqRel) & !AGED;
        (old != 0).then_some(old as usize)
    }

    /// Takes back a span of `size` that `fits`, which is asked of spans that may be gone by then.
    pub(crate) fn take(&self, size: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
        let taken = self.words.iter().find_map(|place| {
            let word = place.load(Ordering::Relaxed);
            let address = (word & !AGED) as usize;
            (address != 0 && fits(address) && Self::empty(place, word)).then_some(address)
        })?;
        self.load.set(self.load.get().saturating_sub(size));
        Some(taken)
    }

    /// Empties the place if it still holds `word`. Only its owner fills it, so the span did not
    /// leave in between.
    fn empty(place: &AtomicU64, word: u64) -> bool {
        // Acquire pairs with the Release in `put`.
        place
            .compare_exchange(word, 0, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Makes room for a span of `size`, which is at most `most`: hands as many to `leave` that all are
    /// at most `most` together. `measure` is asked of spans that may be gone by then. Only by who has
    /// the places.
    #[inline]
    pub(crate) fn make_room(
        &self,
        size: usize,
        most: usize,
        measure: impl Fn(usize) -> usize,
        leave: impl FnMut(usize),
    ) {
        let load = self.load.get() + size;
        if load <= most {
            self.load.set(load);
        } else {
            self.load
                .set(most - self.room_of(most - size, measure, leave));
        }
    }

    /// Hands those to `leave` for which `room` does not suffice. The room that is left.
    #[cold]
    fn room_of(
        &self,
        mut room: usize,
        measure: impl Fn(usize) -> usize,
        mut leave: impl FnMut(usize),
    ) -> usize {
        for place in &self.words {
            let word = place.load(Ordering::Relaxed);
            let address = (word & !AGED) as usize;
            if address == 0 {
                continue;
            }
            match room.checked_sub(measure(address)) {
                Some(left) => room = left,
                None if Self::empty(place, word) => leave(address),
                None => {}
            }
        }
        room
    }

    /// The spans that are kept.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        let address = |place: &AtomicU64| (place.load(Ordering::Relaxed) & !AGED) as usize;
        self.words
            .iter()
            .map(address)
            .filter(|&address| address != 0)
    }

    /// Hands every span that has been here since the last call to `leave`, and marks the others;
    /// all of them if `now`.
    pub(crate) fn age(&self, now: bool, mut leave: impl FnMut(usize)) {
        for place in &self.words {
            let word = place.load(Ordering::Relaxed);
            if word == 0 {
                continue;
            }
            if now || word & AGED != 0 {
                if Self::empty(place, word) {
                    leave((word & !AGED) as usize);
                }
            } else {
                // Release: the mark stands in for the owner's store, which it read.
                let aged = word | AGED;
                let _ = place.compare_exchange(word, aged, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// While another thread empties and marks the places, the owner keeps and takes back a span:
    /// exactly one of the two ends up with it, or it is still there.
    #[test]
    fn a_span_has_one_holder() {
        loom::model(|| {
            let places = Arc::new(Places::new());
            let other = Arc::clone(&places);
            let thread = thread::spawn(move || {
                let mut left = 0;
                other.age(true, |_| left += 1);
                other.age(false, |_| left += 1);
                left
            });
            assert_eq!(places.put(1 << SLICE_SHIFT), None);
            let taken = places.take(0, |_| true).is_some();
            let left = thread.join().unwrap();
            let mut stayed = 0;
            places.age(true, |_| stayed += 1);
            assert_eq!(usize::from(taken) + left + stayed, 1);
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn keeps_ages_and_gives_way() {
        let places = Places::new();
        for span in 1..=PLACES {
            assert_eq!(places.put(span << SLICE_SHIFT), None);
        }
        let gone = places.put(100 << SLICE_SHIFT);
        assert!(gone.is_some(), "one has to leave");
        assert_eq!(
            places.take(0, |span| span == 100 << SLICE_SHIFT),
            Some(100 << SLICE_SHIFT)
        );
        assert_eq!(places.take(0, |span| span == 100 << SLICE_SHIFT), None);
        let mut left = 0;
        places.age(false, |_| left += 1);
        assert_eq!(left, 0, "each stays for one period");
        places.put(200 << SLICE_SHIFT);
        places.age(false, |_| left += 1);
        assert_eq!(left, PLACES - 1, "those that were marked leave");
        places.age(true, |_| left += 1);
        assert_eq!(left, PLACES);
    }

    /// What was taken back takes no room: nothing is measured as long as there is enough.
    #[test]
    fn makes_room_only_where_there_is_too_little() {
        let (places, mut gone) = (Places::new(), Vec::new());
        let mut put = |span: usize, size: usize| {
            let measured = Cell::new(false);
            let measure = |_| {
                measured.set(true);
                3
            };
            places.make_room(size, 8, measure, |span| gone.push(span >> SLICE_SHIFT));
            assert_eq!(places.put(span << SLICE_SHIFT), None);
            measured.get()
        };
        assert!(!put(1, 3));
        for _ in 0..5 {
            assert!(!put(2, 3));
            let second = 2 << SLICE_SHIFT;
            assert_eq!(places.take(3, |span| span == second), Some(second));
        }
        assert!(!put(2, 3));
        assert!(put(3, 3), "one has to leave");
        assert_eq!(gone, [2]);
    }
}
