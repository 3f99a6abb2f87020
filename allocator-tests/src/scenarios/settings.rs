//! What settings do to a program.

use std::hint::black_box;

use bursar::BackgroundError;

use super::{Arguments, Host, Run};
use crate::blocks::layout;
use crate::pattern::verify_zero;
use crate::process::{Fate, in_child};

pub(super) const ALL: &[(&str, Run)] = &[
    ("use", make_use),
    ("junk", junk),
    ("background", background),
    ("reserved", reserved),
    ("start_background", start_background),
];

/// Allocates a little, says whether bursar is installed, and ends.
fn make_use(_: &Host, _: &Arguments) {
    let names: Vec<String> = (0..1_000).map(|i| i.to_string()).collect();
    println!(
        "{} names, installed: {}",
        black_box(&names).len(),
        bursar::is_installed()
    );
}

/// Says whether a fresh block, and a freed one that comes again, hold what
/// was written to the freed one; zeroed blocks are zero regardless.
fn junk(host: &Host, _: &Arguments) {
    let mut stale = 0;
    let mut again = 0;
    for size in [16, 100, 1_000, 10_000, 60_000, 200_000] {
        let layout = layout(size, 8);
        // SAFETY: the size is not zero, each block is used within its size and
        // freed once; `first` is only compared after it was freed.
        unsafe {
            let first = host.heap.alloc(layout);
            assert!(!first.is_null(), "memory can be had");
            first.write_bytes(0x5c, size);
            host.heap.dealloc(first, layout);
            let second = host.heap.alloc(layout);
            again += usize::from(first == second);
            // The first words of a freed block may hold the allocator's links.
            let bytes = std::slice::from_raw_parts(second.add(size / 2), size / 2);
            stale += usize::from(first == second && bytes.contains(&0x5c));
            host.heap.dealloc(second, layout);
            let zeroed = host.heap.alloc_zeroed(layout);
            verify_zero(zeroed, size).unwrap_or_else(|found| panic!("{size} bytes {found}"));
            host.heap.dealloc(zeroed, layout);
        }
    }
    println!("{again} came again, {stale} of them stale");
}

/// Says how many threads the program has after it has allocated.
fn background(_: &Host, _: &Arguments) {
    let names: Vec<String> = (0..1_000).map(|i| i.to_string()).collect();
    println!("{} names, {} threads", black_box(&names).len(), tasks());
}

fn tasks() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task");
    tasks.expect("/proc is mounted").count()
}

/// A program starts the purging thread itself, once; a forked child has none
/// until it starts its own.
fn start_background(_: &Host, _: &Arguments) {
    let start_one = || {
        assert_eq!(tasks(), 1, "before it is started");
        bursar::start_background().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(tasks(), 2, "after it was started");
        let again = bursar::start_background();
        assert!(matches!(again, Err(BackgroundError::Running)), "{again:?}");
        assert_eq!(tasks(), 2, "after it was started again");
    };
    start_one();
    for _ in 0..3 {
        assert_eq!(in_child(start_one), Fate::Fine);
    }
}

/// Says how much address space bursar has reserved.
fn reserved(_: &Host, _: &Arguments) {
    let names: Vec<String> = (0..1_000).map(|i| i.to_string()).collect();
    println!(
        "{} names, {} bytes",
        black_box(&names).len(),
        bursar::stats().reserved_bytes
    );
}
