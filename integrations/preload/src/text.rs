//! Text into buffers of the caller's, as `snprintf` does it.

use core::ffi::c_char;
use core::fmt;
use std::io;

/// Writes into the buffer what fits, and counts all.
struct Buffer {
    start: *mut u8,
    /// Bytes of the buffer but for the terminating zero.
    room: usize,
    wanted: usize,
}

impl Buffer {
    fn put(&mut self, bytes: &[u8]) {
        let fits = bytes.len().min(self.room.saturating_sub(self.wanted));
        if fits > 0 {
            // SAFETY: inside the buffer, by the promise of `fill`.
            unsafe {
                self.start
                    .add(self.wanted)
                    .copy_from_nonoverlapping(bytes.as_ptr(), fits);
            }
        }
        self.wanted += bytes.len();
    }
}

impl fmt::Write for Buffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes());
        Ok(())
    }
}

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Fills a buffer of `size` bytes. Returns the length of the whole text without its zero: if that is
/// `size` or more, it was cut off.
///
/// # Safety
/// The buffer may be written; it may be null if `size` is 0.
unsafe fn fill(buffer: *mut c_char, size: usize, write: impl FnOnce(&mut Buffer)) -> usize {
    let mut text = Buffer {
        start: buffer.cast(),
        room: size.saturating_sub(1),
        wanted: 0,
    };
    write(&mut text);
    if size > 0 {
        // SAFETY: inside the buffer, by the caller's promise.
        unsafe { buffer.add(text.wanted.min(text.room)).write(0) };
    }
    text.wanted
}

/// Fills a buffer with a value as text; see [`fill`].
///
/// # Safety
/// As there.
pub(crate) unsafe fn display(buffer: *mut c_char, size: usize, value: &dyn fmt::Display) -> usize {
    let write = |text: &mut Buffer| {
        // Nothing is refused.
        let _ = fmt::Write::write_fmt(text, format_args!("{value}"));
    };
    // SAFETY: the caller's promise.
    unsafe { fill(buffer, size, write) }
}

/// Fills a buffer with a value as JSON; see [`fill`].
///
/// # Safety
/// As there.
pub(crate) unsafe fn json(
    buffer: *mut c_char,
    size: usize,
    value: &impl serde::Serialize,
) -> usize {
    let write = |text: &mut Buffer| {
        // Nothing is refused, and these values have only text for keys.
        let _ = serde_json::to_writer(text, value);
    };
    // SAFETY: the caller's promise.
    unsafe { fill(buffer, size, write) }
}
