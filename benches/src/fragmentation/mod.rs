//! A long, shifting workload, and what it leaves of the memory under each
//! allocator.
//!
//! ```text
//!   bin/fragmentation.rs            bin/frag_<allocator>.rs, a process each
//!   driver: builds, starts,  ----->  child: workers run the phases of the plan
//!           watches, tabulates <---  sampler: lines of JSON on stdout
//! ```
//!
//! Layers, each using only those below it:
//! - [`driver`]: the command; [`report`] and [`plot`] show, [`run`] starts the
//!   children, [`figures`] turns their records into figures
//! - [`child`]: the main function of the binaries that carry an allocator;
//!   [`sampler`] writes its records
//! - [`crew`]: the threads and their rounds; [`worker`]: what one of them does
//! - [`plan`]: which phases, how many rounds, how many bytes; [`mix`]: sizes
//! - [`shelf`]: blocks and tables of blocks; [`ledger`]: their exact bytes
//! - [`record`]: what a child tells its driver
//!
//! All allocators do the same work: each choice follows from the seed, and the
//! count of rounds, not the clock, ends a phase.

pub mod child;
pub mod crew;
pub mod driver;
pub mod figures;
pub mod ledger;
pub mod mix;
pub mod plan;
pub mod plot;
pub mod record;
pub mod report;
pub mod run;
pub mod sampler;
pub mod shelf;
pub mod worker;
