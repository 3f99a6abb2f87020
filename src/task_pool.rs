//! Pools that a task owns.

use crate::account::{MemoryManager, Registered, Resource, TaskConsumer};
use crate::pool::{PoolError, PoolId, bound};
use crate::pools::{Pool, PoolStats};
use core::error::Error;
use core::fmt;
use std::boxed::Box;

/// A pool of a task's own; made by [`MemoryManager::pool`]. The task has its handle, so the pool
/// serves nobody any more when the task has ended, and ends with the last block in it.
///
/// ```
/// use bursar::MemoryManager;
///
/// let task = MemoryManager::begin("load");
/// let pool = task.pool(64 << 20)?;
/// let rows = task.consumer("rows");
/// pool.bind(&rows);
/// let kept = rows.run(|| vec![0_u8; 1000]);
/// drop((kept, rows));
/// # drop(pool);
/// assert!(task.end()?.is_clean());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It does not outlive its task:
///
/// ```compile_fail
/// let task = bursar::MemoryManager::begin("load");
/// let pool = task.pool(1 << 20).unwrap();
/// task.end().unwrap();
/// pool.stats();
/// ```
pub struct TaskPool<'task> {
    owned: Registered<'task, Owned>,
    id: PoolId,
}

/// The handle, which is given up by being dropped.
struct Owned(Pool);

impl Resource for Owned {
    fn name(&self) -> &str {
        "pool"
    }

    fn release(&mut self) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(())
    }
}

impl MemoryManager {
    /// A pool of `size` bytes for this task, as [`Pool::new`]. Consumers are
    /// [bound](TaskPool::bind) to it one by one;
    /// [`TaskBuilder::pool`](crate::TaskBuilder::pool) is for a whole task.
    ///
    /// # Errors
    /// As there.
    pub fn pool(&self, size: u64) -> Result<TaskPool<'_>, PoolError> {
        let pool = Pool::new(size)?;
        let id = pool.id();
        // The last to go: what is released before it may live in it.
        let owned = self.register(Owned(pool), i32::MIN);
        let owned = owned.expect("a manager that is borrowed has not ended");
        Ok(TaskPool { owned, id })
    }
}

impl TaskPool<'_> {
    fn with<T>(&self, work: impl FnOnce(&Pool) -> T) -> T {
        let result = self.owned.with(|owned| work(&owned.0));
        result.expect("the task has not ended")
    }

    /// Which pool it is.
    pub fn id(&self) -> PoolId {
        self.id
    }

    /// What it holds, as [`Pool::stats`].
    pub fn stats(&self) -> PoolStats {
        self.with(Pool::stats)
    }

    /// Has what `consumer` needs come from this pool from now on, as [`Pool::bind`]. What it needs
    /// when the pool is full, or its task has ended, comes from where it comes for others.
    pub fn bind(&self, consumer: &TaskConsumer<'_>) {
        bound::bind(consumer.owner_tag(), Some(self.id.0));
    }

    /// Takes blocks from this pool alone, for containers that borrow it: they cannot outlive the
    /// task. Feature `allocator-api2`.
    ///
    /// ```
    /// # #[cfg(feature = "allocator-api2")] {
    /// let task = bursar::MemoryManager::begin("load");
    /// let pool = task.pool(1 << 20).unwrap();
    /// let mut rows = allocator_api2::vec::Vec::new_in(pool.allocator());
    /// rows.extend(0..1000_u64);
    /// assert!(pool.stats().used_bytes >= 8000);
    /// # }
    /// ```
    #[cfg(feature = "allocator-api2")]
    pub fn allocator(&self) -> TaskPoolAllocator<'_> {
        TaskPoolAllocator {
            allocator: self.with(Pool::allocator),
            _task: core::marker::PhantomData,
        }
    }
}

impl fmt::Debug for TaskPool<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskPool").field("id", &self.id).finish()
    }
}

/// A [`PoolAllocator`](crate::PoolAllocator) that does not outlive its task; made by
/// [`TaskPool::allocator`].
#[cfg(feature = "allocator-api2")]
#[derive(Clone, Debug)]
pub struct TaskPoolAllocator<'task> {
    allocator: crate::pools::PoolAllocator,
    _task: core::marker::PhantomData<&'task ()>,
}

#[cfg(feature = "allocator-api2")]
mod api {
    use super::TaskPoolAllocator;
    use allocator_api2::alloc::{AllocError, Allocator};
    use core::alloc::Layout;
    use core::ptr::NonNull;

    // SAFETY: all is the inner allocator's, which is not dropped before this is.
    unsafe impl Allocator for TaskPoolAllocator<'_> {
        fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
            self.allocator.allocate(layout)
        }

        fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
            self.allocator.allocate_zeroed(layout)
        }

        unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
            // SAFETY: the caller's promise.
            unsafe { self.allocator.deallocate(block, layout) };
        }
    }
}
