//! Regions: reserved ranges of address space at fixed alignment, so that the descriptor of any
//! address inside follows from the address by arithmetic.
//!
//! ```text
//! base (aligned to the region slot)                                       base + 2^REGION_SHIFT
//! | descriptors       | chunk records | longest | gap     | slices ...                        |
//! | 128 B a slice     | 64 B a chunk  | 1 B     | (guard) | SLICE each, 64 to a chunk         |
//! ```
//! Descriptors, records and slices are committed as the region grows. Where address space is
//! limited only the parts that belong to a shorter range of slices are reserved, each at the place
//! that the arithmetic wants.

use super::lowest::Lowest;
use crate::os::map::{self, Refused};
use crate::os::process::{self, page_size};
use crate::os::sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::os::{ADDRESS_BITS, REGION_SHIFT};
use crate::units::{CHUNK, CHUNK_SLICES, SLICE, SLICE_SHIFT, round_up};

/// Bytes of a descriptor.
pub(crate) const DESCRIPTOR: usize = 128;
/// Bytes of a chunk's record.
pub(crate) const CHUNK_RECORD: usize = 64;
/// Chunks whose descriptors share an OS page with no other chunk's, where regions share a slot.
pub(super) fn chunks_of_a_page() -> usize {
    (page_size() / CHUNK_DESCRIPTORS).max(1)
}

/// Bytes of a region slot.
pub(crate) const REGION: usize = 1 << REGION_SHIFT;
/// Chunks that a region slot has room for, those under its own tables included.
const CHUNKS: usize = REGION / CHUNK;
const TABLE_BYTES: usize = REGION / SLICE * DESCRIPTOR;
const RECORDS_OFFSET: usize = TABLE_BYTES;
const LONGEST_OFFSET: usize = RECORDS_OFFSET + CHUNKS * CHUNK_RECORD;
/// Where slices begin, at least a chunk behind the last table.
const DATA_OFFSET: usize = round_up(LONGEST_OFFSET + CHUNKS, CHUNK) + CHUNK;
/// The first chunk that holds slices.
pub(crate) const FIRST_CHUNK: usize = DATA_OFFSET / CHUNK;
/// The descriptors of one chunk.
const CHUNK_DESCRIPTORS: usize = CHUNK / SLICE * DESCRIPTOR;
/// Regions that an address space has room for.
pub(crate) const REGIONS: usize = 1 << (ADDRESS_BITS - REGION_SHIFT);
/// Region slots that may lie beyond what addresses there are: the last one on x86-64, half of all
/// where the address space has 38 bits.
const UNUSABLE_SLOTS: usize = 4;
/// The shortest range of slices that is worth a region, where it can be had.
const SMALLEST: usize = 8 * CHUNK;

/// The descriptor of the slice that holds `address`. Meaningful only inside a region.
#[inline(always)]
pub(crate) fn descriptor_address(address: usize) -> usize {
    let base = address & !(REGION - 1);
    let offset = (address >> (SLICE_SHIFT - DESCRIPTOR.trailing_zeros()))
        & (TABLE_BYTES - 1)
        & !(DESCRIPTOR - 1);
    base | offset
}

/// The record of the chunk that holds `address`. Meaningful only inside a region.
#[inline]
pub(crate) fn record_address(address: usize) -> usize {
    let base = address & !(REGION - 1);
    base + RECORDS_OFFSET + (address - base) / CHUNK * CHUNK_RECORD
}

/// The slice whose descriptor is at `descriptor`.
#[inline]
pub(crate) fn slice_address(descriptor: usize) -> usize {
    let base = descriptor & !(REGION - 1);
    base | ((descriptor & (TABLE_BYTES - 1)) << (SLICE_SHIFT - DESCRIPTOR.trailing_zeros()))
}

/// A range of slices in a region slot, whose tables describe them.
pub(crate) struct Region {
    /// Where the slices begin, and how many bytes of them have descriptors.
    start: AtomicUsize,
    bytes: AtomicUsize,
    /// Start of the region slot; 0 until the region is made.
    base: AtomicUsize,
    /// The first chunk.
    first: AtomicU32,
    /// One past the last chunk that may be used.
    end: AtomicU32,
    /// The slices that there are in the last chunk, a bit each.
    last: AtomicU64,
    /// One past the last chunk whose record and descriptors are committed.
    grown: AtomicU32,
    /// Bytes of address space that are reserved.
    reserved: AtomicUsize,
    /// Where a search for free slices begins.
    pub(crate) lowest: Lowest,
}

impl Region {
    pub(crate) const fn new() -> Self {
        Region {
            start: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            base: AtomicUsize::new(0),
            first: AtomicU32::new(FIRST_CHUNK as u32),
            end: AtomicU32::new(0),
            last: AtomicU64::new(u64::MAX),
            grown: AtomicU32::new(FIRST_CHUNK as u32),
            reserved: AtomicUsize::new(0),
            lowest: Lowest::new(FIRST_CHUNK),
        }
    }

    /// Start of the region slot.
    #[inline]
    pub(crate) fn base(&self) -> usize {
        self.base.load(Ordering::Relaxed)
    }

    /// The first chunk.
    #[inline]
    pub(crate) fn first(&self) -> usize {
        self.first.load(Ordering::Relaxed) as usize
    }

    /// The slices that there are in a chunk, a bit each.
    pub(crate) fn slices_in(&self, chunk: usize) -> u64 {
        if chunk + 1 == self.end() {
            self.last.load(Ordering::Relaxed)
        } else {
            u64::MAX
        }
    }

    /// One past the last slice, counted from the start of the slot.
    pub(crate) fn slices_end(&self) -> usize {
        let last = self.end() - 1;
        last * CHUNK_SLICES + self.slices_in(last).count_ones() as usize
    }

    /// One past the last chunk that may be used.
    pub(crate) fn end(&self) -> usize {
        self.end.load(Ordering::Relaxed) as usize
    }

    /// One past the last chunk that has a record.
    #[inline]
    pub(crate) fn grown(&self) -> usize {
        // Acquire pairs with the Release in `publish`: the records below are initialised.
        self.grown.load(Ordering::Acquire) as usize
    }

    /// Bytes of address space that are reserved.
    pub(crate) fn reserved(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Address of a chunk.
    #[inline]
    pub(crate) fn chunk_address(&self, chunk: usize) -> usize {
        self.base() + chunk * CHUNK
    }

    /// Address of a chunk's record.
    #[inline]
    pub(crate) fn record_address(&self, chunk: usize) -> usize {
        self.base() + RECORDS_OFFSET + chunk * CHUNK_RECORD
    }

    /// Address of the byte that says how long a span fits into the chunk.
    #[inline]
    pub(crate) fn longest_address(&self, chunk: usize) -> usize {
        self.base() + LONGEST_OFFSET + chunk
    }

    /// Whether `address` lies in a slice of this region that has a descriptor.
    #[inline(always)]
    pub(crate) fn contains(&self, address: usize) -> bool {
        let offset = address.wrapping_sub(self.start.load(Ordering::Relaxed));
        // Acquire: as in `grown`.
        offset < self.bytes.load(Ordering::Acquire)
    }

    /// Reserves the region with room for `wanted` bytes of slices, fewer if the limit on address
    /// space asks for it or the kernel refuses, at least `needed`. Called once, under the pool's
    /// growth lock.
    pub(super) fn reserve(&self, wanted: usize, needed: usize) -> Result<(), Refused> {
        let needed = round_up(needed, CHUNK);
        if needed > REGION - DATA_OFFSET {
            return Err(Refused(libc::ENOMEM));
        }
        let most = match process::address_space_limit() {
            Some(limit) => round_up((limit / 4) as usize, CHUNK).min(wanted),
            None => wanted,
        };
        let mut len = most.max(SMALLEST).clamp(needed, REGION - DATA_OFFSET);
        loop {
            match self.reserve_exactly(len) {
                Ok(()) => return Ok(()),
                Err(refused) if len == needed => return Err(refused),
                Err(_) => len = round_up((len / 2).max(needed), CHUNK),
            }
        }
    }

    /// Tries region slots from a random one on.
    fn reserve_exactly(&self, len: usize) -> Result<(), Refused> {
        let start = process::entropy() as usize;
        let mut refused = Refused(libc::ENOMEM);
        let mut refusals = 0;
        for step in 0..REGIONS {
            let slot = (start.wrapping_add(step)) % REGIONS;
            if slot == 0 {
                continue;
            }
            match self.reserve_in(slot << REGION_SHIFT, len) {
                Ok(()) => return Ok(()),
                // Something else is mapped there: the next slot.
                Err(Refused(libc::EEXIST)) => {}
                // The slot ends beyond what addresses there are, as a few do, or the kernel has no
                // more, and says so for each.
                Err(other) => {
                    refused = other;
                    refusals += 1;
                    if refusals > UNUSABLE_SLOTS {
                        break;
                    }
                }
            }
        }
        Err(refused)
    }

    fn reserve_in(&self, base: usize, len: usize) -> Result<(), Refused> {
        let end = FIRST_CHUNK + len / CHUNK;
        for (index, (address, len)) in parts(base, end).enumerate() {
            if let Err(refused) = map::reserve_at(address, len) {
                for (address, len) in parts(base, end).take(index) {
                    // SAFETY: reserved just now, seen by nobody.
                    unsafe { map::release(address, len) };
                }
                return Err(refused);
            }
            // A huge page under a sparse heap makes megabytes resident for a few blocks.
            // SAFETY: reserved just now.
            unsafe { map::advise_huge(address, len, false) };
        }
        let reserved = parts(base, end).map(|part| part.1).sum();
        self.reserved.store(reserved, Ordering::Relaxed);
        self.end.store(end as u32, Ordering::Relaxed);
        self.base.store(base, Ordering::Relaxed);
        Ok(())
    }

    /// Commits the chunk records and the bytes beside them: a few pages a TiB are touched. If the
    /// kernel refuses, gives the region up. Under the pool's growth lock, before others see it.
    pub(super) fn commit_records(&self) -> Result<(), Refused> {
        let (base, end) = (self.base(), self.end());
        for (offset, size) in [(RECORDS_OFFSET, CHUNK_RECORD), (LONGEST_OFFSET, 1)] {
            let page = page_size();
            let from = (base + offset + FIRST_CHUNK * size) & !(page - 1);
            let to = round_up(base + offset + end * size, page);
            // SAFETY: inside this region's reservation.
            if let Err(refused) = unsafe { map::commit(from, to - from) } {
                for (address, len) in parts(base, end) {
                    // SAFETY: reserved by this region, seen by nobody.
                    unsafe { map::release(address, len) };
                }
                self.reserved.store(0, Ordering::Relaxed);
                self.base.store(0, Ordering::Relaxed);
                return Err(refused);
            }
        }
        Ok(())
    }

    /// Makes this the range of `slices` slices from chunk `first` on of the slot that another
    /// region has reserved, with its tables. Nobody uses it.
    pub(super) fn take_part(&self, slot: &Region, first: usize, slices: usize) {
        let end = first + slices.div_ceil(CHUNK_SLICES);
        let rest = slices % CHUNK_SLICES;
        let last = u64::MAX >> ((CHUNK_SLICES - rest) % CHUNK_SLICES);
        self.last.store(last, Ordering::Relaxed);
        self.first.store(first as u32, Ordering::Relaxed);
        self.end.store(end as u32, Ordering::Relaxed);
        self.lowest.set(first);
        self.base.store(slot.base(), Ordering::Relaxed);
        self.publish(first);
    }

    /// Commits the descriptors of the chunks below `end`. Under the pool's growth lock.
    pub(super) fn commit_descriptors(&self, from: usize, end: usize) -> Result<(), Refused> {
        let (done, to) = (self.descriptors_to(from), self.descriptors_to(end));
        if to > done {
            // SAFETY: inside this region's reservation.
            unsafe { map::commit(done, to - done)? };
            super::metadata::count_mapped(to - done);
        }
        Ok(())
    }

    /// Where the descriptors end that are committed together with those of the chunks below `end`:
    /// whole steps, which stay inside the region where it shares a slot with others.
    fn descriptors_to(&self, end: usize) -> usize {
        let (step, page) = (page_size().max(SLICE), page_size());
        let address = |chunk: usize| self.base() + chunk * CHUNK_DESCRIPTORS;
        let from = address(self.first()) & !(page - 1);
        if end == self.first() {
            return from;
        }
        let whole = round_up(address(end), step);
        whole.min(round_up(address(self.end()), page))
    }

    /// Gives up what the slices of a region hold and takes access away; the descriptors of its
    /// chunks are committed anew for the next one. Nobody uses it.
    ///
    /// # Safety
    /// The region is part of a slot, and nobody uses any of its slices.
    pub(super) unsafe fn leave_part(&self) -> Result<(), Refused> {
        let (from, to) = (
            self.descriptors_to(self.first()),
            self.descriptors_to(self.grown()),
        );
        let (address, len) = (
            self.chunk_address(self.first()),
            (self.end() - self.first()) * CHUNK,
        );
        // SAFETY: the caller's promise; descriptors of free slices describe nothing.
        unsafe {
            map::reserve_again(address, len)?;
            map::advise_huge(address, len, false);
            if to > from {
                let _ = map::purge(from, to - from);
                super::metadata::count_unmapped(to - from);
            }
        }
        Ok(())
    }

    /// Lets readers see the chunks below `end`, whose records are initialised.
    pub(super) fn publish(&self, end: usize) {
        let first = self.first();
        self.start
            .store(self.chunk_address(first), Ordering::Relaxed);
        // Release pairs with the Acquire in `contains`, and below in `grown`.
        self.bytes.store((end - first) * CHUNK, Ordering::Release);
        self.grown.store(end as u32, Ordering::Release);
    }
}

/// What a region with slices up to the chunk `end` reserves: address and length.
fn parts(base: usize, end: usize) -> impl Iterator<Item = (usize, usize)> {
    let all = if end == CHUNKS {
        [(base, REGION), (0, 0), (0, 0), (0, 0)]
    } else {
        let page = page_size().max(SLICE);
        let part = |offset: usize, size: usize| {
            let from = (base + offset + FIRST_CHUNK * size) & !(page - 1);
            let to = round_up(base + offset + end * size, page);
            (from, to - from)
        };
        [
            part(0, CHUNK_DESCRIPTORS),
            part(RECORDS_OFFSET, CHUNK_RECORD),
            part(LONGEST_OFFSET, 1),
            part(0, CHUNK),
        ]
    };
    all.into_iter().filter(|part| part.1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptor_arithmetic_is_its_own_inverse() {
        let base = 5 * REGION;
        for slice in [
            DATA_OFFSET / SLICE,
            DATA_OFFSET / SLICE + 1,
            REGION / SLICE - 1,
        ] {
            let address = base + slice * SLICE;
            for inner in [0, 1, SLICE / 2, SLICE - 1] {
                let descriptor = descriptor_address(address + inner);
                assert_eq!(descriptor, base + slice * DESCRIPTOR);
                assert_eq!(slice_address(descriptor), address);
            }
        }
    }

    #[test]
    fn tables_lie_below_the_slices() {
        const { assert!(LONGEST_OFFSET + CHUNKS + CHUNK <= DATA_OFFSET) };
        assert_eq!(DATA_OFFSET % CHUNK, 0);
    }

    #[test]
    fn a_region_can_be_short() {
        let region = Region::new();
        region.reserve(SMALLEST, 1 << 20).unwrap();
        region.commit_records().unwrap();
        assert_eq!(region.end() - FIRST_CHUNK, SMALLEST / CHUNK);
        region
            .commit_descriptors(FIRST_CHUNK, FIRST_CHUNK + 3)
            .unwrap();
        region.publish(FIRST_CHUNK + 3);
        let address = region.chunk_address(FIRST_CHUNK);
        assert!(region.contains(address));
        assert!(!region.contains(region.chunk_address(FIRST_CHUNK + 3)));
        // SAFETY: committed, and nobody else knows of it.
        unsafe { *(descriptor_address(address + CHUNK - 1) as *mut u8) = 1 };
    }
}
