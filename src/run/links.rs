//! How the free slots of a run lead to each other: the first word of each holds the address of the
//! next.
//!
//! In the secure profile that word is encoded with a key of the run's own, so that who can write to
//! a freed block cannot choose what is handed out. Elsewhere the key is 0 and the word is the plain
//! address, which is what the fast paths read.

use core::ptr::null_mut;

/// A free slot's first word.
#[repr(transparent)]
pub(crate) struct FreeSlot {
    #[cfg(not(loom))]
    pub(crate) next: *mut FreeSlot,
    #[cfg(loom)]
    pub(crate) next: loom::cell::Cell<*mut FreeSlot>,
}

/// What it takes to follow the links of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    /// Where the run starts.
    start: *mut u8,
    len: usize,
    /// 0 for plain links.
    key: usize,
}

impl Links {
    #[inline(always)]
    pub(crate) fn new(start: *mut u8, len: usize, key: usize) -> Links {
        Links { start, len, key }
    }

    /// Plain links, which can be set without knowing the run.
    #[inline(always)]
    pub(crate) fn plain() -> Links {
        Links::new(null_mut(), 0, 0)
    }

    /// Where the run starts.
    #[inline(always)]
    pub(crate) fn start(self) -> *mut u8 {
        self.start
    }

    /// Links a slot to the next.
    ///
    /// # Safety
    /// The slot is free, of this run, and the caller's.
    #[inline(always)]
    pub(crate) unsafe fn link(self, slot: *mut FreeSlot, next: *mut FreeSlot) {
        let word = next.map_addr(|address| self.encode(address));
        // SAFETY: the caller's promise; a slot has room for a link and is aligned for it.
        #[cfg(not(loom))]
        unsafe {
            (*slot).next = word;
        }
        // SAFETY: as above.
        #[cfg(loom)]
        unsafe {
            (*slot).next.set(word);
        }
    }

    /// The slot that `slot` leads to. Ends the process if the word cannot be a link of this run's,
    /// where that can be told.
    ///
    /// # Safety
    /// The slot is free, linked, of this run, and the caller's.
    #[inline(always)]
    pub(crate) unsafe fn next(self, slot: *mut FreeSlot) -> *mut FreeSlot {
        // SAFETY: the caller's promise.
        #[cfg(not(loom))]
        let word = unsafe { (*slot).next };
        // SAFETY: as above.
        #[cfg(loom)]
        let word = unsafe { (*slot).next.get() };
        let next = word.map_addr(|word| self.decode(word));
        if self.key != 0 && !next.is_null() && next.addr() - self.start.addr() >= self.len {
            overwritten(slot.addr());
        }
        next
    }

    /// The first word of a slot that leads to `address`.
    #[inline(always)]
    fn encode(self, address: usize) -> usize {
        (address ^ self.key)
            .rotate_left(self.key as u32)
            .wrapping_add(self.key)
    }

    #[inline(always)]
    fn decode(self, word: usize) -> usize {
        word.wrapping_sub(self.key).rotate_right(self.key as u32) ^ self.key
    }
}

/// A list of slots, and how many there are; some may not be linked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) first: *mut FreeSlot,
    pub(crate) count: u32,
}

impl Taken {
    /// The last slot of the list; null for none.
    ///
    /// # Safety
    /// The slots are free, linked by these links, and the caller's; the last one leads to null.
    pub(crate) unsafe fn last(&self, links: Links) -> *mut FreeSlot {
        let (mut last, mut next) = (null_mut(), self.first);
        while !next.is_null() {
            last = next;
            // SAFETY: the caller's promise.
            next = unsafe { links.next(last) };
        }
        last
    }
}

/// The contents of a free slot are not what was put there.
#[cold]
#[inline(never)]
pub(super) fn overwritten(slot: usize) -> ! {
    #[cfg(not(loom))]
    crate::os::process::end_with_line(format_args!(
        "bursar: {slot:#x}: written to after it was freed"
    ));
    #[cfg(loom)]
    panic!("{slot:#x}");
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn links_lead_where_they_were_set_to() {
        let mut slots = [const { FreeSlot { next: null_mut() } }; 4];
        let start = slots.as_mut_ptr();
        let (first, last) = (start, start.wrapping_add(3));
        for key in [0, 1, usize::MAX, 0x1234_5678_9abc_def0] {
            let links = Links::new(start.cast(), size_of_val(&slots), key);
            for next in [null_mut(), first, last] {
                // SAFETY: slots of the array.
                unsafe {
                    links.link(last, next);
                    assert_eq!(links.next(last), next);
                    assert_eq!((*last).next == next, key == 0, "plain without a key");
                }
            }
        }
    }
}
