//! Programs of the system, and outside suites, under each allocator as a
//! library that stands in for `malloc`: a process for each run, the allocators
//! in turn, and ratios of time and memory.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use bursar_benches::programs::preloaded::{self, Errand, Library, MIMALLOC_BENCH, Work};
use bursar_benches::programs::tables::{self, Row};
use bursar_benches::report;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// The script that knows how to run programs of the system.
const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../allocator-tests/real-programs.sh"
);

/// Run programs under allocators that are preloaded.
#[derive(Parser)]
struct Arguments {
    /// Only rows whose name contains this.
    #[arg(default_value = "")]
    filter: String,
    /// An allocator, NAME=PATH, or NAME=none for the C library's own; the
    /// first is compared with the others.
    #[arg(long = "library", required_unless_present = "watch")]
    libraries: Vec<Library>,
    /// Where mimalloc-bench's programs were built (its out/bench); those that
    /// are there are run, too.
    #[arg(long)]
    mimalloc_bench: Option<PathBuf>,
    /// Runs of each program under each allocator.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only run this command and write what it took to a file.
    #[arg(long, hide = true)]
    watch: Option<PathBuf>,
    /// With this library.
    #[arg(long, hide = true)]
    under: Option<PathBuf>,
    /// The command.
    #[arg(last = true, hide = true)]
    command: Vec<OsString>,
}

/// A row, and what is run for it under a library.
struct Program {
    row: Row,
    errand: Box<dyn Fn(&Library) -> Errand>,
}

#[derive(Serialize)]
struct Report {
    cores: usize,
    libraries: Vec<String>,
    rows: Vec<Row>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("preloaded: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), String> {
    let told = |error: std::io::Error| error.to_string();
    if let Some(report) = &arguments.watch {
        let library = arguments.under.as_deref();
        return preloaded::watch(report, library, &arguments.command).map_err(told);
    }
    let libraries = &arguments.libraries;
    let mut programs = of_the_system(libraries.len())?;
    if let Some(place) = &arguments.mimalloc_bench {
        let place = std::fs::canonicalize(place).map_err(told)?;
        programs.extend(of_mimalloc_bench(&place, libraries.len()));
    }
    programs.retain(|program| program.row.path().contains(&arguments.filter));
    let reports = report::directory().map_err(told)?;
    let (rows, failures) = measure(programs, libraries, arguments.rounds.max(1), &reports)?;
    let names: Vec<&str> = libraries.iter().map(|one| one.name.as_str()).collect();
    println!("Medians; ratios of {} to the others.\n", names[0]);
    print!("{}", tables::markdown(&names, &rows));
    let report = Report {
        cores: cores(),
        libraries: libraries.iter().map(|one| format!("{one:?}")).collect(),
        rows,
    };
    report::write_json(&reports.join("preloaded.json"), &report).map_err(told)?;
    match failures[..] {
        [] => Ok(()),
        _ => Err(failures.join("\n")),
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn of_the_system(libraries: usize) -> Result<Vec<Program>, String> {
    let listed = Command::new(SCRIPT).arg("--list").output();
    let listed = listed.map_err(|error| format!("{SCRIPT}: {error}"))?;
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    // A few names, which live as long as the rows: until the end.
    let names: &'static str = names.leak();
    let program = |name: &'static str| Program {
        row: Row::named(name, 1, libraries),
        errand: Box::new(move |library| {
            let path = library.path.clone().unwrap_or("none".into());
            let mut command: Vec<OsString> = [SCRIPT, "--once", "--library"].map(Into::into).into();
            command.extend([path.into(), name.into()]);
            Errand {
                command,
                library: None,
                directory: None,
                input: None,
                work: Work::Set,
            }
        }),
    };
    Ok(names.lines().map(program).collect())
}

fn of_mimalloc_bench(place: &Path, libraries: usize) -> Vec<Program> {
    let built = MIMALLOC_BENCH.iter().filter_map(|judge| {
        let (file, arguments) = judge.command.split_once(' ').unwrap_or((judge.command, ""));
        let threads = if judge.threaded { cores() } else { 1 };
        let arguments = arguments.replace("{threads}", &cores().to_string());
        let place = place.to_owned();
        let row = Row::named(judge.name, threads, libraries);
        place.join(file).exists().then(|| Program {
            row,
            errand: Box::new(move |library| Errand {
                command: std::iter::once(place.join(file).into())
                    .chain(arguments.split_whitespace().map(OsString::from))
                    .collect(),
                library: library.path.clone(),
                directory: Some(place.clone()),
                input: judge.input,
                work: judge.work,
            }),
        })
    });
    built.collect()
}

/// Rows of all programs, but for those that fail under the first library, and why they do: hours of
/// others' runs are not to be lost for one.
fn measure(
    programs: Vec<Program>,
    libraries: &[Library],
    rounds: usize,
    reports: &Path,
) -> Result<(Vec<Row>, Vec<String>), String> {
    let watcher = std::env::current_exe().map_err(|error| error.to_string())?;
    let progress = ProgressBar::new((programs.len() * rounds * libraries.len()) as u64);
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {elapsed} {msg}")
        .expect("a valid template");
    progress.set_style(style);
    let watched = reports.join(format!("watched-{}.json", std::process::id()));
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    for Program { mut row, errand } in programs {
        progress.set_message(row.program);
        let mut failed = vec![false; libraries.len()];
        for round in 0..rounds {
            for turn in 0..libraries.len() {
                let index = (round + turn) % libraries.len();
                progress.inc(1);
                if failed[0] || failed[index] {
                    continue;
                }
                let library = &libraries[index];
                match errand(library).run(&watcher, &watched) {
                    Ok(sample) => row.add(index, sample.wall, sample.cpu, sample.peak_kib),
                    Err(why) => {
                        let failure =
                            format!("{} fails under {}: {why}", row.program, library.name);
                        progress.suspend(|| eprintln!("{failure}"));
                        failed[index] = true;
                        row.leave_out(index);
                        failures.extend((index == 0).then_some(failure));
                    }
                }
            }
        }
        rows.extend((!failed[0]).then_some(row));
    }
    progress.finish_and_clear();
    std::fs::remove_file(&watched).map_err(|error| error.to_string())?;
    Ok((rows, failures))
}
