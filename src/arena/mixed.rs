//! Blocks of owners that have too few of a class for runs of their own: they share mixed runs,
//! where each slot has a tag.
//!
//! ```text
//! runs of its own   once it has taken 64 KiB of the class (room.rs) from mixed runs on this thread
//!                   that it did not free here, or takes FILL_STAY blocks in one stay in its scope;
//!                   looked at where its bound is raised, and now and then
//! mixed runs again  once no run of the class is at hand when the arena looks through its runs
//! ```
//! Runs of one's own are what fast paths use. But each costs a page at least, and where many
//! owners take turns, lines of cache for all that the other owners' runs have used meanwhile. So
//! they are for those who stay, or fill them.

use super::bins::{Bin, Bins};
use super::ledger::Ledger;
use super::record::Arena;
use super::slow::Few;
use crate::pool::router::Wanted;
use crate::pool::{AllocFailure, bound};
use crate::run::descriptor::{Run, Slot, empty_run, run_of};
use crate::units::{ClassIndex, SLICE, SlotIndex};

/// Blocks taken in one stay that are worth runs of the owner's own.
pub(super) const FILL_STAY: u32 = 256;

/// The slot of a block of `class`, whose runs have one slice.
#[inline(always)]
fn slot_of(block: *mut u8, class: ClassIndex) -> SlotIndex {
    class.slot_of(block.addr() & (SLICE - 1))
}

impl Arena {
    /// A block of `class` for an owner that has no runs of its own for it, if everything is at
    /// hand: the path of those who take turns. Classes whose runs have several slices pass it by.
    ///
    /// # Safety
    /// The caller has this arena, or it is nobody's.
    #[inline(always)]
    pub(super) unsafe fn take_few(&self, class: ClassIndex) -> Few {
        let bin = self.mixed_at_hand().bin(class);
        // SAFETY: the current run is in a list of these bins, or the empty run.
        let run = unsafe { &*bin.current() };
        if run.free.get().is_null() {
            return Few::Elsewhere;
        }
        let ledger = self.current();
        if class.row().slices != 1
            || ledger.fills(class)
            || bound::is_any() && bound::is_apart(ledger.tag())
            || !ledger.has_room_at_hand(class)
        {
            return Few::Elsewhere;
        }
        if !ledger.use_slack(class) {
            return Few::Uncharged;
        }
        // SAFETY: the caller's promise; the run has a free slot.
        Few::Taken(unsafe { take_booked(bin, run, ledger, class) })
    }

    /// The same, after [`take_few`](Self::take_few) found that the owner's bound has to be raised.
    /// `None` if that is refused, or the owner is to have runs of its own.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(super) unsafe fn take_few_charged(&self, class: ClassIndex) -> Option<*mut u8> {
        let ledger = self.current();
        ledger.return_slack(class);
        if ledger.stays_long() {
            return None;
        }
        let size = class.row().size as usize;
        ledger.charge(size, self.is_fallible()).ok()?;
        // SAFETY: the caller's promise; all else was at hand.
        unsafe {
            let bin = self.mixed_at_hand().bin(class);
            Some(take_booked(bin, &*bin.current(), ledger, class))
        }
    }

    /// An owner that stays long has no slack: its next block is one that the bound has to be raised
    /// for, where it gets runs of its own.
    pub(super) fn look_at_stay(&self) {
        if self.current().stays_long() {
            self.current().give_slack_back(0);
        }
    }

    /// The same as [`take_few`](Self::take_few), whatever it takes.
    #[cold]
    #[inline(never)]
    pub(super) fn take_mixed(
        &'static self,
        class: ClassIndex,
        wanted: &Wanted,
        ledger: &'static Ledger,
    ) -> Result<Slot, AllocFailure> {
        let has_runs = || ledger.bins().is_some_and(|bins| bins.has_runs(class));
        let size = class.row().size as usize;
        let is_short = ledger.slack() < size as i64;
        if is_short && ledger.stays_long()
            || !ledger.has_room(class)
            || bound::is_apart(ledger.tag())
            || has_runs()
        {
            let bins = self.bins_of(ledger).ok_or(AllocFailure::Metadata)?;
            bins.set_fills(class, true);
            return self.take_filled(class, wanted, bins);
        }
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
                // The current run has an array.
                mixed.bin(class).set_current(empty_run());
                return Err(AllocFailure::Metadata);
            };
            if class.row().slices != 1 {
                run.take_long_way();
            }
            side.as_ref()
                .set_tag(run.slot_of(block.addr()), ledger.tag());
        }
        Ok(slot)
    }

    /// The ledger here of the owner of a block of a mixed run.
    ///
    /// # Safety
    /// The caller has this arena; the block is of that class and alive, its run
    /// [mixed](Arena::is_mixed).
    #[inline(always)]
    pub(super) unsafe fn ledger_of(
        &self,
        run: &Run,
        block: *mut u8,
        class: ClassIndex,
    ) -> &'static Ledger {
        // SAFETY: a mixed run with a block has an array. Each of its tags is that of a ledger here
        // which counted the block as allocated, as long as no block was handed over.
        unsafe {
            let tag = run.side_of_mixed().tag(slot_of(block, class));
            self.ledgers.find_known(tag)
        }
    }
}

/// The first free slot of a mixed run, counted and with its owner's tag.
///
/// # Safety
/// The caller has the arena; the run is the current one of the bin, of one slice, and has a free
/// slot; the ledger's owner has room for the block.
#[inline(always)]
unsafe fn take_booked(bin: &Bin, run: &Run, ledger: &Ledger, class: ClassIndex) -> *mut u8 {
    ledger.book_at_hand_allocated(class);
    bin.allocated.bump();
    // SAFETY: the caller's promise; current runs of mixed bins have an array.
    unsafe {
        let block = run.take_known().as_ptr();
        let side = run.side_of_mixed();
        side.set_tag(slot_of(block, class), ledger.tag());
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::life::with_arena;
    use crate::arena::owners::Owner;
    use crate::arena::{fast, owner, slow};
    use crate::class::class_of_layout;
    use crate::units::OwnerTag;
    use core::alloc::Layout;

    /// Takes so many blocks in an owner's scope, and gives each back at once.
    fn stay(tag: OwnerTag, layout: Layout, blocks: u32) {
        let class = class_of_layout(layout).unwrap();
        let elsewhere = || slow::allocate(class, &Wanted::new(layout));
        let entered = owner::enter(tag);
        for _ in 0..blocks {
            let block = fast::allocate(class, |_| match slow::allocate_few(class) {
                Few::Taken(block) => block,
                Few::Uncharged => slow::allocate_few_charged(class).unwrap_or_else(elsewhere),
                Few::Elsewhere => elsewhere(),
            });
            // SAFETY: a block of that class, which nobody uses.
            unsafe { fast::deallocate(block, class) };
        }
        owner::leave(entered);
    }

    fn has_own_runs(tag: OwnerTag, layout: Layout) -> bool {
        let class = class_of_layout(layout).unwrap();
        with_arena(|arena| {
            let bins = arena.find_ledger(tag).and_then(Ledger::bins);
            bins.is_some_and(|bins| bins.fills(class) && bins.has_runs(class))
        })
        .unwrap()
    }

    #[test]
    fn who_stays_long_gets_runs_of_its_own() {
        for (number, size) in [16, 200, 2048, 40_000].into_iter().enumerate() {
            let tag = OwnerTag(900_000 + number as u32);
            let layout = Layout::from_size_align(size, 8).unwrap();
            Owner::find_or_make(tag).unwrap().begin(None, false);
            // Each stay is looked at by itself.
            for _ in 0..40 {
                stay(tag, layout, FILL_STAY / 4);
            }
            assert!(!has_own_runs(tag, layout), "{size} B: it took turns");
            stay(tag, layout, 2 * FILL_STAY);
            assert!(has_own_runs(tag, layout), "{size} B: it stayed");
        }
    }
}
