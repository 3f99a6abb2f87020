//! Tasks: one manager owns what a task holds, and ends with it.

use std::error::Error;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bursar::{
    Bursar, EndReport, MemoryManager, Resource, TaskConsumer, TaskHandle, TaskReservation,
    running_tasks,
};

#[global_allocator]
static GLOBAL: Bursar = Bursar::new();

static_assertions::assert_impl_all!(MemoryManager: Send, Sync);
static_assertions::assert_impl_all!(TaskHandle: Send, Sync, Clone);
static_assertions::assert_not_impl_any!(TaskConsumer<'static>: Clone, Copy);
static_assertions::assert_not_impl_any!(TaskReservation<'static>: Clone, Copy);

type Fault = Box<dyn Error + Send + Sync>;

/// For what others do in a moment, however busy the machine.
const LONG: Duration = Duration::from_secs(600);

/// A block that is not optimised away.
fn block<const N: usize>() -> Box<[u8; N]> {
    std::hint::black_box(Box::new([7; N]))
}

/// Notes the order of releases.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<&'static str>>>);

impl Log {
    fn note(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }

    fn said(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().clone()
    }

    fn noting(&self, what: &'static str) -> impl Resource + use<> {
        let log = self.clone();
        move || {
            log.note(what);
            Ok(())
        }
    }
}

#[test]
fn a_stage_on_the_tasks_own_threads() {
    let task = MemoryManager::begin("stage");
    let rows = task.consumer("rows");
    let batches = rows.child("batches");
    let kept = batches.run(block::<1000>);
    let own = task.enter();
    let beside = block::<3000>();
    drop(own);
    assert_eq!(batches.usage().live_blocks, 1);
    let usage = task.usage();
    assert_eq!(usage.live_blocks, 1, "the task's own");
    assert!(usage.subtree_live_bytes >= 4000);
    drop((kept, beside, batches, rows));
    let report = task.end().unwrap();
    assert!(report.is_clean(), "{report}");
    assert!(report.peak_bytes >= 4000);
    assert_eq!(&*report.task, "stage");
}

#[test]
fn a_writer_thread_uses_the_same_manager() {
    let task = MemoryManager::begin("query");
    let written = thread::scope(|threads| {
        let writer = threads.spawn(|| {
            assert_eq!(
                bursar::current(),
                None,
                "nothing comes by way of the thread"
            );
            let buffers = task.consumer("writer");
            let result = buffers.run(block::<5000>);
            (result, buffers.id())
        });
        let (result, id) = writer.join().unwrap();
        // The writer is gone, and its handle; what it made is still the task's.
        assert!(task.usage().subtree_live_bytes >= 5000);
        drop(result);
        id
    });
    assert!(written > task.id());
    assert!(task.end().unwrap().is_clean());
}

#[test]
fn work_outside_of_any_task_is_one_of_its_own() {
    let ((), ended) = MemoryManager::run("convert", |task| {
        let columns = task.consumer("columns");
        drop(columns.run(block::<2000>));
        assert!(
            running_tasks()
                .iter()
                .any(|running| running.id == task.id())
        );
    });
    let report = ended.unwrap();
    assert!(report.is_clean() && report.peak_bytes >= 2000);
    assert!(
        running_tasks()
            .iter()
            .all(|running| running.id != report.task_id)
    );
}

#[test]
fn what_is_alive_at_the_end_is_named_and_stays_on_the_books() {
    let task = MemoryManager::builder("leaky")
        .patience(Duration::from_millis(5))
        .begin();
    let rows = task.consumer("rows");
    let id = rows.id();
    let left: Vec<_> = (0..3).map(|_| rows.run(block::<100>)).collect();
    let large = rows.run(block::<500_000>);
    drop(rows);
    let report = task.end().unwrap();
    assert!(!report.is_clean());
    assert!(report.waited >= Duration::from_millis(5));
    let [left_over] = &report.left[..] else {
        panic!("{report}");
    };
    let size = bursar::block_size(std::alloc::Layout::new::<[u8; 100]>()) as u64;
    let of_large = bursar::block_size(std::alloc::Layout::new::<[u8; 500_000]>()) as u64;
    assert_eq!((&*left_over.consumer, left_over.consumer_id), ("rows", id));
    assert_eq!(left_over.live_blocks, 4);
    assert_eq!(left_over.live_bytes, 3 * size + of_large);
    assert_eq!(report.live_bytes, left_over.live_bytes);
    assert!(left_over.age >= report.waited && left_over.age <= report.lasted);
    let classes: Vec<_> = left_over
        .classes
        .iter()
        .map(|class| (class.size, class.live_blocks))
        .collect();
    assert_eq!(classes, [(size, 3), (0, 1)]);
    let text = report.to_string();
    assert!(text.contains("rows") && text.contains("3 blocks"), "{text}");
    // Late frees are credited to the consumer, which has departed.
    let find = || {
        bursar::consumers()
            .into_iter()
            .find(|consumer| consumer.id == id)
    };
    assert_eq!(find().unwrap().usage.live_blocks, 4);
    drop(left);
    let usage = find().unwrap().usage;
    assert_eq!((usage.live_blocks, usage.live_bytes), (1, of_large));
    thread::spawn(move || drop(large)).join().unwrap();
    assert_eq!(find().map_or(0, |consumer| consumer.usage.live_bytes), 0);
}

/// Also where it takes a while to find out what is left.
#[test]
fn nothing_is_older_than_its_task() {
    let task = MemoryManager::builder("old")
        .patience(Duration::ZERO)
        .begin();
    let rows = task.consumer("rows");
    let mut left = vec![rows.run(block::<100>)];
    left.extend((0..1_000).map(|_| rows.child("batch").run(block::<100>)));
    drop(rows);
    let report = task.end().unwrap();
    assert_eq!(report.left.len(), 1_001);
    assert!(report.left.iter().all(|left| left.age <= report.lasted));
    drop(left);
}

#[test]
fn memory_that_others_are_about_to_free_is_not_left() {
    let task = MemoryManager::builder("patient").patience(LONG).begin();
    let rows = task.consumer("rows").run(block::<10_000>);
    let (started, start) = channel();
    let freer = thread::spawn(move || {
        start.recv().unwrap();
        thread::sleep(Duration::from_millis(30));
        drop(rows);
    });
    started.send(()).unwrap();
    let began = Instant::now();
    let report = task.end().unwrap();
    assert!(report.is_clean(), "{report}");
    assert!(began.elapsed() < LONG / 2, "no longer than it takes");
    freer.join().unwrap();
}

#[test]
fn releases_go_by_priority_and_last_in_first_out() {
    let log = Log::default();
    let task = MemoryManager::begin("ordered");
    for (what, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", -1), ("e", 5)] {
        task.register(log.noting(what), priority).unwrap();
    }
    let early = task.register(log.noting("early"), 9).unwrap();
    early.release().unwrap();
    assert_eq!(log.said(), ["early"]);
    task.end().unwrap();
    assert_eq!(log.said(), ["early", "e", "b", "c", "a", "d"]);
}

#[test]
fn every_release_runs_and_every_fault_is_reported() {
    struct Named(&'static str);
    impl Resource for Named {
        fn name(&self) -> &str {
            self.0
        }
        fn release(&mut self) -> Result<(), Fault> {
            Err(format!("{} is jammed", self.0).into())
        }
    }
    let log = Log::default();
    let task = MemoryManager::begin("faulty");
    task.register(log.noting("last"), 0).unwrap();
    task.register(|| resume_unwind(Box::new("not today")), 1)
        .unwrap();
    task.register(Named("valve"), 2).unwrap();
    task.register(log.noting("first"), 3).unwrap();
    let error = task.end().unwrap_err();
    assert_eq!(log.said(), ["first", "last"]);
    let faults: Vec<_> = error.failures.iter().map(ToString::to_string).collect();
    assert_eq!(
        faults,
        [
            "release of valve: valve is jammed",
            "release of resource: panicked: not today"
        ]
    );
    assert_eq!(
        (&*error.failures[0].resource, error.failures[0].priority),
        ("valve", 2)
    );
    assert!(error.to_string().contains("valve is jammed"));
    assert!(error.report.is_clean(), "{}", error.report);
}

#[test]
fn registering_during_release_or_after_is_an_error_and_gives_the_resource_back() {
    let log = Log::default();
    let task = MemoryManager::begin("closing");
    let handle = task.handle();
    let (inner, noted) = (task.handle(), log.clone());
    task.register(
        move || {
            let refused = inner.register(noted.noting("never"), 100);
            noted.note(if refused.is_err() {
                "refused"
            } else {
                "accepted"
            });
            drop(refused.unwrap_err().resource);
            Ok(())
        },
        0,
    )
    .unwrap();
    task.end().unwrap();
    assert_eq!(log.said(), ["refused"]);
    let mut back = handle.register(log.noting("mine"), 0).unwrap_err().resource;
    back.release().unwrap();
    assert_eq!(log.said(), ["refused", "mine"]);
}

#[test]
fn a_second_release_is_an_error() {
    let task = MemoryManager::begin("twice");
    let handle = task.handle();
    let file = handle.register(|| Ok(()), 0).unwrap();
    assert_eq!(file.with(|_| 1), Ok(1));
    task.end().unwrap();
    assert!(file.with(|_| 1).is_err());
    let failure = file.release().unwrap_err();
    assert_eq!(
        failure.to_string(),
        "release of resource: the resource has been released"
    );
}

#[test]
fn dropping_the_manager_releases_too_also_in_a_panic() {
    let log = Log::default();
    let told = Arc::new(AtomicU64::new(0));
    let tell = Arc::clone(&told);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let task = MemoryManager::builder("dropped")
            .on_end(move |ended| {
                tell.store(1 + ended.is_err() as u64, Ordering::Relaxed);
            })
            .begin();
        task.register(log.noting("released"), 0).unwrap();
        task.register(|| Err("jammed".into()), 0).unwrap();
        panic!("in the middle");
    }));
    assert!(panicked.is_err());
    assert_eq!(log.said(), ["released"]);
    assert_eq!(told.load(Ordering::Relaxed), 2, "told of the failure");
}

#[test]
fn handles_fail_after_the_end() {
    let task = MemoryManager::begin("over");
    let handle = task.handle();
    let rows = handle.consumer("rows").unwrap();
    let bytes = handle.reservation("bytes").unwrap();
    rows.with(|rows| drop(rows.run(block::<64>))).unwrap();
    bytes.with(|bytes| bytes.try_grow(100)).unwrap().unwrap();
    assert_eq!(task.usage().subtree_reserved_bytes, 100);
    let report = task.end().unwrap();
    assert_eq!(report.reservations.len(), 1, "it had not been given back");
    assert_eq!(report.reservations[0].declared_bytes, 100);
    let ended = rows.with(|rows| rows.id()).unwrap_err();
    assert_eq!(
        ended.to_string(),
        format!("task \"over\" (#{}) has ended", handle.id())
    );
    assert!(bytes.with(|bytes| bytes.free()).is_err());
    assert!(handle.consumer("more").is_err());
    assert!(handle.reservation("more").is_err());
    assert!(handle.run(|| panic!("not run")).is_err());
}

#[test]
fn the_end_waits_for_uses_under_way() {
    let task = MemoryManager::builder("busy").patience(LONG).begin();
    let handle = task.handle();
    let (inside, done) = (Arc::new(Barrier::new(2)), Arc::new(AtomicBool::new(false)));
    let worker = {
        let (inside, done) = (Arc::clone(&inside), Arc::clone(&done));
        thread::spawn(move || {
            handle.run(|| {
                inside.wait();
                thread::sleep(Duration::from_millis(30));
                drop(block::<300>());
                done.store(true, Ordering::Release);
            })
        })
    };
    inside.wait();
    let report = task.end().unwrap();
    assert!(done.load(Ordering::Acquire), "the use was waited for");
    assert!(report.is_clean(), "{report}");
    worker.join().unwrap().unwrap();
}

#[test]
fn uses_that_do_not_end_are_reported() {
    let task = MemoryManager::builder("stuck")
        .patience(Duration::from_millis(5))
        .begin();
    let handle = task.handle();
    let rows = handle.consumer("rows").unwrap();
    let ended = rows.with(|_| task.end());
    let report = ended.unwrap().unwrap();
    assert_eq!(report.in_use, 1);
    assert!(!report.is_clean());
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap()
}

#[test]
fn a_handle_is_carried_through_a_tree_of_futures() {
    fn grow(task: TaskHandle, depth: u32) -> std::pin::Pin<Box<dyn Future<Output = u64> + Send>> {
        Box::pin(async move {
            let kept = block::<200>();
            tokio::task::yield_now().await;
            assert_eq!(bursar::current().unwrap().id(), task.id());
            if depth == 0 {
                return kept.len() as u64;
            }
            let children = [0, 1].map(|_| tokio::spawn(task.wrap(grow(task.clone(), depth - 1))));
            let mut sum = kept.len() as u64;
            for child in children {
                sum += child.await.unwrap().unwrap();
            }
            sum
        })
    }
    let runtime = runtime();
    // What tokio allocates for itself the first time is not the task's.
    runtime.block_on(async { tokio::spawn(async {}).await.unwrap() });
    let task = MemoryManager::builder("tree").patience(LONG).begin();
    let handle = task.handle();
    let sum = runtime.block_on(async move {
        let root = handle.wrap(grow(handle.clone(), 5));
        tokio::spawn(root).await.unwrap().unwrap()
    });
    assert_eq!(sum, 200 * 63);
    assert!(task.usage().allocated_blocks >= 63);
    drop(runtime);
    let report = task.end().unwrap();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn futures_of_a_task_that_has_ended_are_dropped() {
    let runtime = runtime();
    let task = MemoryManager::builder("ended")
        .patience(Duration::from_millis(5))
        .begin();
    let handle = task.handle();
    let (tell, over) = tokio::sync::oneshot::channel();
    let future = task.handle().wrap(async {
        let kept = block::<700>();
        over.await.expect("it is told of the end");
        kept.len()
    });
    let spawned = runtime.spawn(future);
    let deadline = Instant::now() + LONG;
    while task.usage().live_bytes < 700 {
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
    let report = task.end().unwrap();
    assert!(report.live_bytes >= 700, "it waits, and holds its block");
    tell.send(()).expect("it waits");
    let output = runtime.block_on(spawned).unwrap();
    assert_eq!(output.unwrap_err().task_id, handle.id());
    let left = bursar::consumers()
        .into_iter()
        .find(|consumer| consumer.id == handle.id());
    assert_eq!(left.map_or(0, |consumer| consumer.usage.live_bytes), 0);
}

#[test]
fn threads_killed_by_a_panic_leave_a_task_that_ends() {
    let task = MemoryManager::begin("panicky");
    for _ in 0..8 {
        let handle = task.handle();
        let thread = thread::spawn(move || {
            let rows = handle.consumer("rows").unwrap();
            rows.with(|rows| {
                let _scope = rows.enter();
                let _kept = block::<400>();
                // Without the hook, whose own memory stays.
                resume_unwind(Box::new("in the middle"))
            })
        });
        assert!(thread.join().is_err());
    }
    let report: EndReport = task.end().unwrap();
    assert_eq!((report.in_use, report.live_bytes), (0, 0), "{report}");
}

#[test]
fn a_file_is_removed_at_the_end() {
    let path = std::env::temp_dir().join(format!("bursar-task-{}", std::process::id()));
    fs::write(&path, "rows").unwrap();
    let task = MemoryManager::begin("spill");
    let removed = path.clone();
    task.register(move || Ok(fs::remove_file(&removed)?), 0)
        .unwrap();
    drop(task);
    assert!(!path.exists());
}
