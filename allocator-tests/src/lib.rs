//! Tests that install or drive bursar as its users do.
//!
//! | file | what it covers |
//! |---|---|
//! | `tests/contract.rs` | the `GlobalAlloc` contract over sizes and alignments: alignment, overlap, contents over the whole block, `realloc` in all directions, zeroed blocks, `block_size` |
//! | `tests/extremes.rs` | null for what cannot be had, and what must not be touched or copied: GiB sizes, zeroed memory, growth and shrinking |
//! | `tests/listing.rs` | the instructions of the fast paths against the listing in `golden/` |
//! | `tests/model.rs` | the shadow model: shrinking sequences of steps, and many threads |
//! | `tests/threads.rs` | frees from other threads, threads that exit, before `main`, thread-local destructors, exit handlers, unwinding, fork, signals |
//! | `tests/inside.rs` | no allocation inside the allocator; its books against those of a wrapper |
//! | `tests/limits.rs` | limits of address space and data, exhausted mappings, locked memory |
//! | `tests/overcommit.rs` | strict overcommit |
//! | `tests/faults.rs` | each system call of the allocator fails |
//! | `tests/killed.rs` | processes that are killed or run out of memory beside others that share memory with them or do not |
//! | `tests/valgrind.rs` | memcheck |
//! | `tests/memory.rs` | what the kernel says about memory, on which the next rely |
//! | `tests/purging.rs` | resident memory after a peak, in every way that it goes back |
//! | `tests/pools.rs` | configured pools: routes, limits to the byte, contention, fall-through, texts that are refused, routers |
//! | `tests/pool_handles.rs` | pools made at run time: allocators, bound consumers, how they end |
//! | `tests/pool_backings.rs` | what they are made of, and what of it a forked child has |
//! | `tests/settings.rs` | `BURSAR_CONF`, settings in code, `is_installed()` |
//! | `tests/accounts_ledger.rs` | a shadow of the accounts beside the real ones: random consumers, scopes, hand-overs, threads |
//! | `tests/accounts_scopes.rs` | scopes left in any order, forgotten, unwound, in thread-local destructors |
//! | `tests/accounts_tasks.rs` | tokio, rayon, scoped threads, streams |
//! | `tests/accounts_identity.rs` | ids, names, the tree; hundreds of thousands of consumers |
//! | `tests/accounts_exactness.rs` | `realloc`, frees elsewhere, hand-over, classes: to the byte and block |
//! | `tests/accounts_unattributed.rs` | what no consumer claims |
//! | `tests/accounts_peaks.rs` | how far peaks may be above the truth |
//! | `tests/accounts_forks.rs` | accounts in a forked child |
//! | `tests/accounts_memory.rs` | a consumer that ends gives memory back |
//! | `tests/accounts_limits.rs` | limits on real bytes, refusals, pressure |
//! | `tests/reservations.rs`, `tests/budgets.rs` | the protocol of reservations; what each budget admits and refuses, under contention |
//! | `tests/reclaim.rs`, `tests/tracking.rs` | asking the largest holders to free; peaks and finished consumers |
//! | `tests/task_managers.rs`, `tests/task_sequence.rs` | tasks: who works for them, releases, handles, reports; ten thousand in a row |
//! | `tests/task_budgets.rs`, `tests/task_memory.rs` | tasks: budgets and limits; private arenas and pools |
//! | `tests/streams.rs`, `tests/streams_tasks.rs` | streams: bounds, order, errors, weights, ends; under tokio and random schedules |
//! | `tests/mbuf.rs` | message buffers: routing, the acceptance scenario, sizes at their edges |
//! | `tests/mbuf_processes.rs` | message buffers between processes: passing on, limits, death at any moment, forged handles, memory that is scribbled over |
//! | `tests/corpus.rs` | the inputs that fuzzing has kept, and random ones ([`fuzzing`]) |
//! | `tests/statistics.rs` | `stats()`: the parts and the whole, and both against the truth |
//!
//! What must fork, run under a limit or be looked at from outside is a
//! [scenario](scenarios) of a helper program; `child fork_busy` runs one by
//! hand. The shadow tests run as long as one likes:
//!
//! ```sh
//! cargo run --release -p allocator-tests --bin stress -- --ops 100000000 --threads 4
//! cargo run --release -p allocator-tests --bin accounts_stress -- --ops 10000000
//! ```
//!
//! `soak` runs everything at once for minutes or hours, and `races` is for the
//! thread sanitizer: see `docs/reliability.md`.
//!
//! Without optimisation all counts are smaller (see
//! [`scaled`](scenarios::scaled)). `RUST_BACKTRACE=0` and `--nocapture` show the
//! figures that the tests of limits and purging measure.

pub mod accounts;
pub mod blocks;
pub mod cgroup;
pub mod charges;
pub mod flagged;
pub mod fuzzing;
pub mod memory;
pub mod messages;
pub mod pattern;
pub mod process;
pub mod scenarios;
pub mod shadow;
pub mod sizes;
pub mod stress;
pub mod turns;
