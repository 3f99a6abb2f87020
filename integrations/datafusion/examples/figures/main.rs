//! Time and memory of the 22 queries: bursar with all accounts, and mimalloc without any.
//!
//! ```text
//! cargo build --release -p bursar-datafusion --examples
//! target/release/examples/figures [SCALE [ROUNDS]]
//! ```
//! Each round starts a process for each, in turn: A B, then B A. Prints medians of rounds with the
//! least and the greatest, and their ratios round by round.

use bursar_tpch::{QUERIES, generate};
use indicatif::ProgressBar;
use std::error::Error;
use std::path::Path;
use std::process::Command;

const CHILDREN: [&str; 2] = ["figures_bursar", "figures_mimalloc"];
const PARTITIONS: usize = 8;

/// What one process measured.
struct Run {
    /// Seconds by query.
    wall: Vec<f64>,
    cpu: Vec<f64>,
    resident: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let scale: f64 = arguments.next().map_or(Ok(1.0), |scale| scale.parse())?;
    let rounds: usize = arguments.next().map_or(Ok(11), |rounds| rounds.parse())?;
    let program = std::env::current_exe()?;
    let examples = program.parent().ok_or("the program is nowhere")?;
    let target = examples.ancestors().nth(2).ok_or("no target directory")?;
    let tables = target.join("tpch").join(format!("scale-{scale}"));
    generate(&tables, scale, |_, _| ())?;
    let mut runs: [Vec<Run>; 2] = [Vec::new(), Vec::new()];
    let bar = ProgressBar::new(2 * rounds as u64);
    for round in 0..rounds {
        for turn in 0..2 {
            let child = (turn + round) % 2;
            runs[child].push(run(&examples.join(CHILDREN[child]), &tables)?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    print(&runs);
    Ok(())
}

fn run(child: &Path, tables: &Path) -> Result<Run, Box<dyn Error>> {
    let threads = std::thread::available_parallelism()?;
    let output = Command::new(child)
        .arg(tables)
        .args([PARTITIONS.to_string(), threads.to_string()])
        .output()
        .map_err(|error| format!("{}: {error}; are all examples built?", child.display()))?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {told}", child.display()).into());
    }
    let mut run = Run {
        wall: Vec::new(),
        cpu: Vec::new(),
        resident: 0.0,
    };
    for line in String::from_utf8(output.stdout)?.lines() {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["resident", bytes] => run.resident = bytes.parse::<f64>()? / f64::from(1 << 20),
            [_, wall, cpu] => {
                run.wall.push(wall.parse::<f64>()? / 1e9);
                run.cpu.push(cpu.parse::<f64>()? / 1e9);
            }
            _ => return Err(format!("what is {line:?}?").into()),
        }
    }
    Ok(run)
}

/// Median, least and greatest.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = if values.len().is_multiple_of(2) {
        (values[middle - 1] + values[middle]) / 2.0
    } else {
        values[middle]
    };
    [median, values[0], values[values.len() - 1]]
}

fn print(runs: &[Vec<Run>; 2]) {
    println!(
        "{:<16}{:>32}{:>32}{:>32}",
        "", "bursar, accounts", "mimalloc, none", "ratio"
    );
    row("wall, s", runs, |run| run.wall.iter().sum());
    row("CPU, s", runs, |run| run.cpu.iter().sum());
    row("peak, MiB", runs, |run| run.resident);
    for query in 0..QUERIES {
        row(&format!("Q{} wall, s", query + 1), runs, |run| {
            run.wall[query]
        });
    }
}

fn row(name: &str, [bursar, mimalloc]: &[Vec<Run>; 2], figure: impl Fn(&Run) -> f64) {
    let of = |runs: &[Run]| runs.iter().map(&figure).collect::<Vec<f64>>();
    let (ours, theirs) = (of(bursar), of(mimalloc));
    let ratios = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs);
    print!("{name:<16}");
    for values in [ours.clone(), theirs.clone(), ratios.collect()] {
        let [median, least, greatest] = spread(values);
        print!(
            "{:>32}",
            format!("{median:.3} ({least:.3} to {greatest:.3})")
        );
    }
    println!();
}
