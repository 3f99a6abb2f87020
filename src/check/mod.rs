//! Walks every structure and verifies the invariants that the modules state. Behind the feature
//! `check`; meaningful only while no other thread allocates or frees.

mod owners;

use crate::arena::bins::Bins;
use crate::arena::ledger::Ledger;
use crate::arena::{Arena, Life, life};
use crate::class::TABLE;
use crate::extent::decay::DECAY;
use crate::extent::descriptor::{Head, Kind};
use crate::extent::survey::survey;
use crate::extent::{bits, fit, large};
use crate::os::sync::Ordering::Relaxed;
use crate::pool::region::Region;
use crate::pool::{Pool, fixed};
use crate::run::descriptor::{Run, empty_run, for_each_run, run_of};
use crate::run::marks::Mark;
use crate::run::remote::State;
use crate::units::{ClassIndex, SLICE};
use core::fmt;

/// What a clean walk found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Runs.
    pub runs: u64,
    /// Large blocks.
    pub large_blocks: u64,
    /// Blocks alive, counted from the runs and spans.
    pub live_blocks: u64,
    /// Their bytes.
    pub live_bytes: u64,
    /// Slices that belong to runs and spans.
    pub used_slices: u64,
    /// Bytes that may be used in them.
    pub used_bytes: u64,
}

/// An invariant that does not hold, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// The invariant, as its module states it.
    pub invariant: &'static str,
    /// Address of the slice, run or arena.
    pub address: usize,
    /// The two sides of the equation, or 0.
    pub sides: (u64, u64),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (left, right) = self.sides;
        write!(
            f,
            "at {:#x}: {} ({left} and {right})",
            self.address, self.invariant
        )
    }
}

impl core::error::Error for Violation {}

fn equal(
    invariant: &'static str,
    address: usize,
    left: impl TryInto<u64>,
    right: impl TryInto<u64>,
) -> Result<(), Violation> {
    let sides = (
        left.try_into().unwrap_or(u64::MAX),
        right.try_into().unwrap_or(u64::MAX),
    );
    if sides.0 == sides.1 {
        Ok(())
    } else {
        Err(Violation {
            invariant,
            address,
            sides,
        })
    }
}

impl CheckReport {
    /// Takes back that a block of a run is alive: it was freed, and does not wait in the run.
    fn take_back(&mut self, run: &Run) {
        let bytes = u64::from(run.row().size);
        owners::uncount(run.head.tag(), bytes);
        self.live_blocks -= 1;
        self.live_bytes -= bytes;
    }
}

/// Verifies everything; allocates nothing. Call it while no other thread allocates or frees.
///
/// # Errors
/// The first violation found.
pub fn check() -> Result<CheckReport, Violation> {
    // The caller's arena exists, and what other threads freed is where the walk looks for it.
    life::with_arena(|_| ());
    // The background thread may go on; it waits here.
    let _held = DECAY.hold();
    let mut report = CheckReport::default();
    owners::begin();
    for pool in fixed::all() {
        check_pool(pool, &mut report)?;
    }
    for arena in life::arenas() {
        arena.for_each_held_back(|run| report.take_back(run));
        for bins in all_bins(arena) {
            check_loose(bins, &mut report)?;
        }
    }
    let mut listed = 0;
    for arena in life::arenas().filter(|arena| arena.life() != Life::Abandoned) {
        for bins in all_bins(arena) {
            listed += check_bins(bins)?;
        }
    }
    if life::arenas().all(|arena| arena.life() != Life::Abandoned) {
        let full = report.runs - listed;
        equal("a run is in a list, or full", 0, full, count_full())?;
    }
    let stats = crate::stats::Stats::take();
    equal(
        "blocks alive are counted",
        0,
        stats.allocated_blocks,
        report.live_blocks,
    )?;
    equal(
        "bytes alive are counted",
        0,
        stats.allocated_bytes,
        report.live_bytes,
    )?;
    let arenas: i64 = stats
        .arenas()
        .iter()
        .map(|arena| arena.allocated_bytes)
        .sum();
    equal(
        "arenas sum up to the whole",
        0,
        arenas,
        stats.allocated_bytes,
    )?;
    owners::compare()?;
    Ok(report)
}

/// Checks one pool: its slices, its counts and its size.
fn check_pool(pool: &Pool, report: &mut CheckReport) -> Result<(), Violation> {
    let place = pool.regions().first().map_or(0, Region::base);
    let before = *report;
    let mut dirty = 0;
    for region in pool.regions() {
        dirty += check_region(region, report)?;
    }
    let used = report.used_slices - before.used_slices;
    let counts = &pool.counts;
    equal(
        "dirty slices are counted",
        place,
        counts.dirty.load(Relaxed),
        dirty,
    )?;
    equal(
        "used slices are counted",
        place,
        counts.used.load(Relaxed),
        used,
    )?;
    if let Some(size) = pool.size() {
        let used = report.used_bytes - before.used_bytes;
        equal("size = used + free", place, used + survey(pool).free, size)?;
    }
    Ok(())
}

fn all_bins(arena: &'static Arena) -> impl Iterator<Item = &'static Bins> {
    core::iter::once(&arena.base)
        .chain(arena.mixed())
        .chain(arena.ledgers.iter().filter_map(Ledger::bins))
}

/// Checks chunk by chunk and span by span. Returns the dirty slices.
fn check_region(region: &Region, report: &mut CheckReport) -> Result<u64, Violation> {
    let mut dirty = 0;
    let mut lowest = None;
    // Slices of the current span that lie in chunks to come.
    let mut rest = 0;
    for chunk in fit::chunks(region) {
        let address = region.chunk_address(chunk);
        let view = fit::view(region, chunk);
        equal(
            "longest is the longest free span",
            address,
            view.longest,
            bits::longest(view.free),
        )?;
        equal(
            "dirty slices are free",
            address,
            view.dirty & !view.free,
            0_u64,
        )?;
        equal(
            "aged slices are dirty",
            address,
            view.aged & !view.dirty,
            0_u64,
        )?;
        equal(
            "no slice is dirty and zero",
            address,
            view.dirty & view.zero,
            0_u64,
        )?;
        equal(
            "used slices are committed",
            address,
            region.slices_in(chunk) & !view.free & !view.committed,
            0_u64,
        )?;
        dirty += u64::from(view.dirty.count_ones());
        if view.free != 0 {
            lowest.get_or_insert(chunk);
        }
        let there = region.slices_in(chunk);
        equal(
            "free slices lie inside their pool",
            address,
            view.free & !there,
            0_u64,
        )?;
        let mut slice = 0;
        while slice < there.count_ones() as usize {
            if rest > 0 {
                equal(
                    "a span's slices are used",
                    address,
                    view.free >> slice & 1,
                    0_u64,
                )?;
                rest -= 1;
                slice += 1;
            } else if view.free >> slice & 1 == 1 {
                slice += 1;
            } else {
                rest = check_span(address + slice * SLICE, report)?;
            }
        }
    }
    let begin = region.lowest.begin().index();
    match lowest {
        Some(first) if first < begin => {
            equal(
                "no free slice lies below where a search begins",
                region.base(),
                first,
                begin,
            )?;
        }
        _ => {}
    }
    equal(
        "spans end inside their region",
        region.base(),
        rest,
        0_usize,
    )?;
    Ok(dirty)
}

/// Checks the span that starts at `address`. Returns its slices.
fn check_span(address: usize, report: &mut CheckReport) -> Result<usize, Violation> {
    // SAFETY: a slice of a chunk that the region has.
    let head = unsafe { Head::of_slice(address) };
    let slices = head.slices().0;
    match head.kind() {
        Kind::Run => {
            // SAFETY: the head says so.
            let run = unsafe { &*core::ptr::from_ref(head).cast::<Run>() };
            let live = check_run(run)?;
            owners::count_run(run, live)?;
            report.runs += 1;
            report.live_blocks += u64::from(live);
            report.live_bytes += u64::from(live) * u64::from(run.row().size);
            for slice in 1..slices {
                // SAFETY: slices of the run.
                let inner = unsafe { Head::of_slice(address + slice * SLICE) };
                equal(
                    "a run's slices lead to its first",
                    address,
                    inner.first().address(),
                    address,
                )?;
            }
        }
        Kind::Large => {
            // SAFETY: the head says so.
            let large = unsafe { large::of(address) };
            owners::count_large(large);
            let bytes = large.bytes();
            // SAFETY: a slice of a chunk that the region has.
            let pool = unsafe { fit::pool_of(address) };
            let needed = large::slices_for(pool, bytes).map_or(0, |slices| slices.0);
            equal(
                "a large block has as many slices as it needs",
                address,
                needed,
                slices,
            )?;
            let room = pool.room(address, head.slices());
            equal(
                "a large block fits its span",
                address,
                room.max(bytes),
                room,
            )?;
            report.large_blocks += 1;
            report.live_blocks += 1;
            report.live_bytes += bytes as u64;
        }
        Kind::Kept | Kind::Guard => {}
        Kind::None | Kind::Inner => {
            equal(
                "a used slice belongs to a span",
                address,
                head.kind() as u8,
                Kind::Run as u8,
            )?;
        }
    }
    // SAFETY: a slice of a chunk that the region has.
    let room = unsafe { fit::pool_of(address) }.room(address, head.slices());
    report.used_slices += slices as u64;
    report.used_bytes += room as u64;
    Ok(slices)
}

/// Checks a run's equation. Returns its blocks alive.
fn check_run(run: &Run) -> Result<u32, Violation> {
    let address = run.start().addr();
    let waiting = run.remote.count();
    let mut free = 0;
    let mut slot = run.free.get();
    while !slot.is_null() {
        let offset = slot.addr().wrapping_sub(address);
        let exact = run.slot_of(slot.addr()).0 as usize * run.row().size as usize;
        equal("a free slot is a slot of its run", address, offset, exact)?;
        free += 1;
        if free > run.slots() {
            equal("the free list ends", address, free, run.slots())?;
        }
        // SAFETY: a slot on the free list holds its link.
        slot = unsafe { run.links().next(slot) };
    }
    equal(
        "available + withdrawn = used + free",
        address,
        run.available() + run.withdrawn(),
        run.used() + free,
    )?;
    let most = run.slots();
    equal(
        "slots are as many as fit",
        address,
        most.max(run.available()),
        most,
    )?;
    let room = run.pool().room(address, run.head.slices());
    let bytes = most as usize * run.row().size as usize;
    equal("a run fits its span", address, room.max(bytes), room)?;
    let marked = |mark| run.marks().map(|marks| marks.count(mark, most));
    let held = marked(Mark::Held).unwrap_or(0);
    let live = run.used().checked_sub(waiting + held);
    equal("waiting slots are used", address, live.is_some(), true)?;
    if let (Some(live), Some(marked)) = (live, marked(Mark::Live)) {
        equal("live blocks are marked", address, live, marked)?;
    }
    if run.remote.state() == State::Full {
        equal("a full run has no free slot", address, free, 0_u32)?;
    }
    Ok(live.unwrap_or(0))
}

/// Checks the lists of bins. Returns how many runs are in them.
fn check_bins(bins: &Bins) -> Result<u64, Violation> {
    let address = core::ptr::from_ref(bins).addr();
    let mut listed = 0;
    for (class, row) in TABLE.iter().enumerate() {
        let mut previous = core::ptr::null::<Run>();
        let current = bins.bin[class].current();
        // SAFETY: runs that are current are alive, or the empty run.
        let is_apart = unsafe { (*current).is_apart() };
        equal("the current run serves all", address, is_apart, false)?;
        let loose = bins.loose(ClassIndex(class as u8));
        let mut has_current = core::ptr::eq(current, empty_run())
            || loose.is_some_and(|loose| core::ptr::eq(current, loose));
        for run in bins.runs(class) {
            let at = core::ptr::from_ref(run);
            equal(
                "a listed run is of its bin's class",
                at.addr(),
                run.row().size,
                row.size,
            )?;
            equal(
                "a listed run belongs to the bins",
                at.addr(),
                run.bins(),
                address,
            )?;
            equal(
                "a listed run is not full",
                at.addr(),
                run.remote.state() as u8,
                0_u8,
            )?;
            equal(
                "a listed run leads back",
                at.addr(),
                run.prev.get().addr(),
                previous.addr(),
            )?;
            has_current |= core::ptr::eq(current, run);
            previous = at;
            listed += 1;
        }
        equal("the current run is in the list", address, has_current, true)?;
    }
    Ok(listed)
}

/// Checks the lists of blocks that were freed in full runs. Those are not alive, though their runs
/// have them as used.
fn check_loose(bins: &Bins, report: &mut CheckReport) -> Result<(), Violation> {
    for class in (0..TABLE.len() as u8).map(ClassIndex) {
        let Some(loose) = bins.loose(class) else {
            continue;
        };
        let address = core::ptr::from_ref(loose).addr();
        let held = loose.surplus.get().unsigned_abs();
        let mut found = 0;
        let mut slot = loose.free.get();
        while !slot.is_null() {
            found += 1;
            if found > held {
                break;
            }
            // SAFETY: a slot of a run of that class, which holds its link.
            let run = unsafe { &*run_of(slot.cast(), class) };
            let place = core::ptr::from_ref(bins).addr();
            equal(
                "a loose block is of a run of the bins",
                address,
                run.bins(),
                place,
            )?;
            report.take_back(run);
            // SAFETY: as above.
            slot = unsafe { (*slot).next };
        }
        equal("loose blocks are counted", address, found, held)?;
        equal(
            "loose blocks are few",
            address,
            held.max(loose.slots()),
            loose.slots(),
        )?;
    }
    Ok(())
}

/// Runs that are full, or wait to be taken up again.
fn count_full() -> u64 {
    let mut full = 0;
    for pool in fixed::all() {
        for_each_run(pool, |run| {
            full += u64::from(run.remote.state() != State::Owned)
        });
    }
    full
}
