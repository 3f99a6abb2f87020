//! Text to file descriptors, without the C library's buffers and without allocation, at any moment
//! of the process's life.

use super::call::{Refused, attempt, surely};
use super::fault::Call;
use core::ffi::CStr;
use core::fmt;
use core::mem::zeroed;
use core::ptr::null_mut;

const BUFFER: usize = 1024;

/// Where text goes: a descriptor, behind a buffer, so that lines of several processes stay whole
/// where the kernel keeps writes whole. What is left in the buffer is written on drop.
pub(crate) struct Output {
    descriptor: libc::c_int,
    buffer: [u8; BUFFER],
    filled: usize,
    refused: Option<Refused>,
}

impl Output {
    fn to(descriptor: libc::c_int) -> Output {
        Output {
            descriptor,
            buffer: [0; BUFFER],
            filled: 0,
            refused: None,
        }
    }

    /// Standard error.
    pub(crate) fn stderr() -> Output {
        Output::to(libc::STDERR_FILENO)
    }

    /// A file, made anew or emptied.
    pub(crate) fn create(path: &CStr) -> Result<Output, Refused> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
        // SAFETY: the path is terminated. Unlike the C library's function it is no point at which a
        // thread is cancelled.
        let opened = attempt(Call::Write, || unsafe {
            libc::syscall(
                libc::SYS_openat,
                libc::AT_FDCWD,
                path.as_ptr(),
                flags,
                0o666,
            ) as libc::c_int
        });
        opened.map(Output::to)
    }

    fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.filled == BUFFER {
                self.flush_buffer();
            }
            let taken = bytes.len().min(BUFFER - self.filled);
            self.buffer[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
        }
    }

    fn flush_buffer(&mut self) {
        let filled = core::mem::take(&mut self.filled);
        if self.refused.is_none() {
            self.refused = write_all(self.descriptor, &self.buffer[..filled]).err();
        }
    }

    /// Writes what is left; the first refusal.
    pub(crate) fn finish(mut self) -> Result<(), Refused> {
        self.flush_buffer();
        self.refused.map_or(Ok(()), Err)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.flush_buffer();
        if self.descriptor != libc::STDERR_FILENO {
            // SAFETY: opened by `create`, and closed only here.
            surely(|| unsafe { libc::syscall(libc::SYS_close, self.descriptor) });
        }
    }
}

impl fmt::Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes());
        Ok(())
    }
}

#[cfg(feature = "json")]
impl std::io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.put(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.flush_buffer();
        Ok(())
    }
}

/// Writes all of it, in one call where the kernel takes it so. Unlike the C library's function it is
/// no point at which a thread is cancelled.
pub(super) fn write_all(descriptor: libc::c_int, mut bytes: &[u8]) -> Result<(), Refused> {
    while !bytes.is_empty() {
        // SAFETY: the bytes are alive.
        let written = attempt(Call::Write, || unsafe {
            libc::syscall(libc::SYS_write, descriptor, bytes.as_ptr(), bytes.len()) as libc::c_int
        });
        match written {
            Ok(written) => bytes = &bytes[written as usize..],
            Err(Refused(libc::EINTR)) => {}
            Err(refused) => return Err(refused),
        }
    }
    Ok(())
}

/// While there is one, a reader that is gone and a limit on files are errors for this thread, not
/// signals that end the process.
pub(crate) struct NoSignals {
    kept_back: libc::sigset_t,
    before: libc::sigset_t,
}

impl NoSignals {
    pub(crate) fn new() -> NoSignals {
        // SAFETY: sets of signals, and calls that fill them in. What was pending before is not
        // this thread's doing, and is left alone.
        unsafe {
            let mut pending = zeroed();
            surely(|| libc::sigpending(&mut pending));
            let mut kept_back = zeroed();
            libc::sigemptyset(&mut kept_back);
            for signal in [libc::SIGPIPE, libc::SIGXFSZ] {
                if libc::sigismember(&pending, signal) != 1 {
                    libc::sigaddset(&mut kept_back, signal);
                }
            }
            let mut before = zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, &kept_back, &mut before);
            NoSignals { kept_back, before }
        }
    }
}

impl Drop for NoSignals {
    fn drop(&mut self) {
        let at_once = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: as in `new`. Both signals are sent to the thread that writes, so those that came
        // meanwhile are its own.
        unsafe {
            while surely(|| libc::sigtimedwait(&self.kept_back, null_mut(), &at_once)) > 0 {}
            libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, null_mut());
        }
    }
}
