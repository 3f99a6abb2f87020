//! Futures and streams that run in a consumer's scope.

use super::consumer::Consumer;
use core::future::Future;
use core::mem::ManuallyDrop;
use core::pin::Pin;
use core::task::{Context, Poll};

/// A future or stream whose every poll, and whose drop, is in a consumer's scope, on whichever
/// thread that happens. Made by [`Consumer::wrap`] and `Consumer::wrap_stream`.
pub struct Attributed<T> {
    /// Dropped in the scope.
    inner: ManuallyDrop<T>,
    consumer: Consumer,
}

impl Consumer {
    /// Attributes to this consumer what the future allocates, whichever threads poll it. Tasks that
    /// it spawns are not included: hand them a clone.
    ///
    /// ```
    /// # async fn work() {}
    /// let query = bursar::Consumer::new("query");
    /// let future = query.wrap(async { work().await });
    /// # drop(future);
    /// ```
    pub fn wrap<F: Future>(&self, future: F) -> Attributed<F> {
        self.attribute(future)
    }

    /// The same for a stream, at each item.
    #[cfg(feature = "stream")]
    pub fn wrap_stream<S: futures_core::Stream>(&self, stream: S) -> Attributed<S> {
        self.attribute(stream)
    }

    fn attribute<T>(&self, inner: T) -> Attributed<T> {
        Attributed {
            inner: ManuallyDrop::new(inner),
            consumer: self.clone(),
        }
    }
}

impl<T> Attributed<T> {
    /// The consumer.
    pub fn consumer(&self) -> &Consumer {
        &self.consumer
    }

    fn project(self: Pin<&mut Self>) -> (Pin<&mut T>, &Consumer) {
        // SAFETY: `inner` is pinned with the whole and is neither moved nor replaced; `drop` leaves
        // it in place. `consumer` is never pinned.
        unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut *this.inner), &this.consumer)
        }
    }
}

impl<F: Future> Future for Attributed<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let (inner, consumer) = self.project();
        let polled = consumer.run(|| inner.poll(context));
        consumer.safe_point();
        polled
    }
}

#[cfg(feature = "stream")]
impl<S: futures_core::Stream> futures_core::Stream for Attributed<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let (inner, consumer) = self.project();
        let polled = consumer.run(|| inner.poll_next(context));
        consumer.safe_point();
        polled
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner.size_hint()
    }
}

impl<T> Drop for Attributed<T> {
    fn drop(&mut self) {
        let _scope = self.consumer.enter();
        // SAFETY: dropped once, here, in place.
        unsafe { ManuallyDrop::drop(&mut self.inner) };
    }
}
