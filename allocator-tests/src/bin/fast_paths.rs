//! The fast paths as a program sees them, each in a function of its own, for the listing that
//! `tests/listing.rs` compares.

use std::alloc::{GlobalAlloc, Layout};

#[global_allocator]
static GLOBAL: bursar::Bursar = bursar::Bursar::new();

const fn layout(size: usize) -> Layout {
    match Layout::from_size_align(size, 8) {
        Ok(layout) => layout,
        Err(_) => panic!("a valid size"),
    }
}

/// Allocates 64 bytes.
#[unsafe(no_mangle)]
#[inline(never)]
pub fn listed_allocate_64() -> *mut u8 {
    // SAFETY: a layout with a size.
    unsafe { GLOBAL.alloc(layout(64)) }
}

/// Frees 64 bytes.
///
/// # Safety
/// A block of that layout that is not used any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe fn listed_free_64(block: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe { GLOBAL.dealloc(block, layout(64)) }
}

/// Allocates a block whose layout is known at run time only.
///
/// # Safety
/// A layout with a size.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe fn listed_allocate_any(layout: Layout) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { GLOBAL.alloc(layout) }
}

/// Frees a block whose layout is known at run time only.
///
/// # Safety
/// A block of that layout that is not used any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe fn listed_free_any(block: *mut u8, layout: Layout) {
    // SAFETY: the caller's promise.
    unsafe { GLOBAL.dealloc(block, layout) }
}

fn main() {
    // SAFETY: each block is freed once, with its layout.
    unsafe {
        let block = listed_allocate_64();
        listed_free_64(block);
        let any = listed_allocate_any(layout(std::env::args().count() * 100));
        listed_free_any(any, layout(std::env::args().count() * 100));
    }
}
