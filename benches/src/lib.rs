//! Benchmarks of bursar beside the published allocators.

pub mod interleave;
pub mod micro;
pub mod peers;
pub mod report;
pub mod statistics;
