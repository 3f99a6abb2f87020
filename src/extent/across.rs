//! Spans across chunks: longer than one, or in a pool where the ends of chunks leave no holes. They
//! start and end at any slice, are claimed chunk by chunk under the pool's growth lock, and are
//! rolled back where somebody without the lock was faster.

use super::bits::first_fit;
use super::fit::{Shape, full, give_back, grow, pieces, record, slots};
use crate::os::lock::Guard;
use crate::os::sync::Ordering::Relaxed;
use crate::pool::region::{REGION, Region};
use crate::pool::{AllocFailure, Pool};
use crate::units::{CHUNK_SLICES, SLICE, round_up};

/// Claims a span under the pool's growth lock.
pub(super) fn across_chunks(pool: &Pool, shape: Shape) -> Result<(&Region, usize), AllocFailure> {
    let needed = match shape.count.checked_add(shape.align) {
        Some(sum) if sum < REGION / SLICE => sum * SLICE,
        _ => {
            return Err(AllocFailure::TooLarge {
                bytes: shape.count as u64 * SLICE as u64,
            });
        }
    };
    if pool.is_fixed() && shape.count > pool.slices().0 {
        return Err(full(shape));
    }
    let growth = pool.growth.lock();
    for region in pool.regions() {
        if let Some(first) = claim_across(pool, region, shape, &growth)? {
            return Ok((region, first));
        }
    }
    let region = pool.add_region(needed, &growth)?;
    match claim_across(pool, region, shape, &growth)? {
        Some(first) => Ok((region, first)),
        None => Err(AllocFailure::TooLarge {
            bytes: needed as u64,
        }),
    }
}

/// The lowest free range of the region, its chunks that do not exist yet included.
fn claim_across(
    pool: &Pool,
    region: &Region,
    shape: Shape,
    growth: &Guard<'_, ()>,
) -> Result<Option<usize>, AllocFailure> {
    let Shape { count, align, .. } = shape;
    let limit = shape.limit(region);
    let fits = |start: usize, end: usize| {
        let first = round_up(start, align);
        (first + count <= end.min(limit)).then_some(first)
    };
    let grown = region.grown();
    // Where the run of free slices that the search is in begins.
    let from = region.lowest.begin().index().clamp(region.first(), grown);
    let mut start = from * CHUNK_SLICES;
    for chunk in from..grown {
        let base = chunk * CHUNK_SLICES;
        // The bytes of a full pool are read faster than its records.
        let free = match slots(region, chunk).longest.load(Relaxed) {
            0 => 0,
            _ => record(region, chunk).free.load(Relaxed),
        };
        if free == u64::MAX {
            continue;
        }
        let end = base + free.trailing_ones() as usize;
        if let Some(first) = fits(start, end)
            && claim_range(region, first, count)
        {
            return Ok(Some(first));
        }
        if let Some(first) = inside(free, base, shape, limit)
            && claim_range(region, first, count)
        {
            return Ok(Some(first));
        }
        start = base + CHUNK_SLICES - free.leading_ones() as usize;
    }
    let Some(first) = fits(start, limit) else {
        return Ok(None);
    };
    let old_end = grown * CHUNK_SLICES;
    let end = first + count;
    // The part below what exists is claimed first: it may be lost to a thread without the lock.
    let below = end.min(old_end).saturating_sub(first);
    if below > 0 && !claim_range(region, first, below) {
        // Lost: then behind all that exists.
        let Some(first) = fits(old_end, limit) else {
            return Ok(None);
        };
        grow_over(pool, region, first, count, growth)?;
        return Ok(Some(first));
    }
    if end > old_end {
        let rest = first.max(old_end);
        if let Err(failure) = grow_over(pool, region, rest, end - rest, growth) {
            if below > 0 {
                give_back(region, first, below);
            }
            return Err(failure);
        }
    }
    Ok(Some(first))
}

/// The lowest place for a span between the slices of one chunk that are not free.
fn inside(free: u64, base: usize, shape: Shape, limit: usize) -> Option<usize> {
    if shape.count > CHUNK_SLICES || shape.align > CHUNK_SLICES {
        return None;
    }
    let first = base + first_fit(free, shape.count as u32, shape.align as u32)? as usize;
    (first + shape.count <= limit).then_some(first)
}

/// Grows the region so that it holds the range, which is claimed on the way.
pub(super) fn grow_over(
    pool: &Pool,
    region: &Region,
    first: usize,
    count: usize,
    growth: &Guard<'_, ()>,
) -> Result<(), AllocFailure> {
    let claimed = |chunk: usize| {
        pieces(first, count)
            .find(|piece| piece.0 == chunk)
            .map_or(0, |piece| piece.1)
    };
    let end = (first + count).div_ceil(CHUNK_SLICES);
    let old_end = region.grown();
    let full = |chunk: usize| {
        // Chunks inside the range need no search among the pieces.
        let base = chunk * CHUNK_SLICES;
        if base >= first && base + CHUNK_SLICES <= first + count {
            u64::MAX
        } else {
            claimed(chunk)
        }
    };
    grow(pool, region, end, full, growth)?;
    region.lowest.lower(old_end);
    Ok(())
}

/// Claims exactly a range below `region.grown()`, or nothing.
pub(super) fn claim_range(region: &Region, first: usize, count: usize) -> bool {
    for (index, (chunk, wanted)) in pieces(first, count).enumerate() {
        if !slots(region, chunk).claim_exactly(wanted) {
            for (chunk, taken) in pieces(first, count).take(index) {
                slots(region, chunk).release(taken);
            }
            region.lowest.lower(first / CHUNK_SLICES);
            return false;
        }
    }
    true
}
