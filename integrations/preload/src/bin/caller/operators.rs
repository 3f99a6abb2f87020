//! The operators of C++.

use crate::contents::*;
use crate::family::*;
use crate::is_bursar;
use libc::c_void;
use std::ffi::CStr;
use std::mem::transmute;
use std::ptr::{null, null_mut};

/// The forms of `new` and `delete`, by the names that a compiler gives them.
pub fn operators() {
    type New = unsafe extern "C-unwind" fn(usize) -> *mut c_void;
    type NewAligned = unsafe extern "C-unwind" fn(usize, usize) -> *mut c_void;
    type NewQuiet = unsafe extern "C-unwind" fn(usize, *const c_void) -> *mut c_void;
    type NewAlignedQuiet = unsafe extern "C-unwind" fn(usize, usize, *const c_void) -> *mut c_void;
    type Delete = unsafe extern "C" fn(*mut c_void, usize, usize);
    let find = |name: &CStr| {
        assert!(is_bursar(name), "{name:?}");
        // SAFETY: the name is terminated.
        unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
    };
    let deletes = [
        [
            c"_ZdlPv",
            c"_ZdlPvm",
            c"_ZdlPvRKSt9nothrow_t",
            c"_ZdlPvSt11align_val_t",
        ],
        [
            c"_ZdaPv",
            c"_ZdaPvm",
            c"_ZdaPvRKSt9nothrow_t",
            c"_ZdaPvSt11align_val_t",
        ],
        [
            c"_ZdlPvmSt11align_val_t",
            c"_ZdlPvSt11align_val_tRKSt9nothrow_t",
            c"_ZdaPvmSt11align_val_t",
            c"_ZdaPvSt11align_val_tRKSt9nothrow_t",
        ],
    ];
    // SAFETY: the functions have these types; a delete that takes fewer arguments leaves the others
    // alone.
    unsafe {
        for form in ["w", "a"] {
            let name = |rest: &str| std::ffi::CString::new(format!("_Zn{form}m{rest}")).unwrap();
            let new = transmute::<*mut c_void, New>(find(&name("")));
            let aligned = transmute::<*mut c_void, NewAligned>(find(&name("St11align_val_t")));
            let quiet = transmute::<*mut c_void, NewQuiet>(find(&name("RKSt9nothrow_t")));
            let aligned_quiet = name("St11align_val_tRKSt9nothrow_t");
            let aligned_quiet = transmute::<*mut c_void, NewAlignedQuiet>(find(&aligned_quiet));
            assert!(quiet(1 << 60, null()).is_null());
            assert!(aligned_quiet(1 << 60, 64, null()).is_null());
            for delete in deletes.as_flattened() {
                let delete = transmute::<*mut c_void, Delete>(find(delete));
                let blocks = [
                    new(100),
                    new(0),
                    aligned(100, 256),
                    quiet(100, null()),
                    aligned_quiet(100, 4096, null()),
                ];
                assert!(
                    blocks[2].addr().is_multiple_of(256) && blocks[4].addr().is_multiple_of(4096)
                );
                for (seed, block) in blocks.into_iter().enumerate() {
                    assert!(!block.is_null());
                    fill(block, malloc_usable_size(block), seed as u8);
                    delete(block, 100, 64);
                }
                delete(null_mut(), 0, 0);
            }
        }
    }
}

/// `new` without memory, and without a C++ library to throw: the process ends.
pub fn refused() {
    // SAFETY: the function has this type.
    unsafe {
        let new = libc::dlsym(libc::RTLD_DEFAULT, c"_Znwm".as_ptr());
        transmute::<*mut c_void, extern "C" fn(usize) -> *mut c_void>(new)(1 << 60);
    }
}
