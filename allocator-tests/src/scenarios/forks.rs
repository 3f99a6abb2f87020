//! fork in programs with many threads.

use std::mem::take;
use std::panic::resume_unwind;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};

use super::threads::some_blocks;
use super::{Arguments, Host, Run, scaled};
use crate::blocks::{Filled, Heap, layout};
use crate::process::{Fate, in_child};
use crate::shadow::Shadow;
use crate::sizes::Mix;
use crate::stress::Generator;

pub(super) const ALL: &[(&str, Run)] = &[
    ("fork_busy", fork_busy),
    ("fork_quiet", fork_quiet),
    ("fork_in_handler", fork_in_handler),
    ("fork_in_fork", fork_in_fork),
];

/// Threads that work while main forks.
const BUSY: u64 = 4;

/// Random steps under the shadow, with everything freed at the end.
fn work(heap: &'static Heap, seed: u64, steps: u64) {
    let mut generator = Generator::new(seed, Mix::PROGRAM, 2_000);
    let mut shadow = Shadow::new(heap, seed, Vec::new());
    for _ in 0..steps {
        let step = generator.next(shadow.len());
        let had = step
            .apply(&mut shadow)
            .unwrap_or_else(|fault| panic!("{fault}"));
        assert!(had, "memory can be had: {:?}", bursar::last_failure());
    }
    shadow.clear().unwrap_or_else(|fault| panic!("{fault}"));
}

/// What a child does at once: allocates and frees, frees blocks of threads
/// that it does not have, purges, starts threads of its own, and forks.
fn childhood(heap: &'static Heap, inherited: Vec<Filled>, seed: u64) {
    work(heap, seed, 2_000);
    drop(inherited);
    bursar::purge();
    let threads = [1, 2].map(|i| thread::spawn(move || work(heap, seed + i, 1_000)));
    let left = thread::spawn(move || some_blocks(heap, seed, 300)).join();
    drop(left.unwrap_or_else(|panic| resume_unwind(panic)));
    for thread in threads {
        thread.join().unwrap_or_else(|panic| resume_unwind(panic));
    }
    let fate = in_child(|| work(heap, seed + 3, 500));
    assert_eq!(fate, Fate::Fine, "the grandchild");
}

/// All other threads allocate and free without pause; main forks.
fn fork_busy(host: &Host, _: &Arguments) {
    static DONE: AtomicBool = AtomicBool::new(false);
    let heap = host.heap;
    let (send, receive) = channel();
    let threads: Vec<_> = (0..BUSY)
        .map(|number| {
            let send = send.clone();
            thread::spawn(move || {
                send.send(some_blocks(heap, number, 300))
                    .expect("main listens");
                let mut seed = number;
                while !DONE.load(Ordering::Relaxed) {
                    work(heap, seed, 1_000);
                    seed += BUSY;
                }
            })
        })
        .collect();
    let mut theirs: Vec<Filled> = (0..BUSY)
        .flat_map(|_| receive.recv().expect("they send"))
        .collect();
    for seed in 0..scaled(150, 40) {
        let fate = in_child(|| childhood(heap, take(&mut theirs), seed));
        assert_eq!(fate, Fate::Fine, "child {seed}");
    }
    DONE.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap_or_else(|panic| resume_unwind(panic));
    }
    drop(theirs);
    host.check();
}

/// Arenas of threads that a fork left behind may be in the middle of something: as many threads as
/// there are arenas to take up, and one more, make at least one.
fn vanished_threads_keep_their_arenas(heap: &'static Heap, orphans: usize) {
    let before = bursar::stats().arenas().len();
    let together = Barrier::new(orphans + 1);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..=orphans as u64)
            .map(|seed| {
                let together = &together;
                scope.spawn(move || {
                    work(heap, seed, 10);
                    together.wait();
                })
            })
            .collect();
        // The scope's end waits for what they do, but not for their end.
        for thread in threads {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
    assert!(bursar::stats().arenas().len() > before, "none was made");
}

/// All other threads rest with live blocks; the child's structures must then
/// be whole, before and after it frees everything.
fn fork_quiet(host: &Host, _: &Arguments) {
    let heap = host.heap;
    let rest = Barrier::new(5);
    let (send, receive) = channel();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let (send, rest) = (send.clone(), &rest);
                scope.spawn(move || {
                    work(heap, number, 5_000);
                    send.send(some_blocks(heap, number, 2_000))
                        .expect("main listens");
                    rest.wait();
                    rest.wait();
                })
            })
            .collect();
        drop(send);
        let mut theirs: Vec<Filled> = (0..4)
            .flat_map(|_| receive.recv().expect("they send"))
            .collect();
        rest.wait();
        let stats = bursar::stats();
        let orphans = stats.arenas().iter().filter(|arena| !arena.in_use).count();
        for seed in 0..scaled(50, 10) {
            let fate = in_child(|| {
                vanished_threads_keep_their_arenas(heap, orphans);
                bursar::check().unwrap_or_else(|broken| panic!("after the fork: {broken}"));
                childhood(heap, take(&mut theirs), seed);
                bursar::check().unwrap_or_else(|broken| panic!("after the child's work: {broken}"));
            });
            assert_eq!(fate, Fate::Fine, "child {seed}");
        }
        rest.wait();
        // The scope's end waits for what they do, but not for their end.
        for thread in threads {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
    host.check();
}

static FORKS: AtomicU32 = AtomicU32::new(0);
static FAILED: AtomicU32 = AtomicU32::new(0);

extern "C" fn fork_now(_: libc::c_int) {
    // SAFETY: fork may be called in a handler; the child does nothing.
    match unsafe { fork() } {
        // SAFETY: ends the child at once.
        Ok(ForkResult::Child) => unsafe { libc::_exit(0) },
        Ok(ForkResult::Parent { child }) => {
            FORKS.fetch_add(1, Ordering::Relaxed);
            let ended = waitpid(child, None).is_ok();
            FAILED.fetch_add(u32::from(!ended), Ordering::Relaxed);
        }
        Err(_) => {
            FAILED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Forks in a signal handler that interrupts the allocator: a lock taken
/// around the fork may be held by the very thread that forks. The other
/// threads compete for the same locks and never see the signal.
fn fork_in_handler(host: &Host, _: &Arguments) {
    use nix::sys::signal::{SigSet, Signal};
    let heap = host.heap;
    let mut signal = SigSet::empty();
    signal.add(Signal::SIGPROF);
    signal.thread_block().expect("a signal can be blocked");
    for _ in 0..2 {
        thread::spawn(move || {
            loop {
                slow_paths(heap);
            }
        });
    }
    signal.thread_unblock().expect("a signal can be unblocked");
    forking_every(Duration::from_millis(2), || slow_paths(heap));
}

/// Forks in a signal handler that interrupts a fork, before, between and after
/// the hooks. Alone: the C library's own lock would stop several threads.
fn fork_in_fork(host: &Host, _: &Arguments) {
    let heap = host.heap;
    forking_every(Duration::from_millis(1), || {
        for _ in 0..20 {
            // SAFETY: the child does nothing.
            match unsafe { fork() }.expect("the process forks") {
                // SAFETY: ends the child at once.
                ForkResult::Child => unsafe { libc::_exit(0) },
                ForkResult::Parent { child } => waitpid(child, None).expect("it ends"),
            };
        }
        slow_paths(heap);
    });
    // What takes the locks that the hooks held.
    assert!(Filled::new(heap, layout(100 << 20, 8)).is_some());
    bursar::purge();
}

/// Runs `work` for some seconds, interrupted more than fifty times by a handler that forks.
fn forking_every(step: Duration, work: impl Fn()) {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    let time = Duration::from_secs(scaled(4, 2));
    let action = SigAction::new(
        SigHandler::Handler(fork_now),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    // SAFETY: the handler makes system calls only, apart from fork's hooks.
    unsafe { sigaction(Signal::SIGPROF, &action) }.expect("a handler can be set");
    let interval = libc::timeval {
        tv_sec: 0,
        tv_usec: step.as_micros() as libc::suseconds_t,
    };
    let timer = libc::itimerval {
        it_interval: interval,
        it_value: interval,
    };
    // SAFETY: both pointers are valid, or null where that is permitted.
    unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, std::ptr::null_mut()) };
    let start = Instant::now();
    // The timer counts the processor's time, of which there may be little.
    while start.elapsed() < time || FORKS.load(Ordering::Relaxed) <= 50 {
        work();
    }
    // SAFETY: as above; a zeroed timer is stopped.
    unsafe { libc::setitimer(libc::ITIMER_PROF, &std::mem::zeroed(), std::ptr::null_mut()) };
    assert_eq!(FAILED.load(Ordering::Relaxed), 0);
}

/// Large blocks and many small ones at a time take the locks that there are.
fn slow_paths(heap: &'static Heap) {
    let large = [300_000, 5 << 20, 1 << 20].map(|size| Filled::new(heap, layout(size, 4096)));
    let small: Vec<_> = (0..500)
        .map(|i| Filled::new(heap, layout(8 + i * 40, 8)))
        .collect();
    assert!(
        large.iter().chain(&small).all(Option::is_some),
        "memory can be had"
    );
}
