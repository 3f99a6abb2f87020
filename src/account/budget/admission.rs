//! Every policy is a budget: how a request is admitted.

use super::books::Entry;
use super::error::{BudgetError, Holder, NAMED};
use super::policy::{Holdings, Policy, Real};
use super::reclaim::{self, AskingOthers, Reclaim};
use super::{Budget, Claim, MOST};
use crate::account::consumer::Consumer;
use std::sync::Weak;
use std::vec::Vec;

/// What registered consumers really hold, for policies that want to know. Read without the lock.
fn real_bytes<P: Policy>(policy: &P) -> Real {
    if !policy.weighs_real_bytes() {
        return Real::new();
    }
    let consumers: Vec<Consumer> = policy.books().with(|state| {
        let consumer = |entry: &Entry| entry.consumer.clone();
        state.entries().map(consumer).collect()
    });
    let real = |consumer: &Consumer| (consumer.id(), consumer.usage().live_bytes);
    consumers.iter().map(real).collect()
}

/// Admits a request, or asks others and then admits it, or refuses it.
fn admit<P: Policy>(policy: &P, claim: &Claim<'_>, bytes: u64) -> Result<(), BudgetError> {
    if bytes == 0 {
        return Ok(());
    }
    let real = real_bytes(policy);
    let is_admitted = policy.books().with(|state| {
        state.change(claim.consumer(), |entry| entry.asking += 1);
        let is_admitted = state.try_add(policy, claim, bytes, &real).is_ok();
        if is_admitted {
            state.change(claim.consumer(), |entry| entry.asking -= 1);
        }
        is_admitted
    });
    if is_admitted {
        return Ok(());
    }
    let short = Short {
        policy,
        claim,
        bytes,
    };
    if short.is_admitted_by_others() {
        return Ok(());
    }
    short.admit_or_refuse()
}

/// A request for which there was no room. Its consumer counts as active until this is dropped.
struct Short<'a, P: Policy> {
    policy: &'a P,
    claim: &'a Claim<'a>,
    bytes: u64,
}

impl<P: Policy> Short<'_, P> {
    /// Asks others, the largest first, until there is room. False if nobody is left to be asked,
    /// or could help.
    fn is_admitted_by_others(&self) -> bool {
        let Some(_asking) = AskingOthers::begin() else {
            return false;
        };
        let mut asked = Vec::new();
        loop {
            let real = real_bytes(self.policy);
            let next = self.policy.books().with(|state| {
                let Err(room) = state.try_add(self.policy, self.claim, self.bytes, &real) else {
                    return Err(true);
                };
                Holdings::new(state, &real)
                    .next_to_ask(self.claim, &asked, self.bytes, room)
                    .ok_or(false)
            });
            match next {
                Ok(candidate) => {
                    asked.push(candidate.consumer_id);
                    candidate.ask();
                }
                Err(is_admitted) => return is_admitted,
            }
        }
    }

    /// The last attempt. What the error says was so at the moment of the refusal.
    fn admit_or_refuse(&self) -> Result<(), BudgetError> {
        let (policy, claim, bytes) = (self.policy, self.claim, self.bytes);
        let real = real_bytes(policy);
        let refused = policy.books().with(|state| {
            let room = state.try_add(policy, claim, bytes, &real).err()?;
            state.refuse(policy, claim, bytes, &real);
            let largest = state.largest(NAMED, &real);
            Some((room.now(), state.sums().reserved, largest))
        });
        let Some((left, reserved, largest)) = refused else {
            return Ok(());
        };
        Err(BudgetError {
            budget: Policy::name(policy).into(),
            consumer: claim.consumer().name().into(),
            consumer_id: claim.consumer().id(),
            reservation_id: claim.reservation(),
            size: claim.size(),
            asked: bytes,
            left,
            reserved,
            limit: Policy::limit(policy),
            largest: Holder::all(largest).into(),
        })
    }
}

/// [`ask_largest`] for a request of `consumer`. None if this thread asks others already.
pub(crate) fn ask_others<P: Policy>(policy: &P, wanted: u64, consumer: &Consumer) -> u64 {
    let asking = AskingOthers::begin();
    asking.map_or(0, |_asking| ask_largest(policy, wanted, Some(consumer)))
}

/// Asks who can spill, the largest first, until `wanted` bytes were given back. How many were. For
/// who is asking others.
pub(crate) fn ask_largest<P: Policy>(policy: &P, wanted: u64, except: Option<&Consumer>) -> u64 {
    let before = Budget::reserved(policy);
    let freed = || before.saturating_sub(Budget::reserved(policy));
    let mut asked = Vec::new();
    while freed() < wanted {
        let real = real_bytes(policy);
        let next = policy.books().with(|state| {
            let wanted = wanted.saturating_sub(before.saturating_sub(state.sums().reserved));
            Holdings::new(state, &real).largest_to_ask(except, &asked, 0, wanted)
        });
        let Some(candidate) = next else {
            break;
        };
        asked.push(candidate.consumer_id);
        candidate.ask();
    }
    freed()
}

impl<P: Policy> Drop for Short<'_, P> {
    fn drop(&mut self) {
        let ends = |entry: &mut Entry| entry.asking -= 1;
        self.policy
            .books()
            .with(|state| state.change(self.claim.consumer(), ends));
    }
}

impl<P: Policy> Budget for P {
    fn name(&self) -> &str {
        Policy::name(self)
    }

    fn reserved(&self) -> u64 {
        self.books().with(|state| state.sums().reserved)
    }

    fn limit(&self) -> Option<u64> {
        Policy::limit(self)
    }

    fn register(&self, consumer: &Consumer) {
        let register = |entry: &mut Entry| entry.registrations += 1;
        self.books().with(|state| state.change(consumer, register));
    }

    fn unregister(&self, consumer: &Consumer) {
        let unregister = |entry: &mut Entry| {
            entry.registrations = entry.registrations.saturating_sub(1);
            entry.reclaimers.retain(reclaim::is_alive);
        };
        self.books()
            .with(|state| state.change(consumer, unregister));
    }

    fn grow(&self, claim: &Claim<'_>, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.books().with(|state| {
            let left = MOST - state.sums().reserved;
            assert!(bytes <= left, "more than i64::MAX bytes reserved");
            state.add(claim.consumer(), bytes);
        });
    }

    fn try_grow(&self, claim: &Claim<'_>, bytes: u64) -> Result<(), BudgetError> {
        admit(self, claim, bytes)
    }

    fn shrink(&self, claim: &Claim<'_>, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.books()
            .with(|state| state.subtract(claim.consumer(), bytes));
    }

    fn largest(&self, count: usize) -> Vec<Holder> {
        let real = real_bytes(self);
        Holder::all(self.books().with(|state| state.largest(count, &real)))
    }

    fn add_reclaim(&self, consumer: &Consumer, reclaim: Weak<dyn Reclaim>) {
        let add = |entry: &mut Entry| {
            entry.reclaimers.retain(reclaim::is_alive);
            entry.reclaimers.push(reclaim);
        };
        self.books().with(|state| state.change(consumer, add));
    }
}
