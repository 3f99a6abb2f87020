//! Where everything lies in the shared file. Computed by each process for itself from the pools'
//! sizes; all that is read from the file is checked against it.
//!
//! ```text
//! head          magic, identity, counter of processes, the pools' sizes and limits
//! members       a word for each process that may be attached
//! each pool's records, each part on pages of its own:
//!   counts      lock word, bytes in use, requests, ...
//!   summaries   a word for 4096 granules        (see space.rs)
//!   used        a bit a granule: in use
//!   starts      a bit a granule: a buffer begins here
//!   descriptors 64 B a granule, used where a buffer begins
//! each pool's buffers
//! ```
//! Only what is touched takes memory: a file of 256 GiB is all holes at first.

use super::space::Space;
use crate::pool::PoolSpec;
use core::ops::Range;
use static_assertions::const_assert;

/// The unit in which a pool is given out: the size of a head, and the alignment of buffers.
pub(super) const GRANULE: u64 = 1 << 10;
/// Parts of the file begin at multiples of this: no OS page is larger on the machines that there
/// are.
const PART: u64 = 64 << 10;
const WORD: u64 = 8;

/// Processes that can be attached at once.
pub(super) const PROCESSES: u32 = 256;
/// Words of a set of processes.
pub(super) const HOLDER_WORDS: usize = PROCESSES as usize / 64;

/// Words of the head.
pub(super) mod head {
    pub(in crate::mbuf) const MAGIC: usize = 0;
    pub(in crate::mbuf) const SET: usize = 1;
    pub(in crate::mbuf) const STRICT: usize = 2;
    pub(in crate::mbuf) const POOLS: usize = 3;
    /// Processes attached so far. On a cache line of its own.
    pub(in crate::mbuf) const ATTACHED: usize = 8;
    /// Size and limit of each pool, 0 for no limit.
    pub(in crate::mbuf) const TABLE: usize = 16;
    pub(in crate::mbuf) const WORDS: usize = TABLE + 2 * crate::pool::spec::MOST_POOLS;
}

/// Words of a pool's counts.
pub(super) mod counts {
    /// On a cache line of its own.
    pub(in crate::mbuf) const LOCK: usize = 0;
    pub(in crate::mbuf) const USED_BYTES: usize = 8;
    /// No granule at or above this one was ever used.
    pub(in crate::mbuf) const TOP: usize = 9;
    pub(in crate::mbuf) const REQUESTS: usize = 10;
    pub(in crate::mbuf) const FALL_THROUGHS: usize = 11;
    pub(in crate::mbuf) const FAILURES: usize = 12;
    pub(in crate::mbuf) const BUFFERS: usize = 13;
    pub(in crate::mbuf) const WORDS: usize = 16;
}

/// Words of a descriptor.
pub(super) mod descriptor {
    /// Which buffer at this place: see `pool.rs`.
    pub(in crate::mbuf) const GENERATION: usize = 0;
    /// Granules that it takes.
    pub(in crate::mbuf) const SPAN: usize = 1;
    /// Bytes of its data.
    pub(in crate::mbuf) const LEN: usize = 2;
    /// Who handed it over, while the receiver has not opened it; or 0.
    pub(in crate::mbuf) const FLIGHT: usize = 3;
    /// The processes that hold it, a bit each.
    pub(in crate::mbuf) const HOLDERS: usize = 4;
    pub(in crate::mbuf) const WORDS: usize = HOLDERS + super::HOLDER_WORDS;
}
const_assert!(descriptor::WORDS * 8 == 64);

/// Distinguishes this layout from all others.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"mbufs\0\0\x01");

/// A range of words of the file. Made here only, and below its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    offset: u64,
    count: u64,
}

impl Words {
    /// Bytes from the start of the file.
    pub(super) fn offset(self) -> usize {
        self.offset as usize
    }

    pub(super) fn count(self) -> usize {
        self.count as usize
    }
}

/// The parts of one pool.
#[derive(Debug)]
pub(super) struct PoolLayout {
    /// Bytes.
    pub(super) size: u64,
    pub(super) limit: Option<u64>,
    /// Granules; the last may be cut off by the pool's end.
    pub(super) granules: u64,
    pub(super) counts: Words,
    pub(super) summaries: Words,
    pub(super) used: Words,
    pub(super) starts: Words,
    pub(super) descriptors: Words,
    /// Where its buffers begin, in bytes from the start of the file.
    base: u64,
}

impl PoolLayout {
    /// How many granules a request of `bytes` takes.
    pub(super) fn span(bytes: u64) -> u64 {
        bytes.div_ceil(GRANULE)
    }

    /// Bytes of a span, without what lies behind the pool's end: nothing of one that damaged records
    /// have begin there.
    pub(super) fn bytes_of(&self, start: u64, count: u64) -> u64 {
        let end = ((start + count) * GRANULE).min(self.size);
        end.saturating_sub(start * GRANULE)
    }

    /// The words of a span of granules in the file; `None` if it is not inside the pool.
    pub(super) fn buffer(&self, start: u64, count: u64) -> Option<Words> {
        let end = start.checked_add(count)?;
        (count > 0 && end <= self.granules).then(|| Words {
            offset: self.base + start * GRANULE,
            // The file has whole granules of each pool.
            count: count * (GRANULE / WORD),
        })
    }

    /// Bytes of a range of granules in the file.
    pub(super) fn range(&self, start: u64, count: u64) -> Range<u64> {
        let from = self.base + start * GRANULE;
        from..from + count * GRANULE
    }
}

/// The parts of the file.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) spec: PoolSpec,
    pub(super) head: Words,
    pub(super) members: Words,
    pub(super) pools: std::vec::Vec<PoolLayout>,
    /// Bytes of the file.
    pub(super) len: u64,
}

/// Hands out parts of the file from its start on.
struct Parts(u64);

impl Parts {
    fn bytes(&mut self, bytes: u64) -> u64 {
        let start = self.0;
        self.0 += bytes.next_multiple_of(PART);
        start
    }

    fn words(&mut self, count: u64) -> Words {
        Words {
            offset: self.bytes(count * WORD),
            count,
        }
    }
}

impl Layout {
    /// The layout for these pools. The sizes of a `PoolSpec` are too small for any overflow.
    pub(super) fn new(spec: &PoolSpec) -> Layout {
        let mut parts = Parts(0);
        let head = parts.words(head::WORDS as u64);
        let members = parts.words(PROCESSES.into());
        let mut pools: std::vec::Vec<PoolLayout> = spec
            .pools()
            .map(|pool| {
                let granules = pool.size.div_ceil(GRANULE);
                let (used, summaries) = Space::words(granules);
                PoolLayout {
                    size: pool.size,
                    limit: pool.limit,
                    granules,
                    counts: parts.words(counts::WORDS as u64),
                    summaries: parts.words(summaries),
                    used: parts.words(used),
                    starts: parts.words(used),
                    descriptors: parts.words(granules * descriptor::WORDS as u64),
                    base: 0,
                }
            })
            .collect();
        for pool in &mut pools {
            pool.base = parts.bytes(pool.granules * GRANULE);
        }
        Layout {
            spec: spec.clone(),
            head,
            members,
            pools,
            len: parts.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn parts(layout: &Layout) -> Vec<Range<u64>> {
        let words = |words: Words| words.offset..words.offset + words.count * WORD;
        let mut parts: Vec<Range<u64>> = [layout.head, layout.members].map(words).into();
        for pool in &layout.pools {
            let records = [
                pool.counts,
                pool.summaries,
                pool.used,
                pool.starts,
                pool.descriptors,
            ];
            parts.extend(records.map(words));
            parts.push(pool.range(0, pool.granules));
        }
        parts
    }

    #[test]
    fn parts_are_apart_and_inside() {
        for text in [
            "1024",
            "1025,2047:1024,4194304",
            "274877906944",
            "1073741824,2048:1024",
        ] {
            let layout = Layout::new(&PoolSpec::must_parse(text));
            let mut parts = parts(&layout);
            parts.sort_by_key(|part| part.start);
            for pair in parts.windows(2) {
                assert!(pair[0].end <= pair[1].start, "{text}: {pair:?}");
            }
            assert!(parts.last().unwrap().end <= layout.len);
            assert!(parts.iter().all(|part| part.start % PART == 0));
        }
    }

    #[test]
    fn buffers_lie_inside_their_pool() {
        let layout = Layout::new(&PoolSpec::must_parse("2500"));
        let pool = &layout.pools[0];
        assert_eq!(pool.granules, 3);
        assert_eq!((pool.bytes_of(0, 3), pool.bytes_of(2, 1)), (2500, 452));
        assert_eq!((pool.granules, pool.bytes_of(3, 0)), (3, 0));
        assert!(pool.buffer(0, 3).is_some() && pool.buffer(2, 1).is_some());
        for (start, count) in [(0, 4), (3, 1), (0, 0), (u64::MAX, 1), (1, u64::MAX)] {
            assert!(pool.buffer(start, count).is_none());
        }
    }
}
