//! Owned handles of a task, for where borrowing its manager cannot reach: spawned threads and
//! futures. Each use is checked: after the task's end it is an error.

use super::future::TaskFuture;
use super::held::{TaskConsumer, TaskReservation};
use super::resource::{RegisterError, Registered, Resource};
use super::shared::Task;
use core::fmt;
use core::future::Future;
use std::boxed::Box;
use std::string::String;
use std::sync::Arc;

/// The task has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TaskEnded {
    /// Its name.
    pub task: Box<str>,
    /// Its id: that of the consumer which has all its memory.
    pub task_id: u64,
}

impl fmt::Display for TaskEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task \"{}\" (#{}) has ended", self.task, self.task_id)
    }
}

impl core::error::Error for TaskEnded {}

/// An owned handle of a task; made by [`MemoryManager::handle`](crate::MemoryManager::handle).
///
/// It does not keep the task from ending. Uses that are under way at the end are waited for, as
/// long as the task's patience lasts; later ones are errors.
///
/// ```
/// let task = bursar::MemoryManager::begin("load");
/// let handle = task.handle();
/// let writer = std::thread::spawn(move || {
///     let rows = handle.consumer("writer")?;
///     rows.with(|rows| rows.run(|| String::from("rows").len()))
/// });
/// assert_eq!(writer.join().unwrap(), Ok(4));
/// let late = task.handle();
/// task.end().unwrap();
/// assert!(late.consumer("too late").is_err());
/// ```
#[derive(Clone)]
pub struct TaskHandle(pub(super) Arc<Task>);

impl TaskHandle {
    /// The task's id: that of the consumer which has all its memory.
    pub fn id(&self) -> u64 {
        self.0.root.id()
    }

    /// The task's name.
    pub fn name(&self) -> &str {
        self.0.root.name()
    }

    /// A consumer of the task.
    ///
    /// # Errors
    /// If the task has ended.
    pub fn consumer(
        &self,
        name: impl Into<String>,
    ) -> Result<Lent<TaskConsumer<'static>>, TaskEnded> {
        self.lend(|task| TaskConsumer::new(task, &task.root, name.into()))
    }

    /// A reservation of no bytes, of a consumer of its own, with the task's budget.
    ///
    /// # Errors
    /// If the task has ended.
    pub fn reservation(
        &self,
        name: impl Into<String>,
    ) -> Result<Lent<TaskReservation<'static>>, TaskEnded> {
        self.lend(|task| TaskReservation::alone(task, name.into(), false))
    }

    /// The same, of a consumer that can spill: see
    /// [`on_shortage`](TaskReservation::on_shortage).
    ///
    /// # Errors
    /// If the task has ended.
    pub fn spilling_reservation(
        &self,
        name: impl Into<String>,
    ) -> Result<Lent<TaskReservation<'static>>, TaskEnded> {
        self.lend(|task| TaskReservation::alone(task, name.into(), true))
    }

    /// Runs `work` with what it allocates attributed to the task.
    ///
    /// # Errors
    /// If the task has ended; `work` has not been run then.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> Result<T, TaskEnded> {
        let _use = Use::begin(&self.0)?;
        Ok(self.0.root.run(work))
    }

    /// A future whose polls, and whose drop, are attributed to the task. Once the task has ended its
    /// next poll drops what is inside and is ready with an error.
    pub fn wrap<F: Future>(&self, future: F) -> TaskFuture<F> {
        TaskFuture::new(self.clone(), future)
    }

    /// As [`MemoryManager::register`](crate::MemoryManager::register).
    ///
    /// # Errors
    /// If the task has ended, or is about to; the resource comes back.
    pub fn register<R: Resource + 'static>(
        &self,
        resource: R,
        priority: i32,
    ) -> Result<Registered<'static, R>, RegisterError<R>> {
        self.0.resources.register(resource, priority)
    }

    fn lend<T>(&self, make: impl FnOnce(&Arc<Task>) -> T) -> Result<Lent<T>, TaskEnded> {
        let _use = Use::begin(&self.0)?;
        Ok(Lent {
            held: make(&self.0),
            task: Arc::clone(&self.0),
        })
    }
}

impl fmt::Debug for TaskHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskHandle")
            .field("id", &self.id())
            .field("name", &self.name())
            .finish()
    }
}

/// A use of a task by way of a handle.
pub(super) struct Use<'a>(&'a Task);

impl Use<'_> {
    pub(super) fn begin(task: &Task) -> Result<Use<'_>, TaskEnded> {
        task.begin_use()?;
        Ok(Use(task))
    }
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        self.0.end_use();
    }
}

/// Something of a task that is held by a handle: usable until the task ends.
pub struct Lent<T> {
    held: T,
    task: Arc<Task>,
}

impl Lent<TaskConsumer<'static>> {
    /// Runs `work` with it, which the end of the task waits for.
    ///
    /// # Errors
    /// If the task has ended; `work` has not been run then.
    pub fn with<T>(
        &self,
        work: impl for<'used> FnOnce(&'used TaskConsumer<'used>) -> T,
    ) -> Result<T, TaskEnded> {
        let _use = Use::begin(&self.task)?;
        Ok(work(&self.held))
    }
}

impl Lent<TaskReservation<'static>> {
    /// Runs `work` with it, which the end of the task waits for.
    ///
    /// # Errors
    /// If the task has ended; `work` has not been run then.
    pub fn with<T>(
        &self,
        work: impl for<'used> FnOnce(&'used TaskReservation<'used>) -> T,
    ) -> Result<T, TaskEnded> {
        let _use = Use::begin(&self.task)?;
        Ok(work(&self.held))
    }
}

impl<T: fmt::Debug> fmt::Debug for Lent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.held.fmt(f)
    }
}
