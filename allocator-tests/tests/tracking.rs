//! `Tracking`: peaks, reservations, refusals, finished consumers, and sums that hold at all times.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use allocator_tests::scenarios::scaled;
use bursar::{Budget, Bursar, Claim, Consumer, Greedy, Reservation, Tracking, Unbounded};

#[global_allocator]
static GLOBAL: Bursar = Bursar::new();

fn fixed(name: &str, budget: &Arc<dyn Budget>) -> Reservation {
    Consumer::new(name).register(budget)
}

#[test]
fn peaks_reservations_and_refusals_are_seen() {
    let tracking = Arc::new(Tracking::new(Arc::new(Greedy::new(100))));
    let budget: Arc<dyn Budget> = tracking.clone();
    let (sort, scan) = (fixed("sort", &budget), fixed("scan", &budget));
    sort.try_grow(70).unwrap();
    scan.try_grow(40).unwrap_err();
    sort.shrink(50);
    scan.grow(40);
    let split = sort.split(15);
    let report = tracking.report();
    assert_eq!(
        (report.declared_bytes, report.peak_declared_bytes),
        (60, 70)
    );
    assert_eq!((report.limit, &*report.budget), (Some(100), "greedy"));
    let [first, second] = &report.consumers[..] else {
        panic!("{report}")
    };
    assert_eq!(
        (first.consumer_id, first.declared_bytes, first.refusals),
        (scan.consumer().id(), 40, 1)
    );
    assert_eq!(
        (second.declared_bytes, second.peak_declared_bytes),
        (20, 70)
    );
    let parts = second.reservations.iter();
    let parts: Vec<_> = parts
        .map(|part| {
            (
                part.reservation_id,
                part.declared_bytes,
                part.peak_declared_bytes,
            )
        })
        .collect();
    assert_eq!(parts, [(0, 5, 70), (split.id(), 15, 15)]);
    assert_eq!(tracking.top(1).consumers, report.consumers[..1]);

    let text = report.to_string();
    assert!(
        text.starts_with("greedy budget: 60 B of 100 B declared, at most 70 B\n"),
        "{text}"
    );
    let row = format!(
        "            40             40              0 {:>14}        1  scan (id {})",
        0,
        scan.consumer().id()
    );
    assert_eq!(text.lines().nth(2), Some(&*row));
}

#[test]
fn consumers_that_finished_are_kept_for_a_while() {
    let tracking = Arc::new(Tracking::new(Arc::new(Unbounded::new())).keeping(2));
    let budget: Arc<dyn Budget> = tracking.clone();
    for number in 1..=5 {
        let one = fixed("one", &budget);
        one.grow(number * 10);
        drop(one.take());
        assert_eq!(tracking.report().consumers.len(), 1);
        assert_eq!(tracking.report().consumers[0].reservations.len(), 1);
    }
    let report = tracking.report();
    assert!(report.consumers.is_empty());
    let peaks: Vec<_> = report
        .finished
        .iter()
        .map(|one| one.peak_declared_bytes)
        .collect();
    assert_eq!((peaks, report.forgotten), (vec![50, 40], 3));
    assert!(
        report
            .to_string()
            .contains(", finished\nand 3 that finished before\n")
    );
    assert_eq!((report.declared_bytes, report.peak_declared_bytes), (0, 50));
}

#[test]
fn parts_sum_to_the_whole_while_threads_are_at_work() {
    let tracking = Arc::new(Tracking::new(Arc::new(Greedy::new(1000))));
    let budget: Arc<dyn Budget> = tracking.clone();
    let running = AtomicUsize::new(3);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for round in 0..scaled(50_000, 5_000) {
                    let one = fixed("one", &budget);
                    let _ = one.try_grow(round % 500);
                    let two = one.split(one.size() / 3);
                    drop(one);
                    drop(two);
                }
                running.fetch_sub(1, Relaxed);
            });
        }
        while running.load(Relaxed) > 0 {
            let report = tracking.report();
            let sum: u64 = report.consumers.iter().map(|one| one.declared_bytes).sum();
            assert_eq!(sum, report.declared_bytes);
            assert!(sum <= 1000 && report.peak_declared_bytes <= 1000);
            for one in &report.consumers {
                let parts = one.reservations.iter().map(|part| part.declared_bytes);
                assert_eq!(parts.sum::<u64>(), one.declared_bytes);
            }
        }
    });
    assert_eq!(tracking.report().declared_bytes, 0);
}

#[test]
fn real_bytes_stand_beside_declared_ones_to_the_end() {
    let tracking = Arc::new(Tracking::new(Arc::new(Greedy::new(1 << 20))));
    let budget: Arc<dyn Budget> = tracking.clone();
    let sort = fixed("sort", &budget);
    sort.try_grow(100).unwrap();
    let rows = sort.run(|| vec![0u8; 512 << 10]);
    let tracked = tracking.report().consumers[0].clone();
    assert_eq!(
        (tracked.declared_bytes, tracked.real_bytes),
        (100, 512 << 10)
    );
    drop(rows);
    drop(sort);
    let tracked = tracking.report().finished[0].clone();
    assert_eq!((tracked.declared_bytes, tracked.real_bytes), (0, 0));
    assert!(tracked.peak_real_bytes >= 512 << 10);
}

/// A bridge to another library may make claims without a registration.
#[test]
fn claims_without_a_registration_end_with_their_last() {
    let tracking = Tracking::new(Arc::new(Greedy::new(1000)));
    let consumer = Consumer::new("bridged");
    tracking.grow(&Claim::new(&consumer, 7, 0), 100);
    assert_eq!(tracking.report().consumers.len(), 1);
    tracking.shrink(&Claim::new(&consumer, 7, 0), 100);
    tracking.close(&Claim::new(&consumer, 7, 0));
    let report = tracking.report();
    assert_eq!((report.consumers.len(), report.finished.len()), (0, 1));
    let id = consumer.id();
    drop(consumer);
    let _ = bursar::report();
    assert!(bursar::consumers().iter().all(|listed| listed.id != id));
}
