//! Blocks of memory as the workload holds them, and tables of them.
//!
//! Both count themselves in the [`ledger`], a table by its capacity: what the
//! allocator is asked for is what is live. Each block is stamped at its ends
//! and on every page, so that its pages are resident and so that an allocator
//! that hands out a byte twice is found out.

use super::ledger;
use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error, realloc};
use std::mem::size_of;
use std::ptr::NonNull;

const OS_PAGE: usize = 4096;

/// One allocation, freed on drop by whichever thread drops it.
#[derive(Debug)]
pub struct Block {
    start: NonNull<u8>,
    size: u32,
    align: u32,
}

// SAFETY: a block is the only owner of its memory, and any thread may free.
unsafe impl Send for Block {}

impl Block {
    /// A block of that many bytes, at least 1, aligned to a power of two.
    pub fn new(size: u32, align: u32) -> Self {
        let layout = layout_of(size, align);
        // SAFETY: the size is not 0, `layout_of` checked it.
        Self::stamped(unsafe { alloc(layout) }, layout)
    }

    /// The same from `alloc_zeroed`; checks that it is zero where it is stamped.
    pub fn zeroed(size: u32, align: u32) -> Self {
        let layout = layout_of(size, align);
        // SAFETY: the size is not 0, `layout_of` checked it.
        let start = unsafe { alloc_zeroed(layout) };
        if !start.is_null() {
            // SAFETY: the offsets that `marks` gives are inside the block.
            let dirty = marks(layout.size()).any(|at| unsafe { start.add(at).read() } != 0);
            assert!(!dirty, "{layout:?} came zeroed with a byte that is not 0");
        }
        Self::stamped(start, layout)
    }

    /// Bytes requested.
    pub fn size(&self) -> u64 {
        u64::from(self.size)
    }

    /// Grows or shrinks the block by `realloc`, and checks that what was in it
    /// came along.
    pub fn resize(&mut self, size: u32) {
        self.verify();
        let old = self.layout();
        let new = layout_of(size, self.align);
        // SAFETY: the block was allocated with `old`; the new size is not 0.
        let start = unsafe { realloc(self.start.as_ptr(), old, new.size()) };
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(new)
        };
        // SAFETY: both sizes are at least 1.
        let first = unsafe { start.as_ptr().read() };
        assert_eq!(first, stamp(old.size()), "realloc lost the contents");
        ledger::give_back(self.size());
        ledger::take(u64::from(size));
        self.start = start;
        self.size = size;
        self.write_stamps();
    }

    fn stamped(start: *mut u8, layout: Layout) -> Self {
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(layout)
        };
        let block = Self {
            start,
            size: layout.size() as u32,
            align: layout.align() as u32,
        };
        ledger::take(block.size());
        block.write_stamps();
        block
    }

    fn layout(&self) -> Layout {
        layout_of(self.size, self.align)
    }

    fn write_stamps(&self) {
        let size = self.size as usize;
        for at in marks(size) {
            // SAFETY: the offsets that `marks` gives are inside the block.
            unsafe { self.start.as_ptr().add(at).write(stamp(size)) };
        }
    }

    fn verify(&self) {
        let size = self.size as usize;
        for at in marks(size) {
            // SAFETY: the offsets that `marks` gives are inside the block.
            let found = unsafe { self.start.as_ptr().add(at).read() };
            assert_eq!(found, stamp(size), "byte {at} of {size} was overwritten");
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.verify();
        ledger::give_back(self.size());
        // SAFETY: the block was allocated with this layout and is dropped once.
        unsafe { dealloc(self.start.as_ptr(), self.layout()) };
    }
}

fn layout_of(size: u32, align: u32) -> Layout {
    assert!(size > 0);
    Layout::from_size_align(size as usize, align as usize).expect("a power of two")
}

/// The offsets that are written: one on each OS page, and the last byte.
fn marks(size: usize) -> impl Iterator<Item = usize> {
    (0..size).step_by(OS_PAGE).chain([size - 1])
}

/// Never 0, and different for sizes that are near each other.
fn stamp(size: usize) -> u8 {
    (size.wrapping_mul(0x9E37_79B9) >> 13) as u8 | 1
}

/// A table of blocks in no particular order.
#[derive(Debug, Default)]
pub struct Shelf {
    blocks: Vec<Block>,
    block_bytes: u64,
}

impl Shelf {
    /// Requested bytes of the blocks and of the table itself.
    pub fn bytes(&self) -> u64 {
        self.block_bytes + self.table_bytes()
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether it holds no block.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Adds a block; the table doubles when it is full.
    pub fn push(&mut self, block: Block) {
        if self.blocks.len() == self.blocks.capacity() {
            self.recapacitate(|blocks| blocks.reserve(1));
        }
        self.block_bytes += block.size();
        self.blocks.push(block);
    }

    /// Takes out a block chosen at random. The table halves when it is three
    /// quarters empty, as hash tables and heaps do.
    pub fn take_any(&mut self, rng: &mut fastrand::Rng) -> Option<Block> {
        if self.is_empty() {
            return None;
        }
        let block = self.blocks.swap_remove(rng.usize(..self.blocks.len()));
        self.block_bytes -= block.size();
        if self.len() < self.blocks.capacity() / 4 {
            let half = self.blocks.capacity() / 2;
            self.recapacitate(|blocks| blocks.shrink_to(half));
        }
        Some(block)
    }

    /// Resizes a block chosen at random to what `size` makes of its size.
    pub fn resize_any(&mut self, rng: &mut fastrand::Rng, size: impl FnOnce(u32) -> u32) {
        if self.is_empty() {
            return;
        }
        let any = rng.usize(..self.blocks.len());
        let block = &mut self.blocks[any];
        self.block_bytes -= block.size();
        block.resize(size(block.size));
        self.block_bytes += block.size();
    }

    /// Moves all blocks of another shelf into this one.
    pub fn append(&mut self, mut other: Shelf) {
        while let Some(block) = other.blocks.pop() {
            self.push(block);
        }
    }

    /// Frees the blocks and the table.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Changes the capacity and counts the change.
    fn recapacitate(&mut self, change: impl FnOnce(&mut Vec<Block>)) {
        let before = self.table_bytes();
        change(&mut self.blocks);
        ledger::give_back(before);
        ledger::take(self.table_bytes());
    }

    fn table_bytes(&self) -> u64 {
        (self.blocks.capacity() * size_of::<Block>()) as u64
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        ledger::give_back(self.table_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs on a thread of its own, whose seat no other test has.
    fn seated<T: Send + 'static>(seat: usize, test: impl FnOnce() -> T + Send + 'static) -> T {
        let on_seat = std::thread::spawn(move || {
            ledger::sit(seat);
            test()
        });
        on_seat.join().unwrap()
    }

    #[test]
    fn a_shelf_counts_its_blocks_and_its_table() {
        let (held, after) = seated(100, || {
            let mut shelf = Shelf::default();
            for size in 1..=5 {
                shelf.push(Block::new(size * 1000, 8));
            }
            assert_eq!(shelf.bytes(), 15_000 + shelf.table_bytes());
            let table = 8 * size_of::<Block>() as i64;
            let held = ledger::balance() - table;
            shelf.clear();
            (held, ledger::balance())
        });
        assert_eq!((held, after), (15_000, 0));
    }

    #[test]
    fn tables_shrink_with_their_contents_and_balance() {
        let after = seated(101, || {
            let mut rng = fastrand::Rng::with_seed(1);
            let mut shelf = Shelf::default();
            for _ in 0..10_000 {
                shelf.push(Block::zeroed(24, 8));
            }
            let full = shelf.table_bytes();
            while shelf.len() > 100 {
                drop(shelf.take_any(&mut rng));
            }
            assert!(shelf.table_bytes() <= full / 16);
            assert_eq!(ledger::balance() as u64, 2400 + shelf.table_bytes());
            drop(shelf);
            ledger::balance()
        });
        assert_eq!(after, 0);
    }

    #[test]
    fn resizing_keeps_the_books() {
        let after = seated(102, || {
            let mut rng = fastrand::Rng::with_seed(2);
            let mut shelf = Shelf::default();
            shelf.push(Block::new(100, 1));
            shelf.resize_any(&mut rng, |size| size * 100);
            assert_eq!(shelf.block_bytes, 10_000);
            shelf.resize_any(&mut rng, |size| size / 1000);
            assert_eq!(shelf.block_bytes, 10);
            drop(shelf);
            ledger::balance()
        });
        assert_eq!(after, 0);
    }

    #[test]
    fn an_overwritten_block_is_found_out() {
        let found = std::thread::spawn(|| {
            ledger::sit(103);
            let block = Block::new(64, 8);
            // SAFETY: inside the block.
            unsafe { block.start.as_ptr().write(stamp(64) ^ 2) };
            let _leaked = std::mem::ManuallyDrop::new(block);
            _leaked.verify();
        });
        assert!(found.join().is_err());
    }
}
