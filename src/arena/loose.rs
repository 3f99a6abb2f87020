//! Blocks that were freed in full runs, kept by class for the next requests.
//!
//! A full run is taken up again with one compare-and-swap and parked with another, each of which waits
//! for the store to the freed block's cold line. A thread that replaces blocks of a large table would
//! do both for nearly every block. So such a block goes on a list of its bin instead, of which the fast
//! path takes the next one, and the run stays full.
//!
//! What waits there keeps its run from going back. So the list is short, and no longer than requests
//! make use of: whenever it is used up its bound doubles, and when it is full its blocks go back to
//! their runs, and the bound is half of that. A thread that only frees soon keeps none.

use super::Arena;
use super::bins::Bins;
use super::secure;
use super::slow;
use crate::class::CLASSES;
use crate::pool::{metadata, router};
use crate::run::descriptor::{Run, Slot, run_of};
use crate::units::ClassIndex;
use core::ptr::NonNull;

/// The largest blocks that are kept. Larger ones are replaced no faster for it.
const LARGEST: u32 = 8 << 10;
/// The most that one list may hold: blocks, and their bytes.
const MOST: u32 = 32;
const MOST_BYTES: u32 = 64 << 10;

/// How many blocks of a class a list may hold at most.
fn most(class: ClassIndex) -> u32 {
    match class.row().size {
        size if size > LARGEST => 0,
        size => (MOST_BYTES / size).min(MOST),
    }
}

impl Bins {
    /// The list of a class, once there was a use for one. It has the form of a run, so that it can be
    /// the current one: of so many slots as its bound is, none of which is its own.
    pub(crate) fn loose(&self, class: ClassIndex) -> Option<&'static Run> {
        // SAFETY: lists are never given up.
        unsafe { self.loose[class.index()].get().as_ref() }
    }

    /// How many blocks are on a list.
    fn held(loose: &Run) -> u32 {
        loose.surplus.get().unsigned_abs()
    }

    /// A block was put on the free list of a full run, where it is alone: moves it to the list of its
    /// class, whose run is then the current one, if there is room.
    ///
    /// # Safety
    /// As said; the run is of these bins, which are this thread's, and serves all requests.
    #[inline(always)]
    pub(super) unsafe fn keep_loose(&self, run: &Run) -> bool {
        let class = run.head.class();
        let Some(loose) = self.loose(class) else {
            return false;
        };
        if Self::held(loose) >= loose.slots() {
            return false;
        }
        // SAFETY: the caller's promise.
        unsafe {
            let block = run.take_only();
            if loose.free.get() == block.cast() {
                secure::end_free(block);
            }
            loose.put_known(block);
        }
        let list = core::ptr::from_ref(loose).cast_mut();
        self.bin(class).set_current(list);
        true
    }

    /// There was no room for a block: makes a list if there is none, or else empties it, and has it
    /// hold half as many from now on.
    ///
    /// # Safety
    /// The bins are the arena's, and the caller has that.
    pub(super) unsafe fn shorten_loose(&self, arena: &Arena, class: ClassIndex) {
        match self.loose(class) {
            Some(loose) => {
                // SAFETY: the caller's promise.
                unsafe { self.empty_loose(arena, class) };
                loose.set_slots(loose.slots() / 2);
            }
            None if most(class) > 0 && router::is_simple() => self.begin_loose(class),
            None => {}
        }
    }

    fn begin_loose(&self, class: ClassIndex) {
        if let Some(record) = metadata::allocate(size_of::<Run>()) {
            let record = record.cast::<Run>();
            // SAFETY: a fresh record of that size.
            unsafe { record.write(Run::without_slots()) };
            self.loose[class.index()].set(record.as_ptr());
        }
    }

    /// A block from the list of a class, which is then the current run. Where the list was current it
    /// is used up, and may hold twice as many.
    ///
    /// # Safety
    /// The caller has the arena, and the current run has no free slot.
    pub(super) unsafe fn take_loose(&self, class: ClassIndex) -> Option<Slot> {
        let loose = self.loose(class)?;
        let list = core::ptr::from_ref(loose).cast_mut();
        let bin = self.bin(class);
        if bin.current() == list {
            loose.set_slots((2 * loose.slots()).clamp(1, most(class)));
            return None;
        }
        loose.set_slots(loose.slots().max(1));
        // SAFETY: the caller's promise.
        let address = unsafe { loose.take_first()? };
        bin.set_current(list);
        Some(Slot {
            address,
            zero: false,
        })
    }

    /// Puts the blocks on the list of a class back where their runs have them.
    ///
    /// # Safety
    /// The bins are the arena's, and the caller has that.
    unsafe fn empty_loose(&self, arena: &Arena, class: ClassIndex) {
        let Some(loose) = self.loose(class) else {
            return;
        };
        // SAFETY: the caller's promise; blocks on the list are slots of runs of that class that nobody
        // uses, and were counted as freed.
        unsafe {
            while let Some(block) = loose.take_first().map(NonNull::as_ptr) {
                let run = &*run_of(block, class);
                slow::free_here(arena, self, run, block);
            }
        }
    }

    /// The same for all classes.
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn empty_all_loose(&self, arena: &Arena) {
        for class in (0..CLASSES as u8).map(ClassIndex) {
            // SAFETY: the caller's promise.
            unsafe { self.empty_loose(arena, class) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::fast;
    use crate::arena::life::with_arena;
    use crate::class::class_of_layout;
    use crate::pool::router::Wanted;
    use crate::run::remote::State;
    use core::alloc::Layout;
    use std::vec::Vec;

    const BLOCKS: usize = 3_000;

    fn allocate(layout: Layout) -> *mut u8 {
        let class = class_of_layout(layout).unwrap();
        fast::allocate(class, |_| slow::allocate(class, &Wanted::new(layout)))
    }

    /// Blocks of which each was replaced several times, and how many were freed in a run that was full
    /// and stayed so, of the last `BLOCKS`.
    fn replaced(layout: Layout) -> (Vec<*mut u8>, usize) {
        let class = class_of_layout(layout).unwrap();
        let mut blocks: Vec<_> = (0..BLOCKS).map(|_| allocate(layout)).collect();
        let mut stayed_full = 0;
        for step in 0..8 * BLOCKS {
            if step % BLOCKS == 0 {
                stayed_full = 0;
            }
            // One in four times two are freed and two allocated, so that the number goes up and down.
            let victims = [step * 1_009 % BLOCKS, (step * 1_009 + 1_500) % BLOCKS];
            for &victim in &victims[..1 + usize::from(step % 4 == 0)] {
                // SAFETY: a block of the class, which nobody uses, and its run.
                unsafe {
                    let run = &*run_of(blocks[victim], class);
                    let was_full = run.remote.state() == State::Full;
                    fast::deallocate(blocks[victim], class);
                    let is_full = run.remote.state() == State::Full;
                    stayed_full += usize::from(was_full && is_full);
                }
                blocks[victim] = core::ptr::null_mut();
            }
            for &victim in &victims[..1 + usize::from(step % 4 == 0)] {
                blocks[victim] = allocate(layout);
            }
        }
        (blocks, stayed_full)
    }

    fn kept(layout: Layout) -> u32 {
        let class = class_of_layout(layout).unwrap();
        let loose = with_arena(|arena| arena.base.loose(class)).unwrap();
        loose.map_or(0, Bins::held)
    }

    #[test]
    fn blocks_are_replaced_while_their_runs_stay_full() {
        let layout = Layout::from_size_align(1_536, 8).unwrap();
        let class = class_of_layout(layout).unwrap();
        let (blocks, stayed_full) = replaced(layout);
        assert!(stayed_full > BLOCKS / 2, "{stayed_full} of {BLOCKS}");
        let mut sorted = blocks.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), BLOCKS, "no block was handed out twice");
        for block in blocks {
            // SAFETY: a block of that class, which nobody uses.
            unsafe { fast::deallocate(block, class) };
        }
        assert_eq!(kept(layout), 0, "who only frees keeps none");
        let loose = with_arena(|arena| arena.base.loose(class)).unwrap();
        assert_eq!(loose.map(Run::slots), Some(0), "and is to keep none");
    }

    #[test]
    fn a_look_puts_blocks_back() {
        let layout = Layout::from_size_align(2_560, 8).unwrap();
        let class = class_of_layout(layout).unwrap();
        let (mut blocks, _) = replaced(layout);
        let mut runs = Vec::new();
        while kept(layout) < 2 {
            let block = blocks.swap_remove(blocks.len() / 2);
            // SAFETY: a block of that class, which nobody uses, and its run.
            unsafe {
                runs.push(&*run_of(block, class));
                fast::deallocate(block, class);
            }
        }
        with_arena(Arena::trim_now);
        assert_eq!(kept(layout), 0);
        assert!(runs.iter().all(|run| run.has_free()), "where they belong");
        for block in blocks {
            // SAFETY: as above.
            unsafe { fast::deallocate(block, class) };
        }
    }
}
