//! Work that operators spawn: it runs in the scope of whoever spawned it.
//!
//! DataFusion spawns through one tracer a process, which can be set once and not be read. So a
//! program that has a tracer of its own gives it to [`Options::tracer`](crate::Options::tracer), to
//! be called inside this one.

use crate::books::{Query, current_seat};
use bursar::Consumer;
use datafusion::common::runtime::{JoinSetTracer, set_join_set_tracer};
use futures::future::BoxFuture;
use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

type Erased = Box<dyn Any + Send>;
type Block = Box<dyn FnOnce() -> Erased + Send>;

/// How spawned work is attributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Spawned {
    /// To the node that spawned it.
    Attributed,
    /// To nobody, but for what the nodes do that it polls: another tracer was set before.
    Elsewhere,
}

struct Tracer {
    next: Option<&'static dyn JoinSetTracer>,
}

/// Sets the tracer, unless that was done before.
pub(crate) fn trace(next: Option<&'static dyn JoinSetTracer>) -> Spawned {
    static STATE: Mutex<Option<Spawned>> = Mutex::new(None);
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    *state.get_or_insert_with(|| {
        // Once a process: DataFusion keeps it for good.
        let tracer: &'static Tracer = Box::leak(Box::new(Tracer { next }));
        match set_join_set_tracer(tracer) {
            Ok(()) => Spawned::Attributed,
            Err(_) => Spawned::Elsewhere,
        }
    })
}

impl JoinSetTracer for Tracer {
    fn trace_future(&self, future: BoxFuture<'static, Erased>) -> BoxFuture<'static, Erased> {
        let future = match self.next {
            Some(next) => next.trace_future(future),
            None => future,
        };
        match bursar::current() {
            Some(consumer) => Box::pin(Task::new(consumer, future)),
            None => future,
        }
    }

    fn trace_block(&self, block: Block) -> Block {
        let block = match self.next {
            Some(next) => next.trace_block(block),
            None => block,
        };
        match bursar::current() {
            Some(consumer) => {
                let query = current_query();
                Box::new(move || {
                    let _query = query;
                    consumer.run(block)
                })
            }
            None => block,
        }
    }
}

fn current_query() -> Option<Arc<Query>> {
    current_seat().map(|(_, query)| query)
}

/// A spawned future in the scope of who spawned it. It keeps the query's books open: a task that
/// was aborted is dropped some time after the query's streams.
struct Task {
    future: Option<BoxFuture<'static, Erased>>,
    consumer: Consumer,
    _query: Option<Arc<Query>>,
}

impl Task {
    fn new(consumer: Consumer, future: BoxFuture<'static, Erased>) -> Task {
        Task {
            future: Some(future),
            consumer,
            _query: current_query(),
        }
    }
}

impl Future for Task {
    type Output = Erased;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Erased> {
        let Task {
            future, consumer, ..
        } = &mut *self;
        let future = future.as_mut().expect("it is there until the drop");
        let polled = consumer.run(|| future.as_mut().poll(context));
        consumer.safe_point();
        polled
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let _scope = self.consumer.enter();
        self.future = None;
    }
}
