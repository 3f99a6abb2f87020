//! A queue that everybody may add to, and that is only ever emptied whole: so a push that succeeds
//! has linked to what is really the first, and there is no ABA problem.

use crate::os::sync::{AtomicPtr, Ordering};
use core::ptr::null_mut;

/// What can be queued.
pub(super) trait Linked: Sized {
    /// Its link to the next in the queue.
    fn link(&self) -> &AtomicPtr<Self>;
}

/// The queue. Who has taken an item out has it, until it puts it into a queue again.
pub(super) struct Queue<T> {
    first: AtomicPtr<T>,
}

impl<T: Linked> Queue<T> {
    #[cfg(not(loom))]
    pub(super) const fn new() -> Queue<T> {
        Queue {
            first: AtomicPtr::new(null_mut()),
        }
    }

    #[cfg(loom)]
    pub(super) fn new() -> Queue<T> {
        Queue {
            first: AtomicPtr::new(null_mut()),
        }
    }

    /// Adds an item.
    ///
    /// # Safety
    /// The item is the caller's, in no queue, and alive until it is taken out.
    pub(super) unsafe fn push(&self, item: *mut T) {
        let mut first = self.first.load(Ordering::Relaxed);
        loop {
            // SAFETY: the item is the caller's until the exchange succeeds.
            unsafe { (*item).link().store(first, Ordering::Relaxed) };
            // Release pairs with the Acquire in `empty`.
            match self.first.compare_exchange_weak(
                first,
                item,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }

    /// Hands every item to `take`, the last one that was added first. Whether there were any.
    pub(super) fn empty(&self, mut take: impl FnMut(*mut T)) -> bool {
        if self.first.load(Ordering::Relaxed).is_null() {
            return false;
        }
        // Acquire: what was done to an item before it was added is seen.
        let mut next = self.first.swap(null_mut(), Ordering::Acquire);
        let any = !next.is_null();
        while !next.is_null() {
            let item = next;
            // SAFETY: items in the queue are alive, and ours now.
            next = unsafe { (*item).link().load(Ordering::Relaxed) };
            take(item);
        }
        any
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::cell::Cell;
    use loom::sync::Arc;
    use loom::thread;
    use std::boxed::Box;

    struct Item {
        link: AtomicPtr<Item>,
        /// Written by whoever has the item.
        visits: Cell<u32>,
    }

    impl Linked for Item {
        fn link(&self) -> &AtomicPtr<Item> {
            &self.link
        }
    }

    fn item() -> *mut Item {
        Box::into_raw(Box::new(Item {
            link: AtomicPtr::new(null_mut()),
            visits: Cell::new(0),
        }))
    }

    /// Takes everything out, and puts it back or not. How many there were.
    fn visit(queue: &Queue<Item>, put_back: bool) -> u32 {
        let mut items = 0;
        queue.empty(|item| {
            items += 1;
            // SAFETY: taken out just now; the model leaks its items.
            unsafe {
                (*item).visits.set((*item).visits.get() + 1);
                if put_back {
                    queue.push(item);
                }
            }
        });
        items
    }

    /// Two threads add, and one of them takes out what there is and adds it again, while a third
    /// takes it out: nobody has what another has, and nothing is lost.
    #[test]
    fn an_item_has_one_holder() {
        loom::model(|| {
            let queue = Arc::new(Queue::new());
            let (other, visitor) = (Arc::clone(&queue), Arc::clone(&queue));
            let (a, b) = (item().expose_provenance(), item());
            let adder = thread::spawn(move || {
                // SAFETY: the model's own item, leaked.
                unsafe { other.push(core::ptr::with_exposed_provenance_mut(a)) };
            });
            let visitor = thread::spawn(move || visit(&visitor, true));
            // SAFETY: as above.
            unsafe { queue.push(b) };
            let early = visit(&queue, false);
            adder.join().unwrap();
            visitor.join().unwrap();
            assert_eq!(early + visit(&queue, false), 2);
        });
    }
}
