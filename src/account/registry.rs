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
use super::record::{Account, Handle, Kind, Shared};
use crate::arena::ledger::Totals;
use crate::arena::owner;
use crate::arena::owners::Owner;
use crate::os::fork;
use crate::os::lock::Lock;
use crate::pool::bound;
use crate::units::OwnerTag;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use crossbeam_epoch::Guard;
use std::boxed::Box;
use std::collections::VecDeque;
use std::vec::Vec;

use Ordering::{Acquire, Release};

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

/// Whether an account has its slot.
pub(super) fn is_in_slot(account: &Account) -> bool {
    // Acquire pairs with the Release in `clear_slot`.
    slot(account.tag()).is_some_and(|slot| core::ptr::eq(slot.load(Acquire), account))
}

/// Takes its slot from an account. Under the lock.
pub(super) fn clear_slot(account: &Account) {
    if let Some(slot) = slot(account.tag()) {
        slot.store(null_mut(), Release);
    }
}

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
    /// Slots that the next accounts may have, the one that was found last at the end: the fewer are
    /// in use by turns, the fewer records arenas make for them.
    free: Vec<OwnerTag>,
    /// Slots whose last accounts have left, and for which arenas may still hold something; the one
    /// that was left first in front.
    closed: VecDeque<OwnerTag>,
    /// Accounts without a handle.
    departed: VecDeque<Shared>,
    /// Accounts that were opened since arenas were last asked to settle.
    opened: usize,
    is_set_up: bool,
}

static STATE: Lock<State> = Lock::new(State {
    free: Vec::new(),
    closed: VecDeque::new(),
    departed: VecDeque::new(),
    opened: 0,
    is_set_up: false,
});

/// Runs `work` with what it allocates charged to bursar's own account.
pub(super) fn internally<T>(work: impl FnOnce() -> T) -> T {
    let _scope = super::scope::Scope::enter(INTERNAL);
    work()
}

/// Departed accounts that each change of the registry looks at.
const LOOK_AT: usize = 4;
/// Closed slots that are looked at each time, and where few are free: more than are closed meanwhile.
const LOOK_AT_CLOSED: usize = 2;
const TRIES: usize = 8;
/// So many free slots are few, or so large a part of all: a thread that was asked to settle takes some
/// dozen slow paths until it looks.
const FEW: usize = 32;
const FEW_OF: usize = 16;

/// Opens an account.
pub(super) fn open(name: &str, id: u64, kind: Kind, parent: Option<&Account>) -> Handle {
    internally(|| {
        let mut over = Vec::new();
        let account = {
            let mut state = STATE.lock();
            state.set_up();
            state.sweep(LOOK_AT, &mut over);
            state.open(name, id, kind, parent)
        };
        free_later(over);
        Handle::counted(account)
    })
}

/// An account has lost its last handle.
pub(super) fn depart(account: Shared) {
    internally(|| {
        owner::settle(account.tag());
        let mut over = Vec::new();
        {
            let mut state = STATE.lock();
            state.queue(account);
            state.sweep(LOOK_AT, &mut over);
        }
        free_later(over);
    });
}

/// Whether there ever was an account. False where the thread was interrupted under the lock: it would
/// wait for itself.
pub(super) fn is_in_use() -> bool {
    // Acquire pairs with the Release in `set_up`.
    USED.load(Acquire) != 0 && !STATE.is_held_here()
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
fn free_later(accounts: Vec<Shared>) {
    if accounts.is_empty() {
        return;
    }
    let held = epoch::pin();
    for account in accounts {
        // SAFETY: it has left its slot and its list; by then all epochs of that time are over.
        held.defer(move || unsafe { account.free() });
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
        // Its one handle is never dropped.
        self.open_at(tag, "bursar", u64::MAX, Kind::Internal, None);
    }

    fn open(&mut self, name: &str, id: u64, kind: Kind, parent: Option<&Account>) -> Shared {
        let tag = self.free_tag();
        self.open_at(tag, name, id, kind, parent)
    }

    /// A slot whose last account has left nothing at any arena, or a new one.
    fn free_tag(&mut self) -> OwnerTag {
        let all = USED.load(Acquire) as usize;
        let few = FEW.max(all / FEW_OF);
        let are_few = self.free.len() < few;
        self.look_at_closed(if are_few { TRIES } else { LOOK_AT_CLOSED });
        self.opened += 1;
        // Before the last is gone, since threads heed it only at one of their next slow paths. Not each
        // time: it takes a look at each slot on each arena.
        let pause = if self.free.is_empty() { few } else { all / 2 };
        if self.free.len() < few && self.closed.len() >= few && self.opened >= pause {
            self.opened = 0;
            owner::settle_left_over();
            self.look_at_closed(self.closed.len());
        }
        // Release: a reader that sees the number looks at slots below it.
        let another = || OwnerTag(USED.fetch_add(1, Release));
        self.free.pop().unwrap_or_else(another)
    }

    /// Looks at some closed slots, and frees those for which no arena holds anything. That stays so.
    fn look_at_closed(&mut self, most: usize) {
        for _ in 0..most.min(self.closed.len()) {
            let Some(tag) = self.closed.pop_front() else {
                return;
            };
            if Owner::find(tag).is_none_or(Owner::is_settled) {
                self.free.push(tag);
            } else {
                self.closed.push_back(tag);
            }
        }
    }

    fn open_at(
        &mut self,
        tag: OwnerTag,
        name: &str,
        id: u64,
        kind: Kind,
        parent: Option<&Account>,
    ) -> Shared {
        let slot = make_slot(tag);
        let owner = Owner::find_or_make(tag).unwrap_or_else(|| {
            std::alloc::handle_alloc_error(core::alloc::Layout::new::<Owner>());
        });
        let is_part = matches!(kind, Kind::Part { .. });
        let mut base = Totals::default();
        // bursar's own may hold something before it is opened, and always has its slot.
        if kind != Kind::Internal {
            bound::bind(tag, None);
            owner.begin(parent.map(Account::owner), is_part);
            base = owner::totals(tag);
        }
        let account = Shared::new(Account::new((tag, owner), name, id, kind, parent, base));
        if let Some(parent) = parent {
            parent.presence().add();
            parent.link(&account);
        }
        // Release: it is seen initialised.
        slot.store(account.as_ptr(), Release);
        account
    }

    fn queue(&mut self, account: Shared) {
        if !account.set_queued(true) {
            self.departed.push_back(account);
        }
    }

    /// Looks at some departed accounts, and lets go those that are over.
    fn sweep(&mut self, most: usize, over: &mut Vec<Shared>) {
        for _ in 0..most.min(self.departed.len()) {
            let Some(account) = self.departed.pop_front() else {
                return;
            };
            if account.presence().is_any() {
                account.set_queued(false);
                // The handle may be gone again, and its user have seen the mark.
                if !account.presence().is_any() {
                    self.queue(account);
                }
            } else if account.is_over() {
                self.close(account);
                over.push(account);
            } else {
                self.departed.push_back(account);
            }
        }
    }

    /// Takes the slot from an account that is over.
    fn close(&mut self, account: Shared) {
        account.take_leave();
        if let Some(parent) = account.parent()
            && parent.presence().drop_one()
        {
            self.queue(Shared::of(parent));
        }
        self.closed.push_back(account.tag());
    }
}

/// A handle to the account of a tag in whose scope the thread is; for a part's, its consumer's.
pub(super) fn revive(tag: OwnerTag) -> Option<Handle> {
    let _held = epoch::pin();
    // SAFETY: an account in a slot while the epoch is held is alive until it ends.
    let account = unsafe { slot(tag)?.load(Acquire).as_ref()? };
    let account = match (account.kind(), account.parent()) {
        (Kind::Part { .. }, Some(whole)) => whole,
        _ => account,
    };
    account.presence().revive();
    Some(Handle::counted(Shared::of(account)))
}

/// All accounts that have a slot now.
pub(super) fn accounts(_held: &Guard) -> impl Iterator<Item = &Account> {
    (0..USED.load(Acquire)).filter_map(|number| {
        // SAFETY: an account in a slot while the epoch is held is alive until it ends.
        unsafe { slot(OwnerTag(number))?.load(Acquire).as_ref() }
    })
}

unsafe extern "C" fn before_fork() {
    STATE.before_fork();
}

unsafe extern "C" fn after_fork_in_parent() {
    STATE.after_fork(false);
}

unsafe extern "C" fn after_fork_in_child() {
    epoch::begin_anew();
    STATE.after_fork(true);
}
