//! Sequences of steps over the whole allocator, beside a shadow of it.
//!
//! | file | what it has |
//! |---|---|
//! | `steps.rs` | the steps |
//! | `world.rs` | blocks and pools, and how a step is taken |
//! | `books.rs` | consumers: what each holds, its limits, the comparison |
//! | `declared.rs` | reservations and their budget |
//! | `crew.rs` | threads, of which one at a time does something |
//!
//! A sequence is taken the same way each time: its threads take turns. bursar
//! is not installed where this runs, so that its books must equal the shadow's.

mod books;
mod crew;
mod declared;
mod steps;
mod world;

use arbitrary::Arbitrary;
use bursar::Bursar;

use crew::Crew;
pub use steps::{Align, Change, Size, Step};
use world::World;

use super::{Found, holds, same};

/// A sequence.
#[derive(Arbitrary, Clone, Debug)]
pub struct Sequence {
    /// Bytes of a budget that refuses; none for one that admits everything.
    pub budget: Option<u16>,
    /// Whether consumers go before the blocks that they hold, at the end.
    pub departs_first: bool,
    /// Its steps.
    pub steps: Vec<Step>,
}

/// Takes all steps, compares, and leaves the heap as empty as it was.
///
/// # Errors
/// The first difference between what should be and what is.
pub fn run(heap: &'static Bursar, sequence: &Sequence) -> Found {
    let mut crew = Crew::new(Box::new(World::new(heap, sequence.budget)));
    for &step in &sequence.steps {
        match step {
            Step::Turn(place) => crew.turn(place)?,
            Step::Exit(place) => crew.exit(place)?,
            step => crew.push(step),
        }
    }
    crew.end()?.end(sequence.departs_first)
}
