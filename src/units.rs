//! Units as types: a number that counts slices is no number of bytes. A leaf; every layer uses it.

/// Bytes of a slice: the unit in which runs and spans take address space. 128 KiB: a descriptor of
/// 128 bytes for each costs 0.1 % of the heap; only touched pages of a slice count.
pub(crate) const SLICE: usize = 1 << SLICE_SHIFT;
/// log2 of [`SLICE`].
pub(crate) const SLICE_SHIFT: u32 = 17;
/// Slices of a chunk: its states fit one 64-bit word each.
pub(crate) const CHUNK_SLICES: usize = 64;
/// Bytes of a chunk, the unit in which a pool grows.
pub(crate) const CHUNK: usize = SLICE * CHUNK_SLICES;

/// The opaque number that the layers below the accounts know of an owner.
///
/// Zero is everything that no consumer claimed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct OwnerTag(pub(crate) u32);

/// Tags are below this.
pub(crate) const MOST_OWNERS: usize = 1 << 20;

impl OwnerTag {
    /// What no consumer claimed.
    pub const UNATTRIBUTED: OwnerTag = OwnerTag(0);

    /// A tag by its number; `u32::MAX` is no tag.
    #[cfg(feature = "check")]
    pub const fn new(number: u32) -> Option<OwnerTag> {
        if number == u32::MAX {
            None
        } else {
            Some(OwnerTag(number))
        }
    }
}

/// Index of a size class.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
#[repr(transparent)]
pub(crate) struct ClassIndex(pub(crate) u8);

impl ClassIndex {
    /// As an array index.
    #[inline(always)]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Index of a slot in its run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
#[repr(transparent)]
pub(crate) struct SlotIndex(pub(crate) u32);

/// A number of slices.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
#[repr(transparent)]
pub(crate) struct Slices(pub(crate) usize);

impl Slices {
    /// As many as hold `bytes`; `None` if that overflows.
    pub(crate) const fn holding(bytes: usize) -> Option<Slices> {
        match bytes.checked_add(SLICE - 1) {
            Some(sum) => Some(Slices(sum >> SLICE_SHIFT)),
            None => None,
        }
    }

    /// In bytes.
    pub(crate) const fn bytes(self) -> usize {
        self.0 << SLICE_SHIFT
    }
}

/// `value` rounded up to a multiple of `to`, a power of two.
#[inline(always)]
pub(crate) const fn round_up(value: usize, to: usize) -> usize {
    value.wrapping_add(to - 1) & !(to - 1)
}
