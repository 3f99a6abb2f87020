//! A language server: lossless trees of reference-counted nodes, kept as
//! long as the files are open.

use ra_ap_syntax::{Edition, SourceFile};

use super::parallel::parallel;
use crate::suite::Job;

pub fn run(job: &Job) -> u64 {
    let sources = job.corpus.rust();
    let files = sources.portion(job.divisor, 1);
    parallel(job.threads, files.len(), Vec::new, |parsed, index| {
        let parse = SourceFile::parse(files[index], Edition::Edition2024);
        let tokens = parse.syntax_node().descendants_with_tokens().count();
        parsed.push(parse);
        tokens as u64
    })
}
