//! Size classes: which slot serves a request. A leaf; the table itself is made by `build.rs`, and
//! each of its columns is computed again here and compared at compile time.
//!
//! A block's class is a function of its layout alone: the class of its size rounded up to its
//! alignment. Steps between classes are powers of two, and a run starts at a slice, so a slot
//! whose size is a multiple of an alignment is aligned to it.

use crate::units::{ClassIndex, SLICE, SlotIndex};
use core::alloc::Layout;
use static_assertions::{const_assert, const_assert_eq};

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SizeClass {
    /// Bytes of a slot.
    pub(crate) size: u32,
    /// Slices of a run.
    pub(crate) slices: u32,
    /// Slots of a run.
    pub(crate) slots: u32,
    /// What the smallest request of the class leaves unused, in per mille of a slot.
    pub(crate) waste: u32,
    /// 2^40 / size, rounded up.
    pub(crate) reciprocal: u64,
}

impl SizeClass {
    const fn row(size: u32, slices: u32, slots: u32, waste: u32, reciprocal: u64) -> SizeClass {
        SizeClass {
            size,
            slices,
            slots,
            waste,
            reciprocal,
        }
    }

    /// The slot that holds the byte at `offset` of a run. Exact for every offset of a run.
    #[inline]
    pub(crate) const fn slot_of(&self, offset: usize) -> SlotIndex {
        slot_at(offset, self.reciprocal)
    }
}

/// The slot at an offset, by the [reciprocal](SizeClass::reciprocal) of its size.
#[inline(always)]
const fn slot_at(offset: usize, reciprocal: u64) -> SlotIndex {
    SlotIndex(((offset as u64 * reciprocal) >> 40) as u32)
}

include!(concat!(env!("OUT_DIR"), "/class_table.rs"));

impl ClassIndex {
    /// The class's row of the table.
    #[inline(always)]
    pub(crate) const fn row(self) -> &'static SizeClass {
        const ROWS: &[SizeClass; CLASSES] = &TABLE;
        debug_assert!(self.index() < CLASSES);
        // SAFETY: indices are only made by `class_of` and kept by runs. Unchecked, since a panic
        // has no place in a fast path.
        unsafe { &*ROWS.as_ptr().add(self.index()) }
    }
}

/// Bytes of a slot by class, and their reciprocals: for who wants nothing else of a row, with one
/// instruction less.
pub(crate) static SIZES: [u32; CLASSES] = {
    let mut sizes = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        sizes[class] = TABLE[class].size;
        class += 1;
    }
    sizes
};
static RECIPROCALS: [u64; CLASSES] = {
    let mut reciprocals = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        reciprocals[class] = TABLE[class].reciprocal;
        class += 1;
    }
    reciprocals
};

impl ClassIndex {
    /// Bytes of a slot.
    #[inline(always)]
    pub(crate) fn size(self) -> u32 {
        // SAFETY: as in `row`.
        unsafe { *SIZES.get_unchecked(self.index()) }
    }

    /// The slot that holds the byte at `offset` of a run.
    #[inline(always)]
    pub(crate) fn slot_of(self, offset: usize) -> SlotIndex {
        // SAFETY: as in `row`.
        slot_at(offset, unsafe { *RECIPROCALS.get_unchecked(self.index()) })
    }
}

/// What tells the starts of a class's slots from other places in a run.
#[cfg(feature = "raw")]
struct Starts {
    /// The reciprocal, such that a product keeps only the fraction of a slot.
    fraction: u64,
    /// Bytes of all slots.
    end: u32,
}

#[cfg(feature = "raw")]
static STARTS: [Starts; CLASSES] = {
    let mut starts = [const {
        Starts {
            fraction: 0,
            end: 0,
        }
    }; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        let row = &TABLE[class];
        // A multiple of the size has a fraction below that of one byte, and nothing else does.
        let error = row.reciprocal * row.size as u64 - (1 << 40);
        assert!((row.slots as u64 + 1) * error < row.reciprocal);
        starts[class] = Starts {
            fraction: row.reciprocal << 24,
            end: row.slots * row.size,
        };
        class += 1;
    }
    starts
};

#[cfg(feature = "raw")]
impl ClassIndex {
    /// Whether a slot starts at `offset` of a run, which may be any place in the run.
    #[inline(always)]
    pub(crate) fn starts_slot(self, offset: usize) -> bool {
        // SAFETY: as in `row`.
        let starts = unsafe { STARTS.get_unchecked(self.index()) };
        let fraction = (offset as u64).wrapping_mul(starts.fraction);
        fraction < starts.fraction && offset < starts.end as usize
    }

    /// The class of blocks of at least `size` bytes, at most [`LOOKUP_MAX`], and of at least one, at
    /// multiples of 16.
    #[inline(always)]
    pub(crate) fn of_sixteens(size: usize) -> ClassIndex {
        debug_assert!(size <= LOOKUP_MAX);
        // SAFETY: inside the table.
        ClassIndex(unsafe { *SIXTEENS.get_unchecked(size.div_ceil(16)) })
    }
}

/// The class of so many times 16 bytes, at multiples of 16.
#[cfg(feature = "raw")]
static SIXTEENS: [u8; LOOKUP_MAX / 16 + 1] = {
    let mut classes = [class_of(16).0; LOOKUP_MAX / 16 + 1];
    let mut sixteens = 1;
    while sixteens < classes.len() {
        classes[sixteens] = class_of(sixteens * 16).0;
        sixteens += 1;
    }
    classes
};

/// The largest size that is served from a run.
pub(crate) const RUN_MAX: usize = TABLE[CLASSES - 1].size as usize;
/// Sizes up to this are looked up; larger ones are computed.
pub(crate) const LOOKUP_MAX: usize = LOOKUP.len() * 8;
/// The most slots of a run of several slices, of which each is a unit: its word has a bit for each.
pub(crate) const UNITS_MAX: u32 = 62;
/// The largest alignment that a slot can have: where runs start.
pub(crate) const RUN_ALIGN_MAX: usize = SLICE;

/// The first class beyond the lookup table.
const FIRST_COMPUTED: usize = LOOKUP[LOOKUP.len() - 1] as usize + 1;
/// log2 of the steps of a doubling there.
const STEPS_LOG: u32 = 2;
/// The shift that leaves the steps of the smallest size there.
const FIRST_SHIFT: u32 = LOOKUP_MAX.trailing_zeros() - STEPS_LOG;

/// The class of a size from 1 to [`RUN_MAX`] that was rounded up to its alignment.
#[inline(always)]
pub(crate) const fn class_of(size: usize) -> ClassIndex {
    match size - 1 {
        last if last < LOOKUP_MAX => looked_up(last),
        last => computed(last),
    }
}

/// The class of blocks whose last byte is at offset `last`, below [`LOOKUP_MAX`].
#[inline(always)]
const fn looked_up(last: usize) -> ClassIndex {
    let class = LOOKUP[last / 8];
    // SAFETY: classes ascend. So the compiler knows what all of these have in common.
    unsafe { core::hint::assert_unchecked((class as usize) < FIRST_COMPUTED) };
    ClassIndex(class)
}

/// The same from [`LOOKUP_MAX`] on.
#[inline(always)]
const fn computed(last: usize) -> ClassIndex {
    let last = last as u32;
    // Not `ilog2`, of which the compiler makes more instructions here.
    let shift = (last.leading_zeros() ^ (u32::BITS - 1)) - STEPS_LOG;
    let steps = (last >> shift) - (1 << STEPS_LOG);
    let doublings = shift - FIRST_SHIFT;
    ClassIndex((FIRST_COMPUTED as u32 + (doublings << STEPS_LOG) + steps) as u8)
}

/// The class of a layout where it is looked up.
#[inline(always)]
pub(crate) const fn looked_up_of_layout(layout: Layout) -> Option<ClassIndex> {
    match last_byte(layout) {
        last if last < LOOKUP_MAX => Some(looked_up(last)),
        _ => None,
    }
}

/// The last byte of a block of a layout, of which the size was rounded up to the alignment. Beyond
/// all for a layout without bytes.
#[inline(always)]
const fn last_byte(layout: Layout) -> usize {
    layout.size().wrapping_sub(1) | (layout.align() - 1)
}

/// The size class of a layout, or `None` where a span of its own serves it.
#[inline(always)]
pub(crate) const fn class_of_layout(layout: Layout) -> Option<ClassIndex> {
    let last = last_byte(layout);
    if last < LOOKUP_MAX {
        Some(looked_up(last))
    } else if last | layout.align() < RUN_MAX {
        Some(computed(last))
    } else {
        None
    }
}

// So that one comparison is enough.
const_assert!(RUN_MAX.is_power_of_two() && RUN_ALIGN_MAX == RUN_MAX / 2);
const_assert_eq!(LOOKUP_MAX, 2048);
const_assert_eq!(RUN_MAX, 256 << 10);
const_assert!(LOOKUP_MAX.is_power_of_two());
const_assert!(CLASSES <= u8::MAX as usize);
const _: () = verify();

/// Computes every column again and compares.
const fn verify() {
    let mut below = 0;
    let mut index = 0;
    while index < CLASSES {
        let row = &TABLE[index];
        let size = row.size as usize;
        assert!(size > below, "sizes ascend");
        let step = size - below;
        assert!(
            step.is_power_of_two(),
            "an aligned request finds an aligned slot"
        );
        assert!(
            size.is_multiple_of(step),
            "a slot is a multiple of its step"
        );
        if size > 128 {
            let most = if size <= LOOKUP_MAX { 125 } else { 200 };
            assert!((step - 1) * 1000 / size <= most, "bounded internal waste");
        } else {
            assert!(step == 8, "8-byte steps up to 128 B");
        }
        assert!(row.waste as usize == (step - 1) * 1000 / size);
        let run = row.slices as usize * SLICE;
        assert!(row.slots as usize == run / size);
        assert!(row.slots >= 8, "a run is worth its descriptor");
        assert!(
            row.slices == 1 || row.slots <= UNITS_MAX,
            "slots are units, of which a run's word holds a bit each"
        );
        assert!(row.reciprocal == (1_u64 << 40).div_ceil(row.size as u64));
        // slot_of is exact while offset * (reciprocal * size - 2^40) stays below 2^40.
        let error = row.reciprocal * row.size as u64 - (1 << 40);
        assert!(run as u64 * error < 1 << 40);
        assert!(
            class_of(size).index() == index,
            "the largest request of the class"
        );
        assert!(class_of(below + 1).index() == index, "the smallest");
        below = size;
        index += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_class_holds_its_request_and_wastes_little(size in 1..=RUN_MAX) {
            let row = TABLE[class_of(size).index()];
            let slot = row.size as usize;
            prop_assert!(slot >= size);
            if size > 128 {
                let most = if slot <= LOOKUP_MAX { 8 } else { 5 };
                prop_assert!((slot - size) * most < slot);
            } else {
                prop_assert!(slot - size < 8);
            }
        }

        #[test]
        fn an_aligned_request_finds_an_aligned_slot(
            bits in 0..=19_u32, part in 0.0..1.0_f64, log in 0..=19_u32
        ) {
            let size = 1 + (part * f64::from(1 << bits)) as usize;
            let layout = Layout::from_size_align(size, 1 << log).unwrap();
            let rounded = size.next_multiple_of(layout.align());
            let class = class_of_layout(layout);
            prop_assert_eq!(class.is_some(), rounded <= RUN_MAX && layout.align() <= RUN_ALIGN_MAX);
            prop_assert_eq!(looked_up_of_layout(layout), class.filter(|_| rounded <= LOOKUP_MAX));
            if let Some(class) = class {
                prop_assert_eq!(class, class_of(rounded));
                prop_assert_eq!(class.row().size as usize % layout.align(), 0);
            }
        }

        #[cfg(feature = "raw")]
        #[test]
        fn starts_of_slots_are_told_from_other_places(
            class in 0..CLASSES, slot in 0.0..1.0_f64, beside in -20..20_isize
        ) {
            let row = TABLE[class];
            let run = row.slices as usize * SLICE;
            let slot = (slot * f64::from(row.slots + 1)) as usize * row.size as usize;
            let offset = slot.saturating_add_signed(beside).min(run - 1);
            let starts = offset % row.size as usize == 0 && offset / (row.size as usize) < row.slots as usize;
            prop_assert_eq!(ClassIndex(class as u8).starts_slot(offset), starts);
        }

        #[cfg(feature = "raw")]
        #[test]
        fn sixteens_are_the_layouts_of_c(size in 0..=LOOKUP_MAX) {
            let layout = Layout::from_size_align(size.max(1), 16).unwrap();
            prop_assert_eq!(Some(ClassIndex::of_sixteens(size)), class_of_layout(layout));
        }

        #[test]
        fn slot_of_is_exact(class in 0..CLASSES, part in 0.0..1.0_f64) {
            let row = TABLE[class];
            let offset = (part * f64::from(row.size * row.slots)) as usize;
            prop_assert_eq!(row.slot_of(offset).0 as usize, offset / row.size as usize);
        }
    }
}
