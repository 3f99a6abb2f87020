//! Why an allocation failed, and why a pool could not be made.

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

/// Why a pool could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PoolError {
    /// The size is out of range.
    Size {
        /// Bytes that were asked for.
        bytes: u64,
        /// The least that a pool may have.
        least: u64,
        /// The most.
        most: u64,
    },
    /// The limit is out of range.
    Limit {
        /// The limit that was asked for.
        bytes: u64,
        /// The least that it may be, beside none at all.
        least: u64,
        /// The most: the pool's size.
        most: u64,
    },
    /// The kernel reserved no address space.
    AddressSpace {
        /// Bytes of the pool.
        bytes: u64,
        /// The system's error number.
        errno: i32,
    },
    /// The machine has set too few huge pages aside (`vm.nr_hugepages`), or knows none.
    HugePages {
        /// Bytes of the pool.
        bytes: u64,
        /// The system's error number.
        errno: i32,
    },
    /// The file could not be made or mapped.
    File {
        /// The system's error number.
        errno: i32,
    },
    /// Shared memory could not be made or mapped.
    Shared {
        /// The system's error number.
        errno: i32,
    },
    /// No memory for the allocator's own records.
    Metadata,
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PoolError::Size { bytes, least, most } => write!(
                f,
                "the size of the pool is {bytes}: expected {least} to {most} (bytes)"
            ),
            PoolError::Limit { bytes, least, most } => write!(
                f,
                "the limit of the pool is {bytes}: expected 0 for none, or {least} to {most} (bytes)"
            ),
            PoolError::AddressSpace { bytes, errno } => write!(
                f,
                "no address space for a pool of {bytes} bytes (errno {errno})"
            ),
            PoolError::HugePages { bytes, errno } => write!(
                f,
                "too few huge pages are set aside for a pool of {bytes} bytes (errno {errno}): \
                 see vm.nr_hugepages"
            ),
            PoolError::File { errno } => {
                write!(f, "the pool's file could not be made (errno {errno})")
            }
            PoolError::Shared { errno } => {
                write!(
                    f,
                    "the pool's shared memory could not be made (errno {errno})"
                )
            }
            PoolError::Metadata => write!(f, "no memory for the allocator's own records"),
        }
    }
}

impl core::error::Error for PoolError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn every_failure_says_what_was_wanted() {
        let (bytes, limit, errno) = (5000, 4096, 12);
        for (failure, text) in [
            (
                AllocFailure::Limit { limit, bytes },
                "5000 bytes more would pass the hard limit of 4096",
            ),
            (
                AllocFailure::TooLarge { bytes },
                "5000 bytes are more than a region holds",
            ),
            (
                AllocFailure::AddressSpace { errno },
                "the kernel reserved no more address space (errno 12)",
            ),
            (
                AllocFailure::Commit { errno },
                "the kernel refused to commit memory (errno 12)",
            ),
            (
                AllocFailure::Metadata,
                "no memory for the allocator's own records",
            ),
            (
                AllocFailure::PoolsFull { bytes },
                "no pool that serves it has room for 5000 bytes",
            ),
            (
                AllocFailure::NoPool { bytes },
                "no pool serves requests of 5000 bytes",
            ),
        ] {
            assert_eq!(failure.to_string(), text);
        }
    }

    #[test]
    fn every_error_of_a_pool_names_the_value_and_what_is_expected() {
        let (bytes, errno) = (5000, 12);
        let (least, most) = (1024, 4096);
        for (error, text) in [
            (
                PoolError::Size { bytes, least, most },
                "the size of the pool is 5000: expected 1024 to 4096 (bytes)",
            ),
            (
                PoolError::Limit { bytes, least, most },
                "the limit of the pool is 5000: expected 0 for none, or 1024 to 4096 (bytes)",
            ),
            (
                PoolError::AddressSpace { bytes, errno },
                "no address space for a pool of 5000 bytes (errno 12)",
            ),
            (
                PoolError::HugePages { bytes, errno },
                "too few huge pages are set aside for a pool of 5000 bytes (errno 12): see \
                 vm.nr_hugepages",
            ),
            (
                PoolError::File { errno },
                "the pool's file could not be made (errno 12)",
            ),
            (
                PoolError::Shared { errno },
                "the pool's shared memory could not be made (errno 12)",
            ),
            (
                PoolError::Metadata,
                "no memory for the allocator's own records",
            ),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }
}
