//! Threads at work in all of the allocator, for the thread sanitizer.
//!
//! ```sh
//! RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer --cfg tsan" \
//!   cargo +nightly run --release --target x86_64-unknown-linux-gnu \
//!   -p allocator-tests --bin races
//! ```
//!
//! The standard library is not built with the sanitizer, which sees nothing of
//! what it synchronises. So threads and locks here are those of the C library,
//! and all else is the allocator's: each block is written by whoever has it,
//! and is to be ordered from one thread to the next by the allocator alone.
//! `--plant` hands blocks from thread to thread without any order, which the
//! sanitizer must report.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::process::ExitCode;
use std::ptr::{NonNull, null, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};

use allocator_tests::sizes::Mix;
use bursar::{Bursar, Consumer, Limits, Pool, Scope};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Not installed: what the standard library allocates is the C library's.
static HEAP: Bursar = Bursar::new().decay_ms(2);

const THREADS: usize = 4;
const CONSUMERS: usize = 12;
/// Blocks that a thread lets live.
const BLOCKS: usize = 400;
/// Steps of a thread's life.
const STEPS: u32 = 3_000;
const POOL_BYTES: u64 = 1 << 20;

const USAGE: &str = "races [--lives N] [--seed N] [--plant]

  --lives  threads that live, one after the other in each of four places (default 40)
  --seed   what the run is drawn from (default 1)
  --plant  a race that the sanitizer must find";

/// The sanitizer has shadows for memory at some addresses, and takes others for
/// a hint, not for the place that is asked for. To the allocator they are taken.
#[cfg(tsan)]
mod addresses {
    use libc::{c_int, c_void, off_t};
    use std::ops::Range;

    const KNOWN: [Range<usize>; 2] = [
        0x0100_0000_0000..0x0200_0000_0000,
        0x5600_0000_0000..0x5a00_0000_0000,
    ];

    unsafe extern "C" {
        fn __interceptor_mmap(
            address: *mut c_void,
            len: usize,
            protection: c_int,
            flags: c_int,
            file: c_int,
            offset: off_t,
        ) -> *mut c_void;
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn mmap(
        address: *mut c_void,
        len: usize,
        protection: c_int,
        flags: c_int,
        file: c_int,
        offset: off_t,
    ) -> *mut c_void {
        let (start, end) = (address.addr(), address.addr().saturating_add(len));
        let is_known = |known: &Range<usize>| known.start <= start && end <= known.end;
        if flags & libc::MAP_FIXED_NOREPLACE != 0 && !KNOWN.iter().any(is_known) {
            // SAFETY: every thread has its errno.
            unsafe { *libc::__errno_location() = libc::EEXIST };
            return libc::MAP_FAILED;
        }
        // SAFETY: the caller's promise.
        unsafe { __interceptor_mmap(address, len, protection, flags, file, offset) }
    }
}

/// A value behind a lock of the C library, which the sanitizer knows.
struct Locked<T> {
    lock: UnsafeCell<libc::pthread_mutex_t>,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only under the lock.
unsafe impl<T: Send> Sync for Locked<T> {}

impl<T> Locked<T> {
    const fn new(value: T) -> Self {
        Self {
            lock: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
            value: UnsafeCell::new(value),
        }
    }

    fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: a static lock; who holds it is alone with the value, and
        // `work` does not panic, or the process ends.
        unsafe {
            libc::pthread_mutex_lock(self.lock.get());
            let result = work(&mut *self.value.get());
            libc::pthread_mutex_unlock(self.lock.get());
            result
        }
    }
}

/// A block, filled with one byte.
struct Block {
    address: NonNull<u8>,
    layout: Layout,
    byte: u8,
}

// SAFETY: a block is owned memory.
unsafe impl Send for Block {}

impl Block {
    fn new(address: *mut u8, layout: Layout, byte: u8) -> Option<Self> {
        let address = NonNull::new(address)?;
        let block = Self {
            address,
            layout,
            byte,
        };
        block.at_ends(|place| {
            // SAFETY: inside the block, which is ours.
            unsafe { place.write(byte) };
        });
        Some(block)
    }

    /// The bytes that are looked at: some at both ends.
    fn at_ends(&self, mut look: impl FnMut(*mut u8)) {
        let size = self.layout.size();
        let ends = (0..size.min(64)).chain(size.saturating_sub(64).max(64)..size);
        // SAFETY: inside the block.
        ends.for_each(|at| look(unsafe { self.address.as_ptr().add(at) }));
    }

    fn free(self) {
        // SAFETY: inside the block, which is alive.
        self.at_ends(|place| assert_eq!(unsafe { place.read() }, self.byte));
        // SAFETY: it came from this allocator with this layout, and is given up.
        unsafe { HEAP.dealloc(self.address.as_ptr(), self.layout) };
    }
}

/// Blocks on their way to the thread in each place.
static MAIL: [Locked<Vec<Block>>; THREADS] = [const { Locked::new(Vec::new()) }; THREADS];
/// Consumers that have a handle.
static CONSUMERS_OPEN: [Locked<Option<Consumer>>; CONSUMERS] =
    [const { Locked::new(None) }; CONSUMERS];
static POOLS: Locked<Option<Pool>> = Locked::new(None);
/// The block on its way without any order.
static PLANTED: AtomicPtr<u64> = AtomicPtr::new(null_mut());
static SEED: AtomicU64 = AtomicU64::new(1);
static PLANT: AtomicU64 = AtomicU64::new(0);

/// A thread's life.
struct Life {
    place: usize,
    rng: SmallRng,
    blocks: Vec<Block>,
    scopes: Vec<Scope>,
}

impl Life {
    fn step(&mut self) {
        match self.rng.random_range(0..1000) {
            0..2 => drop(bursar::purge()),
            2..4 => drop(bursar::consumers()),
            4..6 => drop(std::hint::black_box(bursar::stats())),
            6..20 => self.consumer(),
            20..30 => self.pool(),
            30..60 => self.scope(),
            60..120 => self.mail(),
            120..160 => self.transfer(),
            160..220 => self.resize(),
            _ if self.blocks.len() < self.rng.random_range(1..BLOCKS) => self.allocate(),
            _ => self.free(),
        }
    }

    fn allocate(&mut self) {
        let layout = Mix::PROGRAM.layout(&mut self.rng);
        // SAFETY: the size is not zero.
        let block = unsafe {
            match self.rng.random_range(0..4) {
                0 => HEAP.alloc_zeroed(layout),
                _ => HEAP.alloc(layout),
            }
        };
        let block = Block::new(block, layout, self.rng.random());
        self.blocks.push(block.expect("memory can be had"));
    }

    fn take(&mut self) -> Option<Block> {
        let pick = self.rng.random_range(0..self.blocks.len().max(1));
        (pick < self.blocks.len()).then(|| self.blocks.swap_remove(pick))
    }

    fn free(&mut self) {
        self.take().into_iter().for_each(Block::free);
    }

    fn resize(&mut self) {
        let size = Mix::PROGRAM.size(&mut self.rng);
        let Some(old) = self.take() else { return };
        let layout = Layout::from_size_align(size, old.layout.align()).expect("a small size");
        // SAFETY: it came from this allocator with this layout.
        let block = unsafe { HEAP.realloc(old.address.as_ptr(), old.layout, size) };
        let block = Block::new(block, layout, self.rng.random());
        self.blocks.push(block.expect("memory can be had"));
    }

    /// Sends some blocks, and takes what came in.
    fn mail(&mut self) {
        let to = self.rng.random_range(0..THREADS);
        let sent: Vec<_> = (0..20).filter_map(|_| self.take()).collect();
        MAIL[to].with(|mail| mail.extend(sent));
        let received = MAIL[self.place].with(std::mem::take);
        for (number, block) in received.into_iter().enumerate() {
            match number % 4 {
                0 => self.blocks.push(block),
                _ => block.free(),
            }
        }
    }

    fn any_consumer(&mut self) -> Option<Consumer> {
        CONSUMERS_OPEN[self.rng.random_range(0..CONSUMERS)].with(|consumer| consumer.clone())
    }

    /// Makes a consumer, or drops one, or asks one what it holds.
    fn consumer(&mut self) {
        let other = self.any_consumer();
        let next = match (self.rng.random_range(0..5), &other) {
            (0, _) => None,
            (1, Some(parent)) => Some(parent.child("child")),
            (2, _) => Some(Consumer::new("root")),
            (3, Some(one)) => {
                std::hint::black_box(one.usage());
                return;
            }
            (_, Some(one)) => {
                one.set_limits(Limits::none().soft(1 << 20));
                return one.safe_point();
            }
            _ => return,
        };
        let place = &CONSUMERS_OPEN[self.rng.random_range(0..CONSUMERS)];
        drop(place.with(|place| std::mem::replace(place, next)));
    }

    fn scope(&mut self) {
        if self.rng.random_range(0..2) == 0 || self.scopes.len() > 8 {
            let pick = self.rng.random_range(0..self.scopes.len().max(1));
            if pick < self.scopes.len() {
                drop(self.scopes.remove(pick));
            }
        } else if let Some(consumer) = self.any_consumer() {
            self.scopes.push(consumer.enter());
        }
    }

    fn transfer(&mut self) {
        let Some(consumer) = self.any_consumer() else {
            return;
        };
        let Some(block) = self.take() else { return };
        // SAFETY: the block is alive, of this layout, and this thread's.
        let moved = unsafe { bursar::transfer_block(block.address, block.layout, &consumer) };
        moved.expect("there is memory for the books");
        self.blocks.push(block);
    }

    /// Makes a pool, or drops the one that there is, or allocates in it.
    fn pool(&mut self) {
        let pool = POOLS.with(|pool| pool.clone());
        match (pool, self.rng.random_range(0..10)) {
            (_, 0) => drop(POOLS.with(Option::take)),
            (None, _) => {
                let made = Pool::new(POOL_BYTES).expect("there is room for a pool");
                drop(POOLS.with(|pool| pool.replace(made)));
            }
            (Some(pool), _) => {
                let size = self.rng.random_range(1..40_000);
                let layout = Layout::from_size_align(size, 8).expect("a small size");
                // SAFETY: the size is not zero. The pool may be full.
                let block = unsafe { pool.alloc(layout) };
                self.blocks
                    .extend(Block::new(block, layout, self.rng.random()));
            }
        }
    }

    /// Writes to the block that another thread left here, whatever that does.
    fn plant(&mut self) {
        // SAFETY: the size is not zero; a block that is lost is never freed.
        let block = unsafe { HEAP.alloc_zeroed(Layout::new::<u64>()) }.cast::<u64>();
        // SAFETY: it was given out just now.
        unsafe { block.write(1) };
        let found = PLANTED.swap(block, Relaxed);
        if !found.is_null() {
            // SAFETY: it is alive; that nothing orders this is what is planted.
            unsafe { found.write(2) };
        }
    }
}

extern "C" fn live(number: *mut c_void) -> *mut c_void {
    let number = number.addr();
    let seed = SEED.load(Relaxed).wrapping_mul(1 << 20) + number as u64;
    let mut life = Life {
        place: number % THREADS,
        rng: SmallRng::seed_from_u64(seed),
        blocks: Vec::new(),
        scopes: Vec::new(),
    };
    for step in 0..STEPS {
        life.step();
        if PLANT.load(Relaxed) != 0 && step % 100 == 0 {
            life.plant();
        }
    }
    // What is alive outlives the thread.
    let heir = life.rng.random_range(0..THREADS);
    MAIL[heir].with(|mail| mail.append(&mut life.blocks));
    null_mut()
}

/// Lets `lives` threads live, in each place one after the other.
fn work(lives: usize) {
    let mut threads: [Option<libc::pthread_t>; THREADS] = [None; THREADS];
    // SAFETY: each thread is joined once; `live` takes any argument.
    unsafe {
        for number in 0..lives {
            let place = &mut threads[number % THREADS];
            if let Some(before) = place.take() {
                libc::pthread_join(before, null_mut());
            }
            let mut thread = std::mem::zeroed();
            let argument = std::ptr::without_provenance_mut(number);
            let error = libc::pthread_create(&mut thread, null(), live, argument);
            assert_eq!(error, 0, "no thread");
            *place = Some(thread);
        }
        for thread in threads.into_iter().flatten() {
            libc::pthread_join(thread, null_mut());
        }
    }
}

fn main() -> ExitCode {
    let lives = match lives() {
        Ok(lives) => lives,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    bursar::start_background().expect("a thread can be made");
    work(lives);
    MAIL.iter()
        .for_each(|mail| mail.with(std::mem::take).into_iter().for_each(Block::free));
    CONSUMERS_OPEN
        .iter()
        .for_each(|place| drop(place.with(Option::take)));
    drop(POOLS.with(Option::take));
    match bursar::check() {
        Ok(report) if report.live_blocks == 0 || PLANT.load(Relaxed) != 0 => {
            println!("{lives} threads lived, and all was whole");
            ExitCode::SUCCESS
        }
        Ok(report) => {
            eprintln!("blocks are left: {report:?}");
            ExitCode::FAILURE
        }
        Err(broken) => {
            eprintln!("{broken}");
            ExitCode::FAILURE
        }
    }
}

fn lives() -> Result<usize, lexopt::Error> {
    use lexopt::prelude::*;

    let mut lives = 40;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("lives") => lives = parser.value()?.parse()?,
            Long("seed") => SEED.store(parser.value()?.parse()?, Relaxed),
            Long("plant") => PLANT.store(1, Relaxed),
            other => return Err(other.unexpected()),
        }
    }
    Ok(lives)
}
