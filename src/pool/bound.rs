//! Which owners are bound to a pool of their own.

use crate::os::sync::{AtomicBool, AtomicU32, Ordering::Relaxed};
use crate::units::{MOST_OWNERS, OwnerTag};

/// One more than the number of the pool, by owner. Only touched pages of it are memory.
static BOUND: [AtomicU32; MOST_OWNERS] = [const { AtomicU32::new(0) }; MOST_OWNERS];
/// Some owner was ever bound, or all are apart.
static ANY: AtomicBool = AtomicBool::new(false);
/// Where blocks go may depend on their owner: none shares runs with others.
static ALL_APART: AtomicBool = AtomicBool::new(false);

/// Binds an owner to the pool of that number, or to none.
pub(crate) fn bind(owner: OwnerTag, pool: Option<u32>) {
    if pool.is_none() && !ANY.load(Relaxed) {
        return;
    }
    if let Some(place) = BOUND.get(owner.0 as usize) {
        place.store(pool.map_or(0, |id| id + 1), Relaxed);
        ANY.store(true, Relaxed);
    }
}

/// The pool that an owner is bound to.
pub(crate) fn pool_of(owner: OwnerTag) -> Option<u32> {
    BOUND.get(owner.0 as usize)?.load(Relaxed).checked_sub(1)
}

/// Says whether no owner shares runs with others.
pub(super) fn set_apart_all(all: bool) {
    ALL_APART.store(all, Relaxed);
    ANY.store(all, Relaxed);
}

/// Whether there may be an owner that [is apart](is_apart).
#[inline(always)]
pub(crate) fn is_any() -> bool {
    ANY.load(Relaxed)
}

/// Whether an owner's blocks may share no runs with others'.
#[inline(always)]
pub(crate) fn is_apart(owner: OwnerTag) -> bool {
    is_any() && (ALL_APART.load(Relaxed) || pool_of(owner).is_some())
}
