//! A code generator: parses Rust sources into trees, keeps them, prints them.

use super::parallel::parallel;
use crate::suite::Job;

pub fn run(job: &Job) -> u64 {
    let sources = job.corpus.rust();
    let files = sources.portion(job.divisor, 1);
    parallel(job.threads, files.len(), Vec::new, |parsed, index| {
        let Ok(file) = syn::parse_file(files[index]) else {
            return 0;
        };
        let printed = prettyplease::unparse(&file).len();
        parsed.push(file);
        printed as u64
    })
}
