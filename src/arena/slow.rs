//! What the fast paths leave: a run without a free slot, a block of another owner, thread or run
//! in a special state, a thread without an arena.

use super::batches::Batch;
use super::bins::{Bin, Bins};
use super::fast::current_bins;
use super::ledger::Ledger;
use super::owners::Owner;
use super::{Arena, life, owner, secure};
use crate::config;
use crate::os::thread::thread_word;
use crate::pool::AllocFailure;
use crate::pool::router::Wanted;
use crate::run::descriptor::{Run, run_of};
use crate::run::links::Links;
use crate::run::remote::State;
use crate::units::{ClassIndex, OwnerTag};
use core::ptr::null_mut;

thread_word! {
    /// Why this thread's last allocation failed.
    pub(crate) mod last_failure: Option<AllocFailure> = None;
}

/// Notes why an allocation failed. Its null pointer.
#[cold]
pub(crate) fn failed(failure: AllocFailure) -> *mut u8 {
    last_failure::set(Some(failure));
    null_mut()
}

/// Lets the fast paths use the bins of the arena's current owner, if it has any and the arena is
/// the thread's own.
pub(super) fn publish(arena: &Arena) {
    if life::is_own(arena) {
        current_bins::set(arena.current().shown.get());
    }
}

/// What the path of those who share runs found.
pub(crate) enum Few {
    /// A block.
    Taken(*mut u8),
    /// All that is missing is room in the owner's bound: for [`allocate_few_charged`].
    Uncharged,
    /// It is not for this path.
    Elsewhere,
}

/// A block of `class` for an owner that shares runs, if everything is at hand. Calls nothing.
#[inline(always)]
pub(crate) fn allocate_few(class: ClassIndex) -> Few {
    // SAFETY: the arena is this thread's, or nobody's.
    unsafe { life::near().take_few(class) }
}

/// The same once the owner's bound was raised, which is what was missing. `None` if that is refused.
#[inline(always)]
pub(crate) fn allocate_few_charged(class: ClassIndex) -> Option<*mut u8> {
    // SAFETY: the arena is this thread's, and `take_few` was called just now.
    unsafe { life::near().take_few_charged(class) }
}

/// A block of `class`, through the slow path.
pub(crate) fn allocate(class: ClassIndex, wanted: &Wanted) -> *mut u8 {
    life::with_arena(|arena| allocate_in(arena, class, wanted))
        .unwrap_or_else(|| failed(AllocFailure::Metadata))
}

/// A block of `class` for the arena's current owner.
pub(super) fn allocate_in(arena: &'static Arena, class: ClassIndex, wanted: &Wanted) -> *mut u8 {
    match arena.take(class, wanted) {
        Ok(slot) => {
            if config::junk() {
                junk(slot.address.as_ptr(), class, JUNK_ALLOCATED);
            }
            slot.address.as_ptr()
        }
        Err(failure) => failed(failure),
    }
}

/// A block of `class` that reads as zero; slots that do so already are not touched.
pub(crate) fn allocate_zeroed(class: ClassIndex, wanted: &Wanted) -> *mut u8 {
    let size = wanted.size;
    let taken = life::with_arena(|arena| arena.take(class, wanted));
    match taken.unwrap_or(Err(AllocFailure::Metadata)) {
        Ok(slot) => {
            if !slot.zero {
                // SAFETY: the slot is the caller's and has room for `size` bytes.
                unsafe { slot.address.write_bytes(0, size) };
            }
            slot.address.as_ptr()
        }
        Err(failure) => failed(failure),
    }
}

const JUNK_ALLOCATED: u8 = 0xa5;
const JUNK_FREED: u8 = 0x5a;

fn junk(block: *mut u8, class: ClassIndex, byte: u8) {
    let size = class.row().size as usize;
    // SAFETY: a block of that class that nobody reads.
    unsafe { block.write_bytes(byte, size) };
}

/// Takes back a block that the fast path leaves. Calls nothing but at its end, so that it needs no
/// stack.
///
/// # Safety
/// As for [`super::fast::deallocate`]; the run is the block's.
#[cold]
#[inline(never)]
pub(crate) unsafe fn deallocate(block: *mut u8, class: ClassIndex, run: &Run) {
    // SAFETY: the caller's promise.
    unsafe {
        let arena = life::near();
        if !arena.is_mixed(run) {
            return deallocate_near(block, class, run, arena);
        }
        let ledger = arena.ledger_of(run, block, class);
        if !ledger.has_slack_for(class) {
            return deallocate_uncharged(block, class, run, arena, ledger);
        }
        if !ledger.try_book_few_freed(class) {
            return deallocate_anywhere(block, class);
        }
        put_back(arena, arena.mixed_at_hand().bin(class), run, block);
    }
}

/// The same where the bound of the block's owner has to be lowered first.
///
/// # Safety
/// As there; the run is a mixed one of the thread's arena, the ledger the owner's there.
#[inline(never)]
unsafe fn deallocate_uncharged(
    block: *mut u8,
    class: ClassIndex,
    run: &Run,
    arena: &'static Arena,
    ledger: &Ledger,
) {
    ledger.keep_slack_bounded(class.row().size as usize);
    // SAFETY: the caller's promise.
    unsafe {
        if !ledger.try_book_few_freed(class) {
            return deallocate_anywhere(block, class);
        }
        put_back(arena, arena.mixed_at_hand().bin(class), run, block);
    }
}

/// The same where the run is not a mixed one of the thread's: another owner's of its runs, another
/// thread's, or else a block for [`deallocate_anywhere`].
///
/// # Safety
/// As there; the arena is the thread's.
#[inline(never)]
unsafe fn deallocate_near(block: *mut u8, class: ClassIndex, run: &Run, arena: &'static Arena) {
    if life::is_nobodys(arena) {
        // SAFETY: the caller's promise.
        return unsafe { deallocate_anywhere(block, class) };
    }
    // SAFETY: the caller's promise; bins are never given up.
    unsafe {
        let bins = &*core::ptr::with_exposed_provenance::<Bins>(run.bins());
        if run.is_tagged() {
            return deallocate_anywhere(block, class);
        }
        if core::ptr::eq(bins.arena.get(), arena) {
            return put_back(arena, bins.bin(class), run, block);
        }
        free_elsewhere(block, class, run, bins.tag(), arena);
    }
}

/// The same where the run is another thread's and has one owner, of that tag, whose bins here count
/// the block. Nothing is read that its thread changes while it allocates from the run.
///
/// # Safety
/// As there; as said.
#[inline(always)]
unsafe fn free_elsewhere(
    block: *mut u8,
    class: ClassIndex,
    run: &Run,
    tag: OwnerTag,
    arena: &'static Arena,
) {
    let ledger = arena.find_ledger(tag);
    let bins = ledger.and_then(Ledger::bins);
    // SAFETY: the caller's promise.
    unsafe {
        let (Some(ledger), Some(bins)) = (ledger, bins.filter(|bins| bins.counts(class))) else {
            return deallocate_anywhere(block, class);
        };
        bins.bin(class).freed.bump();
        ledger.book_freed_remotely();
        // Links are plain outside the secure profile, in which no arena is near.
        let batch = arena.batches.of(class);
        if batch.is_of(run) {
            if batch.hold(block.cast()) {
                return send_held(batch, class, arena);
            }
        } else {
            if !batch.begin(run) {
                return send_first(batch, block, run, arena);
            }
            if run.remote.push(block.cast(), Links::plain()) {
                return notify_and_tick(run, arena);
            }
        }
    }
    if arena.counts_down() {
        arena.tick();
    }
}

/// Calls for the run's owner, then ticks.
///
/// # Safety
/// As for [`notify_owner`]; the arena is this thread's.
#[inline(never)]
unsafe fn notify_and_tick(run: &Run, arena: &'static Arena) {
    // SAFETY: the caller's promise.
    unsafe { notify_owner(run) };
    arena.tick_now_and_then();
}

/// Sends what is held back in a batch, and begins it anew with another thread's run and a block of it.
///
/// # Safety
/// The arena is this thread's, and the batch its; else as for [`free_remotely`].
#[inline(never)]
unsafe fn send_first(batch: &Batch, block: *mut u8, run: &Run, arena: &'static Arena) {
    // SAFETY: the caller's promise.
    unsafe {
        if let Some(run) = batch.send() {
            notify_owner(run);
        }
        batch.begin(run);
        if run.remote.push(block.cast(), Links::plain()) {
            notify_owner(run);
        }
    }
    arena.tick_now_and_then();
}

/// Sends what is held back in a batch.
///
/// # Safety
/// The arena is this thread's, and the batch its.
#[inline(never)]
unsafe fn send_held(batch: &Batch, class: ClassIndex, arena: &'static Arena) {
    // SAFETY: the caller's promise.
    unsafe {
        batch.grow(class);
        if let Some(run) = batch.send() {
            notify_owner(run);
        }
    }
    arena.tick_now_and_then();
}

/// Counts a block of a run of this arena's as freed, and puts it on the run's free list.
///
/// # Safety
/// The block is of that run, alive, and not used any more; the run is that bin's.
#[inline(always)]
unsafe fn put_back(arena: &'static Arena, bin: &Bin, run: &Run, block: *mut u8) {
    bin.freed.bump();
    // SAFETY: the caller's promise.
    unsafe {
        let put = run.put_known(block);
        if put.was_empty && run.remote.state() != State::Owned {
            return take_up_in(arena, run);
        }
        let this = core::ptr::from_ref(run).cast_mut();
        if put.surplus >= 0 {
            bin.set_current(this);
        } else if run.is_watched(put.surplus) && (run.is_wide() || bin.current() != this) {
            return arena.look_at(run);
        }
    }
    if arena.counts_down() {
        arena.tick();
    }
}

/// A block was put on the free list of a run of this arena's where it is alone: takes the run up
/// again if it was full.
///
/// # Safety
/// As said.
#[inline(never)]
unsafe fn take_up_in(arena: &'static Arena, run: &Run) {
    // SAFETY: the caller's promise; bins are never given up.
    unsafe {
        let bins = &*core::ptr::with_exposed_provenance::<Bins>(run.bins());
        if unpark(bins, run) {
            settle_run(arena, bins, run);
        }
    }
    arena.tick_now_and_then();
}

/// The same for a full run of the current bins: the block is kept for the next request if that is
/// worth while.
///
/// # Safety
/// As there.
#[inline(never)]
pub(crate) unsafe fn take_up(run: &Run) {
    // SAFETY: the caller's promise; bins are never given up.
    unsafe {
        let bins = &*current_bins::get();
        if run.is_apart() || !bins.keep_loose(run) {
            take_up_slowly(bins, run);
        }
    }
}

/// The same where it was not worth while so far.
///
/// # Safety
/// As there.
#[cold]
#[inline(never)]
unsafe fn take_up_slowly(bins: &Bins, run: &Run) {
    // SAFETY: the caller's promise.
    life::with_arena(|arena| unsafe {
        // The run may go back with that, and be another's.
        let class = run.head.class();
        take_up_in(arena, run);
        bins.shorten_loose(arena, class);
    });
}

/// Takes a block back, whosever it is.
///
/// # Safety
/// As for [`super::fast::deallocate`].
#[inline(never)]
unsafe fn deallocate_anywhere(block: *mut u8, class: ClassIndex) {
    if config::is_secure() {
        // SAFETY: the caller's promise.
        return unsafe { secure::deallocate(block, class) };
    }
    if config::junk() {
        junk(block, class, JUNK_FREED);
    }
    // Without memory for an arena the block stays on the books.
    life::with_arena(|arena| {
        // SAFETY: the caller's promise.
        unsafe {
            let run = run_of(block, class).cast_mut();
            if book_freed(arena, &*run, block, class) {
                free_booked(arena, run, block);
            }
            arena.tick_now_and_then();
        }
    });
}

/// Puts a block that was counted as freed where its run has it back.
///
/// # Safety
/// The block is of that run, the caller's, and not used any more.
#[inline(always)]
pub(super) unsafe fn free_booked(arena: &'static Arena, run: *mut Run, block: *mut u8) {
    // SAFETY: the caller's promise; bins are never given up.
    unsafe {
        let bins = &*core::ptr::with_exposed_provenance::<Bins>((*run).bins());
        if core::ptr::eq(bins.arena.get(), arena) {
            free_here(arena, bins, &*run, block);
        } else {
            free_remotely(run, block);
        }
    }
}

/// Counts a block as freed. False, with nothing changed, if there is no memory for the count: then
/// the block stays on the books, and is not to be freed.
///
/// # Safety
/// The block is of that run and class, alive, and not used any more.
pub(super) unsafe fn book_freed(
    arena: &'static Arena,
    run: &Run,
    block: *mut u8,
    class: ClassIndex,
) -> bool {
    // SAFETY: the caller's promise; bins are never given up.
    let (ledger, bins) = unsafe {
        let bins = &*core::ptr::with_exposed_provenance::<Bins>(run.bins());
        (ledger_of_freed(arena, run, block, class), bins)
    };
    let is_remote = !core::ptr::eq(bins.arena.get(), arena);
    if let Some(ledger) = ledger.filter(|_| is_remote) {
        ledger.book_freed_remotely();
    }
    ledger.is_some()
}

/// Counts a block as freed in its owner's ledger here. `None` if there is no memory for one.
///
/// # Safety
/// As for [`book_freed`].
unsafe fn ledger_of_freed(
    arena: &'static Arena,
    run: &Run,
    block: *mut u8,
    class: ClassIndex,
) -> Option<&'static Ledger> {
    let own = run.head.tag();
    let Some(side) = run.side() else {
        return arena.book_freed(own, class);
    };
    let slot = run.slot_of(block.addr());
    // SAFETY: the array is the run's, which the block keeps alive.
    let side = unsafe { side.as_ref() };
    let tag = side.tag(slot);
    let ledger = arena.book_freed(tag, class)?;
    if tag != own {
        let bytes = class.row().size as usize;
        owner::lower_bound(own, ledger, bytes);
        // The slot was lent, unless the run is mixed.
        if let Some(owner) = Owner::find(own).filter(|_| own != OwnerTag::UNATTRIBUTED) {
            owner.take_back(bytes as u64);
        }
        // In a run of its owner's the next block may come from the fast path, which sets no tag.
        side.set_tag(slot, own);
    }
    Some(ledger)
}

/// Takes back a block of a run of this thread's bins.
///
/// # Safety
/// As said, and the block was counted as freed.
pub(super) unsafe fn free_here(arena: &Arena, bins: &Bins, run: &Run, block: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        if !run.put_slot(block) || unpark(bins, run) {
            settle_run(arena, bins, run);
        }
    }
}

/// A block was put on the free list of a run in a list of these bins: the run is to serve the next
/// request, or to be looked at, or neither.
///
/// # Safety
/// As said; the bins are the arena's, which is this thread's.
#[inline(always)]
unsafe fn settle_run(arena: &Arena, bins: &Bins, run: &Run) {
    let bin = bins.bin(run.head.class());
    let this = core::ptr::from_ref(run).cast_mut();
    let surplus = run.surplus.get();
    if surplus >= 0 {
        bin.set_current(this);
    } else if run.is_watched(surplus) && (run.is_wide() || bin.current() != this) {
        // SAFETY: the caller's promise.
        unsafe { arena.look_at(run) };
    }
}

/// A block was put on the free list of a run where it is alone: makes sure that the run is in the
/// list of its bins. If another thread has the run, the block goes the way of that thread's, and
/// the result is false.
///
/// # Safety
/// The run belongs to these bins, which are this thread's.
#[inline(never)]
pub(super) unsafe fn unpark(bins: &Bins, run: &Run) -> bool {
    // SAFETY: the caller's promise; the block was put on the list just now, and is alone there.
    unsafe {
        if bins.unpark(run) {
            return true;
        }
        let block = run.take_only();
        free_remotely(core::ptr::from_ref(run).cast_mut(), block);
        false
    }
}

/// Takes back a block of another thread's run.
///
/// # Safety
/// The block is the caller's, and was counted as freed.
unsafe fn free_remotely(run: *mut Run, block: *mut u8) {
    // SAFETY: the caller's promise. The run stays alive while the block is not on its list, and
    // after that as long as this thread has it to notify its owner.
    unsafe {
        let run = &*run;
        if run.remote.push(block.cast(), run.links()) {
            notify_owner(run);
        }
    }
}

/// Puts a run into its owner's queue.
///
/// # Safety
/// This thread has notified it, so that it stays alive until it is in the queue.
pub(super) unsafe fn notify_owner(run: &Run) {
    // SAFETY: the caller's promise; bins and arenas are never given up.
    unsafe {
        let bins = &*core::ptr::with_exposed_provenance::<Bins>(run.bins());
        (*bins.arena.get()).notify(core::ptr::from_ref(run).cast_mut());
    }
}

/// A run of the current bins has become unused, or sparse.
#[cold]
#[inline(never)]
pub(crate) fn look_at(run: &Run) {
    life::with_arena(|arena| {
        // SAFETY: the run is in a list of the current bins, which are this arena's.
        unsafe { arena.look_at(run) };
        arena.tick_now_and_then();
    });
}
