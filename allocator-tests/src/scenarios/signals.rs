//! A storm of signals whose handlers allocate and free. That is permitted where they interrupt code
//! outside the allocator, which the threads tell by a flag around each of its calls.

use std::alloc::Layout;
use std::cell::{Cell, UnsafeCell};
use std::panic::resume_unwind;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering, compiler_fence};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::{Arguments, Host, Run};
use crate::blocks::{Heap, layout};
use crate::flagged::{self, Flagged, inside};
use crate::pattern::Pattern;
use crate::shadow::{Shadow, at_rest};
use crate::sizes::Mix;
use crate::stress::Generator;

pub(super) const ALL: &[(&str, Run)] = &[("signal_storm", storm)];

const THREADS: u64 = 4;
const SIGNAL: Signal = Signal::SIGUSR1;
/// Blocks that the handlers of one thread keep.
const KEPT: usize = 48;
/// Blocks that any thread's handler leaves for any other's.
const LEFT: usize = 64;

thread_local! {
    static KEEPER: Keeper = const { Keeper::new() };
}

static STRUCK: AtomicU64 = AtomicU64::new(0);
static HELD_BACK: AtomicU64 = AtomicU64::new(0);
static HANDLED: AtomicU64 = AtomicU64::new(0);
static CORRUPT: AtomicU64 = AtomicU64::new(0);
static NULLS: AtomicU64 = AtomicU64::new(0);
static LEFT_BLOCKS: [AtomicPtr<u8>; LEFT] = [const { AtomicPtr::new(null_mut()) }; LEFT];

/// A block of a handler; its place tells the layout.
#[derive(Clone, Copy)]
struct Kept {
    address: NonNull<u8>,
    pattern: Pattern,
}

/// What the handlers of one thread hold, and from whom.
struct Keeper {
    heap: Cell<Option<&'static Heap>>,
    draws: Cell<u64>,
    kept: UnsafeCell<[Option<Kept>; KEPT]>,
}

fn layout_at(place: usize) -> Layout {
    // Small ones mostly, and one of each larger category.
    let size = match place % 16 {
        15 => 3 << 20,
        14 => 300_000,
        13 => 20_000,
        small => 8 << (small % 9),
    };
    layout(size, 8)
}

fn allocate(heap: &Heap, layout: Layout) -> Option<Kept> {
    HANDLED.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the size is not zero.
    let Some(address) = NonNull::new(unsafe { heap.alloc(layout) }) else {
        NULLS.fetch_add(1, Ordering::Relaxed);
        return None;
    };
    let pattern = Pattern::new(address.as_ptr(), 0);
    // SAFETY: just allocated with this layout.
    unsafe { pattern.fill(address.as_ptr(), layout.size()) };
    Some(Kept { address, pattern })
}

fn free(heap: &Heap, block: Kept, layout: Layout) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
    // SAFETY: filled when it was allocated with this layout, and freed once.
    unsafe {
        let found = block
            .pattern
            .verify(block.address.as_ptr(), layout.size(), layout.size());
        CORRUPT.fetch_add(u64::from(found.is_err()), Ordering::Relaxed);
        heap.dealloc(block.address.as_ptr(), layout);
    }
}

impl Keeper {
    const fn new() -> Self {
        Self {
            heap: Cell::new(None),
            draws: Cell::new(0x9e37_79b9_7f4a_7c15),
            kept: UnsafeCell::new([None; KEPT]),
        }
    }

    fn draw(&self, below: usize) -> usize {
        let mut state = self.draws.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.draws.set(state);
        (state >> 32) as usize % below
    }

    /// What a handler does: frees a block of its thread or makes one, some times over, and exchanges
    /// one with the handlers of other threads.
    fn strike(&self, heap: &Heap) {
        for _ in 0..4 {
            let place = self.draw(KEPT);
            // SAFETY: only handlers of this thread, which do not interrupt each other, or the thread
            // when it has no handler any more.
            let kept = unsafe { &mut (*self.kept.get())[place] };
            *kept = match kept.take() {
                Some(block) => {
                    free(heap, block, layout_at(place));
                    None
                }
                None => allocate(heap, layout_at(place)),
            };
        }
        let place = self.draw(LEFT);
        let mine = allocate(heap, layout_at(place));
        let address = mine.map_or(null_mut(), |block| block.address.as_ptr());
        // Release, and Acquire by whoever takes it: its contents go with it.
        take_left(heap, place, address);
    }

    fn clear(&self, heap: &Heap) {
        for place in 0..KEPT {
            // SAFETY: as above.
            if let Some(block) = unsafe { (*self.kept.get())[place].take() } {
                free(heap, block, layout_at(place));
            }
        }
    }
}

/// Leaves a block at a place, and frees what lies there.
fn take_left(heap: &Heap, place: usize, address: *mut u8) {
    let theirs = LEFT_BLOCKS[place].swap(address, Ordering::AcqRel);
    if let Some(address) = NonNull::new(theirs) {
        let pattern = Pattern::new(theirs, 0);
        free(heap, Kept { address, pattern }, layout_at(place));
    }
}

extern "C" fn strike(_: libc::c_int) {
    // SAFETY: every thread has its errno.
    let errno = unsafe { *libc::__errno_location() };
    KEEPER.with(|keeper| match keeper.heap.get() {
        Some(heap) if !flagged::is_inside() => {
            STRUCK.fetch_add(1, Ordering::Relaxed);
            keeper.strike(heap);
        }
        _ => {
            HELD_BACK.fetch_add(1, Ordering::Relaxed);
        }
    });
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// A signal to this thread every millisecond, until it is dropped.
struct Timer(libc::timer_t);

impl Timer {
    fn start() -> Self {
        // SAFETY: valid values, and valid places for the results.
        unsafe {
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = SIGNAL as libc::c_int;
            event.sigev_notify_thread_id = libc::gettid();
            let mut timer = null_mut();
            let made = libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer);
            assert_eq!(made, 0, "there are timers");
            let every = libc::timespec {
                tv_sec: 0,
                tv_nsec: 1_000_000,
            };
            let period = libc::itimerspec {
                it_interval: every,
                it_value: every,
            };
            let set = libc::timer_settime(timer, 0, &period, null_mut());
            assert_eq!(set, 0, "it can be set");
            Self(timer)
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: made by `start`.
        unsafe { libc::timer_delete(self.0) };
    }
}

fn worker(heap: &'static Heap, seed: u64, until: Instant) -> u64 {
    let flagged = Flagged(heap);
    let mut shadow = Shadow::new(&flagged, seed, Vec::new());
    let mut generator = Generator::new(seed, Mix::PROGRAM, 500);
    KEEPER.with(|keeper| keeper.heap.set(Some(heap)));
    let timer = Timer::start();
    let mut steps = 0;
    while Instant::now() < until {
        for _ in 0..200 {
            let had = generator.next(shadow.len()).apply(&mut shadow);
            let had = had.unwrap_or_else(|fault| panic!("{fault}"));
            assert!(had, "memory can be had: {:?}", bursar::last_failure());
        }
        steps += 200;
        if steps % 20_000 == 0 {
            inside(bursar::purge);
        }
    }
    drop(timer);
    // What is on its way still finds no allocator.
    KEEPER.with(|keeper| {
        keeper.heap.set(None);
        compiler_fence(Ordering::SeqCst);
        keeper.clear(heap);
    });
    shadow.clear().unwrap_or_else(|fault| panic!("{fault}"));
    steps
}

/// Argument: seconds. bursar is not installed here, so that every call of it is the threads' own.
fn storm(host: &Host, arguments: &Arguments) {
    let time = Duration::from_secs(arguments.number(0));
    let handler = SigHandler::Handler(strike);
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: what the handler may do is the subject of the test.
    unsafe { sigaction(SIGNAL, &action) }.expect("a handler can be set");
    let (heap, until) = (host.heap, Instant::now() + time);
    let threads: Vec<_> = (0..THREADS)
        .map(|seed| thread::spawn(move || worker(heap, seed, until)))
        .collect();
    let steps: u64 = threads
        .into_iter()
        .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
        .sum();
    (0..LEFT).for_each(|place| take_left(heap, place, null_mut()));
    let [struck, held_back, handled, corrupt, nulls] =
        [&STRUCK, &HELD_BACK, &HANDLED, &CORRUPT, &NULLS]
            .map(|count| count.load(Ordering::Relaxed));
    println!(
        "{steps} steps in {THREADS} threads; {struck} handlers made {handled} calls, {held_back} came amid a call"
    );
    assert_eq!(
        (corrupt, nulls),
        (0, 0),
        "blocks of handlers that were not whole, or not there"
    );
    // The machine may be busy with other things, but not that busy.
    assert!(
        struck > 20 * time.as_secs() && held_back > 0,
        "too few signals"
    );
    let books = host
        .books
        .expect("a program in which bursar is not installed");
    at_rest(&[], books).unwrap_or_else(|fault| panic!("{fault}"));
}
