//! Benchmarks of bursar beside the published allocators.

pub mod fragmentation;
pub mod interleave;
pub mod micro;
pub mod peers;
pub mod programs;
pub mod report;
pub mod statistics;
#[cfg(feature = "programs")]
pub mod suite;
