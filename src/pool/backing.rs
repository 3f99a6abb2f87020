//! What memory a pool of a set size is made of.

use crate::os::map::{self, Ranges, Refused};
use crate::os::object::{self, Object, Pages};
use core::ffi::CStr;

/// What memory a [pool](crate::Pool) is made of.
///
/// The pages of all but [`Memory`](Self::Memory) and [`TransparentHuge`](Self::TransparentHuge) are
/// not there in forked children: what lies in such a pool reads as zero there, and a child that
/// writes to it writes to memory of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Backing<'a> {
    /// Anonymous memory.
    #[default]
    Memory,
    /// Anonymous memory for which the kernel is asked for transparent huge pages.
    TransparentHuge,
    /// Huge pages of 2 MiB that the machine has set aside (`vm.nr_hugepages`), all taken when the
    /// pool is made. None of it is given back before the pool ends.
    HugePages,
    /// A file: the pool lives on disk and may be larger than memory. It is made at this path, where
    /// none may be, and loses its name at once, so that nothing is left of it when the process
    /// ends. Disk space is set aside as it is needed: a full disk is a refused request.
    File(&'a CStr),
    /// Shared memory (`memfd`).
    Shared,
}

/// What a pool notes of its backing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    Memory = 0,
    TransparentHuge = 1,
    HugePages = 2,
    File = 3,
    Shared = 4,
}

impl Kind {
    pub(crate) fn of(number: u8) -> Kind {
        match number {
            1 => Kind::TransparentHuge,
            2 => Kind::HugePages,
            3 => Kind::File,
            4 => Kind::Shared,
            _ => Kind::Memory,
        }
    }

    /// What people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Memory => "memory",
            Kind::TransparentHuge => "transparent huge",
            Kind::HugePages => "huge pages",
            Kind::File => "file",
            Kind::Shared => "shared",
        }
    }

    /// Whether it is mapped as a whole when the pool is made, and kept out of forked children.
    pub(crate) fn is_object(self) -> bool {
        matches!(self, Kind::HugePages | Kind::File | Kind::Shared)
    }

    /// Gives pages back. `Ok` means that they read as zero from now on.
    ///
    /// # Safety
    /// Whole committed pages of a pool of this kind whose contents nobody wants.
    pub(crate) unsafe fn purge(self, address: usize, len: usize) -> Result<(), Refused> {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Kind::Memory | Kind::TransparentHuge => map::purge(address, len),
                Kind::File | Kind::Shared => object::purge(address, len),
                Kind::HugePages => Err(Refused(libc::EOPNOTSUPP)),
            }
        }
    }

    /// Gives pages of several ranges back. Hands address and length of each that reads as zero from
    /// now on to `purged`.
    ///
    /// # Safety
    /// As for [`purge`](Self::purge), for each range.
    pub(crate) unsafe fn purge_ranges(self, ranges: &Ranges, mut purged: impl FnMut(usize, usize)) {
        if matches!(self, Kind::Memory | Kind::TransparentHuge) {
            // SAFETY: the caller's promise.
            return unsafe { map::purge_ranges(ranges, purged) };
        }
        for (address, len) in ranges.iter() {
            // SAFETY: the caller's promise.
            if unsafe { self.purge(address, len) }.is_ok() {
                purged(address, len);
            }
        }
    }
}

impl Backing<'_> {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Backing::Memory => Kind::Memory,
            Backing::TransparentHuge => Kind::TransparentHuge,
            Backing::HugePages => Kind::HugePages,
            Backing::File(_) => Kind::File,
            Backing::Shared => Kind::Shared,
        }
    }

    /// Puts the object of the backing, if it has one, under `len` bytes at `address`.
    ///
    /// # Safety
    /// A range of a reservation that nobody uses.
    pub(super) unsafe fn map(&self, address: usize, len: usize) -> Result<Option<Object>, Refused> {
        let (object, pages) = match self {
            Backing::Memory | Backing::TransparentHuge => return Ok(None),
            Backing::HugePages => (Object::shared(Pages::Huge)?, Pages::Huge),
            Backing::File(path) => (Object::file(path)?, Pages::Small),
            Backing::Shared => (Object::shared(Pages::Small)?, Pages::Small),
        };
        // SAFETY: the caller's promise.
        match unsafe { object.map_at(address, object::round_length(len, pages)) } {
            Ok(()) => Ok(Some(object)),
            Err(refused) => {
                object.close();
                Err(refused)
            }
        }
    }
}
