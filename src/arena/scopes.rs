//! The scopes that a thread is in: a stack of owners' ledgers. Scopes may be left out of order; one
//! that is left while others lie on it stays as a gap until those are left too.

use super::ledger::Ledger;
use crate::pool::metadata;
use core::cell::Cell;
use core::ptr::{NonNull, null, null_mut};

/// A place of the stack; null for a gap.
type Entry = Cell<*const Ledger>;

/// The stack. Only for the thread that has the arena.
pub(crate) struct Scopes {
    few: [Entry; FEW],
    /// The entries once they have become more than a few.
    many: Cell<*mut Entry>,
    capacity: Cell<u32>,
    depth: Cell<u32>,
}

/// Entries that need no record of their own.
const FEW: usize = 8;

impl Scopes {
    pub(crate) const fn new() -> Scopes {
        Scopes {
            few: [const { Cell::new(null()) }; FEW],
            many: Cell::new(null_mut()),
            capacity: Cell::new(FEW as u32),
            depth: Cell::new(0),
        }
    }

    #[inline]
    fn entry(&self, index: u32) -> &Entry {
        debug_assert!(index < self.capacity.get());
        let entries = match NonNull::new(self.many.get()) {
            Some(many) => many.as_ptr().cast_const(),
            None => self.few.as_ptr(),
        };
        // SAFETY: there are `capacity` entries.
        unsafe { &*entries.add(index as usize) }
    }

    /// Enters a scope. Its place; `None` if there is no memory.
    #[inline]
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

    /// Leaves the scope at a place. The ledger of the scope that the thread is in now.
    #[inline]
    pub(crate) fn leave(&self, index: u32) -> Option<&'static Ledger> {
        // SAFETY: ledgers are never given up.
        if let Some(left) = unsafe { self.entry(index).replace(null()).as_ref() } {
            left.leave();
        }
        let mut depth = self.depth.get();
        // SAFETY: as above.
        while let Some(last) = depth.checked_sub(1) {
            if !self.entry(last).get().is_null() {
                break;
            }
            depth = last;
        }
        self.depth.set(depth);
        self.innermost()
    }

    /// The ledger of the innermost scope.
    pub(crate) fn innermost(&self) -> Option<&'static Ledger> {
        let last = self.depth.get().checked_sub(1)?;
        // SAFETY: ledgers are never given up.
        unsafe { self.entry(last).get().as_ref() }
    }

    /// Leaves all scopes: their thread has ended, or has vanished in a fork.
    pub(crate) fn clear(&self) {
        for index in 0..self.depth.get() {
            // SAFETY: ledgers are never given up.
            if let Some(left) = unsafe { self.entry(index).replace(null()).as_ref() } {
                left.leave();
            }
        }
        self.depth.set(0);
    }

    #[cold]
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
        let few = self.many.replace(many);
        self.capacity.set(old * 4);
        if let Some(less) = NonNull::new(few) {
            // SAFETY: the old entries, which only this thread reads.
            unsafe { metadata::release(less.cast(), bytes(old)) };
        }
        Some(())
    }
}
