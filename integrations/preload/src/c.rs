//! The functions of C and POSIX. Errors and edge cases are glibc's, as its manual has them.
//!
//! Nothing here unwinds. The most frequent ones are `C-unwind` all the same: as `C` each call in them
//! would be guarded against it, and slow paths could not be jumped to.

use crate::blocks::{self, ALIGN, allocate, allocate_aligned, allocate_plain, block_at, fail};
use allocator::raw;
use core::ffi::{c_int, c_void};

/// A block of `size` bytes, of at least one; null with `ENOMEM` if memory cannot be had.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn malloc(size: usize) -> *mut c_void {
    allocate_plain(size)
}

/// A block of `count` times `size` bytes that reads as zero.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn calloc(count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        Some(bytes) if bytes <= raw::SIXTEENS_MAX => {
            let block = allocate_plain(bytes);
            if !block.is_null() {
                // SAFETY: a new block of so many bytes.
                unsafe { block.write_bytes(0, bytes) };
            }
            block
        }
        Some(bytes) => blocks::allocate_zeroed(bytes),
        None => fail(libc::ENOMEM),
    }
}

/// Makes a block `size` bytes long; without one it is `malloc`, and with a size of 0 `free`.
///
/// # Safety
/// `block` is null or a block that is alive.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    blocks::reallocate(block, size)
}

/// `realloc` to `count` times `size` bytes; null with `ENOMEM` if that is no number.
///
/// # Safety
/// As for [`realloc`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(
    block: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    match count.checked_mul(size) {
        Some(bytes) => blocks::reallocate(block, bytes),
        None => fail(libc::ENOMEM),
    }
}

/// Frees a block, or nothing.
///
/// # Safety
/// `block` is null, or a block that is alive and not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn free(block: *mut c_void) {
    blocks::free(block, "free");
}

/// Frees a block that was asked for with that size; C23.
///
/// # Safety
/// As for [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_sized(block: *mut c_void, size: usize) {
    blocks::free_sized(block, size, blocks::ALIGN, true, "free_sized");
}

/// Frees a block that was asked for with that alignment and size; C23.
///
/// # Safety
/// As for [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_aligned_sized(block: *mut c_void, align: usize, size: usize) {
    let align = align.max(blocks::ALIGN);
    blocks::free_sized(block, size, align, false, "free_aligned_sized");
}

/// A block at a multiple of `align`; null with `EINVAL` if that is no power of two.
#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    match align.is_power_of_two() {
        true => allocate_aligned(align, size),
        false => fail(libc::EINVAL),
    }
}

/// The same, by its older name; other alignments are rounded up.
#[unsafe(no_mangle)]
pub extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    allocate_aligned(align, size)
}

/// A block at a multiple of `align`, which must be a power of two and a multiple of a pointer's
/// size: `EINVAL` else, and `ENOMEM`, in `errno` too, if memory cannot be had. `*place` stays then.
///
/// # Safety
/// `place` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(
    place: *mut *mut c_void,
    align: usize,
    size: usize,
) -> c_int {
    if !align.is_power_of_two() || !align.is_multiple_of(size_of::<*mut c_void>()) {
        return libc::EINVAL;
    }
    let block = allocate(size, align.max(ALIGN));
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller's promise.
    unsafe { *place = block };
    0
}

/// A block at a page's start.
#[unsafe(no_mangle)]
pub extern "C" fn valloc(size: usize) -> *mut c_void {
    allocate(size, page())
}

/// Whole pages.
#[unsafe(no_mangle)]
pub extern "C" fn pvalloc(size: usize) -> *mut c_void {
    match size.max(1).checked_next_multiple_of(page()) {
        Some(size) => allocate(size, page()),
        None => fail(libc::ENOMEM),
    }
}

fn page() -> usize {
    // SAFETY: no preconditions.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// Bytes of a block that may be used; 0 for null.
///
/// # Safety
/// `block` is null or a block that is alive.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn malloc_usable_size(block: *mut c_void) -> usize {
    if block.is_null() {
        return 0;
    }
    block_at(block, "malloc_usable_size").size()
}
