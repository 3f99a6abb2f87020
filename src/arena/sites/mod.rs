//! Where memory was allocated: of some blocks, chosen at random by their bytes, the call path is
//! kept for as long as they are alive.
//!
//! Each thread counts down the bytes that it allocates. A block in which the count runs out is
//! *sampled*: the facade, which holds no lock then and has the block already, walks the stack, and
//! the block's address goes into a table that each free asks. All records come from `metadata`, and
//! nothing here allocates; should the unwinder, or a signal, come back for memory meanwhile, that
//! is not sampled.

mod draw;
mod live;
mod table;

pub(crate) use live::{Sample, for_each};
pub(super) use live::{after_fork, before_fork};

use crate::os::clock::coarse_millis;
use crate::os::thread::thread_word;
use crate::os::unwind::return_addresses;
use core::alloc::Layout;

/// Whether blocks are sampled.
#[cfg(feature = "raw")]
pub(crate) const SAMPLED: bool = true;

thread_word! {
    /// Bytes until the thread's next sample; never negative between two calls.
    mod left: i64 = 0;
}

thread_word! {
    /// The mean that `left` was drawn with; 0 before the first time.
    mod drawn: u64 = 0;
}

thread_word! {
    /// The thread is taking a sample.
    mod is_sampling: bool = false;
}

/// A block was allocated just now, or null.
#[inline(always)]
pub(crate) fn allocated(block: *mut u8, layout: Layout) {
    count_down(block, layout, layout.size());
}

/// `bytes` of a block are new, and not sampled yet.
#[inline(always)]
fn count_down(block: *mut u8, layout: Layout, bytes: usize) {
    // No layout has more bytes than an `isize`.
    let less = left::get() - bytes as i64;
    left::set(less);
    if less < 0 {
        reached(block, layout, bytes, less);
    }
}

/// The count has run out, or was never begun.
#[cold]
#[inline(never)]
fn reached(block: *mut u8, layout: Layout, bytes: usize, less: i64) {
    let (mean, before) = (live::mean(), drawn::get());
    if mean == 0 {
        // Settings are read by the first request; that may have been refused.
        return left::set(if block.is_null() { 0 } else { i64::MAX });
    }
    drawn::set(mean);
    if before == 0 {
        // The thread's first block: its count begins before it.
        let less = less.saturating_add(draw::interval(mean));
        if less >= 0 {
            return left::set(less);
        }
    }
    left::set(draw::interval(mean));
    if !block.is_null() && !is_sampling::get() {
        is_sampling::set(true);
        let drawn = if before == 0 { mean } else { before };
        take(block, layout, bytes, drawn);
        is_sampling::set(false);
    }
}

#[inline(never)]
fn take(block: *mut u8, layout: Layout, bytes: usize, drawn: u64) {
    let mut sample = Sample::new(layout, coarse_millis());
    sample.len = return_addresses(&mut sample.frames);
    live::add(block, &sample, bytes, drawn);
}

/// A block is about to be freed.
#[inline(always)]
pub(crate) fn freed(block: *mut u8) {
    if live::may_have(block) {
        forget(block);
    }
}

#[cold]
#[inline(never)]
fn forget(block: *mut u8) {
    if live::has(block)
        && let Some(record) = live::lift(block)
    {
        live::give_up(record);
    }
}

/// A block that stays where it is has another size now.
#[inline(always)]
pub(crate) fn resized_in_place(block: *mut u8, from: Layout, to: usize) {
    if let Ok(to) = Layout::from_size_align(to, from.align()) {
        lift(block).put(block, from, to);
    }
}

/// The sample of a block that is about to move, if it has one. Nobody finds it meanwhile.
pub(crate) struct Lifted(Option<live::Record>);

/// Takes the sample of a block out of the table while the block moves.
#[inline(always)]
pub(crate) fn lift(block: *mut u8) -> Lifted {
    Lifted(if live::may_have(block) && live::has(block) {
        live::lift(block)
    } else {
        None
    })
}

impl Lifted {
    /// The block is at this address now, and has changed from one layout to another. One that was
    /// not sampled, and has grown, may be now.
    #[inline(always)]
    pub(crate) fn put(self, block: *mut u8, from: Layout, to: Layout) {
        match self.0 {
            Some(record) => live::put(block, record, from.size(), to),
            None => count_down(block, to, to.size().saturating_sub(from.size())),
        }
    }
}
