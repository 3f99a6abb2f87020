//! What an item of a stream costs beside an item of a bounded channel of crossbeam's, in turn. Both
//! make their items in the scope of a consumer; the channel neither weighs nor declares them.

use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use bursar::Consumer;
use bursar::stream::{Bounds, bounded};
use bursar_benches::accounts::figure::{self, Figure};
use bursar_benches::report;
use bursar_benches::statistics::Summary;
use clap::Parser;
use serde::Serialize;

#[global_allocator]
static GLOBAL: bursar::Bursar = bursar::Bursar::new();

/// Measure what an item of a stream costs beside one of a bounded channel.
#[derive(Parser)]
struct Arguments {
    /// Samples of each.
    #[arg(long, default_value_t = 21)]
    rounds: usize,
    /// Items of a sample.
    #[arg(long, default_value_t = 200_000)]
    items: u64,
    /// Only rows whose name contains this.
    #[arg(default_value = "")]
    filter: String,
    /// One short sample of everything: does it run?
    #[arg(long)]
    smoke: bool,
}

/// More nanoseconds than an item of the channel: the promise.
const AT_MOST_NS: f64 = 100.0;

/// A way to move items: how long it took, in nanoseconds an item.
type Way = fn(items: u64, room: usize) -> f64;

struct Row {
    what: &'static str,
    channel: Way,
    stream: Way,
}

const ROWS: [Row; 4] = [
    Row {
        what: "two threads, numbers",
        channel: |items, room| channel(items, room, |n| n),
        stream: |items, room| stream(items, room, |n| n),
    },
    Row {
        what: "two threads, boxes of 64 bytes, weighed",
        channel: |items, room| channel(items, room, |n| Box::new([n; 8])),
        stream: |items, room| stream(items, room, |n| Box::new([n; 8])),
    },
    Row {
        what: "two threads, vectors of a string each, weighed",
        channel: |items, room| channel(items, room, strings),
        stream: |items, room| stream(items, room, strings),
    },
    Row {
        what: "one thread, boxes of 64 bytes, weighed",
        channel: channel_of_one_thread,
        stream: stream_of_one_thread,
    },
];

fn strings(number: u64) -> Vec<String> {
    vec![String::with_capacity(100 + number as usize % 100)]
}

fn timed(items: u64, work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_nanos() as f64 / items as f64
}

fn channel<T: Send>(items: u64, room: usize, make: impl Fn(u64) -> T + Send) -> f64 {
    let from = Consumer::new("producer");
    let (sender, receiver) = crossbeam_channel::bounded(room);
    timed(items, || {
        thread::scope(|scope| {
            scope.spawn(move || {
                for n in 0..items {
                    let item = from.run(|| make(n));
                    sender.send(item).expect("it is received");
                }
            });
            assert_eq!(receiver.into_iter().count() as u64, items);
        });
    })
}

fn stream<T: Send>(items: u64, room: usize, make: impl Fn(u64) -> T + Send) -> f64 {
    let [from, to] = ["producer", "receiver"].map(Consumer::new);
    let (mut producer, receiver) = bounded(&from, bounds(room));
    let receiver = receiver.charged_to(&to);
    timed(items, || {
        thread::scope(|scope| {
            scope.spawn(move || {
                (0..items).for_each(|n| producer.produce(|| make(n)).expect("it is received"));
                producer.finish();
            });
            assert_eq!(receiver.into_iter().flatten().count() as u64, items);
        });
    })
}

fn channel_of_one_thread(items: u64, room: usize) -> f64 {
    let from = Consumer::new("producer");
    let (sender, receiver) = crossbeam_channel::bounded(room);
    timed(items, || {
        for _ in 0..items / room as u64 {
            for n in 0..room as u64 {
                let item = from.run(|| Box::new([n; 8]));
                sender.send(item).expect("there is room");
            }
            assert_eq!(receiver.try_iter().count(), room);
        }
    })
}

fn stream_of_one_thread(items: u64, room: usize) -> f64 {
    let [from, to] = ["producer", "receiver"].map(Consumer::new);
    let (mut producer, receiver) = bounded(&from, bounds(room));
    let mut receiver = receiver.charged_to(&to);
    timed(items, || {
        for _ in 0..items / room as u64 {
            for n in 0..room as u64 {
                producer
                    .produce(|| Box::new([n; 8]))
                    .expect("there is room");
            }
            let received = (&mut receiver).into_iter().take(room).flatten().count();
            assert_eq!(received, room);
        }
    })
}

/// Bytes do not hold anybody back here.
fn bounds(room: usize) -> Bounds {
    Bounds {
        items: room,
        bytes: 1 << 30,
    }
}

#[derive(Serialize)]
struct Measured {
    what: String,
    channel_ns: Vec<f64>,
    stream_ns: Vec<f64>,
}

impl Measured {
    fn take(row: &Row, room: usize, arguments: &Arguments) -> Measured {
        let mut measured = Measured {
            what: format!("{}, room for {room}", row.what),
            channel_ns: Vec::new(),
            stream_ns: Vec::new(),
        };
        for round in 0..arguments.rounds {
            for turn in 0..2 {
                if (round + turn) % 2 == 0 {
                    measured
                        .channel_ns
                        .push((row.channel)(arguments.items, room));
                } else {
                    measured.stream_ns.push((row.stream)(arguments.items, room));
                }
            }
        }
        measured
    }

    fn figures(&self) -> [Figure; 2] {
        let pairs = self.channel_ns.iter().zip(&self.stream_ns);
        let more = Summary::of(pairs.map(|(channel, stream)| stream - channel));
        let channel = Summary::of(self.channel_ns.iter().copied());
        let more_of = format!("{}: a stream's item, more than a channel's", self.what);
        [
            Figure::new(more_of, more, "ns", Some(AT_MOST_NS)),
            Figure::new(
                format!("{}: a channel's item", self.what),
                channel,
                "ns",
                None,
            ),
        ]
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if arguments.smoke {
        (arguments.rounds, arguments.items) = (1, 4096);
    }
    let rooms = [64, 1024];
    let measured: Vec<Measured> = ROWS
        .iter()
        .filter(|row| row.what.contains(&arguments.filter))
        .flat_map(|row| rooms.map(|room| Measured::take(row, room, &arguments)))
        .collect();
    let figures: Vec<Figure> = measured.iter().flat_map(Measured::figures).collect();
    println!("### Streams\n\n{}", figure::markdown(&figures));
    let written = report::directory()
        .map(|directory| directory.join("streams.json"))
        .and_then(|path| report::write_json(&path, &measured).map(|()| path));
    match written {
        Ok(path) => {
            eprintln!("\nsamples: {}", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("streams: {error}");
            ExitCode::FAILURE
        }
    }
}
