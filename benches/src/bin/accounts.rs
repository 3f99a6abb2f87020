//! What the account layer costs: every promise of it as a line of a table.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bursar_benches::accounts::direct::{Effort, Measured};
use bursar_benches::accounts::figure::{self, Figure};
use bursar_benches::accounts::resident::{self, Plan};
use bursar_benches::accounts::{calls, direct, exact, whole};
use bursar_benches::books::exact::Outcome;
use bursar_benches::programs::build::{self, Content, Lto};
use bursar_benches::programs::tables::Row;
use bursar_benches::report;
use bursar_benches::statistics::Summary;
use clap::{Parser, ValueEnum};
use serde::Serialize;

/// Measure what the account layer costs.
#[derive(Parser)]
struct Arguments {
    /// Only these parts (comma-separated); all by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Only rows and programs whose path contains this.
    #[arg(default_value = "")]
    filter: String,
    /// How often the processes of rows are started afresh.
    #[arg(long, default_value_t = 7)]
    launches: usize,
    /// Samples of each row and each contestant to a launch.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Length of a sample in milliseconds.
    #[arg(long, default_value_t = 20)]
    sample_ms: u64,
    /// Runs of each program on each contestant.
    #[arg(long, default_value_t = 5)]
    program_rounds: usize,
    /// Beside bursar, run the programs only on these (comma-separated names as
    /// in the table, such as "cap" or "cap over bursar").
    #[arg(long, value_delimiter = ',')]
    beside: Vec<String>,
    /// Link-time optimisation of the programs.
    #[arg(long, value_enum, default_value_t = Lto::Fat)]
    lto: Lto,
    /// One short sample of everything: does it run?
    #[arg(long)]
    smoke: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The allocator called directly, with the layer compiled out and in.
    Direct,
    /// Many consumers on a thread, and what asking costs.
    Calls,
    /// Memory of many consumers.
    Memory,
    /// The books against the truth, beside the wrappers.
    Exact,
    /// Published programs, beside the wrappers.
    Programs,
}

#[derive(Default, Serialize)]
struct Report {
    unix_seconds: u64,
    cores: usize,
    figures: Vec<Figure>,
    direct: Vec<Measured>,
    calls: Vec<Measured>,
    memory: Vec<Vec<f64>>,
    exact: Vec<Outcome>,
    contestants: Vec<&'static str>,
    programs: Vec<Row>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("accounts: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: Arguments) -> Result<(), String> {
    if arguments.smoke {
        (
            arguments.rounds,
            arguments.sample_ms,
            arguments.program_rounds,
        ) = (1, 1, 1);
        arguments.lto = Lto::Off;
        if arguments.only.is_empty() {
            // Minutes to build; `cargo programs --smoke` sees to them.
            arguments.only = Part::value_variants()
                .iter()
                .copied()
                .filter(|part| *part != Part::Programs)
                .collect();
        }
    }
    let wanted = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    let reports = report::directory().map_err(|error| error.to_string())?;
    let mut report = Report {
        unix_seconds: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        ..Report::default()
    };
    if wanted(Part::Direct) || wanted(Part::Calls) || wanted(Part::Memory) {
        let [bare, full] = children(&arguments, &reports)?;
        let effort = Effort {
            launches: arguments.launches.max(1),
            rounds: arguments.rounds.max(1),
            target: Duration::from_millis(arguments.sample_ms.max(1)),
        };
        if wanted(Part::Direct) {
            report.direct = direct::measure(&bare, &full, &arguments.filter, effort)?;
            show(&mut report.figures, direct::figures(&report.direct));
        }
        if wanted(Part::Calls) {
            report.calls = calls::measure(&full, effort)?;
            show(&mut report.figures, calls::figures(&report.calls));
        }
        if wanted(Part::Memory) {
            let (samples, figures) = memory(&full, effort.launches)?;
            report.memory = samples;
            show(&mut report.figures, figures);
        }
    }
    if wanted(Part::Exact) {
        report.exact = books(&arguments, &reports)?;
    }
    let setup = whole::Setup {
        wanted: contestants(&arguments.beside)?,
        filter: arguments.filter.clone(),
        rounds: arguments.program_rounds.max(1),
        divisor: if arguments.smoke { 20 } else { 1 },
        lto: arguments.lto,
    };
    if wanted(Part::Programs) {
        report.contestants = setup.wanted.iter().map(|one| one.name).collect();
        report.programs = whole::measure(&setup, &reports)?;
        show(
            &mut report.figures,
            whole::figures(&setup.wanted, &report.programs),
        );
    }
    print(&report, &setup);
    let path = reports.join("accounts.json");
    report::write_json(&path, &report).map_err(|error| error.to_string())?;
    eprintln!("\nsamples: {}", path.display());
    Ok(())
}

/// Those of bursar, and of the others the named, or all.
fn contestants(beside: &[String]) -> Result<Vec<whole::Contestant>, String> {
    let (own, others) = whole::CONTESTANTS.split_at(whole::OTHERS);
    let named = |name: &str| others.iter().any(|one| one.name == name);
    if let Some(unknown) = beside.iter().find(|name| !named(name)) {
        let names: Vec<&str> = others.iter().map(|one| one.name).collect();
        return Err(format!("no {unknown:?}; there are {}", names.join(", ")));
    }
    let wanted =
        |one: &&whole::Contestant| beside.is_empty() || beside.iter().any(|name| name == one.name);
    Ok(own
        .iter()
        .chain(others.iter().filter(wanted))
        .copied()
        .collect())
}

/// Shows figures as soon as they are there, and keeps them.
fn show(all: &mut Vec<Figure>, figures: Vec<Figure>) {
    if !figures.is_empty() {
        eprintln!("{}\n", figure::markdown(&figures));
    }
    all.extend(figures);
}

/// The process on bursar without and with its account layer.
fn children(arguments: &Arguments, reports: &Path) -> Result<[PathBuf; 2], String> {
    let directory = reports.join("binaries");
    std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    let build = |features| -> Result<PathBuf, String> {
        let name = "accounts_child".to_owned();
        let built = build::cargo_build(std::slice::from_ref(&name), features, arguments.lto)
            .map_err(|error| error.to_string())?;
        let from = built.get(&name).ok_or("cargo built no accounts_child")?;
        // Cargo gives both the same path.
        let to = directory.join(format!("{name}-{features}"));
        std::fs::copy(from, &to).map_err(|error| error.to_string())?;
        Ok(to)
    };
    Ok([build("bursar")?, build("accounts")?])
}

fn memory(full: &Path, rounds: usize) -> Result<(Vec<Vec<f64>>, Vec<Figure>), String> {
    let plan = |nobody, in_turn| Plan {
        consumers: 1_000,
        nobody,
        in_turn,
    };
    let plans = [plan(true, false), plan(false, false), plan(false, true)];
    let mut samples = vec![Vec::new(); plans.len()];
    for round in 0..rounds {
        for turn in 0..plans.len() {
            let index = (round + turn) % plans.len();
            let held = resident::run(full, plans[index]).map_err(|error| error.to_string())?;
            samples[index].push(held.resident_bytes as f64 / f64::from(1 << 20));
        }
    }
    let what = "resident, 1,000 consumers × 8 threads with 20 objects of 16-256 B";
    let ratio = |of: usize| Summary::of_ratios(&samples[of], &samples[0]);
    let nobody = Summary::of(samples[0].iter().copied());
    let figures = vec![
        Figure::ratio(
            format!("{what}, each at once, against nobody"),
            ratio(1),
            Some(1.25),
        ),
        Figure::ratio(format!("{what}, one by one in turn"), ratio(2), Some(1.25)),
        Figure::new("the same without consumers", nobody, "MiB", None),
    ];
    Ok((samples, figures))
}

/// The scenario on bursar and the wrappers over the system's allocator.
fn books(arguments: &Arguments, reports: &Path) -> Result<Vec<Outcome>, String> {
    let keepers: Vec<whole::Contestant> = whole::CONTESTANTS
        .into_iter()
        .filter(|one| one.keeps_books() && !one.name.contains("over"))
        .collect();
    whole::build(&keepers, Content::Start, arguments.lto, reports)?
        .iter()
        .map(|binary| exact::run(binary))
        .collect()
}

fn print(report: &Report, setup: &whole::Setup) {
    if !report.figures.is_empty() {
        println!("### Accounts\n\n{}\n", figure::markdown(&report.figures));
    }
    if !report.exact.is_empty() {
        println!(
            "### By how many bytes the books of two holders change wrongly at each step\n\n\
             A block is its maker's until it is freed, whoever frees or grows it. stats_alloc and \
             cap count the whole process: what a holder has is by how much that changed while it \
             was at work.\n\n{}\n",
            exact::markdown(&report.exact)
        );
    }
    if !report.direct.is_empty() {
        println!(
            "### Account layer compiled in and out, ns per operation\n\n{}\n",
            direct::markdown(&report.direct)
        );
    }
    if !report.programs.is_empty() {
        println!(
            "### Published programs, ratios of CPU time\n\n{}\n",
            whole::markdown(&setup.wanted, &report.programs)
        );
    }
}
