//! Which bytes are sampled: points thrown at random on the bytes that a thread allocates, one for
//! each `mean` of them. The bytes between two points are distributed geometrically, so how many are
//! left until the next one does not depend on how many have gone by, and a block of `size` bytes is
//! hit with a probability that depends on nothing else:
//!
//! ```text
//! inclusion(size) = 1 - exp(-size / mean)
//! ```

use crate::os::clock::coarse_millis;
use crate::os::process::entropy;
use crate::os::sync::{AtomicU64, Ordering::Relaxed};
use crate::os::thread::thread_word;

thread_word! {
    /// The generator's state; 0 before the thread's first use.
    mod state: u64 = 0;
}

/// An odd number that is close to 2^64 divided by the golden ratio.
pub(super) const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// A number that no other thread begins with.
#[cold]
fn seed() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Relaxed).wrapping_mul(SPREAD);
    (number ^ entropy() ^ coarse_millis().rotate_left(32)) | 1
}

/// The next bits of the thread's generator (xorshift64*).
fn bits() -> u64 {
    let mut bits = match state::get() {
        0 => seed(),
        bits => bits,
    };
    bits ^= bits >> 12;
    bits ^= bits << 25;
    bits ^= bits >> 27;
    state::set(bits);
    bits.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// A number above 0 and at most 1.
fn unit() -> f64 {
    ((bits() >> 11) + 1) as f64 / (1_u64 << 53) as f64
}

/// Whether something of that probability is to happen.
pub(super) fn happens(probability: f64) -> bool {
    unit() <= probability
}

/// Bytes from one point, or from anywhere, to the next point.
pub(super) fn interval(mean: u64) -> i64 {
    (-unit().ln() * mean as f64) as i64
}

/// How probable it is that a point lies in so many bytes.
pub(super) fn inclusion(bytes: usize, mean: u64) -> f64 {
    -(-(bytes as f64) / mean as f64).exp_m1()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_their_mean_and_hit_as_often_as_is_said() {
        const DRAWS: u32 = 200_000;
        for mean in [100_u64, 4096, 512 << 10] {
            let (mut sum, mut hits) = (0.0, 0);
            let size = (mean / 3) as usize;
            for _ in 0..DRAWS {
                let interval = interval(mean);
                assert!(interval >= 0);
                sum += interval as f64;
                hits += u32::from(interval < size as i64);
            }
            let found = sum / f64::from(DRAWS) / mean as f64;
            // Rounding down takes half a byte off; five standard deviations are 1.1 %.
            assert!((0.98..1.015).contains(&found), "{mean}: {found}");
            let hit = f64::from(hits) / f64::from(DRAWS);
            assert!((hit - inclusion(size, mean)).abs() < 0.006, "{mean}: {hit}");
        }
    }

    #[test]
    fn large_blocks_are_certain() {
        assert!(inclusion(1, 1 << 40) > 0.0);
        assert_eq!(inclusion(usize::MAX, 1), 1.0);
        assert!((0..1000).all(|_| happens(1.0)));
    }
}
