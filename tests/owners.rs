//! Owner tags below the account layer: uniform and mixed runs, bins per owner, retagging, and
//! counts that are exact at rest. One test to a process, since the counts are process-wide.

#![cfg(feature = "check")]

use bursar::owner::{self, OwnerTag};
use std::alloc::{GlobalAlloc, Layout};
use std::collections::HashMap;
use std::sync::mpsc;

/// Driven directly, not installed: what the test harness allocates is not on these books.
static BURSAR: bursar::Bursar = bursar::Bursar::new();

struct Block(*mut u8, Layout, u32);
// SAFETY: blocks may be freed on any thread.
unsafe impl Send for Block {}

fn tag(number: u32) -> OwnerTag {
    OwnerTag::new(number).unwrap()
}

/// A small generator, so that every run is the same.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }
}

fn layout(random: &mut Random) -> Layout {
    let size = match random.below(100) {
        0..60 => 1 + random.below(200),
        60..90 => 1 + random.below(4000),
        90..96 => 1 + random.below(100_000),
        _ => 1 + random.below(2_000_000),
    };
    Layout::from_size_align(size, 1 << random.below(5)).unwrap()
}

fn allocate(owner: u32, layout: Layout) -> Block {
    // SAFETY: a layout with a size.
    let address = owner::run(tag(owner), || unsafe { BURSAR.alloc(layout) });
    assert!(!address.is_null());
    // SAFETY: allocated just now.
    assert_eq!(unsafe { owner::of(address, layout) }, tag(owner));
    Block(address, layout, owner)
}

fn free(block: Block) {
    // SAFETY: each block is freed once.
    unsafe {
        assert_eq!(owner::of(block.0, block.1), tag(block.2));
        BURSAR.dealloc(block.0, block.1);
    }
}

/// What each owner should have: blocks and bytes.
fn expect(shadow: &HashMap<u32, (u64, u64)>, owners: u32) {
    for owner in 0..owners {
        let (blocks, bytes) = shadow.get(&owner).copied().unwrap_or_default();
        let totals = owner::totals(tag(owner));
        assert_eq!(
            (totals.live_blocks(), totals.live_bytes()),
            (blocks, bytes),
            "owner {owner}"
        );
    }
    let report = bursar::check().unwrap_or_else(|violation| panic!("{violation}"));
    assert_eq!(
        report.live_bytes,
        shadow.values().map(|held| held.1).sum::<u64>()
    );
}

fn book(shadow: &mut HashMap<u32, (u64, u64)>, blocks: &[Block]) {
    shadow.clear();
    for block in blocks {
        let held = shadow.entry(block.2).or_default();
        held.0 += 1;
        held.1 += bursar::block_size(block.1) as u64;
    }
}

#[test]
fn books_agree_with_a_shadow() {
    const OWNERS: u32 = 300;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut blocks: Vec<Block> = Vec::new();
    let mut shadow = HashMap::new();

    // Another thread frees what it is sent, allocates some of its own, and ends.
    for round in 0..6 {
        let (to_other, inbox) = mpsc::channel::<Block>();
        let other = std::thread::spawn(move || {
            let mut random = Random(77 + round);
            let mut kept = Vec::new();
            for block in inbox {
                free(block);
                let owner = random.below(OWNERS as usize) as u32;
                kept.push(allocate(owner, layout(&mut random)));
            }
            kept
        });
        for step in 0..20_000 {
            // Owners come in stretches, so that some get bins of their own.
            let owner = if step % 3 == 0 {
                random.below(OWNERS as usize)
            } else {
                step / 500
            } as u32;
            match random.below(10) {
                0..5 => blocks.push(allocate(owner, layout(&mut random))),
                5..8 if !blocks.is_empty() => {
                    free(blocks.swap_remove(random.below(blocks.len())));
                }
                8 if !blocks.is_empty() => {
                    let sent = blocks.swap_remove(random.below(blocks.len()));
                    to_other.send(sent).unwrap();
                }
                9 if !blocks.is_empty() => {
                    let index = random.below(blocks.len());
                    let block = &mut blocks[index];
                    // SAFETY: alive, and this test's.
                    if unsafe { owner::retag(block.0, block.1, tag(owner)) } {
                        block.2 = owner;
                    }
                }
                _ => {}
            }
            if step % 7 == 0 && !blocks.is_empty() {
                let index = random.below(blocks.len());
                let block = &mut blocks[index];
                let size = layout(&mut random).size();
                // SAFETY: alive, and this test's; the owner stays.
                unsafe {
                    block.0 = BURSAR.realloc(block.0, block.1, size);
                    block.1 = Layout::from_size_align(size, block.1.align()).unwrap();
                    assert_eq!(owner::of(block.0, block.1), tag(block.2));
                }
            }
        }
        drop(to_other);
        blocks.extend(other.join().unwrap());
        book(&mut shadow, &blocks);
        expect(&shadow, OWNERS);
    }
    blocks.drain(..).for_each(free);
    expect(&HashMap::new(), OWNERS);
    bursar::purge();
    let report = bursar::check().unwrap();
    assert_eq!(report.live_blocks, 0);
    assert!(
        report.runs < 64,
        "{} runs are left with nothing in them",
        report.runs
    );
}
