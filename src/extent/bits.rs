//! Spans of set bits in a 64-bit word: the free slices of a chunk.

/// A mask of `count` bits (1 to 64) from bit `first` on.
#[inline]
pub(crate) const fn mask(first: u32, count: u32) -> u64 {
    (u64::MAX >> (64 - count)) << first
}

/// Bits at which a span of `count` set bits starts.
#[inline]
const fn starts(word: u64, count: u32) -> u64 {
    let mut word = word;
    let mut have = 1;
    while have < count {
        let step = if have < count - have {
            have
        } else {
            count - have
        };
        word &= word >> step;
        have += step;
    }
    word
}

/// The lowest span of `count` (1 to 64) set bits that starts at a multiple of `align`, a power of
/// two of at most 64.
#[inline]
pub(crate) const fn first_fit(word: u64, count: u32, align: u32) -> Option<u32> {
    let aligned = u64::MAX / (u64::MAX >> (64 - align));
    match starts(word, count) & aligned {
        0 => None,
        found => Some(found.trailing_zeros()),
    }
}

/// How many bits the longest span of set bits has.
#[inline]
pub(crate) const fn longest(word: u64) -> u32 {
    // Chunks that a large span takes or leaves whole are most of those asked about.
    if word == 0 || word == u64::MAX {
        return word.count_ones();
    }
    let mut length = 0;
    let mut step = 32;
    while step > 0 {
        if starts(word, length + step) != 0 {
            length += step;
        }
        step /= 2;
    }
    length
}

/// The spans of set bits of a word, as (first bit, count).
pub(crate) fn spans(mut word: u64) -> impl Iterator<Item = (u32, u32)> {
    core::iter::from_fn(move || {
        if word == 0 {
            return None;
        }
        let first = word.trailing_zeros();
        let count = (word >> first).trailing_ones();
        word &= !mask(first, count);
        Some((first, count))
    })
}

/// The set bits, from the lowest up.
#[inline]
pub(crate) fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let bit = word.trailing_zeros() as usize;
        word &= word.checked_sub(1)?;
        Some(bit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn model(word: u64) -> Vec<bool> {
        (0..64).map(|bit| word >> bit & 1 == 1).collect()
    }

    proptest! {
        #[test]
        fn first_fit_is_the_lowest(a: u64, b: u64, dense: bool, count in 1..=64_u32, log in 0..=6_u32) {
            let word = if dense { a | b } else { a & b };
            let bits = model(word);
            let count_ = count as usize;
            let expected = (0..=64 - count_)
                .step_by(1 << log)
                .find(|&at| bits[at..at + count_].iter().all(|&bit| bit));
            prop_assert_eq!(first_fit(word, count, 1 << log), expected.map(|at| at as u32));
        }

        #[test]
        fn longest_is_the_longest(a: u64, b: u64, dense: bool) {
            let word = if dense { a | b } else { a & b };
            let expected = model(word).split(|bit| !bit).map(<[bool]>::len).max().unwrap();
            prop_assert_eq!(longest(word) as usize, expected);
        }

        #[test]
        fn spans_cover_the_word(word: u64) {
            let mut union = 0;
            for (first, count) in spans(word) {
                prop_assert_eq!(union & mask(first, count), 0);
                union |= mask(first, count);
            }
            prop_assert_eq!(union, word);
        }
    }

    #[test]
    fn edges() {
        assert_eq!(mask(0, 64), u64::MAX);
        assert_eq!(mask(63, 1), 1 << 63);
        assert_eq!(first_fit(u64::MAX, 64, 64), Some(0));
        assert_eq!(first_fit(0, 1, 1), None);
        assert_eq!(longest(0), 0);
        assert_eq!(longest(u64::MAX), 64);
        assert_eq!(longest(u64::MAX >> 1), 63);
    }
}
