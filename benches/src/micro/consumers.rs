//! What consumers cost: bursar alone, since no other allocator has them.
//!
//! Replacement is that of [`replace`](super::replace), in 10,000 slots of 16 B
//! to 2 KiB, with a scope entered and left every so many replacements. The
//! block that is replaced is anybody's, so that a block is mostly freed in
//! another consumer's scope than it was allocated in; with slots of their own,
//! consumers replace only their own.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use bursar::{Bursar, Consumer};

use super::Row;
use super::block::{Block, Draw, layout};
use super::replace::turn_over;

/// One operation is one block given back and another taken.
pub const REPLACEMENT: &str = "replacement among consumers";
/// One operation is one call.
pub const CALLS: &str = "calls";

/// Names of the rows that figures are made of.
pub mod names {
    /// Replacement without consumers, against which the others are held.
    pub const NONE: &str = "none";
    /// The same inside of one consumer's scope.
    pub const ONE: &str = "one, entered";
    /// 64 consumers.
    pub const DOZENS: &str = "64, a switch every 100";
    /// 1,000 consumers.
    pub const MANY: &str = "1,000, a switch every 10";
    /// 64 consumers that replace only their own blocks.
    pub const DOZENS_OWN: &str = "64, a switch every 100, slots of their own";
    /// 1,000 consumers that replace only their own blocks.
    pub const MANY_OWN: &str = "1,000, a switch every 10, slots of their own";
    /// A scope of one consumer.
    pub const ENTER: &str = "enter and leave";
    /// Scopes of 64 consumers in turn.
    pub const ENTER_DOZENS: &str = "enter and leave, 64 in turn";
    /// Scopes of 1,000 consumers in turn.
    pub const ENTER_MANY: &str = "enter and leave, 1,000 in turn";
    /// Of a consumer that one thread allocated for.
    pub const USAGE: &str = "usage(), used by 1 thread";
    /// Of a consumer that eight threads allocated for.
    pub const USAGE_THREADS: &str = "usage(), used by 8 threads";
    /// The snapshot alone.
    pub const CONSUMERS: &str = "consumers(), 10,000";
    /// The report as a value.
    pub const REPORT: &str = "report(), 10,000";
    /// The report as text.
    pub const TEXT: &str = "report() as text, 10,000";
}

static BURSAR: Bursar = Bursar::new();

const SLOTS: usize = 10_000;

/// All rows, the first of them without consumers.
#[must_use]
pub fn rows() -> Vec<Row> {
    use names::*;
    let replacement = |name, consumers, every, own| {
        Row::new(REPLACEMENT, name, move |count| {
            replace(consumers, every, own, count)
        })
    };
    let mut rows = vec![
        replacement(NONE, 0, u64::MAX, false),
        replacement(ONE, 1, u64::MAX, false),
        replacement(DOZENS, 64, 100, false),
        replacement(MANY, 1_000, 10, false),
        replacement(DOZENS_OWN, 64, 100, true),
        replacement(MANY_OWN, 1_000, 10, true),
    ];
    for (name, consumers) in [(ENTER, 1), (ENTER_DOZENS, 64), (ENTER_MANY, 1_000)] {
        rows.push(Row::new(CALLS, name, move |count| enter(consumers, count)));
    }
    for (name, threads) in [(USAGE, 1), (USAGE_THREADS, 8)] {
        rows.push(Row::new(CALLS, name, move |count| usage(threads, count)));
    }
    let among = |name, call: fn()| Row::new(CALLS, name, move |count| among_many(call, count));
    rows.push(among(CONSUMERS, || {
        drop(std::hint::black_box(bursar::consumers()))
    }));
    rows.push(among(REPORT, || {
        drop(std::hint::black_box(bursar::report()))
    }));
    rows.push(among(TEXT, || {
        drop(std::hint::black_box(bursar::report().to_string()));
    }));
    rows
}

fn some(count: usize) -> Vec<Consumer> {
    (0..count)
        .map(|number| Consumer::new(format!("consumer {number}")))
        .collect()
}

/// Replacement by consumers in turn; by nobody if there are none.
fn replace(consumers: usize, every: u64, own: bool, count: u64) -> Duration {
    let consumers = some(consumers);
    let mut draw = Draw::new(16..=2048);
    let mut table: Vec<Block> = (0..SLOTS)
        .map(|_| Block::take(&BURSAR, draw.next(1).1))
        .collect();
    let slots_of = |turn: usize| {
        if own {
            let share = SLOTS / consumers.len();
            turn % consumers.len() * share..(turn % consumers.len() + 1) * share
        } else {
            0..SLOTS
        }
    };
    let mut in_turn = |count: u64| {
        let mut left = count;
        for turn in 0.. {
            let slots = &mut table[slots_of(turn)];
            let now = left.min(every);
            match consumers.get(turn % consumers.len().max(1)) {
                Some(consumer) => {
                    let _scope = consumer.enter();
                    turn_over(&BURSAR, slots, &mut draw, now);
                }
                None => turn_over(&BURSAR, slots, &mut draw, now),
            }
            left -= now;
            if left == 0 {
                return;
            }
        }
    };
    // Until each slot was replaced a few times, by whoever comes by.
    in_turn(5 * SLOTS as u64);
    let start = Instant::now();
    in_turn(count);
    let elapsed = start.elapsed();
    // A figure of consumers that hold nothing would be one of nothing.
    let live: u64 = consumers.iter().map(|one| one.usage().live_bytes).sum();
    assert_eq!(live == 0, consumers.is_empty(), "{live} bytes are booked");
    for block in table {
        block.give(&BURSAR);
    }
    elapsed
}

fn enter(consumers: usize, count: u64) -> Duration {
    let consumers = some(consumers);
    // The first entry makes the thread's book.
    consumers.iter().for_each(|consumer| drop(consumer.enter()));
    let start = Instant::now();
    let mut left = count;
    while left > 0 {
        for consumer in consumers.iter().take(left as usize) {
            drop(std::hint::black_box(consumer).enter());
        }
        left = left.saturating_sub(consumers.len() as u64);
    }
    start.elapsed()
}

/// `usage()` while so many threads hold blocks of the consumer.
fn usage(threads: usize, count: u64) -> Duration {
    let consumer = Consumer::new("one");
    let (filled, asked) = (Barrier::new(threads + 1), Barrier::new(threads + 1));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let hold = || Block::take(&BURSAR, layout(100));
                let blocks: [Block; 100] = consumer.run(|| std::array::from_fn(|_| hold()));
                filled.wait();
                asked.wait();
                blocks.into_iter().for_each(|block| block.give(&BURSAR));
            });
        }
        filled.wait();
        assert_eq!(consumer.usage().live_blocks, 100 * threads as u64);
        let start = Instant::now();
        for _ in 0..count {
            std::hint::black_box(consumer.usage());
        }
        let elapsed = start.elapsed();
        asked.wait();
        elapsed
    })
}

/// A call while 10,000 consumers hold three blocks each.
fn among_many(call: fn(), count: u64) -> Duration {
    let consumers = some(10_000);
    let mut blocks = Vec::with_capacity(3 * consumers.len());
    for consumer in &consumers {
        let _scope = consumer.enter();
        blocks.extend([24, 100, 500].map(|size| Block::take(&BURSAR, layout(size))));
    }
    assert!(bursar::consumers().iter().count() >= consumers.len());
    let start = Instant::now();
    for _ in 0..count {
        call();
    }
    let elapsed = start.elapsed();
    blocks.into_iter().for_each(|block| block.give(&BURSAR));
    elapsed
}

#[cfg(test)]
mod tests {
    use super::rows;

    #[test]
    fn every_row_runs_and_has_a_name_of_its_own() {
        let rows = rows();
        for (index, row) in rows.iter().enumerate() {
            assert!(!row.run(3).is_zero(), "{} took no time", row.path());
            assert!(rows[..index].iter().all(|other| other.path() != row.path()));
        }
    }
}
