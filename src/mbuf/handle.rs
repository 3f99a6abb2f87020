//! What processes tell each other: which buffer, and who.

use core::fmt;

/// A process in a set of pools, as others name it. Never given out twice by one set.
///
/// The bits travel as the program likes; a value that names no process is refused where it is used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Peer(pub(super) u64);

impl Peer {
    /// As a number, never 0.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// From a number; `None` for 0.
    pub const fn from_bits(bits: u64) -> Option<Peer> {
        if bits == 0 { None } else { Some(Peer(bits)) }
    }
}

/// Names a buffer to other processes: its pool, its place there, and which of the buffers that were
/// at that place it is.
///
/// A handle is data: it holds nothing, and may be sent by any way, as [bytes](Self::to_bytes). One
/// that is forged, outdated or from elsewhere is an error where it is [opened](crate::Mbuf::open).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MbufHandle {
    /// The set of pools.
    pub(super) set: u64,
    /// Bytes from the start of the pool.
    pub(super) offset: u64,
    pub(super) generation: u64,
    /// The process that it is for, or 0 if any may open it.
    pub(super) to: u64,
    pub(super) pool: u32,
}

impl MbufHandle {
    /// Bytes of a handle.
    pub const BYTES: usize = 36;

    /// The pool, from 0 in the order of the specification.
    pub const fn pool(self) -> usize {
        self.pool as usize
    }

    /// Where the buffer is in the pool, in bytes.
    pub const fn offset(self) -> u64 {
        self.offset
    }

    /// Which buffer at that place.
    pub const fn generation(self) -> u64 {
        self.generation
    }

    /// The process that it was made for; `None` if any may open it.
    pub const fn peer(self) -> Option<Peer> {
        Peer::from_bits(self.to)
    }

    /// To be sent.
    pub const fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let words = [self.set, self.offset, self.generation, self.to];
        let mut index = 0;
        while index < Self::BYTES {
            bytes[index] = if index < 32 {
                words[index / 8].to_le_bytes()[index % 8]
            } else {
                self.pool.to_le_bytes()[index - 32]
            };
            index += 1;
        }
        bytes
    }

    /// As it was sent. Any bytes are a handle, if not of any buffer.
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> MbufHandle {
        let mut words = [0_u64; 5];
        let mut index = 0;
        while index < Self::BYTES {
            words[index / 8] |= (bytes[index] as u64) << (index % 8 * 8);
            index += 1;
        }
        MbufHandle {
            set: words[0],
            offset: words[1],
            generation: words[2],
            to: words[3],
            pool: words[4] as u32,
        }
    }
}

impl fmt::Display for MbufHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "buffer {:#x} at byte {} of pool {}",
            self.generation,
            self.offset,
            u64::from(self.pool) + 1
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_and_back(bytes in any::<[u8; 32]>(), pool in any::<u32>()) {
            let mut whole = [0; MbufHandle::BYTES];
            whole[..32].copy_from_slice(&bytes);
            whole[32..].copy_from_slice(&pool.to_le_bytes());
            let handle = MbufHandle::from_bytes(whole);
            prop_assert_eq!(handle.pool(), pool as usize);
            prop_assert_eq!(handle.to_bytes(), whole);
        }
    }
}
