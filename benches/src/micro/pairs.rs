//! A block is taken and given back at once: the shortest path of all.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::time::{Duration, Instant};

use super::Row;
use super::block::{ALIGNMENT, Block};

/// The layout is a constant of the caller, as in `Box::new`.
pub const CONSTANT: &str = "pair, constant layout";
/// The size is known only at run time, as in `Vec::with_capacity`.
pub const RUNTIME: &str = "pair, runtime layout";

pub fn rows<A: GlobalAlloc + Sync>(allocator: &'static A) -> Vec<Row> {
    let mut constant = Vec::new();
    let mut runtime = Vec::new();
    macro_rules! pairs {
        ($($name:literal: $size:expr,)*) => {$(
            constant.push(Row::new(CONSTANT, $name, |count| constant_pairs::<A, { $size }>(allocator, count)));
            runtime.push(Row::new(RUNTIME, $name, |count| runtime_pairs(allocator, $size, count)));
        )*};
    }
    pairs! {
        "8 B": 8,
        "24 B": 24,
        "64 B": 64,
        "256 B": 256,
        "1 KiB": 1 << 10,
        "4 KiB": 4 << 10,
        "16 KiB": 16 << 10,
        "64 KiB": 64 << 10,
        "256 KiB": 256 << 10,
        "1 MiB": 1 << 20,
        "8 MiB": 8 << 20,
    }
    constant.append(&mut runtime);
    constant
}

fn constant_pairs<A: GlobalAlloc, const SIZE: usize>(allocator: &A, count: u64) -> Duration {
    let layout = const {
        assert!(SIZE != 0);
        match Layout::from_size_align(SIZE, ALIGNMENT) {
            Ok(layout) => layout,
            Err(_) => panic!("a size below isize::MAX"),
        }
    };
    let start = Instant::now();
    for _ in 0..count {
        pair(allocator, layout);
    }
    start.elapsed()
}

fn runtime_pairs<A: GlobalAlloc>(allocator: &A, size: usize, count: u64) -> Duration {
    assert!(size != 0 && size <= 1 << 30);
    let start = Instant::now();
    for _ in 0..count {
        // SAFETY: the alignment is a power of two, the size checked above.
        let layout = unsafe { Layout::from_size_align_unchecked(black_box(size), ALIGNMENT) };
        pair(allocator, layout);
    }
    start.elapsed()
}

#[inline(always)]
fn pair<A: GlobalAlloc>(allocator: &A, layout: Layout) {
    let block = Block::take(allocator, layout);
    black_box(block.pointer());
    block.give(allocator);
}
