//! Equal shares for consumers that can spill, and room for those that cannot.

use super::Claim;
use super::books::Books;
use super::policy::{Holdings, Policy, Room};
use core::time::Duration;

/// A budget that divides what consumers which cannot spill leave among the active ones that can.
///
/// A consumer is *active* while it holds or asks for something; idle registrants do not count, and
/// a consumer counts once, however many reservations it has. With
///
/// ```text
/// kept  = max(reserve, held by unspillable consumers + owed to them)
/// share = (limit - kept) / active consumers that can spill
/// ```
/// a request is admitted
///
/// ```text
/// of a consumer that can spill:     if its own + asked <= share,
///                                   and held by all that can spill + asked <= limit - kept
/// of a consumer that cannot spill:  if reserved + asked <= limit
/// ```
/// What is *owed*: if the request of an unspillable consumer is refused and would not have lifted
/// it above an equal part of the limit (limit / active consumers), it is owed what it asked for
/// until it asks again, is given something, gives something back, or is gone, and for at most the
/// budget's [patience](Fair::with_patience).
///
/// This guarantees:
/// - `try_grow` never lets `reserved` exceed the limit.
/// - No number of reservations, and no number of idle registrants, changes a consumer's share.
/// - Consumers that cannot spill can always hold the [reserve](Fair::with_reserve) together,
///   whatever the others do.
/// - They cannot be starved beyond it either: once one is refused a request that is within its
///   equal part, nobody who can spill is admitted anything that this request needs. So it succeeds,
///   when it is repeated, as soon as the others have spilled enough, however many of them try to
///   take what was freed.
/// - A consumer that can spill and holds more than its share, since others have become active,
///   keeps what it has, but is given no more; and it is asked to spill if one below its share, or one
///   that cannot spill, needs room. Nobody is asked to spill for one that has its share.
///
/// It does not guarantee anything against [`grow`](crate::Reservation::grow), which passes every
/// limit, nor to consumers that cannot spill against each other: among those the first to come is
/// served.
///
/// ```
/// use bursar::{Budget, Consumer, Fair};
/// use std::sync::Arc;
///
/// let budget: Arc<dyn Budget> = Arc::new(Fair::new(100));
/// let spillable = |name| Consumer::new(name).with_can_spill(true).register(&budget);
/// let (sort, join, _idle) = (spillable("sort"), spillable("join"), spillable("window"));
/// sort.try_grow(50)?;
/// join.try_grow(50)?;
/// assert!(join.try_grow(1).is_err());
/// drop(sort);
/// join.try_grow(50)?; // it is the only active one now
/// # Ok::<(), bursar::BudgetError>(())
/// ```
#[derive(Debug)]
pub struct Fair {
    limit: u64,
    reserve: u64,
    patience: Duration,
    books: Books,
}

impl Fair {
    /// A budget of `limit` bytes, without a reserve, with a patience of one second.
    pub fn new(limit: u64) -> Fair {
        Fair {
            limit,
            reserve: 0,
            patience: Duration::from_secs(1),
            books: Books::new(),
        }
    }

    /// Keeps so many bytes, of those that the budget has, for consumers that cannot spill.
    #[must_use]
    pub fn with_reserve(mut self, bytes: u64) -> Fair {
        self.reserve = bytes.min(self.limit);
        self
    }

    /// How long room is held for an unspillable consumer that was refused and does not ask again.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Fair {
        self.patience = patience;
        self
    }

    /// What is owed to consumers that cannot spill.
    fn owed(&self, holdings: &Holdings<'_>) -> u64 {
        holdings
            .refusals()
            .filter(|refusal| refusal.at.elapsed() < self.patience)
            .fold(0, |owed, refusal| owed.saturating_add(refusal.bytes))
    }
}

impl Policy for Fair {
    fn name(&self) -> &str {
        "fair"
    }

    fn limit(&self) -> Option<u64> {
        Some(self.limit)
    }

    fn books(&self) -> &Books {
        &self.books
    }

    fn room(&self, holdings: &Holdings<'_>, claim: &Claim<'_>) -> Room {
        let own = holdings.of(claim.consumer());
        if !own.can_spill {
            return Room::beside(holdings.reserved(), self.limit);
        }
        let unspillable = holdings.unspillable();
        let kept = unspillable
            .saturating_add(self.owed(holdings))
            .max(self.reserve);
        let divided = self.limit.saturating_sub(kept);
        let share = divided / holdings.active_spillable().max(1);
        Room::beside(holdings.reserved() - unspillable, divided)
            .at_most(share.saturating_sub(own.declared_bytes))
            .sparing(share)
    }

    fn notes_refusal(&self, holdings: &Holdings<'_>, claim: &Claim<'_>, bytes: u64) -> bool {
        let own = holdings.of(claim.consumer());
        let part = self.limit / holdings.active().max(1);
        let all = own.declared_bytes.saturating_add(bytes);
        !own.can_spill && all <= part
    }
}
