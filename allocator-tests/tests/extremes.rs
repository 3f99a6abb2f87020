//! Requests that cannot be met, and blocks so large that touching a page too
//! many shows. One test after the other: they measure the process.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::{Mutex, MutexGuard};

use allocator_tests::blocks::{Filled, layout};
use allocator_tests::memory::{Memory, forget_peak};
use bursar::Bursar;

#[global_allocator]
static GLOBAL: Bursar = Bursar::new();

const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;
/// What the test's own doings may add to resident memory.
const SLACK: u64 = 1 << 20;

fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(|panicked| panicked.into_inner())
}

fn impossible() -> impl Iterator<Item = Layout> {
    (0..=30).flat_map(|power| {
        let align = 1_usize << power;
        let sizes = [
            isize::MAX as usize,
            isize::MAX as usize - 4096,
            1 << 62,
            1 << 47,
            1 << 46,
        ];
        // Rounded up to the alignment, a size may not pass `isize::MAX`.
        sizes.map(|size| layout(size & !(align - 1), align))
    })
}

#[test]
fn impossible_requests_are_answered_with_null() {
    let _alone = alone();
    for layout in impossible() {
        // SAFETY: the size is not zero.
        let blocks = unsafe { [GLOBAL.alloc(layout), GLOBAL.alloc_zeroed(layout)] };
        assert_eq!(blocks, [std::ptr::null_mut(); 2], "{layout:?}");
        let reason = bursar::last_failure();
        assert!(reason.is_some(), "no reason for the null at {layout:?}");
    }
}

#[test]
fn alignments_beyond_a_gib_are_met_or_answered_with_null() {
    let _alone = alone();
    for power in 31..=62 {
        let layout = layout(100, 1 << power);
        // SAFETY: the size is not zero; the block is freed once.
        unsafe {
            let block = GLOBAL.alloc(layout);
            if !block.is_null() {
                assert_eq!(block as usize % layout.align(), 0, "{layout:?}");
                GLOBAL.dealloc(block, layout);
            }
        }
    }
}

#[test]
fn a_block_survives_a_realloc_that_cannot_be_met() {
    let _alone = alone();
    for size in [16, 3_000, 100_000, 5 * MIB] {
        for align in [1, 16, 4096] {
            let block = Filled::new(&GLOBAL, layout(size, align)).expect("memory can be had");
            for most in [isize::MAX as usize, 1 << 62, 1 << 47].map(|most| most & !(align - 1)) {
                // SAFETY: the block has this layout; the new size does not
                // overflow when rounded up to the alignment.
                let moved =
                    unsafe { GLOBAL.realloc(block.address() as *mut u8, block.layout(), most) };
                assert!(moved.is_null(), "{most} bytes cannot be had");
                block.verify();
            }
        }
    }
}

/// What a block of a GiB adds to resident memory while nothing in it is used.
fn resident_by_a_gib(align: usize, zeroed: bool) -> u64 {
    let layout = layout(GIB, align);
    let before = Memory::now();
    // SAFETY: the size is not zero; the block is freed once.
    unsafe {
        let block = if zeroed {
            GLOBAL.alloc_zeroed(layout)
        } else {
            GLOBAL.alloc(layout)
        };
        assert!(!block.is_null(), "a GiB can be had");
        let grown = Memory::now().since(before).resident;
        GLOBAL.dealloc(block, layout);
        grown
    }
}

#[test]
fn a_gib_that_is_not_used_is_not_resident() {
    let _alone = alone();
    for align in [8, 4096, 4 * MIB] {
        for zeroed in [true, false] {
            bursar::purge();
            let grown = resident_by_a_gib(align, zeroed);
            assert!(
                grown < SLACK,
                "{grown} bytes, zeroed: {zeroed}, aligned to {align}"
            );
        }
    }
}

/// What was freed may be dirty; to give it back costs less than to clear it.
#[test]
fn a_zeroed_gib_is_not_resident_where_another_was_freed() {
    let _alone = alone();
    for align in [8, 4096, 4 * MIB] {
        resident_by_a_gib(align, false);
        let grown = resident_by_a_gib(align, true);
        assert!(grown < SLACK, "{grown} bytes, aligned to {align}");
    }
}

/// Small and medium zeroed blocks from fresh memory need no touching either.
#[test]
fn fresh_zeroed_blocks_of_a_mib_are_not_touched() {
    let _alone = alone();
    bursar::purge();
    let before = Memory::now();
    let layout = layout(MIB, 16);
    // SAFETY: the size is not zero.
    let blocks = [(); 256].map(|()| unsafe { GLOBAL.alloc_zeroed(layout) });
    let grown = Memory::now().since(before).resident;
    for block in blocks {
        assert!(!block.is_null(), "a MiB can be had");
        // SAFETY: each was allocated above with this layout.
        unsafe { GLOBAL.dealloc(block, layout) };
    }
    assert!(grown < 8 << 20, "{grown} bytes of 256 MiB became resident");
}

/// A byte for each page, so that contents can be told without a second copy.
fn mark(page: usize) -> u8 {
    (page % 251) as u8 + 1
}

/// Grows a block of 256 MiB, all pages touched, to 512 MiB; the peak shows
/// whether it was copied. By how much it rose; now and then, while threads of the test harness come
/// and go, by some 100 MiB where nothing was copied, and then not the next time.
fn rise(neighbour: bool) -> u64 {
    let (small, large) = (layout(256 * MIB, 16), layout(512 * MIB, 16));
    // SAFETY: the sizes are not zero; every access lies below the size of the
    // block at that time; each block is freed once, with its layout.
    unsafe {
        let block = GLOBAL.alloc(small);
        assert!(!block.is_null(), "memory can be had");
        (0..small.size() / 4096).for_each(|page| block.add(page * 4096).write(mark(page)));
        let next = if neighbour {
            GLOBAL.alloc(small)
        } else {
            std::ptr::null_mut()
        };
        forget_peak().expect("the kernel can forget the peak");
        let before = Memory::now();
        let grown = GLOBAL.realloc(block, small, large.size());
        let more = Memory::now().since(before);
        assert!(!grown.is_null(), "memory can be had");
        let kept = (0..small.size() / 4096).all(|page| grown.add(page * 4096).read() == mark(page));
        assert!(kept, "contents were lost");
        grown.add(large.size() - 1).write(1);
        GLOBAL.dealloc(grown, large);
        if !next.is_null() {
            GLOBAL.dealloc(next, small);
        }
        more.peak
    }
}

/// Grows blocks, `prepared` for each, of which at most one may seem copied.
fn grow(neighbour: bool, prepared: impl Fn()) {
    let grow = |_| {
        prepared();
        rise(neighbour)
    };
    let rises: Vec<u64> = (0..4).map(grow).collect();
    let copies = rises.iter().filter(|&&rise| rise >= 64 << 20).count();
    assert!(copies < 2, "the block was copied: {rises:?}");
}

#[test]
fn a_large_block_grows_without_being_copied() {
    let _alone = alone();
    grow(false, || ());
}

#[test]
fn a_large_block_with_a_neighbour_grows_without_being_copied() {
    let _alone = alone();
    grow(true, || ());
}

/// What was freed and never touched is no place to copy to.
#[test]
fn a_large_block_grows_into_what_nobody_touched_without_being_copied() {
    let _alone = alone();
    grow(true, || {
        bursar::purge();
        resident_by_a_gib(8, false);
    });
}

/// A vector that doubles is never resident twice once it is large.
#[test]
fn a_vector_grows_to_512_mib_without_a_second_copy() {
    let _alone = alone();
    let before = Memory::now();
    forget_peak().expect("the kernel can forget the peak");
    let mut vector: Vec<u8> = Vec::new();
    while vector.len() < 512 * MIB {
        vector.resize((vector.len() * 2).max(4096), 1);
    }
    let peak = Memory::now().since(before).peak;
    drop(vector);
    assert!(peak < 580 << 20, "{peak} bytes were resident");
}

#[test]
fn what_a_large_block_gave_up_when_it_shrank_goes_back() {
    let _alone = alone();
    bursar::purge();
    let before = Memory::now();
    let large = layout(256 * MIB, 16);
    // SAFETY: the sizes are not zero; the block is freed once with its layout.
    unsafe {
        let block = GLOBAL.alloc(large);
        assert!(!block.is_null(), "memory can be had");
        block.write_bytes(1, large.size());
        let shrunk = GLOBAL.realloc(block, large, MIB);
        assert!(!shrunk.is_null(), "a block can shrink");
        bursar::purge();
        let grown = Memory::now().since(before).resident;
        GLOBAL.dealloc(shrunk, layout(MIB, 16));
        assert!(
            grown < 8 << 20,
            "{grown} bytes are resident for a block of 1 MiB"
        );
    }
}
