//! Loom models of the hand-over. A wake-up that is lost leaves all threads parked, which loom
//! reports as a deadlock; a slot reached by two threads at once, as a race.

use super::*;
use loom::sync::{Condvar, Mutex};
use loom::thread;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed as Uncounted};
use std::task::Wake;
use std::vec::Vec;

/// All schedules with at most three preemptions: more than any step of the hand-over has to race
/// with, and few enough to be run each time.
fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(check);
}

/// Loom's own parking takes a late `unpark` for the end of whatever its thread waits for by then.
#[derive(Default)]
struct Parker {
    woken: Mutex<bool>,
    wakes: Condvar,
}

impl Wake for Parker {
    fn wake(self: std::sync::Arc<Self>) {
        *self.woken.lock().unwrap() = true;
        self.wakes.notify_one();
    }
}

impl Parker {
    fn park(&self) {
        let mut woken = self.woken.lock().unwrap();
        while !*woken {
            woken = self.wakes.wait(woken).unwrap();
        }
        *woken = false;
    }
}

/// Parks until a poll is ready.
fn wait<R>(mut poll: impl FnMut(&Waker) -> Poll<R>) -> R {
    let parker = std::sync::Arc::new(Parker::default());
    let waker = Waker::from(std::sync::Arc::clone(&parker));
    loop {
        match poll(&waker) {
            Poll::Ready(ready) => return ready,
            Poll::Pending => parker.park(),
        }
    }
}

fn send(sender: &mut Sender<Box<u64>, ()>, bytes: u64, value: u64) -> Result<(), Closed> {
    wait(|waker| sender.poll_room(bytes, waker))?;
    sender.push(bytes, Box::new(value));
    Ok(())
}

/// A queue that counts what is discarded outside the model.
fn counting(
    items: usize,
) -> (
    Sender<Box<u64>, ()>,
    Taker<Box<u64>, ()>,
    std::sync::Arc<AtomicUsize>,
) {
    let discarded = std::sync::Arc::new(AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&discarded);
    let (sender, taker) = queue(
        items,
        10,
        Box::new(move |_, _| {
            count.fetch_add(1, Uncounted);
        }),
    );
    (sender, taker, discarded)
}

/// Two items through a ring of one, then the end: the sender waits for room, the taker for items
/// and for the end, all in every order.
#[test]
fn nobody_waits_for_what_has_happened() {
    model(|| {
        let (mut sender, mut taker, discarded) = counting(1);
        let thread = thread::spawn(move || {
            send(&mut sender, 1, 1).unwrap();
            // Alone above the bound: passes when the ring is empty.
            send(&mut sender, 11, 2).unwrap();
            sender.end(());
        });
        let mut values = Vec::new();
        while let Taken::Item(_, value) = wait(|waker| taker.poll(waker)) {
            values.push(*value);
        }
        assert_eq!(values, [1, 2]);
        thread.join().unwrap();
        drop(taker);
        assert_eq!(discarded.load(Uncounted), 0);
    });
}

/// The bound in bytes holds a sender back although there are free slots.
#[test]
fn bytes_wake_a_sender_too() {
    model(|| {
        let (mut sender, mut taker, _) = counting(4);
        let thread = thread::spawn(move || {
            send(&mut sender, 6, 1).unwrap();
            send(&mut sender, 6, 2).unwrap();
        });
        for expected in [1, 2] {
            let taken = wait(|waker| taker.poll(waker));
            assert_eq!(taken, Taken::Item(6, Box::new(expected)));
        }
        thread.join().unwrap();
    });
}

/// A taker that goes while a sender sends or waits: the sender is told, and every item is taken or
/// discarded, by the time both are gone and no later than the sender's last call.
#[test]
fn a_taker_that_goes_frees_everything_and_wakes_the_sender() {
    model(|| {
        let (mut sender, mut taker, discarded) = counting(1);
        let thread = thread::spawn(move || {
            let sent = (1..=3).take_while(|&value| send(&mut sender, 1, value).is_ok());
            (sent.count(), sender)
        });
        let taken = matches!(wait(|waker| taker.poll(waker)), Taken::Item(..));
        drop(taker);
        let (sent, sender) = thread.join().unwrap();
        assert!(taken);
        assert!(sender.is_closed());
        // The queue itself is still there.
        assert_eq!(discarded.load(Uncounted) + 1, sent);
        drop(sender);
        assert_eq!(discarded.load(Uncounted) + 1, sent);
    });
}

/// A waiter that changes its waker while it is woken: the last waker counts.
#[test]
fn a_stale_waker_does_not_swallow_a_wake_up() {
    model(|| {
        let (sender, mut taker, _) = counting(1);
        let thread = thread::spawn(move || sender.end(()));
        // Polled once as another task would be.
        let first = taker.poll(Waker::noop());
        if first.is_pending() {
            assert_eq!(wait(|waker| taker.poll(waker)), Taken::End(Some(())));
        }
        thread.join().unwrap();
    });
}
