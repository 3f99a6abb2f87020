//! How much memory many consumers take: eight threads hold 20 small objects
//! for each of 1,000 consumers, and the same without consumers.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::Command;
#[cfg(feature = "bursar")]
use std::{sync::Barrier, thread};

use serde::{Deserialize, Serialize};

#[cfg(feature = "bursar")]
use crate::micro::block::{Block, Draw};

/// Objects of each consumer on each thread.
#[cfg(feature = "bursar")]
const OBJECTS: usize = 20;
/// Threads.
#[cfg(feature = "bursar")]
const THREADS: usize = 8;

/// What a process is to do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Consumers, each of which is entered on each thread.
    pub consumers: usize,
    /// Nobody is entered, and as many objects are held.
    pub nobody: bool,
    /// Each consumer takes one object in its turn, rather than all at once.
    pub in_turn: bool,
}

/// What it held.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Held {
    /// Anonymous memory of the process while all is held.
    pub resident_bytes: u64,
    /// Bytes that were asked for.
    pub asked_bytes: u64,
}

/// Runs one process.
///
/// # Errors
/// If it cannot be started, fails, or says nothing.
pub fn run(binary: &Path, plan: Plan) -> io::Result<Held> {
    let output = Command::new(binary)
        .args(["resident", &serde_json::to_string(&plan)?])
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Does what the plan says and measures this process.
///
/// # Errors
/// If the kernel does not tell what is resident.
#[cfg(feature = "bursar")]
pub fn hold(plan: Plan) -> io::Result<Held> {
    let crowd = Crowd::new(plan);
    let (held, measured) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let (crowd, held, measured) = (&crowd, &held, &measured);
                scope.spawn(move || {
                    let blocks = take(plan, crowd, number as u64);
                    held.wait();
                    measured.wait();
                    give(blocks)
                })
            })
            .collect();
        held.wait();
        let resident_bytes = anonymous_bytes();
        let booked = crowd.booked_blocks();
        measured.wait();
        let blocks = THREADS * plan.consumers * OBJECTS;
        assert_eq!(booked, if plan.nobody { 0 } else { blocks as u64 });
        let asked = threads
            .into_iter()
            .map(|thread| thread.join().expect("the thread ends well"));
        Ok(Held {
            asked_bytes: asked.sum(),
            resident_bytes: resident_bytes?,
        })
    })
}

/// Objects of one thread, in the order of the plan.
#[cfg(feature = "bursar")]
fn take(plan: Plan, crowd: &Crowd, seed: u64) -> Vec<Block> {
    let mut blocks = Vec::with_capacity(plan.consumers * OBJECTS);
    let mut draw = Draw::with_seed(16..=256, seed);
    let (passes, at_once) = if plan.in_turn {
        (OBJECTS, 1)
    } else {
        (1, OBJECTS)
    };
    for _ in 0..passes {
        for consumer in 0..plan.consumers {
            crowd.enter(consumer, || {
                for _ in 0..at_once {
                    blocks.push(Block::take(&bursar::Bursar::new(), draw.next(1).1));
                }
            });
        }
    }
    blocks
}

#[cfg(feature = "bursar")]
fn give(blocks: Vec<Block>) -> u64 {
    let asked = blocks.iter().map(|block| block.size() as u64).sum();
    for block in blocks {
        block.give(&bursar::Bursar::new());
    }
    asked
}

/// The consumers, or nobody.
#[cfg(feature = "accounts")]
struct Crowd(Vec<bursar::Consumer>);

#[cfg(feature = "accounts")]
impl Crowd {
    fn new(plan: Plan) -> Self {
        let count = if plan.nobody { 0 } else { plan.consumers };
        let name = |number| bursar::Consumer::new(format!("consumer {number}"));
        Self((0..count).map(name).collect())
    }

    fn enter(&self, number: usize, work: impl FnOnce()) {
        match self.0.get(number) {
            Some(consumer) => consumer.run(work),
            None => work(),
        }
    }

    /// Blocks that the consumers have alive.
    fn booked_blocks(&self) -> u64 {
        self.0.iter().map(|one| one.usage().live_blocks).sum()
    }
}

/// Nobody: the account layer is not in this binary.
#[cfg(all(feature = "bursar", not(feature = "accounts")))]
struct Crowd;

#[cfg(all(feature = "bursar", not(feature = "accounts")))]
impl Crowd {
    fn new(plan: Plan) -> Self {
        assert!(plan.nobody, "there are no consumers in this binary");
        Self
    }

    fn enter(&self, _: usize, work: impl FnOnce()) {
        work();
    }

    fn booked_blocks(&self) -> u64 {
        0
    }
}

/// Anonymous memory of this process, counted page by page: `VmRSS` is up to a
/// quarter of a MiB behind. Allocates nothing.
#[cfg_attr(not(feature = "bursar"), allow(dead_code))]
fn anonymous_bytes() -> io::Result<u64> {
    let mut buffer = [0_u8; 4096];
    let length = File::open("/proc/self/smaps_rollup")?.read(&mut buffer)?;
    let text = std::str::from_utf8(&buffer[..length]).map_err(io::Error::other)?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib << 10)
        .ok_or_else(|| io::Error::other("the kernel does not tell what is resident"))
}

#[cfg(test)]
mod tests {
    use super::anonymous_bytes;

    #[test]
    fn what_is_touched_is_resident() {
        let before = anonymous_bytes().unwrap();
        let block = std::hint::black_box(vec![1_u8; 16 << 20]);
        let after = anonymous_bytes().unwrap();
        drop(block);
        assert!(after >= before + (15 << 20), "{before}, then {after}");
    }

    #[cfg(feature = "accounts")]
    #[test]
    fn as_much_is_asked_for_with_consumers_as_without() {
        let plan = super::Plan {
            consumers: 10,
            nobody: true,
            in_turn: false,
        };
        let with = super::Plan {
            nobody: false,
            in_turn: true,
            ..plan
        };
        let asked = [plan, with].map(|plan| super::hold(plan).unwrap().asked_bytes);
        assert_eq!(asked[0], asked[1]);
        assert!(asked[0] > 10 * 20 * 8 * 16);
    }
}
