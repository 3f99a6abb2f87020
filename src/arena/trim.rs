//! Giving back what runs hold without need: runs that are unused, and pages of living runs on
//! which no block is alive.
//!
//! An arena looks through its runs once a period of the pool's decay. What has not changed since
//! it last looked is idle: an unused run goes back to its pool, a partly used one gives its free
//! pages back once. Only the thread that has an arena may do that, so an orphaned arena is looked
//! through by whichever thread comes by, and one whose thread sleeps is left alone until it wakes,
//! but for the runs in its queue ([`notified`](super::notified)) and for pages that came with a run
//! and that it has not come to use.

use super::bins::Bins;
use super::ledger::Ledger;
use super::life;
use super::owners::Owner;
use super::record::{Arena, Life, PURGE_CALLS};
use crate::class::CLASSES;
use crate::extent::decay::{self, DECAY, State};
use crate::extent::large;
use crate::os::clock::coarse_millis;
use crate::os::lock::Guard;
use crate::os::map::Refused;
use crate::os::sync::{AtomicBool, AtomicU64, Ordering::Relaxed};
use crate::os::thread;
use crate::pool::{AllocFailure, DEFAULT, fixed};
use crate::run::descriptor::{Run, for_each_run};
use crate::run::watch::LOOK_AFTER_SPARSE;
use crate::units::OwnerTag;
use core::fmt;

/// How thoroughly an arena looks through its runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Zeal {
    /// What has been idle for a period, or for longer. Nobody came by in the periods that were
    /// missed, so all was idle meanwhile. What runs have not come to use is left to them while free
    /// memory is held: it will be wanted.
    Idle { missed: u8, is_held: bool },
    /// Unused runs, idle or not.
    Unused,
    /// Everything.
    All,
}

impl Zeal {
    /// For what is due, perhaps for some time.
    fn at(now: u64, due: u64) -> Zeal {
        let missed = match due {
            0 => 0,
            // Another thread may have put it off just now.
            _ => now.saturating_sub(due) / DECAY.period(),
        };
        Zeal::Idle {
            missed: missed.min(u8::MAX.into()) as u8,
            is_held: DECAY.is_held(now),
        }
    }

    /// Periods that were missed.
    pub(super) fn missed(self) -> u8 {
        match self {
            Zeal::Idle { missed, .. } => missed,
            Zeal::Unused | Zeal::All => 0,
        }
    }

    /// Whether a run, looked at a period ago or not, gives up what it has not come to use.
    fn takes_unextended(self, was_looked_at: bool) -> bool {
        match self {
            Zeal::Idle { missed, is_held } => !is_held && (was_looked_at || missed > 0),
            Zeal::Unused => false,
            Zeal::All => true,
        }
    }

    fn spares_what_is_in_use(self) -> bool {
        matches!(self, Zeal::Idle { .. })
    }
}

impl Arena {
    /// Looks through the runs if it is time, or if somebody called for a purge.
    #[cold]
    pub(super) fn trim_if_due(&'static self, now: u64) {
        let calls = PURGE_CALLS.load(Relaxed);
        let due = self.trim_due.load(Relaxed);
        // First, so that it is not overdue itself.
        self.trim_due
            .store(now.saturating_add(DECAY.period()).max(1), Relaxed);
        if calls != self.purge_heeded.get() {
            self.purge_heeded.set(calls);
            self.trim(Zeal::All);
        } else if due != 0 {
            self.trim(Zeal::at(now, due));
            look_after_all(now);
        } else {
            // From now on it is known how long nobody looked.
            let first = now.saturating_add(DECAY.period()).max(1);
            let _ = ALL_DUE.compare_exchange(0, first, Relaxed, Relaxed);
        }
    }

    /// From now on it is known how long its thread has not looked.
    fn expect(&self, now: u64) {
        let first = now.saturating_add(DECAY.period()).max(1);
        let _ = self.trim_due.compare_exchange(0, first, Relaxed, Relaxed);
    }

    /// Whether it has a thread which takes only fast paths, or sleeps.
    fn is_overdue(&self, now: u64) -> bool {
        let due = self.trim_due.load(Relaxed);
        self.life() == Life::Held && due != 0 && due.saturating_add(DECAY.period()) < now
    }

    /// Gives unused runs back before the thread ends.
    pub(super) fn trim_now(&self) {
        self.trim(Zeal::Unused);
    }

    fn trim(&self, zeal: Zeal) -> u64 {
        self.send_all();
        self.keep_fewer(!zeal.spares_what_is_in_use());
        if zeal.spares_what_is_in_use() {
            self.collect_dense();
        } else {
            self.collect_notified();
            release_kept(self, true);
        }
        let mut purged = self.trim_bins(&self.base, zeal);
        purged += self.mixed().map_or(0, |mixed| self.trim_bins(mixed, zeal));
        for ledger in self.ledgers.iter() {
            purged += self.trim_ledger(ledger, zeal);
        }
        DEFAULT.counts.purged_in_runs.fetch_add(purged, Relaxed);
        purged
    }

    /// Gives back what is kept for the owner of a tag.
    pub(super) fn settle(&self, tag: OwnerTag) {
        self.send_all();
        if let Some(ledger) = self.ledgers.find(tag) {
            self.collect_notified();
            self.trim_ledger(ledger, Zeal::Unused);
        }
    }

    /// Gives back what is kept for owners that are gone.
    #[cold]
    pub(super) fn settle_left_over(&self) {
        self.heed_settling();
        self.send_all();
        self.collect_notified();
        let gone = |ledger: &&Ledger| ledger.owner().is_some_and(Owner::is_left_over);
        for ledger in self.ledgers.iter().filter(gone) {
            self.trim_ledger(ledger, Zeal::Unused);
        }
    }

    /// Gives back what is kept for one owner.
    fn trim_ledger(&self, ledger: &Ledger, zeal: Zeal) -> u64 {
        if !ledger.is_entered() || zeal == Zeal::All {
            ledger.give_slack_back(0);
        }
        let Some(bins) = ledger.bins() else {
            return 0;
        };
        let purged = self.trim_bins(bins, zeal);
        bins.forget_empty();
        purged
    }

    fn trim_bins(&self, bins: &Bins, zeal: Zeal) -> u64 {
        // SAFETY: the caller has this arena, whose bins they are.
        unsafe { bins.empty_all_loose(self) };
        (0..CLASSES)
            .flat_map(|class| bins.runs(class))
            .map(|run| self.trim_run(bins, run, zeal))
            .sum()
    }

    /// Gives back what one run can spare. Returns the bytes of pages inside a run that lives on.
    fn trim_run(&self, bins: &Bins, run: &Run, zeal: Zeal) -> u64 {
        // SAFETY: the caller has this arena, and the run is in a list of its bins.
        unsafe {
            // What other threads emptied is not wanted here soon.
            let emptied_by_others = !run.remote.is_empty();
            if emptied_by_others {
                run.collect();
            }
            // Also of a run that goes back whole: who has it next may come to use as little of it.
            let mut purged = match zeal.takes_unextended(run.was_looked_at()) {
                true => run.purge_unextended() as u64,
                false => 0,
            };
            let before = run.look(run.surplus.get(), zeal.missed());
            let looks = run.looks();
            if looks == 0 {
                run.watch();
            }
            let idle = looks > 0 || emptied_by_others;
            if run.is_unused() && (idle || !zeal.spares_what_is_in_use()) {
                self.forget(run);
                self.give_back(run);
                return purged;
            }
            // Once: a run that stays as it is has nothing more to give.
            let became_idle = before < IDLE_LOOKS && looks >= IDLE_LOOKS;
            let is_current = core::ptr::eq(bins.bin(run.head.class()).current(), run);
            let drains = !is_current && run.is_hollow(run.used());
            if zeal == Zeal::All || (zeal != Zeal::Unused && (became_idle || drains)) {
                let before = run.available_bytes();
                purged += run.purge_unused() as u64;
                bins.uncharge(before - run.available_bytes());
            }
            purged
        }
    }

    /// After a failure for want of memory: gives back what is kept for reuse, by any arena. The
    /// failure again where that cannot help.
    #[cold]
    pub(super) fn reclaim(&'static self, failure: AllocFailure) -> Result<(), AllocFailure> {
        self.quarantine.empty(self);
        match failure {
            AllocFailure::AddressSpace { .. } | AllocFailure::Commit { .. } => {}
            AllocFailure::PoolsFull { .. } => return self.reclaim_in_pools(failure),
            AllocFailure::Limit { .. } => {
                self.trim_ledger(self.current(), Zeal::All);
                return Ok(());
            }
            _ => return Err(failure),
        }
        // Where memory is short for long, each request would walk all runs in vain.
        let now = coarse_millis();
        if self.reclaimed.replace(now) == now {
            return Err(failure);
        }
        for arena in life::arenas() {
            release_kept(arena, true);
            arena.look_through_queue(Zeal::Unused);
        }
        self.trim(Zeal::Unused);
        Ok(())
    }

    /// After a failure for want of room in pools of a set size: the same, each time, since few runs
    /// of a full pool are not full. The failure again if nothing was given back.
    fn reclaim_in_pools(&self, failure: AllocFailure) -> Result<(), AllocFailure> {
        let used = || -> u64 {
            let counts = fixed::fixed().map(|pool| &pool.counts);
            counts.map(|counts| counts.used.load(Relaxed)).sum()
        };
        let before = used();
        for arena in life::arenas() {
            arena.look_through_queue(Zeal::Unused);
        }
        self.trim(Zeal::Unused);
        if used() < before {
            Ok(())
        } else {
            Err(failure)
        }
    }
}

/// A run that was seen so often without a change gives its free pages back: most of a decay time
/// after the last change, since pages that are wanted again soon cost more than they hold.
pub(super) const IDLE_LOOKS: u8 = decay::PERIODS as u8 - 2;

/// Gives spans back that an arena, whoever has it, has kept for a period, or all of them.
fn release_kept(arena: &Arena, all: bool) {
    // SAFETY: each span is handed over when it has left its place.
    arena
        .places
        .age(all, |span| unsafe { large::release_kept(span) });
}

/// When all arenas are looked after again.
static ALL_DUE: AtomicU64 = AtomicU64::new(0);

/// Does for other arenas what does not need their threads, and looks through those without one.
fn look_after_all(now: u64) {
    let due = ALL_DUE.load(Relaxed);
    if now < due {
        return;
    }
    let Some(held) = DECAY.try_hold() else {
        return;
    };
    ALL_DUE.store(now.saturating_add(DECAY.period()), Relaxed);
    let zeal = Zeal::at(now, due);
    let mut all_come_by = true;
    for arena in life::arenas() {
        release_kept(arena, zeal.missed() > 0);
        arena.look_through_queue(zeal);
        arena.expect(now);
        if arena.is_overdue(now) {
            all_come_by = false;
            arena.divert();
        }
    }
    if !all_come_by && zeal.takes_unextended(true) {
        purge_unextended_of(|arena| arena.is_overdue(now), &held);
    }
    life::with_orphans(|arena| {
        arena.trim(zeal);
    });
}

/// Gives back what runs have not come to use, of arenas that are `meant`. Returns the bytes.
fn purge_unextended_of(meant: impl Fn(&Arena) -> bool, held: &Guard<'_, State>) -> u64 {
    let mut purged = 0;
    let mut purge = |run: &Run| {
        // SAFETY: the bins that a run points to belong to an arena, and are never given up.
        let bins = unsafe { core::ptr::with_exposed_provenance::<Bins>(run.bins()).as_ref() };
        if run.is_stale() && bins.is_some_and(|bins| meant(bins.arena())) {
            purged += run.purge_unextended_for_owner(held) as u64;
        }
    };
    for pool in fixed::all() {
        pool.view(|_| for_each_run(pool, &mut purge));
    }
    DEFAULT.counts.purged_in_runs.fetch_add(purged, Relaxed);
    purged
}

/// Gives everything that is free back to the system now. Returns the bytes.
pub(crate) fn purge() -> u64 {
    // The thread's arena first: the process may have to be set up, which comes before this lock.
    life::with_arena(|_| ());
    life::call_for_purge();
    let held = DECAY.hold();
    let mut bytes = 0;
    for arena in life::arenas() {
        release_kept(arena, true);
        bytes += arena.look_through_queue(Zeal::All);
        arena.divert();
    }
    life::with_orphans(|arena| {
        arena.quarantine.empty(arena);
        bytes += arena.trim(Zeal::All);
    });
    life::with_arena(|arena| {
        arena.purge_heeded.set(PURGE_CALLS.load(Relaxed));
        arena.quarantine.empty(arena);
        bytes += arena.trim(Zeal::All);
    });
    bytes += purge_unextended_of(|arena| !life::is_own(arena), &held);
    bytes + decay::purge_all(&held)
}

/// Why the background thread could not be started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BackgroundError {
    /// It runs already.
    Running,
    /// The system made no thread.
    Refused {
        /// The system's error number.
        errno: i32,
    },
}

impl fmt::Display for BackgroundError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackgroundError::Running => write!(f, "the background thread runs already"),
            BackgroundError::Refused { errno } => {
                write!(f, "the system made no thread (errno {errno})")
            }
        }
    }
}

impl core::error::Error for BackgroundError {}

static BACKGROUND: AtomicBool = AtomicBool::new(false);

/// Starts the thread that drives decay while all others sleep.
pub(crate) fn start_background() -> Result<(), BackgroundError> {
    if BACKGROUND.swap(true, Relaxed) {
        return Err(BackgroundError::Running);
    }
    LOOK_AFTER_SPARSE.store(true, Relaxed);
    thread::spawn_detached(background).map_err(|Refused(errno)| {
        forget_background();
        BackgroundError::Refused { errno }
    })
}

/// In a forked child there is no such thread.
pub(super) fn forget_background() {
    LOOK_AFTER_SPARSE.store(false, Relaxed);
    BACKGROUND.store(false, Relaxed);
}

extern "C" fn background(_: *mut libc::c_void) -> *mut libc::c_void {
    loop {
        thread::sleep_millis(DECAY.interval().clamp(1, MOST_SLEEP));
        look_after_all(coarse_millis());
        DECAY.tick(coarse_millis());
    }
}

/// The background thread looks at the settings at least that often, in milliseconds.
const MOST_SLEEP: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::Zeal;

    #[test]
    fn a_look_that_is_not_due_missed_none() {
        assert_eq!(Zeal::at(10, 20).missed(), 0);
        assert_eq!(Zeal::at(10, 0).missed(), 0);
    }

    #[test]
    fn runs_keep_what_came_with_them_while_memory_is_held() {
        let idle = |missed, is_held| Zeal::Idle { missed, is_held };
        for (zeal, first_look, later_look) in [
            (idle(0, false), false, true),
            (idle(1, false), true, true),
            (idle(0, true), false, false),
            (idle(1, true), false, false),
            (Zeal::Unused, false, false),
            (Zeal::All, true, true),
        ] {
            assert_eq!(zeal.takes_unextended(false), first_look);
            assert_eq!(zeal.takes_unextended(true), later_look);
        }
    }
}
