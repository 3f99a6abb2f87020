//! What a child tells its driver: one record a line, as JSON, on stdout.
//!
//! Writing one allocates nothing (numbers and static names only); the driver
//! parses them back into the same types.

use super::plan::Phase;
use serde::{Deserialize, Serialize};

/// A line of a child's output.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// Once every few milliseconds.
    Sample(Sample),
    /// At the end of each phase, while all workers wait.
    Mark(Mark),
    /// The last line of a run that came to its end.
    End(End),
}

/// The state at one moment of the work.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Since the work began.
    pub at_us: u64,
    /// The phase it falls in.
    pub phase: Phase,
    /// Rounds done, of all phases.
    pub rounds: u64,
    /// Allocations, frees and resizings so far.
    pub operations: u64,
    /// Requested bytes alive.
    pub live_bytes: u64,
    /// Resident bytes, from `/proc/self/statm`.
    pub resident_bytes: u64,
}

/// The end of a phase. All counts are since the work began.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// The phase that ended.
    pub phase: Phase,
    /// Since the work began.
    pub at_us: u64,
    /// Rounds done, of all phases.
    pub rounds: u64,
    /// Allocations, frees and resizings so far.
    pub operations: u64,
    /// Requested bytes alive: exact.
    pub live_bytes: u64,
    /// Resident bytes, from `/proc/self/smaps_rollup`: exact.
    pub resident_bytes: u64,
    /// Those of them that the kernel may take back when it runs short.
    pub lazily_freed_bytes: u64,
    /// Processor time of all threads outside the kernel.
    pub user_us: u64,
    /// Processor time of all threads inside the kernel.
    pub system_us: u64,
}

impl From<&Mark> for Sample {
    fn from(mark: &Mark) -> Self {
        Self {
            at_us: mark.at_us,
            phase: mark.phase,
            rounds: mark.rounds,
            operations: mark.operations,
            live_bytes: mark.live_bytes,
            resident_bytes: mark.resident_bytes,
        }
    }
}

/// What is known once all is over.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// The most that was ever resident, as the kernel counted it.
    pub peak_resident_bytes: u64,
    /// Page faults that needed no input or output.
    pub page_faults: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let end = Record::End(End {
            peak_resident_bytes: u64::MAX,
            page_faults: 3,
        });
        let sample = Record::Sample(Sample {
            at_us: 1,
            phase: Phase::Steady,
            rounds: 2,
            operations: 3,
            live_bytes: 4,
            resident_bytes: 5,
        });
        for record in [end, sample] {
            let line = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
        }
    }
}
