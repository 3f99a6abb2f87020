//! Declared and real bytes over time, as an SVG: one panel for each operator, all on one time axis.

use crate::watch::Sample;
use crate::{Cause, Ran};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64 as Linear;
use plotters::prelude::*;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;

const WIDTH: u32 = 1200;
const HEAD: u32 = 60;
const PANEL: u32 = 150;
/// Below the last panel.
const FOOT: u32 = 44;
/// The operators that are shown: those that declared or held most.
const PANELS: usize = 6;
/// More points than this per line are not seen; of those between, the highest is shown.
const POINTS: usize = 600;
/// The part of the axis that a query's number takes.
const LABEL: f64 = 0.025;
/// What is shown of each operator. Okabe and Ito's colours, told apart by most eyes.
const LINES: [(&str, RGBColor); 2] = [
    ("declared to the memory pool", RGBColor(0, 114, 178)),
    ("really held", RGBColor(213, 94, 0)),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Writes the plot.
pub fn write(path: &Path, samples: &[Sample], queries: &[Ran]) -> Result<(), Cause> {
    let operators = largest(samples);
    let height = HEAD + PANEL * operators.len() as u32 + FOOT;
    let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let (head, mut below) = root.split_vertically(HEAD);
    legend(&head)?;
    for (number, operator) in operators.iter().enumerate() {
        let is_last = number + 1 == operators.len();
        let (area, rest) = below.split_vertically(if is_last { PANEL + FOOT } else { PANEL });
        draw(&area, operator, samples, queries, is_last)?;
        below = rest;
    }
    root.present()?;
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The operators that declared or held most.
fn largest(samples: &[Sample]) -> Vec<&str> {
    let mut peaks: BTreeMap<&str, u64> = BTreeMap::new();
    for (operator, bytes) in samples.iter().flat_map(|sample| &sample.bytes) {
        let peak = peaks.entry(operator).or_default();
        *peak = bytes.iter().copied().fold(*peak, u64::max);
    }
    let mut operators: Vec<_> = peaks.into_iter().collect();
    operators.sort_by_key(|&(operator, peak)| (Reverse(peak), operator));
    operators.truncate(PANELS);
    operators
        .into_iter()
        .map(|(operator, _)| operator)
        .collect()
}

fn legend(area: &Area<'_>) -> Result<(), Cause> {
    let title = "Memory of TPC-H queries by operator";
    area.draw(&Text::new(title, (64, 10), ("sans-serif", 20)))?;
    for ((name, colour), x) in LINES.iter().zip([64, 300]) {
        let line = PathElement::new([(x, 46), (x + 24, 46)], colour.stroke_width(3));
        area.draw(&line)?;
        area.draw(&Text::new(*name, (x + 32, 39), ("sans-serif", 14)))?;
    }
    Ok(())
}

/// The highest of neighbouring samples, as seconds and MiB.
fn points(samples: &[Sample], operator: &str, line: usize) -> Vec<(f64, f64)> {
    let chunks = samples.chunks(samples.len() / POINTS + 1);
    let highest = chunks.map(|chunk| {
        let bytes = chunk.iter().filter_map(|sample| sample.bytes.get(operator));
        let highest = bytes.map(|bytes| bytes[line]).max().unwrap_or(0);
        (chunk[0].at.as_secs_f64(), mib(highest))
    });
    highest.collect()
}

fn draw(
    area: &Area<'_>,
    operator: &str,
    samples: &[Sample],
    queries: &[Ran],
    is_last: bool,
) -> Result<(), Cause> {
    let lines = [0, 1].map(|line| points(samples, operator, line));
    let most = lines.iter().flatten().map(|&(_, y)| y).fold(1.0, f64::max) * 1.25;
    let seconds = samples.last().map_or(0.0, |sample| sample.at.as_secs_f64());
    let mut chart = ChartBuilder::on(area)
        .caption(operator, ("sans-serif", 15))
        .margin_left(8)
        .margin_right(24)
        .x_label_area_size(if is_last { FOOT } else { 0 })
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..seconds, 0.0..most)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(if is_last { 12 } else { 0 })
        .y_labels(4)
        .x_label_formatter(&|seconds| format!("{seconds:.1}"))
        .y_label_formatter(&|mib| format!("{mib:.0}"))
        .x_desc(if is_last { "seconds" } else { "" })
        .y_desc("MiB")
        .draw()?;
    mark(chart.plotting_area(), queries)?;
    for ((_, colour), line) in LINES.iter().zip(lines) {
        chart.draw_series(LineSeries::new(line, colour.stroke_width(2)))?;
    }
    Ok(())
}

/// A line where each query begins, and its number where there is room.
fn mark(
    area: &DrawingArea<SVGBackend<'_>, Cartesian2d<Linear, Linear>>,
    queries: &[Ran],
) -> Result<(), Cause> {
    let (seconds, top) = (area.get_x_range().end, area.get_y_range().end);
    let mut free = 0.0;
    for query in queries {
        let x = query.at.as_secs_f64();
        area.draw(&PathElement::new([(x, 0.0), (x, top)], BLACK.mix(0.2)))?;
        if x >= free {
            let (name, at) = (format!("Q{}", query.number), x + LABEL * seconds / 8.0);
            area.draw(&Text::new(name, (at, top), ("sans-serif", 11)))?;
            free = x + LABEL * seconds;
        }
    }
    Ok(())
}
