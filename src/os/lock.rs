//! A futex lock that knows its owner, so that fork hooks can tell their own thread's lock from
//! another's. No poisoning, no allocation, no panic.

use super::sync::{AtomicU32, AtomicUsize, Ordering};
use super::thread::identity;
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};

const FREE: u32 = 0;
const HELD: u32 = 1;
const CONTENDED: u32 = 2;

/// Mutual exclusion over a `T`.
pub(crate) struct Lock<T> {
    state: AtomicU32,
    /// Identity of the holder, 0 while free; read only to compare with the reader's own.
    holder: AtomicUsize,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only by the one thread that holds the lock.
unsafe impl<T: Send> Sync for Lock<T> {}

/// Proof that the lock is held; releases it when dropped.
pub(crate) struct Guard<'a, T>(&'a Lock<T>);

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Lock {
            state: AtomicU32::new(FREE),
            holder: AtomicUsize::new(0),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits for the lock.
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        // Acquire pairs with the Release in `release`: the last holder's writes are seen.
        if self
            .state
            .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            self.wait();
        }
        self.holder.store(identity(), Ordering::Relaxed);
        Guard(self)
    }

    /// The lock if it is free now.
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, T>> {
        // Acquire: as in `lock`.
        self.state
            .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        self.holder.store(identity(), Ordering::Relaxed);
        Some(Guard(self))
    }

    #[cold]
    fn wait(&self) {
        for _ in 0..100 {
            core::hint::spin_loop();
            if self.state.load(Ordering::Relaxed) == FREE {
                break;
            }
        }
        // Acquire: as in `lock`. CONTENDED, since another waiter may sleep.
        while self.state.swap(CONTENDED, Ordering::Acquire) != FREE {
            futex(&self.state, libc::FUTEX_WAIT, CONTENDED);
        }
    }

    fn release(&self) {
        self.holder.store(0, Ordering::Relaxed);
        // Release pairs with the Acquire of the next holder.
        if self.state.swap(FREE, Ordering::Release) == CONTENDED {
            futex(&self.state, libc::FUTEX_WAKE, 1);
        }
    }

    /// Takes the lock before a fork. False, with nothing taken, if this very thread holds it: it
    /// forks from a signal handler that interrupted the holder.
    pub(crate) fn lock_before_fork(&self) -> bool {
        if self.holder.load(Ordering::Relaxed) == identity() {
            return false;
        }
        core::mem::forget(self.lock());
        true
    }

    /// Releases what [`lock_before_fork`](Self::lock_before_fork) took, if it did. In the child no
    /// other thread can be waiting.
    pub(crate) fn after_fork(&self, taken: bool, in_child: bool) {
        if taken && in_child {
            self.holder.store(0, Ordering::Relaxed);
            self.state.store(FREE, Ordering::Relaxed);
        } else if taken {
            self.release();
        }
    }
}

fn futex(word: &AtomicU32, operation: libc::c_int, value: u32) {
    // SAFETY: the word is alive; a spurious return is allowed for by the callers. errno is kept,
    // since a free must not change it.
    unsafe {
        let errno = *libc::__errno_location();
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            operation | libc::FUTEX_PRIVATE_FLAG,
            value,
            core::ptr::null::<libc::timespec>(),
        );
        *libc::__errno_location() = errno;
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: this guard proves exclusive access.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard proves exclusive access.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        self.0.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excludes() {
        static LOCK: Lock<u64> = Lock::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50_000).for_each(|_| *LOCK.lock() += 1));
            }
        });
        assert_eq!(*LOCK.lock(), 200_000);
        let guard = LOCK.lock();
        assert!(LOCK.try_lock().is_none());
        assert!(
            !LOCK.lock_before_fork(),
            "this thread's own lock is left alone"
        );
        drop(guard);
        assert!(LOCK.lock_before_fork());
        LOCK.after_fork(true, false);
        assert!(LOCK.try_lock().is_some());
    }
}
