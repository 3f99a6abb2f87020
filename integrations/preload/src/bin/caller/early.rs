//! What happens before `main`, and after it.

use crate::family::*;
use std::ffi::c_void;
use std::sync::atomic::{AtomicPtr, Ordering};

static BLOCK: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

extern "C" fn begin() {
    // SAFETY: a hook without arguments.
    unsafe {
        BLOCK.store(malloc(100), Ordering::Relaxed);
        libc::atexit(end);
    }
}

extern "C" fn end() {
    // SAFETY: the block is alive, and the new one is freed at once.
    unsafe {
        free(BLOCK.load(Ordering::Relaxed));
        let last = malloc(1 << 20);
        assert!(!last.is_null());
        free(last);
    }
}

// SAFETY: a function without arguments, in the section of functions called before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;

/// A block of a constructor is one like any other.
pub fn check() {
    // SAFETY: the block is alive.
    let usable = unsafe { malloc_usable_size(BLOCK.load(Ordering::Relaxed)) };
    assert!(usable >= 100);
}
