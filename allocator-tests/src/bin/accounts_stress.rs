//! The shadow of the accounts, as long as one likes.
//!
//! bursar is not installed here: it serves the blocks of the test alone, so
//! its books must equal the shadow's to the byte.

use std::process::ExitCode;
use std::time::Instant;

use allocator_tests::accounts::{Outcome, Plan, run};
use bursar::Bursar;

static HEAP: Bursar = Bursar::new();

const USAGE: &str = "accounts_stress [--ops N] [--threads N] [--consumers N] [--seed N]

  --ops        operations in all (default 10000000)
  --threads    threads at a time (default 4)
  --consumers  consumers that have a handle at a time (default 40)
  --seed       what the run is drawn from (default: the time)";

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
    let (seed, consumers) = (plan.seed, plan.consumers);
    println!(
        "seed {seed}, {} threads, {consumers} consumers",
        plan.threads
    );
    let start = Instant::now();
    let report = |outcome: &Outcome| {
        let seconds = start.elapsed().as_secs_f64();
        println!("{:12} operations in {seconds:.1} s", outcome.operations);
    };
    match run(&HEAP, &plan, report) {
        Ok(outcome) => {
            println!("{outcome:?}: no difference");
            ExitCode::SUCCESS
        }
        Err(difference) => {
            eprintln!("seed {seed}, {consumers} consumers: {difference}");
            ExitCode::FAILURE
        }
    }
}

fn plan() -> Result<Option<Plan>, lexopt::Error> {
    use lexopt::prelude::*;

    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap_or_default();
    let mut plan = Plan {
        operations: 10_000_000,
        round: 250_000,
        life: 50_000,
        seed: now.as_secs(),
        ..Plan::default()
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("ops") => plan.operations = parser.value()?.parse()?,
            Long("threads") => plan.threads = parser.value()?.parse::<usize>()?.max(1),
            Long("consumers") => plan.consumers = parser.value()?.parse::<usize>()?.max(1),
            Long("seed") => plan.seed = parser.value()?.parse()?,
            Long("help") | Short('h') => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(plan))
}
