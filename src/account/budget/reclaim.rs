//! Asking others to free memory before a request is refused.

use core::cell::Cell;
use core::marker::PhantomData;
use std::sync::Weak;
use std::thread_local;
use std::vec::Vec;

/// Frees memory when others need it: spills, empties a cache.
///
/// Added to a budget with [`Reservation::on_shortage`](crate::Reservation::on_shortage). Closures
/// `Fn(u64) -> u64` are one.
pub trait Reclaim: Send + Sync {
    /// Frees `wanted` bytes, or what it can, gives them back through its reservations, and returns
    /// how many they were. It may well free more than `wanted`.
    ///
    /// It is called on the thread of the request that is short, and bursar holds no lock
    /// meanwhile, so every call to budgets and reservations is allowed, but requests made here ask
    /// nobody in turn: they succeed or fail at once. It must not wait for a lock that anybody holds
    /// while making a request, since that may be the request for which it is called: `try_lock`,
    /// and 0 if that fails. Should it panic, the panic passes through the request, which then has
    /// got nothing.
    fn reclaim(&self, wanted: u64) -> u64;
}

impl<F: Fn(u64) -> u64 + Send + Sync> Reclaim for F {
    fn reclaim(&self, wanted: u64) -> u64 {
        self(wanted)
    }
}

/// Whom to ask next.
pub(super) struct Candidate {
    pub(super) consumer_id: u64,
    pub(super) wanted: u64,
    pub(super) reclaimers: Vec<Weak<dyn Reclaim>>,
}

impl Candidate {
    /// Asks each of its callbacks until it has freed enough.
    pub(super) fn ask(self) {
        let mut wanted = self.wanted;
        for reclaim in self.reclaimers.iter().filter_map(Weak::upgrade) {
            wanted = wanted.saturating_sub(reclaim.reclaim(wanted));
            if wanted == 0 {
                return;
            }
        }
    }
}

thread_local! {
    /// The thread is asking others. Without a destructor, so it works until the thread's end.
    static ASKING: Cell<bool> = const { Cell::new(false) };
}

/// This thread asks others, and does not do so again in the requests that they make.
pub(super) struct AskingOthers(PhantomData<*const ()>);

impl AskingOthers {
    /// `None` if it does so already.
    pub(super) fn begin() -> Option<AskingOthers> {
        (!ASKING.replace(true)).then(|| AskingOthers(PhantomData))
    }
}

impl Drop for AskingOthers {
    fn drop(&mut self) {
        ASKING.set(false);
    }
}

/// Whether somebody is left who could be asked.
pub(super) fn is_alive(reclaim: &Weak<dyn Reclaim>) -> bool {
    reclaim.strong_count() > 0
}
