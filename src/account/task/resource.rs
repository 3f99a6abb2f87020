//! Resources with a release action, and the order in which they are released.

use super::end::ReleaseFailure;
use crate::account::registry::internally;
use core::cmp::Reverse;
use core::error::Error;
use core::fmt;
use core::marker::PhantomData;
use std::any::Any;
use std::boxed::Box;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::string::String;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

/// Something of a task that has to be released when the task ends: a spill file, a connection, a
/// lease. Closures `FnMut() -> Result<(), Box<dyn Error + Send + Sync>>` are one; they are called
/// once.
pub trait Resource: Send {
    /// A word for messages.
    fn name(&self) -> &str {
        "resource"
    }

    /// Releases it. Called once; the resource is dropped after. May use handles of the task only to
    /// find that it has ended.
    ///
    /// # Errors
    /// What went wrong. The others are released all the same, and the end of the task reports it.
    fn release(&mut self) -> Result<(), Box<dyn Error + Send + Sync>>;
}

impl<F: FnMut() -> Result<(), Box<dyn Error + Send + Sync>> + Send> Resource for F {
    fn release(&mut self) -> Result<(), Box<dyn Error + Send + Sync>> {
        self()
    }
}

/// The resource could not be registered: the task releases its resources, or has ended.
#[non_exhaustive]
pub struct RegisterError<R> {
    /// It comes back.
    pub resource: R,
}

impl<R> fmt::Debug for RegisterError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisterError").finish_non_exhaustive()
    }
}

impl<R> fmt::Display for RegisterError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the task releases its resources, or has ended")
    }
}

impl<R> Error for RegisterError<R> {}

/// The resource has been released already, by its task's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Released;

impl fmt::Display for Released {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the resource has been released")
    }
}

impl Error for Released {}

/// A resource that its task owns; made by [`MemoryManager::register`](crate::MemoryManager::register).
/// Dropping this changes nothing.
pub struct Registered<'task, R> {
    slot: Arc<Slot<R>>,
    resources: Resources,
    key: Key,
    _task: PhantomData<&'task ()>,
}

type Slot<R> = Mutex<Option<R>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A resource whose user panicked is released all the same.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<R: Resource> Registered<'_, R> {
    /// Runs `work` with the resource. Its release waits for that, and so do other calls.
    ///
    /// # Errors
    /// If it has been released: for handles, which may outlive the task.
    pub fn with<T>(&self, work: impl FnOnce(&mut R) -> T) -> Result<T, Released> {
        lock(&self.slot).as_mut().map(work).ok_or(Released)
    }

    /// Releases the resource now.
    ///
    /// # Errors
    /// If the release failed or panicked, or was done before by the task's end. The resource is
    /// gone in any case.
    pub fn release(self) -> Result<(), ReleaseFailure> {
        let entry = self.resources.take(self.key);
        match entry {
            Some(mut entry) => entry.release(),
            None => Err(ReleaseFailure::new(
                "resource",
                self.key.priority.0,
                Box::new(Released),
            )),
        }
    }
}

impl<R> fmt::Debug for Registered<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered")
            .field("priority", &self.key.priority.0)
            .finish_non_exhaustive()
    }
}

/// In this order resources are released: the highest priority first, and of the same priority the
/// one that was registered last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    priority: Reverse<i32>,
    number: Reverse<u64>,
}

struct Entry {
    priority: i32,
    name: Box<str>,
    /// Takes the resource out of its slot; `None` if it is gone.
    take: Box<dyn FnMut() -> Option<Box<dyn Resource>> + Send>,
}

impl Entry {
    fn release(&mut self) -> Result<(), ReleaseFailure> {
        let released = catch_unwind(AssertUnwindSafe(|| match (self.take)() {
            Some(mut resource) => resource.release(),
            None => Err(Box::new(Released).into()),
        }));
        let source = match released {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(source)) => source,
            Err(payload) => said(payload.as_ref()).into(),
        };
        Err(ReleaseFailure::new(&self.name, self.priority, source))
    }
}

/// What a panic said.
fn said(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    std::format!("panicked: {}", text.unwrap_or("without words"))
}

/// The resources of a task.
#[derive(Clone)]
pub(super) struct Resources(Arc<Mutex<List>>);

struct List {
    is_open: bool,
    registered: u64,
    entries: BTreeMap<Key, Entry>,
}

impl Resources {
    pub(super) fn new() -> Resources {
        Resources(Arc::new(Mutex::new(List {
            is_open: true,
            registered: 0,
            entries: BTreeMap::new(),
        })))
    }

    pub(super) fn register<'task, R: Resource + 'static>(
        &self,
        resource: R,
        priority: i32,
    ) -> Result<Registered<'task, R>, RegisterError<R>> {
        let mut list = lock(&self.0);
        if !list.is_open {
            return Err(RegisterError { resource });
        }
        let number = list.registered;
        list.registered += 1;
        let key = Key {
            priority: Reverse(priority),
            number: Reverse(number),
        };
        internally(|| {
            let name = resource.name().into();
            let slot = Arc::new(Mutex::new(Some(resource)));
            let taken = Arc::clone(&slot);
            let take = Box::new(move || {
                let resource = lock(&taken).take()?;
                Some(Box::new(resource) as Box<dyn Resource>)
            });
            let entry = Entry {
                priority,
                name,
                take,
            };
            list.entries.insert(key, entry);
            Ok(Registered {
                slot,
                resources: self.clone(),
                key,
                _task: PhantomData,
            })
        })
    }

    fn take(&self, key: Key) -> Option<Entry> {
        lock(&self.0).entries.remove(&key)
    }

    /// Lets nothing be registered any more, and releases all, in order. What went wrong.
    pub(super) fn release_all(&self) -> Vec<ReleaseFailure> {
        lock(&self.0).is_open = false;
        let mut failures = Vec::new();
        // One at a time, outside the lock: a release may ask for the next.
        loop {
            let Some((_, mut entry)) = lock(&self.0).entries.pop_first() else {
                return failures;
            };
            if let Err(failure) = entry.release() {
                failures.push(failure);
            }
        }
    }
}
