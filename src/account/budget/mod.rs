//! Budgets: who may declare how much.
//!
//! A [`Budget`] answers the calls of [reservations](crate::Reservation). Most are a [`Policy`],
//! which says how much room there is and no more: books, the asking of others, and errors come
//! with it (`admission`, `books`, `reclaim`, `error`).
//!
//! ```text
//! Reservation --try_grow--> Budget --room?--> Policy
//!                             | short: ask the largest others (Reclaim), outside all locks,
//!                             |        then try again
//!                             +--> BudgetError
//! ```

mod admission;
mod books;
mod error;
mod fair;
mod greedy;
mod policy;
mod real;
mod reclaim;
mod tracking;
mod unbounded;

pub(super) use admission::{ask_largest, ask_others};
pub use books::Books;
pub use error::{BudgetError, Holder, ShrinkError};
pub use fair::Fair;
pub use greedy::Greedy;
pub use policy::{Holding, Holdings, Policy, Refusal, Room};
pub use real::RealBytes;
pub use reclaim::Reclaim;
pub use tracking::{Tracked, TrackedReservation, Tracking, TrackingReport};
pub use unbounded::Unbounded;

use super::consumer::Consumer;
use core::fmt;
use std::sync::Weak;
use std::vec::Vec;

/// The most that all reservations of a budget together may declare, whatever its policy: bytes are
/// counted in `i64` where they are compared with real ones.
pub(super) const MOST: u64 = i64::MAX as u64;

/// Admits what reservations declare, or refuses it.
///
/// Reservations keep this protocol: growth asks the budget first and then raises the size;
/// shrinking lowers the size first and then tells the budget. So `reserved` is never less than the
/// sum of the sizes, and equals it when no call is under way. A budget has to bear calls by many
/// threads at once, and calls it causes itself while it asks others to free memory: no lock may be
/// held meanwhile.
///
/// Whoever wants a policy of their own implements [`Policy`], which is less work, or this trait,
/// which leaves all freedom. Programs call [`Reservation`](crate::Reservation) rather than these
/// methods; a bridge to a memory pool of another library may call them, with claims of its own.
///
/// ```
/// use bursar::{Budget, Consumer, Greedy};
/// use std::sync::Arc;
///
/// let budget: Arc<dyn Budget> = Arc::new(Greedy::new(1000));
/// let sort = Consumer::new("sort").register(&budget);
/// sort.try_grow(900)?;
/// let refused = sort.try_grow(200).unwrap_err();
/// assert_eq!((refused.asked, refused.left), (200, 100));
/// drop(sort);
/// assert_eq!(budget.reserved(), 0);
/// # Ok::<(), bursar::BudgetError>(())
/// ```
pub trait Budget: Send + Sync + fmt::Debug {
    /// A word for messages.
    fn name(&self) -> &str;

    /// Bytes declared by all.
    fn reserved(&self) -> u64;

    /// The most that it admits in all; `None` if there is no such number.
    fn limit(&self) -> Option<u64> {
        None
    }

    /// A consumer begins to have reservations here. It may do so several times; each is ended by
    /// one [`unregister`](Budget::unregister), after its last reservation.
    fn register(&self, consumer: &Consumer) {
        let _ = consumer;
    }

    /// One of its registrations ends.
    fn unregister(&self, consumer: &Consumer) {
        let _ = consumer;
    }

    /// Books `bytes` more, whether there is room or not.
    ///
    /// # Panics
    /// May, if more than `i64::MAX` bytes would be declared in all.
    fn grow(&self, claim: &Claim<'_>, bytes: u64);

    /// Books `bytes` more if there is room.
    ///
    /// # Errors
    /// If there is none; then nothing is booked.
    fn try_grow(&self, claim: &Claim<'_>, bytes: u64) -> Result<(), BudgetError>;

    /// Books `bytes` less; never more than the consumer has.
    fn shrink(&self, claim: &Claim<'_>, bytes: u64);

    /// Of what was booked for the reservation `from`, `bytes` belong to `to` from now on. Both are
    /// of one consumer, so only who looks at single reservations need know.
    fn split(&self, from: &Claim<'_>, to: &Claim<'_>, bytes: u64) {
        let _ = (from, to, bytes);
    }

    /// A reservation is gone. It had given back all it had. Who calls these methods with claims of
    /// their own ends each with this.
    fn close(&self, claim: &Claim<'_>) {
        let _ = claim;
    }

    /// The consumers that hold most, the largest first: at most `count`.
    fn largest(&self, count: usize) -> Vec<Holder> {
        let _ = count;
        Vec::new()
    }

    /// Has `reclaim` asked when there is not enough room for others, until it or the consumer's
    /// registration is gone. A budget without limits need not ask anybody.
    fn add_reclaim(&self, consumer: &Consumer, reclaim: Weak<dyn Reclaim>) {
        let _ = (consumer, reclaim);
    }
}

/// A reservation as its budget sees it.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    consumer: &'a Consumer,
    reservation: u64,
    size: u64,
}

impl<'a> Claim<'a> {
    /// For a reservation of that number and size.
    pub const fn new(consumer: &'a Consumer, reservation: u64, size: u64) -> Claim<'a> {
        Claim {
            consumer,
            reservation,
            size,
        }
    }

    /// Whose it is.
    pub const fn consumer(&self) -> &'a Consumer {
        self.consumer
    }

    /// Its number among those of its consumer.
    pub const fn reservation(&self) -> u64 {
        self.reservation
    }

    /// Its size at the time of the call. Other threads may be changing it.
    pub const fn size(&self) -> u64 {
        self.size
    }
}
