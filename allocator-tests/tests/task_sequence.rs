//! Task after task, in a process of its own: what is left of them is nothing.

use allocator_tests::scenarios::scaled;
use bursar::{Bursar, MemoryManager};

#[global_allocator]
static GLOBAL: Bursar = Bursar::new();

#[test]
fn ten_thousand_tasks_leave_nothing() {
    let run = |tasks: u64| {
        for number in 0..tasks {
            let task = MemoryManager::begin("short");
            let rows = task.consumer("rows");
            let bytes = task.reservation("bytes");
            bytes.grow(10);
            let _kept = task.register(|| Ok(()), number as i32 % 3).unwrap();
            drop(rows.run(|| std::hint::black_box(Box::new([7_u8; 500]))));
            drop((rows, bytes));
            assert!(task.end().unwrap().is_clean());
        }
    };
    run(scaled(2_000, 1));
    let before = bursar::stats().allocated_bytes;
    run(scaled(10_000, 1));
    let after = bursar::stats().allocated_bytes;
    assert!(
        after < before + (256 << 10),
        "from {before} to {after} bytes"
    );
}
