//! Which pools serve a request, and in which order. Consulted only where a run or a span is
//! acquired, never on a fast path.
//!
//! ```text
//! requests of a pool = spans acquired + fall-throughs + failures
//! ```
//! A pool is passed over if its limit is below the request, whoever routes; the others are tried
//! in turn. As long as there is only the growing pool nobody is asked.

use super::order::{PoolOrder, PoolRequest, Router};
use super::record::{DEFAULT, GROWING_ID, Pool};
use super::spec::MOST_POOLS;
use super::{AllocFailure, bound, fixed};
use crate::class::{RUN_ALIGN_MAX, RUN_MAX, class_of};
use crate::os::process::end_with;
use crate::os::sync::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, Ordering::Relaxed};
use crate::os::thread::thread_word;
use crate::units::{ClassIndex, OwnerTag, round_up};
use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::ptr::null_mut;

/// What is to be acquired memory for.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    /// Bytes that were asked for.
    pub(crate) size: usize,
    pub(crate) align: usize,
    /// The only pool that may serve it.
    pub(crate) pool: Option<&'static Pool>,
}

impl Wanted {
    /// A block of a layout.
    #[inline]
    pub(crate) fn new(layout: Layout) -> Wanted {
        Wanted {
            size: layout.size(),
            align: layout.align(),
            pool: None,
        }
    }

    /// Bytes by which it is routed: what was asked for. A block that is in a larger class for its
    /// alignment's sake goes where the others of that class go.
    fn routed_bytes(&self) -> usize {
        let rounded = round_up(self.size, self.align);
        let in_run = rounded <= RUN_MAX && self.align <= RUN_ALIGN_MAX;
        if in_run && class_of(rounded) != class_of(self.size) {
            rounded
        } else {
            self.size
        }
    }

    /// The same, from that pool alone.
    pub(crate) fn only_in(self, pool: &'static Pool) -> Wanted {
        Wanted {
            pool: Some(pool),
            ..self
        }
    }

    /// Whether a run that serves it serves other requests of the class too.
    #[inline(always)]
    pub(crate) fn is_like_all_of(&self, class: ClassIndex) -> bool {
        self.pool.is_none() && !is_cut(class)
    }
}

/// There is more than the growing pool, or a router of the program's.
static PLURAL: AtomicBool = AtomicBool::new(false);
/// Requests are refused rather than served by any but the first pool that admits them.
static STRICT: AtomicBool = AtomicBool::new(false);
/// The classes, a bit each, that hold requests on both sides of some pool's limit.
static CUT: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
/// The configured pools, the smallest limit first.
static CONFIGURED: [AtomicPtr<Pool>; MOST_POOLS] =
    [const { AtomicPtr::new(null_mut()) }; MOST_POOLS];
static CONFIGURED_COUNT: AtomicUsize = AtomicUsize::new(0);
/// Requests that a router made while it was asked.
static REENTRIES: AtomicU64 = AtomicU64::new(0);

/// The router of the program, set once before the first arena is made.
struct Installed(UnsafeCell<Option<&'static dyn Router>>);

// SAFETY: written once, by `install`, before anybody reads it.
unsafe impl Sync for Installed {}

static INSTALLED: Installed = Installed(UnsafeCell::new(None));

thread_word! {
    /// The thread is asking the program's router.
    mod is_asking: bool = false;
}

/// Has the program's router asked.
///
/// # Safety
/// Once, before anybody acquires memory.
pub(crate) unsafe fn install(router: &'static dyn Router) {
    // SAFETY: the caller's promise.
    unsafe { *INSTALLED.0.get() = Some(router) };
    bound::set_apart_all(router.heeds_owner());
    is_plural();
}

fn installed() -> Option<&'static dyn Router> {
    // SAFETY: see `install`.
    unsafe { *INSTALLED.0.get() }
}

/// Forbids fall-throughs.
pub(crate) fn set_strict(strict: bool) {
    STRICT.store(strict, Relaxed);
}

/// Says that there is more than the growing pool.
pub(super) fn is_plural() {
    PLURAL.store(true, Relaxed);
}

/// Whether the growing pool serves all.
#[inline]
pub(crate) fn is_simple() -> bool {
    !PLURAL.load(Relaxed)
}

/// Adds a configured pool, in ascending order of limits.
pub(crate) fn configure(pool: &'static Pool) {
    let count = CONFIGURED_COUNT.load(Relaxed);
    CONFIGURED[count].store(core::ptr::from_ref(pool).cast_mut(), Relaxed);
    // Release pairs with the Acquire in `configured`.
    CONFIGURED_COUNT.store(count + 1, Ordering::Release);
}

/// The configured pools, the smallest limit first.
pub(super) fn configured() -> impl Iterator<Item = &'static Pool> {
    let count = CONFIGURED_COUNT.load(Ordering::Acquire);
    CONFIGURED[..count]
        .iter()
        // SAFETY: pools that were configured never end.
        .filter_map(|pool| unsafe { pool.load(Relaxed).as_ref() })
}

/// How many pools were configured.
pub(crate) fn configured_count() -> usize {
    CONFIGURED_COUNT.load(Relaxed)
}

/// Whether any pools were configured.
pub(crate) fn is_configured() -> bool {
    configured_count() != 0
}

/// Notes that a pool has a limit: the class in which it falls is cut, unless it ends there.
pub(super) fn cut_at(limit: u64) {
    let limit = limit as usize;
    if limit < RUN_MAX && class_of(limit).row().size as usize != limit {
        let index = class_of(limit).index();
        CUT[index / 64].fetch_or(1 << (index % 64), Relaxed);
    }
}

/// Whether some requests of a class may enter a pool that others may not.
#[inline]
pub(crate) fn is_cut(class: ClassIndex) -> bool {
    let index = class.index();
    CUT[index / 64 % CUT.len()].load(Relaxed) >> (index % 64) & 1 == 1
}

/// Requests that routers made while they were asked.
pub(crate) fn reentries() -> u64 {
    REENTRIES.load(Relaxed)
}

/// Tries the pools that may serve what is wanted, in order. `attempt` is told whether the pool is
/// the first of them.
#[inline]
pub(crate) fn in_order<T>(
    wanted: &Wanted,
    owner: OwnerTag,
    mut attempt: impl FnMut(&'static Pool, bool) -> Result<T, AllocFailure>,
) -> Result<T, AllocFailure> {
    if is_simple() && wanted.pool.is_none() {
        return attempt(&DEFAULT, true);
    }
    in_turn(wanted, owner, &mut attempt)
}

#[inline(never)]
fn in_turn<T>(
    wanted: &Wanted,
    owner: OwnerTag,
    attempt: &mut dyn FnMut(&'static Pool, bool) -> Result<T, AllocFailure>,
) -> Result<T, AllocFailure> {
    let mut tries = Tries {
        bytes: wanted.routed_bytes(),
        last: None,
        attempt,
    };
    let result = match wanted.pool {
        Some(pool) => tries.at(pool, pool.id()),
        None => tries.at_routed(wanted, owner),
    };
    result.unwrap_or_else(|| Err(tries.failure()))
}

/// A request on its way from pool to pool.
struct Tries<'a, T> {
    bytes: usize,
    /// The pool that was tried last, and why it did not serve.
    last: Option<(&'static Pool, AllocFailure)>,
    attempt: &'a mut dyn FnMut(&'static Pool, bool) -> Result<T, AllocFailure>,
}

impl<T> Tries<'_, T> {
    fn at_routed(&mut self, wanted: &Wanted, owner: OwnerTag) -> Option<Result<T, AllocFailure>> {
        match installed() {
            Some(router) if !is_asking::get() => {
                let request = PoolRequest {
                    size: self.bytes as u64,
                    align: wanted.align as u64,
                    owner,
                };
                let order = ask(router, &request);
                order.as_slice().iter().find_map(|id| self.at_id(id.0))
            }
            Some(_) => {
                REENTRIES.fetch_add(1, Relaxed);
                self.at_default(owner)
            }
            None => self.at_default(owner),
        }
    }

    /// By owner, then by size, or else the pool that grows.
    fn at_default(&mut self, owner: OwnerTag) -> Option<Result<T, AllocFailure>> {
        let bound = bound::pool_of(owner);
        if let Some(result) = bound.and_then(|id| self.at_id(id)) {
            return Some(result);
        }
        if !is_configured() {
            return self.at(&DEFAULT, GROWING_ID);
        }
        configured()
            .filter(|pool| bound != Some(pool.id()))
            .find_map(|pool| self.at(pool, pool.id()))
    }

    fn at_id(&mut self, id: u32) -> Option<Result<T, AllocFailure>> {
        let pool = match id {
            GROWING_ID => Some(&DEFAULT),
            _ => fixed::fixed().find(|pool| pool.id() == id),
        };
        pool.and_then(|pool| self.at(pool, id))
    }

    /// Tries one pool. `None` if the next is to be tried.
    fn at(&mut self, pool: &'static Pool, id: u32) -> Option<Result<T, AllocFailure>> {
        if !pool.admits(self.bytes) {
            return None;
        }
        let is_final = |failure: AllocFailure| {
            matches!(failure, AllocFailure::Limit { .. } | AllocFailure::Metadata)
        };
        if let Some((_, failure)) = self.last
            && (STRICT.load(Relaxed) || is_final(failure))
        {
            return Some(Err(self.failure()));
        }
        let _inside = pool.enter(id)?;
        if let Some((last, _)) = self.last {
            last.counts.fall_throughs.fetch_add(1, Relaxed);
        }
        match (self.attempt)(pool, self.last.is_none()) {
            Ok(found) => Some(Ok(found)),
            Err(failure) => {
                self.last = Some((pool, failure));
                None
            }
        }
    }

    /// Nobody serves it.
    fn failure(&self) -> AllocFailure {
        let bytes = self.bytes as u64;
        match self.last {
            None => AllocFailure::NoPool { bytes },
            Some((_, failure @ (AllocFailure::Limit { .. } | AllocFailure::Metadata))) => failure,
            Some((pool, failure)) => {
                pool.counts.failures.fetch_add(1, Relaxed);
                match failure {
                    AllocFailure::PoolsFull { .. } => AllocFailure::PoolsFull { bytes },
                    other => other,
                }
            }
        }
    }
}

/// Asks the program's router. Its panic ends the process: requests for memory do not unwind.
#[cold]
fn ask(router: &dyn Router, request: &PoolRequest) -> PoolOrder {
    struct Unwinding;
    impl Drop for Unwinding {
        fn drop(&mut self) {
            end_with("bursar: the router of pools panicked; a request for memory cannot unwind");
        }
    }
    let mut order = PoolOrder::new();
    is_asking::set(true);
    let unwinding = Unwinding;
    router.route(request, &mut order);
    core::mem::forget(unwinding);
    is_asking::set(false);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignment_routes_as_its_class() {
        let routed = |size, align| {
            let layout = Layout::from_size_align(size, align).unwrap();
            Wanted::new(layout).routed_bytes()
        };
        assert_eq!(routed(1030, 8), 1030);
        assert_eq!(routed(1000, 4096), 4096);
        assert_eq!(routed(1000, 1 << 18), 1000);
    }
}
