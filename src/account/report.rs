//! Snapshots of all consumers at once, and the report that people read.

use super::columns::Columns;
use super::epoch;
use super::record::{Account, Kind};
use super::registry;
use super::usage::Usage;
use crate::arena::ledger::Totals;
use crate::arena::owner;
use crate::units::OwnerTag;
use core::cmp::Reverse;
use core::fmt;
use crossbeam_epoch::Guard;
use std::boxed::Box;
use std::collections::HashMap;
use std::vec::Vec;

/// One consumer at the moment of a snapshot.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ConsumerSnapshot {
    /// Its id; `u64::MAX` for bursar's own consumer, which has what the accounts themselves take.
    pub id: u64,
    /// Its name.
    pub name: Box<str>,
    /// The id of the consumer that it is below.
    pub parent: Option<u64>,
    /// Whether it can free memory when it is asked to.
    pub can_spill: bool,
    /// No handle is left, and no consumer below it: it is listed for the bytes that are still
    /// alive.
    pub departed: bool,
    /// What it holds.
    pub usage: Usage,
}

/// All consumers as of one call, in the order of their ids; made by [`consumers`].
///
/// At rest every figure is exact. While threads are at work, all counts of blocks freed are read
/// before any count of blocks allocated, so that none is negative: a consumer is shown with at
/// least what it held when the call began, and at most what it held when the call ended plus what
/// it freed during the call. [`heap_bytes`](Consumers::heap_bytes) is the sum of the parts in
/// either case.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Consumers {
    consumers: Vec<ConsumerSnapshot>,
    unattributed: Usage,
    heap_bytes: u64,
}

impl Consumers {
    /// All of them.
    pub fn iter(&self) -> core::slice::Iter<'_, ConsumerSnapshot> {
        self.consumers.iter()
    }

    /// What no consumer claimed.
    pub fn unattributed(&self) -> &Usage {
        &self.unattributed
    }

    /// Live bytes of all consumers and of what none claimed: all that the allocator has given out.
    pub fn heap_bytes(&self) -> u64 {
        self.heap_bytes
    }
}

impl IntoIterator for Consumers {
    type Item = ConsumerSnapshot;
    type IntoIter = std::vec::IntoIter<ConsumerSnapshot>;

    fn into_iter(self) -> Self::IntoIter {
        self.consumers.into_iter()
    }
}

impl<'a> IntoIterator for &'a Consumers {
    type Item = &'a ConsumerSnapshot;
    type IntoIter = core::slice::Iter<'a, ConsumerSnapshot>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// A snapshot of all consumers, without a lock and without stopping anybody. About half a
/// microsecond a consumer; what it allocates is the caller's.
pub fn consumers() -> Consumers {
    let held = epoch::pin();
    let accounts: Vec<&Account> = registry::accounts(&held).collect();
    // Everything freed, of everybody, is read before anything allocated.
    let mut nobody = Totals::default();
    owner::add_freed(OwnerTag::UNATTRIBUTED, &mut nobody);
    let mut totals: Vec<Totals> = accounts.iter().map(|one| one.read_freed()).collect();
    owner::add_allocated(OwnerTag::UNATTRIBUTED, &mut nobody);
    for (account, totals) in accounts.iter().zip(&mut totals) {
        account.read_allocated(totals);
    }
    let consumers = listed(&accounts, &totals, &held);
    let live = consumers.iter().map(|consumer| consumer.usage.live_bytes);
    Consumers {
        heap_bytes: live.sum::<u64>() + nobody.live_bytes(),
        unattributed: Usage::of_nobody(&nobody),
        consumers,
    }
}

/// Consumers with the counts of their parts, and of those below.
fn listed(accounts: &[&Account], totals: &[Totals], held: &Guard) -> Vec<ConsumerSnapshot> {
    type Parts<'a> = Vec<(&'a Account, &'a Totals)>;
    let mut parts: HashMap<u64, Parts<'_>> = HashMap::new();
    let read = || accounts.iter().copied().zip(totals);
    for (account, totals) in read() {
        if matches!(account.kind(), Kind::Part { .. }) {
            parts
                .entry(account.id())
                .or_default()
                .push((account, totals));
        }
    }
    let mut snapshots: Vec<ConsumerSnapshot> = read()
        .filter(|(account, _)| !matches!(account.kind(), Kind::Part { .. }))
        .map(|(account, totals)| {
            let parts = parts.get(&account.id()).map_or(&[][..], Vec::as_slice);
            snapshot(
                account,
                &account.with_parts(totals, parts.iter().copied()),
                held,
            )
        })
        .collect();
    snapshots.sort_unstable_by_key(|snapshot| snapshot.id);
    add_subtrees(&mut snapshots);
    snapshots
}

fn snapshot(account: &Account, totals: &Totals, held: &Guard) -> ConsumerSnapshot {
    let mut usage = Usage::default();
    usage.set_counts(totals);
    usage.subtree_live_bytes = usage.live_bytes;
    usage.set_account(account);
    usage.subtree_reserved_bytes = usage.reserved_bytes;
    ConsumerSnapshot {
        id: account.id(),
        name: account.name().into(),
        parent: account.parent().map(|parent| parent.id()),
        can_spill: account.can_spill(),
        departed: account.is_departed(held),
        usage,
    }
}

/// Adds what consumers hold to all above them. Ids ascend from parents to children.
fn add_subtrees(snapshots: &mut [ConsumerSnapshot]) {
    for row in (0..snapshots.len()).rev() {
        let Usage {
            subtree_live_bytes: live,
            subtree_reserved_bytes: reserved,
            ..
        } = snapshots[row].usage;
        let above = snapshots[row]
            .parent
            .and_then(|id| snapshots.binary_search_by_key(&id, |above| above.id).ok());
        if let Some(above) = above {
            let usage = &mut snapshots[above].usage;
            usage.subtree_live_bytes += live;
            usage.subtree_reserved_bytes += reserved;
        }
    }
    for snapshot in snapshots {
        let usage = &mut snapshot.usage;
        usage.subtree_peak_bytes = usage.subtree_peak_bytes.max(usage.subtree_live_bytes);
    }
}

/// A report for people: a tree of consumers with what they hold. Its `Display` is the table.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Report {
    consumers: Consumers,
    installed: bool,
}

/// A report of all consumers as they are now: [`consumers`] as a tree in text, after those that are
/// over have left, which takes the registry's lock for a moment.
pub fn report() -> Report {
    registry::sweep_all();
    Report {
        consumers: consumers(),
        installed: owner::is_installed(),
    }
}

/// The report, if there ever was a consumer.
pub(crate) fn report_if_any() -> Option<Report> {
    registry::is_in_use().then(report)
}

impl Report {
    /// The snapshot that it shows.
    pub fn consumers(&self) -> &Consumers {
        &self.consumers
    }

    /// The consumers in the order of the tree, the largest of those below the same one first, with
    /// their depth.
    fn in_tree_order(&self) -> Vec<(usize, &ConsumerSnapshot)> {
        let all = &self.consumers.consumers;
        // Those below the same one side by side, the largest last.
        let place = |id| all.binary_search_by_key(&id, |one| one.id).ok();
        let group = |one: &ConsumerSnapshot| one.parent.and_then(place).map_or(0, |row| row + 1);
        let mut rows: Vec<(usize, u64, Reverse<usize>)> = all
            .iter()
            .enumerate()
            .map(|(row, one)| (group(one), one.usage.subtree_live_bytes, Reverse(row)))
            .collect();
        rows.sort_unstable();
        // Where each group starts: that of the roots, and that of each row.
        let mut starts = std::vec![0; all.len() + 2];
        rows.iter().for_each(|(group, ..)| starts[group + 1] += 1);
        for group in 0..=all.len() {
            starts[group + 1] += starts[group];
        }
        let mut order = Vec::with_capacity(all.len());
        let mut waiting = Vec::new();
        let push = |waiting: &mut Vec<_>, depth, group| {
            let below = &rows[starts[group]..starts[group + 1]];
            waiting.extend(below.iter().map(|(_, _, Reverse(row))| (depth, *row)));
        };
        push(&mut waiting, 0, 0);
        while let Some((depth, row)) = waiting.pop() {
            order.push((depth, &all[row]));
            push(&mut waiting, depth + 1, row + 1);
        }
        order
    }

    /// The columns of what somebody holds.
    fn columns(&self, f: &mut fmt::Formatter<'_>, usage: &Usage) -> fmt::Result {
        let heap = u128::from(self.consumers.heap_bytes.max(1));
        // In whole numbers: a float takes longer to print than all the rest.
        let tenths = (u128::from(usage.live_bytes) * 1000 / heap) as u64;
        let mut row = Columns::new();
        row.put(usage.live_bytes);
        row.put(usage.subtree_live_bytes);
        row.put(usage.peak_bytes);
        row.put(usage.reserved_bytes);
        row.put_difference(usage.live_bytes, usage.reserved_bytes);
        row.put_tenths(tenths);
        f.write_str(row.text())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.installed {
            writeln!(f, "bursar is not installed as this program's allocator")?;
        }
        writeln!(
            f,
            "{:>12} {:>12} {:>12} {:>12} {:>12} {:>7}  consumer, bytes",
            "live", "with below", "peak", "declared", "real-decl.", "heap"
        )?;
        for (depth, consumer) in self.in_tree_order() {
            self.columns(f, &consumer.usage)?;
            for _ in 0..depth {
                f.write_str("  ")?;
            }
            f.write_str(&consumer.name)?;
            f.write_str(" (")?;
            Id(consumer.id).fmt(f)?;
            f.write_str(if consumer.departed {
                ", departed)\n"
            } else {
                ")\n"
            })?;
        }
        self.columns(f, &self.consumers.unattributed)?;
        f.write_str("(unattributed)\n")?;
        writeln!(f, "{:>12} in all", self.consumers.heap_bytes)
    }
}

/// An id for people to read.
struct Id(u64);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            u64::MAX => f.write_str("internal"),
            id => write!(f, "#{id}"),
        }
    }
}
