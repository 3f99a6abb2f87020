//! Pools: sources of slices. One grows as the kernel lets it; the others have a set size.
//!
//! ```text
//! size = (slices - 1) * grain + bytes of the last slice
//! ```
//! A pool hands out slices. In a small pool only the first OS page of a slice may be used, its
//! *grain*: so there is room for runs of many size classes, and addresses cost nothing. A span of
//! n slices has n grains of bytes, from its start on. All else is the same.

use super::backing::Kind;
use super::failure::AllocFailure;
use super::gate::{Gate, Views};
use super::region::{REGION, REGIONS, Region};
use crate::config;
use crate::os::lock::{Guard, Lock};
use crate::os::map::{self, Ranges, Refused};
use crate::os::object::Object;
use crate::os::process::page_size;
use crate::os::sync::{
    AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::Relaxed,
};
use crate::units::{CHUNK, SLICE, Slices};
use core::ptr::null_mut;

/// A source of slices. Type-stable: once one has ended, its record serves another.
pub(crate) struct Pool {
    regions: &'static [Region],
    /// How many of them are made, and who looks at them without using anything of them.
    pub(super) views: Views,
    /// Held while regions and chunks are added and while spans across chunks are claimed.
    pub(crate) growth: Lock<()>,
    /// Bytes of slices that a new region is to have room for.
    region_bytes: AtomicUsize,
    huge_pages: AtomicBool,
    pub(crate) counts: Counts,
    /// Which pool it is; no other ever has that number.
    pub(super) id: AtomicU32,
    /// Bytes, or [`GROWING`].
    pub(super) size: AtomicU64,
    /// The largest request that it serves.
    pub(super) limit: AtomicU64,
    /// Bytes of a slice that may be used.
    pub(super) grain: AtomicUsize,
    pub(super) kind: AtomicU8,
    /// The file of its backing.
    pub(super) object: AtomicI32,
    pub(super) gate: Gate,
    /// Handles to it; it is closed with the last.
    pub(super) handles: AtomicU32,
    /// The record that was made after this one; that of the growing pool comes first.
    pub(super) next: AtomicPtr<Pool>,
}

/// What a pool has given out, in slices; each is exact at quiescence.
pub(crate) struct Counts {
    /// Slices that belong to runs and spans.
    pub(crate) used: AtomicU64,
    /// Free slices that hold what their last user wrote.
    pub(crate) dirty: AtomicU64,
    /// Slices that are readable and writable.
    pub(crate) committed: AtomicU64,
    /// Slices given back to the system so far.
    pub(crate) purged: AtomicU64,
    /// Spans that were asked for.
    pub(crate) requests: AtomicU64,
    /// Of those, spans that the next pool was asked for instead.
    pub(crate) fall_throughs: AtomicU64,
    /// And those that no pool had.
    pub(crate) failures: AtomicU64,
    /// Bytes that free pages inside living runs gave back so far.
    pub(crate) purged_in_runs: AtomicU64,
}

static DEFAULT_REGIONS: [Region; REGIONS] = [const { Region::new() }; REGIONS];
/// The pool that grows as the kernel lets it.
pub(crate) static DEFAULT: Pool = Pool::growing(&DEFAULT_REGIONS);

/// The region of [`DEFAULT`] that is made first; it holds nothing before.
#[inline(always)]
pub(super) fn first_region() -> &'static Region {
    &DEFAULT_REGIONS[0]
}

/// A new region is as large as a region slot.
const UNSET: usize = 0;
/// In place of a size.
const GROWING: u64 = 0;
/// No file.
pub(super) const NO_OBJECT: i32 = -1;
/// The number of the growing pool.
pub(crate) const GROWING_ID: u32 = u32::MAX;

impl Counts {
    const fn new() -> Counts {
        Counts {
            used: AtomicU64::new(0),
            dirty: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            purged: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            fall_throughs: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            purged_in_runs: AtomicU64::new(0),
        }
    }

    /// Begins anew.
    pub(super) fn begin(&self) {
        let Counts {
            used,
            dirty,
            committed,
            purged,
            requests,
            fall_throughs,
            failures,
            purged_in_runs,
        } = self;
        let all = [
            used,
            dirty,
            committed,
            purged,
            requests,
            fall_throughs,
            failures,
            purged_in_runs,
        ];
        all.into_iter().for_each(|count| count.store(0, Relaxed));
    }
}

impl Pool {
    pub(crate) const fn growing(regions: &'static [Region]) -> Pool {
        Pool {
            regions,
            views: Views::none(),
            growth: Lock::new(()),
            region_bytes: AtomicUsize::new(UNSET),
            huge_pages: AtomicBool::new(false),
            counts: Counts::new(),
            id: AtomicU32::new(GROWING_ID),
            size: AtomicU64::new(GROWING),
            limit: AtomicU64::new(u64::MAX),
            grain: AtomicUsize::new(SLICE),
            kind: AtomicU8::new(Kind::Memory as u8),
            object: AtomicI32::new(NO_OBJECT),
            gate: Gate::closed(),
            handles: AtomicU32::new(0),
            next: AtomicPtr::new(null_mut()),
        }
    }

    /// Whether its size is set.
    #[inline]
    pub(crate) fn is_fixed(&self) -> bool {
        self.size.load(Relaxed) != GROWING
    }

    /// Bytes that it may ever hand out together.
    pub(crate) fn size(&self) -> Option<u64> {
        Some(self.size.load(Relaxed)).filter(|&size| size != GROWING)
    }

    /// The largest request that it serves.
    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Relaxed)
    }

    /// Whether a request of `bytes` may enter it.
    pub(crate) fn admits(&self, bytes: usize) -> bool {
        bytes as u64 <= self.limit()
    }

    /// Bytes of a slice that may be used.
    #[inline]
    pub(crate) fn grain(&self) -> usize {
        self.grain.load(Relaxed)
    }

    /// Whether its slices are used up to their first pages only.
    pub(crate) fn is_small(&self) -> bool {
        self.grain() < SLICE
    }

    /// Which pool it is.
    pub(crate) fn id(&self) -> u32 {
        self.id.load(Relaxed)
    }

    /// What it is made of.
    pub(crate) fn kind(&self) -> Kind {
        Kind::of(self.kind.load(Relaxed))
    }

    /// The file of its backing.
    pub(crate) fn object(&self) -> Option<Object> {
        Some(self.object.load(Relaxed))
            .filter(|&fd| fd != NO_OBJECT)
            .map(Object)
    }

    /// As many slices as have `bytes` that may be used.
    pub(crate) fn slices_for(&self, bytes: usize) -> Option<Slices> {
        if self.is_small() {
            Some(Slices(bytes.div_ceil(self.grain())))
        } else {
            Slices::holding(bytes)
        }
    }

    /// The slices of a pool of a set size.
    pub(crate) fn slices(&self) -> Slices {
        let size = self.size.load(Relaxed) as usize;
        Slices(size.div_ceil(self.grain()))
    }

    /// Bytes of the last slice that may be used.
    fn last_grain(&self) -> usize {
        let size = self.size.load(Relaxed) as usize;
        size - (self.slices().0 - 1) * self.grain()
    }

    /// Bytes that may be used in a span of so many slices at the pool's end.
    pub(crate) fn room_at_end(&self, slices: Slices) -> usize {
        (slices.0 - 1) * self.grain() + self.last_grain()
    }

    /// Bytes that may be used in a span.
    pub(crate) fn room(&self, address: usize, slices: Slices) -> usize {
        if self.is_fixed() && self.is_last(address + slices.bytes()) {
            self.room_at_end(slices)
        } else if self.has_guards() && (address + slices.bytes()).is_multiple_of(CHUNK) {
            slices.bytes() - page_size()
        } else {
            slices.0 * self.grain()
        }
    }

    /// Whether spans have guard pages: in the secure profile, but for pools whose sizes are to be
    /// kept to the byte. The last page of a chunk is one then, unless a large block goes over it.
    pub(crate) fn has_guards(&self) -> bool {
        config::is_secure() && !self.is_fixed()
    }

    /// Bytes of a range of slices that are mapped: an object ends with the pool.
    pub(crate) fn mapped(&self, address: usize, slices: Slices) -> usize {
        if self.kind().is_object() && !self.is_small() {
            self.room(address, slices).next_multiple_of(page_size())
        } else {
            slices.bytes()
        }
    }

    /// Whether the slices of a pool of a set size end here.
    fn is_last(&self, end: usize) -> bool {
        let region = &self.regions[0];
        end == region.chunk_address(region.first()) + self.slices().bytes()
    }

    /// Bytes of slices that are readable and writable.
    pub(crate) fn committed_bytes(&self) -> u64 {
        self.counts.committed.load(Relaxed) * SLICE as u64
    }

    /// Bytes given back to the system so far.
    pub(crate) fn purged_bytes(&self) -> u64 {
        self.counts.purged.load(Relaxed) * self.grain() as u64
            + self.counts.purged_in_runs.load(Relaxed)
    }

    /// Bytes of slices that belong to runs and spans.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.counts.used.load(Relaxed) * self.grain() as u64
    }

    /// Bytes of slices that are free and hold what their last user wrote.
    pub(crate) fn dirty_bytes(&self) -> u64 {
        self.counts.dirty.load(Relaxed) * self.grain() as u64
    }

    /// Its regions, made or not.
    pub(super) fn own_regions(&self) -> &'static [Region] {
        self.regions
    }

    /// Makes a part of a region usable.
    ///
    /// # Safety
    /// Slices of this pool that the caller has claimed, or whole chunks of it.
    pub(crate) unsafe fn commit(&self, address: usize, len: usize) -> Result<(), Refused> {
        match self.kind() {
            Kind::Memory | Kind::TransparentHuge => {
                // SAFETY: the caller's promise.
                unsafe { map::commit(address, len)? };
                if self.huge_pages() {
                    // SAFETY: committed just now.
                    unsafe { map::advise_huge(address, len, true) };
                }
                Ok(())
            }
            Kind::File => match self.object() {
                Some(object) => object.set_aside(address - self.start(), len),
                None => Ok(()),
            },
            Kind::HugePages | Kind::Shared => Ok(()),
        }
    }

    /// Makes memory of the process's own of it, all zero, in place of an object that was kept out of
    /// this forked child. False where the kernel refuses: then nothing of it may be touched.
    pub(crate) fn map_own(&self) -> bool {
        // SAFETY: the pool's own range, at which nothing is mapped.
        let mapped = unsafe { map::map_afresh(self.start(), self.slices().bytes(), false) };
        if mapped.is_ok()
            && let Some(object) = self.object()
        {
            object.close();
            self.object.store(NO_OBJECT, Relaxed);
            self.kind.store(Kind::Memory as u8, Relaxed);
        }
        mapped.is_ok()
    }

    /// Whether usable slices are usable no more once they are purged.
    pub(crate) fn commits_anew(&self) -> bool {
        self.kind() == Kind::File
    }

    /// Has a range read as zero: its whole pages are taken away, or else written to.
    ///
    /// # Safety
    /// The range is used memory of this pool from a page on, whose contents nobody wants.
    pub(crate) unsafe fn clear(&self, address: usize, bytes: usize) {
        let pages = bytes & !(page_size() - 1);
        let mut ranges = Ranges::new();
        ranges.add(address, pages);
        // SAFETY: the caller's promise.
        unsafe {
            let is_purged = self.purge_inside(&ranges) == pages;
            let cleared = if is_purged { pages } else { 0 };
            core::ptr::write_bytes((address + cleared) as *mut u8, 0, bytes - cleared);
        }
    }

    /// Gives pages inside a living run back. Returns the bytes of ranges that were not refused.
    ///
    /// # Safety
    /// Whole committed pages of this pool whose contents nobody wants.
    pub(crate) unsafe fn purge_inside(&self, ranges: &Ranges) -> usize {
        let mut bytes = 0;
        if !self.commits_anew() {
            // SAFETY: the caller's promise.
            unsafe { self.kind().purge_ranges(ranges, |_, len| bytes += len) };
        }
        bytes
    }

    /// Where a pool of a set size starts.
    pub(crate) fn start(&self) -> usize {
        let region = &self.regions[0];
        region.chunk_address(region.first())
    }

    /// Lets the caller take memory from it until the guard is dropped. `None` if it is closed, or
    /// another pool than that of the number by now.
    pub(crate) fn enter(&'static self, id: u32) -> Option<Inside> {
        if !self.is_fixed() {
            return Some(Inside(None));
        }
        if !self.gate.enter() {
            return None;
        }
        // Only now: to drop one is to leave.
        let inside = Inside(Some(&self.gate));
        (self.id() == id).then_some(inside)
    }

    /// Sets how many bytes of slices a new region has room for.
    pub(crate) fn set_region_bytes(&self, bytes: usize) {
        self.region_bytes.store(bytes, Relaxed);
    }

    /// Asks for transparent huge pages in what is committed from now on.
    pub(crate) fn set_huge_pages(&self, wanted: bool) {
        self.huge_pages.store(wanted, Relaxed);
    }

    /// Whether huge pages are asked for.
    pub(crate) fn huge_pages(&self) -> bool {
        self.huge_pages.load(Relaxed)
    }

    /// The regions made so far, in the order in which they are searched.
    #[inline]
    pub(crate) fn regions(&self) -> &'static [Region] {
        &self.regions[..self.views.made() as usize]
    }

    /// The region whose slices hold `address`.
    pub(crate) fn region_of(&self, address: usize) -> Option<&'static Region> {
        self.regions()
            .iter()
            .find(|region| region.contains(address))
    }

    /// Reserves one more region, with room for at least `needed` bytes. The guard proves that
    /// nobody else does.
    pub(crate) fn add_region(
        &self,
        needed: usize,
        _growth: &Guard<'_, ()>,
    ) -> Result<&Region, AllocFailure> {
        if self.is_fixed() {
            return Err(AllocFailure::PoolsFull {
                bytes: needed as u64,
            });
        }
        if needed >= REGION {
            return Err(AllocFailure::TooLarge {
                bytes: needed as u64,
            });
        }
        let made = self.views.made() as usize;
        let region = self.regions.get(made).ok_or(AllocFailure::AddressSpace {
            errno: libc::ENOMEM,
        })?;
        let wanted = match self.region_bytes.load(Relaxed) {
            UNSET => REGION,
            bytes => bytes,
        };
        region
            .reserve(wanted, needed)
            .map_err(|Refused(errno)| AllocFailure::AddressSpace { errno })?;
        region
            .commit_records()
            .map_err(|Refused(errno)| AllocFailure::Commit { errno })?;
        self.views.set_made(made as u64 + 1);
        Ok(region)
    }

    /// Makes the descriptors of the chunks from the region's last to below `end` usable. The
    /// caller initialises their records and then calls [`publish`](Self::publish).
    pub(crate) fn commit_descriptors(
        &self,
        region: &Region,
        end: usize,
        _growth: &Guard<'_, ()>,
    ) -> Result<(), AllocFailure> {
        region
            .commit_descriptors(region.grown(), end)
            .map_err(|Refused(errno)| AllocFailure::Commit { errno })
    }

    /// Lets everybody see the chunks below `end`.
    pub(crate) fn publish(&self, region: &Region, end: usize, _growth: &Guard<'_, ()>) {
        region.publish(end);
    }

    /// Bytes of address space that are reserved.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        self.regions()
            .iter()
            .map(|region| region.reserved() as u64)
            .sum()
    }
}

/// Proof that a pool does not end.
pub(crate) struct Inside(Option<&'static Gate>);

impl Drop for Inside {
    fn drop(&mut self) {
        if let Some(gate) = self.0 {
            gate.leave();
        }
    }
}

/// `bytes` rounded up to whole OS pages; `None` if that overflows.
pub(crate) fn page_rounded(bytes: usize) -> Option<usize> {
    let page = page_size();
    bytes.checked_add(page - 1).map(|sum| sum & !(page - 1))
}
