//! Published crates at work, as real programs use them, on real inputs: the
//! sources, documentation and metadata of this package's own locked
//! dependencies.

mod archive;
mod cache;
pub mod child;
mod codecs;
mod database;
mod egraph;
mod index;
mod json;
mod markdown;
mod parallel;
mod persistent;
mod rust_analyzer;
mod script;
mod sets;
mod start;
mod syntax;
mod template;
mod text;

use crate::programs::corpus::Corpus;

/// What one run is asked to do.
pub struct Job<'a> {
    /// The inputs.
    pub corpus: &'a Corpus,
    /// Threads that share the work. With one, the main thread does it.
    pub threads: usize,
    /// Divides the work: 1 to measure, more to see whether it runs.
    pub divisor: usize,
}

impl Job<'_> {
    /// `count` divided by the divisor, at least one.
    fn portion(&self, count: usize) -> usize {
        (count / self.divisor).max(1)
    }
}

/// Runs the program of that name and returns its checksum; `None` if there is
/// no such program.
#[must_use]
pub fn run(name: &str, job: &Job) -> Option<u64> {
    let program = match name {
        "syn" => syntax::run,
        "rust-analyzer" => rust_analyzer::run,
        "serde_json" => json::run,
        "regex" => text::run,
        "tantivy" => index::run,
        "rhai" => script::run,
        "markdown" => markdown::run,
        "egg" => egraph::run,
        "moka" => cache::run,
        "roaring" => sets::run,
        "codecs" => codecs::run,
        "zip" => archive::run,
        "minijinja" => template::run,
        "redb" => database::run,
        "imbl" => persistent::run,
        "empty" => start::empty,
        "idle" => start::idle,
        _ => return None,
    };
    Some(program(job))
}

#[cfg(test)]
mod tests {
    use super::{Job, run};
    use crate::programs::{PROGRAMS, corpus};

    #[test]
    fn every_program_computes_the_same_on_any_number_of_threads() {
        let directory = std::env::temp_dir().join(format!("bursar-corpus-{}", std::process::id()));
        let corpus = corpus::gather(&directory).unwrap();
        for program in PROGRAMS {
            let checksum = |threads| {
                run(
                    program.name,
                    &Job {
                        corpus: &corpus,
                        threads,
                        divisor: 20,
                    },
                )
            };
            let alone = checksum(1).expect(program.name);
            if program.works() {
                assert_ne!(alone, 0, "{} does nothing", program.name);
                assert_eq!(checksum(3), Some(alone), "{}", program.name);
            }
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
