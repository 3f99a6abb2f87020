//! Tags by slot, for runs whose blocks have several owners.
//!
//! A side array keeps one byte a slot out of line: an index into the run's palette of owners. The
//! palette never grows in place, since a thread that frees may be reading it, and entries
//! are given up only when no block of the run is alive; the 256th owner opens another run. Entry 0 is the run's own
//! tag, and every slot begins with it.

use crate::os::sync::{AtomicU8, AtomicU32, Ordering::Relaxed};
use crate::pool::metadata;
use crate::units::{OwnerTag, SlotIndex};
use core::ptr::NonNull;

/// A palette and an index into it for each slot.
#[repr(C)]
pub(crate) struct Side {
    entries: u32,
    /// The palette follows, then the indices.
    palette: [AtomicU32; 0],
}

/// An entry without an owner. Others hold their tag plus one.
const VACANT: u32 = 0;
/// Owners that an index of one byte can tell apart.
const MOST: u32 = 256;

/// The palette has no room for one more owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PaletteFull;

/// Entries of the palette of a run with `slots` slots: the run's tag, and several for each slot,
/// since owners come and go while others' blocks keep the run alive.
fn entries(slots: u32) -> u32 {
    (slots * 8 + 1).min(MOST)
}

fn bytes(slots: u32) -> usize {
    size_of::<Side>() + entries(slots) as usize * size_of::<AtomicU32>() + slots as usize
}

impl Side {
    /// An array in which every slot has the tag `own`. `None` if there is no memory.
    pub(crate) fn new(own: OwnerTag, slots: u32) -> Option<NonNull<Side>> {
        let record = metadata::allocate(bytes(slots))?;
        // SAFETY: a record of that size; zero is the vacant entry and the index of `own`.
        unsafe {
            record.write_bytes(0, bytes(slots));
            let side = record.cast::<Side>();
            (*side.as_ptr()).entries = entries(slots);
            side.as_ref().entry(0).store(own.0 + 1, Relaxed);
            Some(side)
        }
    }

    /// Gives the array up.
    ///
    /// # Safety
    /// It was made for `slots` slots, and nobody reads it any more.
    pub(crate) unsafe fn release(side: NonNull<Side>, slots: u32) {
        // SAFETY: the caller's promise.
        unsafe { metadata::release(side.cast(), bytes(slots)) };
    }

    fn entry(&self, index: u32) -> &AtomicU32 {
        debug_assert!(index < self.entries);
        // SAFETY: the palette lies behind the head and has `entries` entries.
        unsafe { &*self.palette.as_ptr().add(index as usize) }
    }

    fn index(&self, slot: SlotIndex) -> &AtomicU8 {
        // SAFETY: the indices lie behind the palette, one for each slot of the run.
        unsafe {
            let indices = self
                .palette
                .as_ptr()
                .add(self.entries as usize)
                .cast::<AtomicU8>();
            &*indices.add(slot.0 as usize)
        }
    }

    /// The owner of the block in `slot`.
    pub(crate) fn tag(&self, slot: SlotIndex) -> OwnerTag {
        // Relaxed: whoever has the block was told of it after the tag was set.
        let index = u32::from(self.index(slot).load(Relaxed));
        OwnerTag(self.entry(index).load(Relaxed).wrapping_sub(1))
    }

    /// Gives `slot`, whose block is the caller's, to `tag`.
    pub(crate) fn set_tag(&self, slot: SlotIndex, tag: OwnerTag) -> Result<(), PaletteFull> {
        let index = self.entry_of(tag).ok_or(PaletteFull)?;
        self.index(slot).store(index, Relaxed);
        Ok(())
    }

    /// Whether the palette has `tag`, or room for it.
    pub(crate) fn accepts(&self, tag: OwnerTag) -> bool {
        (0..self.entries).any(|index| {
            let found = self.entry(index).load(Relaxed);
            found == VACANT || found == tag.0 + 1
        })
    }

    /// Forgets all owners but the run's own. Only by who has the run, while no block of it is alive.
    pub(crate) fn vacate(&self) {
        (1..self.entries).for_each(|index| self.entry(index).store(VACANT, Relaxed));
    }

    /// Gives `slot` back to the run's own tag.
    pub(crate) fn reset(&self, slot: SlotIndex) {
        self.index(slot).store(0, Relaxed);
    }

    /// The entry of `tag`, made if need be. Several threads may look at once.
    fn entry_of(&self, tag: OwnerTag) -> Option<u8> {
        let wanted = tag.0 + 1;
        (0..self.entries).find_map(|index| {
            let entry = self.entry(index);
            let mut found = entry.load(Relaxed);
            if found == VACANT {
                found = match entry.compare_exchange(VACANT, wanted, Relaxed, Relaxed) {
                    Ok(_) => wanted,
                    Err(other) => other,
                };
            }
            (found == wanted).then_some(index as u8)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_keeps_its_owner() {
        let side_ = Side::new(OwnerTag(7), 1000).unwrap();
        // SAFETY: made just now.
        let side = unsafe { side_.as_ref() };
        for slot in 0..1000 {
            assert_eq!(side.tag(SlotIndex(slot)), OwnerTag(7));
            side.set_tag(SlotIndex(slot), OwnerTag(slot % 200)).unwrap();
        }
        for slot in 0..1000 {
            assert_eq!(side.tag(SlotIndex(slot)), OwnerTag(slot % 200));
        }
        side.reset(SlotIndex(3));
        assert_eq!(side.tag(SlotIndex(3)), OwnerTag(7));
        // SAFETY: nobody reads it any more.
        unsafe { Side::release(side_, 1000) };
    }

    #[test]
    fn the_palette_says_when_it_is_full() {
        let side_ = Side::new(OwnerTag(0), 1000).unwrap();
        // SAFETY: made just now.
        let side = unsafe { side_.as_ref() };
        for owner in 1..MOST {
            side.set_tag(SlotIndex(owner), OwnerTag(owner)).unwrap();
        }
        assert!(side.accepts(OwnerTag(3)) && !side.accepts(OwnerTag(MOST)));
        assert_eq!(side.set_tag(SlotIndex(0), OwnerTag(MOST)), Err(PaletteFull));
        assert_eq!(side.tag(SlotIndex(0)), OwnerTag(0), "nothing changed");
        // SAFETY: nobody reads it any more.
        unsafe { Side::release(side_, 1000) };
    }
}
