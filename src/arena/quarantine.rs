//! Blocks that a thread freed last, in the secure profile: their slots are used again only after as
//! many more were freed, so that what still points to them finds nothing but zero for a while.

use super::record::Arena;
use super::slow;
use crate::pool::metadata;
use crate::run::descriptor::run_of;
use crate::run::marks::Mark;
use crate::units::ClassIndex;
use core::cell::Cell;
use core::ptr::{null, null_mut};

/// Blocks that are held back at most.
pub(super) const HELD: usize = 64;
/// Bytes that are held back at most, but for a single block.
const HELD_BYTES: usize = 256 << 10;

/// The blocks of one thread. Only for the thread that has the arena.
///
/// ```text
/// bytes = sum of the sizes of the blocks from oldest to newest
/// ```
pub(super) struct Quarantine {
    ring: Cell<*const Ring>,
}

/// The blocks: those with numbers from `oldest` to `next`, each at its number modulo [`HELD`].
struct Ring {
    blocks: [Cell<Held>; HELD],
    oldest: Cell<usize>,
    next: Cell<usize>,
    bytes: Cell<usize>,
}

#[derive(Clone, Copy)]
struct Held {
    block: *mut u8,
    class: ClassIndex,
}

impl Held {
    fn bytes(self) -> usize {
        self.class.row().size as usize
    }
}

const NOTHING: Held = Held {
    block: null_mut(),
    class: ClassIndex(0),
};

impl Quarantine {
    pub(super) const fn new() -> Quarantine {
        Quarantine {
            ring: Cell::new(null()),
        }
    }

    fn ring(&self) -> Option<&'static Ring> {
        // SAFETY: the arena's own for good.
        unsafe { self.ring.get().as_ref() }
    }

    fn ring_or_new(&self) -> Option<&'static Ring> {
        if self.ring.get().is_null() {
            let ring = metadata::allocate(size_of::<Ring>())?.cast::<Ring>();
            // SAFETY: a record of that size.
            unsafe {
                ring.write(Ring {
                    blocks: [const { Cell::new(NOTHING) }; HELD],
                    oldest: Cell::new(0),
                    next: Cell::new(0),
                    bytes: Cell::new(0),
                });
            }
            self.ring.set(ring.as_ptr());
        }
        self.ring()
    }

    /// Holds a block back. Blocks that there is no more room for, the oldest ones, go back to their
    /// runs; all of it where there is no memory for the ring.
    ///
    /// # Safety
    /// The arena is the thread's and has this quarantine; the block is of that class, the caller's,
    /// marked as held back, and counted as freed.
    pub(super) unsafe fn hold(&self, arena: &'static Arena, block: *mut u8, class: ClassIndex) {
        let held = Held { block, class };
        let Some(ring) = self.ring_or_new() else {
            // SAFETY: the caller's promise.
            return unsafe { put_back(arena, held) };
        };
        while ring.len() == HELD || ring.len() > 0 && ring.bytes.get() + held.bytes() > HELD_BYTES {
            // SAFETY: held back until now.
            unsafe { put_back(arena, ring.take()) };
        }
        ring.add(held);
    }

    /// Puts all blocks back into their runs.
    pub(super) fn empty(&self, arena: &'static Arena) {
        let Some(ring) = self.ring() else {
            return;
        };
        while ring.len() > 0 {
            // SAFETY: held back until now.
            unsafe { put_back(arena, ring.take()) };
        }
    }
}

impl Ring {
    fn len(&self) -> usize {
        self.next.get() - self.oldest.get()
    }

    fn add(&self, held: Held) {
        let number = self.next.get();
        self.blocks[number % HELD].set(held);
        self.bytes.set(self.bytes.get() + held.bytes());
        self.next.set(number + 1);
    }

    /// The oldest; there is one.
    fn take(&self) -> Held {
        let number = self.oldest.get();
        let held = self.blocks[number % HELD].get();
        self.bytes.set(self.bytes.get() - held.bytes());
        self.oldest.set(number + 1);
        held
    }
}

/// Gives a block's slot back to its run.
///
/// # Safety
/// The block was held back, and is in no list.
unsafe fn put_back(arena: &'static Arena, held: Held) {
    // SAFETY: a block that is held back keeps its run alive.
    unsafe {
        let run = run_of(held.block, held.class).cast_mut();
        if let Some(marks) = (*run).marks() {
            marks.set((*run).slot_of(held.block.addr()), Mark::Free);
        }
        slow::free_booked(arena, run, held.block);
    }
}
