//! Mappings: reserving address space, committing it, giving pages back, moving pages.

pub(crate) use super::call::Refused;
use super::call::{attempt, surely};
use super::fault::Call;
use super::process::page_size;
use super::sync::{AtomicBool, Ordering::Relaxed};
use core::ffi::c_void;
use core::ptr::null_mut;

const READ_WRITE: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;

/// `call`, which says by 0 that it was done.
fn done(kind: Call, call: impl FnOnce() -> libc::c_int) -> Result<(), Refused> {
    attempt(kind, call).map(|_| ())
}

fn map_at(
    kind: Call,
    address: usize,
    len: usize,
    protection: i32,
    flags: i32,
) -> Result<(), Refused> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | flags;
    done(kind, || {
        // SAFETY: with MAP_FIXED_NOREPLACE nothing that exists is touched; the one caller that
        // passes MAP_FIXED owns the range.
        let got = unsafe { libc::mmap(address as *mut c_void, len, protection, flags, -1, 0) };
        if got as usize == address {
            0
        } else if got == libc::MAP_FAILED {
            -1
        } else {
            // A kernel older than 4.17 takes the address as a mere hint.
            // SAFETY: `got` was mapped just now with this length.
            unsafe {
                libc::munmap(got, len);
                *libc::__errno_location() = libc::EEXIST;
            }
            -1
        }
    })
}

/// Reserves `len` bytes at `address`: no memory, no access. Fails if anything is mapped there.
pub(crate) fn reserve_at(address: usize, len: usize) -> Result<(), Refused> {
    map_at(
        Call::Reserve,
        address,
        len,
        libc::PROT_NONE,
        libc::MAP_FIXED_NOREPLACE,
    )
}

/// Gives a reservation up.
///
/// # Safety
/// The range was reserved with [`reserve_at`] and is used by nobody.
pub(crate) unsafe fn release(address: usize, len: usize) {
    // SAFETY: the caller's promise.
    let _ = done(Call::Release, || unsafe {
        libc::munmap(address as *mut c_void, len)
    });
}

/// Takes away what a range of a reservation holds, and access to it.
///
/// # Safety
/// The range lies in a reservation of ours, and is used by nobody.
pub(crate) unsafe fn reserve_again(address: usize, len: usize) -> Result<(), Refused> {
    map_at(
        Call::Release,
        address,
        len,
        libc::PROT_NONE,
        libc::MAP_FIXED,
    )
}

/// Makes a reserved range readable and writable. Its pages are zero until first written.
///
/// # Safety
/// The range lies in a reservation of ours, on page boundaries.
pub(crate) unsafe fn commit(address: usize, len: usize) -> Result<(), Refused> {
    // SAFETY: the caller's promise.
    done(Call::Commit, || unsafe {
        libc::mprotect(address as *mut c_void, len, READ_WRITE)
    })
}

/// Gives the pages of a range back. `Ok` means that they read as zero from now on; where the
/// kernel refuses (locked memory), they keep what they hold.
///
/// # Safety
/// Whole committed pages whose contents nobody wants.
pub(crate) unsafe fn purge(address: usize, len: usize) -> Result<(), Refused> {
    let address = address as *mut c_void;
    // SAFETY: the caller's promise.
    done(Call::Purge, || unsafe {
        libc::madvise(address, len, libc::MADV_DONTNEED)
    })
}

/// Whether the kernel has refused guard pages (before Linux 6.13, or in locked memory), so that there
/// may be pages whose protection stands in for them.
static PROTECTED: AtomicBool = AtomicBool::new(false);

/// Takes away what pages hold and, until [`unguard`], access to them. Splits no mapping where the
/// kernel knows guard pages. Where it refuses, the pages stay accessible, and what they hold may stay.
///
/// # Safety
/// Whole committed pages whose contents nobody wants.
pub(crate) unsafe fn guard(address: usize, len: usize) -> Result<(), Refused> {
    let pages = address as *mut c_void;
    // SAFETY: the caller's promise.
    let installed = done(Call::Guard, || unsafe {
        libc::madvise(pages, len, MADV_GUARD_INSTALL)
    });
    if installed.is_ok() {
        return Ok(());
    }
    PROTECTED.store(true, Relaxed);
    // SAFETY: as above.
    unsafe { purge(address, len)? };
    // SAFETY: as above.
    done(Call::Guard, || unsafe {
        libc::mprotect(pages, len, libc::PROT_NONE)
    })
}

/// Gives access back to pages that may be guarded. They read as zero if they were.
///
/// # Safety
/// The range is committed memory of ours.
pub(crate) unsafe fn unguard(address: usize, len: usize) -> Result<(), Refused> {
    let pages = address as *mut c_void;
    // SAFETY: the caller's promise.
    let result = surely(|| unsafe {
        let removed = libc::madvise(pages, len, MADV_GUARD_REMOVE);
        match PROTECTED.load(Relaxed) {
            true => libc::mprotect(pages, len, READ_WRITE),
            false => removed,
        }
    });
    match result {
        0 => Ok(()),
        _ => Err(Refused(libc::ENOMEM)),
    }
}

const MADV_GUARD_INSTALL: libc::c_int = 102;
const MADV_GUARD_REMOVE: libc::c_int = 103;

/// Ranges of pages that are given back together: processors forget what they know of all of them
/// at once, which costs more than all else where several threads run.
pub(crate) struct Ranges {
    items: [libc::iovec; MOST_RANGES],
    len: usize,
}

/// As many as there are spans in the bits of a word.
const MOST_RANGES: usize = u64::BITS as usize / 2;

impl Ranges {
    pub(crate) fn new() -> Ranges {
        let nothing = libc::iovec {
            iov_base: null_mut(),
            iov_len: 0,
        };
        Ranges {
            items: [nothing; MOST_RANGES],
            len: 0,
        }
    }

    /// Adds `len` bytes at `address`, at most one range for every other bit of a word.
    pub(crate) fn add(&mut self, address: usize, len: usize) {
        self.items[self.len] = libc::iovec {
            iov_base: address as *mut c_void,
            iov_len: len,
        };
        self.len += 1;
    }

    /// Address and length of each, in the order in which they were added.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, usize)> {
        let items = self.items[..self.len].iter();
        items.map(|item| (item.iov_base as usize, item.iov_len))
    }

    /// Bytes of all.
    pub(crate) fn bytes(&self) -> usize {
        self.iter().map(|(_, len)| len).sum()
    }
}

/// Whether the kernel has not refused yet to purge several ranges in one call (Linux 6.14).
static TOGETHER: AtomicBool = AtomicBool::new(true);

/// The calling process, for system calls that take a descriptor of one.
const SELF: libc::c_int = -10_000;

/// Gives the pages of several ranges back. Hands address and length of each that reads as zero from
/// now on to `purged`; where the kernel refuses, they keep what they hold.
///
/// # Safety
/// As for [`purge`], for each range.
pub(crate) unsafe fn purge_ranges(ranges: &Ranges, mut purged: impl FnMut(usize, usize)) {
    let items = &ranges.items[..ranges.len];
    let mut next = 0;
    while next < items.len() {
        let rest = &items[next..];
        let several = rest.len() > 1 && TOGETHER.load(Relaxed);
        // SAFETY: the caller's promise; of no ranges, none is purged.
        let bytes = unsafe { purge_together(if several { rest } else { &[] }) };
        let mut left = bytes;
        while let Some(item) = items.get(next).filter(|item| item.iov_len <= left) {
            purged(item.iov_base as usize, item.iov_len);
            left -= item.iov_len;
            next += 1;
        }
        // The kernel stops at a range that it refuses, and may know no such call at all.
        if let Some(item) = items.get(next) {
            let (address, len) = (item.iov_base as usize, item.iov_len);
            // SAFETY: the caller's promise.
            if unsafe { purge(address, len) }.is_ok() {
                purged(address, len);
                if several && bytes == 0 {
                    TOGETHER.store(false, Relaxed);
                }
            }
            next += 1;
        }
    }
}

/// Purges ranges in one call, up to the first that the kernel refuses. Returns the bytes of those
/// that it purged.
///
/// # Safety
/// As for [`purge`], for each range.
unsafe fn purge_together(items: &[libc::iovec]) -> usize {
    if items.is_empty() {
        return 0;
    }
    let mut bytes = 0;
    let _ = attempt(Call::Purge, || {
        // SAFETY: the caller's promise.
        let result = unsafe {
            libc::syscall(
                libc::SYS_process_madvise,
                SELF,
                items.as_ptr(),
                items.len(),
                libc::MADV_DONTNEED,
                0,
            )
        };
        bytes = result.max(0) as usize;
        result.min(0) as libc::c_int
    });
    bytes
}

/// Asks for huge pages in a range, or for none even where the system gives them unasked.
///
/// # Safety
/// A range of ours.
pub(crate) unsafe fn advise_huge(address: usize, len: usize, wanted: bool) {
    let advice = if wanted {
        libc::MADV_HUGEPAGE
    } else {
        libc::MADV_NOHUGEPAGE
    };
    // SAFETY: the caller's promise; a refusal changes nothing.
    let _ = done(Call::Advise, || unsafe {
        libc::madvise(address as *mut c_void, len, advice)
    });
}

/// Bytes of a range's pages that are resident. A system call for each 16 MiB.
///
/// # Safety
/// A committed range of the caller's, from a page boundary on.
pub(crate) unsafe fn resident_bytes(address: usize, len: usize) -> usize {
    const PAGES: usize = 4096;
    let mut states = [0_u8; PAGES];
    let mut resident = 0;
    for start in (0..len).step_by(PAGES * page_size()) {
        let part = (len - start).min(PAGES * page_size());
        // SAFETY: a part of the range; the kernel writes a byte for each page.
        let looked = done(Call::Ask, || unsafe {
            libc::mincore((address + start) as *mut c_void, part, states.as_mut_ptr())
        });
        let states = &states[..part.div_ceil(page_size())];
        if looked.is_ok() {
            resident += states.iter().filter(|&state| state & 1 == 1).count();
        }
    }
    resident * page_size()
}

/// Moves the pages of one range under another; the old range stays mapped and reads as zero.
///
/// # Safety
/// Two committed ranges of the caller's on page boundaries that do not overlap; what the new one
/// held is lost.
pub(crate) unsafe fn move_pages(old: usize, new: usize, len: usize) -> Result<(), Refused> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
    done(Call::Remap, || {
        // SAFETY: the caller's promise.
        let got = unsafe { libc::mremap(old as *mut c_void, len, len, flags, new as *mut c_void) };
        if got == libc::MAP_FAILED { -1 } else { 0 }
    })
}

/// Maps a range afresh, so that it merges with its neighbours again after pages were moved into
/// it. It reads as zero. `huge` is what was advised for the neighbours.
///
/// # Safety
/// A committed range of the caller's whose contents nobody wants.
pub(crate) unsafe fn map_afresh(address: usize, len: usize, huge: bool) -> Result<(), Refused> {
    map_at(Call::Remap, address, len, READ_WRITE, libc::MAP_FIXED)?;
    // SAFETY: mapped just now.
    unsafe { advise_huge(address, len, huge) };
    Ok(())
}

/// After a refusal to map or move pages into a range: the kernel may have unmapped it first. Makes
/// sure that it is mapped.
///
/// # Safety
/// A range of the caller's that was committed before.
pub(crate) unsafe fn mend(address: usize, len: usize) -> Result<(), Refused> {
    // Changing what is mapped as it should be changes nothing; a hole is an error.
    // SAFETY: the caller's promise.
    let whole = done(Call::Mend, || unsafe {
        libc::mprotect(address as *mut c_void, len, READ_WRITE)
    });
    whole.or_else(|_| {
        map_at(
            Call::Mend,
            address,
            len,
            READ_WRITE,
            libc::MAP_FIXED_NOREPLACE,
        )
    })
}

/// Memory for our own records, for the life of the process, with an inaccessible page at either
/// end so that overruns of other mappings do not reach it. `None` if the kernel refuses.
pub(crate) fn metadata(len: usize) -> Option<*mut u8> {
    let page = super::process::page_size();
    let mut start = null_mut();
    let mapped = attempt(Call::Metadata, || {
        let Ok(mut mapping) = memmap2::MmapMut::map_anon(len + 2 * page) else {
            return -1;
        };
        start = mapping.as_mut_ptr();
        core::mem::forget(mapping);
        0
    });
    mapped.ok()?;
    for guard in [start, start.wrapping_add(page + len)] {
        // SAFETY: a page of the mapping, which nobody has seen; where the kernel refuses, it is
        // merely unused.
        let _ = done(Call::Guard, || unsafe {
            libc::mprotect(guard.cast(), page, libc::PROT_NONE)
        });
    }
    Some(start.wrapping_add(page))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Alternate pages go and the others stay, where the kernel takes all ranges at once, where it
    /// knows no such call, and where it refuses one of them.
    #[test]
    fn ranges_are_purged_together_or_one_by_one() {
        let page = super::super::process::page_size();
        let pages = 2 * MOST_RANGES;
        let start = metadata(pages * page).unwrap();
        for (together, locked) in [
            (true, None),
            (false, None),
            (true, Some(0)),
            (true, Some(6)),
        ] {
            TOGETHER.store(together, Relaxed);
            // SAFETY: the mapping is this test's.
            unsafe { start.write_bytes(7, pages * page) };
            if let Some(locked) = locked {
                // SAFETY: as above.
                let result = unsafe { libc::mlock(start.add(locked * page).cast(), page) };
                assert_eq!(result, 0, "a page may be locked");
            }
            let mut ranges = Ranges::new();
            for first in (0..pages).step_by(2) {
                ranges.add(start.addr() + first * page, page);
            }
            assert_eq!(ranges.bytes(), pages / 2 * page);
            let mut purged = 0;
            // SAFETY: as above.
            unsafe { purge_ranges(&ranges, |_, len| purged += len) };
            assert_eq!(
                purged,
                ranges.bytes() - page * usize::from(locked.is_some())
            );
            for number in 0..pages {
                let stays = number % 2 == 1 || locked == Some(number);
                // SAFETY: as above.
                let byte = unsafe { *start.add(number * page) };
                assert_eq!(byte, if stays { 7 } else { 0 }, "page {number}");
            }
            if let Some(locked) = locked {
                // SAFETY: as above.
                unsafe { libc::munlock(start.add(locked * page).cast(), page) };
            }
        }
    }
}
