//! The record of an arena.

use super::batches::Batches;
use super::bins::{Bins, empty_bins};
use super::counter::Counter;
use super::fast;
use super::ledger::Ledger;
use super::ledgers::Ledgers;
use super::orphans::Node;
use super::quarantine::Quarantine;
use super::queue::Queue;
use super::scopes::Scopes;
use super::secure;
use super::unused::Unused;
use crate::class::CLASSES;
use crate::config;
use crate::extent::decay::DECAY;
use crate::extent::places::Places;
use crate::os::sync::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering, Ordering::Relaxed};
use crate::pool::AllocFailure;
use crate::pool::router::Wanted;
use crate::run::descriptor::{Run, Slot, TAGGED};
use crate::units::{ClassIndex, OwnerTag};
use core::cell::Cell;
use core::ptr::{null, null_mut};

/// Who has an arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Life {
    /// A thread.
    Held = 0,
    /// Nobody: it is on the stack of orphans.
    Orphaned = 1,
    /// A thread that a fork left behind in the parent, perhaps in the middle of something. It is
    /// counted, and nobody takes it up again.
    Abandoned = 2,
}

/// One thread's arena. Type-stable: arenas pass from thread to thread and are never given up.
#[repr(C)]
pub(crate) struct Arena {
    /// Its place on the stack of orphans.
    pub(super) node: Node,
    /// The book of the owner whose scope the thread is in.
    pub(super) current: Cell<*const Ledger>,
    /// Bins of runs whose slots have several owners, once there is one beside [`base`](Self::base).
    mixed: AtomicPtr<Bins>,
    /// The same; [`empty_bins`] while there are none.
    mixed_at_hand: Cell<*const Bins>,
    /// The owner word of their runs; that of no run while there are none.
    mixed_word: Cell<usize>,
    /// Calls of slow paths until the clock is read.
    calls: Cell<u32>,
    /// The books of consumers.
    pub(crate) ledgers: Ledgers,
    /// Bins of what no consumer claimed.
    pub(crate) base: Bins,
    /// The book of what no consumer claimed.
    pub(crate) base_ledger: Ledger,
    /// The scopes that it is in.
    pub(super) scopes: Scopes,
    /// The thread can take a refusal: hard limits hold.
    fallible: Cell<bool>,
    /// Unused runs that are kept for the next request.
    pub(super) unused: Unused,
    /// Spans of large blocks that this thread freed last.
    pub(super) places: Places,
    /// Blocks that were freed and are held back, in the secure profile.
    pub(super) quarantine: Quarantine,
    /// When the runs are looked through again, in milliseconds.
    pub(super) trim_due: AtomicU64,
    /// Another thread wants this one to look after its runs.
    diverted: AtomicBool,
    /// And to give back what it holds for owners that are gone.
    settling: AtomicBool,
    /// When what is kept was given back for want of memory, in milliseconds.
    pub(super) reclaimed: Cell<u64>,
    /// The number of the last call for a purge that was heeded.
    pub(super) purge_heeded: Cell<u64>,
    /// Large blocks and their bytes, by this thread.
    pub(crate) large_allocated: [Counter; 2],
    /// The same, freed.
    pub(crate) large_freed: [Counter; 2],
    /// Runs of which other threads have freed blocks, or that are left to other threads.
    pub(super) queue: Queue<Run>,
    /// Blocks of other threads' runs that were freed here.
    pub(super) batches: Batches,
    /// How many sparse runs the arena's thread takes up when it wants slots: twice as many each
    /// time, so that it neither takes up what it does not need nor looks for it too often.
    pub(super) eager: Cell<u32>,
    life: AtomicU32,
    /// How many arenas were made before.
    number: Cell<usize>,
    /// The arena that was made before this one.
    pub(super) older: AtomicPtr<Arena>,
}

// SAFETY: cells are reached only by the thread that has the arena, or when nobody has it by who
// took it off the stack, which synchronises; all else is atomic.
unsafe impl Sync for Arena {}

/// At every so many calls of slow paths the clock is read.
const CALLS: u32 = 32;
/// As many of them is a large block that is freed.
const CALLS_OF_LARGE: u32 = 8;
/// Counts the calls for a purge of everything, so that every thread heeds each once.
pub(super) static PURGE_CALLS: AtomicU64 = AtomicU64::new(0);

impl Arena {
    pub(super) const fn new() -> Arena {
        Arena {
            node: Node::new(),
            base: Bins::new(),
            mixed: AtomicPtr::new(null_mut()),
            mixed_at_hand: Cell::new(empty_bins()),
            mixed_word: Cell::new(TAGGED),
            base_ledger: Ledger::new(OwnerTag::UNATTRIBUTED),
            ledgers: Ledgers::new(),
            current: Cell::new(core::ptr::null()),
            scopes: Scopes::new(),
            fallible: Cell::new(false),
            unused: Unused::new(),
            places: Places::new(),
            quarantine: Quarantine::new(),
            trim_due: AtomicU64::new(0),
            diverted: AtomicBool::new(false),
            settling: AtomicBool::new(false),
            reclaimed: Cell::new(0),
            calls: Cell::new(CALLS),
            purge_heeded: Cell::new(0),
            large_allocated: [const { Counter::new() }; 2],
            large_freed: [const { Counter::new() }; 2],
            queue: Queue::new(),
            batches: Batches::new(),
            eager: Cell::new(1),
            life: AtomicU32::new(Life::Held as u32),
            number: Cell::new(0),
            older: AtomicPtr::new(null_mut()),
        }
    }

    /// How many arenas were made before.
    pub(crate) fn number(&self) -> usize {
        self.number.get()
    }

    /// Ties the parts of a new arena together.
    pub(super) fn begin(&'static self, number: usize) {
        self.number.set(number);
        self.base.begin(self, &self.base_ledger);
        for class in 0..CLASSES {
            self.base.set_fills(ClassIndex(class as u8), true);
        }
        self.base_ledger.set_bins(&self.base);
        self.current.set(&self.base_ledger);
        self.scopes.begin(&self.base_ledger);
    }

    pub(crate) fn life(&self) -> Life {
        match self.life.load(Relaxed) {
            0 => Life::Held,
            1 => Life::Orphaned,
            _ => Life::Abandoned,
        }
    }

    /// Takes the arena if it has no thread.
    pub(super) fn try_hold(&self) -> bool {
        let (from, to) = (Life::Orphaned as u32, Life::Held as u32);
        // Acquire pairs with the Release in `let_go`: the arena is seen as it was left.
        self.life
            .compare_exchange(from, to, Ordering::Acquire, Relaxed)
            .is_ok()
    }

    /// Leaves the arena without a thread.
    pub(super) fn let_go(&self) {
        self.life.store(Life::Orphaned as u32, Ordering::Release);
    }

    /// Says that the arena's thread has vanished.
    pub(super) fn abandon(&self) {
        self.life.store(Life::Abandoned as u32, Relaxed);
    }

    /// Bins of runs whose slots have several owners, if there are any.
    pub(crate) fn mixed(&self) -> Option<&'static Bins> {
        // Acquire pairs with the Release in `mixed_or_new`: they are initialised.
        // SAFETY: bins are never given up.
        unsafe { self.mixed.load(Ordering::Acquire).as_ref() }
    }

    #[inline]
    pub(super) fn mixed_or_new(&'static self) -> Option<&'static Bins> {
        if let Some(mixed) = self.mixed() {
            return Some(mixed);
        }
        let bins = Bins::make(self, null())?;
        self.mixed
            .store(core::ptr::from_ref(bins).cast_mut(), Ordering::Release);
        self.mixed_at_hand.set(bins);
        self.mixed_word.set(bins.address() | TAGGED);
        Some(bins)
    }

    /// Whether a run is a mixed one of this arena's whose frees need not take the long way.
    #[inline(always)]
    pub(crate) fn is_mixed(&self, run: &Run) -> bool {
        run.owner.load(Relaxed) == self.mixed_word.get()
    }

    /// The mixed bins; empty ones while there are none.
    #[inline(always)]
    pub(super) fn mixed_at_hand(&self) -> &'static Bins {
        // SAFETY: bins are never given up.
        unsafe { &*self.mixed_at_hand.get() }
    }

    /// Whether hard limits hold for the thread's requests.
    pub(super) fn is_fallible(&self) -> bool {
        self.fallible.get()
    }

    /// Says whether hard limits hold for the thread's requests; what was said before.
    pub(super) fn set_fallible(&self, fallible: bool) -> bool {
        self.fallible.replace(fallible)
    }

    /// Makes the owner of a ledger the current one.
    #[inline(always)]
    pub(super) fn set_current(&self, ledger: &Ledger) {
        self.current.set(ledger);
        fast::current_bins::set(ledger.shown.get());
    }

    /// The book of the current owner.
    pub(super) fn current(&self) -> &'static Ledger {
        // SAFETY: never null after `begin`; ledgers are never given up.
        unsafe { &*self.current.get() }
    }

    /// The book of what no consumer claimed.
    pub(super) fn base_ledger(&self) -> &'static Ledger {
        // SAFETY: arenas are never given up.
        unsafe { &*core::ptr::from_ref(&self.base_ledger) }
    }

    /// The book of `tag`, made if need be.
    #[inline(always)]
    pub(super) fn ledger(&self, tag: OwnerTag) -> Option<&'static Ledger> {
        self.ledgers.find(tag).or_else(|| self.ledger_slowly(tag))
    }

    /// The same where it is none of the ledgers that were made so far.
    #[cold]
    #[inline(never)]
    fn ledger_slowly(&self, tag: OwnerTag) -> Option<&'static Ledger> {
        match tag {
            OwnerTag::UNATTRIBUTED => Some(self.base_ledger()),
            _ => self.ledgers.add(tag),
        }
    }

    /// The book of `tag`, if it has one here.
    pub(super) fn find_ledger(&self, tag: OwnerTag) -> Option<&'static Ledger> {
        if tag == OwnerTag::UNATTRIBUTED {
            Some(self.base_ledger())
        } else {
            self.ledgers.find(tag)
        }
    }

    /// Runs `work` with another owner's book as the current one.
    pub(super) fn in_scope_of<T>(&self, ledger: &Ledger, work: impl FnOnce() -> T) -> T {
        let before = self.current.replace(ledger);
        let result = work();
        self.current.set(before);
        // The work may have given the other owner bins, and let the fast paths use them.
        super::slow::publish(self);
        result
    }

    /// A block of `class` for the current owner, counted.
    #[inline]
    pub(super) fn take(
        &'static self,
        class: ClassIndex,
        wanted: &Wanted,
    ) -> Result<Slot, AllocFailure> {
        let taken = self.take_once(class, wanted);
        let taken = taken.or_else(|failure| {
            self.reclaim(failure)
                .and_then(|()| self.take_once(class, wanted))
        });
        if config::is_secure() {
            taken.map(|slot| secure::hand_out(slot, class))
        } else {
            taken
        }
    }

    #[inline]
    fn take_once(&'static self, class: ClassIndex, wanted: &Wanted) -> Result<Slot, AllocFailure> {
        let ledger = self.current();
        match ledger.bins().filter(|bins| bins.fills(class)) {
            Some(bins) => self.take_filled(class, wanted, bins),
            None => self.take_mixed(class, wanted, ledger),
        }
    }

    /// A block of `class` from runs of one owner's own.
    pub(super) fn take_filled(
        &'static self,
        class: ClassIndex,
        wanted: &Wanted,
        bins: &Bins,
    ) -> Result<Slot, AllocFailure> {
        // SAFETY: the caller has this arena.
        let slot = unsafe { bins.take(class, wanted)? };
        bins.bin(class).allocated.bump();
        self.tick_now_and_then();
        Ok(slot)
    }

    /// [`tick`](Self::tick), for slow paths that are not that slow: reads the clock at every 32nd
    /// call.
    #[inline]
    pub(super) fn tick_now_and_then(&'static self) {
        if self.counts_down() || self.diverted.load(Relaxed) {
            self.tick();
        }
    }

    /// The same for a call that is worth several.
    #[inline]
    pub(super) fn tick_sooner(&'static self) {
        let calls = self.calls.get();
        if calls <= CALLS_OF_LARGE || self.diverted.load(Relaxed) {
            return self.tick();
        }
        self.calls.set(calls - CALLS_OF_LARGE);
    }

    /// Counts a call; whether it is time for a [`tick`](Self::tick).
    #[inline(always)]
    pub(super) fn counts_down(&self) -> bool {
        let calls = self.calls.get() - 1;
        self.calls.set(calls);
        calls == 0
    }

    /// What is due now and then: looking through the runs, and the pool's decay.
    #[cold]
    #[inline(never)]
    pub(super) fn tick(&'static self) {
        let now = crate::os::clock::coarse_millis();
        self.calls.set(CALLS);
        self.diverted.store(false, Relaxed);
        if self.settling.load(Relaxed) {
            self.settle_left_over();
        }
        self.look_at_stay();
        if now >= self.trim_due.load(Relaxed)
            || PURGE_CALLS.load(Relaxed) != self.purge_heeded.get()
        {
            self.trim_if_due(now);
        }
        DECAY.tick(now);
    }

    /// Has the arena's thread give back what it holds for owners that are gone.
    pub(super) fn ask_to_settle(&self) {
        self.settling.store(true, Relaxed);
        self.divert();
    }

    /// Takes note of that wish.
    pub(super) fn heed_settling(&self) {
        self.settling.store(false, Relaxed);
    }

    /// Has the arena's thread look after its runs with its next request that needs a run, or one of
    /// its next frees outside the fast path.
    pub(super) fn divert(&self) {
        if self.diverted.swap(true, Relaxed) {
            return;
        }
        self.base.divert();
        self.ledgers
            .iter()
            .filter_map(Ledger::bins)
            .for_each(Bins::divert);
    }
}
