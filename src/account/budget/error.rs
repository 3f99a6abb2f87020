//! What a refusal says: who asked for what, what is left, and who has the rest.

use super::{Budget, Claim};
use crate::account::consumer::Consumer;
use core::error::Error;
use core::fmt;
use std::boxed::Box;
use std::vec::Vec;

/// The holders that an error names.
pub(super) const NAMED: usize = 5;

/// A budget has no room for a request. All numbers are bytes but the ids.
///
/// ```
/// use bursar::{Budget, Consumer, Greedy};
/// use std::sync::Arc;
///
/// let budget: Arc<dyn Budget> = Arc::new(Greedy::new(100 << 20));
/// let (join, sort) = (Consumer::new("join"), Consumer::new("sort"));
/// let build_side = join.register(&budget);
/// build_side.try_grow(96 << 20)?;
/// let refused = sort.register(&budget).try_grow(16 << 20).unwrap_err();
/// assert_eq!(refused.left, 4 << 20);
/// assert_eq!(refused.largest[0].consumer_id, join.id());
/// assert_eq!(
///     refused.to_string(),
///     format!(
///         "the greedy budget of 100.0 MiB refuses 16.0 MiB to sort (id {}, reservation 0), which \
///          has 0 B: 4.0 MiB are left; the largest holders: join (id {}) 96.0 MiB declared, 0 B \
///          real",
///         sort.id(),
///         join.id(),
///     )
/// );
/// # Ok::<(), bursar::BudgetError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BudgetError {
    /// The name of the budget.
    pub budget: Box<str>,
    /// The name of the consumer that asked.
    pub consumer: Box<str>,
    /// Its id.
    pub consumer_id: u64,
    /// Its reservation that asked.
    pub reservation_id: u64,
    /// What that reservation has.
    pub size: u64,
    /// What it asked for in addition.
    pub asked: u64,
    /// The most that it could have been given.
    pub left: u64,
    /// What all have together.
    pub reserved: u64,
    /// What the budget admits in all.
    pub limit: Option<u64>,
    /// Who has most, the largest first; the one that asked may be among them.
    pub largest: Box<[Holder]>,
}

impl BudgetError {
    /// An error of `budget`, which has `left` for a request of `asked`. For budgets that are not a
    /// [`Policy`](crate::Policy); to be called while they hold no lock.
    pub fn new(budget: &dyn Budget, claim: &Claim<'_>, asked: u64, left: u64) -> BudgetError {
        BudgetError {
            budget: budget.name().into(),
            consumer: claim.consumer().name().into(),
            consumer_id: claim.consumer().id(),
            reservation_id: claim.reservation(),
            size: claim.size(),
            asked,
            left,
            reserved: budget.reserved(),
            limit: budget.limit(),
            largest: budget.largest(NAMED).into(),
        }
    }
}

impl fmt::Display for BudgetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} budget", self.budget)?;
        if let Some(limit) = self.limit {
            write!(f, " of {}", Bytes(limit))?;
        }
        write!(
            f,
            " refuses {} to {} (id {}, reservation {}), which has {}: {} are left",
            Bytes(self.asked),
            self.consumer,
            self.consumer_id,
            self.reservation_id,
            Bytes(self.size),
            Bytes(self.left),
        )?;
        let mut between = "; the largest holders: ";
        for holder in &self.largest {
            write!(f, "{between}{holder}")?;
            between = ", ";
        }
        Ok(())
    }
}

impl Error for BudgetError {}

/// What one consumer holds of a budget.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Holder {
    /// Its name.
    pub name: Box<str>,
    /// Its id.
    pub consumer_id: u64,
    /// Whether it can free memory when it is asked to.
    pub can_spill: bool,
    /// What its reservations with this budget declare.
    pub declared_bytes: u64,
    /// What it really holds.
    pub real_bytes: u64,
}

impl Holder {
    /// A consumer that declares so much; its real bytes are read now.
    pub fn new(consumer: &Consumer, declared_bytes: u64) -> Holder {
        Holder {
            name: consumer.name().into(),
            consumer_id: consumer.id(),
            can_spill: consumer.can_spill(),
            declared_bytes,
            real_bytes: consumer.usage().live_bytes,
        }
    }

    /// Of pairs of consumers and what they declare. Call it without a lock: reading real bytes and
    /// giving up handles may run what is none of the budget's business.
    pub(super) fn all(holders: Vec<(Consumer, u64)>) -> Vec<Holder> {
        let holder = |(consumer, declared): &(Consumer, u64)| Holder::new(consumer, *declared);
        holders.iter().map(holder).collect()
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (id {}) {} declared, {} real",
            self.name,
            self.consumer_id,
            Bytes(self.declared_bytes),
            Bytes(self.real_bytes)
        )
    }
}

/// A reservation has less than it was to give back. All numbers are bytes but the ids.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ShrinkError {
    /// The name of the consumer.
    pub consumer: Box<str>,
    /// Its id.
    pub consumer_id: u64,
    /// Its reservation.
    pub reservation_id: u64,
    /// What the reservation has.
    pub size: u64,
    /// What it was to give.
    pub asked: u64,
}

impl fmt::Display for ShrinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "reservation {} of {} (id {}) has {} B, less than the {} B that it was to give",
            self.reservation_id, self.consumer, self.consumer_id, self.size, self.asked
        )
    }
}

impl Error for ShrinkError {}

/// Bytes for people to read.
pub(super) struct Bytes(pub(super) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        // Rounded down, so that what is refused never looks smaller than what is left.
        let unit = (self.0.ilog2() / 10 - 1) as usize;
        let tenths = (u128::from(self.0) * 10) >> (10 * (unit + 1));
        write!(f, "{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::Bytes;
    use std::string::ToString;

    #[test]
    fn bytes_read_well_at_every_magnitude() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (1 << 20, "1.0 MiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
