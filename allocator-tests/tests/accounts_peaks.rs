//! Peaks are upper bounds: at least the most bytes that were alive at once, and
//! above that by at most what the pages of the consumer's own runs had free at
//! that moment, and 16 KiB a thread.

use std::sync::Barrier;
use std::thread;

use allocator_tests::charges::held;
use bursar::{Bursar, Consumer, transfer};

#[global_allocator]
static GLOBAL: Bursar = Bursar::new();

/// What the peak may be above for each thread apart from free slots.
const STEPS: u64 = 16 << 10;
const PAGE: u64 = 4 << 10;

fn buffer(size: usize) -> Vec<u8> {
    std::hint::black_box(Vec::with_capacity(size))
}

/// Panics unless the peak is at least `least` and at most `slack` more.
fn peak_is(consumer: &Consumer, least: u64, slack: u64) {
    let usage = consumer.usage();
    for peak in [usage.peak_bytes, usage.subtree_peak_bytes] {
        assert!(peak >= least, "{peak} is below {least}: {usage:?}");
        assert!(
            peak <= least + slack,
            "{peak} is {} above {least}",
            peak - least
        );
    }
    assert!(usage.peak_bytes >= usage.live_bytes);
}

#[test]
fn a_consumer_that_did_nothing_has_no_peak() {
    let consumer = Consumer::new("idle");
    peak_is(&consumer, 0, 0);
    drop(consumer.enter());
    peak_is(&consumer, 0, 0);
}

/// Large blocks have no free slots beside them.
#[test]
fn large_blocks_are_exact() {
    let consumer = Consumer::new("large");
    let mut most = 0;
    for round in 1..=10 {
        let blocks: Vec<_> = (0..round)
            .map(|n| consumer.run(|| buffer(300_000 + n * 50_000)))
            .collect();
        most = most.max(held(&consumer)[1]);
        drop(blocks);
        peak_is(&consumer, most, 0);
    }
    let mut block = consumer.run(|| buffer(1 << 20));
    for megabytes in 2..=20 {
        block.reserve_exact(megabytes << 20);
        most = most.max(held(&consumer)[1]);
        // While it moves by copying both are alive.
        peak_is(&consumer, most, 21 << 20);
    }
    drop(block);
}

/// While all that comes stays, a page a class and thread may be partly free.
#[test]
fn what_only_grows_is_exact_to_a_page_a_class() {
    let sizes = [16, 24, 64, 100, 500, 1_000, 3_000];
    let consumer = Consumer::new("growing");
    let mut blocks = Vec::with_capacity(20_000);
    for n in 0..20_000 {
        blocks.push(consumer.run(|| buffer(sizes[n % sizes.len()])));
        if n % 1_000 == 0 {
            let units = sizes.len() as u64 * (PAGE + 2 * 3_072);
            peak_is(&consumer, held(&consumer)[1], STEPS + units);
        }
    }
}

/// Waves of one size use the pages of the wave before, kept or given back.
#[test]
fn waves_do_not_add_up() {
    let consumer = Consumer::new("waves");
    let mut most = 0;
    for wave in 0..50 {
        let count = 2_000 + wave % 7 * 300;
        let blocks: Vec<_> = consumer.run(|| {
            (0..count)
                .map(|_| std::hint::black_box(Box::new([0_u8; 256])))
                .collect()
        });
        most = most.max(held(&consumer)[1]);
        drop(blocks);
    }
    peak_is(&consumer, most, STEPS + (256 << 10) + 2 * PAGE);
}

/// What is free in runs that still hold something counts: one block in twenty
/// stays of each wave, of another class each time.
#[test]
fn free_slots_of_its_own_runs_are_the_distance() {
    let consumer = Consumer::new("sparse");
    let (mut kept, mut most, mut free) = (Vec::with_capacity(100_000), 0, 0);
    for size in [64, 128, 256, 512, 1_024] {
        let mut wave: Vec<_> = consumer.run(|| {
            let mut wave = Vec::with_capacity(10_000);
            (0..10_000).for_each(|_| wave.push(buffer(size)));
            wave
        });
        let alive = held(&consumer)[1];
        most = most.max(alive);
        peak_is(&consumer, most, free + STEPS + (256 << 10) + 10 * PAGE);
        let stay = wave.iter_mut().step_by(20).map(std::mem::take);
        kept.extend(stay);
        drop(wave);
        free += 10_000 * size as u64 * 19 / 20;
    }
}

/// Light consumers share runs: the bound goes in steps.
#[test]
fn few_blocks_are_within_the_steps() {
    let consumers: Vec<_> = (0..300)
        .map(|n| Consumer::new(format!("light {n}")))
        .collect();
    let mut blocks = Vec::new();
    for round in 0..10 {
        for consumer in &consumers {
            let block = consumer.run(|| buffer(40 + round * 13));
            blocks.push(block);
        }
    }
    for consumer in &consumers {
        peak_is(consumer, held(consumer)[1], STEPS);
    }
    drop(blocks);
    for consumer in &consumers {
        assert!(consumer.usage().peak_bytes <= 3 * STEPS);
    }
}

#[test]
fn every_thread_adds_its_own_distance() {
    const THREADS: usize = 6;
    let parent = Consumer::new("parent");
    let consumer = parent.child("shared");
    let all = Barrier::new(THREADS);
    let each = 3_000;
    let alive = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let blocks: Vec<_> = (0..each)
                        .map(|_| consumer.run(|| std::hint::black_box(Box::new([0_u64; 12]))))
                        .collect();
                    all.wait();
                    let alive = held(&consumer)[1];
                    all.wait();
                    drop(blocks);
                    alive
                })
            })
            .collect();
        let alive = threads
            .into_iter()
            .map(|thread| thread.join().expect("it is fine"));
        alive.max().expect("there are threads")
    });
    let slack = THREADS as u64 * (STEPS + 2 * PAGE);
    peak_is(&consumer, alive, slack);
    let usage = parent.usage();
    assert_eq!((usage.peak_bytes, usage.subtree_live_bytes), (0, 0));
    assert!(
        (alive..=alive + slack).contains(&usage.subtree_peak_bytes),
        "{usage:?}"
    );
}

#[test]
fn blocks_freed_elsewhere_and_handed_over_leave_no_distance_behind() {
    let [one, two] = ["one", "two"].map(Consumer::new);
    for _ in 0..200 {
        let blocks: Vec<_> = (0..100).map(|_| one.run(|| buffer(600))).collect();
        for block in &blocks {
            transfer(block, &two).expect("it is bursar's");
        }
        thread::scope(|scope| scope.spawn(|| drop(blocks)).join().expect("it is fine"));
    }
    let bytes = 100 * 640;
    for consumer in [&one, &two] {
        peak_is(consumer, bytes, bytes + STEPS * 4 + (256 << 10));
        assert_eq!(held(consumer), [0, 0]);
    }
}
