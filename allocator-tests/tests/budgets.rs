//! Budgets: fair shares, admission by real bytes, errors, budgets from outside.

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use allocator_tests::scenarios::scaled;
use bursar::{
    Budget, BudgetError, Bursar, Claim, Consumer, Fair, Greedy, RealBytes, Reservation, Tracking,
};

#[global_allocator]
static GLOBAL: Bursar = Bursar::new();

fn fixed(name: &str, budget: &Arc<dyn Budget>) -> Reservation {
    Consumer::new(name).register(budget)
}

fn spillable(name: &str, budget: &Arc<dyn Budget>) -> Reservation {
    Consumer::new(name).with_can_spill(true).register(budget)
}

mod fair {
    use super::*;

    fn fair(limit: u64) -> Arc<dyn Budget> {
        Arc::new(Fair::new(limit))
    }

    #[test]
    fn idle_registrants_take_no_share() {
        let budget = fair(100);
        let idle: Vec<_> = (0..50).map(|_| spillable("idle", &budget)).collect();
        let (sort, join) = (spillable("sort", &budget), spillable("join", &budget));
        sort.try_grow(100).unwrap();
        sort.shrink(50);
        join.try_grow(50).unwrap();
        assert_eq!(sort.try_grow(1).unwrap_err().left, 0);
        drop(join);
        sort.try_grow(50).unwrap();
        assert!(idle.iter().all(|idle| idle.size() == 0));
    }

    #[test]
    fn a_share_is_a_consumers_however_many_reservations_it_has() {
        let budget = fair(100);
        let (sort, join) = (spillable("sort", &budget), spillable("join", &budget));
        join.try_grow(10).unwrap();
        let parts: Vec<_> = (0..10).map(|_| sort.new_empty()).collect();
        let again = sort.consumer().register(&budget);
        let granted = parts.iter().filter(|part| part.try_grow(7).is_ok()).count();
        assert_eq!(granted, 7, "49 of 50");
        assert_eq!(again.try_grow(2).unwrap_err().left, 1);
        again.try_grow(1).unwrap();
        join.try_grow(40).unwrap();
    }

    /// What the unspillable hold is not divided, and what has been given is not taken.
    #[test]
    fn shares_are_of_what_the_unspillable_leave() {
        let budget = fair(100);
        let (sort, join) = (spillable("sort", &budget), spillable("join", &budget));
        let scan = fixed("scan", &budget);
        scan.try_grow(20).unwrap();
        sort.try_grow(80).unwrap();
        assert_eq!(
            join.try_grow(1).unwrap_err().left,
            0,
            "all is taken, if unfairly"
        );
        assert_eq!(sort.size(), 80);
        sort.shrink(45);
        assert_eq!(join.try_grow(41).unwrap_err().left, 40);
        join.try_grow(40).unwrap();
        assert_eq!(sort.try_grow(6).unwrap_err().left, 5);
        scan.grow(200);
        assert_eq!(sort.try_grow(1).unwrap_err().left, 0);
    }

    #[test]
    fn the_unspillable_get_what_was_refused_to_them_before_anybody_takes_it() {
        let budget = Arc::new(Fair::new(100).with_patience(Duration::MAX)) as Arc<dyn Budget>;
        let (sort, join) = (spillable("sort", &budget), spillable("join", &budget));
        let (scan, late) = (fixed("scan", &budget), spillable("late", &budget));
        join.try_grow(40).unwrap();
        sort.try_grow(50).unwrap();
        assert_eq!(scan.try_grow(30).unwrap_err().left, 10);
        sort.shrink(20);
        for other in [&sort, &join, &late] {
            assert_eq!(other.try_grow(1).unwrap_err().left, 0, "30 are owed");
        }
        scan.try_grow(30).unwrap();
        assert_eq!(budget.reserved(), 100);
        join.shrink(30);
        late.try_grow(23).unwrap();
    }

    #[test]
    fn a_refused_request_holds_room_only_while_it_may_be_repeated() {
        let refuse = |patience: Duration| {
            let budget = Arc::new(Fair::new(100).with_patience(patience)) as Arc<dyn Budget>;
            let (sort, scan) = (spillable("sort", &budget), fixed("scan", &budget));
            scan.try_grow(10).unwrap();
            sort.try_grow(90).unwrap();
            scan.try_grow(20).unwrap_err();
            sort.shrink(20);
            (sort, scan)
        };
        let (sort, _scan) = refuse(Duration::MAX);
        assert_eq!(sort.try_grow(1).unwrap_err().left, 0);
        let (sort, _scan) = refuse(Duration::ZERO);
        sort.try_grow(20).unwrap();
        let (sort, scan) = refuse(Duration::MAX);
        scan.shrink(1);
        sort.try_grow(21).unwrap();
        let (sort, scan) = refuse(Duration::MAX);
        drop(scan);
        sort.try_grow(30).unwrap();
    }

    #[test]
    fn more_than_an_equal_part_is_not_owed_to_anybody() {
        let budget = Arc::new(Fair::new(100).with_patience(Duration::MAX)) as Arc<dyn Budget>;
        let (sort, scan) = (spillable("sort", &budget), fixed("scan", &budget));
        sort.try_grow(90).unwrap();
        scan.try_grow(51).unwrap_err();
        sort.try_grow(10).unwrap();
        scan.try_grow(50).unwrap_err();
        sort.shrink(50);
        sort.try_grow(1).unwrap_err();
        scan.try_grow(50).unwrap();
    }

    #[test]
    fn a_reserve_is_there_for_the_unspillable_without_anybodys_help() {
        let budget: Arc<dyn Budget> = Arc::new(Fair::new(100).with_reserve(30));
        let (sort, scan) = (spillable("sort", &budget), fixed("scan", &budget));
        assert_eq!(sort.try_grow(100).unwrap_err().left, 70);
        sort.try_grow(70).unwrap();
        scan.try_grow(10).unwrap();
        sort.try_grow(1).unwrap_err();
        scan.try_grow(20).unwrap();
        assert_eq!(scan.try_grow(1).unwrap_err().left, 0);
    }

    /// Spillable consumers take all they get and spill half of what they have when refused. Once
    /// each has done so since a request of the unspillable one was refused, that request succeeds.
    #[test]
    fn the_unspillable_are_not_starved_by_many_threads() {
        const LIMIT: u64 = 120;
        let budget = Arc::new(Fair::new(LIMIT).with_patience(Duration::MAX)) as Arc<dyn Budget>;
        let scan = fixed("scan", &budget);
        let done = AtomicBool::new(false);
        let spills = [const { AtomicU64::new(0) }; 3];
        let counted = || spills.each_ref().map(|count| count.load(SeqCst));
        thread::scope(|scope| {
            for spills in &spills {
                let (budget, done) = (&budget, &done);
                scope.spawn(move || {
                    let sort = spillable("sort", budget);
                    while !done.load(Relaxed) {
                        if sort.try_grow(1).is_err() {
                            sort.shrink(sort.size().div_ceil(2));
                            spills.fetch_add(1, SeqCst);
                        }
                        assert!(budget.reserved() <= LIMIT);
                    }
                });
            }
            let is_starved = (0..scaled(2_000, 500)).any(|_| {
                // Until the others have taken too much.
                while scan.try_grow(LIMIT / 4).is_ok() {
                    scan.free();
                    thread::yield_now();
                }
                let before = counted();
                // Two each: one may have been under way at the refusal.
                while !(counted().iter().zip(before)).all(|(now, then)| *now >= then + 2) {
                    thread::yield_now();
                }
                let is_granted = scan.try_grow(LIMIT / 4).is_ok();
                scan.free();
                !is_granted
            });
            done.store(true, Relaxed);
            assert!(!is_starved);
        });
        assert_eq!(budget.reserved(), 0);
    }
}

mod real {
    use super::*;

    const KIB: u64 = 1024;

    fn real(limit: u64) -> Arc<dyn Budget> {
        Arc::new(RealBytes::new(limit))
    }

    #[test]
    fn what_is_held_undeclared_leaves_no_room_to_others() {
        let budget = real(1024 * KIB);
        let (cache, sort) = (fixed("cache", &budget), fixed("sort", &budget));
        let held = cache.consumer().run(|| vec![0u8; 896 << 10]);
        let refused = sort.try_grow(200 * KIB).unwrap_err();
        assert_eq!(refused.left, 128 * KIB);
        let largest = &refused.largest[0];
        assert_eq!((&*largest.name, largest.declared_bytes), ("cache", 0));
        assert_eq!(largest.real_bytes, 896 * KIB);
        // To declare what it holds takes no further room.
        cache.try_grow(896 * KIB).unwrap();
        let refused = sort.try_grow(200 * KIB).unwrap_err();
        assert_eq!(refused.left, 128 * KIB);
        assert_eq!(refused.largest[0].declared_bytes, 896 * KIB);
        cache.free();
        drop(held);
        sort.try_grow(1024 * KIB).unwrap();
    }

    #[test]
    fn two_requests_never_count_on_the_same_room() {
        let budget = real(1024 * KIB);
        let (sort, join) = (fixed("sort", &budget), fixed("join", &budget));
        sort.try_grow(640 * KIB).unwrap();
        assert_eq!(join.try_grow(640 * KIB).unwrap_err().left, 384 * KIB);
        let rows = sort.run(|| vec![0u8; 640 << 10]);
        assert_eq!(join.try_grow(640 * KIB).unwrap_err().left, 384 * KIB);
        join.try_grow(384 * KIB).unwrap();
        drop(rows);
        assert_eq!(
            join.try_grow(1).unwrap_err().left,
            0,
            "it may allocate them again"
        );
        sort.free();
        join.try_grow(640 * KIB).unwrap();
    }

    #[test]
    fn whoever_really_holds_most_is_asked_first() {
        let budget = real(1024 * KIB);
        let cache = spillable("cache", &budget);
        let declares = spillable("declares", &budget);
        declares.try_grow(64 * KIB).unwrap();
        let cached = Mutex::new(cache.run(|| vec![0u8; 960 << 10]));
        let spill = Arc::new(move |_: u64| {
            let freed = std::mem::take(&mut *cached.lock().unwrap());
            freed.len() as u64
        });
        cache.on_shortage(&spill);
        let never = Arc::new(|_: u64| -> u64 { panic!("not the largest") });
        declares.on_shortage(&never);
        fixed("sort", &budget).try_grow(100 * KIB).unwrap();
        assert_eq!(cache.usage().live_bytes, 0);
    }

    #[test]
    fn threads_that_allocate_what_was_admitted_stay_within_the_limit() {
        const LIMIT: u64 = 512 * KIB;
        let budget = real(LIMIT);
        let consumers: Vec<_> = (0..4).map(|_| Consumer::new("worker")).collect();
        let allocated = AtomicU64::new(0);
        thread::scope(|scope| {
            for (number, consumer) in consumers.iter().enumerate() {
                let (budget, allocated) = (&budget, &allocated);
                scope.spawn(move || {
                    let worker = consumer.register(budget);
                    for round in 0..scaled(10_000, 1_000) {
                        let bytes = 1 << (12 + (round + number as u64) % 7);
                        // Nobody who waits holds anything, so each is admitted in the end.
                        while worker.try_grow(bytes).is_err() {
                            thread::yield_now();
                        }
                        let block = worker.run(|| Vec::<u8>::with_capacity(bytes as usize));
                        assert!(allocated.fetch_add(bytes, Relaxed) + bytes <= LIMIT);
                        assert_eq!(worker.usage().live_bytes, bytes);
                        allocated.fetch_sub(bytes, Relaxed);
                        drop(block);
                        worker.shrink(bytes);
                    }
                });
            }
        });
        assert!(consumers.iter().all(|one| one.usage().live_bytes == 0));
    }
}

#[test]
fn an_error_names_the_requester_and_the_largest_holders() {
    let budget: Arc<dyn Budget> = Arc::new(Greedy::new(100 << 10));
    let (join, sort) = (spillable("join", &budget), fixed("sort", &budget));
    let hash_table = join.run(|| vec![0u8; 64 << 10]);
    join.try_grow(60 << 10).unwrap();
    sort.try_grow(10 << 10).unwrap();
    let others: Vec<_> = (0..6).map(|_| fixed("small", &budget)).collect();
    others.iter().for_each(|other| other.try_grow(10).unwrap());
    let refused = sort.new_empty().try_grow(50 << 10).unwrap_err();

    let (join_id, sort_id) = (join.consumer().id(), sort.consumer().id());
    assert_eq!((&*refused.budget, &*refused.consumer), ("greedy", "sort"));
    assert_eq!((refused.consumer_id, refused.reservation_id), (sort_id, 1));
    assert_eq!((refused.size, refused.asked), (0, 50 << 10));
    assert_eq!(
        (refused.left, refused.reserved),
        ((30 << 10) - 60, (70 << 10) + 60)
    );
    assert_eq!(refused.limit, Some(100 << 10));
    let largest: Vec<_> = refused.largest.iter().map(|one| one.consumer_id).collect();
    assert_eq!((largest.len(), &largest[..2]), (5, &[join_id, sort_id][..]));
    let first = &refused.largest[0];
    assert_eq!(
        (first.declared_bytes, first.real_bytes, first.can_spill),
        (60 << 10, 64 << 10, true)
    );
    assert!(
        refused.to_string().starts_with(&format!(
            "the greedy budget of 100.0 KiB refuses 50.0 KiB to sort (id {sort_id}, reservation \
             1), which has 0 B: 29.9 KiB are left; the largest holders: join (id {join_id}) 60.0 \
             KiB declared, 64.0 KiB real, sort (id {sort_id}) 10.0 KiB declared, 0 B real, small "
        )),
        "{refused}"
    );
    drop(hash_table);
}

/// A policy of somebody else, by hand: bytes in slots of a page.
#[derive(Debug)]
struct Pages {
    pages: u64,
    used: AtomicU64,
}

const PAGE: u64 = 4096;

impl Budget for Pages {
    fn name(&self) -> &str {
        "pages"
    }

    fn reserved(&self) -> u64 {
        self.used.load(Relaxed) * PAGE
    }

    fn grow(&self, claim: &Claim<'_>, bytes: u64) {
        let more = (claim.size() + bytes).div_ceil(PAGE) - claim.size().div_ceil(PAGE);
        self.used.fetch_add(more, Relaxed);
    }

    fn try_grow(&self, claim: &Claim<'_>, bytes: u64) -> Result<(), BudgetError> {
        let left = (self.pages - self.used.load(Relaxed)) * PAGE;
        if bytes > left {
            return Err(BudgetError::new(self, claim, bytes, left));
        }
        self.grow(claim, bytes);
        Ok(())
    }

    fn shrink(&self, claim: &Claim<'_>, bytes: u64) {
        let less = (claim.size() + bytes).div_ceil(PAGE) - claim.size().div_ceil(PAGE);
        self.used.fetch_sub(less, Relaxed);
    }
}

/// What it sees in the claim is the size before growth and after shrinking.
#[test]
fn a_budget_from_outside_sees_the_protocol() {
    let pages: Arc<dyn Budget> = Arc::new(Pages {
        pages: 3,
        used: AtomicU64::new(0),
    });
    let budget: Arc<dyn Budget> = Arc::new(Tracking::new(pages.clone()));
    let sort = fixed("sort", &budget);
    sort.try_grow(100).unwrap();
    sort.try_grow(PAGE).unwrap();
    assert_eq!(pages.reserved(), 2 * PAGE);
    let refused = sort.try_resize(4 * PAGE).unwrap_err();
    assert_eq!(refused.asked, 4 * PAGE - 100 - PAGE);
    assert!(
        refused
            .to_string()
            .starts_with("the pages budget refuses 11.9 KiB to sort (id ")
    );
    sort.shrink(101);
    assert_eq!((sort.size(), pages.reserved()), (PAGE - 1, PAGE));
    sort.resize(2 * PAGE);
    assert_eq!(pages.reserved(), 2 * PAGE);
    drop(sort);
    assert_eq!(pages.reserved(), 0);
}

/// As a bridge to another library's pool would use it.
#[test]
fn a_budget_may_be_used_without_reservations() {
    let budget = Fair::new(100);
    let sort = Consumer::new("sort").with_can_spill(true);
    let claim = |size| Claim::new(&sort, 7, size);
    budget.try_grow(&claim(0), 90).unwrap();
    let refused = budget.try_grow(&claim(90), 11).unwrap_err();
    assert_eq!(
        (refused.reservation_id, refused.size, refused.left),
        (7, 90, 10)
    );
    assert_eq!(budget.largest(5)[0].declared_bytes, 90);
    budget.shrink(&claim(0), 90);
    assert_eq!((budget.reserved(), budget.largest(5).len()), (0, 0));
}
