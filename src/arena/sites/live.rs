//! The samples of blocks that are alive.
//!
//! ```text
//! P(a live block is sampled) = inclusion(its size, MEAN)
//! ```
//! whatever `realloc` did to it, and however often the mean was doubled to make room: so a sampled
//! block stands for 1 / inclusion blocks, and sums of these are unbiased.

use super::draw::{happens, inclusion};
use super::table::Table;
use crate::arena::owner::tag_of;
use crate::os::lock::Lock;
use crate::os::sync::{AtomicU64, Ordering::Relaxed};
use crate::pool::metadata;
use crate::units::OwnerTag;
use core::alloc::Layout;
use core::ptr::{NonNull, null_mut};

/// Places of the table; a quarter of a mebibyte with the pointers, of which touched pages count.
const PLACES: usize = 1 << 14;
/// Samples at most: half of the places, so that a search is short.
const MOST: usize = PLACES / 2;

/// Return addresses that are kept.
const FRAMES: usize = 44;

/// What is kept of a sampled block.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Sample {
    /// What was asked for.
    pub(crate) layout: Layout,
    /// When, in milliseconds of the coarse clock.
    pub(crate) since: u64,
    /// How many of the frames there are.
    pub(super) len: usize,
    pub(super) frames: [usize; FRAMES],
}

static_assertions::const_assert_eq!(size_of::<Sample>() % 128, 0);

impl Sample {
    pub(super) const fn new(layout: Layout, since: u64) -> Sample {
        Sample {
            layout,
            since,
            len: 0,
            frames: [0; FRAMES],
        }
    }

    /// The return addresses, the innermost first.
    pub(crate) fn trace(&self) -> &[usize] {
        &self.frames[..self.len]
    }
}

/// A sample's record.
pub(super) type Record = NonNull<Sample>;

static TABLE: Table<PLACES> = Table::new();
/// Bytes for each point, on average. Written under the lock; 0 before the first request.
static MEAN: AtomicU64 = AtomicU64::new(0);

struct Live {
    /// By place of the table.
    records: [*mut Sample; PLACES],
    count: usize,
}

// SAFETY: the records are reached only by the lock's holder.
unsafe impl Send for Live {}

static LIVE: Lock<Live> = Lock::new(Live {
    records: [null_mut(); PLACES],
    count: 0,
});

/// Bytes for each point now. Only doubles, from what the settings say.
pub(super) fn mean() -> u64 {
    match MEAN.load(Relaxed) {
        0 => {
            let set = crate::config::sample_bytes();
            // Two threads that come first set the same.
            match MEAN.compare_exchange(0, set, Relaxed, Relaxed) {
                Ok(_) => set,
                Err(mean) => mean,
            }
        }
        mean => mean,
    }
}

/// Whether a block may be sampled: one load, and no false no for the caller's own block.
#[inline(always)]
pub(super) fn may_have(block: *mut u8) -> bool {
    TABLE.may_have(block.addr() as u64)
}

/// Whether a block of the caller's is sampled.
pub(super) fn has(block: *mut u8) -> bool {
    TABLE.find(block.addr() as u64).is_some()
}

/// Adds the sample of a block in which a point of those with the mean `drawn` was found, on
/// `bytes` bytes of it. Without memory for it the sample is lost.
pub(super) fn add(block: *mut u8, sample: &Sample, bytes: usize, drawn: u64) {
    let mut live = LIVE.lock();
    live.make_room();
    // Points of a smaller mean are thinned out to those of the mean that has been reached.
    let mean = MEAN.load(Relaxed);
    if mean == drawn || happens(inclusion(bytes, mean) / inclusion(bytes, drawn)) {
        let Some(record) = metadata::allocate(size_of::<Sample>()) else {
            return;
        };
        let record = record.cast::<Sample>();
        // SAFETY: a record of that size, nobody else's.
        unsafe { record.write(*sample) };
        live.insert(block, record);
    }
}

/// Takes the sample of a block out, if it has one.
pub(super) fn lift(block: *mut u8) -> Option<Record> {
    let mut live = LIVE.lock();
    let place = TABLE.find(block.addr() as u64)?;
    live.take(place)
}

/// Puts back the sample of a block that has changed from one size to another.
pub(super) fn put(block: *mut u8, record: Record, from: usize, to: Layout) {
    let mut live = LIVE.lock();
    let mean = MEAN.load(Relaxed);
    let stays = to.size() >= from || happens(inclusion(to.size(), mean) / inclusion(from, mean));
    if stays {
        // SAFETY: the record is the caller's.
        unsafe { (*record.as_ptr()).layout = to };
        live.insert(block, record);
    } else {
        give_up(record);
    }
}

/// Gives a record back.
pub(super) fn give_up(record: Record) {
    // SAFETY: nobody else has it.
    unsafe { metadata::release(record.cast(), size_of::<Sample>()) };
}

impl Live {
    fn insert(&mut self, block: *mut u8, record: Record) {
        match TABLE.insert(block.addr() as u64) {
            Some(place) => {
                self.records[place] = record.as_ptr();
                self.count += 1;
            }
            None => give_up(record),
        }
    }

    fn take(&mut self, place: usize) -> Option<Record> {
        TABLE.remove(place);
        self.count -= 1;
        NonNull::new(core::mem::replace(&mut self.records[place], null_mut()))
    }

    /// Doubles the mean until there is room for a sample, and thins the others out to it.
    fn make_room(&mut self) {
        while self.count >= MOST {
            let before = MEAN.load(Relaxed);
            let mean = before.saturating_mul(2);
            MEAN.store(mean, Relaxed);
            for place in 0..PLACES {
                // SAFETY: a record in the table is alive, and only the lock's holder reaches it.
                if let Some(sample) = unsafe { self.records[place].as_ref() } {
                    let size = sample.layout.size();
                    if !happens(inclusion(size, mean) / inclusion(size, before))
                        && let Some(record) = self.take(place)
                    {
                        give_up(record);
                    }
                }
            }
        }
    }
}

/// Calls `visit` with each sample whose block is `which` owner's, and how probable it was that the
/// block is sampled. Holds the lock: neither may allocate or free.
pub(crate) fn for_each(which: impl Fn(OwnerTag) -> bool, mut visit: impl FnMut(&Sample, f64)) {
    let live = LIVE.lock();
    let mean = MEAN.load(Relaxed);
    for place in 0..PLACES {
        // SAFETY: as in `make_room`.
        let Some(sample) = (unsafe { live.records[place].as_ref() }) else {
            continue;
        };
        let block = core::ptr::without_provenance_mut(TABLE.key(place) as usize);
        // SAFETY: who frees or moves a block takes its sample out first, for which it needs the
        // lock: so it is alive, and of that layout.
        if which(unsafe { tag_of(block, sample.layout) }) {
            visit(sample, inclusion(sample.layout.size(), mean));
        }
    }
}

pub(in crate::arena) fn before_fork() {
    LIVE.before_fork();
}

pub(in crate::arena) fn after_fork(in_child: bool) {
    LIVE.after_fork(in_child);
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ptr::without_provenance_mut;

    /// Points that threads drew before the mean was doubled, six times, are found after it.
    #[test]
    fn points_of_an_older_mean_are_thinned_out() {
        const BLOCKS: usize = 20_000;
        MEAN.store(4096, Relaxed);
        let blocks = || (1..=BLOCKS).map(|n| without_provenance_mut(n * 64));
        let sample = Sample::new(Layout::new::<[u64; 8]>(), 0);
        blocks().for_each(|block| add(block, &sample, 64, 64));
        let kept = blocks().filter(|&block| has(block));
        let found = kept.inspect(|&block| give_up(lift(block).unwrap())).count();
        let expected = BLOCKS as f64 * inclusion(64, 4096) / inclusion(64, 64);
        // Five standard deviations.
        let off = (found as f64 - expected).abs();
        assert!(off < 5.0 * expected.sqrt(), "{found} for {expected}");
        assert!(!blocks().any(has));
    }
}
