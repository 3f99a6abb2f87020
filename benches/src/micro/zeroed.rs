//! Zeroed blocks, taken, written in part and given back.

use std::alloc::GlobalAlloc;
use std::hint::black_box;
use std::time::{Duration, Instant};

use super::Row;
use super::block::{Block, layout};

pub const GROUP: &str = "zeroed";

pub fn rows<A: GlobalAlloc + Sync>(allocator: &'static A) -> Vec<Row> {
    [
        ("64 B", 64, false),
        ("1 KiB", 1 << 10, false),
        ("16 KiB", 16 << 10, false),
        ("256 KiB, first byte written", 256 << 10, false),
        ("256 KiB, every page written", 256 << 10, true),
        ("16 MiB, first byte written", 16 << 20, false),
        ("16 MiB, every page written", 16 << 20, true),
    ]
    .into_iter()
    .map(|(name, size, touch)| {
        Row::new(GROUP, name, move |count| {
            zeroed(allocator, size, touch, count)
        })
    })
    .collect()
}

fn zeroed<A: GlobalAlloc>(allocator: &A, size: usize, touch: bool, count: u64) -> Duration {
    let start = Instant::now();
    for _ in 0..count {
        let mut block = Block::take_zeroed(allocator, layout(black_box(size)));
        black_box(block.pointer());
        if touch {
            block.touch(0);
        }
        block.give(allocator);
    }
    start.elapsed()
}
