//! A seam through which tests make the allocator's system calls fail. Without the feature
//! `fault-injection` it is a constant `false`.

/// A kind of system call that the allocator makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Call {
    /// Reserving address space (`mmap`).
    Reserve,
    /// Making reserved memory usable (`mprotect`).
    Commit,
    /// Giving pages back (`madvise`).
    Purge,
    /// Moving pages, or mapping afresh what was moved (`mremap`, `mmap`).
    Remap,
    /// Mapping the allocator's own records (`mmap`).
    Metadata,
    /// Making guard pages (`madvise`, `mprotect`).
    Guard,
}

#[cfg(not(feature = "fault-injection"))]
#[inline(always)]
pub(super) fn injected(_call: Call) -> bool {
    false
}

#[cfg(feature = "fault-injection")]
pub(super) use plan::injected;
#[cfg(feature = "fault-injection")]
pub use plan::{When, clear, fail, made};

#[cfg(feature = "fault-injection")]
mod plan {
    use super::Call;
    use crate::os::sync::{AtomicU64, Ordering::Relaxed};

    /// Which calls of a kind fail, counted from the moment of [`fail`]; the first is number 1.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum When {
        /// Only this one.
        Nth(u64),
        /// Each whose number is a multiple.
        Every(u64),
        /// This one and all that follow.
        From(u64),
    }

    const KINDS: usize = 6;
    static MADE: [AtomicU64; KINDS] = [const { AtomicU64::new(0) }; KINDS];
    static PLAN: [AtomicU64; KINDS] = [const { AtomicU64::new(0) }; KINDS];
    const NTH: u64 = 1 << 62;
    const EVERY: u64 = 2 << 62;
    const FROM: u64 = 3 << 62;

    /// Makes calls of one kind fail as the kernel would refuse them; replaces an earlier plan for
    /// that kind. Process-wide.
    pub fn fail(call: Call, when: When) {
        let plan = match when {
            When::Nth(n) => NTH | n,
            When::Every(n) => EVERY | n.max(1),
            When::From(n) => FROM | n,
        };
        MADE[call as usize].store(0, Relaxed);
        PLAN[call as usize].store(plan, Relaxed);
    }

    /// Ends all plans.
    pub fn clear() {
        PLAN.iter().for_each(|plan| plan.store(0, Relaxed));
    }

    /// How many calls of the kind were made since the last [`fail`] for it.
    pub fn made(call: Call) -> u64 {
        MADE[call as usize].load(Relaxed)
    }

    pub(in crate::os) fn injected(call: Call) -> bool {
        let number = MADE[call as usize].fetch_add(1, Relaxed) + 1;
        let plan = PLAN[call as usize].load(Relaxed);
        let n = plan & !FROM;
        match plan & FROM {
            NTH => number == n,
            EVERY => number.is_multiple_of(n),
            FROM => number >= n,
            _ => false,
        }
    }
}
