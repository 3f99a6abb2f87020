//! Frees from other threads: one word a run that packs a list of blocks, how many they are, and
//! who looks after the run.
//!
//! ```text
//! bit 63..62  state
//! bit 55..40  blocks on the list
//! bit 39..0   these bits of the first block's address, in units of 8 bytes; 0 for an empty list
//! ```
//! The rest of that address is the rest of any address in the run: a region starts at a multiple of
//! its size, which divides what 40 bits tell apart, and with its descriptors.
//!
//! The blocks link to each other by address. Everybody may push; the list is only ever taken
//! whole, so a push that succeeds has linked to what is really the head: there is no ABA problem.
//!
//! A run that its owner keeps in its lists is `Owned`. One that the owner found without a free
//! slot is `Full`: it is in no list, and whoever frees a block of it first makes it `Notified` and
//! puts it into the owner's queue. An owner that wants others to look after a run does so itself,
//! with all free slots on the list. Whoever empties that queue has the run.

use super::links::{FreeSlot, Links, Taken};
use crate::os::REGION_SHIFT;
use crate::os::sync::{AtomicU64, Ordering};
use static_assertions::const_assert;

/// Who looks after a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub(crate) enum State {
    /// Its owner, who keeps it in a list.
    Owned = 0,
    /// Nobody, until a block of it is freed.
    Full = 1,
    /// Whoever empties the owner's queue.
    Notified = 2,
}

/// The word.
pub(crate) struct Remote(AtomicU64);

const STATE_SHIFT: u32 = 62;
const COUNT_SHIFT: u32 = 40;
const COUNT_ONE: u64 = 1 << COUNT_SHIFT;
const COUNT_MASK: u64 = 0xffff << COUNT_SHIFT;
const HEAD_MASK: u64 = COUNT_ONE - 1;
/// Blocks start at multiples of 8 bytes.
const GRAIN_SHIFT: u32 = 3;
/// What the addresses of all blocks of a run have in common.
const NEAR: usize = !((HEAD_MASK as usize) << GRAIN_SHIFT);

// Only a region's start has none of the bits, and no block lies there.
const_assert!(REGION_SHIFT <= COUNT_SHIFT + GRAIN_SHIFT);

fn state(word: u64) -> State {
    match word >> STATE_SHIFT {
        0 => State::Owned,
        1 => State::Full,
        _ => State::Notified,
    }
}

fn count(word: u64) -> u32 {
    ((word & COUNT_MASK) >> COUNT_SHIFT) as u32
}

/// The word of a state with an empty list.
const fn bare(state: State) -> u64 {
    (state as u64) << STATE_SHIFT
}

/// The first block on the list; `near` lies in the same run.
#[inline(always)]
fn first<T>(word: u64, near: *mut T) -> *mut FreeSlot {
    match (word & HEAD_MASK) as usize {
        0 => core::ptr::null_mut(),
        head => near
            .map_addr(|near| near & NEAR | head << GRAIN_SHIFT)
            .cast(),
    }
}

/// The bits of the word that make a block the first.
#[inline(always)]
fn head(block: *mut FreeSlot) -> u64 {
    (block.addr() >> GRAIN_SHIFT) as u64 & HEAD_MASK
}

impl Remote {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Remote(AtomicU64::new(bare(State::Owned)))
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Remote(AtomicU64::new(bare(State::Owned)))
    }

    /// Makes the run `Owned` with an empty list. Only before anybody else can see it.
    #[cfg(not(loom))]
    pub(crate) fn reset(&self) {
        self.0.store(bare(State::Owned), Ordering::Relaxed);
    }

    /// Puts a block on the list of its run. True if the run was `Full`: the caller has made it
    /// `Notified` and must put it into its owner's queue.
    ///
    /// # Safety
    /// The block is a slot of that run and the caller's.
    #[must_use]
    #[inline(always)]
    pub(crate) unsafe fn push(&self, block: *mut FreeSlot, links: Links) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.push_all(block, block, 1, links) }
    }

    /// The same for `count` blocks that are linked, from the first to the last.
    ///
    /// # Safety
    /// As there.
    #[must_use]
    #[inline(always)]
    pub(crate) unsafe fn push_all(
        &self,
        begin: *mut FreeSlot,
        end: *mut FreeSlot,
        count: u32,
        links: Links,
    ) -> bool {
        let head = head(begin);
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            // SAFETY: the blocks are the caller's until the exchange succeeds.
            unsafe { links.link(end, first(word, end)) };
            // `Full` becomes `Notified`, which is twice it, and no other state changes.
            let full = word & bare(State::Full);
            let next = ((word & !HEAD_MASK) + full + u64::from(count) * COUNT_ONE) | head;
            // Release pairs with the Acquire in `take`: the links, and whatever this thread did to
            // the blocks and booked for them before, is seen by who reuses them. Acquire pairs
            // with the Release in `try_mark_full`: who notifies sees whose run it is.
            match self
                .0
                .compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return full != 0,
                Err(now) => word = now,
            }
        }
    }

    /// Takes all blocks and makes the run `Owned`. Only by who looks after it: its owner while it
    /// is `Owned`, or who took it from the queue.
    pub(crate) fn take(&self, start: *mut u8) -> Taken {
        // Acquire pairs with the Release in `push`. A swap, since pushes go on.
        let word = self.0.swap(bare(State::Owned), Ordering::Acquire);
        Taken {
            first: first(word, start),
            count: count(word),
        }
    }

    /// Takes all blocks of a run that stays `Notified`. Only by who took it from the queue, and is
    /// to put it there again.
    pub(crate) fn take_waiting(&self, start: *mut u8) -> Taken {
        // Acquire: as in `take`.
        let word = self.0.swap(bare(State::Notified), Ordering::Acquire);
        Taken {
            first: first(word, start),
            count: count(word),
        }
    }

    /// Puts free slots of the run on the list, and makes it `Notified`: the caller must put it into
    /// its owner's queue. `slots` may count more than are linked.
    ///
    /// # Safety
    /// The caller looks after the run, and the slots are its own.
    pub(crate) unsafe fn leave(&self, slots: Taken, links: Links) {
        // SAFETY: the caller's slots, linked, the last one to null.
        let last = unsafe { slots.last(links) };
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let head = if last.is_null() {
                word & HEAD_MASK
            } else {
                // SAFETY: the slot is the caller's until the exchange succeeds.
                unsafe { links.link(last, first(word, last)) };
                head(slots.first)
            };
            let blocks = (word & COUNT_MASK) + u64::from(slots.count) * COUNT_ONE;
            let next = bare(State::Notified) | blocks | head;
            // Release pairs with the Acquire in `take` and `take_waiting`: the links are seen.
            match self
                .0
                .compare_exchange_weak(word, next, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// The first block that waits. Only while nobody frees.
    #[cfg(all(feature = "check", not(loom)))]
    pub(crate) fn first(&self, start: *mut u8) -> *mut FreeSlot {
        first(self.0.load(Ordering::Relaxed), start)
    }

    /// Whether a block waits. A hint: the answer may be old.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed) & COUNT_MASK == 0
    }

    /// How many blocks wait. A hint, exact when nobody pushes.
    pub(crate) fn count(&self) -> u32 {
        count(self.0.load(Ordering::Relaxed))
    }

    /// Forgets all blocks on the list. Only while there is no other thread.
    #[cfg(not(loom))]
    pub(crate) fn forget(&self) {
        self.0.store(bare(self.state()), Ordering::Relaxed);
    }

    /// The state. A hint to all but who looks after the run.
    #[inline]
    pub(crate) fn state(&self) -> State {
        state(self.0.load(Ordering::Relaxed))
    }

    /// Makes an `Owned` run without waiting blocks `Full`. False if blocks wait.
    pub(crate) fn try_mark_full(&self) -> bool {
        // Release: who makes it `Owned` again sees the owner's writes (pairs with the Acquire in
        // `take` and `try_take_back`).
        self.0
            .compare_exchange(
                bare(State::Owned),
                bare(State::Full),
                Ordering::Release,
                Ordering::Relaxed,
            )
            .is_ok()
    }

    /// Makes a `Full` run `Owned` again. False if another thread has notified: the run is then in
    /// the queue.
    pub(crate) fn try_take_back(&self) -> bool {
        // Acquire: as in `try_mark_full`.
        self.0
            .compare_exchange(
                bare(State::Full),
                bare(State::Owned),
                Ordering::Acquire,
                Ordering::Relaxed,
            )
            .is_ok()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn pushes_and_takes() {
        let mut memory = [0_u64; 8];
        let start: *mut u8 = memory.as_mut_ptr().cast();
        let slot = |index: usize| start.wrapping_add(index * 16).cast::<FreeSlot>();
        let links = Links::new(start, size_of_val(&memory), 0);
        let remote = Remote::new();
        assert!(remote.is_empty());
        // SAFETY: slots of `memory`.
        unsafe {
            assert!(!remote.push(slot(0), links));
            assert!(!remote.push(slot(3), links));
        }
        assert!(!remote.try_mark_full(), "blocks wait");
        let taken = remote.take(start);
        assert_eq!((taken.first, taken.count), (slot(3), 2));
        // SAFETY: linked by `push`.
        unsafe {
            assert_eq!((*slot(3)).next, slot(0));
            assert!((*slot(0)).next.is_null());
        }
        assert!(remote.try_mark_full());
        assert!(remote.try_take_back());
        assert!(remote.try_mark_full());
        // SAFETY: a slot of `memory`.
        unsafe {
            assert!(remote.push(slot(1), links), "the first to free notifies");
            assert!(!remote.push(slot(2), links), "the second does not");
        }
        assert!(!remote.try_take_back());
        assert_eq!(remote.state(), State::Notified);
        assert_eq!(remote.take(start).count, 2);
        assert_eq!(remote.state(), State::Owned);
    }

    #[test]
    fn slots_are_left_and_looked_through() {
        let mut memory = [0_u64; 8];
        let start: *mut u8 = memory.as_mut_ptr().cast();
        let slot = |index: usize| start.wrapping_add(index * 16).cast::<FreeSlot>();
        let links = Links::new(start, size_of_val(&memory), 0);
        let remote = Remote::new();
        // SAFETY: slots of `memory`.
        unsafe {
            assert!(!remote.push(slot(3), links));
            links.link(slot(1), null());
            links.link(slot(0), slot(1));
            let slots = Taken {
                first: slot(0),
                count: 2,
            };
            remote.leave(slots, links);
            assert_eq!((remote.state(), remote.count()), (State::Notified, 3));
            assert!(!remote.push(slot(2), links), "it was notified already");
            let mut taken = remote.take_waiting(start);
            assert_eq!(remote.state(), State::Notified);
            assert_eq!(taken.count, 4);
            for index in [2, 0, 1, 3] {
                assert_eq!(taken.first, slot(index));
                taken.first = links.next(taken.first);
            }
            assert!(taken.first.is_null());
            // None is linked any more, and all are counted.
            remote.leave(taken, links);
        }
        assert!(!remote.try_take_back());
        let taken = remote.take(start);
        assert!(taken.first.is_null());
        assert_eq!((taken.count, remote.state()), (4, State::Owned));
    }

    fn null() -> *mut FreeSlot {
        core::ptr::null_mut()
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::cell::Cell;
    use loom::sync::Arc;
    use loom::thread;
    use std::vec::Vec;

    struct Run {
        remote: Remote,
        slots: Vec<FreeSlot>,
    }

    // SAFETY: slots are reached by their holder only, which is what the model checks.
    unsafe impl Send for Run {}
    // SAFETY: as above.
    unsafe impl Sync for Run {}

    impl Run {
        fn new() -> Arc<Run> {
            let slot = || FreeSlot {
                next: Cell::new(core::ptr::null_mut()),
            };
            Arc::new(Run {
                remote: Remote::new(),
                slots: (0..3).map(|_| slot()).collect(),
            })
        }

        fn start(&self) -> *mut u8 {
            self.slots.as_ptr() as *mut u8
        }

        fn links(&self) -> Links {
            Links::new(self.start(), size_of_val(&self.slots[..]), 0)
        }

        fn free(&self, index: usize) -> bool {
            let slot = core::ptr::from_ref(&self.slots[index]).cast_mut();
            // SAFETY: each test frees each slot once.
            unsafe { self.remote.push(slot, self.links()) }
        }

        fn free_both(&self, first: usize, last: usize) -> bool {
            let slot = |index: usize| core::ptr::from_ref(&self.slots[index]).cast_mut();
            let (first, last) = (slot(first), slot(last));
            // SAFETY: as above.
            unsafe {
                self.links().link(first, last);
                self.remote.push_all(first, last, 2, self.links())
            }
        }

        fn take(&self) -> u32 {
            let taken = self.remote.take(self.start());
            let mut slot = taken.first;
            let mut length = 0;
            while !slot.is_null() {
                length += 1;
                // SAFETY: on the list, hence ours.
                slot = unsafe { self.links().next(slot) };
            }
            assert_eq!(length, taken.count);
            length
        }
    }

    #[test]
    fn no_block_is_lost() {
        loom::model(|| {
            let run = Run::new();
            let (a, b) = (Arc::clone(&run), Arc::clone(&run));
            let first = thread::spawn(move || a.free(0));
            let second = thread::spawn(move || b.free(1));
            let early = run.take();
            assert!(!first.join().unwrap());
            assert!(!second.join().unwrap());
            assert_eq!(early + run.take(), 2);
        });
    }

    #[test]
    fn blocks_that_go_together_are_not_lost() {
        loom::model(|| {
            let run = Run::new();
            let (a, b) = (Arc::clone(&run), Arc::clone(&run));
            assert!(run.remote.try_mark_full());
            let both = thread::spawn(move || a.free_both(0, 1));
            let third = thread::spawn(move || b.free(2));
            let taken_back = run.remote.try_take_back();
            let notified = [both.join().unwrap(), third.join().unwrap()];
            let notified = notified.iter().filter(|&&was_full| was_full).count();
            assert_eq!(notified + usize::from(taken_back), 1);
            assert_eq!(run.take(), 3);
        });
    }

    #[test]
    fn a_full_run_is_notified_once() {
        loom::model(|| {
            let run = Run::new();
            let (a, b) = (Arc::clone(&run), Arc::clone(&run));
            assert!(run.remote.try_mark_full());
            let first = thread::spawn(move || a.free(0));
            let second = thread::spawn(move || b.free(1));
            let notified = [first.join().unwrap(), second.join().unwrap()];
            assert_eq!(notified.iter().filter(|&&was_full| was_full).count(), 1);
            assert_eq!(run.take(), 2);
        });
    }

    #[test]
    fn owner_and_freer_agree_who_has_a_full_run() {
        loom::model(|| {
            let run = Run::new();
            let other = Arc::clone(&run);
            assert!(run.remote.try_mark_full());
            let freer = thread::spawn(move || other.free(0));
            let taken_back = run.remote.try_take_back();
            let notified = freer.join().unwrap();
            assert!(taken_back != notified);
            assert_eq!(run.take(), 1);
        });
    }

    #[test]
    fn marking_full_misses_no_block() {
        loom::model(|| {
            let run = Run::new();
            let other = Arc::clone(&run);
            let freer = thread::spawn(move || other.free(0));
            let marked = run.remote.try_mark_full();
            let notified = freer.join().unwrap();
            assert_eq!(
                marked, notified,
                "full when freed exactly if it was marked first"
            );
            assert_eq!(run.take(), 1);
        });
    }

    /// A run that its owner leaves to whoever empties the queue, while blocks of it are freed: one
    /// of the three has it at any time, and no block is lost.
    #[test]
    fn a_run_left_by_its_owner_keeps_its_blocks() {
        loom::model(|| {
            let run = Run::new();
            let (freer, other) = (Arc::clone(&run), Arc::clone(&run));
            let freer = thread::spawn(move || freer.free(0));
            let slot = core::ptr::from_ref(&run.slots[1]).cast_mut();
            // SAFETY: the model's own slot.
            unsafe {
                run.links().link(slot, core::ptr::null_mut());
                let slots = Taken {
                    first: slot,
                    count: 1,
                };
                run.remote.leave(slots, run.links());
            }
            // Spawned once the run is in the queue.
            let other = thread::spawn(move || {
                let taken = other.remote.take_waiting(other.start());
                assert!(!other.remote.try_take_back(), "it stays notified");
                // SAFETY: taken from the queue.
                unsafe { other.remote.leave(taken, other.links()) };
            });
            other.join().unwrap();
            assert!(!freer.join().unwrap(), "the run was notified by its owner");
            assert_eq!(run.take(), 2);
        });
    }
}
