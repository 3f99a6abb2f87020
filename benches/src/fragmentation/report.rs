//! The figures as tables and as JSON.

use super::figures::{Figures, Records};
use super::plan::{Phase, Work};
use super::record::Sample;
use super::run::Outcome;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use std::fmt::Write;

/// One allocator's run.
#[derive(Serialize)]
pub struct RunResult {
    /// The allocator.
    pub name: String,
    /// Its version.
    pub version: String,
    /// How the run came to its end.
    pub outcome: Outcome,
    /// Nothing if it did not begin.
    pub figures: Option<Figures>,
    /// What the figures come from.
    #[serde(skip)]
    pub records: Records,
}

/// All of them, as they go into the JSON file.
#[derive(Serialize)]
struct Document<'a> {
    work: &'a Work,
    results: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    result: &'a RunResult,
    samples: &'a [Sample],
}

/// All figures and samples.
///
/// # Errors
/// If a figure is not a number, which the statistics exclude.
pub fn json(work: &Work, results: &[RunResult]) -> serde_json::Result<String> {
    let results = results.iter().map(|result| Entry {
        result,
        samples: &result.records.samples,
    });
    serde_json::to_string(&Document {
        work,
        results: results.collect(),
    })
}

/// Whether all runs that came to their end asked for the same: the same bytes
/// were alive at the end of each phase, after the same number of operations.
pub fn did_the_same_work(results: &[RunResult]) -> bool {
    let finished = results.iter().filter(|r| r.outcome == Outcome::Finished);
    let phases = finished.filter_map(|result| Some(&result.figures.as_ref()?.phases));
    let work = phases.map(|phases| phases.iter().map(|p| (p.operations, p.live_bytes)));
    let mut work = work.map(Iterator::collect::<Vec<_>>);
    work.next()
        .is_none_or(|first| work.all(|other| other == first))
}

/// The tables as they are printed.
pub fn tables(results: &[RunResult]) -> String {
    let mut text = String::new();
    section(&mut text, "Cost", cost(results));
    section(
        &mut text,
        "Resident over live bytes at the end of each phase, and on average",
        ratios(results),
    );
    section(
        &mut text,
        "Resident MiB after the release",
        released(results),
    );
    section(
        &mut text,
        "Last third of the steady phase, where live bytes are constant",
        drifts(results),
    );
    text
}

fn section(text: &mut String, title: &str, table: Table) {
    // Writing into a string cannot fail.
    let _ = writeln!(text, "\n{title}\n{table}");
}

fn cost(results: &[RunResult]) -> Table {
    let mut table = table(&[
        "",
        "wall s",
        "CPU s",
        "of it kernel",
        "peak MiB",
        "page faults",
        "outcome",
    ]);
    for result in results {
        let mut row = vec![result.name.clone()];
        row.extend(columns(result, 5, |figures| {
            vec![
                format!("{:.1}", figures.wall_seconds),
                format!("{:.1}", figures.user_seconds + figures.system_seconds),
                format!("{:.1}", figures.system_seconds),
                mib(figures.peak_resident_bytes as f64),
                figures
                    .page_faults
                    .map_or_else(dash, |faults| faults.to_string()),
            ]
        }));
        row.push(result.outcome.to_string());
        table.add_row(row);
    }
    align(table, 1..6)
}

fn ratios(results: &[RunResult]) -> Table {
    let phases = || Phase::ALL.into_iter().filter(|phase| phase.holds_blocks());
    let names = phases().map(Phase::name);
    let heads: Vec<&str> = std::iter::once("").chain(names).chain(["mean"]).collect();
    let mut table = table(&heads);
    for result in results {
        let mut row = vec![result.name.clone()];
        row.extend(columns(result, heads.len() - 1, |figures| {
            let ratios = phases().map(|phase| figures.phase(phase)?.ratio);
            let cells = ratios.chain([figures.mean_ratio]);
            cells
                .map(|ratio| ratio.map_or_else(dash, |r| format!("{r:.2}")))
                .collect()
        }));
        table.add_row(row);
    }
    align(table, 1..heads.len())
}

fn released(results: &[RunResult]) -> Table {
    let mut table = table(&[
        "",
        "at once",
        "after 1 s idle",
        "after some requests",
        "after the threads' end",
    ]);
    let phases = [Phase::Released, Phase::Idle, Phase::Stirred, Phase::Gone];
    for result in results {
        let mut row = vec![result.name.clone()];
        row.extend(columns(result, phases.len(), |figures| {
            let resident = phases.map(|phase| Some(figures.phase(phase)?.resident_bytes));
            let cell = |bytes: Option<u64>| bytes.map_or_else(dash, |b| mib(b as f64));
            resident.map(cell).to_vec()
        }));
        table.add_row(row);
    }
    align(table, 1..5)
}

fn drifts(results: &[RunResult]) -> Table {
    let mut table = table(&[
        "",
        "resident MiB/s",
        "live MiB/s",
        "resident rises by MiB",
        "% of live bytes",
    ]);
    for result in results {
        let mut row = vec![result.name.clone()];
        row.extend(columns(result, 4, |figures| {
            let Some(drift) = figures.drift else {
                return vec![dash(); 4];
            };
            vec![
                signed_mib(drift.resident_bytes_per_second),
                signed_mib(drift.live_bytes_per_second),
                signed_mib(drift.rise_bytes),
                format!("{:+.1}", drift.rise_over_live * 100.0),
            ]
        }));
        table.add_row(row);
    }
    align(table, 1..5)
}

/// The cells of a result, or as many dashes if it has no figures.
fn columns(
    result: &RunResult,
    count: usize,
    cells: impl FnOnce(&Figures) -> Vec<String>,
) -> Vec<String> {
    result
        .figures
        .as_ref()
        .map_or_else(|| vec![dash(); count], cells)
}

fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(heads);
    table
}

fn align(mut table: Table, numbers: std::ops::Range<usize>) -> Table {
    for index in numbers {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn dash() -> String {
    "-".to_owned()
}

fn mib(bytes: f64) -> String {
    format!("{:.0}", bytes / f64::from(1 << 20))
}

fn signed_mib(bytes: f64) -> String {
    format!("{:+.1}", bytes / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fragmentation::figures::{Drift, PhaseFigures};

    fn result(name: &str, outcome: Outcome, figures: Option<Figures>) -> RunResult {
        RunResult {
            name: name.to_owned(),
            version: "1".to_owned(),
            outcome,
            figures,
            records: Records::default(),
        }
    }

    fn figures() -> Figures {
        let phase = |phase, ratio, resident_bytes| PhaseFigures {
            phase,
            seconds: 1.0,
            operations: 1,
            live_bytes: 1,
            resident_bytes,
            lazily_freed_bytes: 0,
            ratio,
            mean_ratio: None,
        };
        Figures {
            wall_seconds: 12.34,
            user_seconds: 20.0,
            system_seconds: 1.5,
            peak_resident_bytes: 700 << 20,
            page_faults: Some(77),
            mean_ratio: Some(1.375),
            phases: vec![
                phase(Phase::Fill, Some(1.25), 400 << 20),
                phase(Phase::Released, None, 9 << 20),
            ],
            drift: Some(Drift {
                resident_bytes_per_second: -1.5 * 1048576.0,
                live_bytes_per_second: 0.0,
                rise_bytes: -3.0 * 1048576.0,
                rise_over_live: -0.02,
            }),
        }
    }

    #[test]
    fn every_figure_is_in_the_tables_and_the_dead_have_their_rows() {
        let died = Outcome::Died("signal: 9".to_owned());
        let text = tables(&[
            result("alpha", Outcome::Finished, Some(figures())),
            result("beta", died, None),
        ]);
        for figure in [
            "12.3", "21.5", "1.5", "700", "77", "1.25", "1.38", " 9 ", "-3.0", "-2.0",
        ] {
            assert!(text.contains(figure), "{figure} in\n{text}");
        }
        assert!(text.contains("died: signal: 9"), "{text}");
        assert_eq!(text.matches("alpha").count(), 4);
        assert_eq!(text.matches("beta").count(), 4);
    }

    #[test]
    fn different_work_is_noticed() {
        let mut other = figures();
        other.phases[0].operations += 1;
        let run = |figures| result("any", Outcome::Finished, Some(figures));
        assert!(did_the_same_work(&[run(figures()), run(figures())]));
        assert!(!did_the_same_work(&[run(figures()), run(other.clone())]));
        let died = result("any", Outcome::Silent(60), Some(other));
        assert!(did_the_same_work(&[run(figures()), died]));
    }

    #[test]
    fn the_document_holds_figures_and_outcomes() {
        let work = Work {
            scale: 1.0,
            live_mib: 16,
            workers: 2,
            seed: 5,
        };
        let text = json(
            &work,
            &[result("alpha", Outcome::TooLarge(9), Some(figures()))],
        )
        .unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["work"]["seed"], 5);
        let alpha = &document["results"][0];
        assert_eq!(alpha["outcome"]["too_large"], 9);
        assert_eq!(alpha["figures"]["phases"][0]["phase"], "fill");
        assert_eq!(alpha["figures"]["drift"]["live_bytes_per_second"], 0.0);
        assert!(alpha["samples"].as_array().unwrap().is_empty());
    }
}
