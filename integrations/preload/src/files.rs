//! Forks of programs whose threads use the C library's streams.
//!
//! Who flushes all streams holds the list of open ones and waits for one, whose user may wait for
//! memory. `fork` takes that list after the hooks of `pthread_atfork`, so a thread that forks would
//! wait for the list with the allocator's locks held, and the three for each other. Here the list is
//! taken before those locks, as the C library does it with its own allocator's; it may be taken
//! twice.

use core::ffi::{CStr, c_char, c_void};
use core::mem::transmute;
use std::sync::OnceLock;

/// What the C library has for its list.
struct List {
    take: extern "C" fn(),
    give: extern "C" fn(),
    /// Not zero while the process has one thread: then `fork` leaves the list alone.
    alone: *const c_char,
}

// SAFETY: functions, and a byte of the C library's that is only read.
unsafe impl Send for List {}
// SAFETY: as above.
unsafe impl Sync for List {}

static LIST: OnceLock<List> = OnceLock::new();

/// Has forks take the list first. Called when the allocator has registered its own hooks, since the
/// last registered runs first.
pub(crate) fn begin() {
    let Some(list) = find() else {
        return;
    };
    if LIST.set(list).is_ok() {
        // SAFETY: the hooks are functions of this library, which is never unloaded.
        unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), None) };
    }
}

fn find() -> Option<List> {
    let symbol = |name: &CStr| -> Option<*mut c_void> {
        // SAFETY: the name is terminated.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        (!found.is_null()).then_some(found)
    };
    let function = |name| {
        // SAFETY: these have no arguments and no result.
        symbol(name).map(|found| unsafe { transmute::<*mut c_void, extern "C" fn()>(found) })
    };
    Some(List {
        take: function(c"_IO_list_lock")?,
        give: function(c"_IO_list_unlock")?,
        alone: symbol(c"__libc_single_threaded")?.cast(),
    })
}

fn list_of_several_threads() -> Option<&'static List> {
    // SAFETY: a byte of the C library's.
    let alone = |list: &&List| unsafe { list.alone.read_volatile() } != 0;
    LIST.get().filter(|list| !alone(list))
}

unsafe extern "C" fn before_fork() {
    if let Some(list) = list_of_several_threads() {
        (list.take)();
    }
}

/// In the parent. In the child of several threads the C library makes the list anew.
unsafe extern "C" fn after_fork() {
    if let Some(list) = list_of_several_threads() {
        (list.give)();
    }
}
