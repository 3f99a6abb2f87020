//! The same row on all allocators, in turn: A B C, B C A, and so on, so that
//! a machine that speeds up or slows down does so for all of them alike.

use std::alloc::GlobalAlloc;
use std::collections::HashMap;
use std::time::Duration;

use crate::micro::{self, Row};
use crate::peers::{self, Peer, Visitor};
use crate::remote;

/// What is called absurd of a 64-byte pair: the slowest of the peers takes 10
/// ns, and a build with debug checks of snmalloc took 90.
const ABSURD_NS: f64 = 40.0;

/// One row on each of the allocators.
pub struct Lane {
    /// One of [`micro::GROUPS`].
    pub group: &'static str,
    /// The row's name within its group.
    pub name: String,
    runners: Vec<Row>,
}

struct Columns {
    wanted: Vec<Peer>,
    columns: Vec<(Peer, Vec<Row>)>,
}

impl Visitor for Columns {
    fn visit<A: GlobalAlloc + Sync>(&mut self, peer: Peer, allocator: &'static A) {
        if self.wanted.contains(&peer) {
            self.columns.push((peer, micro::rows(allocator)));
        }
    }
}

/// The rows of the given allocators side by side, in that order. Those that
/// are not linked into this program run in a process of their own.
///
/// # Errors
/// If such a process cannot be built or started.
// Inline, so that only programs which call it refer to every allocator: the C
// ones run constructors in all programs that they are linked into.
#[inline]
pub fn lanes(wanted: &[Peer]) -> Result<Vec<Lane>, String> {
    let mut columns = Columns {
        wanted: wanted.to_vec(),
        columns: Vec::new(),
    };
    peers::for_each(&mut columns);
    linked_and_remote(wanted, columns.columns)
}

fn linked_and_remote(wanted: &[Peer], linked: Vec<(Peer, Vec<Row>)>) -> Result<Vec<Lane>, String> {
    let mut linked: HashMap<&str, Vec<Row>> = linked
        .into_iter()
        .map(|(peer, rows)| (peer.name, rows))
        .collect();
    let mut columns = Vec::new();
    for peer in wanted {
        let rows = match linked.remove(peer.name) {
            Some(rows) => rows,
            None => remote::rows(*peer)?,
        };
        columns.push(rows);
    }
    Ok(side_by_side(columns))
}

/// The same rows of several contestants side by side.
///
/// # Panics
/// If they are not the same.
#[must_use]
pub fn side_by_side(columns: Vec<Vec<Row>>) -> Vec<Lane> {
    let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
    let mut lanes = Vec::new();
    loop {
        let runners: Vec<Row> = columns.iter_mut().filter_map(Iterator::next).collect();
        let Some(first) = runners.first() else {
            return lanes;
        };
        assert!(
            runners.len() == columns.len() && runners.iter().all(|row| row.path() == first.path()),
            "the allocators have different rows"
        );
        lanes.push(Lane {
            group: first.group,
            name: first.name.clone(),
            runners,
        });
    }
}

impl Lane {
    /// Group and name, by which rows are filtered.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }

    /// Nanoseconds per operation: for each allocator one sample a round, each
    /// sample of about `target`.
    #[must_use]
    pub fn measure(&self, rounds: usize, target: Duration) -> Vec<Vec<f64>> {
        self.in_turn(rounds, &self.calibrated(target))
    }

    /// The same with as many operations for each contestant, those that the
    /// fastest does in `target`: for contestants that differ by percents. What
    /// a sample costs beside its operations, such as starting threads, is then
    /// the same for all, and none is given few because it was put aside once.
    #[must_use]
    pub fn measure_alike(&self, rounds: usize, target: Duration) -> Vec<Vec<f64>> {
        let counts = self.calibrated(target);
        let most = counts.iter().copied().max().unwrap_or(1);
        self.in_turn(rounds, &vec![most; counts.len()])
    }

    fn calibrated(&self, target: Duration) -> Vec<u64> {
        self.runners
            .iter()
            .map(|row| calibrate(row, target))
            .collect()
    }

    fn in_turn(&self, rounds: usize, counts: &[u64]) -> Vec<Vec<f64>> {
        let mut samples = vec![Vec::with_capacity(rounds); self.runners.len()];
        for round in 0..rounds {
            for turn in 0..self.runners.len() {
                let index = (round + turn) % self.runners.len();
                samples[index].push(sample(&self.runners[index], counts[index]));
            }
        }
        samples
    }
}

/// How many operations take about `target`. Also the warm-up.
fn calibrate(row: &Row, target: Duration) -> u64 {
    let mut count = 1;
    loop {
        let elapsed = shortest(row, count, target / 2);
        let factor = target.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
        if elapsed >= target / 2 {
            return ((count as f64 * factor) as u64).max(1);
        }
        count = (count as f64 * factor.clamp(2.0, 10.0)) as u64;
    }
}

/// The shortest of three runs, or one that is shorter than `enough`: a thread
/// that was put aside once must not pass for a slow allocator, and be given a
/// few operations in which the clock costs more than they do.
fn shortest(row: &Row, count: u64, enough: Duration) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..3 {
        shortest = shortest.min(row.run(count));
        if shortest < enough {
            break;
        }
    }
    shortest
}

fn sample(row: &Row, count: u64) -> f64 {
    row.run(count).as_nanos() as f64 / count as f64
}

/// Fails if one of the allocators is so slow that it must have been built
/// without optimisation or with its debug checks.
///
/// # Errors
/// Names the allocators and their best time for a pair of 64 bytes.
pub fn refuse_absurdly_slow(wanted: &[Peer], lanes: &[Lane]) -> Result<(), String> {
    let lane = lanes
        .iter()
        .find(|lane| lane.group == "pair, runtime layout" && lane.name == "64 B")
        .ok_or("there is no row of 64-byte pairs")?;
    let slow: Vec<String> = wanted
        .iter()
        .zip(lane.measure(9, Duration::from_millis(1)))
        .filter_map(|(peer, samples)| {
            let best = samples.into_iter().fold(f64::INFINITY, f64::min);
            (best > ABSURD_NS).then(|| format!("{} takes {best:.0} ns", peer.name))
        })
        .collect();
    if slow.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} for a pair of 64 bytes: how was it built?",
        slow.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::lanes;
    use crate::peers::{self, Peer};

    fn linked() -> Vec<Peer> {
        let linked = |peer: &Peer| peer.name != "rpmalloc";
        peers::all().into_iter().filter(linked).collect()
    }

    #[test]
    fn each_lane_has_a_runner_and_samples_for_each_allocator() {
        let peers = linked();
        let lanes = lanes(&peers).unwrap();
        for lane in &lanes {
            assert_eq!(lane.runners.len(), peers.len());
        }
        let samples = lanes[0].measure(3, Duration::from_micros(10));
        assert_eq!(samples.len(), peers.len());
        assert!(samples.iter().all(|samples| samples.len() == 3));
    }

    /// Without optimisation the pure-Rust peers are slow by right.
    #[cfg(not(debug_assertions))]
    #[test]
    fn no_peer_is_absurdly_slow() {
        let peers = linked();
        super::refuse_absurdly_slow(&peers, &lanes(&peers).unwrap()).unwrap();
    }
}
