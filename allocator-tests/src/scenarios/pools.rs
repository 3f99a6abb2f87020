//! Configured pools: where requests go, and what no pool ever exceeds.
//!
//! Most run where bursar is not installed, so that only their own blocks are
//! in the pools.

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use bursar::{AllocFailure, Pool, PoolStats, block_size};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::{Arguments, Host, Run, scaled};
use crate::blocks::{Heap, layout};
use crate::memory::Memory;

pub(super) const ALL: &[(&str, Run)] = &[
    ("pools_acceptance", acceptance),
    ("pools_routes", routes),
    ("pools_fill", fill),
    ("pools_crowd", crowd),
    ("pools_fall", fall),
    ("pools_resize", resize),
    ("pools_purge", purge),
    ("pools_sizes", sizes),
    ("pools_backings", backings),
];

const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

/// A block that is never touched.
struct Block {
    heap: &'static Heap,
    address: NonNull<u8>,
    size: usize,
}

impl Block {
    fn new(heap: &'static Heap, size: usize) -> Option<Block> {
        // SAFETY: no scenario asks for a block of size zero.
        let address = NonNull::new(unsafe { heap.alloc(layout(size, 1)) })?;
        Some(Block {
            heap,
            address,
            size,
        })
    }

    fn range(&self) -> (usize, usize) {
        let start = self.address.as_ptr() as usize;
        (start, start + self.size)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: the block came from this allocator with this layout.
        unsafe {
            self.heap
                .dealloc(self.address.as_ptr(), layout(self.size, 1))
        };
    }
}

// SAFETY: blocks are owned, and any thread may free one.
unsafe impl Send for Block {}

fn block(heap: &'static Heap, size: usize) -> Block {
    Block::new(heap, size)
        .unwrap_or_else(|| panic!("{size} bytes can be had: {:?}", bursar::last_failure()))
}

fn stats() -> Vec<PoolStats> {
    bursar::pools().collect()
}

/// Large and small messages in turn; then the large ones go, and one is asked
/// for that is larger than each. Says whether it can be had.
fn acceptance(host: &Host, arguments: &Arguments) {
    let is_expected = arguments.text(0) == "succeeds";
    let before = Memory::now();
    let (mut large, mut small): (Vec<Block>, Vec<Block>) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        large.push(block(host.heap, 3 * GIB));
        small.extend((0..8).map(|_| block(host.heap, 2 * MIB)));
    }
    let mut gaps: Vec<(usize, usize)> = large.iter().map(Block::range).collect();
    gaps.sort_unstable();
    large.clear();
    let pools = stats();
    let free: u64 = pools.iter().map(|pool| pool.free_bytes).sum();
    assert!(free > 9 * GIB as u64, "{pools:?}");
    let between = |small: &&Block| {
        let (start, end) = small.range();
        gaps.windows(2)
            .any(|gap| gap[0].1 <= start && end <= gap[1].0)
    };
    let between = small.iter().filter(between).count();
    let request = Block::new(host.heap, 5 * GIB);
    assert_eq!(request.is_some(), is_expected, "{}", bursar::pools());
    if is_expected {
        assert_eq!(between, 0, "small blocks are in a pool of their own");
        assert_eq!(pools[1].used_bytes, 24 * 2 * MIB as u64, "{pools:?}");
        assert_eq!(pools[0].used_bytes, 0, "{pools:?}");
    } else {
        assert!(
            between >= 16,
            "{between} small blocks keep large ones apart"
        );
        let fragmentation = pools[0].external_fragmentation();
        assert!((0.5..0.8).contains(&fragmentation), "{fragmentation}");
        assert!(pools[0].largest_free_span < 5 * GIB as u64, "{pools:?}");
        let failed = bursar::last_failure();
        assert!(
            matches!(failed, Some(AllocFailure::PoolsFull { bytes }) if bytes == 5 * GIB as u64),
            "{failed:?}"
        );
        assert_eq!(stats()[0].failures, 1, "after one failure");
    }
    let resident = Memory::now().since(before).resident;
    assert!(resident < 16 * MIB as u64, "{resident} bytes were touched");
    drop((request, small));
    host.check();
    assert!(
        stats().iter().all(|pool| pool.used_bytes == 0),
        "{}",
        bursar::pools()
    );
}

/// Which pool a request of each size goes to: `size=pool` or `size=none`, in
/// this order, several times over.
fn routes(host: &Host, arguments: &Arguments) {
    let mut blocks = Vec::new();
    for round in 0..3 {
        for expected in arguments.text(0).split(',') {
            let (size, pool) = expected.split_once('=').expect("size=pool");
            let size: usize = size.parse().expect("a size");
            let made = Block::new(host.heap, size);
            let found = made.as_ref().map(pool_of);
            let wanted = pool.parse().ok();
            assert_eq!(
                found,
                wanted,
                "{size} bytes, round {round}\n{}",
                bursar::pools()
            );
            if made.is_none() {
                let failed = bursar::last_failure();
                assert!(
                    matches!(failed, Some(AllocFailure::NoPool { .. })),
                    "{failed:?}"
                );
            }
            // Some stay, so that later requests find runs that have room.
            blocks.extend(made.filter(|_| round != 1));
        }
        bursar::check().unwrap_or_else(|broken| panic!("check(): {broken}"));
    }
    let fallen: u64 = stats().iter().map(|pool| pool.fall_throughs).sum();
    assert_eq!(fallen, 0, "{}", bursar::pools());
    blocks.clear();
    host.check();
}

/// The index of the pool that a block is in: pools lie one behind the other, and
/// each has the addresses from its first block's chunk on.
fn pool_of(block: &Block) -> usize {
    let address = block.range().0;
    ranges()
        .iter()
        .position(|&(start, end)| (start..end).contains(&address))
        .expect("a block is in a pool")
}

/// Where pools lie, from the probes of a direct request to each.
fn ranges() -> Vec<(usize, usize)> {
    static RANGES: std::sync::OnceLock<Vec<(usize, usize)>> = std::sync::OnceLock::new();
    RANGES
        .get_or_init(|| {
            let starts: Vec<(usize, usize)> = (0..)
                .map_while(Pool::configured)
                .map(|pool| {
                    let chunk = 8 * MIB;
                    let probe = layout(16, 8);
                    // SAFETY: a layout with a size; freed once.
                    let address = unsafe {
                        let probed = pool.alloc(probe);
                        assert!(!probed.is_null(), "each pool has room at first");
                        bursar_free(probed, probe);
                        probed as usize
                    };
                    let size = pool.stats().size as usize;
                    let length = if size < 16 * MIB { size * 32 } else { size };
                    (address & !(chunk - 1), length.next_multiple_of(chunk))
                })
                .collect();
            starts
                .iter()
                .map(|&(start, len)| (start, start + len))
                .collect()
        })
        .clone()
}

/// # Safety
/// As for `dealloc`.
unsafe fn bursar_free(block: *mut u8, layout: std::alloc::Layout) {
    use std::alloc::GlobalAlloc;
    // SAFETY: the caller's promise.
    unsafe { bursar::Bursar::new().dealloc(block, layout) };
}

/// A pool of any size is filled with blocks of each of several sizes in turn,
/// never beyond its size, and to within `slack` of it where blocks are small.
fn fill(host: &Host, _: &Arguments) {
    let size = stats()[0].size;
    let requests = [
        16, 24, 64, 100, 512, 1000, 1024, 1025, 3000, 9000, 40_000, 300_000, 2_000_000,
    ];
    for request in requests {
        let occupied = block_size(layout(request, 1)) as u64;
        let mut blocks = Vec::new();
        while let Some(block) = Block::new(host.heap, request) {
            blocks.push(block);
            let alive = blocks.len() as u64 * occupied;
            assert!(alive <= size, "{alive} bytes in a pool of {size}");
        }
        let alive = blocks.len() as u64 * occupied;
        // At most one unit at the end of each run, and what no block of that size fits.
        let unit = if size < 16 << 20 { 4096 } else { 128 << 10 };
        let waste = (size / 4).max(occupied.next_multiple_of(unit) * 2);
        assert!(
            alive + waste >= size,
            "{alive} bytes of {request} fill a pool of {size}\n{}",
            bursar::pools()
        );
        disjoint(&blocks);
        write_to_ends(&blocks);
        let pool = stats()[0];
        assert!(pool.used_bytes <= size && pool.failures > 0, "{pool:?}");
        if request <= 1024 && size >= 1024 {
            assert!(!blocks.is_empty(), "{request} bytes in a pool of {size}");
        }
        blocks.clear();
        // All of it is there again, in one piece, but for a run at hand: that is given back.
        drop(block(host.heap, 16));
        let whole = size as usize / 4096 * 4096;
        if whole > 512 << 10 {
            drop(block(host.heap, whole));
        }
        host.check();
    }
}

fn disjoint(blocks: &[Block]) {
    let mut ranges: Vec<_> = blocks.iter().map(Block::range).collect();
    ranges.sort_unstable();
    let overlapping = ranges.windows(2).find(|pair| pair[0].1 > pair[1].0);
    assert_eq!(overlapping, None);
}

fn write_to_ends(blocks: &[Block]) {
    for block in blocks {
        // SAFETY: the first and the last byte of a block that is alive.
        unsafe {
            block.address.as_ptr().write(1);
            block.address.as_ptr().add(block.size - 1).write(2);
        }
    }
}

/// Bytes that threads hold by kind of request, counted after a block was
/// allocated and before it is freed: never more than is really alive.
struct Held {
    all: AtomicU64,
    /// Of requests that only the last pool serves.
    large: AtomicU64,
}

/// Many threads want more than there is, all the time. The pools are
/// `small:limit,large`.
fn crowd(host: &Host, _: &Arguments) {
    let pools = stats();
    let (total, last) = (pools.iter().map(|pool| pool.size).sum(), pools[1].size);
    let limit = pools[0].limit as usize;
    let held = Held {
        all: AtomicU64::new(0),
        large: AtomicU64::new(0),
    };
    let over = AtomicBool::new(false);
    let (refused, served) = (AtomicU64::new(0), AtomicU64::new(0));
    let heap = host.heap;
    thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|seed| {
                let (held, refused, served) = (&held, &refused, &served);
                scope.spawn(move || worker(heap, seed, limit, (total, last), held, refused, served))
            })
            .collect();
        let reader = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for pool in bursar::pools() {
                    assert!(pool.used_bytes <= pool.size, "{pool:?}");
                    assert_eq!(pool.used_bytes + pool.free_bytes, pool.size);
                }
                thread::yield_now();
            }
        });
        let joined: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        over.store(true, Ordering::Relaxed);
        for result in joined.into_iter().chain([reader.join()]) {
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    host.check();
    bursar::purge();
    assert!(stats()[0].fall_throughs > 0, "{}", bursar::pools());
}

fn worker(
    heap: &'static Heap,
    seed: u64,
    limit: usize,
    (total, last): (u64, u64),
    held: &Held,
    refused: &AtomicU64,
    served: &AtomicU64,
) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut blocks: Vec<Block> = Vec::new();
    // Every other one wants what the first pool admits, and alone more of it than
    // that pool has: both pools overflow however the threads take turns.
    let (largest, growing) = if seed.is_multiple_of(2) {
        (99, 60)
    } else {
        (79, 80)
    };
    // Threads that take turns for long hardly get into each other's way: then the last goes on.
    let is_crowded =
        || refused.load(Ordering::Relaxed) > 100 && served.load(Ordering::Relaxed) > 1000;
    let mut steps_left = scaled(60_000, 6_000);
    while steps_left > 0 || !is_crowded() {
        steps_left = steps_left.saturating_sub(1);
        let size = match random.random_range(0..=largest) {
            0..60 => random.random_range(1..limit.min(20_000)),
            60..80 => random.random_range(limit / 4..limit),
            80..98 => random.random_range(limit..limit * 2),
            _ => random.random_range(limit..2_000_000),
        };
        if random.random_range(0..100) < growing {
            let Some(made) = Block::new(heap, size) else {
                refused.fetch_add(1, Ordering::Relaxed);
                let leaving = blocks.len() / 8;
                blocks
                    .drain(..leaving)
                    .for_each(|block| put_back(block, limit, held));
                continue;
            };
            served.fetch_add(1, Ordering::Relaxed);
            let bytes = block_size(layout(size, 1)) as u64;
            let now = held.all.fetch_add(bytes, Ordering::SeqCst) + bytes;
            assert!(now <= total, "{now} bytes in pools of {total}");
            if size > limit {
                let now = held.large.fetch_add(bytes, Ordering::SeqCst) + bytes;
                assert!(now <= last, "{now} bytes in a pool of {last}");
            }
            blocks.push(made);
        } else if !blocks.is_empty() {
            let block = blocks.swap_remove(random.random_range(0..blocks.len()));
            put_back(block, limit, held);
        }
    }
    blocks
        .into_iter()
        .for_each(|block| put_back(block, limit, held));
}

fn put_back(block: Block, limit: usize, held: &Held) {
    let bytes = block_size(layout(block.size, 1)) as u64;
    held.all.fetch_sub(bytes, Ordering::SeqCst);
    if block.size > limit {
        held.large.fetch_sub(bytes, Ordering::SeqCst);
    }
    drop(block);
}

/// The first pool of `SIZE:LIMIT,SIZE` is filled; then requests fall through to
/// the second, one by one, or are refused if `strict`; and they come back to
/// the first when it has room again.
fn fall(host: &Host, arguments: &Arguments) {
    let is_strict = arguments.text(0) == "strict";
    let request = arguments.number(1) as usize;
    ranges();
    let untouched = stats()[1];
    let mut first = Vec::new();
    let mut next = loop {
        match Block::new(host.heap, request) {
            Some(made) if pool_of(&made) == 0 => first.push(made),
            other => break other,
        }
    };
    assert_eq!(next.is_none(), is_strict, "{}", bursar::pools());
    let pools = stats();
    if is_strict {
        assert!(
            pools[0].failures > 0 && pools[0].fall_throughs == 0,
            "{pools:?}"
        );
        assert_eq!(pools[1], untouched);
    } else {
        assert!(
            pools[0].failures == 0 && pools[0].fall_throughs > 0,
            "{pools:?}"
        );
        assert!(pools[1].used_bytes > 0, "{pools:?}");
        let mut more: Vec<Block> = (0..60).map(|_| block(host.heap, request)).collect();
        assert!(more.iter().all(|more| pool_of(more) == 1));
        // One that is freed in the first pool is had again before any of the second, also where a
        // run of that one has just become worth filling up again.
        let freed = first.swap_remove(first.len() / 2).range();
        more.pop();
        let again = block(host.heap, request);
        assert_eq!(pool_of(&again), 0, "{freed:?} is free\n{}", bursar::pools());
        drop(again);
    }
    first.clear();
    next = None;
    drop(next);
    let back: Vec<Block> = (0..20).map(|_| block(host.heap, request)).collect();
    assert!(
        back.iter().all(|back| pool_of(back) == 0),
        "{}",
        bursar::pools()
    );
    drop(back);
    host.check();
}

/// `realloc` in `1048576:100000,1073741824`: in a class that the limit cuts, and of blocks
/// of their own.
fn resize(host: &Host, _: &Arguments) {
    let grow = |from: usize, to: usize| {
        let old = block(host.heap, from);
        let before = pool_of(&old);
        let (address, old_layout) = (old.address, layout(from, 1));
        std::mem::forget(old);
        // SAFETY: the block is alive and of that layout; both ends are written to.
        let new = unsafe {
            address.as_ptr().write(7);
            let moved = host.heap.realloc(address.as_ptr(), old_layout, to);
            assert!(!moved.is_null(), "{from} to {to}");
            assert_eq!(moved.read(), 7);
            moved.add(to - 1).write(9);
            Block {
                heap: host.heap,
                address: NonNull::new(moved).expect("checked above"),
                size: to,
            }
        };
        (before, pool_of(&new))
    };
    assert_eq!(grow(99_000, 99_999), (0, 0));
    assert_eq!(grow(99_000, 100_000), (0, 0));
    assert_eq!(
        grow(99_000, 100_001),
        (0, 1),
        "within a class, and beyond the limit"
    );
    assert_eq!(grow(99_000, 5_000_000), (0, 1));
    assert_eq!(grow(1_000_000, 3_000_000), (1, 1));
    assert_eq!(grow(1_000_000, 900_000), (1, 1));
    assert_eq!(grow(1_000_000, 900), (1, 0));
    host.check();
}

/// What was freed in pools is given back.
fn purge(host: &Host, arguments: &Arguments) {
    let now = arguments.text(0) == "now";
    let before = Memory::now();
    let mut blocks: Vec<Block> = Vec::new();
    let mut random = SmallRng::seed_from_u64(1);
    let mut bytes = 0;
    while bytes < 96 * MIB {
        let size = match random.random_range(0..4) {
            0 => random.random_range(300_000..3_000_000),
            1 => random.random_range(10_000..200_000),
            _ => random.random_range(16..4000),
        };
        let made = block(host.heap, size);
        // SAFETY: the block is alive and has that many bytes.
        unsafe { made.address.as_ptr().write_bytes(1, size) };
        bytes += size;
        blocks.push(made);
    }
    let peak = Memory::now().since(before).resident;
    assert!(peak > 90 * MIB as u64, "{peak} bytes are resident");
    blocks.clear();
    if now {
        bursar::purge();
    } else {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while Memory::now().since(before).resident > 4 * MIB as u64
            && std::time::Instant::now() < end
        {
            thread::sleep(std::time::Duration::from_millis(5));
            drop(block(host.heap, 100));
            drop(block(host.heap, 1_000_000));
        }
    }
    let left = Memory::now().since(before).resident;
    assert!(left < 6 * MIB as u64, "{left} bytes are left of {peak}");
    // Zeroed memory is zero, purged or not.
    for size in [5_000, 50_000, 500_000, 80 * MIB] {
        // SAFETY: read within its size, and freed once with its layout.
        unsafe {
            let zeroed = host.heap.alloc_zeroed(layout(size, 8));
            assert!(!zeroed.is_null());
            crate::pattern::verify_zero(zeroed, size)
                .unwrap_or_else(|found| panic!("{size} bytes {found}"));
            zeroed.write_bytes(3, size);
            host.heap.dealloc(zeroed, layout(size, 8));
            let zeroed = host.heap.alloc_zeroed(layout(size, 8));
            crate::pattern::verify_zero(zeroed, size)
                .unwrap_or_else(|found| panic!("{size} bytes again {found}"));
            host.heap.dealloc(zeroed, layout(size, 8));
        }
    }
    host.check();
}

/// Says which pools there are.
fn sizes(_: &Host, _: &Arguments) {
    let text: BTreeMap<u64, String> = (0..)
        .zip(bursar::pools())
        .map(|(index, pool)| (index, format!("{}:{}", pool.size, pool.limit)))
        .collect();
    println!("{}", text.into_values().collect::<Vec<_>>().join(","));
}

/// Says what they are made of, and whether the program has more rights than its caller.
fn backings(_: &Host, _: &Arguments) {
    let names: Vec<&str> = bursar::pools().map(|pool| pool.backing).collect();
    // SAFETY: no preconditions.
    let is_secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    println!("{}; secure: {is_secure}", names.join(", "));
}
