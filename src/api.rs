//! The names that programs use.

#[cfg(feature = "accounts")]
pub use crate::account::*;
pub use crate::arena::trim::BackgroundError;
#[cfg(feature = "check")]
pub use crate::check::{CheckReport, Violation, check};
pub use crate::facade::Bursar;
#[cfg(feature = "mbuf")]
pub use crate::mbuf::*;
pub use crate::pool::{AllocFailure, Backing, PoolError};
pub use crate::pool::{ByOwner, BySize, Chain, Growing};
pub use crate::pool::{PoolConfig, PoolExcerpt, PoolField};
pub use crate::pool::{PoolId, PoolOrder, PoolRequest, Router};
pub use crate::pool::{PoolSpec, PoolSpecError, PoolSpecMessage, PoolValue};
#[cfg(feature = "allocator-api2")]
pub use crate::pools::PoolAllocator;
pub use crate::pools::{Pool, PoolBuilder, PoolStats, Pools, pools};
pub use crate::stats::{ArenaStats, ClassStats, Stats};
#[cfg(feature = "accounts")]
pub use crate::task_pool::TaskPool;
#[cfg(all(feature = "accounts", feature = "allocator-api2"))]
pub use crate::task_pool::TaskPoolAllocator;

pub use crate::units::OwnerTag;

use core::alloc::Layout;

/// A snapshot of what the allocator holds. Allocates nothing; reads every arena's counts and every
/// chunk's descriptors, so its cost grows with the heap: some microseconds a hundred MiB.
pub fn stats() -> Stats {
    Stats::take()
}

/// Gives all free memory back to the system now, and returns how many bytes.
///
/// Other threads give back free blocks in their own runs when they next need memory: only a thread
/// itself may touch those. Without a call, memory is given back after the decay time.
pub fn purge() -> u64 {
    crate::arena::trim::purge()
}

/// Starts a thread that gives free memory back after the decay time even while no thread
/// allocates. It sleeps in between, runs until the process ends, and is not there in forked
/// children until they start their own.
///
/// # Errors
/// If it runs already, or the system makes no thread.
pub fn start_background() -> Result<(), BackgroundError> {
    crate::arena::trim::start_background()
}

/// What a block of this layout occupies, in bytes: a function of the layout alone. `usize::MAX`
/// for a layout that no block can have.
pub fn block_size(layout: Layout) -> usize {
    crate::extent::large::block_size(layout)
}

/// Why the last allocation of this thread that failed did so; `None` if none has.
pub fn last_failure() -> Option<AllocFailure> {
    crate::arena::slow::last_failure::get()
}

/// Whether bursar is this program's global allocator. Allocates and frees one byte.
pub fn is_installed() -> bool {
    crate::arena::owner::is_installed()
}

/// Makes chosen system calls of the allocator fail, for tests.
#[cfg(feature = "fault-injection")]
pub mod fault {
    pub use crate::os::fault::{Call, When, clear, fail, fail_any, made, made_any};
}

/// Owners at the level of single blocks: what the accounts are built on, for tests of that level.
/// Not together with consumers, whose tags it does not know of.
///
/// An owner is an opaque number. Every block has one: that of the scope in which its thread
/// allocated it, or the one it was moved to. Counts are per owner over all threads.
#[cfg(feature = "check")]
pub mod owner {
    use crate::arena::owner;
    pub use crate::units::OwnerTag;
    use core::alloc::Layout;

    /// What one owner's blocks did so far, over all threads. Exact when no thread allocates or
    /// frees; otherwise nothing is seen freed that is not seen allocated.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct Totals {
        /// Blocks ever allocated for it or moved to it.
        pub allocated_blocks: u64,
        /// Their bytes.
        pub allocated_bytes: u64,
        /// Blocks of it ever freed or moved to another.
        pub freed_blocks: u64,
        /// Their bytes.
        pub freed_bytes: u64,
    }

    impl Totals {
        /// Blocks alive.
        pub fn live_blocks(&self) -> u64 {
            self.allocated_blocks - self.freed_blocks
        }

        /// Bytes alive.
        pub fn live_bytes(&self) -> u64 {
            self.allocated_bytes - self.freed_bytes
        }
    }

    /// Runs `work` with `tag` as the owner of what this thread allocates.
    pub fn run<T>(tag: OwnerTag, work: impl FnOnce() -> T) -> T {
        struct Leave(owner::Entered);
        impl Drop for Leave {
            fn drop(&mut self) {
                owner::leave(self.0);
            }
        }
        let _leave = Leave(owner::enter(tag));
        work()
    }

    /// The counts of `tag`. Reads every arena.
    pub fn totals(tag: OwnerTag) -> Totals {
        let totals = owner::totals(tag);
        Totals {
            allocated_blocks: totals.allocated_blocks,
            allocated_bytes: totals.allocated_bytes,
            freed_blocks: totals.freed_blocks,
            freed_bytes: totals.freed_bytes,
        }
    }

    /// The owner of a block.
    ///
    /// # Safety
    /// The block is alive and was allocated by bursar with this layout.
    pub unsafe fn of(block: *mut u8, layout: Layout) -> OwnerTag {
        // SAFETY: the caller's promise.
        unsafe { owner::tag_of(block, layout) }
    }

    /// Books a block to another owner: O(1) for a large block; a small one costs its run a tag a
    /// slot once, and each later free in that run the slow path. False, with nothing changed, if
    /// there is no memory.
    ///
    /// # Safety
    /// The block is alive, was allocated by bursar with this layout, and nobody frees or moves it
    /// meanwhile.
    pub unsafe fn retag(block: *mut u8, layout: Layout, to: OwnerTag) -> bool {
        // SAFETY: the caller's promise.
        unsafe { owner::retag(block, layout, to) }
    }
}
