//! A web server's cache: entries of many sizes, put in by one thread, thrown
//! out by another.

use std::sync::Arc;

use moka::sync::Cache;

use super::parallel::parallel;
use crate::suite::Job;

const KEYS: u64 = 60_000;

pub fn run(job: &Job) -> u64 {
    let cache: Cache<String, Arc<Vec<u8>>> = Cache::builder()
        .max_capacity(8 << 20)
        .weigher(|key: &String, value: &Arc<Vec<u8>>| (key.len() + value.len()) as u32)
        .build();
    parallel(
        job.threads,
        job.portion(40),
        || (),
        |(), batch| {
            let mut random = fastrand::Rng::with_seed(batch as u64);
            (0..5000).map(|_| look_up(&cache, &mut random)).sum()
        },
    )
}

/// What is found depends on the other threads, but not what it is.
fn look_up(cache: &Cache<String, Arc<Vec<u8>>>, random: &mut fastrand::Rng) -> u64 {
    // Low keys are popular, as they are in caches.
    let key = (random.f64().powi(3) * KEYS as f64) as u64;
    let length = 64 + (key * 2_654_435_761 % 4096) as usize;
    let value = cache.get_with(format!("/article/{key}"), || {
        Arc::new(vec![key as u8; length])
    });
    value.len() as u64 + u64::from(value[length - 1])
}
