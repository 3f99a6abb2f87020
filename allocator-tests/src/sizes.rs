//! The sizes and alignments that the stress test asks for.

use std::alloc::Layout;

use rand::rngs::SmallRng;
use rand::{Rng, RngExt};

/// A span of sizes, and how often one is drawn from it.
struct Band {
    weight: u32,
    /// Log2 of the smallest and of the largest size.
    powers: (f64, f64),
}

/// A distribution of layouts.
#[derive(Clone, Copy)]
pub struct Mix {
    bands: &'static [Band],
    /// One layout in so many is aligned beyond what its size asks for.
    wide_in: u32,
}

impl Mix {
    /// Mostly small blocks, some of each larger category up to 8 MiB.
    pub const PROGRAM: Self = Self {
        bands: &[
            Band {
                weight: 7000,
                powers: (0.0, 8.0),
            },
            Band {
                weight: 2500,
                powers: (8.0, 11.0),
            },
            Band {
                weight: 450,
                powers: (11.0, 15.0),
            },
            Band {
                weight: 47,
                powers: (15.0, 19.0),
            },
            Band {
                weight: 3,
                powers: (19.0, 23.0),
            },
        ],
        wide_in: 12,
    };

    /// Each category about as often: for short runs that should reach all of
    /// the allocator's slow paths.
    pub const EVEN: Self = Self {
        bands: &[
            Band {
                weight: 30,
                powers: (0.0, 7.0),
            },
            Band {
                weight: 30,
                powers: (7.0, 11.0),
            },
            Band {
                weight: 20,
                powers: (11.0, 15.0),
            },
            Band {
                weight: 15,
                powers: (15.0, 19.0),
            },
            Band {
                weight: 4,
                powers: (19.0, 22.0),
            },
            Band {
                weight: 1,
                powers: (22.0, 24.0),
            },
        ],
        wide_in: 4,
    };

    /// A size, log-uniform within its band.
    pub fn size(&self, rng: &mut SmallRng) -> usize {
        let total: u32 = self.bands.iter().map(|b| b.weight).sum();
        let mut draw = rng.random_range(0..total);
        let band = self.bands.iter().find(|band| {
            let found = draw < band.weight;
            draw = draw.wrapping_sub(band.weight);
            found
        });
        let (low, high) = band.map_or((0.0, 8.0), |b| b.powers);
        2_f64.powf(rng.random_range(low..high)) as usize
    }

    /// A layout: the size as above, the alignment mostly what Rust types have,
    /// at times up to 64 KiB, rarely up to 8 MiB.
    pub fn layout(&self, rng: &mut SmallRng) -> Layout {
        let size = self.size(rng);
        let power = if rng.random_range(0..self.wide_in) == 0 {
            if rng.random_range(0..256) == 0 {
                rng.random_range(0..=23)
            } else {
                rng.random_range(0..=16)
            }
        } else {
            (rng.next_u32() % 5).min(size.ilog2())
        };
        Layout::from_size_align(size, 1 << power)
            .expect("sizes and alignments are far below the limit")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn every_category_is_drawn() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut counts = [0_u32; 24];
        let mut wide = 0;
        for _ in 0..200_000 {
            let layout = Mix::PROGRAM.layout(&mut rng);
            counts[layout.size().ilog2() as usize] += 1;
            wide += u32::from(layout.align() > 4096);
        }
        assert!(counts[..23].iter().all(|&n| n > 0), "{counts:?}");
        assert_eq!(counts[23], 0, "8 MiB is the bound");
        assert!(wide > 500, "{wide}");
    }
}
