//! Blocks as the workloads hold them.

use std::alloc::{GlobalAlloc, Layout, handle_alloc_error};
use std::ops::RangeInclusive;

/// Alignment of every block whose size is known only at run time.
pub const ALIGNMENT: usize = 8;

/// A layout of `size` bytes, aligned to [`ALIGNMENT`].
///
/// # Panics
/// If the size is zero or beyond what a layout can hold.
#[inline]
pub fn layout(size: usize) -> Layout {
    assert!(size != 0, "an empty block needs no allocator");
    Layout::from_size_align(size, ALIGNMENT).expect("a size below isize::MAX")
}

/// A block that is live until it is given back to the allocator it came from.
#[must_use = "a block that is not given back leaks"]
pub struct Block {
    pointer: *mut u8,
    layout: Layout,
}

// SAFETY: a block owns its memory, and `GlobalAlloc` lets any thread free it.
unsafe impl Send for Block {}

impl Block {
    /// Takes a block and writes its first byte, as every program would.
    /// `layout` must not be empty.
    #[inline(always)]
    pub fn take<A: GlobalAlloc>(allocator: &A, layout: Layout) -> Self {
        // SAFETY: no caller passes an empty layout.
        let pointer = unsafe { allocator.alloc(layout) };
        Self::hold(pointer, layout)
    }

    /// Takes a zeroed block and writes its first byte.
    #[inline(always)]
    pub fn take_zeroed<A: GlobalAlloc>(allocator: &A, layout: Layout) -> Self {
        // SAFETY: no caller passes an empty layout.
        let pointer = unsafe { allocator.alloc_zeroed(layout) };
        Self::hold(pointer, layout)
    }

    #[inline(always)]
    fn hold(pointer: *mut u8, layout: Layout) -> Self {
        if pointer.is_null() {
            handle_alloc_error(layout);
        }
        // SAFETY: the allocator gave at least one byte there.
        unsafe { pointer.write_volatile(1) };
        Self { pointer, layout }
    }

    /// Gives the block back.
    #[inline(always)]
    pub fn give<A: GlobalAlloc>(self, allocator: &A) {
        // SAFETY: the block is live and was taken with this layout; each
        // workload knows a single allocator.
        unsafe { allocator.dealloc(self.pointer, self.layout) }
    }

    /// Resizes the block, in place or elsewhere. `size` must not be zero.
    #[inline(always)]
    pub fn resize<A: GlobalAlloc>(self, allocator: &A, size: usize) -> Self {
        let new = layout(size);
        // SAFETY: as in `give`; `layout` has checked the new size.
        let pointer = unsafe { allocator.realloc(self.pointer, self.layout, size) };
        if pointer.is_null() {
            handle_alloc_error(new);
        }
        Self {
            pointer,
            layout: new,
        }
    }

    /// Writes one byte every 4 KiB of `[from, end of the block)`.
    pub fn touch(&mut self, from: usize) {
        for offset in (from..self.layout.size()).step_by(4096) {
            // SAFETY: the offset lies inside the live block.
            unsafe { self.pointer.add(offset).write_volatile(1) };
        }
    }

    /// Size in bytes.
    pub fn size(&self) -> usize {
        self.layout.size()
    }

    /// Address, for `black_box`.
    #[inline(always)]
    pub fn pointer(&self) -> *mut u8 {
        self.pointer
    }
}

/// Evenly distributed sizes and indices from one draw.
pub struct Draw {
    random: fastrand::Rng,
    smallest: usize,
    span: u64,
}

impl Draw {
    /// Sizes from `sizes`, the same ones each time.
    pub fn new(sizes: RangeInclusive<usize>) -> Self {
        Self::with_seed(sizes, 0)
    }

    /// Sizes from `sizes`, another sequence for each seed.
    ///
    /// # Panics
    /// If the range is empty, begins at zero or reaches 2 GiB.
    pub fn with_seed(sizes: RangeInclusive<usize>, seed: u64) -> Self {
        let (smallest, largest) = sizes.into_inner();
        assert!(0 < smallest && smallest <= largest && largest < 1 << 31);
        Self {
            random: fastrand::Rng::with_seed(seed),
            smallest,
            span: (largest - smallest) as u64 + 1,
        }
    }

    /// An index below `bound`, and a layout. A single draw serves both: in
    /// the tightest loops the generator would otherwise cost as much as the
    /// allocator.
    #[inline(always)]
    pub fn next(&mut self, bound: usize) -> (usize, Layout) {
        let bits = self.random.u64(..);
        let index = ((bits & 0xffff_ffff) * bound as u64) >> 32;
        let size = self.smallest + (((bits >> 32) * self.span) >> 32) as usize;
        // SAFETY: the alignment is a power of two, `new` bounds the size.
        let layout = unsafe { Layout::from_size_align_unchecked(size, ALIGNMENT) };
        (index as usize, layout)
    }
}
