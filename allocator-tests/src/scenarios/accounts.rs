//! Accounts in processes of their own: the first ids, hundreds of thousands of
//! consumers, and memory that goes back when a consumer ends.

use std::collections::{HashSet, VecDeque};
use std::hint::black_box;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use bursar::Consumer;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::{Arguments, Host, Run, scaled};
use crate::charges::{boxes, buffers, current, held, listed_still};
use crate::memory::Memory;

pub(super) const ALL: &[(&str, Run)] = &[
    ("consumer_ids", consumer_ids),
    ("consumer_sums", consumer_sums),
    ("many_consumers", many_consumers),
    ("consumers_of_a_pool", consumers_of_a_pool),
    ("slots_in_turn", slots_in_turn),
    ("side_arrays", side_arrays),
    ("queries", queries),
];

/// Runs `work` on so many threads, to the end of each; what they return.
pub(super) fn on_threads<T: Send>(threads: u64, work: impl Fn(u64) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..threads)
            .map(|number| scope.spawn(move || work(number)))
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|result| result.unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    })
}

/// Ids ascend from 0, and no two consumers have the same, whoever makes them in
/// whichever way.
fn consumer_ids(_: &Host, _: &Arguments) {
    const THREADS: u64 = 8;
    assert_eq!(current(), None);
    drop(bursar::report());
    let first = Consumer::new("first");
    assert_eq!(first.id(), 0, "reports take no id of the consumers'");
    assert_eq!(first.child("second").id(), 1);
    assert_eq!(first.clone_with_new_id().id(), 2);
    assert_eq!(first.clone().id(), 0);
    let each = 50_000;
    let ids = on_threads(THREADS, |number| {
        let ids: Vec<u64> = (0..each)
            .map(|n| match (n + number) % 3 {
                0 => Consumer::new("one of many").id(),
                1 => first.child("one of many").id(),
                _ => first.clone_with_new_id().id(),
            })
            .collect();
        assert!(
            ids.is_sorted_by(|one, next| one < next),
            "they ascend on a thread"
        );
        ids
    });
    let mut ids = ids.concat();
    ids.sort_unstable();
    assert!(ids.into_iter().eq(3..3 + THREADS * each), "each id once");
}

/// At rest, with bursar installed and its own consumer at work, all parts are
/// what the allocator has given out, and what a walk over everything counts.
fn consumer_sums(host: &Host, _: &Arguments) {
    drop(bursar::consumers());
    let parent = Consumer::new("parent");
    let consumers: Vec<_> = (0..500)
        .map(|n| parent.child(format!("child {n}")))
        .collect();
    for round in 0..5 {
        let blocks = on_threads(4, |number| {
            let mut rng = SmallRng::seed_from_u64(number);
            let blocks = (0..2_000).map(|_| {
                let size = 1 << rng.random_range(0..20);
                let consumer = &consumers[rng.random_range(0..consumers.len())];
                consumer.run(|| black_box(Vec::<u8>::with_capacity(size)))
            });
            blocks.collect::<Vec<_>>()
        });
        if round == 3 {
            (0..20_000).for_each(|n| drop(Consumer::new(format!("passing {n}"))));
        }
        exactly_the_heap();
        drop(blocks);
        exactly_the_heap();
    }
    drop(consumers);
    drop(parent);
    drop(bursar::report());
    exactly_the_heap();
    host.check();
}

/// Nobody's bytes and those of all consumers, bursar's own included, are what
/// the allocator has given out, and what a walk over everything counts.
fn exactly_the_heap() {
    // What is left when a snapshot is gone again does not depend on snapshots.
    let claimed = || {
        let all = bursar::consumers();
        assert!(
            all.iter().any(|one| one.id == u64::MAX),
            "bursar's own is listed"
        );
        all.iter().map(|one| one.usage.live_bytes).sum::<u64>()
    };
    let _ = claimed();
    let claimed = claimed();
    let nobodys = bursar::unattributed().live_bytes;
    assert_eq!(claimed + nobodys, bursar::stats().allocated_bytes);
    let report = bursar::check().unwrap_or_else(|broken| panic!("check(): {broken}"));
    assert_eq!(claimed + nobodys, report.live_bytes);
}

/// What bursar holds for its own records and for those of the accounts.
pub(super) fn overhead() -> u64 {
    let all = bursar::consumers();
    let own = all.iter().find(|one| one.id == u64::MAX);
    bursar::stats().metadata_bytes + own.map_or(0, |one| one.usage.live_bytes)
}

/// Hundreds of thousands of consumers over a process's life, a third of them
/// alive at once, each with bytes, some below others. Slots are used again, ids
/// are not, and nothing grows after the first turn-over.
fn many_consumers(host: &Host, _: &Arguments) {
    let alive = scaled(100_000, 10_000) as usize;
    let mut consumers: VecDeque<(Consumer, Box<u64>)> = VecDeque::with_capacity(alive + 1);
    let mut grown = Vec::new();
    let mut last = None;
    for third in 0..4 {
        for number in 0..alive {
            if consumers.len() == alive {
                consumers.pop_front();
            }
            let consumer = match consumers.back() {
                Some((sibling, _)) if number % 10 == 1 => sibling.child("child"),
                _ => Consumer::new("one of many"),
            };
            assert!(last < Some(consumer.id()), "an id is given again");
            last = Some(consumer.id());
            let block = consumer.run(|| black_box(Box::new(1)));
            consumers.push_back((consumer, block));
        }
        let all = bursar::consumers();
        let listed = all.iter().filter(|one| one.usage.live_blocks > 0).count();
        assert!(listed >= alive, "{listed} of {alive} are listed");
        drop(all);
        bursar::purge();
        // First, since what is listed for the other is free memory afterwards.
        let resident = Memory::now().anonymous;
        let overhead = overhead();
        println!(
            "after {} consumers: {overhead} bytes of records, {resident} resident",
            (third + 1) * alive
        );
        grown.push((overhead, resident));
    }
    let [.., (second, second_resident), _, (last, last_resident)] = grown[..] else {
        unreachable!("four thirds")
    };
    assert!(
        last <= second + second / 20,
        "records grew from {second} to {last}"
    );
    let more = last_resident.saturating_sub(second_resident);
    assert!(
        more < second_resident / 10 + (1 << 20),
        "resident memory grew by {more}"
    );
    let (consumer, block) = &consumers[alive / 2];
    assert_eq!(held(consumer), boxes::<u64>(1));
    assert_eq!(**block, 1);
    drop(consumers);
    assert_eq!(
        bursar::report().consumers().iter().count(),
        1,
        "bursar's own is left"
    );
    host.check();
}

/// A pool of threads serves consumers that others make and drop: what the
/// pool's threads have of a consumer does not add up.
fn consumers_of_a_pool(host: &Host, _: &Arguments) {
    const WORKERS: u64 = 4;
    let rounds = scaled(100_000, 20_000);
    let most = |before: u64| before + before / 4 + (512 << 10);
    let mut records = Vec::new();
    thread::scope(|scope| {
        let (done, finished) = channel::<()>();
        let (queues, workers): (Vec<_>, Vec<_>) = (0..WORKERS)
            .map(|_| {
                let (send, queue) = channel::<(Consumer, Box<[u64; 9]>)>();
                let done = done.clone();
                let worker = scope.spawn(move || {
                    for (consumer, theirs) in queue {
                        let own: Vec<_> =
                            consumer.run(|| (0..9).map(|n| black_box(Box::new(n))).collect());
                        drop((own, theirs, consumer));
                        done.send(()).expect("main listens");
                    }
                });
                (send, worker)
            })
            .unzip();
        let serve_one = |round: u64| {
            let consumer = Consumer::new("query");
            for queue in &queues {
                let block = consumer.run(|| black_box(Box::new([round; 9])));
                queue.send((consumer.clone(), block)).expect("they work");
            }
            drop(consumer);
            finished.iter().take(WORKERS as usize).for_each(drop);
        };
        for round in 0..rounds {
            serve_one(round);
            if (round + 1) % (rounds / 5) == 0 {
                records.push(overhead());
            }
        }
        // Accounts that have left wait for a thread that was stopped while it read the registry;
        // then they go.
        for round in 0..5_000 {
            if records[4] <= most(records[2]) {
                break;
            }
            serve_one(round);
            records[4] = overhead();
        }
        drop(queues);
        // The scope's end waits for what they do, but not for their end.
        for worker in workers {
            worker.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
    println!("{records:?} bytes of records after each fifth");
    assert!(records[4] <= most(records[2]), "records grew: {records:?}");
    drop(bursar::report());
    host.check();
}

/// Consumers that follow each other have the same few slots by turns, however many there were at once
/// before, and though another thread has kept something of each: on each thread records are made for
/// each slot.
fn slots_in_turn(host: &Host, _: &Arguments) {
    const AT_ONCE: usize = 40;
    const IN_TURN: usize = 2_000;
    let all: Vec<_> = (0..AT_ONCE).map(|_| Consumer::new("one of many")).collect();
    drop(all);
    let alone = || {
        let one = Consumer::new("one");
        drop(one.run(|| black_box(Box::new(1))));
        one.owner_tag()
    };
    (0..AT_ONCE).for_each(|_| _ = alone());
    let slots: HashSet<_> = (0..IN_TURN).map(|_| alone()).collect();
    assert!(slots.len() <= 4, "one at a time, in {} slots", slots.len());

    let (send, queue) = channel::<Consumer>();
    let (done, finished) = channel::<()>();
    let worker = thread::spawn(move || {
        for consumer in queue {
            drop(consumer.run(|| black_box(Box::new(1))));
            drop(consumer);
            done.send(()).expect("main listens");
        }
    });
    let served = || {
        let one = Consumer::new("served by another thread");
        send.send(one.clone()).expect("it works");
        finished.recv().expect("it works");
        one.owner_tag()
    };
    let mut slots: HashSet<_> = (0..IN_TURN).map(|_| served()).collect();
    let before = slots.len();
    slots.extend((0..3 * IN_TURN).map(|_| served()));
    println!(
        "{before} slots for what a thread keeps, then {}",
        slots.len()
    );
    assert!(
        slots.len() <= before + 2 && before <= 160,
        "from {before} slots to {}",
        slots.len()
    );
    drop(send);
    worker.join().unwrap_or_else(|panic| resume_unwind(panic));
    host.check();
}

/// Blocks that are handed over make for an array of tags a run. When they are gone its memory goes
/// back, each time as much.
fn side_arrays(host: &Host, _: &Arguments) {
    const BLOCKS: u64 = 100_000;
    let (from, to) = (Consumer::new("from"), Consumer::new("to"));
    let mut records = Vec::new();
    for _ in 0..20 {
        let mut blocks: Vec<_> = from.run(|| (0..BLOCKS).map(Box::new).collect());
        bursar::transfer_all(&mut blocks, &to).expect("memory for the books");
        let with = bursar::stats().metadata_bytes;
        drop(blocks);
        bursar::purge();
        records.push((with, bursar::stats().metadata_bytes));
    }
    println!("bytes of records with the blocks and without: {records:?}");
    // Four bytes a block, but for a page a run.
    let (with, without) = records[1];
    assert!(
        without + BLOCKS * 3 < with,
        "{without} bytes, {with} before"
    );
    assert!(
        records[1..].iter().all(|&both| both == (with, without)),
        "{records:?}"
    );
    host.check();
}

/// Objects of a query, and among them those that a cache keeps.
struct Objects {
    of_query: Vec<Box<[u8]>>,
    of_cache: Vec<Box<[u8]>>,
}

/// One object in so many is the cache's.
const CACHED_OF: usize = 20;

fn objects(seed: u64, count: usize, consumers: Option<&(Consumer, Consumer)>) -> Objects {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut objects = Objects {
        of_query: Vec::with_capacity(count),
        of_cache: Vec::with_capacity(count / CACHED_OF + 1),
    };
    for number in 0..count {
        let size = rng.random_range(16..400);
        let make = || vec![1_u8; size].into_boxed_slice();
        let is_cached = number % CACHED_OF == 0;
        let object = match consumers {
            None => make(),
            Some((_, cache)) if is_cached => cache.run(make),
            Some((query, _)) => query.run(make),
        };
        if is_cached {
            objects.of_cache.push(object);
        } else {
            objects.of_query.push(object);
        }
    }
    objects
}

/// Argument: `with` consumers or `without`. Prints resident memory and live
/// bytes, in KiB, at the peak of a query and after its end.
fn queries(host: &Host, arguments: &Arguments) {
    const THREADS: u64 = 4;
    static READY: AtomicU64 = AtomicU64::new(0);
    let count = 400_000;
    let with = arguments.text(0) == "with";
    let consumers = with.then(|| (Consumer::new("query"), Consumer::new("cache")));
    let before = Memory::now();
    let parts = on_threads(THREADS, |seed| {
        // All at once, so that each has an arena of its own.
        drop(black_box(Box::new(seed)));
        READY.fetch_add(1, Ordering::Relaxed);
        while READY.load(Ordering::Relaxed) < THREADS {
            thread::yield_now();
        }
        objects(seed, count / THREADS as usize, consumers.as_ref())
    });
    bursar::purge();
    let peak = Memory::now().since(before).anonymous;
    let (queries, caches): (Vec<_>, Vec<_>) = parts
        .into_iter()
        .map(|part| (part.of_query, part.of_cache))
        .unzip();
    let cached: usize = caches.iter().flatten().map(|object| object.len()).sum();
    drop(queries);
    let id = consumers.as_ref().map(|(query, _)| query.id());
    if let Some((query, cache)) = consumers {
        assert_eq!(held(&query), [0, 0]);
        let caches: Vec<_> = caches.iter().flatten().map(|object| object.len()).collect();
        assert_eq!(held(&cache), buffers::<u8>(caches));
    }
    bursar::purge();
    let after = Memory::now().since(before).anonymous;
    assert!(id.is_none_or(|id| listed_still(id).is_none()));
    println!("{} {} {}", peak >> 10, after >> 10, cached >> 10);
    drop(caches);
    host.check();
}
