//! A table of blocks in which random ones are replaced, as in a cache or a
//! tree under change. One operation is one block given back and another taken.

use std::alloc::GlobalAlloc;
use std::time::{Duration, Instant};

use super::Row;
use super::block::{Block, Draw};

pub const GROUP: &str = "random replacement";

pub fn rows<A: GlobalAlloc + Sync>(allocator: &'static A) -> Vec<Row> {
    // Name, slots, smallest and largest size in bytes. By cache: the live
    // bytes are 0.25, 10 and 400 MiB in the first three.
    [
        ("1k slots of 16-512 B (fits L2)", 1_000, 16, 512),
        ("10k slots of 16 B-2 KiB (fits L3)", 10_000, 16, 2048),
        ("100k slots of 16 B-8 KiB (exceeds L3)", 100_000, 16, 8192),
        ("1k slots of 1-32 KiB", 1_000, 1 << 10, 32 << 10),
        ("500 slots of 8-256 KiB", 500, 8 << 10, 256 << 10),
    ]
    .into_iter()
    .map(|(name, slots, least, most)| {
        Row::new(GROUP, name, move |count| {
            replace(allocator, slots, least, most, count)
        })
    })
    .collect()
}

fn replace<A: GlobalAlloc>(
    allocator: &A,
    slots: usize,
    least: usize,
    most: usize,
    count: u64,
) -> Duration {
    let mut draw = Draw::new(least..=most);
    let mut table: Vec<Block> = (0..slots)
        .map(|_| Block::take(allocator, draw.next(1).1))
        .collect();
    // Until every slot was replaced once or so: a table filled in order of
    // address is not yet what this measures.
    turn_over(allocator, &mut table, &mut draw, slots as u64);
    let start = Instant::now();
    turn_over(allocator, &mut table, &mut draw, count);
    let elapsed = start.elapsed();
    for block in table {
        block.give(allocator);
    }
    elapsed
}

/// Replaces `count` random blocks of the table.
pub fn turn_over<A: GlobalAlloc>(allocator: &A, table: &mut [Block], draw: &mut Draw, count: u64) {
    for _ in 0..count {
        let (index, layout) = draw.next(table.len());
        // Taken before the old one is given back, as `*slot = Box::new(..)` does.
        let block = Block::take(allocator, layout);
        std::mem::replace(&mut table[index], block).give(allocator);
    }
}
