//! Which granules of a pool are in use: a bitmap, with a summary word for each 4096 of them.
//!
//! First fit by address. For each chunk of 64 words the summary tells how many granules are free
//! at its start, at its end, and in its longest free span, so that a search looks at one word for
//! 4 MiB, and into the bitmap only where there is room. All zero is all free: untouched pages of
//! the maps need no initialisation.
//!
//! ```text
//! summary(chunk) = those three numbers of the chunk's 64 words, each subtracted from 4096
//! ```
//! The words lie in memory that others write. What is read is believed only as a hint: a span is
//! looked at bit by bit before it is claimed, and no index comes from it that is not below the
//! number of granules.

use crate::extent::bits;
use crate::os::sync::{AtomicU64, Ordering::Relaxed};

/// Granules of a chunk.
pub(super) const CHUNK: u64 = 64 * WORDS;
/// Words of a chunk in the bitmap.
const WORDS: u64 = 64;
const FIELD_BITS: u32 = 16;
/// The summary of a chunk without a free granule.
const ALL_USED: u64 = CHUNK | CHUNK << FIELD_BITS | CHUNK << (2 * FIELD_BITS);
const ALL_FREE: u64 = 0;

/// The maps contradict each other: somebody wrote over them, or died at work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Contradiction;

/// Free granules of a chunk: at its start, the most together, at its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Free {
    first: u64,
    longest: u64,
    last: u64,
}

impl Free {
    fn of_summary(word: u64) -> Free {
        let field = |index: u32| CHUNK - (word >> (index * FIELD_BITS) & 0xffff).min(CHUNK);
        Free {
            first: field(0),
            longest: field(1),
            last: field(2),
        }
    }

    fn summary(self) -> u64 {
        let field = |free: u64, index: u32| (CHUNK - free) << (index * FIELD_BITS);
        field(self.first, 0) | field(self.longest, 1) | field(self.last, 2)
    }

    fn of_words(words: &[AtomicU64]) -> Free {
        let (mut first, mut longest, mut run) = (None, 0, 0);
        for (index, word) in words.iter().enumerate() {
            let free = !word.load(Relaxed);
            if free == u64::MAX {
                run += 64;
                continue;
            }
            run += u64::from(free.trailing_ones());
            first.get_or_insert(index as u64 * 64 + u64::from(free.trailing_ones()));
            longest = run.max(longest);
            // Most words are all used, or have less free than was found already.
            if u64::from(free.count_ones()) > longest {
                longest = longest.max(bits::longest(free).into());
            }
            run = free.leading_ones().into();
        }
        Free {
            first: first.unwrap_or(run),
            longest: longest.max(run),
            last: run,
        }
    }
}

/// The lowest span of `count` free granules in a chunk's words.
fn lowest_in(words: &[AtomicU64], count: u64) -> Option<u64> {
    let mut run = 0;
    for (index, word) in words.iter().enumerate() {
        let at = index as u64 * 64;
        let free = !word.load(Relaxed);
        if run + u64::from(free.trailing_ones()) >= count {
            return Some(at - run);
        }
        if free == u64::MAX {
            run += 64;
            continue;
        }
        if count <= 64
            && let Some(bit) = bits::first_fit(free, count as u32, 1)
        {
            return Some(at + u64::from(bit));
        }
        run = free.leading_ones().into();
    }
    None
}

/// The maps of one pool.
#[derive(Clone, Copy)]
pub(super) struct Space<'a> {
    used: &'a [AtomicU64],
    summaries: &'a [AtomicU64],
    granules: u64,
}

impl<'a> Space<'a> {
    /// Words of the bitmap, and of the summaries, for so many granules.
    pub(super) const fn words(granules: u64) -> (u64, u64) {
        let chunks = granules.div_ceil(CHUNK);
        (chunks * WORDS, chunks)
    }

    /// Both slices have the [`words`](Self::words) that there are for `granules`.
    pub(super) fn new(
        used: &'a [AtomicU64],
        summaries: &'a [AtomicU64],
        granules: u64,
    ) -> Space<'a> {
        debug_assert_eq!(used.len() as u64, summaries.len() as u64 * WORDS);
        Space {
            used,
            summaries,
            granules,
        }
    }

    fn chunk(&self, index: u64) -> &'a [AtomicU64] {
        let start = (index * WORDS) as usize;
        self.used.get(start..start + WORDS as usize).unwrap_or(&[])
    }

    /// Marks what lies behind the last granule as used. Once, and when all was cleared.
    pub(super) fn close_end(&self) {
        let end = self.used.len() as u64 * 64;
        self.mark(self.granules, end - self.granules, true);
    }

    /// Where the lowest span of `count` free granules starts, according to the maps.
    pub(super) fn find(&self, count: u64) -> Result<Option<u64>, Contradiction> {
        // Free granules right before the chunk.
        let mut before = 0;
        for (chunk, summary) in self.summaries.iter().enumerate() {
            let (start, free) = (
                chunk as u64 * CHUNK,
                Free::of_summary(summary.load(Relaxed)),
            );
            if before + free.first >= count {
                return Ok(Some(start - before));
            }
            if free.longest >= count {
                return match lowest_in(self.chunk(chunk as u64), count) {
                    Some(place) => Ok(Some(start + place)),
                    None => Err(Contradiction),
                };
            }
            before = if free.first == CHUNK {
                before + CHUNK
            } else {
                free.last
            };
        }
        Ok(None)
    }

    /// Marks a span that [`find`](Self::find) found as used, unless it is not free after all.
    pub(super) fn claim(&self, start: u64, count: u64) -> Result<(), Contradiction> {
        if start + count > self.granules || !self.is_free(start, count) {
            return Err(Contradiction);
        }
        self.mark(start, count, true);
        Ok(())
    }

    /// Marks a span as free.
    pub(super) fn release(&self, start: u64, count: u64) {
        self.mark(start, count, false);
    }

    /// The words that a span touches, with the bits of it in each.
    fn masks(start: u64, count: u64) -> impl Iterator<Item = (usize, u64)> {
        let end = start + count;
        (start / 64..end.div_ceil(64)).map(move |word| {
            let from = start.max(word * 64) - word * 64;
            let to = end.min(word * 64 + 64) - word * 64;
            (word as usize, bits::mask(from as u32, (to - from) as u32))
        })
    }

    /// Whether all bits of a span are 0, or 1 if `flip` has all bits.
    fn is_clear(&self, start: u64, count: u64, flip: u64) -> bool {
        count == 0
            || Self::masks(start, count).all(|(word, mask)| {
                let used = self.used.get(word);
                used.is_some_and(|used| (used.load(Relaxed) ^ flip) & mask == 0)
            })
    }

    /// Whether no granule of a span is marked as used.
    pub(super) fn is_free(&self, start: u64, count: u64) -> bool {
        self.is_clear(start, count, 0)
    }

    /// Whether every granule of a span is marked as used.
    #[cfg(any(test, feature = "check"))]
    pub(super) fn is_used(&self, start: u64, count: u64) -> bool {
        self.is_clear(start, count, u64::MAX)
    }

    /// Whether the summaries of all chunks that begin below `top` are those of their words.
    #[cfg(any(test, feature = "check"))]
    pub(super) fn is_summarised(&self, top: u64) -> bool {
        let chunks = (0..).zip(self.summaries).take(top.div_ceil(CHUNK) as usize);
        chunks.into_iter().all(|(chunk, summary)| {
            summary.load(Relaxed) == Free::of_words(self.chunk(chunk)).summary()
        })
    }

    fn mark(&self, start: u64, count: u64, is_used: bool) {
        if count == 0 {
            return;
        }
        for (word, mask) in Self::masks(start, count) {
            if let Some(used) = self.used.get(word) {
                let old = used.load(Relaxed);
                used.store(if is_used { old | mask } else { old & !mask }, Relaxed);
            }
        }
        let end = start + count;
        for chunk in start / CHUNK..end.div_ceil(CHUNK) {
            let is_whole = start <= chunk * CHUNK && chunk * CHUNK + CHUNK <= end;
            let summary = match (is_whole, is_used) {
                (true, true) => ALL_USED,
                (true, false) => ALL_FREE,
                _ => Free::of_words(self.chunk(chunk)).summary(),
            };
            if let Some(place) = self.summaries.get(chunk as usize) {
                place.store(summary, Relaxed);
            }
        }
    }

    /// Marks everything below `top` as free, to be marked anew by those who know what is used.
    pub(super) fn clear(&self, top: u64) {
        let chunks = top.min(self.granules).div_ceil(CHUNK);
        self.mark(0, chunks * CHUNK, false);
        self.close_end();
    }

    /// Granules of the longest free span, and where it starts.
    pub(super) fn longest(&self) -> (u64, u64) {
        let (mut longest, mut before) = ((0, 0), 0);
        for (chunk, summary) in self.summaries.iter().enumerate() {
            let start = chunk as u64 * CHUNK;
            let free = Free::of_summary(summary.load(Relaxed));
            if before + free.first > longest.0 {
                longest = (before + free.first, start - before);
            }
            if free.longest > longest.0 {
                let inside = lowest_in(self.chunk(chunk as u64), free.longest).unwrap_or(0);
                longest = (free.longest, start + inside);
            }
            before = if free.first == CHUNK {
                before + CHUNK
            } else {
                free.last
            };
        }
        longest
    }

    /// The free spans from `from` to `top`, as (start, count), none longer than a chunk: longer
    /// ones come in pieces.
    pub(super) fn free_spans(
        self,
        from: u64,
        top: u64,
    ) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        let end = top.min(self.granules);
        let is_free = move |granule: u64| {
            let word = self.used.get((granule / 64) as usize);
            word.is_some_and(|word| word.load(Relaxed) >> (granule % 64) & 1 == 0)
        };
        let mut at = from;
        core::iter::from_fn(move || {
            while at < end && !is_free(at) {
                at += 1;
            }
            let first = at;
            let most = end.min(first + CHUNK);
            while at < most && is_free(at) {
                at += 1;
            }
            (at > first).then_some((first, at - first))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    struct Maps {
        used: Vec<AtomicU64>,
        summaries: Vec<AtomicU64>,
        granules: u64,
    }

    impl Maps {
        fn new(granules: u64) -> Maps {
            let (used, summaries) = Space::words(granules);
            let zeroes = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
            let maps = Maps {
                used: zeroes(used),
                summaries: zeroes(summaries),
                granules,
            };
            maps.space().close_end();
            maps
        }

        fn space(&self) -> Space<'_> {
            Space::new(&self.used, &self.summaries, self.granules)
        }

        fn check(&self, shadow: &[bool]) {
            for (chunk, summary) in self.summaries.iter().enumerate() {
                let words = self.space().chunk(chunk as u64);
                let expected = Free::of_words(words).summary();
                assert_eq!(summary.load(Relaxed), expected, "chunk {chunk}");
            }
            for (granule, &used) in shadow.iter().enumerate() {
                let word = self.used[granule / 64].load(Relaxed);
                assert_eq!(word >> (granule % 64) & 1 == 1, used, "granule {granule}");
            }
            let spans = spans(shadow);
            let longest = spans.iter().map(|span| span.1).max().unwrap_or(0);
            let lowest = spans.iter().find(|span| span.1 == longest);
            assert_eq!(
                self.space().longest(),
                lowest.map_or((0, 0), |span| (span.1, span.0))
            );
            let pieces: u64 = self
                .space()
                .free_spans(0, u64::MAX)
                .map(|span| span.1)
                .sum();
            assert_eq!(pieces, spans.iter().map(|span| span.1).sum::<u64>());
        }
    }

    fn spans(shadow: &[bool]) -> Vec<(u64, u64)> {
        let mut spans: Vec<(u64, u64)> = Vec::new();
        for (granule, _) in shadow.iter().enumerate().filter(|(_, used)| !**used) {
            match spans.last_mut() {
                Some(span) if span.0 + span.1 == granule as u64 => span.1 += 1,
                _ => spans.push((granule as u64, 1)),
            }
        }
        spans
    }

    fn set(shadow: &mut [bool], start: u64, count: u64, is_used: bool) {
        shadow[start as usize..(start + count) as usize].fill(is_used);
    }

    #[test]
    fn edges() {
        for granules in [1, 63, 64, 65, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 100] {
            let maps = Maps::new(granules);
            let space = maps.space();
            assert_eq!(space.longest(), (granules, 0));
            assert_eq!(space.find(granules + 1), Ok(None));
            assert_eq!(space.find(granules), Ok(Some(0)));
            space.claim(0, granules).unwrap();
            assert_eq!(space.find(1), Ok(None));
            assert_eq!(space.claim(granules - 1, 1), Err(Contradiction));
            space.release(granules - 1, 1);
            assert_eq!(space.find(1), Ok(Some(granules - 1)));
            assert_eq!(space.claim(granules - 1, 2), Err(Contradiction));
            space.clear(granules);
            maps.check(&vec![false; granules as usize]);
        }
    }

    #[test]
    fn a_summary_that_lies_is_found_out() {
        let maps = Maps::new(2 * CHUNK);
        let space = maps.space();
        space.claim(0, 2 * CHUNK).unwrap();
        maps.summaries[1].store(
            Free {
                first: 0,
                longest: 70,
                last: 0,
            }
            .summary(),
            Relaxed,
        );
        assert_eq!(space.find(65), Err(Contradiction));
        maps.summaries[1].store(u64::MAX, Relaxed);
        assert_eq!(space.find(65), Ok(None));
        maps.summaries[0].store(0, Relaxed);
        let found = space.find(65).unwrap().unwrap();
        assert_eq!(space.claim(found, 65), Err(Contradiction));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn the_lowest_span_that_fits_is_found(
            granules in 1..3 * CHUNK,
            steps in proptest::collection::vec(
                (prop_oneof![1..5_u64, 1..200_u64, 1..2 * CHUNK], any::<prop::sample::Index>(), 0..5),
                1..80,
            ),
        ) {
            let maps = Maps::new(granules);
            let mut shadow = vec![false; granules as usize];
            let mut live: Vec<(u64, u64)> = Vec::new();
            for (count, index, what) in steps {
                if what < 2 && !live.is_empty() {
                    let (start, count) = live.swap_remove(index.index(live.len()));
                    maps.space().release(start, count);
                    set(&mut shadow, start, count, false);
                } else {
                    let expected = spans(&shadow).into_iter().find(|span| span.1 >= count);
                    let found = maps.space().find(count);
                    prop_assert_eq!(found, Ok(expected.map(|span| span.0)));
                    if let Ok(Some(start)) = found {
                        prop_assert_eq!(maps.space().claim(start, count), Ok(()));
                        set(&mut shadow, start, count, true);
                        live.push((start, count));
                    }
                }
                maps.check(&shadow);
            }
        }
    }
}
