//! What a policy sees and decides.

use super::Claim;
use super::books::{Books, Entry, State};
use super::reclaim::Candidate;
use crate::account::consumer::Consumer;
use core::cmp::Reverse;
use core::fmt;
use std::collections::HashMap;
use std::time::Instant;

/// How much a budget admits to whom: all that a budget of one's own has to say. Every `Policy` is
/// a [`Budget`](crate::Budget).
///
/// ```
/// use bursar::{Books, Budget, Claim, Consumer, Holdings, Policy, Room};
/// use std::sync::Arc;
///
/// /// Nobody gets more than a tenth.
/// #[derive(Debug)]
/// struct Tenths {
///     limit: u64,
///     books: Books,
/// }
///
/// impl Policy for Tenths {
///     fn name(&self) -> &str {
///         "tenths"
///     }
///     fn limit(&self) -> Option<u64> {
///         Some(self.limit)
///     }
///     fn books(&self) -> &Books {
///         &self.books
///     }
///     fn room(&self, holdings: &Holdings<'_>, claim: &Claim<'_>) -> Room {
///         let has = holdings.of(claim.consumer()).declared_bytes;
///         Room::beside(holdings.reserved(), self.limit)
///             .at_most((self.limit / 10).saturating_sub(has))
///     }
/// }
///
/// let budget: Arc<dyn Budget> = Arc::new(Tenths { limit: 1000, books: Books::new() });
/// let scan = Consumer::new("scan").register(&budget);
/// scan.try_grow(100)?;
/// assert_eq!(scan.try_grow(1).unwrap_err().left, 0);
/// # Ok::<(), bursar::BudgetError>(())
/// ```
pub trait Policy: Send + Sync + fmt::Debug {
    /// A word for messages.
    fn name(&self) -> &str;

    /// The most that is admitted in all; `None` if there is no such number.
    fn limit(&self) -> Option<u64>;

    /// The books of this budget, made with it by [`Books::new`].
    fn books(&self) -> &Books;

    /// The room for `claim`. Called with the books locked: it must use nothing but its arguments
    /// and itself.
    fn room(&self, holdings: &Holdings<'_>, claim: &Claim<'_>) -> Room;

    /// Whether a request that is refused is noted as a [`Refusal`], so that room can be kept for
    /// it. Called like [`room`](Policy::room).
    fn notes_refusal(&self, holdings: &Holdings<'_>, claim: &Claim<'_>, bytes: u64) -> bool {
        let _ = (holdings, claim, bytes);
        false
    }

    /// Whether consumers are weighed by what they really hold. If so, that is read for each request
    /// and stands in [`Holding::real_bytes`]; some hundred nanoseconds a registered consumer.
    fn weighs_real_bytes(&self) -> bool {
        false
    }
}

/// How much may be given to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    limit: u64,
    used: u64,
    at_most: u64,
    spared: u64,
}

impl Room {
    /// What a limit leaves beside what is used of it, which may be more than all. Everybody who can
    /// spill may be asked for more.
    pub const fn beside(used: u64, limit: u64) -> Room {
        Room {
            limit,
            used,
            at_most: u64::MAX,
            spared: 0,
        }
    }

    /// But no more than this, whatever others give back.
    #[must_use]
    pub fn at_most(self, at_most: u64) -> Room {
        Room {
            at_most: self.at_most.min(at_most),
            ..self
        }
    }

    /// But who holds no more than this is not asked.
    #[must_use]
    pub const fn sparing(self, spared: u64) -> Room {
        Room { spared, ..self }
    }

    /// What can be given now.
    pub fn now(&self) -> u64 {
        self.limit.saturating_sub(self.used).min(self.at_most)
    }

    /// What others would have to give back for a request of so many bytes; `None` if nothing
    /// helps.
    fn wanted(&self, bytes: u64) -> Option<u64> {
        let all = self.used.saturating_add(bytes);
        (bytes <= self.at_most).then(|| all.saturating_sub(self.limit))
    }
}

/// What one consumer holds, as a policy sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Holding {
    /// The consumer's id.
    pub consumer_id: u64,
    /// Whether it could spill when it registered.
    pub can_spill: bool,
    /// What its reservations declare.
    pub declared_bytes: u64,
    /// What it really holds, where the policy [wants to
    /// know](Policy::weighs_real_bytes); otherwise 0.
    pub real_bytes: u64,
}

impl Holding {
    pub(super) fn weight(&self) -> u64 {
        self.declared_bytes.max(self.real_bytes)
    }
}

/// A request that was refused and [noted](Policy::notes_refusal). It is over when its consumer asks
/// again, is given something, gives something back, or is not registered any more.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Refusal {
    /// Whose it was.
    pub consumer_id: u64,
    /// What was asked for.
    pub bytes: u64,
    /// When.
    pub at: Instant,
}

/// All that a budget's consumers hold, at the moment of a request. The consumer that asks is
/// active in it.
pub struct Holdings<'a> {
    state: &'a State,
    real: &'a Real,
}

/// Real bytes by consumer.
pub(super) type Real = HashMap<u64, u64>;

impl<'a> Holdings<'a> {
    pub(super) fn new(state: &'a State, real: &'a Real) -> Holdings<'a> {
        Holdings { state, real }
    }

    /// Declared by all.
    pub fn reserved(&self) -> u64 {
        self.state.sums().reserved
    }

    /// Declared by consumers that cannot spill.
    pub fn unspillable(&self) -> u64 {
        self.state.sums().unspillable
    }

    /// Consumers that hold or ask for something.
    pub fn active(&self) -> u64 {
        self.state.sums().active
    }

    /// Those among them that can spill.
    pub fn active_spillable(&self) -> u64 {
        self.state.sums().active_spillable
    }

    /// What one consumer holds.
    pub fn of(&self, consumer: &Consumer) -> Holding {
        match self.state.entry(consumer) {
            Some(entry) => self.holding(entry),
            None => self.holding(&Entry::new(consumer)),
        }
    }

    /// All registered consumers, in no order. O(n), where all else here takes no time.
    pub fn iter(&self) -> impl Iterator<Item = Holding> {
        self.state.entries().map(|entry| self.holding(entry))
    }

    /// Refusals that were noted and are not over: at most one a consumer.
    pub fn refusals(&self) -> impl Iterator<Item = Refusal> {
        self.state.refusals().iter().copied()
    }

    pub(super) fn holding(&self, entry: &Entry) -> Holding {
        let consumer_id = entry.consumer.id();
        Holding {
            consumer_id,
            can_spill: entry.can_spill,
            declared_bytes: entry.declared,
            real_bytes: self.real.get(&consumer_id).copied().unwrap_or(0),
        }
    }

    /// The largest that may be asked and was not yet, if all of them together could make enough
    /// room.
    pub(super) fn next_to_ask(
        &self,
        claim: &Claim<'_>,
        asked: &[u64],
        bytes: u64,
        room: Room,
    ) -> Option<Candidate> {
        let wanted = room.wanted(bytes)?;
        let except = Some(claim.consumer());
        let others = self.askable(except, asked, room.spared);
        let reclaimable = others.fold(0u64, |sum, (weight, _)| sum.saturating_add(weight));
        if wanted > reclaimable {
            return None;
        }
        self.largest_to_ask(except, asked, room.spared, wanted)
    }

    /// The largest that may be asked for `wanted` bytes and was not yet.
    pub(super) fn largest_to_ask(
        &self,
        except: Option<&Consumer>,
        asked: &[u64],
        spared: u64,
        wanted: u64,
    ) -> Option<Candidate> {
        let others = self.askable(except, asked, spared);
        let (_, entry) =
            others.max_by_key(|(weight, entry)| (*weight, Reverse(entry.consumer.id())))?;
        Some(Candidate {
            consumer_id: entry.consumer.id(),
            wanted,
            reclaimers: entry.reclaimers.clone(),
        })
    }

    /// Who may be asked and was not yet, with what they hold: more than `spared`.
    fn askable(
        &self,
        except: Option<&Consumer>,
        asked: &[u64],
        spared: u64,
    ) -> impl Iterator<Item = (u64, &Entry)> {
        self.state.entries().filter_map(move |entry| {
            let weight = self.holding(entry).weight();
            let is_asked = entry.can_be_asked()
                && weight > spared
                && except != Some(&entry.consumer)
                && !asked.contains(&entry.consumer.id());
            is_asked.then_some((weight, entry))
        })
    }
}

impl fmt::Debug for Holdings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
