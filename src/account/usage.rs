//! What a consumer holds and has held.

use super::epoch;
use super::record::{Account, Kind};
use super::registry;
use crate::arena::ledger::Totals;
use crate::arena::owner;
use crate::class::{CLASSES, TABLE};
use crate::units::OwnerTag;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::vec::Vec;

/// What a consumer holds and has held, its reservations included; bytes are those that blocks
/// occupy, [`block_size`](crate::block_size).
///
/// Counts are exact when nobody allocates or frees for the consumer meanwhile; otherwise they are
/// those of some moments during the call, and never show a block freed that they do not show
/// allocated: live bytes may be shown too high, by at most what was freed during the call, and as a
/// rule not above what peaks are bounded by. Peaks
/// are upper bounds: see [`peak_bytes`](Usage::peak_bytes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Usage {
    /// Bytes alive.
    pub live_bytes: u64,
    /// Blocks alive.
    pub live_blocks: u64,
    /// The most bytes that were alive at once, from above: never less than that, and more by at
    /// most what the pages of the consumer's own runs had free at that moment, and 16 KiB a thread.
    pub peak_bytes: u64,
    /// Bytes ever allocated, or taken over from others.
    pub allocated_bytes: u64,
    /// Blocks ever allocated, or taken over.
    pub allocated_blocks: u64,
    /// Bytes ever freed, or handed over.
    pub freed_bytes: u64,
    /// Blocks ever freed, or handed over.
    pub freed_blocks: u64,
    /// Of the small blocks freed, those that another thread freed than the one whose run they were
    /// in.
    pub freed_remotely_blocks: u64,
    /// Bytes declared by reservations now.
    pub reserved_bytes: u64,
    /// The most bytes declared at once.
    pub peak_reserved_bytes: u64,
    /// Bytes alive of this consumer and all below it.
    pub subtree_live_bytes: u64,
    /// The most bytes of these alive at once, from above as for [`peak_bytes`](Usage::peak_bytes).
    pub subtree_peak_bytes: u64,
    /// Bytes declared by reservations of these.
    pub subtree_reserved_bytes: u64,
    /// Bytes that were asked for, of the blocks alive: less than they occupy.
    #[cfg(feature = "requested")]
    pub requested_bytes: u64,
}

/// Blocks of one size class that a consumer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ClassUsage {
    /// Bytes of a block; 0 for blocks larger than any class.
    pub size: u64,
    /// Bytes of all.
    pub live_bytes: u64,
    /// How many.
    pub live_blocks: u64,
}

impl Usage {
    /// That of an account, with its parts and those below.
    pub(super) fn of(account: &Account) -> Usage {
        if account.has_children() {
            return Usage::of_tree(account);
        }
        let totals = steady(|| {
            let mut totals = account.read_freed();
            account.read_allocated(&mut totals);
            let bound = account.owner().bound().0;
            (totals, totals.live_bytes().saturating_sub(bound))
        });
        Usage::of_members(account, &[], &[totals])
    }

    fn of_tree(account: &Account) -> Usage {
        let held = epoch::pin();
        registry::internally(|| {
            let mut below = Vec::new();
            let mut visited = 0;
            below.extend(account.children(&held));
            while let Some(&next) = below.get(visited) {
                below.extend(next.children(&held));
                visited += 1;
            }
            // Everything freed is read before anything allocated.
            let members = || core::iter::once(account).chain(below.iter().copied());
            let totals: Vec<Totals> = steady(|| {
                let mut totals: Vec<Totals> = members().map(Account::read_freed).collect();
                for (member, totals) in members().zip(&mut totals) {
                    member.read_allocated(totals);
                }
                let live = totals.iter().map(Totals::live_bytes).sum::<u64>();
                let bound = account.owner().tree_bound().0;
                (totals, live.saturating_sub(bound))
            });
            Usage::of_members(account, &below, &totals)
        })
    }

    /// From the counts of an account and of those below it.
    fn of_members(account: &Account, below: &[&Account], totals: &[Totals]) -> Usage {
        let (own, below_totals) = totals.split_first().expect("its own are there");
        let members = below.iter().copied().zip(below_totals);
        let parts = members
            .clone()
            .filter(|(member, _)| member.is_part_of(account));
        let mut usage = Usage::default();
        usage.set_counts(&account.with_parts(own, parts));
        usage.set_account(account);
        usage.subtree_live_bytes = usage.live_bytes;
        for (member, totals) in members.filter(|(member, _)| !member.is_part_of(account)) {
            usage.subtree_live_bytes += totals.live_bytes();
            usage.subtree_reserved_bytes += member.reserved().0;
        }
        usage.subtree_reserved_bytes += usage.reserved_bytes;
        usage.subtree_peak_bytes = usage.subtree_peak_bytes.max(usage.subtree_live_bytes);
        usage
    }

    /// What no consumer claimed, from its counts.
    pub(super) fn of_nobody(totals: &Totals) -> Usage {
        static PEAK: AtomicU64 = AtomicU64::new(0);
        let mut usage = Usage::default();
        usage.set_counts(totals);
        usage.subtree_live_bytes = usage.live_bytes;
        usage.peak_bytes = PEAK
            .fetch_max(usage.live_bytes, Relaxed)
            .max(usage.live_bytes);
        usage.subtree_peak_bytes = usage.peak_bytes;
        usage
    }

    /// What totals say.
    pub(super) fn set_counts(&mut self, totals: &Totals) {
        self.live_bytes = totals.live_bytes();
        self.live_blocks = totals.allocated_blocks - totals.freed_blocks;
        self.allocated_bytes = totals.allocated_bytes;
        self.allocated_blocks = totals.allocated_blocks;
        self.freed_bytes = totals.freed_bytes;
        self.freed_blocks = totals.freed_blocks;
        self.freed_remotely_blocks = totals.freed_remotely;
        #[cfg(feature = "requested")]
        {
            self.requested_bytes = totals.requested[0] - totals.requested[1];
        }
    }

    /// What the account itself says.
    pub(super) fn set_account(&mut self, account: &Account) {
        self.peak_bytes = account.owner().bound().1.max(self.live_bytes);
        self.subtree_peak_bytes = account.owner().tree_bound().1;
        (self.reserved_bytes, self.peak_reserved_bytes) = account.reserved();
    }
}

/// Reads totals, and by how much their live bytes are above the bound that they cannot be above: a
/// reader that is stopped between its two halves, while much is freed, tries again. Of all tries
/// the best counts.
fn steady<T>(mut read: impl FnMut() -> (T, u64)) -> T {
    const TRIES: usize = 8;
    let (mut best, mut error) = read();
    for _ in 1..TRIES {
        if error == 0 {
            break;
        }
        let (next, next_error) = read();
        if next_error < error {
            (best, error) = (next, next_error);
        }
    }
    best
}

/// What no consumer claimed. Its peak is the most that was seen by this call and others that read
/// it; it is below nobody.
pub fn unattributed() -> Usage {
    Usage::of_nobody(&owner::totals(OwnerTag::UNATTRIBUTED))
}

/// Live blocks of an account with its parts, by class. Exact while nobody allocates or frees.
pub(super) fn classes(account: &Account) -> impl Iterator<Item = ClassUsage> + use<> {
    let mut live = owner::classes(account.tag());
    let held = epoch::pin();
    for part in account.children(&held) {
        if matches!(part.kind(), Kind::Part { .. }) {
            for (sum, more) in live.iter_mut().zip(owner::classes(part.tag())) {
                *sum += more;
            }
        }
    }
    let usage = Usage::of(account);
    let mut larger = (usage.live_blocks, usage.live_bytes);
    let rows: [ClassUsage; CLASSES] = core::array::from_fn(|class| {
        // While blocks come and go a class may be read below zero.
        let blocks = live[class].max(0) as u64;
        let bytes = blocks * u64::from(TABLE[class].size);
        larger = (
            larger.0.saturating_sub(blocks),
            larger.1.saturating_sub(bytes),
        );
        ClassUsage {
            size: u64::from(TABLE[class].size),
            live_bytes: bytes,
            live_blocks: blocks,
        }
    });
    let rest = ClassUsage {
        size: 0,
        live_bytes: larger.1,
        live_blocks: larger.0,
    };
    rows.into_iter()
        .chain(core::iter::once(rest))
        .filter(|row| row.live_blocks != 0)
}
