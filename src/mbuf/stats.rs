//! What each pool has given out.

use super::layout::{GRANULE, PoolLayout, counts};
use super::locked::space;
use super::set::Set;
use crate::os::sync::Ordering::Relaxed;

/// One pool of message buffers at some moment. Exact when nobody allocates or frees; while others
/// do, the numbers may be of slightly different moments. All are bytes or counts since the pools
/// were made, over all processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MbufPoolStats {
    /// Bytes of the pool.
    pub size: u64,
    /// The largest request that it serves, in bytes; `None` if it serves any.
    pub limit: Option<u64>,
    /// Bytes that buffers occupy: requests, rounded up to 1 KiB.
    pub used_bytes: u64,
    /// The other bytes.
    pub free_bytes: u64,
    /// Bytes of the longest span that is free.
    pub largest_free_span: u64,
    /// Buffers that there are.
    pub buffers: u64,
    /// Requests that this pool was asked to serve.
    pub requests: u64,
    /// Requests that it had no room for and that went on to the next pool.
    pub fall_throughs: u64,
    /// Requests that it had no room for and that had no pool to go on to.
    pub failures: u64,
}

impl MbufPoolStats {
    pub(super) fn take(set: &Set, layout: &PoolLayout) -> MbufPoolStats {
        let counts = set.memory.words(layout.counts);
        let count = |index: usize| counts[index].load(Relaxed);
        let used_bytes = count(counts::USED_BYTES).min(layout.size);
        let free_bytes = layout.size - used_bytes;
        let (longest, start) = space(set, layout).longest();
        let longest_bytes = match (start + longest).min(layout.granules).checked_sub(start) {
            Some(granules) => layout.bytes_of(start, granules),
            None => longest * GRANULE,
        };
        MbufPoolStats {
            size: layout.size,
            limit: layout.limit,
            used_bytes,
            free_bytes,
            largest_free_span: longest_bytes.min(free_bytes),
            buffers: count(counts::BUFFERS),
            requests: count(counts::REQUESTS),
            fall_throughs: count(counts::FALL_THROUGHS),
            failures: count(counts::FAILURES),
        }
    }

    /// The part of the free bytes that the longest free span does not have: 0 if all that is free
    /// lies together, towards 1 as it lies in ever smaller pieces. 0 if nothing is free.
    pub fn external_fragmentation(&self) -> f64 {
        match self.free_bytes {
            0 => 0.0,
            free => 1.0 - self.largest_free_span as f64 / free as f64,
        }
    }
}
