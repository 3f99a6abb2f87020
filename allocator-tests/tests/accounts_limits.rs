//! Limits on real bytes: pressure at safe points, refusals in fallible scopes, nothing else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use bursar::{AllocFailure, Bursar, Consumer, Greedy, Limits, transfer};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};

#[global_allocator]
static GLOBAL: Bursar = Bursar::new();

const MIB: u64 = 1 << 20;

fn buffer(bytes: u64) -> Vec<u8> {
    std::hint::black_box(Vec::with_capacity(bytes as usize))
}

/// As many boxes as `try_run` grants, up to `most`; what they occupy.
fn boxes_until_refused(consumer: &Consumer, size: usize, most: usize) -> Vec<Vec<u8>> {
    let mut kept = Vec::with_capacity(most);
    consumer.try_run(|| {
        while kept.len() < most {
            let mut block = Vec::<u8>::new();
            if block.try_reserve_exact(size).is_err() {
                break;
            }
            kept.push(block);
        }
    });
    kept
}

#[test]
fn a_hard_limit_refuses_in_try_run_and_only_there() {
    let consumer = Consumer::new("limited");
    consumer.set_limits(Limits::none().hard(4 * MIB));
    for size in [24, 200, 3000, 20_000, 150_000, 500_000] {
        let kept = boxes_until_refused(&consumer, size, 1 << 20);
        let live = consumer.usage().live_bytes;
        assert!(live <= 4 * MIB, "{live} bytes of {size}");
        // A bound that is up to a page of slots, or one slot, and 16 KiB above the count refuses.
        let slack = (16 << 10) + 2 * (4096 + size as u64);
        assert!(
            live + slack.max(size as u64 * 5 / 4) >= 4 * MIB,
            "{live} bytes of {size}"
        );
        let failure = bursar::last_failure();
        assert!(
            matches!(failure, Some(AllocFailure::Limit { limit, .. }) if limit == 4 * MIB),
            "{failure:?}"
        );
        // Code that takes memory for granted goes on, outside of `try_run`.
        let more = consumer.run(|| buffer(2 * MIB));
        assert!(consumer.usage().live_bytes > 4 * MIB);
        assert!(consumer.is_pressed());
        drop((kept, more));
        assert!(!consumer.is_pressed());
    }
}

#[test]
fn what_was_freed_can_be_had_again() {
    let consumer = Consumer::new("again");
    consumer.set_limits(Limits::none().hard(2 * MIB));
    // Each size in turn may have nearly all, although runs of the others are kept for reuse.
    for size in [16, 64, 256, 1024, 4096, 16_384, 65_536] {
        let kept = boxes_until_refused(&consumer, size, 1 << 20);
        let live = consumer.usage().live_bytes;
        assert!(live * 10 >= 2 * MIB * 8, "only {live} bytes of {size}");
        drop(kept);
    }
}

#[test]
fn a_limit_above_holds_for_all_below() {
    let query = Consumer::new("query");
    query.set_limits(Limits::none().hard(8 * MIB));
    let (scan, sort) = (query.child("scan"), query.child("sort"));
    let first = boxes_until_refused(&scan, 100_000, 60);
    let second = boxes_until_refused(&sort, 100_000, 1000);
    assert_eq!(first.len(), 60);
    let left = 8 * MIB - scan.usage().live_bytes;
    let block = sort.usage().live_bytes / second.len() as u64;
    assert_eq!(second.len() as u64, left / block, "all that is left");
    assert!(query.usage().subtree_live_bytes <= 8 * MIB);
    // A limit of its own is the narrower one.
    drop(second);
    sort.set_limits(Limits::none().hard(MIB));
    let third = boxes_until_refused(&sort, 100_000, 1000);
    assert!(third.len() <= 10, "{}", third.len());
}

/// What a thread freed of blocks in shared runs is not kept for it, but for 16 KiB.
#[test]
fn what_one_thread_freed_another_can_have() {
    let consumer = Consumer::new("light");
    let blocks: Vec<_> = (0..120)
        .map(|n| consumer.run(|| buffer(48 * (1 + n % 40))))
        .collect();
    assert!(consumer.usage().live_bytes > 100 << 10);
    drop(blocks);
    assert_eq!(consumer.usage().live_bytes, 0);
    consumer.set_limits(Limits::none().hard(64 << 10));
    let kept = thread::scope(|scope| {
        let all = || boxes_until_refused(&consumer, 1_000, 1_000).len();
        scope.spawn(all).join().expect("it is fine")
    });
    // This thread's 16 KiB and the other's are not to be had.
    assert!(kept * 1_024 > 30 << 10, "{kept} blocks");
}

/// Together they never pass the limit, by however many threads they ask.
#[test]
fn threads_together_do_not_overshoot() {
    const THREADS: usize = 8;
    let consumer = Consumer::new("crowd");
    consumer.set_limits(Limits::none().hard(16 * MIB));
    // What they know to be alive: counted when it is there, and no longer before it goes.
    let (alive, most) = (AtomicU64::new(0), AtomicU64::new(0));
    let all = Barrier::new(THREADS);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (consumer, alive, most, all) = (&consumer, &alive, &most, &all);
            scope.spawn(move || {
                all.wait();
                for round in 0..=20 {
                    let size = [40, 700, 9000, 70_000, 400_000][(thread + round) % 5];
                    let kept = boxes_until_refused(consumer, size, (6 << 20) / size);
                    let layout = std::alloc::Layout::array::<u8>(size).expect("a size");
                    let bytes = (kept.len() * bursar::block_size(layout)) as u64;
                    let now = alive.fetch_add(bytes, Ordering::SeqCst) + bytes;
                    most.fetch_max(now, Ordering::SeqCst);
                    if round < 20 {
                        thread::yield_now();
                    } else {
                        // However they took turns before, once all have what they can get.
                        all.wait();
                    }
                    alive.fetch_sub(bytes, Ordering::SeqCst);
                    drop(kept);
                }
            });
        }
    });
    let most = most.into_inner();
    assert!(most <= 16 * MIB, "{most} bytes at once");
    assert!(most >= 8 * MIB, "the limit was never near: {most}");
    assert_eq!(consumer.usage().live_bytes, 0);
}

#[test]
fn a_limit_is_seen_by_growth_and_left_by_shrinking() {
    let consumer = Consumer::new("growing");
    consumer.set_limits(Limits::none().hard(4 * MIB));
    let mut block: Vec<u8> = consumer.run(|| buffer(MIB));
    consumer.try_run(|| {
        // In place, by moving pages and by copying: all are counted.
        while block.try_reserve_exact(block.capacity() + 300_000).is_ok() {
            assert!(consumer.usage().live_bytes <= 4 * MIB);
            // SAFETY: bytes have no invalid values, and these are never read.
            unsafe { block.set_len(block.capacity()) };
        }
    });
    assert!(consumer.usage().live_bytes > MIB);
    block.truncate(10);
    block.shrink_to_fit();
    let again = boxes_until_refused(&consumer, 500_000, 100);
    assert!(again.len() >= 6, "{}", again.len());
}

#[test]
fn a_hand_over_is_not_refused() {
    let (from, to) = (Consumer::new("from"), Consumer::new("to"));
    to.set_limits(Limits::none().hard(MIB));
    let block = from.run(|| buffer(3 * MIB));
    let moved = transfer(&block, &to).expect("a hand-over is not refused");
    assert_eq!(to.usage().live_bytes, moved);
    assert!(to.is_pressed() && !from.is_pressed());
}

#[test]
fn callbacks_run_once_a_time_at_safe_points_alone() {
    let parent = Consumer::new("parent");
    let consumer = parent.child("child");
    parent.set_limits(Limits::none().soft(2 * MIB));
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    parent.on_pressure(move |pressed, pressure| {
        // It may allocate as it likes.
        let text = format!("{}: {pressure:?}", pressed.name());
        assert!(text.starts_with("parent"));
        assert!(pressure.live_bytes > pressure.limit_bytes);
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let called = || calls.load(Ordering::Relaxed);
    for round in 1..=3 {
        let block = consumer.run(|| buffer(3 * MIB));
        assert_eq!(
            called(),
            round - 1,
            "nothing is called while memory is asked for"
        );
        assert!(consumer.is_pressed(), "what is above is pressed");
        consumer.safe_point();
        consumer.safe_point();
        assert_eq!(called(), round);
        drop(block);
        consumer.safe_point();
    }
    // Reservation calls are safe points too.
    let budget: Arc<dyn bursar::Budget> = Arc::new(Greedy::new(100));
    let reservation = consumer.register(&budget);
    let block = consumer.run(|| buffer(3 * MIB));
    reservation.grow(1);
    assert_eq!(called(), 4);
    drop(block);
}

#[test]
fn a_future_waits_for_the_end_of_pressure() {
    let consumer = Consumer::new("waited for");
    consumer.set_limits(Limits::none().soft(MIB));
    let mut context = Context::from_waker(std::task::Waker::noop());
    assert_eq!(
        pin!(consumer.pressure_ended()).poll(&mut context),
        Poll::Ready(())
    );
    let block = consumer.run(|| buffer(2 * MIB));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .expect("there can be threads");
    let waiting = runtime.spawn(consumer.pressure_ended());
    thread::sleep(std::time::Duration::from_millis(20));
    assert!(!waiting.is_finished());
    // The poll of a wrapped future is the safe point that wakes it.
    let freeing = consumer.wrap(async move { drop(block) });
    runtime.block_on(freeing);
    runtime.block_on(waiting).expect("it is woken");
}

#[test]
fn limits_can_be_read_and_lifted() {
    let consumer = Consumer::new("lifted");
    assert_eq!(consumer.limits(), Limits::none());
    let limits = Limits::none().soft(10).hard(20);
    consumer.set_limits(limits);
    assert_eq!(consumer.limits(), limits);
    let block = consumer.run(|| buffer(MIB));
    assert!(consumer.is_pressed());
    consumer.set_limits(Limits::none());
    assert!(!consumer.is_pressed());
    drop(block);
}

/// What was handed over is the taker's alone, slots of the giver's runs included.
#[test]
fn the_giver_is_free_of_what_it_handed_over() {
    let query = Consumer::new("query");
    let (giver, taker) = (query.child("giver"), query.child("taker"));
    giver.set_limits(Limits::none().hard(2 * MIB));
    let mut taken = Vec::new();
    for _ in 0..20 {
        let batch = boxes_until_refused(&giver, 128, 4000);
        assert_eq!(batch.len(), 4000, "nothing of the last batch counts");
        for block in &batch {
            transfer(block, &taker).expect("bursar is installed");
        }
        taken.extend(batch);
    }
    assert!(giver.usage().peak_bytes <= MIB, "{:?}", giver.usage());
    let usage = query.usage();
    let live = usage.subtree_live_bytes;
    assert_eq!(live, 20 * 4000 * 128);
    assert!(usage.subtree_peak_bytes <= live + MIB, "{usage:?}");
    // Slots that come back are the giver's run's again.
    drop(taken);
    assert_eq!(query.usage().subtree_live_bytes, 0);
    bursar::purge();
    assert_eq!(boxes_until_refused(&giver, 128, 12_000).len(), 12_000);
}

#[test]
fn a_future_that_sees_the_pressure_first_hides_it_from_nobody() {
    let consumer = Consumer::new("seen first");
    consumer.set_limits(Limits::none().soft(MIB));
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    consumer.on_pressure(move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let block = consumer.run(|| buffer(2 * MIB));
    let mut context = Context::from_waker(std::task::Waker::noop());
    let mut waiting = pin!(consumer.pressure_ended());
    assert_eq!(waiting.as_mut().poll(&mut context), Poll::Pending);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    drop(block);
    assert_eq!(waiting.poll(&mut context), Poll::Ready(()));
}

/// A waker that counts.
struct Woken(AtomicU64);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn lifting_a_limit_ends_the_wait() {
    let consumer = Consumer::new("lifted while waiting");
    consumer.set_limits(Limits::none().soft(MIB));
    let block = consumer.run(|| buffer(2 * MIB));
    let woken = Arc::new(Woken(AtomicU64::new(0)));
    let waker = Arc::clone(&woken).into();
    let mut context = Context::from_waker(&waker);
    let mut waiting = pin!(consumer.pressure_ended());
    assert_eq!(waiting.as_mut().poll(&mut context), Poll::Pending);
    consumer.set_limits(Limits::none());
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert_eq!(waiting.poll(&mut context), Poll::Ready(()));
    drop(block);
}
