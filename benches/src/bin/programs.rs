//! The published programs on every allocator: a process for each run, the
//! allocators in turn, and ratios of time and memory.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use bursar_benches::peers::{self, Peer};
use bursar_benches::programs::build::{self, Content, Lto};
use bursar_benches::programs::tables::{self, Row};
use bursar_benches::programs::{PROGRAMS, corpus, process};
use bursar_benches::report;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Run the published programs on every allocator.
#[derive(Parser)]
struct Arguments {
    /// Only rows whose "program/threads" contains this.
    #[arg(default_value = "")]
    filter: String,
    /// Runs of each program on each allocator.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only these allocators (comma-separated); the first of the table is
    /// compared with the others.
    #[arg(long, value_delimiter = ',')]
    allocators: Vec<String>,
    /// Link-time optimisation of the programs.
    #[arg(long, value_enum, default_value_t = Lto::Fat)]
    lto: Lto,
    /// One run of a fraction of the work on bursar and the system's
    /// allocator, without link-time optimisation: does it run?
    #[arg(long)]
    smoke: bool,
    /// List the programs and end.
    #[arg(long)]
    list: bool,
}

#[derive(Serialize)]
struct Report {
    unix_seconds: u64,
    cores: usize,
    lto: Lto,
    allocators: Vec<(&'static str, &'static str)>,
    rows: Vec<Row>,
}

/// What does not change from run to run.
struct Setup {
    /// For each allocator a binary of the programs that only start; none if
    /// no row asks for them.
    start: Vec<PathBuf>,
    /// For each allocator a binary of the programs that work, or none.
    work: Vec<PathBuf>,
    corpus: PathBuf,
    divisor: usize,
}

impl Setup {
    fn binaries(&self, row: &Row) -> &[PathBuf] {
        if row.works { &self.work } else { &self.start }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("programs: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: Arguments) -> Result<(), String> {
    if arguments.list {
        PROGRAMS
            .iter()
            .for_each(|program| println!("{:14} {}", program.name, program.about));
        return Ok(());
    }
    if arguments.smoke {
        arguments.allocators = ["bursar", "system"].map(str::to_owned).to_vec();
        (arguments.rounds, arguments.lto) = (1, Lto::Off);
    }
    let peers = peers::named(&arguments.allocators)?;
    let names: Vec<&str> = peers.iter().map(|peer| peer.name).collect();
    let mut rows = rows(&arguments.filter, names.len())?;
    let reports = report::directory().map_err(|error| error.to_string())?;
    let directory = reports.join("binaries");
    let build = |content, wanted| {
        if wanted {
            build::build(&names, content, arguments.lto, &directory)
        } else {
            Ok(vec![])
        }
    };
    let setup = Setup {
        start: build(Content::Start, rows.iter().any(|row| !row.works))?,
        work: build(Content::Work, rows.iter().any(|row| row.works))?,
        corpus: reports.join("corpus"),
        divisor: if arguments.smoke { 20 } else { 1 },
    };
    corpus::gather(&setup.corpus).map_err(|error| format!("inputs: {error}"))?;
    measure(&setup, &mut rows, arguments.rounds.max(1))?;
    print(&peers, &names, &rows);
    write(&reports, &peers, arguments.lto, rows).map_err(|error| error.to_string())
}

fn rows(filter: &str, allocators: usize) -> Result<Vec<Row>, String> {
    let rows: Vec<Row> = PROGRAMS
        .iter()
        .flat_map(|program| {
            program
                .threads
                .iter()
                .map(move |&t| Row::new(program, t, allocators))
        })
        .filter(|row| row.path().contains(filter))
        .collect();
    if rows.is_empty() {
        Err(format!("no row contains {filter:?}"))
    } else {
        Ok(rows)
    }
}

fn measure(setup: &Setup, rows: &mut [Row], rounds: usize) -> Result<(), String> {
    let allocators = setup.start.len().max(setup.work.len());
    let progress = ProgressBar::new((rows.len() * rounds * allocators) as u64);
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {elapsed} {msg}")
        .expect("a valid template");
    progress.set_style(style);
    // Brings the binaries into the page cache.
    for binary in setup.start.iter().chain(&setup.work) {
        once(setup, binary, "empty", 1)?;
    }
    for row in rows {
        progress.set_message(row.path());
        measure_row(setup, row, rounds, &progress)?;
    }
    progress.finish_and_clear();
    Ok(())
}

fn measure_row(
    setup: &Setup,
    row: &mut Row,
    rounds: usize,
    progress: &ProgressBar,
) -> Result<(), String> {
    let binaries = setup.binaries(row);
    let mut checksum = None;
    for round in 0..rounds {
        for turn in 0..binaries.len() {
            let index = (round + turn) % binaries.len();
            let run = once(setup, &binaries[index], row.program, row.threads)?;
            if *checksum.get_or_insert(run.outcome.checksum) != run.outcome.checksum {
                let binary = binaries[index].display();
                return Err(format!(
                    "{binary} computed another {} than the rest",
                    row.path()
                ));
            }
            row.add(index, run.wall, run.cpu, run.outcome.peak_kib);
            progress.inc(1);
        }
    }
    Ok(())
}

fn once(
    setup: &Setup,
    binary: &Path,
    program: &str,
    threads: usize,
) -> Result<process::Run, String> {
    process::run(
        binary,
        program,
        threads,
        setup.divisor,
        &setup.corpus,
        false,
    )
    .map_err(|error| error.to_string())
}

fn print(peers: &[Peer], names: &[&str], rows: &[Row]) {
    let versions: Vec<String> = peers
        .iter()
        .map(|peer| format!("{} {}", peer.name, peer.version))
        .collect();
    println!(
        "Medians; ratios of {} to each of the others; {}.\n",
        names[0],
        versions.join(", ")
    );
    print!("{}", tables::markdown(names, rows));
}

fn write(reports: &Path, peers: &[Peer], lto: Lto, rows: Vec<Row>) -> std::io::Result<()> {
    let report = Report {
        unix_seconds: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs()),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        lto,
        allocators: peers.iter().map(|peer| (peer.name, peer.version)).collect(),
        rows,
    };
    let path = reports.join("programs.json");
    report::write_json(&path, &report)?;
    eprintln!("\nsamples: {}", path.display());
    Ok(())
}
