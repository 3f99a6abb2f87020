//! Spans of slices: first fit by address, so that a heap drains from the top.
//!
//! A span that fits a chunk is claimed with one compare-and-swap and no lock. A longer one starts
//! and ends at any slice; it is claimed chunk by chunk under the pool's growth lock and rolled
//! back where somebody without the lock was faster.

use super::bits::{mask, spans};
use super::chunk::{ChunkRecord, Slots};
use crate::os::lock::Guard;
use crate::os::map::{self, Refused};
use crate::os::sync::{AtomicU8, Ordering, Ordering::Relaxed};
use crate::pool::region::{FIRST_CHUNK, REGION, Region};
use crate::pool::{AllocFailure, Pool};
use crate::units::{CHUNK, CHUNK_SLICES, SLICE, Slices, round_up};

/// A span that was claimed: committed, and its claimer's alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) address: usize,
    pub(crate) slices: Slices,
    /// It reads as zero.
    pub(crate) zero: bool,
}

/// Whether a claimer wants its span to read as zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Zeroing {
    /// It doesn't matter.
    None,
    /// All of it; only slices that are not zero yet are touched.
    Whole,
}

/// What a released span holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Contents {
    /// What its user wrote.
    Dirty,
    /// Nothing: its pages were taken away.
    Zero,
}

/// The record of a chunk below `region.grown()`.
pub(super) fn record(region: &Region, chunk: usize) -> &ChunkRecord {
    // SAFETY: records are committed with the region and only ever reached as atomics.
    unsafe { &*(region.record_address(chunk) as *const ChunkRecord) }
}

pub(super) fn slots(region: &Region, chunk: usize) -> Slots<'_> {
    // SAFETY: as in `record`.
    let longest = unsafe { &*(region.longest_address(chunk) as *const AtomicU8) };
    Slots {
        free: &record(region, chunk).free,
        longest,
    }
}

/// The parts of a range of slices chunk by chunk: chunk and mask.
fn pieces(first: usize, count: usize) -> impl Iterator<Item = (usize, u64)> + Clone {
    let end = first + count;
    (first / CHUNK_SLICES..end.div_ceil(CHUNK_SLICES)).map(move |chunk| {
        let from = first.max(chunk * CHUNK_SLICES) - chunk * CHUNK_SLICES;
        let to = end.min((chunk + 1) * CHUNK_SLICES) - chunk * CHUNK_SLICES;
        (chunk, mask(from as u32, (to - from) as u32))
    })
}

/// Claims a span of `slices` at a multiple of `align` slices, a power of two.
pub(crate) fn allocate(
    pool: &Pool,
    slices: Slices,
    align: Slices,
    zeroing: Zeroing,
) -> Result<Span, AllocFailure> {
    pool.counts.requests.fetch_add(1, Relaxed);
    let count = slices.0.max(1);
    let claimed = if count <= CHUNK_SLICES && align.0 <= CHUNK_SLICES {
        in_one_chunk(pool, count as u32, align.0 as u32)
    } else {
        across_chunks(pool, count, align.0)
    };
    let result = claimed.and_then(|(region, first)| take_over(pool, region, first, count, zeroing));
    if result.is_err() {
        pool.counts.failures.fetch_add(1, Relaxed);
    }
    result
}

fn in_one_chunk(pool: &Pool, count: u32, align: u32) -> Result<(&Region, usize), AllocFailure> {
    let search = || {
        pool.regions()
            .iter()
            .find_map(|region| search_region(region, count, align).map(|first| (region, first)))
    };
    if let Some(found) = search() {
        return Ok(found);
    }
    let growth = pool.growth.lock();
    // Another thread may have grown the pool in the meantime.
    if let Some(found) = search() {
        return Ok(found);
    }
    let region = match pool
        .regions()
        .iter()
        .find(|region| region.grown() < region.end())
    {
        Some(region) => region,
        None => pool.add_region(CHUNK, &growth)?,
    };
    let chunk = region.grown();
    grow(pool, region, chunk + 1, |_| mask(0, count), &growth)?;
    Ok((region, chunk * CHUNK_SLICES))
}

/// First fit by address among the chunks that the region has.
fn search_region(region: &Region, count: u32, align: u32) -> Option<usize> {
    let seen = region.lowest.begin();
    let end = region.grown();
    let mut lowest = None;
    let mut found = None;
    for chunk in seen.index()..end {
        let slots = slots(region, chunk);
        let longest = slots.longest.load(Relaxed);
        if longest > 0 {
            lowest.get_or_insert(chunk);
            if u32::from(longest) >= count
                && let Some(first) = slots.claim(count, align)
            {
                found = Some(chunk * CHUNK_SLICES + first as usize);
                break;
            }
        }
    }
    region.lowest.raise(seen, lowest.unwrap_or(end));
    found
}

/// Adds the chunks from the region's last to below `end`, with the slices in `claimed(chunk)`
/// taken already.
fn grow(
    pool: &Pool,
    region: &Region,
    end: usize,
    claimed: impl Fn(usize) -> u64,
    growth: &Guard<'_, ()>,
) -> Result<(), AllocFailure> {
    pool.commit_descriptors(region, end, growth)?;
    for chunk in region.grown()..end {
        let record = record(region, chunk);
        record.free.store(!claimed(chunk), Relaxed);
        record.committed.store(0, Relaxed);
        record.zero.store(u64::MAX, Relaxed);
        slots(region, chunk).refresh();
    }
    pool.publish(region, end, growth);
    Ok(())
}

fn across_chunks(
    pool: &Pool,
    count: usize,
    align: usize,
) -> Result<(&Region, usize), AllocFailure> {
    let needed = match count.checked_add(align) {
        Some(sum) if sum < REGION / SLICE => sum * SLICE,
        _ => {
            return Err(AllocFailure::TooLarge {
                bytes: count as u64 * SLICE as u64,
            });
        }
    };
    let growth = pool.growth.lock();
    for region in pool.regions() {
        if let Some(first) = claim_across(pool, region, count, align, &growth)? {
            return Ok((region, first));
        }
    }
    let region = pool.add_region(needed, &growth)?;
    match claim_across(pool, region, count, align, &growth)? {
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
    count: usize,
    align: usize,
    growth: &Guard<'_, ()>,
) -> Result<Option<usize>, AllocFailure> {
    let fits = |start: usize, end: usize| {
        let first = round_up(start, align);
        (first + count <= end).then_some(first)
    };
    let grown = region.grown();
    // Where the run of free slices that the search is in begins.
    let mut start = region.lowest.begin().index().min(grown) * CHUNK_SLICES;
    for chunk in start / CHUNK_SLICES..grown {
        let base = chunk * CHUNK_SLICES;
        let free = record(region, chunk).free.load(Relaxed);
        if free == u64::MAX {
            continue;
        }
        let end = base + free.trailing_ones() as usize;
        if let Some(first) = fits(start, end)
            && claim_range(region, first, count)
        {
            return Ok(Some(first));
        }
        start = base + CHUNK_SLICES - free.leading_ones() as usize;
    }
    let limit = region.end() * CHUNK_SLICES;
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

/// Grows the region so that it holds the range, which is claimed on the way.
fn grow_over(
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
fn claim_range(region: &Region, first: usize, count: usize) -> bool {
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

/// Undoes a claim whose slices nobody has touched.
fn give_back(region: &Region, first: usize, count: usize) {
    for (chunk, taken) in pieces(first, count) {
        slots(region, chunk).release(taken);
    }
    region.lowest.lower(first / CHUNK_SLICES);
}

/// Commits what was claimed and books it.
fn take_over(
    pool: &Pool,
    region: &Region,
    first: usize,
    count: usize,
    zeroing: Zeroing,
) -> Result<Span, AllocFailure> {
    let uncommitted = pieces(first, count).any(|(chunk, wanted)| {
        // Acquire pairs with the Release in `commit`: the memory is usable.
        record(region, chunk).committed.load(Ordering::Acquire) & wanted != wanted
    });
    if uncommitted && let Err(Refused(errno)) = commit(pool, region, first, count) {
        give_back(region, first, count);
        return Err(AllocFailure::Commit { errno });
    }
    let mut zero = true;
    let mut clean = 0;
    for (chunk, wanted) in pieces(first, count) {
        let record = record(region, chunk);
        // Only the claimer changes the bits of a claimed slice.
        let dirty = record.dirty.load(Relaxed) & wanted;
        if dirty != 0 {
            record.dirty.fetch_and(!wanted, Relaxed);
            record.aged.fetch_and(!wanted, Relaxed);
            clean += u64::from(dirty.count_ones());
        }
        let zeroed = record.zero.load(Relaxed) & wanted;
        if zeroed != wanted {
            zero = false;
            if zeroing == Zeroing::Whole {
                fill_with_zero(region.chunk_address(chunk), wanted & !zeroed, count);
            }
        }
        if zeroed != 0 {
            record.zero.fetch_and(!wanted, Relaxed);
        }
    }
    if clean != 0 {
        pool.counts.dirty.fetch_sub(clean, Relaxed);
    }
    pool.counts.used.fetch_add(count as u64, Relaxed);
    let address = region.base() + first * SLICE;
    Ok(Span {
        address,
        slices: Slices(count),
        zero,
    })
}

/// In spans of at least that many slices it is cheaper to have the kernel take pages away, and
/// bring back those that are touched, than to clear them.
const TAKE_AWAY_MIN: usize = (64 << 20) / SLICE;

/// Clears slices of a chunk that belong to a span of `count`, committed and its claimer's own.
fn fill_with_zero(chunk: usize, slices: u64, count: usize) {
    for (first, length) in spans(slices) {
        // SAFETY: slices of the claimer's own, whose contents nobody wants.
        unsafe {
            clear(
                chunk + first as usize * SLICE,
                length as usize * SLICE,
                count,
            )
        };
    }
}

/// Makes pages that belong to a span of `count` slices read as zero.
///
/// # Safety
/// Whole committed pages of the caller's, whose contents nobody wants.
pub(super) unsafe fn clear(address: usize, len: usize, count: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        if count < TAKE_AWAY_MIN || map::purge(address, len).is_err() {
            core::ptr::write_bytes(address as *mut u8, 0, len);
        }
    }
}

/// Makes a claimed range usable: whole chunks in one call, so that mappings stay few; where the
/// kernel refuses that, the range alone.
fn commit(pool: &Pool, region: &Region, first: usize, count: usize) -> Result<(), Refused> {
    let from = first / CHUNK_SLICES;
    let to = (first + count).div_ceil(CHUNK_SLICES);
    // Making a slice that is free or another's readable and writable changes nothing for it.
    let (address, len) = (region.chunk_address(from), (to - from) * CHUNK);
    // SAFETY: chunks of this region's reservation.
    let whole = unsafe { map::commit(address, len) };
    if whole.is_ok() && pool.huge_pages() {
        // SAFETY: committed just now.
        unsafe { map::advise_huge(address, len, true) };
    }
    if whole.is_err() {
        // SAFETY: as above.
        unsafe { map::commit(region.base() + first * SLICE, count * SLICE)? };
    }
    for (chunk, wanted) in pieces(first, count) {
        let usable = if whole.is_ok() { u64::MAX } else { wanted };
        // Release pairs with the Acquire in `take_over`.
        let before = record(region, chunk)
            .committed
            .fetch_or(usable, Ordering::Release);
        pool.counts
            .committed
            .fetch_add(u64::from((usable & !before).count_ones()), Relaxed);
    }
    Ok(())
}

/// Gives a span back to its pool.
///
/// # Safety
/// The range was claimed as (part of) a span and is used by nobody.
pub(crate) unsafe fn release(pool: &Pool, address: usize, slices: Slices, contents: Contents) {
    let Some(region) = pool.region_of(address) else {
        return;
    };
    let first = (address - region.base()) / SLICE;
    for (chunk, range) in pieces(first, slices.0) {
        let record = record(region, chunk);
        // Noted before the slices are free: whoever claims them sees it.
        match contents {
            Contents::Dirty => {
                record.dirty.fetch_or(range, Relaxed);
                pool.counts
                    .dirty
                    .fetch_add(u64::from(range.count_ones()), Relaxed);
            }
            Contents::Zero => {
                record.zero.fetch_or(range, Relaxed);
            }
        }
        slots(region, chunk).release(range);
    }
    pool.counts.used.fetch_sub(slices.0 as u64, Relaxed);
    region.lowest.lower(first / CHUNK_SLICES);
}

/// Claims the `more` slices right behind a span that ends at `end`, so that it grows in place.
/// What they hold is unspecified. False, with nothing changed, if they are taken.
pub(crate) fn extend(pool: &Pool, end: usize, more: Slices) -> bool {
    // The byte before the end lies in the span, whose region is the one that can grow.
    let Some(region) = pool.region_of(end - 1) else {
        return false;
    };
    let first = (end - region.base()) / SLICE;
    let last = (first + more.0).div_ceil(CHUNK_SLICES);
    if last > region.end() {
        return false;
    }
    if last > region.grown() || more.0 > CHUNK_SLICES {
        let growth = pool.growth.lock();
        let old_end = region.grown() * CHUNK_SLICES;
        let below = (first + more.0).min(old_end).saturating_sub(first);
        if below > 0 && !claim_range(region, first, below) {
            return false;
        }
        let rest = first.max(old_end);
        if first + more.0 > rest
            && grow_over(pool, region, rest, first + more.0 - rest, &growth).is_err()
        {
            if below > 0 {
                give_back(region, first, below);
            }
            return false;
        }
    } else if !claim_range(region, first, more.0) {
        return false;
    }
    take_over(pool, region, first, more.0, Zeroing::None).is_ok()
}

/// Makes the hints of where free slices are agree with the words, while nobody else is here.
pub(crate) fn mend_hints(pool: &Pool) {
    for region in pool.regions() {
        chunks(region).for_each(|chunk| slots(region, chunk).refresh());
        region.lowest.lower(FIRST_CHUNK);
    }
}

/// The chunks of a region that have a record.
pub(crate) fn chunks(region: &Region) -> core::ops::Range<usize> {
    FIRST_CHUNK..region.grown()
}

/// The slices of a chunk that belong to nobody, a bit each.
pub(crate) fn free_slices(region: &Region, chunk: usize) -> u64 {
    record(region, chunk).free.load(Relaxed)
}

/// What a chunk's words say at one moment.
#[cfg(feature = "check")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkView {
    pub(crate) free: u64,
    pub(crate) committed: u64,
    pub(crate) dirty: u64,
    pub(crate) aged: u64,
    pub(crate) zero: u64,
    pub(crate) longest: u8,
}

/// Reads a chunk's words.
#[cfg(feature = "check")]
pub(crate) fn view(region: &Region, chunk: usize) -> ChunkView {
    let record = record(region, chunk);
    ChunkView {
        free: record.free.load(Relaxed),
        committed: record.committed.load(Relaxed),
        dirty: record.dirty.load(Relaxed),
        aged: record.aged.load(Relaxed),
        zero: record.zero.load(Relaxed),
        longest: slots(region, chunk).longest.load(Relaxed),
    }
}
