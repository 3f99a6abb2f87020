//! Stages that compute an item when they are asked for it, on the thread or task that asks.

use super::super::registry::internally;
use super::charge::Charge;
use super::error::{Cause, StreamError};
use super::item::Item;
use super::receiver::{Received, Receiver};
use super::weighing::Weighing;
use core::convert::Infallible;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::boxed::Box;
use std::sync::Arc;
use std::vec::Vec;

/// A stage. It is not asked again after its end, nor after an error.
pub(super) trait Lazy<T>: Send {
    /// Computes the next item, or has the task woken when that may be possible.
    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Received<T>>;
}

/// What a fallible construction made, as an item; measured either way.
fn weigh<T, E: Into<Cause>>(
    charge: &Arc<Charge>,
    make: impl FnOnce() -> Option<Result<T, E>>,
) -> Received<T> {
    let (made, bytes) = charge.weigh(make);
    Some(match made? {
        Ok(value) => Ok(Item::new(Arc::clone(charge), value, bytes)),
        Err(cause) => Err(StreamError::Failed(cause.into())),
    })
}

/// A stream of what an iterator yields, each item computed when it is asked for, in the scope of
/// who is charged, on the thread that asks. Nothing is computed before.
///
/// ```
/// use bursar::Consumer;
/// use bursar::stream::pull;
///
/// let scan = Consumer::new("scan");
/// let mut squares = pull(&scan, (0..).map(|n: u64| n * n));
/// assert_eq!(*squares.recv().unwrap()?, 0);
/// assert_eq!(*squares.recv().unwrap()?, 1);
/// # Ok::<(), bursar::stream::StreamError>(())
/// ```
pub fn pull<I>(charge: impl Into<Charge>, items: I) -> Receiver<I::Item>
where
    I: IntoIterator<Item: 'static, IntoIter: Send + 'static>,
{
    try_pull(charge, items.into_iter().map(Ok::<_, Infallible>))
}

/// [`pull`] for iterators that can fail: the first error ends the stream.
pub fn try_pull<I, T, E>(charge: impl Into<Charge>, items: I) -> Receiver<T>
where
    I: IntoIterator<Item = Result<T, E>, IntoIter: Send + 'static>,
    T: 'static,
    E: Into<Cause>,
{
    let charge = internally(|| Arc::new(charge.into()));
    let items = items.into_iter();
    let pull = Pull {
        items,
        charge: Arc::clone(&charge),
    };
    Receiver::of_lazy(pull, charge)
}

struct Pull<I> {
    items: I,
    charge: Arc<Charge>,
}

impl<I, T, E> Lazy<T> for Pull<I>
where
    I: Iterator<Item = Result<T, E>> + Send,
    E: Into<Cause>,
{
    fn poll_item(&mut self, _context: &mut Context<'_>) -> Poll<Received<T>> {
        Poll::Ready(weigh(&self.charge, || self.items.next()))
    }
}

impl<T: 'static> Receiver<T>
where
    T: Send,
{
    /// A stage that makes another item of each, when it is asked for one, in the scope of who is
    /// charged. `change` owns the item that it is given: what was declared for it ends when it is
    /// dropped or taken apart. Unless somebody was named, it is charged to this stage meanwhile.
    ///
    /// A value that is passed on, changed or not, weighs what is left of it.
    ///
    /// ```
    /// use bursar::Consumer;
    /// use bursar::stream::pull;
    ///
    /// let (scan, parse) = (Consumer::new("scan"), Consumer::new("parse"));
    /// let lines = pull(&scan, ["1 2 3", "4 5"]);
    /// let mut sums = lines.map(&parse, |line| {
    ///     line.split(' ').map(|word| word.parse::<u64>().unwrap_or(0)).sum::<u64>()
    /// });
    /// assert_eq!(*sums.recv().unwrap()?, 6);
    /// # Ok::<(), bursar::stream::StreamError>(())
    /// ```
    pub fn map<U: 'static>(
        self,
        charge: impl Into<Charge>,
        mut change: impl FnMut(Item<T>) -> U + Send + 'static,
    ) -> Receiver<U> {
        self.try_map(charge, move |item| Ok::<_, Infallible>(change(item)))
    }

    /// [`map`](Receiver::map) with a closure that can fail: the first error ends the stream, and
    /// stops what comes before this stage.
    pub fn try_map<U: 'static, E: Into<Cause>>(
        self,
        charge: impl Into<Charge>,
        change: impl FnMut(Item<T>) -> Result<U, E> + Send + 'static,
    ) -> Receiver<U> {
        let charge = internally(|| Arc::new(charge.into()));
        let stage = Map {
            items: self.or_charged_to(&charge),
            change,
            charge: Arc::clone(&charge),
        };
        Receiver::of_lazy(stage, charge)
    }

    /// [`map`](Receiver::map) with a future for each item, one after the other. What the future
    /// allocates is counted at each poll.
    pub fn then<F>(
        self,
        charge: impl Into<Charge>,
        change: impl FnMut(Item<T>) -> F + Send + 'static,
    ) -> Receiver<F::Output>
    where
        F: Future + Send + 'static,
    {
        let charge = internally(|| Arc::new(charge.into()));
        let stage = Then {
            items: self.or_charged_to(&charge),
            change,
            charge: Arc::clone(&charge),
            under_way: None,
        };
        Receiver::of_lazy(stage, charge)
    }
}

struct Map<T, C> {
    items: Receiver<T>,
    change: C,
    charge: Arc<Charge>,
}

impl<T, U, E, C> Lazy<U> for Map<T, C>
where
    T: Send,
    E: Into<Cause>,
    C: FnMut(Item<T>) -> Result<U, E> + Send,
{
    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Received<U>> {
        let received = ready!(self.items.poll_recv(context));
        Poll::Ready(received.and_then(|received| match received {
            Ok(item) => weigh(&self.charge, || Some((self.change)(item))),
            Err(error) => Some(Err(error)),
        }))
    }
}

struct Then<T, C, F> {
    items: Receiver<T>,
    change: C,
    charge: Arc<Charge>,
    under_way: Option<Pin<Box<Weighing<F>>>>,
}

impl<T, C, F> Lazy<F::Output> for Then<T, C, F>
where
    T: Send,
    C: FnMut(Item<T>) -> F + Send,
    F: Future + Send,
{
    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Received<F::Output>> {
        if self.under_way.is_none() {
            match ready!(self.items.poll_recv(context)) {
                Some(Ok(item)) => {
                    let begun = Weighing::begin(&self.charge, || (self.change)(item));
                    self.under_way = Some(internally(|| Box::pin(begun)));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let under_way = self.under_way.as_mut().expect("begun above");
        let item = ready!(under_way.as_mut().poll(context));
        self.under_way = None;
        Poll::Ready(Some(Ok(item)))
    }
}

/// One stream of the items of several, which take turns: whoever has an item ready is served before
/// anybody else is served twice. The order among the items of one input stays. An error of one
/// input is passed on in its turn, ends the stream, and stops the others.
///
/// Unless somebody was named, items are charged as `charge` says once they leave their input.
///
/// ```
/// use bursar::Consumer;
/// use bursar::stream::{merge, pull};
///
/// let inputs = [1, 2].map(|n| pull(&Consumer::new("scan"), vec![n; 3]));
/// let merged = merge(&Consumer::new("join"), inputs);
/// let order: Result<Vec<i32>, _> = merged.into_iter().map(|n| n.map(|n| *n)).collect();
/// assert_eq!(order?, [1, 2, 1, 2, 1, 2]);
/// # Ok::<(), bursar::stream::StreamError>(())
/// ```
pub fn merge<T: Send + 'static>(
    charge: impl Into<Charge>,
    inputs: impl IntoIterator<Item = Receiver<T>>,
) -> Receiver<T> {
    let charge = internally(|| Arc::new(charge.into()));
    let named = inputs.into_iter().map(|input| input.or_charged_to(&charge));
    let stage = Merge {
        inputs: named.collect(),
        turn: 0,
    };
    Receiver::of_lazy(stage, charge)
}

struct Merge<T> {
    /// Those that have not ended.
    inputs: Vec<Receiver<T>>,
    /// Whose turn it is.
    turn: usize,
}

impl<T: Send> Lazy<T> for Merge<T> {
    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Received<T>> {
        let mut waiting = 0;
        while waiting < self.inputs.len() {
            self.turn %= self.inputs.len();
            match self.inputs[self.turn].poll_recv(context) {
                Poll::Ready(Some(received)) => {
                    self.turn += 1;
                    return Poll::Ready(Some(received));
                }
                // The next one moves up to its place.
                Poll::Ready(None) => drop(self.inputs.remove(self.turn)),
                Poll::Pending => {
                    self.turn += 1;
                    waiting += 1;
                }
            }
        }
        if self.inputs.is_empty() {
            Poll::Ready(None)
        } else {
            Poll::Pending
        }
    }
}
