//! Scopes: whose account a thread's allocations go to, in whatever order
//! scopes are left, by whatever way threads end.

use std::cell::RefCell;
use std::mem::forget;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread;

use allocator_tests::charges::{both, boxes, current, held, listed, listed_still};
use allocator_tests::scenarios::scaled;
use bursar::{Budget, Bursar, Consumer, Scope, Unbounded};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

#[global_allocator]
static GLOBAL: Bursar = Bursar::new();

// A scope is left on the thread that entered it.
static_assertions::assert_not_impl_any!(Scope: Send, Sync);
static_assertions::assert_impl_all!(Consumer: Send, Sync, Clone);

type Small = [u64; 3];
type Large = [u8; 600_000];

fn small() -> Box<Small> {
    // A block that is not optimised away.
    std::hint::black_box(Box::new([7; 3]))
}

/// Runs `work` on a thread of its own, to the end of its thread-locals.
fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    thread::spawn(work).join().expect("the thread is fine")
}

#[test]
fn the_innermost_scope_is_charged() {
    let [outer, inner] = ["outer", "inner"].map(Consumer::new);
    let before = small();
    let outer_scope = outer.enter();
    let first = small();
    {
        let _inner_scope = inner.enter();
        let second = small();
        assert_eq!(
            (held(&outer), held(&inner)),
            (boxes::<Small>(1), boxes::<Small>(1))
        );
        drop(second);
    }
    let third = small();
    drop(outer_scope);
    let after = small();
    assert_eq!((held(&outer), held(&inner)), (boxes::<Small>(2), [0, 0]));
    drop((before, first, third, after));
    assert_eq!(held(&outer), [0, 0]);
}

#[test]
fn one_consumer_is_entered_many_times() {
    let consumer = Consumer::new("again");
    let block = consumer.run(|| consumer.run(|| consumer.run(small)));
    assert_eq!(held(&consumer), boxes::<Small>(1));
    assert_eq!(current(), None);
    drop(block);
}

#[test]
fn scopes_are_left_in_any_order() {
    let consumers = ["a", "b", "c", "d"].map(Consumer::new);
    let ids = [0, 1, 2, 3].map(|place: usize| Some(consumers[place].id()));
    let [a, b, c, d] = [0, 1, 2, 3].map(|place: usize| consumers[place].enter());
    assert_eq!(current(), ids[3]);
    drop(b);
    assert_eq!(current(), ids[3]);
    drop(d);
    assert_eq!(current(), ids[2]);
    let charged = small();
    drop(c);
    assert_eq!(current(), ids[0], "the gap that b left is passed over");
    drop(a);
    assert_eq!(current(), None);
    assert_eq!(held(&consumers[2]), boxes::<Small>(1));
    drop(charged);
}

/// A model of the stack: whatever is dropped, the innermost that is left counts.
#[test]
fn ten_thousand_scopes_deep_in_any_order() {
    const DEEP: usize = 10_000;
    let consumers: Vec<_> = (0..7).map(|n| Consumer::new(format!("deep {n}"))).collect();
    let mut rng = SmallRng::seed_from_u64(3);
    for order in 0..3 {
        let entered: Vec<usize> = (0..DEEP).map(|_| rng.random_range(0..7)).collect();
        let mut scopes: Vec<Option<Scope>> = Vec::with_capacity(DEEP);
        for &pick in &entered {
            scopes.push(Some(consumers[pick].enter()));
        }
        let mut leaving: Vec<usize> = (0..DEEP).collect();
        match order {
            0 => leaving.reverse(),
            1 => {}
            _ => leaving.shuffle(&mut rng),
        }
        let mut innermost = DEEP;
        for (step, &place) in leaving.iter().enumerate() {
            scopes[place] = None;
            while innermost > 0 && scopes[innermost - 1].is_none() {
                innermost -= 1;
            }
            if step % 97 == 0 || innermost < 3 {
                let expected = innermost
                    .checked_sub(1)
                    .map(|top| consumers[entered[top]].id());
                assert_eq!(current(), expected, "order {order}, step {step}");
            }
        }
        assert_eq!(current(), None);
    }
    let usages: Vec<_> = consumers.iter().map(|one| held(one)[1]).collect();
    assert_eq!(current(), None);
    drop(consumers);
    // The vectors of the test were allocated outside or inside of some scopes,
    // and are gone.
    assert!(usages.iter().all(|&bytes| bytes == 0), "{usages:?}");
}

#[test]
fn a_forgotten_scope_lasts_until_its_thread_ends() {
    let consumer = Consumer::new("forgotten");
    let id = consumer.id();
    let left = {
        let consumer = consumer.clone();
        on_a_thread(move || {
            forget(consumer.enter());
            drop(consumer);
            assert_eq!(current(), Some(id));
            let other = Consumer::new("other");
            let block = other.run(small);
            assert_eq!(
                current(),
                Some(id),
                "the forgotten one goes on after another"
            );
            drop(block);
            small()
        })
    };
    assert_eq!(held(&consumer), boxes::<Small>(1));
    // Whoever takes up what that thread had is in nobody's scope.
    for _ in 0..20 {
        let other = on_a_thread(|| {
            assert_eq!(current(), None);
            small()
        });
        assert_eq!(held(&consumer), boxes::<Small>(1));
        drop(other);
    }
    drop(left);
    drop(consumer);
    assert!(
        listed_still(id).is_none(),
        "no thread is in its scope any more"
    );
}

#[test]
fn a_forgotten_box_stays_on_the_books_of_the_departed() {
    let consumer = Consumer::new("leaky");
    let id = consumer.id();
    consumer.run(|| {
        forget(small());
        forget(std::hint::black_box(vec![1_u8; 600_000]));
    });
    drop(consumer);
    for _ in 0..3 {
        let snapshot = listed_still(id).expect("two blocks are alive");
        let usage = snapshot.usage;
        assert!(snapshot.departed);
        assert_eq!(
            [usage.live_blocks, usage.live_bytes],
            both(boxes::<Small>(1), boxes::<Large>(1))
        );
    }
}

#[test]
fn unwinding_leaves_scopes() {
    let [outer, inner] = ["outer", "inner"].map(Consumer::new);
    let _outer_scope = outer.enter();
    for _ in 0..10 {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let _one = inner.enter();
            let _block = small();
            outer.run(|| {
                let _two = inner.enter();
                inner.run(|| {
                    let _block = small();
                    std::panic::resume_unwind(Box::new(5_u64))
                })
            })
        }));
        // The payload was boxed in the innermost scope.
        assert_eq!(held(&inner), boxes::<u64>(1));
        assert!(caught.is_err());
        drop(caught);
        assert_eq!(held(&inner), [0, 0]);
        assert_eq!(current(), Some(outer.id()));
    }
}

#[test]
fn current_is_a_handle_and_costs_its_consumer_nothing() {
    on_a_thread(|| {
        assert!(bursar::current().is_none());
        let parent = Consumer::new("parent");
        let child = parent.child("child").with_can_spill(true);
        let found = child.run(bursar::current).expect("a scope");
        assert_eq!(found, child);
        assert_eq!((found.name(), found.can_spill()), ("child", true));
        assert_eq!(
            held(&child),
            [0, 0],
            "a handle is no block of the consumer's"
        );
        assert_eq!(found.parent(), Some(parent.clone()));
        let id = child.id();
        drop(child);
        assert!(!listed_still(id).expect("there is a handle").departed);
        drop(found);
        assert!(listed_still(id).is_none());
    });
}

#[test]
fn in_a_reservations_scope_the_consumer_is_current() {
    let budget: Arc<dyn Budget> = Arc::new(Unbounded::new());
    let consumer = Consumer::new("reserving");
    let reservation = consumer.register(&budget);
    let own = consumer.run(small);
    let reserved = reservation.run(small);
    let found = reservation.run(bursar::current).expect("a scope");
    assert_eq!(found, consumer);
    assert_eq!(held(&found), boxes::<Small>(2));
    let scope = reservation.enter();
    drop(reservation);
    let more = small();
    assert_eq!(current(), Some(consumer.id()));
    drop(scope);
    assert_eq!(
        (held(&consumer), held(&found)),
        (boxes::<Small>(3), boxes::<Small>(3))
    );
    let id = consumer.id();
    drop((consumer, found));
    assert!(listed_still(id).is_some_and(|one| one.departed && one.usage.live_blocks == 3));
    drop((own, reserved, more));
    assert!(listed_still(id).is_none());
}

/// Reports and figures asked for in a scope cost the consumer what is returned
/// and no more.
#[test]
fn readings_cost_their_scope_nothing() {
    on_a_thread(|| {
        let parent = Consumer::new("reader");
        let scope = parent.enter();
        let child = parent.child("below");
        drop(bursar::consumers());
        let usage = parent.usage();
        drop(bursar::report().to_string());
        let _ = (
            parent.classes().count(),
            child.usage(),
            bursar::unattributed(),
        );
        drop((child.clone_with_new_id(), bursar::current()));
        drop(scope);
        assert_eq!(held(&parent), [0, 0], "during: {usage:?}");
    });
}

#[test]
fn a_scope_outlives_its_consumers_handles() {
    let consumer = Consumer::new("outlived");
    let id = consumer.id();
    let scope = consumer.enter();
    drop(consumer);
    assert_eq!(current(), Some(id));
    let block = small();
    // What a snapshot takes is charged where it is taken.
    let reader = Consumer::new("reader");
    let snapshot = || {
        reader
            .run(|| listed_still(id))
            .expect("its scope is entered")
    };
    assert!(snapshot().departed);
    assert_eq!(snapshot().usage.live_blocks, 1);
    drop(block);
    assert_eq!(snapshot().usage.live_blocks, 0);
    let again = bursar::current().expect("a scope");
    drop(scope);
    let block = again.run(small);
    assert_eq!(held(&again), boxes::<Small>(1));
    drop((again, block));
    assert!(listed_still(id).is_none());
}

/// What a thread-local holds until its destructor: a scope, and a block.
struct Late {
    held: Option<(Scope, Box<Small>)>,
    consumer: Option<Consumer>,
}

/// Blocks that destructors left.
type Left = Vec<Box<dyn AsRef<[u64]> + Send>>;

static LEFT: Mutex<Left> = Mutex::new(Vec::new());

impl Drop for Late {
    fn drop(&mut self) {
        let Some(consumer) = self.consumer.take() else {
            return;
        };
        let inside = self.held.is_some().then(|| consumer.id());
        assert_eq!(current(), inside);
        let block = consumer.run(small);
        assert_eq!(current(), inside);
        self.held = None;
        assert_eq!(current(), None);
        let mut left = LEFT.lock().expect("nothing panics with the lock");
        left.push(block);
    }
}

thread_local! {
    static LATE: RefCell<Late> = const { RefCell::new(Late { held: None, consumer: None }) };
}

#[test]
fn thread_local_destructors_leave_and_enter_scopes() {
    let consumer = Consumer::new("late");
    LEFT.lock().expect("a lock").reserve(100);
    for round in 0..50 {
        let consumer = consumer.clone();
        on_a_thread(move || {
            LATE.with(|late| {
                let mut late = late.borrow_mut();
                if round % 2 == 0 {
                    late.held = Some((consumer.enter(), small()));
                }
                late.consumer = Some(consumer);
            });
        });
    }
    assert_eq!(held(&consumer), boxes::<Small>(50));
    LEFT.lock().expect("a lock").clear();
    assert_eq!(held(&consumer), [0, 0]);
}

/// In the last rounds of destructors the thread's books are closed: scopes
/// attribute nothing, frees are still counted, and nothing breaks.
#[test]
fn destructors_after_the_thread_has_ended_attribute_nothing() {
    struct Last {
        key: libc::pthread_key_t,
        rounds: u32,
        consumer: Consumer,
        block: Option<Box<Small>>,
        scope: Option<Scope>,
    }
    extern "C" fn destructor(last: *mut libc::c_void) {
        // SAFETY: the value was made by `Box::into_raw` and is set anew below.
        let mut last = unsafe { Box::from_raw(last.cast::<Last>()) };
        last.rounds += 1;
        if last.rounds == 4 {
            return;
        }
        last.scope = Some(last.consumer.enter());
        // Another consumer comes and goes while this thread has none of its own books.
        let other = Consumer::new("other");
        drop(other.run(small));
        last.block = Some(last.consumer.run(small));
        drop((current(), other));
        let key = last.key;
        // SAFETY: the key exists, and its destructor takes the box.
        unsafe { libc::pthread_setspecific(key, Box::into_raw(last).cast()) };
    }
    let consumer = Consumer::new("last");
    let mut key = 0;
    // SAFETY: `key` is valid for writes.
    let failed = unsafe { libc::pthread_key_create(&raw mut key, Some(destructor)) };
    assert_eq!(failed, 0, "there are keys");
    for _ in 0..20 {
        let consumer = consumer.clone();
        on_a_thread(move || {
            let last = Last {
                key,
                rounds: 0,
                scope: Some(consumer.enter()),
                block: Some(consumer.run(small)),
                consumer,
            };
            // SAFETY: the key exists, and its destructor takes the box.
            unsafe { libc::pthread_setspecific(key, Box::into_raw(Box::new(last)).cast()) };
        });
    }
    assert_eq!(held(&consumer), [0, 0]);
    let id = consumer.id();
    drop(consumer);
    assert!(listed_still(id).is_none(), "no scope of it is entered");
}

#[test]
fn threads_that_end_in_a_scope_leave_it() {
    let consumer = Consumer::new("ending");
    let id = consumer.id();
    let threads = scaled(200, 50);
    let blocks: Vec<_> = (0..threads)
        .map(|_| {
            let consumer = consumer.clone();
            on_a_thread(move || {
                let scopes = [consumer.enter(), consumer.enter()];
                let block = small();
                forget(scopes);
                block
            })
        })
        .collect();
    assert_eq!(held(&consumer), boxes::<Small>(threads));
    drop(consumer);
    let snapshot = listed(id).expect("blocks are alive");
    assert!(
        snapshot.departed && snapshot.usage.live_blocks == threads,
        "{snapshot:?}"
    );
    drop(blocks);
    assert!(listed_still(id).is_none());
}

#[test]
fn run_returns_what_its_work_does() {
    let consumer = Consumer::new("result");
    assert_eq!(consumer.run(|| 5), 5);
    let refused = consumer.try_run(|| Vec::<u8>::new().try_reserve(100).is_err());
    assert!(!refused, "there is no limit");
}
