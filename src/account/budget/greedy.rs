//! First come, first served.

use super::Claim;
use super::books::Books;
use super::policy::{Holdings, Policy, Room};

/// A budget that admits whatever fits, whoever asks:
///
/// ```text
/// reserved + asked <= limit
/// ```
/// Consumers that cannot spill may fill it; those that can are asked to before others are refused.
///
/// ```
/// use bursar::{Budget, Consumer, Greedy};
/// use std::sync::Arc;
///
/// let budget: Arc<dyn Budget> = Arc::new(Greedy::new(100));
/// let scan = Consumer::new("scan").register(&budget);
/// scan.try_grow(100)?;
/// assert!(scan.try_grow(1).is_err());
/// scan.grow(1); // where there is no way back
/// assert_eq!(budget.reserved(), 101);
/// # Ok::<(), bursar::BudgetError>(())
/// ```
#[derive(Debug)]
pub struct Greedy {
    limit: u64,
    books: Books,
}

impl Greedy {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Greedy {
        Greedy {
            limit,
            books: Books::new(),
        }
    }
}

impl Policy for Greedy {
    fn name(&self) -> &str {
        "greedy"
    }

    fn limit(&self) -> Option<u64> {
        Some(self.limit)
    }

    fn books(&self) -> &Books {
        &self.books
    }

    fn room(&self, holdings: &Holdings<'_>, _: &Claim<'_>) -> Room {
        Room::beside(holdings.reserved(), self.limit)
    }
}
