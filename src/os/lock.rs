//! A futex lock that knows its owner, so that fork hooks can tell their own thread's lock from
//! another's. No poisoning, no allocation, no panic.

use super::call::{attempt, surely};
use super::clock::coarse_millis;
use super::fault::Call;
use super::sync::{AtomicU32, AtomicU64, Ordering};
use super::thread::{identity, thread_word};
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};

thread_word! {
    /// How many locks the thread has or is about to take, forks left aside: the distance from null.
    mod held: *const u8 = core::ptr::null();
}

/// Counts a lock more, before it is taken: a handler may interrupt its thread at any instruction.
fn count_one_more() {
    held::set(held::get().wrapping_add(1));
}

/// Counts a lock less, after it was given back, or was not to be had.
fn count_one_less() {
    held::set(held::get().wrapping_sub(1));
}

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
/// How long a fork by a thread that holds a lock waits for another: longer than most forks take.
const PATIENCE_MILLIS: u64 = 100;
/// Whoever sleeps looks again so soon, woken or not. The one that was woken may have been interrupted
/// by a handler first, which forks and waits for a lock of one that sleeps on.
static SLEEP: libc::timespec = libc::timespec {
    tv_sec: 0,
    tv_nsec: 10_000_000,
};

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
        self.take(identity()).then(|| Guard(self))
    }

    fn take(&self, holder: u64) -> bool {
        count_one_more();
        let taken = self.replace(FREE, holder);
        if !taken {
            count_one_less();
        }
        taken
    }

    fn replace(&self, from: u64, to: u64) -> bool {
        // Acquire pairs with the Release in `release`: the last holder's writes are seen.
        self.word
            .compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    #[cold]
    fn wait(&self) -> Guard<'_, T> {
        self.wait_until(u64::MAX, || self.take(identity() | CONTENDED));
        Guard(self)
    }

    /// Tries to take the lock whenever it is free, and waits while it is not, until a moment of the
    /// coarse clock. Another may sleep, so it is taken with the mark that says so.
    fn wait_until(&self, moment: u64, take: impl Fn() -> bool) -> bool {
        for _ in 0..100 {
            core::hint::spin_loop();
            if self.word.load(Ordering::Relaxed) == FREE {
                break;
            }
        }
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if word == FREE {
                if take() {
                    return true;
                }
            } else if word & CONTENDED != 0 || self.replace(word, word | CONTENDED) {
                if moment != u64::MAX && coarse_millis() >= moment {
                    return false;
                }
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
    ///
    /// A thread that was interrupted with any lock does not wait for good: whoever has this one may
    /// wait for that one, above all another thread that forks. Then the fork goes on without it. Who
    /// waits changes nothing meanwhile, and a child of such a handler may rely on little anyway.
    pub(crate) fn before_fork(&self) {
        if self.is_held_here() {
            self.passed.fetch_add(1, Ordering::Relaxed);
        } else {
            let moment = match held::get().is_null() {
                true => u64::MAX,
                false => coarse_millis() + PATIENCE_MILLIS,
            };
            self.wait_until(moment, || self.replace(FREE, identity() | CONTENDED));
        }
    }

    /// Releases the lock after a fork that took it. In the child no other thread has it or waits.
    pub(crate) fn after_fork(&self, in_child: bool) {
        if self.is_held_here() && self.passed.load(Ordering::Relaxed) != 0 {
            self.passed.fetch_sub(1, Ordering::Relaxed);
        } else if in_child {
            self.passed.store(0, Ordering::Relaxed);
            self.word.store(FREE, Ordering::Relaxed);
        } else if self.is_held_here() {
            self.release();
        }
    }

    /// Sleeps while the lower half of the word is `value`, or less long: the caller looks again.
    fn sleep(&self, value: u32) {
        // SAFETY: the lower half of a word that is alive, and a time that is.
        let _ = attempt(Call::Wait, || unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.word.as_ptr().cast::<u32>(),
                libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                value,
                &raw const SLEEP,
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
        count_one_less();
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

    /// The one that a release woke may be interrupted before it looks, and then never look.
    #[test]
    fn sleepers_look_though_another_was_woken() {
        static LOCK: Lock<()> = Lock::new(());
        let (slept, sleeper) = std::sync::mpsc::channel();
        assert!(LOCK.replace(FREE, identity()));
        std::thread::spawn(move || {
            drop(LOCK.lock());
            slept.send(()).unwrap();
        });
        while LOCK.word.load(Ordering::Relaxed) & CONTENDED == 0 {
            std::thread::yield_now();
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        LOCK.word.store(FREE, Ordering::Release);
        let woken = sleeper.recv_timeout(std::time::Duration::from_secs(60));
        assert_eq!(woken, Ok(()));
    }

    /// A handler interrupts the holder of one lock and forks, while another thread forks, which has
    /// the other lock and waits for this one.
    #[test]
    fn forks_do_not_wait_for_each_other() {
        static FIRST: Lock<()> = Lock::new(());
        static SECOND: Lock<()> = Lock::new(());
        let forks = |order: [&Lock<()>; 2]| {
            order.iter().for_each(|lock| lock.before_fork());
            order.iter().rev().for_each(|lock| lock.after_fork(false));
        };
        std::thread::scope(|scope| {
            let interrupted = SECOND.lock();
            let other = scope.spawn(|| forks([&FIRST, &SECOND]));
            while FIRST.word.load(Ordering::Relaxed) == FREE {
                std::thread::yield_now();
            }
            forks([&FIRST, &SECOND]);
            assert!(FIRST.try_lock().is_none(), "the other thread has it");
            assert!(SECOND.is_held_here());
            drop(interrupted);
            other.join().unwrap();
        });
        assert!(FIRST.try_lock().is_some() && SECOND.try_lock().is_some());
        assert!(held::get().is_null());
    }
}
