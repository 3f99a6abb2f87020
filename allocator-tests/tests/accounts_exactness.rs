//! Usage to the byte and block, whatever becomes of a block: reallocated, freed
//! elsewhere, handed over.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;

use allocator_tests::blocks::layout;
use allocator_tests::charges::{both, boxes, buffers, held, listed, listed_still};
use allocator_tests::process::Scenario;
use allocator_tests::scenarios::scaled;
use bursar::{Bursar, Consumer, Transfer, TransferError, transfer, transfer_all};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

#[global_allocator]
static GLOBAL: Bursar = Bursar::new();

fn two() -> [Consumer; 2] {
    ["one", "two"].map(Consumer::new)
}

/// A buffer that is not optimised away.
fn buffer(capacity: usize) -> Vec<u8> {
    std::hint::black_box(Vec::with_capacity(capacity))
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join()).expect("the thread is fine")
}

const SIZES: [usize; 12] = [
    1,
    16,
    100,
    128,
    129,
    2_000,
    5_000,
    60_000,
    262_144,
    262_145,
    1 << 20,
    9 << 20,
];

#[test]
fn each_size_is_booked_as_block_size_says() {
    let consumer = Consumer::new("sizes");
    for size in SIZES {
        for align in [1, 8, 64, 4096, 1 << 18] {
            let layout = layout(size, align);
            for zeroed in [false, true] {
                let bytes = bursar::block_size(layout) as u64;
                // SAFETY: the size is not zero; freed with its layout.
                unsafe {
                    let block = consumer.run(|| match zeroed {
                        true => std::alloc::alloc_zeroed(layout),
                        false => std::alloc::alloc(layout),
                    });
                    assert!(!block.is_null());
                    assert_eq!(held(&consumer), [1, bytes], "{layout:?}");
                    std::alloc::dealloc(block, layout);
                }
                assert_eq!(held(&consumer), [0, 0], "{layout:?}");
            }
        }
    }
}

/// From every size to every other, in its owner's scope, in another's, in none.
#[test]
fn realloc_keeps_the_owner() {
    let [owner, other] = two();
    for from in SIZES {
        for to in SIZES {
            for scope in 0..3 {
                let mut block = owner.run(|| buffer(from));
                block.push(7);
                let _scope = match scope {
                    0 => Some(owner.enter()),
                    1 => Some(other.enter()),
                    _ => None,
                };
                if to > from {
                    block.reserve_exact(to - 1);
                } else {
                    block.shrink_to(to);
                }
                let expected = buffers::<u8>([block.capacity()]);
                assert_eq!(
                    (held(&owner), held(&other)),
                    (expected, [0, 0]),
                    "{from} to {to}"
                );
                assert_eq!(block[0], 7);
            }
            assert_eq!(
                (held(&owner), held(&other)),
                ([0, 0], [0, 0]),
                "{from} to {to}"
            );
        }
    }
}

/// Many at a time, so that the owner gets runs of its own while the thread is
/// in another's scope, which must not change whose the next blocks are.
#[test]
fn realloc_in_another_scope_leaves_that_scope_alone() {
    let [owner, other] = two();
    let count = 3_000;
    let mut blocks: Vec<Vec<u8>> = Vec::with_capacity(count);
    let mut others: Vec<Vec<u8>> = Vec::with_capacity(count);
    for _ in 0..count {
        // One to a stay, so that they do not fill runs yet.
        owner.run(|| blocks.push(buffer(16)));
    }
    let scope = other.enter();
    for block in &mut blocks {
        block.reserve_exact(128);
        others.push(buffer(128));
    }
    drop(scope);
    let expected = buffers::<u8>(vec![128; count]);
    assert_eq!((held(&owner), held(&other)), (expected, expected));
    others.clear();
    assert_eq!((held(&owner), held(&other)), (expected, [0, 0]));
    blocks.clear();
    assert_eq!((held(&owner), held(&other)), ([0, 0], [0, 0]));
}

#[test]
fn realloc_on_another_thread_keeps_the_owner() {
    let [owner, other] = two();
    let sizes = [24, 3_000, 70_000, 400_000, 5 << 20];
    let mut blocks: Vec<_> = sizes
        .iter()
        .map(|&size| owner.run(|| buffer(size)))
        .collect();
    on_a_thread(|| {
        let _scope = other.enter();
        for block in &mut blocks {
            block.reserve_exact(block.capacity() * 2);
        }
    });
    let capacities = blocks.iter().map(Vec::capacity);
    assert_eq!(
        (held(&owner), held(&other)),
        (buffers::<u8>(capacities), [0, 0])
    );
    drop(blocks);
    assert_eq!(held(&owner), [0, 0]);
}

#[test]
fn blocks_freed_by_other_threads_are_credited() {
    freed_by_another_thread(|_| ());
}

/// The same where the thread that frees them has pages of the consumer's too.
#[test]
fn blocks_freed_by_another_thread_of_the_consumer_are_credited() {
    freed_by_another_thread(|consumer| {
        let fill = |size: usize| (0..20_000 / size + 500).map(|_| buffer(size)).collect();
        let blocks: Vec<Vec<_>> = consumer.run(|| (0..12).map(|bits| fill(1 << bits)).collect());
        blocks.into_iter().flatten().for_each(drop);
    });
}

/// Blocks of a consumer's that one thread takes and another, after it has prepared, gives back.
fn freed_by_another_thread(prepare: impl FnOnce(&Consumer) + Send) {
    let consumer = Consumer::new("sender");
    let count = scaled(100_000, 10_000);
    let (send, receive) = channel::<Vec<u8>>();
    // A thread could take up the arena of one that has ended, or runs of it.
    let (both_have_arenas, all_are_freed) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        let (owner, both_have_arenas) = (consumer.clone(), &both_have_arenas);
        let all_are_freed = &all_are_freed;
        scope.spawn(move || {
            drop(buffer(1));
            both_have_arenas.wait();
            let mut rng = SmallRng::seed_from_u64(1);
            for _ in 0..count {
                let size = 1 << rng.random_range(0..12);
                let block = owner.run(|| buffer(size));
                send.send(block).expect("someone receives");
            }
            drop(send);
            all_are_freed.wait();
        });
        let consumer = &consumer;
        scope.spawn(move || {
            drop(buffer(1));
            prepare(consumer);
            both_have_arenas.wait();
            receive.into_iter().for_each(drop);
            all_are_freed.wait();
        });
    });
    let usage = consumer.usage();
    assert_eq!([usage.live_blocks, usage.live_bytes], [0, 0]);
    assert_eq!(usage.allocated_blocks, usage.freed_blocks);
    assert_eq!(
        usage.freed_remotely_blocks, count,
        "all by the other thread"
    );
}

#[test]
fn blocks_outlive_their_thread_and_their_consumer() {
    let consumer = Consumer::new("gone");
    let id = consumer.id();
    let mut blocks = on_a_thread(|| {
        let _scope = consumer.enter();
        let sizes = (0..2_000)
            .map(|number| 1 + number * 7)
            .chain([300_000, 3 << 20]);
        sizes.map(buffer).collect::<Vec<_>>()
    });
    let vector = buffers::<Vec<u8>>([blocks.capacity()]);
    let alive = |blocks: &[Vec<u8>]| both(vector, buffers::<u8>(blocks.iter().map(Vec::capacity)));
    assert_eq!(held(&consumer), alive(&blocks));
    drop(consumer);
    blocks.shuffle(&mut SmallRng::seed_from_u64(5));
    while blocks.len() > 1 {
        blocks.truncate(blocks.len() / 2);
        let snapshot = listed_still(id).expect("blocks are alive");
        let usage = snapshot.usage;
        assert_eq!([usage.live_blocks, usage.live_bytes], alive(&blocks));
        assert!(snapshot.departed);
    }
    // On yet another thread.
    on_a_thread(|| drop(blocks));
    assert!(listed_still(id).is_none());
}

#[test]
fn every_kind_of_allocation_is_handed_over() {
    let [from, to] = two();
    let moved = |what: &str, result: Result<u64, TransferError>| {
        let expected = held(&to);
        assert_eq!(result, Ok(expected[1]), "{what}");
        assert_eq!(expected[0], 1, "{what}");
        assert_eq!(held(&from), [0, 0], "{what}");
    };
    macro_rules! hand_over {
        ($value:expr) => {{
            let value = from.run(|| $value);
            let before = held(&from);
            assert_eq!(before[0], 1, stringify!($value));
            moved(stringify!($value), transfer(&value, &to));
            assert_eq!(held(&to), before, stringify!($value));
            drop(value);
            assert_eq!(held(&to), [0, 0], stringify!($value));
        }};
    }
    hand_over!(Box::new(5_u8));
    hand_over!(Box::new([1_u64; 100]));
    hand_over!(Box::new([1_u64; 100_000]));
    hand_over!(vec![1_u16; 33]);
    hand_over!(vec![1_u8; 5 << 20]);
    hand_over!(Vec::<[u8; 24]>::with_capacity(1_000));
    hand_over!(String::from("a text"));
    hand_over!("a text".to_owned().into_boxed_str());
    hand_over!(vec![7_u32; 9].into_boxed_slice());
    hand_over!(Box::new([3_u64; 7]) as Box<dyn std::any::Any>);
    hand_over!(Arc::new(5_u8));
    hand_over!(Arc::new(()));
    hand_over!(Arc::new([9_u128; 3]));
    hand_over!(Arc::<str>::from("a text of some length"));
    hand_over!(Arc::<[u16]>::from([1_u16; 21]));
    hand_over!(Arc::new([1_u64; 70]) as Arc<dyn Send>);
    hand_over!(Rc::new(5_u64));
    hand_over!(Rc::<[u8]>::from([1_u8; 13]));
    hand_over!(Arc::new(Aligned([1; 3])));
    hand_over!(Rc::new(Aligned([1; 3])));
    hand_over!(Box::new(Aligned([1; 3])));
    hand_over!(vec![Aligned([1; 3]); 5]);
}

#[derive(Clone, Copy)]
#[repr(align(64))]
#[expect(dead_code, reason = "only its layout matters")]
struct Aligned([u8; 3]);

#[test]
fn what_has_no_allocation_moves_nothing() {
    let to = Consumer::new("to");
    assert_eq!(transfer(&Vec::<u64>::new(), &to), Ok(0));
    assert_eq!(transfer(&String::new(), &to), Ok(0));
    assert_eq!(transfer(&Box::new(()), &to), Ok(0));
    assert_eq!(transfer(&vec![(); 100], &to), Ok(0));
    assert_eq!(transfer(&Box::<[u8]>::default(), &to), Ok(0));
    let number = 5_u64;
    // SAFETY: no block of bursar's, which is found out; nobody frees it.
    let foreign =
        unsafe { bursar::transfer_block(NonNull::from(&number).cast(), Layout::new::<u64>(), &to) };
    assert_eq!(foreign, Err(TransferError::Foreign));
    assert_eq!(held(&to), [0, 0]);
}

#[test]
fn transfer_all_moves_what_a_value_owns() {
    let [from, to] = two();
    type Value = (Vec<String>, Option<Box<Vec<Box<u64>>>>, [Vec<u8>; 3]);
    let mut value: Value = from.run(|| {
        let texts = (0..50).map(|n| format!("text {n}")).collect();
        let numbers = (0..70).map(Box::new).collect();
        (
            texts,
            Some(Box::new(numbers)),
            [vec![1; 10], Vec::new(), vec![1; 400_000]],
        )
    });
    let before = held(&from);
    assert_eq!(before[0], 51 + 72 + 2);
    assert_eq!(transfer_all(&mut value, &to), Ok(before[1]));
    assert_eq!((held(&from), held(&to)), ([0, 0], before));
    // Part of it back again.
    let back = value.0.transfer_to(&from).expect("it is bursar's");
    assert_eq!(held(&from)[1], back);
    assert_eq!(both(held(&from), held(&to)), before);
    drop(value);
    assert_eq!((held(&from), held(&to)), ([0, 0], [0, 0]));
}

#[test]
fn a_block_goes_back_and_forth() {
    let [one, two] = two();
    let third = Consumer::new("three");
    for size in SIZES {
        let unclaimed = buffer(size);
        let mut block = one.run(|| buffer(size));
        let expected = buffers::<u8>([size]);
        for _ in 0..10 {
            for to in [&two, &one, &one, &third, &one] {
                assert_eq!(transfer(&block, to), Ok(expected[1]));
                for consumer in [&one, &two, &third] {
                    let holds = if consumer == to { expected } else { [0, 0] };
                    assert_eq!(held(consumer), holds, "{size} bytes");
                }
            }
        }
        block.reserve_exact(size + 1);
        assert_eq!(held(&one), buffers::<u8>([block.capacity()]));
        assert_eq!(transfer(&unclaimed, &two), Ok(expected[1]));
        assert_eq!(held(&two), expected);
        drop((block, unclaimed));
        assert_eq!((held(&one), held(&two)), ([0, 0], [0, 0]));
    }
}

/// Threads hand over blocks of the same runs, from which their owner allocates
/// and into which it frees all the while.
#[test]
fn threads_hand_over_in_runs_that_are_in_use() {
    const THREADS: usize = 3;
    let rounds = scaled(200, 30);
    let owner = Consumer::new("owner");
    let takers: Vec<_> = (0..THREADS)
        .map(|n| Consumer::new(format!("taker {n}")))
        .collect();
    let done = AtomicBool::new(false);
    let start = Barrier::new(THREADS + 1);
    let (send, receive) = (0..THREADS)
        .map(|_| channel::<Vec<Box<[u64; 4]>>>())
        .unzip();
    let (send, receive): (Vec<_>, Vec<_>) = (send, receive);
    let (kept, taken) = thread::scope(|scope| {
        let threads: Vec<_> = receive
            .into_iter()
            .zip(&takers)
            .map(|(receive, taker)| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    let mut kept = Vec::new();
                    for mut blocks in receive {
                        for block in &blocks {
                            assert_eq!(transfer(block, taker), Ok(32));
                        }
                        let rest = blocks.split_off(blocks.len() / 2);
                        kept.extend(rest);
                    }
                    kept
                })
            })
            .collect();
        let allocating = scope.spawn(|| {
            start.wait();
            let mut kept: Vec<Box<[u64; 4]>> = Vec::with_capacity(100_000);
            let mut batch = Vec::with_capacity(300);
            for round in 0..rounds {
                for to in &send {
                    let _scope = owner.enter();
                    (0..300).for_each(|n| batch.push(Box::new([n; 4])));
                    let rest = batch.split_off(batch.len() - 100);
                    drop(_scope);
                    kept.extend(batch.drain(..).take(20));
                    batch.clear();
                    to.send(rest).expect("they receive");
                }
                let half = kept.len() / 2;
                if round % 3 == 0 {
                    kept.truncate(half);
                }
            }
            drop(send);
            done.store(true, Ordering::Relaxed);
            kept
        });
        let kept = allocating.join().expect("it is fine");
        let taken: Vec<_> = threads
            .into_iter()
            .map(|t| t.join().expect("it is fine"))
            .collect();
        (kept, taken)
    });
    assert!(done.load(Ordering::Relaxed));
    for (taker, taken) in takers.iter().zip(&taken) {
        assert_eq!(taken.len() as u64, rounds * 50);
        assert_eq!(held(taker), boxes::<[u64; 4]>(taken.len() as u64));
    }
    assert_eq!(held(&owner)[0], kept.len() as u64);
    drop((kept, taken));
    assert_eq!(held(&owner), [0, 0]);
    assert!(takers.iter().all(|taker| held(taker) == [0, 0]));
}

#[test]
fn classes_are_those_of_the_blocks() {
    let consumer = Consumer::new("classes");
    let blocks: Vec<_> = consumer.run(|| {
        let mut blocks = Vec::with_capacity(300);
        (0..100).for_each(|_| blocks.push(buffer(24)));
        (0..30).for_each(|_| blocks.push(buffer(1_000)));
        (0..3).for_each(|_| blocks.push(buffer(1 << 20)));
        blocks
    });
    let row = |size| {
        let found = consumer.classes().find(|row| row.size == size);
        found.map(|row| [row.live_blocks, row.live_bytes])
    };
    let class = bursar::block_size(layout(1_000, 1)) as u64;
    assert_eq!(row(24), Some([100, 2_400]));
    assert_eq!(row(class), Some([30, 30 * class]));
    assert_eq!(row(0), Some([3, 3 << 20]));
    let sum: u64 = consumer.classes().map(|row| row.live_bytes).sum();
    assert_eq!(sum, held(&consumer)[1]);
    // Freed by another thread, which counts them in books of its own.
    on_a_thread(|| drop(blocks));
    assert_eq!(consumer.classes().count(), 0);
}

#[test]
fn a_tree_sums_up_what_is_below() {
    let query = Consumer::new("query");
    let [sort, join] = ["sort", "join"].map(|name| query.child(name));
    let merge = sort.child("merge");
    let blocks = [&query, &sort, &join, &merge].map(|one| one.run(|| buffer(1_000)));
    let each = buffers::<u8>([1_000])[1];
    let subtree = |consumer: &Consumer| consumer.usage().subtree_live_bytes / each;
    assert_eq!([&query, &sort, &join, &merge].map(subtree), [4, 2, 1, 1]);
    assert_eq!(
        [&query, &sort, &join, &merge].map(|one| held(one)[1]),
        [each; 4]
    );
    let (merge_id, sort_id) = (merge.id(), sort.id());
    drop((merge, sort));
    assert_eq!(subtree(&query), 4, "the departed count");
    let snapshot = listed(merge_id).expect("a block of it is alive");
    assert_eq!((snapshot.parent, snapshot.departed), (Some(sort_id), true));
    assert_eq!(
        listed(query.id())
            .expect("a handle")
            .usage
            .subtree_live_bytes,
        4 * each
    );
    drop(blocks);
    assert_eq!(subtree(&query), 0);
    assert!(listed_still(merge_id).is_none() && listed_still(sort_id).is_none());
}

#[test]
fn books_stay_exact_without_memory_for_records() {
    for rule in ["first", "second"] {
        let scenario = Scenario::new(env!("CARGO_BIN_EXE_bare"), "accounts_without_records");
        print!("{rule}: {}", scenario.argument(rule).succeed());
    }
}
