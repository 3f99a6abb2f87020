//! Memory that goes back all at once, however scattered what is alive in it.
//!
//! Blocks are cut from chunks one after the other, and none is taken back before the whole is. That
//! is sound because each container holds a borrow of the arena, which cannot outlive its task.

use super::manager::MemoryManager;
use super::shared::Task;
use crate::account::registry::internally;
use allocator_api2::alloc::{AllocError, Allocator};
use core::alloc::Layout;
use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::{NonNull, null_mut};
use std::alloc::{alloc, dealloc};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

/// Bytes of an arena's first chunk; each next one is twice as large,
const FIRST: usize = 64 << 10;
/// up to this.
const LARGEST: usize = 8 << 20;
const CHUNK_ALIGN: usize = 16;

/// A private arena of a task, for one thread: an `Allocator` by reference, for the containers of
/// `allocator_api2` and those that follow it. Feature `allocator-api2`.
///
/// An allocation moves a pointer; a free does nothing, unless it is of the block that came last. All
/// of its memory, which is charged to the task itself, goes back at once when it is dropped, or when
/// the task ends if it was forgotten, whatever is alive in it.
///
/// ```
/// # #[cfg(feature = "allocator-api2")] {
/// use allocator_api2::{boxed::Box, vec::Vec};
///
/// let task = bursar::MemoryManager::begin("parse");
/// let arena = task.arena();
/// let mut nodes = Vec::new_in(&arena);
/// for number in 0..10_000_u64 {
///     nodes.push(Box::new_in(number, &arena));
/// }
/// std::mem::forget(nodes);
/// drop(arena);
/// assert!(task.end().unwrap().is_clean());
/// # }
/// ```
///
/// What is in it cannot outlive it:
///
/// ```compile_fail
/// let task = bursar::MemoryManager::begin("parse");
/// let arena = task.arena();
/// let number = allocator_api2::boxed::Box::new_in(1, &arena);
/// drop(arena);
/// println!("{number}");
/// ```
pub struct TaskArena<'task> {
    chunks: Arc<Chunks>,
    task: Arc<Task>,
    /// Where the next block goes.
    next: Cell<*mut u8>,
    /// The end of the current chunk.
    end: Cell<usize>,
    /// Bytes of the next chunk.
    grown: Cell<usize>,
    _task: PhantomData<&'task ()>,
}

/// The chunks of an arena, which its task has too.
#[derive(Default)]
pub(super) struct Chunks(Mutex<Vec<Chunk>>);

struct Chunk {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: owned memory, freed by whoever has it.
unsafe impl Send for Chunk {}

impl Chunks {
    fn list(&self) -> MutexGuard<'_, Vec<Chunk>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives all of them back.
    pub(super) fn release(&self) {
        for chunk in core::mem::take(&mut *self.list()) {
            // SAFETY: allocated by `TaskArena::refill` with that layout. Nobody can come by a block
            // of it: they hold borrows of the arena, which is being dropped or was forgotten by a
            // task that ends.
            unsafe { dealloc(chunk.start.as_ptr(), chunk.layout) };
        }
    }
}

impl MemoryManager {
    /// A private arena of the task for this thread: see [`TaskArena`]. Nothing is allocated before
    /// the first block. Feature `allocator-api2`.
    pub fn arena(&self) -> TaskArena<'_> {
        TaskArena::new(self.shared())
    }
}

impl TaskArena<'_> {
    pub(super) fn new<'task>(task: &Arc<Task>) -> TaskArena<'task> {
        TaskArena {
            chunks: task.new_chunks(),
            task: Arc::clone(task),
            next: Cell::new(null_mut()),
            end: Cell::new(0),
            grown: Cell::new(FIRST),
            _task: PhantomData,
        }
    }

    /// Bytes of its chunks.
    pub fn held_bytes(&self) -> u64 {
        let list = self.chunks.list();
        list.iter().map(|chunk| chunk.layout.size() as u64).sum()
    }

    /// A block from the current chunk, if it has room.
    fn cut(&self, layout: Layout) -> Option<NonNull<u8>> {
        let next = self.next.get();
        let start = next.addr().checked_next_multiple_of(layout.align())?;
        let end = start.checked_add(layout.size())?;
        if end > self.end.get() {
            return None;
        }
        self.next.set(next.with_addr(end));
        NonNull::new(next.with_addr(start))
    }

    /// A chunk with room for a block, which becomes the current one.
    #[cold]
    fn refill(&self, layout: Layout) -> Option<()> {
        let least = layout.size().checked_add(layout.align())?;
        let bytes = self.grown.get().max(least);
        let chunk = Layout::from_size_align(bytes, CHUNK_ALIGN).ok()?;
        // SAFETY: not of size zero.
        let start = NonNull::new(self.task.root.run(|| unsafe { alloc(chunk) }))?;
        let layout = chunk;
        internally(|| self.chunks.list().push(Chunk { start, layout }));
        self.grown.set((self.grown.get() * 2).min(LARGEST));
        self.next.set(start.as_ptr());
        self.end.set(start.as_ptr().addr() + bytes);
        Some(())
    }

    /// Whether a block is the one that was cut last.
    fn is_last(&self, block: NonNull<u8>, layout: Layout) -> bool {
        block.as_ptr().addr() + layout.size() == self.next.get().addr()
    }
}

impl Drop for TaskArena<'_> {
    fn drop(&mut self) {
        self.task.forget_chunks(&self.chunks);
        self.chunks.release();
    }
}

// SAFETY: blocks are cut from chunks that stay until the arena is dropped, or its task ends; a
// reference to it, which is the allocator, outlives neither. Moving or copying the reference changes
// nothing.
unsafe impl Allocator for &TaskArena<'_> {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let block = if layout.size() == 0 {
            NonNull::new(core::ptr::without_provenance_mut(layout.align()))
        } else {
            self.cut(layout)
                .or_else(|| self.refill(layout).and_then(|()| self.cut(layout)))
        };
        let block = block.ok_or(AllocError)?;
        Ok(NonNull::slice_from_raw_parts(block, layout.size()))
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        if layout.size() > 0 && self.is_last(block, layout) {
            self.next
                .set(self.next.get().with_addr(block.as_ptr().addr()));
        }
    }

    unsafe fn grow(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        let more = new.size() - old.size();
        let fits = self.end.get().saturating_sub(self.next.get().addr()) >= more;
        let is_aligned = block.as_ptr().addr().is_multiple_of(new.align());
        if old.size() > 0 && self.is_last(block, old) && fits && is_aligned {
            self.next.set(self.next.get().wrapping_add(more));
            return Ok(NonNull::slice_from_raw_parts(block, new.size()));
        }
        let grown = self.allocate(new)?;
        // SAFETY: the old block is alive and has that many bytes; the new one is another.
        unsafe {
            grown
                .cast::<u8>()
                .copy_from_nonoverlapping(block, old.size())
        };
        Ok(grown)
    }
}

impl fmt::Debug for TaskArena<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskArena")
            .field("task", &self.task.root)
            .field("held_bytes", &self.held_bytes())
            .finish()
    }
}
