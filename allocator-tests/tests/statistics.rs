//! `bursar::stats()`: the parts and the whole, and the whole and the truth.

use std::alloc::{GlobalAlloc, Layout};

use allocator_tests::blocks::{Filled, layout};
use allocator_tests::process::Scenario;
use allocator_tests::scenarios::statistics::adds_up;
use allocator_tests::turns::alone;
use bursar::{Bursar, block_size, stats};

/// Not installed: what is on its books is the tests' own.
static HEAP: Bursar = Bursar::new();

#[test]
fn each_block_is_booked_as_block_size_until_it_is_freed() {
    alone(|| {
        assert_eq!(stats().allocated_bytes, 0);
        for size in [
            1,
            8,
            24,
            100,
            128,
            129,
            2_048,
            2_049,
            50_000,
            262_144,
            262_145,
            1 << 20,
            5 << 20,
            1 << 30,
        ] {
            for align in [1, 16, 4096, 1 << 20] {
                let layout = layout(size, align);
                // SAFETY: the size is not zero.
                let block = unsafe { HEAP.alloc(layout) };
                assert!(!block.is_null(), "memory can be had");
                let during = stats();
                assert_eq!(
                    during.allocated_bytes,
                    block_size(layout) as u64,
                    "{layout:?}"
                );
                adds_up(&during);
                // SAFETY: the block was allocated with this layout.
                unsafe { HEAP.dealloc(block, layout) };
                assert_eq!(stats().allocated_bytes, 0, "after {layout:?} was freed");
            }
        }
    });
}

#[test]
fn a_reallocated_block_is_booked_at_its_new_size() {
    alone(|| {
        let sizes = [
            10,
            11,
            100,
            3_000,
            3_100,
            300_000,
            290_000,
            9 << 20,
            20 << 20,
            300_000,
            40,
        ];
        let mut now = layout(1, 8);
        // SAFETY: the sizes are not zero; the block always has the layout `now`.
        unsafe {
            let mut block = HEAP.alloc(now);
            for size in sizes {
                block = HEAP.realloc(block, now, size);
                assert!(!block.is_null(), "memory can be had");
                now = layout(size, 8);
                assert_eq!(stats().allocated_bytes, block_size(now) as u64, "{size}");
            }
            HEAP.dealloc(block, now);
        }
        assert_eq!(stats().allocated_bytes, 0);
    });
}

#[test]
fn a_block_is_booked_in_one_class_and_one_arena() {
    alone(|| {
        let block = Filled::new(&HEAP, layout(100, 8)).expect("memory can be had");
        let during = stats();
        let booked = block_size(block.layout()) as u64;
        assert_eq!(
            during
                .classes()
                .iter()
                .filter(|c| c.allocated_bytes == booked)
                .count(),
            1
        );
        assert_eq!(
            during
                .classes()
                .iter()
                .filter(|c| c.allocated_bytes > 0)
                .count(),
            1
        );
        adds_up(&during);
    });
}

#[test]
fn resident_memory_is_what_the_kernel_says_it_is() {
    use allocator_tests::memory::Memory;
    alone(|| {
        bursar::purge();
        let (before, said_before) = (Memory::now().anonymous, stats().resident_bytes);
        let size = 64 << 20;
        let layout = Layout::from_size_align(size, 8).expect("a layout");
        let purged;
        // SAFETY: the size is not zero, the block is freed with its layout.
        unsafe {
            let block = HEAP.alloc(layout);
            assert!(!block.is_null(), "memory can be had");
            block.write_bytes(1, size);
            let (grown, said) = (
                Memory::now().anonymous - before,
                stats().resident_bytes - said_before,
            );
            assert!(
                grown.abs_diff(said) < 4 << 20,
                "the kernel: {grown}, bursar: {said}"
            );
            purged = stats().purged_bytes;
            HEAP.dealloc(block, layout);
        }
        // Some of it may have been given back before, by the decay.
        bursar::purge();
        let given = stats().purged_bytes - purged;
        assert!(given >= size as u64, "{given} bytes were given back");
        assert!(
            stats().dirty_bytes < 1 << 20,
            "nothing dirty is left: {}",
            stats().dirty_bytes
        );
    });
}

#[test]
fn snapshots_add_up_while_threads_work() {
    Scenario::new(env!("CARGO_BIN_EXE_child"), "snapshots").succeed();
}

#[test]
fn the_table_is_readable() {
    alone(|| {
        let block = Filled::new(&HEAP, layout(1000, 8)).expect("memory can be had");
        let table = stats().to_string();
        for word in [
            "reserved",
            "mapped",
            "committed",
            "resident",
            "allocated",
            "metadata",
            "purged",
        ] {
            assert!(table.contains(word), "{word} is missing:\n{table}");
        }
        assert!(
            table.lines().all(|line| line.chars().count() <= 100),
            "lines fit a terminal:\n{table}"
        );
        drop(block);
    });
}
