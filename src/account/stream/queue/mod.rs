//! The hand-over: a ring with one sender and one taker, bounded in items and in bytes.
//!
//! ```text
//! sent - taken = items in the ring <= bound    bytes sent - bytes taken = their bytes <= bound
//! ```
//! except that an item which alone is above the bound passes when the ring is empty. Each side
//! writes its own counts and reads the other's only when what it last saw does not do. A side that
//! must wait does so at its [`Waiting`] place. The last thing that a sender sends is its end; a
//! taker that is gone closes the ring, and who comes last frees what is in it.

mod waiting;

use crate::os::sync::{Arc, AtomicU8, AtomicU64, Ordering, UnsafeCell, fence};
use core::mem::MaybeUninit;
use core::task::{Poll, Waker};
use std::boxed::Box;
use waiting::Waiting;

use Ordering::{Acquire, Relaxed, Release, SeqCst};

/// The taker is there.
const OPEN: u8 = 0;
/// The taker is gone.
const CLOSED: u8 = 1;
/// The taker is gone, and somebody frees what is left.
const DRAINING: u8 = 2;

/// The counts that one side writes, on cache lines of their own.
#[repr(align(128))]
struct Side {
    items: AtomicU64,
    bytes: AtomicU64,
}

impl Side {
    fn new() -> Side {
        Side {
            items: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }
}

type Slot<T> = UnsafeCell<MaybeUninit<(u64, T)>>;
type Discard<T> = Box<dyn Fn(u64, T) + Send + Sync>;

struct Queue<T, E> {
    slots: Box<[Slot<T>]>,
    most_items: u64,
    most_bytes: u64,
    sent: Side,
    taken: Side,
    /// Whether the taker is there.
    state: AtomicU8,
    /// 1 when the end has been written.
    has_ended: AtomicU8,
    end: UnsafeCell<Option<E>>,
    for_items: Waiting,
    for_room: Waiting,
    /// What is done with an item that nobody took.
    discard: Discard<T>,
}

// SAFETY: a slot is reached by the sender while its index is not below `sent`, and then by the
// taker, or who drains, until it is below `taken`; the end by the sender until `has_ended`, and
// then by the taker. So values move between threads, and are never shared.
unsafe impl<T: Send, E: Send> Sync for Queue<T, E> {}
// SAFETY: as above.
unsafe impl<T: Send, E: Send> Send for Queue<T, E> {}

/// The sending side.
pub(crate) struct Sender<T, E> {
    queue: Arc<Queue<T, E>>,
    sent: u64,
    sent_bytes: u64,
    /// What was last seen of the taker's.
    seen_taken: u64,
    seen_taken_bytes: u64,
}

/// The taking side. Dropping it closes the queue.
pub(crate) struct Taker<T, E> {
    queue: Arc<Queue<T, E>>,
    taken: u64,
    taken_bytes: u64,
    /// What was last seen of the sender's.
    seen_sent: u64,
}

/// What a taker gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken<T, E> {
    /// An item, with its bytes.
    Item(u64, T),
    /// The end, `None` if it has been taken.
    End(Option<E>),
}

/// The taker is gone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Closed;

/// A queue of at most `items` items of together at most `bytes`. A bound of no items is one of one.
pub(crate) fn queue<T, E>(
    items: usize,
    bytes: u64,
    discard: Discard<T>,
) -> (Sender<T, E>, Taker<T, E>) {
    let items = items.max(1);
    // A power of two, so that an index needs no division.
    let slots = (0..items.next_power_of_two()).map(|_| Slot::new(MaybeUninit::uninit()));
    let queue = Arc::new(Queue {
        slots: slots.collect(),
        most_items: items as u64,
        most_bytes: bytes,
        sent: Side::new(),
        taken: Side::new(),
        state: AtomicU8::new(OPEN),
        has_ended: AtomicU8::new(0),
        end: UnsafeCell::new(None),
        for_items: Waiting::new(),
        for_room: Waiting::new(),
        discard,
    });
    let sender = Sender {
        queue: Arc::clone(&queue),
        sent: 0,
        sent_bytes: 0,
        seen_taken: 0,
        seen_taken_bytes: 0,
    };
    let taker = Taker {
        queue,
        taken: 0,
        taken_bytes: 0,
        seen_sent: 0,
    };
    (sender, taker)
}

impl<T, E> Queue<T, E> {
    #[inline]
    fn slot(&self, index: u64) -> &Slot<T> {
        &self.slots[index as usize & (self.slots.len() - 1)]
    }

    /// Moves an item out of its slot.
    ///
    /// # Safety
    /// The item was sent and not taken, and nobody else takes it.
    #[inline]
    unsafe fn take(&self, index: u64) -> (u64, T) {
        // SAFETY: the caller's promise: the slot was written.
        self.slot(index)
            .with_mut(|slot| unsafe { (*slot).assume_init_read() })
    }

    /// Frees what is in a closed queue, unless somebody does already, who looks again then.
    #[cold]
    fn drain(&self) {
        loop {
            // Acquire pairs with the Release below: what another has taken is not taken again.
            let claimed = self
                .state
                .compare_exchange(CLOSED, DRAINING, Acquire, Relaxed);
            if claimed.is_err() {
                return;
            }
            self.discard_all();
            self.state.store(CLOSED, Release);
            // Pairs with the fence in `push`: either the sender finds nobody draining, or its item
            // is seen here.
            fence(SeqCst);
            if self.sent.items.load(Relaxed) == self.taken.items.load(Relaxed) {
                return;
            }
        }
    }

    /// Frees all items. Only by who closed the queue, drains it, or drops it.
    fn discard_all(&self) {
        // Acquire pairs with the Release in `push`: the slots are written.
        let sent = self.sent.items.load(Acquire);
        let mut taken = self.taken.items.load(Relaxed);
        while taken != sent {
            // SAFETY: sent and not taken, and the caller is alone.
            let (bytes, value) = unsafe { self.take(taken) };
            taken += 1;
            // First, so that a value which panics in its drop is not dropped again. Release pairs
            // with the Acquire in `fits`: a sender that has not seen the closing may use the slot.
            self.taken.items.store(taken, Release);
            (self.discard)(bytes, value);
        }
    }
}

impl<T, E> Drop for Queue<T, E> {
    fn drop(&mut self) {
        self.discard_all();
    }
}

impl<T, E> Sender<T, E> {
    /// Whether an item of `bytes` fits.
    #[inline]
    pub(crate) fn fits(&mut self, bytes: u64) -> bool {
        self.fits_as_seen(bytes) || {
            // Acquire pairs with the Release in `pop`: the slots are free to be written, and the
            // bytes are no older than the items.
            self.seen_taken = self.queue.taken.items.load(Acquire);
            self.seen_taken_bytes = self.queue.taken.bytes.load(Relaxed);
            self.fits_as_seen(bytes)
        }
    }

    #[inline]
    fn fits_as_seen(&self, bytes: u64) -> bool {
        let items = self.sent - self.seen_taken;
        let in_flight = self.sent_bytes.wrapping_sub(self.seen_taken_bytes);
        let has_room = in_flight.saturating_add(bytes) <= self.queue.most_bytes;
        items == 0 || (items < self.queue.most_items && has_room)
    }

    /// The least bytes for which an item that is not made yet is worth making.
    pub(crate) fn least(&self) -> u64 {
        self.queue.most_bytes.min(1)
    }

    /// Whether the taker is gone.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.queue.state.load(Relaxed) != OPEN
    }

    /// Sends an item that [fits](Sender::fits). If the taker is gone or goes meanwhile, the item is
    /// discarded.
    #[inline]
    pub(crate) fn push(&mut self, bytes: u64, value: T) {
        debug_assert!(self.fits(bytes));
        let slot = self.queue.slot(self.sent);
        slot.with_mut(|slot| {
            // SAFETY: there is room, so the slot is not in use; only this side writes slots.
            unsafe { (*slot).write((bytes, value)) };
        });
        self.sent += 1;
        self.sent_bytes = self.sent_bytes.wrapping_add(bytes);
        // Release pairs with the Acquire in `pop` and `discard_all`: the slot is written.
        self.queue.sent.items.store(self.sent, Release);
        // With its fence, which also pairs with those in `drain` and of closing.
        self.queue.for_items.notify();
        if self.is_closed() {
            self.queue.drain();
        }
    }

    /// Whether an item of `bytes` fits; if not, the waker is woken when that may have changed.
    pub(crate) fn poll_room(&mut self, bytes: u64, waker: &Waker) -> Poll<Result<(), Closed>> {
        if let Some(ready) = self.room(bytes) {
            return Poll::Ready(ready);
        }
        self.queue.for_room.arm(waker);
        match self.room(bytes) {
            Some(ready) => {
                self.queue.for_room.disarm();
                Poll::Ready(ready)
            }
            None => Poll::Pending,
        }
    }

    /// `None` if there is no room now.
    #[inline]
    pub(crate) fn room(&mut self, bytes: u64) -> Option<Result<(), Closed>> {
        if self.is_closed() {
            return Some(Err(Closed));
        }
        self.fits(bytes).then_some(Ok(()))
    }

    /// Sends the end, after which nothing is sent.
    pub(crate) fn end(self, end: E) {
        // SAFETY: only this side writes it, once, and before the taker is told.
        self.queue
            .end
            .with_mut(|place| unsafe { *place = Some(end) });
        // Release pairs with the Acquire in `look_for_end`.
        self.queue.has_ended.store(1, Release);
        self.queue.for_items.notify();
        self.queue.for_room.leave();
    }
}

impl<T, E> Taker<T, E> {
    /// The next item if there is one.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<(u64, T)> {
        if self.taken == self.seen_sent {
            // Acquire pairs with the Release in `push`: the slots are written.
            self.seen_sent = self.queue.sent.items.load(Acquire);
            if self.taken == self.seen_sent {
                return None;
            }
        }
        // SAFETY: sent and not taken, and only this side takes.
        let (bytes, value) = unsafe { self.queue.take(self.taken) };
        self.taken += 1;
        self.taken_bytes = self.taken_bytes.wrapping_add(bytes);
        self.queue.taken.bytes.store(self.taken_bytes, Relaxed);
        // Release pairs with the Acquire in `fits`: the slot is free, and the bytes are counted.
        self.queue.taken.items.store(self.taken, Release);
        self.queue.for_room.notify();
        Some((bytes, value))
    }

    /// What there is now: an item, or the end if all items were taken.
    #[inline]
    pub(crate) fn look(&mut self) -> Option<Taken<T, E>> {
        match self.pop() {
            Some((bytes, value)) => Some(Taken::Item(bytes, value)),
            None => self.look_for_end(),
        }
    }

    fn look_for_end(&mut self) -> Option<Taken<T, E>> {
        // Acquire pairs with the Release in `end`: the end is written, and all items before it.
        if self.queue.has_ended.load(Acquire) == 0 {
            return None;
        }
        Some(match self.pop() {
            Some((bytes, value)) => Taken::Item(bytes, value),
            // SAFETY: the sender has ended and does not touch it any more.
            None => Taken::End(self.queue.end.with_mut(|end| unsafe { (*end).take() })),
        })
    }

    /// What there is now; if nothing, the waker is woken when that may have changed.
    pub(crate) fn poll(&mut self, waker: &Waker) -> Poll<Taken<T, E>> {
        if let Some(taken) = self.look() {
            return Poll::Ready(taken);
        }
        self.queue.for_items.arm(waker);
        match self.look() {
            Some(taken) => {
                self.queue.for_items.disarm();
                Poll::Ready(taken)
            }
            None => Poll::Pending,
        }
    }
}

impl<T, E> Drop for Taker<T, E> {
    fn drop(&mut self) {
        // Release pairs with the Acquire of who drains: what was taken is not taken again. The
        // fence in `notify` pairs with the one in `push`: either the sender sees that the queue is
        // closed, or its item is seen here.
        self.queue.state.store(CLOSED, Release);
        self.queue.for_room.notify();
        self.queue.for_items.leave();
        self.queue.drain();
    }
}

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;
