//! One account: what is known of a consumer, or of what one of its reservations allocates.

use super::declared::Declared;
use super::epoch;
use super::limit::Watch;
use super::presence::Presence;
use super::registry;
use crate::arena::ledger::Totals;
use crate::arena::owner;
use crate::arena::owners::Owner;
use crate::os::thread::sleep_millis;
use crate::units::OwnerTag;
use core::ops::Deref;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use crossbeam_epoch::Guard;
use std::boxed::Box;

use Ordering::{AcqRel, Acquire, Relaxed, Release};

/// How often a reader looks whether a part has left by now without giving way, and in all: some tens of
/// milliseconds, for a thread that was stopped.
const SPINS: u32 = 100;
const TRIES: u32 = SPINS + 50;

/// What an account is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A consumer's own.
    Consumer,
    /// A reservation's part of its consumer's.
    Part {
        /// The reservation's number.
        reservation: u64,
    },
    /// bursar's own, for what this layer allocates.
    Internal,
}

/// An account.
pub(super) struct Account {
    id: u64,
    name: Box<str>,
    kind: Kind,
    can_spill: AtomicBool,
    parent: Option<Shared>,
    tag: OwnerTag,
    owner: &'static Owner,
    /// What the slot's earlier accounts did: as much allocated as freed.
    base: Totals,
    /// Handles; each account below has one.
    presence: Presence,
    /// It is in the queue of those that may have to leave. Under the lock.
    is_queued: AtomicBool,
    declared: Declared,
    next_reservation: AtomicU64,
    watch: Watch,
    /// What it did in all, once it has left its slot.
    last: Sums,
    /// What parts that have left did in all.
    left: Sums,
    /// Odd while a part leaves, and changed by it.
    leaving: AtomicU64,
    first_child: AtomicPtr<Account>,
    next_sibling: AtomicPtr<Account>,
    /// Under the lock.
    previous_sibling: AtomicPtr<Account>,
}

/// A pointer to an account that is not freed while somebody can come by it: by a handle, by an
/// account below it, or in an epoch in which it was seen.
#[derive(Clone, Copy)]
pub(super) struct Shared(NonNull<Account>);

// SAFETY: accounts are changed by atomics, or under the registry's lock.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Of an account that is in a box of its own for good.
    pub(super) fn of(account: &Account) -> Shared {
        Shared(NonNull::from(account))
    }

    /// Of a fresh account.
    pub(super) fn new(account: Account) -> Shared {
        Shared(NonNull::from(Box::leak(Box::new(account))))
    }

    pub(super) fn as_ptr(self) -> *mut Account {
        self.0.as_ptr()
    }

    /// Frees the account.
    ///
    /// # Safety
    /// Nobody can come by it any more.
    pub(super) unsafe fn free(self) {
        // SAFETY: made by `new`; the caller's promise.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl Deref for Shared {
    type Target = Account;

    fn deref(&self) -> &Account {
        // SAFETY: what this type stands for.
        unsafe { self.0.as_ref() }
    }
}

/// A counted handle, which keeps its account in the registry.
pub(super) struct Handle(Shared);

impl Handle {
    /// One more, of an account that somebody has a handle of.
    pub(super) fn another(account: &Account) -> Handle {
        account.presence.add();
        Handle(Shared::of(account))
    }

    /// One that was counted already.
    pub(super) fn counted(account: Shared) -> Handle {
        Handle(account)
    }
}

impl Deref for Handle {
    type Target = Account;

    fn deref(&self) -> &Account {
        &self.0
    }
}

impl Clone for Handle {
    fn clone(&self) -> Handle {
        Handle::another(self)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // An account that was without handles before may leave, and be freed, as soon as this one
        // is gone.
        let _held = self.presence.was_revived().then(epoch::pin);
        if self.presence.drop_one() {
            registry::depart(self.0);
        }
    }
}

/// Totals of blocks that were all freed: blocks, bytes, blocks freed remotely.
#[derive(Default)]
struct Sums([AtomicU64; 3]);

impl Sums {
    fn add(&self, totals: &Totals) {
        let sums = [
            totals.freed_blocks,
            totals.freed_bytes,
            totals.freed_remotely,
        ];
        for (sum, more) in self.0.iter().zip(sums) {
            sum.fetch_add(more, Relaxed);
        }
    }

    fn totals(&self) -> Totals {
        let [blocks, bytes, remotely] = [0, 1, 2].map(|index: usize| self.0[index].load(Relaxed));
        Totals {
            allocated_blocks: blocks,
            freed_blocks: blocks,
            allocated_bytes: bytes,
            freed_bytes: bytes,
            freed_remotely: remotely,
            requested: [0; 2],
        }
    }
}

impl Account {
    /// One that counts from `base` on, with one handle.
    pub(super) fn new(
        (tag, owner): (OwnerTag, &'static Owner),
        name: &str,
        id: u64,
        kind: Kind,
        parent: Option<&Account>,
        base: Totals,
    ) -> Account {
        Account {
            id,
            name: name.into(),
            kind,
            can_spill: AtomicBool::new(false),
            parent: parent.map(Shared::of),
            tag,
            owner,
            base,
            presence: Presence::new(),
            is_queued: AtomicBool::new(false),
            declared: Declared::default(),
            next_reservation: AtomicU64::new(0),
            watch: Watch::default(),
            last: Sums::default(),
            left: Sums::default(),
            leaving: AtomicU64::new(0),
            first_child: AtomicPtr::new(null_mut()),
            next_sibling: AtomicPtr::new(null_mut()),
            previous_sibling: AtomicPtr::new(null_mut()),
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it is what a reservation allocates of another account.
    pub(super) fn is_part_of(&self, account: &Account) -> bool {
        matches!(self.kind, Kind::Part { .. })
            && self
                .parent
                .as_deref()
                .is_some_and(|whole| core::ptr::eq(whole, account))
    }

    pub(super) fn tag(&self) -> OwnerTag {
        self.tag
    }

    pub(super) fn owner(&self) -> &'static Owner {
        self.owner
    }

    pub(super) fn parent(&self) -> Option<&Account> {
        self.parent.as_deref()
    }

    pub(super) fn can_spill(&self) -> bool {
        self.can_spill.load(Relaxed)
    }

    pub(super) fn set_can_spill(&self, can_spill: bool) {
        self.can_spill.store(can_spill, Relaxed);
    }

    /// Notes that it is in the queue of those that may have to leave, or not; whether it was. Under
    /// the lock.
    pub(super) fn set_queued(&self, queued: bool) -> bool {
        self.is_queued.swap(queued, Relaxed)
    }

    /// Its handles, and those of accounts below.
    pub(super) fn presence(&self) -> &Presence {
        &self.presence
    }

    /// What waits for pressure.
    pub(super) fn watched(&self) -> &Watch {
        &self.watch
    }

    /// The next number of a reservation.
    pub(super) fn next_reservation(&self) -> u64 {
        self.next_reservation.fetch_add(1, Relaxed)
    }

    /// Declares bytes.
    #[inline]
    pub(super) fn raise_declared(&self, bytes: u64) {
        self.declared.raise(bytes);
    }

    /// Takes back what was declared.
    #[inline]
    pub(super) fn lower_declared(&self, bytes: u64) {
        self.declared.lower(bytes);
    }

    /// What reservations and streams have declared, and the most they had.
    pub(super) fn reserved(&self) -> (u64, u64) {
        let now = self.declared.read();
        (now, self.declared.peak().max(now))
    }

    /// First half of the counts, for who reads several accounts: of all of them first.
    pub(super) fn read_freed(&self) -> Totals {
        let mut totals = Totals::default();
        owner::add_freed(self.tag, &mut totals);
        totals.subtract_freed(&self.base);
        totals
    }

    /// Second half.
    pub(super) fn read_allocated(&self, totals: &mut Totals) {
        owner::add_allocated(self.tag, totals);
        totals.subtract_allocated(&self.base);
        if !self.is_open() {
            // The slot may be another's by now.
            *totals = self.last.totals();
        }
    }

    /// The counts of a consumer whose own are `own`, together with those of its parts, some of
    /// which may have left since they were read.
    pub(super) fn with_parts<'a>(
        &self,
        own: &Totals,
        parts: impl Iterator<Item = (&'a Account, &'a Totals)> + Clone,
    ) -> Totals {
        // A thread that is stopped while a part leaves is waited for some time, not for good: then the
        // part may be counted twice in what was ever allocated and freed, and in neither alone.
        let mut tries = 0_u32;
        loop {
            let before = self.leaving.load(Acquire);
            let mut sum = self.left.totals();
            sum.add(own);
            // What a part that has left did is in the sum already.
            for (part, totals) in parts.clone() {
                if part.is_open() {
                    sum.add(totals);
                }
            }
            tries += 1;
            let is_whole = before.is_multiple_of(2) && before == self.leaving.load(Acquire);
            if is_whole || tries == TRIES {
                return sum;
            }
            if tries > SPINS {
                sleep_millis(1);
            }
            core::hint::spin_loop();
        }
    }

    /// Whether the account still has its slot. Counts that were read before are its own.
    pub(super) fn is_open(&self) -> bool {
        registry::is_in_slot(self)
    }

    /// The accounts right below.
    pub(super) fn children<'g>(&self, _held: &'g Guard) -> impl Iterator<Item = &'g Account> {
        // Acquire pairs with the Release in `link`.
        // SAFETY: an account that was in a list while the epoch is held is alive until it ends.
        let mut next = unsafe { self.first_child.load(Acquire).as_ref::<'g>() };
        core::iter::from_fn(move || {
            let child = next?;
            // SAFETY: as above.
            next = unsafe { child.next_sibling.load(Acquire).as_ref::<'g>() };
            Some(child)
        })
    }

    pub(super) fn has_children(&self) -> bool {
        !self.first_child.load(Relaxed).is_null()
    }

    /// Whether nobody has a handle but parts of reservations that are gone.
    pub(super) fn is_departed(&self, held: &Guard) -> bool {
        let gone = |part: &&Account| part.is_part_of(self) && !part.presence.is_any();
        self.presence.count() == self.children(held).filter(gone).count() as u64
    }

    /// Whether nothing can ever be booked to it again. Stays so.
    pub(super) fn is_over(&self) -> bool {
        self.presence.is_over(|| owner::is_entered(self.tag)) && owner::totals(self.tag).is_even()
    }

    /// Notes what it did in all, as it leaves its slot. Under the lock.
    pub(super) fn take_leave(&self) {
        let mut totals = self.read_freed();
        self.read_allocated(&mut totals);
        self.last.add(&totals);
        let whole = self
            .parent()
            .filter(|_| matches!(self.kind, Kind::Part { .. }));
        if let Some(whole) = whole {
            whole.leaving.fetch_add(1, AcqRel);
            whole.left.add(&totals);
        }
        registry::clear_slot(self);
        if let Some(parent) = self.parent() {
            parent.unlink(self);
        }
        if let Some(whole) = whole {
            whole.leaving.fetch_add(1, AcqRel);
        }
        self.owner.end();
    }

    /// Puts a child first. Under the lock.
    pub(super) fn link(&self, child: &Account) {
        let first = self.first_child.load(Relaxed);
        let added = core::ptr::from_ref(child).cast_mut();
        child.next_sibling.store(first, Relaxed);
        // SAFETY: accounts in the list are alive.
        if let Some(first) = unsafe { first.as_ref() } {
            first.previous_sibling.store(added, Relaxed);
        }
        // Release pairs with the Acquire in `children`.
        self.first_child.store(added, Release);
    }

    /// Takes a child out. Under the lock. Who stands on it finds on from there.
    pub(super) fn unlink(&self, child: &Account) {
        let next = child.next_sibling.load(Relaxed);
        let previous = child.previous_sibling.load(Relaxed);
        // SAFETY: accounts in the list are alive.
        unsafe {
            match previous.as_ref() {
                Some(previous) => previous.next_sibling.store(next, Release),
                None => self.first_child.store(next, Release),
            }
            if let Some(next) = next.as_ref() {
                next.previous_sibling.store(previous, Relaxed);
            }
        }
    }
}
