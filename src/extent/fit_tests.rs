//! First fit against a model: a bit a slice. What others claim and give back keeps nobody out.

use super::fit::{Contents, Zeroing, allocate, extend, release};
use crate::os::sync::{AtomicBool, Ordering::Relaxed};
use crate::pool::fixed::{self, Plan};
use crate::pool::region::{FIRST_CHUNK, REGIONS, Region};
use crate::pool::{Backing, Pool};
use crate::units::{CHUNK, CHUNK_SLICES, SLICE, Slices};
use proptest::prelude::*;
use std::vec::Vec;

/// Chunks of the pool under test: a region is at least that long.
const CHUNKS: usize = 16;

#[derive(Clone, Debug)]
enum Step {
    Allocate { slices: usize, align: u32 },
    Release { which: usize },
    Extend { which: usize, more: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let slices = prop_oneof![4 => 1..=4_usize, 3 => 1..=64_usize, 1 => 65..=300_usize];
    let step = prop_oneof![
        4 => (slices, 0..=8_u32)
            .prop_map(|(slices, align)| Step::Allocate { slices, align: align.saturating_sub(2) }),
        3 => any::<usize>().prop_map(|which| Step::Release { which }),
        1 => (any::<usize>(), 1..=80_usize).prop_map(|(which, more)| Step::Extend { which, more }),
    ];
    prop::collection::vec(step, 1..200)
}

struct Model {
    pool: &'static Pool,
    /// Start of the first slice.
    base: usize,
    used: Vec<bool>,
    spans: Vec<(usize, usize)>,
}

impl Model {
    fn new() -> Model {
        // One pool for all cases: each would take a region slot for good.
        static PARTS: [Region; REGIONS] = [const { Region::new() }; REGIONS];
        static POOL: Pool = Pool::growing(&PARTS);
        let pool = &POOL;
        pool.set_region_bytes(CHUNKS * CHUNK);
        let first = allocate(pool, Slices(1), Slices(1), SLICE, Zeroing::None).unwrap();
        let base = first.address;
        assert_eq!(pool.regions()[0].chunk_address(FIRST_CHUNK), base);
        // SAFETY: taken just now.
        unsafe { release(pool, base, Slices(1), Contents::Dirty) };
        Model {
            pool,
            base,
            used: std::vec![false; CHUNKS * CHUNK_SLICES],
            spans: Vec::new(),
        }
    }

    /// The lowest place for a span, as the module promises it: inside one chunk if it fits one.
    fn lowest(&self, slices: usize, align: usize) -> Option<usize> {
        let one_chunk = slices <= CHUNK_SLICES && align <= CHUNK_SLICES;
        // Alignment is that of addresses; the model's base is a chunk's start.
        let offset = self.base / SLICE;
        (0..=self.used.len().checked_sub(slices)?).find(|&first| {
            (first + offset).is_multiple_of(align)
                && self.used[first..first + slices].iter().all(|used| !used)
                && (!one_chunk || first / CHUNK_SLICES == (first + slices - 1) / CHUNK_SLICES)
        })
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Allocate { slices, align } => {
                let expected = self.lowest(slices, 1 << align);
                let Some(expected) = expected else {
                    return Ok(());
                };
                let span = allocate(
                    self.pool,
                    Slices(slices),
                    Slices(1 << align),
                    slices * SLICE,
                    Zeroing::Whole,
                );
                let first = (span.unwrap().address - self.base) / SLICE;
                prop_assert_eq!(first, expected);
                self.used[first..first + slices].fill(true);
                self.spans.push((first, slices));
                self.touch(first, slices)?;
            }
            Step::Release { which } if !self.spans.is_empty() => {
                let (first, slices) = self.spans.swap_remove(which % self.spans.len());
                self.used[first..first + slices].fill(false);
                let address = self.base + first * SLICE;
                // SAFETY: a span of this model's.
                unsafe { release(self.pool, address, Slices(slices), Contents::Dirty) };
            }
            Step::Extend { which, more } if !self.spans.is_empty() => {
                let which = which % self.spans.len();
                let (first, slices) = self.spans[which];
                let end = first + slices;
                let room = end + more <= self.used.len()
                    && self.used[end..end + more].iter().all(|used| !used);
                let extended = extend(self.pool, self.base + end * SLICE, Slices(more));
                prop_assert_eq!(extended, room);
                if room {
                    self.used[end..end + more].fill(true);
                    self.spans[which].1 += more;
                }
            }
            _ => {}
        }
        let counted = self.pool.counts.used.load(Relaxed);
        prop_assert_eq!(
            counted as usize,
            self.used.iter().filter(|used| **used).count()
        );
        Ok(())
    }

    /// The span reads as zero; its ends are written, so that a later one must be cleared.
    fn touch(&self, first: usize, slices: usize) -> Result<(), TestCaseError> {
        for end in [first * SLICE, (first + slices) * SLICE - 8] {
            let place = (self.base + end) as *mut u64;
            // SAFETY: a word of a span of this model's.
            unsafe {
                prop_assert_eq!(*place, 0);
                *place = 0xdead;
            }
        }
        Ok(())
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        for &(first, slices) in &self.spans {
            let address = self.base + first * SLICE;
            // SAFETY: a span of this model's.
            unsafe { release(self.pool, address, Slices(slices), Contents::Dirty) };
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn first_fit_is_lowest_and_exclusive(steps in steps()) {
        let mut model = Model::new();
        for step in &steps {
            model.step(step)?;
        }
    }
}

/// While one block tries to grow across the border of two chunks, which cannot be, another thread
/// takes the one free slice, which lies there.
#[test]
fn who_grows_in_vain_keeps_nobody_out() {
    let pool = fixed::make(&Plan {
        size: 16 << 20,
        limit: u64::MAX,
        backing: Backing::Memory,
    });
    let pool = pool.unwrap();
    let take = |slices: usize| {
        let least = slices * SLICE;
        let span = allocate(pool, Slices(slices), Slices(1), least, Zeroing::None);
        span.map(|span| span.address)
    };
    let whole = pool.slices().0;
    let (below, last) = (CHUNK_SLICES - 1, 1);
    let start = take(below).unwrap();
    let gap = take(last).unwrap();
    take(whole - below - last).unwrap();
    // SAFETY: taken just now.
    unsafe { release(pool, gap, Slices(last), Contents::Zero) };
    let is_over = AtomicBool::new(false);
    let taken = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                assert!(!extend(pool, start + below * SLICE, Slices(2)));
            }
        });
        let taken = (0..200_000).all(|_| {
            let taken = take(last);
            // SAFETY: taken just now, if it was.
            let give_back = |slice| unsafe { release(pool, slice, Slices(last), Contents::Zero) };
            taken.map(give_back).is_ok()
        });
        is_over.store(true, Relaxed);
        taken
    });
    assert!(taken, "there was a free slice all the time");
}
