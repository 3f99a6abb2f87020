//! Accounts in processes of their own: the first ids, hundreds of thousands of
//! consumers, forks, and memory that goes back when a consumer ends.

use std::collections::VecDeque;
use std::hint::black_box;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;

use bursar::Consumer;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::{Arguments, Host, Run, scaled};
use crate::charges::{boxes, buffers, current, held, listed_still};
use crate::memory::Memory;
use crate::process::{Fate, in_child};

pub(super) const ALL: &[(&str, Run)] = &[
    ("consumer_ids", consumer_ids),
    ("consumer_sums", consumer_sums),
    ("many_consumers", many_consumers),
    ("consumers_of_a_pool", consumers_of_a_pool),
    ("fork_accounts_busy", fork_accounts_busy),
    ("fork_accounts_quiet", fork_accounts_quiet),
    ("queries", queries),
];

/// Runs `work` on so many threads, to the end of each; what they return.
fn on_threads<T: Send>(threads: u64, work: impl Fn(u64) -> T + Sync) -> Vec<T> {
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
    let each = scaled(50_000, 5_000);
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
fn overhead() -> u64 {
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
        let (overhead, resident) = (overhead(), Memory::now().anonymous);
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
    let mut records = Vec::new();
    thread::scope(|scope| {
        let (done, finished) = channel::<()>();
        let queues: Vec<_> = (0..WORKERS)
            .map(|_| {
                let (send, queue) = channel::<(Consumer, Box<[u64; 9]>)>();
                let done = done.clone();
                scope.spawn(move || {
                    for (consumer, theirs) in queue {
                        let own: Vec<_> =
                            consumer.run(|| (0..9).map(|n| black_box(Box::new(n))).collect());
                        drop((own, theirs, consumer));
                        done.send(()).expect("main listens");
                    }
                });
                send
            })
            .collect();
        for round in 0..rounds {
            let consumer = Consumer::new("query");
            for queue in &queues {
                let block = consumer.run(|| black_box(Box::new([round; 9])));
                queue.send((consumer.clone(), block)).expect("they work");
            }
            drop(consumer);
            finished.iter().take(WORKERS as usize).for_each(drop);
            if (round + 1) % (rounds / 5) == 0 {
                records.push(overhead());
            }
        }
    });
    println!("{records:?} bytes of records after each fifth");
    let (before, after) = (records[2], records[4]);
    let most = before + before / 4 + (512 << 10);
    assert!(after <= most, "records grew: {records:?}");
    drop(bursar::report());
    host.check();
}

/// What a forked child does with accounts, at once.
fn childhood(known: &[(Consumer, [u64; 2])]) {
    for (consumer, expected) in known {
        assert_eq!(held(consumer), *expected, "{}", consumer.name());
        let block = consumer.run(|| {
            assert_eq!(current(), Some(consumer.id()));
            black_box(Vec::<u8>::with_capacity(1_000))
        });
        let [blocks, bytes] = held(consumer);
        let more = buffers::<u8>([block.capacity()]);
        assert_eq!([blocks - expected[0], bytes - expected[1]], more);
        let text = bursar::report().to_string();
        assert!(text.contains(consumer.name()), "{text}");
        drop(block);
        assert_eq!(held(consumer), *expected);
    }
    let made = Consumer::new("made in the child");
    let id = made.id();
    let blocks = on_threads(3, |number| made.run(|| black_box(Box::new([number; 5]))));
    assert_eq!(held(&made), boxes::<[u64; 5]>(3));
    drop((made, blocks));
    assert!(listed_still(id).is_none());
}

/// Threads allocate, enter, leave, make and drop consumers, hand over, and read
/// snapshots without pause; main forks. Its own consumers are exact in each
/// child, those of the vanished threads are listed, and accounts that leave
/// are given up there.
fn fork_accounts_busy(host: &Host, _: &Arguments) {
    static DONE: AtomicBool = AtomicBool::new(false);
    let shared = Consumer::new("shared by the busy");
    let known: Vec<(Consumer, [u64; 2])> = (0..5)
        .map(|n| (Consumer::new(format!("known {n}")), [0; 2]))
        .collect();
    let (lasting, blocks): (Vec<_>, Vec<_>) = known
        .into_iter()
        .map(|(consumer, _)| {
            let block = consumer.run(|| (0..100).map(Box::new).collect::<Vec<Box<u64>>>());
            let expected = held(&consumer);
            ((consumer, expected), block)
        })
        .unzip();
    let busy = |number: u64| {
        let mut rng = SmallRng::seed_from_u64(number);
        while !DONE.load(Ordering::Relaxed) {
            let own = Consumer::new("own").with_can_spill(true);
            let below = own.child("below");
            let mut scopes = Vec::with_capacity(4);
            for consumer in [&own, &below, &shared] {
                scopes.push(consumer.enter());
                let size = 1 << rng.random_range(0..19);
                let block = black_box(Vec::<u8>::with_capacity(size));
                let moved = bursar::transfer(&block, &below);
                assert_eq!(moved, Ok(buffers::<u8>([size])[1]));
            }
            if number.is_multiple_of(2) {
                drop(bursar::consumers());
            }
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|number| scope.spawn(move || busy(number)))
            .collect();
        for child in 0..scaled(100, 10) {
            let fate = in_child(|| {
                childhood(&lasting);
                let usage = shared.usage();
                assert!(usage.live_bytes < 1 << 30, "{usage:?}");
                // Accounts that leave are given up, though a reader may have vanished.
                let before = overhead();
                for _ in 0..scaled(20_000, 1_000) {
                    drop(Consumer::new("passing").run(|| black_box(Box::new(1))));
                }
                let after = overhead();
                assert!(after < before + (256 << 10), "from {before} to {after}");
                assert_eq!(
                    in_child(|| childhood(&lasting)),
                    Fate::Fine,
                    "the grandchild"
                );
            });
            assert_eq!(fate, Fate::Fine, "child {child}");
        }
        DONE.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
    assert_eq!(held(&shared), [0, 0]);
    drop(blocks);
    host.check();
}

/// Threads rest in scopes with live blocks; in the child what they hold is
/// counted, nobody is in their scopes, and everything can be freed.
fn fork_accounts_quiet(host: &Host, _: &Arguments) {
    const THREADS: u64 = 4;
    let rest = Arc::new(Barrier::new(THREADS as usize + 1));
    let (send, receive) = channel();
    let consumer = Consumer::new("resting");
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let (rest, send) = (Arc::clone(&rest), send.clone());
            let (shared, own) = (consumer.clone(), consumer.child("own"));
            thread::spawn(move || {
                let blocks: Vec<Box<[u64; 6]>> =
                    shared.run(|| (0..500).map(|_| Box::new([number; 6])).collect());
                let large = own.run(|| vec![1_u8; 700_000]);
                let id = own.id();
                let scope = own.enter();
                let kept = black_box(Vec::<u8>::with_capacity(3_000));
                drop(own);
                send.send((id, blocks, large)).expect("main listens");
                rest.wait();
                rest.wait();
                drop((kept, scope));
            })
        })
        .collect();
    let theirs: Vec<_> = (0..THREADS)
        .map(|_| receive.recv().expect("they send"))
        .collect();
    drop((send, receive));
    rest.wait();
    let before = consumer.usage();
    assert!(before.subtree_live_bytes > THREADS * 700_000, "{before:?}");
    let mut theirs = Some(theirs);
    for child in 0..scaled(20, 8) {
        let fate = in_child(|| {
            assert_eq!(consumer.usage(), before, "counts, peaks and all");
            bursar::check().unwrap_or_else(|broken| panic!("{broken}"));
            let theirs = theirs.take().expect("each child has them");
            for (id, blocks, large) in theirs {
                let listed = listed_still(id).expect("bytes of it are alive");
                assert!(listed.departed, "its handle went in the parent");
                drop((blocks, large));
                // What the vanished thread itself held stays on the books.
                let usage = listed_still(id).expect("a buffer is alive").usage;
                assert_eq!(
                    [usage.live_blocks, usage.live_bytes],
                    buffers::<u8>([3_000])
                );
            }
            childhood(&[(consumer.clone(), [0, 0])]);
            bursar::check().unwrap_or_else(|broken| panic!("after its work: {broken}"));
        });
        assert_eq!(fate, Fate::Fine, "child {child}");
    }
    assert_eq!(
        consumer.usage().subtree_live_bytes,
        before.subtree_live_bytes
    );
    drop(theirs);
    rest.wait();
    for thread in threads {
        thread.join().unwrap_or_else(|panic| resume_unwind(panic));
    }
    assert_eq!(consumer.usage().subtree_live_bytes, 0);
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
