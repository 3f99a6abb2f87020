//! Live bytes by stage over time, as an SVG: one panel for each way, all on one time axis.

use std::path::Path;

use plotters::prelude::*;

use super::measure::Measured;
use super::{Cause, STAGES};

const SIZE: (u32, u32) = (1100, 640);
/// More points than this per line are not seen.
const POINTS: usize = 400;
/// Okabe and Ito's palette, told apart by most eyes.
const COLOURS: [RGBColor; STAGES.len()] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
];

/// Writes the plot.
pub fn write(path: &Path, ways: &[&Measured]) -> Result<(), Cause> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let seconds = ways
        .iter()
        .map(|way| way.wall.as_secs_f64())
        .fold(0.0, f64::max);
    for (way, area) in ways.iter().zip(root.split_evenly((ways.len(), 1))) {
        panel(way, &area, seconds)?;
    }
    root.present()?;
    Ok(())
}

fn panel(
    way: &Measured,
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    seconds: f64,
) -> Result<(), Cause> {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let live = way.samples.iter().flat_map(|sample| sample.live);
    let most = mib(live.max().unwrap_or(0).max(1)) * 1.05;
    let mut chart = ChartBuilder::on(area)
        .caption(way.name, ("sans-serif", 20))
        .margin(8)
        .x_label_area_size(32)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..seconds, 0.0..most)?;
    chart
        .configure_mesh()
        .x_desc("seconds")
        .y_desc("live MiB")
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (stage, (name, colour)) in STAGES.iter().zip(COLOURS).enumerate() {
        let points = way.samples.iter().step_by(way.samples.len() / POINTS + 1);
        let points = points.map(|sample| (sample.at.as_secs_f64(), mib(sample.live[stage])));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    Ok(())
}
