//! An editor with undo: each version shares most of its tree with the last.

use std::sync::Mutex;

use imbl::{HashMap, OrdMap, Vector};

use super::parallel::parallel;
use crate::suite::Job;

#[derive(Clone)]
struct Document {
    lines: Vector<String>,
    marks: OrdMap<u32, String>,
    counts: HashMap<u32, u32>,
}

pub fn run(job: &Job) -> u64 {
    // The last histories of each thread are dropped by whichever comes next.
    let shelf: Mutex<Vec<Vec<Document>>> = Mutex::new(Vec::new());
    parallel(
        job.threads,
        job.portion(12),
        || (),
        |(), index| {
            let history = edit(index as u64);
            let sum = history.iter().map(size).sum();
            let mut shelf = shelf.lock().expect("no thread panics here");
            shelf.push(history);
            let oldest = if shelf.len() > 4 {
                Some(shelf.remove(0))
            } else {
                None
            };
            drop(shelf);
            drop(oldest);
            sum
        },
    )
}

fn size(document: &Document) -> u64 {
    (document.lines.len() + document.marks.len() + document.counts.len()) as u64
}

fn edit(seed: u64) -> Vec<Document> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut document = Document {
        lines: (0..500).map(|line| format!("line {line}")).collect(),
        marks: OrdMap::new(),
        counts: HashMap::new(),
    };
    let mut history = Vec::new();
    for step in 0..800 {
        let at = random.usize(..document.lines.len());
        document
            .lines
            .insert(at, format!("inserted in step {step}"));
        document
            .marks
            .insert(random.u32(..2000), format!("mark {step}"));
        *document.counts.entry(random.u32(..1000)).or_insert(0) += 1;
        if random.u8(..4) == 0 {
            document.lines.remove(random.usize(..document.lines.len()));
        }
        history.push(document.clone());
    }
    history
}
