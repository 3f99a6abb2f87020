//! The micro benchmarks: short loops that call one allocator directly.
//!
//! Each workload is generic over the allocator, sets itself up outside the
//! time it reports, and is written once: criterion and the `rows` binary run
//! the same code.

mod batches;
pub(crate) mod block;
#[cfg(feature = "accounts")]
pub mod consumers;
mod growth;
mod pairs;
mod replace;
mod threads;
mod zeroed;

use std::alloc::GlobalAlloc;
use std::fmt::Display;
use std::time::Duration;

/// The groups, in the order of the tables.
pub const GROUPS: [&str; 8] = [
    pairs::CONSTANT,
    pairs::RUNTIME,
    batches::GROUP,
    replace::GROUP,
    zeroed::GROUP,
    growth::GROUP,
    threads::EXCHANGE,
    threads::LIFE,
];

/// Groups whose rows allocate on threads of their own.
pub const STARTS_THREADS: [&str; 2] = [threads::EXCHANGE, threads::LIFE];

/// One workload on one allocator.
pub struct Row {
    /// One of [`GROUPS`].
    pub group: &'static str,
    /// What distinguishes it within its group.
    pub name: String,
    /// Runs that many operations and returns the time that they took.
    run: Box<dyn Fn(u64) -> Duration>,
}

impl Row {
    fn new(
        group: &'static str,
        name: impl Display,
        run: impl Fn(u64) -> Duration + 'static,
    ) -> Self {
        Self {
            group,
            name: name.to_string(),
            run: Box::new(run),
        }
    }

    /// The same row, run by something else.
    pub(crate) fn elsewhere(self, run: impl Fn(u64) -> Duration + 'static) -> Self {
        Self {
            run: Box::new(run),
            ..self
        }
    }

    /// The same row under another name.
    #[cfg(feature = "accounts")]
    pub(crate) fn renamed(self, name: impl Display) -> Self {
        Self {
            name: name.to_string(),
            ..self
        }
    }

    /// Runs `operations` operations and returns the time that they took,
    /// without what was set up before and torn down after. Workloads whose
    /// operations come in batches round up, and scale the time back.
    #[must_use]
    pub fn run(&self, operations: u64) -> Duration {
        (self.run)(operations)
    }

    /// Group and name, by which rows are filtered.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }
}

/// All rows of one allocator; the same rows in the same order for each.
#[must_use]
pub fn rows<A: GlobalAlloc + Sync>(allocator: &'static A) -> Vec<Row> {
    let mut rows = pairs::rows(allocator);
    rows.extend(batches::rows(allocator));
    rows.extend(replace::rows(allocator));
    rows.extend(zeroed::rows(allocator));
    rows.extend(growth::rows(allocator));
    rows.extend(threads::rows(allocator));
    rows
}

/// The time of `asked` operations, where `done` of them took `elapsed`.
fn scale(elapsed: Duration, asked: u64, done: u64) -> Duration {
    if asked == done {
        elapsed
    } else {
        elapsed.mul_f64(asked as f64 / done as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::{GROUPS, rows};

    #[test]
    fn every_row_runs_and_belongs_to_a_group() {
        static SYSTEM: std::alloc::System = std::alloc::System;
        let rows = rows(&SYSTEM);
        for group in GROUPS {
            assert!(
                rows.iter().any(|row| row.group == group),
                "{group} has no row"
            );
        }
        for row in &rows {
            assert!(GROUPS.contains(&row.group), "{} is in no group", row.path());
            assert!(!row.run(1).is_zero(), "{} took no time", row.path());
        }
    }
}
