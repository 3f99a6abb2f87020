//! Accounts where work moves between threads: tokio, rayon, scoped threads,
//! streams.

use std::future::Future;
use std::hint::black_box;
use std::mem::take;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread::{self, ThreadId};

use allocator_tests::charges::{both, boxes, buffers, current, held};
use allocator_tests::scenarios::scaled;
use bursar::{Bursar, Consumer};
use futures_util::{Stream, StreamExt, stream};
use rayon::prelude::*;
use tokio::runtime::{Builder, Runtime};

#[global_allocator]
static GLOBAL: Bursar = Bursar::new();

const WORKERS: usize = 4;

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .build()
        .expect("there can be threads")
}

/// Lets others go first. Unlike tokio's own it allocates nothing that stays.
#[derive(Default)]
struct Yield(bool);

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Blocks of several sizes, freed and allocated across awaits. The threads that
/// polled it.
async fn work(id: u64, steps: u64) -> (Vec<Box<[u64; 5]>>, Vec<ThreadId>) {
    let mut kept = Vec::with_capacity(8);
    let mut threads = Vec::with_capacity(steps as usize);
    for step in 0..steps {
        let text = format!("{step} of {id}");
        let bytes = vec![1_u8; 100 << (step % 14)];
        Yield::default().await;
        assert_eq!(current(), Some(id));
        threads.push(thread::current().id());
        if kept.len() == 8 {
            kept.clear();
        }
        kept.push(Box::new([step; 5]));
        drop(text);
        Yield::default().await;
        drop(bytes);
    }
    (kept, threads)
}

#[test]
fn tasks_that_migrate_are_charged_to_their_consumer() {
    let runtime = runtime();
    let steps = scaled(300, 60);
    let mut context = Context::from_waker(Waker::noop());
    let tasks: Vec<_> = (0..scaled(64, 24))
        .map(|number| {
            let query = Consumer::new(format!("query {number}"));
            let mut future = Box::pin(query.wrap(work(query.id(), steps)));
            // The runtime's threads may take turns so that none of its tasks moves: each begins
            // here, up to where it has noted this thread.
            for _ in 0..2 {
                assert!(future.as_mut().poll(&mut context).is_pending());
            }
            let task = runtime.spawn(future);
            (query, task)
        })
        .collect();
    for (query, task) in tasks {
        let (kept, mut threads) = runtime.block_on(task).expect("the task is fine");
        let buffers = both(
            buffers::<Box<[u64; 5]>>([kept.capacity()]),
            buffers::<ThreadId>([threads.capacity()]),
        );
        let expected = both(buffers, boxes::<[u64; 5]>(kept.len() as u64));
        assert_eq!(held(&query), expected, "{}", query.name());
        threads.sort_unstable_by_key(|thread| format!("{thread:?}"));
        threads.dedup();
        assert!(threads.len() > 1, "it was polled by one thread");
        drop((kept, threads));
        assert_eq!(held(&query), [0, 0], "{}", query.name());
    }
    assert_eq!(current(), None);
}

/// A value that looks whose scope it is dropped in.
struct Witness(Arc<AtomicU64>, Box<u64>);

impl Drop for Witness {
    fn drop(&mut self) {
        self.0
            .store(current().unwrap_or(u64::MAX), Ordering::SeqCst);
        *self.1 += 1;
    }
}

#[test]
fn a_future_dropped_half_done_is_dropped_in_its_scope() {
    let consumer = Consumer::new("cancelled");
    let seen = Arc::new(AtomicU64::new(u64::MAX));
    for on_another_thread in [false, true] {
        let witness = Arc::clone(&seen);
        let mut future = Box::pin(consumer.wrap(async move {
            let _witness = Witness(witness, Box::new(1));
            let _large = vec![0_u8; 3 << 20];
            std::future::pending::<()>().await;
        }));
        let mut context = Context::from_waker(Waker::noop());
        assert!(future.as_mut().poll(&mut context).is_pending());
        let expected = both(boxes::<u64>(1), buffers::<u8>([3 << 20]));
        assert_eq!(held(&consumer), expected);
        assert_eq!(current(), None);
        if on_another_thread {
            thread::spawn(move || drop(future))
                .join()
                .expect("the thread is fine");
        } else {
            drop(future);
        }
        assert_eq!(seen.swap(u64::MAX, Ordering::SeqCst), consumer.id());
        assert_eq!(held(&consumer), [0, 0]);
    }
}

#[test]
fn tasks_that_are_aborted_leave_nothing() {
    let runtime = runtime();
    let consumer = Consumer::new("aborted");
    let tasks: Vec<_> = (0..50)
        .map(|_| runtime.spawn(consumer.wrap(work(consumer.id(), u64::MAX >> 40))))
        .collect();
    thread::sleep(std::time::Duration::from_millis(20));
    tasks.iter().for_each(|task| task.abort());
    for task in tasks {
        let ended = runtime.block_on(task);
        assert!(ended.is_err_and(|error| error.is_cancelled()));
    }
    assert_eq!(held(&consumer), [0, 0]);
}

#[test]
fn a_task_that_panics_leaves_its_scope() {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .expect("a thread");
    let consumer = Consumer::new("panicking");
    let clone = consumer.clone();
    let task = runtime.spawn(consumer.wrap(async move {
        let _block = Box::new([1_u64; 9]);
        Yield::default().await;
        clone.run(|| std::panic::resume_unwind(Box::new(())))
    }));
    assert!(runtime.block_on(task).is_err_and(|error| error.is_panic()));
    // The runtime has one thread, which goes on.
    let after = runtime
        .block_on(runtime.spawn(async { current() }))
        .expect("the task is fine");
    assert_eq!(after, None);
    assert_eq!(held(&consumer), [0, 0]);
}

#[test]
fn what_a_task_spawns_is_charged_where_it_was_given_a_handle() {
    let runtime = runtime();
    let consumer = Consumer::new("spawning");
    let [given, not_given] = [true, false].map(|with_handle| {
        let clone = consumer.clone();
        let task = runtime.spawn(consumer.wrap(async move {
            let inner = async {
                Yield::default().await;
                (current(), Box::new([0_u64; 5]))
            };
            let task = if with_handle {
                tokio::spawn(clone.wrap(inner))
            } else {
                tokio::spawn(inner)
            };
            task.await.expect("the task is fine")
        }));
        runtime.block_on(task).expect("the task is fine")
    });
    assert_eq!((given.0, not_given.0), (Some(consumer.id()), None));
    // Tasks themselves were allocated by who spawned them, and are gone.
    drop(runtime);
    assert_eq!(held(&consumer), boxes::<[u64; 5]>(1));
    drop((given, not_given));
    assert_eq!(held(&consumer), [0, 0]);
}

/// Asks of each poll, and of its drop, whose scope it is in.
struct Asking {
    left: u32,
    seen: Arc<Mutex<Vec<Option<u64>>>>,
}

impl Stream for Asking {
    type Item = Box<u64>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Box<u64>>> {
        let scope = current();
        self.seen.lock().expect("a lock").push(scope);
        self.left = self.left.saturating_sub(1);
        Poll::Ready((self.left > 0).then(|| Box::new(1)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(7))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let scope = current();
        self.seen.lock().expect("a lock").push(scope);
    }
}

#[test]
fn a_stream_is_polled_and_dropped_in_its_scope() {
    let consumer = Consumer::new("stream");
    let seen = Arc::new(Mutex::new(Vec::with_capacity(16)));
    let asking = Asking {
        left: 4,
        seen: Arc::clone(&seen),
    };
    let mut wrapped = consumer.wrap_stream(asking);
    assert_eq!(
        (wrapped.size_hint(), wrapped.consumer()),
        ((4, Some(7)), &consumer)
    );
    let items: Vec<Box<u64>> = futures_executor(async {
        let mut items = Vec::new();
        let mut stream = pin!(&mut wrapped);
        while let Some(item) = stream.next().await {
            assert_eq!(current(), None, "between items");
            items.push(item);
        }
        items
    });
    assert_eq!(held(&consumer), boxes::<u64>(3));
    drop(wrapped);
    drop(items);
    assert_eq!(held(&consumer), [0, 0]);
    let seen = take(&mut *seen.lock().expect("a lock"));
    assert_eq!(seen, [Some(consumer.id()); 5], "four polls and the drop");
}

/// Runs a future that is always ready to go on.
fn futures_executor<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
            return result;
        }
    }
}

#[test]
fn a_chain_of_streams_is_charged_stage_by_stage() {
    let [source, sink] = ["source", "sink"].map(Consumer::new);
    let runtime = runtime();
    let (from, to) = (source.clone(), sink.clone());
    let (read, made) = runtime.block_on(async move {
        let read = from.wrap_stream(stream::iter(0..100_u64).map(|number| Box::new([number; 4])));
        let made = to.wrap_stream(read.map(|item| (Box::new([item[0]; 9]), item)));
        let both: Vec<_> = made.collect().await;
        both.into_iter().unzip::<_, _, Vec<_>, Vec<_>>()
    });
    assert_eq!(held(&source), boxes::<[u64; 4]>(100));
    assert_eq!(held(&sink), boxes::<[u64; 9]>(100));
    drop((read, made));
    assert_eq!((held(&source), held(&sink)), ([0, 0], [0, 0]));
}

#[test]
fn rayon_charges_where_each_piece_of_work_says() {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(WORKERS)
        .build()
        .expect("threads");
    let parent = Consumer::new("parallel");
    let parts: Vec<_> = (0..16).map(|n| parent.child(format!("part {n}"))).collect();
    let count = scaled(100_000, 20_000) as usize;
    let blocks: Vec<Box<[u64; 3]>> = pool.install(|| {
        let work = |n: usize| parts[n % 16].run(|| Box::new([n as u64; 3]));
        (0..count).into_par_iter().map(work).collect()
    });
    for (n, part) in parts.iter().enumerate() {
        let share = (count + 15 - n) / 16;
        assert_eq!(held(part), boxes::<[u64; 3]>(share as u64), "part {n}");
    }
    let whole = boxes::<[u64; 3]>(count as u64)[1];
    assert_eq!(parent.usage().subtree_live_bytes, whole);
    // Freed by whichever thread of the pool.
    pool.install(|| blocks.into_par_iter().for_each(drop));
    assert!(parts.iter().all(|part| held(part) == [0, 0]));
    let usage = parent.usage();
    assert_eq!((usage.subtree_live_bytes, usage.live_bytes), (0, 0));
    assert!(usage.subtree_peak_bytes >= whole);
    let freed: u64 = parts
        .iter()
        .map(|part| part.usage().freed_remotely_blocks)
        .sum();
    assert!(freed <= count as u64, "{freed}");
}

#[test]
fn rayon_joins_nest_scopes() {
    fn tree(consumer: &Consumer, depth: u32) -> u64 {
        if depth == 0 {
            let block = consumer.run(|| black_box(Box::new([depth; 20])));
            assert_eq!(current(), None);
            return u64::from(block[0]) + 1;
        }
        let (left, right) = rayon::join(|| tree(consumer, depth - 1), || tree(consumer, depth - 1));
        left + right
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(WORKERS)
        .build()
        .expect("threads");
    let consumer = Consumer::new("joins");
    let leaves = pool.install(|| tree(&consumer, 10));
    assert_eq!(leaves, 1024);
    let usage = consumer.usage();
    assert_eq!((usage.live_bytes, usage.allocated_blocks), (0, 1024));
}

#[test]
fn scoped_threads_of_crossbeam_and_std_share_a_consumer() {
    let consumer = Consumer::new("scoped");
    let work = || {
        let _scope = consumer.enter();
        let kept: Vec<String> = Vec::with_capacity(100);
        (0..100).fold(kept, |mut kept, _| {
            let mut text = String::with_capacity(200);
            text.push_str("some text");
            kept.push(text);
            kept
        })
    };
    let mut kept: Vec<Vec<String>> = crossbeam_utils::thread::scope(|scope| {
        let threads: Vec<_> = (0..WORKERS).map(|_| scope.spawn(|_| work())).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("it is fine"))
            .collect()
    })
    .expect("all are fine");
    thread::scope(|scope| {
        let threads: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        kept.extend(
            threads
                .into_iter()
                .map(|thread| thread.join().expect("it is fine")),
        );
    });
    let each = both(buffers::<String>([100]), buffers::<u8>([200; 100]));
    assert_eq!(
        held(&consumer),
        each.map(|figure| figure * 2 * WORKERS as u64)
    );
    thread::scope(|scope| {
        for part in kept.chunks_mut(3) {
            scope.spawn(move || part.iter_mut().for_each(|kept| drop(take(kept))));
        }
    });
    assert_eq!(held(&consumer), [0, 0]);
}

#[test]
fn wrapped_futures_can_be_sent() {
    fn is_send<T: Send>(_: &T) {}
    let consumer = Consumer::new("sent");
    let future = consumer.wrap(async {
        Yield::default().await;
    });
    is_send(&future);
    assert_eq!(future.consumer(), &consumer);
}
