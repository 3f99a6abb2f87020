//! No limit.

use super::Claim;
use super::books::Books;
use super::policy::{Holdings, Policy, Room};

/// A budget that admits everything and keeps the books.
///
/// ```
/// use bursar::{Budget, Consumer, Unbounded};
/// use std::sync::Arc;
///
/// let budget: Arc<dyn Budget> = Arc::new(Unbounded::new());
/// let scan = Consumer::new("scan").register(&budget);
/// scan.try_grow(1 << 60)?;
/// assert_eq!(budget.reserved(), 1 << 60);
/// # Ok::<(), bursar::BudgetError>(())
/// ```
#[derive(Debug, Default)]
pub struct Unbounded {
    books: Books,
}

impl Unbounded {
    /// A budget without a limit.
    pub fn new() -> Unbounded {
        Unbounded::default()
    }
}

impl Policy for Unbounded {
    fn name(&self) -> &str {
        "unbounded"
    }

    fn limit(&self) -> Option<u64> {
        None
    }

    fn books(&self) -> &Books {
        &self.books
    }

    fn room(&self, _: &Holdings<'_>, _: &Claim<'_>) -> Room {
        Room::beside(0, u64::MAX)
    }
}
