//! A recount of what each owner holds, from the runs and spans alone.

use super::{Violation, equal};
use crate::arena::bins::Bins;
use crate::arena::life;
use crate::arena::owner::totals;
use crate::arena::owners::Owner;
use crate::arena::recount::Recount;
use crate::extent::large::Large;
use crate::os::sync::Ordering::Relaxed;
use crate::run::descriptor::Run;
use crate::units::OwnerTag;

/// That of what no consumer claimed.
static NOBODY: Recount = Recount::new();

/// Begins a recount.
pub(super) fn begin() {
    NOBODY.reset();
    Owner::all().for_each(|(_, owner)| owner.recount().reset());
}

fn recount_of(tag: OwnerTag) -> &'static Recount {
    match Owner::find(tag) {
        Some(owner) if tag != OwnerTag::UNATTRIBUTED => owner.recount(),
        _ => &NOBODY,
    }
}

fn count(tag: OwnerTag, bytes: u64) {
    recount_of(tag).add(bytes);
}

/// Takes back that a block was counted.
pub(super) fn uncount(tag: OwnerTag, bytes: u64) {
    recount_of(tag).sub(bytes);
}

/// Changes what an owner's bound should be, and that of those it counts for.
fn charge(tag: OwnerTag, bytes: i64) {
    let bytes = bytes as u64;
    if let Some(owner) = Owner::find(tag).filter(|_| tag != OwnerTag::UNATTRIBUTED) {
        for whole in owner.whole() {
            whole.recount().charge.fetch_add(bytes, Relaxed);
        }
        for above in owner.up() {
            above.recount().tree_charge.fetch_add(bytes, Relaxed);
        }
    }
}

/// Counts the blocks of a run.
pub(super) fn count_run(run: &Run, live: u32) -> Result<(), Violation> {
    let size = u64::from(run.row().size);
    let own = run.head.tag();
    charge(own, run.available_bytes() as i64);
    if run.side().is_none() {
        (0..live).for_each(|_| count(own, size));
        return Ok(());
    }
    let (mut found, mut unknown) = (0_u32, 0_u32);
    // SAFETY: a run leads to its bins, which are never given up, and so do they to their arena.
    let arena = unsafe {
        let bins = &*core::ptr::with_exposed_provenance::<Bins>(run.bins());
        &*bins.arena.get()
    };
    let is_mixed = arena.is_mixed(run);
    run.live_slots(|tag| {
        found += 1;
        unknown += u32::from(is_mixed && arena.ledgers.find(tag).is_none());
        count(tag, size);
        if tag != own {
            charge(tag, size as i64);
            // The slot is lent.
            charge(own, -(size as i64));
        }
    });
    let place = run.start().addr();
    equal("owners in a mixed run have ledgers", place, unknown, 0_u32)?;
    equal("live slots are counted", place, found, live)
}

/// Counts a large block.
pub(super) fn count_large(large: &Large) {
    let bytes = large.bytes() as u64;
    count(large.head.tag(), bytes);
    charge(large.head.tag(), bytes as i64);
}

/// Compares the recount with the books.
pub(super) fn compare() -> Result<(), Violation> {
    for ledger in life::arenas().flat_map(|arena| arena.ledgers.iter()) {
        charge(ledger.tag(), ledger.slack());
    }
    compare_one(OwnerTag::UNATTRIBUTED, &NOBODY)?;
    for (tag, owner) in Owner::all().filter(|(tag, _)| *tag != OwnerTag::UNATTRIBUTED) {
        let recount = owner.recount();
        compare_one(tag, recount)?;
        let place = tag.0 as usize;
        let (bound, tree_bound) = (owner.bound().0, owner.tree_bound().0);
        let charges = [&recount.charge, &recount.tree_charge].map(|charge| charge.load(Relaxed));
        equal(
            "an owner's bound is what it could hold",
            place,
            bound,
            charges[0],
        )?;
        equal(
            "a tree's bound is what it could hold",
            place,
            tree_bound,
            charges[1],
        )?;
    }
    Ok(())
}

fn compare_one(tag: OwnerTag, recount: &Recount) -> Result<(), Violation> {
    let totals = totals(tag);
    let place = tag.0 as usize;
    let blocks = totals.allocated_blocks - totals.freed_blocks;
    equal(
        "an owner's blocks are counted",
        place,
        blocks,
        recount.blocks.load(Relaxed),
    )?;
    equal(
        "an owner's bytes are counted",
        place,
        totals.live_bytes(),
        recount.bytes.load(Relaxed),
    )
}
