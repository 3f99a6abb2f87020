//! The `GlobalAlloc` contract over sizes and alignments.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::NonNull;

use allocator_tests::blocks::layout;
use allocator_tests::pattern::{Pattern, verify_zero};
use allocator_tests::shadow::{Shadow, disjoint};
use bursar::{Bursar, block_size};

#[global_allocator]
static GLOBAL: Bursar = Bursar::new();

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

/// Without optimisation, only every so many of the sizes beyond a page.
const STRIDE: usize = if cfg!(debug_assertions) { 3 } else { 1 };

fn alignments(up_to: usize) -> impl Iterator<Item = usize> {
    (0..=up_to.ilog2()).map(|power| 1 << power)
}

/// Each size at which the block grows, the one before and the one after; then
/// powers of two and a page around them.
fn edges(up_to: usize) -> Vec<usize> {
    let of_classes =
        (1..300 * KIB).filter(|&s| block_size(layout(s, 1)) != block_size(layout(s + 1, 1)));
    let mut sizes: Vec<usize> = of_classes.flat_map(|s| [s - 1, s, s + 1]).collect();
    let powers = (18..=up_to.ilog2()).map(|power| 1_usize << power);
    sizes.extend(powers.flat_map(|p| {
        [
            p - 4096,
            p - 1,
            p,
            p + 1,
            p + 4096,
            p + p / 2,
            p + p / 4 + 77,
        ]
    }));
    sizes.retain(|&size| size > 0 && size <= up_to);
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: no test asks for a block of size zero.
    let block = unsafe { GLOBAL.alloc(layout) };
    let block = NonNull::new(block).unwrap_or_else(|| panic!("null for {layout:?}"));
    assert_eq!(
        block.as_ptr() as usize % layout.align(),
        0,
        "{block:?} for {layout:?}"
    );
    block
}

fn free(block: NonNull<u8>, layout: Layout) {
    // SAFETY: each caller frees what it allocated with this layout.
    unsafe { GLOBAL.dealloc(block.as_ptr(), layout) };
}

/// Blocks of each of `layouts`, three at a time, under the shadow: alignment,
/// contents of the whole size, no overlap, zeroed blocks zero.
fn three_of_each(layouts: impl Iterator<Item = Layout>) {
    let mut shadow = Shadow::new(&GLOBAL, 1, Vec::new());
    for layout in layouts {
        for zeroed in [false, true, false] {
            let had = shadow
                .allocate(layout, zeroed)
                .unwrap_or_else(|fault| panic!("{fault}"));
            assert!(had, "null for {layout:?}");
        }
        if shadow.len() > 3_000 || shadow.bytes() > 256 * MIB {
            disjoint(shadow.blocks()).unwrap_or_else(|fault| panic!("{fault}"));
            shadow.clear().unwrap_or_else(|fault| panic!("{fault}"));
        }
    }
    disjoint(shadow.blocks()).unwrap_or_else(|fault| panic!("{fault}"));
    shadow.clear().unwrap_or_else(|fault| panic!("{fault}"));
}

#[test]
fn every_size_to_a_page_at_every_alignment_to_a_page() {
    let sizes = 1..=4096_usize;
    three_of_each(sizes.flat_map(|size| alignments(4096).map(move |align| layout(size, align))));
}

#[test]
fn sizes_around_every_edge_of_a_class() {
    let sizes = edges(MIB).into_iter();
    three_of_each(sizes.flat_map(|size| {
        [1, 8, 16, 64, 4096, 64 * KIB]
            .map(|align| layout(size, align))
            .into_iter()
            .step_by(STRIDE.min(2))
    }));
}

#[test]
fn sizes_to_64_mib() {
    let sizes = edges(64 * MIB).into_iter().filter(|&size| size > MIB / 2);
    three_of_each(sizes.flat_map(|size| [1, 4096, 4 * MIB].map(|align| layout(size, align))));
}

#[test]
fn alignments_to_a_gib() {
    let sizes = [1, 100, 4096, 70_000, 5 * MIB];
    three_of_each(sizes.iter().flat_map(|&size| {
        alignments(GIB)
            .map(move |align| layout(size, align))
            .skip(13)
    }));
}

#[test]
fn blocks_of_some_gib_can_be_had_and_used_at_both_ends() {
    for size in [GIB, 2 * GIB, 3 * GIB + 5, 5 * GIB] {
        for align in [1, 4096, MIB, GIB] {
            let layout = layout(size, align);
            let block = allocate(layout);
            for at in [0, size / 2, size - 1] {
                // SAFETY: `at` is below the size.
                unsafe { block.as_ptr().add(at).write(1) };
            }
            free(block, layout);
        }
    }
}

/// The allocator books a block as `block_size`, so all of that must be the
/// block's, not the next one's.
#[test]
fn a_block_is_writable_over_all_that_is_booked_for_it() {
    for size in edges(2 * MIB).into_iter().step_by(STRIDE) {
        let layout = layout(size, 8);
        let booked = block_size(layout);
        let blocks = [(); 4].map(|()| allocate(layout));
        let patterns = blocks.map(|block| Pattern::new(block.as_ptr(), 1));
        for (block, pattern) in blocks.iter().zip(patterns) {
            // SAFETY: under test.
            unsafe { pattern.fill(block.as_ptr(), booked) };
        }
        for (block, pattern) in blocks.iter().zip(patterns) {
            // SAFETY: as above.
            let found = unsafe { pattern.verify(block.as_ptr(), booked, booked) };
            found.unwrap_or_else(|mismatch| panic!("{size} bytes, {booked} booked: {mismatch}"));
            free(*block, layout);
        }
    }
}

#[test]
fn block_size_holds_the_size_and_wastes_no_more_than_stated() {
    for size in (1..=300 * KIB).chain(edges(64 * MIB)) {
        let booked = block_size(layout(size, 1));
        let bound = match size {
            0..=128 => size.next_multiple_of(8),
            129..=2048 => size + booked / 8,
            2049..=262_144 => size + booked / 5,
            _ => size.next_multiple_of(4096),
        };
        assert!(
            (size..=bound).contains(&booked),
            "{booked} booked for {size}, at most {bound}"
        );
        assert!(
            booked <= block_size(layout(size + 1, 1)),
            "a larger size, a smaller block: {size}"
        );
        assert_eq!(
            block_size(layout(booked, 1)),
            booked,
            "a block's own size is of its class"
        );
    }
}

#[test]
fn block_size_holds_every_alignment() {
    for align in alignments(GIB) {
        for size in [
            1,
            7,
            8,
            24,
            100,
            129,
            1000,
            2049,
            5000,
            70_000,
            300_000,
            5 * MIB,
        ] {
            let booked = block_size(layout(size, align));
            assert!(booked >= size, "{booked} for {size} at {align}");
            assert_eq!(booked, block_size(layout(size, align)));
        }
    }
}

fn reallocate_in_all_directions(sizes: &[usize], align: usize) {
    let mut shadow = Shadow::new(&GLOBAL, 2, Vec::new());
    let had = |had: Result<bool, _>| match had {
        Ok(true) => {}
        Ok(false) => panic!("null at alignment {align}"),
        Err(fault) => panic!("{fault}"),
    };
    for &from in sizes {
        for &to in sizes {
            had(shadow.allocate(layout(from, align), false));
            // A neighbour, so that growth in place is not always to be had.
            had(shadow.allocate(layout(from, align), false));
            had(shadow.reallocate(0, to));
            had(shadow.reallocate(0, from));
            disjoint(shadow.blocks()).unwrap_or_else(|fault| panic!("{fault}"));
            shadow.clear().unwrap_or_else(|fault| panic!("{fault}"));
        }
    }
}

#[test]
fn realloc_keeps_contents_from_every_category_to_every_other() {
    let small = [
        1,
        8,
        9,
        24,
        128,
        129,
        1000,
        2048,
        2049,
        5000,
        32 * KIB,
        32 * KIB + 1,
    ];
    let large = [
        256 * KIB,
        256 * KIB + 1,
        300 * KIB,
        MIB,
        4 * MIB - 1,
        4 * MIB,
        4 * MIB + 1,
        17 * MIB,
        40 * MIB,
    ];
    let sizes = [&small[..], &large[..]].concat();
    for align in [1, 16, 4096] {
        reallocate_in_all_directions(&sizes, align);
    }
    for align in [64 * KIB, 8 * MIB] {
        reallocate_in_all_directions(&[1, 3000, 70_000, 300_000, 4 * MIB + 1, 9 * MIB], align);
    }
}

#[test]
fn realloc_byte_by_byte_keeps_contents() {
    let mut shadow = Shadow::new(&GLOBAL, 3, Vec::new());
    shadow
        .allocate(layout(1, 1), false)
        .unwrap_or_else(|fault| panic!("{fault}"));
    let up = (2..5001).step_by(STRIDE);
    for size in up.clone().chain(up.rev()) {
        let had = shadow
            .reallocate(0, size)
            .unwrap_or_else(|fault| panic!("{fault}"));
        assert!(had, "null for {size}");
    }
    shadow.clear().unwrap_or_else(|fault| panic!("{fault}"));
}

#[test]
fn zeroed_blocks_are_zero_where_dirty_ones_were_freed() {
    for size in edges(9 * MIB).into_iter().step_by(STRIDE) {
        let layout = layout(size, 16);
        for _ in 0..3 {
            let dirty = [(); 3].map(|()| allocate(layout));
            for block in dirty {
                // SAFETY: the block is valid for writes of its size.
                unsafe { block.as_ptr().write_bytes(0xa5, size) };
            }
            dirty.into_iter().for_each(|block| free(block, layout));
            let zeroed = [(); 3].map(|()| {
                // SAFETY: the size is not zero.
                let block = unsafe { GLOBAL.alloc_zeroed(layout) };
                NonNull::new(block).unwrap_or_else(|| panic!("null for {layout:?}"))
            });
            for block in zeroed {
                // SAFETY: the block is valid for reads of its size.
                unsafe { verify_zero(block.as_ptr(), size) }
                    .unwrap_or_else(|found| panic!("{size} bytes {found}"));
                free(block, layout);
            }
        }
    }
}

/// A zeroed block that was shrunk, dirtied beyond its end by another, and so
/// on: the tail of a span is not zero because the span once was.
#[test]
fn zeroed_blocks_are_zero_after_large_blocks_shrank_and_grew() {
    for (large, small) in [
        (9 * MIB, 300 * KIB),
        (MIB, 300 * KIB),
        (20 * MIB, 5 * MIB),
        (64 * KIB, 4 * KIB),
    ] {
        for _ in 0..4 {
            let (before, after) = (layout(large, 8), layout(small, 8));
            let block = allocate(before);
            // SAFETY: the block is valid for writes of its size; `realloc`
            // and the frees are given the layouts that the blocks have.
            unsafe {
                block.as_ptr().write_bytes(0xff, large);
                let shrunk = GLOBAL.realloc(block.as_ptr(), before, small);
                assert!(!shrunk.is_null(), "a block can shrink");
                let zeroed = [(); 4].map(|()| GLOBAL.alloc_zeroed(layout(large / 2, 8)));
                for block in zeroed {
                    assert!(!block.is_null(), "memory can be had");
                    verify_zero(block, large / 2)
                        .unwrap_or_else(|found| panic!("{large} to {small} {found}"));
                    block.write_bytes(0xee, large / 2);
                }
                for block in zeroed {
                    GLOBAL.dealloc(block, layout(large / 2, 8));
                }
                GLOBAL.dealloc(shrunk, after);
            }
        }
    }
}
