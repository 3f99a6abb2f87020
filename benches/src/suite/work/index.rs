//! A search engine: paragraphs indexed by several threads, the segments
//! merged, then queried.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use tantivy::collector::Count;
use tantivy::merge_policy::NoMergePolicy;
use tantivy::query::QueryParser;
use tantivy::schema::{STORED, Schema, TEXT};
use tantivy::{Index, IndexWriter, doc};

use crate::suite::Job;

/// What the engine demands at least for each thread.
const BUDGET_BYTES: usize = 15_000_000;

pub fn run(job: &Job) -> u64 {
    let threads = threads();
    let found = index(job).expect("an index in memory does not fail");
    // The engine does not join its threads. Some allocators crash if a thread
    // ends while the process does, which is not what is measured here.
    let patience = Instant::now() + Duration::from_secs(2);
    while self::threads() > threads && Instant::now() < patience {
        thread::sleep(Duration::from_micros(100));
    }
    found
}

/// How many threads this process has.
fn threads() -> usize {
    fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

fn index(job: &Job) -> tantivy::Result<u64> {
    let mut schema = Schema::builder();
    let body = schema.add_text_field("body", TEXT | STORED);
    let index = Index::create_in_ram(schema.build());
    let mut writer: IndexWriter =
        index.writer_with_num_threads(job.threads, BUDGET_BYTES * job.threads)?;
    // Merging at times of its own choice would make each run another one.
    writer.set_merge_policy(Box::new(NoMergePolicy));
    let texts = job.corpus.markdown();
    for text in texts.portion(job.divisor, 1) {
        for paragraph in text.split("\n\n") {
            writer.add_document(doc!(body => paragraph))?;
        }
    }
    writer.commit()?;
    let segments = index.searchable_segment_ids()?;
    writer.merge(&segments).wait()?;
    writer.wait_merging_threads()?;
    let searcher = index.reader()?.searcher();
    let parser = QueryParser::for_index(&index, vec![body]);
    let mut found = searcher.num_docs();
    for query in [
        "allocator",
        "fixed OR added",
        "\"this crate\"",
        "rust AND version",
    ] {
        found += searcher.search(&parser.parse_query(query)?, &Count)? as u64;
    }
    Ok(found)
}
