//! Helper of the tests: scenarios in a program that has bursar installed
//! behind a wrapper, which ends the program at any allocation that is made
//! inside the allocator, through Rust or through C, and keeps its own books.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ffi::c_void;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use allocator_tests::scenarios::{self, Host, exits};
use bursar::Bursar;

struct Guard(Bursar);

#[global_allocator]
static GLOBAL: Guard = Guard(Bursar::new());

/// What is live, in bytes as bursar books them.
static BOOKED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Ends the program if this thread is inside the allocator.
fn stay_out(what: &str) {
    if INSIDE.get() {
        let text = [what, " was called inside the allocator\n"];
        for part in text {
            // SAFETY: the text is valid for reads of its length.
            unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
        }
        std::process::abort();
    }
}

fn inside<R>(what: &str, call: impl FnOnce() -> R) -> R {
    stay_out(what);
    INSIDE.set(true);
    let result = call();
    INSIDE.set(false);
    result
}

fn book(block: *mut u8, size: usize, align: usize) -> *mut u8 {
    if !block.is_null() {
        // SAFETY: the caller's layout was valid, and bursar had such a block.
        let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
        BOOKED.fetch_add(bursar::block_size(layout) as u64, Ordering::Relaxed);
    }
    block
}

fn strike(layout: Layout) {
    BOOKED.fetch_sub(bursar::block_size(layout) as u64, Ordering::Relaxed);
}

// SAFETY: forwards to bursar.
unsafe impl GlobalAlloc for Guard {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised by the caller.
        let block = inside("alloc", || unsafe { self.0.alloc(layout) });
        book(block, layout.size(), layout.align())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised by the caller.
        let block = inside("alloc_zeroed", || unsafe { self.0.alloc_zeroed(layout) });
        book(block, layout.size(), layout.align())
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        strike(layout);
        // SAFETY: as promised by the caller.
        inside("dealloc", || unsafe { self.0.dealloc(block, layout) });
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as promised by the caller.
        let moved = inside("realloc", || unsafe { self.0.realloc(block, layout, size) });
        if !moved.is_null() {
            strike(layout);
        }
        book(moved, size, layout.align())
    }
}

/// The C library's allocator under the names by which it can still be had
/// where a program defines `malloc` itself, as this one does below.
mod libc_own {
    use super::c_void;

    unsafe extern "C" {
        pub fn __libc_malloc(size: usize) -> *mut c_void;
        pub fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
        pub fn __libc_realloc(block: *mut c_void, size: usize) -> *mut c_void;
        pub fn __libc_memalign(align: usize, size: usize) -> *mut c_void;
    }
}

// SAFETY: of the signature and meaning that C gives the name.
#[unsafe(no_mangle)]
extern "C" fn malloc(size: usize) -> *mut c_void {
    stay_out("malloc");
    // SAFETY: any size is permitted.
    unsafe { libc_own::__libc_malloc(size) }
}

// SAFETY: of the signature and meaning that C gives the name.
#[unsafe(no_mangle)]
extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    stay_out("calloc");
    // SAFETY: any size is permitted.
    unsafe { libc_own::__libc_calloc(count, size) }
}

// SAFETY: of the signature and meaning that C gives the name.
#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    stay_out("realloc of C");
    // SAFETY: as promised by the caller.
    unsafe { libc_own::__libc_realloc(block, size) }
}

// SAFETY: of the signature and meaning that C gives the name.
#[unsafe(no_mangle)]
extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    stay_out("aligned_alloc");
    // SAFETY: any size is permitted; the C library rejects a bad alignment.
    unsafe { libc_own::__libc_memalign(align, size) }
}

// SAFETY: of the signature and meaning that C gives the name.
#[unsafe(no_mangle)]
unsafe extern "C" fn posix_memalign(place: *mut *mut c_void, align: usize, size: usize) -> i32 {
    stay_out("posix_memalign");
    // SAFETY: as above.
    let block = unsafe { libc_own::__libc_memalign(align, size) };
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller's place is valid for writes.
    unsafe { place.write(block) };
    0
}

extern "C" fn before_main() {
    exits::early(&GLOBAL);
}

#[used]
// SAFETY: the section holds pointers to functions that the loader calls.
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

fn main() -> ExitCode {
    scenarios::main(&Host {
        heap: &GLOBAL,
        // What the scenario holds is among what the wrapper has seen.
        books: Some(|_| BOOKED.load(Ordering::Relaxed)),
        inside: |call| inside("bursar's interface", call),
        seal: || INSIDE.set(true),
    })
}
