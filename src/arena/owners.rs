//! What all threads know of one owner together: its ledgers, and a bound on its live bytes.
//!
//! The bound of an owner is what its uniform runs could hand out without extending them, plus its
//! blocks in mixed runs in steps of [`STEP`], plus its large blocks. It is raised before a block
//! can be handed out and lowered after memory came back, so that
//!
//! ```text
//! live bytes <= bound <= live bytes + free slots of its uniform runs + 2 STEP a thread
//! ```
//! A slot of such a run whose block was handed over is lent: it counts for the taker until it is
//! freed.
//!
//! Only slow paths touch it. An owner below another also counts for that one and all above.

use super::ledger::Ledger;
use super::lent::Lent;
use crate::os::sync::{
    AtomicBool, AtomicPtr, AtomicU64, Ordering, Ordering::Relaxed, Ordering::SeqCst,
};
use crate::pool::{AllocFailure, metadata};
use crate::units::OwnerTag;
use core::ptr::{NonNull, null_mut};

/// One owner. Type-stable: a tag leads to the same record for good.
#[repr(C, align(128))]
pub(crate) struct Owner {
    /// Its ledgers, one for each arena where it was ever at work.
    first: AtomicPtr<Ledger>,
    /// The owner that this one's bytes count for as well.
    above: AtomicPtr<Owner>,
    /// It begins with the first `begin` and is over after `end`.
    is_open: AtomicBool,
    /// This one is a part of the owner above, not an owner of its own below it.
    is_part: AtomicBool,
    /// Slots that are lent, of its runs and of those of all owners below.
    lent: Lent,
    bound: AtomicU64,
    peak: AtomicU64,
    /// The bounds of all owners below that are not parts of this one.
    below: AtomicU64,
    /// The highest that both together were.
    tree_peak: AtomicU64,
    /// Limits of both together.
    soft: AtomicU64,
    hard: AtomicU64,
    #[cfg(feature = "check")]
    recount: super::recount::Recount,
}

/// Blocks in mixed runs raise and lower the bound in steps of this many bytes.
pub(crate) const STEP: u64 = 8192;
/// No limit.
pub(crate) const UNLIMITED: u64 = u64::MAX;

/// Owners of a table.
const TABLE: usize = 256;
/// Tables; tags are below the product.
const TABLES: usize = 4096;

static_assertions::const_assert_eq!(TABLE * TABLES, crate::units::MOST_OWNERS);

type Table = [Owner; TABLE];

/// All owners by tag.
static OWNERS: [AtomicPtr<Table>; TABLES] = [const { AtomicPtr::new(null_mut()) }; TABLES];

impl Owner {
    /// The owner of a tag, if it was ever made.
    pub(crate) fn find(tag: OwnerTag) -> Option<&'static Owner> {
        let (_, index) = place(tag)?;
        Some(&Owner::table(tag)?[index])
    }

    /// The table that a tag is in, if it was ever made.
    #[inline(always)]
    fn table(tag: OwnerTag) -> Option<&'static Table> {
        let (table, _) = place(tag)?;
        // Acquire pairs with the Release in `find_or_make`: the table is initialised.
        // SAFETY: tables are never given up.
        unsafe { table.load(Ordering::Acquire).as_ref() }
    }

    /// The owner of a tag. `None` if the tag is too large or there is no memory.
    pub(crate) fn find_or_make(tag: OwnerTag) -> Option<&'static Owner> {
        if let Some(found) = Self::find(tag) {
            return Some(found);
        }
        let (table, _) = place(tag)?;
        let made: NonNull<Table> = metadata::allocate(size_of::<Table>())?.cast();
        for index in 0..TABLE {
            // SAFETY: a fresh record with room for that many.
            unsafe { made.cast::<Owner>().add(index).write(Owner::new()) };
        }
        // Release: see `find`.
        let won = table.compare_exchange(null_mut(), made.as_ptr(), Ordering::Release, Relaxed);
        if won.is_err() {
            // SAFETY: nobody has seen it.
            unsafe { metadata::release(made.cast(), size_of::<Table>()) };
        }
        Self::find(tag)
    }

    const fn new() -> Owner {
        Owner {
            first: AtomicPtr::new(null_mut()),
            above: AtomicPtr::new(null_mut()),
            is_open: AtomicBool::new(false),
            is_part: AtomicBool::new(false),
            lent: Lent::new(),
            bound: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            below: AtomicU64::new(0),
            tree_peak: AtomicU64::new(0),
            soft: AtomicU64::new(UNLIMITED),
            hard: AtomicU64::new(UNLIMITED),
            #[cfg(feature = "check")]
            recount: super::recount::Recount::new(),
        }
    }

    /// Its ledgers.
    pub(crate) fn ledgers(&self) -> impl Iterator<Item = &'static Ledger> {
        // Acquire pairs with the Release in `add_ledger`.
        let mut next = self.first.load(Ordering::Acquire);
        core::iter::from_fn(move || {
            // SAFETY: ledgers are never given up.
            let ledger = unsafe { next.as_ref()? };
            next = ledger.next_of_owner.load(Relaxed);
            Some(ledger)
        })
    }

    /// Adds the ledger of one more arena.
    pub(super) fn add_ledger(&self, ledger: &'static Ledger) {
        let mut first = self.first.load(Relaxed);
        let added = core::ptr::from_ref(ledger).cast_mut();
        loop {
            ledger.next_of_owner.store(first, Relaxed);
            // Release pairs with the Acquire in `ledgers`. Nothing ever leaves the list.
            match self
                .first
                .compare_exchange_weak(first, added, Ordering::Release, Relaxed)
            {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }

    /// Makes the record that of a new owner. Nobody uses it, and its bound is zero.
    pub(crate) fn begin(&self, above: Option<&'static Owner>, is_part: bool) {
        debug_assert!(self.is_settled());
        self.above.store(
            above.map_or(null_mut(), |above| core::ptr::from_ref(above).cast_mut()),
            Relaxed,
        );
        self.is_part.store(is_part, Relaxed);
        self.is_open.store(true, Relaxed);
        self.peak.store(0, Relaxed);
        self.tree_peak.store(0, Relaxed);
        self.soft.store(UNLIMITED, Relaxed);
        self.hard.store(UNLIMITED, Relaxed);
    }

    /// Says that no block is the owner's and none will be: what arenas still hold for it is held in
    /// vain.
    pub(crate) fn end(&self) {
        self.is_open.store(false, Relaxed);
    }

    /// Whether arenas hold something in vain.
    pub(super) fn is_left_over(&self) -> bool {
        !self.is_open.load(Relaxed) && !self.is_settled()
    }

    /// Whether no arena holds anything for this owner. Stays so while no block is its and nobody is
    /// in its scope.
    pub(crate) fn is_settled(&self) -> bool {
        self.lent.none_while(|| self.tree() == 0)
    }

    /// A block of a run of the owner's own is handed over: its slot is no longer the owner's.
    pub(super) fn lend(&self, bytes: u64) {
        Lent::lend(self.lents(), || self.uncharge(bytes));
    }

    /// A slot that was lent is back.
    pub(super) fn take_back(&self, bytes: u64) {
        Lent::take_back(self.lents(), || {
            // Slots that are there again are not refused.
            let _ = self.charge(bytes, false);
        });
    }

    /// Who has to see that a slot is lent: what comes back counts for those above again, so that none
    /// of them may be another owner by then.
    fn lents(&self) -> impl Iterator<Item = &Lent> {
        self.up().map(|owner| &owner.lent)
    }

    /// The bound, and the highest it was.
    pub(crate) fn bound(&self) -> (u64, u64) {
        (self.bound.load(Relaxed), self.peak.load(Relaxed))
    }

    /// The same with all owners below.
    pub(crate) fn tree_bound(&self) -> (u64, u64) {
        (self.tree(), self.tree_peak.load(Relaxed))
    }

    /// The bound of this owner and all below.
    fn tree(&self) -> u64 {
        // SeqCst: see `charge`.
        self.bound.load(SeqCst) + self.below.load(SeqCst)
    }

    /// Limits the bound of this owner and all below: nothing that would raise it above `hard` is
    /// handed out to a thread that can take a refusal. `soft` is for those who ask.
    pub(crate) fn limit(&self, soft: u64, hard: u64) {
        self.soft.store(soft, Relaxed);
        self.hard.store(hard, Relaxed);
    }

    /// The soft and the hard limit.
    pub(crate) fn limits(&self) -> (u64, u64) {
        (self.soft.load(Relaxed), self.hard.load(Relaxed))
    }

    fn above(&self) -> Option<&'static Owner> {
        // SAFETY: owners are never given up.
        unsafe { self.above.load(Relaxed).as_ref() }
    }

    /// All owners that were ever made, and some that were not.
    #[cfg(feature = "check")]
    pub(crate) fn all() -> impl Iterator<Item = (OwnerTag, &'static Owner)> {
        // Table by table: most were never made.
        (0..TABLES * TABLE).step_by(TABLE).flat_map(|first| {
            let table = Owner::table(OwnerTag(first as u32));
            let owners = table.into_iter().flatten().enumerate();
            owners.map(move |(index, owner)| (OwnerTag((first + index) as u32), owner))
        })
    }

    /// For the recount of what it holds.
    #[cfg(feature = "check")]
    pub(crate) fn recount(&self) -> &super::recount::Recount {
        &self.recount
    }

    /// This owner and all above it.
    pub(crate) fn up(&self) -> impl Iterator<Item = &Owner> {
        let mut next = Some(self);
        core::iter::from_fn(move || {
            let owner = next?;
            // First: once an owner's last bytes are taken back it may be another one, below others.
            next = owner.above();
            Some(owner)
        })
    }

    /// This owner and all above it, with the count of theirs that has this one's bytes, and whether
    /// that is their own bound: that of this one, and of what it is a part of.
    fn bounds(&self) -> impl Iterator<Item = (&Owner, &AtomicU64, bool)> {
        let mut is_own = true;
        self.up().map(move |owner| {
            let count = if is_own { &owner.bound } else { &owner.below };
            let item = (owner, count, is_own);
            is_own &= owner.is_part.load(Relaxed);
            item
        })
    }

    /// Those whose own bound counts this one's bytes.
    #[cfg(feature = "check")]
    pub(crate) fn whole(&self) -> impl Iterator<Item = &Owner> {
        let own = self.bounds().take_while(|(_, _, is_own)| *is_own);
        own.map(|(owner, _, _)| owner)
    }

    /// Whether its bytes count for no other owner.
    #[inline(always)]
    fn is_alone(&self) -> bool {
        self.above.load(Relaxed).is_null()
    }

    /// Raises the bound. With `fallible`, only if no hard limit from here upwards is passed.
    pub(super) fn charge(&self, bytes: u64, fallible: bool) -> Result<(), AllocFailure> {
        if fallible || !self.is_alone() {
            return self.charge_all(bytes, fallible);
        }
        // SeqCst: see there.
        let bound = self.bound.fetch_add(bytes, SeqCst) + bytes;
        raise(&self.tree_peak, bound + self.below.load(SeqCst));
        raise(&self.peak, bound);
        Ok(())
    }

    /// The same for all owners upwards.
    fn charge_all(&self, bytes: u64, fallible: bool) -> Result<(), AllocFailure> {
        for (owner, count, _) in self.bounds() {
            // SeqCst: of two threads that raise both counts of an owner, the later one sees the sum.
            count.fetch_add(bytes, SeqCst);
            if fallible && owner.tree() > owner.hard.load(Relaxed) {
                // Those below the one that refuses have been raised too.
                for (raised, count, _) in self.bounds() {
                    count.fetch_sub(bytes, Relaxed);
                    if core::ptr::eq(raised, owner) {
                        break;
                    }
                }
                return Err(AllocFailure::Limit {
                    limit: owner.hard.load(Relaxed),
                    bytes,
                });
            }
        }
        for (owner, count, is_own) in self.bounds() {
            raise(&owner.tree_peak, owner.tree());
            if is_own {
                raise(&owner.peak, count.load(Relaxed));
            }
        }
        Ok(())
    }

    /// Lowers the bound.
    #[inline(always)]
    pub(super) fn uncharge(&self, bytes: u64) {
        if self.is_alone() {
            self.bound.fetch_sub(bytes, Relaxed);
        } else {
            self.uncharge_all(bytes);
        }
    }

    #[inline(never)]
    fn uncharge_all(&self, bytes: u64) {
        for (_, count, _) in self.bounds() {
            // Release: who finds it settled comes after what was read to go on upwards.
            count.fetch_sub(bytes, Ordering::Release);
        }
    }
}

/// Raises a maximum.
fn raise(peak: &AtomicU64, to: u64) {
    if peak.load(Relaxed) < to {
        peak.fetch_max(to, Relaxed);
    }
}

/// The table of a tag, and the place in it.
fn place(tag: OwnerTag) -> Option<(&'static AtomicPtr<Table>, usize)> {
    let table = OWNERS.get(tag.0 as usize / TABLE)?;
    Some((table, tag.0 as usize % TABLE))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn nobody_above_a_lent_slot_is_settled() {
        let [above, middle, below] = [800_000, 800_001, 800_002].map(|tag| {
            let owner = Owner::find_or_make(OwnerTag(tag));
            owner.unwrap()
        });
        let settled = || [above, middle, below].map(Owner::is_settled);
        above.begin(None, false);
        middle.begin(Some(above), false);
        below.begin(Some(middle), true);
        below.charge(100, false).unwrap();
        below.lend(100);
        assert_eq!(settled(), [false; 3], "it will count for all of them again");
        below.take_back(100);
        assert_eq!(settled(), [false; 3]);
        below.uncharge(100);
        assert_eq!(settled(), [true; 3]);
    }

    #[test]
    fn the_way_up_is_that_of_before_an_owner_was_another() {
        let [old, new, below] = [800_010, 800_011, 800_012].map(|tag| {
            let owner = Owner::find_or_make(OwnerTag(tag));
            owner.unwrap()
        });
        old.begin(None, false);
        new.begin(None, false);
        below.begin(Some(old), false);
        let mut up = below.up();
        assert!(up.next().is_some_and(|owner| core::ptr::eq(owner, below)));
        below.begin(Some(new), false);
        assert!(up.next().is_some_and(|owner| core::ptr::eq(owner, old)));
    }
}
