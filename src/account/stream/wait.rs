//! Waiting on a thread: look a few times, then park until woken.

use super::super::registry::internally;
use core::cell::Cell;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use std::sync::Arc;
use std::task::Wake;
use std::thread::{self, Thread};
use std::thread_local;

/// Wakes a thread that waits here. The flag is its own, so that a token of `park` that somebody
/// else takes or leaves changes nothing.
struct Unpark {
    is_woken: AtomicBool,
    thread: Thread,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Release pairs with the Acquire in `take`: what was done before is seen.
        self.is_woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl Unpark {
    fn new() -> Arc<Unpark> {
        internally(|| {
            Arc::new(Unpark {
                is_woken: AtomicBool::new(false),
                thread: thread::current(),
            })
        })
    }

    /// Whether it was woken since it was asked last.
    fn take(&self) -> bool {
        self.is_woken.swap(false, Ordering::Acquire)
    }
}

thread_local! {
    /// What wakes this thread, while it does not wait. Who waits inside of somebody's polling gets
    /// another: it must not take what was meant for that one.
    static UNUSED: Cell<Option<Arc<Unpark>>> = const { Cell::new(None) };
}

/// Polls until it is ready; in between the thread is parked.
pub(super) fn block_on<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    // A thread that has destroyed its thread-locals can still wait.
    let unused = UNUSED.try_with(Cell::take).ok().flatten();
    let unpark = unused.unwrap_or_else(Unpark::new);
    let waker = Waker::from(Arc::clone(&unpark));
    let mut context = Context::from_waker(&waker);
    let result = loop {
        match poll(&mut context) {
            Poll::Ready(ready) => break ready,
            Poll::Pending => {
                if spin(|| unpark.take().then_some(())).is_none() {
                    while !unpark.take() {
                        thread::park();
                    }
                }
            }
        }
    };
    let _ = UNUSED.try_with(|place| place.set(Some(unpark)));
    result
}

/// How often is looked before a thread parks: pauses that double, then turns given up. Together
/// some microseconds, about what parking and waking cost.
const PAUSES: u32 = 6;
const TURNS: u32 = 4;

/// Looks a few times for what another thread is likely to be about to do.
pub(super) fn spin<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    for step in 0..PAUSES {
        if let Some(found) = look() {
            return Some(found);
        }
        (0..1_u32 << step).for_each(|_| spin_loop());
    }
    for _ in 0..TURNS {
        if let Some(found) = look() {
            return Some(found);
        }
        thread::yield_now();
    }
    look()
}
