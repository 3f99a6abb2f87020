//! What can go wrong with message buffers.

use super::handle::MbufHandle;
use core::error::Error;
use core::fmt;

/// Why an operation on message buffers failed. Bytes are those of whole requests, heads included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum MbufError {
    /// No pool that admits the request has room for it.
    Full {
        /// Bytes of the request.
        bytes: u64,
    },
    /// Every pool has a limit below the request.
    NotAdmitted {
        /// Bytes of the request.
        bytes: u64,
        /// The highest limit.
        limit: u64,
    },
    /// The handle's buffer is no more, or the handle has been revoked or used up.
    Stale {
        /// The handle.
        handle: MbufHandle,
    },
    /// The handle is of another set of pools.
    Foreign {
        /// The handle.
        handle: MbufHandle,
    },
    /// The handle names a place where no buffer can be.
    Invalid {
        /// The handle.
        handle: MbufHandle,
    },
    /// The handle was made for another process.
    NotForThisProcess {
        /// The handle.
        handle: MbufHandle,
    },
    /// Others hold the buffer too.
    Shared,
    /// The process is not attached, or not any more.
    PeerGone,
    /// The process is attached and alive.
    PeerAlive,
    /// A process that lives has kept a pool to itself for too long: it is stopped, or misbehaves.
    Stalled {
        /// The pool, from 0 in the order of the specification.
        pool: usize,
    },
    /// The shared records of the pool contradict what this process knows, or each other: something
    /// wrote over them.
    Damaged {
        /// The pool, from 0 in the order of the specification.
        pool: usize,
    },
    /// The process was forked after it attached, and this is the child. It may attach itself.
    Forked,
    /// As many processes are attached as can be.
    TooManyProcesses,
    /// The descriptor is of no set of pools, or of one whose head was written over.
    NotPools,
    /// The system refused a call.
    System {
        /// What was tried.
        call: &'static str,
        /// The system's error number.
        errno: i32,
    },
}

impl fmt::Display for MbufError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MbufError::Full { bytes } => {
                write!(
                    f,
                    "no pool that admits a request of {bytes} bytes has room for it"
                )
            }
            MbufError::NotAdmitted { bytes, limit } => write!(
                f,
                "a request of {bytes} bytes is above the limit of every pool; the highest is {limit}"
            ),
            MbufError::Stale { handle } => write!(f, "{handle}: no such buffer any more"),
            MbufError::Foreign { handle } => write!(f, "{handle}: of another set of pools"),
            MbufError::Invalid { handle } => write!(f, "{handle}: no buffer can be there"),
            MbufError::NotForThisProcess { handle } => {
                write!(f, "{handle}: made for another process")
            }
            MbufError::Shared => f.write_str("others hold the buffer too"),
            MbufError::PeerGone => f.write_str("the process is not attached any more"),
            MbufError::PeerAlive => f.write_str("the process is attached and alive"),
            MbufError::Stalled { pool } => write!(
                f,
                "a process that lives does not let go of pool {}",
                pool + 1
            ),
            MbufError::Damaged { pool } => {
                write!(
                    f,
                    "the shared records of pool {} were written over",
                    pool + 1
                )
            }
            MbufError::Forked => {
                f.write_str("attached by the parent of this process, before the fork")
            }
            MbufError::TooManyProcesses => f.write_str("as many processes are attached as can be"),
            MbufError::NotPools => f.write_str("no set of message buffer pools"),
            MbufError::System { call, errno } => write!(f, "{call} failed (errno {errno})"),
        }
    }
}

impl Error for MbufError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn every_error_says_what_was_wanted() {
        let handle = MbufHandle::from_bytes([0; MbufHandle::BYTES]);
        let (bytes, limit, pool) = (5000, 4096, 1);
        let errno = 12;
        let of_a_handle = "buffer 0x0 at byte 0 of pool 1: ";
        for (error, text) in [
            (
                MbufError::Full { bytes },
                "no pool that admits a request of 5000 bytes has room for it",
            ),
            (
                MbufError::NotAdmitted { bytes, limit },
                "a request of 5000 bytes is above the limit of every pool; the highest is 4096",
            ),
            (MbufError::Stale { handle }, "no such buffer any more"),
            (MbufError::Foreign { handle }, "of another set of pools"),
            (MbufError::Invalid { handle }, "no buffer can be there"),
            (
                MbufError::NotForThisProcess { handle },
                "made for another process",
            ),
            (MbufError::Shared, "others hold the buffer too"),
            (MbufError::PeerGone, "the process is not attached any more"),
            (MbufError::PeerAlive, "the process is attached and alive"),
            (
                MbufError::Stalled { pool },
                "a process that lives does not let go of pool 2",
            ),
            (
                MbufError::Damaged { pool },
                "the shared records of pool 2 were written over",
            ),
            (
                MbufError::Forked,
                "attached by the parent of this process, before the fork",
            ),
            (
                MbufError::TooManyProcesses,
                "as many processes are attached as can be",
            ),
            (MbufError::NotPools, "no set of message buffer pools"),
            (
                MbufError::System {
                    call: "mmap",
                    errno,
                },
                "mmap failed (errno 12)",
            ),
        ] {
            let said = error.to_string();
            assert_eq!(said.strip_prefix(of_a_handle).unwrap_or(&said), text);
        }
    }
}
