//! What blocks hold, and what `errno` says.

use libc::{c_int, c_void};

pub fn errno() -> c_int {
    // SAFETY: every thread has its errno.
    unsafe { *libc::__errno_location() }
}

pub fn set_errno(value: c_int) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = value };
}

/// Asserts that nothing came, and why.
#[track_caller]
pub fn refused_with(block: *mut c_void, error: c_int) {
    assert!(block.is_null());
    assert_eq!(errno(), error);
    set_errno(0);
}

/// Bytes from a seed.
pub fn fill(block: *mut c_void, len: usize, seed: u8) {
    for at in 0..len {
        // SAFETY: the caller's block is that long.
        unsafe { block.cast::<u8>().add(at).write(seed ^ at as u8) };
    }
}

#[track_caller]
pub fn expect(block: *mut c_void, len: usize, seed: u8) {
    for at in 0..len {
        // SAFETY: the caller's block is that long.
        let byte = unsafe { block.cast::<u8>().add(at).read() };
        assert_eq!(byte, seed ^ at as u8, "byte {at} of {len}");
    }
}
