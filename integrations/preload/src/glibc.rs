//! What glibc has beyond C and POSIX: figures, settings, and other names of the same functions.

use crate::{blocks, c};
use core::ffi::{c_int, c_void};

/// Gives free memory back to the system. 1 if there was any.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_trim(_pad: usize) -> c_int {
    c_int::from(allocator::purge() > 0)
}

/// Prints the stats table on standard error.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_stats() {
    allocator::raw::print(allocator::stats());
}

/// What the heap holds, in glibc's terms: `arena` is what was taken from the system, `uordblks` what
/// is alive, `fordblks` the rest, `keepcost` what a trim would give back at once. Blocks of spans of
/// their own are `hblks` and `hblkhd`.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo2() -> libc::mallinfo2 {
    let stats = allocator::stats();
    // The last class is that of blocks larger than any.
    let large = stats.classes().last().copied().unwrap_or_default();
    let (alive, resident) = (stats.allocated_bytes, stats.resident_bytes);
    // SAFETY: a structure of numbers.
    let mut info: libc::mallinfo2 = unsafe { core::mem::zeroed() };
    info.arena = resident.saturating_sub(large.allocated_bytes) as usize;
    info.hblks = large.allocated_blocks as usize;
    info.hblkhd = large.allocated_bytes as usize;
    info.uordblks = alive as usize;
    info.fordblks = resident.saturating_sub(alive) as usize;
    info.keepcost = stats.dirty_bytes as usize;
    info
}

/// The same, in numbers that are too small for a large heap.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo() -> libc::mallinfo {
    let wide = mallinfo2();
    let narrow = |value: usize| c_int::try_from(value).unwrap_or(c_int::MAX);
    // SAFETY: a structure of numbers.
    let mut info: libc::mallinfo = unsafe { core::mem::zeroed() };
    info.arena = narrow(wide.arena);
    info.hblks = narrow(wide.hblks);
    info.hblkhd = narrow(wide.hblkhd);
    info.uordblks = narrow(wide.uordblks);
    info.fordblks = narrow(wide.fordblks);
    info.keepcost = narrow(wide.keepcost);
    info
}

/// Accepts the settings that glibc knows, none of which means anything here: 1. 0 for others.
#[unsafe(no_mangle)]
pub extern "C" fn mallopt(parameter: c_int, _value: c_int) -> c_int {
    let known = [
        libc::M_MXFAST,
        libc::M_TRIM_THRESHOLD,
        libc::M_TOP_PAD,
        libc::M_MMAP_THRESHOLD,
        libc::M_MMAP_MAX,
        libc::M_CHECK_ACTION,
        libc::M_PERTURB,
        libc::M_ARENA_TEST,
        libc::M_ARENA_MAX,
    ];
    c_int::from(known.contains(&parameter))
}

/// [`c::malloc`]
#[unsafe(no_mangle)]
pub extern "C" fn __libc_malloc(size: usize) -> *mut c_void {
    c::malloc(size)
}

/// [`c::calloc`]
#[unsafe(no_mangle)]
pub extern "C" fn __libc_calloc(count: usize, size: usize) -> *mut c_void {
    c::calloc(count, size)
}

/// [`c::realloc`]
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __libc_realloc(block: *mut c_void, size: usize) -> *mut c_void {
    blocks::reallocate(block, size)
}

/// [`c::reallocarray`]
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __libc_reallocarray(
    block: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { c::reallocarray(block, count, size) }
}

/// [`c::free`]
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __libc_free(block: *mut c_void) {
    blocks::free(block, "free");
}

/// [`c::memalign`]
#[unsafe(no_mangle)]
pub extern "C" fn __libc_memalign(align: usize, size: usize) -> *mut c_void {
    c::memalign(align, size)
}

/// [`c::valloc`]
#[unsafe(no_mangle)]
pub extern "C" fn __libc_valloc(size: usize) -> *mut c_void {
    c::valloc(size)
}

/// [`c::pvalloc`]
#[unsafe(no_mangle)]
pub extern "C" fn __libc_pvalloc(size: usize) -> *mut c_void {
    c::pvalloc(size)
}

/// [`c::posix_memalign`]
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __posix_memalign(
    place: *mut *mut c_void,
    align: usize,
    size: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { c::posix_memalign(place, align, size) }
}
