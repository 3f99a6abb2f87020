//! The end of a task: what went wrong, and what is still alive.

use super::shared::{Member, Task};
use crate::account::consumer::Consumer;
#[cfg(feature = "sites")]
use crate::account::site::Site;
use crate::account::usage::ClassUsage;
use core::error::Error;
use core::fmt;
use core::time::Duration;
use std::boxed::Box;
use std::string::ToString;
use std::thread;
use std::time::Instant;
use std::vec::Vec;

/// How a task ended: what it used, and what is still alive of it. Nothing is freed by force: what
/// is alive stays the account of its consumer, on the books until the last byte is freed.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct EndReport {
    /// The task's name.
    pub task: Box<str>,
    /// Its id.
    pub task_id: u64,
    /// From its beginning to its end.
    pub lasted: Duration,
    /// The most bytes alive at once, from above, as
    /// [`Usage::subtree_peak_bytes`](crate::Usage::subtree_peak_bytes).
    pub peak_bytes: u64,
    /// Bytes still alive, of all its consumers.
    pub live_bytes: u64,
    /// The consumers that still hold something.
    pub left: Vec<Left>,
    /// The reservations that had not been given back. They have been by now.
    pub reservations: Vec<LeftReservation>,
    /// Uses by way of handles that went on when the task's patience was at its end.
    pub in_use: usize,
    /// How long the end waited for memory to be freed by others.
    pub waited: Duration,
}

/// A consumer that holds something after the end of its task.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Left {
    /// The consumer's name.
    pub consumer: Box<str>,
    /// Its id.
    pub consumer_id: u64,
    /// Bytes alive.
    pub live_bytes: u64,
    /// Blocks alive.
    pub live_blocks: u64,
    /// How old the consumer is, so at most how old what it holds.
    pub age: Duration,
    /// What it holds, by size class.
    pub classes: Vec<ClassUsage>,
    /// Where that was allocated, as far as it was sampled. Feature `sites`.
    #[cfg(feature = "sites")]
    pub sites: Vec<Site>,
}

/// A reservation that had not been given back at the end of its task.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LeftReservation {
    /// Its consumer's name.
    pub consumer: Box<str>,
    /// Its consumer's id.
    pub consumer_id: u64,
    /// Its number.
    pub reservation_id: u64,
    /// What it declared.
    pub declared_bytes: u64,
    /// What is alive of what was allocated under it.
    pub live_bytes: u64,
}

/// A resource whose release failed or panicked.
#[derive(Debug)]
#[non_exhaustive]
pub struct ReleaseFailure {
    /// Its name.
    pub resource: Box<str>,
    /// Its priority.
    pub priority: i32,
    /// What went wrong.
    pub source: Box<dyn Error + Send + Sync>,
}

impl ReleaseFailure {
    pub(super) fn new(
        resource: &str,
        priority: i32,
        source: Box<dyn Error + Send + Sync>,
    ) -> ReleaseFailure {
        ReleaseFailure {
            resource: resource.into(),
            priority,
            source,
        }
    }
}

impl fmt::Display for ReleaseFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "release of {}: {}", self.resource, self.source)
    }
}

impl Error for ReleaseFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_ref())
    }
}

/// Releases failed at the end of a task. All others were done.
#[derive(Debug)]
#[non_exhaustive]
pub struct EndError {
    /// How the task ended otherwise.
    pub report: Box<EndReport>,
    /// In the order of the releases.
    pub failures: Vec<ReleaseFailure>,
}

impl fmt::Display for EndError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (task, id) = (&self.report.task, self.report.task_id);
        write!(f, "task \"{task}\" (#{id}):")?;
        self.failures
            .iter()
            .try_for_each(|failure| write!(f, " {failure};"))
    }
}

impl Error for EndError {}

impl EndReport {
    pub(super) fn new(
        task: &Task,
        members: &[Member],
        reservations: Vec<LeftReservation>,
        in_use: usize,
        waited: Duration,
    ) -> EndReport {
        let usage = task.root.usage();
        let left = members.iter().filter_map(Left::of).collect();
        EndReport {
            task: task.root.name().into(),
            task_id: task.root.id(),
            // After the ages of what is left, none of which is above it.
            lasted: task.began.elapsed(),
            peak_bytes: usage.subtree_peak_bytes,
            live_bytes: usage.subtree_live_bytes,
            left,
            reservations,
            in_use,
            waited,
        }
    }

    /// Whether nothing is left of the task: no byte alive, nothing declared, nobody at work.
    pub fn is_clean(&self) -> bool {
        self.live_bytes == 0 && self.reservations.is_empty() && self.in_use == 0
    }
}

impl Left {
    fn of(member: &Member) -> Option<Left> {
        let usage = member.consumer.usage();
        let holds = |class: &ClassUsage| class.live_blocks > 0;
        (usage.live_blocks > 0).then(|| Left {
            consumer: member.consumer.name().into(),
            consumer_id: member.consumer.id(),
            live_bytes: usage.live_bytes,
            live_blocks: usage.live_blocks,
            classes: member.consumer.classes().filter(holds).collect(),
            #[cfg(feature = "sites")]
            sites: member.consumer.sites(),
            // After those of its samples.
            age: member.began.elapsed(),
        })
    }
}

impl fmt::Display for EndReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "task \"{}\" (#{}) ended after {:.1?}: peak {} bytes, {} alive",
            self.task, self.task_id, self.lasted, self.peak_bytes, self.live_bytes
        )?;
        for left in &self.left {
            writeln!(
                f,
                "  {} (#{}): {} bytes in {} blocks, at most {:.1?} old",
                left.consumer, left.consumer_id, left.live_bytes, left.live_blocks, left.age
            )?;
            for class in &left.classes {
                let size = match class.size {
                    0 => "large".to_string(),
                    size => std::format!("{size} B"),
                };
                let (blocks, bytes) = (class.live_blocks, class.live_bytes);
                writeln!(f, "    {size}: {blocks} blocks, {bytes} bytes")?;
            }
            #[cfg(feature = "sites")]
            for site in &left.sites {
                write!(f, "    {site}")?;
            }
        }
        for left in &self.reservations {
            writeln!(
                f,
                "  reservation {} of {} (#{}): {} bytes declared, {} alive",
                left.reservation_id,
                left.consumer,
                left.consumer_id,
                left.declared_bytes,
                left.live_bytes
            )?;
        }
        if self.in_use > 0 {
            writeln!(f, "  {} uses go on", self.in_use)?;
        }
        Ok(())
    }
}

/// The first pause between two looks at what is alive; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_micros(50);

/// Gives other threads time to free what they still hold of a task. How long that took.
pub(super) fn wait_until_free(root: &Consumer, patience: Duration) -> Duration {
    let began = Instant::now();
    let mut pause = FIRST_PAUSE;
    while root.usage().subtree_live_bytes > 0 {
        let left = patience.saturating_sub(began.elapsed());
        if left.is_zero() {
            break;
        }
        thread::sleep(pause.min(left));
        pause *= 2;
    }
    began.elapsed()
}
