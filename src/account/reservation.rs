//! Reservations: what a consumer declares to a budget before it allocates, and the real bytes that
//! it allocates under each declaration.

use super::budget::{Budget, BudgetError, Claim, Reclaim, ShrinkError};
use super::consumer::{Consumer, Part};
use super::scope::Scope;
use super::usage::Usage;
use crate::units::OwnerTag;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};

impl Consumer {
    /// Begins a reservation of no bytes with `budget`.
    ///
    /// The consumer is registered there until this reservation and all that are made from it are
    /// gone. Further calls make further registrations of the same consumer.
    pub fn register(&self, budget: &Arc<dyn Budget>) -> Reservation {
        budget.register(self);
        let registration = Registration {
            budget: Arc::clone(budget),
            consumer: self.clone(),
        };
        Reservation::begin(Arc::new(registration), 0)
    }
}

/// What reservations of one `register` share.
struct Registration {
    budget: Arc<dyn Budget>,
    consumer: Consumer,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.budget.unregister(&self.consumer);
    }
}

/// Bytes that a consumer has declared to a budget. Dropping it gives them back.
///
/// A request goes to the budget first, which may refuse it, and the size is raised after; what is
/// given back lowers the size first. All calls may be made by many threads at once, and each takes
/// effect as a whole: sizes and books agree whenever no call is under way.
///
/// What a thread allocates in the reservation's [scope](Reservation::enter) is counted as *real*
/// bytes of this reservation, beside what it declares; both count for the consumer too. Real bytes
/// stay with the reservation under which they were allocated, whatever happens to its size, and
/// with the consumer when the reservation is gone.
///
/// Growing and shrinking are [safe points](Consumer::safe_point) of the consumer, so callbacks may
/// run in them. They cost the budget's lock, some look-ups by id, and a few atomic additions.
///
/// ```
/// use bursar::{Budget, Consumer, Greedy};
/// use std::sync::Arc;
///
/// let budget: Arc<dyn Budget> = Arc::new(Greedy::new(10_000));
/// let sort = Consumer::new("sort");
/// let buffers = sort.register(&budget);
/// buffers.try_grow(8000)?;
/// let rows: Vec<u64> = {
///     let _scope = buffers.enter();
///     Vec::with_capacity(1000)
/// };
/// let index = buffers.split(3000); // declared bytes move; real ones stay
/// assert_eq!((buffers.size(), index.size()), (5000, 3000));
/// assert_eq!(sort.usage().reserved_bytes, 8000);
/// # #[cfg(any())] // holds where bursar is installed as the global allocator
/// assert_eq!(buffers.usage().live_bytes, 8192);
/// # Ok::<(), bursar::BudgetError>(())
/// ```
pub struct Reservation {
    registration: Arc<Registration>,
    id: u64,
    size: AtomicU64,
    peak: AtomicU64,
    /// Made when it is first needed: most reservations declare only.
    part: OnceLock<Part>,
}

impl Reservation {
    fn begin(registration: Arc<Registration>, size: u64) -> Reservation {
        let id = registration.consumer.next_reservation_id();
        Reservation {
            registration,
            id,
            size: AtomicU64::new(size),
            peak: AtomicU64::new(size),
            part: OnceLock::new(),
        }
    }

    /// Its number: unique among the reservations of its consumer, given in ascending order from 0.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whose it is.
    pub fn consumer(&self) -> &Consumer {
        &self.registration.consumer
    }

    /// The budget that admits it.
    pub fn budget(&self) -> &Arc<dyn Budget> {
        &self.registration.budget
    }

    /// What it declares, in bytes.
    pub fn size(&self) -> u64 {
        self.size.load(Relaxed)
    }

    fn claim(&self) -> Claim<'_> {
        Claim::new(self.consumer(), self.id, self.size())
    }

    /// Declares `bytes` more, whether the budget has room or not: for what is allocated already,
    /// or cannot be done without.
    ///
    /// # Panics
    /// If more than `i64::MAX` bytes would be declared to the budget in all.
    pub fn grow(&self, bytes: u64) {
        self.consumer().safe_point();
        self.budget().grow(&self.claim(), bytes);
        self.raise(bytes);
    }

    /// Declares `bytes` more if the budget has room. If it has not, others that hold some of it
    /// may be [asked](Reservation::on_shortage) to give back, on this thread.
    ///
    /// # Errors
    /// If the budget refuses. Nothing has changed then.
    pub fn try_grow(&self, bytes: u64) -> Result<(), BudgetError> {
        self.consumer().safe_point();
        self.budget().try_grow(&self.claim(), bytes)?;
        self.raise(bytes);
        Ok(())
    }

    /// Gives back `bytes`.
    ///
    /// # Panics
    /// If it has less.
    pub fn shrink(&self, bytes: u64) {
        if let Err(error) = self.try_shrink(bytes) {
            panic!("{error}");
        }
    }

    /// Gives back `bytes`, and returns the size that is left.
    ///
    /// # Errors
    /// If it has less. Nothing has changed then.
    pub fn try_shrink(&self, bytes: u64) -> Result<u64, ShrinkError> {
        let left = self.lower(bytes)?;
        self.give_back(bytes);
        Ok(left)
    }

    /// Gives back all, and returns how much that was.
    pub fn free(&self) -> u64 {
        let bytes = self.size.swap(0, Relaxed);
        self.give_back(bytes);
        bytes
    }

    /// Makes the size `bytes`, whether the budget has room or not.
    ///
    /// In one step: there is a moment during the call at which the size is `bytes`, whatever other
    /// threads add or take.
    ///
    /// # Panics
    /// If more than `i64::MAX` bytes would be declared to the budget in all.
    pub fn resize(&self, bytes: u64) {
        let never = self.resize_by(bytes, |more| {
            self.budget().grow(&self.claim(), more);
            Ok::<(), core::convert::Infallible>(())
        });
        let Ok(()) = never;
    }

    /// Makes the size `bytes`, if the budget has room for what that takes; in one step, like
    /// [`resize`](Reservation::resize). Making it smaller always succeeds.
    ///
    /// # Errors
    /// If the budget refuses. The size has not been changed by this call then.
    pub fn try_resize(&self, bytes: u64) -> Result<(), BudgetError> {
        self.resize_by(bytes, |more| self.budget().try_grow(&self.claim(), more))
    }

    /// Splits off `bytes` as a reservation of their own, with a fresh number. The budget is not
    /// asked: the sum stays the same.
    ///
    /// # Panics
    /// If it has less.
    #[must_use = "the bytes are given back when the new reservation is dropped"]
    pub fn split(&self, bytes: u64) -> Reservation {
        match self.try_split(bytes) {
            Ok(split) => split,
            Err(error) => panic!("{error}"),
        }
    }

    /// Splits off `bytes` as a reservation of their own, with a fresh number.
    ///
    /// # Errors
    /// If it has less. Nothing has changed then.
    pub fn try_split(&self, bytes: u64) -> Result<Reservation, ShrinkError> {
        self.lower(bytes)?;
        Ok(self.hand_over(bytes))
    }

    /// Moves all bytes to a new reservation with a fresh number. This one can grow again.
    #[must_use = "the bytes are given back when the new reservation is dropped"]
    pub fn take(&self) -> Reservation {
        self.hand_over(self.size.swap(0, Relaxed))
    }

    /// A reservation of no bytes, of the same consumer with the same budget, with a fresh number.
    pub fn new_empty(&self) -> Reservation {
        Reservation::begin(Arc::clone(&self.registration), 0)
    }

    /// Attributes to this reservation, and so to its consumer, what the thread allocates until the
    /// scope is dropped.
    ///
    /// The first time it opens an account, some hundred nanoseconds; then it costs what
    /// [`Consumer::enter`] does.
    pub fn enter(&self) -> Scope {
        self.part().enter()
    }

    fn part(&self) -> &Part {
        self.part
            .get_or_init(|| self.consumer().begin_part(self.id))
    }

    /// The owner of what is allocated in its scope.
    pub(super) fn owner(&self) -> OwnerTag {
        self.part().owner()
    }

    /// Runs `work` in this reservation's [scope](Reservation::enter).
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        let _scope = self.enter();
        work()
    }

    /// What was allocated under this reservation, and what it declares.
    pub fn usage(&self) -> Usage {
        let mut usage = self.part.get().map(Part::usage).unwrap_or_default();
        usage.reserved_bytes = self.size();
        usage.peak_reserved_bytes = self.peak.load(Relaxed).max(usage.reserved_bytes);
        usage.subtree_reserved_bytes = usage.reserved_bytes;
        usage
    }

    /// Has `reclaim` asked to free memory of this consumer when the budget is short of room for
    /// others.
    ///
    /// Only consumers that [can spill](Consumer::with_can_spill) and hold something are asked, the
    /// largest first, each once for one request, until there is room; never the one that asks,
    /// and nobody if all of them together could not free enough. See [`Reclaim`] for what it may
    /// do. The budget does not keep it alive: it is asked as long as `reclaim` is held elsewhere
    /// and the consumer is registered. So it may own its reservations without a cycle.
    ///
    /// ```
    /// use bursar::{Budget, Consumer, Greedy, Reservation};
    /// use std::sync::Arc;
    ///
    /// struct Cache(Reservation);
    /// impl bursar::Reclaim for Cache {
    ///     fn reclaim(&self, _wanted: u64) -> u64 {
    ///         self.0.free() // here it would drop what it keeps, too
    ///     }
    /// }
    ///
    /// let budget: Arc<dyn Budget> = Arc::new(Greedy::new(100));
    /// let cache = Arc::new(Cache(
    ///     Consumer::new("cache").with_can_spill(true).register(&budget),
    /// ));
    /// cache.0.on_shortage(&cache);
    /// cache.0.try_grow(80)?;
    /// let sort = Consumer::new("sort").register(&budget);
    /// sort.try_grow(50)?; // does not fit beside the cache
    /// assert_eq!(cache.0.size(), 0);
    /// # Ok::<(), bursar::BudgetError>(())
    /// ```
    pub fn on_shortage<R: Reclaim + 'static>(&self, reclaim: &Arc<R>) {
        let weak: Weak<R> = Arc::downgrade(reclaim);
        self.budget().add_reclaim(self.consumer(), weak);
    }

    /// The budget has admitted `bytes`.
    fn raise(&self, bytes: u64) {
        let before = self.size.fetch_add(bytes, Relaxed);
        self.note_raised(before + bytes, bytes);
    }

    fn note_raised(&self, size: u64, by: u64) {
        self.peak.fetch_max(size, Relaxed);
        self.consumer().raise_declared(by);
    }

    /// Takes `bytes` from the size, and returns what is left.
    fn lower(&self, bytes: u64) -> Result<u64, ShrinkError> {
        let lowered = self
            .size
            .fetch_update(Relaxed, Relaxed, |size| size.checked_sub(bytes));
        match lowered {
            Ok(before) => Ok(before - bytes),
            Err(size) => Err(ShrinkError {
                consumer: self.consumer().name().into(),
                consumer_id: self.consumer().id(),
                reservation_id: self.id,
                size,
                asked: bytes,
            }),
        }
    }

    /// Tells the consumer and the budget of `bytes` that were taken from the size.
    fn give_back(&self, bytes: u64) {
        if bytes > 0 {
            self.consumer().lower_declared(bytes);
            self.tell_of_less(bytes);
        }
    }

    fn tell_of_less(&self, bytes: u64) {
        self.budget().shrink(&self.claim(), bytes);
        // While the thread unwinds, a callback that panics would abort.
        if !std::thread::panicking() {
            self.consumer().safe_point();
        }
    }

    /// A new reservation of `bytes` that were taken from the size.
    fn hand_over(&self, bytes: u64) -> Reservation {
        let to = Reservation::begin(Arc::clone(&self.registration), bytes);
        if bytes > 0 {
            self.budget().split(&self.claim(), &to.claim(), bytes);
        }
        to
    }

    /// Makes the size `target`, asking `admit` for what is missing.
    ///
    /// What has been admitted stays in hand while other threads change the size, so that nobody
    /// else takes it between two attempts; what is not needed in the end goes back.
    fn resize_by<E>(&self, target: u64, admit: impl Fn(u64) -> Result<(), E>) -> Result<(), E> {
        self.consumer().safe_point();
        let mut in_hand = InHand {
            reservation: self,
            bytes: 0,
        };
        loop {
            let size = self.size();
            let missing = target.saturating_sub(size);
            if missing > in_hand.bytes {
                admit(missing - in_hand.bytes)?;
                in_hand.bytes = missing;
            }
            let exchanged = self.size.compare_exchange(size, target, Relaxed, Relaxed);
            if exchanged.is_ok() {
                if target >= size {
                    self.note_raised(target, missing);
                } else {
                    self.consumer().lower_declared(size - target);
                }
                // What was admitted covers what was missing.
                in_hand.bytes = in_hand.bytes + size - target;
                return Ok(());
            }
        }
    }
}

/// Bytes that the budget has booked and the size does not show. They go back when this is dropped,
/// also by unwinding.
struct InHand<'a> {
    reservation: &'a Reservation,
    bytes: u64,
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.reservation.tell_of_less(self.bytes);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.free();
        self.budget().close(&self.claim());
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("consumer", self.consumer())
            .field("id", &self.id)
            .field("size", &self.size())
            .field("budget", &self.budget().name())
            .finish()
    }
}
