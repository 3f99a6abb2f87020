//! Blocks for interfaces without layouts.

use allocator::raw::{self, Block, NotABlock};
use core::alloc::Layout;
use core::ffi::c_void;
use core::ptr::null_mut;

/// What C promises for every block that is not asked for with an alignment of its own.
pub(crate) const ALIGN: usize = 16;

/// Sets `errno`.
pub(crate) fn fail(error: libc::c_int) -> *mut c_void {
    // SAFETY: every thread has its errno.
    unsafe { *libc::__errno_location() = error };
    null_mut()
}

/// A layout for `size` bytes, at least one; `None` if no block can be so large.
#[inline]
pub(crate) fn layout(size: usize, align: usize) -> Option<Layout> {
    Layout::from_size_align(size.max(1), align).ok()
}

/// The block, or null with `errno` set.
#[inline]
pub(crate) fn or_fail(block: *mut u8) -> *mut c_void {
    if block.is_null() {
        return fail(libc::ENOMEM);
    }
    block.cast()
}

/// A block of `size` bytes; null with `errno` set if memory cannot be had.
#[inline]
pub(crate) fn allocate(size: usize, align: usize) -> *mut c_void {
    match layout(size, align) {
        Some(layout) => or_fail(raw::allocate(layout)),
        None => fail(libc::ENOMEM),
    }
}

/// A block of `size` bytes at a multiple of [`ALIGN`]; null with `errno` set if memory cannot be had.
#[inline(always)]
pub(crate) fn allocate_plain(size: usize) -> *mut c_void {
    raw::allocate_sixteens(size, |_| fail(libc::ENOMEM).cast()).cast()
}

/// A block of more than a few `size` bytes that reads as zero; null with `errno` set if memory cannot
/// be had.
pub(crate) fn allocate_zeroed(size: usize) -> *mut c_void {
    match layout(size, ALIGN) {
        Some(layout) => or_fail(raw::allocate_zeroed(layout)),
        None => fail(libc::ENOMEM),
    }
}

/// The same as [`allocate`], where the alignment may be anything. As glibc does it, one that is no power of two is
/// rounded up to the next.
pub(crate) fn allocate_aligned(align: usize, size: usize) -> *mut c_void {
    match align.checked_next_power_of_two() {
        Some(align) => allocate(size, align.max(ALIGN)),
        None => fail(libc::EINVAL),
    }
}

/// The block at an address that a program hands back. One that is none ends the process: whatever
/// went wrong, it is not made worse.
#[inline]
pub(crate) fn block_at(address: *mut c_void, function: &str) -> Block {
    match Block::at(address.cast()) {
        Ok(block) => block,
        Err(what) => end(address, function, what),
    }
}

#[cold]
#[inline(never)]
fn end(address: *mut c_void, function: &str, what: NotABlock) -> ! {
    raw::end_with(format_args!("bursar: {function}({address:p}): {what}"))
}

/// Frees what a program hands back, unless it is null. `errno` stays.
#[inline(always)]
pub(crate) fn free(address: *mut c_void, function: &'static str) {
    // SAFETY: the program promises that nobody uses the block any more.
    unsafe { raw::free_small(address.cast(), || free_other(address, function)) };
}

#[cold]
#[inline(never)]
fn free_other(address: *mut c_void, function: &'static str) {
    if !address.is_null() {
        // SAFETY: the program's promise.
        unsafe { block_at(address, function).free() };
    }
}

/// The same for a program that says what the block was asked for with, which the secure profile holds
/// it to. One that was resized may have stayed where it was, more than half used.
#[inline(always)]
pub(crate) fn free_sized(
    address: *mut c_void,
    size: usize,
    align: usize,
    resized: bool,
    function: &'static str,
) {
    if raw::is_secure() {
        return free_held_to(address, size, align, resized, function);
    }
    free(address, function);
}

#[cold]
#[inline(never)]
fn free_held_to(
    address: *mut c_void,
    size: usize,
    align: usize,
    resized: bool,
    function: &'static str,
) {
    if address.is_null() {
        return;
    }
    let block = block_at(address, function);
    let is_of = |layout| {
        block.is_of(layout) || resized && (block.size() / 2 + 1..=block.size()).contains(&size)
    };
    if !layout(size, align).is_some_and(is_of) {
        freed_as_another(address, function, size, &block);
    }
    // SAFETY: as in `free`.
    unsafe { block.free() };
}

#[cold]
#[inline(never)]
fn freed_as_another(address: *mut c_void, function: &str, size: usize, block: &Block) -> ! {
    let found = block.size();
    raw::end_with(format_args!(
        "bursar: {function}({address:p}): freed as a block of {size} bytes, and is one of {found}"
    ))
}

/// Resizes a block that a program hands in; null with `errno` set, and the block as it was, if
/// memory cannot be had.
pub(crate) fn reallocate(address: *mut c_void, size: usize) -> *mut c_void {
    if address.is_null() {
        return allocate_plain(size);
    }
    let block = block_at(address, "realloc");
    if size == 0 {
        // SAFETY: the program's promise.
        unsafe { block.free() };
        return null_mut();
    }
    match layout(size, ALIGN) {
        // SAFETY: the program's promise.
        Some(layout) => or_fail(unsafe { block.resize(layout) }),
        None => fail(libc::ENOMEM),
    }
}
