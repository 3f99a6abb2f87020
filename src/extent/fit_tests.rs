//! First fit against a model: a bit a slice.

use super::fit::{Contents, Zeroing, allocate, extend, release};
use crate::pool::Pool;
use crate::pool::region::{FIRST_CHUNK, REGIONS, Region};
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
        let counted = self
            .pool
            .counts
            .used
            .load(crate::os::sync::Ordering::Relaxed);
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
