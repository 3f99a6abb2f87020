//! A small group-by over strings on tokio, with its operators as consumers: who holds how much,
//! shown while it runs.
//!
//! `scan` makes words, `partition` deals them out by hash, the `aggregate`s count them, `output`
//! sorts the counts. Batches travel between tasks and threads, so most strings are freed by another
//! thread than the one that made them, and each byte is still its maker's until it is freed or
//! handed over.
//!
//! ```sh
//! cargo run --release --example consumers
//! ```

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use bursar::Consumer;
use tokio::sync::mpsc::{Receiver, Sender, channel};

#[global_allocator]
static GLOBAL: bursar::Bursar = bursar::Bursar::new();

const WORDS: u64 = 6_000_000;
const DISTINCT: u64 = 400_000;
const BATCH: u64 = 4096;
const PARTITIONS: usize = 4;

type Words = Vec<String>;
type Counts = Vec<(String, u64)>;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_time()
        .build()
        .expect("threads can be started");
    runtime.block_on(query());
}

/// Starts the operators, each in the scope of a consumer of its own below the query's.
async fn query() {
    let query = Consumer::new("count words");
    let (batches, scanned) = channel(8);
    let (results, counted) = channel(PARTITIONS);

    let scan_consumer = query.child("scan");
    tokio::spawn(scan_consumer.wrap(scan(batches)));

    let mut inputs = Vec::new();
    for number in 0..PARTITIONS {
        let (input, words) = channel(8);
        let consumer = query.child(format!("aggregate {number}"));
        tokio::spawn(consumer.wrap(aggregate(words, results.clone())));
        inputs.push(input);
    }
    // The output ends when the last aggregate has hung up.
    drop(results);
    tokio::spawn(query.child("partition").wrap(partition(scanned, inputs)));

    let consumer = query.child("output");
    let output = tokio::spawn(consumer.wrap(output(counted, consumer.clone())));

    // Who holds what, while they are at work.
    while !output.is_finished() {
        println!("{}", bursar::report());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let counts = output.await.expect("no operator panics");

    println!("{} distinct words; the most frequent:", counts.len());
    for (word, count) in &counts[..5] {
        println!("{count:8}  {word}");
    }
    println!("\nat the end, with the result alive:\n{}", bursar::report());
    drop(counts);
    let peak = query.usage().subtree_peak_bytes;
    let left = query.usage().subtree_live_bytes;
    println!("peak of the whole query, at most: {peak} bytes; left after it: {left} bytes");
}

/// Makes the words: the same in every run, those of small numbers more often than others.
async fn scan(batches: Sender<Words>) {
    let mut state = 1_u64;
    let mut draw = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % DISTINCT
    };
    for _ in 0..WORDS / BATCH {
        let mut words = Words::new();
        for _ in 0..BATCH {
            let number = draw() * draw() / DISTINCT;
            words.push(format!(
                "word-{number:x}-{}",
                "x".repeat(number as usize % 24)
            ));
        }
        if batches.send(words).await.is_err() {
            return;
        }
    }
}

/// Deals words out to the aggregates, equal words to the same one.
async fn partition(mut scanned: Receiver<Words>, outputs: Vec<Sender<Words>>) {
    let hasher = RandomState::new();
    while let Some(words) = scanned.recv().await {
        let mut parts = vec![Words::new(); outputs.len()];
        for word in words {
            let part = hasher.hash_one(&word) as usize % parts.len();
            parts[part].push(word);
        }
        for (output, part) in outputs.iter().zip(parts) {
            if output.send(part).await.is_err() {
                return;
            }
        }
    }
}

/// Counts words. A word seen before is freed, here and now, to the credit of `scan`; one that is
/// new is copied, and the copy is this aggregate's.
async fn aggregate(mut words: Receiver<Words>, results: Sender<Counts>) {
    let mut counts: HashMap<String, u64> = HashMap::new();
    while let Some(batch) = words.recv().await {
        for word in batch {
            match counts.get_mut(&word) {
                Some(count) => *count += 1,
                None => {
                    counts.insert(word.clone(), 1);
                }
            }
        }
    }
    // The receiver takes it over, or is gone.
    let _ = results.send(counts.into_iter().collect()).await;
}

/// Takes the counts over from the aggregates, and sorts them.
async fn output(mut counted: Receiver<Counts>, me: Consumer) -> Counts {
    let mut all = Counts::new();
    while let Some(mut counts) = counted.recv().await {
        bursar::transfer_all(&mut counts, &me).expect("there is memory for the books");
        all.append(&mut counts);
    }
    all.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    all
}
