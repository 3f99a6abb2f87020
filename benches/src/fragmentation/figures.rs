//! Turns the records of a run into figures.

use super::plan::{Phase, Work};
use super::record::{End, Mark, Record, Sample};
use serde::Serialize;

/// Fewer samples than this carry no slope.
const LEAST_SAMPLES: usize = 8;

/// The records of one run, by kind.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// In the order of time.
    pub samples: Vec<Sample>,
    /// The ends of the phases that came to theirs.
    pub marks: Vec<Mark>,
    /// Absent if the run did not come to its end.
    pub end: Option<End>,
}

impl Records {
    /// Adds the next record.
    pub fn add(&mut self, record: Record) {
        match record {
            Record::Sample(sample) => self.samples.push(sample),
            Record::Mark(mark) => self.marks.push(mark),
            Record::End(end) => self.end = Some(end),
        }
    }

    /// When a phase began and ended, in µs; nothing if it did not end.
    pub fn span_us(&self, phase: Phase) -> Option<(u64, u64)> {
        let index = self.marks.iter().position(|mark| mark.phase == phase)?;
        let began = index.checked_sub(1).map_or(0, |i| self.marks[i].at_us);
        Some((began, self.marks[index].at_us))
    }
}

/// The figures of one run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// From the first request to the end of the last phase.
    pub wall_seconds: f64,
    /// Processor time of all threads outside the kernel.
    pub user_seconds: f64,
    /// Processor time of all threads inside the kernel.
    pub system_seconds: f64,
    /// As the kernel counted it, or the highest sample of a run that died.
    pub peak_resident_bytes: u64,
    /// Page faults that needed no input or output.
    pub page_faults: Option<u64>,
    /// Resident over live bytes, both averaged over the time in which blocks
    /// were alive.
    pub mean_ratio: Option<f64>,
    /// The phases that came to their end.
    pub phases: Vec<PhaseFigures>,
    /// What became of resident bytes while live bytes stood still.
    pub drift: Option<Drift>,
}

/// The figures of one phase, at its end if not said otherwise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PhaseFigures {
    /// Which phase.
    pub phase: Phase,
    /// How long it took.
    pub seconds: f64,
    /// Allocations, frees and resizings in it.
    pub operations: u64,
    /// Requested bytes alive.
    pub live_bytes: u64,
    /// Resident bytes.
    pub resident_bytes: u64,
    /// Resident bytes that the kernel may take back when it runs short.
    pub lazily_freed_bytes: u64,
    /// Resident over live bytes; nothing once all is freed.
    pub ratio: Option<f64>,
    /// The same, both averaged over the phase.
    pub mean_ratio: Option<f64>,
}

/// The trend of the last third of the steady phase, by least squares.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Drift {
    /// Slope of resident bytes.
    pub resident_bytes_per_second: f64,
    /// Slope of live bytes: small, or the workload is at fault.
    pub live_bytes_per_second: f64,
    /// The slope of resident bytes times the duration of that third.
    pub rise_bytes: f64,
    /// That rise as a part of the live bytes.
    pub rise_over_live: f64,
}

impl Figures {
    /// The figures of a run, complete or not; nothing if there is no sample.
    pub fn new(records: &Records, work: &Work) -> Option<Self> {
        let highest = records.samples.iter().map(|s| s.resident_bytes).max()?;
        let last = records.marks.last();
        let seconds = |of: fn(&Mark) -> u64| last.map_or(0.0, |mark| of(mark) as f64 / 1e6);
        let held = |sample: &&Sample| sample.phase.holds_blocks();
        Some(Self {
            wall_seconds: seconds(|mark| mark.at_us),
            user_seconds: seconds(|mark| mark.user_us),
            system_seconds: seconds(|mark| mark.system_us),
            peak_resident_bytes: records.end.map_or(highest, |end| end.peak_resident_bytes),
            page_faults: records.end.map(|end| end.page_faults),
            mean_ratio: mean_ratio(records.samples.iter().filter(held)),
            phases: phases(records),
            drift: drift(records, work),
        })
    }

    /// The figures of one phase, if it came to its end.
    pub fn phase(&self, phase: Phase) -> Option<&PhaseFigures> {
        self.phases.iter().find(|figures| figures.phase == phase)
    }
}

fn phases(records: &Records) -> Vec<PhaseFigures> {
    let mut operations_before = 0;
    let mut began_us = 0;
    let figures = records.marks.iter().map(|mark| {
        let samples = records.samples.iter().filter(|s| s.phase == mark.phase);
        let held = mark.phase.holds_blocks();
        let figures = PhaseFigures {
            phase: mark.phase,
            seconds: (mark.at_us - began_us) as f64 / 1e6,
            operations: mark.operations - operations_before,
            live_bytes: mark.live_bytes,
            resident_bytes: mark.resident_bytes,
            lazily_freed_bytes: mark.lazily_freed_bytes,
            ratio: held.then(|| mark.resident_bytes as f64 / mark.live_bytes as f64),
            mean_ratio: held.then(|| mean_ratio(samples)).flatten(),
        };
        operations_before = mark.operations;
        began_us = mark.at_us;
        figures
    });
    figures.collect()
}

/// Samples are equally spaced, so sums stand for averages over time.
fn mean_ratio<'a>(samples: impl Iterator<Item = &'a Sample>) -> Option<f64> {
    let (resident, live) = samples.fold((0, 0), |(resident, live), sample| {
        (resident + sample.resident_bytes, live + sample.live_bytes)
    });
    (live > 0).then(|| resident as f64 / live as f64)
}

/// The last third is counted in rounds, that is in work, not in time.
fn drift(records: &Records, work: &Work) -> Option<Drift> {
    records.span_us(Phase::Steady)?;
    let before = Phase::ALL.into_iter().filter(|&p| p < Phase::Steady);
    let first = before.map(|p| u64::from(work.rounds(p))).sum::<u64>();
    let from = first + u64::from(work.rounds(Phase::Steady)) * 2 / 3;
    let in_last_third = |s: &&Sample| s.phase == Phase::Steady && s.rounds >= from;
    let samples: Vec<&Sample> = records.samples.iter().filter(in_last_third).collect();
    if samples.len() < LEAST_SAMPLES {
        return None;
    }
    let slope_of = |bytes: fn(&Sample) -> u64| {
        slope(
            samples
                .iter()
                .map(|s| (s.at_us as f64 / 1e6, bytes(s) as f64)),
        )
    };
    let resident = slope_of(|s| s.resident_bytes)?;
    let duration = (samples.last()?.at_us - samples.first()?.at_us) as f64 / 1e6;
    let live = samples.iter().map(|s| s.live_bytes as f64).sum::<f64>() / samples.len() as f64;
    Some(Drift {
        resident_bytes_per_second: resident,
        live_bytes_per_second: slope_of(|s| s.live_bytes)?,
        rise_bytes: resident * duration,
        rise_over_live: resident * duration / live,
    })
}

/// The slope of the line through points that has the least squared distance
/// from them in `y`; nothing if all have one `x`.
fn slope(points: impl Iterator<Item = (f64, f64)> + Clone) -> Option<f64> {
    let count = points.clone().count() as f64;
    let sum = |of: fn((f64, f64)) -> f64| points.clone().map(of).sum::<f64>();
    let (mean_x, mean_y) = (sum(|(x, _)| x) / count, sum(|(_, y)| y) / count);
    let (mut covariance, mut variance) = (0.0, 0.0);
    for (x, y) in points {
        covariance += (x - mean_x) * (y - mean_y);
        variance += (x - mean_x) * (x - mean_x);
    }
    (variance > 0.0).then(|| covariance / variance)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work() -> Work {
        Work {
            scale: 1.0,
            live_mib: 384,
            workers: 16,
            seed: 1,
        }
    }

    fn mark(phase: Phase, at_us: u64, live_bytes: u64, resident_bytes: u64) -> Mark {
        Mark {
            phase,
            at_us,
            rounds: 0,
            operations: at_us / 10,
            live_bytes,
            resident_bytes,
            lazily_freed_bytes: 0,
            user_us: at_us,
            system_us: at_us / 2,
        }
    }

    #[test]
    fn slope_is_that_of_the_line_through_the_points() {
        let line = (0..50).map(|x| (f64::from(x), 7.0 - 3.0 * f64::from(x)));
        assert!((slope(line).unwrap() + 3.0).abs() < 1e-9);
        // Noise of equal size above and below the ends does not tilt it.
        let noisy = [(0.0, 1.0), (0.0, -1.0), (2.0, 5.0), (2.0, 3.0)];
        assert!((slope(noisy.into_iter()).unwrap() - 2.0).abs() < 1e-9);
        assert_eq!(slope([(1.0, 2.0), (1.0, 3.0)].into_iter()), None);
        assert_eq!(slope(std::iter::empty()), None);
    }

    #[test]
    fn phases_are_the_differences_of_their_marks() {
        let mut records = Records::default();
        records.add(Record::Mark(mark(Phase::Fill, 1_000_000, 100, 120)));
        records.add(Record::Mark(mark(Phase::Shift, 3_000_000, 100, 250)));
        records.add(Record::Mark(mark(Phase::Released, 3_500_000, 0, 90)));
        let phases = phases(&records);
        assert_eq!(phases[1].seconds, 2.0);
        assert_eq!(phases[1].operations, 200_000);
        assert_eq!(phases[1].ratio, Some(2.5));
        assert_eq!(phases[2].ratio, None);
        assert_eq!(records.span_us(Phase::Fill), Some((0, 1_000_000)));
        assert_eq!(
            records.span_us(Phase::Released),
            Some((3_000_000, 3_500_000))
        );
        assert_eq!(records.span_us(Phase::Gone), None);
    }

    /// A steady phase whose resident bytes stand still for two thirds and then
    /// rise by 1000 B in each of the rounds, which take 10 ms.
    fn rising_late() -> Records {
        let work = work();
        let first = u64::from(work.rounds(Phase::Fill) + work.rounds(Phase::Shift));
        let rounds = u64::from(work.rounds(Phase::Steady));
        let mut records = Records::default();
        for round in 0..rounds {
            records.add(Record::Sample(Sample {
                at_us: round * 10_000,
                phase: Phase::Steady,
                rounds: first + round,
                operations: 0,
                live_bytes: 50_000,
                resident_bytes: 70_000 + 1000 * round.saturating_sub(rounds * 2 / 3),
            }));
        }
        records
    }

    #[test]
    fn drift_is_that_of_the_last_third() {
        let mut records = rising_late();
        assert_eq!(drift(&records, &work()), None, "the phase did not end");
        records.add(Record::Mark(mark(Phase::Steady, 1_000_000, 1, 1)));
        let drift = drift(&records, &work()).unwrap();
        assert!((drift.resident_bytes_per_second - 100_000.0).abs() < 1.0);
        assert_eq!(drift.live_bytes_per_second, 0.0);
        let rounds = f64::from(work().rounds(Phase::Steady));
        let risen = 1000.0 * (rounds - (rounds * 2.0 / 3.0).floor() - 1.0);
        assert!((drift.rise_bytes - risen).abs() < 1.0, "{drift:?} {risen}");
        assert!((drift.rise_over_live - risen / 50_000.0).abs() < 1e-3);
    }

    #[test]
    fn a_run_that_died_has_the_figures_it_got_to() {
        let mut records = rising_late();
        records.add(Record::Mark(mark(Phase::Fill, 500_000, 100, 150)));
        let figures = Figures::new(&records, &work()).unwrap();
        assert_eq!(figures.wall_seconds, 0.5);
        assert_eq!(figures.page_faults, None);
        assert!(figures.peak_resident_bytes > 90_000);
        assert_eq!(figures.phase(Phase::Fill).unwrap().ratio, Some(1.5));
        assert_eq!(figures.phase(Phase::Steady), None);
        assert_eq!(Figures::new(&Records::default(), &work()), None);
    }
}
