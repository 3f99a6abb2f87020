//! Spans of slices: first fit by address, so that a heap drains from the top.
//!
//! A span that fits a chunk is claimed with one compare-and-swap and no lock; for others see
//! [`across`](super::across).

use super::across::{across_chunks, claim_range, grow_over};
use super::bits::{mask, spans};
use super::chunk::{ChunkRecord, Slots};
use super::decay;
use super::descriptor::{Head, Kind};
use crate::os::lock::Guard;
use crate::os::map::Refused;
use crate::os::sync::{AtomicU8, Ordering, Ordering::Relaxed};
use crate::pool::region::{Region, record_address};
use crate::pool::{AllocFailure, Pool};
use crate::units::{CHUNK, CHUNK_SLICES, SLICE, Slices};

/// A span that was claimed: committed, and its claimer's alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) address: usize,
    pub(crate) slices: Slices,
    /// Those of them that hold what others wrote: their pages are resident.
    pub(crate) dirty: Slices,
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
pub(super) fn pieces(first: usize, count: usize) -> impl Iterator<Item = (usize, u64)> + Clone {
    let end = first + count;
    (first / CHUNK_SLICES..end.div_ceil(CHUNK_SLICES)).map(move |chunk| {
        let from = first.max(chunk * CHUNK_SLICES) - chunk * CHUNK_SLICES;
        let to = end.min((chunk + 1) * CHUNK_SLICES) - chunk * CHUNK_SLICES;
        (chunk, mask(from as u32, (to - from) as u32))
    })
}

/// The span that is searched for.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// Slices.
    pub(super) count: usize,
    /// In slices.
    pub(super) align: usize,
    /// Whether it may end at the end of a pool of a set size, where a slice has fewer bytes.
    may_be_last: bool,
}

impl Shape {
    /// Those slices of a chunk that the span may have.
    #[inline]
    fn allowed(&self, region: &Region, chunk: usize) -> u64 {
        let slices = region.slices_in(chunk);
        if self.may_be_last || chunk + 1 < region.end() {
            slices
        } else {
            slices >> 1
        }
    }

    /// One past the last slice of a region that the span may have.
    pub(super) fn limit(&self, region: &Region) -> usize {
        let last = region.end() - 1;
        last * CHUNK_SLICES + self.allowed(region, last).count_ones() as usize
    }
}

/// Claims a span of `slices` at a multiple of `align` slices, a power of two. At the end of a pool
/// of a set size it may have fewer bytes, but at least `least`.
pub(crate) fn allocate(
    pool: &Pool,
    slices: Slices,
    align: Slices,
    least: usize,
    zeroing: Zeroing,
) -> Result<Span, AllocFailure> {
    if pool.is_fixed() {
        return allocate_all_there_is(pool, slices, align, least, zeroing);
    }
    allocate_once(pool, slices, align, least, zeroing)
}

/// The same in a pool of a set size, where what is just being purged is room that counts.
#[inline(never)]
fn allocate_all_there_is(
    pool: &Pool,
    slices: Slices,
    align: Slices,
    least: usize,
    zeroing: Zeroing,
) -> Result<Span, AllocFailure> {
    decay::past_purges(|| allocate_once(pool, slices, align, least, zeroing))
}

#[inline(always)]
fn allocate_once(
    pool: &Pool,
    slices: Slices,
    align: Slices,
    least: usize,
    zeroing: Zeroing,
) -> Result<Span, AllocFailure> {
    let count = slices.0.max(1);
    let shape = Shape {
        count,
        align: align.0,
        may_be_last: !pool.is_fixed() || pool.room_at_end(Slices(count)) >= least,
    };
    // In a pool of a set size the ends of chunks leave no holes.
    let fits_chunk = count <= CHUNK_SLICES && align.0 <= CHUNK_SLICES;
    let claimed = if fits_chunk && (count == 1 || !pool.is_fixed()) {
        in_one_chunk(pool, shape)
    } else {
        across_chunks(pool, shape)
    };
    claimed.and_then(|(region, first)| take_over(pool, region, first, count, zeroing))
}

#[inline]
fn in_one_chunk(pool: &Pool, shape: Shape) -> Result<(&Region, usize), AllocFailure> {
    match search(pool, shape) {
        Some(found) => Ok(found),
        None => in_new_chunk(pool, shape),
    }
}

#[inline(always)]
fn search(pool: &Pool, shape: Shape) -> Option<(&Region, usize)> {
    for region in pool.regions() {
        if let Some(first) = search_region(region, shape) {
            return Some((region, first));
        }
    }
    None
}

#[cold]
#[inline(never)]
fn in_new_chunk(pool: &Pool, shape: Shape) -> Result<(&Region, usize), AllocFailure> {
    let can_grow = |region: &&Region| region.grown() < region.end();
    let growth = pool.growth.lock();
    // Another thread may have grown the pool in the meantime, or held slices that it did not need.
    if let Some(found) = search(pool, shape) {
        return Ok(found);
    }
    let region = match pool.regions().iter().find(can_grow) {
        Some(region) => region,
        None => pool.add_region(CHUNK, &growth)?,
    };
    let chunk = region.grown();
    let claimed = mask(0, shape.count as u32);
    if claimed & !shape.allowed(region, chunk) != 0 {
        return Err(full(shape));
    }
    grow(pool, region, chunk + 1, |_| claimed, &growth)?;
    Ok((region, chunk * CHUNK_SLICES))
}

pub(super) fn full(shape: Shape) -> AllocFailure {
    AllocFailure::PoolsFull {
        bytes: shape.count as u64 * SLICE as u64,
    }
}

/// First fit by address among the chunks that the region has.
#[inline(always)]
fn search_region(region: &Region, shape: Shape) -> Option<usize> {
    let (count, align) = (shape.count as u32, shape.align as u32);
    let seen = region.lowest.begin();
    let end = region.grown();
    let mut lowest = None;
    let mut found = None;
    for chunk in seen.index().max(region.first())..end {
        let slots = slots(region, chunk);
        let longest = slots.longest.load(Relaxed);
        if longest > 0 {
            lowest.get_or_insert(chunk);
            if u32::from(longest) >= count
                && let Some(first) = slots.claim(count, align, shape.allowed(region, chunk))
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
pub(super) fn grow(
    pool: &Pool,
    region: &Region,
    end: usize,
    claimed: impl Fn(usize) -> u64,
    growth: &Guard<'_, ()>,
) -> Result<(), AllocFailure> {
    pool.commit_descriptors(region, end, growth)?;
    for chunk in region.grown()..end {
        let record = record(region, chunk);
        let owner = core::ptr::from_ref(pool);
        owner.expose_provenance();
        record.pool.store(owner.cast_mut(), Relaxed);
        record
            .free
            .store(region.slices_in(chunk) & !claimed(chunk), Relaxed);
        record.committed.store(0, Relaxed);
        record.dirty.store(0, Relaxed);
        record.aged.store(0, Relaxed);
        record.zero.store(u64::MAX, Relaxed);
        slots(region, chunk).refresh();
    }
    pool.publish(region, end, growth);
    Ok(())
}

/// Undoes a claim whose slices nobody has touched.
pub(super) fn give_back(region: &Region, first: usize, count: usize) {
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
    let mut all_dirty = Slices(0);
    for (chunk, wanted) in pieces(first, count) {
        let record = record(region, chunk);
        // Only the claimer changes the bits of a claimed slice.
        let dirty = record.dirty.load(Relaxed) & wanted;
        if dirty != 0 {
            record.dirty.fetch_and(!wanted, Relaxed);
            record.aged.fetch_and(!wanted, Relaxed);
            all_dirty.0 += dirty.count_ones() as usize;
        }
        let zeroed = record.zero.load(Relaxed) & wanted;
        if zeroed != wanted {
            zero = false;
            if zeroing == Zeroing::Whole {
                fill_with_zero(pool, region.chunk_address(chunk), wanted & !zeroed, count);
            }
        }
        if zeroed != 0 {
            record.zero.fetch_and(!wanted, Relaxed);
        }
    }
    if all_dirty.0 != 0 {
        let all_dirty = all_dirty.0 as u64;
        pool.counts.dirty.fetch_sub(all_dirty, Relaxed);
    }
    pool.counts.used.fetch_add(count as u64, Relaxed);
    let address = region.base() + first * SLICE;
    Ok(Span {
        address,
        slices: Slices(count),
        dirty: all_dirty,
        zero,
    })
}

/// In spans of at least that many slices it is cheaper to have the kernel take pages away, and
/// bring back those that are touched, than to clear them.
const TAKE_AWAY_MIN: usize = (64 << 20) / SLICE;

/// Clears slices of a chunk that belong to a span of `count`, committed and its claimer's own.
fn fill_with_zero(pool: &Pool, chunk: usize, slices: u64, count: usize) {
    for (first, length) in spans(slices) {
        // SAFETY: slices of the claimer's own, whose contents nobody wants.
        unsafe {
            clear(
                pool,
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
unsafe fn clear(pool: &Pool, address: usize, len: usize, count: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let is_taken_away = count >= TAKE_AWAY_MIN
            && !pool.commits_anew()
            && pool.kind().purge(address, len).is_ok();
        if !is_taken_away {
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
    let whole = !pool.commits_anew() && unsafe { pool.commit(address, len) }.is_ok();
    if !whole {
        let (address, slices) = (region.base() + first * SLICE, Slices(count));
        // SAFETY: as above.
        unsafe { pool.commit(address, pool.mapped(address, slices))? };
    }
    for (chunk, wanted) in pieces(first, count) {
        let usable = if whole {
            region.slices_in(chunk)
        } else {
            wanted
        };
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
    region.lowest.lower(first / CHUNK_SLICES);
    // Last, since the pool may be over with it. Release pairs with the Acquire of who ends it.
    pool.counts
        .used
        .fetch_sub(slices.0 as u64, Ordering::Release);
}

/// The pool that has the slice at `address`.
///
/// # Safety
/// The address lies in a slice that was claimed from a pool.
#[inline]
pub(crate) unsafe fn pool_of(address: usize) -> &'static Pool {
    // SAFETY: the caller's promise: the chunk has a record, and pools are never given up.
    unsafe {
        let record = &*(record_address(address) as *const ChunkRecord);
        &*record.pool.load(Relaxed)
    }
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
    if last > region.end() || (pool.is_fixed() && first + more.0 > region.slices_end()) {
        return false;
    }
    // Under the lock if it is more than one step: a search under it sees no claim that is undone.
    if last > region.grown() || last - first / CHUNK_SLICES > 1 {
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
        region.lowest.lower(region.first());
    }
}

/// The chunks of a region that have a record.
pub(crate) fn chunks(region: &Region) -> core::ops::Range<usize> {
    region.first()..region.grown()
}

/// The slices of a chunk that belong to nobody, a bit each.
pub(crate) fn free_slices(region: &Region, chunk: usize) -> u64 {
    record(region, chunk).free.load(Relaxed)
}

/// Visits the descriptors of a region's spans; while threads take and give up some, of those that were
/// there when they were looked at.
pub(crate) fn for_each_head(region: &Region, mut visit: impl FnMut(&'static Head)) {
    // Slices of the last span that lie in chunks to come.
    let mut rest = 0;
    for chunk in chunks(region) {
        let used = region.slices_in(chunk) & !free_slices(region, chunk);
        let mut slice = rest.min(CHUNK_SLICES);
        rest -= slice;
        while slice < CHUNK_SLICES {
            if used >> slice & 1 == 0 {
                slice += 1;
                continue;
            }
            // SAFETY: a slice of a chunk that the region has.
            let head = unsafe { Head::of_slice(region.chunk_address(chunk) + slice * SLICE) };
            visit(head);
            slice += match head.kind() {
                Kind::None | Kind::Inner => 1,
                Kind::Run | Kind::Large | Kind::Kept | Kind::Guard => head.slices().0.max(1),
            };
        }
        rest += slice - CHUNK_SLICES;
    }
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
