//! Arenas: one a thread. Each has bins for every owner that fills runs of its own, mixed bins for
//! the others, and the books of what the thread allocated and freed. Uses `run` and `extent`.
//!
//! A thread's words lead to its arena and to the bins of its current owner. Fast paths touch only
//! those bins ([`fast`]); all else goes through [`slow`].

pub(crate) mod orphans;
mod queue;

#[cfg(not(loom))]
mod batches;
#[cfg(not(loom))]
pub(crate) mod bins;
#[cfg(not(loom))]
mod booking;
pub(crate) mod counter;
#[cfg(not(loom))]
pub(crate) mod fast;
#[cfg(not(loom))]
pub(crate) mod large;
#[cfg(not(loom))]
pub(crate) mod ledger;
#[cfg(not(loom))]
mod ledgers;
pub(crate) mod lent;
#[cfg(not(loom))]
pub(crate) mod life;
#[cfg(not(loom))]
pub(crate) mod lookup;
#[cfg(not(loom))]
mod loose;
#[cfg(not(loom))]
mod mixed;
#[cfg(not(loom))]
mod notified;
#[cfg(not(loom))]
pub(crate) mod owner;
#[cfg(not(loom))]
pub(crate) mod owners;
#[cfg(not(loom))]
mod quarantine;
#[cfg(not(loom))]
mod record;
#[cfg(all(feature = "check", not(loom)))]
pub(crate) mod recount;
#[cfg(not(loom))]
pub(crate) mod requested;
#[cfg(not(loom))]
mod room;
#[cfg(not(loom))]
mod scopes;
#[cfg(not(loom))]
mod secure;
#[cfg(all(feature = "sites", not(loom)))]
pub(crate) mod sites;
#[cfg(all(not(feature = "sites"), not(loom)))]
#[path = "sites/off.rs"]
pub(crate) mod sites;
#[cfg(loom)]
#[path = "sites/table.rs"]
mod sites_table;
#[cfg(not(loom))]
pub(crate) mod slow;
#[cfg(not(loom))]
pub(crate) mod trim;
#[cfg(not(loom))]
mod unused;

#[cfg(not(loom))]
pub(crate) use record::{Arena, Life};
