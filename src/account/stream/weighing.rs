//! Constructions that are futures: measured at each poll.

use super::charge::Charge;
use super::item::Item;
use super::meter::Meter;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::sync::Arc;

/// Makes an item of what a future leaves live, which runs in the scope of who is charged.
pub(super) struct Weighing<F> {
    meter: Meter,
    charge: Arc<Charge>,
    future: F,
}

impl<F: Future> Weighing<F> {
    pub(super) fn new(charge: &Arc<Charge>, future: F) -> Weighing<F> {
        Weighing::begin(charge, || future)
    }

    /// Of a future whose making counts, too.
    pub(super) fn begin(charge: &Arc<Charge>, make: impl FnOnce() -> F) -> Weighing<F> {
        let meter = Meter::new(charge.owner());
        let future = meter.measure(|| charge.enter(), make);
        Weighing {
            meter,
            charge: Arc::clone(charge),
            future,
        }
    }
}

impl<F: Future> Future for Weighing<F> {
    type Output = Item<F::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Item<F::Output>> {
        // SAFETY: only `future` is pinned, with the whole; it is neither moved nor replaced.
        let (meter, charge, future) = unsafe {
            let this = self.get_unchecked_mut();
            let future = Pin::new_unchecked(&mut this.future);
            (&this.meter, &this.charge, future)
        };
        let value = ready!(meter.measure(|| charge.enter(), || future.poll(context)));
        Poll::Ready(Item::new(Arc::clone(charge), value, meter.bytes()))
    }
}
