//! The shadow-model stress test, as long as one likes.
//!
//! bursar is not installed here: it serves the blocks of the test alone, so
//! its books must equal the shadow's to the byte.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use allocator_tests::stress::{Outcome, Plan, run};
use bursar::Bursar;

static HEAP: Bursar = Bursar::new();

const USAGE: &str = "stress [--ops N|unlimited] [--seconds S] [--threads N] [--seed N]

  --ops      operations in all (default 100000000, unlimited if --seconds is given)
  --seconds  stop after so long
  --threads  threads at a time (default 4)
  --seed     what the run is drawn from (default: the time)";

fn main() -> ExitCode {
    let plan = match plan() {
        Ok(Some(plan)) => plan,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    println!("seed {}, {} threads", plan.seed, plan.threads);
    let start = Instant::now();
    match run(&HEAP, &plan, |ours| ours, |outcome| report(outcome, start)) {
        Ok(outcome) => {
            let Outcome {
                operations,
                threads,
                peak_blocks,
                ..
            } = outcome;
            println!(
                "{operations} operations on {threads} threads, {peak_blocks} blocks at most between rounds: no fault"
            );
            ExitCode::SUCCESS
        }
        Err(fault) => {
            eprintln!("seed {}: {fault}", plan.seed);
            ExitCode::FAILURE
        }
    }
}

fn report(outcome: &Outcome, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!("{:12} operations in {seconds:.1} s", outcome.operations);
}

fn plan() -> Result<Option<Plan>, lexopt::Error> {
    use lexopt::prelude::*;

    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap_or_default();
    let mut plan = Plan {
        operations: 100_000_000,
        round: 5_000_000,
        life: 200_000,
        seed: now.as_secs(),
        ..Plan::default()
    };
    let mut operations = None;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("ops") => {
                let value = parser.value()?;
                operations = Some(if value == "unlimited" {
                    u64::MAX
                } else {
                    value.parse()?
                });
            }
            Long("seconds") => {
                plan.time = Duration::from_secs(parser.value()?.parse()?);
                plan.operations = u64::MAX;
            }
            Long("threads") => plan.threads = parser.value()?.parse::<usize>()?.max(1),
            Long("seed") => plan.seed = parser.value()?.parse()?,
            Long("help") | Short('h') => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    plan.operations = operations.unwrap_or(plan.operations);
    Ok(Some(plan))
}
