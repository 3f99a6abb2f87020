//! Scopes: whose account a thread's allocations go to.

use super::consumer::Consumer;
use super::registry;
use crate::arena::owner::{self, Entered};
use crate::units::OwnerTag;
use core::marker::PhantomData;

/// The thread is in a consumer's scope until this is dropped.
///
/// It stays on its thread. Scopes may be dropped in any order: the thread is in the innermost one
/// that is left. One that is forgotten (`mem::forget`) is never left, until its thread ends. The
/// scope keeps its consumer on the books, handle or not.
#[must_use = "the scope is left when this is dropped"]
pub struct Scope {
    entered: Entered,
    /// The scope is this thread's.
    _thread: PhantomData<*const ()>,
}

impl Scope {
    #[inline(always)]
    pub(super) fn enter(tag: OwnerTag) -> Scope {
        Scope {
            entered: owner::enter(tag),
            _thread: PhantomData,
        }
    }
}

impl Drop for Scope {
    #[inline(always)]
    fn drop(&mut self) {
        owner::leave(self.entered);
    }
}

impl core::fmt::Debug for Scope {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}

/// The consumer whose scope the thread is in: for a reservation's scope, the reservation's. `None`
/// outside of any.
pub fn current() -> Option<Consumer> {
    match owner::current() {
        OwnerTag::UNATTRIBUTED => None,
        tag => registry::revive(tag).map(Consumer::of),
    }
}
