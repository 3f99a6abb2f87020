//! A futex lock that knows its owner, so that fork hooks can tell their own thread's lock from
//! another's. No poisoning, no allocation, no panic.

use super::call::{attempt, surely};
use super::fault::Call;
use super::sync::{AtomicU32, AtomicU64, Ordering};
use super::thread::identity;
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};

/// Mutual exclusion over a `T`.
pub(crate) struct Lock<T> {
    /// The holder's identity, 0 while free, with [`CONTENDED`] if somebody may sleep. One word, so
    /// that a signal handler that interrupts its thread at any instruction can tell whether that
    /// thread holds the lock.
    word: AtomicU64,
    /// Forks of the holder's, under way, that found it held: in a signal handler which interrupted
    /// the holder, perhaps in the middle of another fork.
    passed: AtomicU32,
    value: UnsafeCell<T>,
}

const FREE: u64 = 0;
/// Identities are even.
const CONTENDED: u64 = 1;

// SAFETY: the value is reached only by the one thread that holds the lock.
unsafe impl<T: Send> Sync for Lock<T> {}

/// Proof that the lock is held; releases it when dropped.
pub(crate) struct Guard<'a, T>(&'a Lock<T>);

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Lock {
            word: AtomicU64::new(FREE),
            passed: AtomicU32::new(0),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits for the lock.
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        self.try_lock().unwrap_or_else(|| self.wait())
    }

    /// The lock if it is free now.
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, T>> {
        self.replace(FREE, identity()).then(|| Guard(self))
    }

    fn replace(&self, from: u64, to: u64) -> bool {
        // Acquire pairs with the Release in `release`: the last holder's writes are seen.
        self.word
            .compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    #[cold]
    fn wait(&self) -> Guard<'_, T> {
        for _ in 0..100 {
            core::hint::spin_loop();
            if self.word.load(Ordering::Relaxed) == FREE {
                break;
            }
        }
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if word == FREE {
                // Another waiter may sleep.
                if self.replace(FREE, identity() | CONTENDED) {
                    return Guard(self);
                }
            } else if word & CONTENDED != 0 || self.replace(word, word | CONTENDED) {
                self.sleep((word | CONTENDED) as u32);
            }
        }
    }

    fn release(&self) {
        // Release pairs with the Acquire of the next holder.
        if self.word.swap(FREE, Ordering::Release) & CONTENDED != 0 {
            self.wake_one();
        }
    }

    /// Whether this very thread holds the lock.
    pub(crate) fn is_held_here(&self) -> bool {
        self.word.load(Ordering::Relaxed) & !CONTENDED == identity()
    }

    /// Takes the lock before a fork, unless this very thread holds it: it forks from a signal handler
    /// that interrupted the holder. That may itself have been forking, so each such fork is counted;
    /// one that begins later ends first.
    pub(crate) fn before_fork(&self) {
        if self.is_held_here() {
            self.passed.fetch_add(1, Ordering::Relaxed);
        } else {
            core::mem::forget(self.lock());
        }
    }

    /// Releases the lock after a fork that took it. In the child no other thread can be waiting.
    pub(crate) fn after_fork(&self, in_child: bool) {
        if self.passed.load(Ordering::Relaxed) != 0 {
            self.passed.fetch_sub(1, Ordering::Relaxed);
        } else if in_child {
            self.word.store(FREE, Ordering::Relaxed);
        } else {
            self.release();
        }
    }

    /// Sleeps while the lower half of the word is `value`, or less long: the caller looks again.
    fn sleep(&self, value: u32) {
        // SAFETY: the lower half of a word that is alive.
        let _ = attempt(Call::Wait, || unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.word.as_ptr().cast::<u32>(),
                libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                value,
                core::ptr::null::<libc::timespec>(),
            ) as libc::c_int
        });
    }

    /// Wakes one who sleeps.
    fn wake_one(&self) {
        // SAFETY: as above.
        surely(|| unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.word.as_ptr().cast::<u32>(),
                libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
                1,
            )
        });
    }
}

// The kernel looks at the half that holds the mark.
static_assertions::const_assert!(cfg!(target_endian = "little"));

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
        LOCK.before_fork();
        LOCK.after_fork(false);
        assert!(LOCK.try_lock().is_none(), "what the thread held it holds");
        drop(guard);
        LOCK.before_fork();
        // Forks of a handler that interrupts that one, the second in the child of the first.
        LOCK.before_fork();
        LOCK.before_fork();
        LOCK.after_fork(true);
        LOCK.after_fork(false);
        assert!(LOCK.try_lock().is_none(), "the first fork has it");
        LOCK.after_fork(false);
        assert!(LOCK.try_lock().is_some());
    }
}
