//! What the runs showed, as tables of ratios.

use std::time::Duration;

use serde::Serialize;

use super::Program;
use crate::report;
use crate::statistics::{Summary, geometric_mean};

/// One program with one number of threads, on all allocators.
#[derive(Serialize)]
pub struct Row {
    /// The program's name.
    pub program: &'static str,
    /// Its threads.
    pub threads: usize,
    /// Whether it counts in the means.
    pub works: bool,
    /// For each allocator one sample a round.
    pub wall_ms: Vec<Vec<f64>>,
    /// For each allocator one sample a round.
    pub cpu_ms: Vec<Vec<f64>>,
    /// For each allocator one sample a round.
    pub peak_mib: Vec<Vec<f64>>,
}

impl Row {
    /// A row without samples.
    #[must_use]
    pub fn new(program: &Program, threads: usize, allocators: usize) -> Self {
        Self {
            works: program.works(),
            ..Self::named(program.name, threads, allocators)
        }
    }

    /// A row of a program of that name, which does work.
    #[must_use]
    pub fn named(program: &'static str, threads: usize, allocators: usize) -> Self {
        let empty = || vec![Vec::new(); allocators];
        Self {
            program,
            threads,
            works: true,
            wall_ms: empty(),
            cpu_ms: empty(),
            peak_mib: empty(),
        }
    }

    /// Program and threads, by which rows are filtered.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}", self.program, self.threads)
    }

    /// Adds a sample of an allocator.
    pub fn add(&mut self, allocator: usize, wall: Duration, cpu: Duration, peak_kib: u64) {
        self.wall_ms[allocator].push(wall.as_secs_f64() * 1e3);
        self.cpu_ms[allocator].push(cpu.as_secs_f64() * 1e3);
        self.peak_mib[allocator].push(peak_kib as f64 / 1024.0);
    }

    /// Leaves an allocator out, on which the program failed.
    pub fn leave_out(&mut self, allocator: usize) {
        for samples in [&mut self.wall_ms, &mut self.cpu_ms, &mut self.peak_mib] {
            samples[allocator].clear();
        }
    }
}

type Samples = fn(&Row) -> &[Vec<f64>];

const QUANTITIES: [(&str, &str, Samples); 3] = [
    ("Wall time", "ms", |row| &row.wall_ms),
    ("Processor time", "ms", |row| &row.cpu_ms),
    ("Peak resident", "MiB", |row| &row.peak_mib),
];

/// Three tables: wall time, processor time, peak resident. Each shows the
/// first allocator's median and its ratio to the best of the others and to
/// each of them; below 1 the first is better.
#[must_use]
pub fn markdown(allocators: &[&str], rows: &[Row]) -> String {
    let tables = QUANTITIES.map(|(title, unit, samples)| {
        format!(
            "### {title}\n\n{}\n",
            table(allocators, rows, unit, samples)
        )
    });
    tables.join("\n")
}

fn table(allocators: &[&str], rows: &[Row], unit: &str, samples: Samples) -> String {
    let mut header = vec![
        "program".to_owned(),
        "threads".to_owned(),
        format!("{}, {unit}", allocators[0]),
        "to the best".to_owned(),
    ];
    header.extend(allocators[1..].iter().map(|name| format!("to {name}")));
    let mut lines: Vec<Vec<String>> = rows.iter().map(|row| line(row, samples(row))).collect();
    let mut threads: Vec<usize> = rows.iter().filter(|r| r.works).map(|r| r.threads).collect();
    threads.sort_unstable();
    threads.dedup();
    for count in threads {
        lines.extend(mean(&count.to_string(), rows, samples, |row| {
            row.threads == count
        }));
    }
    lines.extend(mean("all", rows, samples, |_| true));
    report::markdown(header, lines)
}

fn line(row: &Row, samples: &[Vec<f64>]) -> Vec<String> {
    let cell = |ratio: Option<Summary>| ratio.map_or("failed".to_owned(), report::ratio);
    let mut cells = vec![
        row.program.to_owned(),
        row.threads.to_string(),
        report::significant(median(&samples[0])),
        best(samples).map_or(String::new(), |best| cell(ratio(samples, best))),
    ];
    cells.extend((1..samples.len()).map(|peer| cell(ratio(samples, peer))));
    cells
}

fn median(samples: &[f64]) -> f64 {
    Summary::of(samples.iter().copied()).median
}

/// The first allocator's ratio to a peer; none if the peer failed.
fn ratio(samples: &[Vec<f64>], peer: usize) -> Option<Summary> {
    let peer = &samples[peer];
    (!peer.is_empty()).then(|| Summary::of_ratios(&samples[0], peer))
}

/// The peer with the lowest median.
fn best(samples: &[Vec<f64>]) -> Option<usize> {
    (1..samples.len())
        .filter(|&peer| !samples[peer].is_empty())
        .min_by(|&a, &b| median(&samples[a]).total_cmp(&median(&samples[b])))
}

/// The geometric means over the rows that do work and satisfy `wanted`.
fn mean(
    threads: &str,
    rows: &[Row],
    samples: Samples,
    wanted: impl Fn(&Row) -> bool,
) -> Option<Vec<String>> {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.works && wanted(row)).collect();
    let mut cells = vec![
        "**geometric mean**".to_owned(),
        threads.to_owned(),
        String::new(),
    ];
    let mut means = |pick: &dyn Fn(&[Vec<f64>]) -> Option<usize>| {
        let ratios = rows.iter().filter_map(|row| {
            let samples = samples(row);
            ratio(samples, pick(samples)?).map(|ratio| ratio.median)
        });
        cells.push(geometric_mean(ratios).map_or(String::new(), |mean| format!("**{mean:.2}**")));
    };
    means(&best);
    for peer in 1..samples(rows.first()?).len() {
        means(&|_| Some(peer));
    }
    Some(cells)
}

#[cfg(test)]
mod tests {
    use super::{Row, markdown};
    use crate::programs::PROGRAMS;

    fn row(index: usize, threads: usize, own: f64, peer: f64) -> Row {
        let mut row = Row::new(&PROGRAMS[index], threads, 2);
        for samples in [&mut row.wall_ms, &mut row.cpu_ms, &mut row.peak_mib] {
            *samples = vec![vec![own; 3], vec![peer; 3]];
        }
        row
    }

    #[test]
    fn means_are_of_the_programs_that_work() {
        let idle = PROGRAMS.len() - 1;
        let rows = [
            row(0, 1, 1.0, 2.0),
            row(1, 1, 1.0, 8.0),
            row(idle, 64, 900.0, 1.0),
        ];
        let text = markdown(&["bursar", "system"], &rows);
        let means: Vec<&str> = text.lines().filter(|line| line.contains("mean")).collect();
        assert_eq!(means.len(), 6, "{text}");
        assert!(means.iter().all(|line| line.contains("**0.25**")), "{text}");
        assert!(text.contains("900.00 ±0 %"), "{text}");
    }

    #[test]
    fn the_best_is_of_each_row_and_who_failed_is_left_out() {
        let mut rows = [3.0, 1.0].map(|own| {
            let mut row = Row::named("sort", 1, 3);
            for samples in [&mut row.wall_ms, &mut row.cpu_ms, &mut row.peak_mib] {
                *samples = vec![vec![own; 3], vec![2.0; 3], vec![4.0; 3]];
            }
            row
        });
        let first = |rows: &[Row]| {
            let text = markdown(&["bursar", "a", "b"], rows);
            let line = text.lines().find(|line| line.contains("mean"));
            line.unwrap_or_default().replace([' ', '*'], "")
        };
        // To the best: the root of 3/2 * 1/2.
        assert_eq!(first(&rows), "|geometricmean|1||0.87|0.87|0.43|");
        rows[0].leave_out(1);
        assert_eq!(first(&rows), "|geometricmean|1||0.61|0.50|0.43|");
        let text = markdown(&["bursar", "a", "b"], &rows);
        assert!(text.contains("failed"), "{text}");
    }
}
