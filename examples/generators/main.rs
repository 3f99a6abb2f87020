//! The same partitioned computation with lists between its stages and with streams: who holds how
//! much, when the first result is there, what it costs, and a memory limit under which lists fail
//! and streams finish.
//!
//! Readings of sensors are generated as text, parsed, corrected, and summed up by sensor; a
//! partition is 1 MiB of text. With lists each stage returns the results of all partitions before
//! the next begins. With streams they flow one at a time, each stage on a thread of its own, or all
//! of them on the thread that asks.
//!
//! ```sh
//! cargo run --release --example generators            # 1 GiB of text
//! cargo run --release --example generators -- 4096 live.svg
//! ```

mod lists;
mod measure;
mod plot;
mod streams;
mod work;

use std::error::Error;

use bursar::{Consumer, Limits};
use measure::{Measured, measure};
use work::{PARTITION, Sums};

#[global_allocator]
static GLOBAL: bursar::Bursar = bursar::Bursar::new();

/// The stages, each a consumer.
const STAGES: [&str; 4] = ["generate", "parse", "correct", "sum up"];

/// A way to compute, for so many partitions.
type Way =
    fn(stages: &[Consumer; 4], partitions: u64, seen: &mut dyn FnMut()) -> Result<Sums, Cause>;
type Cause = Box<dyn Error + Send + Sync>;

const WAYS: [(&str, Way); 3] = [
    ("lists", lists::run),
    ("streams, one thread", streams::on_one_thread),
    ("streams, a thread each", streams::on_threads),
];

fn main() -> Result<(), Cause> {
    let mut arguments = std::env::args().skip(1);
    let partitions: u64 = arguments.next().map_or(Ok(1024), |mib| mib.parse())?;
    let plot = arguments.next();

    println!("{partitions} MiB of text\n");
    let measured = WAYS.map(|(name, way)| measure(name, way, partitions));
    for one in &measured {
        println!("{one}");
    }
    let [lists, pulled, ahead] = &measured;
    assert!(lists.sums == pulled.sums && lists.sums == ahead.sums);

    let most = streams::most_bytes();
    println!(
        "promised for the streams: (bounds + one item a stage) x 1.1 = {} KiB at most",
        (most as f64 * 1.1) as u64 / 1024
    );
    for streams in [pulled, ahead] {
        assert!(
            streams.peak_bytes as f64 <= most as f64 * 1.1,
            "{}",
            streams.peak_bytes
        );
        println!(
            "{}: {:.4} of the peak, {:.2} of the wall time, {:.2} of the CPU time of lists",
            streams.name,
            streams.peak_bytes as f64 / lists.peak_bytes as f64,
            streams.wall.as_secs_f64() / lists.wall.as_secs_f64(),
            streams.cpu.as_secs_f64() / lists.cpu.as_secs_f64(),
        );
    }

    // Half of the text, or what streams need if that is more.
    let limit = (partitions * PARTITION as u64 / 2).max(most * 5 / 4);
    println!("\nunder a hard limit of {} KiB:", limit / 1024);
    let mut finished = Vec::new();
    for (name, way) in WAYS {
        let query = Consumer::new(name);
        query.set_limits(Limits::none().hard(limit));
        let stages = STAGES.map(|stage| query.child(stage));
        let outcome = way(&stages, partitions, &mut || {});
        finished.push(outcome.is_ok());
        let peak = query.usage().subtree_peak_bytes / 1024;
        match outcome {
            Ok(sums) => {
                assert!(sums == lists.sums);
                println!("{name}: finished, with a peak of {peak} KiB");
            }
            Err(cause) => println!("{name}: failed at {peak} KiB: {cause}"),
        }
    }
    // A run that is small enough fits any way.
    let fits = lists.peak_bytes < limit;
    assert_eq!(finished, [fits, true, true]);

    if let Some(path) = plot {
        plot::write(path.as_ref(), &[lists, ahead])?;
        println!("\nlive bytes by stage over time: {path}");
    }
    Ok(())
}

/// What is shown of one way.
impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
        writeln!(
            f,
            "{}: peak {} KiB, first result after {:.1} ms, all after {:.0} ms, CPU {:.0} ms",
            self.name,
            self.peak_bytes / 1024,
            ms(self.first),
            ms(self.wall),
            ms(self.cpu)
        )?;
        for (stage, peak) in STAGES.iter().zip(self.stage_peaks) {
            writeln!(f, "{:>12} KiB at most: {stage}", peak / 1024)?;
        }
        Ok(())
    }
}
