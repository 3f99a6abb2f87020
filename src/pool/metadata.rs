//! Memory for the allocator's own records: arenas, bins, ledgers, side arrays.
//!
//! Records are type-stable: one that is given back is handed out again only as a record of the
//! same size, and its memory is never unmapped. A stale pointer to one is therefore still a
//! pointer to a record of that kind, which the lock-free readers rely on.
//!
//! Of a large record that nobody has had for a while only the first page stays: those are side
//! arrays, of which there may have been many at once.

use crate::os::lock::Lock;
use crate::os::map;
use crate::os::process::page_size;
use crate::os::sync::{AtomicU64, Ordering::Relaxed};
use crate::units::round_up;
use core::ptr::{NonNull, null_mut};

/// What a mapping for records holds, but for larger records. Only touched pages count.
const STEP: usize = 256 << 10;
/// Records are aligned to two cache lines, which prefetchers fetch as a pair.
const ALIGN: usize = 128;
/// Pages of a record from which on they are given back while it is free.
const LEAST_PAGES: usize = 4;
/// Distinct record sizes that can be given back; arenas, bins, ledger tables, one side array a
/// size class.
const SIZES: usize = 96;

pub(super) struct Room {
    next: *mut u8,
    left: usize,
    free: [FreeRecords; SIZES],
}

#[derive(Clone, Copy)]
struct FreeRecords {
    size: usize,
    first: *mut FreeRecord,
}

struct FreeRecord {
    next: *mut FreeRecord,
    /// Bytes that were given back since it is free.
    purged: usize,
    /// It was free when [`purge`] last came by.
    is_idle: bool,
}

impl FreeRecord {
    /// The whole pages of a free record of `size` bytes behind this head: address and length.
    fn pages(&self, size: usize) -> (usize, usize) {
        let start = core::ptr::from_ref(self).addr();
        let first = round_up(start + size_of::<FreeRecord>(), page_size());
        let end = (start + size) & !(page_size() - 1);
        (first, end.saturating_sub(first))
    }
}

// SAFETY: the pointers are to memory that only the lock's holder reaches.
unsafe impl Send for Room {}

pub(super) static ROOM: Lock<Room> = Lock::new(Room {
    next: null_mut(),
    left: 0,
    free: [FreeRecords {
        size: 0,
        first: null_mut(),
    }; SIZES],
});
static MAPPED: AtomicU64 = AtomicU64::new(0);

/// Bytes mapped for records, tables included, without what free records have given back.
pub(crate) fn mapped_bytes() -> u64 {
    MAPPED.load(Relaxed)
}

/// Counts table memory that was committed elsewhere.
pub(super) fn count_mapped(bytes: usize) {
    MAPPED.fetch_add(bytes as u64, Relaxed);
}

/// Counts table memory that is not used any more.
pub(super) fn count_unmapped(bytes: usize) {
    MAPPED.fetch_sub(bytes as u64, Relaxed);
}

/// Memory for a record of `size` bytes, aligned to 128. Its contents are those of the last record
/// of that size, or zero in part or all. `None` if the kernel refuses.
pub(crate) fn allocate(size: usize) -> Option<NonNull<u8>> {
    let size = round_up(size, ALIGN);
    let mut room = ROOM.lock();
    if let Some(free) = room.free.iter_mut().find(|free| free.size == size)
        && let Some(record) = NonNull::new(free.first)
    {
        // SAFETY: records on the list are free and hold their head.
        let head = unsafe { record.as_ref() };
        free.first = head.next;
        count_mapped(head.purged);
        return Some(record.cast());
    }
    if room.left < size {
        let len = round_up(size, STEP);
        room.next = map::metadata(len)?;
        room.left = len;
        count_mapped(len);
    }
    let record = room.next;
    room.next = record.wrapping_add(size);
    room.left -= size;
    NonNull::new(record)
}

/// Takes a record back for others of its size.
///
/// # Safety
/// It came from [`allocate`] with this size, and nobody writes to it any more.
pub(crate) unsafe fn release(record: NonNull<u8>, size: usize) {
    let size = round_up(size, ALIGN);
    let mut room = ROOM.lock();
    let list = room
        .free
        .iter_mut()
        .find(|free| free.size == size || free.size == 0);
    // With every list taken by another size the record is merely not used again.
    if let Some(list) = list {
        let record = record.cast::<FreeRecord>();
        list.size = size;
        let head = FreeRecord {
            next: list.first,
            purged: 0,
            is_idle: false,
        };
        // SAFETY: the record is the caller's to give, large enough for a head and aligned.
        unsafe { record.write(head) };
        list.first = record.as_ptr();
    }
}

/// Gives pages of free records back: of those that were free when this was last called too, or of
/// `all`. Returns the bytes.
pub(crate) fn purge(all: bool) -> u64 {
    let least = LEAST_PAGES * page_size();
    let mut bytes = 0;
    let room = ROOM.lock();
    for list in room.free.iter().filter(|list| list.size >= least) {
        let mut next = list.first;
        // SAFETY: records on the list are free, hold their head, and are reached under the lock only.
        while let Some(head) = unsafe { next.as_mut() } {
            if head.purged == 0 && (all || head.is_idle) {
                let (first, len) = head.pages(list.size);
                // SAFETY: pages of a free record, which are mapped, and behind its head.
                if unsafe { map::purge(first, len) }.is_ok() {
                    head.purged = len;
                    bytes += len as u64;
                }
            }
            head.is_idle = true;
            next = head.next;
        }
    }
    count_unmapped(bytes as usize);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_aligned_and_come_back_by_size() {
        let a = allocate(3000).unwrap();
        let b = allocate(200).unwrap();
        assert_eq!(a.as_ptr() as usize % ALIGN, 0);
        assert_eq!(b.as_ptr() as usize % ALIGN, 0);
        // SAFETY: nobody uses it.
        unsafe { release(a, 3000) };
        let c = allocate(201).unwrap();
        assert_ne!(c, a, "a record of another size does not take its place");
        assert!(mapped_bytes() >= 3000);
    }

    /// What was in a free record is gone, but for its first page, once it was seen free twice, or at
    /// once if everything is purged.
    #[test]
    fn what_is_free_for_long_gives_its_pages_back() {
        // Of a size that nothing else has, and the last one freed is the next to be had.
        let size = 9 * page_size() + 384;
        let first = allocate(size).unwrap();
        for purges in [&[false, false][..], &[true]] {
            // SAFETY: a record of that size, nobody else's.
            unsafe {
                first.as_ptr().write_bytes(1, size);
                release(first, size);
            }
            purges.iter().for_each(|&all| _ = purge(all));
            assert_eq!(allocate(size), Some(first));
            // SAFETY: as above; a record's bytes are initialised.
            let bytes = unsafe { core::slice::from_raw_parts(first.as_ptr(), size) };
            let zero = bytes.iter().filter(|&&byte| byte == 0).count();
            assert!(zero >= 7 * page_size(), "{zero} bytes were given back");
        }
        // SAFETY: nobody uses it.
        unsafe { release(first, size) };
    }
}
