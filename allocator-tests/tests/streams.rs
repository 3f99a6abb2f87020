//! Streams on threads: charges, weights, bounds, order, ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use allocator_tests::charges::{both, boxes, buffers, held};
use bursar::stream::{
    Bounds, Producer, Receiver, SendError, StreamError, bounded, from_iter, merge, pull,
    try_from_iter, try_pull,
};
use bursar::{Budget, Bursar, Consumer, Limits, Unbounded, transfer};

#[global_allocator]
static GLOBAL: Bursar = Bursar::new();

/// For what others do in a moment, however busy the machine.
const LONG: Duration = Duration::from_secs(600);

fn bounds(items: usize, bytes: u64) -> Bounds {
    Bounds { items, bytes }
}

fn declared(consumer: &Consumer) -> u64 {
    consumer.usage().reserved_bytes
}

fn consumers<const N: usize>() -> [Consumer; N] {
    std::array::from_fn(|n| Consumer::new(format!("stage {n}")))
}

/// Waits until something holds; only for what another thread is about to do.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < LONG, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn an_item_weighs_what_its_making_left_live() {
    let [scan] = consumers();
    let (producer, _receiver) = bounded(&scan, bounds(4, 1 << 30));
    let item = producer.weigh(|| {
        let scratch = vec![1_u8; 5000];
        let kept = vec![Box::new(1_u64), Box::new(scratch.len() as u64)];
        (kept, vec![0_u8; 3 << 20])
    });
    let expected = both(
        both(buffers::<Box<u64>>([2]), boxes::<u64>(2)),
        buffers::<u8>([3 << 20]),
    );
    assert_eq!(item.bytes(), expected[1]);
    assert_eq!((held(&scan), declared(&scan)), (expected, expected[1]));
    drop(item);
    assert_eq!((held(&scan), declared(&scan)), ([0, 0], 0));
}

#[test]
fn what_is_freed_again_does_not_weigh_in_runs_of_its_own_either() {
    let [scan] = consumers();
    let (producer, _receiver) = bounded(&scan, bounds(4, 1 << 30));
    let item = producer.weigh(|| {
        // More than mixed runs serve.
        let scratch: Vec<_> = (0..5000_u64).map(|n| Box::new([n; 8])).collect();
        let last = Box::new(*scratch[4999]);
        drop(scratch);
        last
    });
    assert_eq!(item.bytes(), boxes::<[u64; 8]>(1)[1]);
    assert_eq!(held(&scan), boxes::<[u64; 8]>(1));
    let mut item = item;
    let again = producer.weigh(|| {
        drop(std::mem::replace(&mut *item, Box::new([1; 8])));
        (0..3000_u64)
            .map(|n| Box::new([n; 8]))
            .collect::<Vec<_>>()
            .pop()
            .expect("they were made")
    });
    assert_eq!(again.bytes(), boxes::<[u64; 8]>(1)[1]);
    drop((item, again));
    assert_eq!((held(&scan), declared(&scan)), ([0, 0], 0));
}

#[test]
fn what_others_hold_or_free_does_not_weigh() {
    let [scan, other] = consumers();
    let (producer, _receiver) = bounded(&scan, bounds(4, 1 << 30));
    let of_other = other.run(|| vec![0_u8; 10_000]);
    let (barrier, place) = (Barrier::new(2), Mutex::new(Vec::new()));
    let item = thread::scope(|scope| {
        scope.spawn(|| {
            barrier.wait();
            *place.lock().expect("a lock") = scan.run(|| vec![0_u8; 9000]);
            barrier.wait();
        });
        producer.weigh(|| {
            drop(of_other);
            let kept = other.run(|| vec![0_u8; 7000]);
            barrier.wait();
            barrier.wait();
            (kept, Box::new([0_u64; 4]))
        })
    });
    assert_eq!(item.bytes(), boxes::<[u64; 4]>(1)[1]);
    let both = both(boxes::<[u64; 4]>(1), buffers::<u8>([9000]));
    assert_eq!(held(&scan), both);
}

#[test]
fn more_freed_than_made_weighs_nothing() {
    let [scan] = consumers();
    let (producer, _receiver) = bounded(&scan, bounds(4, 1 << 30));
    let before = scan.run(|| vec![0_u8; 4096]);
    let item = producer.weigh(|| {
        drop(before);
        Box::new(1_u8)
    });
    assert_eq!((item.bytes(), declared(&scan)), (0, 0));
}

#[test]
fn a_hint_replaces_the_weight() {
    let [scan, sort] = consumers();
    let (mut producer, receiver) = bounded(&scan, bounds(4, 100));
    let mut receiver = receiver.charged_to(&sort);
    let value = vec![0_u8; 5000];
    let item = producer.item(value, 70);
    producer.send(item).expect("there is room");
    let refused = producer.try_send(producer.item(vec![1], 31));
    let Err(SendError::Full(item)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((item.bytes(), &**item), (31, &[1][..]));
    assert_eq!((declared(&scan), declared(&sort)), (101, 0));
    drop(item);
    let received = receiver.recv().expect("an item").expect("no error");
    assert_eq!((declared(&scan), declared(&sort)), (0, 70));
    assert_eq!(received.into_inner().len(), 5000);
    assert_eq!(declared(&sort), 0);
}

#[test]
fn the_charge_moves_with_the_item_and_ends_with_it() {
    let [scan, sort] = consumers();
    let (mut producer, receiver) = bounded(&scan, bounds(4, 1 << 20));
    let mut receiver = receiver.charged_to(&sort);
    for _ in 0..2 {
        producer
            .produce(|| vec![0_u8; 1000])
            .expect("there is room");
    }
    let one = buffers::<u8>([1000])[1];
    assert_eq!((declared(&scan), declared(&sort)), (2 * one, 0));
    let item = receiver.recv().expect("an item").expect("no error");
    assert_eq!((declared(&scan), declared(&sort)), (one, one));
    // Without the hand-over the blocks stay the producer's.
    assert_eq!(
        (scan.usage().live_bytes, sort.usage().live_bytes),
        (2 * one, 0)
    );
    assert_eq!(
        (item.charge().consumer(), item.moved_bytes()),
        (&sort, Ok(0))
    );
    drop(item);
    assert_eq!((declared(&scan), declared(&sort)), (one, 0));
    assert_eq!(scan.usage().peak_reserved_bytes, 2 * one);
    drop(receiver);
    assert_eq!((held(&scan), declared(&scan)), ([0, 0], 0));
}

#[test]
fn real_bytes_move_to_a_receiver_that_takes_them() {
    let [scan, sort] = consumers();
    let (mut producer, receiver) = bounded(&scan, bounds(8, 1 << 30));
    let mut receiver = receiver.transferring_to(&sort);
    let sizes = [40_usize, 5000, 400_000];
    for size in sizes {
        let make = || vec![vec![7_u8; size], vec![8; 9]];
        producer.produce(make).expect("there is room");
    }
    producer.finish();
    let all = held(&scan);
    let mut left = all;
    for size in sizes {
        let item = receiver.recv().expect("an item").expect("no error");
        let blocks = both(buffers::<Vec<u8>>([2]), buffers::<u8>([size, 9]));
        left = [left[0] - blocks[0], left[1] - blocks[1]];
        assert_eq!((held(&scan), held(&sort)), (left, blocks));
        assert_eq!(
            (item.moved_bytes(), item.bytes()),
            (Ok(blocks[1]), blocks[1])
        );
        drop(item);
        assert_eq!(held(&sort), [0, 0]);
    }
    assert!(receiver.recv().is_none());
    assert_eq!(left, [0, 0]);
}

#[test]
fn a_reservation_is_told_of_what_is_on_its_way() {
    let [scan, sort] = consumers();
    let budget: Arc<dyn Budget> = Arc::new(Unbounded::new());
    let (mut producer, receiver) = bounded(scan.register(&budget), bounds(4, 1 << 20));
    let mut receiver = receiver.charged_to(sort.register(&budget));
    producer
        .produce(|| vec![0_u8; 1000])
        .expect("there is room");
    let one = buffers::<u8>([1000])[1];
    assert_eq!((budget.reserved(), declared(&scan)), (one, one));
    assert_eq!(scan.usage().live_bytes, one, "the part counts");
    let item = receiver.recv().expect("an item").expect("no error");
    assert_eq!(
        (budget.reserved(), declared(&scan), declared(&sort)),
        (one, 0, one)
    );
    drop(item);
    assert_eq!(budget.reserved(), 0);
}

#[test]
fn a_thread_runs_ahead_by_the_bound_and_no_further() {
    const ROW: u64 = 1024;
    // By items; by bytes, with room for no more, and with room for a part of one, which is made
    // and held; with no room but for one alone.
    let cases = [
        (5, 1 << 30, 5),
        (100, 4 * ROW, 4),
        (100, 4 * ROW + 1, 5),
        (1, 1, 1),
        (0, 0, 1),
    ];
    for (items, bytes, expected) in cases {
        let [scan] = consumers();
        let made = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&made);
        let numbers = (0..50_u8).map(move |number| {
            count.fetch_add(1, Ordering::SeqCst);
            vec![number; ROW as usize]
        });
        let mut receiver = from_iter(&scan, bounds(items, bytes), numbers);
        for taken in 0..10 {
            until("it runs ahead", || {
                made.load(Ordering::SeqCst) == expected + taken
            });
            thread::sleep(Duration::from_millis(3));
            assert_eq!(
                made.load(Ordering::SeqCst),
                expected + taken,
                "{items} {bytes}"
            );
            drop(receiver.recv().expect("an item").expect("no error"));
        }
        drop(receiver);
        until("it stops", || held(&scan) == [0, 0]);
        assert!(made.load(Ordering::SeqCst) <= expected + 11);
    }
}

#[test]
fn an_item_above_the_bound_passes_alone() {
    let [scan] = consumers();
    let sizes = [10, 100_000, 20, 30, 200_000, 300_000, 1];
    let items = sizes.into_iter().map(|size| vec![1_u8; size]);
    let receiver = from_iter(&scan, bounds(8, 1000), items);
    let received: Vec<usize> = receiver
        .into_iter()
        .map(|item| item.expect("no error").len())
        .collect();
    assert_eq!(received, sizes);
    assert_eq!(held(&scan), [0, 0]);
    // Two large ones at once: the one on its way and the one being made.
    assert!(scan.usage().peak_bytes < 800_000);
}

#[test]
fn nothing_is_pulled_before_it_is_asked_for() {
    let [scan, parse] = consumers();
    let made = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&made);
    let me = thread::current().id();
    let pulled = pull(
        &scan,
        (0..).inspect(move |_| {
            assert_eq!(thread::current().id(), me);
            count.fetch_add(1, Ordering::SeqCst);
        }),
    );
    let mut texts = pulled.map(&parse, |number| format!("number {}", *number));
    assert_eq!(made.load(Ordering::SeqCst), 0);
    for asked in 1..=3 {
        let text = texts.recv().expect("an item").expect("no error");
        assert_eq!(text.bytes(), parse.usage().live_bytes);
        assert_eq!(*text, format!("number {}", asked - 1));
        assert_eq!(made.load(Ordering::SeqCst), asked);
    }
}

#[test]
fn an_error_arrives_in_its_place_and_is_the_last() {
    let [scan, parse] = consumers();
    let texts = ["1", "2", "three", "4"];
    let parsed = from_iter(&scan, bounds(8, 1 << 20), texts.map(String::from))
        .try_map(&parse, |text| text.parse::<u64>())
        .ahead(bounds(2, 1 << 20));
    let mut sums = parsed.map(&parse, |number| *number * 10);
    for expected in [10, 20] {
        assert_eq!(*sums.recv().expect("an item").expect("no error"), expected);
    }
    match sums.recv() {
        Some(Err(StreamError::Failed(cause))) => {
            assert!(cause.is::<std::num::ParseIntError>(), "{cause}");
        }
        other => panic!("{other:?}"),
    }
    assert!(sums.recv().is_none() && sums.recv().is_none());
    until("the source stops", || held(&scan) == [0, 0]);

    let mut failing = try_from_iter(&scan, bounds(2, 8), [Ok(1), Err("no"), Ok(2)]);
    assert_eq!(*failing.recv().expect("an item").expect("no error"), 1);
    let error = failing.recv().expect("an item").expect_err("an error");
    assert_eq!(error.to_string(), "the stream failed: no");
    assert!(failing.recv().is_none());
}

#[test]
fn the_end_says_whether_it_is_the_end() {
    let [scan] = consumers();
    let end = |how: fn(Producer<u8>)| {
        let (mut producer, mut receiver) = bounded(&scan, bounds(2, 2));
        producer
            .try_send(producer.item(7, 1))
            .expect("there is room");
        how(producer);
        assert_eq!(*receiver.recv().expect("an item").expect("no error"), 7);
        let end = receiver.recv();
        assert!(receiver.recv().is_none());
        end
    };
    assert!(end(Producer::finish).is_none());
    assert!(matches!(end(drop), Some(Err(StreamError::Abandoned))));
    let failed = end(|producer| producer.fail("broken"));
    assert!(matches!(failed, Some(Err(StreamError::Failed(_)))));
    let panicked = end(|producer| {
        let held = AssertUnwindSafe(move || {
            let _producer = producer;
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(catch_unwind(held).is_err());
    });
    assert!(matches!(panicked, Some(Err(StreamError::Panicked))));
}

#[test]
fn a_receiver_that_goes_stops_the_producer_and_frees_the_rest() {
    let [scan] = consumers();
    let (mut producer, mut receiver) = bounded(&scan, bounds(3, 1 << 30));
    for _ in 0..3 {
        producer
            .produce(|| vec![0_u8; 1000])
            .expect("there is room");
    }
    let kept = receiver.recv().expect("an item").expect("no error");
    drop(receiver);
    assert!(producer.is_closed());
    assert_eq!(held(&scan), buffers::<u8>([1000]));
    let refused = producer.send(producer.weigh(|| vec![9_u8; 10]));
    let Err(SendError::Closed(item)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(*item.into_inner(), [9; 10]);
    let nothing_made = producer.produce(|| panic!("it is asked for in vain"));
    assert!(matches!(nothing_made, Err(SendError::Closed(None))));
    drop(kept);
    assert_eq!((held(&scan), declared(&scan)), ([0, 0], 0));
}

#[test]
fn a_producer_that_waits_for_room_is_told_when_the_receiver_goes() {
    let [scan] = consumers();
    let (mut producer, receiver) = bounded(&scan, bounds(1, 1 << 20));
    producer.produce(|| vec![1_u8]).expect("there is room");
    let item = producer.weigh(|| vec![2_u8]);
    let thread = thread::spawn(move || producer.send(item).map_err(SendError::into_inner));
    thread::sleep(Duration::from_millis(20));
    drop(receiver);
    let returned = thread.join().expect("it is fine").expect_err("the item");
    assert_eq!(*returned.into_inner(), [2]);
    assert_eq!((held(&scan), declared(&scan)), ([0, 0], 0));
}

/// A panic without a message.
fn kill_if(so: bool) {
    if so {
        std::panic::resume_unwind(Box::new(()));
    }
}

/// Threads that are killed by a panic at either end, in the middle of things.
#[test]
fn a_panic_at_one_end_ends_the_other() {
    let [scan, sink] = consumers();
    // The producer: in its iterator, while the receiver waits.
    let items = (0..10).map(|number| {
        thread::sleep(Duration::from_millis(2));
        kill_if(number == 5);
        vec![number; 100]
    });
    let mut receiver = from_iter(&scan, bounds(2, 1 << 20), items);
    let received = std::iter::from_fn(|| receiver.recv()).collect::<Vec<_>>();
    assert_eq!(received.len(), 6);
    assert!(matches!(received[5], Err(StreamError::Panicked)));
    drop(received);
    until("all is freed", || held(&scan) == [0, 0]);

    // The receiver, while the producer waits for room.
    let (mut producer, mut receiver) = bounded(&scan, bounds(1, 1 << 20));
    let killed = thread::spawn(move || {
        let _item = receiver.recv();
        thread::sleep(Duration::from_millis(10));
        kill_if(true);
    });
    let sent = std::iter::repeat_with(|| producer.produce(|| vec![0_u8; 50]))
        .take_while(Result::is_ok)
        .count();
    assert!((1..=3).contains(&sent), "{sent}");
    assert!(killed.join().is_err());
    drop(producer);
    assert_eq!((held(&scan), declared(&scan)), ([0, 0], 0));

    // A stage that is computed on the receiver's thread: once more is told, then it is over.
    let mut stage = pull(&scan, 0..3).map(&sink, |number| {
        kill_if(*number == 1);
        *number
    });
    assert_eq!(*stage.recv().expect("an item").expect("no error"), 0);
    assert!(catch_unwind(AssertUnwindSafe(|| stage.recv())).is_err());
    assert!(matches!(stage.recv(), Some(Err(StreamError::Panicked))));
    assert!(stage.recv().is_none());
    assert_eq!(bursar::current(), None);
}

#[test]
fn a_value_that_is_passed_on_keeps_its_weight() {
    for with_transfer in [false, true] {
        let [scan, edit] = consumers();
        let rows = pull(&scan, (0..4).map(|n| vec![n as u8; 1000 << n]));
        let rows = if with_transfer {
            rows.transferring_to(&edit)
        } else {
            rows
        };
        let edited = rows.map(&edit, |mut row| {
            row[0] = 9;
            // Something of the stage's own that comes and goes, and a copy in place of every other.
            let copy = row.to_vec();
            if row.len() % 2000 == 0 {
                copy
            } else {
                row.into_inner()
            }
        });
        for (n, row) in edited.into_iter().enumerate() {
            let row = row.expect("no error");
            assert_eq!(
                row.bytes(),
                buffers::<u8>([1000 << n])[1],
                "{with_transfer} {n}"
            );
        }
        assert_eq!((declared(&scan), declared(&edit)), (0, 0));
    }
}

#[test]
fn a_value_that_is_taken_out_and_freed_takes_nothing_off() {
    let [scan, edit] = consumers();
    let rows = pull(&scan, (0..4).map(|n| vec![n as u8; 1000 << n]));
    let lengths = rows.map(&edit, |row| {
        let row = row.into_inner();
        let length = Box::new(row.len() as u64);
        drop(row);
        length
    });
    for length in lengths {
        let length = length.expect("no error");
        assert_eq!(length.bytes(), boxes::<u64>(1)[1]);
        assert_eq!(held(&edit), boxes::<u64>(1));
    }
}

#[test]
fn merged_streams_take_turns() {
    let sources: [Consumer; 3] = consumers();
    let [join] = consumers();
    let lengths = [9, 3, 6];
    let inputs = sources
        .iter()
        .zip(lengths)
        .enumerate()
        .map(|(n, (source, length))| {
            // Ready at all times.
            let (mut producer, receiver) = bounded(source, bounds(16, 1 << 20));
            for _ in 0..length {
                producer.produce(|| vec![n; 10]).expect("there is room");
            }
            producer.finish();
            receiver
        });
    let merged = merge(&join, inputs);
    let order: Vec<usize> = merged
        .into_iter()
        .map(|item| {
            let item = item.expect("no error");
            assert_eq!(declared(&join), item.bytes());
            item[0]
        })
        .collect();
    assert_eq!(
        order,
        [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 2, 0, 2, 0, 2, 0, 0, 0]
    );
    assert!(
        sources
            .iter()
            .all(|source| held(source) == [0, 0] && declared(source) == 0)
    );
}

#[test]
fn a_slow_input_does_not_hold_up_a_merge_and_loses_no_item() {
    let [slow, fast, join] = consumers();
    let inputs = [(slow, 30, 2), (fast, 2000, 0)].map(|(source, count, pause)| {
        let items = (0..count).inspect(move |_| {
            thread::sleep(Duration::from_millis(pause));
        });
        from_iter(&source, bounds(4, 64), items)
            .map(&source, move |n| (count, *n))
            .ahead(bounds(4, 64))
    });
    let mut next = [0, 0];
    for item in merge(&join, inputs) {
        let (count, n) = *item.expect("no error");
        let of = usize::from(count == 2000);
        assert_eq!(n, next[of], "in order");
        next[of] += 1;
    }
    assert_eq!(next, [30, 2000]);
}

#[test]
fn a_failing_input_ends_the_merge() {
    let [good, bad, join] = consumers();
    let inputs = [
        from_iter(&good, bounds(2, 64), 0..),
        try_pull(&bad, [Ok(1), Err("broken")]),
    ];
    let mut merged = merge(&join, inputs);
    let failed = (&mut merged).into_iter().find_map(Result::err);
    assert!(matches!(failed, Some(StreamError::Failed(_))));
    assert!(merged.recv().is_none());
}

/// Three queues and four stages, with the last one slow: the peak of all consumers is what the
/// bounds allow and one item a stage.
#[test]
fn a_chain_keeps_its_bounds_end_to_end() {
    const ITEM: usize = 64 << 10;
    let whole = Consumer::new("chain");
    let stages: [Consumer; 4] = std::array::from_fn(|n| whole.child(format!("stage {n}")));
    let one = bounds(3, 3 * ITEM as u64);
    let mut chain = from_iter(&stages[0], one, (0..200_u32).map(|n| vec![n as u8; ITEM]));
    for stage in &stages[1..3] {
        let copy = |row: bursar::stream::Item<Vec<u8>>| row.to_vec();
        chain = chain.transferring_to(stage).map(stage, copy).ahead(one);
    }
    let mut chain = chain.transferring_to(&stages[3]);
    let mut count = 0;
    for row in &mut chain {
        let row = row.expect("no error");
        assert_eq!(row[0], count as u8);
        if count % 20 == 0 {
            thread::sleep(Duration::from_millis(2));
        }
        count += 1;
    }
    assert_eq!(count, 200);
    let most = (3 * 3 + stages.len()) * ITEM;
    let peak = whole.usage().subtree_peak_bytes;
    assert!(peak as f64 <= most as f64 * 1.1, "{peak} of {most}");
    until("all is freed", || whole.usage().subtree_live_bytes == 0);
}

#[test]
fn a_chain_that_is_dropped_stops_all_the_way_up() {
    let made = Arc::new(AtomicU64::new(0));
    let [scan, parse] = consumers();
    let count = Arc::clone(&made);
    let items = (0..).map(move |n| {
        count.fetch_add(1, Ordering::SeqCst);
        vec![n; 100]
    });
    let mut chain: Receiver<Vec<i32>> = from_iter(&scan, bounds(2, 1 << 20), items)
        .map(&parse, |row| row.to_vec())
        .ahead(bounds(2, 1 << 20));
    drop(chain.recv());
    drop(chain);
    until("the source is gone", || Arc::strong_count(&made) == 1);
    until("all is freed", || {
        held(&scan) == [0, 0] && held(&parse) == [0, 0]
    });
    // Two in each queue, one at each stage, the one received.
    assert!(made.load(Ordering::SeqCst) <= 8);
}

#[test]
fn pressure_is_noticed_where_items_are_made() {
    let [scan] = consumers();
    scan.set_limits(Limits::none().soft(5000));
    let noticed = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&noticed);
    scan.on_pressure(move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let (mut producer, _receiver) = bounded(&scan, bounds(8, 1 << 20));
    for _ in 0..6 {
        producer
            .produce(|| vec![0_u8; 1024])
            .expect("there is room");
    }
    assert_eq!(noticed.load(Ordering::SeqCst), 1);
}

#[test]
fn moving_blocks_by_hand_inside_a_stage_is_seen() {
    let [scan, sink] = consumers();
    let mut rows = pull(
        &scan,
        (0..2).map(move |_| {
            let row = vec![1_u8; 1000];
            transfer(&row, &sink).expect("it is bursar's");
            (row, Box::new(1_u64))
        }),
    );
    let row = rows.recv().expect("an item").expect("no error");
    assert_eq!(row.bytes(), boxes::<u64>(1)[1]);
}

#[test]
fn items_received_inside_a_construction_are_on_their_own_books() {
    // Whose the rows were, whose they become, and who constructs something meanwhile.
    for (from, to, at_work) in [(0, 1, 1), (0, 1, 0), (0, 1, 2), (1, 1, 1)] {
        for is_kept in [false, true] {
            let all: [Consumer; 3] = consumers();
            let (mut producer, receiver) = bounded(&all[from], bounds(4, 1 << 20));
            let mut receiver = receiver.transferring_to(&all[to]);
            producer
                .produce(|| vec![1_u8; 5000])
                .expect("there is room");
            let (worker, _receiver) = bounded(&all[at_work], bounds(4, 1 << 20));
            let mut kept = None;
            let made = worker.weigh(|| {
                let row = receiver.recv().expect("an item").expect("no error");
                kept = is_kept.then_some(row);
                Box::new(1_u64)
            });
            let expected = boxes::<u64>(1)[1];
            assert_eq!(made.bytes(), expected, "{from} {to} {at_work} {is_kept}");
        }
    }
}

#[test]
fn what_moved_counts_and_not_the_hint() {
    let [scan, edit] = consumers();
    let (mut producer, receiver) = bounded(&scan, bounds(4, 1 << 20));
    let item = producer.item(scan.run(|| vec![1_u8; 1000]), 7);
    producer.send(item).expect("there is room");
    let row = receiver
        .transferring_to(&edit)
        .map(&edit, bursar::stream::Item::into_inner)
        .recv();
    let row = row.expect("an item").expect("no error");
    assert_eq!(row.bytes(), buffers::<u8>([1000])[1]);
}
