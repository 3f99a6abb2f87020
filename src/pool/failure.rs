//! Why an allocation failed.

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
    /// Every pool that may serve the request is full, or has no free span that is long enough.
    PoolsFull {
        /// Bytes that were asked for.
        bytes: u64,
    },
    /// No pool serves requests of that size.
    NoPool {
        /// Bytes that were asked for.
        bytes: u64,
    },
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
            AllocFailure::PoolsFull { bytes } => {
                write!(f, "no pool that serves it has room for {bytes} bytes")
            }
            AllocFailure::NoPool { bytes } => {
                write!(f, "no pool serves requests of {bytes} bytes")
            }
        }
    }
}

impl core::error::Error for AllocFailure {}
