//! Which phases there are, how long they are and how much they hold.

use clap::Args;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The phases, in the order of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Workers fill their tables with ordinary requests, to the full live bytes.
    Fill,
    /// A cache whose objects grow from 96 B to 24 KiB and shrink again, at
    /// constant live bytes; an eighth of the evictions is freed by a neighbour.
    Shift,
    /// Constant live bytes, while the load wanders from thread to thread and
    /// the objects slowly grow.
    Steady,
    /// Threads come, serve requests and go; some of what they made outlives
    /// them for a few rounds.
    Bursts,
    /// Nine tenths of the blocks are freed at random, half of them by neighbours.
    Thin,
    /// Hardly any load, for half a second.
    Quiet,
    /// Tables grow to half of the full live bytes, with larger objects.
    Regrow,
    /// Everything has been freed, this very moment.
    Released,
    /// A second later.
    Idle,
    /// After a few thousand small requests by each worker.
    Stirred,
    /// After the workers have ended.
    Gone,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Self; 11] = [
        Self::Fill,
        Self::Shift,
        Self::Steady,
        Self::Bursts,
        Self::Thin,
        Self::Quiet,
        Self::Regrow,
        Self::Released,
        Self::Idle,
        Self::Stirred,
        Self::Gone,
    ];

    /// The name in tables, plots and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fill => "fill",
            Self::Shift => "shift",
            Self::Steady => "steady",
            Self::Bursts => "bursts",
            Self::Thin => "thin",
            Self::Quiet => "quiet",
            Self::Regrow => "regrow",
            Self::Released => "released",
            Self::Idle => "idle",
            Self::Stirred => "stirred",
            Self::Gone => "gone",
        }
    }

    /// Whether blocks are alive when it ends.
    pub fn holds_blocks(self) -> bool {
        self < Self::Released
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How much work is done. The same values give the same requests in the same
/// order on each thread, whatever the allocator.
#[derive(Args, Clone, Debug, PartialEq, Serialize)]
pub struct Work {
    /// Length of the phases; 1 is about twenty seconds for each allocator.
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    pub scale: f64,
    /// Live bytes at the fullest, in MiB.
    #[arg(long, default_value_t = 384, value_parser = clap::value_parser!(u64).range(16..=65536))]
    pub live_mib: u64,
    /// Threads that live through the whole run; as many guests come and go.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(2..=100))]
    pub workers: u64,
    /// What all choices follow from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

impl Work {
    /// Rounds of a phase. All workers wait for each other between two.
    pub fn rounds(&self, phase: Phase) -> u32 {
        let scaled = |rounds: f64, least: u32| ((rounds * self.scale) as u32).max(least);
        match phase {
            Phase::Fill => 16,
            Phase::Shift => scaled(64.0, 12),
            // A few rounds at each of the workers that the load visits.
            Phase::Steady => scaled(96.0, 2 * self.workers as u32),
            Phase::Bursts => scaled(32.0, 8),
            Phase::Thin => 10,
            Phase::Quiet => 20,
            Phase::Regrow => scaled(20.0, 8),
            Phase::Released => 3,
            Phase::Idle => 1,
            Phase::Stirred => 10,
            Phase::Gone => 0,
        }
    }

    /// Rounds of the whole run.
    pub fn all_rounds(&self) -> u64 {
        let rounds = Phase::ALL.iter().map(|&phase| self.rounds(phase));
        rounds.map(u64::from).sum()
    }

    /// One worker's part of the full live bytes.
    pub fn share_bytes(&self) -> u64 {
        (self.live_mib << 20) / self.workers
    }

    /// The same work as arguments for a child.
    pub fn to_args(&self) -> Vec<String> {
        vec![
            format!("--scale={}", self.scale),
            format!("--live-mib={}", self.live_mib),
            format!("--workers={}", self.workers),
            format!("--seed={}", self.seed),
        ]
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(scale) if scale > 0.0 && scale <= 1000.0 => Ok(scale),
        _ => Err("a number above 0 and at most 1000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        work: Work,
    }

    #[test]
    fn a_child_understands_its_drivers_arguments() {
        let work = Work {
            scale: 0.25,
            live_mib: 48,
            workers: 12,
            seed: 99,
        };
        let arguments = std::iter::once("child".to_owned()).chain(work.to_args());
        assert_eq!(Command::parse_from(arguments).work, work);
        assert!(Command::try_parse_from(["child", "--scale=0"]).is_err());
        assert!(Command::try_parse_from(["child", "--workers=1"]).is_err());
    }

    #[test]
    fn phases_are_listed_in_their_order() {
        assert!(Phase::ALL.is_sorted());
        assert!(Phase::Regrow.holds_blocks() && !Phase::Released.holds_blocks());
    }
}
