//! Consumers: names, ids, their place in the tree.

use super::record::{Account, Handle, Kind};
use super::registry;
use super::scope::Scope;
use super::usage::{ClassUsage, Usage};
use crate::units::OwnerTag;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::sync::atomic::{AtomicU64, Ordering};
use std::string::String;

/// Somebody who holds memory: a query, an operator, a task, a cache.
///
/// What a thread allocates in a consumer's [scope](Consumer::enter) is the consumer's until it is
/// freed, by whichever thread, or handed over with [`transfer`](crate::transfer). Two consumers of
/// the same name are two consumers: each has an id of its own, which no other ever has in this
/// process. Clones are handles to the same consumer; making one is an atomic addition.
///
/// A consumer whose last handle is gone while bytes of it are alive stays on the books, and in
/// reports, until the last of them is freed. Its slot then serves another consumer, under a new
/// id.
///
/// ```
/// let sort = bursar::Consumer::new("sort");
/// let rows = sort.run(|| vec![0u64; 1000]);
/// # #[cfg(any())] // holds where bursar is installed as the global allocator
/// assert!(sort.usage().live_bytes >= 8000);
/// drop(rows);
/// assert_eq!(sort.usage().live_bytes, 0);
/// ```
#[derive(Clone)]
pub struct Consumer(Handle);

/// Ids in the order of their making.
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

fn next_id() -> u64 {
    // Relaxed: an id says nothing about anything else.
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

impl Consumer {
    /// A consumer of that name with a fresh id. It cannot spill, and is below no other.
    ///
    /// Costs a lock and two allocations, which are charged to bursar's own consumer. Where there is no
    /// memory for its records the process ends, as in `Box::new`.
    ///
    /// # Panics
    /// If a million accounts are open: consumers, and reservations that were entered.
    pub fn new(name: impl Into<String>) -> Consumer {
        Self::make(&name.into(), None, false)
    }

    /// A consumer below this one: its bytes are part of this one's subtree totals and limits. It
    /// keeps this one alive. Costs and panics are those of [`new`](Consumer::new).
    pub fn child(&self, name: impl Into<String>) -> Consumer {
        Self::make(&name.into(), Some(&*self.0), false)
    }

    /// The same consumer, which can or cannot free memory when it is asked to. All handles see it;
    /// budgets take it when the consumer first has bytes there.
    #[must_use]
    pub fn with_can_spill(self, can_spill: bool) -> Consumer {
        self.0.set_can_spill(can_spill);
        self
    }

    /// A consumer with the same name, parent and ability to spill, and a fresh id. Costs and panics
    /// are those of [`new`](Consumer::new).
    #[must_use]
    pub fn clone_with_new_id(&self) -> Consumer {
        Self::make(self.name(), self.0.parent(), self.can_spill())
    }

    fn make(name: &str, parent: Option<&Account>, can_spill: bool) -> Consumer {
        let account = registry::open(name, next_id(), Kind::Consumer, parent);
        account.set_can_spill(can_spill);
        Consumer(account)
    }

    /// From a handle of its account.
    pub(super) fn of(account: Handle) -> Consumer {
        Consumer(account)
    }

    /// The account.
    pub(super) fn account(&self) -> &Account {
        &self.0
    }

    /// The id: unique in this process, given in ascending order from 0.
    pub fn id(&self) -> u64 {
        self.0.id()
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// What the layers below know it by, for a [`Router`](crate::Router). Another consumer may have
    /// it when this one has ended.
    pub fn owner_tag(&self) -> OwnerTag {
        self.0.tag()
    }

    /// Whether it can free memory when it is asked to.
    pub fn can_spill(&self) -> bool {
        self.0.can_spill()
    }

    /// The consumer that this one is below.
    pub fn parent(&self) -> Option<Consumer> {
        Some(Consumer(Handle::another(self.0.parent()?)))
    }

    /// Attributes to this consumer what the thread allocates until the scope is dropped. Scopes
    /// nest; what moves within an allocation (`realloc`) stays with its owner.
    ///
    /// A few nanoseconds; the first time on a thread also a record of 256 bytes. Without memory for
    /// that, or after the thread's end, the scope attributes nothing.
    ///
    /// ```
    /// let (scan, sort) = (bursar::Consumer::new("scan"), bursar::Consumer::new("sort"));
    /// let _scanning = scan.enter();
    /// {
    ///     let _sorting = sort.enter();
    ///     assert_eq!(bursar::current(), Some(sort.clone()));
    /// }
    /// assert_eq!(bursar::current(), Some(scan.clone()));
    /// ```
    #[inline(always)]
    pub fn enter(&self) -> Scope {
        Scope::enter(self.0.tag())
    }

    /// Runs `work` in this consumer's [scope](Consumer::enter), which is left also by unwinding.
    #[inline]
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        let _scope = self.enter();
        work()
    }

    /// Like [`run`](Consumer::run), and hard limits refuse memory inside: `try_reserve` and other
    /// calls that can fail do, and the program lives on. Code inside that takes memory for
    /// granted (`Box::new`, `Vec::push`) aborts the process when it is refused. Limits of whatever
    /// consumer the thread is in hold, of those above it too. Nests.
    ///
    /// ```
    /// use bursar::{Consumer, Limits};
    /// # #[global_allocator]
    /// # static GLOBAL: bursar::Bursar = bursar::Bursar::new();
    /// let cache = Consumer::new("cache");
    /// cache.set_limits(Limits::none().hard(1 << 20));
    /// let mut pages: Vec<u8> = Vec::new();
    /// let refused = cache.try_run(|| pages.try_reserve_exact(2 << 20));
    /// assert!(refused.is_err());
    /// println!("{}", bursar::last_failure().unwrap());
    /// ```
    pub fn try_run<T>(&self, work: impl FnOnce() -> T) -> T {
        self.run(|| crate::arena::owner::with_refusals(work))
    }

    /// What it holds and has held. At most some hundred nanoseconds for each thread that allocated
    /// or freed for it, and as much for each consumer below it, for which it allocates a list.
    pub fn usage(&self) -> Usage {
        Usage::of(&self.0)
    }

    /// What it holds, by size class. Costs as [`usage`](Consumer::usage), and a microsecond. While
    /// threads are at work a class may be off by what they do meanwhile.
    pub fn classes(&self) -> impl Iterator<Item = ClassUsage> + use<> {
        super::usage::classes(&self.0)
    }

    /// The number of its next reservation: fresh for this consumer.
    pub(super) fn next_reservation_id(&self) -> u64 {
        self.0.next_reservation()
    }

    /// Declares bytes.
    #[inline]
    pub(super) fn raise_declared(&self, bytes: u64) {
        self.0.raise_declared(bytes);
    }

    /// Takes back what was declared.
    #[inline]
    pub(super) fn lower_declared(&self, bytes: u64) {
        self.0.lower_declared(bytes);
    }

    /// An account of its own inside this one, for what one reservation allocates.
    pub(super) fn begin_part(&self, reservation: u64) -> Part {
        let kind = Kind::Part { reservation };
        Part(registry::open(self.name(), self.id(), kind, Some(&*self.0)))
    }
}

/// The part of a consumer's account that one reservation allocates. What is alive of it when it is
/// dropped stays the consumer's.
pub(super) struct Part(Handle);

impl Part {
    /// Attributes to it what the thread allocates until the scope is dropped.
    pub(super) fn enter(&self) -> Scope {
        Scope::enter(self.owner())
    }

    /// The owner of what is allocated in its scope.
    pub(super) fn owner(&self) -> OwnerTag {
        self.0.tag()
    }

    /// What it holds.
    pub(super) fn usage(&self) -> Usage {
        Usage::of(&self.0)
    }
}

impl PartialEq for Consumer {
    fn eq(&self, other: &Consumer) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Consumer {}

impl Hash for Consumer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("id", &self.id())
            .field("name", &self.name())
            .field("can_spill", &self.can_spill())
            .finish()
    }
}
