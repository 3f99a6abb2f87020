//! Owners: whose scope a thread is in, what an owner holds, and moving a block to another.

use super::ledger::{Ledger, Totals};
use super::life::{self, arenas, with_arena};
use super::owners::Owner;
use super::{Arena, large, slow};
use crate::class::{CLASSES, class_of_layout};
use crate::extent::fit::Zeroing;
use crate::os::lock::Lock;
use crate::pool::router::Wanted;
use crate::pool::{AllocFailure, fixed};
use crate::run::descriptor::run_of;
use crate::units::{ClassIndex, OwnerTag};
use core::alloc::Layout;

/// A scope that a thread is in, by its place among its scopes. It is left on that thread; if the
/// thread has ended by then, it was left.
#[derive(Clone, Copy)]
pub(crate) struct Entered(u32);

impl Entered {
    /// In place of a scope that could not be entered.
    const NONE: Entered = Entered(u32::MAX);
}

/// Makes `tag` the owner of what this thread allocates from now on. Without memory for a ledger, or
/// after the thread's end, nothing changes.
#[inline(always)]
pub(crate) fn enter(tag: OwnerTag) -> Entered {
    match life::own() {
        Some(arena) => enter_in(arena, tag),
        None => enter_first(tag),
    }
}

#[inline(always)]
fn enter_in(arena: &'static Arena, tag: OwnerTag) -> Entered {
    let Some(ledger) = arena.ledger(tag) else {
        return Entered::NONE;
    };
    let Some(index) = arena.scopes.push(ledger) else {
        return Entered::NONE;
    };
    arena.set_current(ledger);
    Entered(index)
}

#[cold]
#[inline(never)]
fn enter_first(tag: OwnerTag) -> Entered {
    // An arena that is only borrowed for the call is nobody's scope.
    with_arena(|arena| {
        if life::is_own(arena) {
            enter_in(arena, tag)
        } else {
            Entered::NONE
        }
    })
    .unwrap_or(Entered::NONE)
}

/// Leaves a scope. If it was the innermost, the one around it that was not left yet goes on.
#[inline(always)]
pub(crate) fn leave(entered: Entered) {
    if let Some(arena) = life::own() {
        match arena.scopes.pop(entered.0) {
            Some(around) => arena.set_current(around),
            None => leave_out_of_order(arena, entered),
        }
    }
}

#[cold]
#[inline(never)]
fn leave_out_of_order(arena: &'static Arena, entered: Entered) {
    if entered.0 != Entered::NONE.0 {
        arena.set_current(arena.scopes.leave(entered.0));
    }
}

/// The owner of what this thread allocates now.
pub(crate) fn current() -> OwnerTag {
    with_arena(|arena| arena.current().tag()).unwrap_or(OwnerTag::UNATTRIBUTED)
}

/// Runs `work` so that a hard limit refuses memory rather than being passed.
pub(crate) fn with_refusals<T>(work: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            with_arena(|arena| arena.set_fallible(self.0));
        }
    }
    let _restore = Restore(with_arena(|arena| arena.set_fallible(true)).unwrap_or(false));
    work()
}

/// What `tag` allocated and freed on all threads so far. Exact when nobody does either; never
/// freed more than allocated.
pub(crate) fn totals(tag: OwnerTag) -> Totals {
    let mut totals = Totals::default();
    add_freed(tag, &mut totals);
    add_allocated(tag, &mut totals);
    totals
}

/// The first half of [`totals`]. Who reads several owners reads this of all of them first.
pub(crate) fn add_freed(tag: OwnerTag, totals: &mut Totals) {
    for_ledgers(tag, |ledger| ledger.add_freed(totals));
}

/// The second half.
pub(crate) fn add_allocated(tag: OwnerTag, totals: &mut Totals) {
    for_ledgers(tag, |ledger| ledger.add_allocated(totals));
}

/// What `tag` allocated on this thread less what it freed here, in bytes; below zero if others
/// allocated what was freed here. Cheap: one ledger.
#[inline]
pub(crate) fn balance_here(tag: OwnerTag) -> i64 {
    with_arena(|arena| {
        let current = arena.current();
        // In a scope of the owner's there is nothing to be looked up.
        let ledger = match current.tag() == tag {
            true => Some(current),
            false => arena.find_ledger(tag),
        };
        ledger.map_or(0, Ledger::balance)
    })
    .unwrap_or(0)
}

/// Live blocks by class. Exact while nobody allocates or frees.
pub(crate) fn classes(tag: OwnerTag) -> [i64; CLASSES] {
    let mut live = [0; CLASSES];
    for_ledgers(tag, |ledger| ledger.add_classes(&mut live));
    live
}

/// Whether any thread is in a scope of `tag`.
pub(crate) fn is_entered(tag: OwnerTag) -> bool {
    let mut entered = false;
    for_ledgers(tag, |ledger| entered |= ledger.is_entered());
    entered
}

/// Gives back what this thread keeps for an owner without need.
pub(crate) fn settle(tag: OwnerTag) {
    with_arena(|arena| arena.settle(tag));
}

/// Has all arenas give back what they hold for owners that are gone: those without a thread now,
/// others when their threads next need memory.
pub(crate) fn settle_left_over() {
    for arena in arenas() {
        arena.ask_to_settle();
    }
    life::with_orphans(Arena::settle_left_over);
}

fn for_ledgers(tag: OwnerTag, mut visit: impl FnMut(&'static Ledger)) {
    if tag == OwnerTag::UNATTRIBUTED {
        arenas().for_each(|arena| visit(&arena.base_ledger));
    } else if let Some(owner) = Owner::find(tag) {
        owner.ledgers().for_each(visit);
    }
}

/// Whether bursar is the program's global allocator. Allocates and frees one byte.
pub(crate) fn is_installed() -> bool {
    let layout = Layout::new::<u8>();
    // SAFETY: one byte, freed with the layout it was allocated with.
    unsafe {
        let block = std::alloc::alloc(layout);
        let ours = !block.is_null() && is_ours(block);
        if !block.is_null() {
            std::alloc::dealloc(block, layout);
        }
        ours
    }
}

/// Whether the byte at an address lies in memory of bursar's.
pub(crate) fn is_ours(block: *mut u8) -> bool {
    fixed::all().any(|pool| pool.region_of(block.addr()).is_some())
}

/// Whether the pool of a block may serve requests of `size` bytes.
///
/// # Safety
/// The block is alive and of that class.
#[cold]
pub(crate) unsafe fn admits(block: *mut u8, class: ClassIndex, size: usize) -> bool {
    // SAFETY: the caller's promise.
    unsafe { (*run_of(block, class)).pool().admits(size) }
}

/// Held while a block is given to another owner.
pub(super) static MOVING: Lock<()> = Lock::new(());

/// The owner of a block.
///
/// # Safety
/// The block is alive and was allocated with this layout.
pub(crate) unsafe fn tag_of(block: *mut u8, layout: Layout) -> OwnerTag {
    // SAFETY: the caller's promise.
    unsafe {
        match class_of_layout(layout) {
            Some(class) => (*run_of(block, class)).tag_of(block.addr()),
            None => crate::extent::large::of(block.addr()).head.tag(),
        }
    }
}

/// Books a block to another owner: O(1) for a large one; a small one costs its run a tag a slot,
/// and each free in that run the slow path. False, with nothing changed, if there is no memory.
///
/// # Safety
/// The block is alive, was allocated with this layout, and is the caller's.
pub(crate) unsafe fn retag(block: *mut u8, layout: Layout, to: OwnerTag) -> bool {
    with_arena(|arena| {
        // Two threads may hand over the same block.
        let _moving = MOVING.lock();
        // SAFETY: the caller's promise.
        unsafe {
            let (from, Some(taker)) = (tag_of(block, layout), arena.ledger(to)) else {
                return false;
            };
            // Nothing fails once the first count is made.
            let Some(giver) = arena.ledger(from) else {
                return false;
            };
            let moved = match class_of_layout(layout) {
                Some(class) => retag_small(arena, block, class, from, to),
                None => {
                    let large = crate::extent::large::of(block.addr());
                    large::retag(arena, large, giver, taker);
                    true
                }
            };
            if moved {
                taker.count_requested(layout.size(), 0);
                giver.count_requested(0, layout.size());
            }
            moved
        }
    })
    .unwrap_or(false)
}

/// Books a block of a run from an owner to another.
///
/// # Safety
/// As for [`retag`]; both have ledgers here.
unsafe fn retag_small(
    arena: &'static Arena,
    block: *mut u8,
    class: ClassIndex,
    from: OwnerTag,
    to: OwnerTag,
) -> bool {
    // SAFETY: the caller's promise.
    let run = unsafe { &*run_of(block, class) };
    let Some(side) = run.install_side(false) else {
        return false;
    };
    let Some(taker) = arena.book_allocated(to, class) else {
        return false;
    };
    let Some(giver) = arena.book_freed(from, class) else {
        // What was counted just now can be counted back.
        let _ = arena.book_freed(to, class);
        return false;
    };
    run.take_long_way();
    let (own, bytes) = (run.head.tag(), class.row().size as usize);
    raise_bound(own, taker, bytes);
    // SAFETY: the array is the run's, which the block keeps alive.
    unsafe { side.as_ref() }.set_tag(run.slot_of(block.addr()), to);
    lower_bound(own, giver, bytes);
    true
}

/// Raises the bound of who gets a block in a run of `own`'s: a slot that was lent is back, or it is
/// another's block.
pub(super) fn raise_bound(own: OwnerTag, ledger: &Ledger, bytes: usize) {
    match ledger.owner() {
        None => {}
        Some(owner) if ledger.tag() == own => owner.take_back(bytes as u64),
        // A hand-over is not refused for a limit.
        Some(_) => drop(ledger.charge(bytes, false)),
    }
}

/// Lowers the bound of who had one: its slot is lent, or it was another's block.
pub(super) fn lower_bound(own: OwnerTag, ledger: &Ledger, bytes: usize) {
    match ledger.owner() {
        None => {}
        Some(owner) if ledger.tag() == own => owner.lend(bytes as u64),
        Some(_) => ledger.uncharge(bytes),
    }
}

/// A block for the owner of a block that is about to move. Null if memory cannot be had.
pub(crate) fn allocate_for(tag: OwnerTag, new: Layout) -> *mut u8 {
    with_arena(|arena| match arena.ledger(tag) {
        // The arena's own scope, not the thread's: a thread that has ended only borrows it.
        Some(ledger) => arena.in_scope_of(ledger, || match class_of_layout(new) {
            Some(class) => slow::allocate_in(arena, class, &Wanted::new(new)),
            None => large::allocate_in(arena, &Wanted::new(new), Zeroing::None),
        }),
        None => slow::failed(AllocFailure::Metadata),
    })
    .unwrap_or_else(|| slow::failed(AllocFailure::Metadata))
}
