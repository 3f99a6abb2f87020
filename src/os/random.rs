//! Numbers that nobody outside the process can foresee, for the secure profile.

use super::call::attempt;
use super::fault::Call;
use super::process::entropy;
use super::sync::{AtomicU64, Ordering::Relaxed};
use core::hash::Hasher;

/// Two words from the kernel; zero until [`begin`].
static SECRET: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
static DRAWN: AtomicU64 = AtomicU64::new(0);

/// Draws the secret that all numbers follow from. Once, at the start.
pub(crate) fn begin() {
    let mut words = [entropy(), !entropy()];
    let bytes = size_of_val(&words);
    // SAFETY: room for as many bytes. Where the kernel has none yet, the words stay those that it
    // gave the process at its start.
    let _ = attempt(Call::Ask, || unsafe {
        libc::getrandom(words.as_mut_ptr().cast(), bytes, libc::GRND_NONBLOCK) as libc::c_int
    });
    for (secret, word) in SECRET.iter().zip(words) {
        secret.store(word, Relaxed);
    }
}

/// The next number: the secret's keyed hash of how many were drawn before.
pub(crate) fn next() -> u64 {
    let [first, second] = [0, 1].map(|word: usize| SECRET[word].load(Relaxed));
    #[expect(deprecated, reason = "the keyed hash of core, whose function is fixed")]
    let mut hash = core::hash::SipHasher::new_with_keys(first, second);
    hash.write_u64(DRAWN.fetch_add(1, Relaxed));
    hash.finish()
}

/// A number below `bound`, which is not 0.
pub(crate) fn below(bound: u32) -> u32 {
    // The high bits of the product are as even as the number's.
    ((u128::from(next()) * u128::from(bound)) >> 64) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn numbers_differ_and_keep_their_bound() {
        let drawn: HashSet<u64> = (0..1000).map(|_| next()).collect();
        assert_eq!(drawn.len(), 1000);
        for bound in [1, 2, 7, 1000] {
            let seen: HashSet<u32> = (0..20_000).map(|_| below(bound)).collect();
            assert_eq!(seen.len(), bound as usize, "each below {bound} is drawn");
            assert!(seen.iter().all(|&number| number < bound));
        }
    }
}
