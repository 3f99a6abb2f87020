//! Before `main`, and after a thread or the program is as good as gone.

use std::cell::RefCell;
use std::mem::take;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::thread;

use libc::{c_void, pthread_key_t};

use super::threads::some_blocks;
use super::{Arguments, Host, Run, scaled};
use crate::blocks::{Filled, Heap, layout};

pub(super) const ALL: &[(&str, Run)] = &[
    ("before_main", before_main),
    ("thread_teardown", thread_teardown),
    ("at_exit", at_exit),
    ("exit_amid_threads", exit_amid_threads),
];

/// Blocks that outlive whoever allocated them.
static LEFT: Mutex<Vec<Filled>> = Mutex::new(Vec::new());
static HEAP: OnceLock<&'static Heap> = OnceLock::new();

fn left() -> MutexGuard<'static, Vec<Filled>> {
    LEFT.lock().expect("nothing panics with the lock")
}

/// To be called by a program's `.init_array` section, before the standard
/// library is set up: makes thread keys that precede any of bursar's own, then
/// allocates.
pub fn early(heap: &'static Heap) {
    HEAP.set(heap).unwrap_or_else(|_| panic!("called once"));
    for key in &EARLY_KEYS {
        make_key(key);
    }
    // Under a tight limit there may be nothing to have; that is not at issue.
    let sizes = (1..=64).map(|i| i * 64).chain([100_000, 3 << 20]);
    let mut left = left();
    left.extend(sizes.filter_map(|size| Filled::new(heap, layout(size, 16))));
}

fn before_main(host: &Host, _: &Arguments) {
    let mut blocks = take(&mut *left());
    assert_eq!(blocks.len(), 66, "all were allocated");
    blocks.iter().for_each(Filled::verify);
    let rest = blocks.split_off(33);
    thread::spawn(move || drop(rest))
        .join()
        .unwrap_or_else(|panic| resume_unwind(panic));
    drop(blocks);
    host.check();
}

const EARLY_COUNT: usize = 3;
const LATE_COUNT: usize = 3;
/// Destructors of thread keys run in this many rounds at most.
const ROUNDS: u32 = 4;

static EARLY_KEYS: [AtomicU32; EARLY_COUNT] = [const { AtomicU32::new(0) }; EARLY_COUNT];
static LATE_KEYS: [AtomicU32; LATE_COUNT] = [const { AtomicU32::new(0) }; LATE_COUNT];
static DESTRUCTORS_RUN: AtomicUsize = AtomicUsize::new(0);

/// What a thread key holds: which key, the round, and what the last round left.
struct Held {
    key: pthread_key_t,
    round: u32,
    blocks: Vec<Filled>,
}

fn make_key(place: &AtomicU32) {
    let mut key: pthread_key_t = 0;
    // SAFETY: `key` is valid for writes and the destructor takes what
    // `hold` stores.
    let failed = unsafe { libc::pthread_key_create(&raw mut key, Some(key_destructor)) };
    assert_eq!(failed, 0, "there are keys");
    place.store(key, Ordering::Release);
}

fn hold(held: Held) {
    let key = held.key;
    let pointer = Box::into_raw(Box::new(held)).cast::<c_void>();
    // SAFETY: the key was created, and its value is freed by its destructor.
    let failed = unsafe { libc::pthread_setspecific(key, pointer) };
    assert_eq!(failed, 0, "the key can be set");
}

/// Frees what the round before left, allocates for the next, and asks for that
/// round; the last one leaves its blocks to main.
extern "C" fn key_destructor(held: *mut c_void) {
    DESTRUCTORS_RUN.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the value was stored by `hold` and is handed over here.
    let Held { key, round, blocks } = *unsafe { Box::from_raw(held.cast::<Held>()) };
    drop(blocks);
    let heap = HEAP.get().expect("set before main");
    let blocks = some_blocks(*heap, u64::from(key * ROUNDS + round), 30);
    if round + 1 < ROUNDS {
        hold(Held {
            key,
            round: round + 1,
            blocks,
        });
    } else {
        left().extend(blocks);
    }
}

/// A Rust thread-local that allocates and frees when it is dropped.
struct Late(RefCell<Vec<Filled>>);

impl Drop for Late {
    fn drop(&mut self) {
        DESTRUCTORS_RUN.fetch_add(1, Ordering::Relaxed);
        let mut mine = self.0.take();
        let keep = mine.split_off(mine.len() / 2);
        drop(mine);
        let heap = HEAP.get().expect("set before main");
        drop(some_blocks(*heap, 7, 30));
        left().extend(keep);
    }
}

thread_local! {
    static LATE: Late = const { Late(RefCell::new(Vec::new())) };
}

/// Threads whose thread-local destructors allocate and free in all rounds:
/// after bursar's own have run, in each order of creation. The same blocks come
/// again every twenty threads, so address space in use must not grow.
fn thread_teardown(host: &Host, _: &Arguments) {
    LATE_KEYS.iter().for_each(make_key);
    let heap = host.heap;
    let threads = scaled(400, 60);
    let mut committed = 0;
    for number in 0..threads {
        let thread = thread::spawn(move || {
            LATE.with(|late| late.0.replace(some_blocks(heap, number % 20, 40)));
            for key in EARLY_KEYS.iter().chain(&LATE_KEYS) {
                let key = key.load(Ordering::Acquire);
                hold(Held {
                    key,
                    round: 0,
                    blocks: some_blocks(heap, number % 20 + 1, 40),
                });
            }
        });
        thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        left().iter().for_each(Filled::verify);
        left().clear();
        if number == threads / 2 {
            committed = bursar::stats().mapped_bytes;
        }
    }
    let each = (EARLY_COUNT + LATE_COUNT) * ROUNDS as usize + 1;
    assert_eq!(
        DESTRUCTORS_RUN.load(Ordering::Relaxed),
        threads as usize * each
    );
    host.check();
    let after = bursar::stats().mapped_bytes;
    println!("{committed} bytes are mapped after half of the threads, {after} after all");
    assert!(
        after <= committed + (8 << 20),
        "mapped grew from {committed} to {after}"
    );
}

/// Says something without the standard library's buffers and locks.
fn say(text: &str) {
    // SAFETY: the text is valid for reads of its length.
    let written = unsafe { libc::write(1, text.as_ptr().cast(), text.len()) };
    assert_eq!(written.unsigned_abs(), text.len());
}

extern "C" fn exit_handler() {
    let blocks = take(&mut *left());
    let count = blocks.len();
    let heap = HEAP.get().expect("set before main");
    let more = some_blocks(*heap, 3, 200);
    drop(blocks);
    // What lives is left to the kernel.
    left().extend(more);
    let thread = thread::spawn(|| some_blocks(*HEAP.get().expect("set before main"), 4, 200).len());
    let made = thread.join().unwrap_or(0);
    say(&format!("at exit: freed {count}, a thread made {made}\n"));
}

fn register() {
    // SAFETY: the handler is a plain function that lives as long as the program.
    assert_eq!(unsafe { libc::atexit(exit_handler) }, 0);
}

/// Allocates and frees in an exit handler, after main's thread-locals are gone.
fn at_exit(host: &Host, _: &Arguments) {
    register();
    LATE.with(|late| late.0.replace(some_blocks(host.heap, 1, 50)));
    left().extend(some_blocks(host.heap, 2, 50));
}

/// The program exits while other threads allocate and free.
fn exit_amid_threads(host: &Host, _: &Arguments) {
    static RUNNING: AtomicBool = AtomicBool::new(false);
    let heap = host.heap;
    for seed in 0..4 {
        thread::spawn(move || {
            loop {
                drop(some_blocks(heap, seed, 200));
                RUNNING.store(true, Ordering::Release);
            }
        });
    }
    while !RUNNING.load(Ordering::Acquire) {
        thread::yield_now();
    }
    register();
}
