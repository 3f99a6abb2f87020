//! The receiving half, and what it may receive from.

use super::super::registry::internally;
use super::super::transfer::Transfer;
use super::charge::Charge;
use super::error::StreamError;
use super::item::{Item, Parcel, Recipient};
use super::lazy::Lazy;
use super::producer::End;
use super::queue::{Taken, Taker};
use super::wait::{block_on, spin};
use core::fmt;
use core::future::poll_fn;
use core::mem::replace;
use core::task::{Context, Poll};
use std::boxed::Box;
use std::sync::Arc;

/// What a receiver gets: nothing after the end.
pub(super) type Received<T> = Option<Result<Item<T>, StreamError>>;

/// The half of a stream that items come out of.
///
/// What it receives comes from a [producer](super::Producer), through a bounded queue, or is
/// computed [when it is asked for](super::pull), on the thread that asks. Both have the same
/// methods: [`recv`](Receiver::recv) parks the thread, `recv_async` suspends the task, and with the
/// feature `stream` it is a `futures::Stream`; `for` loops take it, too.
///
/// Items stay charged to who made them unless the receiver says who is charged once it has them,
/// by [`charged_to`](Receiver::charged_to), or has their real bytes moved as well, by
/// [`transferring_to`](Receiver::transferring_to).
///
/// Dropping it stops the producer, whose next call returns an error, and frees what was not
/// received.
#[must_use = "a receiver that is dropped stops its producer"]
pub struct Receiver<T> {
    source: Source<T>,
    /// Who is charged for what it gets.
    recipient: Recipient<T>,
    is_charged: bool,
}

enum Source<T> {
    Queue {
        taker: Taker<Parcel<T>, End>,
        /// Who is charged for what is in it.
        from: Arc<Charge>,
    },
    Lazy(Box<dyn Lazy<T>>),
    /// A stage panicked, and the receiver was not told yet.
    Panicked,
    Over,
}

impl<T> Receiver<T> {
    fn new(source: Source<T>, charge: Arc<Charge>) -> Receiver<T> {
        Receiver {
            source,
            recipient: Recipient {
                charge,
                move_blocks: None,
            },
            is_charged: false,
        }
    }

    /// From a queue whose producer is charged as `from` says.
    pub(super) fn of_queue(taker: Taker<Parcel<T>, End>, from: Arc<Charge>) -> Receiver<T> {
        let charge = Arc::clone(&from);
        Receiver::new(Source::Queue { taker, from }, charge)
    }

    /// Of what is computed when it is asked for, for who is charged as `charge` says.
    pub(super) fn of_lazy(lazy: impl Lazy<T> + 'static, charge: Arc<Charge>) -> Receiver<T> {
        let lazy = internally(|| Box::new(lazy));
        Receiver::new(Source::Lazy(lazy), charge)
    }

    /// Charges items to another from when they are handed over until they are dropped. Their real
    /// bytes stay the producer's.
    ///
    /// ```
    /// use bursar::Consumer;
    /// use bursar::stream::{Bounds, bounded};
    ///
    /// let (scan, sort) = (Consumer::new("scan"), Consumer::new("sort"));
    /// let (mut producer, receiver) = bounded(&scan, Bounds { items: 4, bytes: 100 });
    /// let mut receiver = receiver.charged_to(&sort);
    /// let item = producer.item("a value", 40);
    /// assert!(producer.try_send(item).is_ok());
    /// producer.finish();
    /// let declared = || [&scan, &sort].map(|consumer| consumer.usage().reserved_bytes);
    /// assert_eq!(declared(), [40, 0]);
    /// let item = receiver.recv().unwrap()?;
    /// assert_eq!(declared(), [0, 40]);
    /// assert_eq!(item.into_inner(), "a value");
    /// assert_eq!(declared(), [0, 0]);
    /// # Ok::<(), bursar::stream::StreamError>(())
    /// ```
    pub fn charged_to(self, charge: impl Into<Charge>) -> Receiver<T> {
        self.with_recipient(charge.into(), None)
    }

    /// Like [`charged_to`](Receiver::charged_to), and each item's blocks are
    /// [handed over](crate::transfer_all) to the consumer, so that they count there as live bytes.
    /// [`Item::moved_bytes`] says how many those were. It costs what a hand-over of each block
    /// does.
    ///
    /// ```
    /// # #[global_allocator]
    /// # static GLOBAL: bursar::Bursar = bursar::Bursar::new();
    /// use bursar::Consumer;
    /// use bursar::stream::pull;
    ///
    /// let (scan, sort) = (Consumer::new("scan"), Consumer::new("sort"));
    /// let rows = pull(&scan, (0..3).map(|row| vec![row; 1000])).transferring_to(&sort);
    /// for row in rows {
    ///     let row = row?;
    ///     let live = [&scan, &sort].map(|consumer| consumer.usage().live_bytes);
    ///     assert_eq!(live, [0, row.bytes()]);
    /// }
    /// # Ok::<(), bursar::stream::StreamError>(())
    /// ```
    pub fn transferring_to(self, charge: impl Into<Charge>) -> Receiver<T>
    where
        T: Transfer,
    {
        self.with_recipient(
            charge.into(),
            Some(|value, to| value.transfer_to(to.consumer())),
        )
    }

    fn with_recipient(
        mut self,
        charge: Charge,
        move_blocks: Option<super::item::MoveBlocks<T>>,
    ) -> Receiver<T> {
        self.recipient = Recipient {
            charge: internally(|| Arc::new(charge)),
            move_blocks,
        };
        self.is_charged = true;
        self
    }

    /// Charges items to a stage that takes them, unless somebody has been named.
    pub(super) fn or_charged_to(mut self, charge: &Arc<Charge>) -> Receiver<T> {
        if !self.is_charged {
            self.recipient.charge = Arc::clone(charge);
            self.is_charged = true;
        }
        self
    }

    /// Who is charged for what it gets.
    pub fn charge(&self) -> &Charge {
        &self.recipient.charge
    }

    pub(super) fn shared_charge(&self) -> &Arc<Charge> {
        &self.recipient.charge
    }

    /// The next item, or the error that the stream ended with; `None` after the end. Waits for it,
    /// or computes it.
    ///
    /// # Panics
    /// If a stage that is computed on this thread does.
    pub fn recv(&mut self) -> Received<T> {
        match self.look() {
            Some(received) => received,
            None => self.wait(),
        }
    }

    #[cold]
    fn wait(&mut self) -> Received<T> {
        let is_queue = matches!(self.source, Source::Queue { .. });
        let found = if is_queue { spin(|| self.look()) } else { None };
        found.unwrap_or_else(|| block_on(|context| self.poll_recv(context)))
    }

    /// [`recv`](Receiver::recv) for tasks. Dropping the future loses nothing.
    ///
    /// # Panics
    /// As there.
    pub async fn recv_async(&mut self) -> Received<T> {
        poll_fn(|context| self.poll_recv(context)).await
    }

    /// What there is now in the queue.
    #[inline]
    fn look(&mut self) -> Option<Received<T>> {
        let Source::Queue { taker, from } = &mut self.source else {
            return None;
        };
        if let Some((bytes, parcel)) = taker.pop() {
            return Some(Some(Ok(parcel.hand_over(bytes, from, &self.recipient))));
        }
        self.look_for_end()
    }

    /// The same where there is no item.
    #[cold]
    fn look_for_end(&mut self) -> Option<Received<T>> {
        let Source::Queue { taker, .. } = &mut self.source else {
            return None;
        };
        let taken = taker.look()?;
        Some(self.received(taken))
    }

    /// The next item if it is there or can be computed now; if not, the task is woken when it may
    /// be.
    ///
    /// # Panics
    /// As [`recv`](Receiver::recv).
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Received<T>> {
        if let Source::Queue { taker, .. } = &mut self.source {
            return taker
                .poll(context.waker())
                .map(|taken| self.received(taken));
        }
        // A stage that panics is gone, and the next call says so.
        match replace(&mut self.source, Source::Panicked) {
            Source::Lazy(mut lazy) => {
                let polled = lazy.poll_item(context);
                let goes_on = !matches!(polled, Poll::Ready(None | Some(Err(_))));
                self.source = if goes_on {
                    Source::Lazy(lazy)
                } else {
                    Source::Over
                };
                polled.map(|received| self.delivered(received))
            }
            Source::Panicked => {
                self.source = Source::Over;
                Poll::Ready(Some(Err(StreamError::Panicked)))
            }
            source => {
                self.source = source;
                Poll::Ready(None)
            }
        }
    }

    fn received(&mut self, taken: Taken<Parcel<T>, End>) -> Received<T> {
        match (taken, &self.source) {
            (Taken::Item(bytes, parcel), Source::Queue { from, .. }) => {
                Some(Ok(parcel.hand_over(bytes, from, &self.recipient)))
            }
            (taken, _) => {
                self.source = Source::Over;
                match taken {
                    Taken::End(Some(Err(error))) => Some(Err(error)),
                    _ => None,
                }
            }
        }
    }

    fn delivered(&self, received: Received<T>) -> Received<T> {
        received.map(|received| {
            received.map(|mut item| {
                item.hand_to(&self.recipient);
                item
            })
        })
    }
}

impl<T> IntoIterator for Receiver<T> {
    type Item = Result<Item<T>, StreamError>;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter(self)
    }
}

impl<'a, T> IntoIterator for &'a mut Receiver<T> {
    type Item = Result<Item<T>, StreamError>;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        Iter(self)
    }
}

/// The items of a stream, one [`recv`](Receiver::recv) each.
#[derive(Debug)]
pub struct IntoIter<T>(Receiver<T>);

impl<T> Iterator for IntoIter<T> {
    type Item = Result<Item<T>, StreamError>;

    fn next(&mut self) -> Received<T> {
        self.0.recv()
    }
}

/// The items of a stream that is borrowed, one [`recv`](Receiver::recv) each.
#[derive(Debug)]
pub struct Iter<'a, T>(&'a mut Receiver<T>);

impl<T> Iterator for Iter<'_, T> {
    type Item = Result<Item<T>, StreamError>;

    fn next(&mut self) -> Received<T> {
        self.0.recv()
    }
}

#[cfg(feature = "stream")]
impl<T> futures_core::Stream for Receiver<T> {
    type Item = Result<Item<T>, StreamError>;

    fn poll_next(
        mut self: core::pin::Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Received<T>> {
        self.poll_recv(context)
    }
}

// Nothing in it is pinned: stages keep their futures in boxes.
impl<T> Unpin for Receiver<T> {}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("charge", self.charge())
            .finish_non_exhaustive()
    }
}
