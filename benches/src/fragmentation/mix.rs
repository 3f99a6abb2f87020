//! Which sizes are asked for.

use super::shelf::Block;

/// The smallest and the largest request of the workload.
const SMALLEST: f64 = 8.0;
const LARGEST: f64 = (4 << 20) as f64;

/// Bands of a service's ordinary requests: share of the requests, lowest and
/// highest size; uniform in the logarithm within a band. Most requests are
/// small, and each band has a tenth to a quarter of the bytes.
const ORDINARY: [(f64, f64, f64); 7] = [
    (0.560, 8.0, 64.0),
    (0.260, 64.0, 256.0),
    (0.120, 256.0, 1024.0),
    (0.050, 1024.0, 8192.0),
    (0.009, 8192.0, 65536.0),
    (0.0009, 65536.0, 524_288.0),
    (0.0001, 524_288.0, LARGEST),
];

/// A distribution of request sizes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mix {
    /// Many small requests, few large ones.
    Ordinary,
    /// Objects of about one size, as in a cache: normal in the logarithm, half
    /// of them within half an octave of the centre, and a sixteenth `Ordinary`.
    Around {
        /// The median size in bytes.
        centre: f64,
    },
}

impl Mix {
    /// The size of the next request in bytes.
    pub fn size(self, rng: &mut fastrand::Rng) -> u32 {
        let size = match self {
            Self::Around { centre } if rng.u8(..16) != 0 => {
                // The sum of three uniform numbers is near enough to normal.
                let octaves = (0..3).map(|_| rng.f64() - 0.5).sum::<f64>() * 1.5;
                centre * octaves.exp2()
            }
            _ => ordinary(rng),
        };
        size.clamp(SMALLEST, LARGEST) as u32
    }

    /// A block of this mix. A few are asked for zeroed, a few with an alignment
    /// of a cache line, a third are bytes, and the rest hold words.
    pub fn block(self, rng: &mut fastrand::Rng) -> Block {
        let size = self.size(rng);
        match rng.u8(..32) {
            0 => Block::new(size, 64),
            1 => Block::zeroed(size, 8),
            2..12 => Block::new(size, 1),
            _ => Block::new((size + 7) & !7, 8),
        }
    }
}

fn ordinary(rng: &mut fastrand::Rng) -> f64 {
    let mut rest = rng.f64();
    for (share, low, high) in ORDINARY {
        if rest < share {
            return low * (high / low).powf(rest / share);
        }
        rest -= share;
    }
    LARGEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_the_bands_sum_to_the_whole() {
        let sum: f64 = ORDINARY.iter().map(|(share, _, _)| share).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    }

    #[test]
    fn ordinary_requests_are_mostly_small_and_their_bytes_are_not() {
        let mut rng = fastrand::Rng::with_seed(7);
        let sizes: Vec<u64> = (0..400_000)
            .map(|_| u64::from(Mix::Ordinary.size(&mut rng)))
            .collect();
        let small = sizes.iter().filter(|&&size| size <= 256).count();
        assert!((0.80..0.84).contains(&(small as f64 / sizes.len() as f64)));
        let bytes: u64 = sizes.iter().sum();
        let in_small: u64 = sizes.iter().filter(|&&size| size <= 256).sum();
        assert!(in_small * 4 < bytes, "{in_small} of {bytes}");
        assert!(sizes.iter().all(|&size| (8..=4 << 20).contains(&size)));
        assert!(sizes.iter().any(|&size| size > 1 << 20));
    }

    #[test]
    fn the_centre_is_the_median() {
        let mut rng = fastrand::Rng::with_seed(8);
        let mix = Mix::Around { centre: 2000.0 };
        let mut sizes: Vec<u32> = (0..10_001).map(|_| mix.size(&mut rng)).collect();
        sizes.sort_unstable();
        assert!((1850..2100).contains(&sizes[5000]), "{}", sizes[5000]);
    }
}
