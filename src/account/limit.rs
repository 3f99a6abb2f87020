//! Limits on the bytes that a consumer and those below it really hold, and pressure.
//!
//! Nothing happens inside the allocator but the comparison of a bound with a hard limit, where the
//! thread said that it can take a refusal. Everything else happens at safe points: reservation
//! calls, the end of a wrapped future's poll, and [`Consumer::safe_point`].

use super::consumer::Consumer;
use super::record::{Account, Handle};
use super::usage::Usage;
use crate::arena::owners::UNLIMITED;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use core::task::{Context, Poll, Waker};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

/// Limits on live bytes of a consumer and all below it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Limits {
    /// Above this there is pressure.
    pub soft: Option<u64>,
    /// Requests that would pass it are refused inside [`Consumer::try_run`]. Elsewhere, above it
    /// there is pressure.
    pub hard: Option<u64>,
}

impl Limits {
    /// No limits.
    pub const fn none() -> Limits {
        Limits {
            soft: None,
            hard: None,
        }
    }

    /// With a soft limit, in bytes.
    #[must_use]
    pub const fn soft(mut self, bytes: u64) -> Limits {
        self.soft = Some(bytes);
        self
    }

    /// With a hard limit, in bytes.
    #[must_use]
    pub const fn hard(mut self, bytes: u64) -> Limits {
        self.hard = Some(bytes);
        self
    }
}

/// What a pressure callback is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Pressure {
    /// Live bytes of the consumer and all below it.
    pub live_bytes: u64,
    /// The lower of its limits.
    pub limit_bytes: u64,
}

type Callback = Arc<dyn Fn(&Consumer, Pressure) + Send + Sync>;

/// What waits for pressure on one account to begin or to end.
#[derive(Default)]
pub(super) struct Watch {
    /// Pressure was seen, and its end was not.
    is_pressed: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    for_pressure: Vec<Callback>,
    for_its_end: Vec<Waker>,
}

impl Watch {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in there is ever half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    /// By how much its limits are passed: the cheap bound first, then the exact count.
    fn pressure(&self) -> Option<Pressure> {
        let (soft, hard) = self.owner().limits();
        let limit_bytes = soft.min(hard);
        if self.owner().tree_bound().0 <= limit_bytes {
            return None;
        }
        let live_bytes = Usage::of(self).subtree_live_bytes;
        (live_bytes > limit_bytes).then_some(Pressure {
            live_bytes,
            limit_bytes,
        })
    }

    /// Looks whether pressure has begun or ended, and tells those who wait for that. Whether there
    /// is pressure.
    fn watch(&self) -> bool {
        let watch = self.watched();
        match self.pressure() {
            Some(pressure) => {
                if !watch.is_pressed.swap(true, Relaxed) {
                    // Called outside the lock, since they may come back here.
                    let callbacks = watch.waiting().for_pressure.clone();
                    let consumer = Consumer::of(Handle::another(self));
                    callbacks.iter().for_each(|call| call(&consumer, pressure));
                }
                true
            }
            None => {
                if watch.is_pressed.swap(false, Relaxed) {
                    let wakers = core::mem::take(&mut watch.waiting().for_its_end);
                    wakers.into_iter().for_each(Waker::wake);
                }
                false
            }
        }
    }

    fn has_limits(&self) -> bool {
        let (soft, hard) = self.owner().limits();
        soft.min(hard) != UNLIMITED
    }

    /// The account and those above it that have limits.
    fn limited(&self) -> impl Iterator<Item = &Account> {
        core::iter::successors(Some(self), |account| account.parent())
            .filter(|account| account.has_limits())
    }

    /// Looks after the account and all above it.
    pub(super) fn safe_point(&self) {
        for account in self.limited() {
            account.watch();
        }
    }
}

impl Consumer {
    /// Limits the bytes that this consumer and all below it hold.
    ///
    /// Soft limits are compared with the exact count, at safe points. Hard limits are compared
    /// inside [`try_run`](Consumer::try_run) with a bound that is above the count by what pages of
    /// the consumers' own runs have free and by up to 16 KiB a thread and consumer: so a request
    /// may be refused that much early, and live bytes never pass the limit by requests inside
    /// `try_run`, by whatever number of threads, where the bound was below it when they began.
    /// Bytes taken over by [`transfer`](crate::transfer), and those allocated outside `try_run`,
    /// are not refused and may pass it; and so may requests for what pages already in use have
    /// free, where the limit is set below what the consumer had at its disposal by then.
    pub fn set_limits(&self, limits: Limits) {
        let soft = limits.soft.unwrap_or(UNLIMITED);
        self.account()
            .owner()
            .limit(soft, limits.hard.unwrap_or(UNLIMITED));
        // Pressure may have ended with the limits.
        self.account().watch();
        self.safe_point();
    }

    /// The limits.
    pub fn limits(&self) -> Limits {
        let (soft, hard) = self.account().owner().limits();
        let set = |limit| (limit != UNLIMITED).then_some(limit);
        Limits {
            soft: set(soft),
            hard: set(hard),
        }
    }

    /// Whether this consumer, or one above it, holds more than its limits now. Nanoseconds where
    /// it is far below them, otherwise the cost of [`usage`](Consumer::usage).
    pub fn is_pressed(&self) -> bool {
        self.account()
            .limited()
            .any(|account| account.pressure().is_some())
    }

    /// Has `call` called, after those added before it, at the next safe point of this consumer or
    /// one below it, each time this consumer's limits are passed. Not for those of consumers above
    /// it. It may allocate, and use bursar as it likes. It is kept as long as the consumer: one
    /// that owns a handle of its own consumer keeps that for good, so take the one that it is
    /// called with.
    pub fn on_pressure(&self, call: impl Fn(&Consumer, Pressure) + Send + Sync + 'static) {
        let callbacks = &mut self.account().watched().waiting().for_pressure;
        callbacks.push(Arc::new(call));
    }

    /// Lets callbacks run that are due, and wakes who waits for the end of pressure. Reservation
    /// calls do so, and wrapped futures after each poll; a long computation may now and then.
    pub fn safe_point(&self) {
        self.account().safe_point();
    }

    /// A future that is ready when neither this consumer nor one above it is
    /// [pressed](Consumer::is_pressed). It is woken at safe points of consumers below the one that
    /// was pressed.
    pub fn pressure_ended(&self) -> PressureEnded {
        PressureEnded {
            consumer: self.clone(),
        }
    }
}

/// A future that is ready when there is no pressure; made by [`Consumer::pressure_ended`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct PressureEnded {
    consumer: Consumer,
}

impl Future for PressureEnded {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut is_pressed = false;
        for account in self.consumer.account().limited() {
            let wakers = &mut account.watched().waiting().for_its_end;
            if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                wakers.push(context.waker().clone());
            }
        }
        // With the wakers in place: whoever sees the end of pressure that was seen here wakes.
        for account in self.consumer.account().limited() {
            is_pressed |= account.watch();
        }
        if is_pressed {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }
}

impl fmt::Debug for PressureEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PressureEnded")
            .field("consumer", &self.consumer)
            .finish()
    }
}
