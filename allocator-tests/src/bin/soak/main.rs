//! All of bursar in one long-running program, in cycles each of which frees
//! everything: at the end every structure is whole and nothing has grown.
//!
//! ```sh
//! cargo run --release -p allocator-tests --features sites --bin soak -- --minutes 30
//! BURSAR_POOLS=1073741824,268435456:65536 \
//!   cargo run --release -p allocator-tests --bin soak -- --minutes 30
//! ```

mod level;
mod phases;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use bursar::Bursar;

use level::Levels;

#[global_allocator]
static GLOBAL: Bursar = Bursar::new().background(true).decay_ms(100);

const USAGE: &str = "soak [--minutes N | --seconds N] [--seed N] [--only PHASE]

  --minutes  how long (default 1)
  --seed     what the run is drawn from (default 1)
  --only     one of churn, fork, lives, queries, tasks, streams, pools";

struct Plan {
    time: Duration,
    seed: u64,
    only: Option<String>,
}

impl Plan {
    fn cycle(&self, number: u64) {
        let seed = self.seed.wrapping_mul(1_000_003) + number;
        for (name, phase) in phases::PHASES {
            if self.only.as_deref().is_none_or(|only| only == name) {
                phase(&GLOBAL, seed);
            }
        }
    }
}

fn main() -> ExitCode {
    let plan = match plan() {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match soak(&plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("seed {}: {what}", plan.seed);
            ExitCode::FAILURE
        }
    }
}

/// Runs cycles until the time is over, at least as many as are compared, and
/// prints a line a minute.
fn soak(plan: &Plan) -> Result<(), String> {
    let start = Instant::now();
    let mut levels = Levels::new();
    let mut minutes = 0;
    while start.elapsed() < plan.time || levels.are_too_few() {
        let cycle = levels.len() as u64;
        plan.cycle(cycle);
        let level = levels.take()?;
        let elapsed = start.elapsed().as_secs() / 60;
        if cycle == 0 || elapsed > minutes {
            minutes = elapsed;
            println!("{minutes:4} minutes, {:6} cycles: {level}", cycle + 1);
        }
    }
    println!("{levels}");
    levels.compare()
}

fn plan() -> Result<Plan, lexopt::Error> {
    use lexopt::prelude::*;

    let mut plan = Plan {
        time: Duration::from_secs(60),
        seed: 1,
        only: None,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("minutes") => {
                plan.time = Duration::from_secs(60 * parser.value()?.parse::<u64>()?)
            }
            Long("seconds") => plan.time = Duration::from_secs(parser.value()?.parse()?),
            Long("seed") => plan.seed = parser.value()?.parse()?,
            Long("only") => plan.only = Some(parser.value()?.string()?),
            other => return Err(other.unexpected()),
        }
    }
    Ok(plan)
}
