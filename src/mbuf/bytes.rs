//! Bytes that other processes may write at any time: no Rust reference to bytes is sound there, so
//! they are copied in and out by whole words, each with one atomic access, and never otherwise:
//! accesses of different sizes that overlap could race.

use crate::os::sync::{AtomicU64, Ordering::Relaxed};
use core::fmt;
use core::marker::PhantomData;
use std::vec;
use std::vec::Vec;

const WORD: usize = size_of::<u64>();
/// Words copied in one step: enough of them that the loop itself costs nothing.
const STEP: usize = 8;

/// Copies whole words out.
fn load_words(words: &[AtomicU64], out: &mut [u8]) {
    let mut steps = words.chunks_exact(STEP);
    let mut outs = out.chunks_exact_mut(STEP * WORD);
    for (words, out) in steps.by_ref().zip(outs.by_ref()) {
        for index in 0..STEP {
            let bytes = words[index].load(Relaxed).to_ne_bytes();
            out[index * WORD..(index + 1) * WORD].copy_from_slice(&bytes);
        }
    }
    let rest = outs.into_remainder().chunks_exact_mut(WORD);
    for (word, out) in steps.remainder().iter().zip(rest) {
        out.copy_from_slice(&word.load(Relaxed).to_ne_bytes());
    }
}

/// Copies whole words in.
fn store_words(words: &[AtomicU64], from: &[u8]) {
    let mut steps = words.chunks_exact(STEP);
    let mut froms = from.chunks_exact(STEP * WORD);
    for (words, from) in steps.by_ref().zip(froms.by_ref()) {
        for index in 0..STEP {
            let mut bytes = [0; WORD];
            bytes.copy_from_slice(&from[index * WORD..(index + 1) * WORD]);
            words[index].store(u64::from_ne_bytes(bytes), Relaxed);
        }
    }
    let rest = froms.remainder().chunks_exact(WORD);
    for (word, from) in steps.remainder().iter().zip(rest) {
        let mut bytes = [0; WORD];
        bytes.copy_from_slice(from);
        word.store(u64::from_ne_bytes(bytes), Relaxed);
    }
}

/// How a range of bytes lies on words: the words, the bytes before it in the first one, and how
/// many of it are before the first and behind the last whole word.
struct Cut {
    first: usize,
    skip: usize,
    head: usize,
    whole: usize,
    tail: usize,
}

impl Cut {
    fn new(offset: usize, len: usize) -> Cut {
        let skip = offset % WORD;
        let head = if skip == 0 { 0 } else { len.min(WORD - skip) };
        Cut {
            first: offset / WORD,
            skip,
            head,
            whole: (len - head) / WORD,
            tail: (len - head) % WORD,
        }
    }

    /// The index of the first whole word.
    fn inner(&self) -> usize {
        self.first + usize::from(self.head > 0)
    }
}

/// Bytes to be read, while others may write them: what is read twice may differ.
#[derive(Clone, Copy)]
pub struct SharedBytes<'a> {
    /// All words of the bytes, whole.
    words: &'a [AtomicU64],
    len: usize,
}

impl<'a> SharedBytes<'a> {
    /// The first `len` bytes of `words`.
    pub(super) fn new(words: &'a [AtomicU64], len: usize) -> SharedBytes<'a> {
        let words = &words[..len.div_ceil(WORD)];
        SharedBytes { words, len }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[track_caller]
    fn check(&self, offset: usize, len: usize) {
        let end = offset.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.len),
            "{len} bytes at {offset} are beyond the end of {}",
            self.len
        );
    }

    /// Copies the bytes from `offset` on out, as many as `out` has. About as fast as `memcpy` out
    /// of memory, and half as fast out of caches.
    ///
    /// # Panics
    /// If there are not so many.
    #[track_caller]
    pub fn read_at(&self, offset: usize, out: &mut [u8]) {
        self.check(offset, out.len());
        let cut = Cut::new(offset, out.len());
        let (head, rest) = out.split_at_mut(cut.head);
        if cut.head > 0 {
            let bytes = self.words[cut.first].load(Relaxed).to_ne_bytes();
            head.copy_from_slice(&bytes[cut.skip..cut.skip + cut.head]);
        }
        let (whole, tail) = rest.split_at_mut(cut.whole * WORD);
        let end = cut.inner() + cut.whole;
        load_words(&self.words[cut.inner()..end], whole);
        if cut.tail > 0 {
            let bytes = self.words[end].load(Relaxed).to_ne_bytes();
            tail.copy_from_slice(&bytes[..cut.tail]);
        }
    }

    /// A copy of all of them.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read_at(0, &mut bytes);
        bytes
    }

    /// The words that the bytes lie in, in order; the last may go beyond the end of the bytes.
    pub fn words(&self) -> impl ExactSizeIterator<Item = u64> + use<'a> {
        self.words.iter().map(|word| word.load(Relaxed))
    }

    /// Where the bytes are in this process. Others may write them meanwhile: reading them through
    /// this pointer other than by volatile or atomic accesses is a data race.
    pub fn as_ptr(&self) -> *const u8 {
        self.words.as_ptr().cast()
    }
}

impl fmt::Debug for SharedBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBytes({} bytes)", self.len)
    }
}

/// Bytes to be read and written by the one process that holds them. Still, another that keeps to no
/// rules may write them meanwhile, and will then find its bytes or these here, nothing worse.
pub struct ExclusiveBytes<'a> {
    bytes: SharedBytes<'a>,
    /// As a `&mut` would: whoever has this is the only one in this process.
    exclusive: PhantomData<&'a mut [u8]>,
}

impl<'a> ExclusiveBytes<'a> {
    pub(super) fn new(words: &'a [AtomicU64], len: usize) -> ExclusiveBytes<'a> {
        ExclusiveBytes {
            bytes: SharedBytes::new(words, len),
            exclusive: PhantomData,
        }
    }

    /// To be read.
    pub fn shared(&self) -> SharedBytes<'_> {
        self.bytes
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.bytes.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Replaces some bytes of a word.
    fn patch(&self, word: usize, skip: usize, from: &[u8]) {
        let word = &self.bytes.words[word];
        let mut bytes = word.load(Relaxed).to_ne_bytes();
        bytes[skip..skip + from.len()].copy_from_slice(from);
        word.store(u64::from_ne_bytes(bytes), Relaxed);
    }

    /// Copies bytes in, to `offset` and on. As fast as [`read_at`](SharedBytes::read_at).
    ///
    /// # Panics
    /// If there is no room for them there.
    #[track_caller]
    pub fn write_at(&mut self, offset: usize, from: &[u8]) {
        self.bytes.check(offset, from.len());
        let cut = Cut::new(offset, from.len());
        let (head, rest) = from.split_at(cut.head);
        if cut.head > 0 {
            self.patch(cut.first, cut.skip, head);
        }
        let (whole, tail) = rest.split_at(cut.whole * WORD);
        let end = cut.inner() + cut.whole;
        store_words(&self.bytes.words[cut.inner()..end], whole);
        if cut.tail > 0 {
            self.patch(end, 0, tail);
        }
    }

    /// Makes all bytes the same.
    pub fn fill(&mut self, byte: u8) {
        let word = u64::from_ne_bytes([byte; WORD]);
        self.bytes
            .words
            .iter()
            .for_each(|place| place.store(word, Relaxed));
    }

    /// The words that the bytes lie in, to be computed on in place; what the last one has beyond
    /// the end of the bytes belongs to the buffer, and is nobody's.
    pub fn words(&mut self) -> &[AtomicU64] {
        self.bytes.words
    }

    /// Where the bytes are in this process. As with [`SharedBytes::as_ptr`], no other accesses than
    /// volatile and atomic ones are sound.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_ptr().cast_mut()
    }
}

impl fmt::Debug for ExclusiveBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExclusiveBytes({} bytes)", self.bytes.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_else_changes(
            len in 0..300_usize,
            writes in proptest::collection::vec(
                (any::<prop::sample::Index>(), proptest::collection::vec(any::<u8>(), 0..200)), 0..20),
        ) {
            let words: Vec<AtomicU64> = (0..40).map(|_| AtomicU64::new(u64::MAX)).collect();
            let mut shadow = vec![0xff; 40 * WORD];
            for (at, mut from) in writes {
                let offset = at.index(len + 1);
                from.truncate(len - offset);
                ExclusiveBytes::new(&words, len).write_at(offset, &from);
                shadow[offset..offset + from.len()].copy_from_slice(&from);
                prop_assert_eq!(SharedBytes::new(&words, len).to_vec(), &shadow[..len]);
                let mut part = vec![0; from.len()];
                SharedBytes::new(&words, len).read_at(offset, &mut part);
                prop_assert_eq!(part, from);
            }
            prop_assert_eq!(SharedBytes::new(&words, 40 * WORD).to_vec(), shadow);
        }
    }

    #[test]
    #[should_panic(expected = "2 bytes at 9 are beyond the end of 10")]
    fn nothing_is_read_beyond_the_end() {
        let words = [const { AtomicU64::new(0) }; 2];
        SharedBytes::new(&words, 10).read_at(9, &mut [0; 2]);
    }

    #[test]
    #[should_panic(expected = "beyond the end of 10")]
    fn nothing_is_written_beyond_the_end() {
        let words = [const { AtomicU64::new(0) }; 2];
        ExclusiveBytes::new(&words, 10).write_at(usize::MAX, &[0; 2]);
    }
}
