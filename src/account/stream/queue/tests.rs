use super::*;
use std::sync::Mutex;
use std::vec::Vec;

type Discarded = Arc<Mutex<Vec<(u64, u32)>>>;

fn keeping(
    items: usize,
    bytes: u64,
) -> (
    Sender<u32, &'static str>,
    Taker<u32, &'static str>,
    Discarded,
) {
    let discarded = Discarded::default();
    let kept = Arc::clone(&discarded);
    let discard = move |bytes, value| kept.lock().unwrap().push((bytes, value));
    let (sender, taker) = queue(items, bytes, Box::new(discard));
    (sender, taker, discarded)
}

fn is_waiting<T>(poll: Poll<T>) -> bool {
    poll.is_pending()
}

#[test]
fn both_bounds_hold_exactly() {
    let (mut sender, mut taker, _) = keeping(3, 100);
    for (value, bytes) in [(1, 40), (2, 60)] {
        assert!(sender.fits(bytes));
        sender.push(bytes, value);
    }
    assert!(sender.fits(0) && !sender.fits(1));
    sender.push(0, 3);
    assert!(!sender.fits(0), "three items are the bound");
    assert_eq!(taker.look(), Some(Taken::Item(40, 1)));
    assert!(sender.fits(40) && !sender.fits(41));
}

#[test]
fn an_item_above_the_bound_passes_alone() {
    let (mut sender, mut taker, _) = keeping(8, 10);
    assert!(sender.fits(u64::MAX));
    sender.push(u64::MAX, 1);
    assert!(!sender.fits(0));
    assert!(is_waiting(sender.poll_room(1, Waker::noop())));
    assert_eq!(taker.look(), Some(Taken::Item(u64::MAX, 1)));
    assert!(sender.fits(11) && sender.fits(u64::MAX));
    sender.push(1, 2);
    assert!(sender.fits(9) && !sender.fits(10));
}

#[test]
fn no_bound_is_a_bound_of_one_item() {
    let (mut sender, mut taker, _) = keeping(0, 0);
    assert_eq!(sender.least(), 0);
    sender.push(5, 1);
    assert!(!sender.fits(0));
    assert!(taker.look().is_some());
    assert!(sender.fits(5));
}

#[test]
fn slots_come_round() {
    let (mut sender, mut taker, discarded) = keeping(3, u64::MAX);
    for value in 0..100 {
        assert!(sender.fits(1));
        sender.push(1, value);
        if value >= 2 {
            assert_eq!(taker.look(), Some(Taken::Item(1, value - 2)));
        }
    }
    drop((sender, taker));
    assert_eq!(*discarded.lock().unwrap(), [(1, 98), (1, 99)]);
}

#[test]
fn the_end_comes_after_the_items_and_once() {
    let (mut sender, mut taker, _) = keeping(4, 4);
    assert_eq!(taker.look(), None);
    sender.push(1, 1);
    sender.end("over");
    assert_eq!(taker.look(), Some(Taken::Item(1, 1)));
    assert_eq!(taker.look(), Some(Taken::End(Some("over"))));
    assert_eq!(taker.look(), Some(Taken::End(None)));
}

#[test]
fn closing_discards_what_is_there_and_what_comes() {
    let (mut sender, taker, discarded) = keeping(4, 4);
    sender.push(1, 1);
    sender.push(2, 2);
    drop(taker);
    assert_eq!(*discarded.lock().unwrap(), [(1, 1), (2, 2)]);
    assert_eq!(sender.room(1), Some(Err(Closed)));
    assert_eq!(sender.poll_room(9, Waker::noop()), Poll::Ready(Err(Closed)));
    // A sender that did not look: the item is discarded, not kept.
    sender.push(0, 3);
    assert_eq!(discarded.lock().unwrap().last(), Some(&(0, 3)));
}
