//! What callers hold of a task's consumers and reservations. Neither can be cloned into something
//! that outlives the task: all that they give out is borrowed from them.

use super::shared::Task;
use crate::account::budget::{BudgetError, Reclaim, ShrinkError};
use crate::account::consumer::Consumer;
use crate::account::limit::Limits;
use crate::account::reservation::Reservation;
use crate::account::scope::Scope;
use crate::account::usage::{ClassUsage, Usage};
use crate::units::OwnerTag;
use core::fmt;
use core::marker::PhantomData;
use std::string::String;
use std::sync::Arc;

/// A consumer of a task.
///
/// ```compile_fail
/// let task = bursar::MemoryManager::begin("task");
/// let rows = task.consumer("rows");
/// task.end().unwrap();
/// rows.enter(); // the task is gone
/// ```
pub struct TaskConsumer<'task> {
    task: Arc<Task>,
    consumer: Consumer,
    _task: PhantomData<&'task ()>,
}

impl<'task> TaskConsumer<'task> {
    pub(super) fn new(task: &Arc<Task>, parent: &Consumer, name: String) -> TaskConsumer<'task> {
        TaskConsumer {
            task: Arc::clone(task),
            consumer: task.consumer(parent, name),
            _task: PhantomData,
        }
    }

    /// Its id, as [`Consumer::id`].
    pub fn id(&self) -> u64 {
        self.consumer.id()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.consumer.name()
    }

    /// What the layers below know it by.
    pub(crate) fn owner_tag(&self) -> OwnerTag {
        self.consumer.owner_tag()
    }

    /// A consumer below it.
    pub fn child(&self, name: impl Into<String>) -> TaskConsumer<'task> {
        TaskConsumer::new(&self.task, &self.consumer, name.into())
    }

    /// Attributes to it what the thread allocates, as [`Consumer::enter`].
    pub fn enter(&self) -> TaskScope<'task> {
        TaskScope::of(&self.consumer)
    }

    /// Runs `work` in its scope.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        self.consumer.run(work)
    }

    /// Runs `work` in its scope, where hard limits refuse memory, as [`Consumer::try_run`].
    pub fn try_run<T>(&self, work: impl FnOnce() -> T) -> T {
        self.consumer.try_run(work)
    }

    /// A reservation of no bytes with the task's budget.
    pub fn reservation(&self) -> TaskReservation<'task> {
        TaskReservation::of(&self.task, self.consumer.register(&self.task.budget))
    }

    /// The same consumer, which can or cannot free memory when it is asked to.
    #[must_use]
    pub fn with_can_spill(mut self, can_spill: bool) -> Self {
        self.consumer = self.consumer.clone().with_can_spill(can_spill);
        self
    }

    /// Limits what it and those below it hold, as [`Consumer::set_limits`].
    pub fn set_limits(&self, limits: Limits) {
        self.consumer.set_limits(limits);
    }

    /// What it holds and has held.
    pub fn usage(&self) -> Usage {
        self.consumer.usage()
    }

    /// What it holds, by size class.
    pub fn classes(&self) -> impl Iterator<Item = ClassUsage> + use<> {
        self.consumer.classes()
    }
}

impl TaskScope<'_> {
    pub(super) fn of<'task>(consumer: &Consumer) -> TaskScope<'task> {
        TaskScope {
            _scope: consumer.enter(),
            _task: PhantomData,
        }
    }
}

impl Drop for TaskConsumer<'_> {
    fn drop(&mut self) {
        self.task.leave(&self.consumer);
    }
}

impl fmt::Debug for TaskConsumer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.consumer.fmt(f)
    }
}

/// The thread is in the scope of a task's consumer or reservation until this is dropped.
#[must_use = "the scope is left when this is dropped"]
#[derive(Debug)]
pub struct TaskScope<'task> {
    _scope: Scope,
    _task: PhantomData<&'task ()>,
}

/// Bytes that a consumer of a task has declared to the task's budget. Dropping it gives them back;
/// so does the task's end, should it be forgotten. Each call does what the one of
/// [`Reservation`] of the same name does.
pub struct TaskReservation<'task> {
    task: Arc<Task>,
    reservation: Arc<Reservation>,
    /// Its consumer was made for it alone.
    is_alone: bool,
    _task: PhantomData<&'task ()>,
}

impl<'task> TaskReservation<'task> {
    /// With a consumer of its own, which can or cannot spill: budgets take note of it now.
    pub(super) fn alone(task: &Arc<Task>, name: String, can_spill: bool) -> TaskReservation<'task> {
        let consumer = task.consumer(&task.root, name).with_can_spill(can_spill);
        let mut reservation = Self::of(task, consumer.register(&task.budget));
        reservation.is_alone = true;
        reservation
    }

    fn of(task: &Arc<Task>, reservation: Reservation) -> TaskReservation<'task> {
        TaskReservation {
            task: Arc::clone(task),
            reservation: task.keep(reservation),
            is_alone: false,
            _task: PhantomData,
        }
    }

    /// Its number, unique among the reservations of its consumer.
    pub fn id(&self) -> u64 {
        self.reservation.id()
    }

    /// What it declares, in bytes.
    pub fn size(&self) -> u64 {
        self.reservation.size()
    }

    /// Declares `bytes` more, whether there is room or not.
    ///
    /// # Panics
    /// As [`Reservation::grow`].
    pub fn grow(&self, bytes: u64) {
        self.reservation.grow(bytes);
    }

    /// Declares `bytes` more if there is room.
    ///
    /// # Errors
    /// If there is none, in the task's limit or in the budget that it shares with others.
    pub fn try_grow(&self, bytes: u64) -> Result<(), BudgetError> {
        self.reservation.try_grow(bytes)
    }

    /// Gives back `bytes`.
    ///
    /// # Panics
    /// If it has less.
    pub fn shrink(&self, bytes: u64) {
        self.reservation.shrink(bytes);
    }

    /// Gives back `bytes`, and returns the size that is left.
    ///
    /// # Errors
    /// If it has less.
    pub fn try_shrink(&self, bytes: u64) -> Result<u64, ShrinkError> {
        self.reservation.try_shrink(bytes)
    }

    /// Makes the size `bytes`, whether there is room or not.
    ///
    /// # Panics
    /// As [`Reservation::resize`].
    pub fn resize(&self, bytes: u64) {
        self.reservation.resize(bytes);
    }

    /// Makes the size `bytes` if there is room.
    ///
    /// # Errors
    /// As [`try_grow`](Self::try_grow).
    pub fn try_resize(&self, bytes: u64) -> Result<(), BudgetError> {
        self.reservation.try_resize(bytes)
    }

    /// Gives back all, and returns how much that was.
    pub fn free(&self) -> u64 {
        self.reservation.free()
    }

    /// Splits off `bytes` as a reservation of their own.
    ///
    /// # Errors
    /// If it has less.
    pub fn try_split(&self, bytes: u64) -> Result<TaskReservation<'task>, ShrinkError> {
        Ok(Self::of(&self.task, self.reservation.try_split(bytes)?))
    }

    /// Moves all bytes to a new reservation.
    pub fn take(&self) -> TaskReservation<'task> {
        Self::of(&self.task, self.reservation.take())
    }

    /// A reservation of no bytes, of the same consumer.
    pub fn new_empty(&self) -> TaskReservation<'task> {
        Self::of(&self.task, self.reservation.new_empty())
    }

    /// Has `reclaim` asked to free memory of this consumer when others are short.
    pub fn on_shortage<R: Reclaim + 'static>(&self, reclaim: &Arc<R>) {
        self.reservation.on_shortage(reclaim);
    }

    /// Attributes to it what the thread allocates.
    pub fn enter(&self) -> TaskScope<'task> {
        TaskScope {
            _scope: self.reservation.enter(),
            _task: PhantomData,
        }
    }

    /// Runs `work` in its scope.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        self.reservation.run(work)
    }

    /// What was allocated under it, and what it declares.
    pub fn usage(&self) -> Usage {
        self.reservation.usage()
    }
}

impl Drop for TaskReservation<'_> {
    fn drop(&mut self) {
        self.task.let_go(&self.reservation);
        if self.is_alone {
            self.task.leave(self.reservation.consumer());
        }
    }
}

impl fmt::Debug for TaskReservation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reservation.fmt(f)
    }
}
