//! A task's share of a budget that several tasks draw on.
//!
//! ```text
//! reservation --> Share: its own limit, books by consumer --> budget of all: books by task
//!                   ^                                            | short: asks the largest task
//!                   +--- asks its largest consumers <------------+
//! ```

use crate::account::budget::{
    Budget, BudgetError, Claim, Greedy, Holder, MOST, Reclaim, ask_largest, ask_others,
};
use crate::account::consumer::Consumer;
use core::fmt;
use std::sync::{Arc, Weak};
use std::vec::Vec;

/// What one task's reservations declare, within its limit and the budget of all.
pub(super) struct Share {
    own: Greedy,
    limit: Option<u64>,
    task: Consumer,
    all: Arc<dyn Budget>,
}

impl Share {
    pub(super) fn new(task: &Consumer, all: Arc<dyn Budget>, limit: Option<u64>) -> Arc<Share> {
        let task = task.clone().with_can_spill(true);
        all.register(&task);
        let share = Arc::new(Share {
            own: Greedy::new(limit.unwrap_or(MOST)),
            limit,
            task,
            all,
        });
        let reclaim: Weak<Share> = Arc::downgrade(&share);
        share.all.add_reclaim(&share.task, reclaim);
        share
    }

    /// What the budget of all knows of the task. It is not declared a second time in the books of
    /// the task's consumer.
    fn claim(&self) -> Claim<'_> {
        Claim::new(&self.task, 0, self.own.reserved())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.unregister(&self.task);
    }
}

impl Reclaim for Share {
    fn reclaim(&self, wanted: u64) -> u64 {
        ask_largest(&self.own, wanted, None)
    }
}

impl Budget for Share {
    fn name(&self) -> &str {
        self.task.name()
    }

    fn reserved(&self) -> u64 {
        self.own.reserved()
    }

    fn limit(&self) -> Option<u64> {
        self.limit
    }

    fn register(&self, consumer: &Consumer) {
        self.own.register(consumer);
    }

    fn unregister(&self, consumer: &Consumer) {
        self.own.unregister(consumer);
    }

    fn grow(&self, claim: &Claim<'_>, bytes: u64) {
        self.own.grow(claim, bytes);
        self.all.grow(&self.claim(), bytes);
    }

    fn try_grow(&self, claim: &Claim<'_>, bytes: u64) -> Result<(), BudgetError> {
        self.own.try_grow(claim, bytes)?;
        let admit = || self.all.try_grow(&self.claim(), bytes);
        // Other tasks come first, since the budget of all never asks the one that is short.
        let admitted =
            admit().or_else(
                |error| match ask_others(&self.own, bytes, claim.consumer()) {
                    0 => Err(error),
                    _ => admit(),
                },
            );
        admitted.inspect_err(|_| self.own.shrink(claim, bytes))
    }

    fn shrink(&self, claim: &Claim<'_>, bytes: u64) {
        self.own.shrink(claim, bytes);
        self.all.shrink(&self.claim(), bytes);
    }

    fn largest(&self, count: usize) -> Vec<Holder> {
        self.own.largest(count)
    }

    fn add_reclaim(&self, consumer: &Consumer, reclaim: Weak<dyn Reclaim>) {
        self.own.add_reclaim(consumer, reclaim);
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share")
            .field("task", &self.task)
            .field("limit", &self.limit)
            .field("of", &self.all)
            .finish_non_exhaustive()
    }
}
