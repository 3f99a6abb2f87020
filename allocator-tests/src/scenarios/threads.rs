//! Threads that come, go, free what others allocated, and unwind.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::{Arguments, Host, Run, scaled};
use crate::blocks::{Filled, Heap, layout};
use crate::memory::Memory;
use crate::sizes::Mix;

pub(super) const ALL: &[(&str, Run)] = &[
    ("remote_frees", remote_frees),
    ("exit_with_live", exit_with_live),
    ("only_frees", only_frees),
    ("short_lived", short_lived),
    ("amid_purges", amid_purges),
    ("unwind", unwind),
    ("goes_round", goes_round),
];

/// `count` filled blocks of all categories.
pub(super) fn some_blocks(heap: &'static Heap, seed: u64, count: usize) -> Vec<Filled> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let block = |_| Filled::new(heap, Mix::PROGRAM.layout(&mut rng)).expect("memory can be had");
    (0..count).map(block).collect()
}

/// Four producers, each with a consumer that frees all it makes.
fn remote_frees(host: &Host, _: &Arguments) {
    let heap = host.heap;
    let batches = scaled(2_000, 100);
    let pairs = [0, 1, 2, 3].map(|producer| {
        let (send, receive) = sync_channel::<Vec<Filled>>(8);
        let produces = thread::spawn(move || {
            for batch in 0..batches {
                let blocks = some_blocks(heap, producer * batches + batch, 100);
                send.send(blocks).expect("the consumer lives");
            }
        });
        [
            produces,
            thread::spawn(move || receive.into_iter().for_each(drop)),
        ]
    });
    for thread in pairs.into_iter().flatten() {
        thread.join().unwrap_or_else(|panic| resume_unwind(panic));
    }
    host.check();
}

/// Generations of threads that exit while their blocks live; main frees some,
/// threads that come later the others.
fn exit_with_live(host: &Host, _: &Arguments) {
    let heap = host.heap;
    let mut inherited: Vec<Filled> = Vec::new();
    for generation in 0..scaled(200, 40) {
        let later = inherited.split_off(inherited.len() / 2);
        let next = thread::spawn(move || {
            let blocks = some_blocks(heap, generation, 500);
            later.iter().for_each(Filled::verify);
            drop(later);
            blocks
        });
        drop(inherited);
        inherited = next.join().unwrap_or_else(|panic| resume_unwind(panic));
        inherited.iter().for_each(Filled::verify);
        if generation % 20 == 0 {
            host.check();
        }
    }
    drop(inherited);
    host.check();
}

/// A place where one thread leaves a block and another finds it; the place
/// tells the size.
struct Place(AtomicPtr<u8>);

const PLACES: usize = 1024;
static PLACES_OF_HAND_OVER: [Place; PLACES] =
    [const { Place(AtomicPtr::new(std::ptr::null_mut())) }; PLACES];

fn size_at(place: usize) -> usize {
    16 << (place % 13)
}

/// One thread does nothing but free what another allocates. What it frees must
/// be found again, so resident memory must not grow.
fn only_frees(host: &Host, _: &Arguments) {
    let heap = host.heap;
    static DONE: AtomicBool = AtomicBool::new(false);
    let rounds = scaled(4_000, 400);
    // All places at once, as later whenever the other thread is late.
    leave_blocks(heap);
    let frees = thread::spawn(move || {
        while !DONE.load(Ordering::Acquire) {
            free_what_lies_there(heap);
        }
        free_what_lies_there(heap);
    });
    let mut warm = Memory::now();
    for round in 0..rounds {
        if round == rounds / 4 {
            warm = Memory::now();
        }
        leave_blocks(heap);
    }
    let grown = Memory::now().since(warm);
    DONE.store(true, Ordering::Release);
    frees.join().unwrap_or_else(|panic| resume_unwind(panic));
    host.check();
    assert!(grown.anonymous < 4 << 20, "resident memory grew: {grown:?}");
}

fn free_what_lies_there(heap: &Heap) {
    for (place, Place(pointer)) in PLACES_OF_HAND_OVER.iter().enumerate() {
        let block = pointer.swap(std::ptr::null_mut(), Ordering::Acquire);
        if !block.is_null() {
            // SAFETY: whoever left the block here allocated it with the size
            // of the place, and gave it up.
            unsafe { heap.dealloc(block, layout(size_at(place), 8)) };
        }
    }
}

fn leave_blocks(heap: &Heap) {
    for (place, Place(pointer)) in PLACES_OF_HAND_OVER.iter().enumerate() {
        while !pointer.load(Ordering::Relaxed).is_null() {
            thread::yield_now();
        }
        // SAFETY: the size is not zero.
        let block = unsafe { heap.alloc(layout(size_at(place), 8)) };
        assert!(!block.is_null(), "memory can be had");
        // SAFETY: the block is at least 16 bytes large.
        unsafe { block.write_bytes(1, 16) };
        pointer.store(block, Ordering::Release);
    }
}

/// 100,000 threads that each allocate, free most and leave a little for main
/// to free: neither resident memory nor address space may grow.
fn short_lived(host: &Host, _: &Arguments) {
    let heap = host.heap;
    let threads = scaled(100_000, 20_000);
    // An arena for each of those that may live at a time.
    let together = Barrier::new(4);
    thread::scope(|scope| {
        let together = &together;
        let four = [0, 1, 2, 3].map(|number| {
            scope.spawn(move || {
                let blocks = short_life(heap, number);
                together.wait();
                drop(blocks);
            })
        });
        for thread in four {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
    let (mut warm, mut stats) = (Memory::now(), bursar::stats());
    for first in (0..threads).step_by(4) {
        if first == threads / 10 {
            (warm, stats) = (Memory::now(), bursar::stats());
        }
        let four = [0, 1, 2, 3].map(|i| thread::spawn(move || short_life(heap, first + i)));
        for thread in four {
            drop(thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
    }
    let (grown, after) = (Memory::now().since(warm), bursar::stats());
    host.check();
    println!(
        "{grown:?}, committed {} KiB, then {}",
        stats.committed_bytes >> 10,
        after.committed_bytes >> 10
    );
    assert!(
        grown.anonymous < 2 << 20 && grown.mapped < 8 << 20,
        "{grown:?}"
    );
    assert!(
        after.reserved_bytes <= stats.reserved_bytes,
        "reserved grew"
    );
    let more = |now: u64, then: u64| now.saturating_sub(then);
    let mapped = more(after.mapped_bytes, stats.mapped_bytes);
    assert!(mapped <= 8 << 20, "{mapped} bytes more are mapped");
    let metadata = more(after.metadata_bytes, stats.metadata_bytes);
    assert!(metadata <= 256 << 10, "{metadata} bytes more for metadata");
}

fn short_life(heap: &'static Heap, number: u64) -> [Option<Filled>; 2] {
    let block = |size| Filled::new(heap, layout(size, 8));
    let all = [16, 24, 40, 100, 300, 1_000, 5_000, 40_000].map(block);
    assert!(all.iter().all(Option::is_some), "memory can be had");
    let [a, b, ..] = all;
    if number.is_multiple_of(2) {
        [a, b]
    } else {
        [a, None]
    }
}

/// Threads come one by one while another thread looks through what those before them have left, which
/// takes it long: they take up arenas that it is not at, rather than to make more.
fn amid_purges(host: &Host, _: &Arguments) {
    static DONE: AtomicBool = AtomicBool::new(false);
    /// Arenas without a thread, all of them with much to look through.
    const LEFT: u64 = 4;
    let heap = host.heap;
    let live = |number| thread::spawn(move || some_blocks(heap, number, 1_500));
    let together = Barrier::new(LEFT as usize);
    let mut left: VecDeque<Vec<Filled>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..LEFT)
            .map(|number| {
                let together = &together;
                scope.spawn(move || {
                    let blocks = some_blocks(heap, number, 1_500);
                    together.wait();
                    blocks
                })
            })
            .collect();
        let blocks = threads.into_iter().map(|thread| thread.join());
        blocks
            .map(|blocks| blocks.unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    });
    let purges = thread::spawn(|| {
        while !DONE.load(Ordering::Relaxed) {
            bursar::purge();
        }
    });
    let arenas = || bursar::stats().arenas().len();
    let before = arenas();
    for number in 0..scaled(1_000, 250) {
        let blocks = live(number)
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic));
        left.push_back(blocks);
        left.pop_front();
    }
    let after = arenas();
    DONE.store(true, Ordering::Relaxed);
    purges.join().unwrap_or_else(|panic| resume_unwind(panic));
    println!("{before} arenas, then {after}");
    // One for the thread that purges.
    assert!(after <= before + 2, "from {before} arenas to {after}");
    drop(left);
    host.check();
}

/// Panics that unwind through frames which own blocks.
fn unwind(host: &Host, _: &Arguments) {
    std::panic::set_hook(Box::new(|_| {}));
    let heap = host.heap;
    let round = || {
        let threads = [0, 1, 2, 3].map(|seed| {
            thread::spawn(move || {
                for i in 0..scaled(500, 50) {
                    let caught = catch_unwind(AssertUnwindSafe(|| fall(heap, seed + 4 * i, 12)));
                    assert!(caught.is_err(), "it panics");
                }
                fall(heap, seed, 5);
            })
        });
        assert!(
            threads.into_iter().all(|t| t.join().is_err()),
            "each ends in a panic"
        );
    };
    round();
    host.check();
    let before = bursar::stats().allocated_bytes;
    round();
    host.check();
    assert_eq!(
        bursar::stats().allocated_bytes,
        before,
        "unwinding frees everything"
    );
}

fn fall(heap: &'static Heap, seed: u64, depth: u64) {
    let blocks = some_blocks(heap, seed * 100 + depth, 8);
    let names: Vec<String> = blocks
        .iter()
        .map(|b| format!("{:x}", b.address()))
        .collect();
    assert!(depth > 0, "the bottom, above {} blocks", names.len());
    fall(heap, seed, depth - 1);
}

/// A thread that goes round in a MiB of small blocks keeps the runs that it empties, once it has been
/// seen to want them again.
fn goes_round(host: &Host, _: &Arguments) {
    let runs_acquired = || -> u64 { bursar::pools().map(|pool| pool.requests).sum() };
    let round = || {
        let layout = layout(512, 8);
        let taken: Vec<Filled> = (0..2_000)
            .map(|_| Filled::new(host.heap, layout).expect("memory can be had"))
            .collect();
        taken.iter().for_each(Filled::verify);
    };
    (0..10).for_each(|_| round());
    let before = runs_acquired();
    (0..100).for_each(|_| round());
    let acquired = runs_acquired() - before;
    assert!(
        acquired < 50,
        "{acquired} runs and spans were acquired in 100 rounds"
    );
    host.check();
}
