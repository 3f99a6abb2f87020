//! The manager of a task.

use super::builder::TaskBuilder;
use super::end::{EndError, EndReport};
use super::handle::TaskHandle;
use super::held::{TaskConsumer, TaskReservation, TaskScope};
use super::resource::{RegisterError, Registered, Resource};
use super::shared::Task;
use crate::account::limit::Limits;
use crate::account::usage::Usage;
use core::fmt;
use std::boxed::Box;
use std::string::String;
use std::sync::Arc;

/// The unique owner of a task's memory resources: its consumers, reservations and whatever else
/// has to be released when it ends.
///
/// Callers borrow from it, so the compiler keeps them from holding on beyond the end; where
/// borrowing cannot reach, [handles](Self::handle) check each use. Another thread that works for the
/// same task uses the same manager, by reference or handle: nothing is found by way of thread-local
/// state. Work outside of any task begins one of its own and ends it ([`run`](Self::run)).
///
/// ```
/// use bursar::MemoryManager;
///
/// let task = MemoryManager::begin("sort");
/// let runs = task.consumer("runs");
/// let rows = runs.run(|| vec![3_u32, 1, 2]);
/// std::thread::scope(|threads| {
///     threads.spawn(|| {
///         // A writer thread of the same task.
///         let buffers = task.consumer("writer");
///         let _scope = buffers.enter();
///         drop(String::from("written"));
///     });
/// });
/// drop((runs, rows));
/// let report = task.end()?;
/// assert!(report.is_clean());
/// # Ok::<(), bursar::EndError>(())
/// ```
///
/// Borrowed things cannot outlive it:
///
/// ```compile_fail
/// let task = bursar::MemoryManager::begin("task");
/// let bytes = task.reservation("bytes");
/// drop(task);
/// bytes.try_grow(1);
/// ```
pub struct MemoryManager {
    task: Arc<Task>,
    /// Told of the end; taken by it.
    on_end: Option<OnEnd>,
    has_ended: bool,
}

/// What is told of a task's end.
pub(super) type OnEnd = Box<dyn FnOnce(Result<&EndReport, &EndError>) + Send + Sync>;

impl MemoryManager {
    /// Begins a task without limits. Costs what [`Consumer::new`](crate::Consumer::new) does, and
    /// three allocations, which are charged to bursar's own consumer.
    pub fn begin(name: impl Into<String>) -> MemoryManager {
        Self::builder(name).begin()
    }

    /// For a task with limits, a budget that it shares with others, or more patience.
    pub fn builder(name: impl Into<String>) -> TaskBuilder {
        TaskBuilder::new(name.into())
    }

    /// Runs `work` as a task of its own, which ends with it: for work outside of any task. Should
    /// `work` panic, the task ends as when its manager is dropped.
    ///
    /// ```
    /// let (sum, ended) = bursar::MemoryManager::run("convert", |task| {
    ///     task.consumer("columns").run(|| vec![1, 2, 3].iter().sum::<i32>())
    /// });
    /// assert_eq!(sum, 6);
    /// assert!(ended.unwrap().is_clean());
    /// ```
    pub fn run<T>(
        name: impl Into<String>,
        work: impl FnOnce(&MemoryManager) -> T,
    ) -> (T, Result<EndReport, EndError>) {
        let manager = Self::begin(name);
        let result = work(&manager);
        (result, manager.end())
    }

    pub(super) fn of(task: Arc<Task>, on_end: Option<OnEnd>) -> MemoryManager {
        MemoryManager {
            task,
            on_end,
            has_ended: false,
        }
    }

    #[cfg(feature = "allocator-api2")]
    pub(super) fn shared(&self) -> &Arc<Task> {
        &self.task
    }

    /// The task's id: that of the consumer which all others of the task are below.
    pub fn id(&self) -> u64 {
        self.task.root.id()
    }

    /// The task's name.
    pub fn name(&self) -> &str {
        self.task.root.name()
    }

    /// A consumer of the task.
    pub fn consumer(&self, name: impl Into<String>) -> TaskConsumer<'_> {
        TaskConsumer::new(&self.task, &self.task.root, name.into())
    }

    /// A reservation of no bytes with the task's budget, of a consumer of its own.
    pub fn reservation(&self, name: impl Into<String>) -> TaskReservation<'_> {
        TaskReservation::alone(&self.task, name.into(), false)
    }

    /// The same, of a consumer that can spill: see
    /// [`on_shortage`](TaskReservation::on_shortage).
    pub fn spilling_reservation(&self, name: impl Into<String>) -> TaskReservation<'_> {
        TaskReservation::alone(&self.task, name.into(), true)
    }

    /// Attributes to the task itself what the thread allocates.
    pub fn enter(&self) -> TaskScope<'_> {
        TaskScope::of(&self.task.root)
    }

    /// Has the task own a resource. It is released at the end: those of the highest priority first,
    /// of the same priority the one that was registered last.
    ///
    /// ```
    /// let task = bursar::MemoryManager::begin("spill");
    /// let path = std::env::temp_dir().join("a spill file");
    /// task.register(
    ///     move || {
    ///         let _ = std::fs::remove_file(&path);
    ///         Ok(())
    ///     },
    ///     0,
    /// )?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// None before the task ends. By way of [handles](Self::handle) it can be too late: then the
    /// resource comes back.
    pub fn register<R: Resource + 'static>(
        &self,
        resource: R,
        priority: i32,
    ) -> Result<Registered<'_, R>, RegisterError<R>> {
        self.task.resources.register(resource, priority)
    }

    /// An owned handle, for spawned threads and futures.
    pub fn handle(&self) -> TaskHandle {
        TaskHandle(Arc::clone(&self.task))
    }

    /// What the task holds and has held; the figures of the `subtree` are those of all its
    /// consumers together.
    pub fn usage(&self) -> Usage {
        self.task.root.usage()
    }

    /// Limits the bytes that the task really holds, as
    /// [`Consumer::set_limits`](crate::Consumer::set_limits).
    pub fn set_limits(&self, limits: Limits) {
        self.task.root.set_limits(limits);
    }

    /// Ends the task. Handles are of no use from now on; uses under way are waited for, as long as
    /// the task's [patience](TaskBuilder::patience) lasts. Then all resources are released, also
    /// where one fails or panics, reservations are given back, and the report says what is alive
    /// when other threads have had some time to free it.
    ///
    /// # Errors
    /// If a release failed. The task has ended all the same.
    pub fn end(mut self) -> Result<EndReport, EndError> {
        self.end_once()
    }

    fn end_once(&mut self) -> Result<EndReport, EndError> {
        self.has_ended = true;
        let ended = self.task.end();
        if let Some(tell) = self.on_end.take() {
            tell(ended.as_ref());
        }
        ended
    }
}

impl Drop for MemoryManager {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let is_told = self.on_end.is_some();
        if let Err(error) = self.end_once()
            && !is_told
        {
            // Nobody else can say it.
            std::eprintln!("bursar: {error}");
        }
    }
}

impl fmt::Debug for MemoryManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryManager")
            .field("id", &self.id())
            .field("name", &self.name())
            .finish()
    }
}
