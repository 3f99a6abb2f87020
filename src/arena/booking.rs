//! Where blocks are counted that the fast paths do not count: those of owners without runs of their
//! own, and those that another thread frees.

use super::Arena;
use super::bins::Bins;
use super::ledger::Ledger;
use crate::units::{ClassIndex, OwnerTag};
use core::ptr;

impl Arena {
    /// Counts a block of `class` as freed, whose owner `tag` is not the current one or whose run
    /// is not its owner's. Its ledger; `None` if there is no memory for the count.
    pub(super) fn book_freed(
        &'static self,
        tag: OwnerTag,
        class: ClassIndex,
    ) -> Option<&'static Ledger> {
        let (ledger, bins) = self.book(tag, class, Ledger::book_few_freed)?;
        bins.bin(class).freed.bump();
        Some(ledger)
    }

    /// The same for a block that is given to `tag`.
    pub(super) fn book_allocated(
        &'static self,
        tag: OwnerTag,
        class: ClassIndex,
    ) -> Option<&'static Ledger> {
        let (ledger, bins) = self.book(tag, class, Ledger::book_few_allocated)?;
        bins.bin(class).allocated.bump();
        Some(ledger)
    }

    /// The ledger of `tag`, and the bins that are to count a block outside its own runs: the mixed
    /// ones, where the ledger has room to count it among a `few`, or else the owner's own.
    fn book(
        &'static self,
        tag: OwnerTag,
        class: ClassIndex,
        few: impl FnOnce(&Ledger, ClassIndex) -> bool,
    ) -> Option<(&'static Ledger, &'static Bins)> {
        let ledger = self.ledger(tag)?;
        // What no consumer claimed always has bins; there may be no mixed ones.
        if ledger.owner().is_some() {
            let mixed = self.mixed_or_new()?;
            if few(ledger, class) {
                return Some((ledger, mixed));
            }
        }
        let bins = self.bins_of(ledger)?;
        bins.begin_counting(class);
        Some((ledger, bins))
    }

    /// The owner's own bins, made if need be.
    #[cold]
    pub(super) fn bins_of(&'static self, ledger: &'static Ledger) -> Option<&'static Bins> {
        if let Some(bins) = ledger.bins() {
            return Some(bins);
        }
        let bins = Bins::make(self, ledger)?;
        ledger.set_bins(bins);
        if ptr::eq(ledger, self.current()) {
            super::slow::publish(self);
        }
        Some(bins)
    }
}
