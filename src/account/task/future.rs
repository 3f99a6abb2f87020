//! Futures that work for a task.

use super::handle::{TaskEnded, TaskHandle, Use};
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::boxed::Box;

/// A future that works for a task; made by [`TaskHandle::wrap`]. Each poll is a use of the task and
/// attributed to it, on whichever thread that happens. When the task has ended the next poll drops
/// what is inside, and is ready with an error.
#[must_use = "futures do nothing unless they are awaited"]
pub struct TaskFuture<F> {
    task: TaskHandle,
    /// Boxed, so that it can be dropped in the middle of its life without unsafe code.
    inner: Option<Pin<Box<F>>>,
}

impl<F: Future> TaskFuture<F> {
    pub(super) fn new(task: TaskHandle, future: F) -> TaskFuture<F> {
        let inner = Some(task.0.root.run(|| Box::pin(future)));
        TaskFuture { task, inner }
    }
}

impl<F: Future> Future for TaskFuture<F> {
    type Output = Result<F::Output, TaskEnded>;

    /// # Panics
    /// If it was ready before.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let root = &this.task.0.root;
        let inner = this.inner.as_mut().expect("it has not been ready");
        let polled = match Use::begin(&this.task.0) {
            Ok(_use) => match root.run(|| inner.as_mut().poll(context)) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(output) => Poll::Ready(Ok(output)),
            },
            Err(ended) => Poll::Ready(Err(ended)),
        };
        root.safe_point();
        if polled.is_ready() {
            root.run(|| this.inner = None);
        }
        polled
    }
}

impl<F> Drop for TaskFuture<F> {
    fn drop(&mut self) {
        let Self { task, inner } = self;
        task.0.root.run(|| *inner = None);
    }
}

impl<F> core::fmt::Debug for TaskFuture<F> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TaskFuture")
            .field("task", &self.task)
            .finish_non_exhaustive()
    }
}
