//! A block that grows as a `Vec` does. One operation is the whole growth,
//! from the first bytes to the release.

use std::alloc::GlobalAlloc;
use std::hint::black_box;
use std::time::{Duration, Instant};

use super::Row;
use super::block::{Block, layout};

pub const GROUP: &str = "growth";

/// By how much a block grows at a time.
#[derive(Clone, Copy)]
enum Step {
    Doubling,
    Bytes(usize),
}

pub fn rows<A: GlobalAlloc + Sync>(allocator: &'static A) -> Vec<Row> {
    let mut rows: Vec<Row> = [
        (
            "64 B to 64 KiB, doubling",
            64,
            64 << 10,
            Step::Doubling,
            true,
        ),
        ("64 B to 4 MiB, doubling", 64, 4 << 20, Step::Doubling, true),
        (
            "64 B to 256 MiB, doubling, untouched",
            64,
            256 << 20,
            Step::Doubling,
            false,
        ),
        (
            "64 B to 256 MiB, doubling, every page written",
            64,
            256 << 20,
            Step::Doubling,
            true,
        ),
        (
            "64 B to 16 KiB, by 64 B",
            64,
            16 << 10,
            Step::Bytes(64),
            true,
        ),
        (
            "4 KiB to 2 MiB, by 4 KiB",
            4096,
            2 << 20,
            Step::Bytes(4096),
            true,
        ),
    ]
    .into_iter()
    .map(|(name, from, to, step, touch)| {
        Row::new(GROUP, name, move |count| {
            grow(allocator, from, to, step, touch, count)
        })
    })
    .collect();
    rows.push(Row::new(
        GROUP,
        "1,000 blocks in turn, 16 B to 2 KiB, doubling",
        move |count| grow_in_turn(allocator, 1000, count),
    ));
    rows
}

fn next(size: usize, step: Step) -> usize {
    match step {
        Step::Doubling => size * 2,
        Step::Bytes(bytes) => size + bytes,
    }
}

fn grow<A: GlobalAlloc>(
    allocator: &A,
    from: usize,
    to: usize,
    step: Step,
    touch: bool,
    count: u64,
) -> Duration {
    let start = Instant::now();
    for _ in 0..count {
        let mut block = Block::take(allocator, layout(black_box(from)));
        while block.size() < to {
            let written = block.size();
            block = block.resize(allocator, next(written, step));
            if touch {
                block.touch(written);
            }
        }
        black_box(block.pointer());
        block.give(allocator);
    }
    start.elapsed()
}

/// Many growing blocks lie between one another, so that none can stay where
/// it is.
fn grow_in_turn<A: GlobalAlloc>(allocator: &A, width: usize, count: u64) -> Duration {
    let start = Instant::now();
    for _ in 0..count {
        let mut blocks: Vec<Option<Block>> = (0..width)
            .map(|_| Some(Block::take(allocator, layout(black_box(16)))))
            .collect();
        for _ in 0..7 {
            for slot in &mut blocks {
                if let Some(block) = slot.take() {
                    let size = next(block.size(), Step::Doubling);
                    *slot = Some(block.resize(allocator, size));
                }
            }
        }
        for block in blocks.into_iter().flatten() {
            block.give(allocator);
        }
    }
    start.elapsed()
}
