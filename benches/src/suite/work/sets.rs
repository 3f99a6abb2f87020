//! An analytics engine: compressed sets of row numbers.

use roaring::RoaringBitmap;

use super::parallel::parallel;
use crate::suite::Job;

pub fn run(job: &Job) -> u64 {
    parallel(job.threads, job.portion(20), Vec::new, |stored, index| {
        let sets: Vec<RoaringBitmap> = (0..12).map(|part| set(index as u64 * 100 + part)).collect();
        let mut any = RoaringBitmap::new();
        let mut pairs = 0;
        for (at, set) in sets.iter().enumerate() {
            any |= set;
            pairs += sets[at + 1..]
                .iter()
                .map(|other| (set & other).len())
                .sum::<u64>();
        }
        let mut bytes = Vec::new();
        any.serialize_into(&mut bytes).expect("a vector takes all");
        stored.push(bytes);
        any.len() + pairs
    })
}

/// Rows in clusters, some of them dense.
fn set(seed: u64) -> RoaringBitmap {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut set = RoaringBitmap::new();
    for _ in 0..150 {
        let start = random.u32(..20_000_000);
        if random.bool() {
            set.insert_range(start..start + random.u32(1..3000));
        } else {
            set.extend((0..random.u32(1..200)).map(|_| start + random.u32(..60_000)));
        }
    }
    set
}
