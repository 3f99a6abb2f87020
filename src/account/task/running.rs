//! All tasks that run.

use super::shared::Task;
use crate::account::registry::internally;
use core::fmt;
use core::time::Duration;
use std::boxed::Box;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::vec::Vec;

type Tasks = BTreeMap<u64, Weak<Task>>;

/// By id.
static RUNNING: Mutex<Tasks> = Mutex::new(BTreeMap::new());

fn running() -> MutexGuard<'static, Tasks> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn add(task: &Arc<Task>) {
    running().insert(task.root.id(), Arc::downgrade(task));
}

pub(super) fn remove(id: u64) {
    let removed = running().remove(&id);
    drop(removed);
}

/// A task that runs.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RunningTask {
    /// Its name.
    pub name: Box<str>,
    /// Its id.
    pub id: u64,
    /// Since it began.
    pub age: Duration,
    /// Bytes alive, of all its consumers.
    pub live_bytes: u64,
    /// The most at once, from above.
    pub peak_bytes: u64,
    /// What its reservations declare.
    pub reserved_bytes: u64,
    /// What they may declare.
    pub limit: Option<u64>,
    /// Its consumers, itself included.
    pub consumers: usize,
}

/// The tasks that run, the largest first; made by [`running_tasks`]. Its `Display` is a table.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct RunningTasks(Vec<RunningTask>);

/// A snapshot of the tasks that run. Costs [`usage`](crate::Consumer::usage) for each.
pub fn running_tasks() -> RunningTasks {
    let alive = || running().values().filter_map(Weak::upgrade).collect();
    let alive: Vec<Arc<Task>> = internally(alive);
    let mut tasks: Vec<RunningTask> = alive.iter().map(|task| RunningTask::of(task)).collect();
    tasks.sort_by_key(|task| core::cmp::Reverse(task.live_bytes.max(task.reserved_bytes)));
    RunningTasks(tasks)
}

impl RunningTask {
    fn of(task: &Task) -> RunningTask {
        let usage = task.root.usage();
        RunningTask {
            name: task.root.name().into(),
            id: task.root.id(),
            age: task.began.elapsed(),
            live_bytes: usage.subtree_live_bytes,
            peak_bytes: usage.subtree_peak_bytes,
            reserved_bytes: usage.subtree_reserved_bytes,
            limit: task.limit,
            consumers: task.consumers(),
        }
    }
}

impl RunningTasks {
    /// All of them.
    pub fn iter(&self) -> core::slice::Iter<'_, RunningTask> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a RunningTasks {
    type Item = &'a RunningTask;
    type IntoIter = core::slice::Iter<'a, RunningTask>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for RunningTasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>12} {:>12} {:>12} {:>12} {:>10} {:>9}  task, bytes",
            "live", "peak", "declared", "limit", "age", "consumers"
        )?;
        for task in self {
            let limit = task.limit.map(|limit| std::format!("{limit}"));
            let age = std::format!("{:.1?}", task.age);
            writeln!(
                f,
                "{:>12} {:>12} {:>12} {:>12} {age:>10} {:>9}  {} (#{})",
                task.live_bytes,
                task.peak_bytes,
                task.reserved_bytes,
                limit.as_deref().unwrap_or("-"),
                task.consumers,
                task.name,
                task.id
            )?;
        }
        Ok(())
    }
}
