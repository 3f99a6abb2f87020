//! Tags by slot, for runs whose blocks have several owners: a side array out of line, which keeps
//! the tag of every slot.
//!
//! A run whose blocks were all its own owner's gets an array when the first of them is given to
//! another; a mixed run has one from the start, and sets the tag with each block it hands out. The
//! tag of a slot without a block means nothing.

use crate::os::sync::{AtomicU32, Ordering::Relaxed};
use crate::pool::metadata;
use crate::units::{OwnerTag, SlotIndex};
use core::ptr::NonNull;

/// The tag of each slot.
#[repr(transparent)]
pub(crate) struct Side([AtomicU32; 0]);

fn bytes(slots: u32) -> usize {
    slots as usize * size_of::<AtomicU32>()
}

impl Side {
    /// An array whose tags are still to be set. `None` if there is no memory.
    pub(crate) fn new(slots: u32) -> Option<NonNull<Side>> {
        // A record's bytes are initialised, to zero or by its last user: any are a tag.
        Some(metadata::allocate(bytes(slots))?.cast())
    }

    /// An array in which every slot has the tag `own`. `None` if there is no memory.
    pub(crate) fn filled(own: OwnerTag, slots: u32) -> Option<NonNull<Side>> {
        let side = Side::new(slots)?;
        for slot in 0..slots {
            // SAFETY: made just now, with that many slots.
            unsafe { side.as_ref().set_tag(SlotIndex(slot), own) };
        }
        Some(side)
    }

    /// Gives the array up.
    ///
    /// # Safety
    /// It was made for `slots` slots, and nobody reads it any more.
    pub(crate) unsafe fn release(side: NonNull<Side>, slots: u32) {
        // SAFETY: the caller's promise.
        unsafe { metadata::release(side.cast(), bytes(slots)) };
    }

    #[inline]
    fn slot(&self, slot: SlotIndex) -> &AtomicU32 {
        // SAFETY: the array has a tag for each slot of its run.
        unsafe { &*self.0.as_ptr().add(slot.0 as usize) }
    }

    /// The owner of the block in `slot`.
    #[inline]
    pub(crate) fn tag(&self, slot: SlotIndex) -> OwnerTag {
        // Relaxed: whoever has the block was told of it after the tag was set.
        OwnerTag(self.slot(slot).load(Relaxed))
    }

    /// Gives `slot`, whose block is the caller's, to `tag`.
    #[inline]
    pub(crate) fn set_tag(&self, slot: SlotIndex, tag: OwnerTag) {
        self.slot(slot).store(tag.0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_keeps_its_owner() {
        let side_ = Side::filled(OwnerTag(7), 1000).unwrap();
        // SAFETY: made just now.
        let side = unsafe { side_.as_ref() };
        for slot in 0..1000 {
            assert_eq!(side.tag(SlotIndex(slot)), OwnerTag(7));
            side.set_tag(SlotIndex(slot), OwnerTag(slot * 1_000_003));
        }
        for slot in 0..1000 {
            assert_eq!(side.tag(SlotIndex(slot)), OwnerTag(slot * 1_000_003));
        }
        // SAFETY: nobody reads it any more.
        unsafe { Side::release(side_, 1000) };
    }
}
