//! `operator new` and `delete` of C++, in all forms, under the names that the Itanium ABI gives them
//! where `size_t` is `unsigned long`.
//!
//! Where memory cannot be had the program's new handler is asked until there is none, and then
//! `std::bad_alloc` is thrown by the C++ library, if one is loaded; the forms that do not throw
//! return null.

use crate::blocks::{self, ALIGN, layout};
use allocator::raw;
use core::ffi::{CStr, c_void};
use core::mem::transmute;
use core::ptr::null_mut;

/// `std::nothrow_t const &`
type NoThrow = *const c_void;

/// A function of the C++ library, if it is loaded.
fn find(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name is terminated.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// Asks the new handler to make room. False if there is none. The handler may throw.
fn make_room() -> bool {
    let Some(get) = find(c"_ZSt15get_new_handlerv") else {
        return false;
    };
    type Handler = Option<extern "C-unwind" fn()>;
    // SAFETY: `std::get_new_handler`.
    let get = unsafe { transmute::<*mut c_void, extern "C" fn() -> Handler>(get) };
    match get() {
        Some(handler) => {
            handler();
            true
        }
        None => false,
    }
}

/// Throws `std::bad_alloc`.
#[cold]
fn throw() -> ! {
    if let Some(throw) = find(c"_ZSt17__throw_bad_allocv") {
        // SAFETY: `std::__throw_bad_alloc`.
        unsafe { transmute::<*mut c_void, extern "C-unwind" fn()>(throw)() };
    }
    // SAFETY: no preconditions.
    unsafe { libc::abort() }
}

#[cold]
#[inline(never)]
fn allocate_after_failure(size: usize, align: usize) -> *mut c_void {
    while make_room() {
        let block = layout(size, align).map_or(null_mut(), raw::allocate);
        if !block.is_null() {
            return block.cast();
        }
    }
    null_mut()
}

#[inline]
fn allocate(size: usize, align: usize) -> *mut c_void {
    match layout(size, align).map_or(null_mut(), raw::allocate) {
        block if block.is_null() => allocate_after_failure(size, align),
        block => block.cast(),
    }
}

#[inline]
fn or_throw(block: *mut c_void) -> *mut c_void {
    match block {
        block if block.is_null() => throw(),
        block => block,
    }
}

/// An alignment that C++ asks for.
fn wide(align: usize) -> usize {
    align.max(ALIGN)
}

macro_rules! operators_new {
    ($($name:ident, $aligned:ident, $no_throw:ident, $aligned_no_throw:ident: $what:literal;)*) => {$(
        #[doc = concat!("`operator ", $what, "`")]
        #[unsafe(no_mangle)]
        pub extern "C-unwind" fn $name(size: usize) -> *mut c_void {
            raw::allocate_sixteens(size, |size| {
                or_throw(allocate_after_failure(size, ALIGN)).cast()
            })
            .cast()
        }

        #[doc = concat!("`operator ", $what, "`, aligned")]
        #[unsafe(no_mangle)]
        pub extern "C-unwind" fn $aligned(size: usize, align: usize) -> *mut c_void {
            or_throw(allocate(size, wide(align)))
        }

        #[doc = concat!("`operator ", $what, "`, null where memory cannot be had")]
        #[unsafe(no_mangle)]
        pub extern "C-unwind" fn $no_throw(size: usize, _: NoThrow) -> *mut c_void {
            raw::allocate_sixteens(size, |size| allocate_after_failure(size, ALIGN).cast()).cast()
        }

        #[doc = concat!("`operator ", $what, "`, aligned, null where memory cannot be had")]
        #[unsafe(no_mangle)]
        pub extern "C-unwind" fn $aligned_no_throw(
            size: usize,
            align: usize,
            _: NoThrow,
        ) -> *mut c_void {
            allocate(size, wide(align))
        }
    )*};
}

operators_new! {
    _Znwm, _ZnwmSt11align_val_t, _ZnwmRKSt9nothrow_t, _ZnwmSt11align_val_tRKSt9nothrow_t: "new";
    _Znam, _ZnamSt11align_val_t, _ZnamRKSt9nothrow_t, _ZnamSt11align_val_tRKSt9nothrow_t: "new[]";
}

macro_rules! operators_delete {
    ($($name:ident($($argument:ident: $type:ty),*) $(of $size:ident, $align:expr)?; $what:literal;)*) => {$(
        #[doc = concat!("`operator ", $what, "`")]
        ///
        /// # Safety
        /// The block is null, or alive and not used any more.
        #[unsafe(no_mangle)]
        pub unsafe extern "C-unwind" fn $name(block: *mut c_void $(, $argument: $type)*) {
            operators_delete!(@free block, concat!("operator ", $what) $(, $size, $align)?);
        }
    )*};
    (@free $block:expr, $what:expr) => { blocks::free($block, $what) };
    (@free $block:expr, $what:expr, $size:expr, $align:expr) => {
        blocks::free_sized($block, $size, $align, false, $what)
    };
}

operators_delete! {
    _ZdlPv(); "delete";
    _ZdaPv(); "delete[]";
    _ZdlPvm(size: usize) of size, ALIGN; "delete";
    _ZdaPvm(size: usize) of size, ALIGN; "delete[]";
    _ZdlPvRKSt9nothrow_t(_n: NoThrow); "delete";
    _ZdaPvRKSt9nothrow_t(_n: NoThrow); "delete[]";
    _ZdlPvSt11align_val_t(_align: usize); "delete";
    _ZdaPvSt11align_val_t(_align: usize); "delete[]";
    _ZdlPvmSt11align_val_t(size: usize, align: usize) of size, wide(align); "delete";
    _ZdaPvmSt11align_val_t(size: usize, align: usize) of size, wide(align); "delete[]";
    _ZdlPvSt11align_val_tRKSt9nothrow_t(_align: usize, _n: NoThrow); "delete";
    _ZdaPvSt11align_val_tRKSt9nothrow_t(_align: usize, _n: NoThrow); "delete[]";
}
