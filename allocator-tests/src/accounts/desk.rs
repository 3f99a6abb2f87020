//! The shadow's books: blocks, whose they are, and what was ever counted.

use std::alloc::Layout;
use std::collections::{HashMap, HashSet};
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use bursar::Consumer;

use super::{Difference, Field, Found, Owner, same};
use crate::pattern::{Pattern, verify_zero};

/// A block, filled, and its owner.
pub(super) struct Piece {
    address: NonNull<u8>,
    layout: Layout,
    pattern: Pattern,
    owner: Owner,
}

// SAFETY: a piece is owned memory; whoever holds it frees it, on any thread.
unsafe impl Send for Piece {}

impl Piece {
    pub(super) fn owner(&self) -> Owner {
        self.owner
    }

    /// What the allocator books for it.
    pub(super) fn bytes(&self) -> u64 {
        bursar::block_size(self.layout) as u64
    }

    fn verify(&self, kept: usize) -> Found {
        let size = self.layout.size();
        // SAFETY: the block is alive and was filled when it was allocated.
        unsafe { self.pattern.verify(self.address.as_ptr(), size, kept) }.map_err(|mismatch| {
            Difference(format!("{:?} {:?} {mismatch}", self.address, self.layout))
        })
    }
}

/// What was ever allocated for an owner and freed: blocks and bytes.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) allocated: [u64; 2],
    pub(super) freed: [u64; 2],
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        for side in 0..2 {
            self.allocated[side] += other.allocated[side];
            self.freed[side] += other.freed[side];
        }
    }
}

/// The blocks of one slot of the run, whichever thread has it.
#[derive(Default)]
pub(super) struct Desk {
    pieces: Vec<Piece>,
    size: usize,
    next: u64,
    pub(super) tallies: HashMap<Owner, Tally>,
    /// Owners whose totals may differ: how a large block is resized, in place,
    /// by moving pages or by copying, is the allocator's business.
    pub(super) unsure: HashSet<Owner>,
}

impl Desk {
    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    fn tally(&mut self, owner: Owner) -> &mut Tally {
        self.tallies.entry(owner).or_default()
    }

    fn allocated(&mut self, owner: Owner, bytes: u64) {
        let tally = self.tally(owner);
        tally.allocated[0] += 1;
        tally.allocated[1] += bytes;
    }

    fn freed(&mut self, owner: Owner, bytes: u64) {
        let tally = self.tally(owner);
        tally.freed[0] += 1;
        tally.freed[1] += bytes;
    }

    /// Takes pieces of other desks.
    pub(super) fn receive(&mut self, pieces: Vec<Piece>) {
        self.size += pieces
            .iter()
            .map(|piece| piece.layout.size())
            .sum::<usize>();
        self.pieces.extend(pieces);
    }

    /// A piece for another desk.
    pub(super) fn take(&mut self, pick: usize) -> Piece {
        let piece = self.pieces.swap_remove(pick);
        self.size -= piece.layout.size();
        piece
    }

    /// Allocates a block where the thread is now, which is in the scope of `owner`.
    pub(super) fn allocate(
        &mut self,
        field: &Field,
        layout: Layout,
        zeroed: bool,
        owner: Owner,
    ) -> Found {
        let bytes = bursar::block_size(layout) as u64;
        field.count_alive(bytes);
        // SAFETY: layouts of size zero are never drawn.
        let block = unsafe {
            if zeroed {
                field.heap.alloc_zeroed(layout)
            } else {
                field.heap.alloc(layout)
            }
        };
        let address = NonNull::new(block).ok_or_else(|| Difference("null".to_owned()))?;
        if zeroed {
            // SAFETY: the block was just returned for this layout.
            unsafe { verify_zero(block, layout.size()) }
                .map_err(|mismatch| Difference(format!("zeroed {layout:?} {mismatch}")))?;
        }
        self.allocated(owner, bytes);
        let piece = self.filled(address, layout, owner);
        self.receive(vec![piece]);
        Ok(())
    }

    fn filled(&mut self, address: NonNull<u8>, layout: Layout, owner: Owner) -> Piece {
        self.next += 1;
        let pattern = Pattern::new(address.as_ptr(), self.next);
        // SAFETY: a block of this layout that is ours.
        unsafe { pattern.fill(address.as_ptr(), layout.size()) };
        Piece {
            address,
            layout,
            pattern,
            owner,
        }
    }

    /// Verifies and frees a block.
    pub(super) fn free(&mut self, field: &Field, pick: usize) -> Found {
        let piece = self.take(pick);
        self.release(field, piece)
    }

    /// The same for one that is on no desk.
    pub(super) fn release(&mut self, field: &Field, piece: Piece) -> Found {
        piece.verify(piece.layout.size())?;
        // SAFETY: the block came from this allocator with this layout, and the
        // shadow no longer holds it.
        unsafe { field.heap.dealloc(piece.address.as_ptr(), piece.layout) };
        field.count_dead(piece.bytes());
        self.freed(piece.owner, piece.bytes());
        Ok(())
    }

    /// Makes a block `size` bytes. Its owner stays, whoever's scope this is.
    pub(super) fn reallocate(&mut self, field: &Field, pick: usize, size: usize) -> Found {
        let old = self.take(pick);
        let layout = Layout::from_size_align(size, old.layout.align())
            .map_err(|error| Difference(error.to_string()))?;
        let (before, after) = (old.bytes(), bursar::block_size(layout) as u64);
        field.count_alive(after);
        // SAFETY: the block came from this allocator with this layout; the new
        // size is not zero.
        let block = unsafe { field.heap.realloc(old.address.as_ptr(), old.layout, size) };
        let address = NonNull::new(block).ok_or_else(|| Difference("null".to_owned()))?;
        let kept = old.layout.size().min(size);
        let moved = Piece { address, ..old };
        // SAFETY: `realloc` keeps the first bytes of the block.
        unsafe { moved.pattern.verify(block, old.layout.size(), kept) }
            .map_err(|mismatch| Difference(format!("reallocated {layout:?} {mismatch}")))?;
        field.count_dead(before);
        if is_large(old.layout) && is_large(layout) {
            self.unsure.insert(old.owner);
        } else if before != after {
            self.allocated(old.owner, after);
            self.freed(old.owner, before);
        }
        let piece = self.filled(address, layout, old.owner);
        self.receive(vec![piece]);
        Ok(())
    }

    /// Hands a block over.
    pub(super) fn transfer(&mut self, field: &Field, pick: usize, to: &Consumer) -> Found {
        let piece = &mut self.pieces[pick];
        let bytes = piece.bytes();
        field.count_alive(bytes);
        // SAFETY: the block is alive, of this layout, and this desk's alone.
        let moved = unsafe { bursar::transfer_block(piece.address, piece.layout, to) };
        field.count_dead(bytes);
        same("bytes handed over", moved, Ok(bytes))?;
        let (from, to) = (piece.owner, Some(to.id()));
        piece.owner = to;
        if from == to {
            self.unsure.insert(from);
        } else {
            self.allocated(to, bytes);
            self.freed(from, bytes);
        }
        field.transfers.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Verifies and frees everything.
    pub(super) fn clear(&mut self, field: &Field) -> Found {
        while let Some(last) = self.pieces.len().checked_sub(1) {
            self.free(field, last)?;
        }
        Ok(())
    }
}

/// Whether a block has a span of its own.
fn is_large(layout: Layout) -> bool {
    layout.pad_to_align().size() > 256 << 10 || layout.align() > 128 << 10
}
