//! A lock word that outlives its holders: it names the process that holds it, so that others can
//! take it over when that process is dead.
//!
//! ```text
//! FREE --take--> id --give--> FREE
//!                id --take over, id's process is dead or no process--> id'
//! ```
//! Who takes over finds what the lock protects half changed, and puts it in order first. The word
//! lies in memory that others write: any value may be found in it, at any time.

use crate::os::sync::{AtomicU64, Ordering};

/// Held by nobody. No process has this id.
pub(super) const FREE: u64 = 0;

/// What an attempt to take the lock came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Attempt {
    /// It is taken, and what it protects is in order.
    Taken,
    /// It is taken; its holder died, or the word was no process's.
    TakenOver,
    /// This process, which is alive, has it.
    Held(u64),
}

/// Tries to take the lock for the process `me`; `is_dead` tells whether a holder is.
pub(super) fn try_take(word: &AtomicU64, me: u64, is_dead: impl Fn(u64) -> bool) -> Attempt {
    // Acquire, here and below, pairs with the Release in `give`. A process that died gave nothing:
    // its stores were done before the kernel called it dead, which `is_dead` has heard of.
    match word.compare_exchange(FREE, me, Ordering::Acquire, Ordering::Relaxed) {
        Ok(_) => Attempt::Taken,
        Err(holder) if is_dead(holder) => {
            match word.compare_exchange(holder, me, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => Attempt::TakenOver,
                // Somebody was faster: to take it over, or to give it back if it only seemed dead.
                Err(other) => Attempt::Held(other),
            }
        }
        Err(holder) => Attempt::Held(holder),
    }
}

/// Gives the lock back; false if it was no longer ours, by no doing of this protocol.
pub(super) fn give(word: &AtomicU64, me: u64) -> bool {
    // Release pairs with the Acquire in `try_take`.
    word.compare_exchange(me, FREE, Ordering::Release, Ordering::Relaxed)
        .is_ok()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_taken_given_and_taken_over() {
        let word = AtomicU64::new(FREE);
        let alive = |_| false;
        assert_eq!(try_take(&word, 1, alive), Attempt::Taken);
        assert_eq!(try_take(&word, 2, alive), Attempt::Held(1));
        assert!(!give(&word, 2));
        assert_eq!(try_take(&word, 2, |id| id == 1), Attempt::TakenOver);
        assert!(!give(&word, 1));
        assert!(give(&word, 2));
        assert_eq!(try_take(&word, 1, alive), Attempt::Taken);
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::os::sync::AtomicU64 as Word;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    struct Shared {
        word: Word,
        /// What the lock protects; loom refuses unordered accesses.
        count: UnsafeCell<u64>,
        /// Set when process 1 is dead, by what stands for the kernel.
        is_dead: Word,
    }

    // SAFETY: the count is reached by the lock's holder only, which is what the model checks.
    unsafe impl Send for Shared {}
    // SAFETY: as above.
    unsafe impl Sync for Shared {}

    impl Shared {
        fn new() -> Arc<Shared> {
            Arc::new(Shared {
                word: Word::new(FREE),
                count: UnsafeCell::new(0),
                is_dead: Word::new(0),
            })
        }

        /// Acquire and Release stand for the system calls.
        fn attempt(&self, me: u64) -> Attempt {
            let is_dead = |id| id == 1 && self.is_dead.load(Ordering::Acquire) == 1;
            try_take(&self.word, me, is_dead)
        }

        fn add(&self) {
            // SAFETY: the holder's.
            self.count.with_mut(|count| unsafe { *count += 1 });
        }

        fn take(&self, me: u64) -> Attempt {
            loop {
                match self.attempt(me) {
                    Attempt::Held(_) => thread::yield_now(),
                    taken => return taken,
                }
            }
        }
    }

    #[test]
    fn one_at_a_time() {
        loom::model(|| {
            let shared = Shared::new();
            let other = Arc::clone(&shared);
            let second = thread::spawn(move || {
                assert_eq!(other.take(2), Attempt::Taken);
                other.add();
                assert!(give(&other.word, 2));
            });
            assert_eq!(shared.take(3), Attempt::Taken);
            shared.add();
            assert!(give(&shared.word, 3));
            second.join().unwrap();
            assert_eq!(shared.take(1), Attempt::Taken);
            // SAFETY: the holder's.
            assert_eq!(shared.count.with(|count| unsafe { *count }), 2);
        });
    }

    #[test]
    fn one_takes_over_from_the_dead() {
        loom::model(|| {
            let shared = Shared::new();
            let dying = Arc::clone(&shared);
            let dead = thread::spawn(move || {
                assert_eq!(dying.attempt(1), Attempt::Taken);
                dying.add();
                dying.is_dead.store(1, Ordering::Release);
            });
            dead.join().unwrap();
            let other = Arc::clone(&shared);
            let survivor = |shared: &Shared, me| {
                let how = shared.take(me);
                shared.add();
                assert!(give(&shared.word, me));
                how == Attempt::TakenOver
            };
            let second = thread::spawn(move || survivor(&other, 2));
            let first = survivor(&shared, 3);
            assert!(
                first != second.join().unwrap(),
                "one of them puts it in order"
            );
            // SAFETY: nobody else is left.
            assert_eq!(shared.count.with(|count| unsafe { *count }), 3);
        });
    }

    #[test]
    fn the_dying_is_not_robbed_before_it_is_dead() {
        loom::model(|| {
            let shared = Shared::new();
            let dying = Arc::clone(&shared);
            let dead = thread::spawn(move || {
                let had = dying.attempt(1) == Attempt::Taken;
                if had {
                    dying.add();
                }
                dying.is_dead.store(1, Ordering::Release);
                had
            });
            let how = shared.take(2);
            shared.add();
            assert!(give(&shared.word, 2));
            let had = dead.join().unwrap();
            if how == Attempt::TakenOver {
                assert!(had);
            }
        });
    }
}
