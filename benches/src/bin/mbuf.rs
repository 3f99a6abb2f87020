//! Messages in shared memory beside copied ones; see
//! [`bursar_benches::messages`].

use std::os::unix::net::UnixStream;

use bursar_benches::messages::{Run, Way, Work};
use bursar_benches::statistics::Summary;
use clap::{Parser, Subcommand};
use comfy_table::Table;

/// Throughput of messages between two processes, in shared memory and copied
/// through a socket pair, in turn; medians.
#[derive(Parser)]
struct Options {
    /// Rounds of both ways in turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Bytes of each run's messages together, in MiB.
    #[arg(long, default_value_t = 512)]
    mib: u64,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// What the measuring process starts.
    Receive {
        way: Way,
        work: Work,
        len: usize,
        messages: u64,
    },
}

const LENGTHS: [usize; 4] = [4 << 10, 16 << 10, 64 << 10, 1 << 20];
/// More messages than this are not sent in one run.
const MOST: u64 = 40_000;

fn main() {
    let options = Options::parse();
    if let Some(Part::Receive {
        way,
        work,
        len,
        messages,
    }) = options.part
    {
        let link = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned();
        let link = UnixStream::from(link.expect("standard input is the link"));
        let run = Run {
            way,
            work,
            len,
            messages,
        };
        return run.receive(link);
    }
    let mut table = Table::new();
    table.set_header(["bytes", "both touch", "shared us", "copied us", "ratio"]);
    for len in LENGTHS {
        for work in [Work::Ends, Work::Pages, Work::All] {
            let messages = ((options.mib << 20) / len as u64).min(MOST);
            let run = |way| {
                let run = Run {
                    way,
                    work,
                    len,
                    messages,
                };
                run.time().as_secs_f64() * 1e6 / messages as f64
            };
            let rounds: Vec<[f64; 2]> = (0..options.rounds)
                .map(|_| [Way::Shared, Way::Copied].map(run))
                .collect();
            let of = |value: fn(&[f64; 2]) -> f64| Summary::of(rounds.iter().map(value)).median;
            table.add_row([
                len.to_string(),
                work.name().into(),
                format!("{:.2}", of(|round| round[0])),
                format!("{:.2}", of(|round| round[1])),
                format!("{:.1}", of(|round| round[1] / round[0])),
            ]);
        }
    }
    println!("{table}");
}
