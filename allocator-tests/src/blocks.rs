//! Short ways to raw blocks, for scenarios that keep no shadow.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::NonNull;

use crate::pattern::Pattern;

/// A layout of `size` bytes.
///
/// # Panics
/// If `align` is not a power of two, or the size too large for it.
pub fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align)
        .unwrap_or_else(|_| panic!("no layout of {size} at {align}"))
}

/// The allocator under test, whatever is wrapped around it.
pub type Heap = dyn GlobalAlloc + Sync;

/// An owned, filled block, verified when it is freed, on whichever thread.
pub struct Filled {
    heap: &'static Heap,
    address: NonNull<u8>,
    layout: Layout,
    pattern: Pattern,
}

// SAFETY: the block is owned, and `GlobalAlloc` lets any thread free it.
unsafe impl Send for Filled {}
// SAFETY: a shared reference only reads the block.
unsafe impl Sync for Filled {}

impl Filled {
    /// A block, or `None` if there is none to have.
    pub fn new(heap: &'static Heap, layout: Layout) -> Option<Self> {
        // SAFETY: no scenario asks for a block of size zero.
        let address = NonNull::new(unsafe { heap.alloc(layout) })?;
        let pattern = Pattern::new(address.as_ptr(), 0);
        // SAFETY: the block was just returned for this layout.
        unsafe { pattern.fill(address.as_ptr(), layout.size()) };
        Some(Self {
            heap,
            address,
            layout,
            pattern,
        })
    }

    /// The first byte.
    pub fn address(&self) -> usize {
        self.address.as_ptr() as usize
    }

    /// What was asked for.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Panics if the block does not hold what was written to it.
    pub fn verify(&self) {
        let size = self.layout.size();
        // SAFETY: the block is live and was filled when it was allocated.
        let found = unsafe { self.pattern.verify(self.address.as_ptr(), size, size) };
        if let Err(mismatch) = found {
            panic!("block {:#x} {:?} {mismatch}", self.address(), self.layout);
        }
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        self.verify();
        // SAFETY: the block came from this allocator with this layout.
        unsafe { self.heap.dealloc(self.address.as_ptr(), self.layout) };
    }
}
