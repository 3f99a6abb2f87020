//! Memory for the allocator's own records: arenas, bins, ledgers, side arrays.
//!
//! Records are type-stable: one that is given back is handed out again only as a record of the
//! same size, and its memory is never unmapped. A stale pointer to one is therefore still a
//! pointer to a record of that kind, which the lock-free readers rely on.

use crate::os::lock::Lock;
use crate::os::map;
use crate::os::sync::{AtomicU64, Ordering::Relaxed};
use crate::units::round_up;
use core::ptr::{NonNull, null_mut};

/// What a mapping for records holds, but for larger records. Only touched pages count.
const STEP: usize = 256 << 10;
/// Records are aligned to two cache lines, which prefetchers fetch as a pair.
const ALIGN: usize = 128;
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

/// Bytes mapped for records, tables included.
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
/// of that size, or zero. `None` if the kernel refuses.
pub(crate) fn allocate(size: usize) -> Option<NonNull<u8>> {
    let size = round_up(size, ALIGN);
    let mut room = ROOM.lock();
    if let Some(free) = room.free.iter_mut().find(|free| free.size == size)
        && let Some(record) = NonNull::new(free.first)
    {
        // SAFETY: records on the list are free and hold their link.
        free.first = unsafe { record.as_ref().next };
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
        // SAFETY: the record is the caller's to give, large enough for a link and aligned.
        unsafe { record.write(FreeRecord { next: list.first }) };
        list.first = record.as_ptr();
    }
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
}
