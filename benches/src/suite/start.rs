//! What an allocator costs a program that hardly uses it.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;

use super::Job;

/// Nothing at all.
pub fn empty(_: &Job) -> u64 {
    0
}

/// Threads that all allocate a little, then wait for one another.
pub fn idle(job: &Job) -> u64 {
    let all_here = Barrier::new(job.threads);
    thread::scope(|scope| {
        for _ in 0..job.threads {
            scope.spawn(|| {
                let blocks: Vec<Vec<u8>> = (1..=20).map(|step| vec![1; 24 * step]).collect();
                all_here.wait();
                black_box(&blocks);
            });
        }
    });
    job.threads as u64
}
