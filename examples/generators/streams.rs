//! With streams: results flow one at a time.

use bursar::Consumer;
use bursar::stream::{Bounds, Receiver, try_pull};

use super::work::{PARTITION, Rows, SENSORS, Sum, Sums, correct, generate, parse, sum_up};
use super::{Cause, STAGES};

/// Between any two stages.
const BOUNDS: Bounds = Bounds {
    items: 4,
    bytes: 4 * PARTITION as u64,
};

/// What all queues may hold, and one item a stage.
pub fn most_bytes() -> u64 {
    let queues = STAGES.len() as u64 - 1;
    queues * BOUNDS.bytes + STAGES.len() as u64 * PARTITION as u64
}

/// Each stage computes when the next one asks, on the caller's thread.
pub fn on_one_thread(
    stages: &[Consumer; 4],
    partitions: u64,
    seen: &mut dyn FnMut(),
) -> Result<Sums, Cause> {
    add_up(chain(stages, partitions, None), &stages[3], seen)
}

/// Each stage runs ahead of the next one on a thread of its own, as far as the bounds allow.
pub fn on_threads(
    stages: &[Consumer; 4],
    partitions: u64,
    seen: &mut dyn FnMut(),
) -> Result<Sums, Cause> {
    add_up(chain(stages, partitions, Some(BOUNDS)), &stages[3], seen)
}

/// All stages but the last.
fn chain(stages: &[Consumer; 4], partitions: u64, ahead: Option<Bounds>) -> Receiver<Rows> {
    let [generating, parsing, correcting, _] = stages.clone();
    let texts = {
        let own = generating.clone();
        try_pull(
            &generating,
            (0..partitions).map(move |n| own.try_run(|| generate(n))),
        )
    };
    let texts = run_ahead(texts, ahead).transferring_to(&parsing);
    let rows = {
        let own = parsing.clone();
        texts.try_map(&parsing, move |text| own.try_run(|| parse(&text)))
    };
    let rows = run_ahead(rows, ahead).transferring_to(&correcting);
    let corrected = {
        let own = correcting.clone();
        rows.try_map(&correcting, move |rows| own.try_run(|| correct(&rows)))
    };
    run_ahead(corrected, ahead)
}

fn run_ahead<T: Send + 'static>(stage: Receiver<T>, bounds: Option<Bounds>) -> Receiver<T> {
    match bounds {
        Some(bounds) => stage.ahead(bounds),
        None => stage,
    }
}

/// The last stage.
fn add_up(
    corrected: Receiver<Rows>,
    summing: &Consumer,
    seen: &mut dyn FnMut(),
) -> Result<Sums, Cause> {
    let mut sums = [Sum::default(); SENSORS];
    for rows in corrected.transferring_to(summing) {
        let rows = rows?;
        sum_up(&mut sums, &rows);
        seen();
    }
    Ok(sums)
}
