//! The memory pool: DataFusion's reservations, admitted by a budget of bursar.

use crate::consumers::{Consumers, Entry};
use crate::process::ProcessBytes;
use bursar::{Budget, BudgetError, Consumer};
use datafusion::common::human_readable_size;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use std::fmt;
use std::sync::Arc;

/// A DataFusion memory pool over a budget of bursar.
///
/// Each consumer that DataFusion registers is a consumer of bursar, below that in whose scope the
/// registering thread is: the node's of a plan that [`install`](crate::install) has wrapped. Of
/// those, the budget sees each partition of a node as one consumer, so that budgets which weigh real
/// bytes compare what the operator declares with what it allocates; it can spill if the operator
/// registered one that can. What a spilling operator registers beside that as unspillable, for its
/// merges, asks for itself.
///
/// Growing asks the budget first and then raises the sizes; shrinking lowers the sizes first. No
/// lock of the pool is held while the budget, or anything that it calls, runs. A refusal is a bare
/// [`DataFusionError::ResourcesExhausted`], on which operators spill; it names the largest holders
/// with declared and real bytes.
///
/// ```
/// use bursar_datafusion::BursarMemoryPool;
/// use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool};
/// use std::sync::Arc;
///
/// let budget = Arc::new(bursar::Greedy::new(100));
/// let pool: Arc<dyn MemoryPool> = Arc::new(BursarMemoryPool::new(budget));
/// let sort = MemoryConsumer::new("sort").register(&pool);
/// sort.try_grow(80)?;
/// assert!(sort.try_grow(40).is_err());
/// assert_eq!(pool.reserved(), 80);
/// # Ok::<(), datafusion::error::DataFusionError>(())
/// ```
pub struct BursarMemoryPool {
    budget: Arc<dyn Budget>,
    /// The budget, if it is one that has to look at the process now and then.
    process: Option<Arc<ProcessBytes>>,
    consumers: Consumers,
    /// Above consumers that are registered in no scope; has what the pool itself keeps.
    root: Consumer,
}

impl BursarMemoryPool {
    /// A pool of what `budget` admits.
    pub fn new(budget: Arc<dyn Budget>) -> BursarMemoryPool {
        BursarMemoryPool::below(Consumer::new("datafusion"), budget)
    }

    /// A pool whose consumers are below `root` unless they are registered in a scope.
    pub(crate) fn below(root: Consumer, budget: Arc<dyn Budget>) -> BursarMemoryPool {
        BursarMemoryPool {
            budget,
            process: None,
            consumers: Consumers::default(),
            root,
        }
    }

    /// The same for a budget that has to be shown the process.
    pub(crate) fn of_process(root: Consumer, process: Arc<ProcessBytes>) -> BursarMemoryPool {
        let budget: Arc<dyn Budget> = process.clone();
        BursarMemoryPool {
            process: Some(process),
            ..BursarMemoryPool::below(root, budget)
        }
    }

    /// The budget that admits.
    pub fn budget(&self) -> &Arc<dyn Budget> {
        &self.budget
    }

    /// The consumer of bursar that stands for one of DataFusion's, while that is registered.
    pub fn consumer(&self, df: &MemoryConsumer) -> Option<Consumer> {
        Some(self.consumers.get(df)?.consumer().clone())
    }

    fn entry(&self, reservation: &MemoryReservation) -> Arc<Entry> {
        let df = reservation.consumer();
        let open = self.consumers.get(df);
        open.unwrap_or_else(|| self.consumers.register(df, &self.budget, &self.root))
    }
}

/// Whether a session's pool is bursar's, itself or inside another that shows what it wraps.
pub(crate) fn is_ours(pool: &dyn MemoryPool) -> bool {
    pool.is::<BursarMemoryPool>() || pool.to_string().contains("bursar(budget: ")
}

/// What DataFusion tells of a refusal, after which the budget's own words come.
fn exhausted(
    reservation: &MemoryReservation,
    asked: usize,
    error: &BudgetError,
) -> DataFusionError {
    DataFusionError::ResourcesExhausted(format!(
        "Failed to allocate additional {} for {} with {} already allocated for this reservation: \
         {error}",
        human_readable_size(asked),
        reservation.consumer().name(),
        human_readable_size(reservation.size()),
    ))
}

impl MemoryPool for BursarMemoryPool {
    fn name(&self) -> &str {
        "bursar"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.consumers.register(consumer, &self.budget, &self.root);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.consumers.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.entry(reservation).grow(additional as u64);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.entry(reservation).shrink(shrink as u64);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        if let Some(process) = &self.process {
            process.look();
        }
        let entry = self.entry(reservation);
        let mut grown = entry.try_grow(additional as u64);
        if let (Err(_), Some(process)) = (&grown, &self.process) {
            // For what was declared since the last look, which may be there already or never be.
            process.count();
            grown = entry.try_grow(additional as u64);
        }
        grown.map_err(|error| exhausted(reservation, additional, &error))
    }

    fn reserved(&self) -> usize {
        self.budget.reserved() as usize
    }

    fn memory_limit(&self) -> MemoryLimit {
        match self.budget.limit() {
            Some(limit) => MemoryLimit::Finite(limit as usize),
            None => MemoryLimit::Infinite,
        }
    }
}

impl fmt::Display for BursarMemoryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = human_readable_size(self.reserved());
        write!(f, "bursar(budget: {}, used: {used}", self.budget.name())?;
        match self.budget.limit() {
            Some(limit) => write!(f, ", pool_size: {})", human_readable_size(limit as usize)),
            None => write!(f, ")"),
        }
    }
}

impl fmt::Debug for BursarMemoryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BursarMemoryPool")
            .field("budget", &self.budget)
            .field("consumers", &self.consumers)
            .finish()
    }
}
