//! How often large requests succeed, in one pool and in two of the same size
//! together, under messages of mixed size and lifetime.
//!
//! At each step a message arrives: a small one mostly, of 1 to 16 KiB, seldom
//! a large one of 128 to 384 MiB. Messages live for a random time; of the small
//! ones one in twenty lives fifty times as long as the others. A message that
//! finds no room is lost, and counted. On average a quarter of the memory is in
//! use, a sixth of that by small messages. Both runs see the same messages.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::error::Error;
use std::path::Path;

use bursar::{Mbuf, MbufPools, PoolSpec};
use fastrand::Rng;
use plotters::prelude::*;

/// One pool of 1 GiB; and the same memory with 64 MiB apart for requests up to
/// 64 KiB.
pub const SPECS: [(&str, &str); 2] = [
    ("one pool", "1073741824"),
    ("two pools", "1006632960,67108864:65536"),
];
/// Steps of a run.
pub const STEPS: u64 = 3_000_000;
/// Requests for large messages that make one point of the curve.
const WINDOW: usize = 100;
const LARGE: f64 = 0.002;
const LARGE_LIFE: f64 = 400.0;
const SMALL_LIFE: f64 = 2_000.0;
const LONG: f64 = 0.05;
const LONG_LIFE: f64 = 100_000.0;
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const SIZE: (u32, u32) = (1100, 520);
const PALETTE: [RGBColor; 2] = [RGBColor(0, 114, 178), RGBColor(213, 94, 0)];

/// What became of one run.
#[derive(Clone, Debug, Default)]
pub struct Course {
    /// At the end of each window, in steps: the share of its large requests
    /// that succeeded.
    pub success: Vec<(u64, f64)>,
    /// Large requests and those that failed.
    pub large: (u64, u64),
    /// Small requests that failed.
    pub small_failed: u64,
    /// External fragmentation of the pool that serves large ones, at the end
    /// of each window, on average.
    pub fragmentation: f64,
}

/// A message that is about to arrive.
struct Arrival {
    len: usize,
    life: u64,
    is_large: bool,
}

fn exponential(rng: &mut Rng, mean: f64) -> u64 {
    (-mean * (1.0 - rng.f64()).ln()) as u64 + 1
}

impl Arrival {
    fn draw(rng: &mut Rng) -> Self {
        if rng.f64() < LARGE {
            return Self {
                len: rng.usize(128 * MIB..384 * MIB),
                life: exponential(rng, LARGE_LIFE),
                is_large: true,
            };
        }
        let mean = if rng.f64() < LONG {
            LONG_LIFE
        } else {
            SMALL_LIFE
        };
        Self {
            len: KIB << rng.u32(0..4) | rng.usize(0..KIB),
            life: exponential(rng, mean),
            is_large: false,
        }
    }
}

/// One run.
///
/// # Panics
/// If the pools cannot be made, or the messages come to something else than
/// success or want of room.
pub fn run(spec: &str, seed: u64, steps: u64) -> Course {
    let spec = PoolSpec::parse(spec).expect("it is a specification");
    let pools = MbufPools::new(&spec).expect("there is address space");
    let mut rng = Rng::with_seed(seed);
    // When it ends, and where it is in `live`.
    let mut ends: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let (mut live, mut vacant): (Vec<Option<Mbuf>>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut course = Course::default();
    let (mut window, mut fragmentation) = (Vec::new(), Vec::new());
    for step in 0..steps {
        while let Some(&Reverse((_, index))) = ends.peek().filter(|end| end.0.0 <= step) {
            ends.pop();
            live[index] = None;
            vacant.push(index);
        }
        let arrival = Arrival::draw(&mut rng);
        let mbuf = Mbuf::new(&pools, arrival.len).ok();
        if arrival.is_large {
            window.push(mbuf.is_some());
            course.large.0 += 1;
            course.large.1 += u64::from(mbuf.is_none());
        } else {
            course.small_failed += u64::from(mbuf.is_none());
        }
        if mbuf.is_some() {
            let index = vacant.pop().unwrap_or_else(|| {
                live.push(None);
                live.len() - 1
            });
            live[index] = mbuf;
            ends.push(Reverse((step + arrival.life, index)));
        }
        if window.len() == WINDOW {
            let succeeded = window.drain(..).filter(|&succeeded| succeeded).count();
            course
                .success
                .push((step, succeeded as f64 / WINDOW as f64));
            fragmentation.push(pools.pools()[0].external_fragmentation());
        }
    }
    course.fragmentation = fragmentation.iter().sum::<f64>() / fragmentation.len().max(1) as f64;
    course
}

/// Draws the success of large requests over time.
///
/// # Errors
/// If the file cannot be written.
pub fn draw(path: &Path, courses: &[(&str, Course)]) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let steps = courses.iter().flat_map(|(_, course)| &course.success);
    let last = steps.map(|point| point.0).max().unwrap_or(1);
    let mut chart = ChartBuilder::on(&root)
        .caption(
            "Requests for 128 to 384 MiB out of 1 GiB that succeed, of 100 each",
            ("sans-serif", 20),
        )
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..last as f64 / 1e6, 0.0..1.02)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .disable_x_mesh()
        .x_desc("million messages")
        .y_desc("succeeded")
        .y_label_formatter(&|share| format!("{:.0} %", share * 100.0))
        .draw()?;
    for ((name, course), color) in courses.iter().zip(PALETTE) {
        let points = course
            .success
            .iter()
            .map(|&(step, share)| (step as f64 / 1e6, share));
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_for_the_small_ones_lets_more_large_ones_succeed() {
        let [one, two] = SPECS.map(|(_, spec)| run(spec, 1, 400_000));
        assert_eq!(one.large.0, two.large.0, "both see the same messages");
        assert!(two.large.1 < one.large.1, "{one:?} {two:?}");
    }
}
