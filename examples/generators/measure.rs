//! Time, CPU time, and live bytes by stage over time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bursar::Consumer;

use super::work::Sums;
use super::{STAGES, Way};

/// How often live bytes are looked at.
const PERIOD: Duration = Duration::from_millis(5);

/// What one way took.
pub struct Measured {
    pub name: &'static str,
    pub sums: Sums,
    pub peak_bytes: u64,
    pub stage_peaks: [u64; STAGES.len()],
    pub first: Duration,
    pub wall: Duration,
    pub cpu: Duration,
    pub samples: Vec<Sample>,
}

/// Live bytes by stage at some moment.
pub struct Sample {
    pub at: Duration,
    pub live: [u64; STAGES.len()],
}

/// Computes one way, with consumers of its own.
pub fn measure(name: &'static str, way: Way, partitions: u64) -> Measured {
    // Each way begins without memory at hand.
    bursar::purge();
    let query = Consumer::new(name);
    let stages = STAGES.map(|stage| query.child(stage));
    let is_over = AtomicBool::new(false);
    let (begin, cpu) = (Instant::now(), cpu_time());
    let mut first = None;
    let (sums, wall, samples) = thread::scope(|scope| {
        let watch = scope.spawn(|| watch(&stages, begin, &is_over));
        let mut seen = || _ = first.get_or_insert_with(|| begin.elapsed());
        let sums = way(&stages, partitions, &mut seen).expect("there is no limit");
        let wall = begin.elapsed();
        is_over.store(true, Ordering::Relaxed);
        (sums, wall, watch.join().expect("it only looks"))
    });
    Measured {
        name,
        sums,
        peak_bytes: query.usage().subtree_peak_bytes,
        stage_peaks: stages.map(|stage| stage.usage().peak_bytes),
        first: first.unwrap_or(wall),
        wall,
        cpu: cpu_time() - cpu,
        samples,
    }
}

fn watch(stages: &[Consumer; 4], begin: Instant, is_over: &AtomicBool) -> Vec<Sample> {
    let mut samples = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        samples.push(Sample {
            at: begin.elapsed(),
            live: stages.each_ref().map(|stage| stage.usage().live_bytes),
        });
        thread::sleep(PERIOD);
    }
    samples
}

/// The process's.
fn cpu_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is there to be written.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(failed, 0, "there is such a clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
