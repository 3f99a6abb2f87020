//! Streams on tasks, and between tasks and threads.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use allocator_tests::charges::{boxes, buffers, current, held};
use allocator_tests::scenarios::scaled;
use bursar::stream::{Bounds, StreamError, bounded, from_iter, merge, pull};
use bursar::{Bursar, Consumer};
use futures_util::{StreamExt, TryStreamExt};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

#[global_allocator]
static GLOBAL: Bursar = Bursar::new();

/// For what others do in a moment, however busy the machine.
const LONG: Duration = Duration::from_secs(600);

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(3)
        .enable_time()
        .build()
        .expect("there can be threads")
}

fn bounds(items: usize, bytes: u64) -> Bounds {
    Bounds { items, bytes }
}

fn consumers<const N: usize>() -> [Consumer; N] {
    std::array::from_fn(|n| Consumer::new(format!("stage {n}")))
}

/// Gives up its turn once.
async fn give_way() {
    let mut given = false;
    poll_fn(|context| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < LONG, "{what}");
        sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn tasks_produce_and_receive_with_exact_charges() {
    let [scan, sort] = consumers();
    let (mut producer, receiver) = bounded(&scan, bounds(3, 1 << 20));
    let mut receiver = receiver.transferring_to(&sort);
    let runtime = runtime();
    let task = runtime.spawn(async move {
        for number in 0..200_usize {
            let make = async {
                let scratch = vec![1_u8; 500];
                give_way().await;
                let row = vec![number as u8; 100 + number];
                give_way().await;
                drop(scratch);
                row
            };
            producer.produce_async(make).await.expect("it is received");
            assert_eq!(current(), None);
        }
        producer.finish();
    });
    runtime.block_on(async {
        for number in 0..200 {
            let row = receiver.next().await.expect("an item").expect("no error");
            let expected = buffers::<u8>([100 + number]);
            assert_eq!((row.len(), row.bytes()), (100 + number, expected[1]));
            assert_eq!(held(&sort), expected);
        }
        assert!(receiver.next().await.is_none());
        task.await.expect("the task is fine");
    });
    assert_eq!((held(&scan), held(&sort)), ([0, 0], [0, 0]));
    let declared = [&scan, &sort].map(|consumer| consumer.usage().reserved_bytes);
    assert_eq!(declared, [0, 0]);
}

#[test]
fn a_thread_and_a_task_may_be_the_two_ends() {
    let runtime = runtime();
    let [scan] = consumers();
    // A thread produces, a task receives.
    let receiver = from_iter(&scan, bounds(4, 1 << 10), (0..3000_u64).map(Box::new));
    let sum = runtime.block_on(receiver.try_fold(0, async |sum, n| Ok(sum + **n)));
    assert_eq!(sum.expect("no error"), 2999 * 3000 / 2);
    // A task produces, a thread receives.
    let (mut producer, receiver) = bounded(&scan, bounds(4, 1 << 10));
    runtime.spawn(async move {
        for n in 0..3000_u64 {
            let item = producer.weigh(|| Box::new(n));
            producer.send_async(item).await.expect("it is received");
        }
        producer.finish();
    });
    let sum: u64 = receiver.into_iter().map(|n| **n.expect("no error")).sum();
    assert_eq!(sum, 2999 * 3000 / 2);
    assert_eq!(held(&scan), [0, 0]);
}

#[test]
fn then_awaits_one_item_after_the_other_and_weighs_across_polls() {
    let runtime = runtime();
    let [scan, fetch] = consumers();
    let at_once = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&at_once);
    let rows = pull(&scan, (0..30_u64).map(|n| vec![n; 50])).then(&fetch, move |row| {
        let count = Arc::clone(&count);
        async move {
            assert_eq!(count.fetch_add(1, Ordering::SeqCst), 0);
            sleep(Duration::from_micros(200)).await;
            count.fetch_sub(1, Ordering::SeqCst);
            Box::new([row[0]; 9])
        }
    });
    let (mut rows, ahead) = rows.ahead_on_task(bounds(2, 1 << 20));
    let task = runtime.spawn(ahead);
    let numbers: Vec<u64> = runtime.block_on(async {
        let mut numbers = Vec::new();
        while let Some(row) = rows.recv_async().await {
            let row = row.expect("no error");
            assert_eq!(row.bytes(), boxes::<[u64; 9]>(1)[1]);
            numbers.push(row[0]);
        }
        task.await.expect("the task is fine");
        numbers
    });
    assert!(numbers.into_iter().eq(0..30));
    assert_eq!((held(&scan), held(&fetch)), ([0, 0], [0, 0]));
}

#[test]
fn a_task_that_is_cancelled_or_panics_ends_its_stream_with_an_error() {
    let runtime = runtime();
    let [scan] = consumers();
    for panics in [false, true] {
        let (mut producer, mut receiver) = bounded(&scan, bounds(2, 1 << 20));
        let task = runtime.spawn(async move {
            for n in 0_u8.. {
                let make = async {
                    give_way().await;
                    if panics && n == 7 {
                        std::panic::resume_unwind(Box::new(()));
                    }
                    vec![n; 1000]
                };
                if producer.produce_async(make).await.is_err() {
                    return;
                }
            }
        });
        let end = runtime.block_on(async {
            for n in 0..5 {
                let item = receiver.recv_async().await.expect("an item");
                assert_eq!(item.expect("no error")[0], n);
            }
            if !panics {
                task.abort();
            }
            loop {
                match receiver.recv_async().await {
                    Some(Ok(_)) => {}
                    end => break end,
                }
            }
        });
        match end {
            Some(Err(StreamError::Panicked)) => assert!(panics),
            Some(Err(StreamError::Abandoned)) => assert!(!panics),
            other => panic!("{other:?}"),
        }
        // The stream ends first, and then the rest of the task.
        let is_freed = || held(&scan) == [0, 0] && scan.usage().reserved_bytes == 0;
        runtime.block_on(until("all is freed", is_freed));
    }
}

#[test]
fn a_receiver_that_is_dropped_wakes_a_task_that_waits_for_room() {
    let runtime = runtime();
    let [scan] = consumers();
    let (mut producer, receiver) = bounded(&scan, bounds(1, 1 << 20));
    producer.produce(|| vec![1_u8]).expect("there is room");
    let task = runtime.spawn(async move { producer.ready_async().await.is_err() });
    thread::sleep(Duration::from_millis(10));
    assert!(!task.is_finished());
    drop(receiver);
    let closed = runtime.block_on(async { timeout(LONG, task).await });
    assert!(closed.expect("it is woken").expect("the task is fine"));
}

#[test]
fn a_future_that_is_dropped_loses_no_item() {
    let [scan] = consumers();
    let (mut producer, mut receiver) = bounded(&scan, bounds(1, 1 << 20));
    let mut context = Context::from_waker(Waker::noop());
    {
        let mut receiving = std::pin::pin!(receiver.recv_async());
        assert!(receiving.as_mut().poll(&mut context).is_pending());
    }
    producer.produce(|| Box::new(1)).expect("there is room");
    {
        let item = producer.weigh(|| Box::new(2));
        let mut sending = std::pin::pin!(producer.send_async(item));
        assert!(sending.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(
        held(&scan),
        boxes::<i32>(1),
        "the item went with the future"
    );
    assert_eq!(**receiver.recv().expect("an item").expect("no error"), 1);
    producer.produce(|| Box::new(3)).expect("there is room");
    assert_eq!(**receiver.recv().expect("an item").expect("no error"), 3);
}

/// A stage that waits inside, while an input that was asked before it gets an item: who waits
/// outside is woken for that.
#[test]
fn waiting_inside_of_waiting_loses_no_wake_up() {
    let [scan, join] = consumers();
    let (mut first, first_receiver) = bounded(&scan, bounds(1, 64));
    let (mut inner, mut inner_receiver) = bounded(&scan, bounds(1, 64));
    let (begins, is_inside) = std::sync::mpsc::channel();
    let never = pull(&scan, [0]).then(&scan, move |_| {
        begins.send(()).expect("it is waited for");
        let waited = inner_receiver.recv().is_some_and(|item| item.is_ok());
        assert!(waited);
        std::future::pending::<u64>()
    });
    let (done, outcome) = std::sync::mpsc::channel();
    thread::spawn(move || {
        // Once before, so that the thread has a waker at hand.
        assert!(pull(&join, [0]).recv().is_some_and(|item| item.is_ok()));
        let mut merged = merge(&join, [first_receiver, never]);
        let item = merged.recv().expect("an item").expect("no error");
        done.send(*item).expect("it is waited for");
    });
    is_inside.recv().expect("the thread comes by");
    // It waits by then, most likely, and has seen the first item before the second.
    thread::sleep(Duration::from_millis(30));
    first.produce(|| 7_u64).expect("it is received");
    thread::sleep(Duration::from_millis(30));
    inner.produce(|| 8_u64).expect("it is received");
    assert_eq!(outcome.recv_timeout(LONG), Ok(7));
}

/// One random chain of up to four queues on threads and tasks, with bounds that are often too small
/// for one item, pauses at every stage, and ends of every kind. What it did.
async fn random_chain(seed: u64) -> u64 {
    let mut random = SmallRng::seed_from_u64(seed);
    let [scan, stage] = consumers();
    let count = random.random_range(0..60_u64);
    let fails_at = random
        .random_ratio(1, 4)
        .then(|| random.random_range(0..60));
    let leaves_at = random
        .random_ratio(1, 4)
        .then(|| random.random_range(0..60));
    let mut pauses = SmallRng::seed_from_u64(seed ^ 1);
    let items = (0..count).map(move |n| {
        if pauses.random_ratio(1, 8) {
            thread::yield_now();
        }
        if Some(n) == fails_at {
            Err("failed")
        } else {
            Ok(vec![n; 1 << (n % 9)])
        }
    });
    let mut bound = || bounds(random.random_range(0..4), random.random_range(0..3000));
    let first = bound();
    let mut chain = bursar::stream::try_from_iter(&scan, first, items);
    for _ in 0..random_stages(seed) {
        chain = chain.charged_to(&stage);
        let one = bound();
        chain = if one.items % 2 == 0 {
            chain.map(&stage, |row| row.to_vec()).ahead(one)
        } else {
            let stage = chain.then(&stage, async |row| {
                give_way().await;
                row.into_inner()
            });
            let (receiver, ahead) = stage.ahead_on_task(one);
            tokio::spawn(ahead);
            receiver
        };
    }
    let mut received = 0;
    while let Some(item) = chain.recv_async().await {
        match item {
            Ok(row) => assert_eq!(row[0], received),
            Err(StreamError::Failed(_)) => {
                assert_eq!(Some(received), fails_at);
                assert!(chain.recv_async().await.is_none());
                break;
            }
            Err(error) => panic!("{error}"),
        }
        received += 1;
        if Some(received) == leaves_at {
            break;
        }
    }
    let expected = [Some(count), fails_at, leaves_at.filter(|&n| n > 0)];
    assert_eq!(Some(received), expected.into_iter().flatten().min());
    drop(chain);
    until("all is freed", || {
        [&scan, &stage]
            .iter()
            .all(|consumer| held(consumer) == [0, 0] && consumer.usage().reserved_bytes == 0)
    })
    .await;
    received
}

fn random_stages(seed: u64) -> u64 {
    seed % 4
}

#[test]
fn random_schedules_never_stand_still() {
    let runtime = runtime();
    let received: u64 = runtime.block_on(async {
        let mut received = 0;
        for batch in 0..scaled(60, 12) {
            let chains: Vec<_> = (0..8)
                .map(|n| {
                    let seed = batch * 8 + n;
                    let chain = tokio::spawn(random_chain(seed));
                    (seed, timeout(LONG, chain))
                })
                .collect();
            for (seed, chain) in chains {
                let ended = chain
                    .await
                    .unwrap_or_else(|_| panic!("seed {seed} stands still"));
                received += ended.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            }
        }
        received
    });
    assert!(received > 500, "{received}");
}

#[test]
fn a_task_runs_ahead_by_the_bound_and_no_further() {
    let runtime = runtime();
    let [scan] = consumers();
    let made = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&made);
    let numbers = pull(
        &scan,
        (0..100_u64).inspect(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        }),
    );
    let (mut numbers, ahead) = numbers.ahead_on_task(bounds(3, 100));
    runtime.spawn(ahead);
    runtime.block_on(async {
        for taken in 0..5 {
            until("it runs ahead", || made.load(Ordering::SeqCst) == 3 + taken).await;
            sleep(Duration::from_millis(3)).await;
            assert_eq!(made.load(Ordering::SeqCst), 3 + taken);
            drop(numbers.recv_async().await);
        }
    });
}
