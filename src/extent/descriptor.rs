//! What every descriptor begins with. Each slice has a descriptor, at an address that follows from
//! the slice's; a span is described by the descriptor of its first slice, and the descriptors of a
//! run's other slices lead back to it.

use crate::os::sync::{AtomicU8, AtomicU32, Ordering::Relaxed};
#[cfg(feature = "raw")]
use crate::pool::region::DESCRIPTOR;
use crate::pool::region::{descriptor_address, slice_address};
use crate::units::OwnerTag;
#[cfg(feature = "raw")]
use crate::units::SLICE;

/// What a slice is part of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Nothing: free, or inside a large block.
    None = 0,
    /// A run, at its first slice.
    Run = 1,
    /// A run, behind its first slice.
    Inner = 2,
    /// A large block, at its first slice.
    Large = 3,
    /// A large block that was freed and kept, at its first slice.
    Kept = 4,
    /// Pages without access before a large block, at their first slice.
    Guard = 5,
}

/// The common head of all descriptors. Zero where nothing was ever written.
#[repr(C)]
pub(crate) struct Head {
    /// Bytes from the descriptor of the span's first slice to this one.
    back: AtomicU32,
    kind: AtomicU8,
    class: AtomicU8,
    flags: AtomicU8,
    unused: u8,
    slices: AtomicU32,
    tag: AtomicU32,
}

impl Head {
    /// The head of a span that nobody can see yet.
    pub(crate) const fn empty() -> Head {
        Head {
            back: AtomicU32::new(0),
            kind: AtomicU8::new(Kind::None as u8),
            class: AtomicU8::new(0),
            flags: AtomicU8::new(0),
            unused: 0,
            slices: AtomicU32::new(0),
            tag: AtomicU32::new(0),
        }
    }

    /// The descriptor of the slice that holds `address`.
    ///
    /// # Safety
    /// The address lies in a slice that was claimed from a pool.
    #[inline(always)]
    pub(crate) unsafe fn of_slice(address: usize) -> &'static Head {
        // SAFETY: descriptors of claimed slices are committed for good.
        unsafe { &*(descriptor_address(address) as *const Head) }
    }

    /// The descriptor of the first slice of the span that this one belongs to.
    #[inline(always)]
    pub(crate) fn first(&self) -> &'static Head {
        let back = self.back.load(Relaxed) as usize;
        // SAFETY: a run's other descriptors lead back to its first; everywhere else `back` is 0.
        unsafe { &*core::ptr::from_ref(self).byte_sub(back) }
    }

    /// The same, and how many bytes in front of this slice the span starts.
    #[cfg(feature = "raw")]
    #[inline(always)]
    pub(crate) fn first_and_back(&self) -> (&'static Head, usize) {
        let back = self.back.load(Relaxed) as usize;
        // SAFETY: as in `first`.
        let first = unsafe { &*core::ptr::from_ref(self).byte_sub(back) };
        (first, back * (SLICE / DESCRIPTOR))
    }

    /// Where the span starts.
    #[inline]
    pub(crate) fn address(&self) -> usize {
        slice_address(core::ptr::from_ref(self).addr())
    }

    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        match self.kind.load(Relaxed) {
            1 => Kind::Run,
            2 => Kind::Inner,
            3 => Kind::Large,
            4 => Kind::Kept,
            5 => Kind::Guard,
            _ => Kind::None,
        }
    }

    /// Whether it describes a run, at its first slice.
    #[cfg(feature = "raw")]
    #[inline(always)]
    pub(crate) fn is_run(&self) -> bool {
        self.kind.load(Relaxed) == Kind::Run as u8
    }

    /// Index of the size class; meaningful for a run.
    #[inline]
    pub(crate) fn class(&self) -> crate::units::ClassIndex {
        crate::units::ClassIndex(self.class.load(Relaxed))
    }

    /// What runs and large blocks note of themselves, each in its own way.
    #[inline(always)]
    pub(crate) fn flags(&self) -> u8 {
        self.flags.load(Relaxed)
    }

    pub(crate) fn set_flags(&self, flags: u8) {
        self.flags.store(flags, Relaxed);
    }

    pub(crate) fn slices(&self) -> crate::units::Slices {
        crate::units::Slices(self.slices.load(Relaxed) as usize)
    }

    pub(crate) fn set_slices(&self, slices: crate::units::Slices) {
        self.slices.store(slices.0 as u32, Relaxed);
    }

    #[inline]
    pub(crate) fn tag(&self) -> OwnerTag {
        OwnerTag(self.tag.load(Relaxed))
    }

    pub(crate) fn set_tag(&self, tag: OwnerTag) {
        self.tag.store(tag.0, Relaxed);
    }

    /// Describes a span that starts here, but for its kind, which is set last.
    pub(crate) fn describe(
        &self,
        class: crate::units::ClassIndex,
        slices: crate::units::Slices,
        tag: OwnerTag,
    ) {
        self.back.store(0, Relaxed);
        self.class.store(class.0, Relaxed);
        self.flags.store(0, Relaxed);
        self.set_slices(slices);
        self.set_tag(tag);
    }

    /// Says what the slice is part of.
    pub(crate) fn set_kind(&self, kind: Kind) {
        self.kind.store(kind as u8, Relaxed);
    }

    /// Makes this the descriptor of a run's slice `back` bytes of descriptors behind its first.
    pub(crate) fn lead_back(&self, back: usize) {
        self.back.store(back as u32, Relaxed);
        self.set_kind(Kind::Inner);
    }

    /// Forgets what the slice was part of.
    pub(crate) fn clear(&self) {
        self.back.store(0, Relaxed);
        self.set_kind(Kind::None);
    }
}
