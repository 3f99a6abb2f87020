//! What is free in a pool.

use super::bits::spans;
use super::fit::{chunks, free_slices};
use crate::pool::Pool;
use crate::units::{CHUNK_SLICES, SLICE, Slices};

/// What is free in a pool of a set size, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Survey {
    pub(crate) free: u64,
    /// The longest span of it.
    pub(crate) longest: u64,
}

/// Looks through a pool of a set size. Between threads at work what was free when it was looked at.
pub(crate) fn survey(pool: &Pool) -> Survey {
    let mut survey = Survey::default();
    pool.view(|regions| {
        for region in regions {
            let mut start = None;
            let mut end_span = |start: &mut Option<usize>, end: usize| {
                if let Some(first) = start.take() {
                    let address = region.base() + first * SLICE;
                    let bytes = pool.room(address, Slices(end - first)) as u64;
                    survey.free += bytes;
                    survey.longest = survey.longest.max(bytes);
                }
            };
            for chunk in chunks(region) {
                let base = chunk * CHUNK_SLICES;
                let free = free_slices(region, chunk);
                let mut seen = 0;
                for (first, count) in spans(free) {
                    if first as usize != seen {
                        end_span(&mut start, base + seen);
                    }
                    start.get_or_insert(base + first as usize);
                    seen = (first + count) as usize;
                }
                if seen < CHUNK_SLICES {
                    end_span(&mut start, base + seen);
                }
            }
            // What was never used is free.
            if region.grown() < region.end() {
                start.get_or_insert(region.grown() * CHUNK_SLICES);
            }
            end_span(&mut start, region.slices_end());
        }
    });
    survey
}
