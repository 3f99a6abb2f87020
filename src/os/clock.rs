//! A coarse monotonic clock: read at slow paths, where a tick's precision is enough.

/// Milliseconds since some fixed moment. A read of a page shared with the kernel, no system call.
#[inline]
pub(crate) fn coarse_millis() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for the result.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}
