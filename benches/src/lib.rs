//! Benchmarks of bursar beside the published allocators.
//!
//! | question | command | takes |
//! |---|---|---|
//! | what does one operation cost? | `cargo rows` | 5 minutes |
//! | the same under criterion, with its history | `cargo bench -p bursar-benches --bench micro` | 15 minutes |
//! | what do whole programs gain? | `cargo programs` | 20 minutes, as much again to build |
//! | what do programs in other languages gain? | `cargo run --release -p bursar-benches --no-default-features --bin preloaded -- --library NAME=PATH …` | two minutes a round and library |
//! | what do accounts cost, and are they exact? | `cargo run --profile bench -p bursar-benches --bin accounts` | half an hour; see [`accounts`] |
//! | what do shared messages gain over copied ones? | `cargo run --profile bench -p bursar-benches --bin mbuf` | a minute; see [`messages`] |
//! | what does a second pool gain? | `cargo run --profile bench -p bursar-benches --bin pools` | some seconds; see [`pools`] |
//! | what stays resident? | `cargo run --profile bench -p bursar-benches --bin fragmentation` | see [`fragmentation`] |
//!
//! All run from anywhere in the workspace, whose `.cargo/config.toml` holds
//! the two short names. The peers need a C and a C++ compiler.
//!
//! # One operation: [`micro`], [`interleave`]
//!
//! `cargo rows [FILTER]` calls `GlobalAlloc` directly on every allocator in
//! one process, the allocators in turn for nine rounds, and prints medians
//! and the ratio to the fastest peer with its spread: half the distance
//! between the quartiles of the rounds' ratios. `--rounds`, `--sample-ms`,
//! `--allocators bursar,mimalloc` and `--list` do what they say; the samples
//! go to `bench-reports/rows.json` in the target directory.
//!
//! rpmalloc replaces `pthread_create` in every program that it is linked into,
//! so it runs in a process of its own, in turn with the rest. Criterion shows
//! it with `--features rpmalloc`, all threads then being rpmalloc's.
//!
//! Layouts are constant where the row says so: fat link-time optimisation
//! then folds them into the caller, as it does below `#[global_allocator]`.
//!
//! # Whole programs: [`programs`], [`suite`]
//!
//! `cargo programs [FILTER]` builds one binary for each allocator, runs each
//! program in a process of its own, the allocators in turn, and prints wall
//! time, processor time and peak resident memory as ratios to each peer, with
//! their geometric means; the samples go to `bench-reports/programs.json`.
//! Every run must compute what the others computed. `--lto off` builds
//! in a minute instead of many, and inlines no allocator into its callers.
//!
//! # Programs that know nothing of it: [`programs::preloaded`]
//!
//! The program `preloaded` runs what `allocator-tests/real-programs.sh` runs, and
//! mimalloc-bench's programs where they were built, under each library that it is
//! given, in turn, and prints the same tables; the samples go to
//! `bench-reports/preloaded.json`. Peaks are those of the largest process.
//!
//! # Does it run?
//!
//! `cargo rows --smoke`, `cargo programs --smoke` and `cargo bench -p
//! bursar-benches --bench micro -- --test` run everything once, briefly.

pub mod accounts;
pub mod books;
pub mod fragmentation;
pub mod interleave;
#[cfg(feature = "mbuf")]
pub mod messages;
pub mod micro;
pub mod peers;
#[cfg(feature = "mbuf")]
pub mod pools;
pub mod programs;
pub mod remote;
pub mod report;
pub mod statistics;
pub mod suite;
