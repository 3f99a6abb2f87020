//! Giving free slices back to the system.
//!
//! Time is cut into periods of a quarter of the decay time. Slices that were free and dirty when a
//! period began and are still so are *aged*; they are purged in equal parts at the ticks of that
//! period, the highest addresses first, since first fit will want the lowest again. So a slice is
//! purged at the latest two periods after it was freed, and one that is reused meanwhile is not.
//! The arena layer takes the other half of the decay time to empty runs and pages inside runs. What
//! the program's [`demand`](super::demand) holds is not purged.
//!
//! A purger claims what it purges like an allocation does, so nobody can be given a slice whose
//! pages are just being taken away.

use super::bits::{mask, spans};
use super::demand::Demand;
use super::fit::{chunks, record, slots};
use super::purges::Purges;
use crate::os::lock::{Guard, Lock};
use crate::os::map::{self, Ranges};
use crate::os::process::page_size;
use crate::os::sync::{AtomicU64, Ordering::Relaxed};
use crate::pool::region::{DESCRIPTOR, Region, descriptor_address};
use crate::pool::{Pool, fixed, metadata};
use crate::units::{SLICE, Slices};

/// Periods of a decay time.
pub(crate) const PERIODS: u64 = 4;
/// Ticks of a period.
const TICKS: u64 = 8;

/// Intervals of a period: one to see what is dirty, then one for each tick.
const INTERVALS: u64 = TICKS + 1;

/// The clock of the decay of all pools.
pub(crate) struct Decay {
    /// When the next tick is due, in milliseconds; read without the lock.
    due: AtomicU64,
    /// Milliseconds after which a freed slice has been given back; `u64::MAX` for never.
    millis: AtomicU64,
    /// Until when there is less free memory than is held.
    held_until: AtomicU64,
    state: Lock<State>,
}

/// How far the current period has come.
pub(crate) struct State {
    /// Ticks left in this period.
    left: u64,
    /// Aged slices to purge at a tick.
    quota: u64,
    demand: Demand,
}

/// The clock.
pub(crate) static DECAY: Decay = Decay {
    due: AtomicU64::new(0),
    millis: AtomicU64::new(crate::config::DECAY_MILLIS),
    held_until: AtomicU64::new(0),
    state: Lock::new(State {
        left: 0,
        quota: 0,
        demand: Demand::new(),
    }),
};

impl Decay {
    /// Sets the decay time.
    pub(crate) fn set_millis(&self, millis: u64) {
        self.millis.store(millis, Relaxed);
    }

    /// Milliseconds between two ticks; `u64::MAX` if there are none.
    pub(crate) fn interval(&self) -> u64 {
        match self.millis.load(Relaxed) {
            u64::MAX => u64::MAX,
            millis => (millis / (PERIODS * INTERVALS)).max(1),
        }
    }

    /// Milliseconds of a period; `u64::MAX` if nothing is ever purged.
    pub(crate) fn period(&self) -> u64 {
        self.interval().saturating_mul(INTERVALS)
    }

    /// Purges what is due at `now`. Called from slow paths.
    pub(crate) fn tick(&self, now: u64) {
        let due = self.due.load(Relaxed);
        if now < due {
            return;
        }
        let interval = self.interval();
        let Some(mut state) = self.state.try_lock() else {
            return;
        };
        if self.due.load(Relaxed) != due {
            return;
        }
        self.due.store(now.saturating_add(interval), Relaxed);
        if interval == u64::MAX || due == 0 {
            return;
        }
        let spare = self.spare(&mut state, now);
        // A thread that comes late does the ticks that were missed.
        let ticks = 1 + (now - due) / interval;
        // Nobody came by for a whole period: what is dirty has been so for at least that.
        let all_is_aged = ticks > TICKS;
        if state.left == 0 || all_is_aged {
            fixed::all().for_each(Pool::end_if_over);
            metadata::purge(false);
            state.quota = fixed::all().map(begin_period).sum::<u64>().div_ceil(TICKS);
            state.left = TICKS;
            if !all_is_aged {
                return;
            }
        }
        let ticks = ticks.min(state.left);
        state.left -= ticks;
        let most = if state.left == 0 {
            u64::MAX
        } else {
            state.quota * ticks
        };
        purge_aged(most.min(spare));
    }

    /// How many free slices are more than what is held.
    fn spare(&self, state: &mut State, now: u64) -> u64 {
        let used = fixed::all().map(Pool::used_bytes).sum();
        let dirty: u64 = fixed::all().map(Pool::dirty_bytes).sum();
        let held = state.demand.note(now, self.period(), used);
        let until = if dirty < held.bytes { held.until } else { 0 };
        self.held_until.store(until, Relaxed);
        match held.bytes {
            0 => u64::MAX,
            bytes => dirty.saturating_sub(bytes).div_ceil(SLICE as u64),
        }
    }

    /// Whether there is less free memory than is held.
    pub(crate) fn is_held(&self, now: u64) -> bool {
        now < self.held_until.load(Relaxed)
    }

    /// Keeps everybody else from giving memory back until the guard is dropped.
    pub(crate) fn hold(&self) -> Guard<'_, State> {
        self.state.lock()
    }

    /// [`hold`](Self::hold), unless somebody else does.
    pub(crate) fn try_hold(&self) -> Option<Guard<'_, State>> {
        self.state.try_lock()
    }

    /// The same where this very thread may have it: something if nobody else does.
    pub(crate) fn hold_or_held(&self) -> Option<Option<Guard<'_, State>>> {
        match self.state.is_held_here() {
            true => Some(None),
            false => self.try_hold().map(Some),
        }
    }

    /// Holds the decay still while the process forks.
    pub(crate) fn before_fork(&self) {
        self.state.before_fork();
    }

    /// Lets it go on.
    pub(crate) fn after_fork(&self, in_child: bool) {
        self.state.after_fork(in_child);
    }
}

/// Purges, of which whoever holds the decay makes one at a time.
static PURGES: Purges = Purges::new();

/// Runs `search` for free slices again for as long as it finds none and some were just being
/// purged: those are claimed for that time, and free nevertheless.
pub(super) fn past_purges<T, E>(search: impl Fn() -> Result<T, E>) -> Result<T, E> {
    PURGES.past(search, || drop(DECAY.hold()))
}

/// Marks everything that is free and dirty as aged; how many slices that is.
fn begin_period(pool: &'static Pool) -> u64 {
    let mut aged = 0;
    for region in pool.regions() {
        for chunk in chunks(region) {
            let record = record(region, chunk);
            let dirty = record.dirty.load(Relaxed);
            if dirty | record.aged.load(Relaxed) != 0 {
                record.aged.store(dirty, Relaxed);
                // What was claimed meanwhile is not aged.
                record.aged.fetch_and(record.dirty.load(Relaxed), Relaxed);
                aged += u64::from(dirty.count_ones());
            }
        }
    }
    aged
}

/// Purges up to `most` aged slices, of each pool from the highest address down.
fn purge_aged(most: u64) {
    let mut left = most;
    for pool in fixed::all() {
        for region in pool.regions().iter().rev() {
            for chunk in chunks(region).rev() {
                if left == 0 {
                    return;
                }
                let aged = record(region, chunk).aged.load(Relaxed);
                if aged != 0 {
                    left = left.saturating_sub(purge_in_chunk(pool, region, chunk, aged));
                }
            }
        }
    }
}

/// Purges everything that is free and dirty, now, and lets pools end that are over. Returns the
/// bytes given back. The guard keeps others from doing the same.
pub(crate) fn purge_all(_held: &Guard<'_, State>) -> u64 {
    let mut bytes = 0;
    for pool in fixed::all() {
        for region in pool.regions() {
            for chunk in chunks(region) {
                let dirty = record(region, chunk).dirty.load(Relaxed);
                if dirty != 0 {
                    let slices = purge_in_chunk(pool, region, chunk, dirty);
                    bytes += slices * pool.grain() as u64;
                }
            }
        }
        pool.end_if_over();
    }
    bytes + metadata::purge(true)
}

/// Purges those slices of `wanted` that are free and dirty. Returns how many were.
fn purge_in_chunk(pool: &Pool, region: &Region, chunk: usize, wanted: u64) -> u64 {
    PURGES.during(|| purge_claimed(pool, region, chunk, wanted))
}

fn purge_claimed(pool: &Pool, region: &Region, chunk: usize, wanted: u64) -> u64 {
    let slots = slots(region, chunk);
    let record = record(region, chunk);
    let taken = slots.claim_any(wanted);
    // Only the claimer changes the bits of a claimed slice, so this is stable now.
    let dirty = taken & record.dirty.load(Relaxed);
    let mut ranges = Ranges::new();
    for (first, count) in spans(dirty) {
        let address = region.chunk_address(chunk) + first as usize * SLICE;
        ranges.add(address, pool.mapped(address, Slices(count as usize)));
    }
    let mut purged = 0;
    let purged_span = |address: usize, len: usize| {
        let first = (address - region.chunk_address(chunk)) / SLICE;
        purged |= mask(first as u32, len.div_ceil(SLICE) as u32);
    };
    // SAFETY: committed slices, claimed above, whose contents nobody wants.
    unsafe { pool.kind().purge_ranges(&ranges, purged_span) };
    if pool.commits_anew() {
        record.committed.fetch_and(!purged, Relaxed);
        let count = u64::from(purged.count_ones());
        pool.counts.committed.fetch_sub(count, Relaxed);
    }
    record.dirty.fetch_and(!purged, Relaxed);
    record.aged.fetch_and(!wanted, Relaxed);
    record.zero.fetch_or(purged, Relaxed);
    let count = u64::from(purged.count_ones());
    pool.counts.dirty.fetch_sub(count, Relaxed);
    pool.counts.purged.fetch_add(count, Relaxed);
    purge_descriptors(region, chunk, taken, purged);
    if taken != 0 {
        slots.release(taken);
        region.lowest.lower(chunk);
    }
    count
}

/// Gives pages of descriptors back that describe only free slices, if one of those was `purged`
/// just now. A descriptor that reads as zero describes nothing.
fn purge_descriptors(region: &Region, chunk: usize, taken: u64, purged: u64) {
    let each = (page_size() / DESCRIPTOR) as u32;
    if each > u64::BITS {
        return;
    }
    let slots = slots(region, chunk);
    for first in (0..u64::BITS).step_by(each as usize) {
        let described = mask(first, each);
        let others = described & !taken;
        if purged & described == 0 || !slots.claim_exactly(others) {
            continue;
        }
        let slice = region.chunk_address(chunk) + first as usize * SLICE;
        // SAFETY: the page describes slices that were claimed here and by the caller, and nothing
        // else.
        let _ = unsafe { map::purge(descriptor_address(slice), page_size()) };
        slots.release(others);
    }
}
