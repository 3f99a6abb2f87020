//! What the process is told at its start, and the little it says.

use super::call::attempt;
use super::fault::Call;
use super::output::write_all;
use super::sync::{AtomicUsize, Ordering::Relaxed};
use core::ffi::CStr;
use core::fmt;

/// Bytes of an OS page.
#[inline]
pub(crate) fn page_size() -> usize {
    static PAGE: AtomicUsize = AtomicUsize::new(0);
    match PAGE.load(Relaxed) {
        0 => {
            // SAFETY: no preconditions.
            let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(4096) as usize;
            PAGE.store(size, Relaxed);
            size
        }
        size => size,
    }
}

/// How many processors the process may run on, as it was when this was first asked; at least one.
pub(crate) fn processors() -> usize {
    static PROCESSORS: AtomicUsize = AtomicUsize::new(0);
    match PROCESSORS.load(Relaxed) {
        0 => {
            // SAFETY: a set of bits that is empty, and then the kernel's.
            let count = unsafe {
                let mut set: libc::cpu_set_t = core::mem::zeroed();
                let len = size_of_val(&set);
                let asked = attempt(Call::Ask, || libc::sched_getaffinity(0, len, &raw mut set));
                asked.map_or(1, |_| libc::CPU_COUNT(&set).max(1) as usize)
            };
            PROCESSORS.store(count, Relaxed);
            count
        }
        count => count,
    }
}

/// Some bits that differ from run to run, from what the kernel gave the process at its start.
pub(crate) fn entropy() -> u64 {
    // SAFETY: the kernel's 16 random bytes live as long as the process.
    unsafe {
        let random = libc::getauxval(libc::AT_RANDOM) as *const u64;
        if random.is_null() {
            super::clock::coarse_millis()
        } else {
            random.read_unaligned()
        }
    }
}

/// An environment variable, `None` where it is not set or the program runs with more rights than
/// its caller (setuid).
pub(crate) fn environment(name: &CStr) -> Option<&'static [u8]> {
    // SAFETY: the name is terminated; the value lives until the program changes its environment,
    // and settings are read once, at the first allocation.
    unsafe {
        if libc::getauxval(libc::AT_SECURE) != 0 {
            return None;
        }
        let value = libc::getenv(name.as_ptr());
        if value.is_null() {
            None
        } else {
            Some(CStr::from_ptr(value).to_bytes())
        }
    }
}

/// Whether the C library is not up yet, and knows no environment: the dynamic linker allocates
/// before that.
pub(crate) fn is_early() -> bool {
    unsafe extern "C" {
        static mut environ: *const *const libc::c_char;
    }
    // SAFETY: a word of the C library's.
    unsafe { (&raw const environ).read_volatile().is_null() }
}

/// The soft limit on this process's address space, `None` where there is none.
pub(crate) fn address_space_limit() -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid place for the result.
    let result = attempt(Call::Ask, || unsafe {
        libc::getrlimit(libc::RLIMIT_AS, &mut limit)
    });
    (result.is_ok() && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// A line put together in place, so that it is written whole.
pub(crate) struct Line<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Line<N> {
    pub(crate) const fn new() -> Self {
        Line {
            bytes: [0; N],
            len: 0,
        }
    }

    /// What it says.
    pub(crate) fn text(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }

    /// Writes it to standard error; what did not fit was cut off.
    pub(crate) fn print(&self) {
        // What cannot be written is lost: there is nobody to tell.
        let _ = write_all(libc::STDERR_FILENO, &self.bytes[..self.len]);
    }
}

impl<const N: usize> fmt::Write for Line<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = N - self.len;
        let taken = text.len().min(room);
        self.bytes[self.len..self.len + taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.len += taken;
        Ok(())
    }
}

/// Says why on standard error, and ends the process at once.
pub(crate) fn end_with(text: &str) -> ! {
    let mut line = Line::<512>::new();
    let _ = fmt::Write::write_str(&mut line, text);
    let _ = fmt::Write::write_str(&mut line, "\n");
    line.print();
    // SAFETY: no preconditions.
    unsafe { libc::abort() }
}

/// The same for what is put together for it, cut off where a line ends.
pub(crate) fn end_with_line(text: fmt::Arguments<'_>) -> ! {
    let mut line = Line::<512>::new();
    let _ = fmt::Write::write_fmt(&mut line, text);
    end_with(line.text())
}

/// This process's number.
pub(crate) fn id() -> u32 {
    // SAFETY: no preconditions.
    unsafe { libc::getpid() }.unsigned_abs()
}

/// Where this process's program lies, cut off where the place ends; `None` if that is not known.
pub(crate) fn program(place: &mut [u8]) -> Option<&str> {
    let link = c"/proc/self/exe";
    // SAFETY: the name is terminated, and the place of that size.
    let read = attempt(Call::Ask, || unsafe {
        libc::readlink(link.as_ptr(), place.as_mut_ptr().cast(), place.len()) as libc::c_int
    });
    let length = usize::try_from(read.ok()?).ok()?;
    core::str::from_utf8(&place[..length]).ok()
}
