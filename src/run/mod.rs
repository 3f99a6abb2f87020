//! Runs: spans cut into slots of one size class. Uses `extent`; which thread and whose consumer a
//! run serves is the arena layer's matter.
//!
//! ```text
//! slots = unavailable + used + free + waiting
//! ```
//! A slot is *available* once all units that it touches are extended: a unit is an OS page where
//! slots share pages, else a slot. Slots that were never available have never been touched.
//! Available slots are used, on the free list, or wait on the remote list for the owner.

pub(crate) mod extended;
pub(crate) mod links;
pub(crate) mod remote;

#[cfg(not(loom))]
pub(crate) mod descriptor;
#[cfg(not(loom))]
pub(crate) mod marks;
#[cfg(not(loom))]
mod slots;
#[cfg(not(loom))]
pub(crate) mod sparse;
#[cfg(not(loom))]
pub(crate) mod tags;
#[cfg(not(loom))]
pub(crate) mod watch;
