//! A global allocator for Linux that keeps accounts.
//!
//! ```
//! #[global_allocator]
//! static GLOBAL: bursar::Bursar = bursar::Bursar::new();
//! # fn main() {}
//! ```
//!
//! What a thread allocates in a consumer's scope is that consumer's until it is freed, by whichever
//! thread:
//!
//! ```
//! # #[cfg(feature = "accounts")] {
//! # #[global_allocator]
//! # static GLOBAL: bursar::Bursar = bursar::Bursar::new();
//! let query = bursar::Consumer::new("query");
//! let sort = query.child("sort");
//! let rows = sort.run(|| vec![0_u64; 1000]);
//! assert_eq!(sort.usage().live_blocks, 1);
//! assert_eq!(query.usage().subtree_live_bytes, sort.usage().live_bytes);
//! std::thread::spawn(move || drop(rows)).join().unwrap();
//! assert_eq!(sort.usage().live_bytes, 0);
//! println!("{}", bursar::report());
//! # }
//! ```
//!
//! Features: `accounts` (default) is consumers and all that belongs to them; `mbuf` (default) is
//! message buffers in memory that processes share; `stream` adds what there is for
//! `futures::Stream`, `serde` makes snapshots and reports serialisable, `requested` counts the bytes
//! that were asked for, `sites` samples where memory was allocated, `allocator-api2` lets containers
//! live in a pool, `check` verifies every structure, `fault-injection` makes system calls fail.
//!
//! The layers, each of which uses only those below it:
//!
//! | layer | what it owns |
//! |---|---|
//! | `facade`, `raw`, `pools`, `task_pool`, `stats`, `exit`, `check` | the `GlobalAlloc` type, blocks by address alone, handles to pools, snapshots, figures at exit, verification |
//! | `mbuf` | message buffers that processes share; apart from the heap |
//! | `account` | consumers, scopes, reservations, budgets, reports, streams |
//! | `arena` | one a thread: bins, the fast paths, books by owner, adoption at thread exit |
//! | `run` | runs of slots: free lists, frees from other threads, owner tags |
//! | `extent` | chunks and slices: first fit by address, large blocks, giving pages back |
//! | `pool` | regions of reserved address space, pools and their backings, routers, the allocator's own records |
//! | `os` | mappings, clock, locks, thread-locals, fork hooks |
//!
//! `units`, `class` and `config` are leaves that every layer may use. `docs/design.md` tells the
//! story of one allocation and one free through all of them.

#![no_std]
// The compiler inlines nothing into a function from which calls lead deeper than an eighth of this:
// the slow paths below the fast ones do.
#![recursion_limit = "1024"]
#![cfg_attr(loom, allow(dead_code))]
// Owners are there at the lower layers; without accounts nobody asks for them.
#![cfg_attr(not(feature = "accounts"), allow(dead_code))]

extern crate std;

#[cfg(all(feature = "accounts", not(loom)))]
mod account;
#[cfg(loom)]
#[path = "account/declared.rs"]
mod declared;
#[cfg(loom)]
#[path = "account/presence.rs"]
mod presence;
#[cfg(loom)]
#[path = "account/stream/queue/mod.rs"]
mod queue;

#[cfg(all(feature = "mbuf", not(loom)))]
mod mbuf;
#[cfg(loom)]
#[path = "mbuf/lock.rs"]
mod mbuf_lock;

mod arena;
mod extent;
mod os;
mod pool;
mod run;

#[cfg(all(feature = "check", not(loom)))]
mod check;
#[cfg(not(loom))]
mod class;
#[cfg(not(loom))]
mod config;
#[cfg(not(loom))]
mod exit;
#[cfg(not(loom))]
mod facade;
#[cfg(not(loom))]
mod pools;
#[cfg(all(feature = "raw", not(loom)))]
pub mod raw;
#[cfg(not(loom))]
mod stats;
#[cfg(all(feature = "accounts", not(loom)))]
mod task_pool;
mod units;

#[cfg(not(loom))]
mod api;
#[cfg(not(loom))]
pub use api::*;
