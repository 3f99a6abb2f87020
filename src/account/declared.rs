//! What an account has declared, and the most it ever had.
//!
//! ```text
//! declared = raised - lowered
//! ```
//! Both only grow. Whoever lowers was told of what it lowers by who raised it.

use crate::os::sync::{AtomicU64, Ordering};

use Ordering::{Acquire, Relaxed, Release};

/// What reservations and streams have declared: all that was ever raised, less all that was ever
/// lowered. Two counts, on cache lines of their own, since of the two ends of a stream one raises
/// and the other lowers, for each item.
#[derive(Default)]
pub(crate) struct Declared {
    raised: Raised,
    lowered: Lowered,
}

#[derive(Default)]
#[repr(align(128))]
struct Raised {
    bytes: AtomicU64,
    /// The most declared at once.
    peak: AtomicU64,
    /// What was lowered when that was last looked at.
    seen_lowered: AtomicU64,
}

#[derive(Default)]
#[repr(align(128))]
struct Lowered {
    bytes: AtomicU64,
}

impl Declared {
    /// Declares bytes. If another thread lowers between the addition and the look at what was
    /// lowered, a peak may be missed by as much; none is ever found that was not there.
    #[inline]
    pub(crate) fn raise(&self, bytes: u64) {
        let Raised {
            bytes: sum,
            peak,
            seen_lowered,
        } = &self.raised;
        let raised = sum.fetch_add(bytes, Relaxed).wrapping_add(bytes);
        let highest = peak.load(Relaxed);
        // What was lowered only grows: as long as this is no peak, nothing new is.
        if raised.wrapping_sub(seen_lowered.load(Relaxed)) > highest {
            let lowered = self.lowered.bytes.load(Relaxed);
            seen_lowered.store(lowered, Relaxed);
            let now = raised.wrapping_sub(lowered) as i64;
            if now > highest as i64 {
                peak.fetch_max(now as u64, Relaxed);
            }
        }
    }

    #[inline]
    pub(crate) fn lower(&self, bytes: u64) {
        // Release pairs with the Acquire in `read`: what is lowered was raised.
        self.lowered.bytes.fetch_add(bytes, Release);
    }

    /// What is declared.
    pub(crate) fn read(&self) -> u64 {
        const TRIES: usize = 8;
        let mut lowered = self.lowered.bytes.load(Acquire);
        for _ in 0..TRIES {
            let raised = self.raised.bytes.load(Relaxed);
            let again = self.lowered.bytes.load(Acquire);
            if again == lowered {
                // So much it was when `raised` was read.
                return raised.wrapping_sub(lowered);
            }
            lowered = again;
        }
        // At least what it was when `lowered` was read.
        self.raised.bytes.load(Relaxed).wrapping_sub(lowered)
    }

    /// The most that was declared at once.
    pub(crate) fn peak(&self) -> u64 {
        self.raised.peak.load(Relaxed)
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// One thread declares, another takes that back once it was told, a third reads: it never sees
    /// more lowered than raised, nor more than there ever was.
    #[test]
    fn nothing_is_seen_lowered_that_is_not_seen_raised() {
        loom::model(|| {
            let books = Arc::new((Declared::default(), AtomicU64::new(0)));
            let (raiser, lowerer) = (Arc::clone(&books), Arc::clone(&books));
            let raises = thread::spawn(move || {
                raiser.0.raise(5);
                // However an item gets to another thread, it is by a Release and an Acquire.
                raiser.1.store(1, Release);
                raiser.0.raise(2);
            });
            let lowers = thread::spawn(move || {
                if lowerer.1.load(Acquire) == 1 {
                    lowerer.0.lower(5);
                }
            });
            assert!(books.0.read() <= 7);
            raises.join().unwrap();
            lowers.join().unwrap();
            let (now, peak) = (books.0.read(), books.0.peak());
            assert!(now == 2 || now == 7);
            assert!((5..=7).contains(&peak) && peak >= now, "{now} {peak}");
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_the_most_at_once() {
        let declared = Declared::default();
        for round in 1..100 {
            declared.raise(30);
            declared.raise(round);
            assert_eq!((declared.read(), declared.peak()), (30 + round, 30 + round));
            declared.lower(30);
            assert_eq!(declared.read(), round);
            declared.lower(round);
        }
        declared.raise(100);
        assert_eq!((declared.read(), declared.peak()), (100, 129));
    }
}
