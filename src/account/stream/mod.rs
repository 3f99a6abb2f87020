//! Streams: results that flow one at a time, produced, handed over, consumed and released, in place
//! of lists of all of them.
//!
//! [`bounded`] makes the two halves of a stream; [`from_iter`] runs an iterator on a thread of its
//! own, [`pull`] computes each item when it is asked for. [`map`](Receiver::map),
//! [`then`](Receiver::then), [`merge`] and [`ahead`](Receiver::ahead) make chains. Halves and stages
//! may be used by threads and by tasks, in any mixture.
//!
//! ```
//! use bursar::Consumer;
//! use bursar::stream::{Bounds, from_iter};
//!
//! let [scan, parse] = ["scan", "parse"].map(Consumer::new);
//! let bounds = Bounds { items: 4, bytes: 1 << 20 };
//! let lines = from_iter(&scan, bounds, (0..100_u64).map(|n| format!("{n},{}", n * n)));
//! let squares = lines.try_map(&parse, |line| {
//!     let (_, square) = line.split_once(',').ok_or("no comma")?;
//!     square.parse::<u64>().map_err(|_| "no number")
//! });
//! let mut sum = 0;
//! for square in squares.ahead(bounds) {
//!     sum += *square?;
//! }
//! assert_eq!(sum, 328_350);
//! # Ok::<(), bursar::stream::StreamError>(())
//! ```
//!
//! # What holds
//! - **Charges.** What an item weighs is declared on the books of its producer's consumer, or by its
//!   reservation, until it is handed over; then the receiver's, if one was named; and ends when the
//!   [`Item`] is dropped. The weight is what making the item left live, counted by the allocator;
//!   a hint can replace it.
//! - **Bounds.** Items that are on their way, the one that is being made among them, are at most
//!   `items`. Their bytes are at most `bytes`, except that an item which alone weighs more passes
//!   when nothing else is on its way. A producer that has made an item which does not fit yet holds
//!   it. In a chain that holds for each of its queues.
//! - **Order.** Items arrive in the order in which they were produced, and an error after the items
//!   before it. It is the last.
//! - **Ends.** A receiver that is dropped frees what it has not received and stops the producer; a
//!   producer that is dropped, cancelled or killed by a panic ends the stream with an error.
//! - **Waiting.** Who waits is woken by what it waits for. A thread first looks for some
//!   microseconds, then parks; a task is suspended at once.
//!
//! An item costs some hundred nanoseconds, or less, beside what making it does, and what handing its
//! blocks over does if that is asked for. What a stream needs itself, a ring of `items` places first
//! of all, is charged to bursar's own account.

mod ahead;
mod charge;
mod error;
mod item;
mod lazy;
mod meter;
mod producer;
mod queue;
mod receiver;
mod wait;
mod weighing;

pub use ahead::{from_iter, try_from_iter};
pub use charge::Charge;
pub use error::{Cause, SendError, StreamError};
pub use item::Item;
pub use lazy::{merge, pull, try_pull};
pub use producer::Producer;
pub use receiver::{IntoIter, Iter, Receiver};

use super::registry::internally;
use item::Parcel;
use std::boxed::Box;
use std::sync::Arc;

/// How much may be on its way from a producer to a receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// At most so many items, the one that is being made included. At least one always may be. So
    /// many places, rounded up to a power of two, are reserved; a place that is never used costs no
    /// memory in a large ring.
    pub items: usize,
    /// Of at most so many bytes together, or one item alone.
    pub bytes: u64,
}

/// The two halves of a stream whose items are made for `charge`: a consumer, or a reservation.
///
/// Costs a few allocations and the ring, charged to bursar's own account.
///
/// # Panics
/// If there can be no ring of that many items.
pub fn bounded<T>(charge: impl Into<Charge>, bounds: Bounds) -> (Producer<T>, Receiver<T>) {
    channel(internally(|| Arc::new(charge.into())), bounds)
}

fn channel<T>(charge: Arc<Charge>, bounds: Bounds) -> (Producer<T>, Receiver<T>) {
    internally(|| {
        // Of its own: the receiver's counts of it are not on the producer's cache line.
        let from = Arc::new(Charge::clone(&charge));
        let of_discarded = Arc::clone(&from);
        let discard = move |bytes, parcel: Parcel<T>| parcel.discard(bytes, &of_discarded);
        let (sender, taker) = queue::queue(bounds.items, bounds.bytes, Box::new(discard));
        let receiver = Receiver::of_queue(taker, from);
        (Producer::new(sender, charge), receiver)
    })
}
