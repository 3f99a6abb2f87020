//! Accounts where there is no memory for their records: what cannot be booked is
//! not done, or not attributed, and the books stay exact.

use std::alloc::Layout;
use std::ptr::NonNull;

use bursar::fault::{Call, When, clear, fail, made};
use bursar::{Consumer, TransferError};

use super::accounts::on_threads;
use super::{Arguments, Host, Run, scaled};
use crate::blocks::layout;
use crate::charges::{current, held};

pub(super) const ALL: &[(&str, Run)] = &[("accounts_without_records", accounts_without_records)];

/// A block, and the consumer in whose scope it was allocated, by its place.
struct Block {
    address: NonNull<u8>,
    layout: Layout,
    owner: Option<usize>,
}

// SAFETY: a block is owned memory, which any thread may free.
unsafe impl Send for Block {}

/// What happened where it might not have.
#[derive(Clone, Copy, Default, Debug)]
struct Tally {
    entered: u64,
    not_entered: u64,
    moved: u64,
    not_moved: u64,
    null: u64,
}

/// Enters a scope, allocates there if the thread is in it, and hands over to the
/// next consumer.
fn work(host: &Host, consumers: &[Consumer], blocks: &mut Vec<Block>, tally: &mut Tally) {
    for place in 0..consumers.len() {
        let _scope = consumers[place].enter();
        let owner = (current() == Some(consumers[place].id())).then_some(place);
        assert!(owner.is_some() || current().is_none());
        match owner {
            Some(_) => tally.entered += 1,
            None => tally.not_entered += 1,
        }
        for size in [24, 1_000, 5_000 + place * 10, 300_000] {
            let layout = layout(size, 8);
            // SAFETY: the size is not zero.
            let Some(address) = NonNull::new(unsafe { host.heap.alloc(layout) }) else {
                tally.null += 1;
                continue;
            };
            let mut block = Block {
                address,
                layout,
                owner,
            };
            let next = (place + 1) % consumers.len();
            // SAFETY: the block is alive, of this layout, and ours.
            match unsafe { bursar::transfer_block(address, layout, &consumers[next]) } {
                Ok(bytes) => {
                    assert_eq!(bytes, bursar::block_size(layout) as u64);
                    block.owner = Some(next);
                    tally.moved += 1;
                }
                Err(TransferError::NoMemory) => tally.not_moved += 1,
                Err(other) => panic!("{other}"),
            }
            blocks.push(block);
        }
    }
}

/// Every figure of every consumer, and the whole, are those of the blocks.
fn agree(consumers: &[Consumer], blocks: &[Block]) {
    let mut expected = vec![[0; 2]; consumers.len()];
    let mut whole = 0;
    for block in blocks {
        let bytes = bursar::block_size(block.layout) as u64;
        whole += bytes;
        if let Some(owner) = block.owner {
            expected[owner] = [expected[owner][0] + 1, expected[owner][1] + bytes];
        }
    }
    for (consumer, expected) in consumers.iter().zip(expected) {
        assert_eq!(held(consumer), expected, "{}", consumer.name());
    }
    let report = bursar::check().unwrap_or_else(|broken| panic!("check(): {broken}"));
    assert_eq!(
        (report.live_bytes, bursar::stats().allocated_bytes),
        (whole, whole)
    );
}

/// Argument: which mappings of records fail, from `first` on or `every` second.
/// bursar is not installed here, so nothing else needs memory.
fn accounts_without_records(host: &Host, arguments: &Arguments) {
    let rule = match arguments.text(0) {
        "first" => When::From(1),
        _ => When::Every(2),
    };
    let consumers: Vec<_> = (0..scaled(3_000, 1_000))
        .map(|n| Consumer::new(format!("consumer {n}")))
        .collect();
    let (mut blocks, mut tally) = (Vec::new(), Tally::default());
    fail(Call::Metadata, rule);
    for _ in 0..2 {
        work(host, &consumers, &mut blocks, &mut tally);
        agree(&consumers, &blocks);
    }
    assert!(made(Call::Metadata) > 0, "no record was asked for");
    // Frees on other threads need books there, too: what cannot be counted as
    // freed is not freed.
    clear();
    println!("{tally:?}");
    let free = |block: Block| {
        // SAFETY: each block is freed once, with its layout.
        unsafe { host.heap.dealloc(block.address.as_ptr(), block.layout) };
    };
    let half: Vec<Block> = blocks.drain(..blocks.len() / 2).collect();
    let half = std::sync::Mutex::new(half);
    on_threads(2, |_| {
        while let Some(block) = half.lock().ok().and_then(|mut half| half.pop()) {
            free(block);
        }
    });
    agree(&consumers, &blocks);
    blocks.drain(..).for_each(free);
    agree(&consumers, &blocks);
    if arguments.text(0) == "first" {
        assert!(tally.not_entered > 0 && tally.not_moved > 0, "{tally:?}");
    }
    assert!(tally.entered > 0 && tally.moved > 0, "{tally:?}");
}
