//! Admission by what consumers really hold.

use super::Claim;
use super::books::Books;
use super::policy::{Holding, Holdings, Policy, Room};

/// A budget that compares its limit with the bytes that the allocator has given to its consumers,
/// rather than with those that they declare.
///
/// Of each registered consumer it counts what it really holds
/// ([`live_bytes`](crate::Usage::live_bytes), its own without consumers below it), and, in
/// addition, what it has declared and not allocated yet: so two requests that were admitted never
/// count on the same room. A request of `asked` bytes by the consumer *c* is admitted if
///
/// ```text
///   max(real(c), declared(c) + asked)
/// + sum over all other registered consumers k of max(real(k), declared(k))   <=  limit
/// ```
/// So a consumer that holds more than it declares is counted for all it holds, and leaves less to
/// others; what it declares later, up to that, takes no more room. A consumer that declares more
/// than it ever allocates is counted for what it declares: `shrink` gives that back.
///
/// Declared bytes are those of the moment of the decision, real ones those of the beginning of the
/// call, or of a moment during it: what others allocate meanwhile without having declared it is
/// seen by the next request. It bounds what is admitted, not what is allocated:
/// [limits](crate::Consumer::set_limits) do that. Reading costs some hundred nanoseconds a
/// registered consumer and thread. Where bursar is not the program's allocator, all real bytes are
/// 0, and the budget is like [`Greedy`](crate::Greedy).
///
/// ```
/// use bursar::{Budget, Consumer, RealBytes};
/// use std::sync::Arc;
///
/// let budget: Arc<dyn Budget> = Arc::new(RealBytes::new(1 << 20));
/// let (cache, sort) = (Consumer::new("cache"), Consumer::new("sort"));
/// let (_cached, sorted) = (cache.register(&budget), sort.register(&budget));
/// let undeclared = cache.run(|| vec![0u8; 900 << 10]);
/// # #[cfg(any())] // holds where bursar is installed as the global allocator
/// assert!(sorted.try_grow(200 << 10).is_err());
/// drop(undeclared);
/// sorted.try_grow(200 << 10)?;
/// # Ok::<(), bursar::BudgetError>(())
/// ```
#[derive(Debug)]
pub struct RealBytes {
    limit: u64,
    books: Books,
}

impl RealBytes {
    /// A budget of `limit` real bytes.
    pub fn new(limit: u64) -> RealBytes {
        RealBytes {
            limit,
            books: Books::new(),
        }
    }
}

fn counted(holding: &Holding) -> u64 {
    holding.real_bytes.max(holding.declared_bytes)
}

impl Policy for RealBytes {
    fn name(&self) -> &str {
        "real-bytes"
    }

    fn limit(&self) -> Option<u64> {
        Some(self.limit)
    }

    fn books(&self) -> &Books {
        &self.books
    }

    fn weighs_real_bytes(&self) -> bool {
        true
    }

    fn room(&self, holdings: &Holdings<'_>, claim: &Claim<'_>) -> Room {
        let own = holdings.of(claim.consumer());
        let all = holdings
            .iter()
            .map(|holding| counted(&holding))
            .fold(0, u64::saturating_add);
        if all > self.limit {
            return Room::beside(all, self.limit);
        }
        // What it holds beyond what it declared is counted already.
        let undeclared = counted(&own) - own.declared_bytes;
        Room::beside(all - undeclared, self.limit)
    }
}
