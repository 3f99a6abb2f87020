//! A pool's records under its lock, and what one process alone knows of the pool. What is done with
//! them is in `pool.rs`.

use super::error::MbufError;
use super::layout::{PoolLayout, counts, descriptor};
use super::lock::{self, Attempt};
use super::memory::Memory;
use super::set::Set;
use super::space::Space;
use crate::os::sync::{AtomicU64, Ordering, Ordering::Relaxed};
use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use std::vec::Vec;

/// Attempts at the lock before asking whether its holder lives, and before sleeping.
const SPINS: u32 = 200;
const YIELDS: u32 = 20;
const NAP: Duration = Duration::from_micros(50);
/// How long a living process may keep the lock: far above what any use of it takes.
const PATIENCE: Duration = Duration::from_secs(2);

/// A buffer that this process holds.
pub(super) struct Held {
    pub(super) span: u64,
    /// The count in its generation.
    pub(super) count: u32,
    /// How many times this process opened it.
    pub(super) times: u32,
}

/// What this process alone knows of a pool.
pub(super) struct Private {
    pub(super) held: BTreeMap<u64, Held>,
    /// Buffers to be released that could not be when it was time: where they start.
    pub(super) owed: Vec<(u64, u32)>,
    /// The shared records contradicted what is known here: they are to be put in order.
    pub(super) is_suspect: bool,
    random: u64,
}

impl Private {
    pub(super) fn new(seed: u64) -> Private {
        Private {
            held: BTreeMap::new(),
            owed: Vec::new(),
            is_suspect: false,
            random: seed,
        }
    }

    /// SplitMix64.
    pub(super) fn ticket(&mut self) -> u32 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb) >> 32) as u32
    }

    /// Whether a span touches one that this process holds.
    pub(super) fn overlaps(&self, start: u64, span: u64) -> bool {
        let last = self.held.range(..start + span).next_back();
        last.is_some_and(|(&other, held)| other + held.span > start)
    }
}

/// A process's bit among the holders.
pub(super) fn bit_of(slot: u32) -> (usize, u64) {
    ((slot / 64) as usize, 1 << (slot % 64))
}

/// A pool under its lock.
pub(super) struct Locked<'a> {
    pub(super) set: &'a Set,
    pub(super) index: usize,
    pub(super) layout: &'a PoolLayout,
    pub(super) private: MutexGuard<'a, Private>,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // If the word is no longer ours somebody wrote over it; there is nobody to tell.
        lock::give(&self.counts()[counts::LOCK], self.set.member.id());
    }
}

impl<'a> Locked<'a> {
    /// Takes the pool's lock; puts its records in order if the last holder died.
    pub(super) fn new(set: &'a Set, index: usize) -> Result<Locked<'a>, MbufError> {
        // In a forked child a thread that is not there may have the mutex.
        if set.member.is_forked() {
            return Err(MbufError::Forked);
        }
        let layout = &set.layout.pools[index];
        // What is in there is in order between any two statements that could panic.
        let private = set.private[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let word = &set.memory.words(layout.counts)[counts::LOCK];
        let how = wait(word, set).ok_or(MbufError::Stalled { pool: index })?;
        let mut locked = Locked {
            set,
            index,
            layout,
            private,
        };
        if how == Attempt::TakenOver || locked.private.is_suspect {
            locked.rebuild();
        }
        while let Some((start, count)) = locked.private.owed.pop() {
            locked.release(start, count);
        }
        Ok(locked)
    }

    pub(super) fn counts(&self) -> &'a [AtomicU64] {
        self.set.memory.words(self.layout.counts)
    }

    pub(super) fn space(&self) -> Space<'a> {
        space(self.set, self.layout)
    }

    pub(super) fn starts(&self) -> &'a [AtomicU64] {
        self.set.memory.words(self.layout.starts)
    }

    /// The descriptor of the buffer at a granule of this pool.
    pub(super) fn descriptor(&self, start: u64) -> &'a [AtomicU64] {
        let first = start as usize * descriptor::WORDS;
        &self.set.memory.words(self.layout.descriptors)[first..first + descriptor::WORDS]
    }

    pub(super) fn holders(&self, start: u64) -> &'a [AtomicU64] {
        &self.descriptor(start)[descriptor::HOLDERS..]
    }

    pub(super) fn has_holders(&self, start: u64) -> bool {
        self.holders(start)
            .iter()
            .any(|word| word.load(Relaxed) != 0)
    }

    pub(super) fn has_holder(&self, start: u64, slot: u32) -> bool {
        let (word, bit) = bit_of(slot);
        self.holders(start)[word].load(Relaxed) & bit != 0
    }

    /// Adds or removes a holder. Release: if this process dies after it, it finds what came before
    /// it done who takes the lock over.
    pub(super) fn set_holder(&self, start: u64, slot: u32, holds: bool) {
        let (index, bit) = bit_of(slot);
        let word = &self.holders(start)[index];
        let old = word.load(Relaxed);
        word.store(
            if holds { old | bit } else { old & !bit },
            Ordering::Release,
        );
    }

    pub(super) fn is_start(&self, start: u64) -> bool {
        let word = &self.starts()[(start / 64) as usize];
        word.load(Relaxed) >> (start % 64) & 1 == 1
    }

    /// Sets or clears a start bit: with it a buffer begins and ends. Release as in `set_holder`.
    pub(super) fn set_start(&self, start: u64, is_start: bool) {
        let word = &self.starts()[(start / 64) as usize];
        let (old, bit) = (word.load(Relaxed), 1 << (start % 64));
        word.store(
            if is_start { old | bit } else { old & !bit },
            Ordering::Release,
        );
    }

    /// Where buffers start.
    pub(super) fn buffers(&self) -> impl Iterator<Item = u64> + use<'a> {
        let (starts, granules) = (self.starts(), self.layout.granules);
        let top = self.counts()[counts::TOP].load(Relaxed).min(granules);
        let words = starts.iter().take(top.div_ceil(64) as usize).enumerate();
        words
            .flat_map(|(index, word)| {
                let mut rest = word.load(Relaxed);
                core::iter::from_fn(move || {
                    (rest != 0).then(|| {
                        let bit = rest.trailing_zeros();
                        rest &= rest - 1;
                        index as u64 * 64 + u64::from(bit)
                    })
                })
            })
            .filter(move |&start| start < granules)
    }

    /// The span of the buffer at `start`, if what its descriptor says can be.
    pub(super) fn span(&self, start: u64) -> Option<u64> {
        let span = self.descriptor(start)[descriptor::SPAN].load(Relaxed);
        let end = start.checked_add(span)?;
        (span > 0 && end <= self.layout.granules).then_some(span)
    }

    pub(super) fn add(&self, count: usize, more: u64) {
        let word = &self.counts()[count];
        word.store(word.load(Relaxed).wrapping_add(more), Relaxed);
    }

    /// Counts a request that came here, one that went on from here, one that failed here.
    pub(super) fn count(&self, count: usize) {
        self.add(count, 1);
    }

    /// The records are to be put in order before they are used again.
    pub(super) fn damaged(&mut self) -> MbufError {
        self.private.is_suspect = true;
        MbufError::Damaged { pool: self.index }
    }
}

/// The maps of a pool.
pub(super) fn space<'a>(set: &'a Set, layout: &PoolLayout) -> Space<'a> {
    maps(&set.memory, layout)
}

/// Makes the maps of a pool that is all zeroes those of an empty one.
pub(super) fn close_end(memory: &Memory, layout: &PoolLayout) {
    maps(memory, layout).close_end();
}

fn maps<'a>(memory: &'a Memory, layout: &PoolLayout) -> Space<'a> {
    let (used, summaries) = (memory.words(layout.used), memory.words(layout.summaries));
    Space::new(used, summaries, layout.granules)
}

/// Waits for a lock word; `None` if a living process does not give it back.
fn wait(word: &AtomicU64, set: &Set) -> Option<Attempt> {
    for _ in 0..SPINS {
        match lock::try_take(word, set.member.id(), |_| false) {
            Attempt::Held(_) => core::hint::spin_loop(),
            taken => return Some(taken),
        }
    }
    let is_dead = |id| set.member.is_dead(&set.memory, &set.layout, id);
    let begun = Instant::now();
    let mut waited = 0;
    loop {
        match lock::try_take(word, set.member.id(), is_dead) {
            Attempt::Held(_) if begun.elapsed() > PATIENCE => return None,
            Attempt::Held(_) if waited < YIELDS => thread::yield_now(),
            Attempt::Held(_) => thread::sleep(NAP),
            taken => return Some(taken),
        }
        waited += 1;
    }
}
