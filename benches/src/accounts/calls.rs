//! Many consumers on one thread, and what asking costs. Every row has a
//! process of its own: what consumers leave behind on a thread is no part of
//! the row without consumers.

use std::path::Path;

use super::direct::{Effort, Measured};
use super::figure::Figure;
use crate::interleave;
use crate::micro::consumers::names::*;
use crate::micro::consumers::{self, CALLS, REPLACEMENT};
use crate::micro::{self, Row};
use crate::remote;
use crate::statistics::Summary;

/// Measures replacement side by side, and calls one after the other; `full` is
/// [`super::child`] with the account layer.
///
/// # Errors
/// If a process cannot be started.
pub fn measure(full: &Path, effort: Effort) -> Result<Vec<Measured>, String> {
    let mut measured: Vec<Measured> = consumers::rows()
        .into_iter()
        .map(|row| Measured {
            group: row.group,
            name: row.name,
            samples: vec![Vec::new()],
        })
        .collect();
    for _ in 0..effort.launches {
        once(full, effort, &mut measured)?;
    }
    Ok(measured)
}

fn once(full: &Path, effort: Effort, measured: &mut [Measured]) -> Result<(), String> {
    // Rows of one name can stand side by side.
    let mut replacement = Vec::new();
    for (index, row) in measured.iter().enumerate() {
        if row.group == REPLACEMENT {
            replacement.push(vec![one(full, index)?.renamed("")]);
        }
    }
    for lane in interleave::side_by_side(replacement) {
        let samples = lane.measure_alike(effort.rounds, effort.target);
        let rows = measured.iter_mut().filter(|row| row.group == REPLACEMENT);
        for (row, samples) in rows.zip(samples) {
            row.extend(vec![samples]);
        }
    }
    for (index, row) in measured.iter_mut().enumerate() {
        if row.group == CALLS {
            for lane in interleave::side_by_side(vec![vec![one(full, index)?]]) {
                row.extend(lane.measure(effort.rounds, effort.target));
            }
        }
    }
    Ok(())
}

/// The row of that index, in a process of its own.
fn one(full: &Path, index: usize) -> Result<Row, String> {
    static BURSAR: bursar::Bursar = bursar::Bursar::new();
    let mut rows = micro::rows(&BURSAR);
    let first = rows.len();
    rows.extend(consumers::rows());
    let mut rows = remote::elsewhere(rows, full, &["rows"])?;
    Ok(rows.swap_remove(first + index))
}

/// The lines of the table.
///
/// # Panics
/// If a row is missing.
#[must_use]
pub fn figures(rows: &[Measured]) -> Vec<Figure> {
    let samples = |group: &str, name: &str| -> &[f64] {
        let row = rows
            .iter()
            .find(|row| row.group == group && row.name == name);
        &row.expect("every row was measured").samples[0]
    };
    let mut figures = Vec::new();
    for (name, bar) in [
        (ONE, None),
        (DOZENS, Some(1.15)),
        (MANY, Some(2.0)),
        (DOZENS_OWN, Some(1.15)),
        (MANY_OWN, Some(2.0)),
    ] {
        let ratio = Summary::of_ratios(samples(REPLACEMENT, name), samples(REPLACEMENT, NONE));
        let what = format!("random replacement in 10k slots: {name}, against no consumers");
        figures.push(Figure::ratio(what, ratio, bar));
    }
    let none = Summary::of(samples(REPLACEMENT, NONE).iter().copied());
    figures.push(Figure::new(
        "random replacement without consumers",
        none,
        "ns",
        None,
    ));
    for (name, unit, per, bar) in [
        (ENTER, "ns", 1.0, Some(5.0)),
        (ENTER_DOZENS, "ns", 1.0, None),
        (ENTER_MANY, "ns", 1.0, None),
        (USAGE, "µs", 1e3, Some(1.0)),
        (USAGE_THREADS, "µs", 1e3, Some(1.0)),
        (CONSUMERS, "ms", 1e6, Some(5.0)),
        (REPORT, "ms", 1e6, Some(5.0)),
        (TEXT, "ms", 1e6, Some(5.0)),
    ] {
        let value = Summary::of(samples(CALLS, name).iter().map(|ns| ns / per));
        figures.push(Figure::new(name, value, unit, bar));
    }
    figures
}
