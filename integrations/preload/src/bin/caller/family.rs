//! Each function as the linker finds it: the compiler knows these names, and leaves calls out.

use libc::{c_int, c_void, size_t};
use std::hint::black_box;

macro_rules! functions {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {$(
        pub unsafe fn $name($($argument: $type),*) $(-> $result)? {
            unsafe extern "C" {
                fn $name($($argument: $type),*) $(-> $result)?;
            }
            let function = $name as unsafe extern "C" fn($($type),*) $(-> $result)?;
            // SAFETY: the caller's promise.
            unsafe { black_box(function)($($argument),*) }
        }
    )*};
}

functions! {
    malloc(size: size_t) -> *mut c_void;
    calloc(count: size_t, size: size_t) -> *mut c_void;
    realloc(block: *mut c_void, size: size_t) -> *mut c_void;
    reallocarray(block: *mut c_void, count: size_t, size: size_t) -> *mut c_void;
    free(block: *mut c_void);
    memalign(align: size_t, size: size_t) -> *mut c_void;
    aligned_alloc(align: size_t, size: size_t) -> *mut c_void;
    posix_memalign(place: *mut *mut c_void, align: size_t, size: size_t) -> c_int;
    valloc(size: size_t) -> *mut c_void;
    pvalloc(size: size_t) -> *mut c_void;
    malloc_usable_size(block: *mut c_void) -> size_t;
    malloc_trim(pad: size_t) -> c_int;
    malloc_stats();
    mallopt(parameter: c_int, value: c_int) -> c_int;
    mallinfo2() -> libc::mallinfo2;
}
