//! Resident against live bytes over the course of the work, as an SVG.
//!
//! Allocators take different times, so each run is stretched phase by phase to
//! the median duration of that phase over the runs: phases then stand above
//! each other and the live bytes are one curve. Short phases are widened, or
//! the release would not be seen.

use super::figures::Records;
use super::plan::Phase;
use super::record::Sample;
use super::report::RunResult;
use plotters::coord::types::RangedCoordf64 as Linear;
use plotters::prelude::*;
use std::error::Error;
use std::path::Path;

/// More points than this per line are not seen.
const POINTS: usize = 800;
/// The least part of the axis that a phase gets.
const LEAST_WIDTH: f64 = 0.05;
const SIZE: (u32, u32) = (1280, 720);
/// Okabe and Ito's palette, told apart by most eyes; bursar's line is first.
const PALETTE: [RGBColor; 8] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 0, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(140, 140, 40),
];

/// Where each phase lies on the common axis.
struct Axis {
    /// The phases that some run came to the end of, each with its end.
    ends: Vec<(Phase, f64)>,
}

impl Axis {
    fn new(runs: &[&Records]) -> Self {
        let medians = Phase::ALL.into_iter().filter_map(|phase| {
            let spans = runs.iter().filter_map(|run| run.span_us(phase));
            let seconds = median(spans.map(|(from, to)| (to - from) as f64 / 1e6).collect())?;
            Some((phase, seconds))
        });
        let medians: Vec<(Phase, f64)> = medians.collect();
        let least = medians.iter().map(|(_, seconds)| seconds).sum::<f64>() * LEAST_WIDTH;
        let mut at = 0.0;
        let ends = medians.into_iter().map(|(phase, seconds)| {
            at += seconds.max(least);
            (phase, at)
        });
        Self {
            ends: ends.collect(),
        }
    }

    fn length(&self) -> f64 {
        self.ends.last().map_or(0.0, |&(_, end)| end)
    }

    /// The place of a sample; nothing in a phase that its run did not end.
    fn place(&self, run: &Records, sample: &Sample) -> Option<f64> {
        let (from, to) = run.span_us(sample.phase)?;
        let index = self
            .ends
            .iter()
            .position(|(phase, _)| *phase == sample.phase)?;
        let begin = index.checked_sub(1).map_or(0.0, |i| self.ends[i].1);
        let done = sample.at_us.saturating_sub(from) as f64 / (to - from).max(1) as f64;
        Some(begin + (self.ends[index].1 - begin) * done.min(1.0))
    }
}

/// Writes the plot; runs that ended no phase are left out.
///
/// # Errors
/// If the file cannot be written.
pub fn draw(path: &Path, results: &[RunResult]) -> Result<(), Box<dyn Error>> {
    let records: Vec<&Records> = results.iter().map(|result| &result.records).collect();
    let axis = Axis::new(&records);
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let samples = records.iter().flat_map(|run| &run.samples);
    let highest = samples.map(|s| s.resident_bytes).max().unwrap_or(0);
    let mut chart = ChartBuilder::on(&root)
        .caption(
            "Resident bytes under each allocator (lines), live bytes (grey)",
            ("sans-serif", 20),
        )
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(
            0.0..axis.length().max(1e-3),
            0.0..mib(highest).max(1.0) * 1.08,
        )?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(0)
        .disable_x_mesh()
        .x_desc("course of the run; a phase is as wide for one allocator as for another")
        .y_desc("MiB")
        .y_label_formatter(&|mib| format!("{mib:.0}"))
        .draw()?;
    // The run that came furthest has the longest curve of live bytes.
    let longest = records.iter().max_by_key(|run| run.marks.len());
    if let Some(run) = longest {
        chart.draw_series([live_area(&axis, run)])?;
    }
    for (result, color) in results.iter().zip(PALETTE.iter().cycle()) {
        let points = line(&axis, &result.records, |s| s.resident_bytes);
        let style = color.stroke_width(if result.name == "bursar" { 3 } else { 1 });
        chart
            .draw_series(LineSeries::new(points, style))?
            .label(&result.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::Coordinate(16, 24))
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    label_phases(&axis, chart.plotting_area())?;
    root.present()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Cartesian2d<Linear, Linear>>;

/// A line at the end of each phase, and its name.
fn label_phases(axis: &Axis, area: &Area<'_>) -> Result<(), Box<dyn Error>> {
    let top = area.get_y_range().end;
    let mut begin = 0.0;
    for &(phase, end) in &axis.ends {
        area.draw(&PathElement::new([(end, 0.0), (end, top)], BLACK.mix(0.25)))?;
        area.draw(&Text::new(phase.name(), (begin, top), ("sans-serif", 13)))?;
        begin = end;
    }
    Ok(())
}

fn live_area(axis: &Axis, run: &Records) -> Polygon<(f64, f64)> {
    let mut outline = line(axis, run, |s| s.live_bytes);
    let last = outline.last().map_or(0.0, |&(x, _)| x);
    outline.extend([(last, 0.0), (0.0, 0.0)]);
    Polygon::new(outline, BLACK.mix(0.18))
}

/// The points of a line; of several samples that would fall together, the
/// highest, so that no peak is lost.
fn line(axis: &Axis, run: &Records, bytes: fn(&Sample) -> u64) -> Vec<(f64, f64)> {
    let mut all = run.samples.clone();
    all.extend(run.marks.iter().map(Sample::from));
    all.sort_by_key(|sample| sample.at_us);
    let stride = all.len().div_ceil(POINTS).max(1);
    let highest = all.chunks(stride).filter_map(|samples| {
        let sample = samples.iter().max_by_key(|s| bytes(s))?;
        Some((axis.place(run, sample)?, mib(bytes(sample))))
    });
    highest.collect()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fragmentation::record::Mark;

    fn run(ends_us: &[(Phase, u64)]) -> Records {
        let marks = ends_us.iter().map(|&(phase, at_us)| Mark {
            phase,
            at_us,
            rounds: 0,
            operations: 0,
            live_bytes: 0,
            resident_bytes: 0,
            lazily_freed_bytes: 0,
            user_us: 0,
            system_us: 0,
        });
        Records {
            marks: marks.collect(),
            ..Records::default()
        }
    }

    fn sample(phase: Phase, at_us: u64) -> Sample {
        Sample {
            at_us,
            phase,
            rounds: 0,
            operations: 0,
            live_bytes: 0,
            resident_bytes: 0,
        }
    }

    #[test]
    fn phases_of_fast_and_slow_runs_stand_above_each_other() {
        let fast = run(&[(Phase::Fill, 1_000_000), (Phase::Shift, 2_000_000)]);
        let slow = run(&[(Phase::Fill, 3_000_000), (Phase::Shift, 9_000_000)]);
        let axis = Axis::new(&[&fast, &slow]);
        assert_eq!(axis.ends, [(Phase::Fill, 3.0), (Phase::Shift, 9.0)]);
        let half_way = axis.place(&fast, &sample(Phase::Shift, 1_500_000));
        assert_eq!(half_way, Some(6.0));
        assert_eq!(
            half_way,
            axis.place(&slow, &sample(Phase::Shift, 6_000_000))
        );
        assert_eq!(axis.place(&fast, &sample(Phase::Steady, 2_500_000)), None);
    }

    #[test]
    fn short_phases_are_widened() {
        let run = run(&[(Phase::Fill, 10_000_000), (Phase::Shift, 10_000_001)]);
        let axis = Axis::new(&[&run]);
        assert!(axis.length() > 10.4, "{}", axis.length());
    }

    #[test]
    fn a_line_keeps_the_peak_of_the_samples_it_leaves_out() {
        let mut records = run(&[(Phase::Fill, 100_000)]);
        let samples = (0..100_000).map(|at_us| Sample {
            resident_bytes: if at_us == 777 { 9 << 20 } else { 1 << 20 },
            ..sample(Phase::Fill, at_us)
        });
        records.samples = samples.collect();
        let points = line(&Axis::new(&[&records]), &records, |s| s.resident_bytes);
        assert!(points.len() <= POINTS);
        assert_eq!(points.iter().filter(|(_, y)| *y == 9.0).count(), 1);
    }
}
