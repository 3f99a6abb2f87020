//! Declared and real bytes by operator over time, as an SVG: one panel for each, on the same axes.

use crate::Cause;
use crate::watch::Sample;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;

const SIZE: (u32, u32) = (1200, 800);
const PANELS: [&str; 2] = ["declared", "real"];
/// More points than this per line are not seen; of those between, the highest is shown.
const POINTS: usize = 600;
/// Okabe and Ito's palette, told apart by most eyes.
const COLOURS: [RGBColor; 7] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// Writes the plot.
pub fn write(path: &Path, samples: &[Sample]) -> Result<(), Cause> {
    let operators = largest(samples);
    let most = samples
        .iter()
        .flat_map(|sample| sample.bytes.values().flatten());
    let most = mib(most.copied().max().unwrap_or(0).max(1 << 20)) * 1.05;
    let seconds = samples.last().map_or(0.0, |sample| sample.at.as_secs_f64());
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    for (panel, area) in root.split_evenly((PANELS.len(), 1)).iter().enumerate() {
        draw(panel, area, samples, &operators, (seconds, most))?;
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
    operators.truncate(COLOURS.len());
    operators
        .into_iter()
        .map(|(operator, _)| operator)
        .collect()
}

fn draw(
    panel: usize,
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    samples: &[Sample],
    operators: &[&str],
    (seconds, most): (f64, f64),
) -> Result<(), Cause> {
    let mut chart = ChartBuilder::on(area)
        .caption(PANELS[panel], ("sans-serif", 20))
        .margin(8)
        .x_label_area_size(32)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..seconds, 0.0..most)?;
    chart
        .configure_mesh()
        .x_desc("seconds")
        .y_desc("MiB")
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (operator, colour) in operators.iter().zip(COLOURS) {
        let points = samples.chunks(samples.len() / POINTS + 1).map(|chunk| {
            let bytes = chunk
                .iter()
                .filter_map(|sample| sample.bytes.get(*operator));
            let highest = bytes.map(|bytes| bytes[panel]).max().unwrap_or(0);
            (chunk[0].at.as_secs_f64(), mib(highest))
        });
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(*operator)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    Ok(())
}
