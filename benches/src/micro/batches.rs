//! A thousand blocks are taken, then all given back in one order or another.
//! One operation is one block taken and given back.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::time::{Duration, Instant};

use super::block::{Block, Draw, layout};
use super::{Row, scale};

pub const GROUP: &str = "batch of 1,000";

const BATCH: usize = 1000;

#[derive(Clone, Copy)]
enum Order {
    Lifo,
    Fifo,
    Random,
}

pub fn rows<A: GlobalAlloc + Sync>(allocator: &'static A) -> Vec<Row> {
    let mut rows = Vec::new();
    for (sizes, least, most) in [
        ("64 B", 64, 64),
        ("512 B", 512, 512),
        ("16 B-2 KiB", 16, 2048),
    ] {
        for (name, order) in [
            ("LIFO", Order::Lifo),
            ("FIFO", Order::Fifo),
            ("random order", Order::Random),
        ] {
            rows.push(Row::new(GROUP, format!("{sizes}, {name}"), move |count| {
                batches(allocator, least, most, order, count)
            }));
        }
    }
    rows
}

fn batches<A: GlobalAlloc>(
    allocator: &A,
    least: usize,
    most: usize,
    order: Order,
    count: u64,
) -> Duration {
    let layouts = layouts(least, most);
    let order = indices(order);
    let mut blocks: Vec<Option<Block>> = Vec::with_capacity(BATCH);
    let batches = count.div_ceil(BATCH as u64);
    batch(allocator, &layouts, &order, &mut blocks);
    let start = Instant::now();
    for _ in 0..batches {
        batch(allocator, &layouts, &order, &mut blocks);
    }
    scale(start.elapsed(), count, batches * BATCH as u64)
}

fn batch<A: GlobalAlloc>(
    allocator: &A,
    layouts: &[Layout],
    order: &[usize],
    blocks: &mut Vec<Option<Block>>,
) {
    blocks.clear();
    for &layout in black_box(layouts) {
        blocks.push(Some(Block::take(allocator, layout)));
    }
    for &index in black_box(order) {
        if let Some(block) = blocks[index].take() {
            block.give(allocator);
        }
    }
}

fn layouts(least: usize, most: usize) -> Vec<Layout> {
    if least == most {
        return vec![layout(least); BATCH];
    }
    let mut draw = Draw::new(least..=most);
    (0..BATCH).map(|_| draw.next(1).1).collect()
}

fn indices(order: Order) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..BATCH).collect();
    match order {
        Order::Fifo => {}
        Order::Lifo => indices.reverse(),
        Order::Random => fastrand::Rng::with_seed(7).shuffle(&mut indices),
    }
    indices
}
