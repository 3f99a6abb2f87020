//! Pools of a set size: how they are made, and how they end.
//!
//! Several share a region slot, since an address space has few: each has a range of chunks of it,
//! at the lowest place that no other has. A pool ends once it is closed, nobody takes anything from
//! it, and nothing of it is used: its memory is given up, and its record and its addresses may
//! serve another. Who sees to that keeps all others from giving memory back meanwhile.

use super::backing::{Backing, Kind};
use super::failure::PoolError;
use super::record::{DEFAULT, NO_OBJECT, Pool, first_region};
use super::region::{FIRST_CHUNK, REGION, REGIONS, Region, chunks_of_a_page};
use super::spec::{LEAST_BYTES, MOST_BYTES, PoolSpec};
use super::{metadata, router};
use crate::os::lock::Lock;
use crate::os::map::Refused;
use crate::os::process::{self, Line, end_with, page_size};
use crate::os::sync::{AtomicU32, AtomicU64, Ordering, Ordering::Relaxed};
use crate::os::thread::give_way;
use crate::units::{CHUNK, CHUNK_SLICES, SLICE};
use core::fmt::Write as _;

/// Pools of fewer bytes use of each slice only the first page.
const SMALL: u64 = 16 << 20;

/// What a pool is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    /// Bytes.
    pub(crate) size: u64,
    /// The largest request that it serves; `u64::MAX` for any.
    pub(crate) limit: u64,
    pub(crate) backing: Backing<'a>,
}

impl Plan<'_> {
    /// Whether the numbers are in range.
    pub(crate) fn verify(&self) -> Result<(), PoolError> {
        if !(LEAST_BYTES..=MOST_BYTES).contains(&self.size) {
            return Err(PoolError::Size {
                bytes: self.size,
                least: LEAST_BYTES,
                most: MOST_BYTES,
            });
        }
        if self.limit != u64::MAX && !(LEAST_BYTES..=self.size).contains(&self.limit) {
            return Err(PoolError::Limit {
                bytes: self.limit,
                least: LEAST_BYTES,
                most: self.size,
            });
        }
        Ok(())
    }

    fn grain(&self) -> usize {
        // Disk space is set aside by the slice.
        if self.size < SMALL && self.backing.kind() != Kind::File {
            page_size().min(SLICE)
        } else {
            SLICE
        }
    }

    fn slices(&self) -> usize {
        (self.size as usize).div_ceil(self.grain())
    }

    fn chunks(&self) -> usize {
        let chunks = self.slices().div_ceil(CHUNK_SLICES);
        chunks.next_multiple_of(chunks_of_a_page())
    }

    fn refused(&self, Refused(errno): Refused) -> PoolError {
        match self.backing.kind() {
            Kind::HugePages => PoolError::HugePages {
                bytes: self.size,
                errno,
            },
            Kind::File => PoolError::File { errno },
            Kind::Shared => PoolError::Shared { errno },
            Kind::Memory | Kind::TransparentHuge => PoolError::AddressSpace {
                bytes: self.size,
                errno,
            },
        }
    }
}

/// Held while pools are made and taken apart.
pub(super) static MAKING: Lock<()> = Lock::new(());
static NEXT_ID: AtomicU32 = AtomicU32::new(0);
/// The region slots that pools of a set size share.
static SLOTS: [Region; REGIONS] = [const { Region::new() }; REGIONS];
static SLOTS_MADE: AtomicU32 = AtomicU32::new(0);

/// All pools that have not ended: the growing one, then the others in the order in which their
/// records were first used.
pub(crate) fn all() -> All {
    All {
        next: &raw const DEFAULT,
    }
}

/// Whether an address, which may be anything, lies in a slice that has a descriptor.
#[inline]
pub(crate) fn holds(address: usize) -> bool {
    holds_first(address) || is_elsewhere(address)
}

/// The same of the region where the growing pool's memory lies, but for the largest heaps.
#[inline(always)]
pub(crate) fn holds_first(address: usize) -> bool {
    first_region().contains(address)
}

#[cold]
#[inline(never)]
fn is_elsewhere(address: usize) -> bool {
    all().any(|pool| pool.region_of(address).is_some())
}

/// The pools of a set size that have not ended.
pub(crate) fn fixed() -> impl Iterator<Item = &'static Pool> + Clone {
    all().skip(1)
}

/// All pools that have not ended.
#[derive(Clone)]
pub(crate) struct All {
    next: *const Pool,
}

impl Iterator for All {
    type Item = &'static Pool;

    fn next(&mut self) -> Option<&'static Pool> {
        loop {
            // SAFETY: records are never given up.
            let pool = unsafe { self.next.as_ref()? };
            // Acquire pairs with the Release in `record`: the next one is initialised.
            self.next = pool.next.load(Ordering::Acquire);
            // Other records without regions serve no pool: none yet, or none any more.
            if core::ptr::eq(pool, &DEFAULT) || !pool.regions().is_empty() {
                return Some(pool);
            }
        }
    }
}

/// Bytes of address space that are reserved for pools of a set size.
pub(crate) fn reserved_bytes() -> u64 {
    slots().iter().map(|slot| slot.reserved() as u64).sum()
}

fn slots() -> &'static [Region] {
    // Acquire pairs with the Release in `make_slot`.
    &SLOTS[..SLOTS_MADE.load(Ordering::Acquire) as usize]
}

/// Makes the pools of a specification; `backings` go with the first of them, the others are of
/// ordinary memory. Once, before the first request is served. Where one cannot be had the process
/// ends: no other layout of memory is what was asked for.
pub(crate) fn configure(spec: &PoolSpec, backings: &'static [Backing<'static>]) {
    let plan = |index: u8| {
        let config = spec.get(index as usize)?;
        Some(Plan {
            size: config.size,
            limit: config.limit.unwrap_or(u64::MAX),
            backing: backings.get(index as usize).copied().unwrap_or_default(),
        })
    };
    let plans = (0..spec.len() as u8).filter_map(plan);
    // Together, so that they lie close to each other where address space is limited. Where that
    // cannot be had each pool looks for its own.
    let chunks = plans.clone().map(|plan| plan.chunks()).sum();
    let making = MAKING.lock();
    let _ = make_slot(chunks);
    drop(making);
    for (index, plan) in plans.enumerate() {
        if let Err(error) = make(&plan) {
            refuse(index, error);
        }
    }
    for &index in spec.order() {
        fixed()
            .filter(|pool| pool.id() == u32::from(index))
            .for_each(router::configure);
    }
}

fn refuse(index: usize, error: PoolError) -> ! {
    let mut line = Line::<512>::new();
    let _ = write!(line, "bursar: pool {}: {error}", index + 1);
    end_with(line.text())
}

/// Makes a pool, with one handle.
pub(crate) fn make(plan: &Plan<'_>) -> Result<&'static Pool, PoolError> {
    let _making = MAKING.lock();
    let pool = record().ok_or(PoolError::Metadata)?;
    let region = &pool.own_regions()[0];
    let (slot, first) = place(plan.chunks()).map_err(|Refused(errno)| PoolError::AddressSpace {
        bytes: plan.size,
        errno,
    })?;
    region.take_part(slot, first, plan.slices());
    let len = if plan.grain() < SLICE {
        plan.slices() * SLICE
    } else {
        plan.size as usize
    };
    // SAFETY: a range of the slot that no pool has.
    let object = match unsafe { plan.backing.map(region.chunk_address(first), len) } {
        Ok(object) => object.map_or(NO_OBJECT, |object| object.0),
        Err(refused) => {
            // SAFETY: nobody has seen the region.
            let _ = unsafe { region.leave_part() };
            return Err(plan.refused(refused));
        }
    };
    let kind = plan.backing.kind();
    pool.id.store(NEXT_ID.fetch_add(1, Relaxed), Relaxed);
    pool.size.store(plan.size, Relaxed);
    pool.limit.store(plan.limit, Relaxed);
    pool.grain.store(plan.grain(), Relaxed);
    pool.kind.store(kind as u8, Relaxed);
    pool.set_huge_pages(kind == Kind::TransparentHuge);
    pool.object.store(object, Relaxed);
    pool.handles.store(1, Relaxed);
    pool.counts.begin();
    router::cut_at(plan.limit);
    pool.views.set_made(1);
    pool.gate.open();
    router::is_plural();
    Ok(pool)
}

/// A record that serves no pool. Under the lock.
fn record() -> Option<&'static Pool> {
    let mut last: &Pool = &DEFAULT;
    // SAFETY: records are never given up.
    while let Some(pool) = unsafe { last.next.load(Ordering::Acquire).as_ref() } {
        if pool.regions().is_empty() {
            return Some(pool);
        }
        last = pool;
    }
    let region = metadata::allocate(size_of::<Region>())?.cast::<Region>();
    let Some(record) = metadata::allocate(size_of::<Pool>()) else {
        // SAFETY: made just now.
        unsafe { metadata::release(region.cast(), size_of::<Region>()) };
        return None;
    };
    let record = record.cast::<Pool>();
    // SAFETY: fresh records of these sizes, which are never given up.
    let pool = unsafe {
        region.write(Region::new());
        record.write(Pool::growing(core::slice::from_ref(region.as_ref())));
        record.as_ref()
    };
    record.as_ptr().expose_provenance();
    // Release pairs with the Acquire in `All`.
    last.next.store(record.as_ptr(), Ordering::Release);
    Some(pool)
}

/// Where `chunks` chunks are free: a slot and the first chunk. Under the lock.
fn place(chunks: usize) -> Result<(&'static Region, usize), Refused> {
    let found = slots()
        .iter()
        .find_map(|slot| Some((slot, free_chunks(slot, chunks)?)));
    if let Some(found) = found {
        return Ok(found);
    }
    let slot = make_slot(chunks)?;
    free_chunks(slot, chunks)
        .map(|first| (slot, first))
        .ok_or(Refused(libc::ENOMEM))
}

/// The lowest range of a slot that no pool has.
fn free_chunks(slot: &Region, chunks: usize) -> Option<usize> {
    let granule = chunks_of_a_page();
    let mut first = FIRST_CHUNK.next_multiple_of(granule);
    while first + chunks <= slot.end() {
        let in_the_way = fixed()
            .flat_map(Pool::regions)
            .filter(|region| region.base() == slot.base())
            .find(|region| region.first() < first + chunks && first < region.end());
        match in_the_way {
            Some(region) => first = region.end().next_multiple_of(granule),
            None => return Some(first),
        }
    }
    None
}

/// Reserves one more slot. Under the lock.
fn make_slot(chunks: usize) -> Result<&'static Region, Refused> {
    let made = SLOTS_MADE.load(Relaxed) as usize;
    let slot = SLOTS.get(made).ok_or(Refused(libc::ENOMEM))?;
    let needed = (chunks + chunks_of_a_page()) * CHUNK;
    let wanted = match process::address_space_limit() {
        Some(_) => needed,
        None => REGION,
    };
    slot.reserve(wanted, needed)?;
    slot.commit_records()?;
    SLOTS_MADE.store(made as u32 + 1, Ordering::Release);
    Ok(slot)
}

impl Pool {
    /// One more handle.
    pub(crate) fn retain(&self) {
        self.handles.fetch_add(1, Relaxed);
    }

    /// One handle less. Whether it was the last, with which the pool is closed.
    pub(crate) fn let_go(&self) -> bool {
        // Release, and Acquire of the last: what was done with the pool comes before its end.
        let last = self.handles.fetch_sub(1, Ordering::AcqRel) == 1;
        if last {
            self.gate.close();
        }
        last
    }

    /// Runs `look` with the pool's regions, which stay as they are meanwhile.
    pub(crate) fn view<T>(&self, look: impl FnOnce(&'static [Region]) -> T) -> T {
        self.views
            .look(|made| look(&self.own_regions()[..made as usize]))
    }

    /// Takes the pool apart if it is over. The caller keeps all others from giving memory back.
    pub(crate) fn end_if_over(&self) {
        let is_over = || {
            // Acquire pairs with the Release in `fit::release`: nobody is in it any more.
            self.is_fixed()
                && !self.regions().is_empty()
                && self.gate.is_left()
                && self.counts.used.load(Ordering::Acquire) == 0
        };
        if !is_over() {
            return;
        }
        let _making = MAKING.lock();
        if !is_over() {
            return;
        }
        self.views.end(give_way);
        // SAFETY: nothing of the pool is used, nobody takes anything from it or looks at it.
        if unsafe { self.own_regions()[0].leave_part() }.is_err() {
            // Its addresses cannot be given up now.
            self.views.set_made(1);
            return;
        }
        if let Some(object) = self.object() {
            object.close();
        }
        PURGED.fetch_add(self.purged_bytes(), Relaxed);
    }
}

/// What pools that have ended gave back to the system in their time.
static PURGED: AtomicU64 = AtomicU64::new(0);

/// Bytes given back to the system since the start.
pub(crate) fn purged_bytes() -> u64 {
    PURGED.load(Relaxed) + all().map(Pool::purged_bytes).sum::<u64>()
}

/// Holds pools and records still while the process forks.
pub(crate) fn before_fork() {
    MAKING.before_fork();
    all().for_each(|pool| pool.growth.before_fork());
    metadata::ROOM.before_fork();
}

/// Lets them go again.
pub(crate) fn after_fork(in_child: bool) {
    metadata::ROOM.after_fork(in_child);
    for pool in all() {
        pool.growth.after_fork(in_child);
        if in_child {
            // Those who looked at it are not there.
            pool.views.forget_all();
        }
    }
    MAKING.after_fork(in_child);
}
