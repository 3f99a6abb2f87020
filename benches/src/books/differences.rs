//! stats_alloc and cap: counts of the whole process. What a part of the
//! program holds is what the counts differ by between its begin and its end,
//! as with the `Region` of stats_alloc.

use std::alloc::GlobalAlloc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use super::{Books, Holder};

/// The sums of the differences over each holder's scopes.
pub struct Differences<A: 'static> {
    allocator: &'static A,
    held: [AtomicI64; 2],
}

/// A wrapper that knows how many bytes are alive in the whole process.
pub trait Total: Sync {
    /// Its name.
    const NAME: &'static str;

    /// Those bytes.
    fn live_bytes(&self) -> i64;
}

impl<A: GlobalAlloc + Sync> Total for stats_alloc::StatsAlloc<A> {
    const NAME: &'static str = "stats_alloc";

    fn live_bytes(&self) -> i64 {
        let stats = self.stats();
        stats.bytes_allocated as i64 - stats.bytes_deallocated as i64
    }
}

impl<A: GlobalAlloc + Sync> Total for cap::Cap<A> {
    const NAME: &'static str = "cap";

    fn live_bytes(&self) -> i64 {
        self.allocated() as i64
    }
}

impl<A: Total> Differences<A> {
    /// Of the allocator of this program.
    pub const fn new(allocator: &'static A) -> Self {
        Self {
            allocator,
            held: [const { AtomicI64::new(0) }; 2],
        }
    }
}

impl<A: Total> Books for Differences<A> {
    fn name(&self) -> &'static str {
        A::NAME
    }

    fn within(&self, holder: Holder, work: &mut dyn FnMut()) {
        let before = self.allocator.live_bytes();
        work();
        let after = self.allocator.live_bytes();
        self.held[holder as usize].fetch_add(after - before, Relaxed);
    }

    fn live_bytes(&self, holder: Holder) -> i64 {
        self.held[holder as usize].load(Relaxed)
    }
}
