//! The command that runs the workload under each allocator and shows what
//! became of the memory.

use super::figures::{Figures, Records};
use super::plan::Work;
use super::plot;
use super::record::Record;
use super::report::{self, RunResult};
use super::run::{self, Outcome};
use crate::peers::{self, Peer};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Runs a long, shifting workload of many threads under each allocator, a
/// process each, and compares the memory that stays resident with what is
/// alive.
#[derive(Parser)]
struct Command {
    #[command(flatten)]
    work: Work,
    /// Which allocators, separated by commas; all of this build if absent.
    #[arg(long, value_delimiter = ',')]
    allocators: Vec<String>,
    /// A short run of bursar and the system's allocator, in place of the full one.
    #[arg(long, conflicts_with_all = ["scale", "live_mib", "allocators"])]
    smoke: bool,
    /// A run is killed when more than this many GiB are resident.
    #[arg(long, default_value_t = 12)]
    memory_limit_gib: u64,
    /// Where the plot and the figures go; absent: `fragmentation` in cargo's
    /// target directory.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Runs the command.
pub fn main() -> ExitCode {
    let mut command = Command::parse();
    if command.smoke {
        command.work.scale = 0.35;
        command.work.live_mib = 96;
        command.allocators = vec!["bursar".to_owned(), "system".to_owned()];
    }
    match compare(&command) {
        Ok(results) => verdict(&results),
        Err(error) => {
            eprintln!("fragmentation: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A peer that dies is a finding; bursar must come to its end.
fn verdict(results: &[RunResult]) -> ExitCode {
    let failed = |result: &RunResult| result.outcome != Outcome::Finished;
    let bursar_failed = results.iter().any(|r| r.name == "bursar" && failed(r));
    if bursar_failed || results.iter().all(failed) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn compare(command: &Command) -> Result<Vec<RunResult>, Box<dyn Error>> {
    let target = target_dir()?;
    let out = command.out.clone();
    let out = out.unwrap_or_else(|| target.join("fragmentation"));
    std::fs::create_dir_all(&out)?;
    let peers = peers::named(&command.allocators)?;
    let names: Vec<&str> = peers.iter().map(|peer| peer.name).collect();
    eprintln!("building {}", names.join(", "));
    let binaries = run::build(&names, &target)?;
    let mut results = Vec::new();
    for peer in peers {
        let binary = binaries.get(peer.name);
        results.push(run_peer(peer, binary.map(PathBuf::as_path), command));
    }
    let mut stdout = io::stdout();
    write!(stdout, "{}", report::tables(&results))?;
    if !report::did_the_same_work(&results) {
        return Err("the runs did different work: the figures do not compare".into());
    }
    let (plot, figures) = (
        out.join("fragmentation.svg"),
        out.join("fragmentation.json"),
    );
    plot::draw(&plot, &results)?;
    std::fs::write(&figures, report::json(&command.work, &results)?)?;
    let (plot, figures) = (plot.display(), figures.display());
    writeln!(stdout, "\nplot: {plot}\nfigures: {figures}")?;
    Ok(results)
}

fn run_peer(peer: Peer, binary: Option<&Path>, command: &Command) -> RunResult {
    let bar = progress_bar(peer, &command.work);
    let (records, outcome) = match binary {
        Some(binary) => {
            let limit_bytes = command.memory_limit_gib << 30;
            run::run(binary, &command.work, limit_bytes, |record| {
                show(&bar, record)
            })
        }
        None => (Records::default(), Outcome::NotBuilt),
    };
    bar.finish_and_clear();
    let figures = Figures::new(&records, &command.work);
    eprintln!("{:<12} {}", peer.name, summary(figures.as_ref(), &outcome));
    RunResult {
        name: peer.name.to_owned(),
        version: peer.version.to_owned(),
        outcome,
        figures,
        records,
    }
}

fn summary(figures: Option<&Figures>, outcome: &Outcome) -> String {
    figures.map_or_else(
        || outcome.to_string(),
        |figures| {
            let peak = figures.peak_resident_bytes >> 20;
            format!("{outcome}, {:.1} s, peak {peak} MiB", figures.wall_seconds)
        },
    )
}

fn progress_bar(peer: Peer, work: &Work) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:<12} {bar:30} {elapsed:>4} {msg}");
    ProgressBar::new(work.all_rounds())
        .with_style(style.expect("the template is well formed"))
        .with_prefix(peer.name)
}

fn show(bar: &ProgressBar, record: &Record) {
    if let Record::Sample(sample) = record {
        let (live, resident) = (sample.live_bytes >> 20, sample.resident_bytes >> 20);
        bar.set_position(sample.rounds);
        bar.set_message(format!(
            "{:<8} live {live} MiB, resident {resident} MiB",
            sample.phase
        ));
    }
}

/// This binary lies in a profile's folder of cargo's target directory.
fn target_dir() -> io::Result<PathBuf> {
    let binary = std::env::current_exe()?;
    let target = binary.parent().and_then(Path::parent);
    Ok(target.unwrap_or(Path::new(".")).to_owned())
}
