//! One memory manager a task: a stage on the task's own threads, a writer thread that works for the
//! same task, and a conversion outside of any.
//!
//! `cargo run --release --example tasks`

use bursar::{Budget, Bursar, Greedy, MemoryManager, running_tasks};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;

#[global_allocator]
static GLOBAL: Bursar = Bursar::new();

const ROWS: u64 = 200_000;

/// Counts words by length: a stage that the task's own threads compute.
fn stage(task: &MemoryManager) -> BTreeMap<usize, u64> {
    let (words, counts) = (task.consumer("words"), task.consumer("counts"));
    let parts: Vec<_> = thread::scope(|threads| {
        let part = |number: u64| {
            let words = &words;
            threads.spawn(move || {
                let text: Vec<String> = words.run(|| {
                    (0..ROWS / 4)
                        .map(|row| "x".repeat((row * number % 40) as usize))
                        .collect()
                });
                text.iter().map(String::len).collect::<Vec<_>>()
            })
        };
        let threads: Vec<_> = (1..=4).map(part).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("it counts"))
            .collect()
    });
    counts.run(|| {
        let mut counts = BTreeMap::new();
        for length in parts.into_iter().flatten() {
            *counts.entry(length).or_insert(0) += 1;
        }
        counts
    })
}

/// Hands the rows to a writer thread that lives longer than this call: it has a handle.
fn write(task: &MemoryManager, counts: &BTreeMap<usize, u64>) -> thread::JoinHandle<usize> {
    let (rows, written) = sync_channel::<String>(16);
    let handle = task.handle();
    let writer = thread::spawn(move || {
        let buffers = handle.consumer("writer").expect("the task runs");
        let mut pages = Vec::new();
        for row in written {
            let page = buffers.with(|buffers| buffers.run(|| row.into_bytes().repeat(100)));
            pages.push(page.expect("the task runs"));
        }
        pages.iter().map(Vec::len).sum()
    });
    for (length, count) in counts {
        rows.send(format!("{length}\t{count}\n"))
            .expect("the writer listens");
    }
    writer
}

fn main() {
    let memory: Arc<dyn Budget> = Arc::new(Greedy::new(256 << 20));
    let task = MemoryManager::builder("word lengths")
        .budget(&memory)
        .limit(64 << 20)
        .begin();
    let declared = task.reservation("sort buffers");
    declared.try_grow(8 << 20).expect("there is room");

    let counts = stage(&task);
    let writer = write(&task, &counts);
    println!("{}", running_tasks());
    println!(
        "the writer wrote {} bytes",
        writer.join().expect("it writes")
    );

    let (bytes, ended) = MemoryManager::run("conversion", |conversion| {
        let columns = conversion.consumer("columns");
        columns.run(|| (0..ROWS).collect::<Vec<u64>>().len() * 8)
    });
    println!(
        "converted {bytes} bytes; {}",
        ended.expect("nothing to release")
    );

    // `counts` is still alive when its task ends: the report says so, and nothing else happens.
    drop(declared);
    println!("{}", task.end().expect("nothing to release"));
    drop(counts);
}
