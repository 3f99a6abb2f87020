//! What the allocator calls where no sites are sampled.

use core::alloc::Layout;

/// Whether blocks are sampled.
#[cfg(feature = "raw")]
pub(crate) const SAMPLED: bool = false;

#[inline(always)]
pub(crate) fn allocated(_block: *mut u8, _layout: Layout) {}

#[inline(always)]
pub(crate) fn freed(_block: *mut u8) {}

#[inline(always)]
pub(crate) fn resized_in_place(_block: *mut u8, _from: Layout, _to: usize) {}

/// The sample of a block that is about to move.
pub(crate) struct Lifted;

#[inline(always)]
pub(crate) fn lift(_block: *mut u8) -> Lifted {
    Lifted
}

impl Lifted {
    #[inline(always)]
    pub(crate) fn put(self, _block: *mut u8, _from: Layout, _to: Layout) {}
}

#[inline(always)]
pub(super) fn before_fork() {}

#[inline(always)]
pub(super) fn after_fork(_in_child: bool) {}
