//! Slots of an owner's runs that are lent: their blocks were handed over to another owner.
//!
//! While a slot is lent its owner's bound does not count it, nor do those of the owners above, and
//! all do again when it is back. Who asks whether an arena holds anything for one of these has to see
//! one or the other. A word of each has the slots that are out and how often one went out, so that a
//! slot that goes and comes back between two looks is seen too.
//!
//! ```text
//! bit 63..32  how often a slot was lent
//! bit 31..0   slots that are out
//! ```

use crate::os::sync::{AtomicU64, Ordering, fence};

/// The word of one owner, for its own slots and those of all below.
pub(crate) struct Lent(AtomicU64);

const ONE_MORE: u64 = (1 << 32) + 1;
const OUT: u64 = 0xffff_ffff;

impl Lent {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Lent {
        Lent(AtomicU64::new(0))
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Lent {
        Lent(AtomicU64::new(0))
    }

    /// A slot is lent, of the owner of the first word; `lower` takes it from the bounds of all.
    pub(crate) fn lend<'a>(all: impl Iterator<Item = &'a Lent>, lower: impl FnOnce()) {
        for lent in all {
            lent.0.fetch_add(ONE_MORE, Ordering::Relaxed);
        }
        // Pairs with the fence in `none_while`: who sees a bound lowered sees the slot out.
        fence(Ordering::Release);
        lower();
    }

    /// A slot is back; `raise` adds it to the bounds of all.
    pub(crate) fn take_back<'a>(all: impl Iterator<Item = &'a Lent>, raise: impl FnOnce()) {
        raise();
        for lent in all {
            // Release pairs with the Acquire in `none_while`: who sees it back sees the bound raised.
            lent.0.fetch_sub(1, Ordering::Release);
        }
    }

    /// Whether no slot was out while `is_zero` looked at the bound and found it zero.
    pub(crate) fn none_while(&self, is_zero: impl FnOnce() -> bool) -> bool {
        let before = self.0.load(Ordering::Acquire);
        if before & OUT != 0 || !is_zero() {
            return false;
        }
        fence(Ordering::Acquire);
        self.0.load(Ordering::Relaxed) == before
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// A slot is lent and comes back: at no moment is its owner, or the one above, found without
    /// anything.
    fn looked_at(level: usize) {
        loom::model(move || {
            let owners = Arc::new([(); 2].map(|()| (Lent::new(), AtomicU64::new(1))));
            let other = Arc::clone(&owners);
            let thread = thread::spawn(move || {
                let words = || other.iter().map(|(word, _)| word);
                let bounds = || other.iter().map(|(_, bound)| bound);
                Lent::lend(words(), || {
                    for bound in bounds() {
                        bound.fetch_sub(1, Ordering::Relaxed);
                    }
                });
                Lent::take_back(words(), || {
                    for bound in bounds() {
                        bound.fetch_add(1, Ordering::Relaxed);
                    }
                });
            });
            let (word, bound) = &owners[level];
            assert!(!word.none_while(|| bound.load(Ordering::Relaxed) == 0));
            thread.join().unwrap();
        });
    }

    #[test]
    fn a_lent_slot_is_never_out_of_sight() {
        looked_at(0);
    }

    #[test]
    fn nor_from_above() {
        looked_at(1);
    }
}
