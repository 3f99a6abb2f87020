//! Pools: contiguous ranges of slices, what they have given out, and the router that picks one.
//! Uses `os`. Spans inside a pool are the extent layer's matter.

pub(crate) mod gate;
pub(crate) mod lowest;

#[cfg(not(loom))]
mod backing;
#[cfg(not(loom))]
pub(crate) mod bound;
#[cfg(not(loom))]
mod failure;
#[cfg(not(loom))]
pub(crate) mod fixed;
#[cfg(not(loom))]
pub(crate) mod metadata;
#[cfg(not(loom))]
mod order;
#[cfg(not(loom))]
mod record;
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
pub use backing::Backing;
#[cfg(not(loom))]
pub use failure::{AllocFailure, PoolError};
#[cfg(not(loom))]
pub use order::{ByOwner, BySize, Chain, Growing, PoolId, PoolOrder, PoolRequest, Router};
#[cfg(not(loom))]
pub(crate) use record::{DEFAULT, Pool, page_rounded};
#[cfg(not(loom))]
pub use spec::{PoolConfig, PoolSpec};
#[cfg(not(loom))]
pub use spec_error::{PoolExcerpt, PoolField, PoolSpecError, PoolSpecMessage, PoolValue};
