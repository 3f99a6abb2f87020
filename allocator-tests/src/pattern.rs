//! What a block is filled with, so that a stray write or an overlap shows.
//!
//! Each word of a block is a function of a seed and of the word's place in the
//! block; the seed is drawn from the block's address and a number that no
//! other block has. Two blocks that overlap overwrite each other's words, and
//! whichever is verified first is found corrupt.

use std::fmt;
use std::ops::Range;

const WORD: usize = size_of::<u64>();
const PAGE: usize = 4096;

/// Blocks up to this size are filled and verified to the last byte. Larger
/// ones by their first and last page and a word in each of 64 places between:
/// writing all of them would leave time for nothing else.
pub const FILLED_WHOLLY: usize = 32 << 10;

/// The contents of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern(u64);

/// Where a block no longer holds what was written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Offset of the first wrong word, in bytes from the block's start.
    pub offset: usize,
    /// What was written there.
    pub expected: u64,
    /// What is there now.
    pub found: u64,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            offset,
            expected,
            found,
        } = self;
        write!(
            f,
            "at offset {offset:#x}: {found:#018x} in place of {expected:#018x}"
        )
    }
}

impl Pattern {
    /// The pattern of the block at `address`, told from its neighbours' by `id`.
    pub fn new(address: *const u8, id: u64) -> Self {
        let mut seed = (address as u64) ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        seed ^= seed >> 29;
        seed = seed.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Self(seed ^ (seed >> 32))
    }

    fn word(self, index: usize) -> u64 {
        self.0
            .wrapping_add((index as u64).wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// Writes the pattern of a block of `size` bytes.
    ///
    /// # Safety
    /// `block` must be valid for writes of `size` bytes.
    pub unsafe fn fill(self, block: *mut u8, size: usize) {
        for range in covered(size) {
            let whole = range.end & !(WORD - 1);
            for at in (range.start..whole).step_by(WORD) {
                let word = self.word(at / WORD);
                // SAFETY: `at + WORD` is at most `range.end`, which is at most
                // `size`.
                unsafe { block.add(at).cast::<u64>().write_unaligned(word) };
            }
            let rest = self.word(whole / WORD).to_ne_bytes();
            for (at, byte) in (whole..range.end).zip(rest) {
                // SAFETY: `at` is below `size`.
                unsafe { block.add(at).write(byte) };
            }
        }
    }

    /// Compares the first `kept` bytes of what was a block of `size` bytes.
    ///
    /// # Errors
    /// The first word that differs.
    ///
    /// # Safety
    /// `block` must be valid for reads of `kept` bytes and [`fill`](Self::fill)
    /// must have been called on it with `size`, or on the block that it was
    /// reallocated from.
    pub unsafe fn verify(self, block: *const u8, size: usize, kept: usize) -> Result<(), Mismatch> {
        for range in covered(size) {
            let end = range.end.min(kept).max(range.start);
            let whole = (end & !(WORD - 1)).max(range.start);
            for at in (range.start..whole).step_by(WORD) {
                // SAFETY: `at + WORD` is at most `kept`.
                let found = unsafe { block.add(at).cast::<u64>().read_unaligned() };
                let expected = self.word(at / WORD);
                if found != expected {
                    return Err(Mismatch {
                        offset: at,
                        expected,
                        found,
                    });
                }
            }
            let mut expected = self.word(whole / WORD).to_ne_bytes();
            let mut found = [0; WORD];
            expected[end - whole..].fill(0);
            for (at, byte) in (whole..end).zip(&mut found) {
                // SAFETY: `at` is below `kept`.
                *byte = unsafe { block.add(at).read() };
            }
            if found != expected {
                let [expected, found] = [expected, found].map(u64::from_ne_bytes);
                return Err(Mismatch {
                    offset: whole,
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }
}

/// Verifies that the first `size` bytes at `block` are zero.
///
/// # Errors
/// The first word that is not.
///
/// # Safety
/// `block` must be valid for reads of `size` bytes.
pub unsafe fn verify_zero(block: *const u8, size: usize) -> Result<(), Mismatch> {
    // SAFETY: promised by the caller; any byte is a valid `u8`.
    let bytes = unsafe { std::slice::from_raw_parts(block, size) };
    // Compared a page at a time: the search for the first wrong word costs a
    // clean block nothing, and the comparison is fast without optimisation.
    static ZEROES: [u8; PAGE] = [0; PAGE];
    let dirty = |page: &[u8]| page != &ZEROES[..page.len()];
    let Some(page) = bytes.chunks(PAGE).position(dirty) else {
        return Ok(());
    };
    let offset = (page * PAGE..size)
        .find(|&at| bytes[at] != 0)
        .unwrap_or(page * PAGE);
    let mut found = [0; WORD];
    let end = size.min(offset + WORD);
    found[..end - offset].copy_from_slice(&bytes[offset..end]);
    Err(Mismatch {
        offset,
        expected: 0,
        found: u64::from_ne_bytes(found),
    })
}

/// The parts of a block of `size` bytes that carry its pattern; each starts at
/// a whole word.
fn covered(size: usize) -> impl Iterator<Item = Range<usize>> {
    let whole = size <= FILLED_WHOLLY;
    let head = if whole { 0..size } else { 0..PAGE };
    let stride = (size / 64).next_multiple_of(PAGE);
    let words = if whole { 0 } else { (size - PAGE) / stride };
    let tail = if whole {
        size..size
    } else {
        (size - PAGE) & !(WORD - 1)..size
    };
    std::iter::once(head)
        .chain((1..=words).map(move |i| i * stride..i * stride + WORD))
        .chain(std::iter::once(tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_is_found_wherever_it_is() {
        for size in [1, 7, 8, 9, 100, 4096, FILLED_WHOLLY] {
            let mut block = vec![0_u8; size];
            let pattern = Pattern::new(block.as_ptr(), 1);
            for at in [0, size / 2, size - 1] {
                // SAFETY: the vector holds `size` bytes.
                unsafe {
                    pattern.fill(block.as_mut_ptr(), size);
                    assert_eq!(pattern.verify(block.as_ptr(), size, size), Ok(()));
                }
                block[at] ^= 0x40;
                // SAFETY: as above.
                let found = unsafe { pattern.verify(block.as_ptr(), size, size) };
                assert_eq!(found.unwrap_err().offset, at / WORD * WORD, "size {size}");
            }
        }
    }

    #[test]
    fn a_large_block_is_covered_to_both_ends_and_between() {
        let size = (3 << 20) + 5;
        let parts: Vec<_> = covered(size).collect();
        assert_eq!(parts[0], 0..PAGE);
        assert_eq!(parts.last().unwrap().end, size);
        assert!(parts.len() > 60, "{}", parts.len());
        assert!(parts.iter().all(|p| p.start % WORD == 0 && p.end <= size));
    }

    #[test]
    fn blocks_that_overlap_corrupt_each_other() {
        let mut memory = vec![0_u8; 96];
        let lower = Pattern::new(memory.as_ptr(), 1);
        let upper = Pattern::new(memory[56..].as_ptr(), 2);
        // SAFETY: both lie inside the vector.
        unsafe {
            lower.fill(memory.as_mut_ptr(), 64);
            upper.fill(memory.as_mut_ptr().add(56), 40);
            let found = lower.verify(memory.as_ptr(), 64, 64);
            assert_eq!(found.unwrap_err().offset, 56);
        }
    }

    #[test]
    fn a_single_set_bit_is_not_zero() {
        let mut memory = vec![0_u8; 1003];
        for at in [0, 1, 500, 1002] {
            memory[at] = 1;
            // SAFETY: the vector holds 1003 bytes.
            let found = unsafe { verify_zero(memory.as_ptr(), memory.len()) };
            assert_eq!(found.unwrap_err().offset, at);
            memory[at] = 0;
        }
        // SAFETY: as above.
        let found = unsafe { verify_zero(memory.as_ptr(), memory.len()) };
        assert_eq!(found, Ok(()));
    }
}
