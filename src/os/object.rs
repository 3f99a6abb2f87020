//! Memory objects: a file or shared memory under a range of reserved addresses.

use super::fault::{Call, injected};
use super::map::{INJECTED, Refused, keeping_errno};
use super::process::page_size;
use core::ffi::{CStr, c_void};
use memmap2::{MmapOptions, MmapRaw};

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
        let object = Object::opened(|| unsafe { libc::open(path.as_ptr(), flags, 0o600) })?;
        // SAFETY: as above; the name was made just now.
        let _ = keeping_errno(|| unsafe { libc::unlink(path.as_ptr()) });
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
        Object::opened(|| unsafe { libc::memfd_create(c"bursar pool".as_ptr(), flags) })
    }

    fn opened(open: impl FnOnce() -> i32) -> Result<Object, Refused> {
        let mut fd = -1;
        keeping_errno(|| {
            fd = open();
            fd.min(0)
        })?;
        Ok(Object(fd))
    }

    /// Closes the file. Mappings of it stay.
    pub(crate) fn close(self) {
        // SAFETY: no preconditions: an error is of no consequence.
        let _ = keeping_errno(|| unsafe { libc::close(self.0) });
    }

    /// Makes it `len` bytes long, all zero, and maps it at `address`, readable and writable and
    /// kept out of forked children.
    ///
    /// # Safety
    /// A range of a reservation of ours that nobody uses.
    pub(crate) unsafe fn map_at(&self, address: usize, len: usize) -> Result<(), Refused> {
        if injected(Call::Commit) {
            return Err(INJECTED);
        }
        // SAFETY: the file is open.
        keeping_errno(|| unsafe { libc::ftruncate(self.0, len as libc::off_t) })?;
        let mapping: MmapRaw = MmapOptions::new()
            .len(len)
            .map_raw(self.0)
            .map_err(|error| Refused(error.raw_os_error().unwrap_or(libc::EINVAL)))?;
        let start: *mut c_void = mapping.as_mut_ptr().cast();
        core::mem::forget(mapping);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: the mapping was made just now; the range at `address` is the caller's. Where it
        // cannot be moved it is taken away again.
        unsafe {
            let moved = keeping_errno(|| {
                let got = libc::mremap(start, len, len, flags, address as *mut c_void);
                if got == libc::MAP_FAILED { -1 } else { 0 }
            });
            if moved.is_err() {
                let _ = keeping_errno(|| libc::munmap(start, len));
                return moved;
            }
            keeping_errno(|| libc::madvise(address as *mut c_void, len, libc::MADV_DONTFORK))
        }
    }

    /// Sets space aside for a part of the object, so that there is some when it is touched.
    pub(crate) fn set_aside(&self, offset: usize, len: usize) -> Result<(), Refused> {
        if injected(Call::Commit) {
            return Err(INJECTED);
        }
        let (offset, len) = (offset as libc::off_t, len as libc::off_t);
        // SAFETY: the file is open.
        match keeping_errno(|| unsafe { libc::fallocate(self.0, 0, offset, len) }) {
            // A file system that knows no such thing.
            Err(Refused(libc::EOPNOTSUPP)) => Ok(()),
            other => other,
        }
    }
}

/// Gives the pages of a part of a mapped object back, those of the object too. `Ok` means that they
/// read as zero from now on.
///
/// # Safety
/// Whole pages of a mapping made by [`Object::map_at`] whose contents nobody wants.
pub(crate) unsafe fn purge(address: usize, len: usize) -> Result<(), Refused> {
    if injected(Call::Purge) {
        return Err(INJECTED);
    }
    // SAFETY: the caller's promise.
    keeping_errno(|| unsafe { libc::madvise(address as *mut c_void, len, libc::MADV_REMOVE) })
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
