//! Running ahead: stages on a thread or task of their own, which compute as far as the bounds allow.

use super::super::registry::internally;
use super::charge::Charge;
use super::error::{Cause, SendError};
use super::lazy::{pull, try_pull};
use super::producer::Producer;
use super::receiver::Receiver;
use super::{Bounds, channel};
use core::future::Future;
use std::sync::Arc;
use std::thread;

/// A stream of what an iterator yields on a thread of its own, in the scope of who is charged. The
/// thread runs ahead by the bounds and no further; it ends with the iterator, or soon after the
/// receiver is gone. If the iterator panics, that is the stream's error.
///
/// # Panics
/// If the system makes no thread.
///
/// ```
/// use bursar::Consumer;
/// use bursar::stream::{Bounds, from_iter};
///
/// let scan = Consumer::new("scan");
/// let lines = (0..1000).map(|n| format!("line {n}"));
/// let mut bytes = 0;
/// for line in from_iter(&scan, Bounds { items: 16, bytes: 1 << 16 }, lines) {
///     bytes += line?.len();
/// }
/// assert_eq!(bytes, 7890);
/// # Ok::<(), bursar::stream::StreamError>(())
/// ```
pub fn from_iter<I>(charge: impl Into<Charge>, bounds: Bounds, items: I) -> Receiver<I::Item>
where
    I: IntoIterator<Item: Send + 'static, IntoIter: Send + 'static>,
{
    pull(charge, items).ahead(bounds)
}

/// [`from_iter`] for iterators that can fail: the first error ends the stream, in order.
///
/// # Panics
/// If the system makes no thread.
pub fn try_from_iter<I, T, E>(charge: impl Into<Charge>, bounds: Bounds, items: I) -> Receiver<T>
where
    I: IntoIterator<Item = Result<T, E>, IntoIter: Send + 'static>,
    T: Send + 'static,
    E: Into<Cause>,
{
    try_pull(charge, items).ahead(bounds)
}

impl<T: Send + 'static> Receiver<T> {
    /// The same items, received on a thread of its own, ahead of who receives from it by the bounds
    /// and no further: nothing is received before it has a place. So a stage that computes what it
    /// is asked for does that on the thread.
    ///
    /// # Panics
    /// If the system makes no thread.
    ///
    /// ```
    /// use bursar::Consumer;
    /// use bursar::stream::{Bounds, from_iter};
    ///
    /// let [scan, parse] = ["scan", "parse"].map(Consumer::new);
    /// let bounds = Bounds { items: 16, bytes: 1 << 16 };
    /// let numbers = from_iter(&scan, bounds, (0..100).map(|n| n.to_string()))
    ///     .try_map(&parse, |text| text.parse::<u64>())
    ///     .ahead(bounds);
    /// let sum: u64 = numbers.into_iter().map(|n| n.map(|n| *n).unwrap_or(0)).sum();
    /// assert_eq!(sum, 4950);
    /// ```
    pub fn ahead(self, bounds: Bounds) -> Receiver<T> {
        let (producer, receiver) = channel(Arc::clone(self.shared_charge()), bounds);
        let thread = || {
            thread::Builder::new()
                .name("bursar-stream".into())
                .spawn(move || forward(self, producer))
        };
        internally(thread).expect("the system makes a thread");
        receiver
    }

    /// [`ahead`](Receiver::ahead) on a task: the future is to be spawned on some runtime, and runs
    /// ahead there.
    ///
    /// ```
    /// # use bursar::Consumer;
    /// # use bursar::stream::{Bounds, pull};
    /// # fn main() -> Result<(), bursar::stream::StreamError> {
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    /// # runtime.block_on(async {
    /// let bounds = Bounds { items: 4, bytes: 1 << 16 };
    /// let words = pull(&Consumer::new("scan"), ["a", "bc"]);
    /// let lengths = words.then(&Consumer::new("count"), async |word| word.len());
    /// let (mut lengths, ahead) = lengths.ahead_on_task(bounds);
    /// tokio::spawn(ahead);
    /// let mut sum = 0;
    /// while let Some(length) = lengths.recv_async().await {
    ///     sum += *length?;
    /// }
    /// assert_eq!(sum, 3);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub fn ahead_on_task(
        self,
        bounds: Bounds,
    ) -> (Receiver<T>, impl Future<Output = ()> + Send + use<T>) {
        let (producer, receiver) = channel(Arc::clone(self.shared_charge()), bounds);
        (receiver, forward_async(self, producer))
    }
}

/// Receives and sends until either side has ended.
fn forward<T>(mut from: Receiver<T>, mut to: Producer<T>) {
    while let Ok(()) = to.ready() {
        let sent: Result<(), SendError<_>> = match from.recv() {
            Some(Ok(item)) => to.send(item),
            Some(Err(error)) => return to.fail_with(error),
            None => return to.finish(),
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn forward_async<T>(mut from: Receiver<T>, mut to: Producer<T>) {
    while let Ok(()) = to.ready_async().await {
        let sent: Result<(), SendError<_>> = match from.recv_async().await {
            Some(Ok(item)) => to.send_async(item).await,
            Some(Err(error)) => return to.fail_with(error),
            None => return to.finish(),
        };
        if sent.is_err() {
            return;
        }
    }
}
