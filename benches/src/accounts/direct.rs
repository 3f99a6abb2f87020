//! The allocator called directly: with the account layer compiled out, with
//! it compiled in and not used, and with one consumer entered.

use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;
use serde::Serialize;

use super::figure::{Figure, overall};
use crate::interleave::{self, Lane};
use crate::micro::{self, GROUPS, Row};
use crate::statistics::Summary;
use crate::{remote, report};

/// The processes, in the order of the samples.
const CONTESTANTS: [&str; 4] = ["compiled out", "out, again", "compiled in", "entered"];
const OUT: usize = 0;
const AGAIN: usize = 1;
const IN: usize = 2;
const ENTERED: usize = 3;

/// A row and its samples, by contestant and round.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// Its group.
    pub group: &'static str,
    /// Its name.
    pub name: String,
    /// Nanoseconds an operation.
    pub samples: Vec<Vec<f64>>,
}

impl Measured {
    /// Adds the samples of another launch.
    pub(super) fn extend(&mut self, samples: Vec<Vec<f64>>) {
        for (all, more) in self.samples.iter_mut().zip(samples) {
            all.extend(more);
        }
    }
}

/// The rows of all contestants side by side, in processes of their own.
fn lanes(bare: &Path, full: &Path) -> Result<Vec<Lane>, String> {
    static BURSAR: bursar::Bursar = bursar::Bursar::new();
    let column = |binary: &Path, arguments: &[&str]| -> Result<Vec<Row>, String> {
        remote::elsewhere(micro::rows(&BURSAR), binary, arguments)
    };
    Ok(interleave::side_by_side(vec![
        column(bare, &["rows"])?,
        column(bare, &["rows"])?,
        column(full, &["rows"])?,
        column(full, &["rows", "entered"])?,
    ]))
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How often the processes are started afresh: where a process has its
    /// memory and its code makes a difference that lasts as long as it does.
    pub launches: usize,
    /// Samples to a launch.
    pub rounds: usize,
    /// Length of a sample.
    pub target: Duration,
}

/// Measures the rows whose path contains `filter`; `bare` and `full` are
/// [`super::child`] without and with the account layer.
///
/// # Errors
/// If a process cannot be started.
pub fn measure(
    bare: &Path,
    full: &Path,
    filter: &str,
    effort: Effort,
) -> Result<Vec<Measured>, String> {
    let mut measured = Vec::new();
    for _ in 0..effort.launches {
        let lanes = lanes(bare, full)?;
        let wanted = lanes.iter().filter(|lane| lane.path().contains(filter));
        append(&mut measured, wanted, effort);
    }
    Ok(measured)
}

/// Adds samples of the lanes to those of earlier launches, which had the same.
fn append<'a>(measured: &mut Vec<Measured>, lanes: impl Iterator<Item = &'a Lane>, effort: Effort) {
    let lanes: Vec<&Lane> = lanes.collect();
    let progress = ProgressBar::new(lanes.len() as u64);
    for (index, lane) in lanes.into_iter().enumerate() {
        let samples = lane.measure_alike(effort.rounds, effort.target);
        match measured.get_mut(index) {
            Some(row) => row.extend(samples),
            None => measured.push(Measured {
                group: lane.group,
                name: lane.name.clone(),
                samples,
            }),
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
}

/// The lines of the table.
#[must_use]
pub fn figures(rows: &[Measured]) -> Vec<Figure> {
    // Rows that start threads of their own leave the consumer behind.
    let entered = |row: &&Measured| !micro::STARTS_THREADS.contains(&row.group);
    let mut figures = Vec::new();
    let mut add = |what: &str, bar, rows: Vec<&Measured>, of: usize, to: usize| {
        if rows.is_empty() {
            return;
        }
        let pairs: Vec<(&[f64], &[f64])> = rows
            .iter()
            .map(|row| (&row.samples[of][..], &row.samples[to][..]))
            .collect();
        figures.push(Figure::ratio(what, overall(&pairs), bar));
    };
    let all = || rows.iter();
    let pairs = |row: &&Measured| row.group.starts_with("pair");
    add(
        "direct calls, account layer compiled in and not used, against compiled out",
        Some(1.15),
        all().collect(),
        IN,
        OUT,
    );
    add(
        "of these, pairs of one block taken and given back",
        Some(1.15),
        all().filter(pairs).collect(),
        IN,
        OUT,
    );
    add(
        "compiled out against itself: the noise",
        None,
        all().collect(),
        AGAIN,
        OUT,
    );
    add(
        "direct calls, one consumer entered, against none",
        None,
        all().filter(entered).collect(),
        ENTERED,
        IN,
    );
    figures
}

/// The rows as a table: nanoseconds, and the ratios of the figures.
#[must_use]
pub fn markdown(rows: &[Measured]) -> String {
    let mut header = vec!["row".to_owned()];
    header.extend(CONTESTANTS.map(str::to_owned));
    header.extend(["noise", "in / out", "entered / in"].map(str::to_owned));
    let mut lines = Vec::new();
    for group in GROUPS {
        for row in rows.iter().filter(|row| row.group == group) {
            let mut cells = vec![format!("{group}: {}", row.name)];
            cells.extend(
                row.samples.iter().map(|samples| {
                    report::nanoseconds(Summary::of(samples.iter().copied()).median)
                }),
            );
            for (of, to) in [(AGAIN, OUT), (IN, OUT), (ENTERED, IN)] {
                let ratio = Summary::of_ratios(&row.samples[of], &row.samples[to]);
                cells.push(report::ratio(ratio));
            }
            lines.push(cells);
        }
    }
    report::markdown(header, lines)
}
