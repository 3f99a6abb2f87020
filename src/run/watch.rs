//! Which runs their arena is to look at, and what it saw when it looked last.

use super::descriptor::{KEPT, Run, WIDELY_TOUCHED};
use crate::os::sync::{AtomicBool, Ordering::Relaxed};

/// No number of used slots: what was never looked at is not idle.
pub(super) const NEVER_SEEN: i32 = i32::MAX;

/// Whether a thread looks after sparse runs in their owners' stead.
pub(crate) static LOOK_AFTER_SPARSE: AtomicBool = AtomicBool::new(false);

/// A run with at most this part of what makes it dense is sparse.
const SPARSE_PART: i32 = 2;

impl Run {
    /// Whether its arena wants to look at it, with that `surplus`, which is the run's: it is unused,
    /// or has become sparse.
    #[inline(always)]
    pub(crate) fn is_watched(&self, surplus: i32) -> bool {
        surplus <= self.watch.get()
    }

    /// Whether it is so sparse that what it holds is worth giving back.
    pub(crate) fn is_sparse(&self) -> bool {
        (self.used() - self.remote.count()) as i32 <= self.dense.get() / SPARSE_PART
    }

    /// Has its arena look at it when it is unused, and before that when it has become sparse if
    /// there is somebody to [look after sparse runs](LOOK_AFTER_SPARSE).
    pub(crate) fn watch(&self) {
        let sparse = match LOOK_AFTER_SPARSE.load(Relaxed) {
            true => self.dense.get() / SPARSE_PART,
            false => 0,
        };
        self.watch.set(sparse - self.dense.get());
    }

    /// Notes what an arena sees when it looks through its runs, and that it would have seen the
    /// same at `missed` looks before. How often in a row it had seen this before.
    pub(crate) fn look(&self, seen: i32, missed: u8) -> u8 {
        let same = self.seen.replace(seen) == seen;
        let before = if same { self.looks.get() } else { 0 };
        let looks = before.saturating_add(same.into()).saturating_add(missed);
        self.looks.set(looks);
        before
    }

    /// How often in a row an arena has now seen the same, after the first time.
    pub(crate) fn looks(&self) -> u8 {
        self.looks.get()
    }

    /// Has its arena look at it again when half as much of it is used: what was looked at is not
    /// looked at with every block that is freed.
    pub(crate) fn watch_less(&self) {
        self.watch.set(self.used() as i32 / 2 - self.dense.get());
    }

    /// Whether more than [`WIDE`] bytes of it are touched, and its arena has not decided yet to
    /// keep it for when it is unused.
    #[inline(always)]
    pub(crate) fn is_wide(&self) -> bool {
        self.head.flags() == WIDELY_TOUCHED
    }

    /// Whether its arena keeps it for when it is unused.
    pub(crate) fn is_kept(&self) -> bool {
        self.head.flags() & KEPT != 0
    }

    /// Notes whether its arena keeps it for when it is unused.
    pub(crate) fn set_kept(&self, kept: bool) {
        let others = self.head.flags() & !KEPT;
        self.head.set_flags(others | if kept { KEPT } else { 0 });
    }

    /// Whether an arena has [looked](Self::look) at it before.
    pub(crate) fn was_looked_at(&self) -> bool {
        self.seen.get() != NEVER_SEEN
    }
}
