//! Memory objects: a file or shared memory under a range of reserved addresses.

use super::call::{Refused, attempt, surely};
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
        // SAFETY: the path is terminated.
        let found = surely(|| unsafe { libc::access(path.as_ptr(), libc::F_OK) });
        if found == 0 {
            return Err(Refused(libc::EEXIST));
        }
        let flags = libc::O_RDWR | libc::O_EXCL | libc::O_CLOEXEC;
        let nameless = in_folder_of(path, |folder| {
            // SAFETY: as above.
            attempt(Call::Object, || unsafe {
                libc::open(folder.as_ptr(), flags | libc::O_TMPFILE, 0o600)
            })
        });
        match nameless {
            // Not every file system knows files without names, nor every kernel.
            Err(Refused(libc::EOPNOTSUPP | libc::EISDIR)) => Self::named(path, flags),
            result => result.map(Object),
        }
    }

    /// The same where a file has a name at first, which is left if the process is killed just then.
    fn named(path: &CStr, flags: i32) -> Result<Object, Refused> {
        // SAFETY: the path is terminated.
        let fd = attempt(Call::Object, || unsafe {
            libc::open(path.as_ptr(), flags | libc::O_CREAT, 0o600)
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

/// Hands the folder of a path to `open`.
fn in_folder_of<T>(
    path: &CStr,
    open: impl FnOnce(&CStr) -> Result<T, Refused>,
) -> Result<T, Refused> {
    let path = path.to_bytes();
    let folder = match path.iter().rposition(|&byte| byte == b'/') {
        None => b".",
        Some(0) => b"/",
        Some(end) => &path[..end],
    };
    let mut room = [0; libc::PATH_MAX as usize];
    // The last byte ends it.
    let Some(place) = room[..libc::PATH_MAX as usize - 1].get_mut(..folder.len()) else {
        return Err(Refused(libc::ENAMETOOLONG));
    };
    place.copy_from_slice(folder);
    let folder = CStr::from_bytes_until_nul(&room).map_err(|_| Refused(libc::ENAMETOOLONG))?;
    open(folder)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(path: &CStr) -> std::vec::Vec<u8> {
        in_folder_of(path, |folder| Ok(folder.to_bytes().to_vec())).unwrap()
    }

    #[test]
    fn the_folder_of_a_path_is_what_comes_before_its_last_name() {
        assert_eq!(folder(c"file"), b".");
        assert_eq!(folder(c"/file"), b"/");
        assert_eq!(folder(c"/a/b/file"), b"/a/b");
        assert_eq!(folder(c"a/file"), b"a");
        let long = std::ffi::CString::new(std::vec![b'/'; 2 * libc::PATH_MAX as usize]).unwrap();
        assert!(in_folder_of(&long, |_| Ok(())).is_err());
    }
}
