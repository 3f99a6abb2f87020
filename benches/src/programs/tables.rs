//! What the runs showed, as tables of ratios.

use serde::Serialize;

use super::Program;
use super::process::Run;
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
        let empty = || vec![Vec::new(); allocators];
        Self {
            program: program.name,
            threads,
            works: program.works(),
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
    pub fn add(&mut self, allocator: usize, run: &Run) {
        self.wall_ms[allocator].push(run.wall.as_secs_f64() * 1e3);
        self.cpu_ms[allocator].push(run.cpu.as_secs_f64() * 1e3);
        self.peak_mib[allocator].push(run.outcome.peak_kib as f64 / 1024.0);
    }
}

type Samples = fn(&Row) -> &[Vec<f64>];

const QUANTITIES: [(&str, &str, Samples); 3] = [
    ("Wall time", "ms", |row| &row.wall_ms),
    ("Processor time", "ms", |row| &row.cpu_ms),
    ("Peak resident", "MiB", |row| &row.peak_mib),
];

/// Three tables: wall time, processor time, peak resident. Each shows the
/// first allocator's median and its ratio to each of the others; below 1 the
/// first is better.
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
    let own = Summary::of(samples[0].iter().copied()).median;
    let mut cells = vec![
        row.program.to_owned(),
        row.threads.to_string(),
        report::significant(own),
    ];
    cells.extend(
        samples[1..]
            .iter()
            .map(|peer| report::ratio(Summary::of_ratios(&samples[0], peer))),
    );
    cells
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
    for peer in 1..samples(rows.first()?).len() {
        let ratios = rows.iter().map(|row| {
            let samples = samples(row);
            Summary::of_ratios(&samples[0], &samples[peer]).median
        });
        cells.push(format!("**{:.2}**", geometric_mean(ratios)?));
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
}
