//! Sites of sampled allocations. A program of its own, since the feature is. It ends at any
//! allocation that is made inside the allocator, through Rust or through C.

#![cfg(feature = "sites")]

use bursar::{Bursar, Consumer, MemoryManager, Site, TaskConsumer, TaskReservation, transfer};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ffi::c_void;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Bytes for each sample.
const MEAN: u64 = 16 << 10;

struct Guard(Bursar);

#[global_allocator]
static GLOBAL: Guard = Guard(Bursar::new().sample_bytes(MEAN));

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

fn stay_out(what: &str) {
    if INSIDE.get() {
        for part in [what, " was called inside the allocator\n"] {
            // SAFETY: the text is valid for reads of its length.
            unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
        }
        std::process::abort();
    }
}

fn inside<R>(what: &str, call: impl FnOnce() -> R) -> R {
    stay_out(what);
    INSIDE.set(true);
    let result = call();
    INSIDE.set(false);
    result
}

// SAFETY: forwards to bursar.
unsafe impl GlobalAlloc for Guard {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised by the caller.
        inside("alloc", || unsafe { self.0.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised by the caller.
        inside("alloc_zeroed", || unsafe { self.0.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        inside("dealloc", || unsafe { self.0.dealloc(block, layout) });
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as promised by the caller.
        inside("realloc", || unsafe { self.0.realloc(block, layout, size) })
    }
}

unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
}

// SAFETY: of the signature and meaning that C gives the name.
#[unsafe(no_mangle)]
extern "C" fn malloc(size: usize) -> *mut c_void {
    stay_out("malloc");
    // SAFETY: any size is permitted.
    unsafe { __libc_malloc(size) }
}

// SAFETY: of the signature and meaning that C gives the name.
#[unsafe(no_mangle)]
extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    stay_out("calloc");
    // SAFETY: any numbers are permitted.
    unsafe { __libc_calloc(count, size) }
}

/// Sizes that are sampled for certain, but for one in ten million: a slot of a run, and a block
/// with a span of its own.
const CERTAIN: [usize; 2] = [256 << 10, 3 << 20];

fn sum(sites: &[Site]) -> u64 {
    sites.iter().map(|site| site.estimated_bytes).sum()
}

fn samples(consumer: &Consumer) -> u64 {
    consumer.sites().iter().map(|site| site.samples).sum()
}

#[inline(never)]
fn forgetful() -> Vec<u8> {
    black_box(Vec::with_capacity(CERTAIN[1]))
}

#[inline(never)]
fn stage(rows: &TaskConsumer<'_>) -> Vec<u8> {
    black_box(rows.run(forgetful))
}

#[inline(never)]
fn stage_under(rows: &TaskReservation<'_>) -> Vec<u8> {
    let _scope = rows.enter();
    black_box(forgetful())
}

#[inline(never)]
fn careful() -> Vec<Vec<u8>> {
    (0..10).map(|_| Vec::with_capacity(CERTAIN[0])).collect()
}

#[test]
fn a_leak_of_a_task_is_found_at_the_function_that_made_it() {
    let task = MemoryManager::builder("leaky")
        .patience(Duration::from_millis(30))
        .begin();
    let (rows, other) = (task.consumer("rows"), task.consumer("other"));
    let reservation = rows.reservation();
    let (kept, under) = (stage(&rows), stage_under(&reservation));
    drop(other.run(careful));
    drop((rows, other, reservation));
    let report = task.end().unwrap();
    let text = report.to_string();
    let [left] = &report.left[..] else {
        panic!("{text}");
    };
    // One call path from two places.
    assert_eq!(left.sites.len(), 2, "{text}");
    assert_eq!(
        sum(&left.sites),
        left.live_bytes,
        "certain samples are exact"
    );
    for site in &left.sites {
        let (plain, all) = (site.trace.to_string(), format!("{:#}", site.trace));
        assert!(
            plain.lines().next().unwrap().contains("forgetful"),
            "{plain}"
        );
        assert!(!all.contains("careful") && all.contains("stage"), "{all}");
        assert!(all.lines().count() >= plain.lines().count());
        assert_eq!((site.samples, site.estimated_blocks), (1, 1));
        assert!(site.oldest >= Duration::from_millis(20) && site.oldest <= left.age * 2);
        assert!(site.trace.addresses().len() > 2);
    }
    assert!(
        text.contains("forgetful") && text.contains("1 sampled"),
        "{text}"
    );
    drop((kept, under));
    let mut traces = bursar::sites()
        .into_iter()
        .map(|site| format!("{:#}", site.trace));
    assert!(traces.all(|trace| !trace.contains("sites::stage")));
}

#[test]
fn frees_by_any_thread_and_hand_overs_are_followed() {
    let (one, other) = (Consumer::new("one"), Consumer::new("other"));
    for size in CERTAIN {
        let make = |_| one.run(|| vec![0_u8; size]);
        let mut kept: Vec<Vec<u8>> = (0..20).map(make).collect();
        assert_eq!(samples(&one), 20);
        let half = kept.split_off(10);
        thread::spawn(move || drop(half)).join().unwrap();
        assert_eq!(samples(&one), 10);
        for block in &kept[..4] {
            transfer(block, &other).unwrap();
        }
        assert_eq!((samples(&one), samples(&other)), (6, 4));
        let exact = one.usage().live_bytes;
        assert!(sum(&one.sites()).abs_diff(exact) <= exact / 1000);
        thread::scope(|threads| {
            for block in kept {
                threads.spawn(|| drop(block));
            }
        });
        assert_eq!((samples(&one), samples(&other)), (0, 0));
    }
}

#[inline(never)]
fn begins(size: usize) -> Vec<u8> {
    Vec::with_capacity(size)
}

#[inline(never)]
fn grows(block: &mut Vec<u8>, size: usize) {
    block.reserve_exact(size);
}

#[test]
fn realloc_keeps_the_sample_wherever_the_block_goes() {
    let consumer = Consumer::new("grows");
    let first = |consumer: &Consumer| {
        let sites = consumer.sites();
        assert_eq!(sites.len(), 1, "{sites:?}");
        assert_eq!((sites[0].samples, sites[0].estimated_blocks), (1, 1));
        assert_eq!(sites[0].estimated_bytes, consumer.usage().live_bytes);
        sites[0].trace.to_string()
    };
    let mut block = consumer.run(|| begins(CERTAIN[0]));
    assert!(first(&consumer).contains("begins"));
    // Within a class, from a class to a span, in place and moved, and back.
    for size in [
        CERTAIN[0] - 9,
        300_000,
        310_000,
        5 << 20,
        64 << 20,
        700_000,
        250_000,
    ] {
        if size > block.capacity() {
            grows(&mut block, size);
        } else {
            block.shrink_to(size);
        }
        assert_eq!(block.capacity(), size);
        assert!(first(&consumer).contains("begins"), "at {size}");
    }
    drop(block);
    assert_eq!(samples(&consumer), 0);
    // What was too small to be sampled is when it has grown; by whoever let it grow.
    let mut blocks: Vec<Vec<u8>> = consumer.run(|| (0..40).map(|_| begins(1)).collect());
    let small = samples(&consumer);
    blocks.iter_mut().for_each(|block| grows(block, CERTAIN[0]));
    assert!(small <= 3 && samples(&consumer) >= 40);
    let sites = consumer.sites();
    let grown = sites
        .iter()
        .filter(|site| site.trace.to_string().contains("grows"));
    assert!(grown.map(|site| site.samples).sum::<u64>() >= 37);
    // And what is small again is mostly not.
    blocks.iter_mut().for_each(|block| block.shrink_to(1));
    assert!(samples(&consumer) <= 3);
}

/// Numbers that look random, the same each time.
fn random(state: &mut u64) -> usize {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

/// How far an estimate may be off: six standard deviations of it, for blocks that were asked for
/// with these sizes.
fn tolerance(sizes: &[usize]) -> f64 {
    let variance = |&size: &usize| {
        let inclusion = 1.0 - (-(size as f64) / MEAN as f64).exp();
        let layout = Layout::from_size_align(size, 1).unwrap();
        let bytes = bursar::block_size(layout) as f64;
        bytes * bytes * (1.0 - inclusion) / inclusion
    };
    6.0 * sizes.iter().map(variance).sum::<f64>().sqrt()
}

#[test]
fn estimates_are_unbiased_whatever_the_sizes_and_however_they_came_about() {
    let mut state = 7;
    let (mut error, mut allowed) = (0.0, 0.0);
    for round in 0..40 {
        let consumer = Consumer::new("many");
        let mut sizes = Vec::with_capacity(4000);
        let mut blocks: Vec<Vec<u8>> = Vec::with_capacity(4000);
        for _ in 0..4000 {
            let bits = 3 + random(&mut state) % 11;
            let size = 1 + random(&mut state) % (1 << bits);
            let mut block = consumer.run(|| match round % 4 {
                0 => Vec::with_capacity(size),
                1 => vec![0; size],
                // In many small steps.
                2 => begins(1),
                // Larger before.
                _ => Vec::with_capacity(size * 20),
            });
            while block.capacity() < size {
                let step = (block.capacity() / 2).max(5).min(size - block.capacity());
                let full = block.capacity();
                // SAFETY: its bytes are nobody's to read.
                unsafe { block.set_len(full) };
                block.reserve_exact(step);
            }
            // SAFETY: no byte of it is there.
            unsafe { block.set_len(0) };
            block.shrink_to(size);
            sizes.push(block.capacity());
            blocks.push(block);
        }
        let exact = consumer.usage().live_bytes as f64;
        let tolerance = tolerance(&sizes);
        assert!(tolerance < exact / 2.0, "the test says nothing");
        let off = sum(&consumer.sites()) as f64 - exact;
        assert!(
            off.abs() <= tolerance,
            "round {round}: {off} of {exact}, {tolerance} allowed"
        );
        error += off / exact;
        allowed += (tolerance / exact).powi(2);
        drop(blocks);
        assert_eq!(samples(&consumer), 0);
    }
    // Together they are off by less still.
    assert!(
        error.abs() <= allowed.sqrt(),
        "{error} of {}",
        allowed.sqrt()
    );
}

#[test]
fn a_forked_child_goes_on_with_what_there_is() {
    let consumer = Consumer::new("before the fork");
    let kept = consumer.run(forgetful);
    let stop = AtomicBool::new(false);
    thread::scope(|threads| {
        // Others take samples and give them up all the time, under the lock.
        for _ in 0..3 {
            threads.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    drop(careful());
                }
            });
        }
        for _ in 0..50 {
            // SAFETY: the child calls what a forked child of many threads may call with bursar.
            match unsafe { fork() }.unwrap() {
                ForkResult::Child => {
                    // SAFETY: ends the process if it hangs.
                    unsafe { libc::alarm(600) };
                    let more = consumer.run(forgetful);
                    let as_many = samples(&consumer) == 2;
                    drop(more);
                    let as_before = samples(&consumer) == 1;
                    // SAFETY: ends the process without destructors of the parent's.
                    unsafe { libc::_exit(i32::from(!(as_many && as_before))) };
                }
                ForkResult::Parent { child } => {
                    let ended = waitpid(child, None).unwrap();
                    assert_eq!(ended, WaitStatus::Exited(child, 0));
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    drop(kept);
    assert_eq!(samples(&consumer), 0);
}

#[test]
fn threads_that_come_go_and_free_each_others_blocks_leave_no_sample() {
    let consumer = Consumer::new("many threads");
    for _ in 0..20 {
        let (sender, receiver) = std::sync::mpsc::channel::<Vec<u8>>();
        thread::scope(|threads| {
            for thread in 0..4_u64 {
                let (sender, consumer) = (sender.clone(), &consumer);
                threads.spawn(move || {
                    let mut state = thread;
                    for _ in 0..500 {
                        let size = random(&mut state) % 60_000;
                        sender.send(consumer.run(|| vec![1; size])).unwrap();
                    }
                });
            }
            drop(sender);
            threads.spawn(move || drop(receiver.into_iter().collect::<Vec<_>>()));
        });
        assert_eq!(samples(&consumer), 0);
        assert_eq!(consumer.usage().live_bytes, 0);
    }
}

/// A thread whose first request this is.
extern "C" fn first_request(consumer: *mut c_void) -> *mut c_void {
    // SAFETY: the test's own consumer, which outlives the thread.
    let consumer = unsafe { &*consumer.cast::<Consumer>() };
    Box::into_raw(Box::new(consumer.run(|| black_box(Box::new([1_u8; 1024]))))).cast()
}

#[test]
fn the_first_block_of_a_thread_is_as_likely_as_any() {
    const THREADS: usize = 400;
    let consumer = Consumer::new("first");
    let mut kept = Vec::with_capacity(THREADS);
    for _ in 0..THREADS {
        let argument = std::ptr::from_ref(&consumer).cast_mut().cast();
        // SAFETY: plain calls on values that live through them; the block is the thread's result.
        unsafe {
            let (mut thread, mut made) = (std::mem::zeroed(), std::ptr::null_mut());
            libc::pthread_create(&mut thread, std::ptr::null(), first_request, argument);
            libc::pthread_join(thread, &mut made);
            kept.push(Box::from_raw(made.cast::<Box<[u8; 1024]>>()));
        }
    }
    // One in 16 is sampled: 25, and five standard deviations.
    let found = samples(&consumer);
    assert!((1..=50).contains(&found), "{found}");
    drop(kept);
    assert_eq!(samples(&consumer), 0);
}

#[cfg(feature = "raw")]
#[test]
fn blocks_by_address_alone_are_sampled_too() {
    use bursar::raw::{self, Block};
    let consumer = Consumer::new("by address");
    let layout = |size| Layout::from_size_align(size, 16).unwrap();
    let resize = |block: *mut u8, size| {
        // SAFETY: the block is alive, and the test's own.
        let resized = unsafe { Block::at(block).unwrap().resize(layout(size)) };
        assert!(!resized.is_null());
        assert_eq!(samples(&consumer), 1, "at {size}");
        assert_eq!(sum(&consumer.sites()), consumer.usage().live_bytes);
        resized
    };
    let mut block = consumer.run(|| raw::allocate(layout(CERTAIN[0] - 100)));
    assert_eq!(samples(&consumer), 1);
    for size in [CERTAIN[0], 200_000, 600_000, 9 << 20, 400_000, 230_000] {
        block = resize(block, size);
    }
    // SAFETY: as above.
    unsafe { Block::at(block).unwrap().free() };
    assert_eq!((samples(&consumer), consumer.usage().live_bytes), (0, 0));
}

#[cfg(feature = "serde")]
#[test]
fn sites_are_serialised_with_their_functions() {
    let consumer = Consumer::new("serialised");
    let kept = consumer.run(forgetful);
    let text = serde_json::to_string(&consumer.sites()).unwrap();
    assert!(
        text.contains("forgetful") && text.contains("\"samples\":1"),
        "{text}"
    );
    drop(kept);
}
