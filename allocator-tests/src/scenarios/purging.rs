//! Memory goes back after a peak: all but one block in a hundred are freed at
//! random, and resident memory must fall to the pages that still hold a block,
//! and a little.

use std::alloc::Layout;
use std::panic::resume_unwind;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::{Arguments, Host, Run};
use crate::blocks::{Filled, Heap, layout};
use crate::memory::Memory;

pub(super) const ALL: &[(&str, Run)] = &[
    ("peak", peak),
    ("pause", pause),
    ("late", late),
    ("draining", draining),
    ("only_frees_large", only_frees_large),
    ("waves", waves),
];

const PAGE: usize = 4096;
/// What may be resident beyond the pages that hold a live block.
const ALLOWANCE: u64 = 4 << 20;
/// What each further thread may keep at hand while it works.
const ALLOWANCE_OF_OWNER: u64 = 3 << 20;
/// And while it sleeps: the run of each size class that it allocated from last, which nobody else
/// may look into. Whole runs of all classes would be 27 MiB.
const ALLOWANCE_OF_SLEEPER: u64 = 16 << 20;
/// Of so many blocks, one survives.
const SURVIVES_OF: usize = 100;
/// Threads in the variants that have several.
const OWNERS: usize = 4;

/// A touched block. Freed by `release`, to keep the books small.
#[derive(Clone, Copy)]
struct Piece {
    address: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a piece is owned memory, freed by whoever holds it.
unsafe impl Send for Piece {}

impl Piece {
    fn new(heap: &Heap, size: usize) -> Self {
        let layout = layout(size, 8);
        // SAFETY: the size is not zero.
        let address = NonNull::new(unsafe { heap.alloc(layout) }).expect("memory can be had");
        for at in (0..size).step_by(PAGE).chain([size - 1]) {
            // SAFETY: `at` is below `size`.
            unsafe { address.as_ptr().add(at).write(1) };
        }
        Self { address, layout }
    }

    fn release(self, heap: &Heap) {
        // SAFETY: the piece came from this allocator with this layout.
        unsafe { heap.dealloc(self.address.as_ptr(), self.layout) };
    }

    /// Numbers of the pages that hold a byte of it.
    fn pages(&self) -> std::ops::RangeInclusive<usize> {
        let first = self.address.as_ptr() as usize;
        first / PAGE..=(first + self.layout.size() - 1) / PAGE
    }
}

/// Half of the bytes in blocks up to 2 KiB, a quarter up to 256 KiB, a quarter
/// up to 8 MiB; log-uniform within each.
fn draw(rng: &mut SmallRng) -> usize {
    let powers = match rng.random_range(0..1_000_000) {
        0..90 => 18.0..23.0,
        90..4_000 => 11.0..18.0,
        _ => 4.0..11.0,
    };
    2_f64.powf(rng.random_range(powers)) as usize
}

/// Blocks of `most` bytes in all, in `books`, which must have the room.
fn build(heap: &Heap, seed: u64, most: usize, books: &mut Vec<Piece>) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut bytes = 0;
    while bytes < most && books.len() < books.capacity() {
        let piece = Piece::new(heap, draw(&mut rng));
        bytes += piece.layout.size();
        books.push(piece);
    }
    assert!(bytes >= most, "the books are too small");
}

/// Frees all but one in a hundred, in random order.
fn shrink(heap: &Heap, books: &mut Vec<Piece>) {
    books.shuffle(&mut SmallRng::seed_from_u64(99));
    let survivors = books.len().div_ceil(SURVIVES_OF);
    for piece in books.drain(survivors..) {
        piece.release(heap);
    }
}

/// How a variant lets memory go back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    /// Main allocates, frees, and goes on with light work.
    Active,
    /// Main allocates, frees, and sleeps; a thread purges.
    Background,
    /// Main allocates, frees, and calls `purge()`.
    Now,
    /// Four threads allocate and exit; main frees and goes on.
    Exited,
    /// Four threads allocate; main frees; the threads go on.
    Owners,
    /// Four threads allocate, each for a consumer; main frees; all sleep; a thread purges.
    Sleepers,
}

impl Variant {
    fn named(name: &str) -> Self {
        match name {
            "active" => Self::Active,
            "background" => Self::Background,
            "now" => Self::Now,
            "exited" => Self::Exited,
            "owners" => Self::Owners,
            "sleepers" => Self::Sleepers,
            other => panic!("no variant is named {other}"),
        }
    }
}

/// A reserve of touched memory for the test's own books, so that they do not
/// grow while the heap is measured.
fn books_for(pieces: usize) -> Vec<Piece> {
    let filler = Piece {
        address: NonNull::dangling(),
        layout: layout(1, 1),
    };
    let mut books = vec![filler; pieces];
    books.clear();
    books
}

/// Four threads that build a share each and then exit or, if they are to stay,
/// wait until they are woken and do light work.
struct Owners {
    threads: Vec<JoinHandle<()>>,
    signals: Option<Arc<Signals>>,
}

struct Signals {
    wake: Barrier,
    end: AtomicBool,
}

impl Owners {
    fn build(heap: &'static Heap, most: usize, variant: Variant, books: &mut Vec<Piece>) -> Self {
        let stay = variant != Variant::Exited;
        let signals = Signals {
            wake: Barrier::new(OWNERS + 1),
            end: AtomicBool::new(false),
        };
        let signals = stay.then(|| Arc::new(signals));
        let (send, receive) = channel();
        let thread = |number| {
            let (send, signals) = (send.clone(), signals.clone());
            thread::spawn(move || {
                let mut part = books_for(most / OWNERS / 500 + 10_000);
                let consumer = bursar::Consumer::new("owner");
                let scope = (variant == Variant::Sleepers).then(|| consumer.enter());
                build(heap, number, most / OWNERS, &mut part);
                drop(scope);
                send.send(part).expect("main listens");
                if let Some(signals) = signals {
                    signals.wake.wait();
                    light_work_until(heap, number, || signals.end.load(Ordering::Relaxed));
                }
            })
        };
        let threads = (0..OWNERS as u64).map(thread).collect();
        for _ in 0..OWNERS {
            books.extend(receive.recv().expect("each thread sends"));
        }
        let mut owners = Self { threads, signals };
        if !stay {
            owners.join();
        }
        owners
    }

    fn wake(&self) {
        if let Some(signals) = &self.signals {
            signals.wake.wait();
        }
    }

    fn join(&mut self) {
        if let Some(signals) = &self.signals {
            signals.end.store(true, Ordering::Relaxed);
        }
        for thread in self.threads.drain(..) {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    }
}

/// Arguments: the variant, the peak in MiB, the decay time in milliseconds.
fn peak(host: &Host, arguments: &Arguments) {
    let variant = Variant::named(arguments.text(0));
    let most = (arguments.number(1) as usize) << 20;
    let decay = Duration::from_millis(arguments.number(2));
    let heap = host.heap;
    let mut books = books_for(most / 500 + 10_000);
    let before = Memory::now();
    let owners = match variant {
        Variant::Exited | Variant::Owners | Variant::Sleepers => {
            Some(Owners::build(heap, most, variant, &mut books))
        }
        Variant::Active | Variant::Background | Variant::Now => {
            build(heap, 1, most, &mut books);
            None
        }
    };
    let peak = Memory::now().since(before).anonymous;
    assert!(peak > most as u64, "{peak} bytes are resident of {most}");
    shrink(heap, &mut books);
    if variant == Variant::Owners {
        owners.iter().for_each(Owners::wake);
    }
    judge(
        heap,
        variant,
        &books,
        &Figures {
            before,
            peak,
            decay,
        },
    );
    if variant == Variant::Sleepers {
        // Purged pages are not charged to the consumers any more.
        bursar::check().unwrap_or_else(|broken| panic!("{broken}"));
        owners.iter().for_each(Owners::wake);
    }
    owners.into_iter().for_each(|mut owners| owners.join());
    books.drain(..).for_each(|piece| piece.release(heap));
    host.check();
}

struct Figures {
    before: Memory,
    peak: u64,
    decay: Duration,
}

/// Waits until resident memory has fallen as far as it must, or the time is up.
fn judge(heap: &'static Heap, variant: Variant, survivors: &[Piece], figures: &Figures) {
    let released = Instant::now();
    let of_threads = match variant {
        Variant::Owners => OWNERS as u64 * ALLOWANCE_OF_OWNER,
        Variant::Sleepers => OWNERS as u64 * ALLOWANCE_OF_SLEEPER,
        _ => 0,
    };
    let bound = pages_of(survivors) + ALLOWANCE + of_threads;
    if variant == Variant::Now {
        let given = bursar::purge();
        assert!(given > figures.peak / 3, "purge() gave back {given} bytes");
    }
    let grace = if variant == Variant::Now {
        Duration::ZERO
    } else {
        figures.decay
    };
    let mut rng = SmallRng::seed_from_u64(5);
    loop {
        let resident = Memory::now().since(figures.before).anonymous;
        let after = released.elapsed();
        if resident <= bound || after > grace {
            println!(
                "from {} to {} KiB of {} allowed, {} ms after the release",
                figures.peak >> 10,
                resident >> 10,
                bound >> 10,
                after.as_millis()
            );
            let stats = bursar::stats().to_string();
            let totals: Vec<_> = stats.lines().take(9).collect();
            let excess = resident.saturating_sub(bound) >> 10;
            assert!(
                excess == 0,
                "{excess} KiB too many are resident\n{}",
                totals.join("\n")
            );
            return;
        }
        match variant {
            Variant::Active | Variant::Exited => light_work(heap, &mut rng),
            Variant::Background | Variant::Now | Variant::Owners | Variant::Sleepers => {}
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// A span that is freed after a long pause counts as free from then on, not from before the pause:
/// who asks for memory next finds it as it was left. The argument is the decay time in milliseconds.
fn pause(host: &Host, arguments: &Arguments) {
    const BYTES: usize = 64 << 20;
    let decay = Duration::from_millis(arguments.number(0));
    let heap = host.heap;
    let before = Memory::now();
    for _ in 0..3 {
        let piece = Piece::new(heap, BYTES);
        thread::sleep(decay * 3);
        piece.release(heap);
        let left = Memory::now().since(before).anonymous;
        assert!(left >= BYTES as u64, "{left} bytes are left at once");
    }
    let mut rng = SmallRng::seed_from_u64(6);
    let released = Instant::now();
    while Memory::now().since(before).anonymous > ALLOWANCE {
        assert!(released.elapsed() < decay * 10, "it goes back in the end");
        light_work(heap, &mut rng);
        thread::sleep(Duration::from_millis(1));
    }
    host.check();
}

/// A program that goes up and down keeps what it is about to touch again, and gives it back when it
/// has come to rest. The argument is the decay time in milliseconds.
fn waves(host: &Host, arguments: &Arguments) {
    const BYTES: usize = 64 << 20;
    const WAVES: u64 = 12;
    let decay = Duration::from_millis(arguments.number(0));
    let heap = host.heap;
    let mut rng = SmallRng::seed_from_u64(9);
    let mut books = books_for(BYTES / 500 + 10_000);
    let before = Memory::now();
    let wave = |rng: &mut SmallRng, books: &mut Vec<Piece>| {
        build(heap, 10, BYTES, books);
        for part in 0..6 {
            thread::sleep(decay / 16);
            light_work(heap, rng);
            // After two ticks at least: what goes up and down between two is not seen.
            if part == 0 {
                books.drain(..).for_each(|piece| piece.release(heap));
            }
        }
    };
    wave(&mut rng, &mut books);
    let purged = bursar::stats().purged_bytes;
    for _ in 0..WAVES {
        wave(&mut rng, &mut books);
    }
    let purged = bursar::stats().purged_bytes - purged;
    println!("{purged} bytes were given back in {WAVES} waves of {BYTES}");
    assert!(purged < BYTES as u64, "{purged} bytes were given back");
    let rested = Instant::now();
    while Memory::now().since(before).anonymous > ALLOWANCE + (8 << 20) {
        assert!(rested.elapsed() < decay, "it goes back in time");
        light_work(heap, &mut rng);
        thread::sleep(Duration::from_millis(1));
    }
    host.check();
}

/// A thread that wakes after a long sleep gives everything back at once: all of it was idle in the
/// periods that it missed. The argument is the decay time in milliseconds.
fn late(host: &Host, arguments: &Arguments) {
    const BYTES: usize = 128 << 20;
    let decay = Duration::from_millis(arguments.number(0));
    let heap = host.heap;
    let mut rng = SmallRng::seed_from_u64(7);
    let mut books = books_for(BYTES / 500 + 10_000);
    let before = Memory::now();
    build(heap, 3, BYTES, &mut books);
    shrink(heap, &mut books);
    let kept = Memory::now().since(before).anonymous;
    thread::sleep(decay * 5);
    for _ in 0..3 {
        light_work(heap, &mut rng);
    }
    let left = Memory::now().since(before).anonymous;
    let bound = pages_of(&books) + ALLOWANCE;
    assert!(kept > 2 * bound, "{kept} bytes were resident before");
    assert!(
        left <= bound,
        "{left} bytes are resident, of {bound} allowed"
    );
    books.drain(..).for_each(|piece| piece.release(heap));
    host.check();
}

/// Runs that lose a block in each period, and so are never idle, give pages back all the same.
/// Arguments: whether their owner frees, or another thread while it sleeps, and the decay time in
/// milliseconds.
fn draining(host: &Host, arguments: &Arguments) {
    const BYTES: usize = 64 << 20;
    const SIZE: usize = 2048;
    /// Of so many blocks side by side, so many are left in the end.
    const BLOCKS: usize = 32;
    const LEFT: usize = 2;
    let by_owner = arguments.text(0) == "owner";
    let decay = Duration::from_millis(arguments.number(1));
    let heap = host.heap;
    let before = Memory::now();
    let build = move |mut books: Vec<Piece>| {
        books.extend((0..BYTES / SIZE).map(|_| Piece::new(heap, SIZE)));
        books
    };
    let books = books_for(BYTES / SIZE);
    let (wake, woken) = channel::<()>();
    let (mut books, owner) = if by_owner {
        (build(books), None)
    } else {
        let (send, receive) = channel();
        let owner = thread::spawn(move || {
            send.send(build(books)).expect("main listens");
            woken.recv().expect_err("main drops the other end");
        });
        (receive.recv().expect("the thread sends"), Some(owner))
    };
    books.sort_unstable_by_key(|piece| piece.address);
    let mut rng = SmallRng::seed_from_u64(8);
    for place in (LEFT..BLOCKS).rev() {
        if place < BLOCKS / 4 {
            light_work(heap, &mut rng);
            thread::sleep(decay / 8);
        }
        let of_each_group = books.iter().skip(place).step_by(BLOCKS);
        of_each_group.for_each(|piece| piece.release(heap));
    }
    let resident = Memory::now().since(before).anonymous;
    assert!(
        resident < BYTES as u64 * 2 / 3,
        "{resident} bytes are resident of {BYTES}"
    );
    for place in 0..LEFT {
        let of_each_group = books.iter().skip(place).step_by(BLOCKS);
        of_each_group.for_each(|piece| piece.release(heap));
    }
    drop(wake);
    if let Some(owner) = owner {
        owner.join().unwrap_or_else(|panic| resume_unwind(panic));
    }
    host.check();
}

/// A program that does a little: half a MiB at a time.
fn light_work(heap: &'static Heap, rng: &mut SmallRng) {
    let powers = [(100, 4.0, 11.0), (4, 12.0, 16.0), (1, 18.1, 18.5)];
    for (count, low, high) in powers {
        let sizes = (0..count).map(|_| 2_f64.powf(rng.random_range(low..high)) as usize);
        let blocks: Vec<_> = sizes
            .map(|size| Filled::new(heap, layout(size, 8)))
            .collect();
        assert!(blocks.iter().all(Option::is_some), "memory can be had");
    }
}

fn light_work_until(heap: &'static Heap, seed: u64, end: impl Fn() -> bool) {
    let mut rng = SmallRng::seed_from_u64(seed);
    while !end() {
        light_work(heap, &mut rng);
        thread::sleep(Duration::from_millis(5));
    }
}

/// Bytes of the pages that the pieces touch.
fn pages_of(pieces: &[Piece]) -> u64 {
    let mut pages: Vec<usize> = pieces.iter().flat_map(Piece::pages).collect();
    pages.sort_unstable();
    pages.dedup();
    (pages.len() * PAGE) as u64
}

/// A thread that does nothing but give large blocks back, one after the other over four decay times:
/// those of the first two are gone in the end, but for what it keeps for its next request.
fn only_frees_large(host: &Host, arguments: &Arguments) {
    const BLOCKS: u64 = 64;
    const SIZE: u64 = 1 << 20;
    const KEPT: u64 = 8 << 20;
    let decay = Duration::from_millis(arguments.number(0));
    let pieces: Vec<_> = (0..BLOCKS)
        .map(|_| Piece::new(host.heap, SIZE as usize))
        .collect();
    let full = Memory::now();
    for piece in pieces {
        piece.release(host.heap);
        thread::sleep(decay / (BLOCKS as u32 / 4));
    }
    let gone = full.resident.saturating_sub(Memory::now().resident);
    println!("{} KiB of {} went back", gone >> 10, (BLOCKS * SIZE) >> 10);
    assert!(gone >= BLOCKS / 2 * SIZE - KEPT, "{gone} bytes");
}
