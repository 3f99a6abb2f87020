//! Blocks of other threads' runs that were freed here, until several go to their run together.
//!
//! A block that goes by itself costs a compare-and-swap on its run's word, which waits for the store to
//! a line that the other thread wrote last. Where a thread frees one block of a run after another, they
//! are linked to each other first.
//!
//! What is held back keeps its run from going back as long as this thread sleeps. So blocks are held
//! only once several of a run came in a row, few of them, and of one run for each class. They go when
//! the next block of the class is of another run, when the arena looks through its runs, and at the
//! thread's end.

use super::Arena;
use crate::pool::router;
use crate::run::descriptor::Run;
use crate::run::links::{FreeSlot, Links};
use crate::units::ClassIndex;
use core::cell::Cell;
use core::ptr::{null, null_mut};

/// Batches: one for each class whose blocks are held, and others that share with them.
const BATCHES: usize = 64;
/// So many blocks of one run are held back at first, and at most, and so many bytes.
const LEAST: u32 = 2;
const MOST: u32 = 16;
const MOST_BYTES: u32 = 16 << 10;

/// Whether blocks of a class are held back. Runs of several slices are too much to keep.
fn is_held(class: ClassIndex) -> bool {
    let row = class.row();
    row.slices == 1 && row.size <= MOST_BYTES / LEAST
}

/// How many blocks of such a class may be held back.
fn most(class: ClassIndex) -> u32 {
    (MOST_BYTES / class.row().size).min(MOST)
}

/// Blocks of one run that were freed one after the other. Links are plain: in the secure profile there
/// are none.
pub(super) struct Batch {
    /// The run of the last block of the class that was freed. It may be gone if none are held.
    run: Cell<*const Run>,
    first: Cell<*mut FreeSlot>,
    last: Cell<*mut FreeSlot>,
    held: Cell<u32>,
    /// With so many they are sent; 0 for the second of a row, which is sent alone.
    bound: Cell<u32>,
}

impl Batch {
    const fn new() -> Batch {
        Batch {
            run: Cell::new(null()),
            first: Cell::new(null_mut()),
            last: Cell::new(null_mut()),
            held: Cell::new(0),
            bound: Cell::new(0),
        }
    }

    /// Whether the last block was of that run, too.
    #[inline(always)]
    pub(super) fn is_of(&self, run: &Run) -> bool {
        core::ptr::eq(self.run.get(), run)
    }

    /// Holds a block back. Whether there are then enough.
    ///
    /// # Safety
    /// The caller has the arena; the block is of the batch's run, counted as freed, and not used any
    /// more; links are plain.
    #[inline(always)]
    pub(super) unsafe fn hold(&self, block: *mut FreeSlot) -> bool {
        let first = self.first.replace(block);
        if first.is_null() {
            self.last.set(block);
        }
        // SAFETY: the caller's promise.
        unsafe { Links::plain().link(block, first) };
        let held = self.held.get() + 1;
        self.held.set(held);
        held >= self.bound.get()
    }

    /// Begins anew with a run, of which a block was freed that is not held, unless there are others that
    /// are. Whether it did.
    #[inline(always)]
    pub(super) fn begin(&self, run: &Run) -> bool {
        self.bound.set(0);
        if self.held.get() != 0 {
            return false;
        }
        self.run.set(run);
        true
    }

    /// Has more be held next time.
    pub(super) fn grow(&self, class: ClassIndex) {
        if is_held(class) && router::is_simple() {
            let bound = (2 * self.bound.get()).clamp(LEAST, most(class));
            self.bound.set(bound);
        }
    }

    /// Puts what is held on the list of its run, if anything is. The run, if the caller has notified it.
    ///
    /// # Safety
    /// The caller has the arena, and puts the run into its owner's queue.
    #[must_use]
    pub(super) unsafe fn send(&self) -> Option<&'static Run> {
        let count = self.held.replace(0);
        if count == 0 {
            return None;
        }
        let first = self.first.replace(null_mut());
        // SAFETY: the blocks keep their run alive, and are the caller's, linked; after that the run is
        // alive as long as this thread has it to notify its owner.
        unsafe {
            let run = &*self.run.get();
            let last = self.last.get();
            let notified = run.remote.push_all(first, last, count, Links::plain());
            notified.then_some(run)
        }
    }
}

/// What a thread holds back.
pub(super) struct Batches([Batch; BATCHES]);

impl Batches {
    pub(super) const fn new() -> Batches {
        Batches([const { Batch::new() }; BATCHES])
    }

    /// The batch that a block of a class may be held in.
    #[inline(always)]
    pub(super) fn of(&self, class: ClassIndex) -> &Batch {
        &self.0[class.index() % BATCHES]
    }
}

impl Arena {
    /// Sends all blocks that are held back.
    pub(super) fn send_all(&self) {
        for batch in &self.batches.0 {
            // SAFETY: whoever looks through an arena has it.
            if let Some(run) = unsafe { batch.send() } {
                // SAFETY: notified just now.
                unsafe { super::slow::notify_owner(run) };
            }
        }
    }

    /// Visits the blocks that are held back, and their runs.
    #[cfg(feature = "check")]
    pub(crate) fn for_each_held_back(&self, mut visit: impl FnMut(&Run)) {
        for batch in &self.batches.0 {
            // SAFETY: the blocks that are held keep their run alive.
            (0..batch.held.get()).for_each(|_| visit(unsafe { &*batch.run.get() }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::life::with_arena;
    use crate::arena::{fast, slow};
    use crate::class::class_of_layout;
    use crate::pool::router::Wanted;
    use crate::run::descriptor::run_of;
    use core::alloc::Layout;
    use std::thread;
    use std::vec::Vec;

    const LAYOUT: Layout = Layout::new::<[u64; 6]>();
    const BLOCKS: usize = 6_000;

    /// Addresses of blocks that a thread allocated which lives on until `then` has ended.
    fn with_blocks_of_another(then: impl FnOnce(ClassIndex, &[usize])) {
        let class = class_of_layout(LAYOUT).unwrap();
        let (give, take) = std::sync::mpsc::channel();
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let other = thread::spawn(move || {
            let blocks: Vec<_> = (0..BLOCKS)
                .map(|_| allocate(class).expose_provenance())
                .collect();
            give.send(blocks).unwrap();
            let _ = wait.recv();
        });
        // The thread has an arena, and counts the class.
        let own = allocate(class);
        then(class, &take.recv().unwrap());
        free(own.expose_provenance(), class);
        drop(end);
        other.join().unwrap();
    }

    fn allocate(class: ClassIndex) -> *mut u8 {
        fast::allocate(class, |_| slow::allocate(class, &Wanted::new(LAYOUT)))
    }

    fn free(address: usize, class: ClassIndex) {
        // SAFETY: each test frees each of its blocks once.
        unsafe { fast::deallocate(core::ptr::with_exposed_provenance_mut(address), class) };
    }

    fn held(class: ClassIndex) -> u32 {
        with_arena(|arena| arena.batches.of(class).held.get()).unwrap()
    }

    #[test]
    fn blocks_of_one_run_go_together() {
        with_blocks_of_another(|class, blocks| {
            let (mut most_held, mut went) = (0, 0);
            for &block in blocks {
                let before = held(class);
                free(block, class);
                most_held = most_held.max(held(class));
                went += usize::from(held(class) <= before);
            }
            assert_eq!(most_held, MOST - 1);
            assert!(went < BLOCKS / 8, "{went} of {BLOCKS}");
            with_arena(Arena::send_all);
            assert_eq!(held(class), 0);
        });
    }

    #[test]
    fn the_end_of_a_thread_sends_what_it_held() {
        let class = class_of_layout(LAYOUT).unwrap();
        let blocks: Vec<_> = (0..100).map(|_| allocate(class)).collect();
        let freed: Vec<_> = blocks
            .iter()
            .map(|block| block.expose_provenance())
            .collect();
        thread::spawn(move || {
            // The thread has an arena.
            free(allocate(class).expose_provenance(), class);
            freed.iter().for_each(|&block| free(block, class));
        })
        .join()
        .unwrap();
        // SAFETY: blocks on the list of a run keep it alive.
        let mut runs: Vec<_> = blocks
            .iter()
            .map(|&block| unsafe { run_of(block, class) })
            .collect();
        runs.dedup();
        // SAFETY: as above.
        let waiting = runs.iter().map(|&run| unsafe { (*run).remote.count() });
        assert_eq!(waiting.sum::<u32>(), 100);
    }

    #[test]
    fn what_is_held_goes_to_its_own_run() {
        with_blocks_of_another(|class, blocks| {
            // SAFETY: nothing was freed, so each block keeps its run alive.
            let run = |block: usize| unsafe {
                &*run_of(core::ptr::with_exposed_provenance_mut(block), class)
            };
            let first = run(blocks[0]);
            let of_first = |block: &&usize| core::ptr::eq(run(**block), first);
            let (mine, others): (Vec<_>, Vec<_>) = blocks.iter().partition(of_first);
            let second = run(others[0]);
            let mut freed = 0;
            while held(class) == 0 {
                free(mine[freed], class);
                freed += 1;
            }
            free(others[0], class);
            assert_eq!(held(class), 0);
            assert_eq!(first.remote.count() as usize, freed);
            assert_eq!(second.remote.count(), 1);
        });
    }

    #[test]
    fn blocks_of_other_runs_each_time_are_not_held() {
        with_blocks_of_another(|class, blocks| {
            let (first, second) = blocks.split_at(BLOCKS / 2);
            for (&first, &second) in first.iter().zip(second) {
                free(first, class);
                assert_eq!(held(class), 0);
                free(second, class);
                assert_eq!(held(class), 0);
            }
        });
    }
}
