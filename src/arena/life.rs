//! How threads come by arenas and leave them.
//!
//! A thread takes an orphaned arena whole, or makes one, with its first request, and orphans it in
//! the destructor of a thread-specific key, which the C library runs after the destructors of
//! thread-locals. What is allocated or freed later still borrows an arena for each call.

use super::bins::{Bins, empty_bins};
use super::fast::current_bins;
use super::orphans::{Node, Stack};
use super::owner::MOVING;
use super::record::PURGE_CALLS;
#[cfg(feature = "raw")]
use super::secure;
use super::slow::publish;
use super::{Arena, Life, sites};
use crate::config;
use crate::extent::decay::DECAY;
use crate::os::clock::coarse_millis;
use crate::os::lock::Lock;
use crate::os::sync::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, Ordering::Relaxed};
use crate::os::thread::{ExitKey, thread_word};
use crate::os::{fork, process, random};
use crate::pool::{DEFAULT, Pool, fixed, metadata, router};
use crate::run::descriptor::{Run, for_each_run};
use crate::units::ClassIndex;
use core::ptr::null_mut;

thread_word! {
    /// The thread's arena: null before its first request, [`ended`] after its end.
    mod own_arena: *const Arena = null();
}

thread_word! {
    /// The same for the paths that look at no settings: nobody's where they may not be taken too.
    mod near_arena: *const Arena = &raw const NOBODYS;
}

/// An arena in which nothing is at hand and to which nothing belongs, in place of a null pointer.
static NOBODYS: Arena = Arena::new();

static ORPHANS: Stack = Stack::new();
/// The arena that was made last; each leads to the one made before it.
static NEWEST: AtomicPtr<Arena> = AtomicPtr::new(null_mut());
/// The first arena needs no mapping.
static FIRST: Arena = Arena::new();
static MADE: AtomicUsize = AtomicUsize::new(0);
static EXIT: ExitKey = ExitKey::new();
static STARTED: AtomicBool = AtomicBool::new(false);
static START: Lock<()> = Lock::new(());

/// What the thread's word says when its destructors have run.
fn ended() -> *const Arena {
    core::ptr::without_provenance(align_of::<Arena>())
}

/// All arenas, whoever has them.
pub(crate) fn arenas() -> impl Iterator<Item = &'static Arena> {
    // Acquire pairs with the Release in `make`: arenas are initialised when they are seen.
    let mut next: *const Arena = NEWEST.load(Ordering::Acquire);
    core::iter::from_fn(move || {
        // SAFETY: arenas are never given up.
        let arena = unsafe { next.as_ref()? };
        next = arena.older.load(Relaxed);
        Some(arena)
    })
}

/// The thread's arena, if it has one and has not ended.
#[inline(always)]
pub(super) fn own() -> Option<&'static Arena> {
    let arena = own_arena::get();
    if arena.addr() <= ended().addr() {
        return None;
    }
    // SAFETY: the thread has it.
    Some(unsafe { &*arena })
}

/// Whether an arena is [`NOBODYS`].
#[inline(always)]
pub(super) fn is_nobodys(arena: &Arena) -> bool {
    core::ptr::eq(arena, &NOBODYS)
}

/// The thread's arena; [`NOBODYS`] if it has none or each request has to take the whole slow path.
#[inline(always)]
pub(super) fn near() -> &'static Arena {
    // SAFETY: nobody's, or the arena that the thread has.
    unsafe { &*near_arena::get() }
}

/// Runs `work` with the thread's arena. `None` if there is no memory for one.
#[inline]
pub(crate) fn with_arena<T>(work: impl FnOnce(&'static Arena) -> T) -> Option<T> {
    match own() {
        Some(arena) => Some(work(arena)),
        None => with_new_arena(work),
    }
}

/// Whether the arena is this thread's, not one that it borrows for a call.
pub(super) fn is_own(arena: &Arena) -> bool {
    core::ptr::eq(own_arena::get(), arena)
}

#[cold]
fn with_new_arena<T>(work: impl FnOnce(&'static Arena) -> T) -> Option<T> {
    start();
    let arena = take_orphan().or_else(make)?;
    if own_arena::get() == ended() {
        let result = work(arena);
        orphan(arena);
        return Some(result);
    }
    own_arena::set(arena);
    if !config::looks_at_each() {
        near_arena::set(arena);
    }
    publish(arena);
    EXIT.arm(core::ptr::from_ref(arena).cast_mut().cast());
    Some(work(arena))
}

/// Once a process: settings, hooks.
fn start() {
    // Acquire pairs with the Release below: the settings are read.
    if STARTED.load(Ordering::Acquire) {
        return;
    }
    // The dynamic linker allocates before the C library is up, and what is called below may
    // allocate: such requests do without settings and hooks.
    if process::is_early() || START.is_held_here() {
        return;
    }
    let _guard = START.lock();
    if STARTED.load(Relaxed) {
        return;
    }
    let settings = config::load();
    if settings.secure {
        random::begin();
    }
    DECAY.set_millis(settings.decay_ms);
    DEFAULT.set_huge_pages(settings.huge_pages);
    DEFAULT.set_region_bytes(settings.region_bytes);
    if let Some(router) = settings.router {
        // SAFETY: once, before the first arena is made.
        unsafe { router::install(router) };
    }
    router::set_strict(settings.strict_pools);
    if let Some(spec) = config::pools(&settings) {
        fixed::configure(&spec, settings.backings);
    }
    EXIT.create(thread_ends);
    fork::register(before_fork, after_fork_in_parent, after_fork_in_child);
    STARTED.store(true, Ordering::Release);
    if settings.background {
        let _ = super::trim::start_background();
    }
}

/// Does what was left undone for the calling thread while it was too early.
#[cfg(feature = "raw")]
pub(crate) fn begin() {
    start();
    if let Some(arena) = own() {
        if config::is_secure() {
            secure::begin(arena);
        }
        near_arena::set(if config::looks_at_each() {
            &raw const NOBODYS
        } else {
            arena
        });
        EXIT.arm(core::ptr::from_ref(arena).cast_mut().cast());
    }
}

fn make() -> Option<&'static Arena> {
    let arena = if MADE.compare_exchange(0, 1, Relaxed, Relaxed).is_ok() {
        FIRST.begin(0);
        &FIRST
    } else {
        let record = metadata::allocate(size_of::<Arena>())?.cast::<Arena>();
        // SAFETY: a fresh record of that size.
        let arena = unsafe {
            record.write(Arena::new());
            record.as_ref()
        };
        arena.begin(MADE.fetch_add(1, Relaxed));
        arena
    };
    core::ptr::from_ref(arena).expose_provenance();
    let mut newest = NEWEST.load(Relaxed);
    loop {
        arena.older.store(newest, Relaxed);
        let made = core::ptr::from_ref(arena).cast_mut();
        // Release pairs with the Acquire in `arenas`.
        match NEWEST.compare_exchange_weak(newest, made, Ordering::Release, Relaxed) {
            Ok(_) => return Some(arena),
            Err(now) => newest = now,
        }
    }
}

/// How often a thread gives way to those who look through orphans' runs before it makes an arena of
/// its own.
const PATIENCE: usize = 64;
/// Orphans that a thread puts aside because somebody looks through their runs.
const ASIDE: usize = 8;

/// Takes an arena that has no thread: the first on the stack that nobody looks through. Only if all
/// are being looked through one of them is waited for, since an arena that is made stays for good.
fn take_orphan() -> Option<&'static Arena> {
    let mut aside: [Option<&'static Node>; ASIDE] = [None; ASIDE];
    let mut put_aside = 0;
    let mut taken = None;
    while put_aside < ASIDE && taken.is_none() {
        let Some(node) = ORPHANS.pop() else { break };
        let arena = arena_of(node);
        if arena.try_hold() {
            taken = Some(arena);
        } else if arena.life() != Life::Abandoned {
            aside[put_aside] = Some(node);
            put_aside += 1;
        }
    }
    let mut tries = 0;
    while taken.is_none() && put_aside > 0 && tries < PATIENCE {
        crate::os::thread::give_way();
        tries += 1;
        let index = tries % put_aside;
        taken = aside[index].map(arena_of).filter(|arena| arena.try_hold());
        if taken.is_some() {
            aside[index] = None;
        }
    }
    aside
        .into_iter()
        .flatten()
        .for_each(|node| ORPHANS.push(node));
    taken
}

/// The arena of a node of the stack.
fn arena_of(node: &'static Node) -> &'static Arena {
    // SAFETY: only nodes of arenas are on the stack, and a node is an arena's first field.
    unsafe { &*core::ptr::from_ref::<Node>(node).cast::<Arena>() }
}

/// Leaves an arena to whoever comes.
fn orphan(arena: &'static Arena) {
    arena.scopes.clear();
    arena.current.set(&arena.base_ledger);
    arena.set_fallible(false);
    arena.let_go();
    ORPHANS.push(&arena.node);
}

/// The destructor of the thread-specific key.
unsafe extern "C" fn thread_ends(_arena: *mut libc::c_void) {
    let Some(arena) = own() else {
        return;
    };
    current_bins::set(empty_bins());
    own_arena::set(ended());
    near_arena::set(&raw const NOBODYS);
    arena.quarantine.empty(arena);
    arena.trim_now();
    orphan(arena);
    DECAY.tick(coarse_millis());
}

/// Arenas that are asked in turn for a run that they can spare.
static ASKED: AtomicPtr<Arena> = AtomicPtr::new(null_mut());
/// How many are asked each time.
const ASK: usize = 4;

/// Takes over one of `which` runs of `class` with free slots from an arena without a thread, for
/// `bins`, which have none. Only runs that no consumer claimed: others go on for their consumer's
/// sake.
pub(super) fn adopt_run(
    bins: &Bins,
    class: ClassIndex,
    which: impl Fn(&Run) -> bool,
) -> Option<*mut Run> {
    // SAFETY: bins that take runs belong to an arena.
    let own = unsafe { &*bins.arena.get() };
    if !core::ptr::eq(bins, &own.base) {
        return None;
    }
    (0..ASK).find_map(|_| {
        // Acquire pairs with the Release below: an arena that another thread came to is initialised.
        let asked = ASKED.load(Ordering::Acquire);
        // SAFETY: arenas are never given up.
        let arena = unsafe { asked.as_ref() }.or_else(|| arenas().next())?;
        ASKED.store(arena.older.load(Relaxed), Ordering::Release);
        if !arena.try_hold() {
            return None;
        }
        arena.collect_notified();
        let run = arena.base.runs(class.index()).find(|run| which(run));
        if let Some(run) = run {
            // SAFETY: a run in the list is alive, and the arena is ours for now.
            unsafe { arena.base.unlink(run) };
            arena.forget(run);
            bins.claim(run);
        }
        arena.let_go();
        run.map(|run| core::ptr::from_ref(run).cast_mut())
    })
}

/// Runs `work` with each arena that has no thread.
pub(super) fn with_orphans(mut work: impl FnMut(&'static Arena)) {
    for arena in arenas() {
        if arena.try_hold() {
            work(arena);
            arena.let_go();
        }
    }
}

unsafe extern "C" fn before_fork() {
    START.before_fork();
    MOVING.before_fork();
    DECAY.before_fork();
    sites::before_fork();
    fixed::before_fork();
}

fn after_fork(in_child: bool) {
    fixed::after_fork(in_child);
    sites::after_fork(in_child);
    DECAY.after_fork(in_child);
    MOVING.after_fork(in_child);
    START.after_fork(in_child);
}

unsafe extern "C" fn after_fork_in_parent() {
    after_fork(false);
}

unsafe extern "C" fn after_fork_in_child() {
    after_fork(true);
    let own = own_arena::get();
    for arena in arenas() {
        if arena.life() == Life::Held && !core::ptr::eq(arena, own) {
            arena.abandon();
            arena.scopes.clear();
        }
    }
    // A thread that vanished between two steps may have left the search's hints behind.
    fixed::all().for_each(crate::extent::fit::mend_hints);
    fixed::fixed().for_each(take_for_own);
    super::trim::forget_background();
}

/// A pool that was kept out of this child gets pages of the child's own, which read as zero: what
/// was alive in it may be freed, and nothing else is left of it.
fn take_for_own(pool: &'static Pool) {
    if !pool.kind().is_object() {
        return;
    }
    if !pool.map_own() {
        process::end_with(
            "bursar: no memory in a forked child in place of a pool that is not there",
        );
    }
    for_each_run(pool, |run| {
        let before = run.available_bytes();
        run.forget_free();
        // SAFETY: a run leads to its bins, which are never given up.
        let bins = unsafe { &*core::ptr::with_exposed_provenance::<Bins>(run.bins()) };
        bins.uncharge(before - run.available_bytes());
    });
}

/// Asks every thread to give back what it can at its next slow path.
pub(super) fn call_for_purge() {
    PURGE_CALLS.fetch_add(1, Relaxed);
}
