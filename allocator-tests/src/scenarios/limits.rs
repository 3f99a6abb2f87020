//! Programs that may not have all the memory they ask for: they get null and
//! a reason, and live on.

use std::alloc::Layout;
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::ptr::NonNull;
use std::sync::{Arc, Barrier};
use std::thread;

use bursar::AllocFailure;
use nix::sys::mman::{
    MapFlags, MlockAllFlags, ProtFlags, mlockall, mmap_anonymous, mprotect, munmap,
};

use super::{Arguments, Host, Run, scaled};
use crate::blocks::{Filled, Heap, layout};
use crate::pattern::verify_zero;
use crate::shadow::{Block, Shadow};
use crate::sizes::Mix;
use crate::stress::Generator;

pub(super) const ALL: &[(&str, Run)] = &[
    ("exhaust", exhaust),
    ("work", ordinary_work),
    ("islands", islands),
    ("locked", locked),
];

const PAGE: usize = 4096;

/// Blocks chained through their first words, so that holding them takes no
/// memory besides.
struct Chain {
    heap: &'static Heap,
    layout: Layout,
    first: *mut *mut u8,
    bytes: u64,
}

impl Chain {
    /// Takes blocks of one size until there are no more, or `most` are held.
    fn fill(heap: &'static Heap, size: usize, most: u64) -> Self {
        let mut chain = Self {
            heap,
            layout: layout(size, 16),
            first: std::ptr::null_mut(),
            bytes: 0,
        };
        while chain.bytes < most {
            // SAFETY: the size is not zero.
            let block = unsafe { heap.alloc(chain.layout) }.cast::<*mut u8>();
            if block.is_null() {
                break;
            }
            // SAFETY: the block holds a pointer and is aligned for it.
            unsafe { block.write(chain.first.cast()) };
            chain.first = block;
            chain.bytes += size as u64;
        }
        chain
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        while !self.first.is_null() {
            let block = self.first;
            // SAFETY: each block of the chain is live, holds the next, and
            // was allocated with this layout.
            unsafe {
                self.first = block.read().cast();
                self.heap.dealloc(block.cast(), self.layout);
            }
        }
    }
}

/// The most blocks that `steps` holds.
const MOST: usize = 150;

/// Random steps for which null is an answer or, if `must`, is not.
fn steps(heap: &'static Heap, seed: u64, count: u64, must: bool) {
    steps_with(Vec::with_capacity(2 * MOST), heap, seed, count, must);
}

/// The same, with room for the shadow's books, which is returned: no memory is
/// needed besides the blocks.
fn steps_with(
    books: Vec<Block>,
    heap: &'static Heap,
    seed: u64,
    count: u64,
    must: bool,
) -> Vec<Block> {
    let mut generator = Generator::new(seed, Mix::EVEN, MOST);
    let mut shadow = Shadow::new(heap, seed, books);
    for _ in 0..count {
        let step = generator.next(shadow.len());
        let had = step
            .apply(&mut shadow)
            .unwrap_or_else(|fault| panic!("{fault}"));
        assert!(
            had || !must,
            "null for {step:?}: {:?}",
            bursar::last_failure()
        );
    }
    shadow.clear().unwrap_or_else(|fault| panic!("{fault}"));
    shadow.into_blocks()
}

/// Takes all there is under a limit, in blocks from large to small, gives it
/// back, and takes it again. Arguments: the size of the largest blocks, the
/// bytes that must be had.
fn exhaust(host: &Host, arguments: &Arguments) {
    let (largest, least) = (arguments.number(0) as usize, arguments.number(1));
    // All that the program needs while there is no memory.
    let books = Vec::with_capacity(2 * MOST);
    let (heap, barrier) = (host.heap, Arc::new(Barrier::new(2)));
    // Started first, to its first block: its stack would not be had later.
    let other = thread::spawn({
        let barrier = Arc::clone(&barrier);
        move || {
            drop(Filled::new(heap, layout(100, 8)));
            barrier.wait();
            barrier.wait();
            // Told to main, which has memory to say so.
            Filled::new(heap, layout(10_000, 8)).ok_or(bursar::last_failure())?;
            steps(heap, 3, 2_000, true);
            Ok::<(), Option<AllocFailure>>(())
        }
    });
    barrier.wait();
    let take_all = || {
        let sizes = [
            largest,
            largest / 4,
            1 << 20,
            100 << 10,
            10_000,
            3_000,
            200,
            24,
        ];
        sizes.map(|size| Chain::fill(host.heap, size, u64::MAX))
    };
    let all = take_all();
    let had: u64 = all.iter().map(|chain| chain.bytes).sum();
    let reason = bursar::last_failure().expect("a reason for the null");
    let books = steps_with(books, heap, 1, 2_000, false);
    drop(all);
    println!("{had} bytes were had, then: {reason}");
    assert!(had >= least, "only {had} bytes were had, not {least}");
    steps_with(books, heap, 2, 2_000, true);
    let again: u64 = take_all().iter().map(|chain| chain.bytes).sum();
    assert!(
        again >= had - had / 8,
        "{again} bytes the second time, {had} the first"
    );
    bursar::purge();
    barrier.wait();
    let other = other.join().unwrap_or_else(|panic| resume_unwind(panic));
    other.unwrap_or_else(|reason| panic!("null in another thread, because {reason:?}"));
    host.check();
}

/// Ordinary work, in several threads, for which there must be memory.
fn ordinary_work(host: &Host, _: &Arguments) {
    let heap = host.heap;
    let threads = [1, 2, 3]
        .map(|seed| thread::spawn(move || steps(heap, seed, scaled(100_000, 5_000), true)));
    for thread in threads {
        thread.join().unwrap_or_else(|panic| resume_unwind(panic));
    }
    host.check();
}

/// Mappings of single pages with differing protection, until the kernel
/// refuses one more.
fn make_islands() -> (NonNull<libc::c_void>, usize) {
    let length = NonZeroUsize::new((200_000 * PAGE).next_power_of_two()).expect("not zero");
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
    // SAFETY: a new mapping at an address that the kernel chooses.
    let sea = unsafe { mmap_anonymous(None, length, ProtFlags::PROT_NONE, flags) }
        .expect("address space");
    for page in (1..length.get() / PAGE).step_by(2) {
        // SAFETY: the page lies inside the mapping.
        let protected = unsafe { mprotect(sea.byte_add(page * PAGE), PAGE, ProtFlags::PROT_READ) };
        if protected.is_err() {
            return (sea, length.get());
        }
    }
    panic!(
        "the kernel allows more than 100,000 mappings; vm.max_map_count is too high for the test"
    );
}

/// `vm.max_map_count` is exhausted: what can be served without another
/// mapping is, the rest is null.
fn islands(host: &Host, _: &Arguments) {
    steps(host.heap, 1, 5_000, true);
    let (sea, length) = make_islands();
    for seed in 2..6 {
        steps(host.heap, seed, 5_000, false);
        bursar::purge();
    }
    let heap = host.heap;
    // A thread's stack is a mapping more, so there may be no thread.
    let threads = [6, 7].map(|seed| {
        let work = move || steps(heap, seed, 5_000, false);
        thread::Builder::new().spawn(work)
    });
    for thread in threads.into_iter().flatten() {
        thread.join().unwrap_or_else(|panic| resume_unwind(panic));
    }
    let blocks = Chain::fill(host.heap, 300 << 10, 256 << 20);
    println!("{} bytes were had amid the islands", blocks.bytes);
    check_amid(host, &blocks);
    drop(blocks);
    // SAFETY: nothing refers to the islands.
    unsafe { munmap(sea, length) }.expect("they can be unmapped as a whole");
    steps(host.heap, 7, 5_000, true);
    bursar::purge();
    host.check();
}

/// The invariants hold while the chain lives; the chain is not on the books
/// that the host compares.
fn check_amid(host: &Host, chain: &Chain) {
    bursar::check().unwrap_or_else(|broken| panic!("amid the islands: {broken}"));
    if let Some(books) = host.books {
        let each = bursar::block_size(chain.layout) as u64;
        let ours = books(chain.bytes / chain.layout.size() as u64 * each);
        assert_eq!(bursar::stats().allocated_bytes, ours, "bytes on the books");
    }
}

/// Under `mlockall`, advice to drop pages fails and the old bytes stay:
/// zeroed blocks must be zero all the same.
fn locked(host: &Host, _: &Arguments) {
    if let Err(error) = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE) {
        println!("skipped: memory cannot be locked: {error}");
        return;
    }
    for size in [100, 5_000, 70_000, 1 << 20, 9 << 20] {
        for _ in 0..20 {
            let layout = layout(size, 16);
            // SAFETY: the size is not zero; the block is dirtied and freed.
            unsafe {
                let dirty = host.heap.alloc(layout);
                assert!(!dirty.is_null(), "memory can be had");
                dirty.write_bytes(0xa5, size);
                host.heap.dealloc(dirty, layout);
            }
            bursar::purge();
            // SAFETY: as above; the block is valid for reads of its size.
            unsafe {
                let zeroed = host.heap.alloc_zeroed(layout);
                assert!(!zeroed.is_null(), "memory can be had");
                verify_zero(zeroed, size).unwrap_or_else(|found| panic!("{size} bytes {found}"));
                host.heap.dealloc(zeroed, layout);
            }
        }
    }
    steps(host.heap, 1, 2_000, true);
    host.check();
}
