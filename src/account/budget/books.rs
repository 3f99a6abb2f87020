//! Who holds how much of a budget, by consumer.
//!
//! ```text
//! reserved = sum of what all consumers declare
//! an entry exists while its consumer is registered, holds or asks for something
//! ```
//! One lock keeps books and decisions together, so that no two requests are given the same room.
//! It is never held while others' code runs: callbacks, the reading of real bytes and the giving
//! up of a consumer's last handle (which may free what others have dropped) come before or after.

use super::policy::{Holdings, Policy, Real, Refusal, Room};
use super::reclaim::{self, Reclaim};
use super::{Claim, MOST};
use crate::account::consumer::Consumer;
use crate::account::registry::internally;
use core::cmp::Reverse;
use core::fmt;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError, Weak};
use std::time::Instant;
use std::vec::Vec;

/// The books of one budget.
#[derive(Default)]
pub struct Books {
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    /// By consumer.
    entries: HashMap<u64, Entry>,
    sums: Sums,
    refusals: Vec<Refusal>,
}

/// Over all entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Sums {
    pub(super) reserved: u64,
    pub(super) unspillable: u64,
    pub(super) active: u64,
    pub(super) active_spillable: u64,
}

/// One consumer.
pub(super) struct Entry {
    pub(super) consumer: Consumer,
    pub(super) can_spill: bool,
    pub(super) declared: u64,
    /// Requests under way.
    pub(super) asking: usize,
    pub(super) registrations: usize,
    pub(super) reclaimers: Vec<Weak<dyn Reclaim>>,
}

impl Entry {
    pub(super) fn new(consumer: &Consumer) -> Entry {
        Entry {
            consumer: consumer.clone(),
            can_spill: consumer.can_spill(),
            declared: 0,
            asking: 0,
            registrations: 0,
            reclaimers: Vec::new(),
        }
    }

    fn is_active(&self) -> bool {
        self.declared > 0 || self.asking > 0
    }

    pub(super) fn can_be_asked(&self) -> bool {
        self.can_spill && self.reclaimers.iter().any(reclaim::is_alive)
    }
}

impl Sums {
    fn add(&mut self, entry: &Entry) {
        let (active, spillable) = (u64::from(entry.is_active()), u64::from(entry.can_spill));
        self.reserved += entry.declared;
        self.unspillable += entry.declared * (1 - spillable);
        self.active += active;
        self.active_spillable += active * spillable;
    }

    fn subtract(&mut self, entry: &Entry) {
        let (active, spillable) = (u64::from(entry.is_active()), u64::from(entry.can_spill));
        self.reserved -= entry.declared;
        self.unspillable -= entry.declared * (1 - spillable);
        self.active -= active;
        self.active_spillable -= active * spillable;
    }
}

impl State {
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub(super) fn entry(&self, consumer: &Consumer) -> Option<&Entry> {
        self.entries.get(&consumer.id())
    }

    pub(super) fn sums(&self) -> Sums {
        self.sums
    }

    pub(super) fn refusals(&self) -> &[Refusal] {
        &self.refusals
    }

    /// Changes an entry, which comes and goes as needed, and the sums with it. The caller has a
    /// handle to the consumer, so the one dropped here is never the last.
    pub(super) fn change(&mut self, consumer: &Consumer, change: impl FnOnce(&mut Entry)) {
        let id = consumer.id();
        let entry = self
            .entries
            .entry(id)
            .or_insert_with(|| Entry::new(consumer));
        self.sums.subtract(entry);
        change(entry);
        self.sums.add(entry);
        if entry.registrations == 0 && !entry.is_active() {
            self.entries.remove(&id);
            self.settle(id);
        }
    }

    /// Books `bytes` more.
    pub(super) fn add(&mut self, consumer: &Consumer, bytes: u64) {
        self.settle(consumer.id());
        self.change(consumer, |entry| entry.declared += bytes);
    }

    /// Books `bytes` less, at most all.
    pub(super) fn subtract(&mut self, consumer: &Consumer, bytes: u64) {
        self.settle(consumer.id());
        self.change(consumer, |entry| {
            entry.declared = entry.declared.saturating_sub(bytes);
        });
    }

    /// The consumer's last refusal is over.
    fn settle(&mut self, consumer_id: u64) {
        self.refusals
            .retain(|refusal| refusal.consumer_id != consumer_id);
    }

    /// The room that a policy sees for a request, less what could not be counted any more.
    fn room<P: Policy>(&self, policy: &P, claim: &Claim<'_>, real: &Real) -> Room {
        policy
            .room(&Holdings::new(self, real), claim)
            .at_most(MOST - self.sums.reserved)
    }

    /// Books a request if there is room; otherwise says how much there is.
    pub(super) fn try_add<P: Policy>(
        &mut self,
        policy: &P,
        claim: &Claim<'_>,
        bytes: u64,
        real: &Real,
    ) -> Result<(), Room> {
        let room = self.room(policy, claim, real);
        if bytes > room.now() {
            return Err(room);
        }
        self.add(claim.consumer(), bytes);
        Ok(())
    }

    /// Notes that a request was refused, if the policy wants that.
    pub(super) fn refuse<P: Policy>(
        &mut self,
        policy: &P,
        claim: &Claim<'_>,
        bytes: u64,
        real: &Real,
    ) {
        let consumer = claim.consumer();
        self.settle(consumer.id());
        let is_registered = self
            .entry(consumer)
            .is_some_and(|entry| entry.registrations > 0);
        if is_registered && policy.notes_refusal(&Holdings::new(self, real), claim, bytes) {
            self.refusals.push(Refusal {
                consumer_id: consumer.id(),
                bytes,
                at: Instant::now(),
            });
        }
    }

    /// The largest holders, with what they declare.
    pub(super) fn largest(&self, count: usize, real: &Real) -> Vec<(Consumer, u64)> {
        let holdings = Holdings::new(self, real);
        let mut holders: Vec<(u64, &Entry)> = self
            .entries()
            .map(|entry| (holdings.holding(entry).weight(), entry))
            .filter(|holder| holder.0 > 0)
            .collect();
        holders.sort_unstable_by_key(|&(weight, entry)| (Reverse(weight), entry.consumer.id()));
        holders.truncate(count);
        let pair = |&(_, entry): &(u64, &Entry)| (entry.consumer.clone(), entry.declared);
        holders.iter().map(pair).collect()
    }
}

impl Books {
    /// Empty ones.
    pub fn new() -> Books {
        Books::default()
    }

    /// Works on the books, which are bursar's own memory rather than that of whoever asks.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        internally(|| {
            // Nothing in there is ever half done.
            work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }
}

impl fmt::Debug for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut books = f.debug_struct("Books");
        if let Ok(state) = self.state.try_lock() {
            books.field("reserved", &state.sums.reserved);
            books.field("consumers", &state.entries.len());
        }
        books.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{Books, State, Sums};
    use crate::account::consumer::Consumer;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn recount(state: &State) -> Sums {
        let mut sums = Sums::default();
        state.entries().for_each(|entry| sums.add(entry));
        sums
    }

    proptest! {
        #[test]
        fn sums_are_those_of_the_entries(
            steps in prop::collection::vec((0usize..4, 0..5, 0u64..100), 1..200),
        ) {
            let consumers: Vec<Consumer> = (0..4)
                .map(|number| Consumer::new("one").with_can_spill(number % 2 > 0))
                .collect();
            let mut declared = [0u64; 4];
            Books::new().with(|state| {
                for (who, what, bytes) in steps {
                    let consumer = &consumers[who];
                    match what {
                        0 => {
                            state.add(consumer, bytes);
                            declared[who] += bytes;
                        }
                        1 => {
                            state.subtract(consumer, bytes);
                            declared[who] = declared[who].saturating_sub(bytes);
                        }
                        2 => state.change(consumer, |entry| entry.asking += 1),
                        3 => state.change(consumer, |entry| entry.asking = 0),
                        _ => state.change(consumer, |entry| entry.registrations ^= 1),
                    }
                    prop_assert_eq!(state.sums(), recount(state));
                    prop_assert_eq!(state.sums().reserved, declared.iter().sum::<u64>());
                    prop_assert_eq!(state.sums().unspillable, declared[0] + declared[2]);
                    for entry in state.entries() {
                        prop_assert!(entry.registrations > 0 || entry.is_active());
                    }
                }
                Ok(())
            })?;
        }
    }
}
