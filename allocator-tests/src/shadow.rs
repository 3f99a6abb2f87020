//! A shadow of the heap: what one thread holds, and what must be true of it.
//!
//! The shadow asks an allocator for blocks, keeps their layouts and contents
//! on its own books and verifies the `GlobalAlloc` contract at every call. Its
//! books do not live in the allocator under test unless that is installed.

use std::alloc::{GlobalAlloc, Layout};
use std::fmt;
use std::ptr::NonNull;

use bursar::AllocFailure;

use crate::pattern::{Mismatch, Pattern, verify_zero};

/// One live block and what it holds.
#[derive(Debug)]
pub struct Block {
    address: NonNull<u8>,
    layout: Layout,
    pattern: Pattern,
}

// SAFETY: a block is owned memory; whoever holds the `Block` alone reads,
// writes and frees it, on any thread, as `GlobalAlloc` permits.
unsafe impl Send for Block {}

impl Block {
    /// The first byte.
    pub fn address(&self) -> usize {
        self.address.as_ptr() as usize
    }

    /// What was asked for.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The bytes that the allocator books for the block.
    pub fn booked(&self) -> u64 {
        bursar::block_size(self.layout) as u64
    }
}

/// How the allocator broke its contract.
#[derive(Debug)]
pub enum Fault {
    /// A pointer that is not a multiple of the alignment.
    Misaligned(usize, Layout),
    /// `alloc_zeroed` returned memory that is not zero.
    NotZero(usize, Layout, Mismatch),
    /// A block does not hold what was written to it.
    Corrupt(usize, Layout, Mismatch),
    /// `realloc` lost contents.
    NotKept(usize, Layout, usize, Mismatch),
    /// Two live blocks share bytes: address and size of each.
    Overlap((usize, u64), (usize, u64)),
    /// Null where memory can be had, or null without a reason.
    Null(Layout, Option<AllocFailure>),
    /// The allocator's books differ from the shadow's: theirs, ours.
    Books(u64, u64),
    /// `bursar::check()` found a broken invariant.
    Invariant(String),
    /// A free changed `errno`, to this.
    Errno(Layout, i32),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misaligned(at, layout) => write!(f, "{at:#x} is misaligned for {layout:?}"),
            Self::NotZero(at, layout, m) => write!(f, "zeroed block {at:#x} {layout:?} {m}"),
            Self::Corrupt(at, layout, m) => write!(f, "block {at:#x} {layout:?} {m}"),
            Self::NotKept(at, layout, old, m) => {
                write!(
                    f,
                    "block {at:#x}, reallocated from {old} bytes to {layout:?}, {m}"
                )
            }
            Self::Overlap(a, b) => {
                write!(f, "{:#x}+{} overlaps {:#x}+{}", a.0, a.1, b.0, b.1)
            }
            Self::Null(layout, Some(why)) => write!(f, "null for {layout:?}: {why}"),
            Self::Null(layout, None) => write!(f, "null for {layout:?} without a reason"),
            Self::Books(theirs, ours) => {
                write!(
                    f,
                    "{theirs} bytes are on the allocator's books, {ours} on the shadow's"
                )
            }
            Self::Invariant(broken) => write!(f, "check(): {broken}"),
            Self::Errno(layout, now) => write!(f, "a free of {layout:?} set errno to {now}"),
        }
    }
}

impl std::error::Error for Fault {}

/// The blocks that one thread holds.
pub struct Shadow<'a, A: ?Sized> {
    heap: &'a A,
    blocks: Vec<Block>,
    bytes: usize,
    /// Distinguishes the patterns of blocks that come to lie at one address.
    next_id: u64,
}

impl<'a, A: GlobalAlloc + ?Sized> Shadow<'a, A> {
    /// A shadow of `heap` that holds `blocks`; `id` should be its own.
    pub fn new(heap: &'a A, id: u64, blocks: Vec<Block>) -> Self {
        let bytes = blocks.iter().map(|b| b.layout.size()).sum();
        Self {
            heap,
            blocks,
            bytes,
            next_id: id << 40,
        }
    }

    /// How many blocks are held.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The sum of the sizes asked for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The blocks held.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Allocates a block and fills it. `Ok(false)` if there was none to have.
    ///
    /// # Errors
    /// What is wrong with the block.
    pub fn allocate(&mut self, layout: Layout, zeroed: bool) -> Result<bool, Fault> {
        // SAFETY: layouts of size zero are never asked for.
        let pointer = unsafe {
            if zeroed {
                self.heap.alloc_zeroed(layout)
            } else {
                self.heap.alloc(layout)
            }
        };
        // SAFETY: the allocator's answer.
        unsafe { self.accept(pointer, layout, zeroed) }
    }

    /// Verifies a block that was got in another way, and fills it. `Ok(false)`
    /// for null.
    ///
    /// # Errors
    /// What is wrong with the block.
    ///
    /// # Safety
    /// The pointer is null, or to a block of this layout that the shadow's
    /// allocator can free, and that is given up to the shadow.
    pub unsafe fn accept(
        &mut self,
        pointer: *mut u8,
        layout: Layout,
        zeroed: bool,
    ) -> Result<bool, Fault> {
        let Some(address) = NonNull::new(pointer) else {
            return Ok(false);
        };
        aligned(address, layout)?;
        if zeroed {
            // SAFETY: the block was just returned for this layout.
            unsafe { verify_zero(pointer, layout.size()) }
                .map_err(|m| Fault::NotZero(pointer as usize, layout, m))?;
        }
        let block = self.filled(address, layout);
        self.receive(block);
        Ok(true)
    }

    /// Verifies and frees the block at `pick`, which must leave `errno` alone.
    ///
    /// # Errors
    /// What was wrong with its contents.
    pub fn free(&mut self, pick: usize) -> Result<(), Fault> {
        let block = self.take(pick);
        verified(&block)?;
        // SAFETY: the block came from this allocator with this layout, and
        // the shadow no longer holds it.
        let errno = keeping_errno(|| unsafe {
            self.heap.dealloc(block.address.as_ptr(), block.layout);
        });
        errno.map_err(|now| Fault::Errno(block.layout, now))
    }

    /// Reallocates the block at `pick` to `size` bytes, verifies what was
    /// kept, and fills it anew. `Ok(false)` if that could not be had; the old
    /// block is then verified to be as it was.
    ///
    /// # Errors
    /// What is wrong with the contents or the address.
    pub fn reallocate(&mut self, pick: usize, size: usize) -> Result<bool, Fault> {
        let old = self.take(pick);
        let layout = Layout::from_size_align(size, old.layout.align())
            .expect("sizes are far below the limit");
        // SAFETY: the block came from this allocator with this layout; the
        // new size is not zero and does not overflow.
        let pointer = unsafe { self.heap.realloc(old.address.as_ptr(), old.layout, size) };
        let Some(address) = NonNull::new(pointer) else {
            verified(&old)?;
            self.receive(old);
            return Ok(false);
        };
        aligned(address, layout)?;
        let kept = old.layout.size().min(size);
        // SAFETY: `realloc` keeps the first `kept` bytes of the old block,
        // which the shadow had filled.
        unsafe { old.pattern.verify(pointer, old.layout.size(), kept) }
            .map_err(|m| Fault::NotKept(pointer as usize, layout, old.layout.size(), m))?;
        let block = self.filled(address, layout);
        self.receive(block);
        Ok(true)
    }

    /// Takes a block of another shadow on the books.
    pub fn receive(&mut self, block: Block) {
        self.bytes += block.layout.size();
        self.blocks.push(block);
    }

    /// Strikes a block off the books, for another shadow to receive.
    pub fn take(&mut self, pick: usize) -> Block {
        let block = self.blocks.swap_remove(pick);
        self.bytes -= block.layout.size();
        block
    }

    /// All blocks, for another shadow to receive.
    pub fn into_blocks(self) -> Vec<Block> {
        self.blocks
    }

    /// Verifies the contents of every block.
    ///
    /// # Errors
    /// The first block found corrupt.
    pub fn verify(&self) -> Result<(), Fault> {
        self.blocks.iter().try_for_each(verified)
    }

    /// Verifies and frees all blocks.
    ///
    /// # Errors
    /// The first block found corrupt.
    pub fn clear(&mut self) -> Result<(), Fault> {
        while !self.is_empty() {
            self.free(self.len() - 1)?;
        }
        Ok(())
    }

    fn filled(&mut self, address: NonNull<u8>, layout: Layout) -> Block {
        let pattern = Pattern::new(address.as_ptr(), self.next_id);
        self.next_id += 1;
        // SAFETY: the block was just returned for this layout and is ours.
        unsafe { pattern.fill(address.as_ptr(), layout.size()) };
        Block {
            address,
            layout,
            pattern,
        }
    }
}

/// What no system call says.
const ERRNO: i32 = 4_321;

/// Whether `work` leaves `errno` alone.
///
/// # Errors
/// What it is then.
pub fn keeping_errno(work: impl FnOnce()) -> Result<(), i32> {
    // SAFETY: every thread has its errno.
    let now = unsafe {
        let place = libc::__errno_location();
        *place = ERRNO;
        work();
        *place
    };
    if now == ERRNO { Ok(()) } else { Err(now) }
}

fn aligned(address: NonNull<u8>, layout: Layout) -> Result<(), Fault> {
    let address = address.as_ptr() as usize;
    if address.is_multiple_of(layout.align()) {
        Ok(())
    } else {
        Err(Fault::Misaligned(address, layout))
    }
}

fn verified(block: &Block) -> Result<(), Fault> {
    let size = block.layout.size();
    // SAFETY: the block is live and was filled when it was allocated.
    unsafe { block.pattern.verify(block.address.as_ptr(), size, size) }
        .map_err(|m| Fault::Corrupt(block.address(), block.layout, m))
}

/// Compares the extents of all live blocks, as the allocator books them.
///
/// # Errors
/// The first two that share a byte.
pub fn disjoint<'b>(blocks: impl IntoIterator<Item = &'b Block>) -> Result<(), Fault> {
    let mut extents: Vec<_> = blocks
        .into_iter()
        .map(|b| (b.address(), b.booked()))
        .collect();
    extents.sort_unstable();
    for pair in extents.windows(2) {
        if pair[0].0 as u64 + pair[0].1 > pair[1].0 as u64 {
            return Err(Fault::Overlap(pair[0], pair[1]));
        }
    }
    Ok(())
}

/// Compares the allocator with the shadow while no thread uses either:
/// extents, `bursar::check()`, and the bytes on the books. `books` tells from
/// the bytes of these blocks how many should be booked in all.
///
/// # Errors
/// The first difference.
pub fn at_rest<'b>(
    blocks: impl IntoIterator<Item = &'b Block> + Clone,
    books: impl Fn(u64) -> u64,
) -> Result<(), Fault> {
    disjoint(blocks.clone())?;
    let report = bursar::check().map_err(|broken| Fault::Invariant(broken.to_string()))?;
    let ours = books(blocks.into_iter().map(Block::booked).sum());
    for theirs in [report.live_bytes, bursar::stats().allocated_bytes] {
        if theirs != ours {
            return Err(Fault::Books(theirs, ours));
        }
    }
    Ok(())
}
