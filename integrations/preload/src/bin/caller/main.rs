//! Calls the `malloc` family as programs in C do. Run by the tests with `libbursar.so` preloaded:
//! `caller <scenario>`; it ends with 0 if all was as it should be.

mod blocks;
mod contents;
mod early;
mod errno;
mod family;
mod operators;
mod processes;

use std::ffi::CStr;

/// All of it is the C library's, or what stands in for it.
#[global_allocator]
static GLOBAL: std::alloc::System = std::alloc::System;

const SCENARIOS: [(&str, fn()); 25] = [
    ("blocks", blocks::blocks),
    ("edges", blocks::edges),
    ("resizing", blocks::resizing),
    ("alignment", blocks::alignment),
    ("figures", blocks::figures),
    ("operators", operators::operators),
    ("refused", operators::refused),
    ("errno", errno::survives),
    ("errno_refused", errno::survives_refusals),
    ("threads", processes::threads),
    ("forks", processes::forks),
    ("streams", processes::streams),
    ("libraries", processes::libraries),
    ("end", processes::end),
    ("end_in_handler", processes::end_in_handler),
    ("free_foreign", || {
        processes::free_at(|_| (&raw const GLOBAL).cast_mut().cast())
    }),
    ("free_small_twice", || processes::free_twice(100)),
    ("free_large_twice", || processes::free_twice(5 << 20)),
    ("free_sized", processes::free_sized),
    ("free_small_as_another", || processes::free_as(100, 300)),
    ("resize_freed", processes::resize_freed),
    ("free_small_twice_apart", || {
        processes::free_twice_apart(100)
    }),
    ("delete_small_as_another", || operators::delete_as(100, 300)),
    ("delete_large_as_another", || {
        operators::delete_as(5 << 20, 300)
    }),
    ("free_inside", || {
        processes::free_at(|block| block.wrapping_byte_add(16))
    }),
];

fn main() {
    assert!(is_bursar(c"malloc"), "libbursar.so is not preloaded");
    let name = std::env::args().nth(1).unwrap_or_default();
    let Some((_, scenario)) = SCENARIOS.iter().find(|known| known.0 == name) else {
        panic!("no scenario is named {name:?}");
    };
    // What hangs is to fail.
    // SAFETY: no handler is set: the process ends.
    unsafe { libc::alarm(600) };
    scenario();
    early::check();
}

/// Whether a function is `libbursar.so`'s.
fn is_bursar(name: &CStr) -> bool {
    // SAFETY: the name is terminated, and `info` may be written.
    unsafe {
        let found = libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr());
        let mut info: libc::Dl_info = std::mem::zeroed();
        libc::dladdr(found, &mut info) != 0
            && CStr::from_ptr(info.dli_fname)
                .to_bytes()
                .ends_with(b"libbursar.so")
    }
}
