//! Benchmarks of bursar beside the published allocators.
