//! Pools made at run time: allocators, bound consumers, and how pools end. bursar is not
//! installed here: what is in a pool is the test's.

use std::alloc::{GlobalAlloc, Layout};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use allocator_api2::alloc::Allocator;
use allocator_api2::boxed::Box;
use allocator_api2::vec::Vec as PoolVec;
use allocator_tests::turns::alone;
use bursar::{Backing, Bursar, Consumer, Pool, PoolError};
use hashbrown::{DefaultHashBuilder, HashMap};

static HEAP: Bursar = Bursar::new();

fn check() {
    bursar::check().unwrap_or_else(|broken| panic!("check(): {broken}"));
}

fn is_listed(pool: bursar::PoolId) -> bool {
    bursar::pools().any(|listed| listed.id == pool)
}

/// Blocks in the `Bursar` that drives the test.
fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

#[test]
fn a_map_lives_in_a_pool() {
    alone(|| {
        let pool = Pool::new(64 << 20).expect("it can be had");
        let mut map = HashMap::with_hasher_in(DefaultHashBuilder::default(), pool.allocator());
        for key in 0..100_000_u64 {
            map.insert(key, key * 3);
        }
        assert!(pool.stats().used_bytes > 1_600_000, "{}", pool.stats());
        check();
        assert!((0..100_000).all(|key| map[&key] == key * 3));
        for key in (0..100_000).step_by(2) {
            map.remove(&key);
        }
        map.shrink_to_fit();
        assert_eq!(map.len(), 50_000);
        assert!((1..100_000).step_by(2).all(|key| map[&key] == key * 3));
        drop(map);
        assert_eq!(pool.stats().used_bytes, 0, "{}", pool.stats());
        check();
    });
}

#[test]
fn small_blocks_of_several_threads_live_in_a_pool() {
    alone(|| {
        let pool = Pool::new(32 << 20).expect("it can be had");
        let made: Vec<Vec<Box<[u64; 5], _>>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..4_u64)
                .map(|n| {
                    let pool = &pool;
                    scope.spawn(move || {
                        (0..20_000)
                            .map(|i| Box::new_in([n, i, 2, 3, 4], pool.allocator()))
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .collect()
        });
        let addresses: HashSet<usize> = made
            .iter()
            .flatten()
            .map(|block| core::ptr::from_ref(&**block) as usize)
            .collect();
        assert_eq!(addresses.len(), 80_000);
        let (low, high) = (addresses.iter().min(), addresses.iter().max());
        let spread = high.expect("some") - low.expect("some");
        assert!(spread < 32 << 20, "{spread} bytes apart");
        for (n, blocks) in made.iter().enumerate() {
            assert!(
                blocks
                    .iter()
                    .enumerate()
                    .all(|(i, b)| (b[0], b[1]) == (n as u64, i as u64))
            );
        }
        check();
        // Freed by this thread; what the others hold unused goes with their ends.
        drop(made);
        bursar::purge();
        assert_eq!(pool.stats().used_bytes, 0, "{}", pool.stats());
        check();
    });
}

#[test]
fn a_pool_refuses_what_it_has_no_room_for_and_what_is_beyond_its_limit() {
    alone(|| {
        let pool = Pool::builder(1 << 20)
            .limit(100_000)
            .build()
            .expect("it can be had");
        let allocator = pool.allocator();
        assert!(allocator.allocate(layout(100_001)).is_err());
        let mut blocks = Vec::new();
        while let Ok(block) = allocator.allocate(layout(100_000)) {
            blocks.push(block);
            assert!(blocks.len() <= 10);
        }
        assert!(
            blocks.len() >= 9,
            "{} blocks of 100,000 in 1 MiB",
            blocks.len()
        );
        let stats = pool.stats();
        assert!(stats.failures > 0 && stats.fall_throughs == 0, "{stats:?}");
        // Nobody else uses the pool, full or not.
        // SAFETY: freed once with its layout.
        unsafe {
            let other = HEAP.alloc(layout(100_000));
            assert!(!other.is_null());
            HEAP.dealloc(other, layout(100_000));
            for block in blocks {
                allocator.deallocate(block.cast(), layout(100_000));
            }
        }
        assert_eq!(pool.stats().used_bytes, 0);
        check();
    });
}

#[test]
fn blocks_in_a_pool_are_charged_to_the_current_consumer() {
    alone(|| {
        let pool = Pool::new(64 << 20).expect("it can be had");
        let consumer = Consumer::new("in a pool");
        let mut numbers = PoolVec::new_in(pool.allocator());
        let small = consumer.run(|| {
            numbers.extend(0..200_000_u64);
            (0..100_u64)
                .map(|i| Box::new_in([i; 7], pool.allocator()))
                .collect::<Vec<_>>()
        });
        let usage = consumer.usage();
        assert_eq!(usage.live_blocks, 101);
        let large = bursar::block_size(Layout::array::<u64>(numbers.capacity()).expect("a layout"));
        assert_eq!(usage.live_bytes, large as u64 + 100 * 56);
        check();
        thread::spawn(move || drop(small)).join().expect("no panic");
        drop(numbers);
        assert_eq!(consumer.usage().live_bytes, 0);
        check();
    });
}

#[test]
fn a_dropped_pool_goes_on_until_its_last_block_is_freed() {
    alone(|| {
        let pool = Pool::new(20 << 20).expect("it can be had");
        let id = pool.id();
        // SAFETY: layouts with a size.
        let blocks = unsafe { [pool.alloc(layout(5 << 20)), pool.alloc(layout(100))] };
        for block in blocks {
            // SAFETY: alive, with at least that many bytes.
            unsafe { block.write_bytes(0x77, 100) };
        }
        drop(pool);
        assert!(is_listed(id), "it lives on");
        bursar::purge();
        check();
        // SAFETY: as above; each is freed once with its layout, on another thread too.
        unsafe {
            assert!((0..100).all(|i| *blocks[0].add(i) == 0x77 && *blocks[1].add(i) == 0x77));
            HEAP.dealloc(blocks[0], layout(5 << 20));
            bursar::purge();
            assert!(is_listed(id), "a block is alive");
            let last = blocks[1] as usize;
            thread::spawn(move || HEAP.dealloc(last as *mut u8, layout(100)))
                .join()
                .expect("no panic");
        }
        bursar::purge();
        assert!(!is_listed(id), "{}", bursar::pools());
        check();
    });
}

#[test]
fn pools_that_end_make_room_for_others() {
    alone(|| {
        let reserved = {
            drop(Pool::new(1 << 30).expect("it can be had"));
            bursar::stats().reserved_bytes
        };
        let mut ids = HashSet::new();
        for n in 0..500_u64 {
            let size = 1024 + n * n * 100;
            let pool = Pool::new(size).expect("it can be had");
            assert!(ids.insert(pool.id()), "numbers are never given twice");
            assert_eq!(pool.stats().free_bytes, size);
            let mut bytes = PoolVec::new_in(pool.allocator());
            bytes.resize(size as usize / 4, 1_u8);
            // Zeroed memory is zero, whatever was there before.
            let zeroed = pool
                .allocator()
                .allocate_zeroed(layout(size as usize / 4))
                .expect("room");
            // SAFETY: just allocated; freed once with its layout.
            unsafe {
                assert!(zeroed.as_ref().iter().all(|&byte| byte == 0));
                pool.allocator()
                    .deallocate(zeroed.cast(), layout(size as usize / 4));
            }
        }
        assert_eq!(bursar::stats().reserved_bytes, reserved);
        assert_eq!(
            bursar::pools()
                .filter(|pool| pool.id != bursar::PoolId::GROWING)
                .count(),
            0,
            "{}",
            bursar::pools()
        );
        check();
    });
}

#[test]
fn many_threads_make_fill_and_drop_pools() {
    alone(|| {
        // So that something is committed at all times.
        // SAFETY: a layout with a size.
        let lasting = unsafe { HEAP.alloc(layout(100)) };
        assert!(!lasting.is_null());
        thread::scope(|scope| {
            let makers = [0, 1, 2, 3_u64].map(|seed| {
                scope.spawn(move || {
                    for n in 0..150 {
                        let size = 2048 + (seed * 7919 + n * 104_729) % (40 << 20);
                        let pool = Pool::new(size).expect("it can be had");
                        let mut kept = Vec::new();
                        for i in 0..200_usize {
                            let bytes = 1 + (i * 7919) % 3000;
                            if let Ok(block) = pool.allocator().allocate_zeroed(layout(bytes)) {
                                // SAFETY: just allocated.
                                unsafe { assert!(block.as_ref().iter().all(|&byte| byte == 0)) };
                                // SAFETY: as above.
                                unsafe { block.cast::<u8>().write_bytes(0xab, bytes) };
                                kept.push((block, bytes));
                            }
                        }
                        drop(pool);
                        for (block, bytes) in kept {
                            // SAFETY: alive, and freed once with its layout.
                            unsafe { HEAP.dealloc(block.cast().as_ptr(), layout(bytes)) };
                        }
                    }
                })
            });
            let reader = scope.spawn(|| {
                for _ in 0..300 {
                    for pool in bursar::pools() {
                        assert!(pool.used_bytes <= pool.size, "{pool:?}");
                    }
                    assert!(bursar::stats().committed_bytes > 0);
                    bursar::purge();
                    thread::yield_now();
                }
            });
            // The scope's end waits for what they do, but not for their end.
            for thread in makers.into_iter().chain([reader]) {
                thread.join().expect("no panic");
            }
        });
        // SAFETY: alive, and freed once with its layout.
        unsafe { HEAP.dealloc(lasting, layout(100)) };
        bursar::purge();
        check();
        assert_eq!(
            bursar::pools()
                .filter(|pool| pool.id != bursar::PoolId::GROWING)
                .count(),
            0,
            "{}",
            bursar::pools()
        );
    });
}

#[test]
fn a_bound_consumer_has_its_pool_to_itself() {
    alone(|| {
        let pool = Pool::new(32 << 20).expect("it can be had");
        let (bound, other) = (Consumer::new("bound"), Consumer::new("other"));
        pool.bind(&bound);
        let take = |consumer: &Consumer, size: usize| {
            // SAFETY: a layout with a size.
            consumer.run(|| unsafe { HEAP.alloc(layout(size)) }) as usize
        };
        let sizes = [8, 100, 1000, 9000, 70_000, 300_000, 2_000_000];
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..50 {
            let size = sizes[round % sizes.len()];
            // They take turns, which is what shared runs are for.
            ours.push((take(&bound, size), size));
            theirs.push((take(&other, size), size));
        }
        let (low, high) = (ours.iter().min(), ours.iter().max());
        let (low, high) = (low.expect("some").0, high.expect("some").0);
        assert!(high - low < 32 << 20, "in one pool");
        assert!(
            theirs
                .iter()
                .all(|&(address, _)| !(low..high).contains(&address))
        );
        assert!(pool.stats().used_bytes > 14_000_000, "{}", pool.stats());
        check();
        // Where the pool has no room it goes on as for others.
        let beyond = take(&bound, 30 << 20);
        assert_ne!(beyond, 0);
        assert!(!(low..low + (32 << 20)).contains(&beyond));
        assert_eq!(pool.stats().fall_throughs, 1);
        ours.push((beyond, 30 << 20));
        for (address, size) in ours.into_iter().chain(theirs) {
            // SAFETY: alive, and freed once with its layout.
            unsafe { HEAP.dealloc(address as *mut u8, layout(size)) };
        }
        drop(bound);
        bursar::purge();
        check();
    });
}

/// Each request of the bound consumer finds the pool closed, and leaves it so.
#[test]
fn a_dropped_pool_serves_its_bound_consumer_no_more() {
    alone(|| {
        let pool = Pool::new(32 << 20).expect("it can be had");
        let id = pool.id();
        let bound = Consumer::new("bound");
        pool.bind(&bound);
        let size = 1 << 20;
        let take = || {
            // SAFETY: a layout with a size.
            let block = bound.run(|| unsafe { HEAP.alloc(layout(size)) });
            assert!(!block.is_null());
            block
        };
        let used = || {
            let mut listed = bursar::pools();
            listed
                .find(|listed| listed.id == id)
                .map(|pool| pool.used_bytes)
        };
        let inside = take();
        drop(pool);
        assert_eq!(used(), Some(1 << 20));
        let outside = [(); 4].map(|()| take());
        assert_eq!(used(), Some(1 << 20), "nothing more is taken from it");
        check();
        for block in outside.into_iter().chain([inside]) {
            // SAFETY: alive, and freed once with its layout.
            unsafe { HEAP.dealloc(block, layout(size)) };
        }
        drop(bound);
        bursar::purge();
        assert!(!is_listed(id), "{}", bursar::pools());
        check();
    });
}

#[test]
fn numbers_out_of_range_are_refused() {
    alone(|| {
        let size = |bytes| Pool::new(bytes).expect_err("out of range");
        let (least, most) = (1024, 256 << 30);
        for bytes in [0, 1023, (256 << 30) + 1, u64::MAX] {
            assert_eq!(size(bytes), PoolError::Size { bytes, least, most });
        }
        assert_eq!(
            size(7).to_string(),
            "the size of the pool is 7: expected 1024 to 274877906944 (bytes)"
        );
        let limit = |bytes| {
            Pool::builder(4096)
                .limit(bytes)
                .build()
                .expect_err("out of range")
        };
        for bytes in [1, 1023, 4097] {
            let most = 4096;
            assert_eq!(limit(bytes), PoolError::Limit { bytes, least, most });
        }
        assert_eq!(
            limit(1).to_string(),
            "the limit of the pool is 1: expected 0 for none, or 1024 to 4096 (bytes)"
        );
        assert!(Pool::builder(4096).limit(0).build().is_ok());
        assert!(Pool::configured(0).is_none());
    });
}

/// A pool that could not be made leaves nothing behind that is taken for one.
#[test]
fn what_could_not_be_made_is_not_listed() {
    alone(|| {
        let listed = || bursar::pools().map(|pool| pool.id).collect::<Vec<_>>();
        // As many records as there are may serve others already.
        let kept: Vec<Pool> = (0..20)
            .map(|_| Pool::new(1024).expect("it can be had"))
            .collect();
        let before = listed();
        let nowhere = Backing::File(c"/no/such/folder/pool");
        assert!(Pool::builder(4096).backing(nowhere).build().is_err());
        assert_eq!(listed(), before);
        drop(kept);
        bursar::purge();
        check();
    });
}

/// What is free and being purged is not refused to anybody.
#[test]
fn a_purge_refuses_nobody() {
    alone(|| {
        let pool = Pool::new(16 << 20).expect("it can be had");
        let is_over = AtomicBool::new(false);
        let sizes = [16 << 20, 5 << 20, 1 << 16];
        let refused = thread::scope(|scope| {
            let purger = scope.spawn(|| {
                while !is_over.load(Relaxed) {
                    bursar::purge();
                }
            });
            let mut requests = sizes.into_iter().flat_map(|size| [size; 500]);
            let refused = requests.find(|&size| {
                // SAFETY: a layout with a size; written to, and freed once with its layout.
                unsafe {
                    let block = pool.alloc(layout(size));
                    if block.is_null() {
                        return true;
                    }
                    block.write_bytes(1, size.min(1 << 20));
                    HEAP.dealloc(block, layout(size));
                }
                false
            });
            is_over.store(true, Relaxed);
            purger.join().expect("no panic");
            refused
        });
        assert_eq!(refused, None, "{}", pool.stats());
        check();
    });
}
