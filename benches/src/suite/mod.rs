//! Published crates at work, as real programs use them, on real inputs: the
//! sources, documentation and metadata of this package's own locked
//! dependencies. Without the feature `programs` only what shows the cost of
//! starting is there.

pub mod child;
mod start;
#[cfg(feature = "programs")]
mod work;

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

/// Runs the program of that name and returns its checksum; `None` if there is
/// no such program in this build.
#[must_use]
pub fn run(name: &str, job: &Job) -> Option<u64> {
    match name {
        "empty" => Some(start::empty(job)),
        "idle" => Some(start::idle(job)),
        #[cfg(feature = "programs")]
        _ => work::find(name).map(|program| program(job)),
        #[cfg(not(feature = "programs"))]
        _ => None,
    }
}

#[cfg(all(test, feature = "programs"))]
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
