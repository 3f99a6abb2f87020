//! A code search: names and where they stand, keywords counted, literals
//! replaced.

use std::collections::HashMap;

use aho_corasick::AhoCorasick;
use regex::Regex;

use super::parallel::parallel;
use crate::suite::Job;

const KEYWORDS: [&str; 12] = [
    "async", "const", "enum", "impl", "match", "mod", "pub", "struct", "trait", "unsafe", "where",
    "while",
];

pub fn run(job: &Job) -> u64 {
    let sources = job.corpus.rust();
    let files = sources.portion(job.divisor, 1);
    let name = Regex::new(r"\b[A-Za-z_][A-Za-z0-9_]+\b").expect("a valid expression");
    let literal = Regex::new(r#""(?P<text>[^"\\\n]*)""#).expect("a valid expression");
    let keywords = AhoCorasick::new(KEYWORDS).expect("a few words");
    parallel(
        job.threads,
        files.len(),
        HashMap::<String, Vec<u32>>::new,
        |names, index| {
            let text = files[index];
            let mut found = 0;
            for place in name.find_iter(text) {
                names
                    .entry(place.as_str().to_owned())
                    .or_default()
                    .push(place.start() as u32);
                found += 1;
            }
            let counted = keywords.find_iter(text).count() as u64;
            let replaced = literal.replace_all(text, "<${text}>").len() as u64;
            found + counted + replaced
        },
    )
}
