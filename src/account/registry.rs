//! The registry: which accounts there are, and who may use a slot next.
//!
//! An account has a slot, the tag that the arenas know it by, from its opening until it has neither
//! handles, nor scopes, nor live blocks, nor memory that an arena keeps for it. Then another may
//! have the slot: the arenas' counts go on, and each account counts from where it began.
//!
//! Changes are made under one lock. Readers take none: they hold an epoch, and an account that has
//! left is freed when all epochs of that time are over. Lists of children are changed in the same
//! way; one who stands on an account that leaves finds on from there.

use super::epoch;
use super::limit::Watch;
use super::presence::Presence;
use crate::arena::ledger::Totals;
use crate::arena::owner;
use crate::arena::owners::Owner;
use crate::os::fork;
use crate::os::lock::Lock;
use crate::units::OwnerTag;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crossbeam_epoch::Guard;
use std::boxed::Box;
use std::collections::VecDeque;
use std::sync::Arc;
use std::vec::Vec;

use Ordering::{AcqRel, Acquire, Relaxed, Release};

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
    parent: Option<Arc<Account>>,
    tag: OwnerTag,
    owner: &'static Owner,
    /// What the slot's earlier accounts did: as much allocated as freed.
    base: Totals,
    /// Handles; each account below has one.
    presence: Presence,
    /// It is in the queue of those that may have to leave. Under the lock.
    is_queued: AtomicBool,
    reserved: AtomicU64,
    peak_reserved: AtomicU64,
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

    pub(super) fn parent(&self) -> Option<&Arc<Account>> {
        self.parent.as_ref()
    }

    pub(super) fn can_spill(&self) -> bool {
        self.can_spill.load(Relaxed)
    }

    pub(super) fn set_can_spill(&self, can_spill: bool) {
        self.can_spill.store(can_spill, Relaxed);
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

    /// Changes what reservations have declared.
    pub(super) fn book_reserved(&self, delta: i64) {
        let before = self.reserved.fetch_add(delta as u64, Relaxed);
        let after = before.wrapping_add(delta as u64);
        if delta > 0 {
            self.peak_reserved.fetch_max(after, Relaxed);
        }
    }

    /// What reservations have declared, and the most they had.
    pub(super) fn reserved(&self) -> (u64, u64) {
        (
            self.reserved.load(Relaxed),
            self.peak_reserved.load(Relaxed),
        )
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

    /// The counts of a consumer whose own are `own`, together with those of its parts, some of which
    /// may have left since they were read.
    pub(super) fn with_parts<'a>(
        &self,
        own: &Totals,
        parts: impl Iterator<Item = (&'a Account, &'a Totals)> + Clone,
    ) -> Totals {
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
            if before.is_multiple_of(2) && before == self.leaving.load(Acquire) {
                return sum;
            }
            core::hint::spin_loop();
        }
    }

    /// Whether the account still has its slot. Counts that were read before are its own.
    fn is_open(&self) -> bool {
        slot(self.tag).is_some_and(|slot| core::ptr::eq(slot.load(Acquire), self))
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

    /// Whether nothing can ever be booked to it again. Stays so.
    fn is_over(&self) -> bool {
        self.presence.is_over(|| owner::is_entered(self.tag)) && owner::totals(self.tag).is_even()
    }

    /// Puts a child first. Under the lock.
    fn link(&self, child: &Account) {
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
    fn unlink(&self, child: &Account) {
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

/// Slots of a table, and tables.
const TABLE: usize = 256;
const TABLES: usize = 4096;

type Slot = AtomicPtr<Account>;

/// Accounts by tag.
static SLOTS: [AtomicPtr<[Slot; TABLE]>; TABLES] = [const { AtomicPtr::new(null_mut()) }; TABLES];
/// Tags that were ever used are below this.
static USED: AtomicU32 = AtomicU32::new(0);

/// The tag of bursar's own account.
const INTERNAL: OwnerTag = OwnerTag(1);

fn slot(tag: OwnerTag) -> Option<&'static Slot> {
    let table = SLOTS.get(tag.0 as usize / TABLE)?;
    // SAFETY: tables are never given up. Acquire pairs with the Release in `make_slot`.
    let table = unsafe { table.load(Acquire).as_ref()? };
    table.get(tag.0 as usize % TABLE)
}

/// The slot of a tag, made if need be. Under the lock.
fn make_slot(tag: OwnerTag) -> &'static Slot {
    if let Some(slot) = slot(tag) {
        return slot;
    }
    let made = Box::new([const { Slot::new(null_mut()) }; TABLE]);
    let table = tag.0 as usize / TABLE;
    assert!(table < TABLES, "more than a million accounts at once");
    SLOTS[table].store(Box::into_raw(made), Release);
    slot(tag).expect("made just now")
}

/// What is under the lock.
struct State {
    /// Slots without an account, the one that was left first in front.
    free: VecDeque<OwnerTag>,
    /// Accounts without a handle.
    departed: VecDeque<Arc<Account>>,
    /// Slots that were opened anew since arenas were last asked to settle.
    unsettled: usize,
    is_set_up: bool,
}

static STATE: Lock<State> = Lock::new(State {
    free: VecDeque::new(),
    departed: VecDeque::new(),
    unsettled: 0,
    is_set_up: false,
});

/// Runs `work` with what it allocates charged to bursar's own account.
pub(super) fn internally<T>(work: impl FnOnce() -> T) -> T {
    let _scope = super::scope::Scope::enter(INTERNAL);
    work()
}

/// Departed accounts that each change of the registry looks at.
const LOOK_AT: usize = 4;
/// Free slots that are tried before another is opened.
const TRIES: usize = 8;
/// After so many in vain arenas are asked to give up what keeps slots from being used again.
const ASK_AT: usize = 64;

/// Opens an account.
pub(super) fn open(name: &str, id: u64, kind: Kind, parent: Option<&Arc<Account>>) -> Arc<Account> {
    internally(|| {
        let mut over = Vec::new();
        let account = {
            let mut state = STATE.lock();
            state.set_up();
            state.sweep(LOOK_AT, &mut over);
            state.open(name, id, kind, parent)
        };
        free_later(over);
        account
    })
}

/// An account has lost its last handle.
pub(super) fn depart(account: &Arc<Account>) {
    internally(|| {
        owner::settle(account.tag);
        let mut over = Vec::new();
        {
            let mut state = STATE.lock();
            state.queue(account);
            state.sweep(LOOK_AT, &mut over);
        }
        free_later(over);
    });
}

/// Lets all accounts leave that can.
pub(super) fn sweep_all() {
    internally(|| {
        let mut over = Vec::new();
        {
            let mut state = STATE.lock();
            // One that leaves may be the last to hold the one above it.
            let mut left = usize::MAX;
            while over.len() != left {
                left = over.len();
                let all = state.departed.len();
                state.sweep(all, &mut over);
            }
        }
        free_later(over);
    });
}

/// Frees accounts when nobody can be reading them any more. Not under the lock: other deferred
/// work may be done here.
fn free_later(accounts: Vec<Arc<Account>>) {
    if accounts.is_empty() {
        return;
    }
    let held = epoch::pin();
    for account in accounts {
        held.defer(move || drop(account));
    }
}

impl State {
    fn set_up(&mut self) {
        if self.is_set_up {
            return;
        }
        self.is_set_up = true;
        fork::register(before_fork, after_fork_in_parent, after_fork_in_child);
        let tag = INTERNAL;
        USED.store(tag.0 + 1, Release);
        // Held for good.
        let _ = Arc::into_raw(self.open_at(tag, "bursar", u64::MAX, Kind::Internal, None));
    }

    fn open(
        &mut self,
        name: &str,
        id: u64,
        kind: Kind,
        parent: Option<&Arc<Account>>,
    ) -> Arc<Account> {
        let tag = self.free_tag();
        self.open_at(tag, name, id, kind, parent)
    }

    /// A slot whose last account has left nothing at any arena, or a new one.
    fn free_tag(&mut self) -> OwnerTag {
        for _ in 0..TRIES.min(self.free.len()) {
            let Some(tag) = self.free.pop_front() else {
                break;
            };
            if Owner::find(tag).is_none_or(Owner::is_settled) {
                return tag;
            }
            self.free.push_back(tag);
        }
        self.unsettled += 1;
        if self.unsettled >= ASK_AT && self.free.len() >= ASK_AT {
            self.unsettled = 0;
            owner::settle_left_over();
        }
        // Release: a reader that sees the number looks at slots below it.
        OwnerTag(USED.fetch_add(1, Release))
    }

    fn open_at(
        &mut self,
        tag: OwnerTag,
        name: &str,
        id: u64,
        kind: Kind,
        parent: Option<&Arc<Account>>,
    ) -> Arc<Account> {
        let slot = make_slot(tag);
        let owner = Owner::find_or_make(tag).unwrap_or_else(|| {
            std::alloc::handle_alloc_error(core::alloc::Layout::new::<Owner>());
        });
        let is_part = matches!(kind, Kind::Part { .. });
        let mut base = Totals::default();
        // bursar's own may hold something before it is opened, and always has its slot.
        if kind != Kind::Internal {
            owner.begin(parent.map(|parent| parent.owner), is_part);
            base = owner::totals(tag);
        }
        if let Some(parent) = parent {
            parent.presence.add();
        }
        let account = Arc::new(Account {
            id,
            name: name.into(),
            kind,
            can_spill: AtomicBool::new(false),
            parent: parent.cloned(),
            tag,
            owner,
            base,
            presence: Presence::new(),
            is_queued: AtomicBool::new(false),
            reserved: AtomicU64::new(0),
            peak_reserved: AtomicU64::new(0),
            next_reservation: AtomicU64::new(0),
            watch: Watch::default(),
            last: Sums::default(),
            left: Sums::default(),
            leaving: AtomicU64::new(0),
            first_child: AtomicPtr::new(null_mut()),
            next_sibling: AtomicPtr::new(null_mut()),
            previous_sibling: AtomicPtr::new(null_mut()),
        });
        if let Some(parent) = parent {
            parent.link(&account);
        }
        // The registry holds it while it has the slot. Release: it is seen initialised.
        slot.store(Arc::into_raw(Arc::clone(&account)).cast_mut(), Release);
        account
    }

    fn queue(&mut self, account: &Arc<Account>) {
        if !account.is_queued.swap(true, Relaxed) {
            self.departed.push_back(Arc::clone(account));
        }
    }

    /// Looks at some departed accounts, and lets go those that are over.
    fn sweep(&mut self, most: usize, over: &mut Vec<Arc<Account>>) {
        for _ in 0..most.min(self.departed.len()) {
            let Some(account) = self.departed.pop_front() else {
                return;
            };
            if account.presence.is_any() {
                account.is_queued.store(false, Relaxed);
                // The handle may be gone again, and its user have seen the mark.
                if !account.presence.is_any() {
                    self.queue(&account);
                }
            } else if account.is_over() {
                self.close(&account);
                over.push(account);
            } else {
                self.departed.push_back(account);
            }
        }
    }

    /// Takes the slot from an account that is over.
    fn close(&mut self, account: &Arc<Account>) {
        let mut totals = account.read_freed();
        account.read_allocated(&mut totals);
        account.last.add(&totals);
        let whole = account
            .parent
            .as_ref()
            .filter(|_| matches!(account.kind, Kind::Part { .. }));
        if let Some(whole) = whole {
            whole.leaving.fetch_add(1, AcqRel);
            whole.left.add(&totals);
        }
        if let Some(slot) = slot(account.tag) {
            // Release pairs with the Acquire in `is_open`.
            let held = slot.swap(null_mut(), AcqRel);
            // SAFETY: the count that `open_at` left there. Readers that found the account by its
            // slot are covered by the caller's, which is freed later.
            unsafe { drop(Arc::from_raw(held.cast_const())) };
        }
        if let Some(parent) = &account.parent {
            parent.unlink(account);
        }
        if let Some(whole) = whole {
            whole.leaving.fetch_add(1, AcqRel);
        }
        if let Some(parent) = &account.parent
            && parent.presence.drop_one()
        {
            self.queue(parent);
        }
        account.owner.end();
        self.free.push_back(account.tag);
    }
}

/// A handle to the account of a tag in whose scope the thread is; for a part's, its consumer's.
pub(super) fn handle(tag: OwnerTag) -> Option<super::Consumer> {
    let _held = epoch::pin();
    // SAFETY: an account in a slot while the epoch is held is alive until it ends.
    let account = unsafe { slot(tag)?.load(Acquire).as_ref()? };
    if let (Kind::Part { .. }, Some(parent)) = (account.kind, account.parent()) {
        parent.presence.revive();
        return Some(super::Consumer::of(Arc::clone(parent)));
    }
    account.presence.revive();
    let account = core::ptr::from_ref(account);
    // SAFETY: accounts are made by `Arc::new`, and the registry holds this one.
    unsafe {
        Arc::increment_strong_count(account);
        Some(super::Consumer::of(Arc::from_raw(account)))
    }
}

/// All accounts that have a slot now.
pub(super) fn accounts(_held: &Guard) -> impl Iterator<Item = &Account> {
    (0..USED.load(Acquire)).filter_map(|number| {
        // SAFETY: an account in a slot while the epoch is held is alive until it ends.
        unsafe { slot(OwnerTag(number))?.load(Acquire).as_ref() }
    })
}

/// Which lock the fork hooks took.
static TAKEN: AtomicBool = AtomicBool::new(false);

unsafe extern "C" fn before_fork() {
    let taken = STATE.lock_before_fork();
    TAKEN.store(taken, Relaxed);
}

unsafe extern "C" fn after_fork_in_parent() {
    STATE.after_fork(TAKEN.load(Relaxed), false);
}

unsafe extern "C" fn after_fork_in_child() {
    epoch::begin_anew();
    STATE.after_fork(TAKEN.load(Relaxed), true);
}
