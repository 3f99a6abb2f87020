//! The consumers of a run.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use bursar::{Budget, Consumer, Reservation, Scope, Unbounded};
use rand::RngExt;
use rand::rngs::SmallRng;

use super::locked;

/// A consumer, and one of its reservations.
struct Member {
    consumer: Consumer,
    reservation: Option<Reservation>,
}

impl Member {
    fn of(consumer: Consumer) -> Self {
        Self {
            consumer,
            reservation: None,
        }
    }
}

/// Places, each of which has the only handle to a consumer; in the end none has.
pub(super) struct Cast {
    places: Vec<RwLock<Option<Member>>>,
    budget: Arc<dyn Budget>,
    /// A consumer to whom nothing happens while the others are at work.
    lasting: Mutex<Option<Consumer>>,
    /// The parent of each consumer that was ever made.
    parents: Mutex<HashMap<u64, Option<u64>>>,
    made: AtomicU64,
}

impl Cast {
    pub(super) fn new(places: usize) -> Self {
        let cast = Self {
            places: (0..places).map(|_| RwLock::default()).collect(),
            budget: Arc::new(Unbounded::new()),
            lasting: Mutex::default(),
            parents: Mutex::default(),
            made: AtomicU64::new(0),
        };
        for (number, place) in cast.places.iter().enumerate() {
            let consumer = Consumer::new(format!("first {number}"));
            cast.note(&consumer);
            *place.write().expect("no panic with the lock") = Some(Member::of(consumer));
        }
        let lasting = Consumer::new("lasting");
        cast.note(&lasting);
        *locked(&cast.lasting) = Some(lasting);
        cast
    }

    /// The consumer to whom nothing happens; none when all are dismissed.
    pub(super) fn lasting(&self) -> Option<Consumer> {
        locked(&self.lasting).clone()
    }

    fn note(&self, consumer: &Consumer) {
        self.made.fetch_add(1, Ordering::Relaxed);
        let parent = consumer.parent().map(|parent| parent.id());
        let before = locked(&self.parents).insert(consumer.id(), parent);
        assert_eq!(before, None, "id {} was given twice", consumer.id());
    }

    /// Calls `work` with the consumer of a place drawn at random, whose handle
    /// stays where it is meanwhile.
    pub(super) fn with_any<T>(
        &self,
        rng: &mut SmallRng,
        work: impl FnOnce(&Consumer) -> T,
    ) -> Option<T> {
        let place = &self.places[rng.random_range(0..self.places.len())];
        let member = place.read().expect("no panic with the lock");
        member.as_ref().map(|member| work(&member.consumer))
    }

    /// Enters the scope of such a consumer, or of its reservation; its id.
    pub(super) fn enter_any(&self, rng: &mut SmallRng) -> Option<(u64, Scope)> {
        let own = rng.random_range(0..2) == 0;
        let place = &self.places[rng.random_range(0..self.places.len())];
        let member = place.read().expect("no panic with the lock");
        let Member {
            consumer,
            reservation,
        } = member.as_ref()?;
        let scope = match reservation {
            Some(reservation) if !own => reservation.enter(),
            _ => consumer.enter(),
        };
        Some((consumer.id(), scope))
    }

    /// Declares something, or begins another reservation in place of the one before.
    pub(super) fn reserve(&self, rng: &mut SmallRng) {
        let bytes = rng.random_range(0..100_000);
        let draw = rng.random_range(0..8);
        let place = &self.places[rng.random_range(0..self.places.len())];
        let mut member = place.write().expect("no panic with the lock");
        let Some(Member {
            consumer,
            reservation,
        }) = member.as_mut()
        else {
            return;
        };
        let next = match (reservation.as_ref(), draw) {
            (None, _) => Some(consumer.register(&self.budget)),
            (Some(_), 0) => None,
            (Some(before), 1) => Some(before.new_empty()),
            (Some(before), 2) => Some(before.take()),
            (Some(before), 3) => Some(before.split(before.size() / 3)),
            (Some(before), 4) => return before.resize(bytes),
            (Some(before), 5) => {
                before.free();
                return;
            }
            (Some(before), _) => return before.grow(bytes),
        };
        let before = std::mem::replace(reservation, next);
        drop(member);
        drop(before);
    }

    /// What reservations declare now, by consumer.
    pub(super) fn declared(&self) -> HashMap<u64, u64> {
        let declared = |place: &RwLock<Option<Member>>| {
            let member = place.read().expect("no panic with the lock");
            let member = member.as_ref()?;
            let size = member.reservation.as_ref().map_or(0, Reservation::size);
            Some((member.consumer.id(), size))
        };
        self.places.iter().filter_map(declared).collect()
    }

    /// Gives a place to a new consumer: one of its own, one below another, or
    /// one like its predecessor, whose last handle goes.
    pub(super) fn renew(&self, rng: &mut SmallRng) {
        let draw = rng.random_range(0..3);
        let number = self.made.load(Ordering::Relaxed);
        let made = match draw {
            0 => Some(
                Consumer::new(format!("root {number}")).with_can_spill(number.is_multiple_of(2)),
            ),
            1 => self.with_any(rng, |above| above.child(format!("child {number}"))),
            _ => self.with_any(rng, Consumer::clone_with_new_id),
        };
        if let Some(made) = &made {
            self.note(made);
        }
        let place = &self.places[rng.random_range(0..self.places.len())];
        let before = {
            let mut member = place.write().expect("no panic with the lock");
            std::mem::replace(&mut *member, made.map(Member::of))
        };
        drop(before);
    }

    /// A second handle to each consumer that has one.
    pub(super) fn handles(&self) -> Vec<Consumer> {
        let handle = |place: &RwLock<Option<Member>>| {
            let member = place.read().expect("no panic with the lock");
            Some(member.as_ref()?.consumer.clone())
        };
        let lasting = self.lasting();
        self.places
            .iter()
            .filter_map(handle)
            .chain(lasting)
            .collect()
    }

    /// Drops all handles.
    pub(super) fn dismiss(&self) {
        for place in &self.places {
            let member = place.write().expect("no panic with the lock").take();
            drop(member);
        }
        let lasting = locked(&self.lasting).take();
        drop(lasting);
    }

    /// The parent of a consumer, living or gone.
    pub(super) fn parent(&self, id: u64) -> Option<u64> {
        locked(&self.parents).get(&id).copied().flatten()
    }

    /// Consumers made so far.
    pub(super) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }
}
