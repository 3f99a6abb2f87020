//! Slices that were in use before come with their pages. What the runs of threads that sleep have not
//! come to use of them goes back without those threads, and while they go on.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::{Arguments, Host, Run, scaled};
use crate::blocks::{Filled, Heap, layout};
use crate::memory::Memory;

pub(super) const ALL: &[(&str, Run)] = &[("unextended", unextended)];

const THREADS: usize = 8;
/// What is made dirty for them.
const DIRTY: usize = 256 << 20;
/// What each thread may hold beside its blocks: its stack, and pages at hand.
const ALLOWANCE: u64 = 256 << 10;

/// A block of every other size class, and what they are together.
fn one_of_each(heap: &'static Heap) -> (Vec<Filled>, usize) {
    let sizes = (4..=17).flat_map(|power| [1 << power, 3 << (power - 1)]);
    let block = |size| Filled::new(heap, layout(size, 8)).expect("memory can be had");
    let blocks: Vec<_> = sizes.map(block).collect();
    let page = |block: &Filled| block.layout().size().next_multiple_of(4096);
    let bytes = blocks.iter().map(page).sum();
    (blocks, bytes)
}

/// Arguments: whether memory is asked for back or goes in the background, and the decay time in
/// milliseconds.
fn unextended(host: &Host, arguments: &Arguments) {
    let is_asked = arguments.text(0) == "asked";
    let decay = Duration::from_millis(arguments.number(1));
    let heap = host.heap;
    let before = Memory::now();
    let dirty: Vec<_> = (0..DIRTY >> 20)
        .map(|_| Filled::new(heap, layout(1 << 20, 8)))
        .collect();
    drop(dirty);
    let (asleep, awake) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS as u64)
            .map(|number| {
                let (asleep, awake) = (&asleep, &awake);
                scope.spawn(move || {
                    let (blocks, _) = one_of_each(heap);
                    asleep.wait();
                    awake.wait();
                    work(heap, number);
                    drop(blocks);
                })
            })
            .collect();
        asleep.wait();
        let (blocks, bytes) = one_of_each(heap);
        drop(blocks);
        let bound = THREADS as u64 * (bytes as u64 + ALLOWANCE) + (4 << 20);
        let resident = || Memory::now().since(before).anonymous;
        let most = resident();
        let begun = Instant::now();
        if is_asked {
            bursar::purge();
        }
        while !is_asked && resident() > bound && begun.elapsed() < decay {
            thread::sleep(Duration::from_millis(1));
        }
        let least = resident();
        // Runs are extended and given up while others purge them.
        awake.wait();
        while !threads.iter().all(|thread| thread.is_finished()) {
            bursar::purge();
        }
        let [most, least, bound] = [most, least, bound].map(|bytes| bytes >> 10);
        println!("from {most} to {least} KiB of {bound} allowed");
        assert!(most > 3 * bound, "too little was resident");
        assert!(least <= bound, "too much is resident");
    });
    host.check();
}

/// Blocks that are filled and verified, in waves.
fn work(heap: &'static Heap, seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    for _ in 0..scaled(200, 20) {
        let blocks: Vec<_> = (0..200)
            .map(|_| 2_f64.powf(rng.random_range(4.0..17.0)) as usize)
            .map(|size| Filled::new(heap, layout(size, 8)))
            .collect();
        assert!(blocks.iter().all(Option::is_some), "memory can be had");
    }
}
