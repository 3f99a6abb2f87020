//! Who is charged for items.

use super::super::consumer::Consumer;
use super::super::reservation::Reservation;
use super::super::scope::Scope;
use super::item::Item;
use super::meter::Meter;
use crate::units::OwnerTag;
use std::sync::Arc;

/// Who is charged for items: a consumer, on whose books they are declared bytes, or a reservation,
/// whose budget is told of them, too.
///
/// Streams take `impl Into<Charge>`: a [`Consumer`], a reference to one, or a [`Reservation`]. What
/// is made for the stream is allocated in its scope. The budget of a reservation is told, not
/// asked: what is declared has been allocated by then.
///
/// ```
/// use bursar::stream::{Bounds, bounded};
/// use bursar::{Budget, Consumer, Tracking, Unbounded};
/// use std::sync::Arc;
///
/// let budget: Arc<dyn Budget> = Arc::new(Unbounded::new());
/// let scan = Consumer::new("scan");
/// let bounds = Bounds { items: 8, bytes: 1 << 20 };
/// let (mut producer, receiver) = bounded(scan.register(&budget), bounds);
/// let item = producer.item(vec![0u8; 1000], 1024);
/// assert!(producer.try_send(item).is_ok());
/// assert_eq!(budget.reserved(), 1024);
/// drop(receiver);
/// assert_eq!(budget.reserved(), 0);
/// ```
#[derive(Clone, Debug)]
pub struct Charge(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Books(Consumer),
    Reservation(Arc<Reservation>),
}

impl From<Consumer> for Charge {
    fn from(consumer: Consumer) -> Charge {
        Charge(Kind::Books(consumer))
    }
}

impl From<&Consumer> for Charge {
    fn from(consumer: &Consumer) -> Charge {
        Charge(Kind::Books(consumer.clone()))
    }
}

impl From<Reservation> for Charge {
    fn from(reservation: Reservation) -> Charge {
        Charge(Kind::Reservation(Arc::new(reservation)))
    }
}

impl From<Arc<Reservation>> for Charge {
    fn from(reservation: Arc<Reservation>) -> Charge {
        Charge(Kind::Reservation(reservation))
    }
}

impl Charge {
    /// The consumer.
    pub fn consumer(&self) -> &Consumer {
        match &self.0 {
            Kind::Books(consumer) => consumer,
            Kind::Reservation(reservation) => reservation.consumer(),
        }
    }

    #[inline]
    pub(super) fn enter(&self) -> Scope {
        match &self.0 {
            Kind::Books(consumer) => consumer.enter(),
            Kind::Reservation(reservation) => reservation.enter(),
        }
    }

    /// Whose blocks are those that are allocated in the scope.
    #[inline]
    pub(super) fn owner(&self) -> OwnerTag {
        match &self.0 {
            Kind::Books(consumer) => consumer.account().tag(),
            Kind::Reservation(reservation) => reservation.owner(),
        }
    }

    /// Declares bytes that are there. A safe point of the consumer.
    #[inline]
    pub(super) fn raise(&self, bytes: u64) {
        if bytes != 0 {
            match &self.0 {
                Kind::Books(consumer) => {
                    consumer.raise_declared(bytes);
                    consumer.safe_point();
                }
                Kind::Reservation(reservation) => reservation.grow(bytes),
            }
        }
    }

    /// Takes back what was declared.
    #[inline]
    pub(super) fn lower(&self, bytes: u64) {
        if bytes != 0 {
            match &self.0 {
                Kind::Books(consumer) => consumer.lower_declared(bytes),
                Kind::Reservation(reservation) => give_back(reservation, bytes),
            }
        }
    }

    /// Runs `make` in the scope, and measures what it leaves live.
    #[inline]
    pub(super) fn weigh<T>(&self, make: impl FnOnce() -> T) -> (T, u64) {
        let meter = Meter::new(self.owner());
        let value = meter.measure(|| self.enter(), make);
        (value, meter.bytes())
    }

    /// The same as an item, declared.
    pub(super) fn weigh_item<T>(self: &Arc<Self>, make: impl FnOnce() -> T) -> Item<T> {
        let (value, bytes) = self.weigh(make);
        Item::new(Arc::clone(self), value, bytes)
    }
}

/// One that its other holder has shrunk meanwhile has nothing more to give back.
#[inline(never)]
fn give_back(reservation: &Reservation, bytes: u64) {
    if reservation.try_shrink(bytes).is_err() {
        reservation.free();
    }
}
