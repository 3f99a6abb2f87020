//! What the secure profile keeps of a run, out of line: the key of its links, and of each slot
//! whether a block in it is alive. So a block that is freed twice shows, whatever was freed between,
//! and so does a slot that a list should not lead to.

use super::descriptor::Run;
use super::links::{Links, overwritten};
#[cfg(any(feature = "raw", feature = "check"))]
use super::slots::reaches_out;
#[cfg(any(feature = "raw", feature = "check"))]
use crate::os::process::page_size;
use crate::os::random;
use crate::os::sync::{AtomicU8, Ordering::AcqRel, Ordering::Relaxed};
use crate::pool::metadata;
use crate::units::SlotIndex;
use core::ptr::NonNull;

/// What the slots of a run are, and the key of its links.
#[repr(C)]
pub(crate) struct Marks {
    key: usize,
    slots: [AtomicU8; 0],
}

/// What a slot is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Mark {
    /// Free, or not available.
    Free = 0,
    /// A block that is alive.
    Live = 1,
    /// A block that was freed, and is held back before its slot is used again.
    Held = 2,
}

impl Mark {
    fn of(value: u8) -> Mark {
        match value {
            1 => Mark::Live,
            2 => Mark::Held,
            _ => Mark::Free,
        }
    }
}

fn bytes(slots: u32) -> usize {
    size_of::<Marks>() + slots as usize
}

impl Marks {
    /// Marks for a run of which no slot is used, with a new key. `None` if there is no memory.
    pub(crate) fn new(slots: u32) -> Option<NonNull<Marks>> {
        let marks = metadata::allocate(bytes(slots))?.cast::<Marks>();
        // SAFETY: a record of that many bytes.
        unsafe {
            marks
                .cast::<u8>()
                .write_bytes(Mark::Free as u8, bytes(slots));
            // Without a key links would be plain.
            (*marks.as_ptr()).key = random::next() as usize | 1;
        }
        Some(marks)
    }

    /// Gives the marks up.
    ///
    /// # Safety
    /// They were made for `slots` slots, and nobody reads them any more.
    pub(crate) unsafe fn release(marks: NonNull<Marks>, slots: u32) {
        // SAFETY: the caller's promise.
        unsafe { metadata::release(marks.cast(), bytes(slots)) };
    }

    pub(super) fn key(&self) -> usize {
        self.key
    }

    fn slot(&self, slot: SlotIndex) -> &AtomicU8 {
        // SAFETY: there is a mark for each slot of the run.
        unsafe { &*self.slots.as_ptr().add(slot.0 as usize) }
    }

    /// What a slot is.
    pub(crate) fn get(&self, slot: SlotIndex) -> Mark {
        // Relaxed: exact for who has the block; to others a hint.
        Mark::of(self.slot(slot).load(Relaxed))
    }

    /// Says what a slot is, by who has it.
    pub(crate) fn set(&self, slot: SlotIndex, mark: Mark) {
        self.slot(slot).store(mark as u8, Relaxed);
    }

    /// How many of the first `slots` slots are marked so.
    #[cfg(feature = "check")]
    pub(crate) fn count(&self, mark: Mark, slots: u32) -> u32 {
        let is_marked = |slot: &u32| self.get(SlotIndex(*slot)) == mark;
        (0..slots).filter(is_marked).count() as u32
    }

    /// Makes a live block one that is held back; false if it is not alive. Of two threads that free
    /// the same block one is told.
    pub(crate) fn hold(&self, slot: SlotIndex) -> bool {
        // AcqRel: with what made it something else, the message of who lost comes after that.
        self.slot(slot).swap(Mark::Held as u8, AcqRel) == Mark::Live as u8
    }
}

impl Run {
    /// How its free slots lead to each other.
    #[inline]
    pub(crate) fn links(&self) -> Links {
        let key = self.marks().map_or(0, Marks::key);
        Links::new(self.start(), self.head.slices().bytes(), key)
    }

    /// Marks a slot that is handed out as a block, and clears its link. Ends the process if the slot
    /// is none that may be handed out: then a link was overwritten.
    pub(crate) fn hand_out(&self, slot: NonNull<u8>, is_zero: bool) {
        let Some(marks) = self.marks() else {
            return;
        };
        let index = self.slot_of(slot.addr().get());
        let exact = self.start().addr() + index.0 as usize * self.row().size as usize;
        if marks.get(index) != Mark::Free || exact != slot.addr().get() {
            overwritten(slot.addr().get());
        }
        marks.set(index, Mark::Live);
        if !is_zero {
            // SAFETY: a slot has room for a link, and is the caller's to hand out.
            unsafe { slot.cast::<usize>().write(0) };
        }
    }

    /// Gives marks to a run that was made before it was known that the process wants them. `None`
    /// if there is no memory.
    ///
    /// # Safety
    /// There is no other thread, and no slot waits.
    #[cfg(feature = "raw")]
    pub(crate) unsafe fn harden(&self) -> Option<()> {
        if self.marks().is_some() {
            return Some(());
        }
        let made = Marks::new(self.row().slots)?;
        // SAFETY: made just now.
        let marks = unsafe { made.as_ref() };
        for slot in (0..self.slots()).filter(|&slot| self.is_available(slot)) {
            marks.set(SlotIndex(slot), Mark::Live);
        }
        let plain = self.links();
        self.set_marks(made);
        let mut slot = self.free.get();
        while !slot.is_null() {
            marks.set(self.slot_of(slot.addr()), Mark::Free);
            // SAFETY: a slot on the free list holds its link, which is plain so far.
            unsafe {
                let next = plain.next(slot);
                self.links().link(slot, next);
                slot = next;
            }
        }
        Some(())
    }

    /// Whether all units that a slot touches are extended.
    #[cfg(any(feature = "raw", feature = "check"))]
    pub(super) fn is_available(&self, slot: u32) -> bool {
        let extended = self.extended();
        let size = self.row().size as usize;
        match self.unit_is_slot() {
            true => extended >> slot & 1 == 1,
            false => !reaches_out(slot, size, page_size().trailing_zeros(), extended),
        }
    }
}
