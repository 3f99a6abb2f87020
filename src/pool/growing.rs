//! The pool that grows as the kernel lets it, and what every pool counts.

use super::metadata;
use super::region::{REGION, REGIONS, Region};
use crate::os::lock::{Guard, Lock};
use crate::os::map::Refused;
use crate::os::process::page_size;
use crate::os::sync::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, Ordering::Relaxed};
use core::fmt;

/// Why an allocation failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AllocFailure {
    /// The owner is at its hard limit, and the thread said that it can take a refusal.
    Limit {
        /// The limit.
        limit: u64,
        /// Bytes that were to be added.
        bytes: u64,
    },
    /// The request is larger than the largest span that a region can hold.
    TooLarge {
        /// Bytes that were asked for.
        bytes: u64,
    },
    /// The kernel reserved no more address space.
    AddressSpace {
        /// The system's error number.
        errno: i32,
    },
    /// The kernel did not make reserved address space usable (a limit, or overcommit is off).
    Commit {
        /// The system's error number.
        errno: i32,
    },
    /// No memory for the allocator's own records.
    Metadata,
}

impl fmt::Display for AllocFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AllocFailure::Limit { limit, bytes } => {
                write!(f, "{bytes} bytes more would pass the hard limit of {limit}")
            }
            AllocFailure::TooLarge { bytes } => {
                write!(f, "{bytes} bytes are more than a region holds")
            }
            AllocFailure::AddressSpace { errno } => {
                write!(
                    f,
                    "the kernel reserved no more address space (errno {errno})"
                )
            }
            AllocFailure::Commit { errno } => {
                write!(f, "the kernel refused to commit memory (errno {errno})")
            }
            AllocFailure::Metadata => write!(f, "no memory for the allocator's own records"),
        }
    }
}

impl core::error::Error for AllocFailure {}

/// A source of slices.
pub(crate) struct Pool {
    regions: [Region; REGIONS],
    made: AtomicU32,
    /// Held while regions and chunks are added and while spans across chunks are claimed.
    pub(crate) growth: Lock<()>,
    /// Bytes of slices that a new region is to have room for.
    region_bytes: AtomicUsize,
    huge_pages: AtomicBool,
    pub(crate) counts: Counts,
}

/// What a pool has given out, in slices; each is exact at quiescence.
pub(crate) struct Counts {
    /// Slices that belong to runs and spans.
    pub(crate) used: AtomicU64,
    /// Free slices that hold what their last user wrote.
    pub(crate) dirty: AtomicU64,
    /// Slices that are readable and writable.
    pub(crate) committed: AtomicU64,
    /// Slices given back to the system so far.
    pub(crate) purged: AtomicU64,
    /// Spans that were asked for.
    pub(crate) requests: AtomicU64,
    /// Spans that could not be had.
    pub(crate) failures: AtomicU64,
    /// Bytes that free pages inside living runs gave back so far.
    pub(crate) purged_in_runs: AtomicU64,
}

/// The pool that grows as the kernel lets it.
pub(crate) static DEFAULT: Pool = Pool::growing();

/// A new region is as large as a region slot.
const UNSET: usize = 0;

impl Pool {
    pub(crate) const fn growing() -> Pool {
        Pool {
            regions: [const { Region::new() }; REGIONS],
            made: AtomicU32::new(0),
            growth: Lock::new(()),
            region_bytes: AtomicUsize::new(UNSET),
            huge_pages: AtomicBool::new(false),
            counts: Counts {
                used: AtomicU64::new(0),
                dirty: AtomicU64::new(0),
                committed: AtomicU64::new(0),
                purged: AtomicU64::new(0),
                requests: AtomicU64::new(0),
                failures: AtomicU64::new(0),
                purged_in_runs: AtomicU64::new(0),
            },
        }
    }

    /// Sets how many bytes of slices a new region has room for.
    pub(crate) fn set_region_bytes(&self, bytes: usize) {
        self.region_bytes.store(bytes, Relaxed);
    }

    /// Asks for transparent huge pages in what is committed from now on.
    pub(crate) fn set_huge_pages(&self, wanted: bool) {
        self.huge_pages.store(wanted, Relaxed);
    }

    /// Whether huge pages are asked for.
    pub(crate) fn huge_pages(&self) -> bool {
        self.huge_pages.load(Relaxed)
    }

    /// The regions made so far, in the order in which they are searched.
    #[inline]
    pub(crate) fn regions(&self) -> &[Region] {
        // Acquire pairs with the Release in `add_region`: the regions below are made.
        &self.regions[..self.made.load(Ordering::Acquire) as usize]
    }

    /// The region whose slices hold `address`.
    pub(crate) fn region_of(&self, address: usize) -> Option<&Region> {
        self.regions()
            .iter()
            .find(|region| region.contains(address))
    }

    /// Reserves one more region, with room for at least `needed` bytes. The guard proves that
    /// nobody else does.
    pub(crate) fn add_region(
        &self,
        needed: usize,
        _growth: &Guard<'_, ()>,
    ) -> Result<&Region, AllocFailure> {
        if needed >= REGION {
            return Err(AllocFailure::TooLarge {
                bytes: needed as u64,
            });
        }
        let made = self.made.load(Relaxed) as usize;
        let region = self.regions.get(made).ok_or(AllocFailure::AddressSpace {
            errno: libc::ENOMEM,
        })?;
        let wanted = match self.region_bytes.load(Relaxed) {
            UNSET => REGION,
            bytes => bytes,
        };
        region
            .reserve(wanted, needed)
            .map_err(|Refused(errno)| AllocFailure::AddressSpace { errno })?;
        region
            .commit_records()
            .map_err(|Refused(errno)| AllocFailure::Commit { errno })?;
        // Release pairs with the Acquire in `regions`.
        self.made.store(made as u32 + 1, Ordering::Release);
        Ok(region)
    }

    /// Makes the descriptors of the chunks from the region's last to below `end` usable. The
    /// caller initialises their records and then calls [`publish`](Self::publish).
    pub(crate) fn commit_descriptors(
        &self,
        region: &Region,
        end: usize,
        _growth: &Guard<'_, ()>,
    ) -> Result<(), AllocFailure> {
        region
            .commit_descriptors(region.grown(), end)
            .map_err(|Refused(errno)| AllocFailure::Commit { errno })
    }

    /// Lets everybody see the chunks below `end`.
    pub(crate) fn publish(&self, region: &Region, end: usize, _growth: &Guard<'_, ()>) {
        region.publish(end);
    }

    /// Bytes of address space that are reserved.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        self.regions()
            .iter()
            .map(|region| region.reserved() as u64)
            .sum()
    }

    /// Holds growth and records still while the process forks. The answers tell
    /// [`after_fork`](Self::after_fork) what was taken.
    pub(crate) fn before_fork(&self) -> [bool; 2] {
        [
            self.growth.lock_before_fork(),
            metadata::ROOM.lock_before_fork(),
        ]
    }

    /// Lets them go again.
    pub(crate) fn after_fork(&self, [growth, room]: [bool; 2], in_child: bool) {
        metadata::ROOM.after_fork(room, in_child);
        self.growth.after_fork(growth, in_child);
    }
}

/// `bytes` rounded up to whole OS pages; `None` if that overflows.
pub(crate) fn page_rounded(bytes: usize) -> Option<usize> {
    let page = page_size();
    bytes.checked_add(page - 1).map(|sum| sum & !(page - 1))
}
