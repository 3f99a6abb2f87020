//! Tasks: a [`MemoryManager`] owns every memory resource of one task and ends with it.
//!
//! ```text
//! MemoryManager   unique owner: consumers, reservations, resources with a release action
//!   | &           TaskConsumer, TaskReservation, Registered: borrowed, cannot outlive it
//!   | handle()    TaskHandle, Lent: owned, each use is checked against the task's end
//!   end(), drop   uses are waited for, resources released, what is alive is reported
//! ```
//! Nothing here is thread-local: who works for a task is handed its manager or a handle.

#[cfg(feature = "allocator-api2")]
mod arena;
mod builder;
mod end;
mod future;
mod handle;
mod held;
mod manager;
mod resource;
mod running;
mod share;
mod shared;

#[cfg(feature = "allocator-api2")]
pub use arena::TaskArena;
pub use builder::TaskBuilder;
pub use end::{EndError, EndReport, Left, LeftReservation, ReleaseFailure};
pub use future::TaskFuture;
pub use handle::{Lent, TaskEnded, TaskHandle};
pub use held::{TaskConsumer, TaskReservation, TaskScope};
pub use manager::MemoryManager;
pub use resource::{RegisterError, Registered, Released, Resource};
pub use running::{RunningTask, RunningTasks, running_tasks};
