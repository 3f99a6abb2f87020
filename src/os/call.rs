//! How this layer calls the kernel: every system call is made in here, so that tests can have any of
//! them fail, and none is seen in `errno`. `tests/seam.rs` looks for calls that go past it.

use super::fault::{Call, injected};
use core::ffi::CStr;
use core::fmt;
use libc::c_int;

/// The kernel refused; the system's error number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refused(pub(crate) i32);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0_u8; 128];
        // SAFETY: a buffer of that size; the text is terminated where the call succeeds.
        let known = unsafe { libc::strerror_r(self.0, text.as_mut_ptr().cast(), text.len()) } == 0;
        match CStr::from_bytes_until_nul(&text).map(CStr::to_str) {
            Ok(Ok(text)) if known => f.write_str(text),
            _ => write!(f, "error {}", self.0),
        }
    }
}

/// What the kernel says where tests have it refuse.
const INJECTED: c_int = libc::ENOMEM;

/// Runs `work`, which may change errno, and puts errno back: a free must not change it.
#[inline]
fn keeping_errno<T>(work: impl FnOnce(*mut c_int) -> T) -> T {
    // SAFETY: every thread has its errno.
    unsafe {
        let place = libc::__errno_location();
        let before = *place;
        let result = work(place);
        *place = before;
        result
    }
}

/// Makes a system call that says by a negative result that it is refused, and in errno why. Its
/// result.
#[inline]
pub(super) fn attempt(kind: Call, call: impl FnOnce() -> c_int) -> Result<c_int, Refused> {
    keeping_errno(|errno| {
        let result = if injected(kind) {
            // SAFETY: this thread's errno.
            unsafe { *errno = INJECTED };
            -1
        } else {
            call()
        };
        if result < 0 {
            // SAFETY: as above.
            return Err(Refused(unsafe { *errno }));
        }
        Ok(result)
    })
}

/// Calls a function of the C library that returns why it is refused, or 0.
pub(super) fn attempt_posix(kind: Call, call: impl FnOnce() -> c_int) -> Result<(), Refused> {
    let result = keeping_errno(|_| if injected(kind) { INJECTED } else { call() });
    match result {
        0 => Ok(()),
        errno => Err(Refused(errno)),
    }
}

/// Makes a system call that has no reason to be refused.
#[inline]
pub(super) fn surely<T>(call: impl FnOnce() -> T) -> T {
    keeping_errno(|_| call())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errno() -> &'static mut c_int {
        // SAFETY: this thread's errno, of which there is no other reference.
        unsafe { &mut *libc::__errno_location() }
    }

    #[test]
    fn errno_survives_whatever_the_kernel_says() {
        *errno() = 77;
        let call = || {
            *errno() = libc::EIO;
            -1
        };
        assert_eq!(attempt(Call::Write, call), Err(Refused(libc::EIO)));
        assert_eq!(attempt(Call::Write, || 5), Ok(5));
        let call = || {
            *errno() = libc::EPERM;
            libc::EAGAIN
        };
        assert_eq!(attempt_posix(Call::Hook, call), Err(Refused(libc::EAGAIN)));
        surely(|| *errno() = libc::EIO);
        assert_eq!(*errno(), 77);
    }
}
