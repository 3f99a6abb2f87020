//! Message buffers in memory that processes share: pools in one sealed file, a head and data in
//! each buffer, holders that may die. Uses the layers below as libraries; the heap knows nothing of
//! it.
//!
//! | file | what it owns |
//! |---|---|
//! | `buffer` | `Mbuf`: one process's hold of a buffer |
//! | `bytes`, `head` | its data and its head, as atomic words |
//! | `set`, `stats` | a set of pools, what a process can do with all of it |
//! | `pool` | what is done with a pool under its lock |
//! | `locked` | a pool's records under its lock; what this process alone knows |
//! | `members` | which processes are attached and alive |
//! | `lock` | the lock word that outlives its holders |
//! | `space` | first fit by address: bitmaps and summaries |
//! | `memory`, `layout` | the mapping, and where in it everything lies |
//! | `check` | verification |
//! | `handle`, `error` | what processes tell each other; what goes wrong |
//!
//! docs/mbuf.md tells what happens when a process dies, and what one that misbehaves can do.

mod buffer;
mod bytes;
#[cfg(any(test, feature = "check"))]
mod check;
mod error;
mod handle;
mod head;
mod layout;
mod lock;
mod locked;
mod members;
mod memory;
mod pool;
mod set;
mod space;
mod stats;
#[cfg(test)]
mod tests;

pub use buffer::{Mbuf, MbufMut};
pub use bytes::{ExclusiveBytes, SharedBytes};
pub use error::MbufError;
pub use handle::{MbufHandle, Peer};
pub use head::{DataType, Head, HeadMut, RouteLabel, Shape};
pub use set::MbufPools;
pub use stats::MbufPoolStats;
