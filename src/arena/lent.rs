//! Slots of an owner's runs that are lent: their blocks were handed over to another owner.
//!
//! While a slot is lent its owner's bound does not count it, and does again when it is back. Who
//! asks whether an arena holds anything for an owner has to see one or the other. One word has the
//! slots that are out and how often one went out, so that a slot that goes and comes back between
//! two looks is seen too.
//!
//! ```text
//! bit 63..32  how often a slot was lent
//! bit 31..0   slots that are out
//! ```

use crate::os::sync::{AtomicU64, Ordering, fence};

/// The word.
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

    /// A slot is lent; its bytes are taken from the bound after this.
    pub(crate) fn go_out(&self) {
        self.0.fetch_add(ONE_MORE, Ordering::Relaxed);
        // Pairs with the fence in `none_while`: who sees the bound lowered sees the slot out.
        fence(Ordering::Release);
    }

    /// A slot is back; its bytes were added to the bound before this.
    pub(crate) fn come_back(&self) {
        // Release pairs with the Acquire in `none_while`: who sees it back sees the bound raised.
        self.0.fetch_sub(1, Ordering::Release);
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

    /// A slot is lent and comes back: at no moment is the owner found without anything.
    #[test]
    fn a_lent_slot_is_never_out_of_sight() {
        loom::model(|| {
            let lent = Arc::new((Lent::new(), AtomicU64::new(1)));
            let other = Arc::clone(&lent);
            let thread = thread::spawn(move || {
                let (lent, bound) = &*other;
                lent.go_out();
                bound.fetch_sub(1, Ordering::Relaxed);
                bound.fetch_add(1, Ordering::Relaxed);
                lent.come_back();
            });
            let (word, bound) = &*lent;
            assert!(!word.none_while(|| bound.load(Ordering::Relaxed) == 0));
            thread.join().unwrap();
        });
    }
}
