//! With lists: each stage is a function that returns the results of all partitions.

use bursar::{Consumer, transfer_all};

use super::Cause;
use super::work::{Rows, SENSORS, Sum, Sums, correct, generate, parse, sum_up};

/// Computes stage by stage. `seen` is told of each partition that has come through.
pub fn run(
    [generating, parsing, correcting, summing]: &[Consumer; 4],
    partitions: u64,
    seen: &mut dyn FnMut(),
) -> Result<Sums, Cause> {
    let texts: Vec<Vec<u8>> =
        generating.try_run(|| (0..partitions).map(generate).collect::<Result<_, _>>())?;
    let rows: Vec<Rows> = parsing.try_run(|| {
        // A text is freed as soon as it has been parsed.
        let parsed = texts.into_iter().map(|text| parse(&text));
        parsed.collect::<Result<_, _>>()
    })?;
    let corrected: Vec<Rows> = correcting.try_run(|| {
        let corrected = rows.into_iter().map(|rows| correct(&rows));
        corrected.collect::<Result<_, _>>()
    })?;
    let mut sums = [Sum::default(); SENSORS];
    for mut rows in corrected {
        transfer_all(&mut rows, summing)?;
        sum_up(&mut sums, &rows);
        seen();
    }
    Ok(sums)
}
