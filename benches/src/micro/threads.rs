//! Blocks that leave the thread that took them, and threads that come and go.

use std::alloc::GlobalAlloc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::block::{Block, Draw, layout};
use super::replace::turn_over;
use super::{Row, scale};

/// One operation is one block taken on one thread and given back on another.
pub const EXCHANGE: &str = "producers and consumers";
/// Threads that hand their blocks over and end.
pub const LIFE: &str = "thread life";

/// Blocks to a packet: enough to hide what the channel itself costs.
const PACKET: usize = 256;
/// Packets between producers and consumers.
const PACKETS: usize = 16;
/// Blocks that a thread of the larson row holds.
const TABLE: usize = 1000;
/// Blocks that a thread replaces before the next one takes over.
const GENERATION: u64 = 20_000;

pub fn rows<A: GlobalAlloc + Sync>(allocator: &'static A) -> Vec<Row> {
    let mut rows = Vec::new();
    for (producers, consumers) in [(1, 1), (1, 3), (3, 1), (4, 4)] {
        for (sizes, least, most) in [("64 B", 64, 64), ("16 B-2 KiB", 16, 2048)] {
            rows.push(Row::new(
                EXCHANGE,
                format!("{producers}:{consumers}, {sizes}"),
                move |count| exchange(allocator, producers, consumers, (least, most), count),
            ));
        }
    }
    for threads in [2, 8] {
        rows.push(Row::new(
            LIFE,
            format!("larson, {threads} threads, 10-500 B"),
            move |count| larson(allocator, threads, count),
        ));
    }
    rows.push(Row::new(
        LIFE,
        "start, 100 blocks of 64 B, end",
        move |count| short_lived(allocator, count),
    ));
    rows
}

type Packet = Vec<Block>;

fn exchange<A: GlobalAlloc + Sync>(
    allocator: &'static A,
    producers: usize,
    consumers: usize,
    sizes: (usize, usize),
    count: u64,
) -> Duration {
    let packets_each = count.div_ceil((PACKET * producers) as u64);
    let (send_full, full) = bounded(PACKETS);
    let (send_empty, empty) = bounded(PACKETS);
    for _ in 0..PACKETS {
        send_empty
            .send(Vec::with_capacity(PACKET))
            .expect("the receiver lives");
    }
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..producers {
            let (send_full, empty) = (send_full.clone(), empty.clone());
            scope.spawn(move || produce(allocator, sizes, packets_each, &empty, &send_full));
        }
        for _ in 0..consumers {
            let (send_empty, full) = (send_empty.clone(), full.clone());
            scope.spawn(move || consume(allocator, &full, &send_empty));
        }
        // Consumers end when the last producer has hung up.
        drop(send_full);
    });
    scale(
        start.elapsed(),
        count,
        packets_each * (PACKET * producers) as u64,
    )
}

fn produce<A: GlobalAlloc>(
    allocator: &A,
    (least, most): (usize, usize),
    packets: u64,
    empty: &Receiver<Packet>,
    full: &Sender<Packet>,
) {
    let mut draw = Draw::new(least..=most);
    for _ in 0..packets {
        let mut packet = empty.recv().expect("consumers send packets back");
        for _ in 0..PACKET {
            packet.push(Block::take(allocator, draw.next(1).1));
        }
        full.send(packet).expect("consumers outlive producers");
    }
}

fn consume<A: GlobalAlloc>(allocator: &A, full: &Receiver<Packet>, empty: &Sender<Packet>) {
    for mut packet in full {
        for block in packet.drain(..) {
            block.give(allocator);
        }
        empty.send(packet).expect("the channel outlives its users");
    }
}

/// After Larson and Krishnan: each thread replaces random blocks of a table,
/// then ends and leaves the table to a new thread. One operation is one block.
fn larson<A: GlobalAlloc + Sync>(allocator: &'static A, threads: usize, count: u64) -> Duration {
    let each = count.div_ceil(threads as u64).min(GENERATION);
    let generations = count.div_ceil(each * threads as u64);
    let mut tables: Vec<Vec<Block>> = (0..threads)
        .map(|_| {
            (0..TABLE)
                .map(|_| Block::take(allocator, layout(100)))
                .collect()
        })
        .collect();
    let start = Instant::now();
    for generation in 0..generations {
        thread::scope(|scope| {
            for (place, table) in tables.iter_mut().enumerate() {
                let seed = generation * threads as u64 + place as u64;
                let mut draw = Draw::with_seed(10..=500, seed);
                scope.spawn(move || turn_over(allocator, table, &mut draw, each));
            }
        });
        // What a thread takes over was never its predecessor's on that core.
        tables.rotate_left(1);
    }
    let elapsed = start.elapsed();
    for block in tables.into_iter().flatten() {
        block.give(allocator);
    }
    scale(elapsed, count, generations * each * threads as u64)
}

/// What an allocator adds to the life of a thread. One operation is a thread.
fn short_lived<A: GlobalAlloc + Sync>(allocator: &'static A, count: u64) -> Duration {
    let start = Instant::now();
    for _ in 0..count {
        thread::scope(|scope| {
            scope.spawn(|| {
                let blocks: [Block; 100] =
                    std::array::from_fn(|_| Block::take(allocator, layout(64)));
                for block in blocks {
                    block.give(allocator);
                }
            });
        });
    }
    start.elapsed()
}
