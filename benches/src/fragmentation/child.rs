//! The main function of the binaries that carry an allocator each.

use super::crew::Crew;
use super::ledger;
use super::plan::{Phase, Work};
use super::sampler::Sampler;
use clap::Parser;
use std::io;
use std::process::ExitCode;

/// The seat of the main thread, behind the workers and their guests.
const CONDUCTOR: usize = ledger::SEATS - 1;

/// Runs the fragmentation workload under this binary's allocator and prints
/// records of it, one a line. `fragmentation` starts it and reads them.
#[derive(Parser)]
struct Command {
    #[command(flatten)]
    work: Work,
}

/// Runs the whole workload in this process.
pub fn main() -> ExitCode {
    let work = Command::parse().work;
    match run(&work) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("records: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(work: &Work) -> io::Result<()> {
    ledger::sit(CONDUCTOR);
    let sampler = Sampler::new()?;
    let marked = std::thread::scope(|scope| {
        let sampling = scope.spawn(|| sampler.sample_until_stopped());
        let marked = conduct(work, &sampler);
        sampler.stop();
        sampling.join().expect("the sampler panicked").and(marked)
    });
    marked?;
    sampler.end()
}

fn conduct(work: &Work, sampler: &Sampler) -> io::Result<()> {
    let mut marked = Ok(());
    Crew::new(work).run(
        |phase| sampler.begin(phase),
        |phase| {
            sampler.advance();
            if phase == Phase::Idle {
                std::thread::sleep(std::time::Duration::from_secs(1));
            }
        },
        |phase| {
            check_balance(phase);
            if marked.is_ok() {
                marked = sampler.mark(phase);
            }
        },
    );
    sampler.begin(Phase::Gone);
    marked.and_then(|()| sampler.mark(Phase::Gone))
}

/// The ledger is exact: once all is freed, nothing is left on it.
fn check_balance(phase: Phase) {
    if !phase.holds_blocks() {
        assert_eq!(ledger::live_bytes(), 0, "at the end of {phase}");
    }
}
