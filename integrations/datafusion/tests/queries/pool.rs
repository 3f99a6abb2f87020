//! What DataFusion documents of memory pools, as a table of cases, against this one.

use crate::support::alone;
use bursar::{Budget, Fair, Greedy, RealBytes, Tracking, Unbounded};
use bursar_datafusion::BursarMemoryPool;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use std::sync::Arc;

use Step::{Drop, Free, Grow, NewEmpty, Refused, Resize, Shrink, Spiller, Split, Take, TryGrow};
use Step::{NotShrunk, Other, Reserved, TryResize, TryShrink};

/// Numbers of reservations are in the order of their making, without those that were dropped.
enum Step {
    /// A consumer that can spill, and one that cannot, with a reservation each.
    Spiller(&'static str),
    Other(&'static str),
    Grow(usize, usize),
    TryGrow(usize, usize),
    /// A request that is refused, with what its error says.
    Refused(usize, usize, &'static str),
    Shrink(usize, usize),
    TryShrink(usize, usize),
    NotShrunk(usize, usize),
    Resize(usize, usize),
    TryResize(usize, usize),
    Free(usize),
    Split(usize, usize),
    Take(usize),
    NewEmpty(usize),
    Drop(usize),
    /// What the pool has in all, and each reservation that is there.
    Reserved(usize, &'static [usize]),
}

struct Case {
    name: &'static str,
    budget: fn() -> Arc<dyn Budget>,
    steps: &'static [Step],
}

const CASES: [Case; 12] = [
    Case {
        name: "growing passes every limit, and shrinking makes room again",
        budget: || Arc::new(Greedy::new(50)),
        steps: &[
            Other("a1"),
            Reserved(0, &[0]),
            Grow(0, 100),
            Reserved(100, &[100]),
            Free(0),
            Reserved(0, &[0]),
            Refused(0, 100, "for a1 with 0.0 B already allocated"),
            Reserved(0, &[0]),
            TryGrow(0, 30),
            Other("a2"),
            Refused(1, 25, "20 B are left"),
            Reserved(30, &[30, 0]),
            Drop(0),
            Reserved(0, &[0]),
            TryGrow(0, 25),
            Reserved(25, &[25]),
        ],
    },
    Case {
        name: "what is split off outlives the rest",
        budget: || Arc::new(Greedy::new(50)),
        steps: &[
            Other("r1"),
            TryGrow(0, 20),
            Split(0, 5),
            Reserved(20, &[15, 5]),
            Drop(0),
            Reserved(5, &[5]),
        ],
    },
    Case {
        name: "an empty one has the same consumer",
        budget: || Arc::new(Greedy::new(50)),
        steps: &[
            Other("r1"),
            TryGrow(0, 20),
            NewEmpty(0),
            TryGrow(1, 5),
            Reserved(25, &[20, 5]),
        ],
    },
    Case {
        name: "what was taken from can grow again",
        budget: || Arc::new(Greedy::new(50)),
        steps: &[
            Other("r1"),
            TryGrow(0, 20),
            Take(0),
            TryGrow(1, 5),
            Reserved(25, &[0, 25]),
            TryGrow(0, 3),
            Reserved(28, &[3, 25]),
        ],
    },
    Case {
        name: "shrinking is checked",
        budget: || Arc::new(Greedy::new(100)),
        steps: &[
            Other("r1"),
            TryGrow(0, 50),
            TryShrink(0, 30),
            Reserved(20, &[20]),
            Other("r2"),
            TryGrow(1, 80),
            Reserved(100, &[20, 80]),
            NotShrunk(0, 25),
            Reserved(100, &[20, 80]),
            TryShrink(0, 20),
            Reserved(80, &[0, 80]),
        ],
    },
    Case {
        name: "resizing both ways",
        budget: || Arc::new(Greedy::new(50)),
        steps: &[
            Other("r1"),
            TryResize(0, 25),
            TryResize(0, 20),
            Reserved(20, &[20]),
            Resize(0, 70),
            Reserved(70, &[70]),
            Resize(0, 7),
            Reserved(7, &[7]),
        ],
    },
    Case {
        name: "fair: shares of what unspillable consumers leave",
        budget: || Arc::new(Fair::new(100)),
        steps: &[
            Other("unspillable"),
            Grow(0, 2000),
            Reserved(2000, &[2000]),
            Spiller("r2"),
            Grow(1, 2000),
            Reserved(4000, &[2000, 2000]),
            Refused(1, 1, "for r2 with 2000.0 B already allocated"),
            Refused(1, 1, "0 B are left"),
            Shrink(0, 1990),
            Shrink(1, 2000),
            Reserved(10, &[10, 0]),
            TryGrow(0, 10),
            TryGrow(1, 80),
            Reserved(100, &[20, 80]),
            Shrink(1, 70),
            Reserved(30, &[20, 10]),
            Spiller("r3"),
            Refused(2, 70, "40 B are left"),
            TryGrow(2, 40),
            Reserved(70, &[20, 10, 40]),
        ],
    },
    Case {
        // DataFusion's counts idle registrants until they are dropped.
        name: "fair: who holds nothing takes no share",
        budget: || Arc::new(Fair::new(100)),
        steps: &[
            Spiller("r1"),
            TryGrow(0, 10),
            Spiller("r2"),
            Refused(1, 70, "50 B are left"),
            Free(0),
            TryGrow(1, 70),
            Drop(0),
            TryGrow(0, 30),
            Other("r3"),
            Refused(1, 30, "0 B are left"),
        ],
    },
    Case {
        // DataFusion's compares each reservation with the share.
        name: "fair: reservations of one consumer have one share together",
        budget: || Arc::new(Fair::new(100)),
        steps: &[
            Spiller("r1"),
            Spiller("r2"),
            TryGrow(0, 50),
            TryGrow(1, 40),
            NewEmpty(1),
            Refused(2, 20, "10 B are left"),
            TryGrow(2, 10),
            Reserved(100, &[50, 40, 10]),
        ],
    },
    Case {
        name: "a refusal names the largest holders, whoever asked",
        budget: || Arc::new(Tracking::new(Arc::new(Greedy::new(100)))),
        steps: &[
            Other("r1"),
            Grow(0, 50),
            Grow(0, 20),
            Shrink(0, 20),
            Other("r2"),
            TryGrow(1, 15),
            Other("r3"),
            TryResize(2, 25),
            TryResize(2, 20),
            Other("r4"),
            Grow(3, 10),
            Other("r5"),
            Refused(4, 150, "the largest holders: r1 "),
            Refused(4, 150, "5 B are left"),
            Drop(0),
            Refused(3, 150, "the largest holders: r3 "),
            Reserved(45, &[15, 20, 10, 0]),
        ],
    },
    Case {
        name: "without a limit everything is admitted",
        budget: || Arc::new(Unbounded::new()),
        steps: &[
            Other("r1"),
            TryGrow(0, 1 << 50),
            Reserved(1 << 50, &[1 << 50]),
        ],
    },
    Case {
        name: "real bytes: declared ones count where nothing is allocated",
        budget: || Arc::new(RealBytes::new(100)),
        steps: &[
            Spiller("r1"),
            TryGrow(0, 80),
            Other("r2"),
            Refused(1, 30, "20 B are left"),
            TryGrow(1, 20),
            Reserved(100, &[80, 20]),
        ],
    },
];

struct Run {
    pool: Arc<dyn MemoryPool>,
    reservations: Vec<MemoryReservation>,
}

impl Run {
    fn register(&mut self, name: &str, can_spill: bool) {
        let consumer = MemoryConsumer::new(name).with_can_spill(can_spill);
        self.reservations.push(consumer.register(&self.pool));
    }

    fn refused(&self, reservation: usize, bytes: usize, told: &str) {
        let error = self.reservations[reservation].try_grow(bytes).unwrap_err();
        // Bare: operators look for it by a match.
        let DataFusionError::ResourcesExhausted(text) = error else {
            panic!("{error:?}");
        };
        assert!(text.contains(told), "{text}");
        assert!(text.starts_with("Failed to allocate additional "), "{text}");
    }

    fn step(&mut self, step: &Step) {
        let of = |number: usize| &self.reservations[number];
        match *step {
            Spiller(name) => self.register(name, true),
            Other(name) => self.register(name, false),
            Grow(which, bytes) => of(which).grow(bytes),
            TryGrow(which, bytes) => of(which).try_grow(bytes).unwrap(),
            Refused(which, bytes, told) => self.refused(which, bytes, told),
            Shrink(which, bytes) => of(which).shrink(bytes),
            TryShrink(which, bytes) => {
                let left = of(which).size() - bytes;
                assert_eq!(of(which).try_shrink(bytes).unwrap(), left);
            }
            NotShrunk(which, bytes) => assert!(of(which).try_shrink(bytes).is_err()),
            Resize(which, bytes) => of(which).resize(bytes),
            TryResize(which, bytes) => of(which).try_resize(bytes).unwrap(),
            Free(which) => drop(of(which).free()),
            Split(which, bytes) => {
                let split = of(which).split(bytes);
                self.reservations.push(split);
            }
            Take(which) => {
                let taken = self.reservations[which].take();
                self.reservations.push(taken);
            }
            NewEmpty(which) => {
                let empty = of(which).new_empty();
                self.reservations.push(empty);
            }
            Drop(which) => drop(self.reservations.remove(which)),
            Reserved(all, each) => {
                assert_eq!(self.pool.reserved(), all);
                let sizes: Vec<usize> = self.reservations.iter().map(|one| one.size()).collect();
                assert_eq!(sizes, each);
            }
        }
    }
}

#[test]
fn documented_behaviours() {
    alone(async {
        for case in CASES {
            let budget = (case.budget)();
            let pool = BursarMemoryPool::new(Arc::clone(&budget));
            let mut run = Run {
                pool: Arc::new(pool),
                reservations: Vec::new(),
            };
            for (number, step) in case.steps.iter().enumerate() {
                println!("{}, step {number}", case.name);
                run.step(step);
                // Both books say the same after each step.
                let sizes = run.reservations.iter().map(|one| one.size() as u64);
                assert_eq!(sizes.sum::<u64>(), budget.reserved());
            }
            drop(run);
            assert_eq!(budget.reserved(), 0, "{}", case.name);
        }
    });
}

#[test]
fn consumers_correspond_one_for_one() {
    alone(async {
        let pool = Arc::new(BursarMemoryPool::new(Arc::new(Unbounded::new())));
        let dynamic: Arc<dyn MemoryPool> = pool.clone();
        let of = |reservation: &MemoryReservation| pool.consumer(reservation.consumer());
        let register = |name| MemoryConsumer::new(name).register(&dynamic);
        let (one, other) = (register("sort"), register("sort"));
        let split = one.split(0);
        let ids = [&one, &other, &split].map(|reservation| of(reservation).unwrap().id());
        assert!(ids[0] != ids[1] && ids[0] == ids[2], "{ids:?}");
        one.grow(30);
        split.grow(12);
        let consumer = of(&one).unwrap();
        assert_eq!(consumer.usage().reserved_bytes, 42);
        assert_eq!((consumer.name(), consumer.can_spill()), ("sort", false));
        drop(one);
        assert_eq!(consumer.usage().reserved_bytes, 12);
        assert!(of(&split).is_some());
        let last = MemoryConsumer::new("other");
        assert!(pool.consumer(&last).is_none());
    });
}

#[test]
fn a_pool_says_what_it_is() {
    let shown = |budget: Arc<dyn Budget>| {
        let pool = BursarMemoryPool::new(budget);
        let limit = match pool.memory_limit() {
            MemoryLimit::Infinite => None,
            MemoryLimit::Finite(bytes) => Some(bytes),
            MemoryLimit::Unknown => panic!("it is known"),
        };
        (pool.name().to_string(), pool.to_string(), limit)
    };
    let (name, text, limit) = shown(Arc::new(Greedy::new(2048)));
    assert_eq!(name, "bursar");
    assert_eq!(
        text,
        "bursar(budget: greedy, used: 0.0 B, pool_size: 2.0 KB)"
    );
    assert_eq!(limit, Some(2048));
    let (_, text, limit) = shown(Arc::new(Unbounded::new()));
    assert_eq!(text, "bursar(budget: unbounded, used: 0.0 B)");
    assert_eq!(limit, None);
}

/// Callbacks of the budget run while the pool holds no lock: one may use the pool itself.
#[test]
fn a_callback_may_use_the_pool() {
    struct Cache(MemoryReservation, bursar::Reservation);
    impl bursar::Reclaim for Cache {
        fn reclaim(&self, _wanted: u64) -> u64 {
            self.0.grow(1);
            self.0.free();
            self.1.free()
        }
    }
    alone(async {
        let budget: Arc<dyn Budget> = Arc::new(Greedy::new(100));
        let pool: Arc<dyn MemoryPool> = Arc::new(BursarMemoryPool::new(Arc::clone(&budget)));
        let own = bursar::Consumer::new("cache").with_can_spill(true);
        let cache = Arc::new(Cache(
            MemoryConsumer::new("in the pool").register(&pool),
            own.register(&budget),
        ));
        cache.1.on_shortage(&cache);
        cache.1.try_grow(80).unwrap();
        let sort = MemoryConsumer::new("sort").register(&pool);
        sort.try_grow(60).unwrap();
        assert_eq!((cache.1.size(), pool.reserved()), (0, 60));
    });
}

/// Many threads, consumers and reservations: the books are even when all is over, and were never
/// above the limit.
#[test]
fn threads_at_once_keep_within_the_limit() {
    alone(async {
        let limit = 10_000;
        let pool: Arc<dyn MemoryPool> =
            Arc::new(BursarMemoryPool::new(Arc::new(Greedy::new(limit as u64))));
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let pool = &pool;
                scope.spawn(move || {
                    for round in 0..500 {
                        let consumer = MemoryConsumer::new(format!("{thread}"));
                        let reservation = consumer.register(pool);
                        let asked = (thread * 131 + round * 17) % 3000;
                        if reservation.try_grow(asked).is_ok() {
                            let half = reservation.split(asked / 2);
                            assert!(pool.reserved() <= limit);
                            half.shrink(asked / 4);
                        }
                    }
                });
            }
        });
        assert_eq!(pool.reserved(), 0);
    });
}
