//! An arena's ledgers by tag.

use super::ledger::Ledger;
use super::owners::Owner;
use crate::os::sync::{AtomicPtr, Ordering, Ordering::Relaxed};
use crate::pool::metadata;
use crate::units::OwnerTag;
use core::cell::Cell;
use core::ptr::{NonNull, null_mut};

/// A table of two levels for the thread that has the arena, and a list,
/// which only grows, for readers.
pub(crate) struct Ledgers {
    first: AtomicPtr<Ledger>,
    /// The leaves; those without a ledger are the same empty one.
    leaves: Cell<*mut *const Leaf>,
    /// How many there are.
    capacity: Cell<usize>,
}

/// The ledgers of successive tags, side by side. One that was not made yet has [`NO_TAG`].
#[repr(C)]
struct Leaf {
    ledgers: [Ledger; LEAF],
    /// Without it those of one owner would lie at the same offset of their pages on all arenas, and
    /// displace each other from the cache of who reads them.
    _apart: [u64; 16],
}

impl Leaf {
    const fn new() -> Leaf {
        Leaf {
            ledgers: [const { Ledger::new(NO_TAG) }; LEAF],
            _apart: [0; 16],
        }
    }
}

/// Tags of a leaf.
const LEAF: usize = 16;
const FIRST_CAPACITY: usize = 16;
/// No owner's.
const NO_TAG: OwnerTag = OwnerTag(u32::MAX);

/// A leaf of the table in place of a null pointer.
struct EmptyLeaf(Leaf);

// SAFETY: nobody writes to it, since no ledger of it has a tag.
unsafe impl Sync for EmptyLeaf {}

static EMPTY_LEAF: EmptyLeaf = EmptyLeaf(Leaf::new());

impl Ledgers {
    pub(crate) const fn new() -> Ledgers {
        Ledgers {
            first: AtomicPtr::new(null_mut()),
            leaves: Cell::new(null_mut()),
            capacity: Cell::new(0),
        }
    }

    /// All ledgers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'static Ledger> {
        // Acquire pairs with the Release in `add`: ledgers are initialised when they are seen.
        let mut next = self.first.load(Ordering::Acquire);
        core::iter::from_fn(move || {
            // SAFETY: ledgers are never given up.
            let ledger = unsafe { next.as_ref()? };
            next = ledger.next.load(Ordering::Relaxed);
            Some(ledger)
        })
    }

    /// The ledger of `tag`, if it has one here.
    #[inline(always)]
    pub(crate) fn find(&self, tag: OwnerTag) -> Option<&'static Ledger> {
        let (leaf, place) = place(tag);
        if leaf >= self.capacity.get() {
            return None;
        }
        // SAFETY: there are `capacity` leaves, of `LEAF` ledgers each, which are never given up.
        let ledger = unsafe { (**self.leaves.get().add(leaf)).ledgers.get_unchecked(place) };
        (ledger.tag() == tag).then_some(ledger)
    }

    /// The ledger of `tag`.
    ///
    /// # Safety
    /// It has one here.
    #[inline(always)]
    pub(super) unsafe fn find_known(&self, tag: OwnerTag) -> &'static Ledger {
        debug_assert!(self.find(tag).is_some());
        let (leaf, place) = place(tag);
        // SAFETY: the caller's promise; leaves are never given up.
        unsafe { (**self.leaves.get().add(leaf)).ledgers.get_unchecked(place) }
    }

    /// The ledger of `tag`, which has none here so far. `None` if there is no memory.
    pub(super) fn add(&self, tag: OwnerTag) -> Option<&'static Ledger> {
        let owner = Owner::find_or_make(tag)?;
        let ledger = &self.leaf(tag)?.ledgers[place(tag).1];
        ledger.tag.store(tag.0, Relaxed);
        ledger.next.store(self.first.load(Relaxed), Relaxed);
        ledger
            .owner
            .store(core::ptr::from_ref(owner).cast_mut(), Relaxed);
        owner.add_ledger(ledger);
        let made = core::ptr::from_ref(ledger).cast_mut();
        // Release pairs with the Acquire in `iter`.
        self.first.store(made, Ordering::Release);
        Some(ledger)
    }

    /// The leaf of `tag`, made if need be.
    fn leaf(&self, tag: OwnerTag) -> Option<&'static Leaf> {
        let index = place(tag).0;
        while index >= self.capacity.get() {
            self.grow()?;
        }
        // SAFETY: there are `capacity` leaves, which only this thread looks at.
        let leaf = unsafe { &mut *self.leaves.get().add(index) };
        if core::ptr::eq(*leaf, &EMPTY_LEAF.0) {
            let record = metadata::allocate(size_of::<Leaf>())?.cast::<Leaf>();
            // SAFETY: a fresh record of that size.
            unsafe { record.write(Leaf::new()) };
            *leaf = record.as_ptr();
        }
        // SAFETY: leaves are never given up.
        Some(unsafe { &**leaf })
    }

    /// Makes room for twice as many leaves.
    fn grow(&self) -> Option<()> {
        let (leaves, old) = (self.leaves.get(), self.capacity.get());
        let capacity = (old * 2).max(FIRST_CAPACITY);
        let bytes = |capacity: usize| capacity * size_of::<*const Leaf>();
        let more = metadata::allocate(bytes(capacity))?.cast::<*const Leaf>();
        for index in 0..capacity {
            // SAFETY: a record with room for that many; the old one has `old`.
            unsafe {
                let leaf = if index < old {
                    leaves.add(index).read()
                } else {
                    &EMPTY_LEAF.0
                };
                more.add(index).write(leaf);
            }
        }
        self.leaves.set(more.as_ptr());
        self.capacity.set(capacity);
        if let Some(less) = NonNull::new(leaves) {
            // SAFETY: the old record, which only this thread read.
            unsafe { metadata::release(less.cast(), bytes(old)) };
        }
        Some(())
    }
}

/// The leaf of a tag, and its place there.
#[inline(always)]
fn place(tag: OwnerTag) -> (usize, usize) {
    (tag.0 as usize / LEAF, tag.0 as usize % LEAF)
}
