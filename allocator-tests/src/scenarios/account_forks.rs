//! Accounts in forked children, of threads at work and of threads at rest.

use std::hint::black_box;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;

use bursar::Consumer;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::accounts::{on_threads, overhead};
use super::{Arguments, Host, Run, scaled};
use crate::charges::{boxes, buffers, current, held, listed_still};
use crate::process::{Fate, in_child};

pub(super) const ALL: &[(&str, Run)] = &[
    ("fork_accounts_busy", fork_accounts_busy),
    ("fork_accounts_quiet", fork_accounts_quiet),
];

/// What a forked child does with accounts, at once.
fn childhood(known: &[(Consumer, [u64; 2])]) {
    for (consumer, expected) in known {
        assert_eq!(held(consumer), *expected, "{}", consumer.name());
        let block = consumer.run(|| {
            assert_eq!(current(), Some(consumer.id()));
            black_box(Vec::<u8>::with_capacity(1_000))
        });
        let [blocks, bytes] = held(consumer);
        let more = buffers::<u8>([block.capacity()]);
        assert_eq!([blocks - expected[0], bytes - expected[1]], more);
        let text = bursar::report().to_string();
        assert!(text.contains(consumer.name()), "{text}");
        drop(block);
        assert_eq!(held(consumer), *expected);
    }
    let made = Consumer::new("made in the child");
    let id = made.id();
    let blocks = on_threads(3, |number| made.run(|| black_box(Box::new([number; 5]))));
    assert_eq!(held(&made), boxes::<[u64; 5]>(3));
    drop((made, blocks));
    assert!(listed_still(id).is_none());
}

/// Accounts that leave are given up, though a reader of theirs may have vanished in the fork. What they
/// took would be above a megabyte; the first to leave wait in batches, and what is not theirs is mapped
/// in steps of 256 KiB.
fn accounts_that_leave_are_given_up() {
    let before = overhead();
    for _ in 0..scaled(20_000, 5_000) {
        drop(Consumer::new("passing").run(|| black_box(Box::new(1))));
    }
    let after = overhead();
    assert!(after < before + (640 << 10), "from {before} to {after}");
}

/// Threads allocate, enter, leave, make and drop consumers, hand over, and read
/// snapshots without pause; main forks. Its own consumers are exact in each
/// child, those of the vanished threads are listed, and accounts that leave
/// are given up there.
fn fork_accounts_busy(host: &Host, _: &Arguments) {
    static DONE: AtomicBool = AtomicBool::new(false);
    let shared = Consumer::new("shared by the busy");
    let known: Vec<(Consumer, [u64; 2])> = (0..5)
        .map(|n| (Consumer::new(format!("known {n}")), [0; 2]))
        .collect();
    let (lasting, blocks): (Vec<_>, Vec<_>) = known
        .into_iter()
        .map(|(consumer, _)| {
            let block = consumer.run(|| (0..100).map(Box::new).collect::<Vec<Box<u64>>>());
            let expected = held(&consumer);
            ((consumer, expected), block)
        })
        .unzip();
    let busy = |number: u64, shared: Consumer| {
        let mut rng = SmallRng::seed_from_u64(number);
        while !DONE.load(Ordering::Relaxed) {
            let own = Consumer::new("own").with_can_spill(true);
            let below = own.child("below");
            let mut scopes = Vec::with_capacity(4);
            for consumer in [&own, &below, &shared] {
                scopes.push(consumer.enter());
                let size = 1 << rng.random_range(0..19);
                let block = black_box(Vec::<u8>::with_capacity(size));
                let moved = bursar::transfer(&block, &below);
                assert_eq!(moved, Ok(buffers::<u8>([size])[1]));
            }
            if number.is_multiple_of(2) {
                drop(bursar::consumers());
            }
        }
    };
    // Not in a scope, which would wait for them for ever when a child fails.
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let shared = shared.clone();
            thread::spawn(move || busy(number, shared))
        })
        .collect();
    for child in 0..scaled(100, 10) {
        let fate = in_child(|| {
            childhood(&lasting);
            let usage = shared.usage();
            assert!(usage.live_bytes < 1 << 30, "{usage:?}");
            accounts_that_leave_are_given_up();
            assert_eq!(
                in_child(|| childhood(&lasting)),
                Fate::Fine,
                "the grandchild"
            );
        });
        assert_eq!(fate, Fate::Fine, "child {child}");
    }
    DONE.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap_or_else(|panic| resume_unwind(panic));
    }
    assert_eq!(held(&shared), [0, 0]);
    drop(blocks);
    host.check();
}

/// Threads rest in scopes with live blocks; in the child what they hold is
/// counted, nobody is in their scopes, and everything can be freed.
fn fork_accounts_quiet(host: &Host, _: &Arguments) {
    const THREADS: u64 = 4;
    let rest = Arc::new(Barrier::new(THREADS as usize + 1));
    let (send, receive) = channel();
    let consumer = Consumer::new("resting");
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let (rest, send) = (Arc::clone(&rest), send.clone());
            let (shared, own) = (consumer.clone(), consumer.child("own"));
            thread::spawn(move || {
                let blocks: Vec<Box<[u64; 6]>> =
                    shared.run(|| (0..500).map(|_| Box::new([number; 6])).collect());
                let large = own.run(|| vec![1_u8; 700_000]);
                // Nothing but a scope keeps this one.
                let entered = Consumer::new("entered");
                let outer = entered.enter();
                let ids = [own.id(), entered.id()];
                drop(entered);
                let scope = own.enter();
                let kept = black_box(Vec::<u8>::with_capacity(3_000));
                drop(own);
                send.send((ids, blocks, large)).expect("main listens");
                rest.wait();
                rest.wait();
                drop((kept, scope, outer));
            })
        })
        .collect();
    let theirs: Vec<_> = (0..THREADS)
        .map(|_| receive.recv().expect("they send"))
        .collect();
    drop((send, receive));
    rest.wait();
    let before = consumer.usage();
    assert!(before.subtree_live_bytes > THREADS * 700_000, "{before:?}");
    for ([_, entered], ..) in &theirs {
        assert!(listed_still(*entered).is_some(), "a thread is in its scope");
    }
    let mut theirs = Some(theirs);
    for child in 0..scaled(20, 8) {
        let fate = in_child(|| {
            assert_eq!(consumer.usage(), before, "counts, peaks and all");
            bursar::check().unwrap_or_else(|broken| panic!("{broken}"));
            let theirs = theirs.take().expect("each child has them");
            for ([id, entered], blocks, large) in theirs {
                assert!(listed_still(entered).is_none(), "no thread is in its scope");
                let listed = listed_still(id).expect("bytes of it are alive");
                assert!(listed.departed, "its handle went in the parent");
                drop((blocks, large));
                // What the vanished thread itself held stays on the books.
                let usage = listed_still(id).expect("a buffer is alive").usage;
                assert_eq!(
                    [usage.live_blocks, usage.live_bytes],
                    buffers::<u8>([3_000])
                );
            }
            childhood(&[(consumer.clone(), [0, 0])]);
            bursar::check().unwrap_or_else(|broken| panic!("after its work: {broken}"));
        });
        assert_eq!(fate, Fate::Fine, "child {child}");
    }
    assert_eq!(
        consumer.usage().subtree_live_bytes,
        before.subtree_live_bytes
    );
    drop(theirs);
    rest.wait();
    for thread in threads {
        thread.join().unwrap_or_else(|panic| resume_unwind(panic));
    }
    assert_eq!(consumer.usage().subtree_live_bytes, 0);
    host.check();
}
