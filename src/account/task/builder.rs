//! Tasks with limits.

use super::end::{EndError, EndReport};
use super::manager::{MemoryManager, OnEnd};
use super::share::Share;
use super::shared::Task;
use crate::account::budget::{Budget, Greedy, Unbounded};
use crate::account::consumer::Consumer;
use crate::account::limit::Limits;
use crate::pool::{PoolId, bound};
use core::fmt;
use core::time::Duration;
use std::boxed::Box;
use std::string::String;
use std::sync::Arc;

/// How long the end of a task waits for uses under way, and as long for memory that others free.
const PATIENCE: Duration = Duration::from_millis(50);

/// A task to be begun; made by [`MemoryManager::builder`].
#[must_use = "the task is begun by `begin`"]
pub struct TaskBuilder {
    name: String,
    pool: Option<PoolId>,
    budget: Option<Arc<dyn Budget>>,
    limit: Option<u64>,
    limits: Limits,
    patience: Duration,
    on_end: Option<OnEnd>,
}

impl TaskBuilder {
    pub(super) fn new(name: String) -> TaskBuilder {
        TaskBuilder {
            name,
            pool: None,
            budget: None,
            limit: None,
            limits: Limits::none(),
            patience: PATIENCE,
            on_end: None,
        }
    }

    /// Has the task's reservations share a budget with other tasks. It sees each task as one
    /// consumer that can spill: where room is short, the largest tasks are asked, each of which
    /// asks the largest of its consumers that can.
    ///
    /// ```
    /// use bursar::{Budget, Greedy, MemoryManager};
    /// use std::sync::Arc;
    ///
    /// let all: Arc<dyn Budget> = Arc::new(Greedy::new(100));
    /// let small = MemoryManager::builder("small").budget(&all).limit(40).begin();
    /// let large = MemoryManager::builder("large").budget(&all).begin();
    /// let rows = small.reservation("rows");
    /// assert!(rows.try_grow(50).is_err()); // its own limit
    /// rows.try_grow(40)?;
    /// assert!(large.reservation("rows").try_grow(70).is_err()); // the sum
    /// # Ok::<(), bursar::BudgetError>(())
    /// ```
    pub fn budget(mut self, budget: &Arc<dyn Budget>) -> TaskBuilder {
        self.budget = Some(Arc::clone(budget));
        self
    }

    /// Has the memory of the task's consumers come from a pool, as long as that serves requests: a
    /// pool of its own keeps what it leaves behind apart from all else. It ends when its handle has
    /// been dropped and its last block freed. What is allocated under reservations comes from where
    /// it does for others.
    ///
    /// ```
    /// use bursar::{MemoryManager, Pool};
    ///
    /// let pool = Pool::new(64 << 20)?;
    /// let task = MemoryManager::builder("load").pool(pool.id()).begin();
    /// let rows = task.consumer("rows");
    /// # Ok::<(), bursar::PoolError>(())
    /// ```
    pub fn pool(mut self, pool: PoolId) -> TaskBuilder {
        self.pool = Some(pool);
        self
    }

    /// Limits what the task's reservations declare together, in bytes.
    pub fn limit(mut self, bytes: u64) -> TaskBuilder {
        self.limit = Some(bytes);
        self
    }

    /// Limits the bytes that the task really holds, as
    /// [`Consumer::set_limits`](crate::Consumer::set_limits).
    pub fn limits(mut self, limits: Limits) -> TaskBuilder {
        self.limits = limits;
        self
    }

    /// How long the end waits for uses under way, and then as long for memory that other threads
    /// are still freeing, before it calls that left; 50 ms by default.
    pub fn patience(mut self, patience: Duration) -> TaskBuilder {
        self.patience = patience;
        self
    }

    /// Has `tell` told of the end, also where the manager is dropped, which says nothing to anybody
    /// else.
    pub fn on_end(
        mut self,
        tell: impl FnOnce(Result<&EndReport, &EndError>) + Send + Sync + 'static,
    ) -> TaskBuilder {
        self.on_end = Some(Box::new(tell));
        self
    }

    /// Begins the task.
    ///
    /// # Panics
    /// As [`Consumer::new`](crate::Consumer::new).
    pub fn begin(self) -> MemoryManager {
        let root = Consumer::new(self.name);
        if let Some(PoolId(pool)) = self.pool {
            bound::bind(root.owner_tag(), Some(pool));
        }
        if self.limits != Limits::none() {
            root.set_limits(self.limits);
        }
        let budget: Arc<dyn Budget> = match (self.budget, self.limit) {
            (Some(all), limit) => Share::new(&root, all, limit),
            (None, Some(limit)) => Arc::new(Greedy::new(limit)),
            (None, None) => Arc::new(Unbounded::new()),
        };
        let task = Task::begin(root, self.pool, budget, self.limit, self.patience);
        MemoryManager::of(task, self.on_end)
    }
}

impl fmt::Debug for TaskBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskBuilder")
            .field("name", &self.name)
            .field("pool", &self.pool)
            .field("budget", &self.budget)
            .field("limit", &self.limit)
            .field("limits", &self.limits)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}
