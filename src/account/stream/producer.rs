//! The producing half.

use super::charge::Charge;
use super::error::{Cause, SendError, StreamError};
use super::item::{Item, Parcel};
use super::queue::Sender;
use super::wait::{block_on, spin};
use super::weighing::Weighing;
use core::fmt;
use core::future::{Future, poll_fn};
use core::task::{Context, Poll};
use std::sync::Arc;

/// How a stream ended.
pub(super) type End = Result<(), StreamError>;
type Queue<T> = Sender<Parcel<T>, End>;

/// The half of a stream that items go into; made by [`bounded`](super::bounded).
///
/// It ends with [`finish`](Producer::finish) or [`fail`](Producer::fail). Dropped without either,
/// it ends the stream with an error, [`Panicked`](StreamError::Panicked) if its thread is unwinding
/// and else [`Abandoned`](StreamError::Abandoned): a result that was cut short is never taken for a
/// whole one.
///
/// Calls that wait park their thread; those that end in `_async` suspend their task. Both may be
/// used of one producer, and either with any receiver.
///
/// ```
/// use bursar::Consumer;
/// use bursar::stream::{Bounds, bounded};
///
/// let scan = Consumer::new("scan");
/// let (mut producer, receiver) = bounded(&scan, Bounds { items: 4, bytes: 1 << 20 });
/// let thread = std::thread::spawn(move || {
///     for number in 0..10_u64 {
///         producer.produce(|| vec![number; 1000])?;
///     }
///     producer.finish();
///     Ok::<(), bursar::stream::SendError<_>>(())
/// });
/// for rows in receiver {
///     assert_eq!(rows?.len(), 1000);
/// }
/// assert!(thread.join().unwrap().is_ok());
/// # Ok::<(), bursar::stream::StreamError>(())
/// ```
#[must_use = "a producer that is dropped without `finish` ends its stream with an error"]
pub struct Producer<T> {
    /// There until the end.
    queue: Option<Queue<T>>,
    charge: Arc<Charge>,
}

impl<T> Producer<T> {
    pub(super) fn new(queue: Queue<T>, charge: Arc<Charge>) -> Producer<T> {
        Producer {
            queue: Some(queue),
            charge,
        }
    }

    fn queue(&mut self) -> &mut Queue<T> {
        self.queue.as_mut().expect("only the last call takes it")
    }

    /// Who is charged for what is produced.
    pub fn charge(&self) -> &Charge {
        &self.charge
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.queue.as_ref().is_none_or(Sender::is_closed)
    }

    /// Runs `make` in the producer's scope. What that leaves live there, counted by the allocator on
    /// this thread, is the item's weight: blocks that were allocated and not freed, those that the
    /// producer's state keeps included; not what other threads allocate meanwhile. It is declared
    /// from now on.
    pub fn weigh(&self, make: impl FnOnce() -> T) -> Item<T> {
        self.charge.weigh_item(make)
    }

    /// An item of a value that was made elsewhere. `bytes` are declared for it, and are what it
    /// weighs.
    pub fn item(&self, value: T, bytes: u64) -> Item<T> {
        Item::new(Arc::clone(&self.charge), value, bytes)
    }

    /// Waits until there is room, makes an item as [`weigh`](Producer::weigh) does, and sends it as
    /// [`send`](Producer::send) does. So the item that is being made counts among those of the
    /// bound, and none is made before it has a place.
    ///
    /// Beside what `make` does it costs some hundred instructions if there is room.
    ///
    /// # Errors
    /// [`Closed`](SendError::Closed): the receiver is gone; with the item if it has been made.
    pub fn produce(&mut self, make: impl FnOnce() -> T) -> Result<(), SendError<Option<Item<T>>>> {
        self.ready().map_err(|_| SendError::Closed(None))?;
        let (bytes, parcel) = Parcel::make(&self.charge, make);
        self.send_parcel(bytes, parcel)
            .map_err(|error| error.map(Some))
    }

    /// [`produce`](Producer::produce) with a future. What it allocates is counted at each poll, on
    /// whichever thread.
    ///
    /// # Errors
    /// As there.
    pub async fn produce_async(
        &mut self,
        make: impl Future<Output = T>,
    ) -> Result<(), SendError<Option<Item<T>>>> {
        self.ready_async()
            .await
            .map_err(|_| SendError::Closed(None))?;
        let item = Weighing::new(&self.charge, make).await;
        self.send_async(item).await.map_err(|error| error.map(Some))
    }

    /// Sends an item, and waits for room for it first. An item that alone is above the bound in
    /// bytes goes when nothing else is on its way. What it declared to others is charged to this
    /// producer from now on.
    ///
    /// # Errors
    /// [`Closed`](SendError::Closed): the receiver is gone; with the item. One that goes while the
    /// item is being sent may still free it.
    pub fn send(&mut self, item: Item<T>) -> Result<(), SendError<Item<T>>> {
        let (bytes, parcel) = item.into_parcel(&self.charge);
        self.send_parcel(bytes, parcel)
    }

    #[inline]
    fn send_parcel(&mut self, bytes: u64, parcel: Parcel<T>) -> Result<(), SendError<Item<T>>> {
        match self.wait_for_room(bytes) {
            Ok(()) => {
                self.queue().push(bytes, parcel);
                Ok(())
            }
            Err(_) => Err(SendError::Closed(self.returned(bytes, parcel))),
        }
    }

    /// [`send`](Producer::send) for tasks. Dropping the future drops the item if it was not sent.
    ///
    /// # Errors
    /// As there.
    pub async fn send_async(&mut self, item: Item<T>) -> Result<(), SendError<Item<T>>> {
        let bytes = item.bytes();
        match poll_fn(|context| self.poll_room(bytes, context)).await {
            Ok(()) => {
                let (bytes, parcel) = item.into_parcel(&self.charge);
                self.queue().push(bytes, parcel);
                Ok(())
            }
            Err(_) => Err(SendError::Closed(item)),
        }
    }

    /// Sends an item if there is room for it now.
    ///
    /// # Errors
    /// [`Full`](SendError::Full) if there is none, [`Closed`](SendError::Closed) if the receiver is
    /// gone; with the item.
    pub fn try_send(&mut self, item: Item<T>) -> Result<(), SendError<Item<T>>> {
        match self.queue().room(item.bytes()) {
            Some(Ok(())) => {
                let (bytes, parcel) = item.into_parcel(&self.charge);
                self.queue().push(bytes, parcel);
                Ok(())
            }
            Some(Err(_)) => Err(SendError::Closed(item)),
            None => Err(SendError::Full(item)),
        }
    }

    /// Waits until there is room for some item, so that making one is not in vain.
    ///
    /// # Errors
    /// [`Closed`](SendError::Closed): the receiver is gone.
    pub fn ready(&mut self) -> Result<(), SendError<()>> {
        let least = self.queue().least();
        self.wait_for_room(least)
    }

    /// [`ready`](Producer::ready) for tasks.
    ///
    /// # Errors
    /// As there.
    pub async fn ready_async(&mut self) -> Result<(), SendError<()>> {
        poll_fn(|context| self.poll_ready(context)).await
    }

    /// Whether there is room for some item; if not, the task is woken when there may be.
    pub fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), SendError<()>>> {
        let least = self.queue().least();
        self.poll_room(least, context)
    }

    fn poll_room(
        &mut self,
        bytes: u64,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), SendError<()>>> {
        self.queue()
            .poll_room(bytes, context.waker())
            .map_err(|_| SendError::Closed(()))
    }

    #[inline]
    fn wait_for_room(&mut self, bytes: u64) -> Result<(), SendError<()>> {
        if let Some(Ok(())) = self.queue().room(bytes) {
            return Ok(());
        }
        self.wait_long_for_room(bytes)
    }

    #[cold]
    fn wait_long_for_room(&mut self, bytes: u64) -> Result<(), SendError<()>> {
        match spin(|| self.queue().room(bytes)) {
            Some(room) => room.map_err(|_| SendError::Closed(())),
            None => block_on(|context| self.poll_room(bytes, context)),
        }
    }

    /// A parcel that was not sent, as an item.
    #[cold]
    fn returned(&self, bytes: u64, parcel: Parcel<T>) -> Item<T> {
        parcel.into_item(bytes, Arc::clone(&self.charge))
    }

    /// Ends the stream: what was sent is all.
    pub fn finish(mut self) {
        self.end(Ok(()));
    }

    /// Ends the stream with an error, which the receiver gets after all that was sent before it.
    pub fn fail(self, cause: impl Into<Cause>) {
        self.fail_with(StreamError::Failed(cause.into()));
    }

    /// Ends the stream with the error that another ended with.
    pub fn fail_with(mut self, error: StreamError) {
        self.end(Err(error));
    }

    fn end(&mut self, end: End) {
        if let Some(queue) = self.queue.take() {
            queue.end(end);
        }
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.end(Err(if std::thread::panicking() {
            StreamError::Panicked
        } else {
            StreamError::Abandoned
        }));
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("charge", &self.charge)
            .field("is_closed", &self.is_closed())
            .finish()
    }
}
