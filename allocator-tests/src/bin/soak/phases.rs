//! What a cycle does. Each phase frees all that it took.

use std::mem::take;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use allocator_api2::vec::Vec as PoolVec;
use allocator_tests::process::{Fate, in_child};
use allocator_tests::shadow::{Block, Shadow};
use allocator_tests::sizes::Mix;
use allocator_tests::stress::Generator;
use bursar::stream::{Bounds, bounded};
use bursar::{Budget, Bursar, Consumer, Fair, Limits, MemoryManager, Pool};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

const THREADS: u64 = 4;
/// Children of one cycle.
const FORKS: u64 = 2;
/// Consumers that a thread of a query makes. The allocator keeps records for as
/// many at once as there ever were, on each thread: the fewer, the sooner a run
/// has come to that.
const BATCHES: u32 = 12;
/// Threads of one cycle that live for a few steps.
const SHORT_LIVES: u64 = 24;
const STEPS: u64 = 8_000;
const POOL_BYTES: u64 = 32 << 20;

type Phase = fn(&'static Bursar, u64);

/// What a cycle does, in this order.
pub const PHASES: [(&str, Phase); 7] = [
    ("churn", churn),
    ("fork", quiet_child),
    ("lives", short_lives),
    ("queries", queries),
    ("tasks", tasks),
    ("streams", streams),
    ("pools", pools),
];

fn joined<T>(thread: thread::JoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Random steps under the shadow; what is alive at the end.
fn steps(heap: &'static Bursar, seed: u64, steps: u64, blocks: Vec<Block>) -> Vec<Block> {
    let mut generator = Generator::new(seed, Mix::PROGRAM, 3_000);
    let mut shadow = Shadow::new(heap, seed, blocks);
    for _ in 0..steps {
        let step = generator.next(shadow.len());
        let had = step
            .apply(&mut shadow)
            .unwrap_or_else(|fault| panic!("{fault}"));
        assert!(had, "memory can be had: {:?}", bursar::last_failure());
    }
    shadow.into_blocks()
}

fn free(heap: &'static Bursar, blocks: Vec<Block>) {
    let mut shadow = Shadow::new(heap, 0, blocks);
    shadow.clear().unwrap_or_else(|fault| panic!("{fault}"));
}

/// Threads that allocate and free, leave blocks to each other, and are forked
/// from while they do.
fn churn(heap: &'static Bursar, seed: u64) {
    let done = Arc::new(AtomicBool::new(false));
    let left: Arc<Mutex<Vec<Block>>> = Arc::default();
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let (done, left) = (Arc::clone(&done), Arc::clone(&left));
            thread::spawn(move || {
                let mut round = 0;
                loop {
                    let inherited = take(&mut *locked(&left));
                    let seed = seed ^ (number << 32) ^ (round << 40);
                    let alive = steps(heap, seed, STEPS, inherited);
                    locked(&left).extend(alive);
                    round += 1;
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                }
            })
        })
        .collect();
    for number in 0..FORKS {
        let fate = in_child(|| childhood(heap, seed + number));
        assert_eq!(fate, Fate::Fine, "the child {number}");
    }
    done.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(joined);
    free(heap, take(&mut *locked(&left)));
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child works, alone and with a thread, and gives memory back.
fn childhood(heap: &'static Bursar, seed: u64) {
    let blocks = steps(heap, seed, STEPS / 4, Vec::new());
    let consumer = Consumer::new("child");
    let rows: Vec<_> = consumer.run(|| (0..1000).map(|row| row.to_string()).collect());
    joined(thread::spawn(move || free(heap, blocks)));
    drop(rows);
    assert_eq!(consumer.usage().live_bytes, 0);
    bursar::purge();
}

/// A child of a program whose threads rest: all that it has is whole. Where
/// threads are at work, their arenas stop in the middle of something.
fn quiet_child(heap: &'static Bursar, seed: u64) {
    let fate = in_child(|| {
        childhood(heap, seed);
        bursar::check().unwrap_or_else(|broken| panic!("{broken}"));
    });
    assert_eq!(fate, Fate::Fine, "the child of a program at rest");
}

/// Threads that soon exit, and whose blocks outlive them.
fn short_lives(heap: &'static Bursar, seed: u64) {
    let mut blocks = Vec::new();
    for number in 0..SHORT_LIVES {
        let inherited = take(&mut blocks);
        let life = thread::spawn(move || steps(heap, seed ^ (number << 20), 300, inherited));
        blocks = joined(life);
    }
    free(heap, blocks);
}

/// Consumers whose blocks are freed elsewhere, handed over, and limited.
fn queries(_: &'static Bursar, seed: u64) {
    let query = Consumer::new("query");
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let query = query.clone();
            thread::spawn(move || {
                let (scan, sort) = (query.child("scan"), query.child("sort"));
                let mut kept = Vec::new();
                for batch in 0..BATCHES {
                    let few = query.child("a batch");
                    // Every other one is large enough for pages of its own.
                    let rows = if batch % 2 == 0 { 100 } else { 400 };
                    let make = || (0..rows).map(|row| (row ^ number ^ seed).to_string());
                    let mut rows: Vec<_> = few.run(|| make().collect());
                    rows.extend(scan.run(|| make().collect::<Vec<_>>()));
                    bursar::transfer_all(&mut rows, &sort).expect("memory for the books");
                    kept.push(rows);
                }
                sort.set_limits(Limits::none().hard(1 << 20));
                let mut more: Vec<u8> = Vec::new();
                let refused = sort.try_run(|| more.try_reserve_exact(8 << 20));
                assert!(refused.is_err(), "beyond the limit");
                kept
            })
        })
        .collect();
    let kept: Vec<_> = threads.into_iter().map(joined).collect();
    assert!(query.usage().subtree_live_bytes > 0);
    drop(kept);
    assert_eq!(query.usage().subtree_live_bytes, 0);
}

/// Tasks with a common budget, reservations, resources and private memory.
fn tasks(_: &'static Bursar, seed: u64) {
    let budget: Arc<dyn Budget> = Arc::new(Fair::new(64 << 20));
    for number in 0..8 {
        let pool = Pool::new(POOL_BYTES).expect("there is room for a pool");
        let builder = MemoryManager::builder("task").budget(&budget);
        let task = if number % 2 == 0 {
            builder.pool(pool.id()).begin()
        } else {
            builder.begin()
        };
        drop(pool);
        task.register(|| Ok(()), number)
            .map(drop)
            .expect("the task has not ended");
        let handle = task.handle();
        let helper = thread::spawn(move || {
            let rows = handle.consumer("helper").expect("the task has not ended");
            rows.with(|rows| rows.run(|| vec![number; 3000]).len())
                .expect("the task has not ended")
        });
        let rows = task.spilling_reservation("rows");
        rows.try_grow(1 << 20).expect("there is room");
        let kept: Vec<_> = rows.run(|| (0..2000_u64).map(|row| row ^ seed).collect());
        let split = rows.try_split(1 << 10).expect("there is as much");
        assert_eq!((joined(helper), kept.len()), (3000, 2000));
        drop((kept, split, rows));
        let report = task.end().unwrap_or_else(|failed| panic!("{failed}"));
        assert!(report.is_clean(), "{report}");
    }
    assert_eq!(budget.reserved(), 0);
    #[cfg(feature = "sites")]
    drop(bursar::sites());
}

/// Items that flow from thread to thread, charged to whoever has them.
fn streams(_: &'static Bursar, seed: u64) {
    let (scan, sort) = (Consumer::new("scan"), Consumer::new("sort"));
    let bounds = Bounds {
        items: 8,
        bytes: 1 << 20,
    };
    let (mut producer, receiver) = bounded(&scan, bounds);
    let made = thread::spawn(move || {
        let mut rng = SmallRng::seed_from_u64(seed);
        for _ in 0..400 {
            let len = rng.random_range(1..2000);
            let sent = producer.produce(|| vec![1_u64; len]);
            assert!(sent.is_ok(), "the receiver is there");
        }
        producer.finish();
    });
    let receiver = receiver.transferring_to(&sort);
    let doubled = receiver.map(&sort, |rows| {
        rows.iter().map(|row| row * 2).collect::<Vec<_>>()
    });
    let rows = doubled.into_iter().map(|item| {
        let rows = item.expect("no error is sent");
        assert!(rows.iter().all(|&row| row == 2));
        1
    });
    assert_eq!(rows.sum::<u32>(), 400);
    joined(made);
    assert_eq!(scan.usage().live_bytes + sort.usage().live_bytes, 0);
    assert_eq!(scan.usage().reserved_bytes + sort.usage().reserved_bytes, 0);
}

/// Pools that are made, filled, and end with their last block.
fn pools(_: &'static Bursar, seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    for _ in 0..4 {
        let pool = Pool::new(POOL_BYTES).expect("there is room for a pool");
        let mut lists: Vec<_> = (0..20).map(|_| PoolVec::new_in(pool.allocator())).collect();
        for _ in 0..4_000 {
            let pick = rng.random_range(0..lists.len());
            lists[pick].extend([1_u64; 10]);
        }
        drop(pool);
        let other = thread::spawn(move || drop(lists));
        joined(other);
    }
    let consumer = Consumer::new("bound");
    let pool = Pool::new(POOL_BYTES).expect("there is room for a pool");
    pool.bind(&consumer);
    let boxes: Vec<_> = consumer.run(|| (0..500_u64).map(Box::new).collect());
    assert!(pool.stats().used_bytes > 0);
    drop((pool, consumer));
    joined(thread::spawn(move || drop(boxes)));
}
