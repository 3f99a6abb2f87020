//! One that waits, and one that wakes it.
//!
//! ```text
//! waiter:  arm; fence; look again          waker:  change what is looked at; fence; notify
//! ```
//! Of the two fences one is first. If it is the waiter's, the other side finds the place armed; if
//! it is the other's, the waiter finds the change when it looks again. So no wake-up is lost, and
//! nobody looks twice without being woken.

use crate::os::sync::{AtomicU8, Mutex, Ordering, fence};
use core::task::Waker;
use std::sync::PoisonError;

use Ordering::{Relaxed, SeqCst};

/// The place where one side of a queue waits for the other.
pub(super) struct Waiting {
    /// 1 while somebody is to be woken. Changed under the lock.
    is_armed: AtomicU8,
    waker: Mutex<Option<Waker>>,
}

impl Waiting {
    pub(super) fn new() -> Waiting {
        Waiting {
            is_armed: AtomicU8::new(0),
            waker: Mutex::new(None),
        }
    }

    /// The waiter asks to be woken. It looks again after this, and then waits or disarms.
    pub(super) fn arm(&self, waker: &Waker) {
        let stale = self.with_waker(|place| {
            self.is_armed.store(1, Relaxed);
            match place {
                Some(old) if old.will_wake(waker) => None,
                _ => place.replace(waker.clone()),
            }
        });
        drop(stale);
        // Pairs with the fence in `notify`: see above.
        fence(SeqCst);
    }

    /// The waiter does not wait any more. The waker stays for the next time.
    pub(super) fn disarm(&self) {
        self.with_waker(|_| self.is_armed.store(0, Relaxed));
    }

    /// The waiter is gone. Its waker may own it, and so this place.
    pub(super) fn leave(&self) {
        drop(self.with_waker(Option::take));
    }

    /// Wakes the waiter if there is one. Whatever was done before it is seen by the waiter.
    #[inline]
    pub(super) fn notify(&self) {
        // Pairs with the fence in `arm`.
        fence(SeqCst);
        if self.is_armed.load(Relaxed) == 1 {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        let waker = self.with_waker(|place| {
            // A waiter that has disarmed found what it waited for.
            let is_armed = self.is_armed.load(Relaxed) == 1;
            self.is_armed.store(0, Relaxed);
            if is_armed { place.take() } else { None }
        });
        // Outside the lock: it may run the waiter, which comes back here.
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// What `work` takes out is dropped outside the lock: a waker's drop may be anything.
    fn with_waker<T>(&self, work: impl FnOnce(&mut Option<Waker>) -> T) -> T {
        // A waker that panicked in its clone or drop has left the place as it was.
        let mut place = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut place)
    }
}
