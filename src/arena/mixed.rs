//! Blocks of owners that have too few of a class for runs of their own: they share mixed runs,
//! where each slot has a tag.
//!
//! ```text
//! runs of its own   once it has taken 64 KiB of the class (room.rs) from mixed runs on this thread
//!                   that it did not free here, or takes FILL_STAY blocks in one stay in its scope
//! mixed runs again  once no run of the class is at hand when the arena looks through its runs
//! ```
//! Runs of one's own are what fast paths use. But each costs a page at least, and where many
//! owners take turns, lines of cache for all that the other owners' runs have used meanwhile. So
//! they are for those who stay, or fill them.

use super::bins::Bins;
use super::ledger::Ledger;
use super::record::Arena;
use crate::pool::router::Wanted;
use crate::pool::{AllocFailure, bound};
use crate::run::descriptor::{Run, Slot, run_of};
use crate::units::{ClassIndex, SLICE, SlotIndex};
use core::ptr::NonNull;

/// Blocks taken in one stay that are worth runs of the owner's own.
pub(super) const FILL_STAY: i32 = 256;

/// The slot of a block of `class`.
#[inline(always)]
fn slot_of(run: &Run, block: *mut u8, class: ClassIndex) -> SlotIndex {
    let row = class.row();
    let start = if row.slices == 1 {
        // Runs of one slice are the most, and need not be looked at.
        block.addr() & !(SLICE - 1)
    } else {
        run.head.address()
    };
    row.slot_of(block.addr() - start)
}

impl Arena {
    /// A block of `class` for an owner that has no runs of its own for it, if everything is at
    /// hand: the path of those who take turns. Classes whose runs have several slices pass it by.
    ///
    /// # Safety
    /// The caller has this arena.
    #[inline(always)]
    pub(super) unsafe fn take_few(&self, class: ClassIndex) -> Option<NonNull<u8>> {
        let ledger = self.current();
        let bin = self.mixed()?.bin(class);
        // SAFETY: the current run is in a list of these bins, or the empty run.
        let run = unsafe { &*bin.current() };
        let side = run.side()?;
        if run.free.get().is_null() || class.row().slices != 1 {
            return None;
        }
        if ledger.fills(class)
            || bound::is_apart(ledger.tag())
            || !self.stays_on()
            || !ledger.try_book_few_allocated(class)
        {
            return None;
        }
        bin.allocated.bump();
        // SAFETY: the caller's promise; the array is the run's.
        unsafe {
            let block = run.take_first()?;
            let slot = slot_of(run, block.as_ptr(), class);
            side.as_ref().set_tag(slot, ledger.tag());
            Some(block)
        }
    }

    /// The same, after the owner's bound was raised if that is what it takes.
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn take_few_charged(&self, class: ClassIndex) -> Option<NonNull<u8>> {
        let ledger = self.current();
        // SAFETY: the current run is in a list of these bins, or the empty run.
        let run = unsafe { &*self.mixed()?.bin(class).current() };
        let is_at_hand = !run.free.get().is_null() && class.row().slices == 1;
        if !is_at_hand || ledger.fills(class) || !ledger.has_room(class) {
            return None;
        }
        ledger.charge_ahead(class.row().size as usize, self.is_fallible())?;
        // SAFETY: the caller's promise.
        let taken = unsafe { self.take_few(class) };
        if taken.is_none() {
            ledger.keep_slack_bounded(0);
        }
        taken
    }

    /// The same, whatever it takes.
    #[cold]
    #[inline(never)]
    pub(super) fn take_mixed(
        &'static self,
        class: ClassIndex,
        wanted: &Wanted,
        ledger: &'static Ledger,
    ) -> Result<Slot, AllocFailure> {
        let has_runs = || ledger.bins().is_some_and(|bins| bins.has_runs(class));
        if !self.stays_on()
            || !ledger.has_room(class)
            || bound::is_apart(ledger.tag())
            || has_runs()
        {
            let bins = self.bins_of(ledger).ok_or(AllocFailure::Metadata)?;
            bins.set_fills(class, true);
            return self.take_filled(class, wanted, bins);
        }
        let size = class.row().size as usize;
        let mixed = self.mixed_or_new().ok_or(AllocFailure::Metadata)?;
        ledger.charge(size, self.is_fallible())?;
        // SAFETY: the caller has this arena.
        let taken = unsafe { self.take_tagged(mixed, class, wanted, ledger) };
        match taken {
            Ok(_) => {
                ledger.book_few_allocated(class);
                mixed.bin(class).allocated.bump();
            }
            Err(_) => ledger.uncharge(size),
        }
        self.tick_now_and_then();
        taken
    }

    /// A slot from a mixed run, with its owner's tag.
    ///
    /// # Safety
    /// The caller has this arena.
    unsafe fn take_tagged(
        &self,
        mixed: &Bins,
        class: ClassIndex,
        wanted: &Wanted,
        ledger: &Ledger,
    ) -> Result<Slot, AllocFailure> {
        // SAFETY: the caller's promise.
        let slot = unsafe { mixed.take(class, wanted)? };
        let block = slot.address.as_ptr();
        // SAFETY: a slot that is handed out keeps its run alive; the array is the run's.
        unsafe {
            let run = &*run_of(block, class);
            let Some(side) = run.install_side(true) else {
                run.put_slot(block);
                return Err(AllocFailure::Metadata);
            };
            side.as_ref()
                .set_tag(slot_of(run, block, class), ledger.tag());
        }
        Ok(slot)
    }

    /// Counts a block of a mixed run of this arena as freed, if everything is at hand. False, with
    /// nothing changed, otherwise.
    ///
    /// # Safety
    /// The caller has this arena; the block is of that class and alive, its run a mixed one of the
    /// arena's.
    #[inline(always)]
    pub(super) unsafe fn book_few_freed(
        &self,
        run: &Run,
        block: *mut u8,
        class: ClassIndex,
    ) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.ledger_of(run, block, class) }
            .is_some_and(|ledger| ledger.try_book_few_freed(class))
    }

    /// The ledger here of the owner of a block of a mixed run.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(super) unsafe fn ledger_of(
        &self,
        run: &Run,
        block: *mut u8,
        class: ClassIndex,
    ) -> Option<&'static Ledger> {
        let side = run.side()?;
        // SAFETY: the array is the run's, which the block keeps alive.
        self.ledgers
            .find(unsafe { side.as_ref() }.tag(slot_of(run, block, class)))
    }
}
