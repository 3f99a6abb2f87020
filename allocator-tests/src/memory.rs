//! What the kernel says about this process's memory, read without allocating.

use std::fs::File;
use std::io::{self, Read};

/// Figures of this process, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Address space.
    pub mapped: u64,
    /// Resident memory, pages of files included.
    pub resident: u64,
    /// Resident memory that no file backs. The code that a test happens to
    /// touch first is not in it, and the heap is.
    pub anonymous: u64,
    /// The most that was ever resident, or since [`forget_peak`].
    pub peak: u64,
}

impl Memory {
    /// The figures now. The counters of `/proc/self/statm` run behind by some
    /// pages for each processor, so the page tables are asked instead.
    ///
    /// # Panics
    /// If `/proc` is not there.
    pub fn now() -> Self {
        let mut buffer = [0; 4096];
        let rollup = read("/proc/self/smaps_rollup", &mut buffer).expect("/proc is mounted");
        let (resident, anonymous) = (field(rollup, "Rss:"), field(rollup, "Anonymous:"));
        let status = read("/proc/self/status", &mut buffer).expect("/proc is mounted");
        Self {
            mapped: field(status, "VmSize:"),
            resident,
            anonymous,
            peak: field(status, "VmHWM:"),
        }
    }

    /// How far `self` has grown beyond `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            mapped: self.mapped.saturating_sub(before.mapped),
            resident: self.resident.saturating_sub(before.resident),
            anonymous: self.anonymous.saturating_sub(before.anonymous),
            peak: self.peak.saturating_sub(before.resident),
        }
    }
}

/// Lets the peak count anew from what is resident now.
///
/// # Errors
/// If the kernel has no such file.
pub fn forget_peak() -> io::Result<()> {
    std::fs::write("/proc/self/clear_refs", "5")
}

/// Physical memory of the machine, in bytes.
///
/// # Panics
/// If `/proc` is not there.
pub fn installed() -> u64 {
    let mut buffer = [0; 4096];
    field(
        read("/proc/meminfo", &mut buffer).expect("/proc is mounted"),
        "MemTotal:",
    )
}

fn read<'b>(path: &str, buffer: &'b mut [u8]) -> io::Result<&'b str> {
    let mut file = File::open(path)?;
    let mut length = 0;
    while let Some(free) = buffer.get_mut(length..).filter(|free| !free.is_empty()) {
        match file.read(free)? {
            0 => break,
            more => length += more,
        }
    }
    std::str::from_utf8(&buffer[..length]).map_err(io::Error::other)
}

/// The value of a line such as `Rss:   132 kB`, in bytes.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|l| l.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or_else(|| panic!("no {name} in {text}")) << 10
}
