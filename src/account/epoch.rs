//! Epochs for readers of the registry: crossbeam's, with a collector of our own, so that a forked
//! child, where the readers of other threads are gone for good, can begin with a new one.

use super::registry::internally;
use core::cell::RefCell;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use crossbeam_epoch::{Collector, Guard, LocalHandle};
use std::boxed::Box;

/// The collector of this process; null until the first use.
static COLLECTOR: AtomicPtr<Collector> = AtomicPtr::new(core::ptr::null_mut());
/// Counts the forks that led here.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// A thread's registration, and the generation that it belongs to. What it allocates is bursar's
/// own, at the thread's end too.
struct Handle(Option<(u64, LocalHandle)>);

impl Drop for Handle {
    fn drop(&mut self) {
        internally(|| self.leave());
    }
}

impl Handle {
    fn leave(&mut self) {
        if let Some((generation, handle)) = self.0.take()
            && generation != GENERATION.load(Ordering::Relaxed)
        {
            // The old collector waits for threads that are not there: nothing can be given to it.
            core::mem::forget(handle);
        }
    }

    fn pin(&mut self) -> Guard {
        let generation = GENERATION.load(Ordering::Relaxed);
        if !matches!(self.0, Some((own, _)) if own == generation) {
            self.leave();
        }
        let (_, handle) = self
            .0
            .get_or_insert_with(|| (generation, collector().register()));
        handle.pin()
    }
}

std::thread_local! {
    static HANDLE: RefCell<Handle> = const { RefCell::new(Handle(None)) };
}

/// Keeps accounts that are in the registry now from being freed until the guard is dropped.
pub(super) fn pin() -> Guard {
    internally(|| {
        // Deferred work that is done while pinning may come back here, and threads that end too.
        HANDLE
            .try_with(|handle| Some(handle.try_borrow_mut().ok()?.pin()))
            .ok()
            .flatten()
            .unwrap_or_else(|| collector().register().pin())
    })
}

fn collector() -> &'static Collector {
    // Acquire pairs with the Release below.
    let found = COLLECTOR.load(Ordering::Acquire);
    // SAFETY: collectors are never given up.
    if let Some(found) = unsafe { found.as_ref() } {
        return found;
    }
    let made = Box::into_raw(Box::new(Collector::new()));
    let won = COLLECTOR.compare_exchange(
        core::ptr::null_mut(),
        made,
        Ordering::Release,
        Ordering::Acquire,
    );
    match won {
        // SAFETY: made just now, and never given up.
        Ok(_) => unsafe { &*made },
        Err(faster) => {
            // SAFETY: nobody has seen it; the other is never given up.
            unsafe {
                drop(Box::from_raw(made));
                &*faster
            }
        }
    }
}

/// In a forked child: readers that other threads were are gone.
pub(super) fn begin_anew() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    COLLECTOR.store(core::ptr::null_mut(), Ordering::Release);
}
