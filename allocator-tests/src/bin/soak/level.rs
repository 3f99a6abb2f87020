//! What the program holds between two cycles, and whether that grows.

use std::fmt;
use std::thread::sleep;
use std::time::Duration;

use allocator_tests::memory::Memory;
use bursar::{Pool, PoolId};

/// The figures of one moment, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Level([u64; FIGURES]);

const FIGURES: usize = 5;

/// By how much the last third may be above the one before it.
///
/// Resident and mapped memory have in them what the C library and the kernel
/// keep for threads.
const BOUNDS: [(&str, u64, u64); FIGURES] = [
    ("resident", 512 << 10, SETTLING),
    ("mapped, but for what is reserved", 2 << 20, SETTLING),
    // Addresses, not memory: for the most that the threads ever held at once,
    // which differs by some tens of MiB from run to run.
    ("mapped by bursar", 32 << 20, SETTLING),
    ("bursar's records", 256 << 10, SETTLING),
    ("allocated", 128 << 10, 0),
];

/// The allocator keeps its records for each consumer on each thread that was
/// ever at work for it. Consumers and threads take turns in the places that
/// there are, so that this comes to an end, which takes that many cycles.
const SETTLED: usize = 250;
/// How much there may be of that where the last third begins sooner.
const SETTLING: u64 = 1 << 20;

impl Level {
    /// The figures now. Everything is given back first, and every structure is
    /// verified; no other thread may be at work.
    fn now() -> Result<Self, String> {
        // What ends with its last look is over.
        drop(bursar::report());
        bursar::purge();
        bursar::check().map_err(|broken| broken.to_string())?;
        let (memory, stats) = (Memory::now(), bursar::stats());
        let left = bursar::consumers();
        if let Some(one) = left.iter().find(|one| one.id != u64::MAX) {
            return Err(format!("a consumer is left: {one:?}"));
        }
        if let Some(task) = bursar::running_tasks().iter().next() {
            return Err(format!("a task is left: {task:?}"));
        }
        if let Some(pool) = bursar::pools().find(|pool| !is_for_good(pool.id)) {
            return Err(format!("a pool is left: {pool:?}"));
        }
        Ok(Self([
            memory.anonymous,
            memory.mapped.saturating_sub(stats.reserved_bytes),
            stats.mapped_bytes,
            stats.metadata_bytes,
            stats.allocated_bytes,
        ]))
    }
}

/// Whether a pool is the growing one, or a configured one: they never end.
fn is_for_good(id: PoolId) -> bool {
    let mut configured = (0..).map_while(Pool::configured);
    id == PoolId::GROWING || configured.any(|pool| pool.id() == id)
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (bytes, (name, ..))) in self.0.iter().zip(BOUNDS).enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{name} {} KiB", bytes >> 10)?;
        }
        Ok(())
    }
}

/// The figures after each cycle.
pub struct Levels(Vec<Level>);

/// Room from the start, so that keeping the figures is no growth.
const ROOM: usize = 1 << 16;
/// Cycles that there must be, however short the run.
const LEAST: usize = 64;

impl Levels {
    pub fn new() -> Self {
        let mut levels = vec![Level([0; FIGURES]); ROOM];
        levels.clear();
        Self(levels)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn are_too_few(&self) -> bool {
        self.len() < LEAST
    }

    /// Looks at the figures after a cycle.
    pub fn take(&mut self) -> Result<Level, String> {
        // Threads that were joined are on their last steps.
        sleep(Duration::from_millis(5));
        let level = Level::now()?;
        if self.len() < ROOM {
            self.0.push(level);
        }
        Ok(level)
    }

    /// The median of each figure over a third of the run.
    fn third(&self, number: usize) -> Level {
        let part = self.len() / 3;
        let levels = &self.0[number * part..(number + 1) * part];
        Level(std::array::from_fn(|figure| {
            let mut values: Vec<_> = levels.iter().map(|level| level.0[figure]).collect();
            values.sort_unstable();
            values[values.len() / 2]
        }))
    }

    /// An error if a figure has grown from the second third to the last.
    pub fn compare(&self) -> Result<(), String> {
        let (second, last) = (self.third(1), self.third(2));
        let is_settled = self.len() / 3 >= SETTLED;
        for (figure, (name, bound, settling)) in BOUNDS.into_iter().enumerate() {
            let (from, to) = (second.0[figure], last.0[figure]);
            let bound = bound + if is_settled { 0 } else { settling };
            if to > from + bound {
                return Err(format!(
                    "{name}: from {from} to {to} bytes, by more than {bound}"
                ));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} cycles; medians of", self.len())?;
        for (number, name) in ["first", "second", "last"].into_iter().enumerate() {
            let end = if number == 2 { "" } else { "\n" };
            write!(f, "  the {name} third: {}{end}", self.third(number))?;
        }
        Ok(())
    }
}
