//! Whether anybody can still make an account count: handles, and threads in its scope.
//!
//! A thread in a scope may make a handle although none is left ([`revive`](Presence::revive)), so
//! that neither count alone tells. Who asks looks at the handles, then at the scopes, and then
//! whether a handle was made meanwhile:
//!
//! ```text
//! no handles, then no scopes, and no revival in between  =>  neither ever again
//! ```
//! since scopes begin only with a handle, and handles are made only from handles or in scopes.

use crate::os::sync::{AtomicU64, Ordering};

/// The handles of one account.
pub(crate) struct Presence {
    handles: AtomicU64,
    /// How often a handle was made without another.
    revivals: AtomicU64,
}

impl Presence {
    /// With one handle.
    pub(crate) fn new() -> Presence {
        Presence {
            handles: AtomicU64::new(1),
            revivals: AtomicU64::new(0),
        }
    }

    /// One more handle, made from another.
    pub(crate) fn add(&self) {
        // Relaxed: whoever has a handle may make another.
        self.handles.fetch_add(1, Ordering::Relaxed);
    }

    /// One handle less; whether it was the last.
    pub(crate) fn drop_one(&self) -> bool {
        // Release pairs with the Acquire in `is_any`: what was done with the handle, scopes that
        // were entered included, is seen by who finds none left.
        self.handles.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// How many handles there are.
    pub(crate) fn count(&self) -> u64 {
        self.handles.load(Ordering::Acquire)
    }

    /// Whether there are handles.
    pub(crate) fn is_any(&self) -> bool {
        self.count() != 0
    }

    /// A handle for a thread that is in a scope.
    pub(crate) fn revive(&self) {
        // The handle first: who begins with this revival counted sees the handle, or that it was
        // dropped after another scope was entered. Release pairs with the Acquire in `is_over`.
        self.handles.fetch_add(1, Ordering::AcqRel);
        self.revivals.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether a handle was ever made without another. Who has a handle and finds that none was
    /// knows that the account never was without one.
    pub(crate) fn was_revived(&self) -> bool {
        self.revivals.load(Ordering::Acquire) != 0
    }

    /// Whether there are neither handles nor scopes, and never will be again.
    pub(crate) fn is_over(&self, is_entered: impl FnOnce() -> bool) -> bool {
        let revivals = self.revivals.load(Ordering::Acquire);
        if self.is_any() || is_entered() || self.is_any() {
            return false;
        }
        revivals == self.revivals.load(Ordering::Acquire)
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    struct Shared {
        presence: Presence,
        /// Scopes of the one thread that has any.
        scopes: AtomicU64,
        /// What it allocates in them.
        blocks: AtomicU64,
    }

    /// A thread enters a scope, drops its handle, makes another in the scope, leaves it, and enters
    /// again with the new handle. Whoever finds the account over meanwhile is right.
    #[test]
    fn over_is_for_good() {
        loom::model(|| {
            let shared = Arc::new(Shared {
                presence: Presence::new(),
                scopes: AtomicU64::new(0),
                blocks: AtomicU64::new(0),
            });
            let other = Arc::clone(&shared);
            let thread = thread::spawn(move || {
                // The order of stores that `Ledger::enter` and `leave` make.
                other.scopes.store(1, Ordering::Release);
                other.presence.drop_one();
                other.presence.revive();
                other.scopes.store(0, Ordering::Release);
                other.scopes.store(1, Ordering::Release);
                other.presence.drop_one();
                other.blocks.fetch_add(1, Ordering::Relaxed);
                other.scopes.store(0, Ordering::Release);
            });
            let is_entered = || shared.scopes.load(Ordering::Acquire) != 0;
            let over = shared.presence.is_over(is_entered);
            let seen = shared.blocks.load(Ordering::Relaxed);
            thread.join().unwrap();
            if over {
                assert_eq!(seen, 1, "it counted once more after it was found over");
            }
        });
    }
}
