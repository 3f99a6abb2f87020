//! Memory objects: a file or shared memory under a range of reserved addresses.

use super::call::{Refused, attempt};
use super::fault::Call;
use super::process::page_size;
use core::ffi::{CStr, c_void};
use core::ptr::null_mut;
use memmap2::{MmapOptions, MmapRaw};
use std::io;

/// An open file, not there after `exec`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Object(pub(crate) i32);

/// What lies under shared memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pages {
    /// OS pages.
    Small,
    /// Huge pages that the machine has set aside.
    Huge,
}

impl Object {
    /// A file without a name in the folder of `path`, whose disk space is the object's: nothing is
    /// left of it when the process ends, however that comes. A file of that name must not exist.
    pub(crate) fn file(path: &CStr) -> Result<Object, Refused> {
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
        // SAFETY: the path is terminated.
        let fd = attempt(Call::Object, || unsafe {
            libc::open(path.as_ptr(), flags, 0o600)
        });
        let object = Object(fd?);
        // SAFETY: as above; the name was made just now.
        let unnamed = attempt(Call::Object, || unsafe { libc::unlink(path.as_ptr()) });
        if let Err(refused) = unnamed {
            // It would outlive the process.
            object.close();
            return Err(refused);
        }
        Ok(object)
    }

    /// Shared memory.
    pub(crate) fn shared(pages: Pages) -> Result<Object, Refused> {
        let huge = match pages {
            Pages::Small => 0,
            Pages::Huge => libc::MFD_HUGETLB,
        };
        let flags = libc::MFD_CLOEXEC | huge;
        // SAFETY: the name is terminated.
        let fd = attempt(Call::Object, || unsafe {
            libc::memfd_create(c"bursar pool".as_ptr(), flags)
        });
        fd.map(Object)
    }

    /// Closes the file. Mappings of it stay.
    pub(crate) fn close(self) {
        // SAFETY: no preconditions: an error is of no consequence.
        let _ = attempt(Call::Close, || unsafe { libc::close(self.0) });
    }

    /// Makes it `len` bytes long, all zero, and maps it at `address`, readable and writable and
    /// kept out of forked children.
    ///
    /// # Safety
    /// A range of a reservation of ours that nobody uses.
    pub(crate) unsafe fn map_at(&self, address: usize, len: usize) -> Result<(), Refused> {
        // SAFETY: the file is open.
        attempt(Call::Object, || unsafe {
            libc::ftruncate(self.0, len as libc::off_t)
        })?;
        let start = self.map(len)?;
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let address = address as *mut c_void;
        let moved = attempt(Call::Object, || {
            // SAFETY: the mapping was made just now; the range at `address` is the caller's.
            let got = unsafe { libc::mremap(start, len, len, flags, address) };
            if got == libc::MAP_FAILED { -1 } else { 0 }
        });
        if let Err(refused) = moved {
            // SAFETY: made just now, and used by nobody.
            let _ = attempt(Call::Close, || unsafe { libc::munmap(start, len) });
            return Err(refused);
        }
        // SAFETY: moved there just now.
        attempt(Call::Object, || unsafe {
            libc::madvise(address, len, libc::MADV_DONTFORK)
        })
        .map(|_| ())
    }

    /// Maps `len` bytes of it wherever there is room.
    fn map(&self, len: usize) -> Result<*mut c_void, Refused> {
        let mut start = null_mut();
        attempt(Call::Object, || {
            let mapping: io::Result<MmapRaw> = MmapOptions::new().len(len).map_raw(self.0);
            let Ok(mapping) = mapping else {
                return -1;
            };
            start = mapping.as_mut_ptr().cast();
            core::mem::forget(mapping);
            0
        })?;
        Ok(start)
    }

    /// Sets space aside for a part of the object, so that there is some when it is touched.
    pub(crate) fn set_aside(&self, offset: usize, len: usize) -> Result<(), Refused> {
        let (offset, len) = (offset as libc::off_t, len as libc::off_t);
        // SAFETY: the file is open.
        let result = attempt(Call::Commit, || unsafe {
            libc::fallocate(self.0, 0, offset, len)
        });
        match result {
            // A file system that knows no such thing.
            Err(Refused(libc::EOPNOTSUPP)) => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

/// Gives the pages of a part of a mapped object back, those of the object too. `Ok` means that they
/// read as zero from now on.
///
/// # Safety
/// Whole pages of a mapping made by [`Object::map_at`] whose contents nobody wants.
pub(crate) unsafe fn purge(address: usize, len: usize) -> Result<(), Refused> {
    // SAFETY: the caller's promise.
    attempt(Call::Purge, || unsafe {
        libc::madvise(address as *mut c_void, len, libc::MADV_REMOVE)
    })
    .map(|_| ())
}

/// `len` rounded up to what an object's length must be a multiple of.
pub(crate) fn round_length(len: usize, pages: Pages) -> usize {
    let unit = match pages {
        Pages::Small => page_size(),
        Pages::Huge => HUGE_PAGE,
    };
    len.next_multiple_of(unit)
}

/// Bytes of a huge page where nothing else is asked for, on the machines that this runs on.
const HUGE_PAGE: usize = 2 << 20;
