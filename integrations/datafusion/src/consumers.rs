//! DataFusion's memory consumers and those of bursar: one for one, by id.

use crate::books::{Query, Seat, current_seat};
use bursar::{Budget, BudgetError, Claim, Consumer, Holder, Reclaim, Reservation};
use datafusion::execution::memory_pool::MemoryConsumer;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, Weak};

/// A registered consumer.
#[derive(Debug)]
pub(crate) struct Entry {
    /// All that DataFusion's reservations of this consumer declare.
    reservation: Reservation,
    tied: Option<Tied>,
}

/// The partition of a plan node that ran when the consumer was registered.
#[derive(Debug)]
struct Tied {
    seat: Arc<Seat>,
    query: Arc<Query>,
}

impl Tied {
    /// The budget for what an operator registers: it is asked on behalf of the partition. But not
    /// for what an operator which spills needs to do so, which is to be admitted like requests of
    /// those that cannot.
    fn budget(&self, can_spill: bool, budget: &Arc<dyn Budget>) -> Arc<dyn Budget> {
        let partition = &self.seat.consumer;
        if partition.can_spill() && !can_spill {
            return Arc::clone(budget);
        }
        Arc::new(OnBehalf {
            holder: partition.clone().with_can_spill(can_spill),
            budget: Arc::clone(budget),
        })
    }

    fn add(&self, bytes: u64) {
        self.query.nodes()[self.seat.node].declared.add(bytes);
        self.query.declared().add(bytes);
    }

    fn subtract(&self, bytes: u64) {
        self.query.nodes()[self.seat.node].declared.subtract(bytes);
        self.query.declared().subtract(bytes);
    }
}

impl Entry {
    /// Registers a consumer below that in whose scope the thread is, or below `root`.
    fn new(df: &MemoryConsumer, budget: &Arc<dyn Budget>, root: &Consumer) -> Entry {
        let above = bursar::current().unwrap_or_else(|| root.clone());
        let consumer = above.child(df.name()).with_can_spill(df.can_spill());
        let tied = current_seat().map(|(seat, query)| Tied { seat, query });
        let budget = match &tied {
            Some(tied) => tied.budget(df.can_spill(), budget),
            None => Arc::clone(budget),
        };
        Entry {
            reservation: consumer.register(&budget),
            tied,
        }
    }

    pub(crate) fn consumer(&self) -> &Consumer {
        self.reservation.consumer()
    }

    pub(crate) fn grow(&self, bytes: u64) {
        self.reservation.grow(bytes);
        self.note_grown(bytes);
    }

    pub(crate) fn try_grow(&self, bytes: u64) -> Result<(), BudgetError> {
        self.reservation.try_grow(bytes)?;
        self.note_grown(bytes);
        Ok(())
    }

    fn note_grown(&self, bytes: u64) {
        if let Some(tied) = &self.tied {
            tied.add(bytes);
        }
    }

    /// Gives back bytes: all there are, if DataFusion gives back more than it was given.
    pub(crate) fn shrink(&self, bytes: u64) {
        let bytes = match self.reservation.try_shrink(bytes) {
            Ok(_) => bytes,
            Err(_) => self.reservation.free(),
        };
        if let Some(tied) = &self.tied {
            tied.subtract(bytes);
        }
    }
}

/// The consumers that are registered with one memory pool.
#[derive(Debug, Default)]
pub(crate) struct Consumers {
    open: RwLock<HashMap<usize, Arc<Entry>>>,
}

impl Consumers {
    /// Registers a consumer. `root` is above those that no plan node registers.
    pub(crate) fn register(
        &self,
        df: &MemoryConsumer,
        budget: &Arc<dyn Budget>,
        root: &Consumer,
    ) -> Arc<Entry> {
        let entry = Arc::new(Entry::new(df, budget, root));
        // The table outlives the scope that the thread is in.
        root.run(|| {
            let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
            let first = open.entry(df.id()).or_insert_with(|| Arc::clone(&entry));
            Arc::clone(first)
        })
    }

    pub(crate) fn unregister(&self, df: &MemoryConsumer) {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let entry = open.remove(&df.id());
        drop(open);
        // Without the lock: the last handle of a query may go here, and with it a report.
        drop(entry);
    }

    pub(crate) fn get(&self, df: &MemoryConsumer) -> Option<Arc<Entry>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(&df.id()).cloned()
    }
}

/// A budget that hears of a node's partition whatever the operator's consumers ask for, so that
/// what they declare is weighed with what the partition really holds.
#[derive(Debug)]
struct OnBehalf {
    holder: Consumer,
    budget: Arc<dyn Budget>,
}

impl OnBehalf {
    /// Consumers of one partition are told apart by their ids.
    fn claim(&self, claim: &Claim<'_>) -> Claim<'_> {
        Claim::new(&self.holder, claim.consumer().id(), claim.size())
    }
}

impl Budget for OnBehalf {
    fn name(&self) -> &str {
        self.budget.name()
    }

    fn reserved(&self) -> u64 {
        self.budget.reserved()
    }

    fn limit(&self) -> Option<u64> {
        self.budget.limit()
    }

    fn register(&self, _consumer: &Consumer) {
        self.budget.register(&self.holder);
    }

    fn unregister(&self, _consumer: &Consumer) {
        self.budget.unregister(&self.holder);
    }

    fn grow(&self, claim: &Claim<'_>, bytes: u64) {
        self.budget.grow(&self.claim(claim), bytes);
    }

    fn try_grow(&self, claim: &Claim<'_>, bytes: u64) -> Result<(), BudgetError> {
        self.budget.try_grow(&self.claim(claim), bytes)
    }

    fn shrink(&self, claim: &Claim<'_>, bytes: u64) {
        self.budget.shrink(&self.claim(claim), bytes);
    }

    fn split(&self, from: &Claim<'_>, to: &Claim<'_>, bytes: u64) {
        self.budget.split(&self.claim(from), &self.claim(to), bytes);
    }

    fn close(&self, claim: &Claim<'_>) {
        self.budget.close(&self.claim(claim));
    }

    fn largest(&self, count: usize) -> Vec<Holder> {
        self.budget.largest(count)
    }

    fn add_reclaim(&self, _consumer: &Consumer, reclaim: Weak<dyn Reclaim>) {
        self.budget.add_reclaim(&self.holder, reclaim);
    }
}
