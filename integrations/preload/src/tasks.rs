//! Tasks for C: one memory manager to a task, which owns what belongs to it and releases it at the
//! end. `bursar.h` declares them.

use crate::accounts::{BURSAR_ENDED, BURSAR_OK, BURSAR_RELEASE_FAILED, Usage, name_of};
use crate::text;
use allocator::{EndError, EndReport, MemoryManager, TaskHandle};
use core::ffi::{c_char, c_int, c_void};
use std::error::Error;
use std::sync::{Mutex, PoisonError};

/// A task, which may have ended.
pub struct Task {
    /// `None` once it has ended.
    manager: Mutex<Option<MemoryManager>>,
    handle: TaskHandle,
}

/// What C hands in to be handed back. It is C's to say which thread may use it.
#[derive(Clone, Copy)]
struct Data(*mut c_void);

// SAFETY: never looked into here.
unsafe impl Send for Data {}
// SAFETY: as above.
unsafe impl Sync for Data {}

impl Data {
    /// The whole is captured by closures, which the pointer alone may not be.
    fn get(self) -> *mut c_void {
        self.0
    }
}

/// Is told how the task ended: `BURSAR_OK` or `BURSAR_RELEASE_FAILED`.
pub type EndHook = Option<extern "C" fn(data: *mut c_void, outcome: c_int)>;
/// Releases a resource: 0, or a number of its own that says what went wrong.
pub type Release = extern "C" fn(data: *mut c_void) -> c_int;
/// Work that is done for a task.
pub type Work = extern "C" fn(data: *mut c_void);

/// Begins a task; `ended`, if it is not null, is called with `data` when it has ended.
///
/// # Safety
/// The name is terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_task_begin(
    name: *const c_char,
    ended: EndHook,
    data: *mut c_void,
) -> *mut Task {
    // SAFETY: the caller's promise.
    let mut builder = MemoryManager::builder(unsafe { name_of(name) });
    if let Some(hook) = ended {
        let data = Data(data);
        builder = builder.on_end(move |outcome| hook(data.get(), code_of(outcome)));
    }
    let manager = builder.begin();
    Box::into_raw(Box::new(Task {
        handle: manager.handle(),
        manager: Mutex::new(Some(manager)),
    }))
}

fn code_of<T, E>(outcome: Result<T, E>) -> c_int {
    match outcome {
        Ok(_) => BURSAR_OK,
        Err(_) => BURSAR_RELEASE_FAILED,
    }
}

/// The task's id: that of the consumer which has all its memory.
///
/// # Safety
/// The task is alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_task_id(task: *const Task) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { (*task).handle.id() }
}

/// Calls `work` with what it allocates attributed to a consumer of the task of that name, or to the
/// task itself if the name is null. On any thread. `BURSAR_OK`, or `BURSAR_ENDED`.
///
/// # Safety
/// The task is alive; the name is null or terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_task_run(
    task: *const Task,
    consumer: *const c_char,
    work: Work,
    data: *mut c_void,
) -> c_int {
    // SAFETY: the caller's promise.
    let handle = unsafe { &(*task).handle };
    let done = if consumer.is_null() {
        handle.run(|| work(data))
    } else {
        // SAFETY: the caller's promise.
        let name = unsafe { name_of(consumer) };
        let lent = handle.consumer(name);
        lent.and_then(|lent| lent.with(|consumer| consumer.run(|| work(data))))
    };
    match done {
        Ok(()) => BURSAR_OK,
        Err(_) => BURSAR_ENDED,
    }
}

/// A release action said what went wrong.
#[derive(Debug)]
struct Failed(c_int);

impl core::fmt::Display for Failed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "it returned {}", self.0)
    }
}

impl Error for Failed {}

/// Has `release` called with `data` at the task's end: those of higher priority first, and among
/// equals the last registered first. `BURSAR_OK`, or `BURSAR_ENDED`.
///
/// # Safety
/// The task is alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_task_register(
    task: *const Task,
    release: Release,
    data: *mut c_void,
    priority: i32,
) -> c_int {
    let data = Data(data);
    let resource = move || match release(data.get()) {
        0 => Ok(()),
        number => Err(Box::new(Failed(number)) as Box<dyn Error + Send + Sync>),
    };
    // SAFETY: the caller's promise.
    match unsafe { (*task).handle.register(resource, priority) } {
        Ok(_) => BURSAR_OK,
        Err(_) => BURSAR_ENDED,
    }
}

/// What the task holds: `BURSAR_OK`, or `BURSAR_ENDED` with nothing written.
///
/// # Safety
/// The task is alive, and `usage` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_task_usage(task: *const Task, usage: *mut Usage) -> c_int {
    // SAFETY: the caller's promise.
    let manager = unsafe { (*task).manager.lock() };
    let manager = manager.unwrap_or_else(PoisonError::into_inner);
    match &*manager {
        Some(manager) => {
            // SAFETY: the caller's promise.
            unsafe { usage.write(manager.usage().into()) };
            BURSAR_OK
        }
        None => BURSAR_ENDED,
    }
}

/// Ends the task: everything registered is released. The report, of what is still alive and which
/// releases failed, is written as `snprintf` would, and its length to `*length` if that is not null.
/// `BURSAR_OK`, `BURSAR_RELEASE_FAILED`, or `BURSAR_ENDED` if it had ended before.
///
/// # Safety
/// The task is alive; `size` bytes may be written at `buffer`, which may be null if there are none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_task_end(
    task: *const Task,
    buffer: *mut c_char,
    size: usize,
    length: *mut usize,
) -> c_int {
    // SAFETY: the caller's promise.
    let manager = unsafe { (*task).manager.lock() };
    let Some(manager) = manager.unwrap_or_else(PoisonError::into_inner).take() else {
        return BURSAR_ENDED;
    };
    let outcome = manager.end();
    // SAFETY: the caller's promise.
    unsafe {
        let wanted = text::display(buffer, size, &Ending(&outcome));
        if !length.is_null() {
            length.write(wanted);
        }
    }
    code_of(outcome)
}

/// How a task ended, as text.
struct Ending<'a>(&'a Result<EndReport, EndError>);

impl core::fmt::Display for Ending<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Ok(report) => write!(f, "{report}"),
            Err(error) => write!(f, "{}{error}", error.report),
        }
    }
}

/// Ends the task if it has not ended, and gives it up.
///
/// # Safety
/// The task is null, or alive and not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_task_drop(task: *mut Task) {
    if !task.is_null() {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(task) });
    }
}
