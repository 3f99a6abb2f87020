//! The scopes that a thread is in: a stack of owners' ledgers. Scopes may be left out of order; one
//! that is left while others lie on it stays as a gap until those are left too.

use super::ledger::Ledger;
use crate::pool::metadata;
use core::cell::Cell;
use core::ptr::{NonNull, null};

/// A place of the stack; null for a gap.
type Entry = Cell<*const Ledger>;

/// The stack. Only for the thread that has the arena.
///
/// ```text
/// entry 0          the book of what no consumer claimed: outside of all scopes
/// entry depth - 1  the innermost scope; no gap
/// ```
pub(crate) struct Scopes {
    /// The entries: `few`, then a record of their own.
    entries: Cell<*const Entry>,
    capacity: Cell<u32>,
    depth: Cell<u32>,
    few: [Entry; FEW],
}

/// Entries that need no record of their own.
const FEW: usize = 8;

impl Scopes {
    pub(crate) const fn new() -> Scopes {
        Scopes {
            entries: Cell::new(null()),
            capacity: Cell::new(0),
            depth: Cell::new(0),
            few: [const { Cell::new(null()) }; FEW],
        }
    }

    /// Makes the stack ready, with the ledger of who is in no scope.
    pub(super) fn begin(&'static self, outside: &'static Ledger) {
        self.entries.set(self.few.as_ptr());
        self.capacity.set(FEW as u32);
        self.few[0].set(outside);
        self.depth.set(1);
    }

    #[inline(always)]
    fn entry(&self, index: u32) -> &Entry {
        debug_assert!(index < self.capacity.get());
        // SAFETY: there are `capacity` entries.
        unsafe { &*self.entries.get().add(index as usize) }
    }

    /// Enters a scope. Its place; `None` if there is no memory.
    #[inline(always)]
    pub(crate) fn push(&self, ledger: &'static Ledger) -> Option<u32> {
        let index = self.depth.get();
        if index == self.capacity.get() {
            self.grow()?;
        }
        ledger.enter();
        self.entry(index).set(ledger);
        self.depth.set(index + 1);
        Some(index)
    }

    /// Leaves the scope at a place, if it is the innermost and there is no gap under it. The ledger
    /// of the scope that the thread is in then; `None`, with nothing changed, otherwise.
    #[inline(always)]
    pub(crate) fn pop(&self, index: u32) -> Option<&'static Ledger> {
        if index.wrapping_add(1) != self.depth.get() {
            return None;
        }
        // SAFETY: ledgers are never given up. A scope's place is above that of no scope.
        let around = unsafe { self.entry(index - 1).get().as_ref()? };
        // SAFETY: a scope that was not left is no gap.
        unsafe { &*self.entry(index).get() }.leave();
        self.depth.set(index);
        Some(around)
    }

    /// Leaves the scope at a place, wherever that is. The ledger of the scope that the thread is in
    /// then; gaps on top of it are given up.
    pub(crate) fn leave(&self, index: u32) -> &'static Ledger {
        // SAFETY: ledgers are never given up.
        if let Some(left) = unsafe { self.entry(index).replace(null()).as_ref() } {
            left.leave();
        }
        loop {
            let last = self.depth.get() - 1;
            // SAFETY: as above; the first entry is no gap.
            if let Some(ledger) = unsafe { self.entry(last).get().as_ref() } {
                return ledger;
            }
            self.depth.set(last);
        }
    }

    /// Leaves all scopes: their thread has ended, or has vanished in a fork.
    pub(crate) fn clear(&self) {
        for index in 1..self.depth.get() {
            // SAFETY: ledgers are never given up.
            if let Some(left) = unsafe { self.entry(index).replace(null()).as_ref() } {
                left.leave();
            }
        }
        self.depth.set(1);
    }

    #[cold]
    #[inline(never)]
    fn grow(&self) -> Option<()> {
        let old = self.capacity.get();
        let bytes = |capacity: u32| capacity as usize * size_of::<Entry>();
        let many = metadata::allocate(bytes(old * 4))?.cast::<Entry>().as_ptr();
        for index in 0..old * 4 {
            let ledger = if index < old {
                self.entry(index).get()
            } else {
                null()
            };
            // SAFETY: a fresh record with room for that many.
            unsafe { many.add(index as usize).write(Cell::new(ledger)) };
        }
        let less = self.entries.replace(many);
        self.capacity.set(old * 4);
        if let Some(less) = NonNull::new(less.cast_mut())
            && old > FEW as u32
        {
            // SAFETY: the old record, which only this thread reads.
            unsafe { metadata::release(less.cast(), bytes(old)) };
        }
        Some(())
    }
}
