//! Spans of slices: first fit by address, large blocks, and giving pages back. Uses `pool` and
//! `os`; what a run does with its span is the run layer's matter.

pub(crate) mod bits;
pub(crate) mod chunk;
pub(crate) mod places;
pub(crate) mod purges;

#[cfg(not(loom))]
mod across;
#[cfg(not(loom))]
pub(crate) mod decay;
#[cfg(not(loom))]
mod demand;
#[cfg(not(loom))]
pub(crate) mod descriptor;
#[cfg(not(loom))]
pub(crate) mod fit;
#[cfg(all(test, not(loom)))]
mod fit_tests;
#[cfg(not(loom))]
pub(crate) mod guard;
#[cfg(not(loom))]
pub(crate) mod large;
#[cfg(not(loom))]
pub(crate) mod survey;
