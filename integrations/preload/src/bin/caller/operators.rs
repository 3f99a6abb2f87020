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
            for name in deletes.as_flattened() {
                let takes_align = name.to_bytes().ends_with(b"align_val_t")
                    || name.to_bytes().ends_with(b"align_val_tRKSt9nothrow_t");
                let delete = transmute::<*mut c_void, Delete>(find(name));
                let blocks = match takes_align {
                    true => [
                        (aligned(100, 256), 100, 256),
                        (aligned_quiet(100, 4096, null()), 100, 4096),
                        (aligned(300_000, 64), 300_000, 64),
                    ],
                    false => [
                        (new(100), 100, 0),
                        (new(0), 0, 0),
                        (quiet(300_000, null()), 300_000, 0),
                    ],
                };
                for (seed, (block, size, align)) in blocks.into_iter().enumerate() {
                    assert!(!block.is_null());
                    assert!(align == 0 || block.addr().is_multiple_of(align));
                    fill(block, malloc_usable_size(block), seed as u8);
                    delete(block, size, align);
                }
                delete(null_mut(), 0, 0);
            }
        }
    }
}

/// Deletes a block as one of another size.
pub fn delete_as(size: usize, told: usize) {
    type Delete = unsafe extern "C" fn(*mut c_void, usize);
    assert!(is_bursar(c"_ZdlPvm"));
    // SAFETY: the function has this type; the rest is not sound, which is what is tested.
    unsafe {
        let delete = libc::dlsym(libc::RTLD_DEFAULT, c"_ZdlPvm".as_ptr());
        transmute::<*mut c_void, Delete>(delete)(libc::malloc(size), told);
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
