//! Giving wholly free pages of a living run back: resident memory follows live pages, not runs.

use super::descriptor::{Run, slot_pages, touching};
use super::remote::FreeSlot;
use crate::extent::bits::spans;
use crate::os::map;
use crate::os::process::page_size;
use crate::units::SLICE;
use core::ptr::null_mut;

impl Run {
    /// Purges every unit on which no block is alive. Returns the bytes given back.
    ///
    /// The slots that touch such a unit leave the free list and are not available until it is
    /// extended anew, so nothing on the list links through memory that was taken away.
    ///
    /// # Safety
    /// The caller is the run's owner.
    pub(crate) unsafe fn purge_unused(&self) -> usize {
        // SAFETY: the caller's promise.
        unsafe { self.collect() };
        if self.free.get().is_null() {
            return 0;
        }
        if self.unit_is_slot() {
            self.purge_slots()
        } else {
            self.purge_pages()
        }
    }

    fn purge_slots(&self) -> usize {
        let size = self.row().size as usize;
        let page = page_size();
        let mut slot = self.free.replace(null_mut());
        let mut extended = self.extended();
        let mut purged = 0;
        let mut removed = 0;
        while !slot.is_null() {
            // SAFETY: a slot on the free list holds its link; read before the page goes.
            let next = unsafe { (*slot).next };
            extended &= !(1 << self.slot_of(slot.addr()).0);
            removed += 1;
            // Pages at the edges may be shared with the neighbours.
            let from = slot.addr().next_multiple_of(page);
            let to = (slot.addr() + size) & !(page - 1);
            // SAFETY: whole pages inside a free slot.
            if unsafe { map::purge(from, to - from) }.is_ok() {
                purged += to - from;
            }
            slot = next;
        }
        self.forget_zero();
        self.set_extended(extended);
        self.set_available(self.available() - removed);
        purged
    }

    fn purge_pages(&self) -> usize {
        let row = self.row();
        let size = row.size as usize;
        let page = page_size();
        let unused = self.unused_pages();
        if unused == 0 {
            return 0;
        }
        let start = self.start().addr();
        let mut slot = self.free.replace(null_mut());
        let mut kept: *mut FreeSlot = null_mut();
        let mut removed = 0;
        while !slot.is_null() {
            // SAFETY: a slot on the free list holds its link.
            let next = unsafe { (*slot).next };
            let index = row.slot_of(slot.addr() - start).0;
            if slot_pages(index, size, page) & unused == 0 {
                // SAFETY: the slot is free and the run the caller's.
                unsafe { FreeSlot::link(slot, kept) };
                kept = slot;
            } else {
                removed += 1;
            }
            slot = next;
        }
        self.free.set(kept);
        self.forget_zero();
        self.set_extended(self.extended() & !unused);
        self.set_available(self.available() - removed);
        let mut purged = 0;
        for (first, count) in spans(unused) {
            // SAFETY: no block is alive on these pages, and no list links through them.
            if unsafe { map::purge(start + first as usize * page, count as usize * page) }.is_ok() {
                purged += count as usize * page;
            }
        }
        purged
    }

    /// Extended pages that no used slot touches.
    fn unused_pages(&self) -> u64 {
        let row = self.row();
        let size = row.size as usize;
        let page = page_size();
        let start = self.start().addr();
        let extended = self.extended();
        // Free slots by page that they touch.
        let mut free = [0_u32; MOST_PAGES];
        let mut slot = self.free.get();
        while !slot.is_null() {
            let index = row.slot_of(slot.addr() - start).0;
            for unit in bits(slot_pages(index, size, page)) {
                free[unit] += 1;
            }
            // SAFETY: a slot on the free list holds its link.
            slot = unsafe { (*slot).next };
        }
        let mut unused = 0;
        for unit in bits(extended) {
            let (from, to) = touching(row, unit * page, page);
            let reaching_out = |slot: u32| u32::from(slot_pages(slot, size, page) & !extended != 0);
            // Only slots at either end reach into another page, and those that reach into one
            // which is not extended are not available, hence not used.
            let unavailable = if to - from <= 2 {
                (from..to).map(reaching_out).sum()
            } else {
                reaching_out(from) + reaching_out(to - 1)
            };
            if free[unit] + unavailable == to - from {
                unused |= 1 << unit;
            }
        }
        unused
    }
}

/// OS pages of a slice, at the smallest page size.
const MOST_PAGES: usize = SLICE / 4096;

fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let bit = word.trailing_zeros() as usize;
        word &= word.checked_sub(1)?;
        Some(bit)
    })
}
