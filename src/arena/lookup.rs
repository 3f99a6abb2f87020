//! What lies at an address, which may be anything.

use crate::extent::descriptor::{Head, Kind};
use crate::pool::fixed;
use crate::run::descriptor::Run;
use crate::run::marks::Mark;
use crate::units::ClassIndex;
use core::fmt;

/// Why there is no block at an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum NotABlock {
    /// It is not the allocator's memory.
    Foreign,
    /// It lies in memory of a block, or of several, but is the start of none.
    Inside,
    /// Nothing is alive there: it was freed, or lies inside a large block.
    Free,
}

impl fmt::Display for NotABlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotABlock::Foreign => "not from this allocator",
            NotABlock::Inside => "inside a block",
            NotABlock::Free => "already free, or inside a large block",
        })
    }
}

impl core::error::Error for NotABlock {}

/// The class of the block that starts at an address; `None` for a large one. Outside the secure
/// profile a slot of a run is taken for a block, alive or not. O(1), no allocation, no lock.
#[inline]
pub(crate) fn block_at(address: usize) -> Result<Option<ClassIndex>, NotABlock> {
    if !fixed::holds(address) {
        return Err(NotABlock::Foreign);
    }
    // SAFETY: a slice that has a descriptor.
    let head = unsafe { Head::of_slice(address) }.first();
    match head.kind() {
        Kind::Run => {
            let class = head.class();
            let row = class.row();
            let offset = address - head.address();
            let slot = row.slot_of(offset);
            if slot.0 >= row.slots || (slot.0 * row.size) as usize != offset {
                return Err(NotABlock::Inside);
            }
            // SAFETY: the head says so.
            let run = unsafe { &*core::ptr::from_ref(head).cast::<Run>() };
            match run.marks() {
                Some(marks) if marks.get(slot) != Mark::Live => Err(NotABlock::Free),
                _ => Ok(Some(class)),
            }
        }
        Kind::Large if head.address() == address => Ok(None),
        Kind::Large => Err(NotABlock::Inside),
        Kind::Kept | Kind::Guard | Kind::None | Kind::Inner => Err(NotABlock::Free),
    }
}
