//! Routers: in which order pools are tried, as the program sees it.

use super::bound;
use super::record::GROWING_ID;
use super::router::configured;
use super::spec::MOST_POOLS;
use crate::units::OwnerTag;

/// Which pool: its number never becomes another's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct PoolId(pub(crate) u32);

impl PoolId {
    /// The pool that grows as the kernel lets it.
    pub const GROWING: PoolId = PoolId(GROWING_ID);

    /// The configured pool at `index`, from 0 in the order of the string.
    pub const fn configured(index: u8) -> PoolId {
        PoolId(index as u32)
    }
}

/// What a router is asked to find pools for.
#[derive(Clone, Copy, Debug)]
pub struct PoolRequest {
    pub(super) size: u64,
    pub(super) align: u64,
    pub(super) owner: OwnerTag,
}

impl PoolRequest {
    /// Bytes that the program asked for; for a block that shares a run with others any of the sizes
    /// that the run serves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The alignment that it asked for.
    pub fn align(&self) -> u64 {
        self.align
    }

    /// Whose the block will be.
    pub fn owner(&self) -> OwnerTag {
        self.owner
    }
}

/// The order in which pools are tried.
pub struct PoolOrder {
    ids: [PoolId; PoolOrder::MOST],
    len: usize,
}

impl PoolOrder {
    const MOST: usize = 2 * MOST_POOLS;

    pub(super) const fn new() -> PoolOrder {
        PoolOrder {
            ids: [PoolId::GROWING; PoolOrder::MOST],
            len: 0,
        }
    }

    /// Has a pool tried after all others so far. A pool that is there already stays where it is; a
    /// pool that has ended, or whose limit is below the request, is passed over. At most 256.
    pub fn push(&mut self, pool: PoolId) {
        if self.len < PoolOrder::MOST && !self.as_slice().contains(&pool) {
            self.ids[self.len] = pool;
            self.len += 1;
        }
    }

    /// The pools so far.
    pub fn as_slice(&self) -> &[PoolId] {
        &self.ids[..self.len]
    }
}

/// Decides which pools serve a request, and in which order.
///
/// A router is part of the program, and asked by whichever thread needs memory: where a run or a
/// span is acquired, never for a block that a run at hand can serve. Should it allocate, what it
/// allocates is served by the default router; should it panic, the process ends. It must not wait
/// for another thread that may be waiting for memory.
///
/// ```
/// use bursar::{BySize, Growing, PoolId, PoolOrder, PoolRequest, Router};
///
/// /// What is aligned to pages goes to the second pool.
/// struct ByAlignment;
///
/// impl Router for ByAlignment {
///     fn route(&self, request: &PoolRequest, order: &mut PoolOrder) {
///         if request.align() >= 4096 {
///             order.push(PoolId::configured(1));
///         }
///         BySize.route(request, order);
///         Growing.route(request, order);
///     }
///
///     fn heeds_owner(&self) -> bool {
///         false
///     }
/// }
///
/// static ROUTER: ByAlignment = ByAlignment;
/// #[global_allocator]
/// static GLOBAL: bursar::Bursar =
///     bursar::Bursar::with_pools("1073741824,1073741824:1048576").with_router(&ROUTER);
/// # fn main() {}
/// ```
pub trait Router: Sync {
    /// Pushes the pools that are to be tried. With none at all the request is refused.
    fn route(&self, request: &PoolRequest, order: &mut PoolOrder);

    /// Whether the order may depend on [`PoolRequest::owner`]. If so, no two consumers' blocks ever
    /// share a run, which costs each a page for each size class and thread.
    fn heeds_owner(&self) -> bool {
        true
    }
}

/// Routes by size: the configured pools, the smallest limit first.
#[derive(Clone, Copy, Debug, Default)]
pub struct BySize;

impl Router for BySize {
    fn route(&self, request: &PoolRequest, order: &mut PoolOrder) {
        configured()
            .filter(|pool| pool.admits(request.size as usize))
            .for_each(|pool| order.push(PoolId(pool.id())));
    }

    fn heeds_owner(&self) -> bool {
        false
    }
}

/// Routes by owner: a consumer that is [bound](crate::Pool::bind) to a pool goes there.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByOwner;

impl Router for ByOwner {
    fn route(&self, request: &PoolRequest, order: &mut PoolOrder) {
        if let Some(id) = bound::pool_of(request.owner) {
            order.push(PoolId(id));
        }
    }

    // Bound consumers have runs of their own anyway.
    fn heeds_owner(&self) -> bool {
        false
    }
}

/// Routes to the pool that grows as the kernel lets it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Growing;

impl Router for Growing {
    fn route(&self, _request: &PoolRequest, order: &mut PoolOrder) {
        order.push(PoolId::GROWING);
    }

    fn heeds_owner(&self) -> bool {
        false
    }
}

/// Asks several routers one after the other.
///
/// ```
/// use bursar::{BySize, Chain, Growing};
///
/// // What fits no configured pool any more comes from the growing one.
/// static ROUTER: Chain = Chain(&[&BySize, &Growing]);
/// #[global_allocator]
/// static GLOBAL: bursar::Bursar =
///     bursar::Bursar::with_pools("1073741824:65536").with_router(&ROUTER);
/// # fn main() {}
/// ```
pub struct Chain(
    /// The routers.
    pub &'static [&'static dyn Router],
);

impl Router for Chain {
    fn route(&self, request: &PoolRequest, order: &mut PoolOrder) {
        self.0
            .iter()
            .for_each(|router| router.route(request, order));
    }

    fn heeds_owner(&self) -> bool {
        self.0.iter().any(|router| router.heeds_owner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_each_pool_once_and_is_bounded() {
        let mut order = PoolOrder::new();
        (0..1000).for_each(|number| order.push(PoolId(number % 300)));
        assert_eq!(order.as_slice().len(), PoolOrder::MOST);
        assert_eq!(order.as_slice()[255], PoolId(255));
    }
}
