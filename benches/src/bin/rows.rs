//! All micro benchmarks on all allocators, interleaved, as a markdown table.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bursar_benches::interleave::{self, Lane};
use bursar_benches::peers::{self, Peer};
use bursar_benches::report;
use bursar_benches::statistics::{Summary, geometric_mean};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Measure the micro benchmarks on every allocator, interleaved.
#[derive(Parser)]
struct Arguments {
    /// Only rows whose "group/name" contains this.
    #[arg(default_value = "")]
    filter: String,
    /// Samples for each row and allocator.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Length of a sample in milliseconds.
    #[arg(long, default_value_t = 20)]
    sample_ms: u64,
    /// Only these allocators (comma-separated names).
    #[arg(long, value_delimiter = ',')]
    allocators: Vec<String>,
    /// One short sample of everything: does it run?
    #[arg(long)]
    smoke: bool,
    /// List the rows and end.
    #[arg(long)]
    list: bool,
}

#[derive(Serialize)]
struct Measured {
    group: &'static str,
    name: String,
    /// For each allocator, in the order of the report's list.
    ns: Vec<Summary>,
    samples: Vec<Vec<f64>>,
}

#[derive(Serialize)]
struct Report {
    unix_seconds: u64,
    allocators: Vec<(&'static str, &'static str)>,
    rounds: usize,
    rows: Vec<Measured>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("rows: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: Arguments) -> Result<(), String> {
    if arguments.smoke {
        (arguments.rounds, arguments.sample_ms) = (1, 1);
    }
    let peers = peers::named(&arguments.allocators)?;
    let all = interleave::lanes(&peers)?;
    interleave::refuse_absurdly_slow(&peers, &all)?;
    let wanted = |lane: &Lane| lane.path().contains(&arguments.filter);
    let lanes: Vec<Lane> = all.into_iter().filter(wanted).collect();
    if lanes.is_empty() {
        return Err(format!("no row contains {:?}", arguments.filter));
    }
    if arguments.list {
        lanes.iter().for_each(|lane| println!("{}", lane.path()));
        return Ok(());
    }
    let rows = measure(&lanes, &arguments);
    print(&peers, &rows);
    write(&peers, rows, arguments.rounds).map_err(|error| error.to_string())
}

fn measure(lanes: &[Lane], arguments: &Arguments) -> Vec<Measured> {
    let progress = ProgressBar::new(lanes.len() as u64);
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {elapsed} {msg}")
        .expect("a valid template");
    progress.set_style(style);
    let target = Duration::from_millis(arguments.sample_ms.max(1));
    let measured = lanes
        .iter()
        .map(|lane| {
            progress.set_message(lane.path());
            let samples = lane.measure(arguments.rounds.max(1), target);
            progress.inc(1);
            let ns = samples
                .iter()
                .map(|samples| Summary::of(samples.iter().copied()))
                .collect();
            Measured {
                group: lane.group,
                name: lane.name.clone(),
                ns,
                samples,
            }
        })
        .collect();
    progress.finish_and_clear();
    measured
}

fn print(peers: &[Peer], rows: &[Measured]) {
    let versions: Vec<String> = peers
        .iter()
        .map(|peer| format!("{} {}", peer.name, peer.version))
        .collect();
    println!(
        "Nanoseconds per operation, medians; {}.",
        versions.join(", ")
    );
    println!(
        "The ratio is that of {} to the fastest of the others.\n",
        peers[0].name
    );
    let groups = bursar_benches::micro::GROUPS;
    let mut means = Vec::new();
    for group in groups {
        let rows: Vec<&Measured> = rows.iter().filter(|row| row.group == group).collect();
        if rows.is_empty() {
            continue;
        }
        println!("### {}{}\n", group[..1].to_uppercase(), &group[1..]);
        let mut header = vec!["row".to_owned()];
        header.extend(peers.iter().map(|peer| peer.name.to_owned()));
        header.extend(["ratio".to_owned(), "to".to_owned()]);
        println!(
            "{}\n",
            report::markdown(header, rows.iter().map(|row| line(peers, row)).collect())
        );
        means.push(mean_line(group, peers, &rows));
    }
    let all: Vec<&Measured> = rows.iter().collect();
    means.push(mean_line("all", peers, &all));
    println!(
        "### Geometric means of the ratio of {} to each\n",
        peers[0].name
    );
    let mut header = vec!["group".to_owned()];
    header.extend(peers[1..].iter().map(|peer| peer.name.to_owned()));
    println!("{}", report::markdown(header, means));
}

fn line(peers: &[Peer], row: &Measured) -> Vec<String> {
    let mut cells = vec![row.name.clone()];
    cells.extend(
        row.ns
            .iter()
            .map(|summary| report::nanoseconds(summary.median)),
    );
    let best = (1..peers.len()).min_by(|&a, &b| row.ns[a].median.total_cmp(&row.ns[b].median));
    match best {
        Some(best) => {
            let ratio = Summary::of_ratios(&row.samples[0], &row.samples[best]);
            cells.extend([report::ratio(ratio), peers[best].name.to_owned()]);
        }
        None => cells.extend([String::new(), String::new()]),
    }
    cells
}

fn mean_line(name: &str, peers: &[Peer], rows: &[&Measured]) -> Vec<String> {
    let mut cells = vec![name.to_owned()];
    cells.extend((1..peers.len()).map(|index| {
        let ratios = rows
            .iter()
            .map(|row| row.ns[0].median / row.ns[index].median);
        geometric_mean(ratios).map_or_else(String::new, |mean| format!("{mean:.2}"))
    }));
    cells
}

fn write(peers: &[Peer], rows: Vec<Measured>, rounds: usize) -> std::io::Result<()> {
    let unix_seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    let allocators = peers.iter().map(|peer| (peer.name, peer.version)).collect();
    let path = report::directory()?.join("rows.json");
    report::write_json(
        &path,
        &Report {
            unix_seconds,
            allocators,
            rounds,
            rows,
        },
    )?;
    eprintln!("\nsamples: {}", path.display());
    Ok(())
}
