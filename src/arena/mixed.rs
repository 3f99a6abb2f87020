//! Blocks of owners that have too few of a class for runs of their own: they share mixed runs,
//! where each slot has a tag.
//!
//! ```text
//! runs of its own   once it has taken FILL_BYTES of the class from mixed runs on this thread that
//!                   it did not free here, or takes FILL_STAY blocks in one stay in its scope
//! mixed runs again  once no run of the class is at hand when the arena looks through its runs
//! ```
//! Runs of one's own are what fast paths use. But each costs a page at least, and where many
//! owners take turns, lines of cache for all that the other owners' runs have used meanwhile. So
//! they are for those who stay, or fill them.

use super::bins::Bins;
use super::ledger::Ledger;
use super::record::Arena;
use crate::class::{CLASSES, TABLE};
use crate::pool::AllocFailure;
use crate::run::descriptor::{Run, Slot, run_of};
use crate::units::{ClassIndex, SLICE, SlotIndex};
use core::ptr::NonNull;
use static_assertions::const_assert;

/// Live bytes of a class that are worth runs of the owner's own.
const FILL_BYTES: u32 = SLICE as u32 / 2;
/// Blocks taken in one stay that are.
const FILL_STAY: u32 = 64;

/// The slot of a block of `class`.
#[inline(always)]
fn slot_of(run: &Run, block: *mut u8, class: ClassIndex) -> SlotIndex {
    class.row().slot_of(block.addr() - run.head.address())
}

/// Live blocks of a class that are worth runs of the owner's own.
#[inline(always)]
fn fill_blocks(class: ClassIndex) -> i16 {
    const FILL: [i16; CLASSES] = {
        let mut blocks = [0; CLASSES];
        let mut class = 0;
        while class < CLASSES {
            blocks[class] = (FILL_BYTES / TABLE[class].size) as i16;
            class += 1;
        }
        blocks
    };
    FILL[class.index()]
}

const_assert!(FILL_BYTES / TABLE[0].size < i16::MAX as u32);

impl Arena {
    /// A block of `class` for an owner that has no runs of its own for it, if everything is at
    /// hand: the path of those who take turns.
    ///
    /// # Safety
    /// The caller has this arena.
    #[inline(always)]
    pub(super) unsafe fn take_few(&self, class: ClassIndex) -> Option<NonNull<u8>> {
        let ledger = self.current();
        let mixed = self.mixed()?;
        if ledger.few(class) >= fill_blocks(class) || ledger.fills(class) {
            return None;
        }
        // SAFETY: the current run is in a list of these bins, or the empty run.
        let run = unsafe { &*mixed.bin(class).current() };
        let side = run.side()?;
        if run.free.get().is_null()
            || self.stay() > FILL_STAY
            || !ledger.charge_at_hand(class.row().size as usize)
        {
            return None;
        }
        // SAFETY: the caller's promise; the array is the run's.
        unsafe {
            let block = run.take_first()?;
            let slot = slot_of(run, block.as_ptr(), class);
            side.as_ref().set_tag(slot, ledger.tag());
            ledger.book_few_allocated(class);
            mixed.bin(class).allocated.bump();
            Some(block)
        }
    }

    /// The same, whatever it takes.
    #[cold]
    #[inline(never)]
    pub(super) fn take_mixed(
        &'static self,
        class: ClassIndex,
        ledger: &'static Ledger,
    ) -> Result<Slot, AllocFailure> {
        let has_runs = || ledger.bins().is_some_and(|bins| bins.has_runs(class));
        if self.stay() > FILL_STAY || ledger.few(class) >= fill_blocks(class) || has_runs() {
            let bins = self.bins_of(ledger).ok_or(AllocFailure::Metadata)?;
            bins.set_fills(class, true);
            return self.take_filled(class, bins);
        }
        let size = class.row().size as usize;
        let mixed = self.mixed_or_new().ok_or(AllocFailure::Metadata)?;
        ledger.charge(size, self.is_fallible())?;
        // SAFETY: the caller has this arena.
        let taken = unsafe { self.take_tagged(mixed, class, ledger) };
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
        ledger: &Ledger,
    ) -> Result<Slot, AllocFailure> {
        // SAFETY: the caller's promise.
        let slot = unsafe { mixed.take(class)? };
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
    /// The caller has this arena; the block is of that class and alive, its run in these bins,
    /// which are the arena's.
    #[inline(always)]
    pub(super) unsafe fn book_few_freed(
        &self,
        bins: &Bins,
        run: &Run,
        block: *mut u8,
        class: ClassIndex,
    ) -> bool {
        let Some(side) = run.side().filter(|_| bins.is_mixed()) else {
            return false;
        };
        // SAFETY: the array is the run's, which the block keeps alive.
        let tag = unsafe { side.as_ref() }.tag(slot_of(run, block, class));
        let Some(ledger) = self.ledgers.find(tag) else {
            return false;
        };
        let size = class.row().size as usize;
        if ledger.few(class) == i16::MIN || !ledger.uncharge_at_hand(size) {
            return false;
        }
        ledger.book_few_freed(class);
        bins.bin(class).freed.bump();
        true
    }
}
