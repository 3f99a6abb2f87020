//! The slots of a run: its free list, and how that is extended a unit at a time.

use super::descriptor::{Run, Slot};
use super::links::{FreeSlot, Links};
use crate::extent::bits::mask;
use crate::os::process::page_size;
use crate::os::random;
use core::ptr::{NonNull, null_mut};

/// What a run was like when a slot was put on its free list, and is like now.
pub(crate) struct Put {
    /// The list was empty: the run may be full no longer.
    pub(crate) was_empty: bool,
    /// The run's [`surplus`](Run::surplus), which is at hand here.
    pub(crate) surplus: i32,
}

impl Run {
    /// At most what extending the run by one unit makes available, in bytes.
    pub(crate) fn unit_bytes(&self) -> usize {
        let size = self.row().size as usize;
        if self.unit_is_slot() {
            size
        } else {
            (page_size() / size + 2) * size
        }
    }

    /// What its slots occupy that are available.
    pub(crate) fn available_bytes(&self) -> u64 {
        u64::from(self.available.get()) * u64::from(self.row().size)
    }

    /// Whether a unit is a slot rather than an OS page.
    #[inline]
    pub(crate) fn unit_is_slot(&self) -> bool {
        self.row().slices > 1
    }

    /// Bytes of extended units.
    pub(crate) fn touched(&self) -> usize {
        let unit = if self.unit_is_slot() {
            self.row().size as usize
        } else {
            page_size()
        };
        self.extended().count_ones() as usize * unit
    }

    /// Whether at least half of what it has touched could be given back if so many blocks of it are
    /// alive, wherever they lie.
    pub(crate) fn is_hollow(&self, alive: u32) -> bool {
        let (size, page) = (self.row().size as usize, page_size());
        let fits = page % size == 0 || size % page == 0;
        let reach = size.next_multiple_of(page) + if fits { 0 } else { page };
        2 * alive as usize * reach <= self.touched()
    }

    /// Whether a slot is on the free list, or waits to get there.
    #[inline]
    pub(crate) fn has_free(&self) -> bool {
        !self.free.get().is_null() || !self.remote.is_empty()
    }

    /// Whether a unit is left that is not extended.
    #[inline]
    pub(crate) fn is_extensible(&self) -> bool {
        self.extended().trailing_ones() < self.units()
    }

    /// A free slot: from the free list, from the remote list, or from a unit that is extended for
    /// it. `None` if the run is full.
    ///
    /// # Safety
    /// The caller is the run's owner.
    #[inline]
    pub(crate) unsafe fn take_slot(&self) -> Option<Slot> {
        if self.free.get().is_null() && !self.remote.is_empty() {
            // SAFETY: the caller's promise.
            unsafe { self.collect() };
        }
        // SAFETY: the caller's promise.
        if let Some(address) = unsafe { self.take_first() } {
            return Some(Slot {
                address,
                zero: false,
            });
        }
        let slot = self.extend()?;
        self.surplus.set(self.surplus.get() + 1);
        self.watch();
        Some(slot)
    }

    /// The first slot of the free list.
    ///
    /// # Safety
    /// The caller is the run's owner.
    #[inline(always)]
    pub(crate) unsafe fn take_first(&self) -> Option<NonNull<u8>> {
        let first = self.free.get();
        // SAFETY: the caller's promise; a slot on the free list holds its link.
        let next = unsafe { self.links().next(NonNull::new(first)?.as_ptr()) };
        self.free.set(next);
        self.surplus.set(self.surplus.get() + 1);
        NonNull::new(first.cast())
    }

    /// The same where there is one, and links are plain: outside the secure profile.
    ///
    /// # Safety
    /// As there, and as said.
    #[inline(always)]
    pub(crate) unsafe fn take_known(&self) -> NonNull<u8> {
        // SAFETY: the caller's promise; a slot on the free list holds its link.
        unsafe {
            let first = NonNull::new_unchecked(self.free.get());
            self.free.set(first.as_ref().next);
            self.surplus.set(self.surplus.get() + 1);
            first.cast()
        }
    }

    /// Puts a slot on the free list. Whether the list was empty: the run may be full no longer.
    ///
    /// # Safety
    /// The caller is the run's owner, and the slot a block of it that nobody uses any more.
    #[inline(always)]
    pub(crate) unsafe fn put_slot(&self, block: *mut u8) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.put_linked(block, self.links()).was_empty }
    }

    /// The same where links are plain: outside the secure profile.
    ///
    /// # Safety
    /// As there, and as said.
    #[inline(always)]
    pub(crate) unsafe fn put_known(&self, block: *mut u8) -> Put {
        // SAFETY: the caller's promise.
        unsafe { self.put_linked(block, Links::plain()) }
    }

    /// # Safety
    /// As for [`put_slot`](Self::put_slot); the links are the run's.
    #[inline(always)]
    unsafe fn put_linked(&self, block: *mut u8, links: Links) -> Put {
        let slot: *mut FreeSlot = block.cast();
        let first = self.free.get();
        // SAFETY: the caller's promise.
        unsafe { links.link(slot, first) };
        self.free.set(slot);
        let surplus = self.surplus.get() - 1;
        self.surplus.set(surplus);
        Put {
            was_empty: first.is_null(),
            surplus,
        }
    }

    /// Takes the only slot off the free list again.
    ///
    /// # Safety
    /// The caller has just put it there, and it is alone.
    pub(crate) unsafe fn take_only(&self) -> *mut u8 {
        self.surplus.set(self.surplus.get() + 1);
        self.free.replace(null_mut()).cast()
    }

    /// Takes the blocks that other threads freed onto the free list.
    ///
    /// # Safety
    /// The caller looks after the run.
    pub(crate) unsafe fn collect(&self) {
        let links = self.links();
        let taken = self.remote.take(links.start());
        if taken.count == 0 {
            return;
        }
        if !self.free.get().is_null() {
            // SAFETY: blocks on the taken list are ours and linked, the last one to null.
            unsafe {
                let last = taken.last(links);
                if !last.is_null() {
                    links.link(last, self.free.get());
                }
            }
        }
        self.free.set(taken.first);
        self.surplus.set(self.surplus.get() - taken.count as i32);
        self.withdrawn.set(0);
    }

    /// Extends the lowest unit that is not; a slot of it, the others on the free list.
    fn extend(&self) -> Option<Slot> {
        if self.unit_is_slot() {
            self.extend_slot()
        } else {
            self.extend_page()
        }
    }

    fn extend_slot(&self) -> Option<Slot> {
        let row = self.row();
        let extended = self.extended();
        let left = !extended & mask(0, self.slots());
        let unit = match self.marks() {
            _ if left == 0 => return None,
            None => left.trailing_zeros(),
            Some(_) => any_of(left),
        };
        self.set_extended(extended | 1 << unit);
        self.available.set(self.available.get() + 1);
        let address = self.start().wrapping_add(unit as usize * row.size as usize);
        Some(Slot {
            address: NonNull::new(address)?,
            zero: self.zero.get(),
        })
    }

    fn extend_page(&self) -> Option<Slot> {
        let row = self.row();
        let size = row.size as usize;
        let page = page_size();
        let shift = page.trailing_zeros();
        let pages = self.units();
        let start = self.start();
        loop {
            let extended = self.extended();
            let unit = extended.trailing_ones();
            if unit >= pages {
                return None;
            }
            let extended = extended | 1 << unit;
            self.set_extended(extended);
            let (mut from, mut to) = self.touching(unit as usize * page, page);
            // Slots at either end may reach into a page that is not extended yet.
            while from < to && reaches_out(from, size, shift, extended) {
                from += 1;
            }
            while from < to && reaches_out(to - 1, size, shift, extended) {
                to -= 1;
            }
            if from == to {
                continue;
            }
            self.available.set(self.available.get() + (to - from));
            // Linked in ascending order, or in the secure profile in one that nobody can foresee.
            // The first one is handed out at once and never touched.
            let order = match self.marks() {
                None => Order::ascending(),
                Some(_) => Order::random(to - from),
            };
            let links = self.links();
            let at = |place: u32| {
                let slot = from + order.at(place, to - from);
                start.wrapping_add(slot as usize * size).cast::<FreeSlot>()
            };
            let mut next = null_mut();
            for place in (1..to - from).rev() {
                let slot = at(place);
                // SAFETY: slots of this run that became available just now.
                unsafe { links.link(slot, next) };
                next = slot;
            }
            self.free.set(next);
            return Some(Slot {
                address: NonNull::new(at(0).cast())?,
                zero: self.zero.get(),
            });
        }
    }

    /// The slots that touch `len` bytes from `offset` on, as a range.
    pub(super) fn touching(&self, offset: usize, len: usize) -> (u32, u32) {
        let (row, slots) = (self.row(), self.slots());
        let from = row.slot_of(offset).0.min(slots);
        let to = (row.slot_of(offset + len - 1).0 + 1).min(slots);
        (from, to)
    }
}

/// One of the bits of a word that is not 0, by chance.
fn any_of(bits: u64) -> u32 {
    let skipped = random::below(bits.count_ones());
    let rest = (0..skipped).fold(bits, |rest, _| rest & (rest - 1));
    rest.trailing_zeros()
}

/// An order of slots.
struct Order {
    /// 0 for the ascending one.
    seed: u64,
    mask: u32,
}

impl Order {
    fn ascending() -> Order {
        Order { seed: 0, mask: 0 }
    }

    /// One of `count` slots that nobody can foresee.
    fn random(count: u32) -> Order {
        Order {
            seed: random::next(),
            mask: count.next_power_of_two() - 1,
        }
    }

    /// The slot at a place, of `count`.
    fn at(&self, place: u32, count: u32) -> u32 {
        if self.seed == 0 {
            return place;
        }
        // Each step permutes the numbers up to the mask; those that are no slot lead on to others.
        let (first, second) = (self.seed as u32, (self.seed >> 32) as u32);
        let half = self.mask.count_ones().div_ceil(2);
        let mut slot = place;
        loop {
            slot = slot.wrapping_mul(first | 1).wrapping_add(second) & self.mask;
            slot ^= slot >> half;
            slot = slot.wrapping_mul(second | 1).wrapping_add(first >> 16) & self.mask;
            if slot < count {
                return slot;
            }
        }
    }
}

/// The first and the last page that a slot touches.
#[inline]
pub(super) fn slot_pages(slot: u32, size: usize, page_shift: u32) -> (usize, usize) {
    let start = slot as usize * size;
    (start >> page_shift, (start + size - 1) >> page_shift)
}

/// Whether a slot touches a page that is not among `pages`.
#[inline]
pub(super) fn reaches_out(slot: u32, size: usize, page_shift: u32, pages: u64) -> bool {
    let (first, last) = slot_pages(slot, size, page_shift);
    mask(first as u32, (last - first + 1) as u32) & !pages != 0
}
