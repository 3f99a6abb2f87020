//! Reservations: ids, the protocol with their budget, single steps under contention, real bytes
//! beside declared ones.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use allocator_tests::scenarios::scaled;
use bursar::{Budget, Bursar, Consumer, Fair, Greedy, Limits, Reservation, Tracking, Unbounded};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

#[global_allocator]
static GLOBAL: Bursar = Bursar::new();

fn greedy(limit: u64) -> Arc<dyn Budget> {
    Arc::new(Greedy::new(limit))
}

#[test]
fn every_way_to_a_reservation_takes_the_next_number_of_its_consumer() {
    let (budget, other) = (greedy(100), greedy(100));
    let (sort, join) = (Consumer::new("sort"), Consumer::new("sort"));
    let first = sort.register(&budget);
    first.grow(10);
    let of_join = join.register(&budget);
    let empty = first.new_empty();
    let split = first.split(4);
    let taken = split.take();
    let again = sort.clone().register(&other);
    let ids = [&first, &empty, &split, &taken, &again].map(Reservation::id);
    assert_eq!(ids, [0, 1, 2, 3, 4]);
    assert_eq!(of_join.id(), 0, "another consumer counts for itself");
    let sizes = [&first, &empty, &split, &taken, &again].map(Reservation::size);
    assert_eq!(sizes, [6, 0, 0, 4, 0]);
    assert_eq!((budget.reserved(), other.reserved()), (10, 0));
}

#[test]
fn what_a_reservation_has_goes_back_when_it_is_dropped_or_freed() {
    let budget = greedy(100);
    let sort = Consumer::new("sort");
    let first = sort.register(&budget);
    first.try_grow(60).unwrap();
    let second = first.split(25);
    drop(first);
    assert_eq!((budget.reserved(), sort.usage().reserved_bytes), (25, 25));
    assert_eq!(second.free(), 25);
    assert_eq!((second.size(), second.free(), budget.reserved()), (0, 0, 0));
    second.try_grow(100).unwrap();
    drop(second);
    assert_eq!((budget.reserved(), sort.usage().reserved_bytes), (0, 0));
    assert_eq!(sort.usage().peak_reserved_bytes, 100);
}

#[test]
fn growth_may_overshoot_where_tried_growth_is_refused() {
    let budget = greedy(50);
    let sort = Consumer::new("sort").register(&budget);
    sort.grow(100);
    assert_eq!((sort.size(), budget.reserved()), (100, 100));
    let refused = sort.try_grow(1).unwrap_err();
    assert_eq!(
        (refused.size, refused.left, refused.reserved),
        (100, 0, 100)
    );
    assert_eq!(
        (sort.size(), budget.reserved()),
        (100, 100),
        "nothing has changed"
    );
    sort.try_grow(0).unwrap();
    sort.resize(40);
    sort.try_resize(50).unwrap();
    assert_eq!(sort.try_resize(51).unwrap_err().asked, 1);
    assert_eq!((sort.size(), budget.reserved()), (50, 50));
}

#[test]
fn shrinking_below_nothing_is_an_error_that_changes_nothing() {
    let budget = greedy(50);
    let sort = Consumer::new("sort").register(&budget);
    sort.grow(30);
    let error = sort.try_shrink(31).unwrap_err();
    assert_eq!((error.size, error.asked, error.reservation_id), (30, 31, 0));
    assert_eq!(
        error.to_string(),
        format!(
            "reservation 0 of sort (id {}) has 30 B, less than the 31 B that it was to give",
            sort.consumer().id()
        )
    );
    assert_eq!(sort.try_split(31).unwrap_err(), error);
    assert_eq!((sort.size(), budget.reserved()), (30, 30));
    assert_eq!(sort.try_shrink(30), Ok(0));
    for panics in [
        |sort: &Reservation| sort.shrink(1),
        |sort: &Reservation| drop(sort.split(1)),
    ] {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| panics(&sort)));
        assert!(caught.is_err());
    }
    assert_eq!((sort.size(), budget.reserved()), (0, 0));
}

#[test]
fn a_sum_that_no_counter_holds_is_refused() {
    let budget: Arc<dyn Budget> = Arc::new(Unbounded::new());
    let sort = Consumer::new("sort").register(&budget);
    sort.try_grow(1 << 62).unwrap();
    assert_eq!(sort.try_grow(u64::MAX).unwrap_err().left, (1 << 62) - 1);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sort.grow(1 << 62)));
    assert!(caught.is_err());
    assert_eq!((sort.size(), budget.reserved()), (1 << 62, 1 << 62));
}

/// Loading the size and then acting on it would add what is missing once for each thread.
#[test]
fn many_threads_that_set_one_size_set_it_once() {
    let budget = greedy(1000);
    let shared = Consumer::new("shared").register(&budget);
    let barrier = Barrier::new(4);
    thread::scope(|scope| {
        for number in 0..4 {
            let (shared, barrier, budget) = (&shared, &barrier, &budget);
            scope.spawn(move || {
                for round in 1..scaled(20_000, 2_000) {
                    let target = round % 2 * 700 + 100;
                    barrier.wait();
                    match number % 2 {
                        0 => shared.resize(target),
                        // Enough for one, not for two: refused if another has the bytes in hand.
                        _ => drop(shared.try_resize(target)),
                    }
                    barrier.wait();
                    assert_eq!((shared.size(), budget.reserved()), (target, target));
                }
            });
        }
    });
    assert_eq!(shared.consumer().usage().reserved_bytes, shared.size());
}

#[test]
fn setting_a_size_loses_nothing_that_others_add_meanwhile() {
    let budget: Arc<dyn Budget> = Arc::new(Unbounded::new());
    let shared = Consumer::new("shared").register(&budget);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = SmallRng::seed_from_u64(1);
            while !done.load(Relaxed) {
                shared.resize(random.random_range(1000..2000));
            }
        });
        let adders: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..scaled(100_000, 10_000) {
                        shared.grow(3);
                        // Another may have made it smaller.
                        let _ = shared.try_shrink(2);
                    }
                })
            })
            .collect();
        adders.into_iter().for_each(|adder| adder.join().unwrap());
        done.store(true, Relaxed);
    });
    assert_eq!(budget.reserved(), shared.size());
    assert_eq!(shared.consumer().usage().reserved_bytes, shared.size());
    drop(shared);
    assert_eq!(budget.reserved(), 0);
}

/// One random call on one of two reservations, or on one made from them.
fn act(random: &mut SmallRng, own: &mut Reservation, shared: &Reservation) {
    let one = if random.random_ratio(1, 2) {
        &*own
    } else {
        shared
    };
    let bytes = random.random_range(0..40);
    match random.random_range(0..8) {
        0 | 1 => drop(one.try_grow(bytes)),
        2 => drop(one.try_shrink(bytes)),
        3 => drop(one.try_resize(bytes)),
        4 => drop(one.try_split(bytes)),
        5 => {
            let empty = one.new_empty();
            let _ = empty.try_grow(bytes);
        }
        6 => {
            let taken = own.take();
            *own = taken;
        }
        _ => drop(one.free()),
    }
}

#[test]
fn no_number_of_threads_passes_a_limit_or_loses_a_byte() {
    const LIMIT: u64 = 500;
    let budgets: [Arc<dyn Budget>; 3] = [
        greedy(LIMIT),
        Arc::new(Fair::new(LIMIT)),
        Arc::new(Tracking::new(Arc::new(Fair::new(LIMIT).with_reserve(100)))),
    ];
    for budget in budgets {
        let consumers: Vec<_> = (0..6)
            .map(|number| Consumer::new("one of six").with_can_spill(number % 3 > 0))
            .collect();
        let shared: Vec<_> = consumers.iter().map(|one| one.register(&budget)).collect();
        thread::scope(|scope| {
            for (number, consumer) in consumers.iter().enumerate() {
                let (budget, shared) = (&budget, &shared);
                scope.spawn(move || {
                    let mut random = SmallRng::seed_from_u64(number as u64);
                    let mut own = consumer.register(budget);
                    for _ in 0..scaled(100_000, 10_000) {
                        act(&mut random, &mut own, &shared[number / 2]);
                        assert!(budget.reserved() <= LIMIT);
                    }
                });
            }
        });
        let left: u64 = shared.iter().map(Reservation::size).sum();
        assert_eq!(budget.reserved(), left);
        for (consumer, shared) in consumers.iter().zip(&shared) {
            assert_eq!(consumer.usage().reserved_bytes, shared.size());
        }
        drop(shared);
        assert_eq!(budget.reserved(), 0);
        assert!(budget.largest(9).is_empty());
    }
}

#[test]
fn real_bytes_stand_beside_declared_ones_and_stay_where_they_were_allocated() {
    let budget = greedy(1 << 20);
    let sort = Consumer::new("sort");
    let rows = sort.register(&budget);
    rows.try_grow(10_000).unwrap();
    assert_eq!(rows.usage().live_bytes, 0);
    let first = rows.run(|| vec![0u8; 8192]);
    let own = sort.run(|| vec![0u8; 1024]);
    let index = rows.split(6000);
    let taken = rows.take();
    let second = index.run(|| vec![0u8; 2048]);
    let usage = |reservation: &Reservation| {
        let usage = reservation.usage();
        (usage.reserved_bytes, usage.live_bytes, usage.live_blocks)
    };
    assert_eq!(usage(&rows), (0, 8192, 1));
    assert_eq!(usage(&index), (6000, 2048, 1));
    assert_eq!(usage(&taken), (4000, 0, 0));
    assert_eq!(rows.usage().peak_reserved_bytes, 10_000);
    assert_eq!(sort.usage().live_bytes, 8192 + 1024 + 2048);
    assert_eq!(sort.usage().reserved_bytes, 10_000);

    thread::spawn(move || drop(second)).join().unwrap();
    assert_eq!(usage(&index), (6000, 0, 0));
    drop(rows);
    assert_eq!(
        sort.usage().live_bytes,
        8192 + 1024,
        "the consumer has what is left"
    );
    drop((first, own));
    assert_eq!(sort.usage().live_bytes, 0);
}

#[test]
fn what_budgets_keep_is_not_charged_to_whoever_asks() {
    let tracking: Arc<dyn Budget> = Arc::new(Tracking::new(greedy(1 << 20)));
    let host = Consumer::new("host");
    host.run(|| {
        for _ in 0..200 {
            let guest = Consumer::new("guest");
            let reservation = guest.register(&tracking);
            reservation.try_grow(10).unwrap();
            reservation.try_grow(1 << 20).unwrap_err();
        }
    });
    assert_eq!(host.usage().live_bytes, 0);
}

/// A pressure callback runs before the budget is asked, so what it frees counts already.
#[test]
fn reservation_calls_are_safe_points() {
    let budget = greedy(1000);
    let query = Consumer::new("query");
    let cache = Arc::new(query.child("cache").register(&budget));
    let sort = query.child("sort").register(&budget);
    cache.try_grow(900).unwrap();
    let cached = Arc::new(Mutex::new(Vec::new()));
    let filled = cached.clone();
    query.set_limits(Limits::none().soft(1 << 19));
    let (calls, spills) = (Arc::new(AtomicU64::new(0)), cache.clone());
    let counted = calls.clone();
    query.on_pressure(move |_, pressure| {
        assert_eq!(pressure.live_bytes, 1 << 20);
        drop(std::mem::take(&mut *cached.lock().unwrap()));
        spills.free();
        counted.fetch_add(1, Relaxed);
    });
    *filled.lock().unwrap() = cache.run(|| vec![0u8; 1 << 20]);
    sort.try_grow(800).unwrap();
    sort.shrink(100);
    assert_eq!((calls.load(Relaxed), cache.size()), (1, 0));
    assert!(!query.is_pressed());
}
