//! Giving wholly free pages of a living run back: resident memory follows live pages, not runs.

use super::descriptor::Run;
use super::links::{FreeSlot, Taken};
#[cfg(feature = "check")]
use super::marks::{Mark, Marks};
use super::slots::{reaches_out, slot_pages};
use crate::extent::bits::{bits, mask, spans};
use crate::extent::decay::State;
use crate::os::lock::Guard;
use crate::os::map::Ranges;
use crate::os::process::page_size;
use crate::units::SLICE;
#[cfg(feature = "check")]
use crate::units::SlotIndex;
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
        // Fewer free bytes than a page has cannot be a free page.
        let free = (self.available() - self.used()) as usize;
        if self.free.get().is_null() || free * (self.row().size as usize) < page_size() {
            return 0;
        }
        // SAFETY: the free list is the owner's.
        let purged = unsafe { self.purge_units(self.free.get()) };
        self.free.set(purged.rest);
        self.withdraw(purged.slots, false);
        purged.bytes
    }

    /// Purges what the run has not come to use: slices that were in use before come with their
    /// pages. Returns the bytes that this may have given back.
    ///
    /// # Safety
    /// The caller looks after the run.
    pub(crate) unsafe fn purge_unextended(&self) -> usize {
        if !self.is_stale() {
            return 0;
        }
        let ranges = self.pages_under(!self.extended());
        // SAFETY: pages that no slot touches which is available.
        let purged = unsafe { self.pool().purge_inside(&ranges) };
        if purged == ranges.bytes() {
            self.extended.forget_stale();
        }
        purged
    }

    /// The same by anybody, for whoever looks after the run, who may sleep.
    pub(crate) fn purge_unextended_for_owner(&self, _held: &Guard<'_, State>) -> usize {
        let mut purged = 0;
        self.extended.purge(|units| {
            let ranges = self.pages_under(units);
            // SAFETY: pages that no slot touches which is available, and none becomes that until this
            // is over; so long the run is not given up either.
            purged = unsafe { self.pool().purge_inside(&ranges) };
            purged == ranges.bytes()
        });
        purged
    }

    /// [`purge_unused`](Self::purge_unused) for a run that is in its owner's queue, among the slots that wait.
    ///
    /// # Safety
    /// The caller took the run from the queue, and puts it there again.
    pub(crate) unsafe fn purge_waiting(&self) -> usize {
        let free = (self.remote.count() - self.withdrawn()) as usize;
        if free * (self.row().size as usize) < page_size() {
            return 0;
        }
        let mut waiting = self.remote.take_waiting(self.start());
        // SAFETY: the caller has the run, hence what was on the list.
        unsafe {
            let purged = self.purge_units(waiting.first);
            self.withdraw(purged.slots, true);
            waiting.first = purged.rest;
            // What was withdrawn still counts as waiting, and as used.
            self.remote.leave(waiting, self.links());
            purged.bytes
        }
    }

    /// Leaves the run to whoever empties its owner's queue: its free slots wait there like blocks
    /// that other threads freed.
    ///
    /// # Safety
    /// The caller is the run's owner, has taken it out of its list, and puts it into the queue.
    pub(crate) unsafe fn leave(&self) {
        let free = Taken {
            first: self.free.replace(null_mut()),
            count: self.available() - self.used(),
        };
        self.surplus.set(self.surplus.get() + free.count as i32);
        // SAFETY: the caller's promise; the free list was the owner's.
        unsafe { self.remote.leave(free, self.links()) };
    }

    /// Whether no block of a run in the queue is alive.
    ///
    /// # Safety
    /// The caller took the run from the queue.
    pub(crate) unsafe fn all_wait(&self) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.alive_in_queue() == 0 }
    }

    /// How many blocks of a run in the queue are alive. Its free list is empty, but its owner, who
    /// may be freeing a block just now, finds that out by putting it there and taking it off again:
    /// neither that list nor `surplus` is to be looked at.
    ///
    /// # Safety
    /// The caller took the run from the queue.
    pub(crate) unsafe fn alive_in_queue(&self) -> u32 {
        self.available() + self.withdrawn() - self.remote.count()
    }

    /// Purges every unit whose available slots are all on a list.
    ///
    /// # Safety
    /// The slots are free and the caller's, who looks after the run.
    unsafe fn purge_units(&self, list: *mut FreeSlot) -> Purged {
        if self.unit_is_slot() {
            self.purge_slots(list)
        } else {
            self.purge_pages(list)
        }
    }

    fn purge_slots(&self, list: *mut FreeSlot) -> Purged {
        let links = self.links();
        let mut slot = list;
        let mut extended = self.extended();
        let mut purged = Purged::none(null_mut());
        while !slot.is_null() {
            // SAFETY: a slot on the free list holds its link; read before the page goes.
            let next = unsafe { links.next(slot) };
            extended &= !(1 << self.slot_of(slot.addr()).0);
            purged.slots += 1;
            slot = next;
        }
        let gone = self.extended() & !extended;
        self.set_extended(extended);
        purged.bytes = self.purge_under(gone);
        purged
    }

    fn purge_pages(&self, list: *mut FreeSlot) -> Purged {
        let row = self.row();
        let size = row.size as usize;
        let shift = page_size().trailing_zeros();
        let unused = self.unused_pages(list);
        if unused == 0 {
            return Purged::none(list);
        }
        let links = self.links();
        let start = links.start().addr();
        let mut slot = list;
        let mut purged = Purged::none(null_mut());
        while !slot.is_null() {
            // SAFETY: a slot on the free list holds its link.
            let next = unsafe { links.next(slot) };
            let index = row.slot_of(slot.addr() - start).0;
            if !reaches_out(index, size, shift, !unused) {
                // SAFETY: the slot is free and the run the caller's.
                unsafe { links.link(slot, purged.rest) };
                purged.rest = slot;
            } else {
                purged.slots += 1;
            }
            slot = next;
        }
        self.set_extended(self.extended() & !unused);
        purged.bytes = self.purge_under(unused);
        purged
    }

    /// Purges units that have just been taken out of use. Returns the bytes given back.
    fn purge_under(&self, units: u64) -> usize {
        self.forget_zero();
        // SAFETY: no block is alive on these pages, and no list links through them.
        unsafe { self.pool().purge_inside(&self.pages_under(units)) }
    }

    /// Whole pages under units that are not extended.
    fn pages_under(&self, units: u64) -> Ranges {
        let page = page_size();
        let unit = match self.unit_is_slot() {
            true => self.row().size as usize,
            false => page,
        };
        let start = self.head.address();
        let end = self.pool().mapped(start, self.head.slices());
        let count = (end / unit).min(u64::BITS as usize) as u32;
        let extended = self.extended();
        let none_of = |from: u32, to: u32| from >= to || extended & mask(from, to - from) == 0;
        let mut ranges = Ranges::new();
        for (first, many) in spans(units & mask(0, count)) {
            let next = first + many;
            let (from, to) = (first as usize * unit, next as usize * unit);
            // A page at an edge is shared with neighbours, several if they are smaller.
            let (below, above) = (from & !(page - 1), to.next_multiple_of(page));
            let from = match none_of((below / unit) as u32, first) {
                true => below,
                false => below + page,
            };
            let to = match none_of(next, above.div_ceil(unit).min(count as usize) as u32) {
                // Behind the last unit is what no slot ever touches.
                true if next == count && self.is_stale() => end,
                true => above,
                false => above - page,
            };
            debug_assert!(to <= end, "pages of this run");
            if to > from {
                ranges.add(start + from, to - from);
            }
        }
        ranges
    }

    /// Extended pages of which each available slot is on the list.
    fn unused_pages(&self, list: *mut FreeSlot) -> u64 {
        let row = self.row();
        let size = row.size as usize;
        let page = page_size();
        let shift = page.trailing_zeros();
        let links = self.links();
        let start = links.start().addr();
        let extended = self.extended();
        // Free slots by page that they touch.
        let mut free = [0_u32; MOST_PAGES];
        let mut slot = list;
        while !slot.is_null() {
            let index = row.slot_of(slot.addr() - start).0;
            let (first, last) = slot_pages(index, size, shift);
            for unit in &mut free[first..=last] {
                *unit += 1;
            }
            // SAFETY: a slot on the free list holds its link.
            slot = unsafe { links.next(slot) };
        }
        let mut unused = 0;
        for unit in bits(extended) {
            let (from, to) = self.touching(unit * page, page);
            let reaching_out = |slot: u32| u32::from(reaches_out(slot, size, shift, extended));
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

/// What became of a list of free slots.
struct Purged {
    /// Those that are still available.
    rest: *mut FreeSlot,
    /// How many are not.
    slots: u32,
    /// Bytes given back.
    bytes: usize,
}

impl Purged {
    fn none(rest: *mut FreeSlot) -> Purged {
        Purged {
            rest,
            slots: 0,
            bytes: 0,
        }
    }
}

#[cfg(feature = "check")]
impl Run {
    /// Hands the owner's tag of each live block of a run with tags to `visit`. Only while nobody
    /// allocates or frees in it.
    pub(crate) fn live_slots(&self, mut visit: impl FnMut(crate::units::OwnerTag)) {
        let size = self.row().size as usize;
        let mut free = [0_u64; SLICE / 8 / u64::BITS as usize];
        let links = self.links();
        let mut mark = |mut slot: *mut FreeSlot| {
            while !slot.is_null() {
                let index = self.slot_of(slot.addr()).0 as usize;
                free[index / 64] |= 1 << (index % 64);
                // SAFETY: a slot on a free list holds its link.
                slot = unsafe { links.next(slot) };
            }
        };
        mark(self.free.get());
        mark(self.remote.first(links.start()));
        for slot in (0..self.slots()).filter(|&slot| self.is_available(slot)) {
            let is_free = free[slot as usize / 64] >> (slot % 64) & 1 == 1;
            let is_held = |marks: &Marks| marks.get(SlotIndex(slot)) == Mark::Held;
            if !is_free && !self.marks().is_some_and(is_held) {
                visit(self.tag_of(links.start().addr() + slot as usize * size));
            }
        }
    }
}

/// OS pages of a slice, at the smallest page size.
const MOST_PAGES: usize = SLICE / 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::TABLE;
    use crate::pool::DEFAULT;
    use crate::units::{ClassIndex, OwnerTag};
    use std::collections::HashSet;
    use std::vec::Vec;

    const TAG: OwnerTag = OwnerTag::UNATTRIBUTED;

    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self
                .0
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(0x1405_7b7e_f767_814f);
            (self.0 >> 33) as usize % end
        }
    }

    fn word(address: usize) -> u64 {
        address as u64 ^ 0x00ab_cdef_1234_5678
    }

    /// Takes slots until the run is full; each has a pattern in its first and last word.
    fn fill(run: &Run, used: &mut Vec<usize>) {
        let size = run.row().size as usize;
        // SAFETY: the run is this test's, and so are its slots.
        unsafe {
            while let Some(slot) = run.take_slot() {
                let address = slot.address.as_ptr();
                if slot.zero {
                    let bytes = core::slice::from_raw_parts(address, size);
                    assert!(bytes.iter().all(|&byte| byte == 0));
                }
                address
                    .add(size - 8)
                    .cast::<u64>()
                    .write(word(address.addr()));
                address.cast::<u64>().write(word(address.addr()));
                used.push(address.addr());
            }
        }
    }

    fn expect_equation(run: &Run, used: &[usize]) {
        assert_eq!(run.used() as usize, used.len());
        let mut free = 0;
        let mut slot = run.free.get();
        while !slot.is_null() {
            free += 1;
            // SAFETY: a slot on the free list holds its link.
            slot = unsafe { run.links().next(slot) };
        }
        assert_eq!(
            run.available(),
            run.used() + free,
            "available = used + free"
        );
    }

    /// Purges as the owner does, or as a thread that has the run from its owner's queue.
    unsafe fn purge(run: &Run, as_owner: bool) -> usize {
        // SAFETY: the caller's promise.
        unsafe {
            if as_owner {
                return run.purge_unused();
            }
            let (available, used) = (run.available(), run.used());
            run.leave();
            assert_eq!(run.used(), available, "what waits counts as used");
            let purged = run.purge_waiting();
            assert_eq!(run.purge_waiting(), 0, "nothing is left to purge");
            assert_eq!(run.available() + run.withdrawn(), available);
            assert_eq!(run.all_wait(), used == 0);
            run.collect();
            assert_eq!(run.withdrawn(), 0);
            purged
        }
    }

    /// In every class: slots never overlap or move, pages go only where no slot is used, and every
    /// slot can be had again afterwards.
    #[test]
    fn purging_spares_used_slots() {
        let mut random = Random(7);
        for (class, row) in TABLE.iter().enumerate() {
            let run =
                Run::acquire(&DEFAULT, ClassIndex(class as u8), 0, usize::MAX, TAG, false).unwrap();
            // SAFETY: made just now, and this test's.
            let run = unsafe { &*run };
            let size = row.size as usize;
            let mut used = Vec::new();
            for keep_one_in in [2, 30, 1000] {
                fill(run, &mut used);
                let distinct: HashSet<usize> = used.iter().copied().collect();
                assert_eq!(
                    distinct.len(),
                    run.row().slots as usize,
                    "all slots, each once"
                );
                // Twice: then some units next to those that go are gone already.
                for pass in 0..2 {
                    let (touched, resident) = (run.touched(), run.resident());
                    used.retain(|&address| {
                        let kept = random.below(keep_one_in) == 0;
                        if !kept {
                            // SAFETY: a used slot of the run.
                            unsafe { run.put_slot(address as *mut u8) };
                        }
                        kept
                    });
                    let hollow = run.is_hollow(run.used());
                    // SAFETY: the run is this test's.
                    let purged = unsafe { purge(run, keep_one_in != 30) };
                    expect_equation(run, &used);
                    assert!(purged <= resident.next_multiple_of(page_size()));
                    if hollow && pass == 0 {
                        assert!(2 * purged >= touched, "{purged} of {touched} bytes");
                    }
                    if keep_one_in == 1000 && size < 512 && pass == 0 {
                        assert!(purged > 0, "hardly a page of size class {size} is used");
                    }
                    for &address in &used {
                        // SAFETY: a used slot of the run.
                        unsafe {
                            assert_eq!(*(address as *const u64), word(address));
                            assert_eq!(*((address + size - 8) as *const u64), word(address));
                        }
                    }
                    // SAFETY: the run is this test's.
                    assert_eq!(unsafe { run.purge_unused() }, 0, "nothing is left to purge");
                }
            }
            for address in used {
                // SAFETY: a used slot of the run.
                unsafe { run.put_slot(address as *mut u8) };
            }
            // SAFETY: no slot is used, and the run is in no list.
            unsafe { run.release() };
        }
    }
}
