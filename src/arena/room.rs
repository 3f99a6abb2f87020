//! How many blocks of each class an owner may still take from mixed runs of one thread, before it
//! is worth runs of its own.
//!
//! ```text
//! FEW - (allocated - freed) = at_hand + LOT * lots
//! ```
//! What each request looks at is one byte a class, so that it is one line of cache for all but the
//! largest classes: many owners that take turns are many such lines.

use crate::class::{CLASSES, TABLE};
use crate::os::sync::{AtomicI8, Ordering::Relaxed};
use crate::units::{ClassIndex, SLICE};
use static_assertions::const_assert;

/// Live bytes of a class that are worth runs of the owner's own.
const FILL_BYTES: u32 = SLICE as u32 / 2;

/// Live blocks of a class that are.
const FEW: [i32; CLASSES] = {
    let mut blocks = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        blocks[class] = (FILL_BYTES / TABLE[class].size) as i32;
        class += 1;
    }
    blocks
};

/// Blocks that are kept elsewhere than at hand together.
const LOT: i8 = 96;

// As many more may be freed than were allocated, before that has to be counted elsewhere.
const_assert!(FEW[0] / (LOT as i32) < 100);

/// The room by class. One thread writes.
#[repr(C)]
pub(super) struct Room {
    at_hand: [AtomicI8; CLASSES],
    lots: [AtomicI8; CLASSES],
}

impl Room {
    /// That of an owner without blocks.
    pub(super) const fn new() -> Room {
        let mut room = Room {
            at_hand: [const { AtomicI8::new(0) }; CLASSES],
            lots: [const { AtomicI8::new(0) }; CLASSES],
        };
        let mut class = 0;
        while class < CLASSES {
            let lots = if FEW[class] == 0 {
                0
            } else {
                (FEW[class] - 1) / LOT as i32
            };
            room.lots[class] = AtomicI8::new(lots as i8);
            room.at_hand[class] = AtomicI8::new((FEW[class] - lots * LOT as i32) as i8);
            class += 1;
        }
        room
    }

    /// Room of a class that can be had by [`set_at_hand`](Self::set_at_hand).
    #[inline(always)]
    pub(super) fn at_hand(&self, class: ClassIndex) -> i8 {
        of(&self.at_hand, class).load(Relaxed)
    }

    /// Changes it, for a block.
    #[inline(always)]
    pub(super) fn set_at_hand(&self, class: ClassIndex, at_hand: i8) {
        of(&self.at_hand, class).store(at_hand, Relaxed);
    }

    /// Whether there is any.
    pub(super) fn is_any(&self, class: ClassIndex) -> bool {
        self.left(class) > 0
    }

    fn left(&self, class: ClassIndex) -> i32 {
        let lots = of(&self.lots, class).load(Relaxed);
        i32::from(self.at_hand(class)) + i32::from(LOT) * i32::from(lots)
    }

    /// Blocks allocated less those freed. Exact while nobody allocates or frees.
    pub(super) fn live(&self, class: ClassIndex) -> i32 {
        FEW[class.index()] - self.left(class)
    }

    /// Counts a block as allocated (`by` -1) or freed (1). False if the count does not fit.
    pub(super) fn count(&self, class: ClassIndex, by: i8) -> bool {
        let (before, lots) = (self.at_hand(class), of(&self.lots, class));
        let (at_hand, change) = match before.checked_add(by) {
            // Some is always at hand, as long as there is any.
            Some(sum) if sum <= 0 && lots.load(Relaxed) > 0 => (sum + LOT, -1),
            Some(sum) => (sum, 0),
            None if by > 0 => (before - LOT + by, 1),
            None => (before + LOT + by, -1),
        };
        let Some(lots_left) = lots.load(Relaxed).checked_add(change) else {
            return false;
        };
        lots.store(lots_left, Relaxed);
        self.set_at_hand(class, at_hand);
        true
    }
}

#[inline(always)]
fn of(counts: &[AtomicI8; CLASSES], class: ClassIndex) -> &AtomicI8 {
    debug_assert!(class.index() < CLASSES);
    // SAFETY: every class has a count. Unchecked, since a panic has no place in the allocator.
    unsafe { counts.get_unchecked(class.index()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: ClassIndex = ClassIndex(0);

    #[test]
    fn all_room_can_be_taken_and_not_more() {
        for class in (0..CLASSES as u8).map(ClassIndex) {
            let room = Room::new();
            let mut taken = 0;
            while room.is_any(class) {
                assert!(room.at_hand(class) > 0, "there is some at hand");
                assert!(room.count(class, -1));
                taken += 1;
                assert_eq!(room.live(class), taken);
            }
            assert_eq!(taken, FEW[class.index()]);
            assert!(room.at_hand(class) <= 0);
        }
    }

    /// As many as fit, in both directions, and back.
    #[test]
    fn what_does_not_fit_is_refused() {
        for by in [1, -1] {
            let room = Room::new();
            let mut live = 0;
            while room.count(SMALLEST, by) {
                live -= i32::from(by);
                assert_eq!(room.live(SMALLEST), live);
            }
            assert!(live.abs() > 4000, "{live}");
            assert!(!room.count(SMALLEST, by));
            while live != 0 {
                assert!(room.count(SMALLEST, -by));
                live += i32::from(by);
                assert_eq!(room.live(SMALLEST), live);
            }
        }
    }
}
