//! Budgets and limits of tasks: each one's, and those that several share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use allocator_tests::scenarios::scaled;
use bursar::{
    Budget, Bursar, Greedy, Limits, MemoryManager, Reclaim, TaskReservation, running_tasks,
};

#[global_allocator]
static GLOBAL: Bursar = Bursar::new();

#[test]
fn tasks_share_a_budget_and_the_largest_spills_first() {
    struct Spills(Mutex<u64>, TaskReservationHolder);
    type TaskReservationHolder = Arc<bursar::Lent<TaskReservation<'static>>>;
    impl Reclaim for Spills {
        fn reclaim(&self, wanted: u64) -> u64 {
            *self.0.lock().unwrap() += wanted;
            self.1.with(|reservation| reservation.free()).unwrap_or(0)
        }
    }
    let all: Arc<dyn Budget> = Arc::new(Greedy::new(1000));
    let tasks: Vec<_> = ["small", "large", "asking"]
        .map(|name| MemoryManager::builder(name).budget(&all).limit(800).begin())
        .into();
    let spilling = |task: &MemoryManager, bytes: u64| {
        let consumer = task.handle();
        let held = Arc::new(consumer.spilling_reservation("cache").unwrap());
        let spills = Arc::new(Spills(Mutex::new(0), Arc::clone(&held)));
        held.with(|reservation| {
            reservation.try_grow(bytes).unwrap();
            reservation.on_shortage(&spills);
        })
        .unwrap();
        spills
    };
    let small = spilling(&tasks[0], 200);
    let large = [spilling(&tasks[1], 250), spilling(&tasks[1], 350)];
    assert_eq!(all.reserved(), 800);
    let asking = tasks[2].reservation("rows");
    asking.try_grow(300).unwrap();
    let asked = |spills: &Arc<Spills>| *spills.0.lock().unwrap();
    assert_eq!(asked(&small), 0, "not the largest");
    assert_eq!(
        large.each_ref().map(asked),
        [0, 100],
        "the largest of the largest"
    );
    assert_eq!(all.reserved(), 200 + 250 + 300);
    // A task's own limit is its own matter.
    let refused = asking.try_grow(501).unwrap_err();
    assert_eq!((refused.left, refused.limit), (500, Some(800)));
    // And where the others cannot give enough, the sum is kept.
    let refused = asking.try_grow(499).map(|()| all.reserved());
    assert!(refused.is_ok_and(|reserved| reserved <= 1000));
    for running in &running_tasks() {
        if running.id == tasks[2].id() {
            assert_eq!((running.reserved_bytes, running.limit), (799, Some(800)));
        }
    }
    assert!(running_tasks().to_string().contains("asking (#"));
    drop(asking);
    for task in tasks {
        task.end().unwrap();
    }
    assert_eq!(all.reserved(), 0, "the end gives back");
}

#[test]
fn what_the_sum_refuses_is_not_declared_within_the_task_either() {
    let all: Arc<dyn Budget> = Arc::new(Greedy::new(100));
    let begin = |name| MemoryManager::builder(name).budget(&all).limit(60).begin();
    let (first, second) = (begin("first"), begin("second"));
    let (held, asking) = (first.reservation("held"), second.reservation("asking"));
    held.try_grow(60).unwrap();
    let refused = asking.try_grow(50).unwrap_err();
    assert_eq!(
        (refused.left, refused.limit, refused.consumer_id),
        (40, Some(100), second.id())
    );
    assert_eq!((asking.size(), all.reserved()), (0, 60));
    held.free();
    asking.try_grow(60).unwrap();
    assert_eq!(asking.try_grow(1).unwrap_err().limit, Some(60));
}

#[test]
fn a_task_that_is_short_asks_its_own_consumers_where_no_other_task_can_give() {
    struct Cache(Arc<bursar::Lent<TaskReservation<'static>>>);
    impl Reclaim for Cache {
        fn reclaim(&self, _: u64) -> u64 {
            self.0.with(|reservation| reservation.free()).unwrap_or(0)
        }
    }
    let all: Arc<dyn Budget> = Arc::new(Greedy::new(100));
    let task = MemoryManager::builder("alone").budget(&all).begin();
    let held = Arc::new(task.handle().spilling_reservation("cache").unwrap());
    let cache = Arc::new(Cache(Arc::clone(&held)));
    held.with(|reservation| {
        reservation.on_shortage(&cache);
        reservation.try_grow(60)
    })
    .unwrap()
    .unwrap();
    task.reservation("rows").try_grow(60).unwrap();
    assert_eq!(held.with(|reservation| reservation.size()), Ok(0));
}

#[test]
fn under_contention_the_sum_is_never_exceeded() {
    let all: Arc<dyn Budget> = Arc::new(Greedy::new(10_000));
    let over = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let (all, over) = (Arc::clone(&all), Arc::clone(&over));
            thread::spawn(move || {
                let task = MemoryManager::builder(format!("task {number}"))
                    .budget(&all)
                    .limit(6000)
                    .begin();
                let rows = task.reservation("rows");
                for step in 0..scaled(20_000, 1) {
                    let bytes = (step * 37 + number * 11) % 2500;
                    if rows.try_grow(bytes).is_err() {
                        rows.free();
                    }
                    if all.reserved() > 10_000 || rows.size() > 6000 {
                        over.store(true, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert!(!over.load(Ordering::Relaxed));
    assert_eq!(all.reserved(), 0);
}

#[test]
fn a_hard_limit_on_real_bytes_holds_for_the_whole_task() {
    let task = MemoryManager::builder("limited")
        .limits(Limits::none().hard(1 << 20))
        .begin();
    let rows = task.consumer("rows");
    let mut bytes: Vec<u8> = Vec::new();
    assert!(rows.try_run(|| bytes.try_reserve_exact(2 << 20)).is_err());
    assert!(rows.try_run(|| bytes.try_reserve_exact(1 << 19)).is_ok());
    drop((bytes, rows));
    assert!(task.end().unwrap().is_clean());
}
