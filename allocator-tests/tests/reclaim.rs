//! Asking others to free memory before a request is refused: whom, in which order, and what they
//! may do meanwhile.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;

use allocator_tests::scenarios::scaled;
use bursar::{Budget, Bursar, Consumer, Fair, Greedy, RealBytes, Reclaim, Reservation, Tracking};

#[global_allocator]
static GLOBAL: Bursar = Bursar::new();

fn fixed(name: &str, budget: &Arc<dyn Budget>) -> Reservation {
    Consumer::new(name).register(budget)
}

fn spillable(name: &str, budget: &Arc<dyn Budget>) -> Reservation {
    Consumer::new(name).with_can_spill(true).register(budget)
}

/// Gives back all that it has, or as much as it is willing to, and notes what it was asked.
struct Spiller {
    reservation: Reservation,
    willing: u64,
    asked: Mutex<Vec<u64>>,
}

impl Reclaim for Spiller {
    fn reclaim(&self, wanted: u64) -> u64 {
        self.asked.lock().unwrap().push(wanted);
        let freed = self.willing.min(self.reservation.size());
        // Another thread may have asked at the same time.
        self.reservation.try_shrink(freed).map_or(0, |_| freed)
    }
}

fn spiller(reservation: Reservation, holds: u64, willing: u64) -> Arc<Spiller> {
    reservation.try_grow(holds).unwrap();
    let spiller = Arc::new(Spiller {
        reservation,
        willing,
        asked: Mutex::default(),
    });
    spiller.reservation.on_shortage(&spiller);
    spiller
}

fn asked(spiller: &Spiller) -> Vec<u64> {
    std::mem::take(&mut spiller.asked.lock().unwrap())
}

#[test]
fn the_largest_that_can_spill_are_asked_in_turn_until_there_is_room() {
    let budget: Arc<dyn Budget> = Arc::new(Greedy::new(100));
    let small = spiller(spillable("small", &budget), 2, u64::MAX);
    let large = spiller(spillable("large", &budget), 20, 5);
    let medium = spiller(spillable("medium", &budget), 10, u64::MAX);
    let cannot = spiller(fixed("cannot", &budget), 33, u64::MAX);
    let own = spiller(spillable("requester", &budget), 35, u64::MAX);
    own.reservation
        .try_grow(8)
        .unwrap_or_else(|refused| panic!("{refused}"));
    assert_eq!(asked(&large), [8]);
    assert_eq!(asked(&medium), [3]);
    for untouched in [&small, &cannot, &own] {
        assert!(asked(untouched).is_empty());
    }
    assert_eq!(budget.reserved(), 93);
}

#[test]
fn nobody_is_asked_for_what_cannot_be_met() {
    let budget: Arc<dyn Budget> = Arc::new(Greedy::new(100));
    let cache = spiller(spillable("cache", &budget), 50, u64::MAX);
    let scan = fixed("scan", &budget);
    scan.try_grow(40).unwrap();
    assert_eq!(scan.try_grow(61).unwrap_err().left, 10);
    assert!(asked(&cache).is_empty());
    scan.try_grow(60).unwrap();
    assert_eq!(asked(&cache), [50]);
}

#[test]
fn who_is_gone_is_not_asked() {
    let budget: Arc<dyn Budget> = Arc::new(Greedy::new(100));
    let cache = spillable("cache", &budget);
    cache.try_grow(100).unwrap();
    let calls = Arc::new(AtomicU64::new(0));
    let counted = calls.clone();
    let closure = Arc::new(move |_: u64| {
        counted.fetch_add(1, Relaxed);
        0
    });
    cache.on_shortage(&closure);
    let scan = fixed("scan", &budget);
    scan.try_grow(1).unwrap_err();
    assert_eq!(calls.load(Relaxed), 1);
    drop(closure);
    scan.try_grow(1).unwrap_err();
    assert_eq!(calls.load(Relaxed), 1);
}

#[test]
fn no_lock_is_held_while_others_are_asked() {
    let budget: Arc<dyn Budget> = Arc::new(Tracking::new(Arc::new(Greedy::new(100))));
    let bystander = spiller(spillable("bystander", &budget), 10, u64::MAX);
    let cache = Arc::new(spillable("cache", &budget));
    cache.try_grow(90).unwrap();
    let requester = Arc::new(fixed("requester", &budget));
    let (mine, seen, theirs) = (cache.clone(), budget.clone(), requester.clone());
    let callback = Arc::new(move |wanted: u64| {
        assert_eq!((wanted, seen.reserved()), (50, 100));
        assert_eq!(seen.largest(1)[0].consumer_id, mine.consumer().id());
        assert_eq!(theirs.try_grow(50).unwrap_err().left, 0, "asks nobody");
        mine.try_grow(1).unwrap_err();
        // Other threads get through, too.
        thread::scope(|scope| scope.spawn(|| mine.shrink(70)).join().unwrap());
        let helper = fixed("helper", &seen);
        helper.try_grow(10).unwrap();
        drop(mine.split(5));
        mine.resize(8);
        theirs.try_grow(1).unwrap();
        drop(helper);
        82
    });
    cache.on_shortage(&callback);
    requester.try_grow(50).unwrap();
    assert_eq!(
        (requester.size(), cache.size(), budget.reserved()),
        (51, 8, 69)
    );
    assert!(asked(&bystander).is_empty());
}

#[test]
fn a_callback_that_panics_leaves_nothing_behind() {
    let budget: Arc<dyn Budget> = Arc::new(Greedy::new(100));
    let cache = spillable("cache", &budget);
    cache.try_grow(100).unwrap();
    let panics = Arc::new(|_: u64| -> u64 { panic!("cannot spill now") });
    cache.on_shortage(&panics);
    let scan = fixed("scan", &budget);
    for _ in 0..2 {
        let request = std::panic::AssertUnwindSafe(|| scan.try_resize(10));
        std::panic::catch_unwind(request).unwrap_err();
        assert_eq!((scan.size(), budget.reserved()), (0, 100));
    }
    drop(panics);
    let spiller = Arc::new(move |_: u64| cache.free());
    // The thread asks again.
    let other = spillable("other", &budget);
    other.on_shortage(&spiller);
    assert_eq!(
        scan.try_grow(10).unwrap_err().left,
        0,
        "the other holds nothing"
    );
    drop((other, spiller));
    scan.try_grow(10).unwrap();
}

/// The fair budget asks for whoever is below a share, and those above it only.
#[test]
fn the_fair_budget_asks_those_above_their_share_only() {
    let budget: Arc<dyn Budget> = Arc::new(Fair::new(90));
    let small = spiller(spillable("small", &budget), 20, u64::MAX);
    let large = spiller(spillable("large", &budget), 25, 0);
    large.reservation.grow(45); // beyond its share of 45
    let new = spillable("new", &budget);
    assert_eq!(new.try_grow(20).unwrap_err().left, 0);
    assert_eq!(asked(&large), [20]);
    assert!(asked(&small).is_empty());
    new.try_grow(31).unwrap_err();
    assert!(asked(&large).is_empty(), "30 are its share, whoever spills");
    fixed("scan", &budget).try_grow(10).unwrap();
    assert_eq!(asked(&large), [10]);
    assert_eq!(asked(&small), [10]);
}

#[test]
fn many_threads_that_ask_each_other_never_pass_the_limit() {
    const LIMIT: u64 = 1000;
    let budgets: [Arc<dyn Budget>; 3] = [
        Arc::new(Greedy::new(LIMIT)),
        Arc::new(Fair::new(LIMIT)),
        Arc::new(RealBytes::new(LIMIT)),
    ];
    for budget in budgets {
        let spillers: Vec<_> = (0..4)
            .map(|_| spiller(spillable("spiller", &budget), 0, u64::MAX))
            .collect();
        thread::scope(|scope| {
            for (number, spiller) in spillers.iter().enumerate() {
                let budget = &budget;
                scope.spawn(move || {
                    for round in 0..scaled(20_000, 2_000) {
                        // Others may take it away at any moment.
                        let _ = spiller.reservation.try_grow(round % 7 * 50 + number as u64);
                        assert!(budget.reserved() <= LIMIT);
                    }
                });
            }
        });
        let calls: usize = spillers.iter().map(|spiller| asked(spiller).len()).sum();
        assert!(calls > 0);
        drop(spillers);
        assert_eq!(budget.reserved(), 0);
    }
}
