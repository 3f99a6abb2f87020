//! The books with samples on them. A program of its own, and without the threads of a test harness:
//! `check()` wants all threads at rest.

use bursar::{Bursar, Consumer};

#[global_allocator]
static GLOBAL: Bursar = Bursar::new().sample_bytes(4 << 10);

fn main() {
    let consumer = Consumer::new("checked");
    let kept: Vec<Vec<u8>> = consumer.run(|| (1..300).map(|n| vec![0; n * 100]).collect());
    let samples = |sites: Vec<bursar::Site>| sites.iter().map(|site| site.samples).sum::<u64>();
    assert!(samples(consumer.sites()) > 0);
    bursar::check().unwrap_or_else(|broken| panic!("{broken}"));
    drop(kept);
    assert_eq!(samples(consumer.sites()), 0);
    bursar::check().unwrap_or_else(|broken| panic!("{broken}"));
}
