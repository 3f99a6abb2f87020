//! What a second pool gains; see [`bursar_benches::pools`].

use std::path::PathBuf;
use std::process::ExitCode;

use bursar_benches::pools::{SPECS, STEPS, draw, run};
use clap::Parser;

/// How often large requests succeed, in one pool and in two of the same size
/// together.
#[derive(Parser)]
struct Options {
    /// Where to draw it.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// What the messages are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many messages.
    #[arg(long, default_value_t = STEPS)]
    steps: u64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let courses = SPECS.map(|(name, spec)| (name, run(spec, options.seed, options.steps)));
    for ((name, course), (_, spec)) in courses.iter().zip(SPECS) {
        let (large, failed) = course.large;
        println!(
            "{name} ({spec}): {:.1} % of {large} large requests succeed; {} small ones failed; \
             mean external fragmentation {:.2}",
            100.0 * (large - failed) as f64 / large as f64,
            course.small_failed,
            course.fragmentation,
        );
    }
    match options.svg.map(|path| draw(&path, &courses)) {
        Some(Err(error)) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
