//! Whole programs: bursar with its account layer compiled out, compiled in,
//! and with a consumer entered, beside the published wrappers.

use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};

use super::figure::{Figure, overall};
use crate::programs::build::{self, Content, Lto};
use crate::programs::tables::Row;
use crate::programs::{PROGRAMS, corpus, process};
use crate::report;
use crate::statistics::Summary;

/// A binary, and whether its work is booked to somebody.
#[derive(Clone, Copy, Debug)]
pub struct Contestant {
    /// The name in tables.
    pub name: &'static str,
    binary: &'static str,
    attributed: bool,
}

const fn contestant(name: &'static str, binary: &'static str, attributed: bool) -> Contestant {
    Contestant {
        name,
        binary,
        attributed,
    }
}

/// All, in the order of the samples.
pub const CONTESTANTS: [Contestant; 11] = [
    contestant("bursar, layer out", "bare", false),
    contestant("layer out, again", "bare", false),
    contestant("bursar", "bursar", false),
    contestant("bursar, entered", "bursar", true),
    contestant("system", "system", false),
    contestant("tracking-allocator", "tracking", true),
    contestant("stats_alloc", "stats_alloc", true),
    contestant("cap", "cap", true),
    contestant("tracking-allocator over bursar", "tracking_bursar", true),
    contestant("stats_alloc over bursar", "stats_alloc_bursar", true),
    contestant("cap over bursar", "cap_bursar", true),
];
const OUT: usize = 0;
const AGAIN: usize = 1;
const IN: usize = 2;
const ENTERED: usize = 3;
/// From here on they stand beside.
pub const OTHERS: usize = 4;

/// Builds the binaries of `wanted` contestants; one for each.
///
/// # Errors
/// If cargo fails.
pub fn build(
    wanted: &[Contestant],
    content: Content,
    lto: Lto,
    reports: &Path,
) -> Result<Vec<PathBuf>, String> {
    let mut names: Vec<&str> = wanted.iter().map(|one| one.binary).collect();
    names.sort_unstable();
    names.dedup();
    let built = build::build(&names, content, lto, &reports.join("binaries"))?;
    let place = |one: &Contestant| names.iter().position(|name| *name == one.binary);
    let binary = |one| built[place(one).expect("its name is among them")].clone();
    Ok(wanted.iter().map(binary).collect())
}

/// How the programs are run.
#[derive(Debug)]
pub struct Setup {
    /// Who runs, in the order of the samples.
    pub wanted: Vec<Contestant>,
    /// Only rows whose "program/threads" contains this.
    pub filter: String,
    /// Runs of each row by each contestant.
    pub rounds: usize,
    /// Divides the work.
    pub divisor: usize,
    /// Link-time optimisation.
    pub lto: Lto,
}

/// Builds and runs the programs that do work, the contestants in turn.
///
/// # Errors
/// If something cannot be built or run, or a contestant computes another
/// result than the rest.
pub fn measure(setup: &Setup, reports: &Path) -> Result<Vec<Row>, String> {
    let binaries = build(&setup.wanted, Content::Work, setup.lto, reports)?;
    let inputs = reports.join("corpus");
    corpus::gather(&inputs).map_err(|error| format!("inputs: {error}"))?;
    let mut rows: Vec<Row> = PROGRAMS
        .iter()
        .filter(|program| program.works())
        .flat_map(|program| program.threads.iter().map(move |&count| (program, count)))
        .map(|(program, threads)| Row::new(program, threads, binaries.len()))
        .filter(|row| row.path().contains(&setup.filter))
        .collect();
    let progress = ProgressBar::new((rows.len() * setup.rounds * binaries.len()) as u64);
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {elapsed} {msg}")
        .expect("a valid template");
    progress.set_style(style);
    for row in &mut rows {
        progress.set_message(row.path());
        measure_row(setup, &binaries, &inputs, row, &progress)?;
    }
    progress.finish_and_clear();
    Ok(rows)
}

fn measure_row(
    setup: &Setup,
    binaries: &[PathBuf],
    inputs: &Path,
    row: &mut Row,
    progress: &ProgressBar,
) -> Result<(), String> {
    let mut checksum = None;
    for round in 0..setup.rounds {
        for turn in 0..binaries.len() {
            let index = (round + turn) % binaries.len();
            let attributed = setup.wanted[index].attributed;
            let (binary, threads, divisor) = (&binaries[index], row.threads, setup.divisor);
            let run = process::run(binary, row.program, threads, divisor, inputs, attributed)
                .map_err(|error| error.to_string())?;
            if *checksum.get_or_insert(run.outcome.checksum) != run.outcome.checksum {
                let (binary, row) = (binary.display(), row.path());
                return Err(format!("{binary} computed another {row} than the rest"));
            }
            row.add(index, run.wall, run.cpu, run.outcome.peak_kib);
            progress.inc(1);
        }
    }
    Ok(())
}

type Samples = fn(&Row) -> &[Vec<f64>];
const QUANTITIES: [(&str, Samples); 2] = [("CPU", |row| &row.cpu_ms), ("wall", |row| &row.wall_ms)];

fn figure(rows: &[Row], what: &str, bar: Option<f64>, of: usize, to: usize) -> Vec<Figure> {
    let one = |(quantity, samples): (&str, Samples)| {
        let pairs: Vec<(&[f64], &[f64])> = rows
            .iter()
            .map(|row| (&samples(row)[of][..], &samples(row)[to][..]))
            .collect();
        Figure::ratio(format!("{what}: {quantity}"), overall(&pairs), bar)
    };
    QUANTITIES.map(one).into()
}

/// The lines of the table; none without rows.
#[must_use]
pub fn figures(wanted: &[Contestant], rows: &[Row]) -> Vec<Figure> {
    if rows.is_empty() {
        return Vec::new();
    }
    let mut figures = figure(
        rows,
        "whole programs, account layer compiled in and not used, against compiled out",
        Some(1.02),
        IN,
        OUT,
    );
    figures.extend(figure(
        rows,
        "compiled out against itself: the noise",
        None,
        AGAIN,
        OUT,
    ));
    let entered = "whole programs, one consumer entered, against none";
    figures.extend(figure(rows, entered, None, ENTERED, IN));
    for (index, other) in wanted.iter().enumerate().skip(OTHERS) {
        // Who counts has to be outrun, who does not stands beside.
        let bar = other.attributed.then_some(1.0);
        let what = format!("bursar with a consumer entered, against {}", other.name);
        figures.extend(figure(rows, &what, bar, ENTERED, index));
    }
    figures
}

/// The programs as a table of CPU ratios, bursar with a consumer entered to
/// each of the others.
#[must_use]
pub fn markdown(wanted: &[Contestant], rows: &[Row]) -> String {
    let mut header = vec![
        "program, threads".to_owned(),
        "bursar, entered, CPU ms".to_owned(),
    ];
    let others = || (0..wanted.len()).filter(|index| *index != ENTERED);
    header.extend(others().map(|index| format!("to {}", wanted[index].name)));
    let lines = rows.iter().map(|row| {
        let own = &row.cpu_ms[ENTERED];
        let mut cells = vec![
            format!("{}, {}", row.program, row.threads),
            report::significant(Summary::of(own.iter().copied()).median),
        ];
        cells.extend(others().map(|index| {
            let ratio = Summary::of_ratios(own, &row.cpu_ms[index]);
            format!("{:.2}", ratio.median)
        }));
        cells
    });
    report::markdown(header, lines.collect())
}

impl Contestant {
    /// Whether it can say what a part of a program holds.
    #[must_use]
    pub fn keeps_books(&self) -> bool {
        self.attributed
    }
}

#[cfg(test)]
mod tests {
    use super::{AGAIN, CONTESTANTS, ENTERED, IN, OTHERS, OUT};

    #[test]
    fn the_figures_are_of_the_contestants_that_they_name() {
        let of = |index: usize| (CONTESTANTS[index].binary, CONTESTANTS[index].attributed);
        let first = [OUT, AGAIN, IN, ENTERED].map(of);
        let bursar = ("bursar", false);
        assert_eq!(
            first,
            [("bare", false), ("bare", false), bursar, ("bursar", true)]
        );
        for other in &CONTESTANTS[OTHERS..] {
            assert_ne!(other.binary, "bursar");
        }
    }
}
