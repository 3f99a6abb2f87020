//! Private arenas and pools of tasks.

use std::ptr::NonNull;
use std::time::Duration;

use bursar::{Bursar, MemoryManager};

#[global_allocator]
static GLOBAL: Bursar = Bursar::new();

/// A block that is not optimised away.
fn block<const N: usize>() -> Box<[u8; N]> {
    std::hint::black_box(Box::new([7; N]))
}

#[test]
fn a_private_arena_goes_back_at_once_whatever_is_alive_in_it() {
    use allocator_api2::{boxed::Box, vec::Vec};
    let task = MemoryManager::begin("arena");
    let arena = task.arena();
    let mut words: Vec<Vec<u8, _>, _> = Vec::new_in(&arena);
    for number in 0..5_000_usize {
        let mut word = Vec::new_in(&arena);
        word.extend((0..number % 100).map(|byte| byte as u8));
        words.push(word);
    }
    let aligned = Box::new_in([7_u64; 9], &arena);
    assert!(
        words
            .iter()
            .enumerate()
            .all(|(number, word)| word.len() == number % 100)
    );
    assert!(words.iter().flatten().count() > 200_000 && aligned[8] == 7);
    let mut large: Vec<u8, _> = Vec::with_capacity_in(20 << 20, &arena);
    large.resize(20 << 20, 1);
    assert!(arena.held_bytes() >= 20 << 20);
    let charged = task.usage().live_bytes;
    // Large chunks occupy whole pages.
    assert!((arena.held_bytes()..arena.held_bytes() + (64 << 10)).contains(&charged));
    std::mem::forget((words, aligned, large));
    // Forgotten too: the end of the task gives it back.
    std::mem::forget(arena);
    let report = task.end().unwrap();
    assert!(report.is_clean(), "{report}");
    assert!(report.peak_bytes >= 20 << 20);
}

#[test]
fn an_arena_cuts_blocks_that_do_not_overlap() {
    use allocator_api2::alloc::Allocator;
    use std::alloc::Layout;
    let task = MemoryManager::begin("blocks");
    let arena = &task.arena();
    let fill = |block: NonNull<u8>, size: usize, byte: u8| {
        // SAFETY: a block of at least that size.
        unsafe { block.as_ptr().write_bytes(byte, size) };
    };
    let expect = |block: NonNull<u8>, size: usize, byte: u8| {
        // SAFETY: alive, of that size, and written.
        let bytes = unsafe { std::slice::from_raw_parts(block.as_ptr(), size) };
        assert!(bytes.iter().all(|found| *found == byte));
    };
    let mut blocks = Vec::new();
    for number in 0..3_000_usize {
        let layout = Layout::from_size_align(number * 37 % 700, 1 << (number % 8)).unwrap();
        let block = arena.allocate(layout).unwrap().cast::<u8>();
        assert!(block.as_ptr().addr().is_multiple_of(layout.align()));
        fill(block, layout.size(), number as u8);
        blocks.push((block, layout, number as u8));
        if number % 5 == 0 {
            // The last one, whose place is used again, or one that others lie behind.
            let index = blocks.len() - 1 - number / 5 % 2 * (blocks.len() / 2);
            let (block, layout, _) = blocks.swap_remove(index);
            // SAFETY: alive, of that layout.
            unsafe { arena.deallocate(block, layout) };
        }
        if number % 7 == 0 && !blocks.is_empty() {
            let index = number % 2 * (blocks.len() - 1);
            let (block, layout, byte) = blocks[index];
            let more = Layout::from_size_align(layout.size() + 100, layout.align()).unwrap();
            // SAFETY: alive, of that layout, and not used by that name again.
            let grown = unsafe { arena.grow(block, layout, more).unwrap().cast::<u8>() };
            expect(grown, layout.size(), byte);
            fill(grown, more.size(), byte);
            blocks[index] = (grown, more, byte);
        }
    }
    for (block, layout, byte) in blocks {
        expect(block, layout.size(), byte);
    }
}

#[test]
fn a_task_with_a_pool_of_its_own_leaves_nothing_elsewhere() {
    let pool = bursar::Pool::new(64 << 20).unwrap();
    let task = MemoryManager::builder("pooled").pool(pool.id()).begin();
    let rows = task.consumer("rows");
    let kept: Vec<_> = rows.run(|| (0..2_000_u64).map(|_| block::<1_000>()).collect());
    assert!(pool.stats().used_bytes >= 2_000_000, "{}", pool.stats());
    drop((kept, rows));
    assert!(task.end().unwrap().is_clean());
}

#[test]
fn a_pool_that_a_task_owns_serves_it_and_ends_with_it() {
    let task = MemoryManager::builder("pooled")
        .patience(Duration::ZERO)
        .begin();
    let pool = task.pool(8 << 20).unwrap();
    let (bound, free) = (task.consumer("bound"), task.consumer("free"));
    pool.bind(&bound);
    let elsewhere = free.run(block::<300_000>);
    assert_eq!(pool.stats().used_bytes, 0);
    let kept = bound.run(block::<300_000>);
    assert!(pool.stats().used_bytes >= 300_000, "{}", pool.stats());
    let mut rows = allocator_api2::vec::Vec::new_in(pool.allocator());
    rows.extend(0..100_000_u64);
    assert!(pool.stats().used_bytes >= 1_100_000, "{}", pool.stats());
    assert!(
        rows.try_reserve(1 << 20).is_err(),
        "no other pool serves it"
    );
    drop((rows, elsewhere, bound, free));
    assert!(pool.stats().used_bytes < 1_100_000, "{}", pool.stats());
    let (id, size) = (pool.id(), pool.stats().size);
    assert_eq!(size, 8 << 20);
    // A forgotten handle does not keep it.
    std::mem::forget(pool);
    let is_there = || bursar::pools().any(|pool| pool.id == id);
    let report = task.end().unwrap();
    assert_eq!(report.left.len(), 1, "{report}");
    assert!(is_there(), "a block in it is alive");
    drop(kept);
    bursar::purge();
    assert!(!is_there());
}

#[test]
fn a_pool_that_cannot_be_had_is_an_error_and_the_task_goes_on() {
    let task = MemoryManager::begin("pooled");
    assert!(task.pool(1).is_err());
    assert!(task.pool(u64::MAX).is_err());
    drop(task.pool(1 << 20).unwrap());
    assert!(task.end().unwrap().is_clean());
}
