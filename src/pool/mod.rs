//! Pools: contiguous ranges of slices, what they have given out, and the router that picks one.
//! Uses `os`. Spans inside a pool are the extent layer's matter.

pub(crate) mod lowest;

#[cfg(not(loom))]
mod growing;
#[cfg(not(loom))]
pub(crate) mod metadata;
#[cfg(not(loom))]
pub(crate) mod region;
#[cfg(not(loom))]
pub(crate) mod router;
#[cfg(not(loom))]
pub(crate) mod spec;
#[cfg(not(loom))]
mod spec_error;
#[cfg(all(test, not(loom)))]
mod spec_tests;

#[cfg(not(loom))]
pub use growing::AllocFailure;
#[cfg(not(loom))]
pub(crate) use growing::{DEFAULT, Pool, page_rounded};
#[cfg(not(loom))]
pub use spec::{PoolConfig, PoolSpec};
#[cfg(not(loom))]
pub use spec_error::{PoolExcerpt, PoolField, PoolSpecError, PoolSpecMessage, PoolValue};
