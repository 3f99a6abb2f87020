//! Reads the process's own figures and writes records of them, without one
//! call to the allocator under test: files are opened beforehand and read with
//! `pread` into buffers on the stack, and lines are put together there too.

use super::ledger;
use super::plan::Phase;
use super::record::{End, Mark, Record, Sample};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Between two samples.
const INTERVAL: Duration = Duration::from_millis(10);

/// What the sampler needs, all of it made before the work begins.
pub struct Sampler {
    output: File,
    statm: File,
    rollup: File,
    status: File,
    page_bytes: u64,
    began: Instant,
    /// Index into [`Phase::ALL`].
    phase: AtomicU8,
    rounds: AtomicU64,
    ended: AtomicBool,
}

impl Sampler {
    /// Opens the files; the clock starts here.
    ///
    /// # Errors
    /// If `/proc` or stdout cannot be opened.
    pub fn new() -> io::Result<Self> {
        let output: OwnedFd = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self {
            output: output.into(),
            statm: File::open("/proc/self/statm")?,
            rollup: File::open("/proc/self/smaps_rollup")?,
            status: File::open("/proc/self/status")?,
            page_bytes: page_bytes(),
            began: Instant::now(),
            phase: AtomicU8::new(0),
            rounds: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        })
    }

    /// Says which phase begins.
    pub fn begin(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    /// Says that a round has been done.
    pub fn advance(&self) {
        self.rounds.fetch_add(1, Relaxed);
    }

    /// Ends [`Self::sample_until_stopped`].
    pub fn stop(&self) {
        self.ended.store(true, Relaxed);
    }

    /// Writes a sample at each interval; for a thread of its own.
    ///
    /// # Errors
    /// If `/proc` cannot be read or nobody reads the records any more.
    pub fn sample_until_stopped(&self) -> io::Result<()> {
        while !self.ended.load(Relaxed) {
            self.sample()?;
            std::thread::sleep(INTERVAL);
        }
        Ok(())
    }

    fn sample(&self) -> io::Result<()> {
        self.emit(&Record::Sample(Sample {
            at_us: self.elapsed_us(),
            phase: Phase::ALL[usize::from(self.phase.load(Relaxed))],
            rounds: self.rounds.load(Relaxed),
            operations: ledger::operations(),
            live_bytes: ledger::live_bytes(),
            resident_bytes: self.resident_bytes()?,
        }))
    }

    /// Writes the state at the end of a phase; exact while the workers wait.
    ///
    /// # Errors
    /// As for [`Self::sample_until_stopped`].
    pub fn mark(&self, phase: Phase) -> io::Result<()> {
        let at_us = self.elapsed_us();
        let usage = Usage::now();
        let mut buffer = [0; 4096];
        let rollup = read(&self.rollup, &mut buffer)?;
        self.emit(&Record::Mark(Mark {
            phase,
            at_us,
            rounds: self.rounds.load(Relaxed),
            operations: ledger::operations(),
            live_bytes: ledger::live_bytes(),
            resident_bytes: field_bytes(rollup, b"Rss:")?,
            lazily_freed_bytes: field_bytes(rollup, b"LazyFree:")?,
            user_us: usage.user_us,
            system_us: usage.system_us,
        }))
    }

    /// Writes the last record.
    ///
    /// # Errors
    /// As for [`Self::sample_until_stopped`].
    pub fn end(&self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        let status = read(&self.status, &mut buffer)?;
        self.emit(&Record::End(End {
            peak_resident_bytes: field_bytes(status, b"VmHWM:")?,
            page_faults: Usage::now().page_faults,
        }))
    }

    fn resident_bytes(&self) -> io::Result<u64> {
        let mut buffer = [0; 256];
        let pages = second_number(read(&self.statm, &mut buffer)?)?;
        Ok(pages * self.page_bytes)
    }

    fn elapsed_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    /// One write of less than `PIPE_BUF` bytes: lines of two threads don't mix.
    fn emit(&self, record: &Record) -> io::Result<()> {
        let mut line = [0; 512];
        let mut rest = &mut line[..];
        serde_json::to_writer(&mut rest, record)?;
        rest.write_all(b"\n")?;
        let unused = rest.len();
        (&self.output).write_all(&line[..line.len() - unused])
    }
}

/// What the kernel has counted for all threads of this process.
struct Usage {
    user_us: u64,
    system_us: u64,
    page_faults: u64,
}

impl Usage {
    fn now() -> Self {
        // SAFETY: all zero is a valid `rusage`, which is numbers only.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a `rusage` of our own. It cannot fail then.
        unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
        let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
        Self {
            user_us: micros(usage.ru_utime),
            system_us: micros(usage.ru_stime),
            page_faults: usage.ru_minflt as u64,
        }
    }
}

fn page_bytes() -> u64 {
    // SAFETY: no memory is involved.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

fn read<'a>(file: &File, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let length = file.read_at(buffer, 0)?;
    Ok(&buffer[..length])
}

/// The bytes of a line such as `Rss:    1234 kB`.
fn field_bytes(text: &[u8], name: &[u8]) -> io::Result<u64> {
    let mut lines = text.split(|&byte| byte == b'\n');
    let line = lines.find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.trim_ascii().strip_suffix(b" kB"));
    kib.and_then(number)
        .map(|kib| kib * 1024)
        .ok_or_else(unreadable)
}

/// The resident pages of `/proc/self/statm`.
fn second_number(text: &[u8]) -> io::Result<u64> {
    let mut words = text.split(|&byte| byte == b' ');
    words.nth(1).and_then(number).ok_or_else(unreadable)
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn unreadable() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    #[test]
    fn fields_are_found_by_name() {
        let text = b"00400000-7fff [rollup]\nRss:            1024 kB\nLazyFree:   0 kB\n";
        assert_eq!(field_bytes(text, b"Rss:").unwrap(), 1 << 20);
        assert_eq!(field_bytes(text, b"LazyFree:").unwrap(), 0);
        assert!(field_bytes(text, b"Pss:").is_err());
        assert_eq!(second_number(b"9 77 3 1 0 5 0\n").unwrap(), 77);
        assert!(second_number(b"9").is_err());
    }

    #[test]
    fn resident_bytes_follow_what_is_touched() {
        let sampler = Sampler::new().unwrap();
        let before = sampler.resident_bytes().unwrap();
        let touched = std::hint::black_box(vec![1_u8; 64 << 20]);
        let after = sampler.resident_bytes().unwrap();
        assert!(after > before + (60 << 20), "{before} {after}");
        drop(touched);
    }

    /// Counts the calls of each thread.
    struct Counting;

    thread_local! {
        static CALLS: Cell<u64> = const { Cell::new(0) };
    }

    // SAFETY: all is left to the system's allocator.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            CALLS.set(CALLS.get() + 1);
            // SAFETY: the caller's promises are handed on.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            CALLS.set(CALLS.get() + 1);
            // SAFETY: the caller's promises are handed on.
            unsafe { System.dealloc(block, layout) }
        }
    }

    #[global_allocator]
    static COUNTING: Counting = Counting;

    #[test]
    fn records_are_made_without_a_call_to_the_allocator() {
        let mut sampler = Sampler::new().unwrap();
        sampler.output = File::options().write(true).open("/dev/null").unwrap();
        let before = CALLS.get();
        sampler.sample().unwrap();
        sampler.mark(Phase::Quiet).unwrap();
        sampler.end().unwrap();
        assert_eq!(CALLS.get(), before);
        drop(std::hint::black_box(Box::new(1)));
        assert_eq!(CALLS.get(), before + 2, "the count works");
    }
}
