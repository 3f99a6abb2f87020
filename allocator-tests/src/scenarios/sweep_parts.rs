//! What a [sweep](super::sweep) runs while system calls fail.

use std::alloc::GlobalAlloc;
use std::ffi::CString;
use std::os::unix::net::UnixStream;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bursar::{Backing, Consumer, Mbuf, MbufError, MbufPools, Pool, PoolSpec};

use super::Host;
use super::accounts::on_threads;
use crate::blocks::{Heap, layout};
use crate::charges::held;
use crate::shadow::{Shadow, at_rest};
use crate::sizes::Mix;
use crate::stress::{self, Generator, Operation, Plan};

/// A short run that makes some kinds of calls.
pub(super) struct Part {
    /// As a case names it.
    pub(super) name: &'static str,
    /// `BURSAR_CONF`.
    pub(super) settings: &'static str,
    /// What is made before anything fails.
    prepare: fn(),
    run: fn(&Host, &Refusals),
}

/// Making a consumer ends the process where there is no memory for its records, as making a box
/// does: the parts have theirs before.
static CONSUMERS: OnceLock<Vec<Consumer>> = OnceLock::new();

fn make_consumers() {
    let parent = Consumer::new("parent");
    let children = (0..8).map(|n| parent.child(format!("{n}"))).collect();
    CONSUMERS.set(children).expect("once");
}

fn made_consumers() -> &'static [Consumer] {
    CONSUMERS.get().expect("made before")
}

/// Small regions, so that address space is reserved more than once; a short decay, so that much is
/// purged.
const SETTINGS: &str = "decay_ms=1,region=67108864";

pub(super) const PARTS: &[Part] = &[
    Part {
        name: "heap",
        settings: SETTINGS,
        prepare: || {},
        run: heap,
    },
    Part {
        name: "background",
        settings: "decay_ms=1,region=67108864,background,no_such_key",
        prepare: || {},
        run: threads,
    },
    Part {
        name: "consumers",
        settings: SETTINGS,
        prepare: make_consumers,
        run: consumers,
    },
    Part {
        name: "pools",
        settings: SETTINGS,
        prepare: make_consumers,
        run: pools,
    },
    Part {
        name: "messages",
        settings: SETTINGS,
        prepare: || {},
        run: messages,
    },
];

/// What could not be had, where that is an answer.
struct Refusals {
    allowed: bool,
    count: AtomicU64,
}

impl Refusals {
    fn note(&self, what: impl FnOnce() -> String) {
        assert!(self.allowed, "{}", what());
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn note_null(&self) {
        let reason = bursar::last_failure();
        assert!(reason.is_some(), "null without a reason");
        self.note(|| format!("null: {reason:?}"));
    }

    /// A result that may be an error.
    fn noted<T, E: std::fmt::Display>(&self, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.note(|| error.to_string())).ok()
    }
}

impl Part {
    /// To be called once, while everything can be had.
    pub(super) fn prepare(&self) {
        (self.prepare)();
    }

    /// Runs it where calls may fail; what could not be had.
    pub(super) fn may(&self, host: &Host) -> u64 {
        self.run(host, true)
    }

    /// Runs it where everything can be had.
    pub(super) fn must(&self, host: &Host) {
        self.run(host, false);
        let books = host
            .books
            .expect("a program in which bursar is not installed");
        at_rest(&[], books).unwrap_or_else(|fault| panic!("{}: {fault}", self.name));
    }

    fn run(&self, host: &Host, allowed: bool) -> u64 {
        let refusals = Refusals {
            allowed,
            count: AtomicU64::new(0),
        };
        (self.run)(host, &refusals);
        refusals.count.into_inner()
    }
}

fn apply<A: GlobalAlloc + ?Sized>(
    step: Operation,
    shadow: &mut Shadow<'_, A>,
    refusals: &Refusals,
) {
    let had = step
        .apply(shadow)
        .unwrap_or_else(|fault| panic!("{step:?}: {fault}"));
    if !had {
        refusals.note_null();
    }
}

fn finish<A: GlobalAlloc + ?Sized>(mut shadow: Shadow<'_, A>) {
    shadow.clear().unwrap_or_else(|fault| panic!("{fault}"));
}

/// One thread: all categories, growth in place and by moving, regions of their own.
fn heap(host: &Host, refusals: &Refusals) {
    let mut shadow = Shadow::new(host.heap, 1, Vec::new());
    let mut generator = Generator::new(2, Mix::EVEN, 150);
    for step in 0..500 {
        apply(generator.next(shadow.len()), &mut shadow, refusals);
        if step % 100 == 99 {
            bursar::purge();
        }
    }
    // Each of the large blocks fills most of a region, and the small ones keep others from growing
    // where they are.
    for size in [40 << 20, 3 << 20, 45 << 20, 2 << 20] {
        apply(
            Operation::Allocate(layout(size, 8), false),
            &mut shadow,
            refusals,
        );
        apply(
            Operation::Allocate(layout(1 << 20, 8), false),
            &mut shadow,
            refusals,
        );
        let place = shadow.len().wrapping_sub(1);
        apply(
            Operation::Allocate(layout(100_000, 8), false),
            &mut shadow,
            refusals,
        );
        apply(Operation::Reallocate(place, 5 << 20), &mut shadow, refusals);
        apply(
            Operation::Reallocate(place, 600 << 10),
            &mut shadow,
            refusals,
        );
        // Where the shrunken block's tail was, perhaps, of pages that were moved there.
        for _ in 0..3 {
            let step = Operation::Allocate(layout(1 << 20, 8), true);
            apply(step, &mut shadow, refusals);
        }
    }
    finish(shadow);
    bursar::purge();
}

/// Threads that come, go, and free what others allocated, under the shadow.
fn threads(host: &Host, refusals: &Refusals) {
    let plan = Plan {
        threads: 3,
        operations: 1_500,
        round: 1_500,
        life: 500,
        blocks: 60,
        bytes: 8 << 20,
        mix: Mix::EVEN,
        null_allowed: refusals.allowed,
        seed: 3,
        ..Plan::default()
    };
    let books = host
        .books
        .expect("a program in which bursar is not installed");
    let outcome = stress::run(host.heap, &plan, books, |_| {
        bursar::purge();
    });
    let outcome = outcome.unwrap_or_else(|fault| panic!("{fault}"));
    refusals.count.fetch_add(outcome.nulls, Ordering::Relaxed);
}

/// Scopes, hand-overs and limits in two threads; what is free of blocks is free of charges.
fn consumers(host: &Host, refusals: &Refusals) {
    let consumers = made_consumers();
    let heap: &Heap = host.heap;
    on_threads(2, |thread: u64| {
        let mut shadow = Shadow::new(heap, thread, Vec::new());
        let mut generator = Generator::new(thread, Mix::EVEN, 60);
        for step in 0..400 {
            let scope = consumers[step / 10 % 8].enter();
            apply(generator.next(shadow.len()), &mut shadow, refusals);
            drop(scope);
            if step % 5 == 0
                && let Some(block) = shadow.blocks().last()
            {
                let address = NonNull::new(block.address() as *mut u8).expect("not null");
                let to = &consumers[step % 8];
                // SAFETY: the block is alive, of this layout, and this thread's.
                refusals.noted(unsafe { bursar::transfer_block(address, block.layout(), to) });
            }
        }
        finish(shadow);
    });
    for consumer in consumers {
        assert_eq!(held(consumer), [0, 0], "{}", consumer.name());
    }
}

/// Pools of every backing that a machine has without setup, made, bound, used and ended.
fn pools(host: &Host, refusals: &Refusals) {
    let path = std::env::temp_dir().join(format!("bursar-sweep-{}", std::process::id()));
    let path = CString::new(path.into_os_string().into_encoded_bytes()).expect("no zero in it");
    let backings = [
        Backing::Memory,
        Backing::TransparentHuge,
        Backing::Shared,
        Backing::File(&path),
    ];
    for (seed, backing) in backings.into_iter().enumerate() {
        let built = Pool::builder(24 << 20).backing(backing).build();
        if built.is_err() {
            // A name that could not be taken away again.
            // SAFETY: the path is terminated.
            unsafe { libc::unlink(path.as_ptr()) };
        }
        let Some(pool) = refusals.noted(built) else {
            continue;
        };
        let consumer = &made_consumers()[seed];
        pool.bind(consumer);
        let mut shadow = Shadow::new(host.heap, seed as u64, Vec::new());
        let mut generator = Generator::new(seed as u64, Mix::PROGRAM, 80);
        for step in 0..200 {
            let _scope = consumer.enter();
            apply(generator.next(shadow.len()), &mut shadow, refusals);
            if step % 50 == 49 {
                bursar::purge();
            }
        }
        finish(shadow);
        assert_eq!(held(consumer), [0, 0]);
        drop(pool);
        bursar::purge();
    }
}

/// Message buffers of a set that this process attaches to twice.
fn messages(_: &Host, refusals: &Refusals) {
    let spec = PoolSpec::must_parse("1048576,65536:4096");
    let Some(pools) = refusals.noted(MbufPools::new(&spec)) else {
        return;
    };
    let (one, other) = UnixStream::pair().expect("a socket pair");
    let sent = refusals.noted(pools.send(&one));
    let theirs = sent.and_then(|()| refusals.noted(MbufPools::receive(&other)));
    for number in 0..12_usize {
        let Some(mut mbuf) = refusals.noted(Mbuf::new(&pools, 3_000 * number)) else {
            continue;
        };
        let Some(mut parts) = refusals.noted(mbuf.exclusive()) else {
            continue;
        };
        parts.data().fill(number as u8);
        let Some(theirs) = &theirs else {
            continue;
        };
        let opened = match number % 2 {
            0 => mbuf.export_to(theirs.me()).map_err(|(_, error)| error),
            _ => mbuf.export(),
        };
        let opened = opened.and_then(|handle| Mbuf::open(theirs, handle));
        if let Some(mbuf) = refusals.noted(opened) {
            assert!(
                mbuf.data()
                    .to_vec()
                    .iter()
                    .all(|&byte| byte == number as u8)
            );
        }
    }
    for set in [Some(&pools), theirs.as_ref()].into_iter().flatten() {
        refusals.noted(set.reclaim());
        refusals.noted(set.purge());
        match set.check() {
            Ok(()) => {}
            Err(error @ MbufError::Damaged { .. }) => panic!("{error}"),
            Err(error) => refusals.note(|| error.to_string()),
        }
    }
}
