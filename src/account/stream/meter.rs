//! What a construction leaves live, from the thread's own books.
//!
//! ```text
//! weight = what the owners watched allocated less what they freed, here, meanwhile
//!        + items that ended inside - items that were made inside
//! ```
//! The stage's own owner is watched from the start. Items are on their own books, so one that ends
//! inside is given to the construction: whatever of it is freed there is no loss of what was built,
//! and whatever goes on in the result counts. That of a value taken out of its item may be another
//! owner's, who is watched from then on.

use super::super::scope::Scope;
use crate::arena::owner::balance_here;
use crate::units::OwnerTag;
use core::cell::Cell;
use core::ptr::null;
use std::thread_local;

/// Other owners that one construction can take values over from. Stages take one item at a time.
const MOST: usize = 3;

/// A measurement, of one construction that may be polled piece by piece on several threads.
pub(super) struct Meter {
    own: Watched,
    others: [Watched; MOST],
    len: Cell<usize>,
    sum: Cell<i64>,
}

/// An owner, and what the thread's books said of it when the piece of work began.
type Watched = Cell<(OwnerTag, i64)>;

thread_local! {
    /// The measurement that is under way on this thread.
    static OPEN: Cell<*const Meter> = const { Cell::new(null()) };
}

impl Meter {
    /// Of what `owner` allocates.
    pub(super) fn new(owner: OwnerTag) -> Meter {
        Meter {
            own: Cell::new((owner, 0)),
            others: [const { Cell::new((OwnerTag::UNATTRIBUTED, 0)) }; MOST],
            len: Cell::new(0),
            sum: Cell::new(0),
        }
    }

    fn others(&self) -> &[Watched] {
        &self.others[..self.len.get()]
    }

    fn for_watched(&self, mut visit: impl FnMut(&Watched)) {
        visit(&self.own);
        if self.len.get() != 0 {
            self.others().iter().for_each(visit);
        }
    }

    fn is_watched(&self, owner: OwnerTag) -> bool {
        self.own.get().0 == owner || self.others().iter().any(|place| place.get().0 == owner)
    }

    /// Measures a piece of work, in `scope` of the owner.
    pub(super) fn measure<T>(&self, enter: impl FnOnce() -> Scope, work: impl FnOnce() -> T) -> T {
        struct Running<'a>(&'a Meter, *const Meter);
        impl Drop for Running<'_> {
            fn drop(&mut self) {
                OPEN.set(self.1);
                self.0.for_watched(|place| {
                    let (owner, before) = place.get();
                    self.0.add(balance_here(owner) - before);
                });
            }
        }
        // First in and last out, so that the owner's books are at hand for both looks.
        let _scope = enter();
        self.for_watched(|place| {
            let owner = place.get().0;
            place.set((owner, balance_here(owner)));
        });
        let _running = Running(self, OPEN.replace(self));
        work()
    }

    fn add(&self, bytes: i64) {
        self.sum.set(self.sum.get().wrapping_add(bytes));
    }

    /// What was left live so far; nothing if more was freed than made.
    pub(super) fn bytes(&self) -> u64 {
        u64::try_from(self.sum.get()).unwrap_or(0)
    }
}

/// Passes the measurement that is under way, if there is one, to `work`.
#[inline]
fn with_open(work: impl FnOnce(&Meter)) {
    // SAFETY: what is open is borrowed by `measure`, which ends on this thread after this call.
    if let Some(meter) = unsafe { OPEN.get().as_ref() } {
        work(meter);
    }
}

/// An item of `bytes` of `owner`'s was made inside.
#[inline]
pub(super) fn made(owner: OwnerTag, bytes: u64) {
    with_open(|meter| {
        if meter.is_watched(owner) {
            meter.add(-(bytes as i64));
        }
    });
}

/// An item was dropped inside, or its blocks left `owner`.
#[inline]
pub(super) fn gone(owner: OwnerTag, bytes: u64) {
    with_open(|meter| {
        if meter.is_watched(owner) {
            meter.add(bytes as i64);
        }
    });
}

/// A value was taken out of its item inside.
#[inline]
pub(super) fn taken_out(owner: OwnerTag, bytes: u64) {
    with_open(|meter| {
        let len = meter.len.get();
        if !meter.is_watched(owner) && len < MOST && bytes != 0 {
            meter.others[len].set((owner, balance_here(owner)));
            meter.len.set(len + 1);
        }
    });
    gone(owner, bytes);
}
