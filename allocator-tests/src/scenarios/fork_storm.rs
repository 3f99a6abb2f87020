//! Many forks of a program in which 64 threads allocate and free: by those threads, and by a signal
//! handler that interrupts them, in the allocator or elsewhere.

use std::cell::Cell;
use std::mem::take;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Barrier, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, alarm, fork};

use super::threads::some_blocks;
use super::{Arguments, Host, Run};
use crate::blocks::{Filled, Heap};
use crate::flagged::{Flagged, is_inside};
use crate::process::{Child, Fate, PATIENCE_WITH_CHILD};
use crate::shadow::Shadow;
use crate::sizes::Mix;
use crate::stress::Generator;

pub(super) const ALL: &[(&str, Run)] = &[("fork_storm", storm)];

const THREADS: usize = 64;
/// Forks and children at a time; the other threads go on.
const FORKING_AT_ONCE: usize = 4;
/// One fork in so many is made while no thread is inside the allocator, and its child checks it.
const QUIET_IN: u64 = 32;
/// One child in so many starts threads of its own and forks.
const LARGE_IN: u64 = 16;
/// Between two bursts of a thread: without it those that fork would seldom have a processor.
const PAUSE: Duration = Duration::from_millis(5);
const SIGNAL: Signal = Signal::SIGUSR1;
/// Children of handlers that nobody has waited for yet.
const PENDING: usize = 64;

/// Held by whoever is inside the allocator, shared, or whoever wants nobody to be.
static GATE: RwLock<()> = RwLock::new(());
static FORKING: AtomicUsize = AtomicUsize::new(0);
static NEXT: AtomicU64 = AtomicU64::new(0);
static CHECKED: AtomicU64 = AtomicU64::new(0);
static DONE: AtomicBool = AtomicBool::new(false);
/// Set in the child of a handler: the thread comes to its end at its next step.
static IS_CHILD: AtomicBool = AtomicBool::new(false);
static IN_HANDLER: AtomicU64 = AtomicU64::new(0);
static IN_ALLOCATOR: AtomicU64 = AtomicU64::new(0);
static CHILDREN: [AtomicI32; PENDING] = [const { AtomicI32::new(0) }; PENDING];
/// By thread: whether it allocates and frees, and waits for nobody but the allocator.
static AT_WORK: [AtomicBool; THREADS + 1] = [const { AtomicBool::new(false) }; THREADS + 1];
static IDENTITIES: [AtomicU64; THREADS] = [const { AtomicU64::new(0) }; THREADS];

thread_local! {
    /// The thread's number; none of the others has one.
    static NUMBER: Cell<usize> = const { Cell::new(THREADS) };
    /// The thread has gone on since its handler forked. A fork takes longer than the next signal: where
    /// few threads are at work they would do nothing but fork in the same place.
    static HAS_GONE_ON: Cell<bool> = const { Cell::new(true) };
}

/// Random steps under the shadow; a child of a handler that interrupted them ends here.
fn steps(heap: &'static Heap, seed: u64, count: u64) {
    let mut generator = Generator::new(seed, Mix::PROGRAM, 40);
    let heap = Flagged(heap);
    let mut shadow = Shadow::new(&heap, seed, Vec::new());
    AT_WORK[NUMBER.get()].store(true, Ordering::Relaxed);
    for _ in 0..count {
        let step = generator.next(shadow.len());
        let had = step
            .apply(&mut shadow)
            .unwrap_or_else(|fault| panic!("{fault}"));
        assert!(had, "memory can be had: {:?}", bursar::last_failure());
        HAS_GONE_ON.set(true);
        if IS_CHILD.load(Ordering::Relaxed) {
            break;
        }
    }
    shadow.clear().unwrap_or_else(|fault| panic!("{fault}"));
    AT_WORK[NUMBER.get()].store(false, Ordering::Relaxed);
    if IS_CHILD.swap(false, Ordering::Relaxed) {
        steps(heap.0, seed + 1, 200);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(0) };
    }
}

/// What a child does: allocates and frees, frees blocks of threads that it does not have, and, if it
/// is a large one, has threads and a child of its own.
fn childhood(heap: &'static Heap, theirs: Vec<Filled>, number: u64) {
    steps(heap, number, 100);
    drop(theirs);
    if number.is_multiple_of(LARGE_IN) {
        bursar::purge();
        let threads = [1, 2].map(|i| thread::spawn(move || steps(heap, number + i, 100)));
        for thread in threads {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
        let fate = Child::start(|| steps(heap, number + 3, 100)).wait();
        assert_eq!(fate, Fate::Fine, "the grandchild");
    }
}

/// Forks by number; the handler's signal waits meanwhile, since the C library's own lock around a
/// fork does not know its owner.
fn fork_by_number(heap: &'static Heap, theirs: &mut Vec<Filled>, number: u64) {
    let mut signal = SigSet::empty();
    signal.add(SIGNAL);
    signal.thread_block().expect("a signal can be blocked");
    let child = if number.is_multiple_of(QUIET_IN) {
        let _alone = GATE.write();
        CHECKED.fetch_add(1, Ordering::Relaxed);
        Child::start(|| {
            bursar::check().unwrap_or_else(|broken| panic!("after the fork: {broken}"));
            childhood(heap, take(theirs), number);
            bursar::check().unwrap_or_else(|broken| panic!("after its work: {broken}"));
        })
    } else {
        Child::start(|| childhood(heap, take(theirs), number))
    };
    signal.thread_unblock().expect("a signal can be unblocked");
    assert_eq!(child.wait(), Fate::Fine, "child {number}");
}

/// Whether there may be one fork more; if so, it is counted.
fn may_fork() -> bool {
    let more = |forking: usize| (forking < FORKING_AT_ONCE).then_some(forking + 1);
    FORKING
        .try_update(Ordering::Relaxed, Ordering::Relaxed, more)
        .is_ok()
}

/// One thread: works, and forks whenever few others do.
fn thread_of(heap: &'static Heap, theirs: &mut Vec<Filled>, seed: u64, forks: u64) {
    let mut round = 0;
    while !DONE.load(Ordering::Relaxed) {
        {
            let _inside = GATE.read();
            steps(heap, seed + round, 100);
        }
        round += THREADS as u64;
        if !may_fork() {
            thread::sleep(PAUSE);
            continue;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        if number < forks {
            fork_by_number(heap, theirs, number);
        } else {
            DONE.store(true, Ordering::Relaxed);
        }
        FORKING.fetch_sub(1, Ordering::Relaxed);
    }
}

extern "C" fn fork_now(_: libc::c_int) {
    let may = AT_WORK[NUMBER.get()].load(Ordering::Relaxed) && HAS_GONE_ON.get();
    if !may || !may_fork() {
        return;
    }
    HAS_GONE_ON.set(false);
    let Some(place) = CHILDREN.iter().find(|place| {
        place
            .compare_exchange(0, -1, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }) else {
        return;
    };
    // SAFETY: what the child does is the subject of the test.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            alarm::set(PATIENCE_WITH_CHILD);
            IS_CHILD.store(true, Ordering::Relaxed);
        }
        Ok(ForkResult::Parent { child }) => {
            IN_HANDLER.fetch_add(1, Ordering::Relaxed);
            IN_ALLOCATOR.fetch_add(u64::from(is_inside()), Ordering::Relaxed);
            place.store(child.as_raw(), Ordering::Relaxed);
        }
        Err(_) => place.store(0, Ordering::Relaxed),
    }
    FORKING.fetch_sub(1, Ordering::Relaxed);
}

/// Ends the process, whose threads would wait for each other.
fn fail(text: &str) -> ! {
    eprintln!("{text}");
    // SAFETY: no preconditions.
    unsafe { libc::_exit(101) }
}

/// Waits for the children of handlers that have ended, or for all.
fn reap(wait_for_all: bool) {
    for place in &CHILDREN {
        let child = place.load(Ordering::Relaxed);
        if child <= 0 {
            continue;
        }
        let flags = (!wait_for_all).then_some(nix::sys::wait::WaitPidFlag::WNOHANG);
        match waitpid(Pid::from_raw(child), flags).expect("it is our child") {
            WaitStatus::StillAlive => {}
            WaitStatus::Exited(_, 0) => place.store(0, Ordering::Relaxed),
            other => fail(&format!("a child of a handler: {other:?}")),
        }
    }
}

fn handle_signal() {
    let handler = SigHandler::Handler(fork_now);
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler forks, and what else it calls may be called in one.
    unsafe { sigaction(SIGNAL, &action) }.expect("a handler can be set");
}

/// Arguments: forks by the threads; microseconds between forks in handlers; a seed.
fn storm(host: &Host, arguments: &Arguments) {
    let (forks, pause, seed) = (
        arguments.number(0),
        Duration::from_micros(arguments.number(1)),
        arguments.number(2) * 1_000_003,
    );
    handle_signal();
    let heap = host.heap;
    let ready = Barrier::new(THREADS + 1);
    let begun = Instant::now();
    thread::scope(|scope| {
        let start = |number: u64| {
            // Made by main, so another thread's to each.
            let mut theirs = some_blocks(heap, number, 10);
            let ready = &ready;
            scope.spawn(move || {
                // SAFETY: no preconditions.
                let me = unsafe { libc::pthread_self() };
                NUMBER.set(number as usize);
                IDENTITIES[number as usize].store(me, Ordering::Relaxed);
                ready.wait();
                let work = || thread_of(heap, &mut theirs, seed + number, forks);
                if catch_unwind(AssertUnwindSafe(work)).is_err() {
                    fail("a thread panicked");
                }
                // No signal comes to a thread that is about to end.
                ready.wait();
                ready.wait();
            })
        };
        let threads: Vec<_> = (0..THREADS as u64).map(start).collect();
        ready.wait();
        let mut next = 0;
        while !DONE.load(Ordering::Relaxed) {
            let mut places = (next..next + THREADS).map(|place| place % THREADS);
            if let Some(place) = places.find(|&place| AT_WORK[place].load(Ordering::Relaxed)) {
                let thread = IDENTITIES[place].load(Ordering::Relaxed);
                // SAFETY: the thread has not ended: it waits for the barrier first.
                unsafe { libc::pthread_kill(thread, SIGNAL as libc::c_int) };
                next = place + 7;
            }
            thread::sleep(pause);
            reap(false);
        }
        ready.wait();
        reap(true);
        ready.wait();
        // A scope waits for what threads do, not for what is done as they end.
        for thread in threads {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
    let [in_handler, inside, checked] =
        [&IN_HANDLER, &IN_ALLOCATOR, &CHECKED].map(|count| count.load(Ordering::Relaxed));
    println!(
        "{forks} forks by {THREADS} threads, {checked} children of which checked; {in_handler} forks in handlers, {inside} of which interrupted a call of the allocator; {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    assert!(checked > 0 && in_handler > 0 && inside > 0);
    host.check();
}
